from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.protocol.messages import EngineRequest, Push, RequestId
from nsactors.protocol.serialize import Payload, pack, unpack
from nsactors.protocol.wire import INLINE_LIMIT_BYTES, decode_request, encode_body, seal, stamp

REQUEST = EngineRequest(RequestId("ann", 1), Push())


def there_and_back(payload: Payload | None) -> tuple[Any, Payload | None]:
    sealed = seal(payload)
    header = stamp(REQUEST.id.seq, REQUEST.stops_seen, encode_body(REQUEST, sealed))
    return decode_request(header, sealed.buffers, sealed.refs)


def test_a_message_without_payload_is_its_header() -> None:
    assert there_and_back(None) == (REQUEST, None)


@given(st.binary(), st.lists(st.binary(), max_size=3))
def test_a_small_payload_travels_in_the_header(data: bytes, buffers: list[bytes]) -> None:
    payload = Payload(data, tuple(buffers))
    assert seal(payload).buffers == ()
    assert there_and_back(payload) == (REQUEST, payload)


@pytest.mark.parametrize("excess", [0, 1])
def test_the_limit_decides_what_travels_beside_the_header(excess: int) -> None:
    payload = Payload(b"", (bytes(INLINE_LIMIT_BYTES + excess),))
    assert bool(seal(payload).buffers) == bool(excess)
    assert there_and_back(payload) == (REQUEST, payload)


def test_a_large_payload_is_not_in_the_header() -> None:
    sealed = seal(Payload(b"", (bytes(10 * INLINE_LIMIT_BYTES),)))
    assert len(encode_body(REQUEST, sealed)) < 1_000


def test_references_travel_beside_the_header_whatever_their_size() -> None:
    reference = object()
    sealed = seal(Payload(b"data", (), (reference,)))
    assert (sealed.buffers, sealed.refs) == ((b"data",), (reference,))


@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_arrays_come_back_equal_whatever_their_size(size: int) -> None:
    _, payload = there_and_back(pack({"x": np.arange(size)}, what="the values"))
    assert payload is not None
    assert np.array_equal(unpack(payload)["x"], np.arange(size))


def test_a_small_array_can_be_written_to_on_arrival() -> None:
    _, payload = there_and_back(pack(np.arange(5), what="the value"))
    assert payload is not None
    assert unpack(payload).flags.writeable
