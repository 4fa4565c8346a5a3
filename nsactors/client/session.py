"""A client's conversation with a cluster: what it asks of engines, and what it hears of them.

Several threads meet here. Callers submit, and calls are settled as :mod:`nsactors.client.post` says. A reader waits for
the controller's events; a dispatcher acts on them, and on all that may take longer than a reply should.
"""

from __future__ import annotations

import contextlib
import os
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from nsactors.client.announcing import Announcer
from nsactors.client.callbacks import Callbacks
from nsactors.client.catching_up import leave_of, missed_events
from nsactors.client.collecting import Collector
from nsactors.client.detached import DetachedFarm
from nsactors.client.draining import wait_for_calls
from nsactors.client.farms import Farms
from nsactors.client.ledger import Ledger
from nsactors.client.post import Post
from nsactors.client.roster import Roster
from nsactors.client.tasks import Farm
from nsactors.core.cluster import (
    Abort,
    ClusterState,
    EngineFailedToStart,
    EngineInfo,
    EngineJoined,
    EngineLeaving,
    EngineLeft,
    EngineStarting,
    EngineWaiting,
    Event,
    HistoryEntry,
    Interrupt,
    OutputEvent,
    Recovery,
)
from nsactors.core.messages import Capability, Operation
from nsactors.core.payload import Payload
from nsactors.core.recovery import RecoveryReports
from nsactors.errors import (
    ClientClosed,
    ClusterStopped,
    ClusterUnreachable,
    ConnectionLost,
    EngineLost,
    EngineStartError,
    TaskAborted,
)
from nsactors.results import Call, TaskCall, Terms
from nsactors.transport.base import EngineGone, Transport, require

__all__ = ["Session"]

ABORT_WAIT_S = 0.5  # an engine that does not answer for so long is held by C code, and so is its queue
PUSH_GRACE_S = 1.0
RETRY_S = 0.5
_USUAL_TERMS = Terms()


class Session:
    """The engines of a cluster as one client knows them, and its requests to them.

    Args:
        transport: the way to the cluster.
        name: unique for this client; people see it in the history.
    """

    goes_on = False

    def __init__(self, transport: Transport, name: str) -> None:
        self.transport = transport
        self.name = name
        self.ledger = Ledger()
        self.recoveries = RecoveryReports()
        self._callbacks = Callbacks()
        self.roster = Roster(self._callbacks.call)
        self.closed = False
        self._cut_off = False
        self.leaving = threading.Event()
        self._process = os.getpid()
        self._farms = Farms(self)
        self._inbox: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._post = Post(transport, name, settle=self._settle, later=self._inbox.put, lost=self._lose_engine)
        self._take_state(self._attach())
        self.collector = Collector(transport.controller, self.roster, self._settle)
        self.announcer = Announcer(self._post, transport.controller, name)
        self._threads = [
            threading.Thread(target=loop, name=f"nsactors-{loop.__name__}", daemon=True)
            for loop in (self._read_events, self._dispatch)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def farm(self) -> Farm:
        """Where this client's tasks find their engines."""
        return self._farms.own

    @property
    def detached(self) -> DetachedFarm:
        """Where tasks find their engines that outlive this client."""
        return self._farms.detached

    def submit(
        self,
        engine_ids: Sequence[int],
        operation: Operation,
        payload: Payload | None = None,
        terms: Terms = _USUAL_TERMS,
        *,
        awaited: bool = False,
        relayed: bool = False,
    ) -> list[Call]:
        """Send one operation to several engines; its payload is serialised and stored once.

        Args:
            engine_ids: the engines.
            operation: what each of them is to do.
            payload: what goes with it.
            terms: how long it may take, and the like.
            awaited: the caller goes on to :meth:`take`, which is the quickest way to an answer.
            relayed: by way of relays, which spares this process work if the engines are many.

        Raises:
            ClientClosed: if this session has been closed.
            CapabilityError: if there is a limit and engines cannot be interrupted.
        """
        self.check()
        if terms.limit_s is not None:
            require(self.transport, Capability.SIGNALS, "interrupt a call at its time limit")
        calls = self._post.submit(engine_ids, operation, payload, terms, awaited=awaited, relayed=relayed)
        self.announcer.stir()
        return calls

    def take(self, calls: Sequence[Call]) -> bool:
        """Wait a moment for the answers of calls that were submitted to be awaited; whether they are all here.

        If they are not, they come by themselves from now on.
        """
        return self._post.take(calls)

    def check(self) -> None:
        """See that this conversation can go on; ClientClosed or ClusterStopped if it cannot."""
        if self.closed:
            raise ClientClosed
        if self._cut_off or self.transport.stopped.is_set():
            raise ClusterStopped

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        """Take back what has not started; with ``interrupt``, stop what has."""
        calls = [call for call in calls if not call.done]
        self._farms.abort(calls, interrupt=interrupt)
        calls = [call for call in calls if not isinstance(call, TaskCall)]
        for call in self._post.withdraw(calls):
            self._post.end(call, None, TaskAborted(call.engine_id, call.label))
        sent = [call for call in calls if not call.done]
        if sent:
            requests = frozenset(call.request_id for call in sent)
            self.transport.controller.ask({call.engine_id for call in sent}, Abort(requests), ABORT_WAIT_S)
            if interrupt:
                self.interrupt(sent)

    def fail(self, calls: Iterable[Call], error_of: Callable[[Call], Exception]) -> None:
        """End calls with errors, at once: what of them has not started never runs, what runs is interrupted."""
        calls = [call for call in calls if not call.done]
        sent = {call.request_id: call.engine_id for call in calls}
        for call in self._post.withdraw(calls):
            del sent[call.request_id]
        for call in calls:
            self._post.end(call, None, error_of(call))
        if sent:
            requests, ids = frozenset(sent), set(sent.values())
            self.transport.controller.ask(ids, Abort(requests), ABORT_WAIT_S)
            self.transport.controller.command(ids, Interrupt(requests))

    def interrupt(self, calls: Iterable[Call]) -> bool:
        """Raise KeyboardInterrupt in the user code of those that run; False if this transport cannot."""
        if Capability.SIGNALS not in self.transport.capabilities:
            return False
        calls = list(calls)
        requests = frozenset(call.request_id for call in calls)
        self.transport.controller.command({call.engine_id for call in calls}, Interrupt(requests))
        return True

    def restart(self, engine_ids: Iterable[int], *, recovers: bool = True) -> None:
        """End engines, whatever they are doing, and start new processes under their ids.

        With ``recovers`` their namespaces are what they would be had the engines died; otherwise empty.
        """
        ids = list(engine_ids)
        engines = [engine for engine_id in ids if (engine := self.roster.get(engine_id))]
        self.transport.controller.restart_engines(ids, recovers=recovers)
        for engine in engines:  # what is sent from now on is for the new processes
            left = leave_of(engine, "it was asked to restart", returns=True)
            self._take_leave(replace(left, expected=True, replays=left.replays and recovers))

    def retire(self, engine_ids: Iterable[int], timeout_s: float | None) -> bool:
        """Let engines finish what they have been asked to do, and then end them; whether they have gone in time.

        This client asks nothing more of them, except by ids that it has looked up before.
        """
        ids = list(engine_ids)
        self.transport.controller.retire_engines(ids)
        self.roster.retire(ids)
        return self.roster.wait_until_gone(ids, timeout_s)

    def call_back(self, function: Callable[[], object]) -> None:
        """Call a function of the user's soon, on a thread where it may wait."""
        self._callbacks.call(function)

    def wait_for_callbacks(self) -> None:
        """Return when functions of the user's that were to be called have been."""
        self._callbacks.drain()

    def asked(self, calls: Iterable[Call]) -> None:
        """Somebody has seen how these calls ended."""
        self.ledger.seen(calls)

    def calls_for(self, entries: Sequence[HistoryEntry]) -> list[Call]:
        """The calls that these requests are: one's own, or calls that end as those of other clients do."""
        own = {entry.request: self._post.find(entry.request) for entry in entries}
        others = self.collector.add(entry for entry in entries if own[entry.request] is None)
        found = {call.request_id: call for call in (*own.values(), *others) if call is not None}
        return [found[entry.request] for entry in entries]

    def open_calls(self, engine_ids: Iterable[int] | None = None) -> list[Call]:
        """Calls that have not been answered, in order of submission."""
        return [c for c in self._post.open_calls() if engine_ids is None or c.engine_id in engine_ids]

    def open_tasks(self) -> list[TaskCall]:
        """Tasks that have not ended, in order of submission."""
        return self._farms.open_calls()

    def assigned_tasks(self) -> tuple[int, dict[int, int]]:
        """How many items of tasks wait for an engine, and how many each engine has."""
        return self._farms.assigned()

    def _attach(self) -> ClusterState:
        state = self.transport.controller.attach(self.name)
        self.transport.stand_by(self.name)
        return state

    def _read_events(self) -> None:
        while not self.closed:
            try:
                events = self.transport.controller.events(self.name)
                if events is None and not self.closed:
                    self._inbox.put(partial(self._take_state, self._attach()))
                elif events:
                    self._inbox.put(partial(self._take_events, events))
            except ClusterUnreachable:
                self.leaving.wait(RETRY_S)  # silent, not gone: a busy machine, or one that slept
            except ConnectionLost:
                self._cut_off = True
                self.roster.close()
                return  # calls that are open hear of their engine's end from the transport

    def _dispatch(self) -> None:
        while True:
            try:
                work = self._inbox.get(timeout=self._post.seconds_to_overdue)
            except Empty:
                work = self._post.settle_overdue
            if work is None:
                return
            try:
                work()
            except Exception:  # nothing may end this thread: nobody would hear of engines, or get large answers
                traceback.print_exc()

    def _take_events(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case OutputEvent(batch):
                    self._post.take_output(batch)
                case EngineStarting(engine_id):
                    self.roster.expect([engine_id])
                case EngineJoined(engine):
                    if self.roster.get(engine.engine_id) is not None and engine.recovered is not None:
                        self.recoveries.add(engine.recovered)
                        self.ledger.tell(str(engine.recovered))
                    self._add_engine(engine)  # last: who has an answer from it can see what became of its namespace
                case EngineLeft():
                    self._take_leave(event)
                    if event.returns and not (event.expected or event.replays):
                        self.ledger.engine_died(event.engine_id, _replacement_notice(event))
                case EngineFailedToStart(engine_id, _, reason, stderr_tail):
                    failure = EngineStartError(engine_id, reason, stderr_tail)
                    self._tell_unless_awaited(failure)
                    self.roster.failed_to_start(failure)
                case EngineWaiting(engine_id, _, reason):
                    after = f"It starts when it has one; cluster.stop_engines({engine_id}) takes it back"
                    obstacle = EngineStartError(engine_id, f"it has no place yet: {reason}", after=after)
                    self._tell_unless_awaited(obstacle)
                    self.roster.hold_up(obstacle)
                case EngineLeaving(engine_id):
                    self.roster.retire([engine_id])

    def _tell_unless_awaited(self, problem: EngineStartError) -> None:
        if not self.roster.is_awaited:
            self.ledger.tell(str(problem))

    def _take_state(self, state: ClusterState) -> None:
        """Catch up with a cluster that was not listened to for a while."""
        roster = self.roster
        self._take_events(missed_events(roster.known, roster.away, roster.starting, state))

    def _add_engine(self, engine: EngineInfo) -> None:
        self._post.add_engine(engine)
        self.ledger.engine_joined(engine.engine_id)
        self.roster.add(engine)

    def _lose_engine(self, engine: EngineInfo, gone: EngineGone) -> None:
        # The controller will say more, and may not be there to say it.
        self._take_leave(leave_of(engine, gone.reason, returns=engine.recovery is not Recovery.NONE))

    def _take_leave(self, left: EngineLeft) -> None:
        for call in self._post.engine_left(left):
            self._post.end(call, None, EngineLost(left.engine_id, call.label, left.reason))
        self.roster.leave(left)

    def _settle(self, call: Call, value: Any, error: Exception | None) -> None:
        given_up = isinstance(error, TaskAborted | ClientClosed)  # on purpose, which is no news
        call.settle(value, error, note=None if error is None or given_up else self.ledger.failed)

    def close(self) -> None:
        """End the conversation: engines go on, calls that are open here fail with ``ClientClosed``.

        A push that has just been sent gets a moment to arrive: ``view["a"] = 1`` may be a script's last line.
        """
        if self.closed or os.getpid() != self._process:  # a forked child has no conversation of its own to end
            return
        wait_for_calls([call for call in self.open_calls() if call.label == "push"], PUSH_GRACE_S)
        self.announcer.close()
        self.closed = True
        self.leaving.set()
        with contextlib.suppress(ConnectionLost):  # there may be nobody left to say goodbye to
            self.transport.controller.detach(self.name)
        self._farms.close()
        self.roster.close()
        self._inbox.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5.0)
        self.transport.close()
        self.collector.close()
        for call in self.open_calls():
            self._post.end(call, None, ClientClosed())
        self._callbacks.close()


def _replacement_notice(left: EngineLeft) -> str:
    return (
        f"engine {left.engine_id} died: {left.reason}. A new process takes its place, with an empty namespace; "
        "Cluster(recovery='replay') would make that again, too"
    )
