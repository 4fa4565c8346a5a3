"""What people give to load-balanced views, in the forms that tasks take."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nsactors.core.messages import Reference
from nsactors.core.remote_value import RemoteValue
from nsactors.core.scheduling import ANYWHERE, Needs
from nsactors.core.targets import Targets, resolve
from nsactors.results import MapCall
from nsactors.views.flags import TaskFlags
from nsactors.views.mapping import name_of

__all__ = [
    "MapCallChunk",
    "checked_name",
    "column_of",
    "kept_copy",
    "kind_of",
    "needs_of",
    "parts_of",
    "resolved_targets",
]

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


def needs_of(flags: TaskFlags) -> Needs:
    """Which engines may run the tasks of a view.

    Raises:
        TypeError: if labels are not text, or resources not numbers.
        ValueError: if an amount is negative.
    """
    targets = flags.targets if isinstance(flags.targets, list) else None
    labels, resources = _mapping(flags.labels), _mapping(flags.resources)
    if labels is None or not all(isinstance(text, str) for item in labels.items() for text in item):
        raise TypeError(f"labels are names and conditions, such as {{'zone': 'b'}}, not {flags.labels!r}")
    if resources is None or not all(_is_amount(amount) for amount in resources.values()):
        raise TypeError(f"resources are names and amounts, such as {{'GPU': 1}}, not {flags.resources!r}")
    if any(amount < 0 for amount in resources.values()):
        raise ValueError(f"amounts of resources are 0 or more, not {flags.resources!r}")
    return ANYWHERE if targets is None and not (labels or resources) else Needs.of(targets, resources, labels)


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


def _mapping(value: object) -> Mapping[Any, Any] | None:
    return {} if value is None else value if isinstance(value, Mapping) else None


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)
