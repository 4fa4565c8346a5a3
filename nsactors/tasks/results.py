"""Task specifications, and delivery of the outcomes that engines report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nsactors._frozen import frozen
from nsactors.errors import (
    CompositeError,
    ConnectionLost,
    Failure,
    ImpossibleDependency,
    SerializationError,
    TaskAborted,
    TaskLost,
    TaskTimeout,
    TimeLimitExceeded,
    UnmetDependency,
)
from nsactors.protocol.messages import Expired, OutputChunk, TaskMark
from nsactors.protocol.salvage import Broken, Salvage
from nsactors.protocol.serialize import Payload, RemoteValue, pack, unpack
from nsactors.protocol.tasks import BatchPart, BatchReport, RangeOutcome, RangeStatus, TaskId, TaskRange
from nsactors.protocol.wire import INLINE_LIMIT_BYTES
from nsactors.results import Call, MapCall, MapPiece, TaskCall
from nsactors.results.outcome import error_here, with_hint
from nsactors.tasks.messages import Fail, Task, Why
from nsactors.transport.base import Transport

if TYPE_CHECKING:
    from nsactors.session.unretrieved import UnretrievedErrors

TaskOf = Callable[[TaskId], TaskCall | None]
"""Finds the call for a task by its number; returns None if the task has ended."""


class MapFunction(NamedTuple):
    """The function of a map. Engines keep it under its number, so that it is sent to each of them only once."""

    number: int
    payload: Payload

    def stored_if_large(self, transport: Transport, label: str, type_name: str) -> MapFunction:
        """Return the function, or for a large one a reference, so that it is stored once and not for each engine."""
        payload = self.payload
        if payload.nbytes <= INLINE_LIMIT_BYTES:
            return self
        value = RemoteValue(transport.keep(payload), type_name, None, label, type_name, payload.nbytes)
        return MapFunction(self.number, pack(value, what=label, ref_types=transport.ref_types))


@frozen
class TaskSpec:
    """A task on its way from a view to engines.

    Attributes:
        task: the conditions under which it runs; its id is the number of the call.
        call: the call that its submitter waits for.
        payload: the function and arguments of a call.
        function: the function of a map.
        columns: the items of a map, as one sequence for each argument of the function.
        limit_s: seconds after which an item is interrupted; None for no limit.
    """

    task: Task
    call: TaskCall
    payload: Payload | None = None
    function: MapFunction | None = None
    columns: tuple[Sequence[Any], ...] = ()
    limit_s: float | None = None

    def parts(
        self, span: TaskRange, *, with_function: bool, ref_types: tuple[type, ...]
    ) -> tuple[list[BatchPart], list[RangeOutcome]]:
        """Pack some of the task's items; return the parts of a batch, and the failures of items that cannot be packed.

        Args:
            span: the items.
            with_function: whether to add a map's function, because the engine does not have it yet.
            ref_types: the classes of references to stored objects.
        """
        label, function, limit_s, copies = self.call.label, self.function, self.limit_s, self.call.copies
        if function is None:
            return [BatchPart(*span, label, None, self.payload, None, limit_s, copies)], []
        payload = function.payload if with_function else None
        parts: list[BatchPart] = []
        failures: list[RangeOutcome] = []
        left = [span]
        while left:
            task_id, start, stop = part = left.pop()
            what = _items_in_words(self.call, start, stop)
            try:
                items = [column[start:stop] for column in self.columns]  # a list, so that Salvage can read parts of it
                if set(map(len, items)) != {stop - start}:
                    raise SerializationError(what, "the sequence has fewer items than its length")
                columns = pack(items, what=what, ref_types=ref_types)
            except BaseException as error:  # a sequence or the user's class may raise anything; then the item fails
                if stop - start == 1:
                    failures.append(failed(part, _of_item(error, what)))
                else:  # try both halves, the first half first
                    middle = (start + stop) // 2
                    left += [TaskRange(task_id, middle, stop), TaskRange(task_id, start, middle)]
            else:
                parts.append(BatchPart(*part, label, function.number, payload, columns, limit_s, copies))
        return parts, failures


def _items_in_words(call: Call, start: int, stop: int) -> str:
    first = call.first if isinstance(call, MapCall) else 0
    return f"items {first + start} to {first + stop - 1}" if stop - start > 1 else f"item {first + start}"


def _of_item(error: BaseException, what: str) -> Exception:
    """Return the error of an item that cannot be taken from its sequence, or cannot be pickled."""
    if isinstance(error, Exception):
        return error
    return SerializationError(what, f"{type(error).__name__} is raised when it is asked for, or pickled")


def failed(span: TaskRange, error: Exception) -> RangeOutcome:
    """Return the outcome of items that have not run, because of an error in this process."""
    return RangeOutcome(*span, RangeStatus.FAILED, 0.0, error)


class Delivery(Protocol):
    """The receiver of outcomes. Methods are called on the scheduler's thread, unless their docstrings say otherwise."""

    def read(self, call: Call, task_of: TaskOf, *, copy: bool) -> tuple[list[RangeOutcome], tuple[int, ...]]:
        """Read an engine's report of a batch: return the outcomes, and the functions that the engine lacks.

        Args:
            call: the batch.
            task_of: finds its tasks.
            copy: make writable arrays.
        """
        ...

    def take_output(self, call: TaskCall, batch: Call, chunks: Sequence[OutputChunk]) -> None:
        """Take output of a task of a running batch; called on any thread."""
        ...

    def deliver(self, call: TaskCall, outcome: RangeOutcome, engine_id: int) -> bool:
        """Take a final outcome of a task; return whether the task has ended with it."""
        ...

    def give_up(self, call: TaskCall, effect: Fail) -> bool:
        """Take the end of items that have no outcome; return whether the task has ended with it."""
        ...

    def settle(self, call: TaskCall) -> None:
        """Settle a task that has ended."""
        ...

    def fail(self, call: TaskCall, error: Exception) -> None:
        """Settle a task with an error, because no more outcomes will come."""
        ...


class ToCaller:
    """Gives outcomes to the calls that wait for them in this process; see :class:`Delivery`.

    Args:
        unretrieved: takes the calls that fail.
    """

    def __init__(self, unretrieved: UnretrievedErrors) -> None:
        self._unretrieved = unretrieved

    def read(self, call: Call, task_of: TaskOf, *, copy: bool) -> tuple[list[RangeOutcome], tuple[int, ...]]:
        """See :class:`Delivery`."""
        report = BatchReport.from_value(call.value)
        outputs = outputs_of(report, call.output.chunks)
        try:
            values = unpack(report.values, copy=copy)
        except BaseException:  # an object of the user's class cannot be rebuilt, but the other results are intact
            return _read_apart(call, report, outputs, task_of, copy=copy), report.missing
        return [
            RangeOutcome(*outcome[:5], value, outcome.started, output)
            for outcome, value, output in zip(report.outcomes, values, outputs, strict=True)
        ], report.missing

    def take_output(self, call: TaskCall, batch: Call, chunks: Sequence[OutputChunk]) -> None:
        """See :class:`Delivery`."""
        call.add_output(batch.engine_id, batch.request_id, chunks)

    def deliver(self, call: TaskCall, outcome: RangeOutcome, engine_id: int) -> bool:
        """See :class:`Delivery`. This sets the value or error of a call, which ``settle`` then publishes."""
        value, error = outcome.value, None
        if outcome.status is not RangeStatus.OK:
            value, error = None, _error_of(_in_its_map(outcome.value, call), call.label, engine_id)
        if isinstance(call, MapCall):
            if type(error) is TimeLimitExceeded and not call.joins:
                error.add_note(f"item {call.first + outcome.start} of {call.label}")
            return _add_piece(call, outcome.span, engine_id, value, error, outcome)
        call.engine_id, call.started, call.completed = engine_id, outcome.started, outcome.completed
        call.value, call.error = value, error
        return True

    def give_up(self, call: TaskCall, effect: Fail) -> bool:
        """See :class:`Delivery`."""
        error = _why(effect, call.label)
        if isinstance(call, MapCall):
            return _add_piece(call, effect.span, call.engine_id, None, error)
        call.error = error
        return True

    def settle(self, call: TaskCall) -> None:
        """See :class:`Delivery`."""
        value, error = call.value, call.error
        if isinstance(call, MapCall):  # its values are in its pieces
            error = call.failure
        if error is not None:
            call.error = error
            if _is_news(error):
                self._unretrieved.failed(call)
        call.settle(value, error)

    def fail(self, call: TaskCall, error: Exception) -> None:
        """See :class:`Delivery`."""
        call.settle(None, error)


def _add_piece(
    call: MapCall,
    span: TaskRange,
    engine_id: int,
    value: Any,
    error: Exception | None,
    outcome: RangeOutcome | None = None,
) -> bool:
    """Add the end of some items to a map; return whether none is left."""
    piece = MapPiece(
        call.request_id,
        engine_id,
        call.label,
        False,
        call.copies,
        submitted=call.submitted,
        received=time.time(),
        value=value,
        error=error,
        done=True,
        start=span.start,
        stop=span.stop,
    )
    if outcome is not None:
        piece.started, piece.completed = outcome.started, outcome.completed
        piece.output.chunks.extend(outcome.output)
    call.add(piece)
    return call.left == 0


def _is_news(error: Exception) -> bool:
    """Return whether to report an error that is not retrieved: not if it was intended, or if the cluster is gone."""
    if isinstance(error, CompositeError):
        return any(map(_is_news, error.exceptions))
    return not isinstance(error, TaskAborted | ConnectionLost)


def _in_its_map(value: Any, call: TaskCall) -> Any:
    """Return the outcome of an item; a failure names the item as its map does, and does not name a part of items."""
    if type(value) is not Failure or value.item is None:
        return value
    if not (isinstance(call, MapCall) and (call.first or call.joins)):
        return value
    return replace(value, item=None if call.joins else value.item._replace(number=call.first + value.item.number))


def _error_of(value: Any, label: str, engine_id: int) -> Exception:
    match value:
        case Failure():
            # unpack() returns this client's own class for a class of __main__, so that `except Mine` catches it here.
            return with_hint(value).with_sources().to_exception(lambda data: unpack(Payload(data)))
        case Expired(limit_s, ran_s):
            return TimeLimitExceeded(engine_id, label, limit_s, ran_s, flag="time_limit")
        case Exception():
            return value
        case _:
            return UnmetDependency(label)


def _why(effect: Fail, label: str) -> Exception:
    match effect.why:
        case Why.ABORTED:
            return TaskAborted(None, label)
        case Why.IMPOSSIBLE:
            return ImpossibleDependency(label, effect.reason)
        case Why.TIMED_OUT:
            return TaskTimeout(label, effect.reason)
        case Why.ENGINES_LOST:
            return TaskLost(label, effect.reason)


def outputs_of(report: BatchReport, chunks: Sequence[OutputChunk]) -> list[Sequence[OutputChunk]]:
    """Divide the output of a batch among the outcomes of its report."""
    if not chunks:  # this is usual
        return [()] * len(report.outcomes)
    ranges = [outcome.output for outcome in report.outcomes]
    if ranges:
        # Output after the last item, such as the end of a flood and the notice of the cut, counts as output of that
        # item.
        ranges[-1] = ranges[-1][0], len(chunks)
    return [[chunk for chunk in chunks[start:stop] if type(chunk) is not TaskMark] for start, stop in ranges]


def _read_apart(
    call: Call, report: BatchReport, outputs: list[Sequence[OutputChunk]], task_of: TaskOf, *, copy: bool
) -> list[RangeOutcome]:
    """Read a batch with values that cannot be unpickled. Each of these becomes a failure; the rest is delivered."""
    try:
        salvage = Salvage(report.values, copy=copy)
    except BaseException as error:
        error = error_here(error, call.label, call.engine_id)
        return [outcome._replace(status=RangeStatus.FAILED, value=error, output=()) for outcome in report.outcomes]
    outcomes = []
    for index, (outcome, output) in enumerate(zip(report.outcomes, outputs, strict=True)):
        task = task_of(outcome.task_id) or call
        bare = outcome._replace(output=output)
        outcomes += take_apart(bare, salvage, index, task, call.engine_id)
    return outcomes


def take_apart(outcome: RangeOutcome, salvage: Salvage, index: int, task: Call, engine_id: int) -> list[RangeOutcome]:
    """Cut an outcome into parts, so that the items that cannot be unpickled are in parts that have failed.

    Args:
        outcome: the outcome, without its value.
        salvage: holds the value.
        index: the value's place in ``salvage``.
        task: the task; the value of a map is a list with one value for each item.
        engine_id: the engine that ran it.
    """
    items = isinstance(task, MapCall) and outcome.status is RangeStatus.OK
    values = salvage.items(index) if items else [salvage.value(index)]
    each_s = outcome.elapsed_s / len(values)
    parts, start = [], outcome.start
    for _, group in groupby(values, lambda value: type(value) is Broken and value):
        run = list(group)
        stop = start + len(run) if items else outcome.stop
        part = outcome._replace(start=start, stop=stop, elapsed_s=each_s * len(run), value=run if items else run[0])
        if type(run[0]) is Broken:
            which = f"{_items_in_words(task, start, stop)} of {task.label}" if items else task.label
            error = error_here(run[0].error, which, engine_id)
            part = part._replace(status=RangeStatus.FAILED, value=error)
        parts.append(part)
        # The first part gets all the output, since the item that wrote it is not known.
        outcome, start = outcome._replace(started=part.completed, output=()), stop
    return parts
