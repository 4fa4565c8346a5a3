"""The replies that an engine stores, within limits; the oldest are dropped first.

A reply is sent to the client that made the request, and is lost with that client. The engine stores it here so that
other clients can collect it, or the same client after a reconnection. Two things are stored: the encoded reply, which
contains the value if the value is small, and the output that was delivered before the reply.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import NamedTuple

from nsactors.protocol.messages import OutputChunk, Reply, RequestId
from nsactors.protocol.serialize import ObjectGone, Payload, StoredObject
from nsactors.protocol.wire import decode_reply

LIMIT_REPLIES = 4_000
LIMIT_BYTES = 16_000_000  # in the memory of the engine
LIMIT_STORED_BYTES = 1_000_000_000  # in the object store, which can spill to disk
LIMIT_CLIENTS = 10_000
LARGE_BYTES = 2_000_000  # the largest value that is copied (0.1 ms a MB) in case another client collects it


class Missing(enum.Enum):
    """The reason why there is no reply to a request."""

    DROPPED = "dropped"
    """The reply was dropped, to make room for newer ones."""
    UNKNOWN = "unknown"
    """No reply to the request was stored."""
    AHEAD = "ahead"
    """The request has not begun, and the engine is running another request."""
    ABSENT = "absent"
    """The request has not begun, and the engine is idle."""


class StoredReply(NamedTuple):
    """A stored reply.

    Attributes:
        header: the encoded reply, with the value if that is small.
        head: the output that was delivered before the reply; the reply's tail has the rest.
        value: a value that is not in the header; ``Missing.DROPPED`` if it was too large to store.
    """

    header: bytes
    head: tuple[OutputChunk, ...] = ()
    value: Payload | StoredObject | Missing | None = None

    def reply(self) -> Reply:
        """Return the reply, with all of its output as its tail."""
        reply, _ = decode_reply(self.header, (b"",))
        tail = reply.tail
        whole = tail._replace(start=tail.start - len(self.head), chunks=(*self.head, *tail.chunks))
        return reply._replace(tail=whole)

    def load(self) -> Payload | None:
        """Return the value.

        Raises:
            ObjectGone: if the value is not available any more.
        """
        match self.value:
            case None:
                return decode_reply(self.header)[1]
            case Missing():
                raise ObjectGone("it was too large to store for other clients while its own client was connected")
            case Payload() as payload:
                return payload
            case stored:
                return stored.load()


Found = StoredReply | Missing


_Entry = tuple[StoredReply, int, int]
"""A reply, and its sizes in the engine's memory and in the object store; a tuple, since each call makes one."""


class ReplyStore:
    """Stores replies by request id, within limits of number and size.

    Args:
        limit_replies: the number of replies.
        limit_bytes: their size in the memory of the engine.
        limit_stored_bytes: the size of their values in the object store.
    """

    def __init__(
        self,
        limit_replies: int = LIMIT_REPLIES,
        limit_bytes: int = LIMIT_BYTES,
        limit_stored_bytes: int = LIMIT_STORED_BYTES,
    ) -> None:
        self._limit_replies = limit_replies
        self._limit_bytes = limit_bytes
        self._limit_stored_bytes = limit_stored_bytes
        self._entries: dict[RequestId, _Entry] = {}
        # Oldest first. A plain dict is also ordered, but skips all deleted entries to find its first key.
        self._order: deque[RequestId] = deque()
        self._nbytes = 0
        self._stored_bytes = 0
        self._dropped_upto: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Size of the replies in the engine's memory."""
        return self._nbytes

    @property
    def stored_bytes(self) -> int:
        """Size of their values in the object store."""
        return self._stored_bytes

    def add(self, request: RequestId, reply: StoredReply, nbytes: int, stored_bytes: int = 0) -> None:
        """Store a reply, dropping older replies to make room. A reply larger than a limit is dropped immediately.

        Args:
            request: the request; if it has a reply already, that reply stays.
            reply: the reply.
            nbytes: its size in the engine's memory.
            stored_bytes: the size of its value in the object store.
        """
        if request in self._entries:
            return
        if nbytes > self._limit_bytes or stored_bytes > self._limit_stored_bytes:
            return self._note_dropped(request)
        self._entries[request] = (reply, nbytes, stored_bytes)
        self._order.append(request)
        self._nbytes += nbytes
        self._stored_bytes += stored_bytes
        while (
            self._nbytes > self._limit_bytes
            or len(self._entries) > self._limit_replies
            or self._stored_bytes > self._limit_stored_bytes
        ):
            self._drop_oldest()

    def get(self, request: RequestId) -> Found:
        """Return the reply to a request, or the reason why there is no reply."""
        entry = self._entries.get(request)
        if entry is not None:
            return entry[0]
        # Replies of one client are stored, and dropped, in the order of their numbers.
        return Missing.DROPPED if request.seq <= self._dropped_upto.get(request.client, -1) else Missing.UNKNOWN

    def _drop_oldest(self) -> None:
        request = self._order.popleft()
        _, nbytes, stored_bytes = self._entries.pop(request)
        self._nbytes -= nbytes
        self._stored_bytes -= stored_bytes
        self._note_dropped(request)

    def _note_dropped(self, request: RequestId) -> None:
        self._dropped_upto[request.client] = max(request.seq, self._dropped_upto.get(request.client, -1))
        if len(self._dropped_upto) > LIMIT_CLIENTS:
            # For a forgotten client, the reason is UNKNOWN instead of DROPPED, which is less precise but not wrong.
            del self._dropped_upto[next(iter(self._dropped_upto))]
