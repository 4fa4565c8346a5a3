"""A turn: the same operation a few times, timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Turn", "take_turn"]

WARM_UP_RUNS = 3


class Turn(NamedTuple):
    """The timings of one turn.

    Attributes:
        seconds: the duration of each run.
        cpu_s: CPU seconds that this process spent per run, all of its threads together.
    """

    seconds: list[float]
    cpu_s: float


def take_turn(run: Callable[[], object], runs: int) -> Turn:
    """Call ``run`` ``runs`` times, after a few times that do not count."""
    for _ in range(min(WARM_UP_RUNS, runs)):
        run()
    began = time.process_time()
    seconds = [_timed(run) for _ in range(runs)]
    # CPU time is measured around all runs: the work that a library does after its answer falls into the next run.
    return Turn(seconds, (time.process_time() - began) / runs)


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    value = run()
    seconds = time.perf_counter() - began
    del value  # not timed: the release of a million numbers takes a while too
    return seconds
