"""The engine: an actor around a namespace.

Requests run one after the other on the thread that calls :meth:`EngineActor.handle` (on Ray the process's main
thread, where signals, MPI and C libraries expect to be). Two helper threads keep in touch with the controller
meanwhile: one polls for commands and acts on them at once, however busy the main thread is; one ships output and news.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from nsactors.core.cluster import (
    Ask,
    Command,
    EngineInfo,
    EngineSpec,
    Interrupt,
    InterruptTasks,
    Presence,
    Receipt,
    Recovery,
    Report,
    Signal,
)
from nsactors.core.journal import Entry
from nsactors.core.messages import (
    Aborted,
    Execute,
    Expired,
    Failed,
    Ok,
    Outcome,
    OutputBatch,
    Refused,
    Reply,
    Request,
    RequestId,
    Reset,
    RunTasks,
    TakeSnapshot,
)
from nsactors.core.payload import Payload, pack
from nsactors.core.recovery import RecoveryReport
from nsactors.core.remote_value import ObjectStore, RemoteValue
from nsactors.core.stream import InstructionStream, Verdict
from nsactors.errors import CapabilityError, ClusterUnreachable, ConnectionLost
from nsactors.namespace import Namespace
from nsactors.namespace.answering import Answers
from nsactors.namespace.engine_journal import EngineJournal, JournalKeeper
from nsactors.namespace.failures import capture_failure
from nsactors.namespace.gate import CellLoop, InterruptGate
from nsactors.namespace.host import Host
from nsactors.namespace.news import Ended, News, begun_entry
from nsactors.namespace.output import Output
from nsactors.namespace.questions import Questions
from nsactors.namespace.tasks import TaskRunner

__all__ = ["ControllerPort", "EngineActor"]

T = TypeVar("T")

ORPHAN_AFTER_S = 900.0
RETRY_S = 0.5
SHIP_BUSY_S = 0.05
END_GRACE_S = 2.0
SHIP_IDLE_S = 0.1
ENDINGS_EVERY = 5


class ControllerPort(Protocol):
    """The engine's line to its controller. Every call raises ``ConnectionLost`` when the controller is gone."""

    def register(self, engine: EngineInfo) -> bool:
        """Say that this engine is up; False if nobody wants it."""
        ...

    def poll(self, engine_id: int, incarnation: int) -> list[Command] | None:
        """Wait for commands; an empty list after a while without any, None when this engine is to end."""
        ...

    def report(self, engine_id: int, incarnation: int, report: Report) -> Receipt:
        """Hand over output and news; returns when the controller has them."""
        ...


class EngineActor:
    """One namespace, its instruction stream, and its line to the controller.

    Args:
        spec: who this engine is.
        port: the line to the controller.
        host: the process or thread it lives in.
        store: where it keeps values that are pulled as references.
        keeper: of journals, if there is one.
    """

    def __init__(
        self,
        spec: EngineSpec,
        port: ControllerPort,
        host: Host,
        store: ObjectStore,
        keeper: JournalKeeper | None = None,
    ) -> None:
        self._spec = spec
        self._port = port
        self._host = host
        self._store = store
        self._stream = InstructionStream()
        self._stream_lock = threading.Lock()
        self._cell_loop = CellLoop()
        self._gate = InterruptGate(self._cell_loop)
        whole = f"{host.output_path}.stdout and .stderr on {socket.gethostname()}" if host.output_path else ""
        self._output = Output(spec.engine_id, host.open_capture(), whole)
        self.answers = Answers(store, self._output)
        self._namespace = space = Namespace(host.fresh_names(), self._make_shell, self._keep)
        self._tasks = TaskRunner(spec.engine_id, space.names, self._gate, self._output, store.ref_types, self._keep)
        self._running: tuple[Request, float] | None = None
        self._rests_since = time.monotonic()
        self._closed = threading.Event()
        self._news = News()
        self._reported_to: int | None = None
        self._deadline: tuple[RequestId, float] | None = None
        self._expired: RequestId | None = None
        self._announced: RequestId | None = None
        self._round = 0
        host.install(self._gate)
        if spec.startup:
            self._namespace.run(Execute(spec.startup, silent=True, store_history=False), None)
        self._recovered: RecoveryReport | None = None
        self._journal = self._open_journal(keeper)
        if self._journal is not None and spec.recovers is not None:
            self._recover(self._journal)
        self._questions = Questions(
            spec.engine_id,
            self._stream,
            self._stream_lock,
            self._namespace,
            self._tasks,
            self.answers,
            host,
            store,
            self._rests_s,
        )
        for loop in (self._follow_commands, self._ship):
            threading.Thread(target=loop, name=f"engine-{spec.engine_id}-{loop.__name__}", daemon=True).start()

    def _open_journal(self, keeper: JournalKeeper | None) -> EngineJournal | None:
        spec, host = self._spec, self._host
        if spec.options.recovery is not Recovery.REPLAY or not host.keeps_journals:
            return None
        return EngineJournal(spec, self._namespace, host.journal_folder, self._store.ref_types, keeper)

    def _recover(self, journal: EngineJournal) -> None:
        """Make the namespace of the former incarnation again; what that prints has been seen before."""
        self._output.begin(RequestId("", 0))
        self._recovered, taken = journal.recover(self._note_replayed)
        self._stream = InstructionStream(taken)
        self._output.finish()

    def close(self) -> None:
        """Let go of the streams and end the helper threads; for hosts that outlive their engine."""
        self._closed.set()
        self._news.urgent.set()
        self._cell_loop.close()
        self._output.close()

    def handle(self, request: Request, payload: Payload | None) -> tuple[Reply, Payload | None]:
        """Run one request and answer it, whatever happens in it."""
        started = time.time()
        # One step: whoever is told that an abort came too late may be sure that an interrupt does not come too early.
        with self._stream_lock:
            verdict = self._stream.take(request.id, request.stops_seen)
            self.answers.begin(request.id)
            if verdict is Verdict.RUN:
                self._gate.enter(request.id)
                self._running = (request, started)
        nothing = OutputBatch(request.id, self._spec.engine_id, 0, ())
        match verdict:
            case Verdict.REPEATED:
                if known := self.answers.again(request.id):
                    self._news.add(Ended(request, started, time.time(), known[0].outcome))  # perhaps unheard of
                return known or (self._reply(request, Refused(), nothing, started), None)
            case Verdict.ABORTED:
                return self._reply(request, Aborted(), nothing, started), None
            case Verdict.RUN:
                return self._run(request, payload, started)

    def _run(self, request: Request, payload: Payload | None, started: float) -> tuple[Reply, Payload | None]:
        if late := self._output.begin(request.id):
            self._news.add(late)
        number = self._namespace.execution_count
        journal = self._journal
        if journal is not None:
            self._output.note(journal.begin(request, payload))
        if request.limit_s is not None:
            self._deadline = (request.id, time.monotonic() + request.limit_s)
        outcome: Outcome
        result: Payload | None = None
        try:
            value = self._carry_out(request, payload)
            if value is not None:
                result = pack(value, what="the result", ref_types=self._store.ref_types, keep=self._keep)
            outcome = Ok()
        except BaseException as error:
            if self._expired == request.id and request.limit_s is not None and isinstance(error, KeyboardInterrupt):
                outcome = Expired(request.limit_s)
            else:
                outcome = Failed(capture_failure(error, self._spec.engine_id, request.label))
        finally:
            self._gate.leave()
            self._deadline = None
            self._rests_since = time.monotonic()
            self._running = None
        if request.stops_on_error and not isinstance(outcome, Ok):
            with self._stream_lock:
                self._stream.stop(request.id.client)
        if journal is not None:
            self._output.note(journal.end(outcome))
            if journal.ships_before_answers or (journal.ships and isinstance(request.operation, TakeSnapshot)):
                self._output.note(self._ship_journal(journal))
        return self._reply(request, outcome, self._output.finish(), started, number), result

    def _note_replayed(self, entry: Entry, value: Any, error: BaseException | None) -> None:
        """Keep the answer to a request that was run again: its client may not have had the first one."""
        spec, now = self._spec, time.time()
        result = None
        outcome: Outcome = Ok()
        try:
            if error is not None:
                raise error
            if value is not None:
                result = pack(value, what="the result", ref_types=self._store.ref_types)
        except BaseException as failed:
            outcome = Failed(capture_failure(failed, spec.engine_id, Request(entry.request, entry.operation).label))
        nothing = OutputBatch(entry.request, spec.engine_id, 0, ())
        reply = Reply(entry.request, spec.engine_id, spec.incarnation, outcome, nothing, now, now)
        self.answers.keep_replayed(reply, result)

    def _carry_out(self, request: Request, payload: Payload | None) -> Any:
        operation = request.operation
        if isinstance(operation, RunTasks):
            return self._tasks.run(request.id.client, operation, payload)
        if isinstance(operation, Reset):
            self._tasks.forget_functions()
        if not isinstance(operation, TakeSnapshot):
            return self._namespace.run(operation, payload)
        if self._journal is None:
            raise CapabilityError("take a snapshot", "this engine", "start it with recovery='replay'")
        return self._journal.snapshot().left_out

    def _ship_journal(self, journal: EngineJournal) -> str:
        """Send the journal to its keeper; what to tell who waits for that if it fails."""
        try:
            journal.ship()
        except ConnectionLost as lost:
            return f"[nsactors: the journal is not yet on another machine: {lost}]\n"
        return ""

    def _keep(self, name: str, value: Any) -> RemoteValue:
        assert self._running is not None, "values are kept for a request"
        payload = pack(value, what=repr(name), ref_types=self._store.ref_types)
        call = self._running[0].label
        type_name = _qualified_name(type(value))
        return RemoteValue(self._store.put(payload), name, self._spec.engine_id, call, type_name, payload.nbytes)

    def _reply(
        self, request: Request, outcome: Outcome, tail: OutputBatch, started: float, number: int | None = None
    ) -> Reply:
        completed = time.time()
        self._news.add(Ended(request, started, completed, outcome))
        spec = self._spec
        count = number if isinstance(request.operation, Execute) else None
        return Reply(request.id, spec.engine_id, spec.incarnation, outcome, tail, started, completed, count)

    def _make_shell(self, names: dict[str, Any]) -> Any:
        return self._host.make_shell(self._spec.engine_id, names, self._output, self._cell_loop)

    def _follow_commands(self) -> None:
        spec = self._spec
        info = EngineInfo.of(spec, os.getpid(), socket.gethostname(), self._host.output_path, self._recovered)
        reason = f"engine {spec.engine_id} was asked to end"
        try:
            if not _patiently(self._closed, self._port.register, info):
                return self._end("nobody wants this engine any more")
            if self._journal is not None:
                self._journal.settled(self._closed)
            self._host.warm_up()
            while not self._closed.is_set():
                commands = _patiently(self._closed, self._port.poll, spec.engine_id, spec.incarnation)
                if commands is None:
                    break
                for command in commands:
                    try:
                        self._obey(command)
                    except Exception:  # none may end this thread: the engine would be deaf for good
                        traceback.print_exc()
        except ConnectionLost as lost:
            # Without its controller nobody could find or stop it: an orphan on somebody's cores.
            reason = f"engine {spec.engine_id} ends: {lost}"
        self._end(reason)

    def _end(self, reason: str) -> None:
        # Whoever ends an engine, or its cluster, is about to kill this process. Ray tells of one that ends by itself.
        self._closed.wait(END_GRACE_S)
        self._closed.set()
        self._host.exit(reason)

    def _obey(self, command: Command) -> None:
        match command:
            case Interrupt(requests):
                running = self._running
                if running is not None and (requests is None or running[0].id in requests):
                    self._gate.interrupt(self._tasks.current or running[0].id)
            case InterruptTasks(client, spans):
                self._tasks.interrupt(client, spans)
            case Signal(number):
                self._host.signal(number)
            case Presence(client, here):
                self.answers.note_presence(client, here=here)
            case Ask(ticket, question):
                self._news.add(self._questions.answer(ticket, question))

    def _rests_s(self) -> float:
        return 0.0 if self._running else time.monotonic() - self._rests_since

    def _ship(self) -> None:
        while not self._closed.is_set():
            self._news.urgent.wait(SHIP_IDLE_S if self._running is None else SHIP_BUSY_S)
            self._end_overdue()
            self._tasks.end_overdue()
            try:
                self._ship_once()
            except Exception:  # nothing may end this thread: no output would come any more, and no time limit hold
                traceback.print_exc()

    def _end_overdue(self) -> None:
        deadline = self._deadline
        if deadline is not None and time.monotonic() >= deadline[1]:
            self._deadline = None
            self._expired = deadline[0]
            self._gate.interrupt(deadline[0])

    def _ship_once(self) -> None:
        # Endings of short requests can wait for a while: a report takes the controller as long as a call.
        self._round += 1
        due = self._round % ENDINGS_EVERY == 0 or self._news.urgent.is_set()
        running = self._running
        if running is not None and running[0].id != self._announced and time.time() - running[1] > SHIP_BUSY_S:
            due = True
            self._announced = running[0].id
            self._news.add(begun_entry(running[0], self._spec.engine_id, running[1]))
        batch = self._output.take()
        if batch:
            self._news.add(batch)
        elif not due:
            return
        report = self._news.take(self._spec.engine_id)
        if report == Report():
            return
        try:
            receipt = self._port.report(self._spec.engine_id, self._spec.incarnation, report)
        except ConnectionLost:
            return  # the command thread sees it too and ends the engine; the output is in the reply's tail
        before, self._reported_to = self._reported_to, receipt.controller
        if before not in (None, receipt.controller):
            self._output.take_again()  # what that one had not delivered went with it
        elif batch and receipt.delivered:
            self._output.acknowledge(batch)


def _qualified_name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _patiently(closed: threading.Event, call: Callable[..., T], *args: Any) -> T:
    """Call the controller, again and again while it is silent: it may be busy, or its machine asleep."""
    give_up = time.monotonic() + ORPHAN_AFTER_S
    while True:
        try:
            return call(*args)
        except ClusterUnreachable:
            if time.monotonic() > give_up:
                raise
            closed.wait(RETRY_S)
