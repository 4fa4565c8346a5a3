"""Processes that the ranks of a world start with ``MPI_Comm_spawn``: a world of their own, with a server of its own."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

from nsactors.mpi.pmi import Exchange, Spawn, process_mapping
from nsactors.mpi.server import PmiServer

__all__ = ["LOOPBACK", "ONE_MACHINE", "new_exchange", "start_children"]

LOOPBACK = "127.0.0.1"
ONE_MACHINE = {"UCX_NET_DEVICES": "lo", "FI_TCP_IFACE": "lo"}
"""Shared memory carries the messages; MPICH's two networks would listen for other machines."""
_IDS = range(1, 2**31)  # MPICH reads a C int


def new_exchange(places: Sequence[object], given: Mapping[str, str] | None = None) -> Exchange:
    """A world for processes at these places, with ids that nobody can guess."""
    ids = random.SystemRandom().sample(_IDS, len(places))
    return Exchange(ids, f"nsactors-{secrets.token_hex(8)}", process_mapping(places), given or {})


def start_children(order: Spawn) -> Callable[[], object]:
    """Start processes on this machine; what ends them.

    Whoever asks is a rank of a world on this machine, of the same user.

    Raises:
        OSError: if one of them cannot be started; none is left then.
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
