"""Sequences spread over engines: how they are cut, and what an engine does with its part."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nsactors.core.messages import Reference
from nsactors.core.partition import Block, Partitioner, RoundRobin, cut
from nsactors.core.remote_value import RemoteValue

__all__ = ["MapPart", "Piece", "name_of", "of_equal_length", "partitioner_for", "work_for"]

# In these proportions is an engine's share of a map cut: one is on its way while the next is computed, and the last is
# smaller, for it is unpacked when nothing is left to compute. Each costs 2 ms.
PIECES = (2, 1)
PIECE_ITEMS = 256  # fewer are not worth a message of their own


class MapPart:
    """``function`` mapped over an engine's parts."""

    def __init__(self, function: Callable[..., Any], return_exceptions: bool) -> None:
        self.function = function
        self._return_exceptions = return_exceptions

    def __call__(self, *parts: Iterable[Any]) -> list[Any]:
        """Map over one part of each sequence."""
        if len(parts) > 1:
            return list(self.results(*parts))
        function = self._function_of_item
        return [function(item) for item in parts[0]]  # quicker than map() for functions written in Python

    def results(self, *parts: Iterable[Any]) -> Iterator[Any]:
        """The same, one after the other."""
        return map(self._function_of_item, *parts)

    @property
    def _function_of_item(self) -> Callable[..., Any]:
        return self._tolerant if self._return_exceptions else self.function

    def _tolerant(self, *items: Any) -> Any:
        try:
            return self.function(*items)
        except Exception as error:
            return error


@dataclass(frozen=True, slots=True)
class Piece:
    """What one engine does in one go: its parts of the sequences, and the how-manieth of its pieces this is."""

    engine_id: int
    turn: int
    parts: tuple[Any, ...]


def work_for(
    engine_ids: Sequence[int], sequences: Sequence[Any], partitioner: Partitioner, *, in_pieces: bool
) -> list[Piece]:
    """Spread sequences of equal length over engines, in their order; engines without a share get no piece.

    Args:
        engine_ids: the engines.
        sequences: at least one.
        partitioner: cuts each of them into one part per engine.
        in_pieces: cut long parts again, so that results are on their way back while engines still compute.
    """
    shares = zip(*(partitioner.split(seq, len(engine_ids)) for seq in sequences), strict=True)
    work = []
    for engine_id, share in zip(engine_ids, shares, strict=True):
        length = len(share[0])
        cuts = _cuts(length) if in_pieces else [slice(0, length)]
        work += [
            Piece(engine_id, turn, tuple(cut(part, at) for part in share)) for turn, at in enumerate(cuts) if length
        ]
    return work


def _cuts(length: int) -> list[slice]:
    """Where an engine's share is cut."""
    if length < len(PIECES) * PIECE_ITEMS:
        return [slice(0, length)]
    ends = [length * part // sum(PIECES) for part in itertools.accumulate(PIECES, initial=0)]
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


def of_equal_length(sequences: Sequence[Any]) -> list[Any]:
    """The sequences, cut to the shortest; iterables without a length become lists."""
    endless_allowed = any(hasattr(seq, "__len__") for seq in sequences)
    shortest = min((len(seq) for seq in sequences if hasattr(seq, "__len__")), default=None)
    sized = [
        seq if hasattr(seq, "__len__") else list(itertools.islice(seq, shortest) if endless_allowed else seq)
        for seq in sequences
    ]
    length = min(len(seq) for seq in sized)
    return [seq if len(seq) == length else seq[:length] for seq in sized]


def partitioner_for(dist: str, axis: int = 0) -> Partitioner:
    """The partitioner that ``dist`` stands for.

    Raises:
        ValueError: if there is none.
    """
    match dist:
        case "b":
            return Block(axis)
        case "r":
            return RoundRobin(axis)
        case _:
            raise ValueError(f"dist is 'b' (contiguous parts) or 'r' (dealt out in turn), not {dist!r}")


def name_of(function: Any) -> str:
    """What people call a function, a reference to one, or another object that can be called."""
    if isinstance(function, Reference | RemoteValue):
        return function.name
    return getattr(function, "__name__", None) or type(function).__name__
