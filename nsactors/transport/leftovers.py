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
    """Kill what bears a mark, and return when it has gone; the ids of those processes."""
    found = marked_processes(mark) if mark else []
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    pause, give_up = threading.Event(), time.monotonic() + KILL_WAIT_S
    while found and marked_processes(mark) and time.monotonic() < give_up:
        pause.wait(LOOK_S)
    return found


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is somebody else's
        return []
