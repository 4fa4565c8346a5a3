"""Measure whether memory grows with use: ``python -m benchmarks.studies.growth``.

After a warm-up, a cluster gets many calls, a map of many items, and many pushes of a megabyte, as in a long session.
Nothing is purged during these steps. The anonymous memory of the processes, without the object store and files, is read
after each step. At the end, it must be near its size after the warm-up.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.operations.workload import ARGUMENTS, NUMBER, noop, power

__all__ = ["Reading", "anonymous_bytes", "draw", "grown", "main"]

MEGABYTE = 1_000_000
WARM_UP_CALLS, WARM_UP_ITEMS, WARM_UP_PUSHES = 5_000, 5_000, 50
BATCH = 500
SETTLING_S, SETTLED_BYTES, PATIENCE_S = 0.5, MEGABYTE // 2, 10.0

Memory = Mapping[str, int]  # bytes by process


@dataclass(frozen=True, slots=True)
class Reading:
    """The memory of processes after a step."""

    step: str
    memory: Memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the work and draw a table by process; return 1 if a process of nsactors has grown too much."""
    options = _parse(arguments)
    from nsactors import Cluster

    with Cluster(n=options.engines) as rc:
        readings = list(_work(rc, options))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(draw(readings))
    too_much = {name: size for name, size in grown(readings).items() if size > options.limit * MEGABYTE}
    for name, size in too_much.items():
        console.print(f"{name} has grown by {_format(size)}, more than {options.limit} MB")
    return 1 if too_much else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.growth", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--calls", type=int, default=100_000, help="requests, of several kinds")
    parser.add_argument("--items", type=int, default=100_000, help="items mapped")
    parser.add_argument("--pushes", type=int, default=1_000, help="pushes of 1 MB to all engines")
    parser.add_argument("--limit", type=float, default=50.0, help="MB that a process may grow by")
    return parser.parse_args(arguments)


def _work(rc: Any, options: argparse.Namespace) -> Iterator[Reading]:
    def step(title: str, work: Callable[[], object]) -> Reading:
        work()
        return Reading(title, _settled(processes))

    def warm_up() -> None:
        _call(rc, WARM_UP_CALLS)
        _map(rc, WARM_UP_ITEMS)
        _push(rc, WARM_UP_PUSHES)

    processes = _processes(rc[:].apply_sync(os.getpid))
    yield step("warm-up", warm_up)
    yield step(f"{options.calls:,} calls", lambda: _call(rc, options.calls))
    yield step(f"{options.items:,} items", lambda: _map(rc, options.items))
    yield step(f"{options.pushes:,} pushes", lambda: _push(rc, options.pushes))


def _call(rc: Any, requests: int) -> None:
    """Make calls, pulls and cells in turn; half of the cells print, and are numbered and kept."""
    view = rc[:]
    view.push(NUMBER, block=True)
    kinds: tuple[Callable[[int], Any], ...] = (
        lambda k: view.apply_async(noop, *ARGUMENTS),
        lambda k: view.pull("number", block=False),
        lambda k: view.execute(f"number = {k}", block=False),
        lambda k: view.execute(f"print({k})", silent=False, block=False),
    )
    rounds = requests // len(view)
    for start in range(0, rounds, BATCH):
        for result in [kinds[k % len(kinds)](k) for k in range(start, min(start + BATCH, rounds))]:
            result.get()


def _map(rc: Any, items: int) -> None:
    assert len(rc[:].map_sync(power, range(items))) == items


def _push(rc: Any, pushes: int) -> None:
    import numpy as np

    view = rc[:]
    for k in range(pushes):
        view.push({"megabyte": np.full(MEGABYTE // 8, k, np.float64)}, block=True)


def _processes(engine_pids: Sequence[int]) -> dict[str, psutil.Process]:
    """Return this process, and the processes of the cluster that it has started, by name."""
    found = {"client": psutil.Process()}
    for process in psutil.Process().children(recursive=True):
        match process.name(), " ".join(process.cmdline()):
            case _ if process.pid in engine_pids:
                found[f"engine {list(engine_pids).index(process.pid)}"] = process
            case _, title if title.startswith("ray::RayController"):
                found["controller"] = process
            case ("raylet" | "gcs_server") as name, _:
                found[f"Ray's {name}"] = process
    return dict(sorted(found.items()))


def _settled(processes: Mapping[str, psutil.Process]) -> Memory:
    """Return the memory when it has stopped changing: Ray releases objects some time after nsactors does."""
    rest = threading.Event()
    memory = _memory(processes)
    for _ in range(int(PATIENCE_S / SETTLING_S)):
        rest.wait(SETTLING_S)
        before, memory = memory, _memory(processes)
        if all(abs(memory[name] - before[name]) < SETTLED_BYTES for name in memory):
            break
    return memory


def _memory(processes: Mapping[str, psutil.Process]) -> Memory:
    return {name: anonymous_bytes(process.pid) for name, process in processes.items()}


def anonymous_bytes(pid: int) -> int:
    """Return the memory of a process that is neither shared nor backed by a file: without the object store."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not report RssAnon")


def grown(readings: Sequence[Reading]) -> Memory:
    """Return the bytes by which each process of nsactors has grown from the first reading to the last."""
    first, last = readings[0].memory, readings[-1].memory
    return {name: last[name] - first[name] for name in first if not name.startswith("Ray's")}


def draw(readings: Sequence[Reading]) -> Table:
    """Return the table by process: its memory after the warm-up, and the growth after each step."""
    first, *later = readings
    table = Table(title="memory of its own, and how it grew", title_justify="left")
    table.add_column("process")
    table.add_column(f"after {first.step}", justify="right")
    for reading in later:
        table.add_column(f"after {reading.step}", justify="right")
    for name, size in first.memory.items():
        changes = (reading.memory[name] - size for reading in later)
        table.add_row(name, _format(size), *(f"{change / MEGABYTE:+.1f} MB" for change in changes))
    return table


def _format(size: int) -> str:
    return f"{size / MEGABYTE:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
