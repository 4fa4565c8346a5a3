"""The functions that are mapped; importable, because process pools send functions by name."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

__all__ = ["add_one", "count_words", "exchange", "points_in_circle", "power", "singular_values", "sleep", "spin"]

POINTS = 200_000


def power(x: int) -> int:
    """Return a large number."""
    return x**10


def sleep(seconds: float) -> None:
    """Wait, without a processor."""
    threading.Event().wait(seconds)


def spin(seconds: float) -> None:
    """Use a processor."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def points_in_circle(seed: int) -> int:
    """Return how many random points of the unit square are in the unit circle."""
    import numpy as np

    x, y = np.random.default_rng(seed).random((2, POINTS))
    return int((x * x + y * y <= 1).sum())


def count_words(text: str) -> Counter[str]:
    """Return the numbers of the words in a text."""
    return Counter(text.split())


def add_one(array: Any) -> Any:
    """Return an array of the same shape."""
    return array + 1


def singular_values(matrix: Any) -> Any:
    """Return the singular values of a matrix."""
    import numpy as np

    return np.linalg.svd(matrix, compute_uv=False)


def exchange(comm: Any, steps: int) -> None:
    """Exchange a number with both neighbours on a ring, as a rank of a communicator."""
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    for _ in range(steps):
        comm.send(1.0, right, 1)
        comm.send(2.0, left, 2)
        comm.recv(None, left, 1)
        comm.recv(None, right, 2)
