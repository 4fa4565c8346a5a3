"""The operations on views, whose vocabulary nsactors shares with ipyparallel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.operations.catalogue import FEW_ITEMS, MANY_ITEMS, MAP_ITEMS, PIPELINED_CALLS, TASKS, WORKLOADS
from benchmarks.operations.workload import ARGUMENTS, CODE, NUMBER, ep, idle, large_array, noop, power, workload

__all__ = ["prepare_balanced", "prepare_on_view"]


def prepare_on_view(view: Any, operation: str, engines: int) -> Callable[[], object] | None:
    """Return a function that runs ``operation`` once on ``view``; see :class:`benchmarks.systems.System`."""
    match operation:
        case "apply" | "call":
            return lambda: view.apply_sync(noop, *ARGUMENTS)
        case "push":
            return lambda: view.push(NUMBER, block=True)
        case "pull":
            view.push(NUMBER, block=True)
            return lambda: view.pull("number", block=True)
        case "execute":
            return lambda: view.execute(CODE, block=True)
        case "push-large":
            array = large_array()
            return lambda: view.push({"large": array}, block=True)
        case "scatter":
            array = large_array()
            return lambda: view.scatter("part", array, block=True)
        case "gather":
            view.scatter("part", large_array(), block=True)
            return lambda: view.gather("part", block=True)
        case "map":
            return lambda: view.map_sync(power, range(MAP_ITEMS))
        case "pipelined":
            calls = PIPELINED_CALLS // engines
            return lambda: [r.get() for r in [view.apply_async(noop, *ARGUMENTS) for _ in range(calls)]]
        case _:
            return None


def prepare_balanced(view: Any, operation: str) -> Callable[[], object] | None:
    """Return a function that runs ``operation`` once on a load-balanced view; see :func:`prepare_on_view`."""
    match operation:
        case "tasks":
            return lambda: [r.get() for r in [view.apply_async(noop, *ARGUMENTS) for _ in range(TASKS)]]
        case "map-few":
            return lambda: view.map_sync(idle, range(FEW_ITEMS))
        case "map-many":
            return lambda: view.map_sync(idle, range(MANY_ITEMS))
        case "ep":
            tally, batches = ep()
            return lambda: view.map_sync(tally, batches)
        case _ if operation in WORKLOADS:
            function, items = workload(operation)
            return lambda: view.map_sync(function, items)
        case _:
            return None
