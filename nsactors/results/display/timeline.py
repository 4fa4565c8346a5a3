"""Timelines: a schedule as text, SVG and in notebooks."""

from __future__ import annotations

import io
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsactors.errors import WrongType, WrongValue, engine_ranges, plural, printable
from nsactors.errors.formatting import seconds_in_words
from nsactors.protocol import arguments as arg
from nsactors.results.async_result import AsyncResult
from nsactors.results.call import NOWHERE, Call, MapPiece
from nsactors.results.display.schedule import Bar, Cell, Schedule, Stretch, bars, cells, rows, tick_label, ticks

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

MAX_ROWS = 32
_LEAST_COLUMNS = 10
_TICK_COLUMNS = 12
_HEIGHTS = " ▁▂▃▄▅▆▇"  # never a full block: rows would run into each other
# The shades of one colour separate one piece of work from the next; the colours separate kinds of work.
_SHADES = (
    ("dodger_blue2", "deep_sky_blue1"),
    ("dark_orange3", "orange1"),
    ("green4", "green3"),
    ("medium_purple3", "medium_purple1"),
    ("dark_cyan", "cyan3"),
)
_FAILED_STYLE = ("red3", "red1")


class TerminalPicture:
    """A line for each engine, in blocks. The busier the engine was, the higher is the block.

    Args:
        schedule: the schedule to draw.
        title: the text above it.
        numbers: the text below it.
    """

    def __init__(self, schedule: Schedule, title: str, numbers: str) -> None:
        self._schedule = schedule
        self._title = title
        self._numbers = numbers

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the picture, as wide as the terminal."""
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
            yield Text(" " * margin + _text_axis(schedule.makespan, columns), style="dim")
        if (legend := self._legend(shades)) is not None:
            yield legend
        yield Text(self._numbers)

    def _legend(self, shades: Mapping[str, tuple[str, str]]) -> Text | None:
        from rich.text import Text

        entries = [(label, shade) for label, (shade, _) in shades.items()] if len(shades) > 1 else []
        if any(stretch.failed for stretch in self._schedule.stretches):
            entries.append(("failed", _FAILED_STYLE[0]))
        if not entries:
            return None
        return Text("   ").join(Text.assemble(("■", colour), " ", printable(label, "")) for label, colour in entries)


def _blocks(line: Sequence[Cell], shades: Mapping[str, tuple[str, str]]) -> Text:
    from rich.text import Text

    def style(cell: Cell) -> str:
        if cell.stretch is None:
            return ""
        return (_FAILED_STYLE if cell.stretch.failed else shades[cell.stretch.label])[cell.is_odd]

    runs = itertools.groupby(line, key=style)
    return Text.assemble(*(("".join(map(_block, run)), colour) for colour, run in runs), no_wrap=True)


def _block(cell: Cell) -> str:
    # All work must be visible, even if it is short.
    least = cell.stretch is not None
    return _HEIGHTS[max(least, round(cell.busy * (len(_HEIGHTS) - 1)))]


def _text_axis(span_s: float, columns: int) -> str:
    """Return the times of an axis, each beginning at its column."""
    times = ticks(span_s, max(3, columns // _TICK_COLUMNS))
    axis = ""
    for seconds in times:
        column = round(seconds / span_s * columns) if span_s else 0
        label = tick_label(seconds, times[-1])
        if len(axis) <= column <= columns - len(label) - 1:
            axis = f"{axis:<{column}}╵{label}"
    return axis


WIDTH = 820
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 44, 28, 46
_LEGEND = 18
_PLOT = WIDTH - _LEFT - _RIGHT
_ROW, _LEAST_ROW = 20, 4
_HEIGHT_OF_ROWS = 640
_SHORTEST = 3.0  # pixels: shorter stretches are drawn together with their neighbours
_LEAST = 0.75  # pixels: a narrower bar could not be seen
_TICK = 90
# Colour-blind people can tell these apart, on white and on dark grey alike (after Wong, Nature Methods 8, 2011).
_COLOURS = ("#3a86c8", "#e69f00", "#009e73", "#cc79a7", "#8c7ae6", "#56b4e9")
_FAILED_COLOR = "#d1242f"
_STYLE = 'font-family="system-ui, sans-serif" font-size="12"'


def drawing(schedule: Schedule, title: str, numbers: str, *, inline: bool) -> str:
    """Return an SVG document.

    Args:
        schedule: the schedule to draw.
        title: the text above it.
        numbers: the text below it.
        inline: the document is part of a page and takes the page's colours; otherwise it is black on white.
    """
    row = max(_LEAST_ROW, min(_ROW, _HEIGHT_OF_ROWS // max(1, len(schedule.engine_ids))))
    legend = list(_legend(schedule))
    top = _TOP + _LEGEND * bool(legend)
    height = top + row * len(schedule.engine_ids) + _BOTTOM
    page = "" if inline else f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    colour = "currentColor" if inline else "#1f2328"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'style="max-width: 100%; height: auto" role="img" {_STYLE} fill="{colour}">',
        f"<title>{escape(f'{title}. {numbers}')}</title>{page}",
        f'<text x="{_LEFT}" y="16" font-weight="600">{escape(title)}</text>',
        *legend,
        *_svg_axis(schedule, top, height - _BOTTOM, colour),
        *_lines(schedule, top, row),
        *_bars(schedule, top, row),
        f'<text x="{_LEFT}" y="{height - 8}">{escape(numbers)}</text>',
        "</svg>",
    ]
    return "\n".join(parts)


def _svg_axis(schedule: Schedule, top: int, bottom: int, colour: str) -> Iterator[str]:
    span = schedule.makespan
    times = ticks(span, _PLOT // _TICK)
    for seconds in times:
        x = _LEFT + (_PLOT * seconds / span if span else 0)
        yield f'<path d="M{x:.1f} {top - 4}V{bottom + 4}" stroke="{colour}" stroke-opacity=".15"/>'
        yield (
            f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle" font-size="11" opacity=".7">'
            f"{tick_label(seconds, times[-1])}</text>"
        )


def _lines(schedule: Schedule, top: int, row: int) -> Iterator[str]:
    """Yield the texts left and right of each engine's bars: its id, and the part of the time that it worked."""
    every = max(1, -(-14 // row))  # if lines are low, not every line can have a text
    busy = dict.fromkeys(schedule.engine_ids, 0.0)
    for stretch in schedule.stretches:
        busy[stretch.engine_id] += stretch.seconds
    for number, engine_id in enumerate(schedule.engine_ids):
        if number % every:
            continue
        y = top + row * number + min(row, _ROW) / 2 + 4
        share = busy[engine_id] / schedule.makespan if schedule.makespan else 0.0
        yield f'<text x="{_LEFT - 8}" y="{y:.1f}" text-anchor="end">{engine_id}</text>'
        yield f'<text x="{WIDTH - 6}" y="{y:.1f}" text-anchor="end" font-size="11" opacity=".7">{share:.0%}</text>'


def _bars(schedule: Schedule, top: int, row: int) -> Iterator[str]:
    if not schedule.makespan:
        return
    scale = _PLOT / schedule.makespan
    lines = {engine_id: number for number, engine_id in enumerate(schedule.engine_ids)}
    colours = {label: _COLOURS[number % len(_COLOURS)] for number, label in enumerate(schedule.labels)}
    gap = 4 if row > 2 * _LEAST_ROW else 1
    # Neighbours are separated by a gap, if they are wide enough to lose a pixel.
    for bar in bars(schedule, _SHORTEST / scale):
        first = bar.first
        x, width = _LEFT + (first.start - schedule.begin) * scale, (bar.stop - first.start) * scale
        shown = max(_LEAST, width - 1 if width > _SHORTEST else width)
        fill = _FAILED_COLOR if bar.failed else colours[first.label]
        y = top + row * lines[first.engine_id]
        yield (
            f'<rect x="{x:.2f}" y="{y}" width="{shown:.2f}" height="{row - gap}" rx="1" fill="{fill}">'
            f"<title>{escape(_description(bar, schedule.begin))}</title></rect>"
        )


def _description(bar: Bar, begin: float) -> str:
    first = bar.first
    times = f"{seconds_in_words(bar.seconds)}, from {seconds_in_words(max(0.0, first.start - begin))} on"
    items = f", {bar.items:,} items" if bar.items > 1 else ""
    failed = "" if not bar.failed else ", failed" if bar.stretches == 1 else ", some of it failed"
    return printable(f"{', '.join(sorted(bar.labels))}{items} on engine {first.engine_id}: {times}{failed}", "")


def _legend(schedule: Schedule) -> Iterator[str]:
    labels = schedule.labels
    entries = [(label, _COLOURS[n % len(_COLOURS)]) for n, label in enumerate(labels)] if len(labels) > 1 else []
    if any(stretch.failed for stretch in schedule.stretches):
        entries.append(("failed", _FAILED_COLOR))
    x = float(_LEFT)
    for number, (label, colour) in enumerate(entries):
        width = 40 + 6.5 * len(label)
        if x + width > WIDTH:
            yield f'<text x="{x:.0f}" y="33">and {len(entries) - number} more</text>'
            return
        yield f'<rect x="{x:.0f}" y="24" width="10" height="10" fill="{colour}"/>'
        yield f'<text x="{x + 15:.0f}" y="33">{escape(printable(label, ""))}</text>'
        x += width


_LABELS = 3  # the largest number of labels in a title


class Timeline:
    """The work of engines in time, as a picture for terminals, notebooks and SVG files, and as numbers.

    It shows the calls that have ended when it is made. Times of work are read from the engines' clocks.

    Args:
        schedule: the work.
        unit: the name of its items.

    Example:
        >>> result = lview.map_async(simulate, range(1000))
        >>> result.wait_interactive()
        >>> result.timeline().save("simulation.svg")
    """

    def __init__(self, schedule: Schedule, unit: str = "call") -> None:
        self._schedule = schedule
        self._unit = unit

    @classmethod
    def of(cls, *results: AsyncResult | Iterable[AsyncResult], engines: Iterable[int] = ()) -> Timeline:
        """Return the work of several results together.

        Args:
            results: results of calls, tasks and maps, of any views; or lists of results.
            engines: ids of engines that get a line even if they did nothing, and then count as unused.
        """
        check_engines("of", engines)
        groups: list[AsyncResult] = []
        for some in results:
            takes = "results of calls, or lists of them"
            arg.check("of", results=None if isinstance(some, AsyncResult) else arg.iterable(some, takes))
            groups += [some] if isinstance(some, AsyncResult) else list(some)
        for group in groups:
            arg.check("of", results=arg.instance(group, AsyncResult, takes))
        calls = [call for group in groups for call in group.calls]
        submitted = [call.submitted for group in groups for call in group._calls]
        received = [call.received for call in calls if call.received is not None]
        begin = min(submitted, default=time.time())
        work = [stretch for call in calls if (stretch := _stretch(call)) is not None]
        left = sum(len(group) - group.progress for group in groups)
        unit = "item" if any(isinstance(call, MapPiece) for call in calls) else "call"
        return cls(Schedule.of(work, begin, max(received, default=begin), engines, left), unit)

    @property
    def engines(self) -> list[int]:
        """Ids of the engines that have a line."""
        return list(self._schedule.engine_ids)

    @property
    def stretches(self) -> list[Stretch]:
        """The work: stretches of time of engines."""
        return sorted(self._schedule.stretches, key=lambda stretch: stretch.start)

    @property
    def makespan(self) -> float:
        """Seconds from the first submission until the last result had arrived."""
        return self._schedule.makespan

    @property
    def serial_time(self) -> float:
        """Seconds that engines worked, added up: the time that one engine alone would have taken."""
        return self._schedule.serial_time

    @property
    def speed_up(self) -> float:
        """The factor by which one engine alone would have taken longer: ``serial_time / makespan``."""
        return self._schedule.speed_up

    @property
    def utilisation(self) -> float:
        """The part of the time in which engines worked, from 0 to 1: ``speed_up / len(engines)``."""
        return self._schedule.utilisation

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture into a file, as SVG.

        Raises:
            InvalidArgument: if the file's name does not end in ``.svg``.
        """
        arg.check("save", path=arg.path(path))
        file = Path(path)
        if file.suffix.lower() != ".svg":
            named = f"{file.stem or 'timeline'}.svg"
            raise WrongValue("save", "path", path, f"the path of an SVG file, such as {named!r}")
        file.write_text(self._repr_svg_(), encoding="utf-8")

    def __repr__(self) -> str:
        return f"<Timeline of {self._title()}: {self._numbers()}>"

    def __rich__(self) -> Any:
        """Return the picture for a terminal, as wide as the terminal."""
        return TerminalPicture(self._schedule, self._title(), self._numbers())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the picture at a prompt, in colours if it is a terminal."""
        from rich.console import Console

        at_terminal = sys.stdout.isatty()
        console = Console(file=io.StringIO(), force_terminal=at_terminal, force_jupyter=False)
        console.print(self.__rich__(), end="")
        printer.text(console.file.getvalue())  # type: ignore[attr-defined]  # of StringIO

    def _repr_html_(self) -> str:
        return drawing(self._schedule, self._title(), self._numbers(), inline=True)

    def _repr_svg_(self) -> str:
        return drawing(self._schedule, self._title(), self._numbers(), inline=False)

    def _title(self) -> str:
        schedule = self._schedule
        labels = schedule.labels
        what = ", ".join(labels[:_LABELS]) + f" and {len(labels) - _LABELS} more" * (len(labels) > _LABELS)
        items, engines = schedule.items, len(schedule.engine_ids)
        counted = f"{items:,} {plural(self._unit, items)} on {engines} {plural('engine', engines)}"
        left = f", {schedule.left:,} have not ended" if schedule.left else ""
        return printable(f"{what + ': ' if what else ''}{counted}{left}", "")

    def _numbers(self) -> str:
        makespan, serial = seconds_in_words(self.makespan), seconds_in_words(self.serial_time)
        return (
            f"makespan {makespan} · serial time {serial} · speed-up {self.speed_up:.2f} · "
            f"utilisation {self.utilisation:.0%}"
        )


def check_engines(call: str, engines: Iterable[int]) -> None:
    """Raise InvalidArgument if these are not ids of engines, for which a timeline can have lines."""
    takes = "ids of engines"
    arg.check(call, engines=arg.iterable(engines, takes))
    for engine_id in engines:
        if arg.whole(engine_id) is not None:
            raise WrongType(call, "engines", engine_id, takes)


def _stretch(call: Call) -> Stretch | None:
    """Return the stretch of time of a call; None if it has not run, or not ended."""
    if call.started is None or call.completed is None or call.engine_id == NOWHERE:
        return None
    items = call.stop - call.start if isinstance(call, MapPiece) else 1
    return Stretch(call.engine_id, call.started, call.completed, call.label, items, call.error is not None)
