"""Compare MPI between two engines with MPI under ``mpiexec``: ``python -m benchmarks.studies.mpi_ping_pong``.

In each round, both play the same ping-pong, one after the other, in alternating order.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.operations.stats import paired_ratios, summarise, turn_order

SIZES = {8: 20_000, 80_000: 2_000, 8_000_000: 50}
"""Round trips for each size of a message in bytes."""


def ping_pong(nbytes: int, trips: int) -> float:
    """Return the seconds of a message from one rank to the other, in the fastest of five series."""
    import time

    import numpy as np
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    message = np.zeros(nbytes // 8)
    other, took = 1 - comm.rank, []
    for _ in range(5):
        comm.Barrier()
        began = time.perf_counter()
        for _ in range(trips // 5):
            if comm.rank == 0:
                comm.Send(message, other)
                comm.Recv(message, other)
            else:
                comm.Recv(message, other)
                comm.Send(message, other)
        took.append((time.perf_counter() - began) / (trips // 5) / 2)
    return min(took)


def under_mpiexec(nbytes: int, trips: int) -> float:
    """Return the seconds of a message between two processes that ``mpiexec`` starts."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [mpiexec, "-n", "2", sys.executable, __file__, "--rank", str(nbytes), str(trips)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Play the rounds, and print the comparison."""
    from nsactors import Cluster

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6, help="how often each plays")
    options = parser.parse_args()
    with Cluster(n=2) as rc:
        view = rc[:].mpi().view

        def on_engines(nbytes: int, trips: int) -> float:
            return float(view.apply_sync(ping_pong, nbytes, trips)[0])

        systems: dict[str, Callable[[int, int], float]] = {"engines": on_engines, "mpiexec": under_mpiexec}
        for nbytes, trips in SIZES.items():
            took: dict[str, list[list[float]]] = {name: [] for name in systems}
            for number in range(options.rounds):
                for name in turn_order([*systems], number):
                    took[name].append([systems[name](nbytes, trips)])
            medians = [f"{name} {summarise([t for (t,) in took[name]]).median * 1e6:.2f} µs" for name in systems]
            ratio = summarise(paired_ratios(took["engines"], took["mpiexec"]))
            print(
                f"{nbytes:>9} bytes: {', '.join(medians)}; ratio {ratio.median:.2f} "
                f"(quartiles {ratio.lower_quartile:.2f} to {ratio.upper_quartile:.2f}, {ratio.count} rounds)",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        time_taken = ping_pong(int(sys.argv[2]), int(sys.argv[3]))
        from mpi4py import MPI

        if MPI.COMM_WORLD.rank == 0:
            print(time_taken)
    else:
        main()
