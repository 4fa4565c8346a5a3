"""Showing results: progress while they are awaited, output when they are there."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nsactors.core.messages import ClearOutput, Display, ExecuteResult, OutputChunk, StreamText
from nsactors.errors import engine_ranges
from nsactors.results.call import Call
from nsactors.results.live.line import open_line
from nsactors.results.progress import ProgressMeter

if TYPE_CHECKING:
    from nsactors.results.async_result import AsyncResult

__all__ = ["show_outputs", "show_progress"]

_KINDS = ("stdout", "stderr", "display", "result")


def show_progress(result: AsyncResult, interval_s: float, timeout_s: float | None) -> None:
    """Draw a line of progress until ``result`` is done or time is up; its last state stays.

    Where nobody looks on, as in a pipe, that alone is written.
    """
    meter = ProgressMeter(result._label, result._calls)
    line = open_line()
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    try:
        while not result.wait(max(0.0, min(interval_s, deadline - time.monotonic()))) and time.monotonic() < deadline:
            if line is not None:
                line.draw(meter.read())
    finally:
        last = meter.sum_up()
        if line is None:
            print(f"{last.label}: {last.amount}, {last.times}", file=sys.stderr)
        else:
            line.draw(last)
            line.leave()


def show_outputs(calls: Sequence[Call], groupby: str, *, result_only: bool) -> None:
    """Show the output of calls, each piece with the engines that gave it; what several gave alike is shown once."""
    match groupby:
        case "type":
            for kind in _KINDS[2:] if result_only else _KINDS:
                _show_pieces([(call.engine_id, _of_kind(call, kind)) for call in calls])
        case "engine" | "order":
            for call in calls:
                chunks = [c for c in call.output.chunks if not (result_only and isinstance(c, StreamText))]
                for chunk in chunks:
                    _show_pieces([(call.engine_id, [chunk])])
        case _:
            raise ValueError(f"groupby is 'type', 'engine' or 'order', not {groupby!r}")


def _of_kind(call: Call, kind: str) -> list[OutputChunk]:
    match kind:
        case "display":
            return [c for c in call.output.chunks if isinstance(c, Display)]
        case "result":
            return [c for c in call.output.chunks if isinstance(c, ExecuteResult)]
        case _:
            text = call.text(kind)
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
            _show(chunk, engine_ranges(ids))


def _show(chunk: OutputChunk, engines: str) -> None:
    match chunk:
        case StreamText(name, text):
            stream = sys.stderr if name == "stderr" else sys.stdout
            print(f"[{name}: {engines}]", file=stream)
            print(text, end="" if text.endswith("\n") else "\n", file=stream)
        case ExecuteResult(_, data, metadata) | Display(data, metadata):
            print(f"[output: {engines}]")
            _show_rich(data, metadata)
        case ClearOutput():
            pass


def _show_rich(data: dict[str, Any], metadata: dict[str, Any]) -> None:
    # Where there is no IPython there is nobody to show an image to: its text form stands for it.
    interactive = "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None
    if interactive:
        sys.modules["IPython"].display.display(data, metadata=metadata, raw=True)
    else:
        print(data.get("text/plain", ""))
