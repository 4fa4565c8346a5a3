"""What engines say of batches, and what it means to who submitted the tasks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nsactors.core.messages import OutputChunk
from nsactors.core.payload import Payload, unpack
from nsactors.core.scheduling import GiveUp, Ran, Span, Status, Why
from nsactors.core.tasks import Report, TaskRan
from nsactors.errors import (
    CompositeError,
    ConnectionLost,
    Failure,
    ImpossibleDependency,
    TaskAborted,
    TaskLost,
    TaskTimeout,
    TimeLimitExceeded,
    UnmetDependency,
)
from nsactors.results import Call, MapCall, MapPiece, TaskCall

if TYPE_CHECKING:
    from nsactors.client.ledger import Ledger

__all__ = ["Delivery", "Outcome", "ToCaller", "between", "deliver", "failed", "give_up", "settle"]


class Delivery(Protocol):
    """What becomes of results. All methods are called on the thread that drives the scheduler."""

    def read(self, call: Call, *, copy: bool) -> tuple[list[Ran], tuple[int, ...]]:
        """What a batch that has been answered came to, for the scheduler; and the functions that the engine misses.

        Args:
            call: the batch.
            copy: make arrays that can be written to.
        """
        ...

    def deliver(self, call: TaskCall, ran: Ran, engine_id: int) -> bool:
        """Take final results of a task; whether it has ended by that."""
        ...

    def give_up(self, call: TaskCall, effect: GiveUp) -> bool:
        """Items of a task have ended without a result; whether it has ended by that."""
        ...

    def settle(self, call: TaskCall) -> None:
        """Settle a task that has ended."""
        ...


class Outcome(NamedTuple):
    """How items ended, as it came from an engine.

    Attributes:
        value: what they returned; or a failure, a time limit in seconds, an exception of this process.
        started: when they began, on the engine's clock.
        completed: when they ended.
        chunks: their output.
    """

    value: Any
    started: float | None = None
    completed: float | None = None
    chunks: Sequence[OutputChunk] = ()


class ToCaller:
    """Gives results to who waits for them in this process.

    Args:
        ledger: told of failures.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def read(self, call: Call, *, copy: bool) -> tuple[list[Ran], tuple[int, ...]]:
        """See :class:`Delivery`."""
        return _read_report(call, copy=copy)

    def deliver(self, call: TaskCall, ran: Ran, engine_id: int) -> bool:
        """See :class:`Delivery`."""
        return deliver(call, ran, engine_id)

    def give_up(self, call: TaskCall, effect: GiveUp) -> bool:
        """See :class:`Delivery`."""
        return give_up(call, effect)

    def settle(self, call: TaskCall) -> None:
        """See :class:`Delivery`."""
        settle(call, self._ledger)


def settle(call: TaskCall, ledger: Ledger) -> None:
    """End a task that has all its results."""
    value, error = call.value, call.error
    if isinstance(call, MapCall):  # whose values are in its pieces
        error = call.failure
    if error is not None:
        call.error = error
        if _is_news(error):
            ledger.failed(call)
    call.settle(value, error)


def _is_news(error: Exception) -> bool:
    """What was given up on purpose is none."""
    if isinstance(error, CompositeError):
        return any(map(_is_news, error.exceptions))
    return not isinstance(error, TaskAborted | ConnectionLost)


def _read_report(call: Call, *, copy: bool) -> tuple[list[Ran], tuple[int, ...]]:
    report = Report.from_value(call.value)
    try:
        values = unpack(report.values, copy=copy)
    except Exception as error:  # whatever a class of the user's does when it is rebuilt
        error.add_note(f"Results of {call.label} on engine {call.engine_id} cannot be unpickled here.")
        return [failed(Span(ran.task_id, ran.start, ran.stop), error, ran) for ran in report.ran], report.missing
    chunks = call.output.chunks
    return [
        Ran(
            ran.task_id,
            ran.start,
            ran.stop,
            ran.status,
            ran.elapsed_s,
            Outcome(value, ran.started, ran.started + ran.elapsed_s, between(chunks, ran.output)),
        )
        for ran, value in zip(report.ran, values, strict=True)
    ], report.missing


def failed(span: Span, error: Exception, ran: TaskRan | None = None) -> Ran:
    """Items that failed for something that went wrong here."""
    if ran is None:
        return Ran(*span, Status.FAILED, 0.0, Outcome(error))
    return Ran(*span, Status.FAILED, ran.elapsed_s, Outcome(error, ran.started, ran.started + ran.elapsed_s))


def deliver(call: TaskCall, ran: Ran, engine_id: int) -> bool:
    """Hand final results over; whether the task has ended by that.

    A call has then a value or an error and is yet to be settled.
    """
    outcome: Outcome = ran.value
    target: Call = call
    if isinstance(call, MapCall):
        target = _piece(call, engine_id, ran.start, ran.stop)
    target.engine_id = engine_id
    target.started, target.completed = outcome.started, outcome.completed
    if outcome.chunks:
        target.output.chunks.extend(outcome.chunks)
    if ran.status is Status.OK:
        target.value = outcome.value
    else:
        target.error = _error_of(outcome.value, call.label, engine_id)
    return _has_ended(call, target)


def give_up(call: TaskCall, effect: GiveUp) -> bool:
    """Items have ended without a result; as :func:`deliver`."""
    target: Call = call
    if isinstance(call, MapCall):
        target = _piece(call, call.engine_id, effect.span.start, effect.span.stop)
    target.error = _why(effect, call.label)
    return _has_ended(call, target)


def _has_ended(call: TaskCall, target: Call) -> bool:
    if not isinstance(call, MapCall):
        return True
    assert isinstance(target, MapPiece), "maps come in pieces"
    target.received, target.done = time.time(), True
    call.add(target)
    return call.left == 0


def _piece(call: MapCall, engine_id: int, start: int, stop: int) -> MapPiece:
    return MapPiece(
        call.request_id, engine_id, call.label, False, call.copies, submitted=call.submitted, start=start, stop=stop
    )


def _error_of(value: Any, label: str, engine_id: int) -> Exception:
    match value:
        case Failure():
            # Classes of __main__ are known by what unpack() makes of them, so that `except Mine` catches them here.
            return value.with_sources().to_exception(lambda data: unpack(Payload(data)))
        case float() | int():
            return TimeLimitExceeded(engine_id, label, value)
        case Exception():
            return value
        case _:
            return UnmetDependency(label)


def _why(effect: GiveUp, label: str) -> Exception:
    match effect.why:
        case Why.ABORTED:
            return TaskAborted(None, label)
        case Why.IMPOSSIBLE:
            return ImpossibleDependency(label, effect.reason)
        case Why.TIMED_OUT:
            return TaskTimeout(label, effect.reason)
        case Why.ENGINES_LOST:
            return TaskLost(label, effect.reason)


def between(chunks: Sequence[OutputChunk], output: tuple[int, int]) -> Sequence[OutputChunk]:
    """The output of some of a batch's items, of all of its output."""
    return chunks[output[0] : output[1]] if output[0] < output[1] else ()
