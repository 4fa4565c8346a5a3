"""Results as tables for people, and as JSON for later comparisons."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.operations.catalogue import OPERATIONS
from benchmarks.operations.rounds import Cell, Results
from benchmarks.operations.stats import Summary, paired_ratios, summarise
from benchmarks.operations.turns import Turn
from benchmarks.systems import SYSTEMS

__all__ = [
    "RATIOS",
    "RIVALS",
    "Row",
    "as_json",
    "client_cpu",
    "draw",
    "draw_cpu",
    "draw_growth",
    "fitted",
    "format_ratio",
    "format_seconds",
    "from_json",
    "growth",
    "rows",
    "wall",
]

RATIOS = (
    ("nsactors", "ray"),
    ("nsactors", "serial"),
    ("broadcast", "nsactors"),
    ("ipyparallel", "nsactors"),
    ("dask", "nsactors"),
    ("pool", "nsactors"),
    ("processes", "nsactors"),
)
RIVALS = ("pool", "ipyparallel", "dask", "processes", "multiprocessing", "loky", "mpi")
GROWTH_FROM = 4  # engines
WIDEST = 10_000  # columns
_DISTRIBUTIONS = ("nsactors", "ray", "ipyparallel", "distributed", "ipython", "numpy")
_TITLES = {operation.name: operation.title for operation in OPERATIONS}

Measure = Callable[[Turn], Sequence[float]]


def wall(turn: Turn) -> Sequence[float]:
    """Return the seconds of each run."""
    return turn.seconds


def client_cpu(turn: Turn) -> Sequence[float]:
    """Return the CPU seconds of the driving process per run."""
    return [turn.cpu_s]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: summaries by system, and ratios.

    Attributes:
        ratios: the entries of ``RATIOS`` whose both sides were measured.
        to_best: the ratio of nsactors to the quickest of ``RIVALS``, if any was measured.
    """

    operation: str
    engines: int
    summaries: dict[str, Summary]
    ratios: dict[tuple[str, str], Summary]
    to_best: Summary | None = None


def rows(results: Results, measure: Measure = wall) -> list[Row]:
    """Return the lines of the table, in the order of ``OPERATIONS``."""
    order = list(_TITLES)
    lines = {(cell.operation, cell.engines) for cell in results.turns}
    return [_row(results, measure, *line) for line in sorted(lines, key=lambda line: (order.index(line[0]), line[1]))]


def _row(results: Results, measure: Measure, operation: str, engines: int) -> Row:
    turns = {name: _measured(results, measure, Cell(operation, engines, name)) for name in SYSTEMS}
    present = {name: found for name, found in turns.items() if found}
    summaries = {name: _summary(found) for name, found in present.items()}
    rivals = [name for name in RIVALS if name in present and "nsactors" in present]
    best = min(rivals, key=lambda name: summaries[name].median, default=None)
    return Row(
        operation,
        engines,
        summaries,
        {
            (above, below): summarise(paired_ratios(present[above], present[below]))
            for above, below in RATIOS
            if above in present and below in present
        },
        None if best is None else summarise(paired_ratios(present["nsactors"], present[best])),
    )


def growth(results: Results, measure: Measure = wall) -> list[tuple[str, int, dict[str, Summary]]]:
    """Return operation, engines, and for each system the cost per engine relative to the cost with four engines."""
    found = []
    for row in rows(results, measure):
        if row.engines <= GROWTH_FROM:
            continue
        summaries = {}
        for name in row.summaries:
            few = _measured(results, measure, Cell(row.operation, GROWTH_FROM, name))
            many = _measured(results, measure, Cell(row.operation, row.engines, name))
            if few:
                share = GROWTH_FROM / row.engines
                summaries[name] = summarise([ratio * share for ratio in paired_ratios(many, few)])
        if summaries:
            found.append((row.operation, row.engines, summaries))
    return found


def draw(results: Results) -> Table:
    """Return the table of times: medians with quartiles, and ratios."""
    return _draw(rows(results), "time: median (quartiles)", lambda row: 1)


def draw_cpu(results: Results) -> Table:
    """Return the table of the CPU time that the driving process spends per engine, for calls without much data."""
    calls = {operation.name for operation in OPERATIONS if operation.most_engines is None}
    lines = [row for row in rows(results, client_cpu) if row.operation in calls]
    return _draw(lines, "CPU time of the client for each engine: median (quartiles)", lambda row: row.engines)


def _draw(lines: Sequence[Row], title: str, share: Callable[[Row], int]) -> Table:
    present = [name for name in SYSTEMS if any(name in line.summaries for line in lines)]
    ratios = [pair for pair in RATIOS if any(pair in line.ratios for line in lines)]
    table = _table(title, present)
    for above, below in ratios:
        table.add_column(f"{SYSTEMS[above].title}\n/ {SYSTEMS[below].title}", justify="right", style="bold")
    if any(line.to_best for line in lines):
        table.add_column("nsactors\n/ the best rival", justify="right", style="bold")
    for line in lines:
        table.add_row(
            _TITLES[line.operation],
            str(line.engines or ""),
            *(_format_summary(line.summaries.get(name), share(line)) for name in present),
            *(_format_ratios(line.ratios.get(pair)) for pair in ratios),
            *([_format_ratios(line.to_best)] if any(line.to_best for line in lines) else []),
        )
    return table


def draw_growth(results: Results) -> Table:
    """Return the table of the cost per engine relative to that with four engines; empty if there were never more."""
    lines = [(line, "time") for line in growth(results)] + [(line, "CPU") for line in growth(results, client_cpu)]
    present = [name for name in SYSTEMS if any(name in line[2] for line, _ in lines)]
    table = _table(f"cost per engine, relative to that with {GROWTH_FROM} engines: median (quartiles)", present)
    table.add_column("of")
    for (operation, engines, summaries), what in lines:
        table.add_row(
            _TITLES[operation], str(engines), *(_format_ratios(summaries.get(name)) for name in present), what
        )
    return table


def fitted(table: Table, console: Console) -> Table:
    """Return one of these tables; if the console is too narrow for it, a table with a line for each of its cells."""
    if console.measure(table, options=console.options.update(max_width=WIDEST)).maximum <= console.width:
        return table
    tall = Table(title=table.title, title_justify="left")
    for header in ("operation", "engines", "system"):
        tall.add_column(header, justify="right" if header == "engines" else "left")
    tall.add_column("median (quartiles)", no_wrap=True)
    headers = [str(column.header).replace("\n", " ") for column in table.columns]
    for operation, engines, *cells in zip(*(column.cells for column in table.columns), strict=True):
        lines = [(header, str(cell)) for header, cell in zip(headers[2:], cells, strict=True) if cell]
        for number, (header, cell) in enumerate(lines):
            first = (operation, engines) if number == 0 else ("", "")
            tall.add_row(*first, header, cell.replace("\n", "  "))
        tall.add_section()
    return tall


def _table(title: str, systems: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("operation", min_width=20)
    table.add_column("engines", justify="right")
    for name in systems:
        table.add_column(SYSTEMS[name].title, justify="right")
    return table


def format_seconds(seconds: float) -> str:
    """Return a time in a suitable unit, with three digits: ``1.23 ms``."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / 1e-6)} µs"


def format_ratio(ratio: float | None) -> str:
    """Return a ratio with two decimals; an empty text for None."""
    return "" if ratio is None else f"{ratio:.2f}"


def as_json(results: Results, options: dict[str, Any], load_average: Iterable[float]) -> dict[str, Any]:
    """Return all measurements, and the machine: single timings in seconds, grouped by round."""
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
            {
                **asdict(cell),
                "summary": asdict(_summary([turn.seconds for turn in turns])),
                "turns": [turn._asdict() for turn in turns],
            }
            for cell, turns in sorted(results.turns.items())
        ],
    }


def from_json(document: Mapping[str, Any]) -> Results:
    """Return the results in a document of :func:`as_json`."""
    return Results(
        {
            Cell(entry["operation"], entry["engines"], entry["system"]): [Turn(**turn) for turn in entry["turns"]]
            for entry in document["results"]
        }
    )


def _measured(results: Results, measure: Measure, cell: Cell) -> list[Sequence[float]]:
    return [measure(turn) for turn in results.turns.get(cell, [])]


def _summary(turns: Iterable[Sequence[float]]) -> Summary:
    return summarise([number for turn in turns for number in turn])


def _format_summary(summary: Summary | None, share: int = 1) -> str:
    if summary is None:
        return ""
    return _with_spread(summary, lambda seconds: format_seconds(seconds / share))


def _format_ratios(ratios: Summary | None) -> str:
    return "" if ratios is None else _with_spread(ratios, format_ratio)


def _with_spread(summary: Summary, form: Callable[[float], str]) -> str:
    if summary.count == 1:
        return form(summary.median)
    lower, upper = (
        form(n).replace(" ", "\N{NO-BREAK SPACE}") for n in (summary.lower_quartile, summary.upper_quartile)
    )
    return f"{form(summary.median)}\n[dim not bold]{lower} – {upper}[/]"


def _three_digits(number: float) -> str:
    decimals = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:.{decimals}f}"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
