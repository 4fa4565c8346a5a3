"""How large the processes of a cluster are, and whether they grow."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

__all__ = ["Growth", "Reading", "Size", "growth", "read"]

GROWTH_LIMIT = 0.05
JUDGED = ("all", "client", "controller", "engine", "spared engine")  # Ray's own processes are shown
# Ray keeps spare processes, engines are away at times, and connections to the dead are closed some seconds later: the
# files of a controller go up and down by three.
CHANCE = {"processes": 1, "files": 3, "memory": 0}
_TITLES = {
    "ray::RayController": "controller",
    "ray::RayEngine": "engine",
    "ray::RayJournalReplica": "keeper",
    "ray::IDLE": "Ray's spare workers",
}
_NAMES = {"raylet": "Ray's raylet", "gcs_server": "Ray's gcs_server"}


class Size(NamedTuple):
    """The number of processes of a kind, and the mean of their file descriptors and bytes of private memory."""

    processes: int
    files: float
    memory: float


class Reading(NamedTuple):
    """The sizes of all kinds of processes, so many seconds after the beginning."""

    at_s: float
    sizes: Mapping[str, Size]


class Growth(NamedTuple):
    """What one quantity was after the warm-up and in the end: the median of several readings each.

    Attributes:
        kind: of process; or "all".
        what: a field of :class:`Size`.
        before: after the warm-up.
        after: in the end.
    """

    kind: str
    what: str
    before: float
    after: float

    @property
    def share(self) -> float:
        """By how much it has grown."""
        return self.after / self.before - 1 if self.before else 0.0

    @property
    def is_too_much(self) -> bool:
        """True if the quantity has grown by more than is allowed."""
        return self.kind in JUDGED and self.after > self.before * (1 + GROWTH_LIMIT) + CHANCE[self.what]


def read(at_s: float, spared: Container[int] = ()) -> Reading:
    """The sizes of this process and of all that it has started.

    Args:
        at_s: when this is.
        spared: process ids of engines that nothing strikes; they are a kind of their own.
    """
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            kind = "spared engine" if process.pid in spared else _kind(process)
            found[kind].append((process.num_fds(), _own_bytes(process.pid)))
        except (psutil.Error, OSError):  # it has just ended
            continue
    return Reading(at_s, {kind: _size(list(values)) for kind, values in sorted(found.items())})


def growth(readings: Sequence[Reading], warm_up_s: float) -> list[Growth]:
    """Return the growth of each quantity from the first to the last third of the time after the warm-up.

    Each value is a median over its third, because engines come and go during the run, and memory goes up and down.
    """
    warm = [reading for reading in readings if reading.at_s >= warm_up_s]
    third = len(warm) // 3
    if not third:
        return []
    first, last = warm[:third], warm[-third:]
    grown = [Growth("all", "processes", _median(map(_count, first)), _median(map(_count, last)))]
    for kind in sorted({kind for reading in warm for kind in reading.sizes}):
        for what in Size._fields[1:]:
            before, after = (
                _median(getattr(reading.sizes[kind], what) for reading in part if kind in reading.sizes)
                for part in (first, last)
            )
            grown.append(Growth(kind, what, before, after))
    return grown


def _kind(process: psutil.Process) -> str:
    if process.pid == psutil.Process().pid:
        return "client"
    title = " ".join(process.cmdline())
    kinds = [kind for start, kind in _TITLES.items() if title.startswith(start)]
    return kinds[0] if kinds else _NAMES.get(process.name(), "Ray's agents")


def _size(values: Sequence[tuple[int, int]]) -> Size:
    files, memory = (statistics.fmean(column) for column in zip(*values, strict=True))
    return Size(len(values), files, memory)


def _count(reading: Reading) -> int:
    return sum(size.processes for size in reading.sizes.values())


def _median(values: Iterable[float]) -> float:
    return statistics.median([*values] or [0.0])


def _own_bytes(pid: int) -> int:
    """Memory that is neither shared nor backed by a file; what the object store holds is not in it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)
