"""Processes of this machine: identity, and leftovers of a dead cluster.

Each process of a background cluster inherits a mark in its environment from the process that started it: Ray's servers,
engines, and processes that engines start. A client does not have the mark, nor do processes that clients start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import threading
import time
import weakref
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from nsactors._frozen import frozen

FileIdentity = tuple[int, int]  # of an open file: its device, and its number on the device


@frozen
class ProcessIdentity:
    """The identity of a process, different from that of any other process that ever had the same id.

    Attributes:
        host: the name of its machine.
        boot: the id of the machine's present boot; empty if there is none.
        pid_namespace: the namespace of its id: containers have ids of their own.
        pid: its id.
        started: its start in ticks since boot; 0 if unknown.
    """

    host: str
    boot: str
    pid_namespace: str
    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Return the identity of a living process of this machine."""
        return cls(socket.gethostname(), _boot(), _pid_namespace(), pid, _started(pid))

    @property
    def is_here(self) -> bool:
        """True if its state is visible from here: it is on this machine, and in the same container."""
        return (self.host, self.pid_namespace) == (socket.gethostname(), _pid_namespace())

    @property
    def is_gone(self) -> bool:
        """True if it has certainly ended; False also if its state is not visible from here."""
        if not self.is_here:
            return False
        return self.boot != _boot() or not is_alive(self.pid) or _started(self.pid) != self.started


def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id").strip()


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[19]) if fields else 0


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine has not ended."""
    if fields := _fields(pid):
        return fields[0] != "Z"  # a zombie has ended, but its parent has not waited for it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def keep_sockets_from_children(known: Collection[FileIdentity] = ()) -> None:
    """Close the sockets that this process has now in the children that it forks from now on.

    Connections that a listening socket among them accepts later are closed in the children as well. While a child has
    copies of connections, the processes at the other ends do not notice the death of this process.

    Args:
        known: sockets that children keep; see :func:`open_sockets`.
    """
    sockets = {number: identity for number, identity in open_sockets().items() if identity not in known}
    ports = {_port(number) for number in sockets if _listens(number)}

    def close() -> None:
        for number, identity in open_sockets().items():
            if sockets.get(number) == identity or (ports and _port(number) in ports):
                os.close(number)

    os.register_at_fork(after_in_child=close)


def close_in_children(pipe: IO[Any]) -> None:
    """Close a pipe in the children that this process forks from now on.

    This is for a pipe whose reader waits for the end of this process; its children may live longer.
    """
    own = weakref.ref(pipe)

    def close() -> None:
        file = own()
        if file is not None and not file.closed:
            # file.close() is not used: it would wait for a thread that was writing and does not exist in the child.
            with open(os.devnull, "r+b", buffering=0) as nothing:
                os.dup2(nothing.fileno(), file.fileno(), inheritable=False)

    os.register_at_fork(after_in_child=close)


def open_sockets() -> dict[int, FileIdentity]:
    """Return the identity of each socket of this process, by descriptor."""
    found = {}
    with contextlib.suppress(FileNotFoundError):  # a system without /proc
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the descriptor of the folder itself is closed by now
                status = os.fstat(int(name))
                if stat.S_ISSOCK(status.st_mode):
                    found[int(name)] = status.st_dev, status.st_ino
    return found


def _listens(number: int) -> bool:
    with socket.socket(fileno=os.dup(number)) as copy:
        return copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) != 0


def _port(number: int) -> int | None:
    """Return the port of a TCP socket on this machine; None for other sockets."""
    with socket.socket(fileno=os.dup(number)) as copy:
        return copy.getsockname()[1] if copy.family in (socket.AF_INET, socket.AF_INET6) else None


def _fields(pid: int) -> list[str]:
    """Return the fields of a process in /proc after its name, which may contain spaces and brackets."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


KILL_WAIT_S = 5.0  # a killed process ends within milliseconds, unless a disk or a debugger holds it
LOOK_S = 0.01
LOOKS_IN_VAIN = 2  # a process has no environment during an exec, and may start another process before it ends
MARK = "NSACTORS_CLUSTER_MARK"


def marked_processes(mark: str) -> list[int]:
    """Return the ids of this user's processes with a mark, except this one."""
    # Unlike a process group or a parent, the environment stays with a process that becomes a daemon.
    wanted = f"{MARK}={mark}".encode()
    return [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if int(process.name) != os.getpid() and wanted in _environment(process)
    ]


def end_leftovers(mark: str) -> list[int]:
    """Kill the processes with a mark, and those that they still start; return their ids when they have ended."""
    found: set[int] = set()
    pause, give_up = threading.Event(), time.monotonic() + KILL_WAIT_S
    looks_in_vain = 0
    while mark and looks_in_vain < LOOKS_IN_VAIN and time.monotonic() < give_up:
        living = marked_processes(mark)
        looks_in_vain = 0 if living else looks_in_vain + 1
        found.update(living)
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        pause.wait(LOOK_S)
    return sorted(found)


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:  # the process has ended, or belongs to another user
        return []


def command_lines() -> Iterator[list[str]]:
    """Yield the command line of each process of this machine that this user can see, as words."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # the process has ended already
            if words := Path("/proc", entry, "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]:
                yield words
