"""Results as a table for people and as JSON for comparisons later."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from benchmarks.operations import OPERATIONS
from benchmarks.rounds import Cell, Results
from benchmarks.stats import Summary, paired_ratio, summarise
from benchmarks.systems import SYSTEMS

__all__ = ["RATIOS", "Row", "as_json", "draw", "format_ratio", "format_seconds", "rows"]

RATIOS = (("nsactors", "ray"), ("ipyparallel", "nsactors"), ("dask", "nsactors"))
_DISTRIBUTIONS = ("nsactors", "ray", "ipyparallel", "distributed", "ipython", "numpy")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: summaries by system, and the ratios of ``RATIOS`` where both sides were measured."""

    operation: str
    engines: int
    summaries: dict[str, Summary]
    ratios: dict[tuple[str, str], float]


def rows(results: Results) -> list[Row]:
    """The lines of the table, in the order of ``OPERATIONS``."""
    order = {operation.name: k for k, operation in enumerate(OPERATIONS)}
    lines = {(cell.operation, cell.engines) for cell in results.turns}
    return [_row(results, *line) for line in sorted(lines, key=lambda line: (order[line[0]], line[1]))]


def _row(results: Results, operation: str, engines: int) -> Row:
    turns = {name: results.turns.get(Cell(operation, engines, name)) for name in SYSTEMS}
    measured = {name: found for name, found in turns.items() if found}
    return Row(
        operation,
        engines,
        {name: summarise(results.all_of(Cell(operation, engines, name))) for name in measured},
        {
            (above, below): paired_ratio(measured[above], measured[below])
            for above, below in RATIOS
            if above in measured and below in measured
        },
    )


def draw(lines: Sequence[Row]) -> Table:
    """The table: medians with quartiles, and ratios."""
    present = [name for name in SYSTEMS if any(name in line.summaries for line in lines)]
    ratios = [pair for pair in RATIOS if any(pair in line.ratios for line in lines)]
    titles = {operation.name: operation.title for operation in OPERATIONS}
    table = Table(title="median (quartiles)", title_justify="left")
    table.add_column("operation", min_width=20)
    table.add_column("engines", justify="right")
    for name in present:
        table.add_column(SYSTEMS[name].title, justify="right")
    for above, below in ratios:
        table.add_column(f"{SYSTEMS[above].title}\n/ {SYSTEMS[below].title}", justify="right", style="bold")
    for line in lines:
        table.add_row(
            titles[line.operation],
            str(line.engines or ""),
            *(_format_summary(line.summaries.get(name)) for name in present),
            *(format_ratio(line.ratios.get(pair)) for pair in ratios),
        )
    return table


def format_seconds(seconds: float) -> str:
    """A time in the unit that suits it, to three digits: ``1.23 ms``."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / 1e-6)} µs"


def format_ratio(ratio: float | None) -> str:
    """A ratio to two places; empty without one."""
    return "" if ratio is None else f"{ratio:.2f}"


def as_json(results: Results, options: dict[str, Any], load_average: Iterable[float]) -> dict[str, Any]:
    """Everything that was measured and where: single timings in seconds, grouped by round."""
    return {
        "options": options,
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "load_average": list(load_average),
            "versions": {name: _version(name) for name in _DISTRIBUTIONS},
        },
        "results": [
            {**asdict(cell), "summary": asdict(summarise(results.all_of(cell))), "turns": turns}
            for cell, turns in sorted(results.turns.items())
        ],
    }


def _format_summary(summary: Summary | None) -> str:
    if summary is None:
        return ""
    if summary.count == 1:
        return format_seconds(summary.median)
    spread = (summary.lower_quartile, summary.upper_quartile)
    lower, upper = (format_seconds(second).replace(" ", "\N{NO-BREAK SPACE}") for second in spread)
    return f"{format_seconds(summary.median)}\n[dim]{lower} – {upper}[/dim]"


def _three_digits(number: float) -> str:
    decimals = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:.{decimals}f}"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
