"""Drive one system by orders from a pipe: ``python -m benchmarks.operations.worker FD SYSTEM N``."""

import time

_BEGAN = time.perf_counter()  # before the other imports, which belong to the start of a system

import sys  # noqa: E402
from multiprocessing.connection import Connection  # noqa: E402

from benchmarks.operations.turns import Turn, take_turn  # noqa: E402
from benchmarks.systems import make  # noqa: E402


def main(pipe: Connection, name: str, engines: int) -> None:
    """Start the system, and send the time as a turn; then serve orders until None arrives, or the parent has ended.

    An order is ``(system, operation, engines, runs)``; the system is this system, or a system that uses its engines.
    The answer is a turn, or None if the system has no such operation.
    """
    systems = {name: make(name)}
    systems[name].start(engines)
    try:
        pipe.send(Turn([time.perf_counter() - _BEGAN], time.process_time()))
        while (order := pipe.recv()) is not None:
            who, operation, count, runs = order
            if who not in systems:
                systems[who] = make(who, systems[name])
            run = systems[who].prepare(operation, count)
            pipe.send(None if run is None else take_turn(run, runs))
    except (EOFError, BrokenPipeError):
        pass  # the parent has ended: end the system too
    finally:
        systems[name].close()


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), sys.argv[2], int(sys.argv[3]))
