"""Summaries and paired ratios of timings."""

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
    """Return the summary of at least one number."""
    if len(numbers) == 1:
        return Summary(numbers[0], numbers[0], numbers[0], 1)
    lower, median, upper = statistics.quantiles(numbers, n=4, method="inclusive")
    return Summary(median, lower, upper, len(numbers))


def paired_ratios(above: Sequence[Sequence[float]], below: Sequence[Sequence[float]]) -> list[float]:
    """Return the ratio of ``above`` to ``below`` in each round; both have the numbers of one turn per round.

    Both turns of a round ran at nearly the same time, so other load of the machine affects both. Therefore the median
    of the rounds' ratios is stable where the ratio of two medians drifts with the load.
    """
    return [statistics.median(a) / statistics.median(b) for a, b in zip(above, below, strict=False)]


def turn_order(systems: Sequence[str], round_number: int) -> list[str]:
    """Return the order of systems in a round: over the rounds, each system takes every place equally often."""
    start = round_number % len(systems)
    return [*systems[start:], *systems[:start]]
