"""``start``, ``stop``, ``list``, ``status`` and ``logs``: clusters as wholes."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from nsactors.cli.common import (
    attached,
    checked,
    cluster_argument,
    job_folder,
    json_option,
    plain_refusals,
    print_json,
    print_table,
    the_cluster,
    without_place,
)
from nsactors.core.hosts import hosts_from_text
from nsactors.errors import NoSuchEngine, bytes_from_words
from nsactors.transport.registry import ClusterRecord, Registry, check_name

if TYPE_CHECKING:
    from nsactors.client import Client

__all__ = ["list_clusters", "logs", "start", "status", "stop"]

SOURCE_CHARS = 40


@click.command()
@click.option("-n", type=click.IntRange(min=0), help="How many engines; the default is one a core.")
@click.option(
    "--name",
    callback=checked(check_name),
    help="What to call it; the default is cluster-1, cluster-2 and so on.",
)
@click.option("--foreground", is_flag=True, help="Stay here until Ctrl-C, in place of going to the background.")
@click.option(
    "--idle-shutdown",
    "idle_shutdown_min",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MIN",
    help="End it after so many minutes without a client and without work.",
)
@click.option(
    "--recovery", type=click.Choice(["restart", "replay", "none"]), help="What becomes of an engine that dies."
)
@click.option("--num-cpus", type=click.FloatRange(min=0), help="Cores that each engine counts for; the default is 0.")
@click.option("--startup", type=click.File(), metavar="FILE", help="Python that every engine runs first.")
@click.option(
    "--memory",
    "object_store_memory",
    metavar="SIZE",
    callback=checked(bytes_from_words),
    help="The size of the object store, such as 500MB.",
)
@click.option(
    "--hosts",
    default="",
    callback=checked(hosts_from_text),
    metavar="A,B:4",
    help="Machines to start engines on by ssh, in place of this one.",
)
@click.option("--address", help="Of a Ray cluster to start the engines on, in place of a Ray of its own.")
@click.option("--tls", is_flag=True, help="Encrypt what its processes send each other, with certificates of its own.")
@json_option
def start(
    n: int | None,
    recovery: str | None,
    num_cpus: float | None,
    startup: Any,
    foreground: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Start engines that stay in the background.

    Returns when they are there. They go on when this terminal is closed, until `nsactors stop` ends them. Any of your
    programs on this machine gets at them with `from nsactors import Client; rc = Client()`, and nobody else does:
    everything listens on this machine alone, unless others are named, and wants a token that only you can read.
    """
    if options["address"] and (options["tls"] or options["hosts"]):
        raise click.UsageError(
            "a Ray at an --address has its hosts already, and is encrypted or not: no --hosts, no --tls"
        )
    from nsactors.cli.serving import ServeOptions

    engine_options = {"recovery": recovery, "num_cpus": num_cpus}
    asked = ServeOptions(
        n=n,
        engine_options={name: value for name, value in engine_options.items() if value is not None},
        startup="" if startup is None else startup.read(),
        detached=not foreground,
        **options,
    )
    if foreground:
        from nsactors.cli.serving import STOPPED, leave, serve

        with plain_refusals():
            ran = serve(asked, lambda record, engines: _tell_started(record.name, engines, as_json), Registry())
        if not ran:
            click.echo(f"Error: {STOPPED}", err=True)
            leave()
        return
    from nsactors.cli.detaching import start_in_background

    _tell_started(*start_in_background(asked), as_json)


def _tell_started(name: str, engines: int, as_json: bool) -> None:
    if as_json:
        return print_json({"name": name, "engines": engines})
    click.echo(
        f"The cluster {name!r} runs, with {engines} engine{'s' * (engines != 1)}.\n"
        f"  In Python:   from nsactors import Client; rc = Client({name!r})\n"
        f"  In IPython:  %load_ext nsactors, then %pxattach {name}\n"
        f"  To end it:   nsactors stop {name}"
    )


@click.command()
@cluster_argument
@click.option("--all", "everything", is_flag=True, help="All of yours that can be ended from here.")
@click.option("--forget", is_flag=True, help="Only strike it off the list: it has ended where nobody could see it.")
def stop(name: str | None, everything: bool, forget: bool) -> None:
    """End a cluster: the only one, or that of this NAME.

    What its engines hold is gone then. Returns when no process and no file of it is left.
    """
    from nsactors.cli.detaching import forget_cluster, stop_cluster

    if forget and everything:
        raise click.UsageError("clusters are forgotten one by one: --forget NAME")
    registry = Registry()
    failures = []
    for record in registry.records() if everything else [registry.find(name)]:
        if forget:
            forget_cluster(record, registry)
            return click.echo(f"The cluster {record.name!r} is off the list; nothing has been ended.")
        try:
            stop_cluster(record, registry)
        except click.ClickException as failure:
            failures.append(failure.message)
        else:
            click.echo(f"The cluster {record.name!r} has ended.")
    if failures:
        raise click.ClickException("\n".join(failures))


@click.command("list")
@json_option
def list_clusters(as_json: bool) -> None:
    """List your clusters; one that has died is cleaned up after."""
    records = Registry().records()
    if as_json:
        return print_json([_summary(record) for record in records])
    if not records:
        return click.echo("No cluster of yours runs: `nsactors start` starts one.")
    rows = [
        [r.name, "runs" if r.connection else "starting", r.owner.host, r.owner.pid, _age(r.started), r.origin]
        for r in records
    ]
    print_table(["name", "state", "host", "process", "for", "by"], rows)


@click.command()
@cluster_argument
@json_option
def status(name: str | None, as_json: bool) -> None:
    """Show a cluster: its engines, what they run and for whom, and its clients."""
    record = the_cluster(name)
    with attached(record.name, "status") as client:
        seen = client.activity()
        others = [other for other in seen.clients if other != client.name]
        obstacles = without_place(client)
    if as_json:
        return print_json(
            {**_summary(record), "clients": others, "engines": [engine._asdict() for engine in seen.engines]}
        )
    address = record.connection.address if record.connection is not None else ""
    click.echo(f"{record.name}: {record.origin}, on {record.owner.host} for {_age(record.started)}, Ray at {address}")
    click.echo(f"clients: {', '.join(others) or 'none'}")
    print_table(
        ["engine", "host", "process", "state", "runs", "for whom", "queued", "done"],
        [
            [e.engine_id, e.host, e.pid or "", e.state, _first_line(e.runs), e.client, e.queued or "", e.completed]
            for e in seen.engines
        ],
    )
    for obstacle in obstacles.values():
        click.echo(str(obstacle))


def _first_line(source: str) -> str:
    return (source.splitlines() or [""])[0][:SOURCE_CHARS]


@click.command()
@cluster_argument
@click.option("-e", "--engine", type=int, help="What this engine has written, in place of the cluster's own log.")
@click.option("-n", "--lines", type=click.IntRange(min=1), default=100, show_default=True, help="How many of the last.")
def logs(name: str | None, engine: int | None, lines: int) -> None:
    """Show the last lines that a cluster's own process has written, or one of its engines.

    The log of a cluster that has died stays until one of the same name is started, and that of a batch job in the job's
    folder.
    """
    if engine is not None:
        with attached(name, "logs") as client:
            paths = _engine_logs(client, engine)
    else:
        paths = [_log_of(name, Registry())]
    for path in paths:
        for line in _last_lines(path, lines):
            click.echo(line)


def _log_of(name: str | None, registry: Registry) -> str:
    """Where the process of a cluster writes, or has written before it died."""
    living = registry.records()
    if name is None or any(record.name == name for record in living):
        record = registry.find(name)
        if record.connection is not None and not record.log:
            raise click.ClickException(f"{record.name!r} keeps no log: it runs at a terminal, and writes there")
        return record.log or os.fspath(registry.log_path(record.name))
    places = [registry.log_path(name), job_folder(registry, name) / "job.log"]
    return os.fspath(next((path for path in places if path.exists()), places[0]))


def _engine_logs(client: Client, engine_id: int) -> list[str]:
    engine = client.session.roster.get(engine_id)
    if engine is None:
        raise NoSuchEngine(engine_id, client.ids)
    if engine.output_path is None or not os.path.exists(f"{engine.output_path}.stdout"):
        raise click.ClickException(f"engine {engine_id} writes on {engine.host}, into {engine.output_path}.stdout")
    return [f"{engine.output_path}.{stream}" for stream in ("stdout", "stderr")]


def _last_lines(path: str, count: int) -> Sequence[str]:
    try:
        with open(path, errors="replace") as file:
            return deque((line.rstrip("\n") for line in file), maxlen=count)
    except FileNotFoundError:
        raise click.ClickException(f"there is no log at {path}") from None


def _summary(record: ClusterRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "state": "running" if record.connection is not None else "starting",
        "host": record.owner.host,
        "pid": record.owner.pid,
        "started": record.started,
        "origin": record.origin,
        "address": None if record.connection is None else record.connection.address,
        "log": record.log,
    }


def _age(started: float) -> str:
    minutes, seconds = divmod(int(time.time() - started), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    match days, hours, minutes:
        case 0, 0, 0:
            return f"{seconds} s"
        case 0, 0, _:
            return f"{minutes} min"
        case 0, _, _:
            return f"{hours} h {minutes} min"
    return f"{days} d {hours} h"
