"""Starting and ending the process that owns a cluster."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import click

from nsactors.cli.common import in_words
from nsactors.cli.serving import ServeOptions
from nsactors.transport.leftovers import KILL_WAIT_S, end_leftovers
from nsactors.transport.private_folder import sweep_folders
from nsactors.transport.registry import ClusterRecord, Registry

__all__ = ["Started", "forget_cluster", "start_in_background", "stop_cluster"]

ASK_TO_END = signal.SIGINT  # at SIGTERM Ray, while it is starting, prints the stack of its C++ code and dies
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
        with contextlib.suppress(BrokenPipeError), server.stdin as orders:  # it has ended, and has said why
            json.dump(asdict(options), orders)
        with server.stdout as answers:
            answer = json.loads(answers.read() or "{}")
    except BaseException:
        # What is on this machine is found by its mark. At a Ray that is not its own it has to tidy up by itself.
        server.send_signal(ASK_TO_END if options.address else signal.SIGKILL)
        server.wait()
        Registry().records()  # ends what that has left, as of any cluster that was killed
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
        ClickException: if it cannot be ended from here.
    """
    if record.owner.is_here:
        _end_owner(record)
    elif record.stop_with:
        _end_job(record)
    else:
        raise click.ClickException(
            f"{record.name!r} was started {_where(record)}: `nsactors stop {record.name}` ends it there. "
            + _forgetting(record)
        )
    registry.remove(record)


def forget_cluster(record: ClusterRecord, registry: Registry) -> None:
    """Strike a cluster off the list whose owner has gone where nobody can see it; its log stays.

    Raises:
        ClickException: if its owner lives.
    """
    if record.owner.is_here:
        raise click.ClickException(f"{record.name!r} runs on this machine: `nsactors stop {record.name}` ends it")
    registry.remove(record, keeps_log=True)


def _where(record: ClusterRecord) -> str:
    host = record.owner.host
    return f"on {host}" if host != socket.gethostname() else "in a container on this machine, or beside this one"


def _forgetting(record: ClusterRecord) -> str:
    return f"If it has ended already, `nsactors stop --forget {record.name}` strikes it off the list"


def _end_job(record: ClusterRecord) -> None:
    try:
        failed = subprocess.run(record.stop_with, check=False).returncode != 0
    except OSError as error:
        click.echo(in_words(error), err=True)
        failed = True
    if failed:
        raise click.ClickException(
            f"{record.name!r} is not known to have ended: `{shlex.join(record.stop_with)}` has failed. "
            + _forgetting(record)
        )


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
        os.kill(owner.pid, ASK_TO_END)
    if not _wait_until(lambda: owner.is_gone, PATIENCE_S):
        click.echo(f"{record.name!r} has not ended in {PATIENCE_S:g} s, and is killed", err=True)
        os.kill(owner.pid, signal.SIGKILL)
        _wait_until(lambda: owner.is_gone, KILL_WAIT_S)
    end_leftovers(record.mark)
    sweep_folders()
