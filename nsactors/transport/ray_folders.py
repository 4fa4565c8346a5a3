"""Where processes of a cluster keep files."""

from __future__ import annotations

import os
import tempfile

__all__ = ["output_folder"]


def output_folder(cluster: str) -> str:
    """Where a cluster's processes on this machine keep files: in Ray's session folder, which goes when Ray goes.

    To be asked by an actor before it redirects its output.
    """
    log = os.readlink(f"/proc/{os.getpid()}/fd/1") if os.path.exists("/proc/self/fd/1") else ""
    folder = os.path.dirname(log) if log.endswith(".out") else tempfile.gettempdir()
    return os.path.join(folder, f"nsactors-{cluster}")
