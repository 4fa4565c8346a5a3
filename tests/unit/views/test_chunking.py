"""Chunks grow until one takes long enough to be worth a message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nsactors.views.lazy_map import CHUNK_S, MAX_ITEMS, ChunkSize


def test_the_first_chunk_is_one_item() -> None:
    assert ChunkSize().items == 1


def test_a_given_size_stays() -> None:
    size = ChunkSize(7)
    size.observe(7, 0.0)
    assert (size.items, size.adapts) == (7, False)


def test_items_that_take_no_time_double_the_size() -> None:
    size = ChunkSize()
    size.observe(1, 0.0)
    assert size.items == 2


def test_long_items_are_sent_one_by_one() -> None:
    size = ChunkSize()
    size.observe(1, 10 * CHUNK_S)
    assert size.items == 1


def test_a_size_shrinks_at_once() -> None:
    size = ChunkSize()
    for _ in range(6):
        size.observe(size.items, 0.0)
    size.observe(1, CHUNK_S / 2)
    assert size.items == 2


@given(st.lists(st.tuples(st.integers(1, MAX_ITEMS), st.floats(-1.0, 100.0)), max_size=30))
def test_a_size_is_always_within_bounds(observed: list[tuple[int, float]]) -> None:
    size = ChunkSize()
    for items, seconds in observed:
        size.observe(items, seconds)
        assert 1 <= size.items <= MAX_ITEMS


@given(st.floats(1e-6, 1.0))
def test_chunks_come_to_take_the_time_they_should(item_s: float) -> None:
    size = ChunkSize()
    for _ in range(20):
        size.observe(size.items, size.items * item_s)
    assert size.items == max(1, min(MAX_ITEMS, int(CHUNK_S / item_s))) or size.items * item_s <= CHUNK_S
