"""A turn: the same thing done a few times, on the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Turn", "take_turn"]

WARM_UP_RUNS = 3


class Turn(NamedTuple):
    """What one turn gave.

    Attributes:
        seconds: how long each run took.
        cpu_s: CPU seconds that this process spent per run, all of its threads together.
    """

    seconds: list[float]
    cpu_s: float


def take_turn(run: Callable[[], object], runs: int) -> Turn:
    """Run something so many times, after some that do not count."""
    for _ in range(min(WARM_UP_RUNS, runs)):
        run()
    began = time.process_time()
    seconds = [_timed(run) for _ in range(runs)]
    # Around all runs: what a library does after it has given its answer is paid by whoever comes next.
    return Turn(seconds, (time.process_time() - began) / runs)


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    value = run()
    seconds = time.perf_counter() - began
    del value  # outside the clock: letting go of a million numbers takes a while too
    return seconds
