"""Stops of requests at breakpoints: the part of the debugger that runs on the thread of requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType

from nsactors._frozen import frozen
from nsactors.inside.debug_commands import StopDebugger, place_of
from nsactors.inside.debug_conversation import Clock, Conversation, Hold, Reply, StopConversation
from nsactors.inside.kept_failures import AbsentClients
from nsactors.namespace.debuggers import DebuggerBypass
from nsactors.namespace.interrupts import protected
from nsactors.protocol.messages import EngineRequest

Sessions = dict[str, Conversation]
"""The conversations of an engine's debuggers, by the name of their session. Threads change it without a lock."""


@frozen
class RequestControl:
    """The functions of an engine by which the debugger finds and controls the running request.

    Attributes:
        running: returns the running request.
        hold: stops the clocks of time limits, or lets them go on.
        interrupt: raises KeyboardInterrupt in the running request, unless the request waits at a debugger's prompt;
            called on the control thread.
    """

    running: Callable[[], EngineRequest | None]
    hold: Hold
    interrupt: Callable[[], object]


class BreakpointStops:
    """Stops requests at breakpoints of the thread that makes this object.

    Args:
        engine_id: the engine.
        reply: sends a query's reply.
        request: finds and controls the running request.
        sessions: the sessions of the engine; each stop adds one.
        absent: the clients that have left; their requests do not stop.
        breaks: whether requests stop at breakpoints.
        clock: returns seconds.

    Attributes:
        debugger: the debugger of the running request; None if the request has not stopped yet.
    """

    def __init__(
        self,
        engine_id: int,
        reply: Reply,
        request: RequestControl,
        sessions: Sessions,
        absent: AbsentClients,
        *,
        breaks: bool = True,
        clock: Clock = time.monotonic,
    ) -> None:
        self._engine_id = engine_id
        self._reply = reply
        self._request = request
        self._sessions = sessions
        self._absent = absent
        self._breaks = breaks
        self._clock = clock
        self._thread = threading.get_ident()
        self.debugger: StopDebugger | None = None
        if (bypass := DebuggerBypass.here()) is not None:
            bypass.stop = self.stop

    # Methods for the thread that runs requests.

    @protected
    def stop(self, frame: FrameType) -> str:
        """Stop in a frame until the client lets it go on; return the reason if that is not possible.

        Do nothing if the request is to ignore breakpoints.
        """
        # Skip frames of nsactors, such as that of the function that replaces Ray's debugger and calls breakpoint().
        while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("nsactors."):
            frame = frame.f_back
        request = self._request.running()
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
        if self.debugger is None:
            conversation = self._converse(client, place_of(frame, frame.f_lineno))
            try:
                self.debugger = StopDebugger(partial(self._converse, client), conversation)
            except BaseException:  # for example RecursionError
                conversation.end()
                raise
        elif self.debugger.is_at_work:
            return "it was called at the debugger's prompt"
        self.debugger.stop_at(frame)
        return ""

    def end_request(self) -> bool:
        """End the debugger of the request that has ended.

        Returns:
            Whether the user may have changed the request's variables in the debugger.
        """
        debugger, self.debugger = self.debugger, None
        if debugger is None:
            return False
        debugger.finish()
        return debugger.edits

    def _converse(self, client: str, where: str) -> StopConversation:
        conversation = StopConversation(self._engine_id, where, client, self._reply, self._clock, self._request.hold)
        self._sessions[conversation.session] = conversation
        return conversation

    # Methods for any thread. They read ``debugger`` once, because the request may end meanwhile.

    @property
    def conversation(self) -> StopConversation | None:
        """The conversation of the present stop; None if the running request has not stopped, or has gone on."""
        conversation = None if (debugger := self.debugger) is None else debugger.conversation
        return None if conversation is None or conversation.ended else conversation

    def is_at_work(self) -> bool:
        """Return whether the debugger carries out a command that was typed at its prompt."""
        return (debugger := self.debugger) is not None and debugger.is_at_work

    def is_at_prompt(self) -> bool:
        """Return whether the running request waits at a debugger's prompt."""
        return (debugger := self.debugger) is not None and debugger.conversation.at_prompt

    def quit_prompt(self) -> bool:
        """End the running request with KeyboardInterrupt if it waits at a debugger's prompt; return whether it did."""
        return (debugger := self.debugger) is not None and debugger.conversation.end_prompt("_interrupt\n")
