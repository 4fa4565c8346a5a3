"""Tables of results and engines, at a prompt, in a notebook and as text.

A table of a thousand rows shows the first and the last rows. At a terminal it is drawn by rich, in a notebook it is
HTML, and `to_pandas` makes a frame of all rows. A time is shown as the local time and the time that has passed since.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, SupportsIndex, TypeVar, overload

from nsactors._frozen import frozen
from nsactors.errors import PackageMissing, as_text
from nsactors.errors.rendering import drawn_text
from nsactors.protocol.process import current_shell

R = TypeVar("R")

_END_ROWS = 10  # rows that are shown at each end of a long table
_WIDTH = 120
_DAY_S = 86_400
_UNITS = ((_DAY_S, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_HTML_STYLES = {
    "bold": "font-weight:bold",
    "red": "color:red",
    "green": "color:green",
    "yellow": "color:#a60",
    "grey": "color:grey",
    "dim": "color:grey",
    "bright_black": "color:grey",
}


@frozen
class Column(Generic[R]):
    """A column of a table.

    Attributes:
        heading: the text above it.
        text: returns the text of a cell, from its row and the time at which the table was made.
        style: rich's style for a cell, by its row.
        right: whether cells are aligned on the right, as numbers.
        cut: whether text is cut if there is too little room.
    """

    heading: str
    text: Callable[[R, float], str]
    style: Callable[[R], str] | None = None
    right: bool = False
    cut: bool = False


@frozen
class Layout(Generic[R]):
    """The layout of a table.

    Attributes:
        noun: the name of one row and of several, such as ``("request", "requests")``.
        columns: from left to right.
        record: returns a row for a frame of pandas, by column.
        times: the columns that are times, in seconds since the epoch.
        hint: a line below the table on how to see more of a row.
    """

    noun: tuple[str, str]
    columns: tuple[Column[R], ...]
    record: Callable[[R], Mapping[str, Any]]
    times: tuple[str, ...] = ()
    hint: str = ""


class Table(list[R]):
    """A list of rows that is shown as a table.

    Slices are tables too, and keep the numbers of the rows.

    Args:
        rows: the rows.
        layout: the layout of the table.
        numbers: the numbers of the rows; by default from 0 on.
        at: the time of the rows, in seconds since the epoch; the default is now.

    Example:
        >>> rc.history()[-3:].to_pandas()["took_s"].max()
        1.25
    """

    def __init__(
        self, rows: Iterable[R], layout: Layout[R], *, numbers: range | None = None, at: float | None = None
    ) -> None:
        super().__init__(rows)
        self._layout = layout
        self._numbers = numbers
        self._at = time.time() if at is None else at

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> R: ...

    @overload
    def __getitem__(self, key: slice, /) -> Table[R]: ...

    def __getitem__(self, key: SupportsIndex | slice, /) -> R | Table[R]:
        if isinstance(key, slice):
            return Table(super().__getitem__(key), self._layout, numbers=self._all_numbers()[key], at=self._at)
        return super().__getitem__(key)

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` of all rows; times are in UTC, durations in seconds.

        Raises:
            PackageMissing: without pandas.
        """
        layout = self._layout
        return data_frame([layout.record(row) for row in self], layout.times)

    def __repr__(self) -> str:
        return table_as_text(self.__rich__()) if self else f"no {self._layout.noun[1]}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the table at IPython's prompt, with colours."""
        if self:
            show_pretty(printer, self.__rich__())
        else:
            printer.text(repr(self))

    def _repr_html_(self) -> str:
        return table_as_html(self.__rich__()) if self else f"<div>no {self._layout.noun[1]}</div>"

    def __rich__(self) -> Any:
        """Return the table: all rows, or if there are many, the first and the last rows."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable
        from rich.text import Text

        layout, numbers = self._layout, self._all_numbers()
        title = f"{len(self):,} {layout.noun[len(self) != 1]}"
        table = RichTable(
            title=heading(title),
            title_justify="left",
            caption=heading(layout.hint) if layout.hint else None,
            caption_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
            padding=(0, 0, 0, 1),
        )
        table.add_column("", justify="right", no_wrap=True, style="dim")
        for column in layout.columns:
            # If there is too little room, rich narrows the columns that may wrap; their cells are cut instead.
            justify: Any = "right" if column.right else "left"
            table.add_column(column.heading, justify=justify, no_wrap=not column.cut)
        before = -1
        for place in shown_rows(len(self)):
            if place != before + 1:
                table.add_row("…", as_text(f"{place - before - 1:,} more", "dim"))
            row, before = self[place], place
            cells = [as_text(c.text(row, self._at), c.style(row) if c.style else "") for c in layout.columns]
            for cell in cells:
                cell.no_wrap, cell.overflow = True, "ellipsis"
            table.add_row(Text(str(numbers[place])), *cells)
        return table

    def _all_numbers(self) -> range:
        # The list may have grown since the numbers were given.
        return range(len(self)) if self._numbers is None or len(self._numbers) != len(self) else self._numbers


def heading(text: str) -> Any:
    """Return a title of a table in one line, even if the table is narrow."""
    line = as_text(text, "italic")
    line.no_wrap, line.overflow = True, "ignore"
    return line


def shown_rows(count: int) -> list[int]:
    """Return the numbers of the rows that are shown: all if there are few, otherwise the first and the last rows."""
    if count <= 2 * _END_ROWS + 1:
        return list(range(count))
    return [*range(_END_ROWS), *range(count - _END_ROWS, count)]


def data_frame(records: Sequence[Mapping[str, Any]], times: Iterable[str] = ()) -> Any:
    """Return a ``pandas.DataFrame`` of records; the columns ``times``, seconds since the epoch, become times in UTC.

    Raises:
        PackageMissing: without pandas.
    """
    try:
        import pandas
    except ImportError as error:
        raise PackageMissing("to_pandas()", "pandas", "pip install pandas") from error
    frame = pandas.DataFrame([dict(record) for record in records])
    for name in times:
        if name in frame:
            frame[name] = pandas.to_datetime(frame[name], unit="s", utc=True)
    return frame


def show_pretty(printer: Any, table: Any) -> None:
    """Show a rich table as IPython's prompt shows values: with colours at a terminal, and below its number."""
    at_terminal = sys.stdout.isatty() and not hasattr(current_shell(), "kernel") and not os.environ.get("NO_COLOR")
    printer.text(table_as_text(table, color=at_terminal))


def table_as_text(table: Any, *, color: bool = False) -> str:
    """Return a rich table as text, as wide as the terminal."""
    return drawn_text(table, width=shutil.get_terminal_size((_WIDTH, 24)).columns, color=color)


def table_as_html(table: Any) -> str:
    """Return a rich table as HTML."""
    from html import escape

    sides = [column.justify if column.justify == "right" else "left" for column in table.columns]
    columns = [list(column.cells) for column in table.columns]
    head = "".join(
        f'<th style="text-align:{side}">{escape(str(column.header))}</th>'
        for column, side in zip(table.columns, sides, strict=True)
    )
    rows = [
        "".join(
            f"<td{_html_style(cell, side, str(row.style or ''))}>{escape(str(cell))}</td>"
            for cell, side in zip(cells, sides, strict=True)
        )
        for cells, row in zip(zip(*columns, strict=True), table.rows, strict=True)
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    caption = (
        f'<caption style="text-align:left;white-space:nowrap">{escape(str(table.title))}</caption>'
        if table.title
        else ""
    )
    below = f"<div>{escape(str(table.caption))}</div>" if table.caption else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def _html_style(cell: Any, side: str, row_style: str) -> str:
    """Return the style of a cell: the words of rich's styles of its row and of itself, as CSS."""
    words = f"{row_style} {getattr(cell, 'style', '')}".split()
    css = [f"text-align:{side}", *(_HTML_STYLES[word] for word in words if word in _HTML_STYLES)]
    return f' style="{";".join(css)}"'


def time_in_words(at: float | None, now: float) -> str:
    """Return a local time and its distance from now: ``14:05:31 (3 min ago)``, with the date if that is not today's.

    Args:
        at: seconds since the epoch; None gives an empty text.
        now: seconds since the epoch.
    """
    if at is None:
        return ""
    moment, today = datetime.fromtimestamp(at), datetime.fromtimestamp(now).date()
    shown = f"{moment:%H:%M:%S}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M}"
    return f"{shown} ({_ago(now - at)})"


def _ago(seconds: float) -> str:
    if seconds < 1:  # also if negative, because the other clock is ahead of this clock
        return "just now"
    unit_s, unit = next(each for each in _UNITS if seconds >= each[0])
    return f"{int(seconds // unit_s)} {unit} ago"


def duration_in_words(seconds: float | None) -> str:
    """Return a duration in words: ``12 ms``, ``4.2 s``, ``5 min 3 s``, ``2 h 5 min``; empty for None."""
    if seconds is None:
        return ""
    if seconds < 1:
        milliseconds = max(0.0, 1_000 * seconds)
        return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    large = next(i for i, (unit_s, _) in enumerate(_UNITS) if whole >= unit_s)
    (unit_s, unit), (part_s, part) = _UNITS[large], _UNITS[large + 1]
    rest = whole % unit_s // part_s
    return f"{whole // unit_s} {unit}" + (f" {rest} {part}" if rest else "")
