"""The code and the data that all systems get."""

from __future__ import annotations

from typing import Any

from benchmarks.operations.catalogue import LARGE_BYTES

__all__ = ["ARGUMENTS", "CODE", "NUMBER", "ep", "idle", "large_array", "noop", "power"]

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
