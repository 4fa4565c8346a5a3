import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nsactors.errors import WrongValue
from nsactors.protocol.partition import Block, Custom, RoundRobin

Scheme = type[Block] | type[RoundRobin]

both = pytest.mark.parametrize("scheme", [Block, RoundRobin])
lists = st.lists(st.integers())
sequences = lists | lists.map(tuple) | st.text() | st.binary()
counts = st.integers(1, 12)
arrays = hnp.arrays(
    hnp.scalar_dtypes(), hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=7), fill=st.nothing()
)


@both
@given(seq=sequences, n=counts)
def test_join_inverts_split(scheme: Scheme, seq: Any, n: int) -> None:
    joined = scheme().join(scheme().split(seq, n))
    assert joined == seq
    assert type(joined) is type(seq)


@both
@given(values=arrays, n=counts, data=st.data())
def test_join_inverts_split_of_arrays_along_any_axis(scheme: Scheme, values: Any, n: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-values.ndim, values.ndim - 1))
    joined = scheme(axis).join(scheme(axis).split(values, n))
    np.testing.assert_array_equal(joined, values)
    assert joined.dtype == values.dtype


@both
@given(length=st.integers(0, 50), n=counts)
def test_lengths_differ_by_at_most_one_and_the_first_take_the_extra(scheme: Scheme, length: int, n: int) -> None:
    lengths = [len(part) for part in scheme().split(range(length), n)]
    assert lengths == [length // n + 1] * (length % n) + [length // n] * (n - length % n)


@given(length=st.integers(0, 50), n=counts)
def test_blocks_are_contiguous(length: int, n: int) -> None:
    assert list(itertools.chain(*Block().split(range(length), n))) == list(range(length))


@given(length=st.integers(0, 50), n=counts)
def test_round_robin_deals_one_by_one(length: int, n: int) -> None:
    for i, part in enumerate(RoundRobin().split(range(length), n)):
        assert list(part) == list(range(i, length, n))


@both
@given(start=st.integers(-9, 9), stop=st.integers(-50, 50), step=st.integers(-7, 7).filter(bool), n=counts)
def test_parts_of_a_range_are_ranges_and_join_to_it(scheme: Scheme, start: int, stop: int, step: int, n: int) -> None:
    numbers = range(start, stop, step)
    parts = scheme().split(numbers, n)
    assert {type(part) for part in parts} == {range}
    assert scheme().join(parts) == numbers


@both
def test_ranges_that_make_up_no_range_join_to_a_list(scheme: Scheme) -> None:
    assert sorted(scheme().join([range(3), range(5, 7)])) == [0, 1, 2, 5, 6]


@both
def test_parts_of_an_array_are_views(scheme: Scheme) -> None:
    values = np.arange(10)
    assert all(np.shares_memory(part, values) for part in scheme().split(values, 3))


@both
def test_masks_survive(scheme: Scheme) -> None:
    values = np.ma.array(np.arange(5), mask=[0, 1, 0, 0, 1])
    joined = scheme().join(scheme().split(values, 2))
    assert joined.tolist() == values.tolist()


@both
@pytest.mark.parametrize("make", [iter, reversed, lambda numbers: (number for number in numbers)])
def test_other_iterables_become_lists(scheme: Scheme, make: Any) -> None:
    assert sorted(scheme().join(scheme().split(make(range(5)), 2))) == [0, 1, 2, 3, 4]


class Squares(Sequence[int]):
    """A sequence that a user has written."""

    def __init__(self, numbers: range) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, at: Any) -> Any:
        return Squares(self.numbers[at]) if isinstance(at, slice) else self.numbers[at] ** 2


@both
def test_other_sequences_are_sliced_and_join_to_lists(scheme: Scheme) -> None:
    parts = scheme().split(Squares(range(5)), 2)
    assert {type(part) for part in parts} == {Squares}
    assert scheme().join(parts) == [0, 1, 4, 9, 16]


@both
@pytest.mark.parametrize(
    ("seq", "axis"),
    [([1], 1), (range(3), -2), (np.zeros((2, 2)), 2), (np.zeros((2, 2)), -3), (np.array(1), 0)],
)
def test_an_axis_out_of_range_is_refused(scheme: Scheme, seq: Any, axis: int) -> None:
    with pytest.raises(ValueError, match=f"axis {axis} is out of range"):
        scheme(axis).split(seq, 2)


@both
def test_a_bad_axis_is_found_before_an_iterable_is_used_up(scheme: Scheme) -> None:
    numbers = iter(range(3))
    with pytest.raises(ValueError, match="axis"):
        scheme(1).split(numbers, 2)
    assert next(numbers) == 0


@both
@pytest.mark.parametrize("n", [0, -1])
def test_there_must_be_at_least_one_part(scheme: Scheme, n: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        scheme().split([1], n)


@both
def test_parts_that_are_no_sequences_are_the_elements(scheme: Scheme) -> None:
    assert scheme().join([3, None, np.float64(5)]) == [3, None, 5.0]


@both
def test_no_parts_join_to_an_empty_list(scheme: Scheme) -> None:
    assert scheme().join([]) == []


@both
def test_parts_of_different_types_join_to_a_list(scheme: Scheme) -> None:
    assert sorted(scheme().join([[1], (2,)])) == [1, 2]


def test_round_robin_interleaves_parts_whose_lengths_have_changed() -> None:
    assert RoundRobin().join([[0], [1, 4, 6], [2, 5]]) == [0, 1, 2, 4, 5, 6]


@both
@pytest.mark.parametrize("axis", [0, 1])
def test_data_frames_are_cut_by_position(scheme: Scheme, axis: int) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(np.arange(15).reshape(5, 3), index=list("abcde"))
    pd.testing.assert_frame_equal(scheme(axis).join(scheme(axis).split(frame, 2)), frame)


@both
def test_series_keep_their_index(scheme: Scheme) -> None:
    pd = pytest.importorskip("pandas")
    series = pd.Series(range(5), index=list("abcde"))
    pd.testing.assert_series_equal(scheme().join(scheme().split(series, 3)), series)


# Partitioners of the user's.


@st.composite
def partitions(draw: st.DrawFn, length: int) -> list[list[int]]:
    """Positions in any order, in any parts."""
    order = draw(st.permutations(range(length)))
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=4)))
    return [list(order[start:stop]) for start, stop in itertools.pairwise([0, *cuts, length])]


def given_parts(parts: Any) -> Custom:
    return Custom(lambda length, n: parts)


@given(st.data())
def test_items_come_back_to_their_places(data: st.DataObject) -> None:
    seq = data.draw(sequences)
    parts = data.draw(partitions(len(seq)))
    custom = given_parts(parts)
    split = custom.split(seq, len(parts))
    assert [list(part) for part in split] == [[seq[position] for position in part] for part in parts]
    assert custom.join(split) == seq


@given(st.data())
def test_so_do_those_of_arrays_along_any_axis(data: st.DataObject) -> None:
    values = data.draw(arrays)
    axis = data.draw(st.integers(-values.ndim, values.ndim - 1))
    parts = data.draw(partitions(values.shape[axis]))
    custom = Custom(lambda length, n: parts, axis)
    split = custom.split(values, len(parts))
    for part, positions in zip(split, parts, strict=True):
        np.testing.assert_array_equal(part, values.take(np.array(positions, int), axis))
    np.testing.assert_array_equal(custom.join(split), values)


@pytest.mark.parametrize("library", ["pandas", "pyarrow", "series", "sparse"])
def test_so_do_rows_of_tables(library: str) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": range(6), "b": list("uvwxyz")}, index=list("abcdef"))
    custom = given_parts([[5, 0], range(1, 4, 2), [], np.array([4, 2])])
    if library == "pandas":
        parts = custom.split(frame, 4)
        assert [list(part.index) for part in parts] == [["f", "a"], ["b", "d"], [], ["e", "c"]]
        pd.testing.assert_frame_equal(custom.join(parts), frame)
    elif library == "series":
        pd.testing.assert_series_equal(custom.join(custom.split(frame["b"], 4)), frame["b"])
    elif library == "pyarrow":
        table = pytest.importorskip("pyarrow").Table.from_pandas(frame)
        assert custom.join(custom.split(table, 4)).equals(table)
    else:
        matrix = pytest.importorskip("scipy.sparse").csr_matrix(np.eye(6))
        assert (custom.join(custom.split(matrix, 4)) != matrix).nnz == 0


def test_even_positions_of_an_array_are_views() -> None:
    values = np.arange(10)
    for positions in (range(0, 10, 2), [0, 2, 4, 6, 8], np.arange(0, 10, 2)):
        part, _ = given_parts([positions, range(1, 10, 2)]).split(values, 2)
        assert np.shares_memory(part, values)


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        (None, "returned None"),
        ([[0, 1, 2]], "returned 1"),
        ([[0, 1], [2], []], "returned 3"),
        ([[0, 1], [1, 2]], "named position 1 twice"),
        ([range(3), range(2)], "named position 0 twice"),
        ([[0, 2], []], "left out position 1"),
        ([[0, 1], [3]], "named position 3"),
        ([[0, 1], [-1]], "named position -1"),
        ([[0, 1], ["2"]], "returned"),
        ([[0, 1], [2.0]], "returned"),
    ],
)
def test_what_is_no_partition_is_refused(parts: Any, problem: str) -> None:
    with pytest.raises(WrongValue, match=problem) as failure:
        Custom(lambda length, n: parts, call="map").split("abc", 2)
    assert str(failure.value).startswith("map() takes dist as 'b', 'r', or a partitioner that puts each of 3 positions")


def test_parts_of_other_lengths_have_no_places() -> None:
    with pytest.raises(ValueError, match="dist='b' concatenates them as they are"):
        Custom(lambda length, n: [range(1), range(1, length)]).join([[1, 2], [3]])


def test_what_a_partitioner_raises_is_raised() -> None:
    def partitioner(length: int, parts: int) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Custom(partitioner).split("abc", 2)
