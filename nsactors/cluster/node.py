"""A node on another machine: ``python -m nsactors.cluster.node PLAN``, started by a batch system or over ssh.

The plan is a file, waited for if it is not there yet; ``-`` reads it from stdin, and ends the node when that is
closed. ``--tidy`` in its place removes what nodes of this user that were killed have left on this machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue

from nsactors.cluster.resources import available_cores
from nsactors.errors import ClusterUnreachable
from nsactors.transport.private_folder import sweep_folders
from nsactors.transport.ray_node import NodePlan, RayNode

__all__ = ["main", "take_part", "use_short_paths"]

LOOK_S = 0.2
LONGEST_FOLDER = 18


def use_short_paths() -> None:
    """Keep temporary files in /tmp if their usual place, which batch systems choose, has a long name.

    Paths of sockets are limited to 107 bytes, of which Ray and we need 89.
    """
    if len(tempfile.gettempdir()) > LONGEST_FOLDER:
        tempfile.tempdir = "/tmp"


def main(source: str) -> int:
    """Run a node as planned until it is told to end; its exit status.

    It says ``up`` when it belongs to the cluster.

    Args:
        source: the path of the plan's file, ``-``, or ``--tidy``.
    """
    use_short_paths()
    if source == "--tidy":
        sweep_folders()
        return 0
    happened = _listen()
    plan = _read_plan(source, happened)
    if plan is None:
        return 0

    def up() -> None:
        print("up", flush=True)
        if source == "-":
            threading.Thread(target=_tell_of_end, args=(happened,), daemon=True).start()

    try:
        return 0 if _run(plan.with_cores(available_cores()), happened, up) else 1
    except ClusterUnreachable as error:
        print(error, file=sys.stderr)
        return 1


def take_part(plan: NodePlan, up: Callable[[], object]) -> bool:
    """Be a node without engines, so that clients on this machine can attach; whether a signal has ended that.

    Args:
        plan: of the cluster's other nodes.
        up: called when it belongs to the cluster.

    Raises:
        ClusterUnreachable: if it cannot be started.
    """
    use_short_paths()
    return _run(replace(plan, engines=0, num_cpus=0), _listen(), up)


def _listen() -> SimpleQueue[str]:
    happened: SimpleQueue[str] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: happened.put("told"))
    return happened


def _run(plan: NodePlan, happened: SimpleQueue[str], up: Callable[[], object]) -> bool:
    with RayNode(plan, ended=lambda: happened.put("ended")):
        up()
        return happened.get() != "ended"


def _read_plan(source: str, happened: SimpleQueue[str]) -> NodePlan | None:
    """The plan; None if the node is to end before there is one."""
    if source == "-":
        line = sys.stdin.readline()
        return NodePlan.from_json(line) if line else None
    while not os.path.exists(source):
        with contextlib.suppress(Empty):
            happened.get(timeout=LOOK_S)
            return None
    return NodePlan.from_json(Path(source).read_text())


def _tell_of_end(happened: SimpleQueue[str]) -> None:
    sys.stdin.read()
    happened.put("told")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
