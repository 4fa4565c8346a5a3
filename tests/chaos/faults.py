"""What is done to a cluster at work."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from nsactors import Client
from tests.chaos.recoveries import Recoveries

__all__ = ["CrashingCell", "Fault", "KillEngine", "KillNewcomer", "RecoverEngine", "Scene", "engine_processes"]

NEWCOMER_S = 10.0
NEWCOMER_AGE_S = 1.0


@dataclass(frozen=True, slots=True)
class Scene:
    """Where faults happen.

    Attributes:
        rc: a client of their own.
        chance: chooses whom they strike.
        recoveries: the watch that is started for an engine when it is struck.
    """

    rc: Client
    chance: random.Random
    recoveries: Recoveries

    def engine(self) -> int | None:
        """An engine that takes requests; None if all have just been struck."""
        there = sorted(set(self.rc.ids) - self.recoveries.awaited)
        return self.chance.choice(there) if there else None


class Fault(Protocol):
    """Something that happens to a cluster."""

    def strike(self, scene: Scene) -> bool:
        """Let it happen; False if there was nobody to whom it could."""
        ...


class KillEngine:
    """SIGKILL, at any moment."""

    def strike(self, scene: Scene) -> bool:
        """See ``Fault``."""
        return _kill(scene) is not None


class KillNewcomer:
    """SIGKILL, and again for the process that takes the dead one's place, perhaps before it has got that far."""

    def strike(self, scene: Scene) -> bool:
        """See ``Fault``."""
        before = set(engine_processes())
        if scene.recoveries.awaited or (engine_id := _kill(scene)) is None:
            return False
        pause, deadline = threading.Event(), time.monotonic() + NEWCOMER_S
        while time.monotonic() < deadline:
            for pid in set(engine_processes()) - before:
                pause.wait(scene.chance.uniform(0, NEWCOMER_AGE_S))
                scene.recoveries.begin(engine_id)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                return True
            pause.wait(0.02)
        return True


class CrashingCell:
    """A cell that ends its own process; it must not be repeated."""

    def strike(self, scene: Scene) -> bool:
        """See ``Fault``."""
        engine_id = scene.engine()
        if engine_id is None:
            return False
        scene.recoveries.begin(engine_id)
        scene.rc[engine_id].execute("import os; os._exit(1)", block=False).exception()
        return True


class RecoverEngine:
    """Somebody takes an engine down that they think is stuck."""

    def strike(self, scene: Scene) -> bool:
        """See ``Fault``."""
        engine_id = scene.engine()
        if engine_id is None:
            return False
        scene.recoveries.begin(engine_id)
        scene.rc.recover(engine_id)
        return True


def _kill(scene: Scene) -> int | None:
    engine_id = scene.engine()
    engine = None if engine_id is None else scene.rc.session.roster.get(engine_id)
    if engine is None or not _is_engine(engine.pid):
        return None
    scene.recoveries.begin(engine.engine_id)
    os.kill(engine.pid, signal.SIGKILL)
    return engine.engine_id


def engine_processes() -> Iterator[int]:
    """The engines among the processes that this one has started."""
    for process in psutil.Process().children(recursive=True):
        if _is_engine(process.pid):
            yield process.pid


def _is_engine(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::RayEngine")
    except OSError:
        return False
