"""Encoding of journal entries as bytes.

frame    crc of all that follows except the buffers | kind | state | bytes of the head | number of buffers
             size of each buffer | the head, a pickle of plain tuples | the buffers

A process that dies in the middle of a write leaves an incomplete frame, which is recognised by its sizes. The checksum
does not cover the buffers: for 100 MB it would take 0.08 s, which is longer than writing them takes.
"""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from nsactors.protocol.messages import Apply, Execute, Operation, Pull, Push, RequestId, Reset
from nsactors.protocol.serialize import Buffer, Payload
from nsactors.protocol.wire import seal
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

_CRC = struct.Struct("<I")
_FRAME = struct.Struct("<BBII")
_BASE, _BEGUN, _ENDED, _ENTRY = range(4)
_OPERATIONS: tuple[type[Operation], ...] = (Execute, Apply, Push, Pull, Reset)  # by their numbers on disk: only append
_SNAPSHOT_FIELDS = ("modules", "left_out", "inputs", "folder", "path", "taken", "process", "not_kept")
_CODES = {operation: code for code, operation in enumerate(_OPERATIONS)}


def encode(record: Record) -> list[Buffer]:
    """Return the bytes to write, in order: the frame with its head, then large buffers, which are not copied."""
    match record:
        case RequestStarted(request, operation, payload, state, process):
            inline, buffers, _ = seal(payload)  # without references: such payloads are not journalled
            content = (*request, _CODES[type(operation)], tuple(operation), inline)
            return _framed(_BEGUN, state, (content, process), buffers)
        case RequestFinished(state, error, bound, took_s):
            return _framed(_ENDED, state, (error, bound, took_s))
        case JournalEntry(request, operation, payload, state, error, bound, took_s, process):
            inline, buffers, _ = seal(payload)
            content = (*request, _CODES[type(operation)], tuple(operation), inline)
            return _framed(_ENTRY, state, (content, error, bound, took_s, process), buffers)
        # All headers have one shape on disk. If there is no snapshot, None takes the place of its parts, and the last
        # requests take the place of its other fields.
        case SegmentHeader(None, kept, taken):
            return _framed(_BASE, 0, (kept, None, dict(taken)))
        case SegmentHeader(snapshot, kept):
            assert snapshot is not None
            parts = [(part.names, part.needs, len(part.payload.buffers)) for part in snapshot.parts]
            data = [piece for part in snapshot.parts for piece in (part.payload.data, *part.payload.buffers)]
            rest = tuple(getattr(snapshot, name) for name in _SNAPSHOT_FIELDS)
            return _framed(_BASE, 0, (kept, parts, rest), tuple(data))


def decode(data: memoryview) -> Iterator[tuple[Record, int]]:
    """Yield the records in ``data``, each with the position after it; stop at an incomplete write.

    Buffers of the records are parts of ``data``.
    """
    position = 0
    while (found := _unframed(data, position)) is not None:
        kind, state, head, buffers, position = found
        yield _record(kind, state, head, buffers), position


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
        request, process = content
        return RequestStarted(*_request(request, buffers), State(state), process)
    if kind == _ENDED:
        return RequestFinished(State(state), *content)
    if kind == _ENTRY:
        request, *rest = content
        return JournalEntry(*_request(request, buffers), State(state), *rest)
    kept, parts, rest = content
    if parts is None:
        return SegmentHeader(None, kept, rest)
    pieces = iter(buffers)
    found = [
        SnapshotPart(names, Payload(bytes(next(pieces)), tuple(next(pieces) for _ in range(count))), needs)
        for names, needs, count in parts
    ]
    return SegmentHeader(Snapshot(tuple(found), **dict(zip(_SNAPSHOT_FIELDS, rest, strict=True))), kept)


def _request(content: Any, buffers: tuple[memoryview, ...]) -> tuple[RequestId, Operation, Payload | None]:
    client, seq, code, fields, inline = content
    return RequestId(client, seq), _OPERATIONS[code](*fields), _join(inline, buffers)
