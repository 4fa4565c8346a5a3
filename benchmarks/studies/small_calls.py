"""Compare small calls through sockets with calls through Ray alone: ``python -m benchmarks.studies.small_calls``.

Two clients of one cluster make the same calls in turns: one client through sockets, the other through Ray.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks.studies.two_ways import WAYS, print_head, print_row
from nsactors import Client, Cluster
from nsactors.transport.channel import SOCKETS

TIMES = 200
IN_FLIGHT = 2_000


def operations_of(rc: Client) -> dict[str, tuple[Callable[[], object], int]]:
    """Return the operations of a client, each with the number of its repetitions in a turn."""
    one, every, data = rc[0], rc[:], bytes(100_000)
    return {
        "call one engine": (lambda: one.apply_sync(abs, -1), TIMES),
        "call all engines": (lambda: every.apply_sync(abs, -1), TIMES),
        "execute a cell": (lambda: one.execute("a = 1", block=True), TIMES),
        "push a number": (lambda: one.push({"a": 1}, block=True), TIMES),
        "pull a number": (lambda: one.pull("a", block=True), TIMES),
        "push 100 kB": (lambda: one.push({"b": data}, block=True), TIMES),
        "pull 100 kB": (lambda: one.pull("b", block=True), TIMES),
        f"{IN_FLIGHT:,} calls without waiting": (
            lambda: [ar.get() for ar in [one.apply_async(abs, k) for k in range(IN_FLIGHT)]],
            1,
        ),
    }


def timed(operation: Callable[[], object], times: int) -> tuple[float, float]:
    """Return the time of an operation, and the CPU time of this process, in seconds."""
    for _ in range(times // 20):
        operation()
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        operation()
    return (time.perf_counter() - began) / times, (time.process_time() - cpu) / times


def main() -> None:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="how often each way has its turn")
    parser.add_argument("--n", type=int, default=4, help="how many engines")
    options = parser.parse_args()
    cluster = Cluster(n=options.n)
    with cluster, ExitStack() as stack:
        operations = {}
        for way, setting in WAYS.items():
            os.environ[SOCKETS] = setting
            client = stack.enter_context(cluster.connect_client_sync())
            operations[way] = operations_of(client)
        print_head("client")
        for name in operations["Ray"]:
            print_row(name, options.rounds, lambda way, name=name: timed(*operations[way][name]))  # type: ignore[misc]


if __name__ == "__main__":
    main()
