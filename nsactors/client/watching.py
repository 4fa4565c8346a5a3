"""Who runs what where, as a table that keeps up to date."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nsactors.client.forms import table_as_html
from nsactors.core.cluster import HistoryEntry
from nsactors.core.history import QUEUED
from nsactors.transport.base import ControllerProxy

__all__ = ["activity_table", "watch"]

EVERY_S = 0.5
LAST_ENTRIES = 5_000
SOURCE_CHARS = 60


def activity_table(
    running: Mapping[int, tuple[int, Sequence[HistoryEntry]]],
    history: Iterable[HistoryEntry],
    clients: Sequence[str],
    now: float,
) -> Any:
    """A rich table with a row for each engine: what it runs, for whom and for how long, and what waits there.

    Args:
        running: by engine, how many requests it has completed, and what it runs.
        history: of requests that wait, those that are queued are counted.
        clients: who is attached.
        now: seconds since the epoch.
    """
    from rich.table import Table

    waiting = Counter(entry.engine_id for entry in history if entry.outcome == QUEUED)
    title = f"{len(clients)} client{'s' * (len(clients) != 1)}: {', '.join(clients)}"
    table = Table(title=title, title_justify="left")
    for heading in ("engine", "client", "runs", "for", "queued", "done"):
        table.add_column(heading)
    for engine_id, (completed, entries) in sorted(running.items()):
        client = what = since = ""
        if entries:
            entry = entries[-1]
            client = entry.request.client + ("" if entry.request.client in clients else " (has left)")
            first, *more = entry.source.strip().splitlines() or [entry.label]
            what = first[:SOURCE_CHARS] + " …" * bool(more)
            since = f"{max(0.0, now - entry.started):.1f} s"
        table.add_row(str(engine_id), client, what, since, str(waiting[engine_id] or ""), str(completed))
    return table


def watch(controller: ControllerProxy, timeout_s: float | None) -> None:
    """Show the activity of a cluster until Ctrl-C or for a while."""

    def table() -> Any:
        entries = controller.history(None, None, LAST_ENTRIES)
        return activity_table(controller.running(), entries, controller.clients(), time.time())

    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    show = _show_in_notebook if shell is not None and hasattr(shell, "kernel") else _show_at_terminal
    with contextlib.suppress(KeyboardInterrupt):
        show(table, timeout_s)


def _show_at_terminal(table: Any, timeout_s: float | None) -> None:
    from rich.live import Live

    with Live(table(), auto_refresh=False) as live:
        for _ in _rounds(timeout_s):
            live.update(table(), refresh=True)
    if not live.console.is_terminal:  # what rich has written then ends in the middle of a line
        live.console.print()


def _show_in_notebook(table: Any, timeout_s: float | None) -> None:
    from IPython.display import HTML, display

    handle = display(HTML(table_as_html(table())), display_id=True)
    for _ in _rounds(timeout_s):
        handle.update(HTML(table_as_html(table())))


def _rounds(timeout_s: float | None) -> Iterable[None]:
    pause = threading.Event()
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while deadline is None or time.monotonic() < deadline:
        left_s = EVERY_S if deadline is None else min(EVERY_S, max(0.0, deadline - time.monotonic()))
        pause.wait(left_s)
        yield
