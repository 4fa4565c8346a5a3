"""What is called on engines, and on their client's machine, to make them an MPI world."""

from __future__ import annotations

import contextlib
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
from nsactors.namespace.mpi_use import bar_mpi, is_initialised, unbar_mpi

__all__ = ["Place", "Standing", "bar", "bar_fresh", "join", "load", "place", "release_memory", "standing"]

# What other process managers, and former worlds, may have left.
_LEFTOVERS = ("PMI_FD", "PMI_RANK", "PMI_SIZE", "PMI_SPAWNED", "MPI_LOCALNRANKS", "MPI_LOCALRANKID")


class Place(NamedTuple):
    """Where a process is: equal for a user's processes that share memory and reach each other by loopback."""

    user: int
    machine: str
    network: int
    memory: int


class Standing(NamedTuple):
    """Whether an engine can join a world.

    Attributes:
        place: where it is.
        is_initialised: whether MPI has been initialised in its process.
        obstacle: why it cannot join, as far as can be seen; empty if it may.
    """

    place: Place
    is_initialised: bool
    obstacle: str


def place() -> Place:
    """Where this process is."""
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    machine = boot_id.read_text().strip() if boot_id.exists() else socket.gethostname()
    return Place(os.getuid(), machine, _inode("/proc/self/ns/net"), _inode("/dev/shm"))


def standing() -> Standing:
    """How this engine stands to MPI, which is not touched."""
    obstacle = "" if importlib.util.find_spec("mpi4py") else "it has no mpi4py"
    return Standing(place(), is_initialised(), obstacle)


def load() -> str:
    """Load MPI without initialising it; why this engine cannot join a world, empty if it can."""
    unbar_mpi()
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI
    except Exception as error:  # a library that does not load raises more than ImportError
        return f"MPI cannot be imported ({type(error).__name__}: {error})"
    library = MPI.Get_library_version().splitlines()[0].strip(" \0")
    # It would begin alone, as a world of one process.
    return f"{library.partition(',')[0]} does not speak PMI-1, which MPICH does" if "Open MPI" in library else ""


def join(environment: Mapping[str, str], size: int, limit_s: float) -> tuple[int, str]:
    """Initialise MPI as a member of a world.

    MPI waits for the other members without looking at signals or its own time limits. Should they not come, the system
    ends this process.

    Args:
        environment: where the world meets, and what lets this process in.
        size: of the world.
        limit_s: how long it may take.

    Returns:
        The rank and an obstacle: a world of another size, from a library that has not looked at the environment.
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
        for name in given:  # a child process that uses MPI is no member
            os.environ.pop(name, None)
    world = MPI.COMM_WORLD
    if world.size == size:
        return world.rank, ""
    return world.rank, f"its MPI library ({MPI.Get_library_version().splitlines()[0]}) does not speak PMI-1"


def release_memory() -> None:
    """Let the memory that members share end with their processes; to be called when all have joined.

    MPI removes the file at the end of an orderly exit, and engines are killed.
    """
    maps = Path("/proc/self/maps")
    for line in maps.read_text().splitlines() if maps.exists() else ():
        path = line[line.find("/") :]
        if path.startswith("/dev/shm/mpich_shm_") and not path.endswith(" (deleted)"):
            with contextlib.suppress(FileNotFoundError):  # another member was first
                os.unlink(path)


def bar(error: MpiError) -> None:
    """Let every use of MPI on this engine raise ``error``, until it joins a world."""
    bar_mpi(vars(sys.modules["__main__"]), error)


def bar_fresh(error: MpiError) -> None:
    """As :func:`bar`, for a new process; one that has joined a later world meanwhile is left alone."""
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
    """What tells a namespace of the system, or a file system, from others; 0 where there is no such thing."""
    try:
        status = os.stat(path)
    except OSError:
        return 0
    return status.st_ino if path.startswith("/proc") else status.st_dev
