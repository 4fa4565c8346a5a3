"""Functions that join an engine to an MPI world; the client calls them on engines and on its own machine."""

from __future__ import annotations

import array
import importlib.util
import json
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from nsactors.errors import MpiError
from nsactors.mpi import placeholder
from nsactors.mpi.launcher import VARIABLE, in_job
from nsactors.mpi.library import Library, loaded_library
from nsactors.namespace.mpi_guard import NO_DAEMON, bar_mpi, is_initialised, unbar_mpi

# Variables that other process managers, and former worlds, may have left.
_LEFTOVERS = ("PMI_FD", "PMI_RANK", "PMI_SIZE", "PMI_SPAWNED", "MPI_LOCALNRANKS", "MPI_LOCALRANKID")
BACKLOG = 1_000  # connections of the placeholders of other ranks wait here
MOST_DESCRIPTORS = 16


class Place(NamedTuple):
    """The place of a process: equal for processes of one user that share memory and a loopback interface."""

    user: int
    machine: str
    network: int
    memory: int


class Readiness(NamedTuple):
    """The readiness of an engine to join a world.

    Attributes:
        place: its place.
        is_initialised: whether MPI has been initialised in its process.
        obstacle: a known reason why it cannot join; empty if there is none.
        node: the name of its machine for a launcher.
        launcher: the command of the launcher that its environment names; empty if there is none.
        placeholder: the command that starts a placeholder on its machine.
    """

    place: Place
    is_initialised: bool
    obstacle: str
    node: str
    launcher: tuple[str, ...]
    placeholder: tuple[str, ...]


class Loaded(NamedTuple):
    """MPI in an engine that has not initialised it.

    Attributes:
        library: the library; None if there is none.
        obstacle: the reason why it cannot be used; empty if there is none.
    """

    library: Library | None
    obstacle: str = ""


class Joined(NamedTuple):
    """The rank of an engine that has initialised MPI, and what is wrong with its world; empty if nothing is."""

    rank: int
    obstacle: str


def place() -> Place:
    """Return the place of this process."""
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    machine = boot_id.read_text().strip() if boot_id.exists() else socket.gethostname()
    return Place(os.getuid(), machine, _inode("/proc/self/ns/net"), _inode("/dev/shm"))


def readiness() -> Readiness:
    """Return the readiness of this engine, without touching MPI."""
    obstacle = "" if importlib.util.find_spec("mpi4py") else "mpi4py is not installed"
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    named = shlex.split(os.environ.get(VARIABLE, ""))
    launcher = in_job(named, os.environ) if named else ()
    start = (sys.executable, "-I", "-S", os.path.abspath(placeholder.__file__))
    return Readiness(place(), is_initialised(), obstacle, node, launcher, start)


def load() -> Loaded:
    """Import MPI without initialising it."""
    unbar_mpi()
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI
    except Exception as error:  # a library that cannot be loaded raises more than ImportError
        return Loaded(None, f"MPI cannot be imported ({type(error).__name__}: {error})")
    return Loaded(loaded_library(MPI))


def join(environment: Mapping[str, str], size: int, limit_s: float) -> Joined:
    """Initialise MPI as a member of a world.

    MPI waits for the other members without looking at signals or its own time limits. If they do not come, the system
    ends this process.

    Args:
        environment: the address of the PMI server, and the id that admits this process.
        size: the number of members.
        limit_s: the time limit in seconds.
    """
    for name in _LEFTOVERS:
        os.environ.pop(name, None)
    for name, value in environment.items():
        if not name.startswith("PMI_"):  # the user's settings take precedence, and MPI reads them again later
            os.environ.setdefault(name, value)
    _initialise({name: value for name, value in environment.items() if name.startswith("PMI_")}, limit_s)
    return _joined(size, "does not speak PMI-1")


def take_place(name: str, rank: int, size: int, limit_s: float) -> Joined:
    """Initialise MPI in the place of a process that a launcher has started on this machine.

    Args:
        name: the name of the world, for addresses.
        rank: the rank of this engine.
        size: the number of members.
        limit_s: the time limit in seconds.

    Raises:
        TimeoutError: if no placeholder has connected in time.
    """
    until = time.monotonic() + limit_s
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(placeholder.address(name, rank))
    listener.listen(BACKLOG)
    connection, variables = _placeholder(listener, until)
    # A library that does not understand the launcher initialises alone.
    _initialise({**NO_DAEMON, **variables}, max(until - time.monotonic(), 0.1))
    joined = _joined(size, "does not understand the launcher")
    connection.send(placeholder.JOINED)
    # The listener and the connection end with this process: placeholders, also those of other ranks, wait for that.
    listener.detach()
    connection.detach()
    if joined.rank != rank and not joined.obstacle:
        return Joined(rank, f"the launcher made it rank {joined.rank} and not rank {rank}")
    return joined


def _placeholder(listener: socket.socket, until: float) -> tuple[socket.socket, dict[str, str]]:
    """Wait for the placeholder; return its connection and the environment variables of its rank."""
    while True:
        listener.settimeout(max(until - time.monotonic(), 0.0))
        try:
            connection, _ = listener.accept()
        except (TimeoutError, BlockingIOError):
            raise TimeoutError("the launcher started no rank on this machine") from None
        if placeholder.same_user(connection):
            break
        connection.close()
    connection.settimeout(max(until - time.monotonic(), 0.1))
    room = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
    message, extra, _, _ = connection.recvmsg(placeholder.MESSAGE_BYTES, room)
    descriptors = array.array("i")
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    variables, names = json.loads(message)
    return connection, {**variables, **dict(zip(names, map(str, descriptors), strict=True))}


def _initialise(variables: Mapping[str, str], limit_s: float) -> None:
    """Initialise MPI with environment variables, and remove these again, because child processes are not members."""
    from mpi4py import MPI

    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        with _ended_after(limit_s):
            MPI.Init_thread()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _joined(size: int, otherwise: str) -> Joined:
    """Return the outcome: a library that has ignored the environment makes a world of another size."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    return Joined(world.rank, "" if world.size == size else f"{loaded_library(MPI)}, {otherwise}")


def bar(error: MpiError) -> None:
    """Let every use of MPI on this engine raise ``error``, until it joins a world."""
    bar_mpi(vars(sys.modules["__main__"]), error)


def bar_fresh(error: MpiError) -> None:
    """Bar MPI in a new process of an engine, unless it has already joined a later world."""
    if not is_initialised():
        bar(error)


@contextmanager
def _ended_after(limit_s: float) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _inode(path: str) -> int:
    """Return the number of a namespace of the system, or of a file system; 0 if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return 0
    return status.st_ino if path.startswith("/proc") else status.st_dev
