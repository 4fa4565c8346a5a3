"""Records of a journal as bytes, in frames that show where a write was cut off.

    frame    crc of all that follows but the buffers | kind | state | bytes of the head | number of buffers
             size of each buffer | the head, a pickle of plain tuples | the buffers

A process that dies in the middle of a write leaves the beginning of a frame, which its sizes give away. The buffers
are not in the checksum: over 100 MB it would take 0.08 s, more than to write them.
"""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from nsactors.core.journal import Base, Begun, Ended, Entry, Record, Snapshot, SnapshotPart, State
from nsactors.core.messages import Apply, Execute, Operation, Pull, Push, RequestId, Reset
from nsactors.core.payload import Buffer, Payload

__all__ = ["decode", "encode"]

INLINE_LIMIT_BYTES = 64 * 1024  # of a payload in the head

_CRC = struct.Struct("<I")
_FRAME = struct.Struct("<BBII")
_BASE, _BEGUN, _ENDED, _ENTRY = range(4)
_OPERATIONS: tuple[type[Operation], ...] = (Execute, Apply, Push, Pull, Reset)  # by number on disk: only add
_SNAPSHOT_FIELDS = ("modules", "left_out", "inputs", "folder", "path", "taken")
_CODES = {operation: code for code, operation in enumerate(_OPERATIONS)}


def encode(record: Record) -> list[Buffer]:
    """What to write, in this order: the frame with its head, then large buffers, which are not copied."""
    match record:
        case Begun(request, operation, payload, state):
            inline, buffers = _divide(payload)
            return _framed(_BEGUN, state, (*request, _CODES[type(operation)], tuple(operation), inline), buffers)
        case Ended(state, error, bound, took_s):
            return _framed(_ENDED, state, (error, bound, took_s))
        case Entry(request, operation, payload, state, error, bound, took_s):
            inline, buffers = _divide(payload)
            what = (*request, _CODES[type(operation)], tuple(operation), inline)
            return _framed(_ENTRY, state, (what, error, bound, took_s), buffers)
        case Base(None, kept):
            return _framed(_BASE, 0, (kept, None, None))
        case Base(snapshot, kept):
            assert snapshot is not None
            parts = [(part.names, len(part.payload.buffers)) for part in snapshot.parts]
            data = [piece for _, payload in snapshot.parts for piece in (payload.data, *payload.buffers)]
            rest = tuple(getattr(snapshot, name) for name in _SNAPSHOT_FIELDS)
            return _framed(_BASE, 0, (kept, parts, rest), tuple(data))


def decode(data: memoryview) -> Iterator[tuple[Record, int]]:
    """The records in ``data``, each with the position behind it; ends where a write was cut off.

    Buffers of what it gives are parts of ``data``.
    """
    position = 0
    while (found := _unframed(data, position)) is not None:
        kind, state, head, buffers, position = found
        yield _record(kind, state, head, buffers), position


def _divide(payload: Payload | None) -> tuple[Any, tuple[Buffer, ...]]:
    if payload is None:
        return None, ()
    if (len(payload.data) if not payload.buffers else payload.nbytes) <= INLINE_LIMIT_BYTES:
        return (payload.data, tuple(bytes(buffer) for buffer in payload.buffers)), ()
    return ..., (payload.data, *payload.buffers)


def _join(inline: Any, buffers: tuple[memoryview, ...]) -> Payload | None:
    if inline is None:
        return None
    return Payload(bytes(buffers[0]), buffers[1:]) if inline is ... else Payload(*inline)


def _framed(kind: int, state: int, content: tuple[Any, ...], buffers: tuple[Buffer, ...] = ()) -> list[Buffer]:
    head = pickle.dumps(content, protocol=5)
    frame = _FRAME.pack(kind, state, len(head), len(buffers))
    if buffers:
        frame += struct.pack(f"<{len(buffers)}Q", *(memoryview(buffer).nbytes for buffer in buffers))
    frame += head
    return [_CRC.pack(zlib.crc32(frame)) + frame, *buffers]


def _unframed(data: memoryview, start: int) -> tuple[int, int, bytes, tuple[memoryview, ...], int] | None:
    sizes_at = start + _CRC.size + _FRAME.size
    if sizes_at > len(data):
        return None
    (crc,) = _CRC.unpack_from(data, start)
    kind, state, head_bytes, count = _FRAME.unpack_from(data, start + _CRC.size)
    head_at = sizes_at + 8 * count
    position = head_at + head_bytes
    if position > len(data) or zlib.crc32(data[start + _CRC.size : position]) != crc:
        return None
    buffers = []
    for size in struct.unpack_from(f"<{count}Q", data, sizes_at):
        buffers.append(data[position : position + size])
        position += size
    if position > len(data):
        return None
    return kind, state, bytes(data[head_at : head_at + head_bytes]), tuple(buffers), position


def _record(kind: int, state: int, head: bytes, buffers: tuple[memoryview, ...]) -> Record:
    content = pickle.loads(head)
    if kind == _BEGUN:
        return Begun(*_request(content, buffers), State(state))
    if kind == _ENDED:
        return Ended(State(state), *content)
    if kind == _ENTRY:
        what, *rest = content
        return Entry(*_request(what, buffers), State(state), *rest)
    kept, parts, rest = content
    if parts is None:
        return Base(None, kept)
    pieces = iter(buffers)
    payloads = [
        SnapshotPart(names, Payload(bytes(next(pieces)), tuple(next(pieces) for _ in range(count))))
        for names, count in parts
    ]
    return Base(Snapshot(tuple(payloads), **dict(zip(_SNAPSHOT_FIELDS, rest, strict=True))), kept)


def _request(content: Any, buffers: tuple[memoryview, ...]) -> tuple[RequestId, Operation, Payload | None]:
    client, seq, code, fields, inline = content
    return RequestId(client, seq), _OPERATIONS[code](*fields), _join(inline, buffers)
