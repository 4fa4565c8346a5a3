"""The operations that are measured, and how often."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "FEW_ITEMS",
    "GROUPS",
    "HALO_STEPS",
    "LARGE_BYTES",
    "MANY_ITEMS",
    "MAP_ITEMS",
    "OPERATIONS",
    "PIPELINED_CALLS",
    "SCALE",
    "TASKS",
    "WORKLOADS",
    "Operation",
    "find",
]

LARGE_BYTES = 100_000_000
MAP_ITEMS = 1_000_000
PIPELINED_CALLS = 2_000
TASKS = 4_000
FEW_ITEMS = 1_000  # with one message per item, this takes seconds
HALO_STEPS = 50
SCALE = (8, 64, 256)  # numbers of engines
MANY_ITEMS = 100_000  # with one message per item, this takes minutes: only for systems that send many items in one


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that every system carries out in its own way.

    Args:
        name: its name on the command line.
        title: its name in tables.
        burst: the number of runs in one turn; each run is timed on its own.
        share: the part of the rounds in which it runs; long operations need fewer rounds.
        most_engines: the largest number of engines on which it runs, or None for any number; a machine cannot hold 100
            MB for each of 64 engines.
        cold: whether each sample needs a new process.
    """

    name: str
    title: str
    burst: int = 1
    share: float = 0.25
    most_engines: int | None = 16
    cold: bool = False

    def rounds(self, rounds: int) -> int:
        """Return the number of rounds in which it runs, out of ``rounds``; at least one."""
        return max(1, round(rounds * self.share))

    def engine_counts(self, counts: tuple[int, ...]) -> tuple[int, ...]:
        """Return those of ``counts`` on which it runs; at least the smallest of them."""
        if self.most_engines is None:
            return counts
        return tuple(n for n in counts if n <= self.most_engines) or (min(counts),)


def _small(name: str, title: str) -> Operation:
    return Operation(name, title, burst=20, share=1.0, most_engines=None)


# Balanced maps over parts of work that are typical in practice. The functions are in ``workload``.
WORKLOADS = {
    "map-power": "balanced map of x**10 over a million numbers",
    "sleeps": "64 sleeps of 5 ms",
    "short": "1,000 items of 0.1 ms",
    "pi": "Monte Carlo: 32 batches of 200,000 points",
    "words": "count the words of 16 texts of 100 kB",
    "sort": "sort 16 arrays of 4 MB",
    "arrays": "add 1 to 16 arrays of 4 MB",
    "svd": "singular values of 16 matrices of 300 by 300",
}

OPERATIONS = (
    Operation("call", "one call, waited for", burst=20, share=1.0, most_engines=1),
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
    *(Operation(name, title, burst=2) for name, title in WORKLOADS.items()),
    Operation("halo", "50 exchanges of a number with both neighbours", burst=2),
    Operation("ep", "NAS EP, class S, eight times: 2,048 tasks", share=0.5),
    Operation("start", "start, to the first result", share=0.15, cold=True),
    Operation("import", "import the library", cold=True),
)

GROUPS = {
    "latency": ("call", "apply", "push", "pull", "execute", "pipelined"),
    "balance": ("tasks", "map-few", "map-many", *WORKLOADS),
    "scale": ("apply", "execute", "start"),
}
"""Names for several operations; ``scale`` also means the numbers of engines in ``SCALE``."""


def find(names: tuple[str, ...]) -> tuple[Operation, ...]:
    """Return operations by their names or names of groups, in the order of the table; without names, all operations.

    Raises:
        ValueError: if there is no operation or group of one of these names.
    """
    known = [*GROUPS, *(operation.name for operation in OPERATIONS)]
    for name in names:
        if name not in known:
            raise ValueError(f"there is no operation {name!r}: choose among {', '.join(known)}")
    wanted = {operation for name in names for operation in GROUPS.get(name, (name,))}
    return tuple(o for o in OPERATIONS if not names or o.name in wanted)
