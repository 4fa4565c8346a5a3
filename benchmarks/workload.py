"""The code and the data that all systems are given."""

from __future__ import annotations

from typing import Any

from benchmarks.operations import LARGE_BYTES

__all__ = ["ARGUMENTS", "CODE", "NUMBER", "large_array", "noop", "power"]

CODE = "answer = 6 * 7"
NUMBER = {"number": 12_345}
ARGUMENTS = (1, "two")


def noop(number: int, text: str) -> int:
    """Does nothing."""
    return number


def power(x: int) -> int:
    """A little arithmetic with large numbers."""
    return x**10


# As if defined at a prompt or in a notebook: it travels by value, as most functions of interactive users do.
for _function in (noop, power):
    _function.__module__ = "__main__"


def large_array() -> Any:
    """100 MB of numbers."""
    import numpy as np

    return np.arange(LARGE_BYTES // 8, dtype=np.float64)
