"""The engine: an actor that runs requests in one namespace.

Requests run one after the other on the thread that calls :meth:`EngineActor.handle` (on Ray, the main thread of the
process, where signals, MPI and C libraries expect to be). Two helper threads connect the engine to the controller:
one polls for commands and carries them out immediately, even while the main thread is busy; the other one sends reports
of output and history.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from nsactors.errors import CapabilityError, ClusterUnreachable, ConnectionLost, Failure
from nsactors.errors.exceptions import SHUTDOWN_REQUESTED
from nsactors.errors.formatting import qualified_name
from nsactors.errors.reporting import print_traceback, report_errors
from nsactors.inside.breakpoint_stops import RequestControl
from nsactors.inside.engine_debugger import EngineDebugger
from nsactors.inside.inspector import Inspector
from nsactors.namespace import Namespace
from nsactors.namespace.control import ControlRequests
from nsactors.namespace.host import EngineHost
from nsactors.namespace.interrupts import CellEventLoop, InterruptHandler, TimeLimit, capture_failure, restart_note
from nsactors.namespace.journal_recorder import EngineJournal, JournalReplica
from nsactors.namespace.output import OutputRecorder
from nsactors.namespace.process_settings import settings
from nsactors.namespace.process_state import EngineProcess
from nsactors.namespace.programs import program_of
from nsactors.namespace.reply_cache import ReplyCache
from nsactors.namespace.startup import ErrorHandler, run_startup
from nsactors.namespace.task_runner import TaskRunner
from nsactors.protocol.control import (
    Command,
    DebugQuery,
    EndProcess,
    EngineReport,
    EngineResumed,
    EngineStopped,
    HistoryEntry,
    Interrupt,
    InterruptTasks,
    Obstacle,
    Presence,
    QueryCommand,
    QueryReply,
    Receipt,
    Signal,
)
from nsactors.protocol.engine_info import EngineInfo, EngineSpec, Recovery, RecoveryReport
from nsactors.protocol.inspection import Inspection
from nsactors.protocol.messages import (
    Aborted,
    EngineRequest,
    Execute,
    Failed,
    Ok,
    Outcome,
    OutputBatch,
    Push,
    Refused,
    Reply,
    RequestId,
    Reset,
    RunTasks,
    TakeSnapshot,
    label_of,
)
from nsactors.protocol.process import OwnProcess
from nsactors.protocol.sequencing import RequestStream, Verdict
from nsactors.protocol.serialize import ObjectStore, Payload, RemoteValue, pack
from nsactors.protocol.tasks import MapValues
from nsactors.recovery.journal import JournalEntry

# The part of a cell that is in the history; the report of the end of a request also has its whole program.
SOURCE_PREVIEW_CHARS = 200


class CompletedRequest(NamedTuple):
    """A finished request, which the main thread records cheaply; ``program`` is the code that stands for a push."""

    request: EngineRequest
    started: float
    completed: float
    outcome: Outcome
    program: str = ""


ReportItem = OutputBatch | CompletedRequest | HistoryEntry | QueryReply | EngineStopped | EngineResumed


class ReportQueue:
    """Items for the next report to the controller; filled by all threads of an engine, emptied by one."""

    def __init__(self) -> None:
        self.urgent = threading.Event()
        self.has_query_replies = False
        self._items: deque[ReportItem] = deque()
        self._unacknowledged = EngineReport()

    def add(self, item: ReportItem) -> None:
        """Add an item to the next report."""
        self._items.append(item)
        if isinstance(
            item, QueryReply | EngineStopped | EngineResumed
        ):  # a caller waits for this item; others can wait for the next round
            self.has_query_replies = True
            self.urgent.set()

    def take(self, engine_id: int) -> EngineReport:
        """Remove all items and return them as a report, after the items of a report that was put back."""
        self.has_query_replies = False
        earlier, self._unacknowledged = self._unacknowledged, EngineReport()
        output: list[OutputBatch] = []
        history: list[HistoryEntry] = []
        query_replies: list[QueryReply] = []
        stops: list[EngineStopped | EngineResumed] = []
        while self._items:
            match self._items.popleft():
                case OutputBatch() as batch:
                    output.append(batch)
                case HistoryEntry() as entry:
                    history.append(entry)
                case QueryReply() as reply:
                    query_replies.append(reply)
                case EngineStopped() | EngineResumed() as stop:
                    stops.append(stop)
                case CompletedRequest(request, started, completed, outcome, program):
                    entry = running_entry(request, engine_id, started)
                    program = program or program_of(request.operation)
                    history.append(entry._replace(completed=completed, outcome=_outcome_name(outcome), program=program))
        return EngineReport(
            (*earlier.output, *output),
            (*earlier.history, *history),
            (*earlier.query_replies, *query_replies),
            (*earlier.stops, *stops),
        )

    def put_back(self, report: EngineReport) -> None:
        """Let the next report begin with this one. The controller may have received it already, and accepts repeats."""
        self._unacknowledged = report


def running_entry(request: EngineRequest, engine_id: int, started: float) -> HistoryEntry:
    """Return the history entry of a request that has begun."""
    operation = request.operation
    source = operation.code[:SOURCE_PREVIEW_CHARS] if isinstance(operation, Execute) else request.label
    return HistoryEntry(request.id, engine_id, request.label, source, started, None, "running")


def _outcome_name(outcome: Outcome) -> str:
    return outcome.failure.type_name if isinstance(outcome, Failed) else type(outcome).__name__.lower()


T = TypeVar("T")

# A restart of the controller takes seconds, but a suspended machine may be silent for longer. The engine continues to
# work during this time, because requests do not pass through the controller.
ORPHAN_AFTER_S = 900.0
RETRY_S = 0.5
# Output of a running request is sent within this time. Shorter rounds would load the controller, because a report costs
# it as much work as a call.
BUSY_ROUND_S = 0.05
# The time in which the controller may kill an engine that must end, before the engine ends itself.
END_GRACE_S = 2.0
TELL_BEFORE_S = 0.3  # this long before it is killed, an engine reports the request that still runs
ORPHAN_GRACE_S = 5.0
LAST_REPORT_S = 1.0
KILL_SLACK_S = 2.0  # an engine that the controller has not killed this long after its grace period ends itself
IDLE_ROUND_S = 0.1
# An engine that has been idle for a while wakes up seldom; its next request wakes it. Output that the user's threads
# print while the engine rests is sent within a longer round.
RESTS_AFTER_S = 5.0
REST_ROUND_S = 0.5
IDLE_S = 0.005  # without a request for this long, the engine is idle: no further request follows immediately
LONG_S = 0.025  # busy without a pause for longer than this: clients may have reported this engine as busy
ENDINGS_EVERY = 5


class EngineControllerClient(Protocol):
    """The engine's connection to its controller. Every call raises ``ConnectionLost`` when the controller is lost."""

    def register(self, engine: EngineInfo) -> bool:
        """Register this engine; return False if it must end."""
        ...

    def poll(self, engine_id: int, incarnation: int) -> list[Command] | None:
        """Wait for commands; return an empty list after a while without any, None if this engine must end."""
        ...

    def report(self, engine_id: int, incarnation: int, report: EngineReport, timeout_s: float = ...) -> Receipt:
        """Send a report; return when the controller has it."""
        ...

    def sources(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Return by digest those sources of clients' modules that the cluster has."""
        ...


class EngineEnds(Exception):
    """Raised in place of a reply, because the engine is ending and answers no more requests.

    Args:
        last_begun: the last request that the engine began, as text; empty if there was none.
    """

    def __init__(self, last_begun: str) -> None:
        super().__init__(SHUTDOWN_REQUESTED)
        self.last_begun = last_begun


class EngineActor:
    """One namespace, its stream of requests, and its connection to the controller.

    Args:
        spec: the description of this engine.
        controller: the connection to the controller.
        host: the process or thread in which it runs.
        store: the store for values that are pulled as references.
        replica: the connection to the replica of journals, if there is one.
        fence: lets the requests that arrive after a call to it run after those that have already arrived; not needed if
            all requests arrive by one way.
    """

    def __init__(
        self,
        spec: EngineSpec,
        controller: EngineControllerClient,
        host: EngineHost,
        store: ObjectStore,
        replica: JournalReplica | None = None,
        fence: Callable[[], None] = lambda: None,
    ) -> None:
        self._spec = spec
        self._controller = controller
        self._host = host
        self._process = OwnProcess()
        self._store = store
        self._stream = RequestStream()
        self._stream_lock = threading.Lock()
        self._cell_loop = CellEventLoop(is_current=host.owns_thread)
        self._interrupts = InterruptHandler(self._cell_loop)
        whole = f"{host.output_path}.stdout and .stderr on {socket.gethostname()}" if host.output_path else ""
        self._output = OutputRecorder(spec.engine_id, host.open_capture(), whole)
        self.replies = ReplyCache(store, self._output)
        self._namespace = space = Namespace(host.fresh_names(), self._make_shell, self._keep)
        self._modules = host.module_versions(space.names, controller.sources)
        self._limit = TimeLimit(self._interrupts)
        is_restart = spec.incarnation > 0 and spec.recovers is None
        self._new = restart_note(spec.engine_id, time.strftime("%H:%M:%S")) if is_restart else ""
        self._on_error = ErrorHandler(spec.options.on_error, space.names)
        self._reports = ReportQueue()
        self._debugger = EngineDebugger(
            spec.engine_id,
            spec.incarnation,
            self._reports.add,
            RequestControl(self._running_request, self._hold_limits, self._interrupt_running),
            shares_process=not host.is_process,
            breaks=spec.options.breakpoints and spec.options.environment.get("PYTHONBREAKPOINT") != "0",
        )
        self._interrupts.instead = self._debugger.stops.quit_prompt
        self._interrupts.is_at_prompt = self._debugger.stops.is_at_prompt
        self._tasks = TaskRunner(
            spec.engine_id,
            space.names,
            self._interrupts,
            self._output,
            store.ref_types,
            self._keep,
            self._new,
            self._on_error,
            self._keep_frames,
        )
        self._running: tuple[EngineRequest, float] | None = None
        self._last_begun: RequestId | None = None
        self._idle_since = self._busy_since = time.monotonic()
        self._was_busy_long = self._long_ended = self._rests = False
        self._closed = threading.Event()
        self._is_unused = not spec.startup and spec.recovers is None
        self._is_ending = self._end_begun = False
        self._ended = threading.Event()
        self._reported_to: int | None = None
        self._announced: RequestId | None = None
        self._round = 0
        host.install(self._interrupts)
        stack_path = f"{host.output_path}.stacks" if host.is_process else None
        self._inspector = Inspector(
            spec.engine_id,
            space.names,
            store,
            self._cell_loop,
            lambda: self._running,
            self._reports.add,
            stack_path,
            host.program_thread,
        )
        self._profilers = self._inspector.profilers
        host.set_aside()
        # The start-up code runs before the journal is opened: each incarnation runs it anew, so the journal omits it.
        self._startup_output = run_startup(spec.startup, self._namespace, self._output) if spec.startup else ()
        self._recovered: RecoveryReport | None = None
        self._journal = self._open_journal(replica)
        if self._journal is not None and spec.recovers is not None:
            self._recover(self._journal)
        self._queries = ControlRequests(
            spec.engine_id,
            self._stream,
            self._stream_lock,
            self._namespace,
            self._tasks,
            self.replies,
            host,
            store,
            self._idle_s,
            self._explain,
            fence,
        )
        # The threads start last, since commands may arrive as soon as they run.
        for loop in (self._follow_commands, self._report):
            # The loops run in the context of this thread, so that classes which they pickle belong to its namespace.
            target, name = partial(copy_context().run, loop), f"engine-{spec.engine_id}-{loop.__name__}"
            threading.Thread(target=target, name=name, daemon=True).start()

    def _open_journal(self, replica: JournalReplica | None) -> EngineJournal | None:
        spec, host = self._spec, self._host
        if spec.options.recovery is not Recovery.REPLAY or not host.keeps_journals:
            return None
        ref_types = self._store.ref_types
        process = EngineProcess(settings(), () if self._modules is None else [self._modules])
        return EngineJournal(spec, self._namespace, host.journal_folder, ref_types, replica, process)

    def _recover(self, journal: EngineJournal) -> None:
        """Restore the namespace of the previous incarnation; drop the output, which clients have already seen."""
        self._output.begin(RequestId("", 0))
        self._recovered, taken = journal.recover(self._note_replayed)
        self._stream = RequestStream(taken)
        self._output.finish()

    def end(self) -> None:
        """End the interpreter gracefully, on the thread that runs requests, where no request runs afterwards.

        A second call returns immediately, even on a helper thread during the first call.
        """
        with self._stream_lock:
            self._is_ending = True
            if self._end_begun:
                return
            self._end_begun = True
        self._tasks.forget_functions()
        self._debugger.close()
        self._host.end(self._namespace.names, self._namespace.close_shell)
        # Exit handlers and destructors may have printed. A controller that has much to do must not hold up the end.
        self._report_once(LAST_REPORT_S)
        self._ended.set()

    @property
    def last_begun(self) -> str:
        """The last request that it has begun, as text; empty if there is none."""
        return "" if self._last_begun is None else str(self._last_begun)

    def close(self) -> None:
        """Release the output streams and end the helper threads, for hosts that outlive their engine."""
        self._closed.set()
        self._reports.urgent.set()
        self._cell_loop.close()
        self._output.close()

    def handle(self, request: EngineRequest, payload: Payload | None) -> tuple[Reply, Payload | None]:
        """Run one request and return its reply, even if the request raises.

        Raises:
            EngineEnds: if the engine had to end before the request finished.
        """
        started = time.time()
        if self._modules is not None:
            # Select the modules even for a request that will not run: after its reply, the client assumes that the
            # engine knows these modules.
            self._modules.select(request.id.client, request.modules)
        # One step under the lock: when an Abort has come too late, an Interrupt must find the request running.
        with self._stream_lock:
            if self._is_ending:
                raise EngineEnds(self.last_begun)
            verdict = self._stream.take(request.id, request.stops_seen)
            self.replies.current = request.id
            if verdict is Verdict.RUN:
                self._is_unused = False
                self._last_begun = request.id
                self._interrupts.enter(request.id)
                self._running = (request, started)
                if self._rests:
                    self._reports.urgent.set()
        nothing = OutputBatch(request.id, self._spec.engine_id, 0, ())
        match verdict:
            case Verdict.REPEATED:
                if known := self.replies.again(request.id):
                    # An earlier process of the controller may have died with the first report of the request's end.
                    self._reports.add(CompletedRequest(request, started, time.time(), known[0].outcome))
                return known or (self._reply(request, Refused(), nothing, started), None)
            case Verdict.ABORTED:
                return self._reply(request, Aborted(), nothing, started), None
            case Verdict.RUN:
                return self._run(request, payload, started)

    def _run(self, request: EngineRequest, payload: Payload | None, started: float) -> tuple[Reply, Payload | None]:
        if (now := time.monotonic()) - self._idle_since > IDLE_S:
            self._busy_since = now
        if late := self._output.begin(request.id):
            self._reports.add(late)
        number = self._namespace.execution_count
        journal = self._journal
        if journal is not None:
            # Begin the record before the request runs, so that the journal contains every request that was
            # acknowledged.
            self._output.note(journal.begin(request, payload))
        if request.limit_s is not None:
            self._limit.begin(request.id, request.limit_s)
        outcome: Outcome
        result: Payload | None = None
        by_interrupt = edited = False
        if (calls := self._profilers.calls) is not None:
            calls.begin(request)
        try:
            if self._modules is not None:
                self._modules.apply()
            value = self._carry_out(request, payload)
            self._process.end_child()
            if value is not None:
                result = self._pack(value)
            outcome = Ok()
        except BaseException as error:
            # Catch errors of any class: SystemExit in a cell must not end the engine, and is an outcome like others.
            self._process.end_child(error)
            self._on_error(error)
            failure = capture_failure(error, self._spec.engine_id, request.label, self._new)
            outcome = Failed(self._keep_frames(failure, error))
            by_interrupt = issubclass(type(error), KeyboardInterrupt)
        finally:
            if calls is not None:
                calls.end()
            self._interrupts.leave()
            if self._debugger.stops.debugger is not None:
                edited = self._debugger.stops.end_request()
            self._idle_since = time.monotonic()
            self._running = None
        if self._modules is not None:
            self._output.note(self._modules.finish())
        expired = None if request.limit_s is None else self._limit.end(by_interrupt=by_interrupt)
        if self._is_ending:  # the request was interrupted: neither its client nor the journal gets an outcome
            raise EngineEnds(self.last_begun)
        if expired is not None:
            # Report the limit even if the request caught the interrupt and succeeded: otherwise it would go unnoticed.
            outcome, result = expired, None
        if request.stops_on_error and not isinstance(outcome, Ok):
            with self._stream_lock:
                self._stream.stop(request.id.client)
        if journal is not None:
            self._output.note(journal.end(outcome, edited=edited))
            if journal.replicates_before_replies or (
                journal.replicates and isinstance(request.operation, TakeSnapshot)
            ):
                self._output.note(self._replicate(journal))
        return self._reply(request, outcome, self._output.finish(), started, number), result

    def _running_request(self) -> EngineRequest | None:
        running = self._running
        return None if running is None else running[0]

    def _interrupt_running(self) -> None:
        running = self._running
        if running is not None and self._host.is_process:
            self._interrupts.interrupt(self._tasks.current or running[0].id, is_of_command=True)

    def _hold_limits(self, *, held: bool) -> None:
        """Stop the clocks of time limits while the request waits for a user, or let them go on."""
        if held:
            self._limit.pause()
            self._tasks.pause_limit()
        else:
            self._limit.resume()
            self._tasks.resume_limit()

    def _keep_frames(self, failure: Failure, error: BaseException) -> Failure:
        """Keep the frames of an error, if a user at the client of the running request can open the debugger."""
        running = self._running
        if running is None or not running[0].debugs:
            return failure
        return self._debugger.failures.keep(failure, error, running[0].id.client)

    def _note_replayed(self, entry: JournalEntry, value: Any, error: BaseException | None) -> None:
        """Store the reply to a replayed request, because its client may not have received the first reply."""
        spec, now = self._spec, time.time()
        result = None
        outcome: Outcome = Ok()
        try:
            if error is not None:
                raise error
            if value is not None:
                result = self._pack(value, keeps=False)
        except BaseException as failed:
            outcome = Failed(capture_failure(failed, spec.engine_id, label_of(entry.operation)))
        nothing = OutputBatch(entry.request, spec.engine_id, 0, ())
        reply = Reply(entry.request, spec.engine_id, spec.incarnation, outcome, nothing, now, now)
        self.replies.store_replayed(reply, result)

    def _pack(self, value: Any, *, keeps: bool = True) -> Payload:
        pack_value = partial(pack, ref_types=self._store.ref_types, keep=self._keep if keeps else None)
        if type(value) is MapValues:
            return value.pack(lambda part, what: pack_value(part, what=what))
        return pack_value(value, what="the result")

    def _carry_out(self, request: EngineRequest, payload: Payload | None) -> Any:
        operation = request.operation
        if isinstance(operation, RunTasks):
            return self._tasks.run(request.id.client, operation, payload)
        if isinstance(operation, Reset):
            self._tasks.forget_functions()
            self._debugger.failures.forget()
        if not isinstance(operation, TakeSnapshot):
            on_call = None if self._journal is None else self._journal.note_call
            return self._namespace.run(operation, payload, on_call)
        if self._journal is None:
            raise CapabilityError("take a snapshot", "this engine", "start it with recovery='replay'")
        return self._journal.snapshot().left_out

    def _replicate(self, journal: EngineJournal) -> str:
        """Send the journal to its replica; if that fails, return a notice for the client."""
        try:
            journal.replicate()
        except OSError as lost:  # the replica cannot be reached, or has no room
            return f"[nsactors: the journal is not yet on another machine: {lost}]\n"
        return ""

    def _keep(self, name: str, value: Any) -> RemoteValue:
        assert self._running is not None, "only requests keep values"
        payload = pack(value, what=repr(name), ref_types=self._store.ref_types)
        call = self._running[0].label
        type_name = qualified_name(type(value))
        return RemoteValue(self._store.put(payload), name, self._spec.engine_id, call, type_name, payload.nbytes)

    def _reply(
        self, request: EngineRequest, outcome: Outcome, tail: OutputBatch, started: float, number: int | None = None
    ) -> Reply:
        completed = time.time()
        pushed = self._namespace.pushed if isinstance(request.operation, Push) else ""
        self._reports.add(CompletedRequest(request, started, completed, outcome, pushed))
        if self._idle_since - self._busy_since > LONG_S or request.id == self._announced:
            # Report the end without delay: clients may have reported this engine as busy, so that schedulers avoid it.
            self._was_busy_long = True
            if completed - started > LONG_S:
                self._long_ended = True
                self._reports.urgent.set()
        spec = self._spec
        count = number if isinstance(request.operation, Execute) else None
        return Reply(request.id, spec.engine_id, spec.incarnation, outcome, tail, started, completed, count)

    def _make_shell(self, names: dict[str, Any]) -> Any:
        return self._host.make_shell(self._spec.engine_id, names, self._output, self._cell_loop)

    def _follow_commands(self) -> None:
        spec = self._spec
        info = EngineInfo.of(spec, os.getpid(), socket.gethostname(), self._host.output_path, self._recovered)
        info = replace(info, startup_output=self._startup_output)
        reason = f"engine {spec.engine_id} was asked to end"
        try:
            if not _retry_while_silent(self._closed, self._controller.register, info):
                return self._exit("it is not a member of its cluster any more")
            if self._journal is not None:
                self._journal.settled(self._closed)
            # The registration comes first: imports of the first cell must not delay the start of the cluster.
            with report_errors():  # if this fails, the first cell imports IPython again, and raises the error
                self._host.warm_up()
            if self._is_unused:
                self._host.set_aside()
            while not self._closed.is_set():
                commands = _retry_while_silent(self._closed, self._controller.poll, spec.engine_id, spec.incarnation)
                if commands is None:
                    break
                for command in commands:
                    with report_errors():  # if a command ended this thread, the engine would get no more commands
                        self._handle_command(command)
        except ConnectionLost as lost:
            # No user could find or stop an engine without its controller, so it would use cores unnoticed.
            reason = f"engine {spec.engine_id} ends: {lost}"
        except Exception as error:  # an engine that follows no commands could be neither interrupted nor stopped
            print_traceback()
            reason = f"engine {spec.engine_id} ends: it cannot follow its controller: {type(error).__name__}: {error}"
        self._exit(reason)

    def _exit(self, reason: str) -> None:
        # Wait until the controller or the end of the cluster kills this process: Ray would report a process that ends
        # by itself.
        if not self._closed.wait(END_GRACE_S) and self._host.is_process:
            # No actor is left that could call end() on the main thread, so this thread ends what it can.
            give_up = time.monotonic() + ORPHAN_GRACE_S
            self._host.limit_life(ORPHAN_GRACE_S + KILL_SLACK_S)
            self._stop_running(give_up)
            while self._running is not None and time.monotonic() < give_up:
                self._closed.wait(RETRY_S)
            self.end()
        self._closed.set()
        self._host.exit(reason)

    def _handle_command(self, command: Command) -> None:
        match command:
            case Interrupt(requests):
                running = self._running
                if running is not None and (requests is None or running[0].id in requests):
                    self._interrupts.interrupt(self._tasks.current or running[0].id)
            case InterruptTasks(client, spans):
                self._tasks.interrupt(client, spans)
            case Signal(number):
                self._host.signal(number)
            case Presence(client, connected):
                self.replies.note_presence(client, connected=connected)
                if not connected:
                    self._profilers.forget(client)
                if self._modules is not None:
                    self._modules.note_presence(client, connected=connected)
                if connected:
                    self._debugger.client_came(client)
                else:
                    self._debugger.client_left(client)
            case QueryCommand(query_id, query) if isinstance(query, DebugQuery):
                self._debugger.answer(query_id, query)
            case QueryCommand(query_id, query):
                if isinstance(query, Inspection):
                    self._inspector.reply(query_id, query)
                else:
                    self._reports.add(self._queries.reply(query_id, query))
            case EndProcess(grace_s):
                self._end_process(grace_s)

    def _end_process(self, grace_s: float) -> None:
        """Let the thread that runs requests finish; if it does not, report the request that it runs."""
        tell_at = time.monotonic() + max(0.0, grace_s - TELL_BEFORE_S)
        self._host.limit_life(grace_s + KILL_SLACK_S)
        self._stop_running(tell_at)
        if not self._ended.wait(max(0.0, tell_at - time.monotonic())):
            running = self._running
            doing = f"it ran {running[0].label}" if running is not None else self._host.unended()
            with contextlib.suppress(ConnectionLost):
                self._controller.report(self._spec.engine_id, self._spec.incarnation, EngineReport(unended=doing))

    def _stop_running(self, give_up: float) -> None:
        """Begin no more requests, and interrupt the running one only once, as its code may need time to clean up."""
        with self._stream_lock:
            self._is_ending = True
        self._tasks.stop()
        while (running := self._running) is not None and self._host.is_process and time.monotonic() < give_up:
            if self._interrupts.interrupt(self._tasks.current or running[0].id):
                break

    def _explain(self, requests: frozenset[RequestId]) -> Obstacle | None:
        running = self._running
        if running is None or running[0].id not in requests:
            return None
        return self._interrupts.obstacle(self._tasks.current or running[0].id)

    def _idle_s(self) -> float:
        return 0.0 if self._running else time.monotonic() - self._idle_since

    def _report(self) -> None:
        while not (self._closed.is_set() or self._ended.is_set()):
            self._reports.urgent.wait(self._pause_s())
            self._reports.urgent.clear()
            # This thread also keeps the time, for limits of requests and of tasks, and for interrupts to repeat. No
            # error may end it, or output would stop, and time limits would not hold.
            for step in (
                self._limit.look,
                self._tasks.end_overdue,
                self._interrupts.remind,
                self._debugger.expire,
                self._report_once,
            ):
                with report_errors():
                    step()

    def _pause_s(self) -> float:
        self._rests = time.monotonic() - self._idle_since > RESTS_AFTER_S  # first: a request may begin after this line
        if self._running is not None:
            return BUSY_ROUND_S
        if self._long_ended:
            return IDLE_S
        return REST_ROUND_S if self._rests else IDLE_ROUND_S

    def _is_idle_again(self) -> bool:
        """Return whether the engine has become idle after a long busy time, and has not reported it.

        Task schedulers wait for that report. While requests follow each other immediately, their ends are less urgent.
        """
        if self._running is not None:
            self._long_ended = False
            return False
        if not self._was_busy_long or time.monotonic() - self._idle_since < IDLE_S:
            return False
        self._was_busy_long = self._long_ended = False
        return True

    def _report_once(self, *limit_s: float) -> None:
        # Ends of short requests can wait for some rounds, because a report costs the controller as much time as a call.
        self._round += 1
        due = self._round % ENDINGS_EVERY == 0 or self._reports.has_query_replies or self._is_idle_again()
        running = self._running
        if running is not None and running[0].id != self._announced and time.time() - running[1] > BUSY_ROUND_S:
            self._announced = running[0].id
            if self._running is running:  # once announced, a request's end is reported without delay
                due = True
                self._reports.add(running_entry(running[0], self._spec.engine_id, running[1]))
        batch = self._output.take()
        if batch:
            self._reports.add(batch)
        elif not due:
            return
        report = self._reports.take(self._spec.engine_id)
        # An idle engine sends no reports.
        if report == EngineReport():
            return
        try:
            receipt = self._controller.report(self._spec.engine_id, self._spec.incarnation, report, *limit_s)
        except ClusterUnreachable:  # a controller that is silent for long may not be lost: see ORPHAN_AFTER_S
            self._reports.put_back(replace(report, output=()))
            self._output.take_again()  # the recorder's size is bounded; that of reports with all output would not be
            return
        except ConnectionLost:
            return  # the command thread gets the same error, and ends the engine; the output is in the reply's tail
        before, self._reported_to = self._reported_to, receipt.controller
        if before not in (None, receipt.controller):
            self._output.take_again()  # output that the previous process had not delivered is lost
        elif batch and receipt.delivered:
            self._output.acknowledge(batch)


def _retry_while_silent(closed: threading.Event, call: Callable[..., T], *args: Any) -> T:
    """Call the controller; repeat the call while it is silent, because it may be busy or its machine suspended."""
    give_up = time.monotonic() + ORPHAN_AFTER_S
    while True:
        try:
            return call(*args)
        except ClusterUnreachable:
            if time.monotonic() > give_up:
                raise
            closed.wait(RETRY_S)
