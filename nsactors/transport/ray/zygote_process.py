"""The zygote of an embedded Ray: a child of this process that forks Ray's workers.

A worker that Ray starts by ``exec`` spends half a second of processor time on imports, and 20 MB of memory on imported
modules. Forked workers save the time and share the memory. ``scripts/zygote`` is the program of the zygote, and
``scripts/worker_stub`` is its client.

A failure here only costs a little time: a worker that is not forked is started by ``exec``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping

from nsactors.system.resources import TRIED_RAY, installed_ray, ray_was_tried

SWITCH = "NSACTORS_ZYGOTE"
BACKLOG = 1024
_TRACERS = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")  # read by an interpreter as it starts
_START_CODE = "sitecustomize", "usercustomize"  # imported by an interpreter as it starts
_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "scripts", "zygote.py")


def obstacle_to_forking(environment: Mapping[str, str]) -> str | None:
    """Return the reason why workers with this environment are not forked; None if they are.

    Args:
        environment: the environment of the workers.
    """
    if environment.get(SWITCH) == "0":
        return f"{SWITCH} is 0"
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return "forking workers needs Linux 5.3 or later"
    if sys.flags.no_site or sys.flags.no_user_site:
        return "Python was started with -s or -S"
    if tracer := next((name for name in _TRACERS if environment.get(name)), None):
        return f"{tracer} is set"
    if file := start_code():
        return f"each interpreter runs {file} as it starts"
    version = installed_ray()
    if version is None:
        return "Ray is not installed"
    if not ray_was_tried(version):
        return f"forking was tried with Ray {', '.join(TRIED_RAY)}, not with Ray {version}"
    return None


def start_code() -> str | None:
    """Return the file of a ``sitecustomize`` or ``usercustomize`` that this interpreter has run; None if there is none.

    Such code may open files or create ids, which workers must not share, so each worker must run the code itself. A
    file in the folder of the standard library belongs to the system and does neither.
    """
    library = os.path.dirname(os.path.abspath(os.__file__))
    for name in _START_CODE:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and os.path.dirname(os.path.abspath(file)) != library:
            return str(file)
    return None


class ZygoteProcess:
    """A process that forks workers, until it is ended or this process ends.

    Attributes:
        path: the path of the zygote's socket.

    Args:
        folder: the folder for the socket; other users must not be able to enter it.
        environment: the environment of the workers.

    Raises:
        OSError: if the process cannot be started.
    """

    def __init__(self, folder: str, environment: Mapping[str, str]) -> None:
        self.path = os.path.join(folder, "zygote")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path)
            listener.listen(BACKLOG)  # workers may ask before the zygote is ready, and wait
            self._process = subprocess.Popen(
                [sys.executable, _SCRIPT, str(os.getpid()), str(listener.fileno())],
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                process_group=0,  # Ctrl-C at a terminal is meant for this process
            )

    @property
    def pid(self) -> int:
        """Return the zygote's process id."""
        return self._process.pid

    @property
    def has_raylet(self) -> bool:
        """Return whether the zygote serves a raylet. It never serves a second one."""
        return self._process.stdin is None or self._process.stdin.closed

    def serve(self, raylet: int) -> None:
        """Let the zygote fork workers for a raylet, unless the zygote has ended or already serves a raylet.

        Args:
            raylet: the process id of the raylet.
        """
        if not self.has_raylet:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
                stdin.write(b"%d\n" % raylet)

    def end(self) -> None:
        """End the zygote; its workers go on."""
        self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
