"""Pi as the midpoint integral of 4 / (1 + x^2), with an allreduce: ``python examples/midpoint.py``."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np

POINTS = 10_000


def integrate(comm: Any, points: int = POINTS) -> float:
    """Integrate from 0 to 1; each rank adds up every ``size``-th point, and all ranks get the sum.

    Args:
        comm: a communicator with the lower-case methods of mpi4py.
        points: the number of points of all ranks together; the error is 1 / (12 points^2).
    """
    x = (np.arange(comm.rank, points, comm.size) + 0.5) / points
    return float(comm.allreduce(float(np.sum(4 / (1 + x * x)))) / points)


def main() -> None:
    """Integrate on four engines."""
    from nsactors import Cluster, Reference

    with Cluster(n=4) as rc:
        rc[:].mpi()
        rc[:].execute("from mpi4py import MPI; comm = MPI.COMM_WORLD", block=True)
        values = rc[:].apply_sync(integrate, Reference("comm"))
    print(f"the same on all engines: {len(set(values)) == 1}")
    print(f"{values[0]:.12f}, error {values[0] - pi:.4e}")


if __name__ == "__main__":
    main()
