"""Processes that drive systems, as their parent sees them. Neither they nor their children outlive the parent."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import psutil

from benchmarks.operations.turns import Turn
from benchmarks.systems import SYSTEMS, find_program

__all__ = ["Beside", "SystemFailed", "SystemProcess", "import_turn"]

ROOT = Path(__file__).resolve().parents[2]
MARK = "NSACTORS_BENCHMARK"  # inherited by all processes that a system starts, also by orphans
PATIENCE_S, PATIENCE_PER_ENGINE_S = 60.0, 5.0
GRACE_S = 20.0


class SystemFailed(Exception):
    """A system did not start, or stopped answering."""


class SystemProcess:
    """A started system.

    Args:
        name: see ``benchmarks.systems.SYSTEMS``.
        engines: the number of engines to start.

    Raises:
        SystemFailed: if the system does not start; the message has the end of its log.
    """

    def __init__(self, name: str, engines: int) -> None:
        self.name = name
        self._patience_s = PATIENCE_S + PATIENCE_PER_ENGINE_S * engines
        self._folder = Path(tempfile.mkdtemp(prefix="nsb-"))
        self._mark = uuid.uuid4().hex
        self._pipe, theirs = Pipe()
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [
                    *_launcher(name),
                    *(sys.executable, "-m", "benchmarks.operations.worker", str(theirs.fileno()), name, str(engines)),
                ],
                cwd=self._folder,
                env=_environment(self._folder, self._mark),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C reaches only this process, which ends the system
            )
        theirs.close()
        try:
            self.start: Turn = self._receive()
        except BaseException:
            self.close()
            raise

    def measure(self, operation: str, engines: int, runs: int, system: str | None = None) -> Turn | None:
        """Run an operation of this system, or of a system that uses its engines; return None if it does not exist.

        Raises:
            SystemFailed: if the operation fails.
        """
        self._pipe.send((system or self.name, operation, engines, runs))
        turn: Turn | None = self._receive()
        return turn

    def close(self) -> None:
        """End the system and all its processes, and remove its files."""
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(None)
        self._pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        for process in _marked(self._mark):
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _receive(self) -> Any:
        try:
            if self._pipe.poll(self._patience_s):
                return self._pipe.recv()
        except EOFError:
            pass
        raise SystemFailed(self._describe())

    def _describe(self) -> str:
        text = (self._folder / "log").read_text(errors="replace")
        return f"{self.name} failed or did not answer in time; the end of its log:\n" + "\n".join(
            text.splitlines()[-15:]
        )


class Beside:
    """A system that uses the engines of another, in the same process."""

    def __init__(self, name: str, process: SystemProcess) -> None:
        self._name = name
        self._process = process

    def measure(self, operation: str, engines: int, runs: int) -> Turn | None:
        """See :meth:`SystemProcess.measure`."""
        return self._process.measure(operation, engines, runs, self._name)


_IMPORT = """
import time
began, cpu = time.perf_counter(), time.process_time()
import {}
print(time.perf_counter() - began, time.process_time() - cpu)
"""


def import_turn(library: str) -> Turn:
    """Return the time of ``import library`` in a new process."""
    with tempfile.TemporaryDirectory(prefix="nsb-") as folder:
        command = [sys.executable, "-c", _IMPORT.format(library)]
        environment = _environment(Path(folder), "import")
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, check=True)
    seconds, cpu_s = map(float, done.stdout.split())
    return Turn([seconds], cpu_s)


def _launcher(name: str) -> list[str]:
    program, *arguments = SYSTEMS[name].launcher or [""]
    return [find_program(program) or program, *arguments] if program else []


def _environment(folder: Path, mark: str) -> dict[str, str]:
    """Return the environment of this process, changed so that libraries leave their files in ``folder``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "DASK_", "IPY"))}
    home = str(folder)
    return kept | {
        MARK: mark,
        "HOME": home,
        "IPYTHONDIR": str(folder / "ipython"),
        "DASK_TEMPORARY_DIRECTORY": home,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended, or belongs to another user
            if process.environ().get(MARK) == mark:
                yield process
