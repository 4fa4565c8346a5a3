"""The task runner: batches of tasks, item by item, and their packed results.

Begin to read at :class:`TaskRunner`; the other classes help it. A :class:`Backlog` holds the task ranges that have not
begun, and :class:`TaskResults` holds those that have ended. The control thread may use both while
:meth:`TaskRunner.run` runs items, to steal ranges and to read results early.

A *batch* is a list of *parts*; a part is a call, or consecutive items of a map. A call counts as one *item*. A *task
range* gives the numbers of items without the items. Items run in one of two ways:

* *Singly*: calls, and the first item of each part of a map, which loads the function and the items of this part. If
  that fails, the next item runs singly too. Each item begins under a lock. Its time limit is set when it begins.
* *In a run*: the further items of a part of a map. A run (:class:`ItemRun`) begins under the lock; its items begin
  without it, when their places are taken from an iterator. Whoever steals items empties this iterator. The current item
  is computed when it is asked for. The thread that looks for late items sets an item's time limit when it is late.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import length_hint
from typing import Any, NamedTuple

from nsactors.errors import Failure, SerializationError, UnmetDependency
from nsactors.errors.exception_state import dict_of
from nsactors.errors.failure import FailedAt
from nsactors.namespace.interrupts import (
    InterruptHandler,
    TimeLimit,
    capture_failure,
    is_unknown_name,
    protected,
    run_user_code,
    run_user_item,
    run_user_row,
)
from nsactors.namespace.output import OutputRecorder
from nsactors.namespace.seeded_call import arguments_of_item
from nsactors.protocol.functions import keeping_builtins
from nsactors.protocol.messages import Expired, RunTasks
from nsactors.protocol.partition import own_items
from nsactors.protocol.process import OwnProcess
from nsactors.protocol.salvage import Broken, Salvage
from nsactors.protocol.serialize import OWN_BYTES, Payload, RemoteValue, pack, unpack
from nsactors.protocol.tasks import (
    BatchKey,
    BatchPart,
    BatchReport,
    RangeOutcome,
    RangeStatus,
    TaskId,
    TaskRange,
    read_parts,
)


class TaskResults:
    """The results of a batch. Consecutive items of a map that succeed are stored together.

    One thread runs the batch; other threads may call :meth:`so_far` at the same time.

    Args:
        output: the output of tasks.
        ref_types: classes of references to an object store.
        describe: describes an error of a task.
        keep: stores a value that must stay on this engine.

    Attributes:
        succeeded: values of consecutive items that have succeeded; the runner appends to it.
        began: the ``time.perf_counter()`` at which the current item began.
    """

    def __init__(
        self,
        output: OutputRecorder,
        ref_types: tuple[type, ...],
        describe: Callable[[BaseException, BatchPart], Any],
        keep: Callable[[str, Any], RemoteValue],
    ) -> None:
        self._output = output
        self._ref_types = ref_types
        self._keep = keep
        self._describe = describe
        self._ended: list[tuple[BatchPart, RangeOutcome]] = []
        self._lock = threading.Lock()
        self._part: BatchPart | None = None
        self._next = 0
        self._written = 0
        self._next_began = self.began = time.perf_counter()
        self._epoch = time.time() - self._next_began
        self.succeeded: list[Any] = []

    def begin(self, part: BatchPart, start: int) -> None:
        """Begin to run items of a part; the first of them is item ``start``."""
        self._part, self._next = part, start
        self._output.task_id = part.task_id

    def end_succeeded(self, upto: float) -> None:
        """Store the succeeded items; the last of them ended at ``upto``."""
        if self.succeeded:
            with self._lock:
                self._store_succeeded(upto, self._output.mark())

    def end(self, status: RangeStatus, value: Any, upto: float) -> None:
        """Store the outcome of a call, or of an item that failed."""
        with self._lock:
            self._store_outcome(status, value, 1, upto, self._output.mark())

    def so_far(self) -> BatchReport | None:
        """Return the results so far; None if there are none.

        The final report has the same outcomes, for the same ranges.

        An item that has written output is left out, since the output is still being sent. All items after it are left
        out too.
        """
        with self._lock:
            if (written := self._output.mark()) == self._written:
                self._store_succeeded(self.began, written)
            outcomes = (outcome for _, outcome in self._ended)
            silent = tuple(itertools.takewhile(lambda outcome: outcome.output[0] == outcome.output[1], outcomes))
        return BatchReport(silent, self._pack([outcome.value for outcome in silent])) if silent else None

    def _store_succeeded(self, upto: float, written: int) -> None:
        if count := len(self.succeeded):  # the runner's thread may append at any time
            values = self.succeeded[:count]
            del self.succeeded[:count]
            self._store_outcome(RangeStatus.OK, values, count, upto, written)

    def _store_outcome(self, status: RangeStatus, value: Any, count: int, upto: float, written: int) -> None:
        part, start, began, output = self._part, self._next, self._next_began, (self._written, written)
        assert part is not None, "items belong to a part"
        outcome = RangeOutcome(
            part.task_id, start, start + count, status, upto - began, value, self._epoch + began, output
        )
        self._ended.append((part, outcome))
        self._next, self._next_began, self._written = start + count, upto, written

    def report(self, missing: Iterable[int]) -> BatchReport:
        """Return the final report. A result that cannot be pickled is a failure of its item alone."""
        try:
            values = self._pack([outcome.value for _, outcome in self._ended])
        except (SerializationError, KeyboardInterrupt):  # the user's `__reduce__` may raise anything
            with self._lock:
                self._ended = [pair for part, outcome in self._ended for pair in self._sound(part, outcome)]
            values = self._pack([outcome.value for _, outcome in self._ended])
        return BatchReport(tuple(outcome for _, outcome in self._ended), values, tuple(missing))

    def _pack(self, value: Any, what: str = "the result") -> Payload:
        return pack(value, what=what, ref_types=self._ref_types, keep=self._keep)

    def _sound(self, part: BatchPart, outcome: RangeOutcome) -> Iterator[tuple[BatchPart, RangeOutcome]]:
        """Yield an outcome; items whose values cannot be pickled become failures of their own."""
        error = None if outcome.status is not RangeStatus.OK else self._error_of(outcome.value)
        if error is None:
            yield part, outcome
        elif part.job is None:
            yield part, outcome._replace(status=RangeStatus.FAILED, value=self._describe(error, part))
        else:
            for one in outcome.items():
                error = self._error_of(one.value[0], f"the result of item {one.start} of {part.label}")
                failure = None if error is None else self._describe(error, part)
                yield part, one if error is None else one._replace(status=RangeStatus.FAILED, value=failure)

    def _error_of(self, value: Any, what: str = "the result") -> SerializationError | None:
        try:
            self._pack(value, what)
        except SerializationError as error:
            return error
        except KeyboardInterrupt as error:
            return SerializationError(what, type(error).__name__)
        return None


class ItemRun:
    """Items of a task range that run one after the other; an item begins when its place is taken from ``places``.

    One thread takes places; another thread may steal the rest at the same time. A lock for each item would take as long
    as all other work for the item, and is not needed. A step of the iterator over a range runs in C, and so does
    ``min``, which empties the iterator; no other thread can run during either.

    Args:
        span: the items.
        first: the number of the item whose place is 0.
    """

    __slots__ = ("_first", "_stop", "_task_id", "places")

    def __init__(self, span: TaskRange, first: int) -> None:
        self._task_id, start, self._stop = span
        self._first = first
        self.places = iter(range(start - first, self._stop - first))

    @property
    def number(self) -> int:
        """The number of the item that has begun last; if no item has begun, the first item's number minus one."""
        return self._stop - length_hint(self.places) - 1

    def is_end_of(self, spans: Iterable[TaskRange]) -> bool:
        """Return whether one of these ranges ends where this run ends."""
        return any(span.task_id == self._task_id and span.stop == self._stop for span in spans)

    def steal(self) -> TaskRange | None:
        """Remove and return the items that have not begun; None if all have."""
        place = min(self.places, default=None)
        if place is None:
            return None
        stop, self._stop = self._stop, self._first + place
        return TaskRange(self._task_id, self._stop, stop)


class Backlog:
    """The task ranges of one batch that have not begun, in order.

    One thread begins items; another thread may steal ranges at the same time. Callers guard both with a lock, so that
    no item is both begun and stolen.

    Example:
        >>> backlog = Backlog([TaskRange("map", 0, 100), TaskRange("call")])
        >>> backlog.begin(), backlog.begin(30)
        (TaskRange(task_id='map', start=0, stop=1), TaskRange(task_id='map', start=1, stop=31))
        >>> backlog.steal([TaskRange("map", 0, 100)])
        (TaskRange(task_id='map', start=31, stop=100),)
        >>> backlog.begin(), backlog.begin()
        (TaskRange(task_id='call', start=0, stop=1), None)
    """

    def __init__(self, spans: Iterable[TaskRange]) -> None:
        self._spans = deque(spans)
        self._run: ItemRun | None = None

    def begin(self, count: int = 1) -> TaskRange | None:
        """Return the next items to run, at most ``count`` items of one task; None if there are none."""
        if not self._spans:
            return None
        task_id, start, stop = self._spans[0]
        if start + count < stop:
            self._spans[0] = TaskRange(task_id, start + count, stop)
            return TaskRange(task_id, start, start + count)
        return self._spans.popleft()

    def begin_run(self, part: BatchPart) -> ItemRun | None:
        """Return the next items to run, if they belong to ``part``; each begins when its place is taken."""
        if not self._spans or not _holds(part, self._spans[0]):
            return None
        self._run = ItemRun(self._spans.popleft(), part.start)
        return self._run

    def end_run(self) -> None:
        """Keep the items of the run that have not begun."""
        if self._run is not None and (rest := self._run.steal()) is not None:
            self._spans.appendleft(rest)
        self._run = None

    def steal(self, spans: Iterable[TaskRange]) -> tuple[TaskRange, ...]:
        """Remove and return the parts of these ranges that have not begun.

        The caller names each range as it was sent with the batch.
        """
        spans = tuple(spans)
        run = self._run
        rest = run.steal() if run is not None and run.is_end_of(spans) else None
        unwanted = {(span.task_id, span.stop) for span in spans}
        given = tuple(span for span in self._spans if (span.task_id, span.stop) in unwanted)
        self._spans = deque(span for span in self._spans if (span.task_id, span.stop) not in unwanted)
        return given if rest is None else (rest, *given)


MAX_JOBS = 32  # functions of maps that are kept; a function that was dropped is sent again
MAX_JOB_BYTES = 100_000_000
CONDITION_CHARS = 200
MAX_STOLEN = 1_000  # batches to be remembered because ranges of them were stolen before the batch arrived

_Located = tuple[Callable[..., Any], list[Any] | tuple[Any, ...], dict[str, Any]]
_Locator = Callable[[int], _Located]
_NO_KEYWORDS: dict[str, Any] = {}


class _Item(NamedTuple):
    """The running item, as the interrupt handler knows it."""

    batch: BatchKey
    task_id: TaskId
    position: int


class _RunningItems:
    """The running item of a run of items, as the interrupt handler knows it. It is equal to the ``_Item`` that runs.

    The time limit is not set when an item begins. The thread that looks for late items sets it when the item is late
    already; it is set earlier if the item pauses at a breakpoint.

    Attributes:
        limit_s: the limit of an item in seconds; None without one.
        late: True if the limit has been set for an item since this flag was last cleared.
        latest: the last item for which the limit has been set.
    """

    __slots__ = ("_batch", "_run", "_task_id", "late", "latest", "limit_s")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, batch: BatchKey, task_id: TaskId, run: ItemRun, limit_s: float | None) -> None:
        self._batch, self._task_id, self._run, self.limit_s = batch, task_id, run, limit_s
        self.late = False
        self.latest: _Item | None = None

    def item(self) -> _Item:
        """Return the item that has begun last."""
        return _Item(self._batch, self._task_id, self._run.number)

    def __eq__(self, other: object) -> bool:
        return self is other or self.item() == other


class _MapJob(NamedTuple):
    """The function of a map, and the names that came with it."""

    function: Any
    builtins: Any
    nbytes: int


class TaskRunner:
    """Run batches of tasks in a namespace.

    One thread calls :meth:`run`; any thread may call the other methods while it runs.

    Args:
        engine_id: the engine, for failures.
        names: the namespace.
        interrupts: interrupts items.
        output: the output of items.
        ref_types: classes of references to an object store.
        keep: stores results that must stay on this engine.
        unknown_name_note: the note for errors about unknown names, if this engine has restarted with an empty
            namespace.
        on_error: called with the errors of items.
        keep_frames: keeps the frames of an error for the debugger, and adds this fact to the error's description.
    """

    def __init__(
        self,
        engine_id: int,
        names: dict[str, Any],
        interrupts: InterruptHandler,
        output: OutputRecorder,
        ref_types: tuple[type, ...],
        keep: Callable[[str, Any], RemoteValue],
        unknown_name_note: str = "",
        on_error: Callable[[BaseException], object] = lambda error: None,
        keep_frames: Callable[[Failure, BaseException], Failure] = lambda failure, error: failure,
    ) -> None:
        self._engine_id = engine_id
        self._process = OwnProcess()
        self._on_error = on_error
        self._keep_frames = keep_frames
        self._unknown_name_note = unknown_name_note
        self._names = names
        self._interrupts = interrupts
        self._output = output
        self._ref_types = ref_types
        self._keep = keep
        self._jobs: OrderedDict[tuple[str, int], _MapJob] = OrderedDict()
        self._functions: dict[int | None, Payload] = {}  # sent with the batch
        self._lock = threading.Lock()
        self._batch: BatchKey | None = None
        self._backlog = Backlog([])
        self._last: dict[str, int] = {}
        self._stolen: OrderedDict[BatchKey, tuple[TaskRange, ...]] = OrderedDict()
        self._limit = TimeLimit(interrupts)
        self._results: TaskResults | None = None
        self._stopped = False
        self._by_interrupt = False
        self._current: _Item | _RunningItems | None = None

    @property
    def current(self) -> _Item | None:
        """The running item; None if none is running."""
        with self._lock:  # items of a run are stolen under this lock
            return self._current.item() if isinstance(self._current, _RunningItems) else self._current

    def run(self, client: str, operation: RunTasks, payload: Payload | None) -> tuple[Any, ...]:
        """Run a batch; return its report in the form of ``BatchReport.as_value``.

        Args:
            client: the client that sent it.
            operation: the batch.
            payload: its parts.
        """
        assert payload is not None, "a batch comes with its tasks"
        end = time.perf_counter() + operation.budget_s
        parts = read_parts(unpack(payload))
        for part in parts:
            if part.call is not None:
                self._functions[part.job] = part.call
        spans: list[TaskRange] = []
        missing: set[int] = set()
        for part in parts:
            if part.job is None or part.job in self._functions or (client, part.job) in self._jobs:
                spans.append(part.span)
            else:
                missing.add(part.job)
        results = TaskResults(self._output, self._ref_types, self._describe, self._keep)
        self._open((client, operation.number), spans, results)
        try:
            span = self._begin()
            for part in parts:
                if span is not None and _holds(part, span):
                    span = self._run_part(part, span, end, results)
        finally:
            self._close()
        return results.report(missing).as_value()

    def steal(self, wanted: Iterable[tuple[BatchKey, tuple[TaskRange, ...]]]) -> dict[BatchKey, tuple[TaskRange, ...]]:
        """Withdraw those parts of these ranges that have not begun; return the parts by batch."""
        with self._lock:
            return {batch: self._steal(batch, spans) for batch, spans in wanted}

    def so_far(self, batch: BatchKey) -> Payload | None:
        """Return the results of a running batch so far, in the form of its reply; None if there are none."""
        with self._lock:
            results = self._results if self._batch == batch else None
        report = None if results is None else results.so_far()
        return None if report is None else pack(report.as_value(), ref_types=self._ref_types)

    def interrupt(self, client: str, spans: Iterable[TaskRange]) -> None:
        """Interrupt the running item if it is in one of these ranges of a client."""
        item = self.current
        if item is None or item.batch[0] != client:
            return
        if any(span.task_id == item.task_id and span.start <= item.position < span.stop for span in spans):
            self._interrupts.interrupt(item)

    def end_overdue(self) -> None:
        """Interrupt the running item if its time is over."""
        self._set_limit()
        self._limit.look()

    def pause_limit(self) -> None:
        """Stop the clock of the running item's time limit."""
        self._set_limit(at_once=True)
        self._limit.pause()

    def resume_limit(self) -> None:
        """Let the clock of the running item's time limit go on."""
        self._limit.resume()

    def _set_limit(self, *, at_once: bool = False) -> None:
        """Set the time limit of the running item of a run, if its time is over or ``at_once`` is true."""
        with self._lock:
            running, results = self._current, self._results
            if not isinstance(running, _RunningItems) or running.limit_s is None or results is None:
                return
            # Read the item first: if it ends before the start time is read, this is the start of a later item, which
            # has not run for so long.
            item = running.item()
            ran_s = time.perf_counter() - results.began
            if item != running.latest and (at_once or ran_s >= running.limit_s):
                self._limit.begin(item, running.limit_s, ran_s=ran_s)
                running.latest, running.late = item, True

    def stop(self) -> None:
        """Begin no more items."""
        with self._lock:
            self._stopped = True
            self._backlog.end_run()

    def forget_functions(self) -> None:
        """Drop the functions of maps, because the namespace to which they were bound has been emptied."""
        self._jobs.clear()

    # Begin and end a batch; begin and steal its items.

    def _open(self, batch: BatchKey, spans: list[TaskRange], results: TaskResults) -> None:
        with self._lock:
            self._last[batch[0]] = batch[1]
            self._backlog = Backlog(spans)
            if (overtook := self._stolen.pop(batch, None)) is not None:
                self._backlog.steal(overtook)
            self._batch = batch
            self._results = results

    def _close(self) -> None:
        with self._lock:
            self._batch = self._results = None
        self._output.task_id = None
        if not self._functions:  # no functions of maps have been added
            return
        self._functions = {}
        while len(self._jobs) > 1 and (
            len(self._jobs) > MAX_JOBS or sum(job.nbytes for job in self._jobs.values()) > MAX_JOB_BYTES
        ):
            self._jobs.popitem(last=False)

    def _begin(self) -> TaskRange | None:
        """Begin and return the next item: from now on it cannot be stolen, and can be interrupted."""
        with self._lock:
            # Ranges are stolen under the same lock: an item is either begun or stolen, and interrupts find an item that
            # has begun.
            span = None if self._stopped else self._backlog.begin()
            if span is not None:
                assert self._batch is not None, "items belong to a batch"
                self._current = _Item(self._batch, span.task_id, span.start)
                self._interrupts.enter(self._current)
            return span

    def _begin_run(self, part: BatchPart) -> tuple[ItemRun, _RunningItems] | None:
        """Return the next items if they belong to this part of a map; None if not, or if no more items may begin."""
        with self._lock:
            run = None if self._stopped else self._backlog.begin_run(part)
            if run is None:
                return None
            assert self._batch is not None, "items belong to a batch"
            running = self._current = _RunningItems(self._batch, part.task_id, run, part.limit_s)
            return run, running

    def _end_run(self) -> None:
        with self._lock:
            self._backlog.end_run()
            self._current = None

    def _steal(self, batch: BatchKey, spans: tuple[TaskRange, ...]) -> tuple[TaskRange, ...]:
        if batch == self._batch:
            return self._backlog.steal(spans)
        if batch[1] <= self._last.get(batch[0], -1):
            return ()  # the batch has ended, and its reply lists the items that never began
        self._stolen[batch] = self._stolen.pop(batch, ()) + spans
        if len(self._stolen) > MAX_STOLEN:
            self._stolen.popitem(last=False)
        return spans

    # Run items.

    def _run_part(self, part: BatchPart, span: TaskRange, end: float, results: TaskResults) -> TaskRange | None:
        """Run the items of a part, of which ``span`` has begun, and begin none after the time ``end``.

        Return the item of another part that has begun then, if any.
        """
        results.begin(part, span.start)
        succeeded = results.succeeded
        following: TaskRange | None = span
        with keeping_builtins(self._names):
            loaded: list[Any] = []
            locate = self._locator(part, loaded)
            run_item = self._run_item if part.limit_s is None else self._run_limited
            while following is not None and _holds(part, following):
                results.began = time.perf_counter()
                status, value = run_item(part, following.start, locate, loaded)
                now = time.perf_counter()
                if status is RangeStatus.OK and part.job is not None:
                    succeeded.append(value)
                else:
                    results.end_succeeded(results.began)
                    results.end(status, value, now)
                if loaded and now < end:
                    now = self._run_rest(part, loaded, now, end, results)
                following = self._begin() if now < end else None
        results.end_succeeded(now)
        return following

    def _run_rest(self, part: BatchPart, loaded: Sequence[Any], now: float, end: float, results: TaskResults) -> float:
        """Run further items of a part of a map until ``end``; return the time at which the last of them ended.

        Args:
            part: the part; one of its items has run.
            loaded: its function, and its columns of items.
            now: the time.
            end: no items begin from this time on.
            results: the results.
        """
        begun = self._begin_run(part)
        if begun is None:
            return now
        (run, running), (function, *columns) = begun, loaded
        call, column = (run_user_item, columns[0]) if len(columns) == 1 else (run_user_row, _rows_of(columns))
        results.began = now
        try:
            while True:
                self._interrupts.enter(running)
                self._by_interrupt = False
                try:
                    # Keep this short: all that is done for one item, besides the user's code, takes as long as a call
                    # to a small function.
                    late = _run_items(call, function, column, run.places, running, end, results)
                    if late is None:
                        return results.began
                    status, value = RangeStatus.OK, late[0]
                except BaseException as error:
                    status, value = self._failed(error, part, running.item().position, loaded)
                finally:
                    self._interrupts.leave()
                if (expired := self._expired(running)) is not None:
                    status, value = RangeStatus.FAILED, expired
                now = time.perf_counter()
                if status is RangeStatus.OK:
                    results.succeeded.append(value)
                else:
                    results.end_succeeded(results.began)
                    results.end(status, value, now)
                results.began = now
                if now >= end:
                    return now
        finally:
            self._end_run()
            if running.late:
                self._limit.end(by_interrupt=False)

    def _expired(self, running: _RunningItems) -> Expired | None:
        """Return the outcome of the item that has just ended, if it was interrupted at its time limit."""
        if not running.late:
            return None
        running.late = False
        expired = self._limit.end(by_interrupt=self._by_interrupt)
        return expired if running.latest == running.item() else None  # else it was set for an earlier item

    def _run_limited(
        self, part: BatchPart, index: int, locate: _Locator, loaded: Sequence[Any]
    ) -> tuple[RangeStatus, Any]:
        item, limit_s = self.current, part.limit_s
        assert item is not None, "it has begun"
        assert limit_s is not None, "it has a limit"
        self._by_interrupt = False
        self._limit.begin(item, limit_s)
        ran = self._run_item(part, index, locate, loaded)
        expired = self._limit.end(by_interrupt=self._by_interrupt)
        return ran if expired is None else (RangeStatus.FAILED, expired)

    def _run_item(
        self, part: BatchPart, index: int, locate: _Locator, loaded: Sequence[Any]
    ) -> tuple[RangeStatus, Any]:
        # Keep this short: one more call for each item of a map takes 4 % of the time of an item that does nothing.
        try:
            function, args, kwargs = locate(index)
            return RangeStatus.OK, run_user_code(function, *args, **kwargs)
        except BaseException as error:
            return self._failed(error, part, index, loaded)
        finally:
            self._interrupts.leave()
            self._current = None

    def _failed(
        self, error: BaseException, part: BatchPart, index: int, loaded: Sequence[Any]
    ) -> tuple[RangeStatus, Any]:
        """Return the status and the value of an item that has raised an error.

        Args:
            error: the error.
            part: the part.
            index: the number of the item.
            loaded: the function of a map and its columns of items, if they have been loaded.
        """
        self._process.end_child(error)
        # By the type: isinstance would evaluate `__class__` of the user's exception.
        if issubclass(type(error), UnmetDependency):
            condition = dict_of(error).get("condition")
            return RangeStatus.UNMET, condition[:CONDITION_CHARS] if type(condition) is str else ""
        status = RangeStatus.UNNAMED if self._unknown_name_note and is_unknown_name(error) else RangeStatus.FAILED
        self._by_interrupt = issubclass(type(error), KeyboardInterrupt)
        self._on_error(error)
        item = None if part.job is None else (index, _arguments(part, index, loaded))
        return status, self._keep_frames(self._describe(error, part, item), error)

    def _describe(self, error: BaseException, part: BatchPart, item: FailedAt | None = None) -> Any:
        return capture_failure(error, self._engine_id, part.label, self._unknown_name_note, item)

    # Load functions and arguments.

    def _locator(self, part: BatchPart, loaded: list[Any]) -> _Locator:
        """Return a function that loads the function and arguments of an item, and fails for that item alone.

        The returned function puts the function and the columns of a map into ``loaded``.
        """
        load = partial(unpack, scope=self._names, stays=False, copy=part.copy)
        if part.job is None:
            return lambda index: run_user_code(load, part.call)

        def locate(index: int) -> _Located:
            if not loaded:
                # Items first, so that the names that come with the function take precedence.
                columns = run_user_code(self._columns, part)
                loaded.extend((self._function(part, load), *(own_items(column, OWN_BYTES) for column in columns)))
            function, *columns = loaded
            return function, [column[index - part.start] for column in columns], _NO_KEYWORDS

        return locate

    def _columns(self, part: BatchPart) -> Sequence[Any]:
        """Load the items of a part. If items can be separated, an item that cannot be unpickled fails alone."""
        payload = part.columns
        assert payload is not None, "a map has items"
        try:
            columns: Sequence[Any] = unpack(payload, scope=self._names, copy=part.copy)
        except (Exception, SystemExit) as error:
            try:
                columns = [_Spared(column) for column in Salvage(payload, scope=self._names, copy=part.copy).columns()]
            except (Exception, SystemExit):  # not a list of lists
                raise error from None
        return columns

    def _function(self, part: BatchPart, load: Callable[[Payload], Any]) -> Any:
        assert self._batch is not None, "items belong to a batch"
        assert part.job is not None, "a job is a map's"
        key = (self._batch[0], part.job)
        job = self._jobs.get(key)
        if job is None:
            payload = self._functions[part.job]
            function = run_user_code(load, payload)
            job = self._jobs[key] = _MapJob(function, self._names.get("__builtins__"), payload.nbytes)
        self._jobs.move_to_end(key)
        self._names["__builtins__"] = job.builtins
        return job.function


@protected
def _arguments(part: BatchPart, index: int, loaded: Sequence[Any]) -> tuple[Any, ...]:
    """Return the items with which a map's function was called; none if they could not be loaded."""
    if not loaded:
        return ()
    function, *columns = loaded
    try:
        return arguments_of_item(function, [column[index - part.start] for column in columns])
    except BaseException:  # an item that cannot be unpickled, or a failing sequence of the user's class
        return ()


class _Spared(list[Any]):
    """Items, some of which could not be unpickled: reading such an item raises the error of unpickling it."""

    def __getitem__(self, index: Any) -> Any:
        item = super().__getitem__(index)
        if type(item) is Broken:
            raise item.error
        return item


class _Rows:
    """The rows of columns, each made when it is read: reading an item may copy it, or raise an error."""

    def __init__(self, columns: Sequence[Any]) -> None:
        self._columns = columns

    def __getitem__(self, place: int) -> tuple[Any, ...]:
        return tuple([column[place] for column in self._columns])


def _rows_of(columns: Sequence[Any]) -> Any:
    if all(type(column) in (list, tuple, range) for column in columns):
        return list(zip(*columns, strict=True))
    return _Rows(columns)


def _run_items(
    call: Callable[[Any, Any], Any],
    function: Any,
    column: Any,
    places: Iterator[int],
    running: _RunningItems,
    end: float,
    results: TaskResults,
) -> tuple[Any] | None:
    """Call a function of a map for the items of a column at these places until ``end``; return None.

    Each item begins when its place is taken. ``results.began`` is the time at which the last item ended. If an item was
    late, this returns its value in a tuple, and the items after it have not begun.

    Raises:
        BaseException: the error of an item.
    """
    append, clock = results.succeeded.append, time.perf_counter
    for place in places:
        value = call(function, column[place])
        if running.late:
            return (value,)
        append(value)
        results.began = now = clock()
        if now >= end:
            break
    return None


def _holds(part: BatchPart, span: TaskRange) -> bool:
    return span.task_id == part.task_id and part.start <= span.start < part.stop
