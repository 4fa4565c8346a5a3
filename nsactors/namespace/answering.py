"""What an engine has answered, for those who ask afterwards: its client may have gone, and others may want to know."""

from __future__ import annotations

from typing import TypeVar

from nsactors.core.answers import LARGE_BYTES, AnswerStore, KeptAnswer, Missing
from nsactors.core.messages import OutputBatch, Refused, Reply, RequestId
from nsactors.core.output import size_bytes
from nsactors.core.payload import Payload, pack
from nsactors.core.remote_value import ObjectGone, ObjectStore, StoredObject
from nsactors.core.wire import INLINE_LIMIT_BYTES, Sealed, encode, seal
from nsactors.namespace.output import Output

__all__ = ["Answers"]

T = TypeVar("T")

ANSWER_BYTES = 1_000_000  # in one answer to Collect, which goes by way of the controller
LIMIT_CLIENTS = 10_000

Collected = KeptAnswer | OutputBatch | Missing | StoredObject


class Answers:
    """Keeps an engine's answers, and tells of those that are under way.

    One thread runs requests and calls :meth:`begin` and :meth:`keep`; the others may be called from any thread.

    Args:
        objects: where large values go if they are to outlive their client.
        output: what the request that runs has written so far.
    """

    def __init__(self, objects: ObjectStore, output: Output) -> None:
        self._objects = objects
        self._output = output
        self._store = AnswerStore()
        self._current: RequestId | None = None
        self._gone: dict[str, bool] = {}  # a set in order
        self._accepted: dict[str, int] = {}

    def begin(self, request: RequestId) -> None:
        """A request runs from now on, until its answer is kept."""
        self._current = request

    def keep(self, reply: Reply, header: bytes, result: Payload | None, sealed: Sealed) -> None:
        """Keep an answer.

        Args:
            reply: the answer; it counts as encoded with all that is in the header.
            header: the encoded answer.
            result: its value.
            sealed: the value as it travels.
        """
        if type(reply.outcome) is not Refused:  # which is no answer to the request, but to its repetition
            head = self._output.delivered() if reply.tail.start else ()
            value: Payload | StoredObject | Missing | None = None
            nbytes, stored_bytes = len(header), 0
            if head:
                nbytes += sum(size_bytes(chunk) for chunk in head)
            if sealed.buffers and result is not None:
                value, copied_bytes, stored_bytes = self._keep_value(reply.request, result, sealed)
                nbytes += copied_bytes
            self._store.keep(reply.request, KeptAnswer(header, head, value), nbytes, stored_bytes)
        self._current = None

    def keep_replayed(self, reply: Reply, result: Payload | None) -> None:
        """Keep the answer to a request that was run again: its client may not have had the first one."""
        sealed = seal(result)
        self.keep(reply, encode(reply, sealed), result, sealed)

    def again(self, request: RequestId) -> tuple[Reply, Payload | None] | None:
        """The answer to a request that has been sent again; None if it is not here any more."""
        answer = self._store.get(request)
        try:
            return None if isinstance(answer, Missing) else (answer.reply(), answer.load())
        except ObjectGone:
            return None

    def note_presence(self, client: str, *, here: bool) -> None:
        """A client has gone, so that large values are to be kept for others; or it has come back."""
        if here:
            self._gone.pop(client, None)
        else:
            _remember(self._gone, client, True)

    def accept(self, client: str, upto: int) -> StoredObject:
        """Keep the answers up to this number, large ones too; see ``Accept``."""
        # Its coming back changes nothing about this: a controller that comes back finds everybody anew.
        _remember(self._accepted, client, max(upto, self._accepted.get(client, -1)))
        return self._objects.put(Payload(b""))

    def collect(
        self, requests: tuple[tuple[RequestId, int], ...], passed: set[RequestId]
    ) -> dict[RequestId, Collected]:
        """What became of requests; see ``Collect``.

        Args:
            requests: each with the number of chunks that are known of its output.
            passed: those whose turn has come, as it was *before* this call.
        """
        collected: dict[RequestId, Collected] = {}
        room = ANSWER_BYTES
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
    ) -> tuple[KeptAnswer | OutputBatch | Missing, int]:
        # In this order: it may end, and its answer be kept, between the two questions.
        under_way = self._current == request
        idle = self._current is None
        kept = self._store.get(request)
        match kept:
            case KeptAnswer(header, head, value):
                unknown = kept._replace(head=head[position:])
                beside = value.nbytes if isinstance(value, Payload) else 0
                return unknown, len(header) + beside + sum(size_bytes(chunk) for chunk in unknown.head)
            case Missing.UNKNOWN if under_way:
                batch = self._output.since(request, position) or OutputBatch(request, 0, position, ())
                return batch, sum(size_bytes(chunk) for chunk in batch.chunks)
            case Missing.UNKNOWN if not has_passed:
                return (Missing.ABSENT if idle else Missing.AHEAD), 0
            case _:
                return kept, 0

    def _keep_value(
        self, request: RequestId, result: Payload, sealed: Sealed
    ) -> tuple[Payload | StoredObject | Missing, int, int]:
        """A large value: itself, and what it takes of this process's memory and of the object store."""
        nbytes = result.nbytes
        if request.client in self._gone or request.seq <= self._accepted.get(request.client, -1):
            return self._objects.put(result), 0, nbytes
        # Its client is there and takes it. References are not kept either: they would hold what they stand for.
        if result.refs or nbytes > LARGE_BYTES:
            return Missing.DROPPED, 0, 0
        # A copy: the arrays it is made of are the engine's, and change.
        data, *buffers = sealed.buffers
        return Payload(data, tuple(bytes(buffer) for buffer in buffers)), nbytes, 0


def _remember(clients: dict[str, T], client: str, what: T) -> None:
    clients[client] = what
    if len(clients) > LIMIT_CLIENTS:
        del clients[next(iter(clients))]
