"""Messages and payloads as bytes.

A message becomes one ``bytes`` object, the header, which is the cheapest argument for a transport. A small payload
travels inside the header. A large payload stays outside, buffer by buffer, so that a transport can put it into its
object store without another copy, and only once for any number of engines.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from types import EllipsisType
from typing import Any, NamedTuple

from nsactors.protocol.messages import (
    Apply,
    EngineRequest,
    Execute,
    Ok,
    OutputBatch,
    Pull,
    Push,
    Reply,
    RequestId,
    Reset,
    RunTasks,
    TakeSnapshot,
)
from nsactors.protocol.serialize import Payload, StoredObject

# Ray inlines values up to 100 kB; a reference to its object store as an argument costs 1 ms more than inline bytes.
INLINE_LIMIT_BYTES = 64 * 1024

_STAMP = struct.Struct("<QI")  # the part of a request that differs from engine to engine
_OPERATIONS = (Execute, Apply, Push, Pull, Reset, TakeSnapshot, RunTasks)
_CODES = {kind: code for code, kind in enumerate(_OPERATIONS)}


class Sealed(NamedTuple):
    """A payload, prepared for sending.

    Attributes:
        inline: the payload if it goes into the header; ``...`` if it goes beside it.
        buffers: the buffers beside the header.
        refs: the references beside the header.
    """

    inline: tuple[bytes, tuple[bytes, ...]] | EllipsisType | None = None
    buffers: tuple[Any, ...] = ()
    refs: tuple[object, ...] = ()


_NOTHING = Sealed()


def copied_or_stored(payload: Payload, store: Callable[[Payload], StoredObject]) -> Payload | StoredObject:
    """Return a copy of a small payload, which travels inside a message; store a large one and return a reference."""
    if payload.refs or payload.nbytes > INLINE_LIMIT_BYTES:
        return store(payload)
    return payload.copied()


def seal(payload: Payload | None, limit_bytes: int | None = None) -> Sealed:
    """Decide whether a payload travels in the header or beside it.

    Args:
        payload: the payload.
        limit_bytes: the size up to which it travels in the header; by default, ``INLINE_LIMIT_BYTES``.
    """
    if payload is None:
        return _NOTHING
    nbytes = len(payload.data) if not payload.buffers else payload.nbytes
    if payload.refs or nbytes > (limit_bytes or INLINE_LIMIT_BYTES):
        return Sealed(..., (payload.data, *payload.buffers), payload.refs)
    # bytes, not bytearrays: values of any size are read-only on arrival.
    return Sealed((payload.data, tuple(map(bytes, payload.buffers))))


# Fields are plain tuples and numbers, because the receiver would look up each class that a pickle names. That would
# take as long as all the rest of the decoding.


def encode_body(request: EngineRequest, sealed: Sealed) -> bytes:
    """Encode the part of a request that is the same for all engines: all except its number and ``stops_seen``."""
    (client, _), operation, *terms, _ = request
    fields = (client, _CODES[type(operation)], tuple(operation), terms, sealed.inline)
    return pickle.dumps(fields, protocol=5)


def stamp(seq: int, stops_seen: int, body: bytes) -> bytes:
    """Return the header of a request to one engine: its number and ``stops_seen``, and the encoded body."""
    return _STAMP.pack(seq, stops_seen) + body


def encode_reply(reply: Reply, sealed: Sealed) -> bytes:
    """Return the header of a reply with this payload."""
    (client, seq), engine_id, incarnation, outcome, tail, started, completed, count = reply
    # The most common outcome is left out, since its class would have to be looked up at the receiver.
    unless_ok = None if type(outcome) is Ok else outcome
    flat = (client, seq, engine_id, incarnation, unless_ok, tail.start, tail.chunks, started, completed, count)
    return pickle.dumps((flat, sealed.inline), protocol=5)


def decode_request(
    header: bytes, buffers: tuple[Any, ...] = (), refs: tuple[object, ...] = ()
) -> tuple[EngineRequest, Payload | None]:
    """Return a request and its payload."""
    seq, stops_seen = _STAMP.unpack_from(header)
    client, code, fields, terms, inline = pickle.loads(memoryview(header)[_STAMP.size :])
    request = EngineRequest._make((RequestId(client, seq), _OPERATIONS[code](*fields), *terms, stops_seen))
    return request, _payload(inline, buffers, refs)


def decode_reply(
    header: bytes, buffers: tuple[Any, ...] = (), refs: tuple[object, ...] = ()
) -> tuple[Reply, Payload | None]:
    """Return a reply and its payload."""
    flat, inline = pickle.loads(header)
    client, seq, engine_id, incarnation, unless_ok, start, chunks, started, completed, count = flat
    request = RequestId(client, seq)
    tail = OutputBatch(request, engine_id, start, chunks)
    outcome = Ok() if unless_ok is None else unless_ok
    reply = Reply(request, engine_id, incarnation, outcome, tail, started, completed, count)
    return reply, _payload(inline, buffers, refs)


def _payload(inline: Any, buffers: tuple[Any, ...], refs: tuple[object, ...]) -> Payload | None:
    if inline is None:
        return None
    if inline is ...:
        return Payload(buffers[0], tuple(buffers[1:]), tuple(refs))
    return Payload(*inline)
