"""Sequences spread over engines: how they are cut, and what an engine does with its part."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nsactors.core.partition import Block, Partitioner, RoundRobin

__all__ = ["MapPart", "of_equal_length", "partitioner_for"]


class MapPart:
    """``function`` mapped over an engine's parts."""

    def __init__(self, function: Callable[..., Any], return_exceptions: bool) -> None:
        self._function = function
        self._return_exceptions = return_exceptions

    def __call__(self, *parts: Iterable[Any]) -> list[Any]:
        """Map over one part of each sequence."""
        function = self._tolerant if self._return_exceptions else self._function
        return list(map(function, *parts))

    def _tolerant(self, *items: Any) -> Any:
        try:
            return self._function(*items)
        except Exception as error:
            return error


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
