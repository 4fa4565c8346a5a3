"""What tasks consist of: what is to be called with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nsactors.core.payload import Payload, pack
from nsactors.core.remote_value import RemoteValue
from nsactors.core.scheduling import Span
from nsactors.core.tasks import Part
from nsactors.core.wire import INLINE_LIMIT_BYTES
from nsactors.errors import SerializationError
from nsactors.results import TaskCall
from nsactors.transport.base import Transport

__all__ = ["Job", "MapFunction", "Unsendable"]


class MapFunction(NamedTuple):
    """The function of a map: engines keep it under its number, so that it is sent to each of them once."""

    number: int
    payload: Payload

    def stored_if_large(self, transport: Transport, label: str, type_name: str) -> MapFunction:
        """One that carries much, with a reference to it in its place: it is stored once, and not for each engine."""
        payload = self.payload
        if payload.nbytes <= INLINE_LIMIT_BYTES:
            return self
        value = RemoteValue(transport.keep(payload), type_name, None, label, type_name, payload.nbytes)
        return MapFunction(self.number, pack(value, what=label, ref_types=transport.ref_types))


class Unsendable(NamedTuple):
    """An item that cannot be pickled."""

    span: Span
    error: SerializationError


@dataclass(frozen=True, slots=True)
class Job:
    """A task's content.

    Attributes:
        call: what its submitter sees of it.
        payload: of a call: function and arguments.
        function: of a map.
        columns: of a map: the items, as many sequences as the function has arguments.
        limit_s: seconds after which an item is interrupted.
    """

    call: TaskCall
    payload: Payload | None = None
    function: MapFunction | None = None
    columns: tuple[Sequence[Any], ...] = ()
    limit_s: float | None = None

    def parts(
        self, span: Span, *, with_function: bool, ref_types: tuple[type, ...]
    ) -> tuple[list[Part], list[Unsendable]]:
        """What to send of some of its items, and what cannot be sent.

        Args:
            span: the items.
            with_function: the engine does not have a map's function yet.
            ref_types: classes of references to an object store.
        """
        call, function = self.call, self.function
        if function is None:
            return [Part(*span, call.label, None, self.payload, None, self.limit_s, call.copies)], []
        payload = function.payload if with_function else None
        packed, unsendable = self._pack(span, ref_types)
        return [
            Part(*part, call.label, function.number, payload, columns, self.limit_s, call.copies)
            for part, columns in packed
        ], unsendable

    def _pack(self, span: Span, ref_types: tuple[type, ...]) -> tuple[list[tuple[Span, Payload]], list[Unsendable]]:
        task_id, start, stop = span
        try:
            items = tuple(column[start:stop] for column in self.columns)
            return [(span, pack(items, what=f"items {start} to {stop - 1}", ref_types=ref_types))], []
        except SerializationError as error:
            if stop - start == 1:
                return [], [Unsendable(span, error)]
        middle = (start + stop) // 2
        left, lost = self._pack(Span(task_id, start, middle), ref_types)
        right, lost_too = self._pack(Span(task_id, middle, stop), ref_types)
        return left + right, lost + lost_too
