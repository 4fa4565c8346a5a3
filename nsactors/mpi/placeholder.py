"""A rank that a launcher of MPI has started: ``mpiexec -n 4 python -I -S placeholder.py NAME 4 LIMIT_S``.

The process hands all that the launcher has given it to the engine of its rank on the same machine: environment
variables, and the descriptors that they name. The engine then initialises MPI as that rank. From then on, this process
only waits, so that the launcher can watch it; it ends when no engine of the world is left on its machine.

This file is run by path, without ``site``: it imports nothing of the package, and little else.
"""

import array
import contextlib
import json
import os
import socket
import struct
import sys
import time

PREFIXES = ("FI_", "HYD", "I_MPI_", "MPI", "OMPI_", "OPAL_", "ORTE_", "PALS_", "PMI", "PRTE_", "SLURM_", "UCX_")
RANKS = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "PALS_RANKID", "SLURM_PROCID")
MESSAGE_BYTES = 1 << 20
PAUSE_S = 0.05
JOINED = b"j"


def address(name: str, rank: int) -> str:
    """Return the address at which the engine of a rank waits: it is no file, and ends with the engine's process."""
    return f"\0nsactors-mpi-{name}-{rank}"


def same_user(connection: socket.socket) -> bool:
    """Return whether the process at the other end belongs to the same user."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.getuid())


def given_by_launcher() -> dict[str, str]:
    """Return the environment variables of MPI and its launchers."""
    return {name: value for name, value in os.environ.items() if name.startswith(PREFIXES)}


def own_rank() -> int | None:
    """Return the rank of this process; None if the launcher has given it none."""
    return next((int(os.environ[name]) for name in RANKS if os.environ.get(name, "").isdigit()), None)


def open_descriptors(variables: dict[str, str]) -> dict[str, int]:
    """Return the descriptors that variables such as ``PMI_FD`` name, as far as they are open."""
    found = {}
    for name, value in variables.items():
        if name.endswith("_FD") and value.isdigit() and int(value) > 2:
            with contextlib.suppress(OSError):
                os.fstat(int(value))
                found[name] = int(value)
    return found


def connect(name: str, rank: int, until: float) -> socket.socket:
    """Connect to the engine of a rank, which may not wait yet."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    while True:
        try:
            connection.connect(address(name, rank))
            return connection
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(PAUSE_S)  # noqa: TID251 (nothing tells when an address is in use)


def main(name: str, size: int, limit_s: float) -> str:
    """Give the engine of this rank its place, and stay as long as engines do; return an error, if there is one."""
    rank = own_rank()
    if rank is None:
        return "the launcher has given this process no rank"
    variables = given_by_launcher()
    descriptors = open_descriptors(variables)
    try:
        engine = connect(name, rank, time.monotonic() + limit_s)
    except OSError:
        return f"there is no engine for rank {rank} on {socket.gethostname()}"
    if not same_user(engine):
        return f"the engine of rank {rank} belongs to another user"
    message = json.dumps([variables, list(descriptors)]).encode()
    with contextlib.suppress(ConnectionError):  # the engine has died, and its client reports this
        engine.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors.values()))])
        if engine.recv(1) == JOINED:
            engine.recv(1)
    # Wait for all engines of this machine, which accept connections by now. If a placeholder ended with its own engine,
    # the launcher would end the other placeholders, and some MPI libraries end a process without a launcher.
    for other in range(size):
        with contextlib.suppress(ConnectionError):
            connect(name, other, 0.0).recv(1)
    return ""


if __name__ == "__main__":
    if problem := main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])):
        sys.exit(f"nsactors: {problem}")
