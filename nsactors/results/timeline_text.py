"""A timeline in a terminal."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nsactors.core.timeline import Cell, Schedule, cells, rows, tick_label, ticks
from nsactors.errors import engine_ranges

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

__all__ = ["TerminalPicture"]

MAX_ROWS = 32
_LEAST_COLUMNS = 10
_TICK_COLUMNS = 12
_HEIGHTS = " ▁▂▃▄▅▆▇"  # never a full block: rows would run into each other
# The shades of one colour tell one piece of work from the next, the colours one kind of work from another.
_SHADES = (
    ("dodger_blue2", "deep_sky_blue1"),
    ("dark_orange3", "orange1"),
    ("green4", "green3"),
    ("medium_purple3", "medium_purple1"),
    ("dark_cyan", "cyan3"),
)
_FAILED = ("red3", "red1")


class TerminalPicture:
    """A line for each engine, in blocks that are the higher the busier it was.

    Args:
        schedule: what to draw.
        title: above it.
        numbers: below it.
    """

    def __init__(self, schedule: Schedule, title: str, numbers: str) -> None:
        self._schedule = schedule
        self._title = title
        self._numbers = numbers

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As wide as the terminal."""
        from rich.text import Text

        schedule = self._schedule
        lines = rows(schedule.engine_ids, MAX_ROWS)
        names = [engine_ranges(engine_ids) for engine_ids in lines]
        margin = max([len(name) for name in names], default=0) + 1
        columns = max(_LEAST_COLUMNS, options.max_width - margin - len(" 100%"))
        yield Text(self._title, style="bold")
        shades = {label: _SHADES[number % len(_SHADES)] for number, label in enumerate(schedule.labels)}
        for name, line in zip(names, cells(schedule, lines, columns), strict=True):
            share = f"{sum(cell.busy for cell in line) / columns:4.0%}"
            yield Text.assemble(name.rjust(margin - 1), " ", _blocks(line, shades), " ", (share.rjust(4), "dim"))
        if lines:
            yield Text(" " * margin + _axis(schedule.makespan, columns), style="dim")
        if (legend := self._legend(shades)) is not None:
            yield legend
        yield Text(self._numbers)

    def _legend(self, shades: Mapping[str, tuple[str, str]]) -> Text | None:
        from rich.text import Text

        entries = [(label, shade) for label, (shade, _) in shades.items()] if len(shades) > 1 else []
        if any(stretch.failed for stretch in self._schedule.stretches):
            entries.append(("failed", _FAILED[0]))
        if not entries:
            return None
        return Text("   ").join(Text.assemble(("■", colour), " ", label) for label, colour in entries)


def _blocks(line: Sequence[Cell], shades: Mapping[str, tuple[str, str]]) -> Text:
    from rich.text import Text

    def style(cell: Cell) -> str:
        if cell.stretch is None:
            return ""
        return (_FAILED if cell.stretch.failed else shades[cell.stretch.label])[cell.is_odd]

    runs = itertools.groupby(line, key=style)
    return Text.assemble(*(("".join(map(_block, run)), colour) for colour, run in runs), no_wrap=True)


def _block(cell: Cell) -> str:
    # Whatever was done is to be seen, however short.
    least = cell.stretch is not None
    return _HEIGHTS[max(least, round(cell.busy * (len(_HEIGHTS) - 1)))]


def _axis(span_s: float, columns: int) -> str:
    """Times, each beginning at the column where it is."""
    times = ticks(span_s, max(3, columns // _TICK_COLUMNS))
    axis = ""
    for seconds in times:
        column = round(seconds / span_s * columns) if span_s else 0
        label = tick_label(seconds, times[-1])
        if len(axis) <= column <= columns - len(label) - 1:
            axis = f"{axis:<{column}}╵{label}"
    return axis
