"""The answers that an engine has given, kept for whoever asks later; the oldest go first when there are too many.

A reply belongs to the client that caused it and dies with it. What is kept here does not: the encoded reply with a
small value inside, and the output that had been sent ahead of it.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import NamedTuple

from nsactors.core.messages import OutputChunk, Reply, RequestId
from nsactors.core.payload import Payload
from nsactors.core.remote_value import ObjectGone, StoredObject
from nsactors.core.wire import decode_reply

__all__ = ["LARGE_BYTES", "AnswerStore", "Found", "KeptAnswer", "Missing"]

LIMIT_ANSWERS = 4_000
LIMIT_BYTES = 16_000_000  # in the engine's own memory
LIMIT_STORED_BYTES = 1_000_000_000  # in the object store, which can put them on disk
LIMIT_CLIENTS = 10_000
LARGE_BYTES = 2_000_000  # of a value: up to here it is copied (0.1 ms a MB) whether or not anybody will ask for it


class Missing(enum.Enum):
    """Why there is no answer to a request."""

    DROPPED = "dropped"
    """There was one; newer ones have taken its place."""
    UNKNOWN = "unknown"
    """None has been kept."""
    AHEAD = "ahead"
    """Its turn has not come, and the engine is busy with another one."""
    ABSENT = "absent"
    """Its turn has not come, and the engine has nothing to do."""


class KeptAnswer(NamedTuple):
    """One answer, as it was given.

    Attributes:
        header: the encoded reply; a small value is in it.
        head: the output that had been delivered before it; with the reply's tail it is all of the output.
        value: a value that is not in the header; ``Missing.DROPPED`` if it was too large to be kept.
    """

    header: bytes
    head: tuple[OutputChunk, ...] = ()
    value: Payload | StoredObject | Missing | None = None

    def reply(self) -> Reply:
        """The reply; its tail is all the output that is here."""
        reply, _ = decode_reply(self.header, (b"",))
        tail = reply.tail
        whole = tail._replace(start=tail.start - len(self.head), chunks=(*self.head, *tail.chunks))
        return reply._replace(tail=whole)

    def load(self) -> Payload | None:
        """The value.

        Raises:
            ObjectGone: if it cannot be had any more.
        """
        match self.value:
            case None:
                return decode_reply(self.header)[1]
            case Missing():
                raise ObjectGone("it was too large to be kept for others while its own client was there to take it")
            case Payload() as payload:
                return payload
            case stored:
                return stored.load()


Found = KeptAnswer | Missing


_Entry = tuple[KeptAnswer, int, int]
"""An answer, what it takes of the engine's memory, and of the object store; no class, for one is made at each call."""


class AnswerStore:
    """Answers by request id, within limits of number and bytes.

    Args:
        limit_answers: how many are kept.
        limit_bytes: how much memory of the engine's they may take.
        limit_stored_bytes: how much of the object store.
    """

    def __init__(
        self,
        limit_answers: int = LIMIT_ANSWERS,
        limit_bytes: int = LIMIT_BYTES,
        limit_stored_bytes: int = LIMIT_STORED_BYTES,
    ) -> None:
        self._limit_answers = limit_answers
        self._limit_bytes = limit_bytes
        self._limit_stored_bytes = limit_stored_bytes
        self._entries: dict[RequestId, _Entry] = {}
        # Oldest first. A dict keeps order too, but looks for its first key past all that have been deleted.
        self._order: deque[RequestId] = deque()
        self._nbytes = 0
        self._stored_bytes = 0
        self._dropped_upto: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """What the answers take of the engine's memory."""
        return self._nbytes

    @property
    def stored_bytes(self) -> int:
        """What their values take of the object store."""
        return self._stored_bytes

    def keep(self, request: RequestId, answer: KeptAnswer, nbytes: int, stored_bytes: int = 0) -> None:
        """Keep an answer; older ones make room for it. One that is larger than a limit counts as dropped.

        Args:
            request: what it answers; one that has an answer here keeps that one.
            answer: the answer.
            nbytes: what it takes of the engine's memory.
            stored_bytes: what its value takes of the object store.
        """
        if request in self._entries:
            return
        if nbytes > self._limit_bytes or stored_bytes > self._limit_stored_bytes:
            return self._note_dropped(request)
        self._entries[request] = (answer, nbytes, stored_bytes)
        self._order.append(request)
        self._nbytes += nbytes
        self._stored_bytes += stored_bytes
        while (
            self._nbytes > self._limit_bytes
            or len(self._entries) > self._limit_answers
            or self._stored_bytes > self._limit_stored_bytes
        ):
            self._drop_oldest()

    def get(self, request: RequestId) -> Found:
        """The answer to a request, or why there is none."""
        entry = self._entries.get(request)
        if entry is not None:
            return entry[0]
        # A client's requests are answered in the order of their numbers, and so are they dropped.
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
            del self._dropped_upto[next(iter(self._dropped_upto))]
