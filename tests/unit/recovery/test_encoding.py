from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.protocol import wire
from nsactors.protocol.messages import Apply, Execute, Push, RequestId, Reset
from nsactors.protocol.serialize import Payload
from nsactors.recovery.encoding import decode, encode
from nsactors.recovery.journal import (
    JournalEntry,
    Record,
    RequestFinished,
    RequestStarted,
    SegmentHeader,
    Snapshot,
    SnapshotPart,
    State,
)


@pytest.fixture(autouse=True, scope="module")
def small_limit() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "INLINE_LIMIT_BYTES", 16)
        yield


texts = st.text(max_size=5)
payloads = st.builds(
    Payload,
    st.binary(max_size=20),
    st.lists(st.binary(max_size=20), max_size=3).map(tuple),
    st.just(()),
)
operations = st.builds(Execute, texts) | st.builds(Apply, texts, st.booleans()) | st.just(Push()) | st.just(Reset())
requests = st.builds(RequestId, texts, st.integers(0, 1_000))
states = st.sampled_from(State)
bound = st.lists(texts, max_size=3).map(tuple)
seconds = st.floats(0, 10)
processes = st.dictionaries(texts, st.binary(max_size=5) | st.tuples(texts, st.integers()), max_size=2)
snapshots = st.builds(
    Snapshot,
    st.lists(st.builds(SnapshotPart, bound, payloads, bound), max_size=2).map(tuple),
    st.dictionaries(texts, texts, max_size=2),
    st.dictionaries(texts, texts, max_size=2),
    bound,
    texts,
    bound,
    st.dictionaries(texts, st.integers(), max_size=2),
    processes,
    st.dictionaries(texts, texts, max_size=2),
)
records: st.SearchStrategy[Record] = st.one_of(
    st.builds(RequestStarted, requests, operations, st.none() | payloads, states, processes),
    st.builds(RequestFinished, states, texts, bound, seconds),
    st.builds(JournalEntry, requests, operations, st.none() | payloads, states, texts, bound, seconds, processes),
    st.builds(SegmentHeader, snapshots, st.integers(0, 3), st.just({})),
    st.builds(SegmentHeader, st.none(), st.integers(0, 3), st.dictionaries(texts, st.integers(), max_size=2)),
)


def written(record: Record) -> bytes:
    return b"".join(bytes(part) for part in encode(record))


@given(st.lists(records, max_size=5))
def test_records_come_back_as_they_were(given_records: list[Record]) -> None:
    data = b"".join(map(written, given_records))
    assert [record for record, _ in decode(memoryview(data))] == given_records


@given(st.lists(records, min_size=1, max_size=3), st.data())
def test_of_a_file_that_was_cut_off_the_whole_records_are_read(
    given_records: list[Record], data: st.DataObject
) -> None:
    pieces = [written(record) for record in given_records]
    length = data.draw(st.integers(0, sum(map(len, pieces)) - 1))
    whole = [end for i in range(len(pieces)) if (end := sum(map(len, pieces[: i + 1]))) <= length]
    assert [end for _, end in decode(memoryview(b"".join(pieces)[:length]))] == whole


@given(records, st.binary(min_size=1, max_size=40))
def test_what_is_no_record_ends_the_reading(record: Record, noise: bytes) -> None:
    assert [r for r, _ in decode(memoryview(written(record) + b"\x00" * 30 + noise))] == [record]


def test_a_damaged_head_is_noticed() -> None:
    data = bytearray(written(RequestStarted(RequestId("ann", 1), Execute("x = 1"), None)))
    data[-3] ^= 1
    assert list(decode(memoryview(data))) == []


def test_large_buffers_are_not_copied() -> None:
    buffer = memoryview(bytearray(1_000))
    parts = encode(RequestStarted(RequestId("ann", 1), Push(), Payload(b"data", (buffer,))))
    assert parts[-1] is buffer
    assert len(parts[0]) < 200
