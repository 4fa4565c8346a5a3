"""Run a lean ``ray start --block`` for :mod:`node_process`; it ends with the process that started it.

``python -m nsactors.transport.ray.scripts.start_node FOLDER PARENT OPTION...`` removes the folder when Ray has ended.
The kernel reports the end of the parent, since a parent that is killed cannot.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(folder: str, options: list[str], parent: int) -> None:
    """Run a node of Ray until it is asked to end, or ``parent`` has ended.

    Args:
        folder: removed at the end.
        options: options of ``ray start``.
        parent: the process that started this one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        if os.getppid() != parent:  # the parent ended before the request to the kernel
            return
        from nsactors.transport.ray.lean_start import lean_start
        from nsactors.transport.ray.scripts.run_script import SELDOM_USED, import_ray, imported_on_use

        ray = import_ray()
        with imported_on_use(*SELDOM_USED):
            from ray.scripts.scripts import main as ray_command

        sys.argv = ["ray", "start", "--block", *options]
        with lean_start(ray):
            ray_command()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3:], int(sys.argv[2]))
