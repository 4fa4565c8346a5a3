"""Who a process is, so that another one can say whether it still lives."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ProcessIdentity", "is_alive"]


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, told apart from any other that ever had its id.

    Attributes:
        host: the name of its machine.
        boot: the machine's id since it was last switched on; empty where there is none.
        pid_namespace: where its id counts: containers have ids of their own.
        pid: its id.
        started: when it started, in ticks since boot; 0 where that is not known.
    """

    host: str
    boot: str
    pid_namespace: str
    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """A process of this machine that lives."""
        return cls(socket.gethostname(), _boot(), _pid_namespace(), pid, _started(pid))

    @property
    def is_here(self) -> bool:
        """Whether it can be looked at from here, if it lives: it is on this machine and not in some container."""
        return (self.host, self.pid_namespace) == (socket.gethostname(), _pid_namespace())

    @property
    def is_gone(self) -> bool:
        """Whether it has certainly ended; of one that cannot be looked at from here that is not known."""
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
    """Whether a process of this machine has not ended."""
    if fields := _fields(pid):
        return fields[0] != "Z"  # one that has ended, and whose parent has not asked how
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _fields(pid: int) -> list[str]:
    """What the kernel says of a process behind its name, which may hold spaces and brackets."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
