"""Results as rich and notebooks show them: how far they are, one row for each engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nsactors.results.call import Call

__all__ = ["result_html", "result_table"]

ROWS = 20
_HEADINGS = ("engine", "state", "seconds")


def result_table(title: str, calls: Sequence[Call]) -> Any:
    """A rich table: which engines have answered, how, and how long they took."""
    from rich.table import Table

    table = Table(*_HEADINGS, title=title, title_justify="left")
    for row in _rows(calls):
        table.add_row(*row)
    return table


def result_html(title: str, calls: Sequence[Call]) -> str:
    """The same table as HTML."""
    from html import escape

    head = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
    rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in _rows(calls)]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _rows(calls: Sequence[Call]) -> list[tuple[str, str, str]]:
    rows = [(str(call.engine_id), _state(call), _seconds(call)) for call in calls[:ROWS]]
    if len(calls) > ROWS:
        rest = calls[ROWS:]
        rows.append(("...", f"{len(rest)} more, {sum(call.done for call in rest)} done", ""))
    return rows


def _state(call: Call) -> str:
    if call.error is not None:
        return str(getattr(call.error, "ename", type(call.error).__name__))
    return "done" if call.done else "pending"


def _seconds(call: Call) -> str:
    if call.completed is None or call.started is None:
        return ""
    return f"{call.completed - call.started:.2f}"
