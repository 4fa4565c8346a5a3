"""The tasks that are stored after their end, and those that are dropped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.errors import SchedulerOverloaded
from nsactors.protocol.tasks import RangeOutcome, RangeStatus
from nsactors.tasks.detached_results import StoredTask, StoredTasks


def task(number: int) -> StoredTask:
    return StoredTask(number, f"apply(f{number})", None, False, False, 0.0)


def with_arguments(number: int, nbytes: int) -> StoredTask:
    return StoredTask(number, f"apply(f{number})", None, False, False, 0.0, input_bytes=nbytes)


def piece(number: int) -> tuple[RangeOutcome, int]:
    return RangeOutcome(number, 0, 1, RangeStatus.OK, 0.1), 0


def run(tasks: StoredTasks, number: int, nbytes: int = 0, stored_bytes: int = 0) -> None:
    tasks.enter(task(number))
    tasks.add(number, piece(number), nbytes, stored_bytes)
    tasks.end(number, at=1.0)


def test_a_task_is_known_from_its_submission_with_what_has_come_of_it() -> None:
    tasks = StoredTasks()
    tasks.enter(task(1))
    known = tasks.get(1)
    assert known is not None
    assert (known.pieces, known.ended, known.failed) == ([], None, False)
    tasks.add(1, piece(1), failed=True)
    tasks.end(1, at=2.0)
    assert (known.pieces, known.ended, known.failed) == ([piece(1)], 2.0, True)


def test_those_that_ended_first_go_first() -> None:
    tasks = StoredTasks(limit_bytes=250)
    for number in (1, 2):
        tasks.enter(task(number))
        tasks.add(number, piece(number), 100)
    tasks.end(2, at=1.0)
    tasks.end(1, at=2.0)
    run(tasks, 3, 100)
    assert [known.number for known in tasks] == [1, 3]
    assert (tasks.dropped_label(2), tasks.dropped_label(1)) == ("apply(f2)", None)


def test_what_ended_last_is_kept_whatever_its_size() -> None:
    tasks = StoredTasks(limit_bytes=10, limit_stored_bytes=10)
    run(tasks, 1, 1_000)
    assert tasks.get(1) is not None
    run(tasks, 2, 0, 1_000)
    assert [known.number for known in tasks] == [2]


def test_what_has_come_of_a_task_that_runs_is_kept() -> None:
    tasks = StoredTasks(limit_bytes=10)
    tasks.enter(task(1))
    tasks.add(1, piece(1), 1_000)
    run(tasks, 2, 5)
    run(tasks, 3, 5)
    assert [known.number for known in tasks] == [1, 3]


def test_one_that_was_not_submitted_after_all_is_forgotten() -> None:
    tasks = StoredTasks()
    tasks.enter(task(1))
    tasks.withdraw(1)
    assert (tasks.get(1), tasks.dropped_label(1), list(tasks)) == (None, None, [])


@given(
    sizes=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=50),
    limit_tasks=st.integers(1, 10),
    limit=st.integers(0, 300),
)
def test_limits_hold_but_for_the_last_one_and_no_more_goes_than_has_to(
    sizes: list[tuple[int, int]], limit_tasks: int, limit: int
) -> None:
    tasks = StoredTasks(limit_tasks, limit, limit)
    for number, (nbytes, stored_bytes) in enumerate(sizes):
        run(tasks, number, nbytes, stored_bytes)
    numbers = [known.number for known in tasks]
    assert numbers == list(range(len(sizes) - len(numbers), len(sizes))), "the newest are stored, without gaps"

    def fits(first: int) -> bool:
        rest = sizes[first:]
        return len(rest) <= limit_tasks and all(sum(column) <= limit for column in zip(*rest, strict=True))

    assert len(numbers) <= 1 or fits(numbers[0])
    assert not numbers or numbers[0] == 0 or not fits(numbers[0] - 1)


def test_a_task_is_refused_while_the_arguments_of_others_take_the_room() -> None:
    tasks = StoredTasks(limit_input_bytes=100)
    for number, nbytes in ((1, 60), (2, 40)):
        tasks.enter(with_arguments(number, nbytes))
    tasks.enter(task(3))
    with pytest.raises(SchedulerOverloaded, match=r"apply\(f4\) is not submitted: .* hold 100 bytes"):
        tasks.enter(with_arguments(4, 1))
    assert tasks.get(4) is None
    tasks.withdraw(2)
    tasks.enter(with_arguments(4, 40))
    tasks.end(1, at=1.0)
    tasks.enter(with_arguments(5, 60))


def test_the_arguments_of_a_single_task_may_have_any_size() -> None:
    tasks = StoredTasks(limit_input_bytes=100)
    tasks.enter(with_arguments(1, 1_000))
    tasks.end(1, at=1.0)
    tasks.enter(with_arguments(2, 1_000))
