"""How a message with its payload crosses from one process to another.

A message becomes one ``bytes`` object, the header, which costs a transport least; a small payload travels inside it.
A large one stays outside, buffer by buffer, so that a transport can put it into its object store without another
copy, and once for any number of engines.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

from nsactors.core.messages import Ok, OutputBatch, Reply, Request, RequestId
from nsactors.core.payload import Payload

__all__ = ["INLINE_LIMIT_BYTES", "Sealed", "decode_reply", "decode_request", "encode", "seal"]

# Ray keeps values up to 100 kB out of its object store; a reference as an argument costs 1 ms more than inline bytes.
INLINE_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Sealed:
    """A payload ready to travel.

    ``inline`` in the header, or ``buffers`` and ``refs`` beside it (``inline`` is ``...``).
    """

    inline: tuple[bytes, tuple[bytes, ...]] | EllipsisType | None = None
    buffers: tuple[Any, ...] = ()
    refs: tuple[object, ...] = ()


def seal(payload: Payload | None) -> Sealed:
    """Decide how a payload travels."""
    if payload is None:
        return Sealed()
    if payload.refs or (len(payload.data) if not payload.buffers else payload.nbytes) > INLINE_LIMIT_BYTES:
        return Sealed(..., (payload.data, *payload.buffers), payload.refs)
    # bytes, not bytearrays: what arrives is read-only whatever its size.
    return Sealed((payload.data, tuple(bytes(b) for b in payload.buffers)))


def encode(message: Request | Reply, sealed: Sealed) -> bytes:
    """The header of a message that comes with this payload."""
    # Plain tuples: each class that a pickle names is looked up at the other end, which takes as long as all the rest.
    match message:
        case Request(id):
            flat: tuple[Any, ...] = (*id, *message[1:])
        case Reply(request, engine_id, incarnation, outcome, tail, started, completed, count):
            unless_ok = None if isinstance(outcome, Ok) else outcome
            flat = (*request, engine_id, incarnation, unless_ok, tail.start, tail.chunks, started, completed, count)
    return pickle.dumps((flat, sealed.inline), protocol=5)


def decode_request(
    header: bytes, buffers: tuple[Any, ...] = (), refs: tuple[object, ...] = ()
) -> tuple[Request, Payload | None]:
    """A request and its payload."""
    (client, seq, *fields), inline = pickle.loads(header)
    return Request(RequestId(client, seq), *fields), _payload(inline, buffers, refs)


def decode_reply(
    header: bytes, buffers: tuple[Any, ...] = (), refs: tuple[object, ...] = ()
) -> tuple[Reply, Payload | None]:
    """A reply and its payload."""
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
