"""A client's conversation with a cluster: it numbers requests, matches replies, and hears what happens.

Several threads meet here. Callers submit. The transport's own thread settles calls as their replies come in: the way to
somebody who waits has one thread less. A reader waits for the controller's events; a dispatcher acts on them, and on
all that may take longer than a reply should.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from nsactors.client.callbacks import Callbacks
from nsactors.client.draining import wait_for_calls
from nsactors.client.ledger import Ledger
from nsactors.client.outcomes import read_outcome
from nsactors.client.overtaken import Overtaken
from nsactors.client.roster import Roster
from nsactors.core.cluster import (
    Abort,
    ClusterState,
    EngineFailedToStart,
    EngineInfo,
    EngineJoined,
    EngineLeft,
    EngineStarting,
    Event,
    Interrupt,
    OutputEvent,
)
from nsactors.core.messages import (
    Capability,
    Execute,
    Expired,
    Failed,
    Operation,
    OutputBatch,
    Reply,
    Request,
    RequestId,
    StreamText,
)
from nsactors.core.payload import Payload
from nsactors.core.stream import Outbox
from nsactors.errors import (
    ClientClosed,
    ClusterStopped,
    ClusterUnreachable,
    ConnectionLost,
    EngineLost,
    EngineStartError,
    TaskAborted,
)
from nsactors.results import Call, Terms
from nsactors.transport.base import EngineGone, Transport, require

__all__ = ["Session"]

WINDOW = 1_000  # calls in flight to one engine: each held reference costs Ray 15 to 18 kB that it never gives back
ABORT_WAIT_S = 0.5  # an engine that does not answer for so long is held by C code, and so is its queue
PUSH_GRACE_S = 1.0
RETRY_S = 0.5
_USUAL_TERMS = Terms()


@dataclass(frozen=True, slots=True)
class _Letter:
    """A request on its way to an engine."""

    call: Call
    engine: EngineInfo
    request: Request
    prepared: Any
    outbox: Outbox[_Letter]


@dataclass(frozen=True, slots=True)
class _Room:
    """An engine has answered while others waited to be sent: the transport's own thread is not to do that."""

    engine_id: int


@dataclass(frozen=True, slots=True)
class _Loss:
    """A letter whose engine is gone."""

    letter: _Letter
    gone: EngineGone


class Session:
    """The engines of a cluster as one client knows them, and its requests to them.

    Args:
        transport: the way to the cluster.
        name: unique for this client; people see it in the history.
    """

    def __init__(self, transport: Transport, name: str) -> None:
        self.transport = transport
        self.name = name
        self.ledger = Ledger()
        self._callbacks = Callbacks()
        self.roster = Roster(self._callbacks.call)
        self.closed = False
        self._cut_off = False
        self._leaving = threading.Event()
        self._process = os.getpid()
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._outboxes: dict[int, Outbox[_Letter]] = {}
        self._open: dict[RequestId, Call] = {}
        self._stops_seen: Counter[EngineInfo] = Counter()
        self._known: weakref.WeakValueDictionary[RequestId, Call] = weakref.WeakValueDictionary()
        self._overtaken = Overtaken()
        self._inbox: SimpleQueue[_Room | _Loss | ClusterState | list[Event] | None] = SimpleQueue()
        self._take_state(transport.controller.attach(name))
        self._threads = [
            threading.Thread(target=loop, name=f"nsactors-{loop.__name__}", daemon=True)
            for loop in (self._read_events, self._dispatch)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        engine_ids: Sequence[int],
        operation: Operation,
        payload: Payload | None = None,
        terms: Terms = _USUAL_TERMS,
    ) -> list[Call]:
        """Send one operation to several engines; its payload is serialised and stored once.

        Args:
            engine_ids: the engines.
            operation: what each of them is to do.
            payload: what goes with it.
            terms: how long it may take, and the like.

        Raises:
            ClientClosed: if this session has been closed.
            CapabilityError: if there is a limit and engines cannot be interrupted.
        """
        self.check()
        if terms.limit_s is not None:
            require(self.transport, Capability.SIGNALS, "interrupt a call at its time limit")
        prepared = self.transport.prepare(payload)
        with self._lock:
            return [self._submit(i, operation, prepared, terms) for i in engine_ids]

    def check(self) -> None:
        """See that this conversation can go on; ClientClosed or ClusterStopped if it cannot."""
        if self.closed:
            raise ClientClosed
        if self._cut_off or self.transport.stopped.is_set():
            raise ClusterStopped

    def _submit(self, engine_id: int, operation: Operation, prepared: Any, terms: Terms) -> Call:
        engine = self.roster.get(engine_id)
        stops_seen = 0 if engine is None else self._stops_seen.get(engine, 0)
        number = RequestId(self.name, next(self._numbers))
        request = Request(number, operation, terms.limit_s, terms.stops_on_error, stops_seen)
        call = Call(request.id, engine_id, request.label, isinstance(operation, Execute), terms.copies)
        if engine is None:  # it left between the look-up of targets and now
            self._settle(call, None, EngineLost(engine_id, request.label, "it left before the request was sent"))
            return call
        self._open[request.id] = call
        outbox = self._outboxes[engine_id]
        letter = outbox.offer(_Letter(call, engine, request, prepared, outbox))
        if letter is not None:
            self._send(letter)
        return call

    def _send_waiting(self, engine_id: int) -> None:
        # Chosen and sent under one lock, or a newer request would go first and this one be refused as a repeated one.
        with self._lock:
            outbox = self._outboxes.get(engine_id)
            while outbox is not None and (letter := outbox.next()):
                self._send(letter)

    def _send(self, letter: _Letter) -> None:
        try:
            self.transport.submit(letter.engine, letter.request, letter.prepared, partial(self._deliver, letter))
        except Exception as error:
            # It may be its turn long after the caller has gone on: the call itself must say what became of it.
            self._settle(letter.call, None, ClusterUnreachable("the engine", f"{type(error).__name__}: {error}"))

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        """Take back what has not started; with ``interrupt``, stop what has."""
        calls = [call for call in calls if not call.done]
        with self._lock:
            unsent = self._withdraw({call.request_id for call in calls})
        for letter in unsent:
            self._settle(letter.call, None, TaskAborted(letter.call.engine_id, letter.call.label))
        sent = [call for call in calls if not call.done]
        if sent:
            requests = frozenset(call.request_id for call in sent)
            self.transport.controller.ask({call.engine_id for call in sent}, Abort(requests), ABORT_WAIT_S)
            if interrupt:
                self.interrupt(sent)

    def interrupt(self, calls: Iterable[Call]) -> bool:
        """Raise KeyboardInterrupt in the user code of those that run; False if this transport cannot."""
        if Capability.SIGNALS not in self.transport.capabilities:
            return False
        calls = list(calls)
        requests = frozenset(call.request_id for call in calls)
        self.transport.controller.command({call.engine_id for call in calls}, Interrupt(requests))
        return True

    def restart(self, engine_ids: Iterable[int]) -> None:
        """End engines, whatever they are doing, and start new processes under their ids."""
        self.transport.controller.restart_engines(engine_ids)

    def call_back(self, function: Callable[[], object]) -> None:
        """Call a function of the user's soon, on a thread where it may wait."""
        self._callbacks.call(function)

    def asked(self, calls: Iterable[Call]) -> None:
        """Somebody has seen how these calls ended."""
        self.ledger.seen(calls)

    def open_calls(self, engine_ids: Iterable[int] | None = None) -> list[Call]:
        """Calls that have not been answered, in order of submission."""
        with self._lock:
            calls = [c for c in self._open.values() if not c.done]
        return [c for c in calls if engine_ids is None or c.engine_id in engine_ids]

    def _withdraw(self, requests: set[RequestId]) -> list[_Letter]:
        outboxes = self._outboxes.values()
        return [letter for box in outboxes for letter in box.take_back(lambda item: item.request.id in requests)]

    def _read_events(self) -> None:
        while not self.closed:
            try:
                events = self.transport.controller.events(self.name)
                if events is None and not self.closed:
                    self._inbox.put(self.transport.controller.attach(self.name))
                elif events:
                    self._inbox.put(events)
            except ClusterUnreachable:
                self._leaving.wait(RETRY_S)  # silent, not gone: a busy machine, or one that slept
            except ConnectionLost:
                self._cut_off = True
                self.roster.close()
                return  # calls that are open hear of their engine's end from the transport

    def _dispatch(self) -> None:
        while True:
            try:
                item = self._inbox.get(timeout=self._overtaken.seconds_left)
            except Empty:
                with self._lock:
                    overdue = self._overtaken.take_overdue()
                for call in overdue:
                    call.output.chunks.append(StreamText("stderr", "[nsactors: output was lost on its way]\n"))
                    self._settle(call, call.value, call.error)
                continue
            match item:
                case None:
                    return
                case _Room(engine_id):
                    self._send_waiting(engine_id)
                case _Loss(letter, gone):
                    self._remove_engine(letter.engine.engine_id, letter.engine.incarnation, gone.reason)
                    call = letter.call
                    self._settle(call, None, EngineLost(call.engine_id, call.label, gone.reason, gone.stderr_tail))
                case ClusterState():
                    self._take_state(item)
                case list():
                    for event in item:
                        self._take_event(event)

    def _deliver(self, letter: _Letter, content: Any) -> None:
        """Take what came back for a letter, on a thread of the transport: one thread less on the way to who waits."""
        with self._lock:
            # The letter's own outbox: by now the id may belong to a restarted engine with a window of its own.
            if letter.outbox.settle():
                self._inbox.put(_Room(letter.engine.engine_id))
        try:
            reply, payload = self.transport.open(letter.engine, content)
            if letter.request.stops_on_error and isinstance(reply.outcome, Failed | Expired):
                self._stops_seen[letter.engine] += 1
            self._take_reply(letter.call, reply, payload)
        except EngineGone as gone:
            self._inbox.put(_Loss(letter, gone))
        except Exception as error:  # a reply that cannot be read is an error of that call, not of this thread
            self._settle(letter.call, None, error)

    def _take_reply(self, call: Call, reply: Reply, payload: Payload | None) -> None:
        call.started, call.completed, call.execution_count = reply.started, reply.completed, reply.execution_count
        call.value, call.error = read_outcome(call, reply.outcome, payload)
        with self._lock:
            call.output.finish(reply.tail)
            complete = call.output.complete
            if not complete:
                self._overtaken.add(call)
                self._inbox.put([])  # the dispatcher has a deadline to look after now
        call.output_arrived()
        if complete:
            self._settle(call, call.value, call.error)

    def _take_event(self, event: Event) -> None:
        match event:
            case OutputEvent(batch):
                self._take_output(batch)
            case EngineStarting(engine_id):
                self.roster.expect([engine_id])
            case EngineJoined(engine):
                self._add_engine(engine)
            case EngineLeft(engine_id, incarnation, reason, _):
                self._remove_engine(engine_id, incarnation, reason)
            case EngineFailedToStart(engine_id, _, reason, stderr_tail):
                self.roster.failed_to_start(EngineStartError(engine_id, reason, stderr_tail))

    def _take_output(self, batch: OutputBatch) -> None:
        call = self._open.get(batch.request) or self._known.get(batch.request)
        if call is None:
            return
        with self._lock:
            call.output.add(batch)
            overtaken = call.output.complete and self._overtaken.remove(call)
        call.output_arrived()
        if overtaken:
            self._settle(call, call.value, call.error)

    def _take_state(self, state: ClusterState) -> None:
        """Catch up with a cluster that was not listened to for a while."""
        there = {engine.engine_id for engine in state.engines}
        for engine_id in self.roster.ids:
            if engine_id not in there and (engine := self.roster.get(engine_id)):
                self._remove_engine(engine_id, engine.incarnation, "it left while this client was away")
        self.roster.expect(state.starting)
        for engine in state.engines:
            self._add_engine(engine)

    def _add_engine(self, engine: EngineInfo) -> None:
        with self._lock:
            if engine != self.roster.get(engine.engine_id):
                self._outboxes[engine.engine_id] = Outbox(WINDOW)
        self.roster.add(engine)

    def _remove_engine(self, engine_id: int, incarnation: int, reason: str) -> None:
        if not self.roster.remove(engine_id, incarnation):
            return
        with self._lock:
            unsent = self._outboxes.pop(engine_id).drain()
        for letter in unsent:
            self._settle(letter.call, None, EngineLost(engine_id, letter.call.label, reason))

    def _settle(self, call: Call, value: Any, error: Exception | None) -> None:
        if call.done:  # its engine's end is heard of in several ways
            return
        if error is not None:
            call.error = error
            if not isinstance(error, TaskAborted | ClientClosed):  # what was given up on purpose is no news
                self.ledger.failed(call)
        call.settle(value, error)
        # After somebody who waits has been told. What comes late is still the call's, for as long as anybody holds it.
        with self._lock:
            self._known[call.request_id] = call
            self._open.pop(call.request_id, None)

    def close(self) -> None:
        """End the conversation: engines go on, calls that are open here fail with ``ClientClosed``.

        A push that has just been sent gets a moment to arrive: ``view["a"] = 1`` may be a script's last line.
        """
        if self.closed or os.getpid() != self._process:  # a forked child has no conversation of its own to end
            return
        wait_for_calls([call for call in self.open_calls() if call.label == "push"], PUSH_GRACE_S)
        self.closed = True
        self._leaving.set()
        with contextlib.suppress(ConnectionLost):  # there may be nobody left to say goodbye to
            self.transport.controller.detach(self.name)
        self.roster.close()
        self._inbox.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5.0)
        self.transport.close()
        for call in self.open_calls():
            self._settle(call, None, ClientClosed())
        self._callbacks.close()
