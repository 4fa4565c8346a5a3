"""The client's half of stacks: reads and shows the stacks of engines."""

from __future__ import annotations

import os
import re
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from typing import Any

from nsactors._frozen import frozen
from nsactors.errors import as_text, engine_ranges, plural, printable
from nsactors.errors.failure import shown_file, without_number
from nsactors.inside.processes import NATIVE_S, READ_S, WRITTEN_S, read_processes
from nsactors.inside.session_protocol import ControllerQueries
from nsactors.protocol.control import HistoryEntry
from nsactors.protocol.engine_info import EngineInfo
from nsactors.protocol.inspection import EngineStack, ProcessStacks, ReadProcesses, ReadStack, StackFrame, ThreadStack
from nsactors.protocol.messages import RequestId
from nsactors.results.display.tables import duration_in_words, show_pretty, table_as_text

REPLY_S = 0.3  # an engine that can run Python code replies within milliseconds
LATE_S = 1.7  # more time, for an engine whose stack cannot be read from outside
SHOWN_FRAMES = 30  # the most functions that are shown of a stack, the innermost ones
_CSS = {"dim": "color:grey", "bold": "font-weight:bold", "yellow": "color:#a60"}
_FOLDERS = re.compile(r"^.*/(site-packages|dist-packages|lib/python3\.\d+)/")
SILENT = "does not reply: C code holds its interpreter, or it gets no processor time"


@frozen
class Stacks:
    """The stacks of engines. A prompt and a notebook show a table, in which engines with equal stacks share a row.

    Attributes:
        by_engine: the stack of each engine, by id.

    Example:
        >>> rc.stack().by_engine[3].frames[-1]
        StackFrame(file='<cell 2>', line=4, function='step', source='return np.sort(x)', own=True)
    """

    by_engine: Mapping[int, EngineStack]

    def __getitem__(self, engine_id: int) -> EngineStack:
        return self.by_engine[engine_id]

    def __len__(self) -> int:
        return len(self.by_engine)

    def __iter__(self) -> Iterator[int]:
        return iter(self.by_engine)

    def groups(self) -> list[tuple[list[int], EngineStack]]:
        """Group engines with equal stacks, in the order of their ids; each group has the stack of its first engine."""
        groups: defaultdict[object, list[int]] = defaultdict(list)
        for engine_id, stack in sorted(self.by_engine.items()):
            # Compare stacks without the seconds for which engines have run or waited.
            waits = tuple(wait.rpartition(" for ")[0] for wait in stack.waits)
            threads = tuple(map(_without_numbers, stack.threads))
            program = stack.program and _without_numbers(stack.program)
            groups[stack.call, stack.client, threads, stack.notes, stack.is_idle, waits, program].append(engine_id)
        return [(ids, self.by_engine[ids[0]]) for ids in groups.values()]

    def as_dict(self) -> dict[int, dict[str, Any]]:
        """Return the stacks as values of JSON."""
        return {
            engine_id: {
                **stack._asdict(),
                "threads": [
                    {"name": thread.name, "frames": [frame._asdict() for frame in thread.frames]}
                    for thread in stack.threads
                ],
                "program": None
                if stack.program is None
                else {"name": stack.program.name, "frames": [frame._asdict() for frame in stack.program.frames]},
            }
            for engine_id, stack in self.by_engine.items()
        }

    def __rich__(self) -> Any:
        """Return the table."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        table.add_column("engines", no_wrap=True)
        table.add_column("where they are", overflow="fold")
        for label, text, style in self._rows():
            table.add_row(as_text(label, "bold"), as_text(text, style))
        return table

    def __repr__(self) -> str:
        return table_as_text(self.__rich__())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the table at IPython's prompt, with colours."""
        show_pretty(printer, self.__rich__())

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="text-align:left;vertical-align:top"><b>{label}</b></td>'
            f'<td style="text-align:left;white-space:pre-wrap;{_CSS.get(style, "")}">{escape(text)}</td></tr>'
            for label, text, style in self._rows()
        )
        return f"<table><thead><tr><th>engines</th><th>where they are</th></tr></thead><tbody>{rows}</tbody></table>"

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield the rows: engines, a text and its style."""
        for ids, stack in self.groups():
            label = engine_ranges(ids).partition(" ")[2]
            for text, style in _lines(stack, [self.by_engine[i] for i in ids]):
                yield label, printable(text, ""), style
                label = ""


def read_stacks(
    controller: ControllerQueries,
    engines: Sequence[EngineInfo],
    waits: Callable[[], Mapping[int, Sequence[str]]],
    has_ended: Callable[[RequestId], bool] = lambda request: False,
    *,
    threads: bool = False,
    native: bool = False,
    disturb: bool = False,
) -> Stacks:
    """Read the stacks of engines: query them, and read the stacks of silent engines from outside.

    Args:
        controller: the controller of the cluster.
        engines: the engines.
        waits: returns, for each engine, descriptions of the calls to services that its code waits for.
        has_ended: returns whether a request is known to have ended. A silent engine may not have reported that yet.
        threads: also read the threads that user code has started.
        native: also read the functions of C code, if the engine has a process of its own; this stops the engine for a
            moment.
        disturb: send a signal to an engine that cannot be read otherwise, so that it writes its stack.
    """
    by_id = {engine.engine_id: engine for engine in engines}
    replies = controller.query(list(by_id), ReadStack(threads), REPLY_S)
    found = {i: reply.value for i, reply in replies.items() if isinstance(reply.value, EngineStack)}
    silent = [engine for i, engine in by_id.items() if i not in found]
    wanted = [engine for engine in (engines if native else silent) if engine.output_path is not None]
    read = _read_from_outside(controller, wanted, by_id, list(found), native=native, disturb=disturb)
    running = controller.running() if silent else {}
    for engine in wanted:
        i = engine.engine_id
        stacks = read.get(i, ProcessStacks(note=_no_neighbour(engine)))
        entries = [entry for entry in running.get(i, (0, []))[1] if not has_ended(entry.request)]
        found[i] = _joined(found.get(i), stacks, entries, threads=threads)
    late = [engine for engine in silent if not found.get(engine.engine_id, EngineStack()).threads]
    if late:  # perhaps these engines were only slow, and their stacks could not be read from outside
        replies = controller.query([engine.engine_id for engine in late], ReadStack(threads), LATE_S)
        found |= {i: reply.value for i, reply in replies.items() if isinstance(reply.value, EngineStack)}
    for engine in silent:
        found.setdefault(engine.engine_id, EngineStack(notes=(SILENT,)))
    if any(not stack.is_idle for stack in found.values()):
        waiting = waits()
        found = {i: stack._replace(waits=tuple(waiting.get(i, ()))) for i, stack in found.items()}
    return Stacks({i: found[i] for i in by_id})


def _joined(
    own: EngineStack | None, read: ProcessStacks, entries: Sequence[HistoryEntry], *, threads: bool
) -> EngineStack:
    """Return the stack of an engine from its own reply and from the stacks read of its process."""
    stacks = read.threads if threads else read.threads[:1]
    if own is not None:
        return own._replace(threads=stacks) if stacks and not own.is_idle else own
    notes = (SILENT, *([read.note] if read.note else []))
    if not entries:
        return EngineStack(threads=stacks, notes=notes)
    entry = entries[-1]
    return EngineStack(entry.label, entry.request.client, max(0.0, time.time() - entry.started), stacks, notes)


def _no_neighbour(engine: EngineInfo) -> str:
    return (
        f"no other engine on {engine.host} that could read it replies: start one more there, as in "
        "`nsactors engines add 1`"
    )


def _read_from_outside(
    controller: ControllerQueries,
    wanted: Sequence[EngineInfo],
    by_id: Mapping[int, EngineInfo],
    replying: Collection[int],
    *,
    native: bool,
    disturb: bool,
) -> dict[int, ProcessStacks]:
    """Let this process, or an engine of the same machine, read the stacks of processes; return them by engine."""
    by_host: defaultdict[str, list[EngineInfo]] = defaultdict(list)
    for engine in wanted:
        by_host[engine.host].append(engine)
    if not by_host:
        return {}
    here = socket.gethostname()

    def read(host: str) -> dict[int, ProcessStacks]:
        targets = by_host[host]
        pids = tuple(engine.pid for engine in targets)
        files = tuple(f"{engine.output_path}.stacks" for engine in targets) if disturb else ()
        neighbour = next((i for i in replying if by_id[i].host == host), None)
        if host == here and all(os.path.exists(f"/proc/{pid}") for pid in pids):
            stacks = read_processes(pids, files, native=native)
        elif neighbour is not None:
            limit_s = 1.0 + len(pids) * ((NATIVE_S if native else READ_S) + WRITTEN_S)
            reply = controller.query([neighbour], ReadProcesses(pids, files, native), limit_s).get(neighbour)
            if reply is None or reply.error is not None:
                why = "does not reply" if reply is None else reply.error
                note = f"engine {neighbour}, which should have read it, {why}"
                stacks = [ProcessStacks(note=note)] * len(pids)
            else:
                stacks = reply.value
        else:
            return {}
        return {engine.engine_id: one for engine, one in zip(targets, stacks, strict=True)}

    with ThreadPoolExecutor(min(8, len(by_host))) as pool:
        return {i: one for part in pool.map(read, by_host) for i, one in part.items()}


def _without_numbers(thread: ThreadStack) -> ThreadStack:
    """Return a stack without the numbers of cells: engines that have run different numbers of cells differ in them."""
    return thread._replace(frames=tuple(frame._replace(file=without_number(frame.file)) for frame in thread.frames))


def _lines(stack: EngineStack, alike: Iterable[EngineStack]) -> Iterator[tuple[str, str]]:
    """Yield the lines of a group, each with its style."""
    times = sorted(one.for_s for one in alike if one.for_s is not None)
    if stack.is_idle:
        if stack.program is None:
            yield "idle", "dim"
    elif stack.call:
        ends = list(dict.fromkeys(duration_in_words(one) for one in times[:1] + times[-1:]))
        yield f"{stack.call} of {stack.client}" + (f", for {' to '.join(ends)}" if ends else ""), "bold"
    for note in stack.notes:
        yield note, "yellow"
    for wait in stack.waits:
        yield f"waits: {wait}", "yellow"
    yield from _frame_lines(stack.frames)
    if stack.program is not None:
        yield "the program itself", "bold"
        yield from _frame_lines(stack.program.frames)
    for thread in stack.threads[1:]:
        yield f"thread {thread.name}", "bold"
        yield from _frame_lines(thread.frames)


def _frame_lines(frames: Sequence[StackFrame]) -> Iterator[tuple[str, str]]:
    if (hidden := len(frames) - SHOWN_FRAMES) > 0:
        yield f"  … {hidden} {plural('function', hidden)} further out", "dim"
    for frame in frames[-SHOWN_FRAMES:]:
        line = f", line {frame.line}" if frame.line else ""
        source = f": {frame.source}" if frame.source else ""
        yield f"  {frame.function} ({short_path(frame.file)}{line}){source}", "" if frame.own else "dim"


def short_path(path: str) -> str:
    """Return a path without the folders that say little: those before a package or a library, and the current one.

    A cell of this process has its number in place of a path.
    """
    return _FOLDERS.sub("", shown_file(path)).removeprefix(os.path.join(os.getcwd(), ""))
