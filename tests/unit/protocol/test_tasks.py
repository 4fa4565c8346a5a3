"""Batches of tasks as they travel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.protocol.serialize import Payload, pack, unpack
from nsactors.protocol.tasks import (
    BatchPart,
    BatchReport,
    RangeOutcome,
    RangeStatus,
    TaskRange,
    nest,
    read_parts,
    unnest,
    write_parts,
)

payloads = st.builds(Payload, st.binary(), st.lists(st.binary(max_size=9)).map(tuple), st.just(()))
parts = st.builds(
    BatchPart,
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(10, 19),
    st.text(max_size=5),
    st.none() | st.integers(),
    st.none() | payloads,
    st.none() | payloads,
    st.none() | st.floats(0, 9),
    st.booleans(),
)


@given(st.lists(parts, max_size=5))
def test_parts_arrive_as_they_were_sent(sent: list[BatchPart]) -> None:
    assert read_parts(unpack(pack(write_parts(sent)))) == sent


def test_reports_arrive_as_they_were_sent() -> None:
    ran = RangeOutcome(1, 0, 5, RangeStatus.OK, 0.25, None, 1.5, (0, 2))
    sent = BatchReport((ran, ran._replace(status=RangeStatus.UNMET)), Payload(b"values", (b"beside",)), (7,))
    assert BatchReport.from_value(unpack(pack(sent.as_value()))) == sent


@pytest.mark.parametrize("nbytes", [10, 100_000])
def test_memory_of_arrays_inside_is_not_copied(nbytes: int) -> None:
    array = np.zeros(nbytes, np.uint8)
    outer = pack([nest(pack(array))])
    assert len(outer.data) < 1_000
    assert any(np.shares_memory(array, np.frombuffer(buffer, np.uint8)) for buffer in outer.buffers)
    (nested,) = unpack(outer)
    np.testing.assert_array_equal(unpack(unnest(nested)), array)


def test_a_large_pickle_inside_is_not_copied() -> None:
    payload = pack(["text"] * 50_000 + list(range(100_000)))
    outer = pack([nest(payload)])
    assert len(outer.data) < 1_000
    (nested,) = unpack(outer)
    assert unpack(unnest(nested)) == unpack(payload)


def test_a_part_knows_its_span() -> None:
    assert BatchPart(3, 1, 5, "map(f)", 2, None).span == TaskRange(3, 1, 5)
