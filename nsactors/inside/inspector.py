"""The engine's replies to queries that look inside it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from nsactors.inside.frames import other_stacks, program_stack, request_stack
from nsactors.inside.peeks import Peeks, TooManyPeeks, variables_of
from nsactors.inside.processes import StackFile, read_processes
from nsactors.inside.profilers import Profilers
from nsactors.namespace.interrupts import CellEventLoop
from nsactors.protocol.control import QueryReply
from nsactors.protocol.inspection import (
    EngineStack,
    Inspection,
    ListVariables,
    Peek,
    ReadProcesses,
    ReadStack,
    StartProfile,
    StopProfile,
)
from nsactors.protocol.messages import EngineRequest
from nsactors.protocol.serialize import ObjectStore, Payload, StoredObject, pack
from nsactors.protocol.wire import copied_or_stored


class Inspector:
    """Replies to queries about the code that an engine runs.

    The control thread calls :meth:`reply`, which never waits. If work may take a long time, a thread of its own does
    the work and sends the reply. Create an inspector on the thread that runs requests.

    Args:
        engine_id: the engine.
        names: its namespace.
        store: the store for large values.
        cell_loop: the event loop of its cells.
        running: returns the request that runs, and its start in seconds since the epoch; None if there is none.
        send: sends the reply to a query; callable from any thread.
        stack_path: the path of the file for the stacks of this process; None if engines are threads.
        program: the identifier of the thread of an embedded program; None on other engines.

    Attributes:
        profilers: its profilers.
    """

    def __init__(
        self,
        engine_id: int,
        names: dict[str, Any],
        store: ObjectStore,
        cell_loop: CellEventLoop,
        running: Callable[[], tuple[EngineRequest, float] | None],
        send: Callable[[QueryReply], object],
        stack_path: str | None,
        program: int | None = None,
    ) -> None:
        self._engine_id = engine_id
        self._names = names
        self._store = store
        self._peeks = Peeks(engine_id, names, store)
        self._cell_loop = cell_loop
        self._running = running
        self._send = send
        self._thread = threading.get_ident()
        self._is_process = stack_path is not None
        self._program = program
        self.profilers = Profilers(self._thread, cell_loop, running, shares_process=not self._is_process)
        self._stack_file: StackFile | None = None
        if stack_path is not None:
            with contextlib.suppress(OSError):  # an engine has to start even if the disk is full
                self._stack_file = StackFile(stack_path)

    def reply(self, query_id: int, query: Inspection) -> None:
        """Reply to a query, now or later; an error is sent as text."""
        match query:
            case ReadStack(threads):
                self._reply(query_id, lambda: self._stack(threads=threads))
            case ReadProcesses(pids, signals, native):
                self._reply_later(query_id, lambda: read_processes(pids, signals, native=native))
            case Peek():
                self._peek(query_id, query)
            case StartProfile(profile_id, client, how, interval_s):
                reply = self._reply_later if how == "memory" else self._reply  # importing memray takes long
                reply(query_id, lambda: self.profilers.start(profile_id, client, how, interval_s))
            case StopProfile(profile_id):
                self._reply_later(query_id, lambda: self._stop_profile(profile_id))
            case ListVariables():
                self._reply_later(query_id, lambda: variables_of(self._names))

    def _reply(self, query_id: int, value: Callable[[], Any]) -> None:
        try:
            reply = QueryReply(query_id, value())
        except Exception as error:
            reply = QueryReply(query_id, None, f"{type(error).__name__}: {error}")
        self._send(reply)

    def _reply_later(self, query_id: int, value: Callable[[], Any]) -> None:
        name = f"engine-{self._engine_id}-inspect"
        threading.Thread(target=self._reply, args=(query_id, value), name=name, daemon=True).start()

    def _stop_profile(self, profile_id: str) -> Payload | StoredObject:
        return copied_or_stored(pack(self.profilers.stop(profile_id)), self._store.put)

    def _peek(self, query_id: int, peek: Peek) -> None:
        try:
            self._peeks.begin(peek, lambda result: self._send(QueryReply(query_id, result)))
        except TooManyPeeks as error:
            self._send(QueryReply(query_id, None, str(error)))

    def _stack(self, *, threads: bool) -> EngineStack:
        running = self._running()
        stack = request_stack(self._thread, self._cell_loop, is_running=running is not None)
        own = program_stack(self._program) if self._program is not None else None
        if running is not None and self._program == self._thread:
            own = None  # the request runs on the program's thread, and the program waits for the end of the request
        has_others = threads and (self._is_process or self._program is not None)
        others = other_stacks(self._thread, self._program) if has_others else ()
        if running is None:
            return EngineStack(threads=(stack, *others), program=own)
        request, started = running
        for_s = max(0.0, time.time() - started)
        return EngineStack(request.label, request.id.client, for_s, (stack, *others), program=own)
