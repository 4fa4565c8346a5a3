"""What a list of timings says."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Summary", "paired_ratios", "summarise", "turn_order"]


@dataclass(frozen=True, slots=True)
class Summary:
    """The middle of some numbers and their spread: half of them lie between the quartiles."""

    median: float
    lower_quartile: float
    upper_quartile: float
    count: int


def summarise(numbers: Sequence[float]) -> Summary:
    """The summary of at least one number."""
    if len(numbers) == 1:
        return Summary(numbers[0], numbers[0], numbers[0], 1)
    lower, median, upper = statistics.quantiles(numbers, n=4, method="inclusive")
    return Summary(median, lower, upper, len(numbers))


def paired_ratios(above: Sequence[Sequence[float]], below: Sequence[Sequence[float]]) -> list[float]:
    """How many times as much ``above`` takes as ``below``, round by round; each holds the numbers of one turn a round.

    Both turns of a round ran within moments of each other, so what else the machine did weighs on both. The median of
    the rounds' ratios therefore holds still where the ratio of two medians drifts with the load.
    """
    return [statistics.median(a) / statistics.median(b) for a, b in zip(above, below, strict=False)]


def turn_order(systems: Sequence[str], round_number: int) -> list[str]:
    """Who goes first, second ... in a round: each system takes every place equally often."""
    start = round_number % len(systems)
    return [*systems[start:], *systems[:start]]
