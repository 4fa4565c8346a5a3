"""Pools of workers with balanced maps: the process pool of the standard library, and Ray's pool."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.operations.catalogue import FEW_ITEMS, MANY_ITEMS, TASKS
from benchmarks.operations.workload import ep
from benchmarks.systems.bare_ray import BareRay

__all__ = ["ProcessPool", "RayPool"]

_OPERATIONS = ("tasks", "map-few", "map-many", "ep")


def idle(x: Any) -> None:
    """Do nothing; importable, because these pools send functions by name."""


class ProcessPool:
    """``concurrent.futures.ProcessPoolExecutor``, with one item per message, which is its default."""

    def start(self, engines: int) -> None:
        self._pools = {engines: ProcessPoolExecutor(engines)}
        list(self._pools[engines].map(idle, range(engines)))

    def prepare(self, operation: str, engines: int) -> Callable[[], object] | None:
        if operation not in _OPERATIONS:
            return None
        pool = self._pools.setdefault(engines, ProcessPoolExecutor(engines))
        match operation:
            case "tasks":
                return lambda: [future.result() for future in [pool.submit(idle, 1) for _ in range(TASKS)]]
            case "map-few":
                return lambda: list(pool.map(idle, range(FEW_ITEMS)))
            case "map-many":
                return lambda: list(pool.map(idle, range(MANY_ITEMS)))
            case _:
                tally, batches = ep()
                return lambda: list(pool.map(tally, batches))

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown()


class RayPool:
    """``ray.util.multiprocessing.Pool``, which cuts a map into a few parts per worker.

    Args:
        host: the system on whose Ray it runs.
    """

    def __init__(self, host: BareRay) -> None:
        self._pools: dict[int, Any] = {}

    def start(self, engines: int) -> None:
        """There is nothing to start."""

    def prepare(self, operation: str, engines: int) -> Callable[[], object] | None:
        if operation not in _OPERATIONS:
            return None
        if engines not in self._pools:
            from ray.util.multiprocessing import Pool

            # At most as many workers as CPUs: the pool refuses to start more.
            self._pools[engines] = Pool(min(engines, len(os.sched_getaffinity(0))))
        pool = self._pools[engines]
        match operation:
            case "tasks":
                return lambda: [result.get() for result in [pool.apply_async(idle, (1,)) for _ in range(TASKS)]]
            case "map-few":
                return lambda: pool.map(idle, range(FEW_ITEMS))
            case "map-many":
                return lambda: pool.map(idle, range(MANY_ITEMS))
            case _:
                tally, batches = ep()
                return lambda: pool.map(tally, batches)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.terminate()
