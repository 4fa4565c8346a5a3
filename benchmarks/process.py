"""Processes that drive systems, as their parent sees them; none of them outlives it, nor does what they start."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import psutil

__all__ = ["SystemFailed", "SystemProcess", "import_seconds"]

ROOT = Path(__file__).resolve().parents[1]
MARK = "NSACTORS_BENCHMARK"  # inherited by everything a system starts, also by what has become an orphan
PATIENCE_S = 60.0
GRACE_S = 20.0


class SystemFailed(Exception):
    """A system did not start, or stopped answering."""


class SystemProcess:
    """One started system.

    Args:
        name: see ``benchmarks.systems.SYSTEMS``.
        engines: how many to start.

    Raises:
        SystemFailed: if it does not start; with the end of what it wrote.
    """

    def __init__(self, name: str, engines: int) -> None:
        self.name = name
        self._folder = Path(tempfile.mkdtemp(prefix="nsb-"))
        self._mark = uuid.uuid4().hex
        self._pipe, theirs = Pipe()
        with open(self._folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", str(theirs.fileno()), name, str(engines)],
                cwd=self._folder,
                env=_environment(self._folder, self._mark),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C comes here, and the system is ended in order
            )
        theirs.close()
        try:
            self.start_seconds: float = _receive(self._pipe, self._describe)
        except BaseException:
            self.close()
            raise

    def measure(self, operation: str, engines: int, runs: int) -> list[float] | None:
        """Seconds that each run of an operation took; None if the system has no such operation.

        Raises:
            SystemFailed: if it fails.
        """
        self._pipe.send((operation, engines, runs))
        seconds: list[float] | None = _receive(self._pipe, self._describe)
        return seconds

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

    def _describe(self) -> str:
        text = (self._folder / "log").read_text(errors="replace")
        return f"{self.name} failed or did not answer in time; the end of its log:\n" + "\n".join(
            text.splitlines()[-15:]
        )


def import_seconds(library: str) -> float:
    """Seconds that ``import library`` takes in a fresh process."""
    code = f"import time; began = time.perf_counter(); import {library}; print(time.perf_counter() - began)"
    with tempfile.TemporaryDirectory(prefix="nsb-") as folder:
        command = [sys.executable, "-c", code]
        environment = _environment(Path(folder), "import")
        return float(subprocess.run(command, env=environment, cwd=folder, capture_output=True, check=True).stdout)


def _environment(folder: Path, mark: str) -> dict[str, str]:
    """This process's, with every place where a library might leave files inside ``folder``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "DASK_", "IPY"))}
    home = str(folder)
    return kept | {
        MARK: mark,
        "HOME": home,
        "IPYTHONDIR": str(folder / "ipython"),
        "DASK_TEMPORARY_DIRECTORY": home,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }


def _receive(pipe: Connection, describe: Callable[[], str]) -> Any:
    try:
        if pipe.poll(PATIENCE_S):
            return pipe.recv()
    except EOFError:
        pass
    raise SystemFailed(describe())


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # gone meanwhile, or someone else's
            if process.environ().get(MARK) == mark:
                yield process
