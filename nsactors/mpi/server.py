"""The PMI server of one world: sockets and a thread around :class:`~nsactors.mpi.pmi.Exchange`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable

from nsactors.mpi.pmi import LINE_BYTES, Exchange, Refuse, Send, Spawn

__all__ = ["PmiServer"]

REFUSALS = 100  # an id has 31 bits; nobody gets so many guesses that one may be right
START_S = 10.0
BACKLOG = 1_000  # all ranks come at once


class PmiServer:
    """Lets the processes of one world meet.

    It stops listening when all have joined. Their connections stay open until it is closed: MPI may come back to them.
    They end with this process, too, and whoever is still joining then fails instead of waiting.

    Args:
        exchange: the world.
        host: the address to listen on.
        spawn: starts processes that ranks ask for, and gives what ends them; without it that is refused.

    Raises:
        OSError: if there is no such address here.
    """

    def __init__(
        self, exchange: Exchange, host: str, spawn: Callable[[Spawn], Callable[[], object]] | None = None
    ) -> None:
        self._exchange = exchange
        self._host = host
        self._spawn = spawn
        self._ends: list[Callable[[], object]] = []
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._peers = itertools.count()
        self._refusals = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="nsactors-pmi", daemon=True)
        self._thread.start()
        try:
            self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(START_S)
        except BaseException:
            self._stop()
            raise
        port = self._server.sockets[0].getsockname()[1]
        self.address = f"{host}:{port}"

    def close(self) -> None:
        """Close every connection and end the thread; harmless if that was done before."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result(START_S)
            self._stop()
            for end in self._ends:
                end()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_S)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, self._host, 0, limit=LINE_BYTES, backlog=BACKLOG)

    async def _hang_up(self) -> None:
        self._server.close()
        for writer in self._writers.values():
            writer.close()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = next(self._peers)
        self._writers[peer] = writer
        # A peer that is gone, or says what is too long or makes no sense, is no more than that.
        with contextlib.suppress(ConnectionError, ValueError, LookupError):
            while (line := await reader.readline()).endswith(b"\n"):
                if not self._answer(peer, line.decode(errors="replace")):
                    break
        del self._writers[peer]
        writer.close()

    def _answer(self, peer: int, line: str) -> bool:
        """Act on a line; whether its peer may go on."""
        for effect in self._exchange.handle(peer, line):
            match effect:
                case Send(receiver, text):
                    if receiver in self._writers:
                        self._writers[receiver].write(text.encode() + b"\n")
                case Spawn():
                    self._writers[peer].write(self._start(effect).encode() + b"\n")
                case Refuse():
                    self._refusals += 1
                    if self._refusals >= REFUSALS:
                        self._server.close()
                    return False
        if not self._exchange.missing:
            self._server.close()
        return True

    def _start(self, order: Spawn) -> str:
        """Start processes for a rank; the answer."""
        count = sum(command.processes for command in order.commands)
        if self._spawn is None:
            return "cmd=spawn_result rc=-1 msg=not_on_several_machines"
        try:
            self._ends.append(self._spawn(order))
        except OSError as error:
            return f"cmd=spawn_result rc=-1 msg={type(error).__name__}"
        return f"cmd=spawn_result rc=0 errcodes={','.join(['0'] * count)}"
