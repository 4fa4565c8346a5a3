"""The engine's half of the debugger: kept failures, requests that stop at breakpoints, and the sessions of clients.

A session consists of queries from the client and their replies; no port is opened.
"""

from __future__ import annotations

import bdb
import itertools
import linecache
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import field, replace
from functools import partial
from types import FrameType, TracebackType

from nsactors._frozen import frozen
from nsactors.errors import Failure
from nsactors.errors.exception_state import name_of, text_of, traceback_of
from nsactors.errors.failure import lines_of
from nsactors.inside.debug_commands import FrameViewer, StopDebugger, place_of
from nsactors.inside.debug_conversation import LEASE_S, Clock, Conversation, Hold, Reply, StopConversation
from nsactors.namespace.debuggers import DebuggerBypass
from nsactors.namespace.interrupts import protected
from nsactors.protocol.control import (
    DebugClaim,
    DebugForget,
    DebugInterrupt,
    DebugLine,
    DebugOpen,
    DebugQuery,
    DebugSay,
    DebugSource,
    DebugState,
    DebugStops,
    DebugTake,
    QueryReply,
    Stop,
)
from nsactors.protocol.messages import EngineRequest

KEPT_S = 600.0
KEPT_CLIENTS = 4
MAX_SESSIONS = 8
TITLE_CHARS = 200
ABSENT_CLIENTS = 100
NEWLINE = "\n"

Running = Callable[[], EngineRequest | None]


@frozen
class KeptFailure:
    """The frames of a failure, for the debugger.

    Attributes:
        name: the name that the client knows from ``Failure.kept``.
        client: the client whose request failed.
        title: the failure in one line.
        traceback: its frames, from the user's first one on.
        sources: the source code of the cells in the frames, by file name; it is kept here because the shell may drop
            it when other cells run.
        kept_at: the time, in seconds.
    """

    name: str
    client: str
    title: str
    traceback: TracebackType = field(repr=False)
    sources: dict[str, list[str]] = field(repr=False)
    kept_at: float


class KeptFailures:
    """Keeps the last failure of each client.

    Failures of only a few clients are kept, for a few minutes, since frames keep the objects in them alive.

    Any thread may call the methods. Failures are released outside the lock, because that may run the user's code.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, KeptFailure] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, failure: KeptFailure) -> None:
        """Keep a failure in place of the earlier one of its client."""
        with self._lock:
            released = [self._kept.pop(failure.client, None)]
            self._kept[failure.client] = failure
            if len(self._kept) > KEPT_CLIENTS:
                released.append(self._kept.pop(next(iter(self._kept))))
        released.clear()

    def find(self, client: str, names: Iterable[str] = ()) -> KeptFailure | None:
        """Return the failure of a client; with names, only if it has one of them."""
        kept, names = self._kept.get(client), tuple(names)
        return kept if kept is not None and (not names or kept.name in names) else None

    def forget(self, client: str | None = None) -> bool:
        """Release the failure of a client, or of all clients; return whether there was one."""
        with self._lock:
            released = self._kept
            if client is None:
                self._kept = {}
            else:
                released = {client: self._kept.pop(client)} if client in self._kept else {}
        return bool(released)

    def expire(self, now: float) -> None:
        """Release the failures that have been kept for long enough."""
        with self._lock:
            old = [client for client, kept in self._kept.items() if now - kept.kept_at > KEPT_S]
            released = [self._kept.pop(client) for client in old]
        released.clear()


def _hold_nothing(*, held: bool) -> None:
    """Stop no clock."""


class DebugSessions:
    """The debugger sessions of an engine, and the failures that it keeps for them.

    Args:
        engine_id: the engine.
        incarnation: the incarnation of the engine.
        reply: sends a query's reply.
        shares_process: whether the client is in this process.
        breaks: whether requests stop at breakpoints.
        clock: returns seconds.
    """

    def __init__(
        self,
        engine_id: int,
        incarnation: int,
        reply: Reply,
        *,
        shares_process: bool,
        breaks: bool = True,
        clock: Clock = time.monotonic,
    ) -> None:
        self._engine_id = engine_id
        self._incarnation = incarnation
        self._reply = reply
        self._shares_process = shares_process
        self._breaks = breaks
        self._clock = clock
        self._numbers = itertools.count(1)
        self._sessions: dict[str, Conversation] = {}
        self._viewers: dict[str, FrameViewer] = {}
        self.failures = KeptFailures()
        self.stopped: StopDebugger | None = None  # of the running request
        self._absent: dict[str, None] = {}
        self._running: Running = lambda: None
        self._interrupt_request: Callable[[], object] = lambda: None
        self._hold: Hold = _hold_nothing
        self._thread = threading.get_ident()

    # The thread that runs requests.

    def take_breakpoints(self, running: Running, hold: Hold, interrupt: Callable[[], object]) -> None:
        """Stop at breakpoints of this thread from now on.

        Args:
            running: returns the running request.
            hold: stops the clocks of time limits.
            interrupt: raises KeyboardInterrupt in the running request, unless that is at a debugger's prompt; called on
                the control thread.
        """
        self._running, self._hold, self._interrupt_request = running, hold, interrupt
        if (bypass := DebuggerBypass.here()) is not None:
            bypass.stop = self.stop

    @protected
    def stop(self, frame: FrameType) -> str:
        """Stop in a frame until the client lets it go on; return the reason if that is not possible.

        Do nothing if the request is to ignore breakpoints.
        """
        while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("nsactors."):
            frame = frame.f_back  # as of the function that replaces Ray's debugger, and calls breakpoint()
        request = self._running()
        if not self._breaks or (request is not None and not request.breaks):
            return ""
        if threading.get_ident() != self._thread:
            return "only the thread that runs requests can stop"
        if request is None:
            return "no request runs"
        client = request.id.client
        if not request.debugs:
            return "its client has no prompt"
        if client in self._absent:
            return "its client has left"
        if self.stopped is None:
            conversation = self._converse(client, place_of(frame, frame.f_lineno))
            try:
                self.stopped = StopDebugger(partial(self._converse, client), conversation)
            except BaseException:  # as at the limit of recursion
                conversation.end()
                raise
        elif self.stopped.is_at_work:
            return "it was called at the debugger's prompt"
        self.stopped.stop_at(frame)
        return ""

    def end_request(self) -> bool:
        """End the debugger of the request that has ended; return whether its variables may have been changed there."""
        stopped, self.stopped = self.stopped, None
        if stopped is None:
            return False
        stopped.finish()
        return stopped.edits

    def _converse(self, client: str, where: str) -> StopConversation:
        conversation = StopConversation(self._engine_id, where, client, self._reply, self._clock, self._hold)
        self._sessions[conversation.session] = conversation
        return conversation

    def keep(self, failure: Failure, error: BaseException, client: str) -> Failure:
        """Keep the frames of an error for its client; return its description with the name under which they are kept.

        MemoryError is not kept: its frames would keep the objects that filled the memory. Neither is an error of a
        client that has left.
        """
        traceback = traceback_of(error)
        if traceback is None or issubclass(type(error), MemoryError):
            return failure
        _clear_callers(traceback.tb_frame)
        name = f"{client}#{self._incarnation}.{next(self._numbers)}"
        title = f"{failure.summary.partition(NEWLINE)[0][:TITLE_CHARS]} ({failure.call})"
        self.failures.keep(KeptFailure(name, client, title, traceback, _sources(traceback), self._clock()))
        if client in self._absent:  # looked up last, because the client may be leaving
            self.failures.forget(client)
            return failure
        return replace(failure, kept=name)

    # The control thread.

    def answer(self, query_id: int, query: DebugQuery) -> None:
        """Reply to a query: at once, or when the debugger has executed the line that the query brings."""
        try:
            match query:
                case DebugOpen(client, failures):
                    self._open(query_id, client, failures.get(self._engine_id, ()))
                case DebugSay(lines):
                    self._say(query_id, lines[self._engine_id])
                case DebugClaim(sessions, here):
                    for conversation in self._chosen(sessions):
                        if here:
                            conversation.claim()
                        else:
                            self._end(conversation, "its client has left it")
                    alive = frozenset(conversation.session for conversation in self._chosen(sessions))
                    self._reply(QueryReply(query_id, alive))
                case DebugInterrupt(sessions):
                    for conversation in self._chosen(sessions):
                        self._interrupt(conversation)
                    self._reply(QueryReply(query_id, None))
                case DebugSource(sources):
                    for name, text in sources.items():
                        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
                    self._reply(QueryReply(query_id, None))
                case DebugTake(client):
                    self._take(query_id, client)
                case DebugStops():
                    self._reply(QueryReply(query_id, self._stop()))
                case DebugForget(client):
                    self._reply(QueryReply(query_id, self.failures.forget(client)))
        except Exception as error:
            self._reply(QueryReply(query_id, None, f"{type(error).__name__}: {error}"))

    def quit_prompt(self) -> bool:
        """End the running request with KeyboardInterrupt if it waits at a debugger's prompt; return whether it did."""
        stopped = self.stopped
        return stopped is not None and stopped.conversation.end_prompt("_interrupt\n")

    def is_at_prompt(self) -> bool:
        """Return whether the running request waits at a debugger's prompt."""
        stopped = self.stopped
        return stopped is not None and stopped.conversation.at_prompt

    def _stop(self) -> Stop | None:
        conversation = None if self.stopped is None else self.stopped.conversation
        if not isinstance(conversation, StopConversation) or conversation.ended:
            return None
        return Stop(conversation.where, conversation.client, self._clock() - conversation.began)

    def client_came(self, client: str) -> None:
        """Record that a client is connected."""
        self._absent.pop(client, None)

    def client_left(self, client: str) -> None:
        """End the sessions of a client, and release its failure."""
        self._absent[client] = None
        if len(self._absent) > ABSENT_CLIENTS:
            del self._absent[next(iter(self._absent))]
        self.failures.forget(client)
        for conversation in list(self._sessions.values()):
            if conversation.client == client:
                self._end(conversation, "its client has left")

    def close(self) -> None:
        """End all sessions, and release all failures: the engine ends."""
        self.failures.forget()
        for conversation in list(self._sessions.values()):
            self._end(conversation, "the engine has ended")

    def look(self) -> None:
        """Release failures and sessions whose time is over; call this at least every few seconds."""
        if not self.failures and not self._sessions:
            return
        now = self._clock()
        self.failures.expire(now)
        for session, conversation in list(self._sessions.items()):
            if conversation.is_abandoned and not conversation.at_prompt and not conversation.lost:
                self._end(conversation, "its client does not answer")
            elif conversation.ended and now - conversation.ended_at > LEASE_S:
                self._sessions.pop(session, None)

    def _chosen(self, sessions: Iterable[str]) -> list[Conversation]:
        found = (self._sessions.get(session) for session in sessions)
        return [conversation for conversation in found if conversation is not None and not conversation.ended]

    def _open(self, query_id: int, client: str, names: Iterable[str]) -> None:
        kept = self.failures.find(client, names)
        if kept is None:
            self._reply(QueryReply(query_id, None))
            return
        if sum(not conversation.ended for conversation in self._sessions.values()) >= MAX_SESSIONS:
            self._reply(QueryReply(query_id, None, f"{MAX_SESSIONS} debuggers are open on this engine already"))
            return
        conversation = Conversation(client, self._reply, "quit\n", self._clock)
        self._sessions[conversation.session] = conversation
        conversation.await_first(query_id)
        # The debugger has its own thread: evaluation may take any time, and neither requests nor queries must wait.
        name = f"engine-{self._engine_id}-debugger"
        try:
            threading.Thread(target=self._look_at, args=(conversation, kept), name=name, daemon=True).start()
        except RuntimeError:  # there are too many threads; the query is replied to with this error
            del self._sessions[conversation.session]
            raise

    def _take(self, query_id: int, client: str) -> None:
        if (stop := self._stop()) is None:
            self._reply(QueryReply(query_id, None))
            return
        assert self.stopped is not None, "it is stopped"
        conversation = self.stopped.conversation
        assert isinstance(conversation, StopConversation), "a stopped request has a conversation at a breakpoint"
        if not conversation.at_prompt:
            self._reply(QueryReply(query_id, None, f"its debugger carries out a command of {stop.client}"))
            return
        self._sessions.pop(conversation.session, None)
        conversation.hand_over(client, query_id)
        self._sessions[conversation.session] = conversation

    def _say(self, query_id: int, line: DebugLine) -> None:
        conversation = self._sessions.get(line.session)
        if conversation is None:  # it is of an earlier process, or has ended long ago
            self._reply(
                QueryReply(query_id, DebugState(line.session, line.number, "*** this debugger has ended\n", ended=True))
            )
        else:
            conversation.say(query_id, line)

    def _look_at(self, conversation: Conversation, kept: KeptFailure) -> None:
        # In a process that the client shares, the bypass is for this thread alone: other threads are the client's.
        bypass = DebuggerBypass(threading.get_ident()) if self._shares_process else None
        added = [name for name in kept.sources if name not in linecache.cache]
        for name in added:
            lines = kept.sources[name]
            linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
        try:
            viewer = self._viewers[conversation.session] = FrameViewer(conversation, kept.title)
            viewer.reset()
            viewer.interaction(None, kept.traceback)
        except bdb.BdbQuit:
            pass
        except BaseException as error:  # nothing else would tell the client
            conversation.write(f"*** the debugger has failed: {name_of(type(error))}: {text_of(error)}\n")
        finally:
            self._viewers.pop(conversation.session, None)
            for name in added:
                linecache.cache.pop(name, None)
            if bypass is not None:
                bypass.close()
            conversation.describe = lambda: ("", ())
            conversation.end()  # last: when the client hears of it, nothing is left

    def _end(self, conversation: Conversation, why: str) -> None:
        if conversation.ended:  # the thread of requests may run something else by now
            return
        is_busy = not conversation.let_go(why)
        if isinstance(conversation, StopConversation):
            # Only a command typed at the prompt is interrupted. The request's own code goes on, even in a long step.
            is_busy = is_busy and self.stopped is not None and self.stopped.is_at_work
        if is_busy:
            self._interrupt(conversation)

    def _interrupt(self, conversation: Conversation) -> None:
        if isinstance(conversation, StopConversation):
            if not conversation.at_prompt:
                self._interrupt_request()
            return
        viewer = self._viewers.get(conversation.session)
        if viewer is not None:
            viewer.interrupt()


def _clear_callers(first: FrameType) -> None:
    """Release the local variables of the machinery that called user code.

    These variables refer to the error and to the whole request. With them, the error would be part of a reference
    cycle, and its frames would live on after their release until a garbage collection.
    """
    frame = first.f_back
    while frame is not None:
        try:
            frame.clear()
        except RuntimeError:  # the frame runs, and so do all frames further out
            return
        frame = frame.f_back


def _sources(traceback: TracebackType) -> dict[str, list[str]]:
    """Return the source code of the cells in a traceback."""
    sources: dict[str, list[str]] = {}
    at: TracebackType | None = traceback
    while at is not None:
        name = at.tb_frame.f_code.co_filename
        if name.startswith("<") and name not in sources and (lines := lines_of(name)):
            sources[name] = lines
        at = at.tb_next
    return sources
