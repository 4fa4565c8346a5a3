"""A session: the connection of one process to a cluster.

Several threads use a session. Callers submit requests, and calls are settled as :mod:`nsactors.session.requests`
describes. A reader waits for the controller's events; a dispatcher acts on them, and runs all steps that would delay
other replies.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Protocol

from nsactors.errors import (
    ClientClosed,
    ClusterLost,
    ClusterStopped,
    ClusterUnreachable,
    ConnectionLost,
    DebuggerUnavailable,
    EngineLost,
    EngineStartError,
    TaskAborted,
    keyboard_interrupt,
)
from nsactors.errors.exceptions import RESTART_REQUESTED
from nsactors.errors.formatting import reasons_by_engines
from nsactors.errors.reporting import print_traceback
from nsactors.inside.debug_console import (
    KEPT_RULE,
    DebugConsole,
    EngineStops,
    held_by_others,
    kept_failures,
    open_failures,
    take_stops,
)
from nsactors.protocol.client_modules import ClientModules
from nsactors.protocol.control import (
    Abort,
    ClientJoined,
    ClusterState,
    EngineFailedToStart,
    EngineJoined,
    EngineLeaving,
    EngineLeft,
    EngineOverdue,
    EngineResumed,
    EngineStarting,
    EngineStopped,
    EngineWaiting,
    Event,
    ExplainObstacle,
    HistoryEntry,
    Interrupt,
    Obstacle,
    OutputEvent,
    WorkReported,
)
from nsactors.protocol.engine_info import EngineInfo, Recovery, RecoveryReport
from nsactors.protocol.messages import Capability, Operation, RequestId
from nsactors.protocol.process import OwnProcess, current_shell
from nsactors.protocol.serialize import Payload, StoredObject
from nsactors.protocol.targets import Targets, resolve
from nsactors.recovery.replay import RecoveryReports
from nsactors.results import Call, OutputGoes, RequestOptions, TaskCall
from nsactors.results.interrupting import UserPrompt, unless_interrupted, user_input
from nsactors.session.callbacks import Callbacks
from nsactors.session.engine_directory import EngineDirectory, leave_of, missed_events
from nsactors.session.other_clients import QueueReporter, ReplyCollector
from nsactors.session.requests import OtherWork, RequestSender, prospect_of
from nsactors.session.unretrieved import UnretrievedErrors
from nsactors.transport.base import EngineGone, Transport, require


def wait_for_calls(calls: Sequence[Call], timeout_s: float) -> bool:
    """Wait until all of ``calls`` are settled, for at most ``timeout_s`` seconds; return whether they are."""
    arrived = threading.Semaphore(0)
    for call in calls:
        call.when_settled(lambda call: arrived.release())
    deadline = time.monotonic() + timeout_s
    return all(arrived.acquire(timeout=max(0.0, deadline - time.monotonic())) for _ in calls)


EXPLAIN_WAIT_S = 0.4
ABORT_WAIT_S = 0.5  # an engine that does not reply for this time runs C code, and its queue does not move
PUSH_GRACE_S = 1.0
RETRY_S = 0.5
_USUAL_OPTIONS = RequestOptions()
_NO_FAILURES: Mapping[int, tuple[str, ...]] = {}


class Modules(Protocol):
    """Describes the modules of a client's program to engines; see ``OwnModules``."""

    def now(self) -> ClientModules | None:
        """Return the present description; None if there are no modules. When it has changed, it is a new object."""
        ...

    def sources(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Return by digest those sources that may be sent."""
        ...

    def tell_too_large(self) -> str:
        """Return a message about modules that are too large to be sent; empty if earlier messages named all of them."""
        ...

    def close(self) -> None:
        """Stop following the modules."""
        ...


class WorkListener(Protocol):
    """Takes the controller's reports of other clients' requests."""

    def __call__(self, entries: Sequence[HistoryEntry], *, afresh: bool = False) -> None:
        """Take entries; with ``afresh``, they replace all earlier ones."""
        ...


class Schedulers:
    """The schedulers of a client's tasks, as its session uses them. This base class is for sessions without tasks."""

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        """Cancel those of ``calls`` that are tasks and have not begun; with ``interrupt``, interrupt those that run."""

    def interrupt(self, calls: Iterable[Call]) -> None:
        """Interrupt those of ``calls`` that are tasks of this client."""

    def has_submitted(self, request: RequestId) -> bool:
        """Return whether this is the id of a task of this client."""
        return False

    def open_calls(self) -> list[TaskCall]:
        """Return the tasks that have not ended, in the order of submission."""
        return []

    def assigned(self) -> tuple[int, dict[int, int]]:
        """Return how many items of tasks wait for an engine, and how many each engine has."""
        return 0, {}

    def close(self) -> None:
        """End those tasks that do not outlive the client."""


class Session:
    """The engines of a cluster as one client knows them, and its requests to them.

    Args:
        transport: the connection to the cluster.
        name: the unique name of this client, which the history shows to users.
        modules: describes the modules of the client's program to engines; None if engines need not know them.

    Attributes:
        controller: the client of the controller.
        services: the services that the cluster hosts.
        ref_types: the types of references that requests may carry beside their pickled payload.
        directory: the engines that are known.
        unretrieved: errors of calls whose results were never asked for, and other notices for the user.
        schedulers: the schedulers of the client's tasks.
        output: the default for the output of calls: ``"show"`` or ``"keep"``.
        leaving: set when the session is closed.
        take: takes the replies to calls that were submitted as ``awaited``; see ``RequestSender.take``.
    """

    detached = False

    def __init__(self, transport: Transport, name: str, modules: Modules | None = None) -> None:
        self.transport = transport
        self.controller = transport.controller
        self.services = transport.services
        self.ref_types = transport.ref_types
        self.name = name
        self.modules = modules
        self._modules_told: ClientModules | None = None
        self.unretrieved = UnretrievedErrors()
        self._recoveries = RecoveryReports()
        self._callbacks = Callbacks()
        self.directory = EngineDirectory(self._callbacks.call)
        self.closed = False
        self._closing = threading.RLock()
        self.output = "show"
        self._cut_off = False
        self.leaving = threading.Event()
        self._watch_ends = threading.Event()
        self._company = threading.Event()
        self._work_told: WorkListener | None = None
        self._process = OwnProcess()
        self.schedulers = Schedulers()
        self._inbox: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self.stops = EngineStops(self.controller, self._tell_of_stop, self.leaving)
        self._sender = RequestSender(
            transport,
            name,
            failed=self.unretrieved.failed,
            later=self._inbox.put,
            lost=self._lose_engine,
            abandoned=self._cancel_interrupted,
            modules=self.modules_now,
            debugs=UserPrompt().can_ask,
        )
        self.take = self._sender.take
        self._take_state(self._attach())
        self._reply_collector = ReplyCollector(transport.controller, self.directory, self.unretrieved.failed)
        self._queue_reporter = QueueReporter(self._sender, transport.controller, name, self._company)
        transport.stopped.when_lost(self)
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
        options: RequestOptions = _USUAL_OPTIONS,
        *,
        awaited: bool = False,
        relayed: bool = False,
    ) -> list[Call]:
        """Send one operation to several engines; its payload is serialised and stored once.

        Args:
            engine_ids: the engines.
            operation: the operation that each of them runs.
            payload: the data of the operation.
            options: the time limit of the requests, and the like.
            awaited: the caller is about to call ``take``, which gets a reply with the least delay.
            relayed: send by way of relays, which saves work in this process if there are many engines.

        Raises:
            ClientClosed: if this session has been closed.
            CapabilityError: if there is a time limit and engines cannot be interrupted.
        """
        self.check()
        if options.limit_s is not None:
            self.require(Capability.SIGNALS, "interrupt a call at its time limit")
        try:
            calls = self._sender.submit(engine_ids, operation, payload, options, awaited=awaited, relayed=relayed)
        except KeyboardInterrupt:
            raise keyboard_interrupt("the call that was being sent is cancelled") from None
        self._queue_reporter.stir()
        return calls

    def output_goes(self, output: str | None) -> OutputGoes:
        """Return the destination of the output of a call whose view has this setting ``output``."""
        return OutputGoes.NOWHERE if (output or self.output) == "keep" else OutputGoes.TO_WAITER

    def check(self) -> None:
        """Raise ForkedClient, ClientClosed, ClusterLost or ClusterStopped if this session has ended."""
        self._process.check()
        if self.closed:
            raise ClientClosed
        stopped = self.transport.stopped
        if stopped.is_set():
            raise stopped.error()
        if self._cut_off:
            raise ClusterStopped

    def require(self, capability: Capability, what: str) -> None:
        """Raise CapabilityError if engines of this transport lack a capability that ``what`` needs."""
        require(self.transport, capability, what)

    def resolve(self, targets: Targets) -> list[int]:
        """Return the ids of the engines that ``targets`` names, in its order; see ``protocol.targets.resolve``.

        Raises:
            TargetError: if ``targets`` names no engine.
            ClientClosed: if this session has been closed; :meth:`check` names further errors.
        """
        self.check()
        return resolve(targets, self.directory.ids)

    def flush(self, timeout_s: float) -> None:
        """Return when all requests so far are safe from the end of this process; see ``Client.flush``."""
        self._queue_reporter.flush(timeout_s)

    def recovery_reports(self) -> list[RecoveryReport]:
        """Return the reports on namespaces that were recovered since the session began, oldest first."""
        reports = list(self._recoveries)
        self.unretrieved.heard(map(str, reports))
        return reports

    def store(self, payload: Payload) -> StoredObject:
        """Store a payload for several requests to refer to."""
        return self.transport.keep(payload)

    @property
    def busy_engines(self) -> AbstractSet[int]:
        """The engines with open requests of this client that carry no tasks. The set may change while it is read."""
        return self._sender.busy

    def other_work(self, engine_id: int) -> OtherWork | None:
        """Return the requests without tasks that an engine has from this client; None if there are none."""
        return self._sender.other_work(engine_id)

    def other_requests(self, engine_id: int) -> int:
        """Return how many requests without tasks this client has sent to an engine so far."""
        return self._sender.other_requests(engine_id)

    def when_passed(self, engine_id: int, call: Callable[[], object]) -> None:
        """Call a function soon after an engine has replied to all requests without tasks that it has now."""
        self._sender.when_passed(engine_id, call)

    def watch_work(self, listener: WorkListener) -> list[HistoryEntry]:
        """Return the requests of other clients that take long, and notify the listener of changes from now on."""
        self._work_told = listener
        return self.controller.watch_work(self.name)

    @property
    def is_here(self) -> bool:
        """True if this process is the one that made the session, and not a forked child."""
        return self._process.is_here

    @property
    def requests_sent(self) -> int:
        """The number of requests sent to engines so far."""
        return self._sender.requests_sent

    def check_process(self) -> None:
        """Raise ForkedClient in a forked child, which replies cannot reach."""
        self._process.check()

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        """Cancel calls that have not begun; with ``interrupt``, interrupt those that run.

        Raises:
            CapabilityError: if ``interrupt`` is true, calls are running, and this transport cannot interrupt them.
        """
        self._process.check()
        calls = [call for call in calls if not call.done]
        self.schedulers.abort(calls, interrupt=interrupt)
        calls = [call for call in calls if not isinstance(call, TaskCall)]
        for call in self._sender.withdraw(calls):
            self._sender.end(call, None, TaskAborted(call.engine_id, call.label))
        sent = [call for call in calls if not call.done]
        if sent:
            requests = frozenset(call.request_id for call in sent)
            replies = self.controller.query({call.engine_id for call in sent}, Abort(requests), ABORT_WAIT_S)
            for call in sent:  # the engine itself replies to an aborted request only when its turn comes
                if (reply := replies.get(call.engine_id)) and call.request_id in (reply.value or ()):
                    self._sender.end(call, None, TaskAborted(call.engine_id, call.label))
            if interrupt:
                self.interrupt(sent)
        if interrupt:
            self.require_interrupts(calls)

    def require_interrupts(self, calls: Iterable[Call]) -> None:
        """Raise CapabilityError if there are calls that have not ended, and this transport cannot interrupt them."""
        if not all(call.done for call in calls):
            self.require(Capability.SIGNALS, "interrupt a call that runs")

    def _cancel_interrupted(self, calls: Sequence[Call]) -> None:
        """Cancel or interrupt the calls of an interrupted submission, because its caller has no result object."""
        for call in calls:
            call.when_settled(lambda call: self.mark_retrieved([call]))
        self.abort(calls, interrupt=Capability.SIGNALS in self.transport.capabilities)
        self._sender.give_up(calls)

    def fail(self, calls: Iterable[Call], error_of: Callable[[Call], Exception]) -> None:
        """End calls with errors immediately. Calls that have not begun never run; calls that run are interrupted."""
        calls = [call for call in calls if not call.done]
        sent = {call.request_id: call.engine_id for call in calls}
        for call in self._sender.withdraw(calls):
            del sent[call.request_id]
        for call in calls:
            self._sender.end(call, None, error_of(call))
        if sent:
            requests, ids = frozenset(sent), set(sent.values())
            self.controller.query(ids, Abort(requests), ABORT_WAIT_S)
            self.controller.command(ids, Interrupt(requests))

    def interrupt(self, calls: Iterable[Call]) -> bool:
        """Raise KeyboardInterrupt in the user code of the calls that run; return False if this transport cannot."""
        if Capability.SIGNALS not in self.transport.capabilities:
            return False
        calls = list(calls)
        self.schedulers.interrupt(calls)
        calls = [call for call in calls if not isinstance(call, TaskCall)]
        requests = frozenset(call.request_id for call in calls)
        self.controller.command({call.engine_id for call in calls}, Interrupt(requests))
        return True

    def obstacles(self, calls: Iterable[Call]) -> dict[int, str]:
        """Return in words the reasons why interrupted calls have not ended, by engine."""
        calls = [call for call in calls if not isinstance(call, TaskCall)]
        ids = {call.engine_id for call in calls}
        query = ExplainObstacle(frozenset(call.request_id for call in calls))
        replies = self.controller.query(ids, query, EXPLAIN_WAIT_S)
        silent = dict.fromkeys(ids - replies.keys(), "no reply, because C code holds its interpreter")
        return silent | {i: _in_words(reply.value) for i, reply in replies.items() if reply.value is not None}

    @property
    def has_stops(self) -> bool:
        """See ``CallController``."""
        return self.stops.has_new

    def debug_stops(self, settle: Callable[[], object] = lambda: None) -> None:
        """See ``CallController``."""
        read_line = user_input()
        if read_line is None:
            return self.stops.let_go()
        console = DebugConsole(
            self.controller, {}, self._is_there, read_line, self.stops.take, settle, self._others_may_stop
        )
        with self.stops.shown(console):
            console.run()

    def _others_may_stop(self) -> bool:
        """Return whether an engine that is not stopped has a request of this client."""
        busy = {call.engine_id for call in self._sender.open_calls(carriers=True)}
        return not busy.issubset(self.stops.engine_ids)

    def _is_there(self, engine_id: int) -> bool:
        return self.directory.get(engine_id) is not None

    def debug(self, calls: Iterable[Call]) -> None:
        """See ``CallController``.

        Raises:
            DebuggerUnavailable: if no engine keeps the frames of these calls any more, or no user can be prompted.
        """
        failures = kept_failures((error for call in calls for error in call.errors), self.name)
        if not failures:
            raise DebuggerUnavailable(f"engines keep no frames of this result: {KEPT_RULE}")
        self.open_debugger(failures, failures)

    def debug_error(self, error: BaseException) -> bool:
        """Open the debugger on the frames of an error of this session's calls; return False if no frames are kept.

        If the error states that engines keep frames, but the debugger cannot be opened, the reason is printed.
        """
        failures = {} if self.closed else kept_failures([error], self.name)
        if not failures:
            return False
        try:
            self.open_debugger(failures, failures)
        except (DebuggerUnavailable, ConnectionLost) as unavailable:
            print(unavailable)
            return False
        return True

    def open_debugger(
        self,
        engine_ids: Iterable[int],
        failures: Mapping[int, tuple[str, ...]] = _NO_FAILURES,
        *,
        takes: bool = False,
    ) -> None:
        """Open the debugger on failures that engines keep for this client; return when the user leaves it.

        Args:
            engine_ids: the engines.
            failures: the failure to open on each engine (``Failure.kept``), by engine id; by default the last failure.
            takes: take over the debuggers of engines that are stopped for other clients.

        Raises:
            DebuggerUnavailable: if no engine keeps such a failure, or no user can be prompted.
        """
        self.check()
        read_line = user_input()
        if read_line is None or threading.current_thread() is not threading.main_thread():
            raise DebuggerUnavailable("it needs a prompt: a terminal or a notebook, and the main thread of the program")
        if not failures and self.stops.rejoin(engine_ids):
            return self.debug_stops()
        if takes:
            states, problems = take_stops(self.controller, self.name, engine_ids)
        else:
            states, problems = open_failures(self.controller, self.name, engine_ids, failures)
        for line in reasons_by_engines(problems):
            print(f"*** {line}")
        if not states and takes:
            raise DebuggerUnavailable("none of these engines is stopped in a debugger")
        if not states:
            others = held_by_others(self.controller, engine_ids)
            raise DebuggerUnavailable(others or f"no engine keeps the frames of a failure: {KEPT_RULE}")
        console = DebugConsole(self.controller, states, self._is_there, read_line)
        with self.stops.shown(console) if takes else contextlib.nullcontext():
            console.run()

    def restart(self, engine_ids: Iterable[int], *, recovers: bool = True) -> None:
        """Stop engines, busy or not, and start new processes with their ids.

        With ``recovers``, the namespaces are recovered as if the engines had died; otherwise they are empty.
        """
        ids = list(engine_ids)
        engines = [engine for engine_id in ids if (engine := self.directory.get(engine_id))]
        self.controller.restart_engines(ids, recovers=recovers)
        for engine in engines:  # requests that are submitted from now on are for the new processes
            left = leave_of(engine, RESTART_REQUESTED, returns=True)
            self._take_leave(replace(left, expected=True, replays=left.replays and recovers))

    def retire(self, engine_ids: Iterable[int], timeout_s: float | None) -> bool:
        """Stop engines when they have finished their requests; return whether they have left in time.

        This client sends no more requests to these engines, unless another thread has already looked up their ids.
        """
        ids = list(engine_ids)
        self.controller.retire_engines(ids)
        self.directory.retire(ids)
        return self.directory.wait_until_gone(ids, timeout_s)

    def run_callback(self, function: Callable[[], object]) -> None:
        """Call the user's function soon, on a thread where it may wait."""
        self._process.check()
        self._callbacks.call(function)

    def wait_for_callbacks(self) -> None:
        """Return when the functions given to :meth:`run_callback` so far have been called."""
        self._callbacks.drain()

    def mark_retrieved(self, calls: Iterable[Call]) -> None:
        """Count the errors of these calls as retrieved, so that they are not reported any more."""
        self.unretrieved.seen(calls)

    def calls_for(self, entries: Sequence[HistoryEntry]) -> list[Call]:
        """Return the calls for these requests: calls of this client, or calls that end with those of other clients."""
        own = {entry.request: self._sender.find(entry.request) for entry in entries}
        others = self._reply_collector.add(entry for entry in entries if own[entry.request] is None)
        found = {call.request_id: call for call in (*own.values(), *others) if call is not None}
        return [found[entry.request] for entry in entries]

    def has_made(self, msg_id: str) -> bool:
        """Return whether this is the id of a request or task of this client, open or not; False for detached tasks."""
        client, _, number = msg_id.rpartition(":")
        request = RequestId(client, int(number))
        own = client == self.name and request.seq < self._sender.requests_sent
        return own or self.schedulers.has_submitted(request)

    def has_ended(self, request: RequestId) -> bool:
        """Return whether this is a request of this client that has ended; False for requests of other clients."""
        return request.client == self.name and not self._sender.is_open(request)

    def open_calls(self, engine_ids: Iterable[int] | None = None) -> list[Call]:
        """Return the calls without a reply, in order of submission."""
        return [c for c in self._sender.open_calls() if engine_ids is None or c.engine_id in engine_ids]

    def open_tasks(self) -> list[TaskCall]:
        """Return the tasks that have not ended, in order of submission."""
        return self.schedulers.open_calls()

    def assigned_tasks(self) -> tuple[int, dict[int, int]]:
        """Return how many items of tasks wait for an engine, and how many each engine has."""
        return self.schedulers.assigned()

    def modules_now(self) -> ClientModules | None:
        """Return the description of this client's modules for engines; None if there is none."""
        told = None if self.modules is None else self.modules.now()
        if told is not None and told is not self._modules_told:
            self._modules_told = told
            self._send_sources(told)
        return told

    def _send_sources(self, told: ClientModules) -> None:
        """Send the sources of modules to the controller soon. Engines that need them ask the controller, and wait."""
        assert self.modules is not None, "there is a description of modules"
        sources = self.modules.sources({module.digest for module in told.modules})

        def send() -> None:
            controller = self.controller
            with contextlib.suppress(ConnectionLost):  # the calls fail with this error as well
                if lacking := controller.lacking_sources(list(sources)):
                    controller.keep_sources([sources[digest] for digest in lacking])

        if sources:
            self._inbox.put(send)
        here = socket.gethostname()
        is_elsewhere = any(engine.host != here for engine in self.directory.known.values())
        if is_elsewhere and (too_large := self.modules.tell_too_large()):
            self.unretrieved.tell(too_large)

    def new_watch(self) -> threading.Event:
        """End the display of the cluster's activity, if there is one; return the event that ends the next one."""
        self._watch_ends.set()
        self._watch_ends = threading.Event()
        return self._watch_ends

    def _attach(self) -> ClusterState:
        state = self.controller.attach(self.name)
        if state.has_others:
            self._company.set()
        if self._work_told is not None:  # this session was disconnected and has missed entries
            entries = self.controller.watch_work(self.name)
            self._inbox.put(partial(self._work_told, entries, afresh=True))
        self.transport.stand_by(self.name)
        return state

    def _read_events(self) -> None:
        while not self.closed:
            try:
                events = self.controller.events(self.name)
                if events is None and not self.closed:
                    self._inbox.put(partial(self._take_state, self._attach()))
                elif events:
                    self._inbox.put(partial(self._take_events, events))
            except ClusterUnreachable:
                self.leaving.wait(RETRY_S)  # the controller is silent, but not gone: its machine is busy, or was asleep
            except ConnectionLost as lost:
                self._cut_off = True
                self.directory.close(lost)
                return  # the transport ends open calls when their engine is gone

    def _dispatch(self) -> None:
        while True:
            try:
                work = self._inbox.get(timeout=self._sender.seconds_to_overdue)
            except Empty:
                work = self._sender.settle_overdue
            if work is None:
                return
            try:
                work()
            except Exception:  # no error may end this thread, which takes the events of engines and large replies
                print_traceback()

    def _take_events(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case OutputEvent(batch):
                    self._sender.take_output(batch)
                case EngineStarting(engine_id):
                    self.directory.expect([engine_id])
                case EngineJoined(engine):
                    if self.directory.get(engine.engine_id) is not None and engine.recovered is not None:
                        self._recoveries.add(engine.recovered)
                        self.unretrieved.tell(str(engine.recovered))
                    self._add_engine(engine)  # last, so that the report arrives before the engine's first reply
                case EngineLeft():
                    self._take_leave(event)
                    if event.returns and not (event.expected or event.replays):
                        self.unretrieved.engine_died(event.engine_id, _replacement_notice(event))
                case EngineFailedToStart(engine_id, _, reason, stderr_tail):
                    failure = EngineStartError(engine_id, reason, stderr_tail)
                    self._tell_unless_awaited(failure)
                    self.directory.failed_to_start(failure)
                case EngineWaiting(engine_id, _, reason, nodes_may_come):
                    after = (
                        f"The engine starts when there is a place; cluster.stop_engines({engine_id}) cancels the start"
                    )
                    obstacle = EngineStartError(engine_id, f"it has no place yet: {reason}", after=after)
                    self._tell_unless_awaited(obstacle)
                    self.directory.hold_up(obstacle, nodes_may_come)
                case EngineLeaving(engine_id):
                    self.directory.retire([engine_id])
                case WorkReported(entries):
                    if self._work_told is not None:
                        self._work_told(entries)
                case ClientJoined():
                    self._company.set()
                    self._queue_reporter.stir()
                case EngineStopped():
                    self.stops.add(event)
                case EngineResumed():
                    self.stops.remove(event)
                case EngineOverdue():
                    self.unretrieved.tell(event.notice)

    def _tell_of_stop(self, notice: str) -> None:
        if current_shell() is None:
            print(f"nsactors: {notice}", file=sys.stderr)
        else:
            self.unretrieved.tell(notice)

    def _tell_unless_awaited(self, problem: EngineStartError) -> None:
        if not self.directory.is_awaited:
            self.unretrieved.tell(str(problem))

    def _take_state(self, state: ClusterState) -> None:
        """Catch up with the events that were missed while there was no connection."""
        directory = self.directory
        self._take_events(missed_events(directory.known, directory.away, directory.starting, state))

    def _add_engine(self, engine: EngineInfo) -> None:
        self._sender.add_engine(engine)
        self.unretrieved.engine_joined(engine.engine_id)
        self.directory.add(engine)

    def _lose_engine(self, engine: EngineInfo, gone: EngineGone) -> None:
        # Act immediately: the controller will report more, but may be down.
        self._take_leave(leave_of(engine, gone.reason, returns=engine.recovery is not Recovery.NONE))

    def _take_leave(self, left: EngineLeft) -> None:
        for call in self._sender.engine_left(left):
            after = prospect_of(returns=left.returns, replays=left.replays)
            self._sender.end(call, None, EngineLost(left.engine_id, call.label, left.reason, after=after, began=False))
        self.stops.engine_left(left.engine_id)
        self.directory.leave(left)

    @property
    def has_something_to_lose(self) -> bool:
        """True if there are engines or open calls."""
        return not self.closed and bool(self.directory.ids or self._sender.open_calls(carriers=True))

    def cluster_lost(self, lost: ClusterLost) -> None:
        """End all calls and tasks that are open, and every wait for engines."""
        self._cut_off = True
        self.directory.close(lost)
        for call in self._sender.open_calls(carriers=True):
            self._sender.end(call, None, lost.again())

    def close(self) -> None:
        """End the session: engines go on, and open calls fail with ``ClientClosed``.

        A push that has just been sent gets a moment to arrive, because ``view["a"] = 1`` may be a script's last line.
        Ctrl-C only ends this wait. The session is then still closed, and a second call waits until it is closed.
        """
        if not self._process.is_here:  # a forked child has no session of its own to end
            return
        if threading.current_thread() is threading.main_thread():
            unless_interrupted(self._close)
        elif not self.closed:  # if another close() waits for this thread, this call must not wait for that close()
            self._close()

    def _close(self) -> None:
        with self._closing, contextlib.ExitStack() as steps:
            if self.closed:
                return
            # The steps run in reverse order, and all of them run, even if one raises an error.
            steps.callback(self._callbacks.close)
            steps.callback(self._end_open_calls)
            if self.modules is not None:
                steps.callback(self.modules.close)
            steps.callback(self._reply_collector.close)
            steps.callback(self.transport.close)
            steps.callback(self._end_threads)
            steps.callback(self.directory.close, ClientClosed())
            steps.callback(self.schedulers.close)
            steps.callback(self._leave)
            steps.callback(self._queue_reporter.close)
            wait_for_calls([call for call in self.open_calls() if call.label == "push"], PUSH_GRACE_S)

    def _leave(self) -> None:
        self.closed = True
        self.leaving.set()
        self._watch_ends.set()
        with contextlib.suppress(ConnectionLost):  # the controller may be gone
            self.controller.detach(self.name)

    def _end_threads(self) -> None:
        self._inbox.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5.0)

    def _end_open_calls(self) -> None:
        for call in self.open_calls():
            self._sender.end(call, None, ClientClosed())


def _in_words(obstacle: Obstacle) -> str:
    if obstacle.kind == "native":
        return f"in C code, which cannot be interrupted: {obstacle.where}"
    return f"the interrupt was caught, and the code goes on: {obstacle.where}"


def _replacement_notice(left: EngineLeft) -> str:
    return f"engine {left.engine_id} died: {left.reason}. {prospect_of(returns=True, replays=False)}"
