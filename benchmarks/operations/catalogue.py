"""The operations that are measured, and how often."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "FEW_ITEMS",
    "LARGE_BYTES",
    "MANY_ITEMS",
    "MAP_ITEMS",
    "OPERATIONS",
    "PIPELINED_CALLS",
    "TASKS",
    "Operation",
    "find",
]

LARGE_BYTES = 100_000_000
MAP_ITEMS = 1_000_000
PIPELINED_CALLS = 2_000
TASKS = 4_000
FEW_ITEMS = 1_000  # with one message per item, this takes seconds
MANY_ITEMS = 100_000  # with one message per item, this takes minutes: only for systems that send many items in one


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that every system carries out in its own way.

    Args:
        name: its name on the command line.
        title: its name in tables.
        burst: the number of runs in one turn; each run is timed on its own.
        share: the part of the rounds in which it runs; long operations need fewer rounds.
        most_engines: the largest number of engines on which it runs, None for any number; 100 MB for each of 64 engines
            is more than a machine holds.
        cold: whether each sample needs a new process.
    """

    name: str
    title: str
    burst: int = 1
    share: float = 0.25
    most_engines: int | None = 16
    cold: bool = False

    def rounds(self, rounds: int) -> int:
        """Return the number of rounds, of so many, in which it runs; at least one."""
        return max(1, round(rounds * self.share))

    def engine_counts(self, counts: tuple[int, ...]) -> tuple[int, ...]:
        """Return the numbers of engines on which it runs, of the given numbers; at least the smallest of them."""
        if self.most_engines is None:
            return counts
        return tuple(n for n in counts if n <= self.most_engines) or (min(counts),)


def _small(name: str, title: str) -> Operation:
    return Operation(name, title, burst=20, share=1.0, most_engines=None)


OPERATIONS = (
    _small("apply", "call a function that does nothing"),
    _small("push", "push a number"),
    _small("pull", "pull a number"),
    _small("execute", "execute a cell"),
    Operation("push-large", "push 100 MB"),
    Operation("scatter", "scatter 100 MB"),
    Operation("gather", "gather 100 MB"),
    Operation("map", "map x**10 over a million numbers"),
    Operation("pipelined", "2,000 calls without waiting", most_engines=None),
    Operation("tasks", "4,000 balanced calls, without waiting"),
    Operation("map-few", "balanced map of nothing over 1,000 items"),
    Operation("map-many", "balanced map of nothing over 100,000 items"),
    Operation("ep", "NAS EP, class S, eight times: 2,048 tasks", share=0.5),
    Operation("start", "start, to the first result", share=0.15, cold=True),
    Operation("import", "import the library", cold=True),
)


def find(names: tuple[str, ...]) -> tuple[Operation, ...]:
    """Return operations by name, in the order of the table; all operations without names.

    Raises:
        ValueError: if there is no operation of one of these names.
    """
    known = [operation.name for operation in OPERATIONS]
    for name in names:
        if name not in known:
            raise ValueError(f"there is no operation {name!r}: choose among {', '.join(known)}")
    return tuple(o for o in OPERATIONS if not names or o.name in names)
