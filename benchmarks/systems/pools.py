"""Pools of workers with balanced maps: pools of the standard library, loky, mpi4py and Ray."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.operations.catalogue import FEW_ITEMS, MANY_ITEMS, TASKS, WORKLOADS
from benchmarks.operations.workload import ep, workload
from benchmarks.systems.bare_ray import BareRay

__all__ = ["LokyPool", "MpiPool", "PlainPool", "ProcessPool", "RayPool"]

_OPERATIONS = ("call", "tasks", "map-few", "map-many", "ep", *WORKLOADS)
_CHUNKS = 4  # for each worker, as multiprocessing.Pool cuts maps


def idle(x: Any) -> None:
    """Do nothing; importable, because these pools send functions by name."""


class ProcessPool:
    """``concurrent.futures.ProcessPoolExecutor``, whose maps send chunks as long as ``multiprocessing.Pool`` does."""

    def _open(self, engines: int) -> Any:
        return ProcessPoolExecutor(engines)

    def start(self, engines: int) -> None:
        self._pools: dict[int, Any] = {}
        list(self._pool(engines).map(idle, range(engines)))

    def _pool(self, engines: int) -> Any:
        if engines not in self._pools:
            self._pools[engines] = self._open(engines)
        return self._pools[engines]

    def prepare(self, operation: str, engines: int) -> Callable[[], object] | None:
        if operation not in _OPERATIONS:
            return None
        pool = self._pool(engines)

        def mapped(function: Callable[[Any], Any], items: Sequence[Any]) -> Callable[[], object]:
            chunk = max(1, len(items) // (_CHUNKS * engines))
            return lambda: list(pool.map(function, items, chunksize=chunk))

        match operation:
            case "call":
                return lambda: pool.submit(idle, 1).result()
            case "tasks":
                return lambda: [future.result() for future in [pool.submit(idle, 1) for _ in range(TASKS)]]
            case "map-few":
                return mapped(idle, range(FEW_ITEMS))
            case "map-many":
                return mapped(idle, range(MANY_ITEMS))
            case "ep":
                tally, batches = ep()
                return lambda: list(pool.map(tally, batches))
            case _:
                return mapped(*workload(operation))

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown()


class LokyPool(ProcessPool):
    """The executor of joblib."""

    def _open(self, engines: int) -> Any:
        return importlib.import_module("joblib.externals.loky").ProcessPoolExecutor(engines)


class MpiPool(ProcessPool):
    """``mpi4py.futures.MPIPoolExecutor``."""

    def _open(self, engines: int) -> Any:
        return importlib.import_module("mpi4py.futures").MPIPoolExecutor(engines)


class _MapPool:
    """A pool with the methods of ``multiprocessing.Pool``, which cuts a map into a few parts per worker."""

    def __init__(self) -> None:
        self._pools: dict[int, Any] = {}

    def _open(self, engines: int) -> Any:
        raise NotImplementedError

    def start(self, engines: int) -> None:
        """There is nothing to start."""

    def prepare(self, operation: str, engines: int) -> Callable[[], object] | None:
        if operation not in _OPERATIONS:
            return None
        if engines not in self._pools:
            self._pools[engines] = self._open(engines)
        pool = self._pools[engines]
        items: Sequence[Any]
        match operation:
            case "call":
                return lambda: pool.apply(idle, (1,))
            case "tasks":
                return lambda: [result.get() for result in [pool.apply_async(idle, (1,)) for _ in range(TASKS)]]
            case "map-few":
                return lambda: pool.map(idle, range(FEW_ITEMS))
            case "map-many":
                return lambda: pool.map(idle, range(MANY_ITEMS))
            case "ep":
                tally, batches = ep()
                return lambda: pool.map(tally, batches)
            case _:
                function, items = workload(operation)
                return lambda: pool.map(function, items)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.terminate()


class PlainPool(_MapPool):
    """``multiprocessing.Pool``."""

    def _open(self, engines: int) -> Any:
        return multiprocessing.Pool(engines)

    def start(self, engines: int) -> None:
        self._pools[engines] = self._open(engines)
        self._pools[engines].map(idle, range(engines))


class RayPool(_MapPool):
    """``ray.util.multiprocessing.Pool``.

    Args:
        host: the system on whose Ray it runs.
    """

    def __init__(self, host: BareRay) -> None:
        super().__init__()

    def _open(self, engines: int) -> Any:
        from ray.util.multiprocessing import Pool

        # At most as many workers as CPUs: the pool refuses to start more.
        return Pool(min(engines, len(os.sched_getaffinity(0))))
