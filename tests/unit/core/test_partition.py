import array
import itertools
from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nsactors.core.partition import Block, Partitioner, RoundRobin

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
def test_parts_of_a_range_are_ranges_and_join_to_a_list(scheme: Scheme) -> None:
    parts = scheme().split(range(10), 3)
    assert {type(part) for part in parts} == {range}
    assert scheme().join(parts) == list(range(10))


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
@pytest.mark.parametrize("make", [deque, set, dict.fromkeys, iter])
def test_other_iterables_become_lists(scheme: Scheme, make: Any) -> None:
    assert scheme().join(scheme().split(make(range(5)), 2)) == [0, 1, 2, 3, 4]


@both
def test_other_sequences_are_sliced(scheme: Scheme) -> None:
    parts = scheme().split(array.array("i", range(5)), 2)
    assert scheme().join(parts) == [0, 1, 2, 3, 4]


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


def test_a_scheme_of_the_users_own_is_a_partitioner() -> None:
    class Backwards:
        def split(self, seq: Any, n: int) -> list[Any]:
            return Block().split(seq[::-1], n)

        def join(self, parts: Any) -> Any:
            return Block().join(parts)[::-1]

    scheme: Partitioner = Backwards()
    assert scheme.join(scheme.split([1, 2, 3], 2)) == [1, 2, 3]
