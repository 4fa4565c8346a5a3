"""What engines say of batches, and what it means to who submitted the tasks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from nsactors.core.messages import OutputChunk
from nsactors.core.payload import Payload, unpack
from nsactors.core.scheduling import GiveUp, Ran, Span, Status, Why
from nsactors.core.tasks import Report, TaskRan
from nsactors.errors import (
    Failure,
    ImpossibleDependency,
    TaskAborted,
    TaskLost,
    TaskTimeout,
    TimeLimitExceeded,
    UnmetDependency,
)
from nsactors.results import Call, MapCall, MapPiece, TaskCall

__all__ = ["Outcome", "deliver", "failed", "give_up", "read_report"]


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


def read_report(call: Call, *, copy: bool) -> tuple[list[Ran], tuple[int, ...]]:
    """What a batch that has been answered came to, for the scheduler; and the functions that the engine misses.

    Args:
        call: the batch.
        copy: make arrays that can be written to.
    """
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
            Outcome(value, ran.started, ran.started + ran.elapsed_s, _between(chunks, ran.output)),
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


def _between(chunks: Sequence[OutputChunk], output: tuple[int, int]) -> Sequence[OutputChunk]:
    return chunks[output[0] : output[1]] if output[0] < output[1] else ()
