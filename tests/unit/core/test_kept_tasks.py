"""What is kept of tasks that have ended, and what has to go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.core.kept_tasks import KeptTask, KeptTasks
from nsactors.core.scheduling import Ran, Status
from nsactors.errors import SchedulerOverloaded


def task(number: int) -> KeptTask:
    return KeptTask(number, f"apply(f{number})", None, False, False, 0.0)


def with_arguments(number: int, nbytes: int) -> KeptTask:
    return KeptTask(number, f"apply(f{number})", None, False, False, 0.0, input_bytes=nbytes)


def piece(number: int) -> tuple[Ran, int]:
    return Ran(number, 0, 1, Status.OK, 0.1), 0


def run(kept: KeptTasks, number: int, nbytes: int = 0, stored_bytes: int = 0) -> None:
    kept.enter(task(number))
    kept.add(number, piece(number), nbytes, stored_bytes)
    kept.end(number, at=1.0)


def test_a_task_is_known_from_its_submission_with_what_has_come_of_it() -> None:
    kept = KeptTasks()
    kept.enter(task(1))
    known = kept.get(1)
    assert known is not None
    assert (known.pieces, known.ended, known.failed) == ([], None, False)
    kept.add(1, piece(1), failed=True)
    kept.end(1, at=2.0)
    assert (known.pieces, known.ended, known.failed) == ([piece(1)], 2.0, True)


def test_those_that_ended_first_go_first() -> None:
    kept = KeptTasks(limit_bytes=250)
    for number in (1, 2):
        kept.enter(task(number))
        kept.add(number, piece(number), 100)
    kept.end(2, at=1.0)
    kept.end(1, at=2.0)
    run(kept, 3, 100)
    assert [known.number for known in kept] == [1, 3]
    assert (kept.dropped_label(2), kept.dropped_label(1)) == ("apply(f2)", None)


def test_what_ended_last_is_kept_whatever_its_size() -> None:
    kept = KeptTasks(limit_bytes=10, limit_stored_bytes=10)
    run(kept, 1, 1_000)
    assert kept.get(1) is not None
    run(kept, 2, 0, 1_000)
    assert [known.number for known in kept] == [2]


def test_what_has_come_of_a_task_that_runs_is_kept() -> None:
    kept = KeptTasks(limit_bytes=10)
    kept.enter(task(1))
    kept.add(1, piece(1), 1_000)
    run(kept, 2, 5)
    run(kept, 3, 5)
    assert [known.number for known in kept] == [1, 3]


def test_one_that_was_not_submitted_after_all_is_forgotten() -> None:
    kept = KeptTasks()
    kept.enter(task(1))
    kept.withdraw(1)
    assert (kept.get(1), kept.dropped_label(1), list(kept)) == (None, None, [])


@given(
    sizes=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=50),
    limit_tasks=st.integers(1, 10),
    limit=st.integers(0, 300),
)
def test_limits_hold_but_for_the_last_one_and_no_more_goes_than_has_to(
    sizes: list[tuple[int, int]], limit_tasks: int, limit: int
) -> None:
    kept = KeptTasks(limit_tasks, limit, limit)
    for number, (nbytes, stored_bytes) in enumerate(sizes):
        run(kept, number, nbytes, stored_bytes)
    numbers = [known.number for known in kept]
    assert numbers == list(range(len(sizes) - len(numbers), len(sizes))), "the newest are kept, without gaps"

    def fits(first: int) -> bool:
        rest = sizes[first:]
        return len(rest) <= limit_tasks and all(sum(column) <= limit for column in zip(*rest, strict=True))

    assert len(numbers) <= 1 or fits(numbers[0])
    assert not numbers or numbers[0] == 0 or not fits(numbers[0] - 1)


def test_a_task_is_refused_while_the_arguments_of_others_take_the_room() -> None:
    kept = KeptTasks(limit_input_bytes=100)
    for number, nbytes in ((1, 60), (2, 40)):
        kept.enter(with_arguments(number, nbytes))
    kept.enter(task(3))
    with pytest.raises(SchedulerOverloaded, match=r"apply\(f4\) is not submitted: .* hold 100 bytes"):
        kept.enter(with_arguments(4, 1))
    assert kept.get(4) is None
    kept.withdraw(2)
    kept.enter(with_arguments(4, 40))
    kept.end(1, at=1.0)
    kept.enter(with_arguments(5, 60))


def test_the_arguments_of_a_single_task_may_have_any_size() -> None:
    kept = KeptTasks(limit_input_bytes=100)
    kept.enter(with_arguments(1, 1_000))
    kept.end(1, at=1.0)
    kept.enter(with_arguments(2, 1_000))
