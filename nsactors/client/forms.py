"""A client and its views as rich and notebooks show them: their engines, one a row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nsactors.errors import engine_ranges

if TYPE_CHECKING:
    from nsactors.client.session import Session

__all__ = ["engine_table", "engines_in_words", "table_as_html"]


def engine_table(session: Session, title: str = "", engine_ids: Iterable[int] | None = None) -> Any:
    """A rich table of engines: id, host, process, and what this client still wants from each.

    Args:
        session: the client's conversation.
        title: in place of the cluster's name.
        engine_ids: the engines to show; None for all, those that are starting too.
    """
    from rich.table import Table

    title = title or f"{session.name}: {'closed' if session.closed else 'engines'}"
    table = Table(title=title, title_justify="left")
    for heading in ("engine", "host", "process", "state"):
        table.add_column(heading)
    roster = session.roster
    for engine_id in [*roster.ids, *roster.starting] if engine_ids is None else engine_ids:
        engine = roster.get(engine_id)
        host, process = ("", "") if engine is None else (engine.host, str(engine.pid))
        table.add_row(str(engine_id), host, process, _state(session, engine_id))
    return table


def engines_in_words(session: Session, engine_ids: Iterable[int]) -> str:
    """Engines and their states, equal ones together: ``engines 0-2 idle, engine 3 busy (1 call open)``."""
    groups: dict[str, list[int]] = {}
    for engine_id in engine_ids:
        groups.setdefault(_state(session, engine_id), []).append(engine_id)
    return ", ".join(f"{engine_ranges(ids)} {state}" for state, ids in groups.items()) or "no engines"


def table_as_html(table: Any) -> str:
    """A rich table as an HTML one."""
    from html import escape

    columns = [list(column.cells) for column in table.columns]
    head = "".join(f"<th>{escape(str(column.header))}</th>" for column in table.columns)
    rows = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in zip(*columns, strict=True)]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    caption = f"<caption>{escape(str(table.title))}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _state(session: Session, engine_id: int) -> str:
    if engine_id in session.roster.starting:
        return "waits for a place" if engine_id in session.roster.waiting else "starting"
    if session.closed or session.roster.get(engine_id) is None:
        return "gone"
    waiting = len(session.open_calls({engine_id}))
    return f"busy ({waiting} call{'s' * (waiting != 1)} open)" if waiting else "idle"
