"""Results of detached tasks: their store, its limits, and the messages about them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nsactors.errors import NsactorsError, SchedulerOverloaded
from nsactors.protocol.client_modules import ClientModules
from nsactors.protocol.messages import OutputChunk
from nsactors.protocol.output import size_bytes
from nsactors.protocol.salvage import Salvage
from nsactors.protocol.serialize import Payload, StoredObject, pack, unpack
from nsactors.protocol.tasks import BatchReport, Nested, RangeOutcome, RangeStatus, TaskRange, nest, unnest
from nsactors.protocol.wire import copied_or_stored
from nsactors.results import NOWHERE, Call, MapCall, TaskCall
from nsactors.tasks.messages import Fail, Task
from nsactors.tasks.results import TaskOf, TaskSpec, failed, outputs_of
from nsactors.transport.base import Transport

LIMIT_TASKS = 20_000
LIMIT_BYTES = 200_000_000  # for small results and output, in the memory of the scheduler's process
LIMIT_STORED_BYTES = 4_000_000_000  # for large results, in the object store, which can move them to disk
LIMIT_INPUT_BYTES = 2_000_000_000  # for arguments of tasks that have not ended, in the scheduler's memory
REMEMBERED = 10_000  # dropped tasks whose labels are still known

Piece = tuple[RangeOutcome, int] | Fail
"""The end of some of a task's items: an outcome with the id of its engine, or a failure without an outcome."""


@dataclass(slots=True)
class StoredTask:
    """A task and its results so far.

    Attributes:
        number: its number.
        label: its name for people.
        size: the number of a map's items; None for a call.
        copies: whether arrays in its results are copies that can be written to.
        joins: whether its results are parts of one sequence.
        submitted: the time of its submission, in seconds since the epoch.
        input_bytes: the size of its arguments, which are stored until the task has ended.
        call: the call for the task in the scheduler. As long as it is stored here, other tasks can depend on the task.
        pieces: the results, in the order in which they arrived.
        ended: the time when the last result arrived; None if the task has not ended.
        failed: whether some of its items failed.
        nbytes: its share of the memory of the scheduler's process.
        stored_bytes: its share of the object store.
    """

    number: int
    label: str
    size: int | None
    copies: bool
    joins: bool
    submitted: float
    input_bytes: int = 0
    call: Any = None
    pieces: list[Piece] = field(default_factory=list)
    ended: float | None = None
    failed: bool = False
    nbytes: int = 0
    stored_bytes: int = 0

    def missing(self) -> list[TaskRange]:
        """Return the items that have not ended."""
        spans, position = [], 0
        for _, start, stop in sorted(p.span if isinstance(p, Fail) else p[0].span for p in self.pieces):
            if position < start:
                spans.append(TaskRange(self.number, position, start))
            position = stop
        size = 1 if self.size is None else self.size
        return [*spans, TaskRange(self.number, position, size)] if position < size else spans


class StoredTasks:
    """Detached tasks by number, within limits. Beyond these, the tasks that ended first are dropped with their results.

    Tasks that have not ended are never dropped. The task that ended last is not dropped either, even if it is large.

    Args:
        limit_tasks: the greatest number of ended tasks.
        limit_bytes: the greatest size of all results in the memory of the scheduler's process.
        limit_stored_bytes: the greatest size of all results in the object store.
        limit_input_bytes: the greatest size of the arguments of tasks that have not ended.

    Example:
        >>> tasks = StoredTasks(limit_tasks=1)
        >>> for number in (1, 2):
        ...     tasks.enter(StoredTask(number, "apply(f)", None, False, False, 0.0))
        ...     tasks.end(number, at=1.0)
        >>> tasks.get(1) is None, tasks.dropped_label(1)
        (True, 'apply(f)')
    """

    def __init__(
        self,
        limit_tasks: int = LIMIT_TASKS,
        limit_bytes: int = LIMIT_BYTES,
        limit_stored_bytes: int = LIMIT_STORED_BYTES,
        limit_input_bytes: int = LIMIT_INPUT_BYTES,
    ) -> None:
        self._limit_tasks = limit_tasks
        self._limit_bytes = limit_bytes
        self._limit_stored_bytes = limit_stored_bytes
        self._limit_input_bytes = limit_input_bytes
        self._tasks: dict[int, StoredTask] = {}
        self._ended: deque[int] = deque()
        self._dropped: dict[int, str] = {}
        self._nbytes = self._stored_bytes = self._input_bytes = 0

    def __iter__(self) -> Iterator[StoredTask]:
        """Iterate over the tasks in the order of submission."""
        return iter(list(self._tasks.values()))

    def enter(self, task: StoredTask) -> None:
        """Add a task that has been submitted.

        Raises:
            SchedulerOverloaded: if the arguments of tasks that have not ended leave no room; a task alone always fits.
        """
        if self._input_bytes and self._input_bytes + task.input_bytes > self._limit_input_bytes:
            raise SchedulerOverloaded(task.label, self._input_bytes)
        self._tasks[task.number] = task
        self._input_bytes += task.input_bytes

    def get(self, number: int) -> StoredTask | None:
        """Return a task; None if it was dropped, or is not known."""
        return self._tasks.get(number)

    def dropped_label(self, number: int) -> str | None:
        """Return the label of a task that was dropped; None if it was not dropped, or was dropped long ago."""
        return self._dropped.get(number)

    def add(self, number: int, piece: Piece, nbytes: int = 0, stored_bytes: int = 0, *, failed: bool = False) -> None:
        """Add results of some of a task's items.

        Args:
            number: the task.
            piece: the results.
            nbytes: their size in the memory of the scheduler's process.
            stored_bytes: their size in the object store.
            failed: whether these items failed.
        """
        task = self._tasks[number]
        task.pieces.append(piece)
        task.failed |= failed
        task.nbytes += nbytes
        task.stored_bytes += stored_bytes
        self._nbytes += nbytes
        self._stored_bytes += stored_bytes
        self._make_room()

    def end(self, number: int, at: float) -> None:
        """Mark a task as ended."""
        self._tasks[number].ended = at
        self._input_bytes -= self._tasks[number].input_bytes
        self._ended.append(number)
        self._make_room()

    def withdraw(self, number: int) -> None:
        """Remove a task that could not be submitted."""
        self._input_bytes -= self._tasks.pop(number).input_bytes

    def _make_room(self) -> None:
        while len(self._ended) > 1 and self._has_too_much():
            task = self._tasks.pop(self._ended.popleft())
            self._nbytes -= task.nbytes
            self._stored_bytes -= task.stored_bytes
            self._dropped[task.number] = task.label
            if len(self._dropped) > REMEMBERED:
                del self._dropped[next(iter(self._dropped))]

    def _has_too_much(self) -> bool:
        return (
            len(self._ended) > self._limit_tasks
            or self._nbytes > self._limit_bytes
            or self._stored_bytes > self._limit_stored_bytes
        )


class TaskSubmission(NamedTuple):
    """A task to be run.

    Attributes:
        task: the task, in the form that the scheduler takes.
        label: its name for people.
        copies: whether arrays in its results are copies that can be written to.
        joins: whether its results are parts of one sequence.
        submitted: the time of its submission, in seconds since the epoch.
        limit_s: seconds after which an item is interrupted; None for no limit.
        call: the function and arguments of a call.
        function: the function of a map.
        columns: the items of a map.
        modules: the modules of its client; None if the scheduler knows them, or there are none.
    """

    task: Task
    label: str
    copies: bool
    joins: bool
    submitted: float
    limit_s: float | None
    call: Nested | None
    function: tuple[int, Nested] | None
    columns: Nested | None
    modules: ClientModules | None = None

    @classmethod
    def of(cls, spec: TaskSpec, ref_types: tuple[type, ...]) -> TaskSubmission:
        """Return the message for a task.

        Raises:
            SerializationError: if the items of a map cannot be pickled.
        """
        call, function = spec.call, spec.function
        return cls(
            spec.task,
            call.label,
            call.copies,
            isinstance(call, MapCall) and call.joins,
            call.submitted,
            spec.limit_s,
            None if spec.payload is None else nest(spec.payload),
            None if function is None else (function.number, nest(function.payload)),
            None if function is None else nest(pack(spec.columns, what="items", ref_types=ref_types)),
        )

    @property
    def input_bytes(self) -> int:
        """The size of a call's arguments or a map's items."""
        nested = self.call if self.columns is None else self.columns
        return 0 if nested is None else unnest(nested).nbytes


class Description(NamedTuple):
    """The description of a task for a client that has not submitted it. Its fields are those of ``StoredTask``."""

    label: str
    size: int | None
    copies: bool
    joins: bool
    submitted: float

    @classmethod
    def of(cls, task: StoredTask) -> Description:
        """Return the description of a task."""
        return cls(task.label, task.size, task.copies, task.joins, task.submitted)


class TaskProgress(NamedTuple):
    """The results of a task since a client's last poll.

    Attributes:
        pieces: the new pieces, in the order in which they arrived.
        tried_on: the engines on which the task failed, or that were lost while they ran it.
        lost: the reason why there are no more results; None if there may be more.
    """

    pieces: tuple[Piece, ...]
    tried_on: tuple[int, ...] = ()
    lost: str | None = None


PIECE_BYTES = 300  # the size of a piece in memory, without its value
REPLY_PIECES = 2_000
REPLY_BYTES = 16_000_000


class StoredValue(NamedTuple):
    """A value that has not been unpickled.

    Attributes:
        values: a pickled list of the values that arrived together.
        place: the index of this value in the list.
        nbytes: this value's share of the size of the list.
    """

    values: Payload | StoredObject
    place: int
    nbytes: int

    def load(self, opened: dict[int, Any], *, copy: bool) -> Any | Salvage:
        """Return the value, or a ``Salvage`` of the list if some of its values cannot be unpickled.

        Args:
            opened: the lists that have been unpickled, by the identity of their pickles; this value's list is added.
            copy: make writable arrays.

        Raises:
            ObjectGone: if the process that stores the list has ended.
            BaseException: any error of unpickling that single values do not cause.
        """
        values = opened.get(id(self.values))
        if values is None:
            payload = self.values if isinstance(self.values, Payload) else self.values.load()
            try:
                values = unpack(payload, copy=copy)
            except BaseException:  # the user's class may raise anything when it is rebuilt
                values = Salvage(payload, copy=copy)
            opened[id(self.values)] = values
        return values if isinstance(values, Salvage) else values[self.place]


class ResultStore:
    """Stores the results of detached tasks, as the ``Delivery`` of their scheduler.

    Methods that are not part of ``Delivery`` may be called on any thread.

    Args:
        transport: has an object store for large results.
        changed: called when there are new results to poll for.
        tasks: keeps the tasks of the store; by default, with the limits of this module.
    """

    def __init__(self, transport: Transport, changed: Callable[[], object], tasks: StoredTasks | None = None) -> None:
        self._transport = transport
        self._changed = changed
        self._tasks = tasks or StoredTasks()
        self._lock = threading.Lock()

    def enter(self, call: TaskCall, *, joins: bool, input_bytes: int = 0) -> None:
        """Add a task that is about to be submitted, with arguments of this size.

        Raises:
            SchedulerOverloaded: if the arguments of tasks that have not ended leave no room for the new task.
        """
        size = call.size if isinstance(call, MapCall) else None
        number = call.request_id.seq
        task = StoredTask(number, call.label, size, call.copies, joins, call.submitted, input_bytes, call=call)
        with self._lock:
            self._tasks.enter(task)

    def withdraw(self, call: TaskCall) -> None:
        """Remove a task that could not be submitted."""
        with self._lock:
            self._tasks.withdraw(call.request_id.seq)

    def tasks(self) -> list[StoredTask]:
        """Return all tasks in the order of submission, except dropped ones."""
        with self._lock:
            return list(self._tasks)

    def get(self, number: int) -> StoredTask | None:
        """Return a task; None if it is not known."""
        with self._lock:
            return self._tasks.get(number)

    def progress(self, wanted: dict[int, int]) -> dict[int, TaskProgress]:
        """Return new results by task, for the tasks that have some, up to a limit. The next poll gets the rest.

        Args:
            wanted: how many pieces of each task the client has.
        """
        found: dict[int, TaskProgress] = {}
        pieces, nbytes = 0, 0
        with self._lock:
            for number, known in wanted.items():
                task = self._tasks.get(number)
                if task is None:
                    found[number] = TaskProgress((), lost=self._why_lost(number))
                elif len(task.pieces) > known:
                    if pieces >= REPLY_PIECES or nbytes >= REPLY_BYTES:
                        break
                    fresh = tuple(task.pieces[known : known + REPLY_PIECES])
                    found[number] = TaskProgress(fresh, task.call.tried_on)
                    pieces += len(fresh)
                    nbytes += task.nbytes * len(fresh) // len(task.pieces)
        return found

    def _why_lost(self, number: int) -> str:
        label = self._tasks.dropped_label(number)
        if label is None:
            return "the cluster knows of no such task"
        return f"{label} has ended, but results are stored within limits, and newer results have replaced it"

    # The methods of Delivery, called on the scheduler's thread.

    def read(self, call: Call, task_of: TaskOf, *, copy: bool) -> tuple[list[RangeOutcome], tuple[int, ...]]:
        """See ``Delivery``."""
        report = BatchReport.from_value(call.value)
        try:
            values = self._put(report.values)
        except NsactorsError as error:  # the object store is full
            return [
                o._replace(status=RangeStatus.FAILED, value=error, output=()) for o in report.outcomes
            ], report.missing
        share = report.values.nbytes // max(1, len(report.outcomes))
        outputs = outputs_of(report, call.output.chunks)
        return [
            outcome._replace(value=StoredValue(values, index, share), output=output)
            for index, (outcome, output) in enumerate(zip(report.outcomes, outputs, strict=True))
        ], report.missing

    def take_output(self, call: TaskCall, batch: Call, chunks: Sequence[OutputChunk]) -> None:
        """See ``Delivery``. Output is stored with the results of the task."""

    def deliver(self, call: TaskCall, outcome: RangeOutcome, engine_id: int) -> bool:
        """See ``Delivery``."""
        stored = outcome.value
        if not isinstance(stored, StoredValue):  # it is an error that was raised in this process
            payload = pack([stored])
            stored = StoredValue(payload, 0, payload.nbytes)
            outcome = outcome._replace(value=stored)
        nbytes = PIECE_BYTES + sum(map(size_bytes, outcome.output))
        stored_bytes = 0
        if isinstance(stored.values, Payload):
            nbytes += stored.nbytes
        else:
            stored_bytes = stored.nbytes
        failed = outcome.status is not RangeStatus.OK
        return self._add(call, (outcome, engine_id), outcome.span, nbytes, stored_bytes, failed=failed)

    def give_up(self, call: TaskCall, effect: Fail) -> bool:
        """See ``Delivery``."""
        return self._add(call, effect, effect.span, PIECE_BYTES, failed=True)

    def settle(self, call: TaskCall) -> None:
        """See ``Delivery``."""
        with self._lock:
            self._tasks.end(call.request_id.seq, time.time())
        call.settle(None, None)

    def fail(self, call: TaskCall, error: Exception) -> None:
        """See ``Delivery``."""
        with self._lock:
            task = self._tasks.get(call.request_id.seq)
            missing = [] if task is None or task.ended is not None else task.missing()
        for span in missing:
            self.deliver(call, failed(span, error), NOWHERE)
        if missing:
            self.settle(call)

    def _add(
        self,
        call: TaskCall,
        piece: Piece,
        span: TaskRange,
        nbytes: int,
        stored_bytes: int = 0,
        *,
        failed: bool,
    ) -> bool:
        with self._lock:
            self._tasks.add(call.request_id.seq, piece, nbytes, stored_bytes, failed=failed)
        self._changed()
        if not isinstance(call, MapCall):
            return True
        call.left -= span.stop - span.start
        return call.left == 0

    def _put(self, payload: Payload) -> Payload | StoredObject:
        """Copy a small payload or store a large one, because the engine's memory is mapped only during this call."""
        return copied_or_stored(payload, self._transport.keep)
