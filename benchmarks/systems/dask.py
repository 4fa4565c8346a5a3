"""Dask: a scheduler and workers as processes. Dask has no namespaces; the nearest that it offers is used instead."""

from __future__ import annotations

import importlib
import itertools
import pickle
from collections.abc import Callable
from typing import Any

from benchmarks.operations.catalogue import FEW_ITEMS, MAP_ITEMS, PIPELINED_CALLS, TASKS, WORKLOADS
from benchmarks.operations.workload import ARGUMENTS, CODE, NUMBER, idle, large_array, noop, power, workload

__all__ = ["Dask"]


class Dask:
    """``dask.distributed``, one thread per worker, without its dashboard, listening on this machine alone.

    A call on every worker is ``client.run``, which bypasses the scheduler's queue and is Dask's fastest way. Data is
    pushed with ``client.scatter`` and pulled with ``client.gather``.
    """

    def start(self, engines: int) -> None:
        distributed: Any = importlib.import_module("distributed")
        self._cluster = distributed.LocalCluster(
            n_workers=engines,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            worker_dashboard_address=None,
        )
        self._client = distributed.Client(self._cluster)
        self._client.wait_for_workers(engines)
        self._workers: list[str] = list(self._client.scheduler_info(n_workers=-1)["workers"])
        self._client.run(noop, *ARGUMENTS)

    def prepare(self, operation: str, engines: int) -> Callable[[], object] | None:
        client, workers = self._client, self._workers[:engines]
        match operation:
            case "apply":
                return lambda: client.run(noop, *ARGUMENTS, workers=workers)
            case "call":
                return lambda: client.run(noop, *ARGUMENTS, workers=workers[:1])
            case "execute":
                return lambda: client.run(_execute, CODE, workers=workers)
            case "push":
                # The number is in a list: Dask names a dictionary's values by its keys, and hangs when a key is
                # scattered again.
                return lambda: client.scatter([NUMBER], workers=workers, broadcast=True, hash=False)
            case "pull":
                futures = [client.scatter(12_345, workers=[worker], hash=False) for worker in workers]
                return lambda: client.gather(futures)
            case "push-large":
                array = large_array()
                return lambda: client.scatter(array, workers=workers, broadcast=True, hash=False)
            case "scatter":
                array = large_array()
                return lambda: self._scatter(array, workers)
            case "gather":
                parts = self._scatter(large_array(), workers)
                return lambda: _joined(client.gather(parts))
            case "map":
                return lambda: self._map(len(workers))
            case "pipelined":
                one, two = ARGUMENTS
                numbers = [one] * PIPELINED_CALLS
                return lambda: client.gather(client.map(noop, numbers, text=two, pure=False, workers=workers))
            case "tasks":
                one, two = ARGUMENTS
                return lambda: client.gather(client.map(noop, [one] * TASKS, text=two, pure=False, workers=workers))
            case "map-few":  # with 100,000 items, this takes two minutes
                return lambda: client.gather(client.map(idle, range(FEW_ITEMS), pure=False, workers=workers))
            case _ if operation in WORKLOADS and operation != "map-power":  # a million messages
                function, items = workload(operation)
                return lambda: client.gather(client.map(function, items, pure=False, workers=workers))
            case _:
                return None

    def _scatter(self, array: Any, workers: list[str]) -> list[Any]:
        import numpy as np

        parts = np.array_split(array, len(workers))
        return [
            self._client.scatter(part, workers=[worker], hash=False)
            for part, worker in zip(parts, workers, strict=True)
        ]

    def _map(self, parts: int) -> list[int]:
        # One task per item would take minutes: users of Dask split such work by hand.
        bounds = [MAP_ITEMS * k // parts for k in range(parts + 1)]
        ranges = [range(a, b) for a, b in itertools.pairwise(bounds)]
        lists = self._client.gather(self._client.map(_power_of_all, ranges, pure=False))
        return [number for part in lists for number in pickle.loads(part)]

    def close(self) -> None:
        self._client.close()
        self._cluster.close()


_NAMESPACE: dict[str, Any] = {}


def _execute(code: str) -> None:
    exec(compile(code, "<cell>", "exec"), _NAMESPACE)


def _power_of_all(numbers: range) -> bytes:
    # Pickled here: Dask looks at each item of a list that it sends, which takes 23 s for a million items.
    return pickle.dumps([power(number) for number in numbers], protocol=5)


def _joined(parts: list[Any]) -> Any:
    import numpy as np

    return np.concatenate(parts)
