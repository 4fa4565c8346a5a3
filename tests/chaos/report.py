"""The figures of a run, drawn."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table

from tests.chaos.readings import Growth, growth
from tests.chaos.run import Figures

__all__ = ["draw", "overgrown"]

SHOWN = 30
MEGABYTE = 1_000_000


def draw(figures: Figures, warm_up_s: float) -> RenderableType:
    """All figures, and the complaints."""
    parts: list[RenderableType] = [*_counts(figures), _times(figures)]
    if figures.readings:
        parts.append(_grown(growth(figures.readings, warm_up_s)))
    complaints = figures.tally.complaints
    parts += [f"[red]{complaint}" for complaint in complaints[:SHOWN]]
    parts.append(
        f"{len(complaints)} complaints" if complaints else "The books balance: there is nothing to complain of."
    )
    return Group(*parts)


def overgrown(figures: Figures, warm_up_s: float) -> list[Growth]:
    """The quantities of nsactors that have grown by more than is allowed."""
    return [one for one in growth(figures.readings, warm_up_s) if one.is_too_much]


def _counts(figures: Figures) -> Iterator[str]:
    tally, seconds = figures.tally, figures.took_s
    yield f"{seconds:.0f} s, {figures.faults.total()} faults: {_listed(figures.faults)}"
    requests = tally.requests.total()
    yield f"{requests:,} requests ({requests / max(seconds, 1):.0f}/s): {_listed(tally.requests)}"
    yield f"outcomes: {_listed(tally.outcomes)}"
    replayed = sum(recovery.replayed for recovery in figures.recoveries)
    yield f"{tally.checked:,} effects looked for in {tally.audits} audits; {replayed:,} requests replayed"


def _times(figures: Figures) -> Table:
    table = Table(title="seconds", title_justify="left")
    for heading in ("", "number", "median", "p95", "largest"):
        table.add_column(heading, justify="right" if heading else "left")
    recoveries = figures.recoveries
    rows = {
        "recovery, from the blow to a client that knows of it": [r.total_s for r in recoveries],
        "of that making the namespace again": [r.replay_s for r in recoveries],
        "and beyond that": [r.beyond_s for r in recoveries],
        "start of a bare Ray actor at the same time": figures.bare_starts,
    }
    for title, values in rows.items():
        if values:
            numbers = (statistics.median(values), _p95(values), max(values))
            table.add_row(title, str(len(values)), *(f"{number:.2f}" for number in numbers))
    return table


def _grown(grown: Sequence[Growth]) -> Table:
    table = Table(title="growth after the warm-up (medians)", title_justify="left")
    for heading in ("", "before", "after", "growth"):
        table.add_column(heading, justify="right" if heading else "left")
    for one in grown:
        amounts = (_amount(one.what, value) for value in (one.before, one.after))
        table.add_row(f"{one.kind}: {one.what}", *amounts, f"{one.share:+.1%}")
    return table


def _amount(what: str, value: float) -> str:
    return f"{value / MEGABYTE:.1f} MB" if what == "memory" else f"{value:.1f}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]
