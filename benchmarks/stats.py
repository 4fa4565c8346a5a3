"""What a list of timings says."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Summary", "paired_ratio", "summarise", "turn_order"]


@dataclass(frozen=True, slots=True)
class Summary:
    """The middle of some timings and their spread, in seconds: half of them lie between the quartiles."""

    median: float
    lower_quartile: float
    upper_quartile: float
    count: int


def summarise(seconds: Sequence[float]) -> Summary:
    """The summary of at least one timing."""
    if len(seconds) == 1:
        return Summary(seconds[0], seconds[0], seconds[0], 1)
    lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return Summary(median, lower, upper, len(seconds))


def paired_ratio(above: Sequence[Sequence[float]], below: Sequence[Sequence[float]]) -> float:
    """How many times as long ``above`` takes as ``below``; each holds the timings of one turn per round.

    Both turns of a round ran within moments of each other, so what else the machine did weighs on both. The median of
    the rounds' ratios therefore holds still where the ratio of two medians drifts with the load.
    """
    rounds = min(len(above), len(below))
    return statistics.median(statistics.median(above[k]) / statistics.median(below[k]) for k in range(rounds))


def turn_order(systems: Sequence[str], round_number: int) -> list[str]:
    """Who goes first, second ... in a round: each system takes every place equally often."""
    start = round_number % len(systems)
    return [*systems[start:], *systems[:start]]
