"""Compare calls to services through a socket with calls through Ray alone: ``python -m benchmarks.studies.services``.

Four engines exchange messages, wait for each other and take tuples in both ways, in turns, on one cluster.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from benchmarks.studies.two_ways import WAYS, print_head, print_row
from nsactors.transport.channel import SOCKETS

TIMES = {"Ray": 50, "socket": 200}
WARM_UP = 5


def halo(comm: Any) -> None:
    """Exchange a number with both neighbours on a ring."""
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    comm.send(1.0, right, 1)
    comm.send(2.0, left, 2)
    comm.recv(None, left, 1)
    comm.recv(None, right, 2)


def barrier(comm: Any) -> None:
    """Wait for all ranks."""
    comm.barrier()


def alltoall(comm: Any) -> None:
    """Send a number to each rank."""
    comm.alltoall(list(range(comm.size)))


def superstep(process: Any) -> None:
    """End a superstep."""
    process.sync()


def pair(space: Any) -> None:
    """Put a tuple and take it."""
    space.out("job", 1)
    space.in_("job", int)


def timed(operation: Callable[[Any], None], arguments: Any, times: int) -> tuple[float, float]:
    """Return the time of an operation on this engine, and its CPU time, in seconds."""
    import time

    for _ in range(WARM_UP):
        operation(arguments)
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        operation(arguments)
    return (time.perf_counter() - began) / times, (time.process_time() - cpu) / times


def main() -> None:
    """Run the rounds and print a table."""
    from nsactors import Cluster, Reference
    from nsactors.models.tuple_space import TupleSpace

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="how often each way has its turn")
    parser.add_argument("--n", type=int, default=4, help="how many engines")
    options = parser.parse_args()
    with Cluster(n=options.n) as rc:
        dv = rc[:]
        dv.block = True
        for way, setting in WAYS.items():
            os.environ[SOCKETS] = setting
            dv.communicator(f"comm_{way}")
            dv.bsp(f"bsp_{way}")
            dv.push({f"space_{way}": TupleSpace(rc, f"space {way}")})
        operations = {
            "halo": (dv, halo, "comm"),
            "barrier": (dv, barrier, "comm"),
            "alltoall": (dv, alltoall, "comm"),
            "superstep": (dv, superstep, "bsp"),
            "tuple out and in_": (rc[:1], pair, "space"),
        }
        print_head("engine")
        for name, (view, operation, noun) in operations.items():

            def measure(
                way: str, view: Any = view, operation: Callable[[Any], None] = operation, noun: str = noun
            ) -> tuple[float, float]:
                found = view.apply_sync(timed, operation, Reference(f"{noun}_{way}"), TIMES[way])
                return max(seconds for seconds, _ in found), sum(seconds for _, seconds in found) / len(found)

            print_row(name, options.rounds, measure)


if __name__ == "__main__":
    main()
