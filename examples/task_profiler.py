"""Measure the balance of uneven tasks: ``python examples/task_profiler.py --engines 16 --save tasks.svg``."""

from __future__ import annotations

import argparse
import heapq
import random
import sys
import time
from collections.abc import Sequence

EFFICIENT = 0.85


def nap(seconds: float) -> float:
    """Sleep: a task that uses no processor, so that many engines can be tested on any machine."""
    time.sleep(seconds)  # noqa: TID251 (this is the work)
    return seconds


def greedy_makespan(durations: Sequence[float], engines: int) -> float:
    """Return the seconds that the tasks take if each goes to the first free engine, and messages take no time."""
    free_at = [0.0] * engines
    for seconds in durations:
        heapq.heapreplace(free_at, free_at[0] + seconds)
    return max(free_at)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run sleeps of random length on engines, and print how busy the engines were."""
    parser = argparse.ArgumentParser(description="The balance of uneven tasks.")
    parser.add_argument("--tasks", type=int, default=128)
    parser.add_argument("--shortest", type=float, default=0.01, help="seconds")
    parser.add_argument("--longest", type=float, default=1.0, help="seconds")
    parser.add_argument("--order", default="random", choices=["random", "longest-last"])
    parser.add_argument("--least", type=float, default=EFFICIENT, help="the smallest efficiency that counts as success")
    parser.add_argument("--save", metavar="FILE.svg", help="draw a timeline of the engines into this file")
    parser.add_argument("--engines", type=int, default=16)
    parser.add_argument("--backend", default="ray", choices=["ray", "local"])
    options = parser.parse_args(arguments)
    from rich import print as show

    from nsactors import Cluster

    source = random.Random(0)
    durations = [source.uniform(options.shortest, options.longest) for _ in range(options.tasks)]
    if options.order == "longest-last":
        durations.sort()
    with Cluster(n=options.engines, backend=options.backend) as rc:
        result = rc.load_balanced_view().map_async(nap, durations)
        result.wait_interactive()
        timeline = result.timeline(engines=rc.ids)
    show(timeline)
    if options.save:
        timeline.save(options.save)
    ideal = sum(durations) / options.engines
    efficiency, greedy = ideal / timeline.makespan, ideal / greedy_makespan(durations, options.engines)
    bound = ideal + max(durations) + 0.1
    print(f"efficiency {efficiency:.3f}; a greedy schedule without messages has {greedy:.3f}")
    print(f"makespan {timeline.makespan:.3f} s; one engine's share plus the longest task plus 0.1 s is {bound:.3f} s")
    return 0 if efficiency >= options.least else 1


if __name__ == "__main__":
    sys.exit(main())
