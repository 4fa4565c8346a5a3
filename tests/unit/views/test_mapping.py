"""How sequences are spread over engines, and what of them travels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.core.partition import Block
from nsactors.core.payload import pack, unpack
from nsactors.views.mapping import PIECE_ITEMS, PIECES, MapPart, of_equal_length, work_for


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
    sequences = of_equal_length([range(1_000), "x" * 2_000])
    work = work_for([0, 1], sequences, Block(), in_pieces=True)
    assert all(len(numbers) == len(text) for piece in work for numbers, text in [piece.parts])


@pytest.mark.parametrize("tolerant", [True, False])
def test_a_part_is_mapped_in_one_go_or_one_by_one(tolerant: bool) -> None:
    part = MapPart(abs, tolerant)
    assert part([-1, -2]) == list(part.results([-1, -2])) == [1, 2]


@pytest.mark.parametrize("make_data", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_a_long_list_of_large_numbers_is_read_from_any_memory(make_data: object) -> None:
    numbers = [number**10 for number in range(50_000)]
    payload = pack(numbers)
    assert callable(make_data)
    assert unpack(payload._replace(data=make_data(payload.data))) == numbers
