"""The wave equation on a square, each rank computing a block and exchanging its edges with its neighbours.

The solver takes any communicator with the lower-case methods of mpi4py. With any division of the square, every number
is the same to the last bit as without a division::

    python examples/wave.py --px 2 --py 2
"""

from __future__ import annotations

import argparse
from itertools import accumulate, pairwise
from math import pi, sqrt
from typing import Any

import numpy as np

POINTS, STEPS = 100, 142


def spans(points: int, parts: int) -> list[tuple[int, int]]:
    """Divide the interior points 1 to points - 2 into spans (start, stop) that differ in length by one at most."""
    inner = points - 2
    sizes = [inner // parts + (part < inner % parts) for part in range(parts)]
    return list(pairwise(accumulate(sizes, initial=1)))


def exchange(comm: Any, u: np.ndarray, row: int, column: int, px: int, py: int) -> None:
    """Fill the outermost rows and columns of a block with those of its neighbours."""
    inner = slice(1, -1)
    sides = [  # row and column of the neighbour, the values to send, the place of the received values
        (row - 1, column, (1, inner), (0, inner)),
        (row + 1, column, (-2, inner), (-1, inner)),
        (row, column - 1, (inner, 1), (inner, 0)),
        (row, column + 1, (inner, -2), (inner, -1)),
    ]
    there = [(r * py + c, out, into) for r, c, out, into in sides if 0 <= r < px and 0 <= c < py]
    sent = [comm.isend(u[out].copy(), dest=rank) for rank, out, _ in there]
    for rank, _, into in there:
        u[into] = comm.recv(source=rank)
    for request in sent:
        request.wait()


def solve(comm: Any, px: int, py: int, points: int = POINTS, steps: int = STEPS) -> np.ndarray | None:
    """Compute the amplitude of a square that begins as ``sin(pi x) sin(pi y)``, at rest.

    Leap-frog with c = 1 and dt = dx / sqrt(2).

    Args:
        comm: a communicator of ``px * py`` ranks; the block of a rank is at row ``rank // py``, column ``rank % py``.
        px: the number of rows of blocks.
        py: the number of columns of blocks.
        points: the number of points along each side of the square, edges included.
        steps: the number of time steps.

    Returns:
        On rank 0 an array of shape (points, points); None on the other ranks.
    """
    if px * py != comm.size:
        raise ValueError(f"{px} x {py} blocks need {px * py} ranks, and there are {comm.size}")
    row, column = divmod(comm.rank, py)
    (top, bottom), (left, right) = spans(points, px)[row], spans(points, py)[column]
    x = np.linspace(0, 1, points)
    wave = np.sin(pi * x)
    wave[[0, -1]] = 0.0
    u = np.outer(wave[top - 1 : bottom + 1], wave[left - 1 : right + 1])
    before = np.zeros_like(u)
    for step in range(steps):
        after = np.zeros_like(u)
        around = (u[:-2, 1:-1] + u[2:, 1:-1]) + (u[1:-1, :-2] + u[1:-1, 2:])
        after[1:-1, 1:-1] = 0.25 * around if step == 0 else 0.5 * around - before[1:-1, 1:-1]
        before, u = u, after
        exchange(comm, u, row, column, px, py)
    blocks = comm.gather(u[1:-1, 1:-1], root=0)
    if blocks is None:
        return None
    whole = np.zeros((points, points))
    for rank, block in enumerate(blocks):
        (top, bottom), (left, right) = spans(points, px)[rank // py], spans(points, py)[rank % py]
        whole[top:bottom, left:right] = block
    return whole


class Alone:
    """A communicator of one rank."""

    rank, size = 0, 1

    def gather(self, value: Any, root: int = 0) -> list[Any]:
        """Return the value of the only rank."""
        return [value]


def exact(points: int = POINTS, steps: int = STEPS) -> np.ndarray:
    """Return the solution in closed form."""
    wave = np.sin(pi * np.linspace(0, 1, points))
    return np.outer(wave, wave) * np.cos(sqrt(2) * pi * steps / sqrt(2) / (points - 1))


def main() -> None:
    """Solve on engines, and compare with one process and with the closed form."""
    from nsactors import Cluster, Reference

    parser = argparse.ArgumentParser(description="The wave equation on engines.")
    parser.add_argument("--px", type=int, default=2, help="rows of blocks")
    parser.add_argument("--py", type=int, default=2, help="columns of blocks")
    parser.add_argument("--without-mpi", action="store_true", help="use view.communicator() instead of MPI")
    options = parser.parse_args()
    serial = solve(Alone(), 1, 1)
    with Cluster(n=options.px * options.py) as rc:
        if options.without_mpi:
            rc[:].communicator("comm")
        else:
            print(rc[:].mpi())
            rc[:].execute("from mpi4py import MPI; comm = MPI.COMM_WORLD", block=True)
        field = rc[:].apply_sync(solve, Reference("comm"), options.px, options.py)[0]
    print(f"equal to one process to the last bit: {np.array_equal(field, serial)}")
    print(f"largest error: {np.abs(field - exact()).max():.1e}")


if __name__ == "__main__":
    main()
