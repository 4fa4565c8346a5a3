"""What is done to a cluster at work."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from nsactors import Client
from nsactors.errors import EngineLost
from tests.chaos.gallery import EXPENDABLE
from tests.chaos.recoveries import Recoveries

__all__ = [
    "FAULTS",
    "CrashingCell",
    "Fault",
    "FullDisk",
    "KillController",
    "KillEngine",
    "KillInSnapshot",
    "KillNewcomer",
    "RecoverEngine",
    "Scene",
    "Snapshot",
    "VanishingClient",
    "kill_engine",
]

NEWCOMER_S = 10.0
NEWCOMER_AGE_S = 1.0
CLIENT_LIMIT_S = 120.0
SNAPSHOT_S, SNAPSHOT_LIMIT_S = 0.3, 120.0
FULL_S = 2.0
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Scene:
    """The cluster on which faults happen, and its surroundings.

    Attributes:
        rc: a client of their own.
        chance: chooses whom they strike.
        recoveries: the watch that is started for an engine when it is struck.
        connection: the file by which other processes become clients.
        spared: engines that nothing strikes, so that one sees whether they grow.
        disk: the small disk that holds all that the cluster writes; None if it shares one with others.
    """

    rc: Client
    chance: random.Random
    recoveries: Recoveries
    connection: Path
    spared: frozenset[int] = frozenset()
    disk: Path | None = None

    def engine(self) -> int | None:
        """An engine that takes requests and is not spared; None if all have just been struck."""
        there = sorted(set(self.rc.ids) - self.recoveries.awaited - self.spared)
        return self.chance.choice(there) if there else None


class Fault(ABC):
    """Something that happens to a cluster; one instance for all times that it happens in a run."""

    @abstractmethod
    def strike(self, scene: Scene) -> bool:
        """Let the fault happen; return False if there was nothing that it could strike."""

    def look_back(self, scene: Scene) -> Iterable[str]:
        """Yield the complaints at the end."""
        return ()


class KillEngine(Fault):
    """SIGKILL, at any moment."""

    def strike(self, scene: Scene) -> bool:
        """See ``Fault``."""
        return kill_engine(scene) is not None


class KillNewcomer(Fault):
    """SIGKILL, and again for the process that takes the dead one's place, perhaps before it has got that far."""

    def strike(self, scene: Scene) -> bool:
        """See ``Fault``."""
        before = set(_processes("RayEngine"))
        if scene.recoveries.awaited or (engine_id := kill_engine(scene)) is None:
            return False
        pause, deadline = threading.Event(), time.monotonic() + NEWCOMER_S
        while time.monotonic() < deadline:
            for pid in set(_processes("RayEngine")) - before:
                pause.wait(scene.chance.uniform(0, NEWCOMER_AGE_S))
                scene.recoveries.begin(engine_id)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                return True
            pause.wait(0.02)
        return True


class CrashingCell(Fault):
    """A cell that ends its own process; it must not be repeated."""

    def strike(self, scene: Scene) -> bool:
        """See ``Fault``."""
        engine_id = scene.engine()
        if engine_id is None:
            return False
        scene.recoveries.begin(engine_id)
        scene.rc[engine_id].execute("import os; os._exit(1)", block=False).exception()
        return True


class RecoverEngine(Fault):
    """Somebody takes an engine down that they think is stuck."""

    def strike(self, scene: Scene) -> bool:
        """See ``Fault``."""
        engine_id = scene.engine()
        if engine_id is None:
            return False
        scene.recoveries.begin(engine_id)
        scene.rc.recover(engine_id)
        return True


class Snapshot(Fault):
    """Somebody takes a snapshot while others work."""

    def __init__(self) -> None:
        self._left_out: set[str] = set()

    def strike(self, scene: Scene) -> bool:
        """See ``Fault``."""
        engine_id = scene.engine()
        if engine_id is None:
            return False
        asked = scene.rc[engine_id].snapshot(block=False)
        if not isinstance(asked.exception(SNAPSHOT_LIMIT_S), EngineLost | None):
            self._left_out.add(f"anything: {asked.exception()!r}")
        elif asked.exception() is None:
            self._left_out |= asked.get().keys() - EXPENDABLE
        return True

    def look_back(self, scene: Scene) -> Iterator[str]:
        """See ``Fault``."""
        yield from (f"a snapshot did not hold {name}" for name in sorted(self._left_out))


class KillInSnapshot(Fault):
    """SIGKILL while a snapshot is taken, or just before or after."""

    def strike(self, scene: Scene) -> bool:
        """See ``Fault``."""
        engine_id = scene.engine()
        engine = None if engine_id is None else scene.rc.session.directory.get(engine_id)
        if engine is None or not _is(engine.pid, "RayEngine"):
            return False
        asked = scene.rc[engine.engine_id].snapshot(block=False)
        threading.Event().wait(scene.chance.uniform(0, SNAPSHOT_S))
        scene.recoveries.begin(engine.engine_id)
        with contextlib.suppress(ProcessLookupError):
            os.kill(engine.pid, signal.SIGKILL)
        asked.exception(SNAPSHOT_LIMIT_S)  # it has been seen
        return True


class FullDisk(Fault):
    """The disk that holds the journals is full for a while, in which an engine may be killed."""

    def strike(self, scene: Scene) -> bool:
        """See ``Fault``."""
        if scene.disk is None:
            return False
        filler = scene.disk / "filler"
        try:
            with filler.open("wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1_000_000))
                    file.flush()
            threading.Event().wait(scene.chance.uniform(0, FULL_S))
            if scene.chance.random() < 0.5:
                kill_engine(scene)
                threading.Event().wait(scene.chance.uniform(0, FULL_S))
        finally:
            filler.unlink()
        return True


class KillController(Fault):
    """SIGKILL for the controller, which comes back with what it knew."""

    def strike(self, scene: Scene) -> bool:
        """See ``Fault``."""
        for pid in _processes("RayController"):
            os.kill(pid, signal.SIGKILL)
            return True
        return False


# Asks all engines for notes, says which have been acknowledged, and is killed in the midst of it.
CLIENT = """
import itertools, os, sys, threading
from nsactors import Client
rc = Client.connect(sys.argv[1], sys.argv[2], report=lambda text: None)
threading.Timer(float(sys.argv[3]), os.kill, [os.getpid(), 9]).start()
for number in itertools.count():
    engine_id = rc.ids[number % len(rc.ids)]
    result = rc[engine_id].execute(f"note({sys.argv[2]!r}, {number})", block=False)
    if number % 10 == 9:
        result.get()
        print(engine_id, number, flush=True)
"""


class VanishingClient(Fault):
    """Another process becomes a client, and is killed while it works."""

    def __init__(self) -> None:
        self._clients: dict[str, subprocess.Popen[str]] = {}
        self._heard: dict[str, tuple[int, str, str]] = {}

    def strike(self, scene: Scene) -> bool:
        """See ``Fault``."""
        self._hear(wait=False)
        name = f"v{len(self._heard) + len(self._clients)}"
        self._clients[name] = subprocess.Popen(
            [sys.executable, "-c", CLIENT, scene.connection, name, str(scene.chance.uniform(0, 2))],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return True

    def look_back(self, scene: Scene) -> Iterator[str]:
        """See ``Fault``."""
        self._hear(wait=True)
        for name, (status, printed, errors) in self._heard.items():
            if status != -signal.SIGKILL:
                yield f"client {name} ended with status {status}: {errors}"
            acknowledged = {tuple(map(int, line.split())) for line in printed.splitlines()}
            notes = scene.rc[:].pull(f"[number for author, number in ledger if author == {name!r}]", block=True)
            found = [(engine_id, note) for engine_id, there in zip(scene.rc.ids, notes, strict=True) for note in there]
            if missing := acknowledged - set(found):
                yield f"client {name} was told of notes that are not there: {sorted(missing)}"
            if len(found) > len(set(found)) or any(list(there) != sorted(there) for there in notes):
                yield f"notes of client {name} are there twice, or not in order: {notes}"

    def _hear(self, *, wait: bool) -> None:
        """What those had to say that have ended."""
        for name, client in list(self._clients.items()):
            if wait or client.poll() is not None:
                printed, errors = client.communicate(timeout=CLIENT_LIMIT_S)
                self._heard[name] = client.returncode, printed, errors
                del self._clients[name]


FAULTS: dict[type[Fault], int] = {
    KillEngine: 16,
    RecoverEngine: 2,
    CrashingCell: 1,
    KillNewcomer: 1,
    Snapshot: 3,
    KillInSnapshot: 3,
    FullDisk: 2,
    KillController: 2,
    VanishingClient: 1,
}
"""All kinds, and how often each happens in comparison."""


def kill_engine(scene: Scene) -> int | None:
    """Kill an engine with SIGKILL; return its id, or None if there is none to kill."""
    engine_id = scene.engine()
    engine = None if engine_id is None else scene.rc.session.directory.get(engine_id)
    if engine is None or not _is(engine.pid, "RayEngine"):
        return None
    scene.recoveries.begin(engine.engine_id)
    os.kill(engine.pid, signal.SIGKILL)
    return engine.engine_id


def _processes(actor: str) -> Iterator[int]:
    """The processes of actors of a class, among those that this one has started."""
    return (process.pid for process in psutil.Process().children(recursive=True) if _is(process.pid, actor))


def _is(pid: int, actor: str) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(f"ray::{actor}".encode())
    except OSError:
        return False
