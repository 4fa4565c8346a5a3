"""An engine and its batches of tasks."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.errors import Failure, SerializationError, UnmetDependency
from nsactors.namespace import task_runner
from nsactors.namespace.interrupts import InterruptHandler
from nsactors.namespace.plain_shell import fresh_names
from nsactors.namespace.task_runner import MAX_JOBS, TaskRunner
from nsactors.protocol.messages import Expired, RunTasks
from nsactors.protocol.serialize import pack, unpack
from nsactors.protocol.tasks import BatchPart, BatchReport, RangeStatus, TaskRange, write_parts
from nsactors.testing import wait_until
from tests.counting import counted_steps

JOB = 70


def keep_nothing(name: str, value: Any) -> Any:
    raise AssertionError(f"nothing is kept here: {name}")


class Engine:
    """A runner, and what it answers."""

    def __init__(self) -> None:
        loop: Any = SimpleNamespace(awaiting=False)
        self.written = 0
        output: Any = SimpleNamespace(mark=lambda: self.written)
        self.runner = TaskRunner(0, fresh_names(), InterruptHandler(loop), output, (), keep_nothing)
        self._number = 0

    def run(self, *parts: BatchPart, budget_s: float = 10.0, number: int | None = None) -> BatchReport:
        self._number = number or self._number + 1
        value = self.runner.run("ann", RunTasks("tasks", self._number, budget_s), pack(write_parts(parts)))
        return BatchReport.from_value(unpack(pack(value)))

    def so_far(self, number: int) -> BatchReport | None:
        payload = self.runner.so_far(("ann", number))
        return None if payload is None else BatchReport.from_value(unpack(payload))

    def give_back(self, number: int, *spans: TaskRange) -> tuple[TaskRange, ...]:
        batch = ("ann", number)
        return self.runner.steal([(batch, spans)])[batch]


@pytest.fixture
def engine() -> Engine:
    return Engine()


def call(task_id: int, function: Callable[..., Any], *args: Any) -> BatchPart:
    return BatchPart(task_id, 0, 1, "apply(f)", None, pack((function, args, {})))


def items(task_id: int, function: Callable[..., Any] | None, *column: Any, start: int = 0) -> BatchPart:
    packed = None if function is None else pack(function)
    return BatchPart(task_id, start, start + len(column), "map(f)", JOB, packed, pack((column,)))


def ends(report: BatchReport) -> list[tuple[Any, int, int, RangeStatus, Any]]:
    """Return the outcomes of items; for an item that failed, the name of the class of its error."""
    values = [value.type_name if isinstance(value, Failure) else value for value in unpack(report.values)]
    return [(r.task_id, r.start, r.stop, r.status, v) for r, v in zip(report.outcomes, values, strict=True)]


def fail_on_two(x: int) -> int:
    if x == 2:
        raise KeyError(x)
    return x


def test_calls_and_items_run_in_order(engine: Engine) -> None:
    report = engine.run(call(1, abs, -3), items(2, abs, -1, -2, start=5), call(3, max, 4, 9))
    assert ends(report) == [
        (1, 0, 1, RangeStatus.OK, 3),
        (2, 5, 7, RangeStatus.OK, [1, 2]),
        (3, 0, 1, RangeStatus.OK, 9),
    ]


def test_two_parts_of_one_map_may_come_in_any_order(engine: Engine) -> None:
    report = engine.run(items(2, abs, -1, start=5), items(2, abs, -2, -3, start=0))
    assert ends(report) == [(2, 5, 6, RangeStatus.OK, [1]), (2, 0, 2, RangeStatus.OK, [2, 3])]


def test_an_item_that_fails_does_so_alone(engine: Engine) -> None:
    report = engine.run(items(1, fail_on_two, 0, 1, 2, 3))
    assert ends(report) == [
        (1, 0, 2, RangeStatus.OK, [0, 1]),
        (1, 2, 3, RangeStatus.FAILED, "KeyError"),
        (1, 3, 4, RangeStatus.OK, [3]),
    ]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_no_exception_ends_the_batch(engine: Engine, error: type[BaseException]) -> None:
    def stop() -> None:
        raise error

    report = engine.run(call(1, stop), call(2, abs, -1))
    assert ends(report) == [(1, 0, 1, RangeStatus.FAILED, error.__name__), (2, 0, 1, RangeStatus.OK, 1)]


def test_a_result_that_cannot_be_pickled_fails_alone(engine: Engine) -> None:
    report = engine.run(
        items(1, lambda x: threading.Lock() if x == 1 else x, 0, 1, 2), call(2, threading.Lock), call(3, abs, -1)
    )
    failed = RangeStatus.FAILED, "SerializationError"
    assert ends(report) == [
        (1, 0, 1, RangeStatus.OK, [0]),
        (1, 1, 2, *failed),
        (1, 2, 3, RangeStatus.OK, [2]),
        (2, 0, 1, *failed),
        (3, 0, 1, RangeStatus.OK, 1),
    ]


class Unreadable:
    """Can be pickled, and not the other way round."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_arguments_that_cannot_be_unpickled_fail_their_call_alone(engine: Engine) -> None:
    report = engine.run(call(1, abs, Unreadable()), call(2, abs, -1))
    assert ends(report) == [(1, 0, 1, RangeStatus.FAILED, "ValueError"), (2, 0, 1, RangeStatus.OK, 1)]


def test_an_unmet_condition_is_told_as_such(engine: Engine) -> None:
    def unmet() -> None:
        raise UnmetDependency("a licence")

    class Odd(UnmetDependency):
        def __init__(self) -> None:
            self.condition = ["no text"]  # type: ignore[assignment]

    def odd() -> None:
        raise Odd

    report = engine.run(call(1, unmet), call(2, odd))
    assert ends(report) == [(1, 0, 1, RangeStatus.UNMET, "a licence"), (2, 0, 1, RangeStatus.UNMET, "")]


def test_nothing_is_begun_when_the_budget_is_spent(engine: Engine) -> None:
    assert ends(engine.run(items(1, abs, -1, -2), call(2, abs, -1), budget_s=0.0)) == [(1, 0, 1, RangeStatus.OK, [1])]


def test_a_function_is_kept_for_later_parts(engine: Engine) -> None:
    engine.run(items(1, abs, -1))
    assert ends(engine.run(items(1, None, -2, start=1))) == [(1, 1, 2, RangeStatus.OK, [2])]


def test_a_function_comes_once_in_a_batch_and_serves_all_its_parts(engine: Engine) -> None:
    report = engine.run(items(1, abs, -1), items(2, None, -2))
    assert ends(report) == [(1, 0, 1, RangeStatus.OK, [1]), (2, 0, 1, RangeStatus.OK, [2])]


def test_a_function_is_there_though_the_part_that_brought_it_was_taken_back(engine: Engine) -> None:
    engine.give_back(1, TaskRange(1))
    assert ends(engine.run(items(1, abs, -1), items(2, None, -2))) == [(2, 0, 1, RangeStatus.OK, [2])]


def test_a_function_that_is_missing_is_told_and_its_items_are_not_begun(engine: Engine) -> None:
    report = engine.run(items(1, None, -1), call(2, abs, -1))
    assert report.missing == (JOB,)
    assert ends(report) == [(2, 0, 1, RangeStatus.OK, 1)]


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
    given: list[TaskRange] = []
    _during.append(lambda: given.extend(engine.give_back(1, TaskRange(1), TaskRange(2, 0, 3), TaskRange(3))))
    report = engine.run(call(1, call_what_is_due), items(2, abs, 1, 2, 3), call(3, abs, 1), call(4, abs, -4))
    assert given == [TaskRange(2, 0, 3), TaskRange(3)]
    assert ends(report) == [(1, 0, 1, RangeStatus.OK, None), (4, 0, 1, RangeStatus.OK, 4)]
    assert engine.give_back(1, TaskRange(4)) == ()


def test_a_batch_that_was_taken_back_before_it_came_is_not_begun(engine: Engine) -> None:
    assert engine.give_back(1, TaskRange(1), TaskRange(2, 0, 3)) == (TaskRange(1), TaskRange(2, 0, 3))
    assert ends(engine.run(call(1, abs, -1), items(2, abs, 1, 2, 3), call(3, abs, -1), number=1)) == [
        (3, 0, 1, RangeStatus.OK, 1)
    ]
    assert engine.give_back(1, TaskRange(1)) == ()


# What there is of a batch that still runs.

WHILE_IT_RUNS: list[Callable[[], object]] = []


def pause_at_none(x: Any) -> Any:
    """What tests put into ``WHILE_IT_RUNS`` happens when the item None comes."""
    if x is None:
        for function in WHILE_IT_RUNS:
            function()
    return x


@pytest.fixture
def seen(engine: Engine) -> Iterator[list[BatchReport | None]]:
    """The results of batch 1 that another thread gets whenever the item None runs."""
    seen: list[BatchReport | None] = []

    def look() -> None:
        asker = threading.Thread(target=lambda: seen.append(engine.so_far(1)))
        asker.start()
        asker.join(10)

    WHILE_IT_RUNS.append(look)
    yield seen
    WHILE_IT_RUNS.clear()


def test_results_are_there_while_the_rest_runs_and_the_reply_repeats_them_as_they_were(
    engine: Engine, seen: list[BatchReport | None]
) -> None:
    report = engine.run(call(1, abs, -1), items(2, pause_at_none, "a", "b", None, "c", start=5))
    assert seen[0] is not None
    assert ends(seen[0]) == [(1, 0, 1, RangeStatus.OK, 1), (2, 5, 7, RangeStatus.OK, ["a", "b"])]
    assert report.outcomes[:2] == seen[0].outcomes
    assert ends(report) == [*ends(seen[0]), (2, 7, 9, RangeStatus.OK, [None, "c"])]


def test_times_of_what_is_told_are_those_of_its_items(engine: Engine, seen: list[BatchReport | None]) -> None:
    report = engine.run(items(2, pause_at_none, "a", None))
    first, second = report.outcomes
    assert second.started == pytest.approx(first.started + first.elapsed_s)


def test_failures_are_told_too(engine: Engine, seen: list[BatchReport | None]) -> None:
    engine.run(call(1, fail_on_two, 2), items(2, pause_at_none, "a", None))
    assert seen[0] is not None
    assert [(end[0], end[3]) for end in ends(seen[0])] == [(1, RangeStatus.FAILED), (2, RangeStatus.OK)]


def test_nothing_is_told_of_what_has_written_something(engine: Engine, seen: list[BatchReport | None]) -> None:
    WHILE_IT_RUNS.insert(0, lambda: setattr(engine, "written", 1))
    report = engine.run(call(1, abs, -1), items(2, pause_at_none, "a", None))
    assert seen[0] is not None
    assert ends(seen[0]) == [(1, 0, 1, RangeStatus.OK, 1)]
    assert ends(report) == [(1, 0, 1, RangeStatus.OK, 1), (2, 0, 2, RangeStatus.OK, ["a", None])]


def test_there_is_nothing_before_an_item_has_ended_nor_of_other_batches(
    engine: Engine, seen: list[BatchReport | None]
) -> None:
    engine.run(items(2, pause_at_none, None))
    assert seen == [None]
    assert engine.so_far(1) is engine.so_far(2) is None


def test_results_that_cannot_be_pickled_are_left_to_the_reply(engine: Engine, seen: list[BatchReport | None]) -> None:
    def look() -> None:
        with pytest.raises(SerializationError):
            engine.so_far(1)

    WHILE_IT_RUNS[:] = [look]
    report = engine.run(call(1, threading.Lock), items(2, pause_at_none, None))
    assert [end[3] for end in ends(report)] == [RangeStatus.FAILED, RangeStatus.OK]


def test_however_often_it_is_asked_each_result_is_in_the_reply_once(engine: Engine) -> None:
    over = threading.Event()
    told: list[BatchReport] = []

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
    assert all(each.outcomes == report.outcomes[: len(each.outcomes)] for each in told)


def test_a_call_can_be_interrupted_from_the_moment_at_which_it_cannot_be_taken_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, entered = engine.runner, []
    # Whoever takes back holds the same lock.
    monkeypatch.setattr(
        runner._interrupts, "enter", lambda item: entered.append((runner._current == item, runner._lock.locked()))
    )
    engine.run(call(1, abs, -1), call(2, abs, -2))
    assert entered == [(True, True)] * 2


# Items of a map, which run in one loop.


def while_it_runs(*functions: Callable[[], object]) -> None:
    WHILE_IT_RUNS[:] = functions


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    WHILE_IT_RUNS.clear()


def test_each_item_is_the_one_that_an_interrupt_meets(engine: Engine) -> None:
    runner, seen = engine.runner, []

    def look() -> None:
        item = runner.current
        assert item is not None
        seen.append((item.task_id, item.position, runner._interrupts._running == item))
        others = [item._replace(position=number) for number in range(10) if number != item.position]
        assert all(runner._interrupts._running != other for other in others)

    while_it_runs(look)
    engine.run(items(2, pause_at_none, *[None] * 4, start=3))
    assert seen == [(2, 3, True), (2, 4, True), (2, 5, True), (2, 6, True)]
    assert runner.current is None
    assert runner._interrupts._running is None


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_an_item_that_runs_is_kept_and_those_after_it_are_given_back(engine: Engine, place: int) -> None:
    given: list[TaskRange] = []
    while_it_runs(lambda: given.extend(engine.give_back(1, TaskRange(2, 5, 9), TaskRange(3))))
    column = ["a", "b", "c", "d"]
    values: list[Any] = [None if at == place else value for at, value in enumerate(column)]
    report = engine.run(items(2, pause_at_none, *values, start=5), call(3, abs, -1), call(4, abs, -4))
    assert ends(report) == [
        (2, 5, 6 + place, RangeStatus.OK, values[: place + 1]),
        (4, 0, 1, RangeStatus.OK, 4),
    ]
    assert given == [*([TaskRange(2, 6 + place, 9)] if place < 3 else []), TaskRange(3)]


def test_items_of_other_ranges_are_not_given_back(engine: Engine) -> None:
    given: list[TaskRange] = []
    while_it_runs(lambda: given.extend(engine.give_back(1, TaskRange(2, 0, 2), TaskRange(9, 0, 4))))
    report = engine.run(items(2, pause_at_none, "a", None, "b", "c"))
    assert (given, ends(report)) == ([], [(2, 0, 4, RangeStatus.OK, ["a", None, "b", "c"])])


def test_no_item_begins_after_a_stop(engine: Engine) -> None:
    while_it_runs(engine.runner.stop)
    report = engine.run(items(2, pause_at_none, "a", "b", None, "c"), call(3, abs, -1))
    assert ends(report) == [(2, 0, 3, RangeStatus.OK, ["a", "b", None])]


def test_no_item_begins_when_the_budget_is_spent(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(task_runner.time, "perf_counter", lambda: now[0])
    while_it_runs(lambda: now.__setitem__(0, 11.0))
    given: list[tuple[TaskRange, ...]] = []
    monkeypatch.setattr(
        engine.runner,
        "_end_run",
        lambda end=engine.runner._end_run: (end(), given.append(engine.give_back(1, TaskRange(2, 0, 5)))),
    )
    report = engine.run(items(2, pause_at_none, "a", "b", None, "c", "d"), call(3, abs, -1), budget_s=10.0)
    assert ends(report) == [(2, 0, 3, RangeStatus.OK, ["a", "b", None])]
    assert given == [(TaskRange(2, 3, 5),)]


def test_items_of_several_sequences_are_called_together(engine: Engine) -> None:
    part = BatchPart(2, 4, 7, "map(f)", JOB, pack(pow), pack(([2, 3, 4], range(3))))
    assert ends(engine.run(part)) == [(2, 4, 7, RangeStatus.OK, [1, 3, 16])]


def test_items_of_several_sequences_are_copied_or_refused_one_by_one(engine: Engine) -> None:
    part = BatchPart(2, 0, 3, "map(f)", JOB, pack(pow), pack([[2, 3, Unreadable()], [1, 2, 3]]))
    assert [(end[1], end[2], end[3]) for end in ends(engine.run(part))] == [
        (0, 2, RangeStatus.OK),
        (2, 3, RangeStatus.FAILED),
    ]


def test_each_item_that_fails_is_told_with_its_number(engine: Engine) -> None:
    report = engine.run(items(1, fail_on_two, 2, 2, 0, 1, 2, start=5))
    statuses = [(end[1], end[2], end[3]) for end in ends(report)]
    failed, ok = RangeStatus.FAILED, RangeStatus.OK
    assert statuses == [(5, 6, failed), (6, 7, failed), (7, 9, ok), (9, 10, failed)]


def test_however_a_thread_steals_each_item_is_run_or_given_back_and_never_both(engine: Engine) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(1, 100):
            begun = threading.Event()
            given: list[TaskRange] = []

            def steal(number: int = number, begun: threading.Event = begun, given: list[TaskRange] = given) -> None:
                begun.wait(10)
                given.extend(engine.give_back(number, TaskRange(2, 0, 3000)))

            while_it_runs(begun.set)
            thief = threading.Thread(target=steal)
            thief.start()
            report = engine.run(items(2, pause_at_none, None, *range(1, 3000)), number=number)
            thief.join(60)
            ran = sum(outcome.stop - outcome.start for outcome in report.outcomes)
            assert [(end[1], end[2], end[4]) for end in ends(report)] == [(0, ran, [None, *range(1, ran)])]
            assert given == ([TaskRange(2, ran, 3000)] if ran < 3000 else [])
    finally:
        sys.setswitchinterval(before)


def spin(x: Any) -> Any:
    """An endless item, where the item is None."""
    while x is None:
        pass
    return x


def test_an_interrupt_ends_the_running_item_alone(engine: Engine) -> None:
    before = signal.getsignal(signal.SIGINT)
    engine.runner._interrupts.install()
    missed = threading.Event()

    def interrupt() -> None:
        wait_until(lambda: getattr(engine.runner.current, "position", None) == 2, timeout_s=30)
        engine.runner.interrupt("ann", [TaskRange(2, 0, 2)])  # not the running one
        engine.runner.interrupt("ben", [TaskRange(2, 0, 4)])
        missed.set()
        while engine.runner.current is not None:
            engine.runner.interrupt("ann", [TaskRange(2, 2, 3)])

    asker = threading.Thread(target=interrupt)
    asker.start()
    try:
        report = engine.run(items(2, spin, "a", "b", None, "c"))
    finally:
        asker.join(30)
        signal.signal(signal.SIGINT, before)
    assert missed.is_set()
    assert ends(report) == [
        (2, 0, 2, RangeStatus.OK, ["a", "b"]),
        (2, 2, 3, RangeStatus.FAILED, "KeyboardInterrupt"),
        (2, 3, 4, RangeStatus.OK, ["c"]),
    ]


def stubborn(x: Any) -> Any:
    """An item that catches its interrupt, where the item is None."""
    try:
        return spin(x)
    except KeyboardInterrupt:
        return "went on"


@pytest.mark.parametrize(("function", "ran"), [(spin, False), (stubborn, True)])
def test_an_item_whose_time_is_over_has_expired_and_the_others_have_not(
    engine: Engine, function: Callable[[Any], Any], ran: bool
) -> None:
    before = signal.getsignal(signal.SIGINT)
    engine.runner._interrupts.install()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            engine.runner.end_overdue()

    looker = threading.Thread(target=look)
    looker.start()
    try:
        report = engine.run(items(2, function, "a", "b", None, "c", None, "d")._replace(limit_s=0.3))
    finally:
        over.set()
        looker.join(30)
        signal.signal(signal.SIGINT, before)
    values = ends(report)
    assert [(end[1], end[2], end[3]) for end in values] == [
        (0, 2, RangeStatus.OK),
        (2, 3, RangeStatus.FAILED),
        (3, 4, RangeStatus.OK),
        (4, 5, RangeStatus.FAILED),
        (5, 6, RangeStatus.OK),
    ]
    assert [values[0][4], values[2][4], values[4][4]] == [["a", "b"], ["c"], ["d"]]
    assert all(type(end[4]) is Expired and (end[4].ran_s is not None) == ran for end in values[1::2])
    assert engine.runner._limit._running is None


def test_the_clock_of_an_item_that_waits_for_a_user_stands_still(engine: Engine) -> None:
    runner = engine.runner

    def wait_for_user() -> None:
        runner.pause_limit()
        item = runner.current
        assert runner._limit._running == item
        runner._limit._clock = lambda: 1e9  # long after
        runner.end_overdue()
        assert runner._limit._times == 0
        runner.resume_limit()

    while_it_runs(wait_for_user)
    report = engine.run(items(2, pause_at_none, "a", "b", None, "c")._replace(limit_s=60.0))
    assert ends(report) == [(2, 0, 4, RangeStatus.OK, ["a", "b", None, "c"])]
    assert runner._limit._running is None


@pytest.mark.parametrize(("function", "columns", "limit_s"), [(abs, 1, None), (abs, 1, 60.0), (max, 3, None)])
def test_an_item_of_a_map_takes_few_steps(
    engine: Engine, function: Callable[..., Any], columns: int, limit_s: float | None
) -> None:
    counts = []
    for count in (100, 300):
        batch = BatchPart(2, 0, count, "map(f)", JOB, pack(function), pack([range(count)] * columns), limit_s)
        with counted_steps() as steps:
            engine.run(batch)
        counts.append(steps.count)
    assert (counts[1] - counts[0]) / 200 < 40
