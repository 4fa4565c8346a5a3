"""The process that owns a cluster in the background.

``python -m nsactors.cli.serving`` is told on its standard input what to start, says on its standard output what came of
it, and then only writes into its log.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, TextIO

from nsactors.cli.common import in_words, plain_warnings
from nsactors.cluster import Cluster
from nsactors.core.hosts import hosts_from_text
from nsactors.core.idleness import Idleness
from nsactors.errors import ClusterUnreachable, ConnectionLost, NsactorsError, bytes_from_words
from nsactors.transport.base import ControllerProxy
from nsactors.transport.certificates import encrypted
from nsactors.transport.leftovers import MARK, end_leftovers
from nsactors.transport.ray_runtime import ray_runtime
from nsactors.transport.registry import ClusterRecord, Registry

__all__ = ["STOPPED", "ServeOptions", "leave", "main", "serve"]

LOOK_S = 5.0
STOPPED = "the cluster was stopped while it was starting"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What cluster to start.

    Attributes:
        n: how many engines; None for one a core.
        name: None for one that is free.
        engine_options: see ``EngineKeywords``.
        address: of an existing Ray cluster.
        startup: a cell that every engine runs first.
        object_store_memory: as for ``Cluster``.
        idle_shutdown_min: minutes without a client and without work after which it ends; None for never.
        tls: encrypt what its processes send each other.
        detached: this process is in the background, and writes into a log.
        hosts: machines to start engines on by ssh, as ``hosts_from_text`` reads them; empty for this one alone.
    """

    n: int | None = None
    name: str | None = None
    engine_options: dict[str, Any] = field(default_factory=dict)
    address: str | None = None
    startup: str = ""
    object_store_memory: str | None = None
    idle_shutdown_min: float | None = None
    tls: bool = False
    detached: bool = True
    hosts: str = ""


def serve(options: ServeOptions, report: Callable[[ClusterRecord, int], object], registry: Registry) -> bool:
    """Start a cluster, and keep it until SIGTERM, SIGINT or its idle limit ends it.

    Args:
        options: what to start.
        report: called when its engines are there, with what is known of it and their number.
        registry: where it is written down.

    Returns:
        Whether it ran: not if it was ended while it was starting, and then :func:`leave` is what is left to do.

    Raises:
        NsactorsError: if it cannot be started.
        OSError: if it cannot be written down.
        ValueError: if the options make no cluster.
    """
    ran = False
    with contextlib.ExitStack() as undo, _until_signalled() as end:
        record = registry.reserve(options.name, options=options.engine_options)
        undo.callback(_forget, registry, record, end)
        os.environ[MARK] = record.mark
        if options.tls and not options.hosts:
            undo.enter_context(encrypted(os.environ))
        cluster = _on_hosts(options, undo) if options.hosts else _on_ray(options)
        undo.callback(cluster.stop_cluster_sync)
        client = cluster.start_and_connect_sync()
        log = os.fspath(registry.log_path(record.name)) if options.detached else ""
        running = replace(record, connection=cluster.connection_info(), log=log)
        registry.update(running)
        engines, controller = len(client), client.session.transport.controller
        client.close()  # nobody looks at what it would hear
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
        **options.engine_options,
    )


def _on_hosts(options: ServeOptions, undo: contextlib.ExitStack) -> Cluster:
    from nsactors.cluster.ssh_hosts import SshHosts

    size = None if options.object_store_memory is None else bytes_from_words(options.object_store_memory)
    named = hosts_from_text(options.hosts)
    hosts = undo.enter_context(SshHosts(named, engines=options.n, store_bytes=size, tls=options.tls))
    return Cluster(hosts.engines, address=hosts.address, startup=options.startup, **options.engine_options)


def main() -> None:
    """Serve as standard input says, and report on standard output, once."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answer:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # who starts a cluster sees what it says meanwhile

        def report(record: ClusterRecord, engines: int) -> None:
            _write_into(record.log)  # the last that may fail: who is told that it runs finds it so
            _tell(answer, {"name": record.name, "engines": engines})

        try:
            with plain_warnings():
                ran = serve(ServeOptions(**json.load(sys.stdin)), report, Registry())
        except (NsactorsError, ValueError, TypeError, OSError) as error:
            _tell(answer, {"error": in_words(error)})
            sys.exit(1)
        if not ran:
            _tell(answer, {"error": STOPPED})
            leave()


def _tell(answer: TextIO, what: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError), answer:  # whoever has asked may have been interrupted
        json.dump(what, answer)


def leave() -> NoReturn:
    """End this process at once, with status 1, after a cluster was ended while it was starting.

    What there was of its Ray has been killed. The thread that starts it waits for that for up to a minute, and an exit
    in the usual way would wait for the thread.
    """
    ray_runtime.remove_folder()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


class _Ended(BaseException):
    """Somebody has asked this process to end; no ``Exception``, so that nothing on the way takes it for a failure."""


class _End:
    """Of a cluster: ``wanted`` if somebody has asked for it or nobody uses it, and so not if it has died."""

    wanted = False


@contextlib.contextmanager
def _until_signalled() -> Iterator[_End]:
    """SIGTERM and SIGINT leave the block; afterwards nothing disturbs the tidying."""
    end = _End()

    def leave_block(number: int, frame: object) -> None:
        end.wanted = True  # for Python drops what is raised while it runs a callback of its own, as in an import
        raise _Ended

    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    for number in numbers:
        signal.signal(number, leave_block)
    try:
        yield end
    except BaseException:  # Ray makes errors of its own of what the handler raises
        if not end.wanted:
            raise
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)


def _stay(controller: ControllerProxy, idle_limit_min: float | None, end: _End) -> None:
    limit_s = math.inf if idle_limit_min is None else 60 * idle_limit_min
    idleness = Idleness(limit_s, time.monotonic())
    pause = threading.Event()
    while not end.wanted:
        pause.wait(min(LOOK_S, limit_s / 4))
        try:
            clients, work = controller.clients(), controller.running().values()
        except ClusterUnreachable:  # a busy machine, or one that slept
            continue
        except ConnectionLost as error:
            print(f"the cluster has ended by itself: {error}", file=sys.stderr)
            return
        running, completed = sum(len(entries) for _, entries in work), sum(count for count, _ in work)
        if idleness.is_over(clients=len(clients), running=running, completed=completed, at=time.monotonic()):
            end.wanted = True


def _forget(registry: Registry, record: ClusterRecord, end: _End) -> None:
    """No process and no file of it is to stay, but for the log of one that has died: it may say why."""
    if end.wanted:
        threading.excepthook = lambda thread: None  # Ray's would tell people that its servers have gone
    end_leftovers(record.mark)
    registry.remove(record, keeps_log=not end.wanted)


def _write_into(path: str) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    os.close(log)


if __name__ == "__main__":
    main()
