"""The conversation of a client with a debugger on an engine: lines, and the text that the debugger writes.

The client sends a line as a query, the engine's control thread hands the line to the thread of the debugger, and the
reply is sent when the debugger asks for its next line. While the client writes a line, only the thread of the debugger
waits.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Protocol

from nsactors.namespace.interrupts import protected
from nsactors.protocol.control import DebugLine, DebugState, EngineResumed, EngineStopped, QueryReply

LEASE_S = 15.0  # a client claims its sessions every few seconds
CLAIM_S = 10.0  # for the client to claim a session at a breakpoint
TEXT_CHARS = 1_000_000

Clock = Callable[[], float]
Reply = Callable[[QueryReply | EngineStopped | EngineResumed], object]


class Hold(Protocol):
    """Stops the clocks of time limits, or lets them go on."""

    def __call__(self, *, held: bool) -> None:
        """Stop the clocks while ``held``."""
        ...


class _BoundedText(list[str]):
    """The text that a command has written; characters beyond a limit are counted and dropped."""

    def __init__(self) -> None:
        super().__init__()
        self._room = TEXT_CHARS
        self._left_out = 0

    def append(self, text: str) -> None:
        if len(text) <= self._room:
            super().append(text)
            self._room -= len(text)
            return
        super().append(text[: self._room])
        self._left_out += len(text) - self._room
        self._room = 0

    def take(self) -> str:
        """Remove and return the text."""
        text = "".join(self)
        if self._left_out:
            text += f"\n... ({self._left_out} more characters)\n"
        self.clear()
        self._room, self._left_out = TEXT_CHARS, 0
        return text


class Conversation:
    """The lines of a client for one debugger, and the replies to them: the debugger's standard input and output.

    The debugger's thread calls :meth:`readline` and :meth:`write`, the control thread all other methods.

    Args:
        client: the client that may talk.
        reply: sends a query's reply.
        last_line: the line that lets the debugger end.
        clock: returns seconds.
        hold: at a breakpoint, stops the clocks of the request's time limits during a prompt; None elsewhere.

    Attributes:
        session: the name of the session.
        client: the client.
        describe: returns the place of the current frame, and the names of source files that are missing.
        at_prompt: whether the debugger waits for a line.
        ended: whether the debugger has ended.
        ended_at: the time of its end.
        lost: the reason if the engine has ended the debugger; empty if the client has.
    """

    def __init__(
        self,
        client: str,
        reply: Reply,
        last_line: str,
        clock: Clock = time.monotonic,
        hold: Hold | None = None,
    ) -> None:
        self._hold = hold
        self.session = uuid.uuid4().hex
        self.client = client
        self.describe: Callable[[], tuple[str, tuple[str, ...]]] = lambda: ("", ())
        self.text = _BoundedText()
        self.at_prompt = self.ended = False
        self.ended_at = 0.0
        self.lost = ""
        self._reply = reply
        self._last_line = last_line
        self._clock = clock
        self._lock = threading.Condition()  # notified when there is a line
        self._lines: deque[str] = deque()
        self._final = ""  # the last line; the debugger gets it before all other lines
        self._number = self._handed_over = 0  # lines that have arrived; lines that the debugger has taken
        self._state: DebugState | None = None
        self._query_id: int | None = None
        self._lease_until = clock() + LEASE_S

    # Methods for the debugger's thread.

    def write(self, text: str) -> int:
        """Add text to the reply to the present line."""
        self.text.append(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: the text is sent when the debugger asks for a line."""

    @protected
    def readline(self) -> str:
        """Reply to the present line, and wait for the next one; if the client has gone, return ``last_line``."""
        if self.ended:  # the client knows, and sends no more lines
            return self._last_line
        where, missing = self.describe()
        with self._lock:
            done = self._handed_over
            text, missing = self.text.take(), () if done else missing
            self._state = DebugState(self.session, done, text, False, where, missing, self._hold is not None)
            self._send_state()
            self.at_prompt = True
        if self._hold is not None:
            self._hold(held=True)
        try:
            return self._take_line()
        finally:
            self.at_prompt = False
            if self._hold is not None:
                self._hold(held=False)

    def _take_line(self) -> str:
        with self._lock:
            while not self._lines and not self._final:
                left_s = self._lease_until - self._clock()
                if left_s <= 0:
                    self.lost, self._final = "its client does not answer", self._last_line
                else:
                    self._lock.wait(left_s)
            # The lock is held, so the control thread sees either a debugger that waits, or one that has taken a line.
            self.at_prompt = False
            if self._final:
                return self._final
            self._handed_over += 1
            return self._lines.popleft()

    @protected
    def end(self) -> None:
        """Reply to the present line for the last time."""
        with self._lock:
            self.ended, self.ended_at = True, self._clock()
            text = self.text.take()
            if self.lost:  # for a client that comes back
                text += f"*** this debugger has ended: {self.lost}\n"
            self._state = DebugState(self.session, self._number, text, ended=True)
            self._send_state()

    # Methods for the control thread.

    def await_first(self, query_id: int) -> None:
        """Let the first state be the reply to a query."""
        with self._lock:
            self._query_id = query_id
            self._send_state()

    def say(self, query_id: int, line: DebugLine) -> None:
        """Take a line, unless it is repeated, and let the debugger's next state be the reply to a query."""
        with self._lock:
            self._lease_until = self._clock() + LEASE_S
            if line.number < self._number:  # a repeated message that came late
                self._reply(QueryReply(query_id, None))
                return
            if line.text is not None and line.number == self._number + 1 and not self.ended:
                self._number = line.number
                self._lines.append(line.text.replace("\n", " ") + "\n")
                self._lock.notify()
            self._query_id = query_id
            self._send_state()

    def claim(self) -> None:
        """Prolong the lease."""
        self._lease_until = self._clock() + LEASE_S

    @property
    def is_abandoned(self) -> bool:
        """True if the client has neither said anything nor claimed the session for too long."""
        return not self.ended and self._clock() >= self._lease_until

    def end_prompt(self, line: str) -> bool:
        """If the debugger waits for a line, make ``line`` its last one; return whether the debugger takes this line.

        A line from the client that has arrived, but that the debugger has not taken yet, is dropped.
        """
        with self._lock:
            if self.at_prompt:
                self._final = self._final or line
                self._lock.notify()
            return self.at_prompt and self._final == line

    def let_go(self, why: str) -> bool:
        """End the debugger, when its present command is done; return whether it waits for a line."""
        with self._lock:
            self.lost = self.lost or why
            self._final = self._final or self._last_line
            self._lock.notify()
            return self.at_prompt

    def _send_state(self) -> None:
        state = self._state
        if self._query_id is not None and state is not None and (state.ended or state.number == self._number):
            self._reply(QueryReply(self._query_id, state))
            self._query_id = None


class StopConversation(Conversation):
    """A conversation at a breakpoint. The client gets an event when it begins (see :meth:`announce`) and ends."""

    def __init__(self, engine_id: int, where: str, client: str, reply: Reply, clock: Clock, hold: Hold) -> None:
        super().__init__(client, reply, "continue\n", clock, hold)
        self.where = where
        self.began = clock()
        self._lease_until = self.began + CLAIM_S
        self._stopped = EngineStopped(engine_id, self.session, client, where)
        self._resumed = EngineResumed(engine_id, self.session, client)
        self._is_announced = False

    def hand_over(self, client: str, query_id: int) -> None:
        """Let another client talk from now on, and reply to its query. The debugger must be at its prompt.

        The conversation gets another name, so that a late line of the first client does nothing.
        """
        self._reply(self._resumed)
        with self._lock:
            self.client, self.session = client, uuid.uuid4().hex
            self._resumed = EngineResumed(self._stopped.engine_id, self.session, client)
            self._lease_until = self._clock() + LEASE_S
            where, missing = self.describe()
            self._state = DebugState(
                self.session, self._number, f"{where}\n", False, where, missing, at_breakpoint=True
            )
            self._query_id = query_id
            self._send_state()

    def announce(self) -> None:
        """Tell the client once that the code has stopped; from here on, queries about this session may come."""
        if not self._is_announced:
            self._is_announced = True
            self._reply(self._stopped)

    @protected
    def end(self) -> None:
        """Reply to the present line for the last time, and tell the client that the code goes on."""
        super().end()
        if self._is_announced:
            self._reply(self._resumed)
