"""The reply cache: a repeated request gets its first reply, and does not run again.

Large values go into the object store if their client has left, or has asked for it with ``StoreReplies``; see
:mod:`nsactors.protocol.stored_replies` for the limits.
"""

from __future__ import annotations

from typing import TypeVar

from nsactors.namespace.output import OutputRecorder
from nsactors.protocol.messages import OutputBatch, Refused, Reply, RequestId
from nsactors.protocol.output import size_bytes
from nsactors.protocol.serialize import ObjectGone, ObjectStore, Payload, StoredObject, pack
from nsactors.protocol.stored_replies import LARGE_BYTES, Missing, ReplyStore, StoredReply
from nsactors.protocol.wire import INLINE_LIMIT_BYTES, Sealed, encode_reply, seal

T = TypeVar("T")

COLLECTED_BYTES = 1_000_000  # in one reply to CollectReplies, which passes through the controller
LIMIT_CLIENTS = 10_000

Collected = StoredReply | OutputBatch | Missing | StoredObject


class ReplyCache:
    """Store an engine's replies, and report the requests under way.

    The thread that runs requests sets ``current`` and calls :meth:`store`; other methods may run on any thread.

    Args:
        objects: the store for large values that must outlive their client.
        output: the output of the request that runs.

    Attributes:
        current: the request that runs, until its reply is stored.
    """

    def __init__(self, objects: ObjectStore, output: OutputRecorder) -> None:
        self._objects = objects
        self._output = output
        self._store = ReplyStore()
        self.current: RequestId | None = None
        self._gone: dict[str, bool] = {}  # a set in order
        self._stored_upto: dict[str, int] = {}

    def store(self, reply: Reply, header: bytes, result: Payload | None, sealed: Sealed) -> None:
        """Store a reply.

        Args:
            reply: the reply; the items in its header count as encoded.
            header: the encoded reply.
            result: its value.
            sealed: the value as it is sent.
        """
        if type(reply.outcome) is not Refused:  # a refusal is the reply to a repeated request, not to the first one
            head = self._output.delivered() if reply.tail.start else ()
            value: Payload | StoredObject | Missing | None = None
            nbytes, stored_bytes = len(header), 0
            if head:
                nbytes += sum(size_bytes(chunk) for chunk in head)
            if sealed.buffers and result is not None:
                value, copied_bytes, stored_bytes = self._store_value(reply.request, result, sealed)
                nbytes += copied_bytes
            # The reply is stored as it was encoded: this costs a call 1 us, and nothing is pickled again.
            self._store.add(reply.request, StoredReply(header, head, value), nbytes, stored_bytes)
        self.current = None

    def store_replayed(self, reply: Reply, result: Payload | None) -> None:
        """Store the reply to a replayed request, because its client may not have received the first reply."""
        sealed = seal(result)
        self.store(reply, encode_reply(reply, sealed), result, sealed)

    def again(self, request: RequestId) -> tuple[Reply, Payload | None] | None:
        """Return the reply to a repeated request; None if it has been dropped."""
        stored = self._store.get(request)
        try:
            return None if isinstance(stored, Missing) else (stored.reply(), stored.load())
        except ObjectGone:
            return None

    def note_presence(self, client: str, *, connected: bool) -> None:
        """Keep whether a client is connected: large values of absent clients are stored for others."""
        if connected:
            self._gone.pop(client, None)
        else:
            _remember(self._gone, client, True)

    def store_upto(self, client: str, upto: int) -> StoredObject:
        """Store all replies of a client up to a number, even large ones; see ``StoreReplies``."""
        # A reconnection does not undo this: after a restart the controller reports every client as reconnected.
        _remember(self._stored_upto, client, max(upto, self._stored_upto.get(client, -1)))
        # The client loads the object that this returns, and Ray requests it on the same connection as the client's
        # calls: when the client has the object, all these calls have arrived.
        return self._objects.put(Payload(b""))

    def collect(
        self, requests: tuple[tuple[RequestId, int], ...], passed: set[RequestId]
    ) -> dict[RequestId, Collected]:
        """Return the replies to requests, or their state; see ``CollectReplies``.

        Args:
            requests: each with the number of output chunks that the caller already has.
            passed: the requests whose turn in the stream had come *before* this call.
        """
        collected: dict[RequestId, Collected] = {}
        room = COLLECTED_BYTES
        for request, position in requests:
            if room <= 0:
                break
            found, nbytes = self._find(request, position, has_passed=request in passed)
            if nbytes > INLINE_LIMIT_BYTES and not isinstance(found, Missing):
                collected[request] = self._objects.put(pack(found, ref_types=self._objects.ref_types))
            else:
                collected[request] = found
                room -= nbytes
        return collected

    def _find(
        self, request: RequestId, position: int, *, has_passed: bool
    ) -> tuple[StoredReply | OutputBatch | Missing, int]:
        # Read `current` first, because the request may end and its reply may be stored between the two reads.
        under_way = self.current == request
        idle = self.current is None
        found = self._store.get(request)
        match found:
            case StoredReply(header, head, value):
                unknown = found._replace(head=head[position:])
                beside = value.nbytes if isinstance(value, Payload) else 0
                return unknown, len(header) + beside + sum(size_bytes(chunk) for chunk in unknown.head)
            case Missing.UNKNOWN if under_way:
                batch = self._output.since(request, position) or OutputBatch(request, 0, position, ())
                return batch, sum(size_bytes(chunk) for chunk in batch.chunks)
            case Missing.UNKNOWN if not has_passed:
                return (Missing.ABSENT if idle else Missing.AHEAD), 0
            case _:
                return found, 0

    def _store_value(
        self, request: RequestId, result: Payload, sealed: Sealed
    ) -> tuple[Payload | StoredObject | Missing, int, int]:
        """Store a large value; return it with its bytes in this process's memory and in the object store."""
        nbytes = result.nbytes
        if request.client in self._gone or request.seq <= self._stored_upto.get(request.client, -1):
            # The engine must own the object: the return value of a call belongs to its caller, and is lost with it.
            return self._objects.put(result), 0, nbytes
        # The client is present and receives the value. References are not stored either: they would keep their
        # objects alive.
        if result.refs or nbytes > LARGE_BYTES:
            return Missing.DROPPED, 0, 0
        # A copy, since the engine's arrays change.
        data, *buffers = sealed.buffers
        return Payload(data, tuple(map(bytes, buffers))), nbytes, 0


def _remember(clients: dict[str, T], client: str, value: T) -> None:
    clients[client] = value
    if len(clients) > LIMIT_CLIENTS:
        del clients[next(iter(clients))]
