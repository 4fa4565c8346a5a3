"""NAS EP, class S: pairs of Gaussian deviates, counted by the square annulus in which they lie.

``python examples/embarrassingly_parallel.py --engines 4``. Each of 256 tasks jumps ahead to its part of one sequence of
random numbers, so the answer is the same on any number of engines.

D. Bailey et al., The NAS Parallel Benchmarks, RNR-94-007, 1994.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

PAIRS = 2**24
BATCHES = 256
MULTIPLIER, SEED, BITS = 5**13, 271828183, 46
SUM_X, SUM_Y = -3.247834652034740e3, -6.958407078382297e3
ANNULI = [6140517, 5865300, 1100361, 68546, 1648, 17, 0, 0, 0, 0]


class Tally(NamedTuple):
    """The sums of the deviates, and the number of pairs in each annulus."""

    sum_x: float
    sum_y: float
    annuli: list[int]


def random_numbers(seed: int, count: int) -> Any:
    """Return the ``count`` numbers between 0 and 1 that follow ``seed`` in the sequence x -> x * 5**13 mod 2**46."""
    mask = np.uint64(2**BITS - 1)
    powers = np.array([MULTIPLIER], dtype=np.uint64)
    while len(powers) < count:  # products overflow modulo 2**64, of which 2**46 is a divisor
        powers = np.concatenate([powers, powers * powers[-1] & mask])
    return (powers[:count] * np.uint64(seed) & mask) * 2.0**-BITS


def tally(batch: int) -> Tally:
    """Make the pairs of one batch, by Marsaglia's polar method, and count them."""
    pairs = PAIRS // BATCHES
    seed = SEED * pow(MULTIPLIER, 2 * pairs * batch, 2**BITS) % 2**BITS
    x, y = (2 * random_numbers(seed, 2 * pairs) - 1).reshape(-1, 2).T
    square = x * x + y * y
    inside = square <= 1
    square = square[inside]
    factor = np.sqrt(-2 * np.log(square) / square)
    x, y = x[inside] * factor, y[inside] * factor
    annuli = np.bincount(np.maximum(abs(x), abs(y)).astype(int), minlength=10)
    return Tally(float(x.sum()), float(y.sum()), annuli.tolist())


def total(tallies: Sequence[Tally]) -> Tally:
    """Add up all batches."""
    sums_x, sums_y, annuli = zip(*tallies, strict=True)
    return Tally(sum(sums_x), sum(sums_y), [sum(counts) for counts in zip(*annuli, strict=True)])


def is_right(result: Tally) -> bool:
    """Compare with the published sums, to a relative error of 1e-8, and counts."""
    near = abs(result.sum_x / SUM_X - 1) <= 1e-8 and abs(result.sum_y / SUM_Y - 1) <= 1e-8
    return near and result.annuli == ANNULI


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute on engines, print and check."""
    parser = argparse.ArgumentParser(description="NAS EP, class S, on engines.")
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--backend", default="ray", choices=["ray", "local"])
    options = parser.parse_args(arguments)
    from nsactors import Cluster

    with Cluster(n=options.engines, backend=options.backend) as rc:
        began = time.perf_counter()
        result = total(rc.load_balanced_view().map_sync(tally, range(BATCHES)))
        seconds = time.perf_counter() - began
    right = is_right(result)
    print(f"sums {result.sum_x:.12e} {result.sum_y:.12e}, {sum(result.annuli)} pairs: {'right' if right else 'WRONG'}")
    print("annuli", *result.annuli)
    print(f"{seconds:.2f} s", file=sys.stderr)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
