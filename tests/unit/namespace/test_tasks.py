"""An engine and its batches of tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.core.messages import RunTasks
from nsactors.core.payload import pack, unpack
from nsactors.core.scheduling import Span, Status
from nsactors.core.tasks import Part, Report, write_parts
from nsactors.errors import Failure, SerializationError, UnmetDependency
from nsactors.namespace.gate import InterruptGate
from nsactors.namespace.plain_shell import fresh_names
from nsactors.namespace.tasks import MAX_JOBS, TaskRunner

JOB = 70


def keep_nothing(name: str, value: Any) -> Any:
    raise AssertionError(f"nothing is kept here: {name}")


class Engine:
    """A runner, and what it answers."""

    def __init__(self) -> None:
        loop: Any = SimpleNamespace(awaiting=False)
        self.written = 0
        output: Any = SimpleNamespace(mark=lambda: self.written)
        self.runner = TaskRunner(0, fresh_names(), InterruptGate(loop), output, (), keep_nothing)
        self._number = 0

    def run(self, *parts: Part, budget_s: float = 10.0, number: int | None = None) -> Report:
        self._number = number or self._number + 1
        value = self.runner.run("ann", RunTasks("tasks", self._number, budget_s), pack(write_parts(parts)))
        return Report.from_value(unpack(pack(value)))

    def so_far(self, number: int) -> Report | None:
        payload = self.runner.so_far(("ann", number))
        return None if payload is None else Report.from_value(unpack(payload))

    def give_back(self, number: int, *spans: Span) -> tuple[Span, ...]:
        batch = ("ann", number)
        return self.runner.give_back([(batch, spans)])[batch]


@pytest.fixture
def engine() -> Engine:
    return Engine()


def call(task_id: int, function: Callable[..., Any], *args: Any) -> Part:
    return Part(task_id, 0, 1, "apply(f)", None, pack((function, args, {})))


def items(task_id: int, function: Callable[..., Any] | None, *column: Any, start: int = 0) -> Part:
    packed = None if function is None else pack(function)
    return Part(task_id, start, start + len(column), "map(f)", JOB, packed, pack((column,)))


def ends(report: Report) -> list[tuple[Any, int, int, Status, Any]]:
    """What became of items; of those that failed the name of the class that they raised."""
    values = [value.type_name if isinstance(value, Failure) else value for value in unpack(report.values)]
    return [(r.task_id, r.start, r.stop, r.status, v) for r, v in zip(report.ran, values, strict=True)]


def fail_on_two(x: int) -> int:
    if x == 2:
        raise KeyError(x)
    return x


def test_calls_and_items_run_in_order(engine: Engine) -> None:
    report = engine.run(call(1, abs, -3), items(2, abs, -1, -2, start=5), call(3, max, 4, 9))
    assert ends(report) == [(1, 0, 1, Status.OK, 3), (2, 5, 7, Status.OK, [1, 2]), (3, 0, 1, Status.OK, 9)]


def test_two_parts_of_one_map_may_come_in_any_order(engine: Engine) -> None:
    report = engine.run(items(2, abs, -1, start=5), items(2, abs, -2, -3, start=0))
    assert ends(report) == [(2, 5, 6, Status.OK, [1]), (2, 0, 2, Status.OK, [2, 3])]


def test_an_item_that_fails_does_so_alone(engine: Engine) -> None:
    report = engine.run(items(1, fail_on_two, 0, 1, 2, 3))
    assert ends(report) == [
        (1, 0, 2, Status.OK, [0, 1]),
        (1, 2, 3, Status.FAILED, "KeyError"),
        (1, 3, 4, Status.OK, [3]),
    ]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_no_exception_ends_the_batch(engine: Engine, error: type[BaseException]) -> None:
    def stop() -> None:
        raise error

    report = engine.run(call(1, stop), call(2, abs, -1))
    assert ends(report) == [(1, 0, 1, Status.FAILED, error.__name__), (2, 0, 1, Status.OK, 1)]


def test_a_result_that_cannot_be_pickled_fails_alone(engine: Engine) -> None:
    report = engine.run(
        items(1, lambda x: threading.Lock() if x == 1 else x, 0, 1, 2), call(2, threading.Lock), call(3, abs, -1)
    )
    failed = Status.FAILED, "SerializationError"
    assert ends(report) == [
        (1, 0, 1, Status.OK, [0]),
        (1, 1, 2, *failed),
        (1, 2, 3, Status.OK, [2]),
        (2, 0, 1, *failed),
        (3, 0, 1, Status.OK, 1),
    ]


class Unreadable:
    """Can be pickled, and not the other way round."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_arguments_that_cannot_be_unpickled_fail_their_call_alone(engine: Engine) -> None:
    report = engine.run(call(1, abs, Unreadable()), call(2, abs, -1))
    assert ends(report) == [(1, 0, 1, Status.FAILED, "ValueError"), (2, 0, 1, Status.OK, 1)]


def test_an_unmet_condition_is_told_as_such(engine: Engine) -> None:
    def unmet() -> None:
        raise UnmetDependency

    assert ends(engine.run(call(1, unmet))) == [(1, 0, 1, Status.UNMET, None)]


def test_nothing_is_begun_when_the_budget_is_spent(engine: Engine) -> None:
    assert ends(engine.run(items(1, abs, -1, -2), call(2, abs, -1), budget_s=0.0)) == [(1, 0, 1, Status.OK, [1])]


def test_a_function_is_kept_for_later_parts(engine: Engine) -> None:
    engine.run(items(1, abs, -1))
    assert ends(engine.run(items(1, None, -2, start=1))) == [(1, 1, 2, Status.OK, [2])]


def test_a_function_comes_once_in_a_batch_and_serves_all_its_parts(engine: Engine) -> None:
    report = engine.run(items(1, abs, -1), items(2, None, -2))
    assert ends(report) == [(1, 0, 1, Status.OK, [1]), (2, 0, 1, Status.OK, [2])]


def test_a_function_is_there_though_the_part_that_brought_it_was_taken_back(engine: Engine) -> None:
    engine.give_back(1, Span(1))
    assert ends(engine.run(items(1, abs, -1), items(2, None, -2))) == [(2, 0, 1, Status.OK, [2])]


def test_a_function_that_is_missing_is_told_and_its_items_are_not_begun(engine: Engine) -> None:
    report = engine.run(items(1, None, -1), call(2, abs, -1))
    assert report.missing == (JOB,)
    assert ends(report) == [(2, 0, 1, Status.OK, 1)]


def test_functions_are_forgotten_one_day_and_when_the_namespace_is_emptied(engine: Engine) -> None:
    for job in range(MAX_JOBS + 1):
        engine.run(items(1, abs, -1)._replace(job=job))
    assert engine.run(items(1, None, -1)._replace(job=0)).missing == (0,)
    assert engine.run(items(1, None, -1)._replace(job=MAX_JOBS)).missing == ()
    engine.runner.forget_functions()
    assert engine.run(items(1, None, -1)._replace(job=MAX_JOBS)).missing == (MAX_JOBS,)


_during: list[Callable[[], object]] = []


def call_what_is_due() -> None:
    """Runs as a task: in this process, so it can do what another thread would."""
    _during.pop()()


def test_what_has_not_begun_is_given_back(engine: Engine) -> None:
    given: list[Span] = []
    _during.append(lambda: given.extend(engine.give_back(1, Span(1), Span(2, 0, 3), Span(3))))
    report = engine.run(call(1, call_what_is_due), items(2, abs, 1, 2, 3), call(3, abs, 1), call(4, abs, -4))
    assert given == [Span(2, 0, 3), Span(3)]
    assert ends(report) == [(1, 0, 1, Status.OK, None), (4, 0, 1, Status.OK, 4)]
    assert engine.give_back(1, Span(4)) == ()


def test_a_batch_that_was_taken_back_before_it_came_is_not_begun(engine: Engine) -> None:
    assert engine.give_back(1, Span(1), Span(2, 0, 3)) == (Span(1), Span(2, 0, 3))
    assert ends(engine.run(call(1, abs, -1), items(2, abs, 1, 2, 3), call(3, abs, -1), number=1)) == [
        (3, 0, 1, Status.OK, 1)
    ]
    assert engine.give_back(1, Span(1)) == ()


# What there is of a batch that still runs.

WHILE_IT_RUNS: list[Callable[[], object]] = []


def pause_at_none(x: Any) -> Any:
    """What tests put into ``WHILE_IT_RUNS`` happens when the item None comes."""
    if x is None:
        for function in WHILE_IT_RUNS:
            function()
    return x


@pytest.fixture
def seen(engine: Engine) -> Iterator[list[Report | None]]:
    """What another thread is told of batch 1 whenever the item None runs."""
    seen: list[Report | None] = []

    def look() -> None:
        asker = threading.Thread(target=lambda: seen.append(engine.so_far(1)))
        asker.start()
        asker.join(10)

    WHILE_IT_RUNS.append(look)
    yield seen
    WHILE_IT_RUNS.clear()


def test_results_are_there_while_the_rest_runs_and_the_reply_repeats_them_as_they_were(
    engine: Engine, seen: list[Report | None]
) -> None:
    report = engine.run(call(1, abs, -1), items(2, pause_at_none, "a", "b", None, "c", start=5))
    assert seen[0] is not None
    assert ends(seen[0]) == [(1, 0, 1, Status.OK, 1), (2, 5, 7, Status.OK, ["a", "b"])]
    assert report.ran[:2] == seen[0].ran
    assert ends(report) == [*ends(seen[0]), (2, 7, 9, Status.OK, [None, "c"])]


def test_times_of_what_is_told_are_those_of_its_items(engine: Engine, seen: list[Report | None]) -> None:
    report = engine.run(items(2, pause_at_none, "a", None))
    first, second = report.ran
    assert second.started == pytest.approx(first.started + first.elapsed_s)


def test_failures_are_told_too(engine: Engine, seen: list[Report | None]) -> None:
    engine.run(call(1, fail_on_two, 2), items(2, pause_at_none, "a", None))
    assert seen[0] is not None
    assert [(end[0], end[3]) for end in ends(seen[0])] == [(1, Status.FAILED), (2, Status.OK)]


def test_nothing_is_told_of_what_has_written_something(engine: Engine, seen: list[Report | None]) -> None:
    WHILE_IT_RUNS.insert(0, lambda: setattr(engine, "written", 1))
    report = engine.run(call(1, abs, -1), items(2, pause_at_none, "a", None))
    assert seen[0] is not None
    assert ends(seen[0]) == [(1, 0, 1, Status.OK, 1)]
    assert ends(report) == [(1, 0, 1, Status.OK, 1), (2, 0, 2, Status.OK, ["a", None])]


def test_there_is_nothing_before_an_item_has_ended_nor_of_other_batches(
    engine: Engine, seen: list[Report | None]
) -> None:
    engine.run(items(2, pause_at_none, None))
    assert seen == [None]
    assert engine.so_far(1) is engine.so_far(2) is None


def test_results_that_cannot_be_pickled_are_left_to_the_reply(engine: Engine, seen: list[Report | None]) -> None:
    def look() -> None:
        with pytest.raises(SerializationError):
            engine.so_far(1)

    WHILE_IT_RUNS[:] = [look]
    report = engine.run(call(1, threading.Lock), items(2, pause_at_none, None))
    assert [end[3] for end in ends(report)] == [Status.FAILED, Status.OK]


def test_however_often_it_is_asked_each_result_is_in_the_reply_once(engine: Engine) -> None:
    over = threading.Event()
    told: list[Report] = []

    def ask() -> None:
        while not over.is_set():
            if (report := engine.so_far(1)) is not None:
                told.append(report)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        report = engine.run(items(2, abs, *range(20_000)))
    finally:
        over.set()
        asker.join(10)
    assert [value for end in ends(report) for value in end[4]] == list(range(20_000))
    assert all(each.ran == report.ran[: len(each.ran)] for each in told)


def test_an_item_can_be_interrupted_from_the_moment_at_which_it_cannot_be_taken_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, entered = engine.runner, []
    # Whoever takes back holds the same lock.
    monkeypatch.setattr(
        runner._gate, "enter", lambda item: entered.append((runner.current == item, runner._lock.locked()))
    )
    engine.run(call(1, abs, -1), items(2, abs, -1, -2))
    assert entered == [(True, True)] * 3
