"""The code and the data that all systems get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.operations.catalogue import LARGE_BYTES, MAP_ITEMS

__all__ = ["ARGUMENTS", "CODE", "NUMBER", "ep", "idle", "large_array", "noop", "power", "workload"]

CODE = "answer = 6 * 7"
NUMBER = {"number": 12_345}
ARGUMENTS = (1, "two")


# As a user types them at a prompt: functions of ``__main__``, which are pickled by value.
_TYPED = """
def noop(number, text):
    return number


def power(x):
    return x**10


def idle(x):
    pass
"""
_main: dict[str, Any] = {"__name__": "__main__"}
exec(_TYPED, _main)
noop, power, idle = _main["noop"], _main["power"], _main["idle"]


def large_array() -> Any:
    """Return 100 MB of numbers."""
    import numpy as np

    return np.arange(LARGE_BYTES // 8, dtype=np.float64)


def ep() -> tuple[Any, list[int]]:
    """Return the function of the example ``embarrassingly_parallel``, and its arguments: the benchmark, eight times.

    The function is pickled by value, like functions of a script, but not for process pools.
    """
    import cloudpickle

    from examples import embarrassingly_parallel

    cloudpickle.register_pickle_by_value(embarrassingly_parallel)
    return embarrassingly_parallel.tally, list(range(embarrassingly_parallel.BATCHES)) * 8


def workload(name: str) -> tuple[Any, Sequence[Any]]:
    """Return the function and the items of one of ``catalogue.WORKLOADS``.

    The function is pickled by value, like functions of a script, but not for process pools.
    """
    import cloudpickle
    import numpy as np

    from benchmarks.operations import work

    cloudpickle.register_pickle_by_value(work)
    numbers = np.random.default_rng(0)
    match name:
        case "map-power":
            return work.power, range(MAP_ITEMS)
        case "sleeps":
            return work.sleep, [0.005] * 64
        case "short":
            return work.spin, [0.0001] * 1_000
        case "pi":
            return work.points_in_circle, range(32)
        case "words":
            words = [f"word{number}" for number in numbers.zipf(1.5, 16 * 15_000) % 10_000]
            return work.count_words, [" ".join(words[k::16])[:100_000] for k in range(16)]
        case "sort":
            return np.sort, list(numbers.random((16, 500_000)))
        case "arrays":
            return work.add_one, list(numbers.random((16, 500_000)))
        case "svd":
            return work.singular_values, list(numbers.random((16, 300, 300)))
        case _:
            raise ValueError(f"there is no work {name!r}")
