"""A node on another machine: ``python -m nsactors.cluster.node PLAN``, started by a batch system or over ssh.

PLAN is the path of a file, which need not exist yet; ``-`` reads the plan from stdin, and the node ends when stdin is
closed. ``--tidy`` in place of PLAN removes the files that killed nodes of this user have left on this machine.

Over ssh, ``cluster.node_over_ssh`` runs first. If it has received a copy of this package, this module removes the copy.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue

from nsactors.cluster.node_over_ssh import FOLDER
from nsactors.errors import AccessRefused, ClusterUnreachable, ProcessLimit
from nsactors.system.private_files import parent_folder, sweep_folders
from nsactors.system.resources import available_cores
from nsactors.transport.ray.node_process import NodePlan, RayNode

LOOK_S = 0.2


def use_short_paths() -> None:
    """Use a temporary folder with a short path: a batch system's may have a path that is too long for sockets."""
    tempfile.tempdir = parent_folder(tempfile.gettempdir())


def main(source: str) -> int:
    """Run a node until a signal, or the end of stdin, ends it; return the exit status.

    Prints ``up`` when the node has joined the cluster.

    Args:
        source: the path of the plan's file, ``-``, or ``--tidy``.
    """
    use_short_paths()
    if source == "--tidy":
        sweep_folders()
        return 0
    happened = _listen()
    received = os.environ.pop(FOLDER, None)

    def up() -> None:
        print("up", flush=True)
        if source == "-":
            threading.Thread(target=_tell_of_end, args=(happened,), daemon=True).start()

    try:
        plan = _read_plan(source, happened)
        if plan is None:
            return 0
        return 0 if _run(plan.with_cores(available_cores()), happened, up) else 1
    except (ClusterUnreachable, AccessRefused, ProcessLimit) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if received is not None:
            shutil.rmtree(received, ignore_errors=True)


def take_part(plan: NodePlan, up: Callable[[], object]) -> bool:
    """Run a node without engines, so that clients on this machine can attach.

    Args:
        plan: the plan of the cluster's other nodes.
        up: called when the node has joined the cluster.

    Returns:
        True if a signal has ended the node; False if the cluster has ended.

    Raises:
        ClusterUnreachable: if the node cannot be started.
        AccessRefused: if the cluster has another token.
        ProcessLimit: if this user may not start as many processes as the node needs.
    """
    use_short_paths()
    return _run(replace(plan, engines=0, num_cpus=0), _listen(), up)


def _listen() -> SimpleQueue[str]:
    happened: SimpleQueue[str] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: happened.put("told"))
    # Some batch systems send their warning to all processes of a job. Only the head acts on the warning; by default its
    # signal would end this process. The signal gets a handler and is not ignored, because engines would inherit that.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: None)
    return happened


def _run(plan: NodePlan, happened: SimpleQueue[str], up: Callable[[], object]) -> bool:
    with RayNode(plan, ended=lambda: happened.put("ended")):
        up()
        return happened.get() != "ended"


def _read_plan(source: str, happened: SimpleQueue[str]) -> NodePlan | None:
    """Wait for the plan and return it; None if a signal, or the end of stdin, ends the node first."""
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
