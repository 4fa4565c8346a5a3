"""Who runs what where, and what that takes, as a table that keeps up to date."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from nsactors.client.forms import table_as_html
from nsactors.core.cluster import ClusterState, HistoryEntry, Measure
from nsactors.core.history import QUEUED
from nsactors.core.memory import EngineMemory, ProcessorTime
from nsactors.errors import bytes_in_words
from nsactors.transport.base import ControllerProxy

__all__ = ["ClusterActivity", "EngineActivity", "Observer", "Usage", "activity", "activity_table", "watch"]

EVERY_S = 0.5
ANSWER_S = 0.3  # engines that need longer are in C code that holds the interpreter
LAST_ENTRIES = 5_000
WIDE = 100  # columns from which on there is room for everything
GOOD = ("ok", "running", QUEUED)


class Usage(NamedTuple):
    """What the process of an engine takes: cores, on the average since the last look, and bytes of its own."""

    cores: float | None
    memory: int | None


class EngineActivity(NamedTuple):
    """An engine at one moment.

    Attributes:
        engine_id: its id.
        host: the machine's name; empty while it has none.
        pid: its process; None while it has none.
        state: ``idle``, ``busy``, ``leaving``, ``starting``, ``coming back`` or ``no place``.
        runs: the source of what it runs.
        client: for whom.
        for_s: for how many seconds.
        queued: requests that wait there.
        completed: requests that it has completed.
        cores: how many it has used since the last look; None if that is not known.
        memory: bytes of its own; None if that is not known.
        last_error: the last of its requests that failed.
    """

    engine_id: int
    host: str = ""
    pid: int | None = None
    state: str = "idle"
    runs: str = ""
    client: str = ""
    for_s: float | None = None
    queued: int = 0
    completed: int = 0
    cores: float | None = None
    memory: int | None = None
    last_error: str = ""


class ClusterActivity(NamedTuple):
    """A cluster at one moment: its name, who is attached, and its engines by id."""

    cluster: str
    clients: Sequence[str]
    engines: Sequence[EngineActivity]


def activity(
    state: ClusterState,
    running: Mapping[int, tuple[int, Sequence[HistoryEntry]]],
    history: Sequence[HistoryEntry],
    clients: Sequence[str],
    usage: Mapping[int, Usage],
    at: float,
) -> ClusterActivity:
    """What there is to tell of a cluster.

    Args:
        state: its members.
        running: by engine, how many requests it has completed, and what it runs.
        history: its last requests.
        clients: who is attached.
        usage: by engine; those that have not answered are missing.
        at: seconds since the epoch.
    """
    waiting = Counter(entry.engine_id for entry in history if entry.outcome == QUEUED)
    failed = {entry.engine_id: entry for entry in history if entry.outcome not in GOOD}
    held_up = {one.engine_id for one in state.waiting}
    engines = [EngineActivity(i, state="no place" if i in held_up else "starting") for i in state.starting]
    engines += [
        EngineActivity(e.engine_id, state="no place" if e.engine_id in held_up else "coming back")
        for e in state.recovering
    ]
    for engine in state.engines:
        completed, entries = running.get(engine.engine_id, (0, ()))
        error = failed.get(engine.engine_id)
        seen = EngineActivity(
            engine.engine_id,
            engine.host,
            engine.pid,
            queued=waiting[engine.engine_id],
            completed=completed,
            last_error="" if error is None else f"{error.outcome}: {error.label}",
        )
        seen = seen._replace(**usage.get(engine.engine_id, Usage(None, None))._asdict())
        if entries:
            entry, client = entries[-1], entries[-1].request.client
            client += "" if client in clients else " (has left)"
            source = entry.source.strip() or entry.label
            seen = seen._replace(state="busy", runs=source, client=client, for_s=max(0.0, at - entry.started))
        if engine.engine_id in state.leaving:
            seen = seen._replace(state="leaving")
        engines.append(seen)
    return ClusterActivity(state.cluster, clients, sorted(engines))


class Observer:
    """Looks at a cluster again and again.

    Args:
        controller: of the cluster.
    """

    def __init__(self, controller: ControllerProxy) -> None:
        self._controller = controller
        self._used: dict[tuple[int, int], ProcessorTime] = {}

    def look(self) -> ClusterActivity:
        """What is to tell now."""
        controller = self._controller
        state, usage = controller.state(), {}
        if state.engines:
            usage = self._usage(state)
        history = controller.history(None, None, LAST_ENTRIES)
        return activity(state, controller.running(), history, controller.clients(), usage, time.time())

    def _usage(self, state: ClusterState) -> dict[int, Usage]:
        answers = self._controller.ask([engine.engine_id for engine in state.engines], Measure(None), ANSWER_S)
        incarnations = {engine.engine_id: engine.incarnation for engine in state.engines}
        usage, used = {}, {}
        for engine_id, answer in answers.items():
            if not isinstance(answer.value, EngineMemory):
                continue
            process, processor = answer.value.process, answer.value.processor
            cores = None
            if processor is not None:
                key = engine_id, incarnations[engine_id]
                used[key] = processor
                if (before := self._used.get(key)) is not None and processor.at_s > before.at_s:
                    cores = (processor.used_s - before.used_s) / (processor.at_s - before.at_s)
            usage[engine_id] = Usage(cores, None if process is None else process.unique)
        self._used = used
        return usage


def activity_table(seen: ClusterActivity, *, wide: bool = True) -> Any:
    """A rich table with a row for each engine: what it runs, for whom and for how long, and what that takes.

    Args:
        seen: what there is to tell.
        wide: with nodes and clients, and the last error of each engine.
    """
    from rich.markup import escape
    from rich.table import Table

    clients = f"{len(seen.clients)} client{'s' * (len(seen.clients) != 1)}: {', '.join(seen.clients)}"
    table = Table(title=escape(f"{seen.cluster} · {clients}"), title_justify="left", expand=True)
    table.add_column("engine", justify="right", no_wrap=True)
    if wide:
        table.add_column("node", max_width=12, no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=len("coming back"))
    table.add_column("runs", ratio=3, no_wrap=True)
    if wide:
        table.add_column("client", max_width=20, no_wrap=True)
    for heading in ("for", "queued", "done", "CPU", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    if wide:
        table.add_column("last error", ratio=2, no_wrap=True)
    for engine in seen.engines:
        cells = _cells(engine)
        table.add_row(*(escape(cells[str(column.header)]) for column in table.columns))
    return table


def _cells(engine: EngineActivity) -> dict[str, str]:
    first, *more = engine.runs.splitlines() or [""]
    return {
        "engine": str(engine.engine_id),
        "node": engine.host,
        "state": engine.state,
        "runs": first + " …" * bool(more),
        "client": engine.client,
        "for": "" if engine.for_s is None else f"{engine.for_s:.1f} s",
        "queued": str(engine.queued or ""),
        "done": "" if engine.pid is None else str(engine.completed),
        "CPU": "" if engine.cores is None else f"{100 * engine.cores:.0f}%",
        "memory": "" if engine.memory is None else bytes_in_words(engine.memory),
        "last error": engine.last_error,
    }


def watch(controller: ControllerProxy, timeout_s: float | None) -> None:
    """Show the activity of a cluster until Ctrl-C or for a while."""
    look = Observer(controller).look
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    show = _show_in_notebook if shell is not None and hasattr(shell, "kernel") else _show_at_terminal
    with contextlib.suppress(KeyboardInterrupt):
        show(look, timeout_s)


def _show_at_terminal(look: Callable[[], ClusterActivity], timeout_s: float | None) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()

    def table() -> Any:
        return activity_table(look(), wide=console.width >= WIDE)

    with Live(table(), console=console, auto_refresh=False) as live:
        for _ in _rounds(timeout_s):
            live.update(table(), refresh=True)
    if not console.is_terminal:  # what rich has written then ends in the middle of a line
        console.print()


def _show_in_notebook(look: Callable[[], ClusterActivity], timeout_s: float | None) -> None:
    from IPython.display import HTML, display

    handle = display(HTML(table_as_html(activity_table(look()))), display_id=True)
    for _ in _rounds(timeout_s):
        handle.update(HTML(table_as_html(activity_table(look()))))


def _rounds(timeout_s: float | None) -> Iterable[None]:
    pause = threading.Event()
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while deadline is None or time.monotonic() < deadline:
        left_s = EVERY_S if deadline is None else min(EVERY_S, max(0.0, deadline - time.monotonic()))
        pause.wait(left_s)
        yield
