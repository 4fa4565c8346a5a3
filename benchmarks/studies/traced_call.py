"""Draw the path of a traced call through the modules: ``python -m benchmarks.studies.traced_call PICTURE.svg``.

The call is ``view.execute("a = 1", block=True)`` to one engine on the local transport, where client and engine are
threads of one process. A row of the picture is a visit: calls to functions of one file, with no function of another
file between them. Files that call no other files are named below the row of their caller.
"""

from __future__ import annotations

import argparse
import html
import math
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ENGINE = "engine"
CLIENT = "client"
SOURCE = "a = 1"

ROW_PX, SMALL_PX, INDENT_PX, LEFT_PX, WIDTH_PX = 21, 15, 11, 92, 800
SMALL_CHARACTERS = 104
EARLIER_S = 1e-9  # a caller that continues is drawn above the visit with which it continues


@dataclass(slots=True)
class Visit:
    """A file's functions, from the entry into the file to the return from it.

    Attributes:
        side: the thread, `CLIENT` or `ENGINE`.
        file: the file, from the package's folder.
        function: the qualified name of the function that was entered.
        begun: the time of the entry, in seconds.
        below: the visits that were made from it.
    """

    side: str
    file: str
    function: str
    begun: float
    below: list[Visit] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the picture: a visit, and the files that it calls and that call no others."""

    side: str
    depth: int
    function: str
    file: str
    helpers: tuple[str, ...]


class Tracer:
    """Records the visits of threads, as a function for ``sys.setprofile``.

    Args:
        package: the folder of the package; functions of other files are ignored.
    """

    def __init__(self, package: Path) -> None:
        self.visits: list[Visit] = []
        self.is_on = False
        self._prefix = f"{package}/"
        self._threads = threading.local()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Record a call or a return."""
        path = frame.f_code.co_filename
        if not self.is_on or event not in ("call", "return") or not path.startswith(self._prefix):
            return
        stack = self._threads.__dict__.setdefault("stack", [])
        if event == "return":
            if stack and stack[-1][0] is frame:
                stack.pop()
            return
        file, name = path.removeprefix(self._prefix), threading.current_thread().name
        if stack and stack[-1][1].file == file:
            visit = stack[-1][1]
        else:
            side = ENGINE if name.startswith("engine-") else CLIENT
            visit = Visit(side, file, frame.f_code.co_qualname, time.perf_counter())
            if stack:
                stack[-1][1].below.append(visit)
            elif side == ENGINE or name == "MainThread":  # other threads report, and the call does not wait for them
                self.visits.append(visit)
        stack.append((frame, visit))


def trace() -> list[Visit]:
    """Return the visits of one call, from the client's thread and the engine's."""
    import nsactors

    tracer = Tracer(Path(nsactors.__file__).parent)
    threading.setprofile(tracer)  # before engines have their threads
    with nsactors.Cluster(n=1, backend="local") as rc:
        view = rc[:]
        view.execute(SOURCE, block=True)  # does the imports and preparations that only the first call needs
        sys.setprofile(tracer)
        tracer.is_on = True
        view.execute(SOURCE, block=True)
        tracer.is_on = False
        sys.setprofile(None)
    threading.setprofile(None)
    return tracer.visits


def rows(visits: Iterable[Visit]) -> list[Row]:
    """Return the rows of a picture in the order of time; a visit that continues after the engine's has a second row."""
    visits = list(visits)
    replied = max((visit.begun for one in visits if one.side == ENGINE for visit in _all(one)), default=math.inf)
    found = [timed for visit in visits for timed in _rows(visit, 0, replied)]
    return [row for _, row in sorted(found, key=lambda timed: timed[0])]


def _all(visit: Visit) -> Iterator[Visit]:
    yield visit
    for below in visit.below:
        yield from _all(below)


def _rows(visit: Visit, depth: int, replied: float) -> Iterator[tuple[float, Row]]:
    helpers = [below for below in visit.below if not below.below]
    before = [helper for helper in helpers if visit.side == ENGINE or helper.begun <= replied]
    after = [helper for helper in helpers if helper not in before]
    yield visit.begun, _row(visit, depth, visit.function, before if visit.begun <= replied else helpers)
    if after and visit.begun <= replied:
        resumed = min(below.begun for below in visit.below if below.begun > replied)
        yield resumed - EARLIER_S, _row(visit, depth, f"{visit.function}, with the reply", after)
    for below in visit.below:
        if below.below:
            yield from _rows(below, depth + 1, replied)


def _row(visit: Visit, depth: int, label: str, helpers: Iterable[Visit]) -> Row:
    named = dict.fromkeys(f"{helper.file} {helper.function.replace('.__init__', '')}" for helper in helpers)
    return Row(visit.side, depth, label, visit.file, tuple(named))


def draw(lines: Iterable[Row]) -> str:
    """Return rows as an SVG picture, whose colours follow the reader's scheme."""
    body: list[str] = []
    top, last = 34.0, ""
    for row in lines:
        height = ROW_PX + SMALL_PX * len(small := list(_wrapped(row.helpers)))
        x = LEFT_PX + row.depth * INDENT_PX
        body.append(f'<rect class="{row.side}" x="0" y="{top:g}" width="{WIDTH_PX}" height="{height}"/>')
        if row.side != last:
            body.append(f'<text class="side" x="12" y="{top + 15:g}">{row.side}</text>')
        text = (
            f'<tspan class="function">{html.escape(row.function)}</tspan><tspan class="file" dx="10">{row.file}</tspan>'
        )
        body.append(f'<text x="{x}" y="{top + 15:g}">{text}</text>')
        for number, line in enumerate(small):
            y = top + ROW_PX + 9 + number * SMALL_PX
            body.append(f'<text class="small" x="{x + 12}" y="{y:g}">{html.escape(line)}</text>')
        top, last = top + height, row.side
    title = f'view.execute("{SOURCE}", block=True) on the local transport'
    return _SVG.format(width=WIDTH_PX, height=int(top + 12), title=html.escape(title), body="\n".join(body))


def _wrapped(words: Iterable[str]) -> Iterator[str]:
    line = ""
    for word in words:
        if line and len(line) + len(word) + 3 > SMALL_CHARACTERS:
            yield line
            line = ""
        line = f"{line} · {word}" if line else word
    if line:
        yield line


_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>{title}</title>
<style>
text {{ font: 13px sans-serif; fill: #222; }}
.back {{ fill: #fff; }}
.client {{ fill: #eef2ff; }}
.engine {{ fill: #fdf1e0; }}
.function {{ font-weight: 600; }}
.file, .small {{ font-family: monospace; font-size: 11.5px; fill: #5a5f73; }}
.small {{ font-size: 10.5px; fill: #777c8f; }}
.side {{ font-style: italic; fill: #5a5f73; }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #e6e6ec; }}
.back {{ fill: #1d1f27; }}
.client {{ fill: #262b3d; }}
.engine {{ fill: #382f22; }}
.file, .small, .side {{ fill: #b3b8cb; }}
.small {{ fill: #9499ab; }}
}}
</style>
<rect class="back" width="{width}" height="{height}"/>
<text x="12" y="22">{title}</text>
{body}
</svg>
"""


def main() -> None:
    """Trace the call, and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("picture", type=Path, help="the SVG file to write")
    parser.parse_args().picture.write_text(draw(rows(trace())), encoding="utf-8")


if __name__ == "__main__":
    main()
