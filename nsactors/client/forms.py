"""A client as rich and notebooks show it: its engines, one a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsactors.client.session import Session

__all__ = ["engine_table", "table_as_html"]


def engine_table(session: Session) -> Any:
    """A rich table of the engines: id, host, process, and what this client still wants from each."""
    from rich.table import Table

    table = Table(title=f"{session.name}: {'closed' if session.closed else 'engines'}", title_justify="left")
    for heading in ("engine", "host", "process", "state"):
        table.add_column(heading)
    roster = session.roster
    for engine_id in roster.ids:
        engine = roster.get(engine_id)
        if engine is not None:
            waiting = len(session.open_calls({engine_id}))
            state = f"busy, {waiting} call{'s' * (waiting != 1)} open" if waiting else "idle"
            table.add_row(str(engine_id), engine.host, str(engine.pid), state)
    for engine_id in roster.starting:
        table.add_row(str(engine_id), "", "", "starting")
    return table


def table_as_html(table: Any) -> str:
    """A rich table as an HTML one."""
    from html import escape

    columns = [list(column.cells) for column in table.columns]
    head = "".join(f"<th>{escape(str(column.header))}</th>" for column in table.columns)
    rows = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in zip(*columns, strict=True)]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    caption = f"<caption>{escape(str(table.title))}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
