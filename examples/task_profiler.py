"""How well tasks of uneven length are balanced: ``python examples/task_profiler.py --engines 16 --save tasks.svg``."""

from __future__ import annotations

import argparse
import heapq
import random
import sys
import time
from collections.abc import Sequence

EFFICIENT = 0.85


def nap(seconds: float) -> float:
    """A task that uses no processor: so many engines can be tried on any machine."""
    time.sleep(seconds)  # noqa: TID251 (this is the work)
    return seconds


def greedy_makespan(durations: Sequence[float], engines: int) -> float:
    """Seconds if each task went to the first engine that is free, and messages took no time."""
    free_at = [0.0] * engines
    for seconds in durations:
        heapq.heapreplace(free_at, free_at[0] + seconds)
    return max(free_at)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeded sleeps on engines and tell how busy these were."""
    parser = argparse.ArgumentParser(description="How well tasks of uneven length are balanced.")
    parser.add_argument("--tasks", type=int, default=128)
    parser.add_argument("--shortest", type=float, default=0.01, help="seconds")
    parser.add_argument("--longest", type=float, default=1.0, help="seconds")
    parser.add_argument("--order", default="random", choices=["random", "longest-last"])
    parser.add_argument("--least", type=float, default=EFFICIENT, help="efficiency below which this fails")
    parser.add_argument("--save", metavar="FILE.svg", help="where to draw who did what when")
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
    print(f"makespan {timeline.makespan:.3f} s; a share, the longest task and 0.1 s are {bound:.3f} s")
    return 0 if efficiency >= options.least else 1


if __name__ == "__main__":
    sys.exit(main())
