"""``ray start --block`` for :mod:`ray_node`: started lean, and ended with whoever has started it.

``python -m nsactors.transport.ray_start FOLDER PARENT OPTION...`` removes the folder when Ray has ended. If the process
that has started it is killed, the kernel tells it so: nobody else could.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(folder: str, options: list[str], parent: int) -> None:
    """Run a node of Ray until it is told to end, or ``parent`` has ended.

    Args:
        folder: what is removed then.
        options: for ``ray start``.
        parent: the process that has started this one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        if os.getppid() != parent:  # it was killed before the kernel knew that we want to be told
            return
        import ray
        from ray.scripts.scripts import main as ray_command

        from nsactors.transport.lean_start import lean_start

        sys.argv = ["ray", "start", "--block", *options]
        with lean_start(ray):
            ray_command()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3:], int(sys.argv[2]))
