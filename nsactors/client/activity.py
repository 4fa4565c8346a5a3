"""Activity of a cluster: the work and load of its engines, live tables, and stacks and debuggers of busy engines."""

from __future__ import annotations

import contextlib
import html
import os
import select
import shutil
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from nsactors.errors import ConnectionLost, as_text, bytes_in_words, plural, printable
from nsactors.inside.debug_console import plain_place
from nsactors.inside.stacks import Stacks, read_stacks
from nsactors.membership.history import QUEUED
from nsactors.protocol import arguments as arg
from nsactors.protocol.control import ClusterState, DebugForget, DebugStops, HistoryEntry, Measure, Stop
from nsactors.protocol.engine_info import EngineMemory, ProcessorTime
from nsactors.protocol.inspection import EngineStack
from nsactors.protocol.process import current_shell
from nsactors.protocol.targets import Targets
from nsactors.results import AsyncResult
from nsactors.results.display.tables import data_frame, show_pretty, table_as_html, table_as_text
from nsactors.services.state_machine import Waiting
from nsactors.transport.base import ControllerClient

if TYPE_CHECKING:
    from nsactors.session.session import Session
    from nsactors.tasks.messages import TaskStatus


REPLY_S = 5.0
GONE = EngineStack(notes=("its process has ended",))


@contextlib.contextmanager
def keys_pressed() -> Iterator[Callable[[float], str] | None]:
    """Yield a function that waits for a key, for the given number of seconds, and returns the key.

    Keys are not echoed inside the ``with`` block. Ctrl-C raises KeyboardInterrupt as usual. Without a terminal to read
    from, yield None.
    """
    try:
        import termios
        import tty

        keyboard = sys.stdin.fileno()
        if not os.isatty(keyboard) or os.tcgetpgrp(keyboard) != os.getpgrp():  # a read would stop a background process
            raise OSError
        before = termios.tcgetattr(keyboard)
    except (ImportError, OSError, ValueError, AttributeError):
        yield None
        return

    def read(seconds: float) -> str:
        if select.select([keyboard], [], [], seconds)[0]:
            return os.read(keyboard, 64).decode(errors="replace")
        return ""

    try:
        tty.setcbreak(keyboard)
        yield read
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


EVERY_S = 0.5
ANSWER_S = 0.3  # engines that need longer are in C code that holds the interpreter
LAST_ENTRIES = 5_000
WIDE = 120  # a terminal of so many columns has room for all columns of the table
GOOD = ("ok", "running", QUEUED)


class Usage(NamedTuple):
    """The load of an engine's process: the mean number of cores since the last look, and bytes of its own memory."""

    cores: float | None
    memory: int | None


class EngineActivity(NamedTuple):
    """An engine at one moment.

    Attributes:
        engine_id: its id.
        host: the name of its machine; empty while the engine has none.
        pid: its process; None while the engine has none.
        state: ``idle``, ``busy``, ``stopped``, ``leaving``, ``starting``, ``coming back`` or ``no place``.
        runs: the source of the code that it runs, or the breakpoint at which it is stopped.
        client: the client that sent this code.
        for_s: seconds for which this code has run.
        queued: the number of requests that wait for it.
        completed: the number of requests that it has completed.
        cores: the number of cores that it has used on average since the last look; None if that is not known.
        memory: bytes of its own memory; None if that is not known.
        last_error: the last of its requests that failed, with the error.
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
    """A cluster at one moment, shown as a table: its name, its clients, and its engines by id."""

    cluster: str
    clients: Sequence[str]
    engines: Sequence[EngineActivity]

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with a row for each engine.

        Raises:
            PackageMissing: without pandas.
        """
        return data_frame([engine._asdict() for engine in self.engines])

    def __rich__(self) -> Any:
        """Return the table; in a narrow terminal, leave out nodes, clients and last errors."""
        return activity_table(self, wide=shutil.get_terminal_size((WIDE, 24)).columns >= WIDE)

    def __repr__(self) -> str:
        return table_as_text(self.__rich__())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the table at IPython's prompt, with colours."""
        show_pretty(printer, self.__rich__())

    def _repr_html_(self) -> str:
        return table_as_html(activity_table(self))


def activity(
    state: ClusterState,
    running: Mapping[int, tuple[int, Sequence[HistoryEntry]]],
    history: Sequence[HistoryEntry],
    clients: Sequence[str],
    usage: Mapping[int, Usage],
    at: float,
) -> ClusterActivity:
    """Return the activity of a cluster.

    Args:
        state: the members of the cluster.
        running: for each engine the number of requests completed, and the requests that run.
        history: the cluster's last requests.
        clients: the clients that are attached.
        usage: the load by engine; engines that have not replied are missing.
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


def waits_by_engine(calls: Iterable[Waiting]) -> dict[int, list[str]]:
    """Describe the calls to services that code on each engine waits for; ``since`` is the age of a call in seconds."""
    waits: defaultdict[int, list[str]] = defaultdict(list)
    for (caller, _), what, since in calls:
        kind, _, number = caller.partition("/")[0].partition(" ")
        if kind == "engine" and number.isdecimal():
            waits[int(number)].append(f"{what} for {since:.0f} s")
    return waits


def queue_status(
    session: Session,
    engine_ids: Iterable[int],
    waits: Mapping[int, list[str]],
    open_tasks: Sequence[TaskStatus] | None = None,
) -> dict[Any, Any]:
    """Return the work of each engine; see ``Client.queue_status``.

    Args:
        session: the client's session.
        engine_ids: the engines.
        waits: the calls to services that code of engines waits for, in words.
        open_tasks: if given, return lists of calls and of these tasks; otherwise, return numbers.
    """
    running = session.controller.running()
    unassigned, assigned = session.assigned_tasks()
    status: dict[Any, Any] = {"unassigned": unassigned}
    for engine_id in engine_ids:
        queue = [call.label for call in session.open_calls({engine_id})]
        tasks = None if open_tasks is None else [task.label for task in open_tasks if engine_id in task.engines]
        completed, entries = running.get(engine_id, (0, []))
        status[engine_id] = {
            "queue": len(queue) if tasks is None else queue,
            "completed": completed,
            "tasks": assigned.get(engine_id, 0) if tasks is None else tasks,
            "running": entries[-1].source if entries else None,
            "waits": waits.get(engine_id, []),
        }
    return status


class Observer:
    """Observes a cluster: the load of its engines is measured between two looks.

    Args:
        controller: the controller of the cluster.
    """

    def __init__(self, controller: ControllerClient) -> None:
        self._controller = controller
        self._used: dict[tuple[int, int], ProcessorTime] = {}

    def look(self) -> ClusterActivity:
        """Return the present activity."""
        controller = self._controller
        state, usage = controller.state(), {}
        if state.engines:
            usage = self._usage(state)
        history = controller.history(None, None, LAST_ENTRIES)
        seen = activity(state, controller.running(), history, controller.clients(), usage, time.time())
        return self._with_stops(seen)

    def _with_stops(self, seen: ClusterActivity) -> ClusterActivity:
        busy = [engine.engine_id for engine in seen.engines if engine.state == "busy"]
        replies = self._controller.query(busy, DebugStops(), ANSWER_S) if busy else {}
        stops = {i: reply.value for i, reply in replies.items() if isinstance(reply.value, Stop)}
        engines = [
            engine._replace(state="stopped", runs=f"breakpoint in {plain_place(stops[engine.engine_id].where)}")
            if engine.engine_id in stops
            else engine
            for engine in seen.engines
        ]
        return seen._replace(engines=engines)

    def _usage(self, state: ClusterState) -> dict[int, Usage]:
        replies = self._controller.query([engine.engine_id for engine in state.engines], Measure(None), ANSWER_S)
        incarnations = {engine.engine_id: engine.incarnation for engine in state.engines}
        usage, used = {}, {}
        for engine_id, reply in replies.items():
            if not isinstance(reply.value, EngineMemory):
                continue
            process, processor = reply.value.process, reply.value.processor
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
    """Return a rich table with a row for each engine: the code that it runs, its client and duration, and the load.

    Args:
        seen: the activity.
        wide: include nodes, clients, and the last error of each engine.
    """
    from rich.table import Table

    clients = f"{len(seen.clients)} {plural('client', len(seen.clients))}: {', '.join(seen.clients)}"
    table = Table(title=as_text(f"{seen.cluster} · {clients}"), title_justify="left", expand=True)
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
        table.add_row(*(as_text(cells[str(column.header)]) for column in table.columns))
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


def changes(before: ClusterActivity | None, now: ClusterActivity) -> list[str]:
    """Return the changes between two looks at a cluster, a line each; at the first look, a line for each engine."""
    lines = []
    known = () if before is None else before.clients
    lines += [f"{client} is here" for client in now.clients if client not in known]
    lines += [f"{client} has left" for client in known if client not in now.clients]
    engines = {} if before is None else {engine.engine_id: engine for engine in before.engines}
    for engine in now.engines:
        was = engines.pop(engine.engine_id, None)
        name = f"engine {engine.engine_id}"
        if was is not None and engine.last_error not in ("", was.last_error):
            lines.append(f"{name}: {engine.last_error}")
        doing = engine.state, engine.runs, engine.client
        if was is None or doing != (was.state, was.runs, was.client):
            lines.append(f"{name} {_doing(engine)}")
        elif engine.completed != was.completed and engine.state == "idle":
            done = engine.completed - was.completed
            lines.append(f"{name} idle, has done {done} {plural('request', done)} since the last look")
    lines += [f"engine {engine_id} has gone" for engine_id in engines]
    return [printable(line, "") for line in lines]


def _doing(engine: EngineActivity) -> str:
    if engine.state == "stopped":
        return f"stopped at a {engine.runs}, in the debugger of {engine.client}"
    if engine.state != "busy":
        return engine.state
    return f"runs {_cells(engine)['runs']}, for {engine.client}"


def watch(
    controller: ControllerClient, timeout_s: float | None, *, ended: threading.Event | None = None, title: str = ""
) -> None:
    """Show the activity of a cluster; at a terminal, until Ctrl-C, q or the end of the time.

    Where output goes to a file or a pipe, changes are printed line by line. In a notebook, a thread keeps a table under
    the cell up to date, and the call returns immediately.

    Args:
        controller: the controller of the cluster.
        timeout_s: seconds; None for no limit.
        ended: an event by which another thread ends the display.
        title: the title, in place of the cluster's own name.
    """
    observer = Observer(controller)
    rounds = _Rounds(timeout_s, ended or threading.Event())

    def look() -> ClusterActivity:
        seen = observer.look()
        return seen._replace(cluster=title or seen.cluster)

    shell = current_shell()
    if shell is not None and hasattr(shell, "kernel"):
        _show_in_notebook(look, rounds)
        return
    with contextlib.suppress(KeyboardInterrupt):
        if sys.stdout.isatty():
            _show_at_terminal(look, rounds)
        else:
            _tell_changes(look, rounds)


class _Rounds:
    """The moments at which to look again."""

    def __init__(self, timeout_s: float | None, ended: threading.Event) -> None:
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._ended = ended

    def next(self, wait: Callable[[float], object] | None = None) -> bool:
        """Wait until it is time to look again; return False at the end.

        Args:
            wait: waits for so many seconds, and returns whether to end.
        """
        left_s = EVERY_S if self._deadline is None else min(EVERY_S, self._deadline - time.monotonic())
        if left_s <= 0:
            return False
        return not ((wait or self._ended.wait)(left_s) or self._ended.is_set())


def _show_at_terminal(look: Callable[[], ClusterActivity], rounds: _Rounds) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console()

    def table() -> Any:
        hint = Text("q or Ctrl-C ends this", style="dim")
        return Group(activity_table(look(), wide=console.width >= WIDE), hint)

    with keys_pressed() as pressed, Live(table(), console=console, auto_refresh=False) as live:
        quits = None if pressed is None else lambda seconds: "q" in pressed(seconds).lower()
        while rounds.next(quits):
            live.update(table(), refresh=True)


def _tell_changes(look: Callable[[], ClusterActivity], rounds: _Rounds) -> None:
    before: ClusterActivity | None = None
    while True:
        now = look()
        for line in changes(before, now):
            print(f"{datetime.now():%H:%M:%S} {line}", flush=True)
        before = now
        if not rounds.next():
            return


def _show_in_notebook(look: Callable[[], ClusterActivity], rounds: _Rounds) -> None:
    from IPython.display import HTML, display

    handle = display(HTML(look()._repr_html_()), display_id=True)

    def keep_up_to_date() -> None:
        try:
            while rounds.next():
                handle.update(HTML(look()._repr_html_()))
        except ConnectionLost as lost:
            handle.update(HTML(f"<pre>{html.escape(str(lost))}</pre>"))

    threading.Thread(target=keep_up_to_date, name="nsactors-watch", daemon=True).start()


def stacks_of(session: Session, targets: Targets, *, threads: bool, native: bool, disturb: bool) -> Stacks:
    """Return the stacks of engines; see ``Client.stack``."""
    arg.check("stack", threads=arg.flag(threads), native=arg.flag(native), disturb=arg.flag(disturb))
    engines = [engine for i in session.resolve(targets) if (engine := session.directory.get(i)) is not None]
    found = read_stacks(
        session.controller,
        engines,
        lambda: waits_by_engine(session.services.waiting()),
        session.has_ended,
        threads=bool(threads),
        native=bool(native),
        disturb=bool(disturb),
    )
    gone = [engine for engine in engines if session.directory.get(engine.engine_id) != engine]
    return Stacks({**found.by_engine, **{engine.engine_id: GONE for engine in gone}})


def stops_of(session: Session) -> dict[int, Stop]:
    """Return the engines that are stopped at a breakpoint; see ``Client.stopped``."""
    session.check()
    replies = session.controller.query(session.directory.ids, DebugStops(), REPLY_S)
    stops = {i: reply.value for i, reply in sorted(replies.items()) if reply.value is not None}
    return {i: stop._replace(where=plain_place(stop.where)) for i, stop in stops.items()}


def debug(session: Session, targets: Targets, result: AsyncResult | None, *, forget: bool, take: bool) -> None:
    """Open the debugger of engines, or let them release the frames of failures; see ``Client.debug``."""
    arg.check(
        "debug",
        result=arg.instance(result, AsyncResult, "a result of a call", or_none=True),
        forget=arg.flag(forget),
        take=arg.flag(take),
    )
    ids = session.resolve(targets)
    if forget:
        session.controller.query(ids, DebugForget(session.name), REPLY_S)
    elif result is not None:
        result.debug()
    else:
        session.open_debugger(ids, takes=bool(take))
