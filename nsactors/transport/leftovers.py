"""Processes that a cluster has left behind, found by a mark in their environment.

Each process of a cluster in the background inherits the mark from the one that started it: Ray's servers, engines, and
what engines have started. A client does not have it, nor does what a client starts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

__all__ = ["MARK", "end_leftovers", "marked_processes"]

KILL_WAIT_S = 5.0  # a killed process is gone within milliseconds, unless a disk or a debugger holds it
LOOK_S = 0.01
LOOKS_IN_VAIN = 2  # a process has no environment while it becomes another program, and may start one before it ends
MARK = "NSACTORS_CLUSTER_MARK"


def marked_processes(mark: str) -> list[int]:
    """The ids of this user's processes that bear a mark, this one left out."""
    wanted = f"{MARK}={mark}".encode()
    return [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if int(process.name) != os.getpid() and wanted in _environment(process)
    ]


def end_leftovers(mark: str) -> list[int]:
    """Kill what bears a mark, and what that starts meanwhile; the ids of those processes, when they have gone."""
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
    except OSError:  # it has ended, or is somebody else's
        return []
