"""How far calls are, and how fast they go on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from nsactors.core.durations import Speedometer
from nsactors.results.call import Call
from nsactors.results.live.screen import Progress
from nsactors.results.task_calls import MapCall, TaskCall

__all__ = ["Amount", "ProgressMeter", "amount_of"]


class Amount(NamedTuple):
    """How much of something has ended, of how much, and what is counted."""

    done: int
    total: int
    unit: str


def amount_of(calls: Sequence[Call]) -> Amount:
    """How much of these has ended: items of balanced maps, tasks, parts of other maps, or engines."""
    if calls and all(isinstance(call, TaskCall) for call in calls):
        maps = [call for call in calls if isinstance(call, MapCall)]
        others = [call for call in calls if not isinstance(call, MapCall)]
        done = sum(call.size - call.left for call in maps) + sum(call.done for call in others)
        return Amount(done, sum(call.size for call in maps) + len(others), "items" if maps else "tasks")
    unit = "engines" if len({call.engine_id for call in calls}) == len(calls) else "parts"
    return Amount(sum(call.done for call in calls), len(calls), unit)


class ProgressMeter:
    """Reads how far calls are, with rate and estimate where there are many things to count.

    Args:
        label: what they are called together.
        calls: any number.
        began: when they were asked for, in seconds since the epoch; by default when the first of them was.
    """

    def __init__(self, label: str, calls: Sequence[Call], began: float | None = None) -> None:
        self._label = label
        self._calls = calls
        self._began = min((call.submitted for call in calls), default=time.time()) if began is None else began
        self._speed = Speedometer(amount_of(calls).total)
        self._speed.note(0, self._began)

    def read(self) -> Progress:
        """How far they are now."""
        done, total, unit = amount_of(self._calls)
        now = time.time()
        if done == total:  # perhaps a while ago
            now = max((call.received for call in self._calls if call.received is not None), default=now)
        elapsed_s = now - self._began
        if unit not in ("items", "tasks"):  # engines answer together, more or less: they have no rate
            return Progress(self._label, done, total, elapsed_s, unit)
        self._speed.note(done, now)
        return Progress(self._label, done, total, elapsed_s, unit, self._speed.rate, self._speed.left_s)

    def sum_up(self) -> Progress:
        """How far they were in the end, and how fast on the whole."""
        last = self.read()
        rate = last.done / last.elapsed_s if last.rate is not None and last.elapsed_s > 0 else None
        return last._replace(rate=rate, left_s=None)
