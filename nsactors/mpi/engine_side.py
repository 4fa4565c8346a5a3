"""Functions that join an engine to an MPI world; the client calls them on engines and on its own machine."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from nsactors.errors import MpiError
from nsactors.namespace.mpi_guard import bar_mpi, is_initialised, unbar_mpi

# Variables that other process managers, and former worlds, may have left.
_LEFTOVERS = ("PMI_FD", "PMI_RANK", "PMI_SIZE", "PMI_SPAWNED", "MPI_LOCALNRANKS", "MPI_LOCALRANKID")


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
    """

    place: Place
    is_initialised: bool
    obstacle: str


def place() -> Place:
    """Return the place of this process."""
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    machine = boot_id.read_text().strip() if boot_id.exists() else socket.gethostname()
    return Place(os.getuid(), machine, _inode("/proc/self/ns/net"), _inode("/dev/shm"))


def readiness() -> Readiness:
    """Return the readiness of this engine, without touching MPI."""
    obstacle = "" if importlib.util.find_spec("mpi4py") else "mpi4py is not installed"
    return Readiness(place(), is_initialised(), obstacle)


def load() -> str:
    """Import MPI without initialising it; return the reason why this engine cannot join a world, empty if it can."""
    unbar_mpi()
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI
    except Exception as error:  # a library that cannot be loaded raises more than ImportError
        return f"MPI cannot be imported ({type(error).__name__}: {error})"
    library = MPI.Get_library_version().splitlines()[0].strip(" \0")
    # Open MPI would initialise alone, as a world of one process.
    return f"{library.partition(',')[0]} does not speak PMI-1, as MPICH does" if "Open MPI" in library else ""


def join(environment: Mapping[str, str], size: int, limit_s: float) -> tuple[int, str]:
    """Initialise MPI as a member of a world.

    MPI waits for the other members without looking at signals or its own time limits. If they do not come, the system
    ends this process.

    Args:
        environment: the address of the PMI server, and the id that admits this process.
        size: the number of members.
        limit_s: the time limit in seconds.

    Returns:
        The rank and an obstacle: a library that has ignored the environment makes a world of another size.
    """
    from mpi4py import MPI

    given = {name: value for name, value in environment.items() if name.startswith("PMI_")}
    for name in _LEFTOVERS:
        os.environ.pop(name, None)
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    os.environ.update(given)
    try:
        with _ended_after(limit_s):
            MPI.Init_thread()
    finally:
        for name in given:  # child processes that use MPI are not members
            os.environ.pop(name, None)
    world = MPI.COMM_WORLD
    if world.size == size:
        return world.rank, ""
    return world.rank, f"its MPI library ({MPI.Get_library_version().splitlines()[0]}) does not speak PMI-1"


def bar(error: MpiError) -> None:
    """Let every use of MPI on this engine raise ``error``, until it joins a world."""
    bar_mpi(vars(sys.modules["__main__"]), error)


def bar_fresh(error: MpiError) -> None:
    """Bar MPI in a new process of an engine, unless it has joined a later world meanwhile."""
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
