"""Count the solutions of the n queens problem: ``python examples/queens.py 10``.

There is a task for each placement of the queens in the first two columns: a few dozen tasks of very uneven length.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from typing import Any

KNOWN = {4: 2, 5: 10, 6: 4, 7: 40, 8: 92, 9: 352, 10: 724, 11: 2680, 12: 14200, 13: 73712}


def completions(size: int, queens: Sequence[int]) -> int:
    """Count the solutions with queens in these rows of the first columns.

    Example:
        >>> completions(8, []), completions(8, [0, 0])
        (92, 0)
    """
    rows = rising = falling = 0  # threatened rows of the next column, one bit for each row
    for row in queens:
        queen = 1 << row
        if queen & (rows | rising | falling):
            return 0
        rows, rising, falling = rows | queen, (rising | queen) << 1, (falling | queen) >> 1
    return _count((1 << size) - 1, rows, rising, falling)


def _count(board: int, rows: int, rising: int, falling: int) -> int:
    if rows == board:
        return 1
    found = 0
    free = board & ~(rows | rising | falling)
    while free:
        queen = free & -free
        free -= queen
        found += _count(board, rows | queen, (rising | queen) << 1, (falling | queen) >> 1)
    return found


def solutions(view: Any, size: int) -> int:
    """Count the solutions on a board of ``size`` by ``size``, on a load-balanced view."""
    beginnings = list(itertools.product(range(size), repeat=2))
    return sum(view.map_sync(completions, [size] * len(beginnings), beginnings))


def main(arguments: Sequence[str] | None = None) -> int:
    """Count on engines, print, and check the number if it is known."""
    parser = argparse.ArgumentParser(description="The n queens problem, on engines.")
    parser.add_argument("size", type=int, nargs="*", default=[8, 10], help="size of the board, 2 or more")
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--backend", default="ray", choices=["ray", "local"])
    options = parser.parse_args(arguments)
    from nsactors import Cluster

    status = 0
    with Cluster(n=options.engines, backend=options.backend) as rc:
        for size in options.size:
            found = solutions(rc.load_balanced_view(), size)
            known = KNOWN.get(size)
            verdict = "" if known is None else "  right" if found == known else f"  WRONG: {known}"
            print(f"{size} queens: {found:,} ways{verdict}")
            status |= known is not None and found != known
    return status


if __name__ == "__main__":
    sys.exit(main())
