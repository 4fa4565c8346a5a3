"""How a message with its payload crosses from one process to another.

A message becomes one ``bytes`` object, the header, which costs a transport least; a small payload travels inside it.
A large one stays outside, buffer by buffer, so that a transport can put it into its object store without another
copy, and once for any number of engines.
"""

from __future__ import annotations

import pickle
import struct
from types import EllipsisType
from typing import Any, NamedTuple

from nsactors.core.messages import (
    Apply,
    Execute,
    Instruction,
    Ok,
    OutputBatch,
    Pull,
    Push,
    Reply,
    Request,
    RequestId,
    Reset,
    RunTasks,
    TakeSnapshot,
)
from nsactors.core.payload import Payload

__all__ = ["INLINE_LIMIT_BYTES", "Sealed", "decode_reply", "decode_request", "encode", "encode_body", "seal", "stamp"]

# Ray keeps values up to 100 kB out of its object store; a reference as an argument costs 1 ms more than inline bytes.
INLINE_LIMIT_BYTES = 64 * 1024

_STAMP = struct.Struct("<QI")  # the part of a request that differs from engine to engine
_OPERATIONS = (Execute, Apply, Push, Pull, Reset, TakeSnapshot, RunTasks)
_CODES = {kind: code for code, kind in enumerate(_OPERATIONS)}


class Sealed(NamedTuple):
    """A payload ready to travel.

    ``inline`` in the header, or ``buffers`` and ``refs`` beside it (``inline`` is ``...``).
    """

    inline: tuple[bytes, tuple[bytes, ...]] | EllipsisType | None = None
    buffers: tuple[Any, ...] = ()
    refs: tuple[object, ...] = ()


_NOTHING = Sealed()


def seal(payload: Payload | None) -> Sealed:
    """Decide how a payload travels."""
    if payload is None:
        return _NOTHING
    if payload.refs or (len(payload.data) if not payload.buffers else payload.nbytes) > INLINE_LIMIT_BYTES:
        return Sealed(..., (payload.data, *payload.buffers), payload.refs)
    # bytes, not bytearrays: what arrives is read-only whatever its size.
    return Sealed((payload.data, tuple(bytes(b) for b in payload.buffers) if payload.buffers else ()))


# Plain tuples and numbers: each class that a pickle names is looked up at the other end, which takes as long as all
# the rest.


def encode_body(instruction: Instruction, sealed: Sealed) -> bytes:
    """What a request says to every engine it goes to: encoded once, to be stamped for each of them."""
    client, operation, *terms = instruction
    fields = (client, _CODES[type(operation)], tuple(operation), terms, sealed.inline)
    return pickle.dumps(fields, protocol=5)


def stamp(seq: int, stops_seen: int, body: bytes) -> bytes:
    """The header of a request to one engine."""
    return _STAMP.pack(seq, stops_seen) + body


def encode(message: Request | Reply, sealed: Sealed) -> bytes:
    """The header of a message that comes with this payload."""
    match message:
        case Request((client, seq)):
            body = encode_body(Instruction(client, *message[1:-1]), sealed)
            return stamp(seq, message.stops_seen, body)
        case Reply((client, seq), engine_id, incarnation, outcome, tail, started, completed, count):
            unless_ok = None if type(outcome) is Ok else outcome
            flat = (client, seq, engine_id, incarnation, unless_ok, tail.start, tail.chunks, started, completed, count)
            return pickle.dumps((flat, sealed.inline), protocol=5)


def decode_request(
    header: bytes, buffers: tuple[Any, ...] = (), refs: tuple[object, ...] = ()
) -> tuple[Request, Payload | None]:
    """A request and its payload."""
    seq, stops_seen = _STAMP.unpack_from(header)
    client, code, fields, terms, inline = pickle.loads(memoryview(header)[_STAMP.size :])
    request = Request._make((RequestId(client, seq), _OPERATIONS[code](*fields), *terms, stops_seen))
    return request, _payload(inline, buffers, refs)


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
