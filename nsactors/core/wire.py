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

from nsactors.core.payload import Payload

__all__ = ["INLINE_LIMIT_BYTES", "Sealed", "decode", "encode", "seal"]

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
    if payload.refs or payload.nbytes > INLINE_LIMIT_BYTES:
        return Sealed(..., (payload.data, *payload.buffers), payload.refs)
    # bytes, not bytearrays: what arrives is read-only whatever its size.
    return Sealed((payload.data, tuple(bytes(b) for b in payload.buffers)))


def encode(message: object, sealed: Sealed) -> bytes:
    """The header of a message that comes with this payload."""
    return pickle.dumps((message, sealed.inline), protocol=5)


def decode(header: bytes, buffers: tuple[Any, ...] = (), refs: tuple[object, ...] = ()) -> tuple[Any, Payload | None]:
    """The message and its payload."""
    message, inline = pickle.loads(header)
    if inline is None:
        return message, None
    if inline is ...:
        return message, Payload(buffers[0], tuple(buffers[1:]), tuple(refs))
    return message, Payload(*inline)
