"""Hexadecimal digits of pi at any position, without the preceding digits: ``python examples/pi_digits.py 10000``.

D. Bailey, P. Borwein and S. Plouffe, On the rapid computation of various polylogarithmic constants, Mathematics of
Computation 66, 1997.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from typing import Any

DIGITS = 14
BITS = 128  # bits of a fixed-point fraction: each term may be wrong by its last bit
TERMS = ((4, 1), (-2, 4), (-1, 5), (-1, 6))  # pi = sum over k of 16**-k * sum of factor / (8*k + offset)
KNOWN = {0: "243F6A8885A308", 1_000: "49F1C09B075372", 10_000: "8AC8FCFB8016CB"}


def part(position: int, indices: range) -> int:
    """Compute the fractional part of 16**position times the terms with these indices, in units of 2**-128."""
    fraction = 0
    for k in indices:
        for factor, offset in TERMS:
            denominator = 8 * k + offset
            if k <= position:
                fraction += factor * ((pow(16, position - k, denominator) << BITS) // denominator)
            else:
                fraction += factor * ((1 << BITS) // (denominator << 4 * (k - position)))
    return fraction % (1 << BITS)


def digits(view: Any, position: int, tasks: int = 64) -> str:
    """Compute the 14 digits that follow the first ``position`` digits behind the point.

    Args:
        view: a load-balanced view.
        position: the number of digits to skip.
        tasks: the number of tasks. The first tasks take longest, because their powers of 16 are higher.
    """
    terms = position + BITS // 4 + 1
    bounds = [terms * number // tasks for number in range(tasks + 1)]
    ranges = [range(start, stop) for start, stop in itertools.pairwise(bounds)]
    fraction = sum(view.map_sync(part, [position] * tasks, ranges)) % (1 << BITS)
    return f"{fraction >> BITS - 4 * DIGITS:0{DIGITS}X}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute on engines, print, and check the digits if they are known."""
    parser = argparse.ArgumentParser(description="Hexadecimal digits of pi, on engines.")
    parser.add_argument("position", type=int, nargs="*", default=[1_000, 10_000], help="number of digits to skip")
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--backend", default="ray", choices=["ray", "local"])
    options = parser.parse_args(arguments)
    from nsactors import Cluster

    status = 0
    with Cluster(n=options.engines, backend=options.backend) as rc:
        for position in options.position:
            found = digits(rc.load_balanced_view(), position)
            known = KNOWN.get(position)
            verdict = "" if known is None else "  right" if found == known else f"  WRONG: {known}"
            print(f"after {position:,} digits: {found}{verdict}")
            status |= known is not None and found != known
    return status


if __name__ == "__main__":
    sys.exit(main())
