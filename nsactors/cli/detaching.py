"""Starting and ending the process that owns a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import click

from nsactors.cli.serving import ServeOptions
from nsactors.transport.leftovers import KILL_WAIT_S, end_leftovers
from nsactors.transport.private_folder import sweep_folders
from nsactors.transport.registry import ClusterRecord, Registry

__all__ = ["Started", "start_in_background", "stop_cluster"]

PATIENCE_S = 60.0
LOOK_S = 0.05


class Started(NamedTuple):
    """A cluster that runs: its name, and how many engines it has."""

    name: str
    engines: int


def start_in_background(options: ServeOptions) -> Started:
    """Start a process that owns a cluster, and return when its engines are there.

    Ctrl-C meanwhile ends it, and all it has started.

    Raises:
        ClickException: if it could not be started.
    """
    server = subprocess.Popen(
        [sys.executable, "-m", "nsactors.cli.serving"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # neither Ctrl-C nor the end of this terminal is for it
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        with server.stdin as orders:
            json.dump(asdict(options), orders)
        with server.stdout as answers:
            answer = json.loads(answers.read() or "{}")
    except BaseException:
        server.terminate()
        server.wait()
        raise
    match answer:
        case {"name": name, "engines": engines}:
            return Started(name, engines)
        case {"error": error}:
            raise click.ClickException(error)
    raise click.ClickException(f"no cluster was started: its process ended with status {server.wait()}")


def stop_cluster(record: ClusterRecord, registry: Registry) -> None:
    """End a cluster; returns when nothing of it is left.

    Raises:
        ClickException: if it can be ended from another machine alone.
    """
    if record.owner.is_here:
        _end_owner(record)
    elif record.stop_with:
        if subprocess.run(record.stop_with, check=False).returncode:
            raise click.ClickException(f"{record.name!r} is not known to have ended: that command has failed")
    else:
        raise click.ClickException(
            f"{record.name!r} was started on {record.owner.host}: `nsactors stop {record.name}` ends it there"
        )
    registry.remove(record)


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    pause, deadline = threading.Event(), time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(LOOK_S)
    return True


def _end_owner(record: ClusterRecord) -> None:
    owner = record.owner
    if not owner.is_gone:
        os.kill(owner.pid, signal.SIGTERM)
    if not _wait_until(lambda: owner.is_gone, PATIENCE_S):
        click.echo(f"{record.name!r} has not ended in {PATIENCE_S:g} s, and is killed", err=True)
        os.kill(owner.pid, signal.SIGKILL)
        _wait_until(lambda: owner.is_gone, KILL_WAIT_S)
    end_leftovers(record.mark)
    sweep_folders()
