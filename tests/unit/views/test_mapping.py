"""How sequences are spread over engines, and what of them travels."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.namespace.interrupts import capture_failure
from nsactors.protocol.messages import RequestId
from nsactors.protocol.partition import Block, RoundRobin
from nsactors.protocol.serialize import pack, unpack
from nsactors.protocol.tasks import MapItems
from nsactors.results.call import NOWHERE, MapCall, MapPiece
from nsactors.views.load_balanced import MapCallChunk, kept_copy, kind_in_tasks
from nsactors.views.map_parts import PIECE_ITEMS, PIECES, MapPart, columns_of, numbers_of, rows_of, work_for


def test_ranges_travel_as_ranges() -> None:
    work = work_for([0, 1], [range(1_000_000)], Block(), in_pieces=True)
    assert all(isinstance(part, range) for piece in work for part in piece.parts)
    assert all(pack(piece.parts).nbytes < 100 for piece in work)


def test_slices_of_an_array_travel_without_the_rest_and_without_a_copy() -> None:
    array = np.arange(100_000.0)
    work = work_for([0, 1], [array], Block(), in_pieces=True)
    payloads = [pack(piece.parts) for piece in work]
    assert sum(payload.nbytes for payload in payloads) < 1.01 * array.nbytes
    assert all(np.shares_memory(np.frombuffer(p.buffers[0]), array) for p in payloads)


def test_every_engine_has_several_long_pieces_or_one_short_one() -> None:
    turns = [
        [piece.turn for piece in work_for([7], [range(length)], Block(), in_pieces=True)]
        for length in (len(PIECES) * PIECE_ITEMS, 2 * PIECE_ITEMS - 1, 1, 0)
    ]
    assert turns == [list(range(len(PIECES))), [0], [0], []]


@given(st.integers(0, 2_000), st.integers(1, 5))
def test_the_pieces_in_their_order_are_the_sequence(length: int, engines: int) -> None:
    work = work_for(range(engines), [range(length)], Block(), in_pieces=True)
    assert [item for piece in work for item in piece.parts[0]] == list(range(length))


def test_the_parts_of_several_sequences_stay_side_by_side() -> None:
    sequences = columns_of([range(1_000), "x" * 2_000])
    work = work_for([0, 1], sequences, Block(), in_pieces=True)
    assert all(len(numbers) == len(text) for piece in work for numbers, text in [piece.parts])


ITERABLES: dict[str, Callable[[int], Any]] = {
    "list": lambda size: list(range(size)),
    "range": range,
    "generator": lambda size: (i for i in range(size)),
    "set": lambda size: set(range(size)),
    "dictionary": lambda size: dict.fromkeys(range(size)),
    "view of a dictionary": lambda size: dict.fromkeys(range(size)).items(),
    "deque": lambda size: deque(range(size)),
    "array": np.arange,
    "memory": lambda size: memoryview(np.arange(size)),
    "zip": lambda size: zip(range(size), range(size), strict=True),
    "endless": itertools.count,
    "repeated": itertools.repeat,
}


@pytest.mark.parametrize("kinds", [*itertools.product(ITERABLES, repeat=2)])
@pytest.mark.parametrize("kept", [None, kind_in_tasks])
def test_columns_have_the_rows_of_zip(kinds: tuple[str, str], kept: Any) -> None:
    if set(kinds) <= {"endless", "repeated"}:
        with pytest.raises(ValueError, match="of which at least one ends"):
            columns_of([ITERABLES[kind](3) for kind in kinds], kept)
        return
    for sizes in ((3, 5), (5, 3), (0, 2), (4, 4)):
        made = [[ITERABLES[kind](size) for kind, size in zip(kinds, sizes, strict=True)] for _ in range(2)]
        columns = columns_of(made[0], kept)
        assert len({len(column) for column in columns}) == 1
        assert list(zip(*columns, strict=True)) == list(zip(*made[1], strict=False))


@pytest.mark.parametrize("others", [[[1, 2]], [(i for i in range(2)), "abc"]])
def test_no_more_items_are_taken_than_are_needed(others: list[Any]) -> None:
    taken = []

    def numbers() -> Iterator[int]:
        for i in itertools.count():
            taken.append(i)
            yield i

    assert len(columns_of([*others, numbers()])[-1]) == 2
    assert taken == [0, 1]


def test_a_frame_is_mapped_over_as_it_is_iterated_over_and_cut_by_rows() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": range(5), "b": range(5)})
    assert columns_of([frame]) == [["a", "b"]]
    rows, letters = rows_of([frame, "vwx"])
    pd.testing.assert_frame_equal(rows, frame.iloc[:3])
    assert letters == "vwx"


@pytest.mark.parametrize(("spares", "lazily"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(("function", "parts"), [(abs, ([-1, -2],)), (pow, ([1, 2], [3, 0]))])
def test_a_part_is_mapped_item_by_item(function: Any, parts: Any, spares: bool, lazily: bool) -> None:
    values = MapPart(function, "map(f)")(*parts, items=MapItems(range(2), spares, lazily).as_value(), engine_id=0)
    payload = values.pack(lambda value, what: pack(value, what=what))
    assert unpack(payload) == [function(*items) for items in zip(*parts, strict=True)]


@pytest.mark.parametrize("parts", [([1, 0, 2],), ([1, 0, 2], [3, 4, 5])])
def test_a_stop_iteration_of_the_function_does_not_end_the_part(parts: Any) -> None:
    def function(number: int, *others: int) -> int:
        return number or next(iter(()))

    def mapped(spares: bool = False, lazily: bool = False) -> Any:
        items = MapItems(range(3), spares, lazily).as_value()
        values = MapPart(function, "map(f)")(*parts, items=items, engine_id=0)
        return unpack(values.pack(lambda value, what: pack(value, what=what)))

    with pytest.raises(StopIteration):
        mapped()
    some, *values = mapped(lazily=True)
    assert (values, some.ended is None) == ([1], False)
    some, *values = mapped(spares=True)
    assert (values, [*some.failures]) == ([1, None, 2], [1])


def test_the_items_of_a_piece_are_numbered() -> None:
    pieces = work_for([0, 1, 2], [range(7)], Block(), in_pieces=False)
    assert numbers_of(pieces, Block()) == [range(3), range(3, 5), range(5, 7)]
    for length in range(7):
        dealt = work_for([0, 1, 2], [range(length)], RoundRobin(), in_pieces=False)
        numbers = numbers_of(dealt, RoundRobin())
        assert [list(numbers) for numbers in numbers] == [list(piece.parts[0]) for piece in dealt]


@pytest.mark.parametrize("make_data", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_a_long_list_of_large_numbers_is_read_from_any_memory(make_data: object) -> None:
    numbers = [number**10 for number in range(50_000)]
    payload = pack(numbers)
    assert callable(make_data)
    assert unpack(payload._replace(data=make_data(payload.data))) == numbers


def test_a_chunk_that_ended_without_some_items_gives_those_before_them() -> None:
    call = MapCall(RequestId("ann", 1), NOWHERE, "map(f)", False, size=3, left=3)
    for start in (0, 2):
        piece = MapPiece(RequestId("ann", 1), 0, "map(f)", False, start=start, stop=start + 1)
        piece.settle([start], None)
        call.add(piece)
    call.settle(None, RuntimeError("the client was closed"))
    results = MapCallChunk(call).results(return_exceptions=True)
    assert next(results) == 0
    with pytest.raises(RuntimeError, match="the client was closed"):
        next(results)


def read_only(array: Any) -> Any:
    view = array[:]
    view.flags.writeable = False
    return view


@pytest.mark.parametrize(
    "view_of",
    [
        lambda array: array,
        read_only,
        lambda array: read_only(array)[2:, ::-1],
        lambda array: np.broadcast_to(array, (7, 20, 3)),
        lambda array: np.lib.stride_tricks.sliding_window_view(array, 5, axis=0),
        lambda array: np.lib.stride_tricks.sliding_window_view(array[::-2, ::-1], 3, axis=0)[::-1],
        lambda array: np.frombuffer(memoryview(array).toreadonly().cast("B"), np.int64),
        lambda array: read_only(np.ma.masked_less(array, 5)),
        lambda array: read_only(array[:0]),
    ],
)
def test_a_view_through_which_nothing_can_be_written_is_copied_if_its_array_can_change(
    view_of: Callable[[Any], Any],
) -> None:
    array = np.arange(60).reshape(20, 3)
    view = view_of(array)
    expected = view.copy()
    kept = kept_copy(view)
    array[:] = -1
    assert isinstance(kept, type(expected))
    assert kept.flags.writeable == view.flags.writeable
    assert np.array_equal(kept, expected)


def test_items_that_share_memory_share_it_in_the_copy() -> None:
    array = np.arange(2_000.0)
    for view in (np.lib.stride_tricks.sliding_window_view(array, 1_000), np.broadcast_to(array, (500, 2_000))):
        kept: Any = kept_copy(view)
        assert np.array_equal(kept[[0, -1]], view[[0, -1]])
        assert kept.strides == view.strides
        assert not np.shares_memory(kept, view)


def test_an_array_that_nobody_can_change_is_not_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(4))
    owned = np.arange(4)
    owned.flags.writeable = False
    for array in (owned, owned[1:], np.frombuffer(b"1234", np.uint8), np.load(tmp_path / "a.npy", mmap_mode="r")):
        assert kept_copy(array) is array


class Broken(list[int]):
    """A list whose items can be read only once."""

    def __getitem__(self, place: Any) -> Any:
        raise ValueError("read twice")


def read_only_rows() -> Any:
    rows = np.arange(8.0).reshape(4, 2)
    rows.flags.writeable = False
    return rows


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ([5, 6, 7, 8], "7"),
        ((5, 6, 7, 8), "7"),
        (range(5, 9), "7"),
        ("abcd", "'c'"),
        (np.array(["a", "b", "c", "d"], object), "'c'"),
        (read_only_rows(), "array([4., 5.])"),
        (pd.Series(["a", "b", "c", "d"], index=[3, 2, 1, 0]), "'c'"),
        (deque([5, 6, 7, 8]), "7"),
        (Broken([5, 6, 7, 8]), ""),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("several", [False, True])
def test_the_item_that_failed_is_noted_at_its_error(part: Any, shown: str, several: bool) -> None:
    calls = itertools.count()

    def fail(*items: Any) -> None:
        if next(calls) == 2:
            raise ValueError("bad")

    parts = (part, range(4)) if several else (part,)
    items = MapItems(range(10, 50, 10), False).as_value()
    with pytest.raises(ValueError, match="bad") as caught:
        MapPart(fail, "map(f)")(*parts, items=items, engine_id=0)
    failure = capture_failure(caught.value, 0, "map(f)")
    assert failure.item == (30, f"({shown}, 2)" if several and shown else shown)


@pytest.mark.parametrize(("spares", "lazily"), [(True, False), (False, True)])
def test_the_item_that_failed_is_part_of_its_failure(spares: bool, lazily: bool) -> None:
    items = MapItems([5, 9, 2], spares, lazily).as_value()
    values = MapPart(lambda x: 1 // x, "map(f)")([1, 0, 2], items=items, engine_id=0)
    some, *_ = unpack(values.pack(lambda value, what: pack(value)))
    failure = some.failures[1] if spares else some.ended
    assert failure.item == (9, "0")
