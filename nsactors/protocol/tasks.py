"""Batches of tasks and results of map items, as they travel.

A batch is packed as one value. Each call in it, each function of a map and each slice of a map's items is a payload
that was packed by itself, so that a payload that cannot be read does not affect the others. Payloads are nested without
copying large buffers. Results return as one payload, nested in a report that assigns them to tasks.

The items of a map that go to an engine together are one call, and their results one list. An item that fails, or whose
result cannot be pickled, does not affect the other items: its failure travels beside their values.
"""

from __future__ import annotations

import enum
import pickle
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from nsactors.errors import Failure, SerializationError
from nsactors.protocol.serialize import Buffer, Payload
from nsactors.protocol.wire import INLINE_LIMIT_BYTES


class MapItems(NamedTuple):
    """The items of a map that one call carries.

    Attributes:
        numbers: the numbers of the items; a range, unless the user's partitioner has chosen the items.
        spares: whether exceptions replace the results of items that fail.
        lazily: whether the results before a failed item are returned.
    """

    numbers: Sequence[int]
    spares: bool
    lazily: bool = False

    def as_value(self) -> tuple[Any, ...]:
        """Return plain values to pickle: each class in a pickle, such as range, costs the receiver a lookup."""
        numbers = self.numbers
        if type(numbers) is not range:
            return list(numbers), self.spares, self.lazily
        return numbers.start, numbers.stop, numbers.step, self.spares, self.lazily

    @classmethod
    def from_value(cls, value: tuple[Any, ...]) -> MapItems:
        """Reverse :meth:`as_value`."""
        *numbers, spares, lazily = value
        return cls(range(*numbers) if len(numbers) > 1 else numbers[0], spares, lazily)


class SomeValues(NamedTuple):
    """The first entry of a list of values that has gaps or ends early.

    Attributes:
        failures: the failures of items, by their index among the values.
        ended: the failure of the item after the last value; None if the list is complete.
    """

    failures: dict[int, Failure]
    ended: Failure | None = None


class PackValue(Protocol):
    """Pickles a value."""

    def __call__(self, value: object, what: str) -> Payload:
        """Pickle ``value``, or raise a SerializationError in which its name is ``what``."""
        ...


class MapValues:
    """The results of the items of a map that one call carries, to be pickled.

    Args:
        items: the items.
        label: the name of the map for users.
        values: the results, in the order of the items.
        failures: the failures of items that failed, by their index.
        ended: the failure of the item after the last value.
        describe: turns an exception into a failure.
    """

    def __init__(
        self,
        items: MapItems,
        label: str,
        values: list[Any],
        failures: dict[int, Failure],
        ended: Failure | None,
        describe: Callable[[BaseException], Failure],
    ) -> None:
        self._items = items
        self._label = label
        self._values = values
        self._failures = failures
        self._ended = ended
        self._describe = describe

    def pack(self, pack: PackValue) -> Payload:
        """Pickle the values; if no item failed, as a plain list.

        Raises:
            SerializationError: if the result of an item cannot be pickled, and no exception may replace it.
        """
        try:
            return pack(self._content(), "the result")
        except (SerializationError, KeyboardInterrupt) as error:  # user code in `__reduce__` may raise either
            # Pickle each value by itself only after a failure, because one pickle is faster.
            if not self._set_aside(pack):
                raise SerializationError(f"the result of {self._label}", _reason(error)) from error
        return pack(self._content(), "the result")

    def _content(self) -> list[Any]:
        whole = not self._failures and self._ended is None
        return self._values if whole else [SomeValues(self._failures, self._ended), *self._values]

    def _set_aside(self, pack: PackValue) -> bool:
        """Put failures in place of values that cannot be pickled; return whether there were any."""
        found = False
        for place, value in enumerate(self._values):
            if (error := self._error_of(place, value, pack)) is None:
                continue
            found = True
            if self._items.spares:
                self._failures[place], self._values[place] = self._describe(error), None
            elif self._items.lazily:
                del self._values[place:]
                self._ended = self._describe(error)
                break
            else:
                raise error
        return found

    def _error_of(self, place: int, value: Any, pack: PackValue) -> SerializationError | None:
        what = f"the result of item {self._items.numbers[place]} of {self._label}"
        try:
            pack(value, what)
        except SerializationError as error:
            return error
        except KeyboardInterrupt as error:
            return SerializationError(what, _reason(error))
        return None


def _reason(error: BaseException) -> str:
    return error.reason if isinstance(error, SerializationError) else type(error).__name__


TaskId = Hashable


class TaskRange(NamedTuple):
    """Items ``start`` to ``stop - 1`` of a task; a call has one item, number 0."""

    task_id: TaskId
    start: int = 0
    stop: int = 1


class RangeStatus(enum.Enum):
    """The way in which a task range ended on an engine."""

    OK = "ok"
    FAILED = "failed"
    UNNAMED = "failed for a name that this engine, which restarted with an empty namespace, does not have"
    UNMET = "this engine does not meet a condition of the task: try another"


BatchKey = tuple[str, int]
"""The name of the scheduler that made a batch, and its number there."""

Nested = bytes | tuple[Any, ...]


class BatchPart(NamedTuple):
    """Consecutive items of a task, in a batch.

    Attributes:
        task_id: the id that the scheduler gave the task.
        start: the first item.
        stop: the item after the last.
        label: the name of the task for users, e.g. ``apply(f)``.
        job: for a map, the number under which the engine stores its function; None for a call.
        call: for a call, its ``(function, args, kwargs)``; for a map, its function, or None if the engine has stored
            it.
        columns: for a map, its items, as a list with one sequence per argument of the function; None for a call.
        limit_s: the time limit of an item in seconds.
        copy: whether arrays are copied, so that they are writable.
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
    def span(self) -> TaskRange:
        """The task range of these items."""
        return TaskRange(self.task_id, self.start, self.stop)


class RangeOutcome(NamedTuple):
    """Consecutive items of a task that ended in the same way.

    Attributes:
        task_id: the task.
        start: the first item.
        stop: the item after the last.
        status: the way in which they ended.
        elapsed_s: their duration together, in seconds.
        value: the result of a call, or the list of the results of a map's items. If they failed, a ``Failure``, an
            ``Expired`` or an exception of the client's process. If a condition is not met, its text. A report has the
            value in its ``values`` instead.
        started: the start of the first item, in seconds since the epoch on the engine's clock; None if no item began.
        output: the chunks that the items wrote. In a report, two numbers instead, ``first`` and ``stop``: these chunks
            are those from ``first`` to ``stop - 1`` in the output of the batch.
    """

    task_id: TaskId
    start: int
    stop: int
    status: RangeStatus
    elapsed_s: float
    value: Any = None
    started: float | None = None
    output: Sequence[Any] = ()

    @property
    def span(self) -> TaskRange:
        """The task range of these items."""
        return TaskRange(self.task_id, self.start, self.stop)

    @property
    def completed(self) -> float | None:
        """The end of the last item, on the engine's clock; None if no item began."""
        return None if self.started is None else self.started + self.elapsed_s

    def items(self) -> Iterator[RangeOutcome]:
        """Yield an outcome for each item of a map: its value, and an equal share of the time.

        Call this only if no item has failed.
        """
        each_s = self.elapsed_s / len(self.value)
        for offset, value in enumerate(self.value):
            at, started = self.start + offset, None if self.started is None else self.started + offset * each_s
            yield self._replace(start=at, stop=at + 1, elapsed_s=each_s, value=[value], started=started)


class BatchReport(NamedTuple):
    """The report of an engine on a batch.

    Attributes:
        outcomes: the outcomes of the items that it ran, in order, without their values.
        values: the payload of a list with one value for each outcome.
        missing: the jobs whose functions the engine does not have any more; it has not begun their items.
    """

    outcomes: tuple[RangeOutcome, ...]
    values: Payload
    missing: tuple[int, ...] = ()

    def as_value(self) -> tuple[Any, ...]:
        """Return plain values to be packed."""
        outcomes = [
            (o.task_id, o.start, o.stop, o.status.name, o.elapsed_s, o.started, o.output) for o in self.outcomes
        ]
        return outcomes, nest(self.values), self.missing

    @classmethod
    def from_value(cls, value: tuple[Any, ...]) -> BatchReport:
        """Reverse :meth:`as_value`."""
        outcomes, values, missing = value
        read = [
            RangeOutcome(task_id, start, stop, RangeStatus[status], elapsed_s, None, started, output)
            for task_id, start, stop, status, elapsed_s, started, output in outcomes
        ]
        return cls(tuple(read), unnest(values), missing)


def write_parts(parts: Iterable[BatchPart]) -> list[tuple[Any, ...]]:
    """Return the parts of a batch as plain values to pack."""
    return [
        (*head, None if call is None else nest(call), None if columns is None else nest(columns), limit_s, copy)
        for *head, call, columns, limit_s, copy in parts
    ]


def read_parts(value: Iterable[tuple[Any, ...]]) -> list[BatchPart]:
    """Reverse :func:`write_parts`."""
    return [
        BatchPart._make(
            (*head, None if call is None else unnest(call), None if columns is None else unnest(columns), limit_s, copy)
        )
        for *head, call, columns, limit_s, copy in value
    ]


def nest(payload: Payload) -> Nested:
    """Return a payload as part of another value to pack, with its large buffers out of band."""
    if not payload.buffers and not payload.refs and len(payload.data) <= INLINE_LIMIT_BYTES:
        return payload.data
    return _aside(payload.data), tuple(_aside(buffer) for buffer in payload.buffers), payload.refs


def unnest(nested: Nested) -> Payload:
    """Reverse :func:`nest`."""
    if isinstance(nested, bytes):
        return Payload(nested)
    return Payload(*nested)


def _aside(buffer: Buffer) -> Any:
    return buffer if len(buffer) <= INLINE_LIMIT_BYTES and type(buffer) is bytes else pickle.PickleBuffer(buffer)
