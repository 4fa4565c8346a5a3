"""A table of the same operations through Ray and through a socket, in turns on one cluster."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.operations.stats import paired_ratios, summarise, turn_order

WAYS = {"Ray": "0", "socket": "1"}
"""The ways, each with the value of the variable that chooses it when a client, or a service, is made."""

Measure = Callable[[str], tuple[float, float]]
"""Repeats an operation by one of the ways; returns the time of one repetition, and its CPU time, in seconds."""


def print_head(processor: str) -> None:
    """Print the head of the table.

    Args:
        processor: the process whose CPU time is measured.
    """
    print(f"| operation | {' | '.join(f'{way}, ms | {processor} CPU, ms' for way in WAYS)} | Ray / socket |")
    print("|---|--:|--:|--:|--:|--:|")


def print_row(name: str, rounds: int, measure: Measure) -> None:
    """Measure an operation in rounds, each way once in each, and print the medians and the ratio."""
    took: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    cpu: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in turn_order([*WAYS], number):
            wall_s, cpu_s = measure(way)
            took[way].append([wall_s])
            cpu[way].append(cpu_s)
    cells = [
        f"{summarise([t for (t,) in took[way]]).median * 1e3:.3f} | {summarise(cpu[way]).median * 1e3:.3f}"
        for way in WAYS
    ]
    ratio = summarise(paired_ratios(took["Ray"], took["socket"]))
    spread = f"{ratio.median:.1f} ({ratio.lower_quartile:.1f}–{ratio.upper_quartile:.1f})"
    print(f"| {name} | {' | '.join(cells)} | {spread} |", flush=True)
