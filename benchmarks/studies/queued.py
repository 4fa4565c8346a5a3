"""Measure the memory of a client for tasks that wait: ``python -m benchmarks.studies.queued``.

Engines are blocked while a map of many items, and then many single tasks, are submitted and wait. The client's own
memory is read before that, while the tasks wait, and at its peak until all results have arrived. Results are None,
which takes no additional memory: the rest is book-keeping.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.operations.workload import idle
from benchmarks.studies.growth import anonymous_bytes

__all__ = ["Footprint", "draw", "main"]

LIMITS = {"item of a map": 1_000, "single task": 3_000}  # bytes
LOOK_S = 0.005


class Footprint(NamedTuple):
    """The additional bytes of a client for ``count`` tasks or items: while they waited, and at the peak."""

    what: str
    count: int
    waiting: int
    highest: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit, read, draw a table; return 1 if the memory is above a limit."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.queued", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--items", type=int, default=1_000_000, help="of one map")
    parser.add_argument("--tasks", type=int, default=20_000, help="single ones")
    options = parser.parse_args(arguments)
    from nsactors import Cluster

    with Cluster(n=options.engines) as rc:
        lview = rc.load_balanced_view()
        lview.map_sync(idle, range(10_000))
        for result in [lview.apply_async(idle, k) for k in range(1_000)]:
            result.get()
        footprints = [
            _measure(rc, "item of a map", options.items, lambda: [lview.map_async(idle, range(options.items))]),
            _measure(
                rc, "single task", options.tasks, lambda: [lview.apply_async(idle, k) for k in range(options.tasks)]
            ),
        ]
    Console(width=None if sys.stdout.isatty() else 120).print(draw(footprints))
    return int(any(each.highest > LIMITS[each.what] * each.count for each in footprints))


def draw(footprints: Sequence[Footprint]) -> Table:
    """Return the table: bytes for each task or item."""
    table = Table(
        "for each", "of", "bytes while it waits", "bytes at the highest", "limit", title="memory of the client"
    )
    for what, count, waiting, highest in footprints:
        table.add_row(what, f"{count:,}", f"{waiting / count:,.0f}", f"{highest / count:,.0f}", f"{LIMITS[what]:,}")
    return table


def _measure(rc: Any, what: str, count: int, submit: Callable[[], list[Any]]) -> Footprint:
    pid = os.getpid()
    before = anonymous_bytes(pid)
    with _highest(pid) as highest:
        with _held_up(rc):
            results = submit()
            rc.tasks()  # returns when the scheduler knows all of them
            waiting = anonymous_bytes(pid)
        for result in results:
            result.get()
    return Footprint(what, count, waiting - before, max(highest) - before)


@contextmanager
def _held_up(rc: Any) -> Iterator[None]:
    """Let all engines wait until the end of the block."""

    def wait(path: str) -> None:
        open(path).close()  # a pipe opens when its other end does

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "pipe")
        os.mkfifo(path)
        waiting = rc[:].apply_async(wait, path)
        try:
            yield
        finally:
            with open(path, "w"):
                waiting.get()


@contextmanager
def _highest(pid: int) -> Iterator[list[int]]:
    """Read a process's memory again and again until the end of the block."""
    over = threading.Event()
    readings = [anonymous_bytes(pid)]

    def read() -> None:
        while not over.wait(LOOK_S):
            readings[:] = [max(readings[0], anonymous_bytes(pid))]

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield readings
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
