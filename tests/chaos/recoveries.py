"""How long it takes until an engine that was struck is back."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from nsactors import Client
from tests.chaos.gallery import EXPENDABLE
from tests.chaos.tally import Tally

__all__ = ["Recoveries", "Recovery"]


class Recovery(NamedTuple):
    """From the blow until a client heard that the engine takes requests; ``replay_s`` of it went into its namespace."""

    total_s: float
    replay_s: float
    replayed: int

    @property
    def beyond_s(self) -> float:
        """The time of the recovery without that of the namespace."""
        return self.total_s - self.replay_s


class Recoveries:
    """A watch for each engine.

    Args:
        rc: hears when engines join.
        tally: hears what recoveries say to be lost.

    Attributes:
        done: those that have ended, in order.
        flawed: reports of those that did not bring a namespace back as it was; a client forgets old ones.
    """

    def __init__(self, rc: Client, tally: Tally) -> None:
        self.done: list[Recovery] = []
        self.flawed: list[str] = []
        self._rc = rc
        self._tally = tally
        self._struck: dict[int, float] = {}
        self._changed = threading.Condition()
        rc.on_join(self._end)

    @property
    def awaited(self) -> set[int]:
        """Engines that have been struck and are not back."""
        return set(self._struck)

    def begin(self, engine_id: int) -> None:
        """An engine is struck now."""
        self._struck[engine_id] = time.monotonic()

    def wait(self, timeout_s: float) -> bool:
        """Wait until all are back; whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._struck, timeout_s)

    def _end(self, engine_id: int) -> None:
        now = time.monotonic()
        began = self._struck.get(engine_id)
        engine = self._rc.session.directory.get(engine_id)
        report = None if engine is None else engine.recovered
        if report is None:
            return
        lost = {name for name, _ in report.lost}
        self._tally.tell_lost(engine_id, lost)
        if report.diverged or lost - EXPENDABLE or report.shipped_only:
            self.flawed.append(str(report))
        if began is None:
            return
        self.done.append(Recovery(now - began, report.took_s, report.replayed))
        with self._changed:
            del self._struck[engine_id]
            self._changed.notify_all()
