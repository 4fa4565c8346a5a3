"""What people give to load-balanced views, in the forms that tasks take."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nsactors.core.messages import Reference
from nsactors.core.remote_value import RemoteValue
from nsactors.core.targets import Targets, resolve
from nsactors.results import MapCall
from nsactors.views.mapping import name_of

__all__ = ["MapCallChunk", "checked_name", "column_of", "kept_copy", "kind_of", "parts_of", "resolved_targets"]

_SLICEABLE = (range, list, tuple, str, bytes, bytearray)


@dataclass(frozen=True, slots=True)
class MapCallChunk:
    """A chunk of a lazy map, as a task."""

    call: MapCall

    @property
    def length(self) -> int:
        """How many items it has."""
        return self.call.size

    @property
    def seconds(self) -> float | None:
        """How long its items took together."""
        return sum(
            p.completed - p.started for p in self.call.pieces if p.started is not None and p.completed is not None
        )

    def results(self, return_exceptions: bool) -> Iterator[Any]:
        """One an item, as far as there are any; then raises what came in between."""
        call = self.call
        for piece in sorted(call.pieces, key=lambda piece: piece.start):
            if piece.error is not None and not return_exceptions:
                raise piece.error
            yield from piece.values
        if call.left and call.error is not None:  # the client was closed
            raise call.error


def checked_name(function: Any) -> str:
    """What people call a function; TypeError if it is none."""
    if not callable(function) and not isinstance(function, Reference | RemoteValue):
        raise TypeError(f"a task calls a function, not {function!r}")
    return name_of(function)


def kind_of(function: Callable[..., Any] | Reference) -> tuple[Any, ...]:
    """Equal for tasks that can be expected to take about as long: those that call the same function."""
    code = getattr(function, "__code__", None)
    line = None if code is None else code.co_firstlineno
    return getattr(function, "__module__", None), getattr(function, "__qualname__", name_of(function)), line


def column_of(sequence: Iterable[Any]) -> Any:
    """A sequence that can be cut: itself if it can, iterables without a length as they are, others as a list."""
    if isinstance(sequence, _SLICEABLE) or _is_array(sequence) or not hasattr(sequence, "__len__"):
        return sequence
    return list(sequence)


def kept_copy(column: Sequence[Any]) -> Sequence[Any]:
    """A sequence that its owner cannot change while its items are being sent."""
    if isinstance(column, list):
        return list(column)
    if isinstance(column, bytearray):
        return bytes(column)
    if _is_array(column):
        array: Any = column
        return array.copy() if array.flags.writeable else array  # type: ignore[no-any-return]
    return column


def parts_of(column: Any, size: int) -> list[Any]:
    """Consecutive parts of ``size`` items; the last may have fewer."""
    return [column[start : start + size] for start in range(0, len(column), size)]


def resolved_targets(targets: Targets, ids: Sequence[int]) -> Targets:
    """A list of ids; ``"all"`` for None and for itself: those that there are at any time."""
    if targets is None or (isinstance(targets, str) and targets == "all"):
        return "all"
    return resolve(targets, ids)


def _is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)
