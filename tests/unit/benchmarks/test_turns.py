"""The clock of a turn."""

from benchmarks.operations.turns import WARM_UP_RUNS, take_turn


def test_each_run_is_timed_after_some_that_do_not_count() -> None:
    runs: list[int] = []
    turn = take_turn(lambda: runs.append(1), 5)
    assert (len(turn.seconds), len(runs)) == (5, 5 + WARM_UP_RUNS)


def test_a_single_run_is_warmed_up_once() -> None:
    runs: list[int] = []
    take_turn(lambda: runs.append(1), 1)
    assert len(runs) == 2


def test_cpu_time_is_that_of_one_run() -> None:
    turn = take_turn(lambda: sum(range(200_000)), 10)
    assert 0 < turn.cpu_s < 2 * max(turn.seconds)
