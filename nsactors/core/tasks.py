"""Tasks as they travel: batches to engines, and what engines say of them.

A batch is packed as one value. Each call in it, each function of a map and each slice of a map's items is a payload
that was packed by itself, so that one that cannot be read harms no other; here they are laid into one another without
copying what is large. Results come back as one payload, laid into the report that says whose they are.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any, NamedTuple

from nsactors.core.payload import Buffer, Payload
from nsactors.core.scheduling import Span, Status, TaskId

__all__ = ["BatchKey", "Part", "Report", "TaskRan", "nest", "read_parts", "unnest", "write_parts"]

_INLINE_BYTES = 64 * 1024

BatchKey = tuple[str, int]
"""The name of who made a batch, and its number there."""

Nested = bytes | tuple[Any, ...]


class Part(NamedTuple):
    """Consecutive items of a task, in a batch.

    Attributes:
        task_id: the task, as its scheduler calls it.
        start: the first item.
        stop: the one after the last.
        label: what people call the task, e.g. ``apply(f)``.
        job: of a map, the number under which an engine keeps its function; None for a call.
        call: a call's ``(function, args, kwargs)``, a map's function; None for one that the engine has already.
        columns: a map's items, a tuple of as many sequences as the function has arguments; None for a call.
        limit_s: seconds after which an item is interrupted.
        copy: whether arrays are to be copies that can be written to.
    """

    task_id: TaskId
    start: int
    stop: int
    label: str
    job: int | None
    call: Payload | None
    columns: Payload | None = None
    limit_s: float | None = None
    copy: bool = False

    @property
    def span(self) -> Span:
        """Its items."""
        return Span(self.task_id, self.start, self.stop)


class TaskRan(NamedTuple):
    """Items of a task that have ended alike.

    Attributes:
        task_id: the task.
        start: the first of them.
        stop: the one after the last.
        started: when the first one began, in seconds since the epoch on the engine's clock.
        elapsed_s: how long they took.
        output: their output: from which chunk of the batch's to which.
        status: how they ended.
    """

    task_id: TaskId
    start: int
    stop: int
    started: float
    elapsed_s: float
    output: tuple[int, int]
    status: Status


class Report(NamedTuple):
    """What an engine says of a batch.

    Attributes:
        ran: what it ran, in order.
        values: a payload of one value for each of these: what a call returned, a list of what items returned, or why
            they failed (a ``Failure``, or the time limit in seconds).
        missing: the jobs whose functions it does not have any more; it has not begun their items.
    """

    ran: tuple[TaskRan, ...]
    values: Payload
    missing: tuple[int, ...] = ()

    def as_value(self) -> tuple[Any, ...]:
        """What to pack of it."""
        ran = [(*fields, status.name) for *fields, status in self.ran]
        return ran, nest(self.values), self.missing

    @classmethod
    def from_value(cls, value: tuple[Any, ...]) -> Report:
        """Undo :meth:`as_value`."""
        ran, values, missing = value
        known = tuple(TaskRan._make((*fields, Status[status])) for *fields, status in ran)
        return cls(known, unnest(values), missing)


def write_parts(parts: Iterable[Part]) -> list[tuple[Any, ...]]:
    """What to pack of a batch."""
    return [
        (
            part.task_id,
            part.start,
            part.stop,
            part.label,
            part.job,
            None if part.call is None else nest(part.call),
            None if part.columns is None else nest(part.columns),
            part.limit_s,
            part.copy,
        )
        for part in parts
    ]


def read_parts(value: Iterable[tuple[Any, ...]]) -> list[Part]:
    """Undo :func:`write_parts`."""
    return [_read_part(*fields) for fields in value]


def _read_part(
    task_id: TaskId,
    start: int,
    stop: int,
    label: str,
    job: int | None,
    call: Nested | None,
    columns: Nested | None,
    limit_s: float | None,
    copy: bool,
) -> Part:
    unpacked_call = None if call is None else unnest(call)
    unpacked_columns = None if columns is None else unnest(columns)
    return Part(task_id, start, stop, label, job, unpacked_call, unpacked_columns, limit_s, copy)


def nest(payload: Payload) -> Nested:
    """A payload as a part of a value that is to be packed; what is large of it is not copied then."""
    if not payload.buffers and not payload.refs and len(payload.data) <= _INLINE_BYTES:
        return payload.data
    return _aside(payload.data), tuple(_aside(buffer) for buffer in payload.buffers), payload.refs


def unnest(nested: Nested) -> Payload:
    """Undo :func:`nest`."""
    if isinstance(nested, bytes):
        return Payload(nested)
    return Payload(*nested)


def _aside(buffer: Buffer) -> Any:
    return buffer if len(buffer) <= _INLINE_BYTES and type(buffer) is bytes else pickle.PickleBuffer(buffer)
