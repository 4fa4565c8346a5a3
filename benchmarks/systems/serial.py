"""A plain loop without parallelism: the baseline of the other systems."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.operations.catalogue import MAP_ITEMS, WORKLOADS
from benchmarks.operations.workload import ep, power, workload

__all__ = ["Serial"]


class Serial:
    """A loop in this process."""

    def start(self, engines: int) -> None:
        """There is nothing to start."""

    def prepare(self, operation: str, engines: int) -> Callable[[], object] | None:
        match operation:
            case "map":
                return lambda: [power(x) for x in range(MAP_ITEMS)]
            case "ep":
                tally, batches = ep()
                return lambda: [tally(batch) for batch in batches]
            case _ if operation in WORKLOADS:
                function, items = workload(operation)
                return lambda: [function(item) for item in items]
            case _:
                return None

    def close(self) -> None:
        """There is nothing to end."""
