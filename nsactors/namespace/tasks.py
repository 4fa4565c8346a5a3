"""Batches of tasks on an engine: one item after the other, each by itself as far as it can fail or be interrupted."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from nsactors.core.functions import keeping_builtins
from nsactors.core.messages import RunTasks
from nsactors.core.payload import Payload, pack, unpack
from nsactors.core.remote_value import RemoteValue
from nsactors.core.scheduling import Backlog, Span, Status, TaskId
from nsactors.core.tasks import BatchKey, Part, read_parts
from nsactors.errors import UnmetDependency
from nsactors.namespace.failures import capture_failure
from nsactors.namespace.gate import InterruptGate, run_user_code
from nsactors.namespace.output import Output
from nsactors.namespace.task_results import TaskResults

__all__ = ["TaskRunner"]

MAX_JOBS = 32  # functions of maps that are kept; one that is missed is sent again
MAX_JOB_BYTES = 100_000_000
MAX_TAKEN_BACK = 1_000  # batches that were taken back from before they came

_Located = tuple[Callable[..., Any], list[Any] | tuple[Any, ...], dict[str, Any]]
_Locator = Callable[[int], _Located]
_NO_KEYWORDS: dict[str, Any] = {}


class _Item(NamedTuple):
    """The item that runs, as the gate knows it."""

    batch: BatchKey
    task_id: TaskId
    position: int


class _Job(NamedTuple):
    """The function of a map, and the names that came with it."""

    function: Any
    builtins: Any
    nbytes: int


class TaskRunner:
    """Runs batches of tasks in a namespace.

    One thread calls :meth:`run`; the others may be called from any thread meanwhile.

    Args:
        engine_id: for what failures say.
        names: the namespace.
        gate: interrupts items.
        output: what they write.
        ref_types: classes of references to an object store.
        keep: puts aside results that are to stay on this engine.
    """

    def __init__(
        self,
        engine_id: int,
        names: dict[str, Any],
        gate: InterruptGate,
        output: Output,
        ref_types: tuple[type, ...],
        keep: Callable[[str, Any], RemoteValue],
    ) -> None:
        self._engine_id = engine_id
        self._names = names
        self._gate = gate
        self._output = output
        self._ref_types = ref_types
        self._keep = keep
        self._jobs: OrderedDict[tuple[str, int], _Job] = OrderedDict()
        self._functions: dict[int | None, Payload] = {}  # that came with the batch
        self._lock = threading.Lock()
        self._batch: BatchKey | None = None
        self._backlog = Backlog([])
        self._last: dict[str, int] = {}
        self._taken_back: OrderedDict[BatchKey, tuple[Span, ...]] = OrderedDict()
        self._deadline: tuple[_Item, float] | None = None
        self._expired: _Item | None = None
        self._results: TaskResults | None = None
        self.current: _Item | None = None

    def run(self, client: str, operation: RunTasks, payload: Payload | None) -> tuple[Any, ...]:
        """Run a batch; what to answer, as ``Report.as_value`` gives it.

        Args:
            client: who sent it.
            operation: the batch.
            payload: its parts.
        """
        assert payload is not None, "a batch comes with its tasks"
        end = time.perf_counter() + operation.budget_s
        parts = read_parts(unpack(payload))
        self._functions = {part.job: part.call for part in parts if part.call is not None}
        missing = {part.job for part in parts if not self._has_function(client, part)}
        results = TaskResults(self._output, self._ref_types, self._describe, self._keep)
        self._open((client, operation.number), [p.span for p in parts if p.job not in missing], results)
        try:
            left = iter(parts)
            span = self._begin()
            while span is not None:
                part = next(part for part in left if _holds(part, span))
                span = self._run_part(part, span, end, results)
        finally:
            self._close()
        return results.report(job for job in missing if job is not None).as_value()

    def give_back(self, wanted: Iterable[tuple[BatchKey, tuple[Span, ...]]]) -> dict[BatchKey, tuple[Span, ...]]:
        """Give up what has not begun of these spans of batches; what is given up."""
        with self._lock:
            return {batch: self._give_back(batch, spans) for batch, spans in wanted}

    def so_far(self, batch: BatchKey) -> Payload | None:
        """What there is of a batch that runs, as its reply will have it; None if that is nothing."""
        with self._lock:
            results = self._results if self._batch == batch else None
        report = None if results is None else results.so_far()
        return None if report is None else pack(report.as_value(), ref_types=self._ref_types)

    def interrupt(self, client: str, spans: Iterable[Span]) -> None:
        """Interrupt the item that runs, if it is one of these of a client's."""
        item = self.current
        if item is None or item.batch[0] != client:
            return
        if any(span.task_id == item.task_id and span.start <= item.position < span.stop for span in spans):
            self._gate.interrupt(item)

    def end_overdue(self) -> None:
        """Interrupt the item that runs if it has had its time."""
        deadline = self._deadline
        if deadline is not None and time.monotonic() >= deadline[1]:
            self._deadline = None
            self._expired = deadline[0]
            self._gate.interrupt(deadline[0])

    def forget_functions(self) -> None:
        """The namespace has been emptied, and what was bound for functions of maps has gone with it."""
        self._jobs.clear()

    # What has begun, and what has not.

    def _open(self, batch: BatchKey, spans: list[Span], results: TaskResults) -> None:
        with self._lock:
            self._last[batch[0]] = batch[1]
            self._backlog = Backlog(spans)
            if (overtook := self._taken_back.pop(batch, None)) is not None:
                self._backlog.take_back(overtook)
            self._batch = batch
            self._results = results

    def _close(self) -> None:
        with self._lock:
            self._batch = self._results = None
        self._functions = {}
        self._make_room()

    def _begin(self) -> Span | None:
        """The next item; nobody can take it back from now on, and everybody can interrupt it."""
        with self._lock:
            span = self._backlog.begin()
            if span is not None:
                assert self._batch is not None, "items belong to a batch"
                self.current = _Item(self._batch, span.task_id, span.start)
                self._gate.enter(self.current)
            return span

    def _give_back(self, batch: BatchKey, spans: tuple[Span, ...]) -> tuple[Span, ...]:
        if batch == self._batch:
            return self._backlog.take_back(spans)
        if batch[1] <= self._last.get(batch[0], -1):
            return ()  # it has ended, and its reply says what it has not begun
        self._taken_back[batch] = self._taken_back.pop(batch, ()) + spans
        if len(self._taken_back) > MAX_TAKEN_BACK:
            self._taken_back.popitem(last=False)
        return spans

    # Running.

    def _run_part(self, part: Part, span: Span, end: float, results: TaskResults) -> Span | None:
        """Run what has begun of a part, and go on until ``end``; the first item that has begun after it, if any."""
        results.begin(part, span.start)
        succeeded = results.succeeded
        following: Span | None = span
        with keeping_builtins(self._names):
            locate = self._locator(part)
            while following is not None and _holds(part, following):
                results.began = time.perf_counter()
                status, value = self._run_item(part, following.start, locate)
                now = time.perf_counter()
                if status is Status.OK and part.job is not None:
                    succeeded.append(value)
                else:
                    results.end_succeeded(results.began)
                    results.end(status, value, now)
                following = self._begin() if now < end else None
        results.end_succeeded(now)
        return following

    def _run_item(self, part: Part, index: int, locate: _Locator) -> tuple[Status, Any]:
        item = self.current
        assert item is not None, "it has begun"
        if part.limit_s is not None:
            self._deadline = (item, time.monotonic() + part.limit_s)
        try:
            function, args, kwargs = locate(index)
            return Status.OK, run_user_code(function, *args, **kwargs)
        except UnmetDependency:
            return Status.UNMET, None
        except BaseException as error:
            if self._expired == item and isinstance(error, KeyboardInterrupt):
                return Status.FAILED, part.limit_s
            return Status.FAILED, self._describe(error, part)
        finally:
            self._gate.leave()
            self.current = self._deadline = None

    def _describe(self, error: BaseException, part: Part) -> Any:
        return capture_failure(error, self._engine_id, part.label)

    # Functions and arguments.

    def _has_function(self, client: str, part: Part) -> bool:
        return part.job is None or part.job in self._functions or (client, part.job) in self._jobs

    def _locator(self, part: Part) -> _Locator:
        """What finds function and arguments of an item. What it cannot unpickle is that item's failure."""
        load = partial(unpack, scope=self._names, stays=False, copy=part.copy)
        if part.job is None:
            return lambda index: run_user_code(load, part.call)
        loaded: list[Any] = []

        def locate(index: int) -> _Located:
            if not loaded:
                # Items first, as what stays: the names that come with the function are to be those in force.
                columns = run_user_code(partial(load, stays=True), part.columns)
                loaded.extend((self._function(part, load), *columns))
            function, *columns = loaded
            return function, [column[index - part.start] for column in columns], _NO_KEYWORDS

        return locate

    def _function(self, part: Part, load: Callable[[Payload], Any]) -> Any:
        assert self._batch is not None, "items belong to a batch"
        assert part.job is not None, "a job is a map's"
        key = (self._batch[0], part.job)
        job = self._jobs.get(key)
        if job is None:
            payload = self._functions[part.job]
            function = run_user_code(load, payload)
            job = self._jobs[key] = _Job(function, self._names.get("__builtins__"), payload.nbytes)
        self._jobs.move_to_end(key)
        self._names["__builtins__"] = job.builtins
        return job.function

    def _make_room(self) -> None:
        while len(self._jobs) > 1 and (
            len(self._jobs) > MAX_JOBS or sum(job.nbytes for job in self._jobs.values()) > MAX_JOB_BYTES
        ):
            self._jobs.popitem(last=False)


def _holds(part: Part, span: Span) -> bool:
    return span.task_id == part.task_id and part.start <= span.start < part.stop
