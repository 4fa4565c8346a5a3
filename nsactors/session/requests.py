"""Requests on their way out and replies on their way back.

Callers send requests. The transport's own thread, or a caller that waits, settles calls when their replies arrive. So a
waiting caller gets its reply without a switch of threads. Steps that would delay other replies are left to the
session's dispatcher.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

from nsactors.errors import ClusterUnreachable, EngineLost, TaskAborted
from nsactors.protocol.client_modules import ClientModules
from nsactors.protocol.control import EngineLeft
from nsactors.protocol.engine_info import EngineInfo
from nsactors.protocol.messages import (
    EngineRequest,
    Execute,
    Expired,
    Failed,
    Operation,
    OutputBatch,
    Refused,
    Reply,
    RequestId,
    StreamText,
    label_of,
)
from nsactors.protocol.sequencing import SendWindow
from nsactors.protocol.serialize import Payload
from nsactors.results import Call, RequestOptions
from nsactors.results.outcome import read_outcome
from nsactors.transport.base import EngineGone, Envelope, Lane, Transport


@dataclass(slots=True, eq=False)
class EngineConnection:
    """The requests of a client to one engine, through all its incarnations.

    Attributes:
        engine: the incarnation that takes requests, or was the last one that took them.
        window: the requests that are in flight to that incarnation.
        stops_seen: the number of stops on that incarnation that this client knows. A stop is a failure that aborts the
            requests after it.
        away: the engine has died, and its next incarnation has not joined yet.
        replays: the next incarnation restores the namespace, so requests without a reply are sent again.
        unanswered: the requests that have been submitted and have no reply, in order.
        direct: the number of requests in ``unanswered`` that do not carry tasks.
        direct_so_far: the number of all requests without tasks that have been submitted so far.
        heard_at: the time of the last reply, on the clock of ``Call.received``.
        turns: functions to call when every request without tasks up to a number has a reply.
        first_lost: the incarnation that was lost last, and the first of the requests that it left without a reply.
        modules: the last description of this client's modules that the engine certainly has, because it has replied to
            a request with that description.
    """

    engine: EngineInfo
    window: SendWindow[PendingRequest]
    stops_seen: int = 0
    away: bool = False
    replays: bool = False
    unanswered: dict[RequestId, PendingRequest] = field(default_factory=dict)
    direct: int = 0
    direct_so_far: int = 0
    heard_at: float = 0.0
    turns: list[tuple[int, Callable[[], object]]] = field(default_factory=list)
    first_lost: tuple[int, RequestId | None] = (-1, None)
    modules: ClientModules | None = None

    def take_turns(self) -> list[Callable[[], object]]:
        """Remove and return the functions of ``turns`` whose requests all have replies."""
        first = self.first_direct()
        passed = [turn for turn in self.turns if first is None or turn[0] < first.call.request_id.seq]
        self.turns = [turn for turn in self.turns if turn not in passed]
        return [call for _, call in passed]

    def first_direct(self) -> PendingRequest | None:
        """Return the first request that carries no tasks and has not ended."""
        if not self.direct:
            return None
        return next((i for i in self.unanswered.values() if not (i.options.carries_tasks or i.call.done)), None)


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request to one engine that has no reply yet.

    Attributes:
        call: the request as its caller sees it.
        connection: the connection to its engine.
        stops_seen: the number of stops on its engine that the client knew of; see :class:`EngineConnection`.
        prepared: its encoded body, ready to be sent.
        options: its options. A request with ``carries_tasks`` dies with the incarnation that it is sent to, as its
            tasks then go elsewhere.
        lane: the lane that it takes; None if it is sent by ``Transport.send``.
        modules: the description of this client's modules that is sent with it.
        engine: the incarnation that it is sent to; None as long as there is none.
        handle: the transport's handle on the reply, once it has been sent.
        is_claimed: a caller waits for the reply and will take it.
        has_listener: the transport will deliver the reply.
        loss: the reason why its incarnation is gone, as long as the request waits for the next incarnation.
        repeated: it was already sent to an incarnation that is gone.
        losses: the number of incarnations that died while this was their first request without a reply.
    """

    call: Call
    connection: EngineConnection
    stops_seen: int
    prepared: Any
    options: RequestOptions
    lane: Lane | None
    modules: ClientModules | None
    engine: EngineInfo | None = None
    handle: Any = None
    is_claimed: bool = False
    has_listener: bool = False
    loss: EngineGone | None = None
    repeated: bool = False
    losses: int = 0

    def unsend(self, *, in_front: bool) -> None:
        """Mark the request as not sent: its incarnation has died, perhaps with this request ``in_front``."""
        if self.engine is not None:
            self.repeated = True
            self.losses += in_front
        self.handle, self.is_claimed, self.has_listener, self.loss = None, False, False, None


def loss_of(call: Call, gone: EngineGone, prospect: str, *, began: bool | None, running: str) -> EngineLost:
    """Return the error of a call whose engine is gone.

    Args:
        call: the call.
        gone: the end of the engine.
        prospect: the future of the engine, in words.
        began: whether the call had begun; None if that is not known.
        running: the label of the request that the engine ran instead; empty if that is not known.
    """
    tail = "" if began is False else gone.stderr_tail
    return EngineLost(call.engine_id, call.label, gone.reason, tail, prospect, began=began, running=running)


def prospect_of(*, returns: bool, replays: bool, wanted: bool = False) -> str:
    """Return in words whether an engine that is gone restarts.

    Args:
        returns: another process takes its place, as far as the client knows.
        replays: that process restores the namespace.
        wanted: the end of the engine was requested, and the cluster has not reported yet whether the engine restarts.
    """
    if not returns:
        return "It does not restart, and its namespace is lost; the other engines continue"
    if replays:
        return "It restarts and recovers its namespace"
    if wanted:
        return "If it was asked to restart, it does so with an empty namespace: rc.ids lists the engines"
    return "It restarts with an empty namespace (Cluster(recovery='replay') would restore it)"


def not_repeated(call: Call) -> EngineLost:
    """Return the error of a call that was sent again, but that the engine had begun before it died."""
    return EngineLost(
        call.engine_id,
        call.label,
        "it had begun this, which is not repeated",
        after="The engine has recovered its namespace, without the effects of this call; send it again if needed",
    )


OUTPUT_GRACE_S = 10.0  # a killed controller takes two seconds to restart, or more on a busy machine
RECENT = 1_000


class AwaitingOutput:
    """Calls whose replies arrived before their routed output. They wait for the output, but not for ever."""

    def __init__(self) -> None:
        self._calls: dict[RequestId, tuple[Call, float]] = {}

    def add(self, call: Call) -> None:
        """Let a call wait for the rest of its output."""
        self._calls[call.request_id] = (call, time.monotonic() + OUTPUT_GRACE_S)

    def remove(self, call: Call) -> bool:
        """End the waiting of a call; return whether it waited."""
        return self._calls.pop(call.request_id, None) is not None

    @property
    def seconds_left(self) -> float | None:
        """The time until the next call has waited long enough; None if no call waits."""
        if not self._calls:
            return None
        calls = list(self._calls.values())  # in one step, since replies may add calls at any time
        return max(0.0, min(deadline for _, deadline in calls) - time.monotonic())

    def take_overdue(self) -> list[Call]:
        """Remove and return the calls that have waited long enough."""
        now = time.monotonic()
        overdue = [call for call, deadline in self._calls.values() if deadline <= now]
        for call in overdue:
            del self._calls[call.request_id]
        return overdue


class RecentlyCompleted:
    """The calls that ended recently, as long as a result refers to them, because late output still belongs to them."""

    def __init__(self) -> None:
        self._calls: dict[RequestId, weakref.ref[Call]] = {}

    def add(self, call: Call) -> None:
        """Remember a call that has ended."""
        self._calls[call.request_id] = weakref.ref(call)
        if len(self._calls) > RECENT:
            del self._calls[next(iter(self._calls))]

    def get(self, request: RequestId) -> Call | None:
        """Return the call with this id, if it ended not long ago and is still referred to."""
        known = self._calls.get(request)
        return None if known is None else known()


WINDOW = 1_000  # requests in flight to one engine; the reference to each costs 15 to 18 kB, which Ray never frees
LOSSES = 2  # after this many deaths of an engine with the same request in front, the request is sent one last time
LARGE_BYTES = 250_000  # a pickle that takes half a millisecond to unpickle, or more
FEW = 4  # requests that may take a lane with their data, since they keep the data in the memory of client and engine
TAKE_S = 0.05  # a caller itself takes replies that arrive within this time, and is woken for later ones


class OtherWork(NamedTuple):
    """The requests without tasks that an engine has from a client.

    Attributes:
        label: the label of the first of these requests.
        is_first: this first request comes before all tasks.
    """

    label: str
    is_first: bool


class RequestSender:
    """Numbers requests, keeps a window of them in flight to each engine, and settles each exactly once.

    Args:
        transport: sends requests to the engines.
        client: the name of the client in the requests.
        failed: called with each call that fails.
        later: runs a function soon, on another thread.
        lost: called when the transport reports that an engine is gone.
        abandoned: called soon, on the thread of ``later``, with calls that their caller does not get because Ctrl-C has
            interrupted the sending.
        modules: returns the description of this client's modules for engines; None if there is none.
        debugs: returns whether a user of this client can open a debugger.
    """

    def __init__(
        self,
        transport: Transport,
        client: str,
        *,
        failed: Callable[[Call], object],
        later: Callable[[Callable[[], object]], object],
        lost: Callable[[EngineInfo, EngineGone], object],
        abandoned: Callable[[Sequence[Call]], object],
        modules: Callable[[], ClientModules | None] = lambda: None,
        debugs: Callable[[], bool] = lambda: False,
    ) -> None:
        self._transport = transport
        self._client = client
        self._failed = failed
        self._later = later
        self._lost = lost
        self._abandoned = abandoned
        self._modules = modules
        self._debugs = debugs
        self._requests_sent = 0
        self._lock = threading.RLock()
        self._connections: dict[int, EngineConnection] = {}
        self._open: dict[RequestId, PendingRequest] = {}
        self._recent = RecentlyCompleted()
        self._overtaken = AwaitingOutput()
        self.busy: set[int] = set()  # engines with requests that do not carry tasks; read without the lock

    def submit(
        self,
        engine_ids: Sequence[int],
        operation: Operation,
        payload: Payload | None,
        options: RequestOptions,
        *,
        awaited: bool,
        relayed: bool,
    ) -> list[Call]:
        """Send one operation to several engines; the operation is encoded and stored once.

        The arguments are those of ``Session.submit``. If the transport has no relays, ``relayed`` has no effect.
        """
        modules = self._modules()
        told = modules if modules is not None and self._is_news(modules, engine_ids) else None
        # Encode the request without a number; the copy for each engine gets its number when it is sent.
        unnumbered = RequestId(self._client, 0)
        request_of_all = EngineRequest(
            unnumbered,
            operation,
            options.limit_s,
            options.stops_on_error,
            options.journalled,
            told,
            self._debugs(),
            options.breaks,
        )
        transport = self._transport
        relayed = relayed and transport.relays is not None
        quick = () if relayed or payload is None else self._quick_engines(engine_ids)
        prepared = transport.prepare(request_of_all, payload, quick)
        label, executes = label_of(operation), isinstance(operation, Execute)
        calls: list[Call] = []
        unsendable: list[Call] = []
        to_send: list[PendingRequest] = []
        try:
            # Requests are numbered and sent under one lock. Otherwise a newer request might arrive first, and the
            # engine would treat this one as a repeated request and refuse it.
            with self._lock:
                if told is None and modules is not None and self._is_news(modules, engine_ids):
                    told = modules  # an engine has been replaced in the meantime
                    prepared = transport.prepare(request_of_all._replace(modules=told), payload, quick)
                for engine_id in engine_ids:
                    request_id = RequestId(self._client, self._requests_sent)
                    self._requests_sent += 1
                    call = Call(request_id, engine_id, label, executes, options.copies)
                    call.items, call.output_goes = options.items, options.output_goes
                    calls.append(call)
                    connection = self._connections.get(engine_id)
                    if connection is None or (connection.away and options.carries_tasks):
                        unsendable.append(call)
                        continue
                    lane = transport.relays if relayed else transport.lane(connection.engine, prepared)
                    request = PendingRequest(call, connection, connection.stops_seen, prepared, options, lane, told)
                    self._open[request_id] = request
                    connection.unanswered[request_id] = request
                    if not options.carries_tasks:
                        connection.direct += 1
                        connection.direct_so_far += 1
                        self.busy.add(engine_id)
                    if not connection.away:
                        request.engine = connection.engine
                        if connection.window.offer(request, lane) is not None:
                            to_send.append(request)
                self._send(to_send)
                if not awaited or relayed:
                    self._listen(to_send)
        except BaseException:  # for example Ctrl-C in the middle of a call to Ray
            self._later(partial(self._abandoned, calls))
            raise
        for call in unsendable:  # their engines left between the look-up of targets and now
            self.end(call, None, EngineLost(call.engine_id, label, "it left before this was sent", began=False))
        return calls

    def take(self, calls: Sequence[Call]) -> bool:
        """Wait a moment for the replies to calls that were submitted as ``awaited``; return whether all have arrived.

        The transport delivers the missing replies from now on, even if the wait was interrupted.
        """
        taken: list[PendingRequest] = []
        handles: list[Any] = []
        replies = None
        try:
            with self._lock:  # so that no other thread begins to listen for these replies
                for call in calls:
                    request = self._open.get(call.request_id)
                    if request is None or request.handle is None or request.is_claimed or request.has_listener:
                        continue
                    taken.append(request)  # before the claim, so that Ctrl-C between the two does not lose the request
                    request.is_claimed = True
                    handles.append(request.handle)
            if len(taken) == len(calls):
                replies = self._transport.take(handles, TAKE_S)
            for request, reply in zip(taken, replies or (), strict=False):
                self._deliver(request, request.connection.window, reply)
        except BaseException:  # if Ctrl-C came after a reply and before its call's end, another thread ends the call
            for request, reply in zip(taken, replies or (), strict=False):
                if request.handle is None and not request.call.done:
                    self._later(partial(self._deliver, request, request.connection.window, reply))
            raise
        finally:  # if Ctrl-C has interrupted the unpickling of a reply, the reply is delivered again
            missing = [request for request in taken if replies is None or not request.call.done] if taken else []
            if missing:
                for request in missing:
                    request.is_claimed = False
                self._listen(missing)
        return replies is not None and not missing

    def make_safe(self) -> None:
        """Let the requests that have been sent reach their engines even if this process ends."""
        self._transport.make_safe()

    def listen_to_strays(self, sent_before: float) -> None:
        """Listen for the replies that no caller takes, because the caller that claimed them was interrupted.

        Claims do not count here, because Ctrl-C may have prevented a caller from giving up its claim. A reply that is
        taken twice ends its call only once.
        """
        self._listen([request for request in self.open_requests() if request.call.submitted < sent_before])

    def give_up(self, calls: Iterable[Call]) -> None:
        """End calls that have no handle, because their sending was interrupted; listen for the replies to other calls.

        A request without a handle may still have been sent, so first make the engines abort ``calls``.
        """
        requests = [request for call in calls if (request := self._open.get(call.request_id)) and not call.done]
        self._listen(requests)
        for request in requests:
            if request.handle is None:
                self._make_room(request.connection.window)
                self.end(request.call, None, TaskAborted(request.call.engine_id, request.call.label))

    def withdraw(self, calls: Iterable[Call]) -> list[Call]:
        """Withdraw those of ``calls`` that have not been sent yet; return them."""
        ids = {call.request_id for call in calls}
        with self._lock:
            withdrawn = [
                request.call
                for connection in self._connections.values()
                for request in connection.window.withdraw(lambda request: request.call.request_id in ids)
            ]
            held = [i for request_id in ids if (i := self._open.get(request_id)) and i.engine is None]
            for request in held:  # otherwise a request might be sent before its call is ended
                self._close(request.call.request_id)
            return withdrawn + [request.call for request in held]

    def open_calls(self, *, carriers: bool = False) -> list[Call]:
        """Return the calls without a reply, in order of submission; calls that carry tasks only with ``carriers``."""
        with self._lock:
            return [
                i.call for i in self._open.values() if not i.call.done and (carriers or not i.options.carries_tasks)
            ]

    def open_requests(self) -> list[PendingRequest]:
        """Return the requests without a reply, sent or not, in order of submission."""
        with self._lock:
            return [request for request in self._open.values() if not request.call.done]

    def other_work(self, engine_id: int) -> OtherWork | None:
        """Return the requests without tasks that an engine has from this client; None if there are none."""
        with self._lock:
            connection = self._connections.get(engine_id)
            first = None if connection is None else connection.first_direct()
            if connection is None or first is None:
                return None
            return OtherWork(first.call.label, next(iter(connection.unanswered.values())) is first)

    def when_passed(self, engine_id: int, call: Callable[[], object]) -> None:
        """Call a function soon after an engine has replied to all requests without tasks that it has now."""
        with self._lock:
            connection = self._connections.get(engine_id)
            if connection is not None and connection.direct:
                last = next(i for i in reversed(connection.unanswered.values()) if not i.options.carries_tasks)
                connection.turns.append((last.call.request_id.seq, call))
                return
        self._later(call)

    def other_requests(self, engine_id: int) -> int:
        """Return the number of all requests without tasks that have been sent to an engine so far."""
        connection = self._connections.get(engine_id)
        return 0 if connection is None else connection.direct_so_far

    def silent(self, since: float) -> list[Call]:
        """Return the first open call of each engine that has not replied since a time, if the call is older."""
        with self._lock:
            firsts = [
                next(iter(connection.unanswered.values()))
                for connection in self._connections.values()
                if connection.unanswered and connection.heard_at < since and not connection.away
            ]
            return [i.call for i in firsts if i.handle is not None and i.call.submitted < since]

    def add_engine(self, engine: EngineInfo) -> None:
        """Send requests to an engine from now on, beginning with the requests that were held for it."""
        with self._lock:
            connection = self._connections.setdefault(engine.engine_id, EngineConnection(engine, SendWindow(WINDOW)))
            if connection.engine == engine:
                return
            held = [i for i in self._requests_of(connection) if connection.replays or i.engine is None]
            connection.engine, connection.window = engine, SendWindow(WINDOW)
            connection.stops_seen, connection.away, connection.modules = 0, False, None
            for place, request in enumerate(held):
                request.unsend(in_front=place == 0)
            if held and held[0].losses > LOSSES:
                self._later(partial(self.end, held[0].call, None, not_repeated(held.pop(0).call)))
            relays = self._transport.relays
            for request in held:
                request.engine = engine
                if relays is None or request.lane is not relays:
                    request.lane = self._transport.lane(engine, request.prepared)
                if connection.window.offer(request, request.lane) is not None:
                    self._send([request])
                    self._listen([request])

    def engine_left(self, left: EngineLeft) -> list[Call]:
        """Send nothing more to an engine, for good or for a while; return the calls that will have no reply.

        Requests that were sent and are not repeated fail later, when the transport reports the loss.
        """
        with self._lock:
            connection = self._connections.get(left.engine_id)
            if connection is None or connection.engine.incarnation != left.incarnation:
                return []
            connection.away, connection.replays = left.returns, left.replays
            requests = self._requests_of(connection)
            ended = [request for request in requests if request.options.carries_tasks]
            if not (left.returns and left.replays):
                ended += connection.window.drain()
                for request in requests:  # requests with a loss have been waiting for an incarnation that replays
                    if request.loss is not None and request.engine is not None:
                        self._later(partial(self._take_loss, request, request.engine, request.loss))
            if not left.returns:
                del self._connections[left.engine_id]
                ended += [request for request in requests if request.engine is None]
            return [request.call for request in dict.fromkeys(ended)]

    def take_output(self, batch: OutputBatch) -> None:
        """Take output that the controller has routed; it may arrive before or after the reply to its call."""
        call = self.find(batch.request)
        if call is None:
            return
        with self._lock:
            call.output.add(batch)
            overtaken = call.output.complete and self._overtaken.remove(call)
        call.output_arrived()
        if overtaken:
            self.end(call, call.value, call.error)

    @property
    def seconds_to_overdue(self) -> float | None:
        """The time until :meth:`settle_overdue` has something to do; None if no output is awaited."""
        return self._overtaken.seconds_left

    def settle_overdue(self) -> None:
        """End the calls whose output has not arrived in time after their reply."""
        with self._lock:
            overdue = self._overtaken.take_overdue()
        for call in overdue:
            call.output.chunks.append(StreamText("stderr", "[nsactors: output was lost on its way]\n"))
            call.output_arrived()
            self.end(call, call.value, call.error)

    @property
    def requests_sent(self) -> int:
        """The number of requests that have been sent so far."""
        return self._requests_sent

    def is_open(self, request_id: RequestId) -> bool:
        """Return whether a request has been sent, or waits to be sent, and has no reply yet."""
        return request_id in self._open

    def find(self, request_id: RequestId) -> Call | None:
        """Return the call with this id, if it is open or ended not long ago and a result still refers to it."""
        request = self._open.get(request_id)
        return self._recent.get(request_id) if request is None else request.call

    def _is_news(self, modules: ClientModules, engine_ids: Sequence[int]) -> bool:
        """Return whether one of these engines may not know this description of the client's modules.

        Requests carry the description until the engine has replied to one of them, because other requests may overtake
        one that takes a relay.
        """
        for engine_id in engine_ids:
            connection = self._connections.get(engine_id)
            if connection is not None and connection.modules is not modules:
                return True
        return False

    def _quick_engines(self, engine_ids: Sequence[int]) -> Sequence[EngineInfo]:
        """Return the engines, if a request takes a lane to each of them at once, and few requests are before it there.

        Otherwise return none. A request that has to wait for another lane is better sent on the one that is in use.
        """
        quick = []
        for engine_id in engine_ids:
            connection = self._connections.get(engine_id)
            if connection is None or len(connection.unanswered) >= FEW:
                return ()
            if connection.unanswered and connection.window.lane is None:
                return ()
            quick.append(connection.engine)
        return quick

    def _requests_of(self, connection: EngineConnection) -> list[PendingRequest]:
        """Return the requests without a reply that were submitted to one engine, in order."""
        return [i for i in self._open.values() if i.connection is connection and not i.call.done]

    def _send(self, requests: Sequence[PendingRequest]) -> None:
        """Send requests that have the same body; requests that have been sent have a handle.

        After an error, the calls fail. This raises nothing, because the callers may have continued long ago.
        """
        transport = self._transport
        try:
            for lane, group in itertools.groupby(requests, key=attrgetter("lane")):
                if lane is None:
                    for request in group:
                        request.handle = transport.send(_envelope(request), request.prepared)
                    continue
                together = list(group)
                handles = lane.send([_envelope(i) for i in together], together[0].prepared)
                for request, handle in zip(together, handles, strict=True):
                    request.handle = handle
        except Exception as error:
            failure = ClusterUnreachable("the engine", f"{type(error).__name__}: {error}")
            for request in requests:
                if request.handle is None:
                    self._make_room(request.connection.window)
                    self.end(request.call, None, failure)

    def _listen(self, requests: Iterable[PendingRequest]) -> None:
        for request in requests:
            try:
                with self._lock:
                    handle = None if request.has_listener else request.handle
                    request.has_listener = request.has_listener or handle is not None
                if handle is not None:
                    deliver = partial(self._deliver, request, request.connection.window, lingers=False)
                    self._transport.when_answered(handle, deliver)
            except BaseException:  # after Ctrl-C, another thread listens; a second delivery has no effect
                request.has_listener = False
                raise

    def _send_waiting(self, window: SendWindow[PendingRequest]) -> None:
        with self._lock:
            while request := window.next():
                self._send([request])
                self._listen([request])

    def _deliver(
        self, request: PendingRequest, window: SendWindow[PendingRequest], content: Any, *, lingers: bool = True
    ) -> None:
        """Take the reply to a request that was sent through ``window``; if ``lingers`` is true, this may take long."""
        engine = request.engine
        assert engine is not None, "a request with a reply has been sent"
        try:
            reply, payload = self._transport.open(engine, content)
        except EngineGone as gone:
            # If neither holds, the request has been sent again, to the next incarnation.
            if window is request.connection.window or engine is not request.connection.engine:
                self._later(partial(self._take_loss, request, engine, gone))
        except Exception as error:  # if a reply cannot be read, its call must fail, and this thread must go on
            with self._lock:
                if request.handle is not None:
                    request.handle = None
                    self._make_room(window)
            self.end(request.call, None, error)
        else:
            if lingers or payload is None or len(payload.data) < LARGE_BYTES:
                self._take_reply(request, engine, window, reply, payload)
            else:
                self._later(partial(self._take_reply, request, engine, window, reply, payload))

    def _make_room(self, window: SendWindow[PendingRequest]) -> None:
        # Use the window through which the request was sent. If the engine has restarted, it has another window by now.
        with self._lock:
            if window.settle():
                self._later(partial(self._send_waiting, window))

    def _take_reply(
        self,
        request: PendingRequest,
        engine: EngineInfo,
        window: SendWindow[PendingRequest],
        reply: Reply,
        payload: Payload | None,
    ) -> None:
        call, connection = request.call, request.connection
        call.started, call.completed, call.execution_count = reply.started, reply.completed, reply.execution_count
        connection.heard_at = time.time()
        value, error = read_outcome(call, reply.outcome, payload)
        if request.repeated and isinstance(reply.outcome, Refused):
            error = not_repeated(call)
        with self._lock:
            if request.handle is not None:  # it is None if these steps were taken before Ctrl-C interrupted this method
                request.handle = None
                self._make_room(window)
                is_current = engine is connection.engine
                if request.modules is not None and is_current:
                    connection.modules = request.modules
                if request.options.stops_on_error and isinstance(reply.outcome, Failed | Expired):
                    connection.stops_seen += is_current
            call.output.finish(reply.tail)
            complete = call.output.complete
            if not complete:
                call.value, call.error = value, error
                self._overtaken.add(call)
                self._later(_look_at_the_clock)
        call.output_arrived()
        if complete:
            self.end(call, value, error)

    def _take_loss(self, request: PendingRequest, engine: EngineInfo, gone: EngineGone) -> None:
        connection, call = request.connection, request.call
        if not connection.away:  # otherwise the loss is already known, and perhaps whether the namespace is restored
            self._lost(engine, gone)
        with self._lock:
            if connection.replays and (connection.away or connection.engine != engine):
                request.loss = gone
                return
            returns, replays = self._connections.get(engine.engine_id) is connection, connection.replays
            began, running = self._place_of(request, engine, gone)
        prospect = prospect_of(returns=returns, replays=replays, wanted=gone.wanted)
        self.end(call, None, loss_of(call, gone, prospect, began=began, running=running))

    def _place_of(self, request: PendingRequest, engine: EngineInfo, gone: EngineGone) -> tuple[bool | None, str]:
        """Return whether a request had begun on a lost engine (None: not known), and the label of what ran instead."""
        connection, request_id = request.connection, request.call.request_id
        if gone.last_begun is None:
            # The engine's files are on another machine. An engine runs a client's requests in order, so all requests
            # but the first were waiting.
            incarnation, first = connection.first_lost
            if incarnation != engine.incarnation:
                first = next(iter(connection.unanswered.values()), request).call.request_id
                connection.first_lost = engine.incarnation, first
            return (None if first == request_id else False), ""
        if gone.last_begun == str(request_id):
            return True, ""
        client, _, number = gone.last_begun.rpartition(":")
        if client != self._client:
            return False, f"a call by {client}" if client else ""
        running = self.find(RequestId(client, int(number)))
        if running is None or (running.done and not isinstance(running.error, EngineLost)):
            return False, ""  # the engine was idle, and this request had not arrived
        return False, running.label

    def end(self, call: Call, value: Any, error: Exception | None) -> None:
        """End a call, with its reply or because no reply will arrive or be waited for."""
        call.settle(value, error, self._failed)
        # Late output still belongs to the call as long as a result refers to it, so keep a reference. Do this only now,
        # after the waiting callers have been woken.
        with self._lock:
            if self._close(call.request_id):
                self._recent.add(call)

    def _close(self, request_id: RequestId) -> bool:
        """Remove a request from those that are open; return whether it was open."""
        request = self._open.pop(request_id, None)
        if request is None:
            return False
        connection = request.connection
        if connection.unanswered.pop(request_id, None) is not None and not request.options.carries_tasks:
            connection.direct -= 1
            for call in connection.take_turns() if connection.turns else ():
                self._later(call)
        if not connection.direct:
            self.busy.discard(connection.engine.engine_id)
        return True


def _envelope(request: PendingRequest) -> Envelope:
    assert request.engine is not None, "a request is offered before it is sent"
    return Envelope(request.engine, request.call.request_id.seq, request.stops_seen)


def _look_at_the_clock() -> None:
    """Do nothing: running this wakes the dispatcher, which then finds its new deadline."""
