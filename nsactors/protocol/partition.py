"""Partitioning of sequences over engines: rules, and kinds of sequences.

Parts differ in length by at most one, the first ``len % n`` having the extra element, unless the user's partitioner
assigns the items. Parts have the type of the sequence: parts of ranges are ranges, parts of arrays are views, parts of
data frames and tables consist of rows.

There is one `Kind` for each kind of sequence, both of Python and of libraries. The kinds of a library are tried only if
the library has been imported, because otherwise no value can be an instance of its classes.
"""

from __future__ import annotations

import array
import functools
import itertools
import operator
from collections import UserList, UserString, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Protocol

from nsactors._frozen import frozen
from nsactors.errors.exceptions import WrongValue
from nsactors.errors.formatting import short_repr, with_article
from nsactors.protocol.process import imported

Order = Sequence[int] | None


def _length(seq: Any, axis: int) -> int:
    return len(seq)


def _slice(seq: Any, piece: slice, axis: int) -> Any:
    return seq[piece]


def _of_one_dimension(seq: Any) -> int:
    return 1


@frozen
class Kind:
    """The way to cut and join sequences of one kind.

    Attributes:
        join: joins parts along an axis. If an order is given, it has positions in the joined parts, and the items are
            taken in that order.
        cut: returns the items in a slice of positions along an axis; for an array, a view.
        length: returns the number of items along an axis.
        dimensions: returns the number of axes.
        iterates: whether iteration gives the items along axis 0. A data frame gives the names of its columns instead.
        take: returns the items at given positions along an axis; None: use ``join`` with one part.
    """

    join: Callable[[Sequence[Any], int, Order], Any]
    cut: Callable[[Any, slice, int], Any] = _slice
    length: Callable[[Any, int], int] = _length
    dimensions: Callable[[Any], int] = _of_one_dimension
    iterates: bool = True
    take: Callable[[Any, Sequence[int], int], Any] | None = None

    def at(self, seq: Any, positions: Sequence[int], axis: int) -> Any:
        """Return the items at given positions along an axis; evenly spaced items of an array are a view."""
        if type(positions) is range and (positions.step > 0 or not positions):
            return self.cut(seq, slice(positions.start, positions.stop, positions.step), axis)
        return self.join([seq], axis, positions) if self.take is None else self.take(seq, positions, axis)

    def item(self, seq: Any) -> Any:
        """Return the first item of a sequence."""
        return next(iter(seq)) if self.iterates else self.cut(seq, slice(0, 1), 0)


def kind_of(value: Any) -> Kind | None:
    """Return the kind of a sequence; None for values that have no positions, or cannot be cut."""
    # By the exact class first: one lookup, for nearly all values.
    if (found := _BUILT_IN.get(type(value))) is not None:
        return found
    # Before subclasses of built-in types: classes of libraries may derive from those.
    for library, kinds in _LIBRARIES.items():
        module = imported(library)
        if module is not None and (found := kinds(module, value)) is not None:
            return found
    for base, found in _BUILT_IN.items():
        if isinstance(value, base):
            return found
    # A memoryview of any item type would arrive as bytes.
    is_other = isinstance(value, Sequence) and not isinstance(value, memoryview) and _has_slices(value)
    return _OTHER if is_other else None


def refusal(value: Any) -> str | None:
    """Return advice on how to convert a value that cannot be cut into parts of its type, and why; None for others."""
    kind: Any = type(value)
    if kind_of(value) is not None:
        return None
    if isinstance(value, memoryview):
        return "bytes(m) or numpy.asarray(m) in place of a memoryview, which stays in its process"
    if isinstance(value, Mapping):
        return "list(d.items()) in place of a dictionary, which has no positions"
    if isinstance(value, Set):
        return "sorted(s) or list(s) in place of a set, which has no positions"
    if kind.__module__.startswith("pandas."):
        return f"a frame, which each engine can group, or list(x), in place of {with_article(kind.__name__)}"
    if any(hasattr(kind, name) for name in ("__array__", "__dataframe__", "shape")) and getattr(value, "ndim", 1) != 0:
        library = kind.__module__.partition(".")[0]
        return f"numpy.asarray(x) or list(x) in place of a {library}.{kind.__name__}, which cannot be joined again"
    return None


def alike(parts: Sequence[Any]) -> tuple[Kind, Sequence[Any]]:
    """Return parts as sequences of one kind, and that kind.

    Parts of different kinds become lists; a part that is not a sequence becomes a list with one item.
    """
    kinds = [kind_of(part) for part in parts]
    kind = kinds[0] if kinds else None
    if kind is not None and all(other is kind for other in kinds):
        return kind, parts
    pairs = zip(parts, kinds, strict=True)
    return _BUILT_IN[list], [list(part) if kind is not None and kind.iterates else [part] for part, kind in pairs]


_chain = itertools.chain.from_iterable


def _has_slices(value: Any) -> bool:
    try:
        value[0:0]
    except TypeError:
        return False
    return True


def _ordered(
    join: Callable[[Sequence[Any], int], Any], take: Callable[[Any, Sequence[int], int], Any]
) -> Callable[[Sequence[Any], int, Order], Any]:
    """Return a function that joins parts, and takes their items in an order if there is one."""

    def joined(parts: Sequence[Any], axis: int, order: Order) -> Any:
        whole = join(parts, axis)
        return whole if order is None else take(whole, order, axis)

    return joined


# Python's own


def _made_of_items(make: Callable[[Iterable[Any]], Any]) -> Callable[[Sequence[Any], int, Order], Any]:
    def take(seq: Any, positions: Sequence[int], axis: int) -> Any:
        return make(seq[position] for position in positions)

    return _ordered(lambda parts, axis: make(_chain(parts)), take)


def _take_from_list(seq: Any, positions: Sequence[int], axis: int) -> list[Any]:
    return [seq[position] for position in positions]


def _join_lists(parts: Sequence[Any], axis: int, order: Order) -> list[Any]:
    whole: list[Any] = []
    for part in parts:  # extending by whole parts is faster than item by item for a million parts
        whole += part
    return whole if order is None else [whole[position] for position in order]


def _join_arrays_of_python(parts: Sequence[Any], axis: int, order: Order) -> Any:
    codes = {part.typecode for part in parts}
    items = _join_lists(parts, axis, order)
    return array.array(codes.pop(), items) if len(codes) == 1 else items


def _cut_deque(seq: Any, piece: slice, axis: int) -> Any:
    return deque(itertools.islice(seq, *piece.indices(len(seq))), seq.maxlen)


def _join_deques(parts: Sequence[Any], axis: int, order: Order) -> Any:
    limits = {part.maxlen for part in parts}
    return deque(_join_lists(parts, axis, order), limits.pop() if len(limits) == 1 else None)


def _join_by_sum(parts: Sequence[Any], axis: int, order: Order) -> Any:
    whole = functools.reduce(operator.add, parts)
    if order is None:
        return whole
    return functools.reduce(operator.add, (whole[position : position + 1] for position in order), whole[:0])


_BUILT_IN: dict[type, Kind] = {
    list: Kind(_join_lists, take=_take_from_list),
    tuple: Kind(_made_of_items(tuple)),
    range: Kind(_made_of_items(list)),
    str: Kind(_made_of_items("".join)),
    bytes: Kind(_made_of_items(bytes)),
    bytearray: Kind(_made_of_items(bytearray)),
    array.array: Kind(_join_arrays_of_python),
    deque: Kind(_join_deques, cut=_cut_deque),
    UserList: Kind(_join_by_sum),
    UserString: Kind(_join_by_sum),
}
_OTHER = Kind(_join_lists, take=_take_from_list)


# NumPy


def _join_arrays(parts: Sequence[Any], axis: int, order: Order) -> Any:
    numpy = imported("numpy")
    # numpy.concatenate drops the masks.
    masked = any(isinstance(part, numpy.ma.MaskedArray) for part in parts)
    joined = (numpy.ma if masked else numpy).concatenate(parts, axis)
    if len({part.dtype for part in parts}) == 1:
        joined = joined.astype(parts[0].dtype, copy=False)  # concatenate drops the byte order
    if order is not None:
        joined = joined.take(order, axis)
    (kind, *others) = {type(part) for part in parts}
    if not others and type(joined) is not kind and kind is not numpy.memmap:
        joined = joined.view(kind)
    if masked and len({repr(part.fill_value) for part in parts}) == 1:
        joined.fill_value = parts[0].fill_value
    return joined


def _cut_along(seq: Any, piece: slice, axis: int) -> Any:
    return seq[(slice(None),) * axis + (piece,)]


def _length_along(seq: Any, axis: int) -> int:
    return int(seq.shape[axis])


def _dimensions(seq: Any) -> int:
    return int(seq.ndim)


_ARRAY = Kind(
    _join_arrays,
    cut=_cut_along,
    length=_length_along,
    dimensions=_dimensions,
    take=lambda seq, positions, axis: seq.take(positions, axis),
)


def _of_numpy(numpy: Any, value: Any) -> Kind | None:
    return _ARRAY if isinstance(value, numpy.ndarray) and value.ndim else None


def own_items(part: Any, limit_bytes: int) -> Any:
    """Return a part of a sequence with writable items, even if the items are small rows of a read-only array.

    The size of a part depends on the number of engines and the batch, and must not decide whether a function can write
    to its item. Each row is copied when it is taken, because all rows together may be larger than memory.
    """
    numpy = imported("numpy")
    if numpy is None or not isinstance(part, numpy.ndarray) or part.flags.writeable:
        return part
    has_rows = part.ndim > 1 or part.dtype.names is not None
    return _OwnRows(part) if has_rows and len(part) and part[0].nbytes <= limit_bytes else part


class _OwnRows:
    """The rows of an array, each copied when it is taken."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self._rows[index].copy()

    def __iter__(self) -> Iterator[Any]:
        return map(operator.methodcaller("copy"), self._rows)


# pandas


def _join_frames(parts: Sequence[Any], axis: int, order: Order) -> Any:
    joined = imported("pandas").concat(parts, axis=axis)
    if order is not None:
        joined = joined.take(order, axis=axis)
    labels = joined.axes[axis]
    if (restored := _restored(labels, [part.axes[axis] for part in parts])) is not labels:
        joined = joined.set_axis(restored, axis=axis)
    return joined


def _join_indices(parts: Sequence[Any], axis: int, order: Order) -> Any:
    joined = parts[0].append(list(parts[1:]))
    return _restored(joined if order is None else joined.take(order), parts)


def _restored(index: Any, parts: Sequence[Any]) -> Any:
    """Return an index as a range, or with a frequency, if its parts have one: joining may have lost it."""
    pandas = imported("pandas")
    parts = [part for part in parts if len(part)]
    if all(isinstance(part, pandas.RangeIndex) for part in parts) and not isinstance(index, pandas.RangeIndex):
        step = index[1] - index[0]
        numbers = pandas.RangeIndex(index[0], index[0] + len(index) * step, step or 1, name=index.name)
        return numbers if numbers.equals(index) else index
    had_frequency = bool(parts) and all(getattr(part, "freq", None) is not None for part in parts)
    if had_frequency and isinstance(index, pandas.DatetimeIndex | pandas.TimedeltaIndex) and len(index) > 2:
        return type(index)(index, freq="infer", name=index.name)
    return index


def _join_extension_arrays(parts: Sequence[Any], axis: int, order: Order) -> Any:
    pandas = imported("pandas")
    joined = pandas.concat([pandas.Series(part) for part in parts], ignore_index=True).array
    return joined if order is None else joined.take(order)


_FRAME = Kind(
    _join_frames,
    cut=lambda seq, piece, axis: seq.iloc[(slice(None),) * axis + (piece,)],
    length=_length_along,
    dimensions=_dimensions,
    iterates=False,
    take=lambda seq, positions, axis: seq.take(positions, axis=axis),
)
_SERIES = Kind(_join_frames, cut=lambda seq, piece, axis: seq.iloc[piece])
_INDEX = Kind(_join_indices)
_EXTENSION_ARRAY = Kind(_join_extension_arrays)


def _of_pandas(pandas: Any, value: Any) -> Kind | None:
    if isinstance(value, pandas.DataFrame):
        return _FRAME
    if isinstance(value, pandas.Series):
        return _SERIES
    if isinstance(value, pandas.Index):
        return _INDEX
    return _EXTENSION_ARRAY if isinstance(value, pandas.api.extensions.ExtensionArray) else None


# pyarrow


def _compact(seq: Any) -> Any:
    """Return a copy with memory of its own, because pickling a slice would pickle the memory of the whole array."""
    pyarrow = imported("pyarrow")
    if isinstance(seq, pyarrow.Array):
        # Concatenation copies, as long as there is more than one array.
        return pyarrow.concat_arrays([seq, seq[:0]])
    if isinstance(seq, pyarrow.ChunkedArray):
        return pyarrow.chunked_array([_compact(chunk) for chunk in seq.chunks], seq.type)
    return type(seq).from_arrays([_compact(column) for column in seq.columns], schema=seq.schema)


def _cut_arrow(seq: Any, piece: slice, axis: int) -> Any:
    start, stop, step = piece.indices(len(seq))
    if step != 1:
        return _take_arrow(seq, range(start, stop, step), axis)
    return seq if stop - start == len(seq) else _compact(seq.slice(start, max(0, stop - start)))


def _take_arrow(seq: Any, positions: Sequence[int], axis: int) -> Any:
    pyarrow = imported("pyarrow")
    try:
        return seq.take(pyarrow.array(positions, pyarrow.int64()))
    except pyarrow.ArrowNotImplementedError:  # for a few types
        return _concatenate_arrow([seq.slice(position, 1) for position in positions] or [seq.slice(0, 0)], axis)


def _concatenate_arrow(parts: Sequence[Any], axis: int) -> Any:
    pyarrow = imported("pyarrow")
    if all(isinstance(part, pyarrow.Array) for part in parts):
        return pyarrow.concat_arrays(parts)
    if all(isinstance(part, pyarrow.ChunkedArray) for part in parts):
        return pyarrow.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type)
    if all(isinstance(part, pyarrow.RecordBatch) for part in parts):
        return pyarrow.concat_batches(parts)
    return pyarrow.concat_tables(
        [part if isinstance(part, pyarrow.Table) else pyarrow.Table.from_batches([part]) for part in parts]
    )


_join_arrow = _ordered(_concatenate_arrow, _take_arrow)
_ARROW_TABLE = Kind(_join_arrow, cut=_cut_arrow, iterates=False)
_ARROW_ARRAY = Kind(_join_arrow, cut=_cut_arrow)
_ARROW_CHUNKS = Kind(_join_arrow, cut=_cut_arrow)


def _of_pyarrow(pyarrow: Any, value: Any) -> Kind | None:
    if isinstance(value, pyarrow.Table | pyarrow.RecordBatch):
        return _ARROW_TABLE
    if isinstance(value, pyarrow.ChunkedArray):
        return _ARROW_CHUNKS
    return _ARROW_ARRAY if isinstance(value, pyarrow.Array) else None


# SciPy


def _at(seq: Any, where: Any, axis: int) -> Any:
    """Return a piece of a matrix, converting it if its format cannot be cut."""
    cuttable = seq if seq.format in ("csr", "csc", "lil") else seq.tocsc() if axis else seq.tocsr()
    return cuttable[(slice(None),) * axis + (where,)].asformat(seq.format)


def _concatenate_sparse(parts: Sequence[Any], axis: int) -> Any:
    sparse = imported("scipy.sparse")
    (form, *others) = {part.format for part in parts}
    return (sparse.hstack if axis else sparse.vstack)(parts, format=None if others else form)


_SPARSE = Kind(
    _ordered(_concatenate_sparse, lambda seq, positions, axis: _at(seq, list(positions), axis)),
    cut=_at,
    length=_length_along,
    dimensions=_dimensions,
    iterates=False,
)


def _of_sparse(sparse: Any, value: Any) -> Kind | None:
    return _SPARSE if sparse.issparse(value) and value.ndim == 2 else None


# polars


_join_polars = _ordered(
    lambda parts, axis: imported("polars").concat(parts), lambda seq, positions, axis: seq[list(positions)]
)
_POLARS_FRAME = Kind(_join_polars, iterates=False)
_POLARS_SERIES = Kind(_join_polars)


def _of_polars(polars: Any, value: Any) -> Kind | None:
    if isinstance(value, polars.DataFrame):
        return _POLARS_FRAME
    return _POLARS_SERIES if isinstance(value, polars.Series) else None


_LIBRARIES: dict[str, Callable[[Any, Any], Kind | None]] = {
    "numpy": _of_numpy,
    "pandas": _of_pandas,
    "pyarrow": _of_pyarrow,
    "scipy.sparse": _of_sparse,
    "polars": _of_polars,
}


class Partitioner(Protocol):
    """Assigns items to parts by their positions. Pass it as ``dist=``, in place of ``"b"`` or ``"r"``.

    A partitioner is a function, or an object that can be called like one. It is called at the split, and again by
    ``gather`` with the total length of the parts, so it must return the same result for the same numbers. To split by
    the values of items, make a partitioner that knows the values. A partitioner returns positions rather than parts.
    So it works for sequences of every kind, and the items of a map keep their numbers.

    Example:
        >>> def first_gets_half(length, parts):
        ...     cuts = [0, *(length // 2 + (length - length // 2) * i // (parts - 1) for i in range(parts))]
        ...     return [range(start, stop) for start, stop in itertools.pairwise(cuts)]
        >>> view.scatter("x", data, dist=first_gets_half)
    """

    def __call__(self, length: int, parts: int, /) -> Sequence[Iterable[int]]:
        """Assign items to parts.

        Args:
            length: the number of items.
            parts: the number of parts, at least 1.

        Returns:
            For each part the positions of its items, in their order in the part. Each position from 0 to ``length - 1``
            is in exactly one part. Ranges are cut without looking at each item, and arrays without a copy.
        """
        ...


class Distribution(Protocol):
    """A rule to cut sequences and to join the parts: ``join(split(seq, n))`` equals ``seq``."""

    def split(self, seq: Any, n: int) -> list[Any]:
        """Cut ``seq`` into ``n`` parts; some are empty if ``seq`` has fewer items."""
        ...

    def join(self, parts: Sequence[Any]) -> Any:
        """Join ``parts``; their lengths may differ from those that ``split`` returns."""
        ...


@frozen
class Block:
    """Contiguous parts.

    Args:
        axis: the axis along which to cut arrays and data frames; other sequences have axis 0 only.

    Example:
        >>> Block().split([0, 1, 2, 3, 4], 3)
        [[0, 1], [2, 3], [4]]
    """

    axis: int = 0

    def split(self, seq: Any, n: int) -> list[Any]:
        """Cut ``seq`` into ``n`` contiguous parts.

        Args:
            seq: a sequence, an array, a table, or another iterable, which is converted to a list.
            n: the number of parts, at least 1.

        Raises:
            TypeError: if parts of ``seq`` cannot have its type, for example if it is a dictionary or a set.
            ValueError: if ``n`` is less than 1, or ``seq`` has no such axis.
        """
        seq, kind, axis = _prepare(seq, self.axis, n)
        size, extra = divmod(kind.length(seq, axis), n)
        ends = itertools.accumulate([size + (i < extra) for i in range(n)], initial=0)
        return [kind.cut(seq, slice(start, stop), axis) for start, stop in itertools.pairwise(ends)]

    def join(self, parts: Sequence[Any]) -> Any:
        """Concatenate ``parts`` to a sequence of their type.

        Parts of different types give a list; parts that are not sequences become elements of a list.
        """
        if (whole := _whole_range(parts, self.split)) is not None:
            return whole
        kind, sequences = alike(parts)
        return kind.join(sequences, self.axis, None)


@frozen
class RoundRobin:
    """Part ``i`` takes every n-th element, beginning with element ``i``.

    Args:
        axis: the axis along which to cut arrays and data frames; other sequences have axis 0 only.

    Example:
        >>> RoundRobin().split([0, 1, 2, 3, 4], 3)
        [[0, 3], [1, 4], [2]]
    """

    axis: int = 0

    def split(self, seq: Any, n: int) -> list[Any]:
        """Deal ``seq`` out to ``n`` parts. Arguments and errors are those of :meth:`Block.split`."""
        seq, kind, axis = _prepare(seq, self.axis, n)
        return [kind.cut(seq, slice(i, None, n), axis) for i in range(n)]

    def join(self, parts: Sequence[Any]) -> Any:
        """Interleave ``parts``; the result has the type that :meth:`Block.join` gives."""
        if (whole := _whole_range(parts, self.split)) is not None:
            return whole
        kind, sequences = alike(parts)
        ends = itertools.accumulate((kind.length(part, self.axis) for part in sequences), initial=0)
        rounds = itertools.zip_longest(*itertools.starmap(range, itertools.pairwise(ends)))
        order = [position for turn in rounds for position in turn if position is not None]
        return kind.join(sequences, self.axis, order)


@frozen
class Custom:
    """Parts assigned by the user's partitioner.

    Args:
        partitioner: assigns items to parts.
        axis: the axis along which to cut arrays and data frames; other sequences have axis 0 only.
        call: the public function that got the partitioner, for errors.
    """

    partitioner: Partitioner
    axis: int = 0
    call: str = "scatter"

    def split(self, seq: Any, n: int) -> list[Any]:
        """Cut ``seq`` into ``n`` parts.

        Raises:
            WrongValue: if the partitioner does not put each item into exactly one part.
        """
        seq, kind, axis = _prepare(seq, self.axis, n)
        return self.of(kind.length(seq, axis), n).split(seq, n)

    def join(self, parts: Sequence[Any]) -> Any:
        """Put the items of ``parts`` back into their positions.

        Raises:
            ValueError: if the parts do not have the lengths that the partitioner gives.
        """
        kind, sequences = alike(parts)
        length = sum(kind.length(part, self.axis) for part in sequences)
        return self.of(length, len(parts)).join(parts)

    def of(self, length: int, n: int) -> Positions:
        """Return the positions that the partitioner assigns for this many items and parts."""
        return Positions(self._checked(self.partitioner(length, n), length, n), self.axis)

    def _checked(self, given: Any, length: int, n: int) -> tuple[Sequence[int], ...]:
        try:
            positions = tuple(_as_range(part) for part in given)
        except TypeError:
            raise self._refused(length, n, f"returned {short_repr(given)}") from None
        if len(positions) != n:
            raise self._refused(length, n, f"returned {len(positions)}")
        seen = bytearray(length)
        for part in positions:
            if type(part) is range and part.step > 0 and part and part[0] >= 0 and part[-1] < length:
                where = slice(part[0], part[-1] + 1, part.step)
                if not any(seen[where]):  # a hundred times faster than a check of each position
                    seen[where] = bytes([1]) * len(part)
                    continue
            for position in part:
                if not 0 <= position < length:
                    raise self._refused(length, n, f"named position {position}")
                if seen[position]:
                    raise self._refused(length, n, f"named position {position} twice")
                seen[position] = 1
        if not all(seen):
            raise self._refused(length, n, f"left out position {seen.index(0)}")
        return positions

    def _refused(self, length: int, n: int, problem: str) -> WrongValue:
        takes = f"'b', 'r', or a partitioner that puts each of {length} positions into one of {n} parts (it {problem})"
        return WrongValue(self.call, "dist", self.partitioner, takes)


@frozen
class Positions:
    """Parts with given items.

    Args:
        positions: the positions of the items of each part.
        axis: see :class:`Block`.
    """

    positions: tuple[Sequence[int], ...]
    axis: int = 0

    def split(self, seq: Any, n: int) -> list[Any]:
        """Cut ``seq``, which must have as many items as there are positions."""
        seq, kind, axis = _prepare(seq, self.axis, n)
        return [kind.at(seq, part, axis) for part in self.positions]

    def join(self, parts: Sequence[Any]) -> Any:
        """Put the items of ``parts`` back into their positions."""
        kind, sequences = alike(parts)
        lengths = [kind.length(part, self.axis) for part in sequences]
        expected = [len(part) for part in self.positions]
        if lengths != expected:
            raise ValueError(
                f"the parts have {lengths} items, but the partitioner makes parts of {expected}: dist='b' concatenates "
                "them as they are"
            )
        order = [0] * sum(lengths)
        # Invert the assignment: the item at `place` of the joined parts belongs to `position`.
        for place, position in enumerate(itertools.chain.from_iterable(self.positions)):
            order[position] = place
        return kind.join(sequences, self.axis, order)


def _as_range(part: Any) -> Sequence[int]:
    """Return positions as a range, if they are evenly spaced."""
    if type(part) is range:
        return part
    numbers = [operator.index(position) for position in part]
    if not numbers:
        return range(0)
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    even = range(numbers[0], numbers[-1] + 1, step) if step > 0 else range(0)
    return even if numbers == list(even) else numbers


def cut(seq: Any, piece: slice, axis: int = 0) -> Any:
    """Return a piece of a sequence, by position; a view of an array."""
    return _kind_of_sequence(seq).cut(seq, piece, axis)


def length_of(seq: Any) -> int:
    """Return the length of a sequence, along the first axis of an array or table."""
    return _kind_of_sequence(seq).length(seq, 0)


def first_of(seq: Any) -> Any:
    """Return the first item of a sequence; for a table, its first row as a table."""
    return _kind_of_sequence(seq).item(seq)


def items_of(part: Any) -> Iterable[Any] | None:
    """Return the items that a part adds when it is joined to others; None if they depend on the other parts.

    Iteration over a table gives the names of its columns, which occur once for all of its parts.
    """
    kind = kind_of(part)
    if kind is None:
        return (part,)
    return part if kind.iterates else None


def _kind_of_sequence(seq: Any) -> Kind:
    kind = kind_of(seq)
    assert kind is not None, "it has positions"
    return kind


def _prepare(seq: Any, axis: int, n: int) -> tuple[Any, Kind, int]:
    """Return ``seq`` as a sequence that can be cut, its kind, and the axis counted from the front."""
    if n < 1:
        raise ValueError(f"cannot cut into {n} parts: there must be at least 1")
    if instead := refusal(seq):
        raise TypeError(f"cannot cut this into parts: give {instead}")
    kind = kind_of(seq)
    dimensions = kind.dimensions(seq) if kind is not None else getattr(seq, "ndim", 1)
    if not -dimensions <= axis < dimensions:
        raise ValueError(f"axis {axis} is out of range for {type(seq).__name__} of {dimensions} dimensions")
    seq = seq if kind is not None else list(seq)
    return seq, _kind_of_sequence(seq), axis % dimensions


def _whole_range(parts: Sequence[Any], split: Callable[[range, int], list[Any]]) -> range | None:
    """Return the range whose parts these are, or None."""
    if not parts or any(type(part) is not range for part in parts):
        return None
    first: range = parts[0]
    size = sum(map(len, parts))
    if size < 2:
        return next((part for part in parts if part), first)
    # The second number of the range is the second of the first part, or the first of the next part.
    seconds = [*first[1:2], *next((part[:1] for part in parts[1:] if part), ())]
    for step in (second - first.start for second in seconds):
        whole = range(first.start, first.start + size * step, step or 1)
        if split(whole, len(parts)) == list(parts):
            return whole
    return None
