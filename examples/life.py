"""Conway's Game of Life on a torus, each rank with a band of rows: ``python examples/life.py``."""

from __future__ import annotations

from typing import Any

import numpy as np

GLIDER = [(0, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
R_PENTOMINO = [(0, 1), (0, 2), (1, 0), (1, 1), (2, 1)]


def play(comm: Any, cells: list[tuple[int, int]], size: int, generations: int) -> np.ndarray | None:
    """Return the board after a number of generations.

    Args:
        comm: a communicator with the lower-case methods of mpi4py, of at most ``size`` ranks.
        cells: (row, column) of each live cell at the beginning.
        size: rows and columns of the board, whose opposite edges meet.
        generations: the number of steps.

    Returns:
        On rank 0 an array of shape (size, size), of 0 and 1; None on the other ranks.
    """
    board = np.zeros((size, size), dtype=np.int8)
    board[tuple(zip(*cells, strict=True))] = 1
    first, last = size * comm.rank // comm.size, size * (comm.rank + 1) // comm.size
    band = board[first:last]
    above, below = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    for _ in range(generations):
        top = comm.sendrecv(band[-1], dest=below, source=above)
        bottom = comm.sendrecv(band[0], dest=above, source=below)
        rows = np.vstack([top, band, bottom])
        three = rows + np.roll(rows, 1, axis=1) + np.roll(rows, -1, axis=1)
        alive = three[:-2] + three[1:-1] + three[2:]  # a cell and its eight neighbours
        band = ((alive == 3) | ((alive == 4) & (band == 1))).astype(np.int8)
    bands = comm.gather(band, root=0)
    return None if bands is None else np.vstack(bands)


def main() -> None:
    """Let a glider go round the torus, and an R-pentomino settle."""
    from nsactors import Cluster, Reference

    with Cluster(n=4) as rc:
        rc[:].mpi()
        rc[:].execute("from mpi4py import MPI; comm = MPI.COMM_WORLD", block=True)
        glider = rc[:].apply_sync(play, Reference("comm"), GLIDER, 32, 128)[0]
        print(f"the glider is back after 128 generations: {sorted(zip(*np.nonzero(glider), strict=True)) == GLIDER}")
        middle = [(row + 400, column + 400) for row, column in R_PENTOMINO]
        settled = rc[:].apply_sync(play, Reference("comm"), middle, 800, 1103)[0]
        print(f"the R-pentomino has {settled.sum()} cells at generation 1103")


if __name__ == "__main__":
    main()
