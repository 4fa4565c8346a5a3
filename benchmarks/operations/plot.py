"""Draw cost against the number of engines: ``python -m benchmarks.operations.plot RESULTS.json PICTURE.svg``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.operations.catalogue import OPERATIONS
from benchmarks.operations.report import Measure, Row, client_cpu, from_json, rows, wall
from benchmarks.operations.rounds import Cell, Results
from benchmarks.systems import SYSTEMS

__all__ = ["plot"]

MEASURES: tuple[tuple[str, Measure], ...] = (("time", wall), ("CPU time of the client", client_cpu))

# Legible on white and on black alike; the background is that of the page.
INK = "#858585"
COLORS = {
    "nsactors": "#d9562b",
    "broadcast": "#d4589b",
    "ray": "#2f86d6",
    "ipyparallel": "#2f9e6e",
    "dask": "#b08c1e",
    "local": "#8a77d8",
}
STYLE: dict[Any, Any] = {
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 11,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "nsactors",  # the same results give the same file
    "savefig.transparent": True,
}


def plot(results: Results, path: Path) -> None:
    """Draw the cost per engine of each operation that ran on the most engines, on logarithmic axes.

    Bands hold the middle half of the timings.

    Args:
        results: operations at several numbers of engines.
        path: the file for the picture; its suffix gives the format.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    most = max(cell.engines for cell in results.turns)
    shown = [o for o in OPERATIONS if not o.cold and any(Cell(o.name, most, name) in results.turns for name in SYSTEMS)]
    with matplotlib.rc_context(STYLE):
        figure, grid = pyplot.subplots(
            len(MEASURES), len(shown), figsize=(13, 6.5), sharex=True, sharey="row", squeeze=False, layout="constrained"
        )
        for panels, (what, measure) in zip(grid, MEASURES, strict=True):
            lines = rows(results, measure)
            panels[0].set_ylabel(f"{what}, ms an engine")
            for panel, operation in zip(panels, shown, strict=True):
                _draw_panel(panel, [line for line in lines if line.operation == operation.name])
        for panel, operation in zip(grid[0], shown, strict=True):
            panel.set_title(operation.title, fontsize=11)
        for panel in grid[-1]:
            panel.set_xlabel("engines")
        handles = {
            label: line for panel in grid.flat for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles), frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        pyplot.close(figure)


def _draw_panel(panel: Any, lines: Sequence[Row]) -> None:
    from matplotlib.ticker import LogLocator

    counts = sorted({line.engines for line in lines})
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(counts, [str(n) for n in counts])
    panel.minorticks_off()
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.grid(visible=True)
    for name, color in COLORS.items():
        found = [(line.engines, line.summaries[name]) for line in lines if name in line.summaries]
        if not found:
            continue
        engines = [n for n, _ in found]
        panel.plot(engines, [1e3 * s.median / n for n, s in found], "o-", color=color, label=SYSTEMS[name].title)
        low, high = ([1e3 * s.lower_quartile / n for n, s in found], [1e3 * s.upper_quartile / n for n, s in found])
        panel.fill_between(engines, low, high, color=color, alpha=0.2, linewidth=0)


def main(arguments: Sequence[str]) -> None:
    """Draw the results in a file."""
    source, target = map(Path, arguments)
    plot(from_json(json.loads(source.read_text())), target)


if __name__ == "__main__":
    main(sys.argv[1:])
