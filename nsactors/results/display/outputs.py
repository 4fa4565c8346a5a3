"""Results of calls at a prompt: their output by type or engine, the values of cells, and a table of the calls.

Output of calls that run appears on a screen (:mod:`~nsactors.results.display.live`); this module prints the output that
no screen has shown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from nsactors.errors import as_text, engine_ranges, printable
from nsactors.protocol.messages import Display, ExecuteResult, OutputChunk, StreamText
from nsactors.protocol.process import current_shell, imported
from nsactors.results.call import NOWHERE, Call, MapCall, MapPiece
from nsactors.results.display.merging import engine_label
from nsactors.results.display.tables import duration_in_words, heading, shown_rows
from nsactors.results.display.terminal import FIGURES, save_figure

_KINDS = ("stdout", "stderr", "display", "result")


def print_outputs(calls: Sequence[Call], groupby: str, *, result_only: bool) -> None:
    """Print the output of calls that has not been shown, each piece with the engines that gave it.

    Equal pieces of several engines are printed once. (A screen merges them line by line: see ``merging.arrange``.)
    """
    outputs: dict[int, list[OutputChunk]] = {}
    for call in calls:
        for engine_id, _, chunks in call.unshown() if result_only else call.take_unshown():
            outputs.setdefault(engine_id, []).extend(c for c in chunks if not isinstance(c, ExecuteResult))
        if call.shows_value and (values := [c for c in call.output.chunks if isinstance(c, ExecuteResult)]):
            call.shows_value = False
            outputs.setdefault(call.engine_id, []).extend(values)
    if any(isinstance(call, MapCall) for call in calls):  # items arrive in any order
        outputs = dict(sorted(outputs.items()))
    match groupby:
        case "type":
            for kind in _KINDS[2:] if result_only else _KINDS:
                _show_pieces([(engine_id, _of_kind(chunks, kind)) for engine_id, chunks in outputs.items()])
        case "engine" | "order":
            for engine_id, chunks in outputs.items():
                for chunk in chunks:
                    if not (result_only and isinstance(chunk, StreamText)):
                        _show_pieces([(engine_id, [chunk])])
        case _:
            raise ValueError(f"groupby is 'type', 'engine' or 'order', not {groupby!r}")


def _of_kind(chunks: Sequence[OutputChunk], kind: str) -> list[OutputChunk]:
    match kind:
        case "display":
            return [c for c in chunks if isinstance(c, Display)]
        case "result":
            return [c for c in chunks if isinstance(c, ExecuteResult)]
        case _:
            text = "".join(c.text for c in chunks if isinstance(c, StreamText) and c.name == kind)
            return [StreamText(kind, text)] if text else []


def _show_pieces(pieces: list[tuple[int, list[OutputChunk]]]) -> None:
    """Show each distinct piece once, labelled by all engines that gave it, in order of first appearance."""
    groups: list[tuple[list[int], list[OutputChunk]]] = []
    for engine_id, chunks in pieces:
        if not chunks:
            continue
        same = next((ids for ids, known in groups if known == chunks), None)
        if same is None:
            groups.append(([engine_id], chunks))
        else:
            same.append(engine_id)
    for ids, chunks in groups:
        for chunk in chunks:
            _show(chunk, ids)


def _show(chunk: OutputChunk, ids: Sequence[int]) -> None:
    match chunk:
        case StreamText(name, text):
            stream = sys.stderr if name == "stderr" else sys.stdout
            print(f"[{name}: {engine_ranges(ids)}]", file=stream)
            print(text, end="" if text.endswith("\n") else "\n", file=stream)
        case ExecuteResult(_, data, metadata) | Display(data, metadata):
            print(f"[output: {engine_ranges(ids)}]")
            _show_rich(data, metadata, ids)


def _show_rich(data: dict[str, Any], metadata: dict[str, Any], ids: Sequence[int]) -> None:
    shell = current_shell()
    if hasattr(shell, "kernel"):
        imported("IPython").display.display(data, metadata=metadata, raw=True)
    elif (shell is not None or sys.stdout.isatty()) and (line := save_figure(FIGURES, ids, data)):
        print(line)
    else:  # an image cannot be shown, so print its text form
        print(data.get("text/plain", ""))


Values = Sequence[tuple[Sequence[int], dict[str, Any]]]


def cell_values(calls: Sequence[Call]) -> Values | None:
    """Return the different values of a cell that has succeeded: each as a MIME bundle, with its engines.

    Return None if the calls are not cells, or have not ended, or have failed.
    """
    if not calls or not all(call.executes and call.done and call.error is None for call in calls):
        return None
    values: list[tuple[list[int], dict[str, Any]]] = []
    for call in calls:
        if (result := call.execute_result) is None:
            continue
        engines = next((engines for engines, data in values if data == result["data"]), None)
        if engines is None:
            values.append(([call.engine_id], result["data"]))
        else:
            engines.append(call.engine_id)
    return values


def values_as_text(values: Values, *, single: bool) -> str:
    """Return values as a prompt would show them, with the engines in front of each value unless ``single`` is true."""
    lines = []
    for engines, data in values:
        text = printable(str(data.get("text/plain", "")))
        lines.append(text if single else f"{engine_label(engines)}{_gap(text)}{text}")
    return "\n".join(lines)


def values_as_html(values: Values, *, single: bool) -> str | None:
    """Return values as HTML; None if no value has a form in HTML."""
    from html import escape

    if not any("text/html" in data for _, data in values):
        return None
    parts = []
    for engines, data in values:
        label = "" if single else f"<div>{engine_label(engines)}</div>"
        parts.append(label + str(data.get("text/html") or f"<pre>{escape(str(data.get('text/plain', '')))}</pre>"))
    return "".join(parts)


def _gap(text: str) -> str:
    return "\n" if "\n" in text else " "


def result_table(title: str, calls: Sequence[Call]) -> Any:
    """Return a rich table of calls: engine, state and duration, and for a map the items.

    With many parts, only the first and the last have rows.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    is_map = any(_items_of(call) for call in calls[:1])
    table = Table(
        title=heading(title),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 0, 0, 1),
    )
    table.add_column("engine", justify="right")
    for name in ["items"] * is_map + ["state"]:
        table.add_column(name)
    table.add_column("took", justify="right")
    before = -1
    for place in shown_rows(len(calls)):
        if place != before + 1:
            rest = calls[before + 1 : place]
            cells = [*[""] * is_map, f"{len(rest):,} more, {sum(call.done for call in rest):,} done", ""]
            table.add_row("…", *map(as_text, cells))
        call, before = calls[place], place
        engine = "" if call.engine_id == NOWHERE else str(call.engine_id)
        cells = [*[_items_of(call)] * is_map, _state(call)]
        table.add_row(engine, *map(as_text, cells), duration_in_words(_seconds(call)))
    return table


def _items_of(call: Call) -> str:
    """Name the items of a map in a call: ``0-9``, or ``1, 5, ...`` if dealt in turn; empty if it is no map."""
    if isinstance(call, MapPiece):
        numbers: Sequence[int] = range(call.start, call.stop)
    elif call.items is not None:
        numbers = call.items.numbers
    else:
        return ""
    if len(numbers) < 2 or (isinstance(numbers, range) and numbers.step == 1):
        return f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(*numbers)
    return f"{numbers[0]}, {numbers[1]}, ..."


def _state(call: Call) -> str:
    if call.error is not None:
        return printable(str(getattr(call.error, "ename", type(call.error).__name__)), "")
    return "done" if call.done else "pending"


def _seconds(call: Call) -> float | None:
    if call.completed is None or call.started is None:
        return None
    return call.completed - call.started
