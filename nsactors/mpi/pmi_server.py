"""The PMI server of a world, and processes that ranks start."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import secrets
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

from nsactors.mpi.pmi import LINE_BYTES, Exchange, Refuse, Send, Spawn, process_mapping
from nsactors.namespace.mpi_guard import ONE_MACHINE

REFUSALS = 100  # an id has 31 bits, and this bounds the guesses
START_S = 10.0
BACKLOG = 1_000  # all ranks connect at the same time


class PmiServer:
    """The server at which the processes of one world meet.

    The server stops listening when all processes have joined. Their connections stay open until it is closed, because
    MPI may use them again. The connections also end with this process: a rank that is still joining then fails instead
    of waiting.

    Args:
        exchange: the world.
        host: the address to listen on.
        spawn: starts processes that ranks ask for, and returns a function that ends them; None refuses such orders.

    Raises:
        OSError: if this machine has no such address.
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
        # The server runs in the client's process. In rank 0 it would stop while MPI initialises there and keeps the
        # GIL; in an actor it would outlive its client.
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
        """Close every connection and end the thread; a second call does nothing."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result(START_S)
            self._stop()
            for end in self._ends:
                end()

    def let_go(self) -> None:
        """Close the server: a world does not need it any more when a member is gone, or when the client leaves."""
        self.close()

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
        # A peer that has gone, or sends lines that are too long or make no sense, ends its own connection only.
        with contextlib.suppress(ConnectionError, ValueError, LookupError):
            while (line := await reader.readline()).endswith(b"\n"):
                if not self._answer(peer, line.decode(errors="replace")):
                    break
        del self._writers[peer]
        writer.close()

    def _answer(self, peer: int, line: str) -> bool:
        """Act on a line; return whether its peer may go on."""
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
        """Start processes for a rank; return the reply."""
        count = sum(command.processes for command in order.commands)
        if self._spawn is None:
            return "cmd=spawn_result rc=-1 msg=not_on_several_machines"
        try:
            self._ends.append(self._spawn(order))
        except OSError as error:
            return f"cmd=spawn_result rc=-1 msg={type(error).__name__}"
        return f"cmd=spawn_result rc=0 errcodes={','.join(['0'] * count)}"


LOOPBACK = "127.0.0.1"
_IDS = range(1, 2**31)  # MPICH reads a C int


def new_exchange(places: Sequence[object], given: Mapping[str, str] | None = None) -> Exchange:
    """Return a world for processes at these places, with secret ids."""
    ids = random.SystemRandom().sample(_IDS, len(places))
    return Exchange(ids, f"nsactors-{secrets.token_hex(8)}", process_mapping(places), given or {})


def start_children(order: Spawn) -> Callable[[], object]:
    """Start processes on this machine; return a function that ends them.

    The order comes from a rank on this machine, of the same user.

    Raises:
        OSError: if one of them cannot be started; in this case none is left.
    """
    exchange = new_exchange(["here"] * sum(command.processes for command in order.commands), order.values)
    server = PmiServer(exchange, LOOPBACK, start_children)
    common = {**os.environ, **ONE_MACHINE, "PMI_PORT": server.address, "PMI_SPAWNED": "1"}
    children: list[subprocess.Popen[bytes]] = []

    def end() -> None:
        for child in children:
            child.kill()

    def see_them_end() -> None:
        for child in children:
            child.wait()
        server.close()

    ids = iter(exchange.ids)
    try:
        for command in order.commands:
            for _ in range(command.processes):
                environment = {**common, "PMI_ID": str(next(ids))}
                children.append(
                    subprocess.Popen(command.arguments, cwd=command.folder, env=environment, stdin=subprocess.DEVNULL)
                )
    except BaseException:
        end()
        raise
    finally:
        threading.Thread(target=see_them_end, name="nsactors-mpi-children", daemon=True).start()
    return end
