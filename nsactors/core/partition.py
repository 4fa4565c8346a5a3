"""How sequences are cut into parts, one an engine, and joined again.

Parts differ in length by at most one; the first ``len % n`` have the extra element. Parts of lists and tuples
are lists and tuples, parts of ranges are ranges, parts of arrays are views, and those of pandas objects are
what ``iloc`` gives.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Block", "Partitioner", "RoundRobin", "cut"]


class Partitioner(Protocol):
    """A way to cut sequences and to put them together again: ``join(split(seq, n))`` is ``seq``."""

    def split(self, seq: Any, n: int) -> list[Any]:
        """Cut ``seq`` into ``n`` parts; some are empty if it is shorter than that."""
        ...

    def join(self, parts: Sequence[Any]) -> Any:
        """Put ``parts`` together; their lengths need not be those that ``split`` gives."""
        ...


@dataclass(frozen=True, slots=True)
class Block:
    """Contiguous parts.

    Args:
        axis: the axis of arrays and data frames to cut along; all else has axis 0 only.

    Example:
        >>> Block().split([0, 1, 2, 3, 4], 3)
        [[0, 1], [2, 3], [4]]
    """

    axis: int = 0

    def split(self, seq: Any, n: int) -> list[Any]:
        """Cut ``seq`` into ``n`` contiguous parts.

        Args:
            seq: a sequence, an array, a pandas object, or any other iterable, of which a list is made.
            n: the number of parts, at least 1.

        Raises:
            ValueError: if ``n`` is less than 1, or ``seq`` has no such axis.
        """
        seq, axis = _prepare(seq, self.axis, n)
        size, extra = divmod(_length(seq, axis), n)
        ends = itertools.accumulate([size + (i < extra) for i in range(n)], initial=0)
        return [cut(seq, slice(start, stop), axis) for start, stop in itertools.pairwise(ends)]

    def join(self, parts: Sequence[Any]) -> Any:
        """Put ``parts`` one after the other, as a sequence of their type.

        Ranges and parts of different types give a list, and so do parts that are no sequences: they are its
        elements.
        """
        return _concatenate(parts, self.axis)


@dataclass(frozen=True, slots=True)
class RoundRobin:
    """Part ``i`` takes every n-th element from the ``i``-th on.

    Args:
        axis: the axis of arrays and data frames to cut along; all else has axis 0 only.

    Example:
        >>> RoundRobin().split([0, 1, 2, 3, 4], 3)
        [[0, 3], [1, 4], [2]]
    """

    axis: int = 0

    def split(self, seq: Any, n: int) -> list[Any]:
        """Deal ``seq`` out to ``n`` parts; arguments and errors are those of :meth:`Block.split`."""
        seq, axis = _prepare(seq, self.axis, n)
        return [cut(seq, slice(i, None, n), axis) for i in range(n)]

    def join(self, parts: Sequence[Any]) -> Any:
        """Interleave ``parts``; the result's type is that of :meth:`Block.join`."""
        joined = _concatenate(parts, self.axis)
        lengths = [_length(part, self.axis) if _is_cuttable(part) else 1 for part in parts]
        starts = itertools.accumulate(lengths, initial=0)
        positions = [range(start, start + length) for start, length in zip(starts, lengths, strict=False)]
        rounds = itertools.zip_longest(*positions)
        order = [position for turn in rounds for position in turn if position is not None]
        return _take(joined, order, self.axis)


def _prepare(seq: Any, axis: int, n: int) -> tuple[Any, int]:
    """``seq`` as something that can be cut, and the axis counted from the front."""
    if n < 1:
        raise ValueError(f"cannot cut into {n} parts: there must be at least 1")
    dimensions = seq.ndim if _is_array(seq) or _is_frame(seq) else 1
    if not -dimensions <= axis < dimensions:
        raise ValueError(f"axis {axis} is out of range for {type(seq).__name__} of {dimensions} dimensions")
    return seq if _is_cuttable(seq) else list(seq), axis % dimensions


def _is_array(value: Any) -> bool:
    # What NumPy made, it has been imported for.
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _is_frame(value: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.Series | pandas.DataFrame)


def _is_cuttable(value: Any) -> bool:
    if _is_array(value):
        return bool(value.ndim)
    if _is_frame(value):
        return True
    if not isinstance(value, Sequence):
        return False
    try:
        value[0:0]
    except TypeError:  # a deque is a sequence without slices
        return False
    return True


def _length(seq: Any, axis: int) -> int:
    return int(seq.shape[axis]) if _is_array(seq) or _is_frame(seq) else len(seq)


def cut(seq: Any, piece: slice, axis: int = 0) -> Any:
    """A piece of a sequence, by position; a view of an array."""
    if _is_array(seq):
        return seq[(slice(None),) * axis + (piece,)]
    if _is_frame(seq):
        return seq.iloc[(slice(None),) * axis + (piece,)]
    return seq[piece]


def _concatenate(parts: Sequence[Any], axis: int) -> Any:
    if parts and all(_is_array(part) and part.ndim for part in parts):
        numpy = sys.modules["numpy"]
        # Its own concatenate drops the masks.
        masked = any(isinstance(part, numpy.ma.MaskedArray) for part in parts)
        joined = (numpy.ma if masked else numpy).concatenate(parts, axis)
        dtype, *others = {part.dtype for part in parts}
        return joined if others else joined.astype(dtype, copy=False)  # it also drops the byte order
    if parts and all(map(_is_frame, parts)):
        return sys.modules["pandas"].concat(parts, axis=axis)
    if {type(part) for part in parts} == {list}:
        whole: list[Any] = []
        for part in parts:  # each makes room for itself at once: quicker than item by item for a million of them
            whole += part
        return whole
    return _like(parts, _chain(parts))


def _chain(parts: Iterable[Any]) -> Iterable[Any]:
    return itertools.chain.from_iterable(part if _is_cuttable(part) else [part] for part in parts)


def _like(parts: Sequence[Any], elements: Iterable[Any]) -> Any:
    """``elements`` as the type of all ``parts`` if that is a tuple, a string or bytes; otherwise a list."""
    match {type(part) for part in parts} or {list}:
        case kinds if kinds == {tuple}:
            return tuple(elements)
        case kinds if kinds == {str}:
            return "".join(elements)
        case kinds if kinds == {bytes}:
            return bytes(elements)
        case _:
            return list(elements)


def _take(seq: Any, positions: list[int], axis: int) -> Any:
    if _is_array(seq):
        return seq.take(positions, axis)
    if _is_frame(seq):
        return seq.take(positions, axis)
    return _like([seq], (seq[position] for position in positions))
