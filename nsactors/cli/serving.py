"""The process that owns a cluster in the background: starting, waiting while it is used, stopping.

``python -m nsactors.cli.serving`` reads its ``ServeOptions`` as JSON from standard input, writes one answer (the
cluster's name, or an error) to standard output, and from then on writes only to its log.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TextIO

import click

from nsactors._frozen import frozen
from nsactors.cli.common import in_words, plain_warnings
from nsactors.cluster.cluster import Cluster
from nsactors.cluster.ssh_hosts import hosts_from_text
from nsactors.controller import STOP_GRACE_S
from nsactors.errors import ClusterUnreachable, ConnectionLost, NsactorsError, bytes_from_words, printable
from nsactors.system.private_files import sweep_folders
from nsactors.system.processes import KILL_WAIT_S, MARK, end_leftovers
from nsactors.system.tls import encrypted
from nsactors.transport.base import ControllerClient
from nsactors.transport.ray.runtime import ray_runtime
from nsactors.transport.registry import ClusterRecord, Registry


class Idleness:
    """Measures for how long a cluster has been unused.

    A cluster is unused while it has no client and no request. A connected client counts as use even if it sends
    nothing, since the engines hold its names.

    Args:
        limit_s: the time in seconds that the cluster may be unused.
        at: the time now, in seconds.
    """

    def __init__(self, limit_s: float, at: float) -> None:
        self._limit_s = limit_s
        self._since = at
        self._completed = 0

    def is_over(self, *, clients: int, running: int, completed: int, at: float) -> bool:
        """Return whether the limit is reached.

        Args:
            clients: the number of clients.
            running: the number of requests that run or wait.
            completed: the number of requests completed since the start.
            at: the time now, in seconds.
        """
        if clients or running or completed != self._completed:
            self._since = at
        self._completed = completed
        return at - self._since >= self._limit_s


LOOK_S = 5.0
STOPPED = "the cluster was stopped while it was starting"


@frozen
class ServeOptions:
    """The cluster to start.

    Attributes:
        n: the number of engines; the default, None, means one for each core.
        name: the cluster's name; None for a free one.
        engine_options: see ``EngineKeywords``.
        address: the address of an existing Ray cluster.
        startup: a cell that every engine runs first.
        object_store_memory: see ``Cluster``.
        stop_grace: see ``Cluster``; None for the default of ``Cluster``.
        idle_shutdown_min: minutes without a client and without work after which the cluster ends; None for never.
        tls: encrypt the traffic between the cluster's processes.
        detached: the owner runs in the background, and writes to a log.
        hosts: machines on which ssh starts engines, as ``hosts_from_text`` reads them; empty for this one alone.
    """

    n: int | None = None
    name: str | None = None
    engine_options: dict[str, Any] = field(default_factory=dict)
    address: str | None = None
    startup: str = ""
    object_store_memory: str | None = None
    stop_grace: float | None = None
    idle_shutdown_min: float | None = None
    tls: bool = False
    detached: bool = True
    hosts: str = ""


def serve(options: ServeOptions, report: Callable[[ClusterRecord, int], object], registry: Registry) -> bool:
    """Start a cluster, and run it until SIGTERM, SIGINT or its idle limit ends it.

    Args:
        options: the cluster to start.
        report: called when the engines are ready, with the cluster's record and the number of engines.
        registry: keeps the record of the cluster.

    Returns:
        True if the cluster ran; False if a signal ended it during its start, and the caller must call :func:`leave`.

    Raises:
        NsactorsError: if the cluster cannot be started.
        OSError: if its record cannot be written.
        ValueError: if an option has a wrong value.
    """
    ran = False
    with contextlib.ExitStack() as undo, _until_signalled() as end:
        record = registry.reserve(options.name, options=options.engine_options)
        notices: list[str] = []
        undo.callback(_forget, registry, record, end, notices)
        os.environ[MARK] = record.mark
        if options.tls and not options.hosts:
            undo.enter_context(encrypted(os.environ))
        cluster = _on_hosts(options, undo) if options.hosts else _on_ray(options)
        undo.callback(_stop, cluster, registry, record, notices)
        client = cluster.start_and_connect_sync()
        log = os.fspath(registry.log_path(record.name)) if options.detached else ""
        running = replace(record, connection=cluster.connection_info(), log=log)
        registry.update(running)
        engines, controller = len(client), client.session.controller
        client.close()  # its events would pile up unread
        if not end.wanted:
            report(running, engines)
            ran = True
            _stay(controller, options.idle_shutdown_min, end)
    return ran


def _on_ray(options: ServeOptions) -> Cluster:
    return Cluster(
        options.n,
        address=options.address,
        startup=options.startup,
        object_store_memory=options.object_store_memory,
        stop_grace=STOP_GRACE_S if options.stop_grace is None else options.stop_grace,
        **options.engine_options,
    )


def _on_hosts(options: ServeOptions, undo: contextlib.ExitStack) -> Cluster:
    from nsactors.cluster.ssh_hosts import SshHosts

    size = None if options.object_store_memory is None else bytes_from_words(options.object_store_memory)
    named = hosts_from_text(options.hosts)
    hosts = undo.enter_context(SshHosts(named, engines=options.n, store_bytes=size, tls=options.tls))
    return Cluster(
        hosts.engines,
        address=hosts.address,
        startup=options.startup,
        stop_grace=STOP_GRACE_S if options.stop_grace is None else options.stop_grace,
        **options.engine_options,
    )


def main() -> None:
    """Read options from standard input, serve the cluster, and answer once on standard output."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answer:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the user of `nsactors start` sees messages of the start

        def report(record: ClusterRecord, engines: int) -> None:
            _write_into(record.log)  # may fail, so it comes before the answer that the cluster runs
            _tell(answer, {"name": record.name, "engines": engines})

        ray_runtime.serves_others = True
        options = ServeOptions(**json.load(sys.stdin))
        try:
            with plain_warnings():
                ran = serve(options, report, Registry())
        except (NsactorsError, ValueError, TypeError, OSError) as error:
            _tell(answer, {"error": in_words(error, starts_at=options.address)})
            sys.exit(1)
        if not ran:
            _tell(answer, {"error": STOPPED})
            leave()


def _tell(answer: TextIO, message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError), answer:  # `nsactors start` may have been interrupted
        json.dump(message, answer)


def leave() -> NoReturn:
    """Exit immediately with status 1, after a signal ended the cluster during its start.

    The processes of its Ray have been killed. The thread that starts Ray may wait for them for up to a minute, and
    ``sys.exit`` would wait for the thread.
    """
    ray_runtime.remove_folder()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


class _Ended(BaseException):
    """A signal asks this process to end; not an ``Exception``, so that no handler on the way takes it for an error."""


class _End:
    """Records whether a signal or the idle limit has asked for the cluster's end; if neither has, the cluster died."""

    wanted = False


@contextlib.contextmanager
def _until_signalled() -> Iterator[_End]:
    """Leave the ``with`` block at SIGTERM, SIGINT or SIGHUP; ignore further signals during the clean-up."""
    end = _End()

    def leave_block(number: int, frame: object) -> None:
        end.wanted = True  # Python drops an exception that is raised in a callback, such as that of a weak reference
        raise _Ended

    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    for number in numbers:
        signal.signal(number, leave_block)
    try:
        yield end
    except BaseException:  # Ray turns the handler's exception into errors of its own
        if not end.wanted:
            raise
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)


def _stay(controller: ControllerClient, idle_limit_min: float | None, end: _End) -> None:
    limit_s = math.inf if idle_limit_min is None else 60 * idle_limit_min
    idleness = Idleness(limit_s, time.monotonic())
    pause = threading.Event()
    while not end.wanted:
        pause.wait(min(LOOK_S, limit_s / 4))
        try:
            clients, work = controller.clients(), controller.running().values()
        except ClusterUnreachable:  # the machine is busy, or has slept
            continue
        except ConnectionLost as error:
            print(f"the cluster has ended by itself: {error}", file=sys.stderr)
            return
        running, completed = sum(len(entries) for _, entries in work), sum(count for count, _ in work)
        if idleness.is_over(clients=len(clients), running=running, completed=completed, at=time.monotonic()):
            end.wanted = True


def _stop(cluster: Cluster, registry: Registry, record: ClusterRecord, notices: list[str]) -> None:
    """Stop a cluster; Ctrl-C during the stop skips the grace period of the engines."""

    def tell(notice: str) -> None:
        notices.append(notice)
        print(notice, file=sys.stderr, flush=True)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cluster.stop_cluster_sync(grace=registry.again(record).stop_grace_s, report=tell)
    except KeyboardInterrupt:
        tell("nsactors: engines that had not ended were killed")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _forget(registry: Registry, record: ClusterRecord, end: _End, notices: Sequence[str]) -> None:
    """Remove all processes and files of a cluster, except a log that reports its death or killed engines."""
    if end.wanted:
        threading.excepthook = lambda thread: None  # Ray's threads would print that its servers have gone
    end_leftovers(record.mark)
    registry.remove(record, keeps_log=bool(notices) or not end.wanted)


def _write_into(path: str) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    os.close(log)


ASK_TO_END = signal.SIGINT  # at SIGTERM Ray, while it is starting, prints the stack of its C++ code and dies
PATIENCE_S = 60.0
OWNER_LOOK_S = 0.05


class Started(NamedTuple):
    """The name of a running cluster, and its number of engines."""

    name: str
    engines: int


def start_in_background(options: ServeOptions) -> Started:
    """Start a process that owns a cluster, and return when its engines are ready.

    Until then, Ctrl-C ends the process and everything that it has started.

    Raises:
        ClickException: if the cluster could not be started.
    """
    server = subprocess.Popen(
        [sys.executable, "-m", "nsactors.cli.serving"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # out of reach of this terminal's Ctrl-C and SIGHUP
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError), server.stdin as orders:  # the process has answered and ended
            json.dump(asdict(options), orders)
        with server.stdout as answers:
            answer = json.loads(answers.read() or "{}")
    except BaseException:
        # Processes on this machine are found by their mark, so the owner may be killed. On an existing Ray cluster
        # only the owner can remove its actors.
        server.send_signal(ASK_TO_END if options.address else signal.SIGKILL)
        server.wait()
        Registry().records()  # ends the remaining processes, as for any cluster whose owner was killed
        raise
    match answer:
        case {"name": name, "engines": engines}:
            return Started(name, engines)
        case {"error": error}:
            raise click.ClickException(error)
    raise click.ClickException(f"no cluster was started: its process ended with status {server.wait()}")


def stop_cluster(record: ClusterRecord, registry: Registry, grace_s: float | None = None) -> None:
    """Stop a cluster; return when no process and no file of it is left.

    Args:
        record: the cluster's record.
        registry: keeps the record.
        grace_s: seconds for an orderly end of its engines; None for the cluster's own setting.

    Raises:
        ClickException: if the cluster cannot be stopped from this machine.
    """
    if record.owner.is_here:
        if grace_s is not None:
            registry.update(replace(registry.again(record), stop_grace_s=grace_s))
        _end_owner(record, PATIENCE_S + (grace_s or 0.0))
        _tell_killed(registry.log_path(record.name))
    elif record.stop_with:
        _end_job(record)
    else:
        raise click.ClickException(
            f"{record.name!r} was started {_where(record)}: `nsactors stop {record.name}` ends it there. "
            + _forgetting(record)
        )
    registry.remove(record)


def forget_cluster(record: ClusterRecord, registry: Registry) -> None:
    """Remove from the list a cluster whose owner has ended on another machine or in a container; its log stays.

    Raises:
        ClickException: if the owner belongs to this machine, where `nsactors stop` ends it.
    """
    if record.owner.is_here:
        raise click.ClickException(f"{record.name!r} runs on this machine: `nsactors stop {record.name}` ends it")
    registry.remove(record, keeps_log=True)


def _where(record: ClusterRecord) -> str:
    host = record.owner.host
    return f"on {host}" if host != socket.gethostname() else "in a container on this machine, or beside this one"


def _forgetting(record: ClusterRecord) -> str:
    return f"If it has ended already, `nsactors stop --forget {record.name}` removes it from the list"


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
        pause.wait(OWNER_LOOK_S)
    return True


def _end_owner(record: ClusterRecord, patience_s: float) -> None:
    owner = record.owner
    if not owner.is_gone:
        os.kill(owner.pid, ASK_TO_END)
    try:
        has_gone = _wait_until(lambda: owner.is_gone, patience_s)
    except KeyboardInterrupt:  # the owner is asked again, and skips the wait for its engines
        if not owner.is_gone:
            os.kill(owner.pid, ASK_TO_END)
        has_gone = _wait_until(lambda: owner.is_gone, PATIENCE_S)
    if not has_gone:
        click.echo(f"{record.name!r} has not ended in {patience_s:g} s, and is killed", err=True)
        os.kill(owner.pid, signal.SIGKILL)
        _wait_until(lambda: owner.is_gone, KILL_WAIT_S)
    end_leftovers(record.mark)
    sweep_folders()


def _tell_killed(log: Path) -> None:
    """Print the lines of the owner's log that name killed engines, and remove the log."""
    with contextlib.suppress(FileNotFoundError):
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("nsactors: engine"):
                click.echo(printable(line), err=True)
        log.unlink()


if __name__ == "__main__":
    main()
