"""A stub for Ray's dashboard agent, without a dashboard: it lives as long as its raylet, and does nothing.

A raylet requires an agent, and ends with it. This file is run by path: it imports nothing of the package.
"""

import os
import select

CHECK_S = 1.0


def _accompany(raylet: int) -> None:
    while os.getppid() == raylet:
        select.select([], [], [], CHECK_S)


if __name__ == "__main__":
    _accompany(int(os.environ["RAY_RAYLET_PID"]))
