"""The process that drives one system, told what to do over a pipe: ``python -m benchmarks.worker FD SYSTEM N``."""

import time

_BEGAN = time.perf_counter()  # before anything else is imported: what follows belongs to a system's start

import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from multiprocessing.connection import Connection  # noqa: E402

from benchmarks.systems import System, make  # noqa: E402

WARM_UP_RUNS = 3


def main(pipe: Connection, system: System, engines: int) -> None:
    """Start the system and say how long it took; then serve orders until None comes, or until nobody is there.

    An order is ``(operation, engines, runs)``, as for :func:`measure`.
    """
    system.start(engines)
    try:
        pipe.send(time.perf_counter() - _BEGAN)
        while (order := pipe.recv()) is not None:
            pipe.send(measure(system, *order))
    except (EOFError, BrokenPipeError):
        pass  # whoever started this has gone: end the system too
    finally:
        system.close()


def measure(system: System, operation: str, engines: int, runs: int) -> list[float] | None:
    """Seconds that each run of an operation took; None if the system has no such operation."""
    run = system.prepare(operation, engines)
    if run is None:
        return None
    for _ in range(min(WARM_UP_RUNS, runs)):
        run()
    return [_timed(run) for _ in range(runs)]


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    value = run()
    seconds = time.perf_counter() - began
    del value  # outside the clock: letting go of a million numbers takes a while too
    return seconds


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), make(sys.argv[2]), int(sys.argv[3]))
