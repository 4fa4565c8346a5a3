"""The engine's half of the debugger: kept failures, stops at breakpoints, and the queries of clients about both.

A session consists of queries from the client and their replies; no port is opened.
"""

from __future__ import annotations

import bdb
import linecache
import threading
import time
from collections.abc import Iterable

from nsactors.errors.exception_state import name_of, text_of
from nsactors.inside.breakpoint_stops import BreakpointStops, RequestControl, Sessions
from nsactors.inside.debug_commands import FrameViewer
from nsactors.inside.debug_conversation import LEASE_S, Clock, Conversation, Reply, StopConversation
from nsactors.inside.kept_failures import AbsentClients, KeptFailure, KeptFailures
from nsactors.namespace.debuggers import DebuggerBypass
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

MAX_SESSIONS = 8


class EngineDebugger:
    """The debugger of an engine: replies to the queries of clients, and has the parts that other threads use.

    Three kinds of threads take part: the thread that runs requests makes this object and stops at breakpoints, the
    control thread calls the methods of this class, and each debugger of a kept failure has a thread of its own.

    Args:
        engine_id: the engine.
        incarnation: the number of the engine's process; it grows with each restart.
        reply: sends a query's reply.
        request: finds and controls the running request.
        shares_process: whether the client is in this process.
        breaks: whether requests stop at breakpoints.
        clock: returns seconds.

    Attributes:
        failures: the kept failures, for any thread.
        stops: the stops at breakpoints, for the thread that runs requests.
    """

    def __init__(
        self,
        engine_id: int,
        incarnation: int,
        reply: Reply,
        request: RequestControl,
        *,
        shares_process: bool,
        breaks: bool = True,
        clock: Clock = time.monotonic,
    ) -> None:
        self._engine_id = engine_id
        self._reply = reply
        self._request = request
        self._clock = clock
        self._sessions: Sessions = {}
        self._absent = absent = AbsentClients()
        self._viewers = FailureViewers(engine_id, shares_process=shares_process)
        self.failures = KeptFailures(incarnation, absent, clock)
        self.stops = BreakpointStops(engine_id, reply, request, self._sessions, absent, breaks=breaks, clock=clock)

    def answer(self, query_id: int, query: DebugQuery) -> None:
        """Reply to a query: at once, or when the debugger has executed the line that the query brings."""
        try:
            match query:
                case DebugOpen(client, failures):
                    self._open(query_id, client, failures.get(self._engine_id, ()))
                case DebugSay(lines):
                    self._say(query_id, lines[self._engine_id])
                case DebugClaim(sessions, here):
                    for conversation in self._alive(sessions):
                        if here:
                            conversation.claim()
                        else:
                            self._end(conversation, "its client has left it")
                    alive = frozenset(conversation.session for conversation in self._alive(sessions))
                    self._reply(QueryReply(query_id, alive))
                case DebugInterrupt(sessions):
                    for conversation in self._alive(sessions):
                        self._interrupt(conversation)
                    self._reply(QueryReply(query_id, None))
                case DebugSource(sources):
                    for name, text in sources.items():
                        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
                    self._reply(QueryReply(query_id, None))
                case DebugTake(client):
                    self._take(query_id, client)
                case DebugStops():
                    self._reply(QueryReply(query_id, self._present_stop()))
                case DebugForget(client):
                    self._reply(QueryReply(query_id, self.failures.forget(client)))
        except Exception as error:
            self._reply(QueryReply(query_id, None, f"{type(error).__name__}: {error}"))

    def client_came(self, client: str) -> None:
        """Record that a client is connected."""
        self._absent.discard(client)

    def client_left(self, client: str) -> None:
        """End the sessions of a client, and release its failure."""
        self._absent.add(client)
        self.failures.forget(client)
        for conversation in list(self._sessions.values()):
            if conversation.client == client:
                self._end(conversation, "its client has left")

    def close(self) -> None:
        """End all sessions, and release all failures: the engine ends."""
        self.failures.forget()
        for conversation in list(self._sessions.values()):
            self._end(conversation, "the engine has ended")

    def expire(self) -> None:
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

    def _alive(self, sessions: Iterable[str]) -> list[Conversation]:
        """Return those of some sessions that have not ended."""
        found = (self._sessions.get(session) for session in sessions)
        return [conversation for conversation in found if conversation is not None and not conversation.ended]

    def _open(self, query_id: int, client: str, names: Iterable[str]) -> None:
        """Begin a session with the kept failure of a client."""
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
        try:
            self._viewers.start(conversation, kept)
        except RuntimeError:  # there are too many threads; the query is replied to with this error
            del self._sessions[conversation.session]
            raise

    def _present_stop(self) -> Stop | None:
        """Return the place where the running request has stopped, its client, and since when."""
        if (conversation := self.stops.conversation) is None:
            return None
        return Stop(conversation.where, conversation.client, self._clock() - conversation.began)

    def _take(self, query_id: int, client: str) -> None:
        """Let a client take over the debugger of the running request."""
        if (conversation := self.stops.conversation) is None:
            self._reply(QueryReply(query_id, None))
        elif not conversation.at_prompt:
            problem = f"its debugger carries out a command of {conversation.client}"
            self._reply(QueryReply(query_id, None, problem))
        else:
            self._sessions.pop(conversation.session, None)
            conversation.hand_over(client, query_id)
            self._sessions[conversation.session] = conversation

    def _say(self, query_id: int, line: DebugLine) -> None:
        """Pass a line of a client to its session."""
        conversation = self._sessions.get(line.session)
        if conversation is None:  # it belonged to an earlier process of this engine, or ended long ago
            self._reply(
                QueryReply(query_id, DebugState(line.session, line.number, "*** this debugger has ended\n", ended=True))
            )
        else:
            conversation.say(query_id, line)

    def _end(self, conversation: Conversation, reason: str) -> None:
        """End a session whose client does not end it."""
        if conversation.ended:  # the thread of requests may run something else by now
            return
        is_busy = not conversation.let_go(reason)
        if isinstance(conversation, StopConversation):
            # Only a command typed at the prompt is interrupted. The request's own code goes on, even in a long step.
            is_busy = is_busy and self.stops.is_at_work()
        if is_busy:
            self._interrupt(conversation)

    def _interrupt(self, conversation: Conversation) -> None:
        """Interrupt the command that the debugger of a session carries out."""
        if not isinstance(conversation, StopConversation):
            self._viewers.interrupt(conversation.session)
        elif not conversation.at_prompt:
            self._request.interrupt()


class FailureViewers:
    """The debuggers of kept failures, each on a thread of its own.

    An evaluation may take any time, and neither requests nor queries must wait for it.

    Args:
        engine_id: the engine.
        shares_process: whether the client is in this process.
    """

    def __init__(self, engine_id: int, *, shares_process: bool) -> None:
        self._engine_id = engine_id
        self._shares_process = shares_process
        self._viewers: dict[str, FrameViewer] = {}  # by session

    # Methods for the control thread.

    def start(self, conversation: Conversation, kept: KeptFailure) -> None:
        """Start a debugger of a failure; it runs until the conversation ends.

        Raises:
            RuntimeError: if there are too many threads.
        """
        name = f"engine-{self._engine_id}-debugger"
        threading.Thread(target=self._run, args=(conversation, kept), name=name, daemon=True).start()

    def interrupt(self, session: str) -> None:
        """Raise KeyboardInterrupt in the command that the debugger of a session carries out, if it does."""
        viewer = self._viewers.get(session)
        if viewer is not None:
            viewer.interrupt()

    # The body of a debugger's thread.

    def _run(self, conversation: Conversation, kept: KeptFailure) -> None:
        # Code that is evaluated here skips breakpoints, and cannot read a keyboard. In a process of its own, an engine
        # has arranged this for all threads. In the client's process, the other threads belong to the client.
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
            conversation.end()  # last, so that everything is cleaned up before the client learns of the end
