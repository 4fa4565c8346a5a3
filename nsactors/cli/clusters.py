"""Subcommands for clusters in the background and their engines."""

from __future__ import annotations

import functools
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsactors.cli.common import (
    TARGETS,
    FiniteRange,
    PlainErrors,
    attached,
    checked,
    cluster_argument_or_option,
    cluster_option,
    in_words,
    job_folder,
    json_option,
    plain_refusals,
    print_json,
    print_rich,
    print_table,
    source_of,
    targets_option,
    the_cluster,
    without_place,
)
from nsactors.cluster.time_limits import time_in_words, time_left_s
from nsactors.errors import (
    ClusterUnreachable,
    EngineStartError,
    NoSuchEngine,
    bytes_from_words,
    engine_ranges,
    plural,
    printable,
)
from nsactors.errors.formatting import without_escapes
from nsactors.protocol.targets import Targets
from nsactors.transport.base import check_address
from nsactors.transport.registry import ClusterRecord, Registry, check_name, not_found

if TYPE_CHECKING:
    from nsactors.client import Client

SOURCE_CHARS = 40
_COLOUR = re.compile("(\x1b\\[[0-9;]*m)")


def _hosts(text: str) -> object:
    from nsactors.cluster.ssh_hosts import hosts_from_text  # deferred: it imports the modules that start nodes

    return hosts_from_text(text)


@click.command()
@click.option("-n", type=click.IntRange(min=0), help="Number of engines; the default is one for each core.")
@click.option(
    "--name",
    callback=checked(check_name),
    help="Name of the cluster; the default is cluster-1, cluster-2 and so on.",
)
@click.option("--foreground", is_flag=True, help="Run at this terminal until Ctrl-C, not in the background.")
@click.option(
    "--idle-shutdown",
    "idle_shutdown_min",
    type=FiniteRange(min=0, min_open=True),
    metavar="MIN",
    help="Stop the cluster after so many minutes without a client and without work.",
)
@click.option(
    "--recovery",
    type=click.Choice(["restart", "replay", "none"]),
    help="For engines that die: restart with an empty namespace (the default), replay to restore it, or none.",
)
@click.option("--num-cpus", type=FiniteRange(min=0), help="Cores that each engine reserves in Ray; the default is 0.")
@click.option("--startup", type=click.File("rb"), metavar="FILE", help="Python code that every engine runs first.")
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
    callback=checked(_hosts),
    metavar="A,B:4",
    help="Machines on which ssh starts engines, in place of this one; :4 for four engines there. `slurm` or `slurm:4` "
    "stands for the nodes of the Slurm allocation that you are in.",
)
@click.option(
    "--stop-grace",
    type=FiniteRange(min=0),
    metavar="S",
    help="Seconds that all engines together have for an orderly end before they are killed; the default is 5.",
)
@click.option(
    "--address",
    callback=checked(check_address),
    metavar="HOST:PORT",
    help="Address of an existing Ray cluster to start the engines on.",
)
@click.option("--tls", is_flag=True, help="Encrypt all traffic between the cluster's processes; certificates are made.")
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

    Returns when the engines are ready. They run, even after this terminal is closed, until `nsactors stop` ends them.
    Any of your programs on this machine connects with `from nsactors import Client; rc = Client()`. Other users cannot:
    every connection needs a token that only you can read, and without --hosts or --address the cluster listens on this
    machine alone.
    """
    if options["address"] and (options["tls"] or options["hosts"]):
        raise click.UsageError(
            "the Ray cluster at --address has hosts and encryption of its own: leave out --hosts and --tls"
        )
    from nsactors.cli.serving import ServeOptions

    engine_options = {"recovery": recovery, "num_cpus": num_cpus}
    asked = ServeOptions(
        n=n,
        engine_options={name: value for name, value in engine_options.items() if value is not None},
        startup="" if startup is None else _startup_of(startup),
        detached=not foreground,
        **options,
    )
    if foreground:
        from nsactors.cli.serving import STOPPED, leave, serve

        try:
            with plain_refusals():
                ran = serve(asked, lambda record, engines: _tell_started(record.name, engines, as_json), Registry())
        except ClusterUnreachable as error:
            raise click.ClickException(in_words(error, starts_at=options["address"])) from error
        if not ran:
            click.echo(f"Error: {STOPPED}", err=True)
            leave()
        return
    from nsactors.cli.serving import start_in_background

    _tell_started(*start_in_background(asked), as_json)


def _tell_started(name: str, engines: int, as_json: bool) -> None:
    if as_json:
        return print_json({"name": name, "engines": engines})
    click.echo(
        f"The cluster {name!r} runs, with {engines} {plural('engine', engines)}.\n"
        f"  In Python:   from nsactors import Client; rc = Client({name!r})\n"
        f"  In IPython:  %load_ext nsactors, then %pxattach {name}\n"
        f"  To end it:   nsactors stop {name}"
    )


@click.command(short_help="End a cluster.")
@cluster_argument_or_option
@click.option("--all", "everything", is_flag=True, help="End all your clusters that can be ended from here.")
@click.option(
    "--forget",
    is_flag=True,
    help="Only remove the cluster from the list. Use this if it ended on another machine, which cannot report it.",
)
@click.option(
    "--grace",
    "grace_s",
    type=FiniteRange(min=0),
    metavar="S",
    help="Seconds for an orderly end of all engines, in place of the --stop-grace of `nsactors start`.",
)
def stop(name: str | None, everything: bool, forget: bool, grace_s: float | None) -> None:
    """End the cluster NAME, or the only one.

    Interrupts the engines' code, and lets them end as programs do: atexit handlers run, files are closed. Engines that
    have not ended in time are killed and named; Ctrl-C kills them immediately. Their namespaces are lost. Returns when
    no process and no file of the cluster is left.
    """
    from nsactors.cli.serving import forget_cluster, stop_cluster

    if forget and everything:
        raise click.UsageError("clusters are forgotten one by one: --forget NAME")
    registry = Registry()
    failures = []
    for record in registry.records() if everything else [registry.find(name)]:
        if record.program is not None and not forget:
            if not everything:  # with --all, programs are passed over: they are not clusters
                failures.append(
                    f"{record.name!r} is a program of yours with work of its own, process {record.owner.pid} on "
                    f"{record.owner.host}: end it as you would without nsactors"
                )
            continue
        if forget:
            forget_cluster(record, registry)
            return click.echo(f"The cluster {record.name!r} is off the list; nothing has been ended.")
        try:
            stop_cluster(record, registry, grace_s)
        except click.ClickException as failure:
            failures.append(failure.message)
        else:
            click.echo(f"The cluster {record.name!r} has ended.")
    if failures:
        raise click.ClickException("\n".join(failures))


@click.command("list")
@json_option
def list_clusters(as_json: bool) -> None:
    """List your clusters and embedded programs."""
    records = Registry().records()
    if as_json:
        return print_json([_summary(record) for record in records])
    if not records:
        return click.echo("No cluster of yours runs: `nsactors start` starts one.")
    rows = [[r.name, r.state, r.owner.host, r.owner.pid, _age(r.started), r.origin] for r in records]
    print_table(["name", "state", "host", "process", "for", "by"], rows)


@click.command(short_help="Show a cluster: its engines, their work, its clients.")
@cluster_argument_or_option
@json_option
def status(name: str | None, as_json: bool) -> None:
    """Show a cluster: its engines, the code that each runs, the client that sent it, and all clients.

    For a batch job, the time until its limit is shown, if the batch system's commands on this machine report it.
    """
    record = the_cluster(name)
    left_s = time_left_s(record.origin, time.time() - record.started)
    with attached(record.name, "status") as client:
        seen = client.activity()
        others = [other for other in seen.clients if other != client.name]
        obstacles = without_place(client)
    if as_json:
        return print_json(
            {
                **_summary(record),
                "time_left_s": left_s,
                "clients": others,
                "engines": [engine._asdict() for engine in seen.engines],
            }
        )
    ray = f", Ray at {record.connection.address}" if record.connection is not None else ""
    click.echo(f"{record.name}: {record.origin}, on {record.owner.host} for {_age(record.started)}{ray}")
    if left_s is not None:
        click.echo(f"time limit of the job: in {time_in_words(left_s)}")
    click.echo(printable(f"clients: {', '.join(others) or 'none'}"))
    print_table(
        ["engine", "host", "process", "state", "runs", "client", "queued", "done"],
        [
            [e.engine_id, e.host, e.pid or "", e.state, _first_line(e.runs), e.client, e.queued or "", e.completed]
            for e in seen.engines
        ],
    )
    for obstacle in obstacles.values():
        click.echo(str(obstacle))


def _startup_of(file: Any) -> str:
    """Read start-up code; refuse a syntax error before anything has been started."""
    from nsactors.cluster.options import startup_cell

    code = source_of(file)
    if (unfit := startup_cell(code)) is not None:
        raise click.BadParameter(f"{file.name} is not {unfit.takes}", param_hint="--startup")
    return code


def _first_line(source: str) -> str:
    return (source.splitlines() or [""])[0][:SOURCE_CHARS]


@click.command(short_help="Show the log of a cluster, or the output of an engine.")
@cluster_argument_or_option
@click.option("-e", "--engine", type=int, help="Show the output of this engine, not the cluster's log.")
@click.option("-n", "--lines", type=click.IntRange(min=1), default=100, show_default=True, help="Number of lines.")
def logs(name: str | None, engine: int | None, lines: int) -> None:
    """Show the last lines of a cluster's log, or of the output of one of its engines.

    The log of a cluster that has died stays until a cluster of the same name is started. The log of a batch job stays
    in the job's folder.
    """
    if engine is not None:
        with attached(name, "logs") as client:
            paths = _engine_logs(client, engine)
    else:
        paths = [_log_of(name, Registry())]
    shown = [line for path in paths for line in _last_lines(path, lines)]
    for line in shown:
        click.echo(line)
    if not shown:
        click.echo(f"nothing has been written yet: {' and '.join(paths)} {_are_empty(paths)}", err=True)


def _are_empty(paths: Sequence[str]) -> str:
    return "is empty" if len(paths) == 1 else "are empty"


def _log_of(name: str | None, registry: Registry) -> str:
    """Return the path of the log of a cluster's process, which may have died."""
    living = registry.records()
    if name is None or any(record.name == name for record in living):
        record = registry.find(name)
        if record.state == "runs" and not record.log:
            where = "is a program of yours" if record.program is not None else "runs at a terminal"
            raise click.ClickException(f"{record.name!r} keeps no log: it {where}, and writes there")
        return record.log or os.fspath(registry.log_path(record.name))
    places = [registry.log_path(name), job_folder(registry, name) / "job.log"]
    if (log := next((path for path in places if path.exists()), None)) is not None:
        return os.fspath(log)
    missing = not_found(name, living)
    raise click.ClickException(f"{missing}. Nor is there a log of an earlier cluster of that name")


def _engine_logs(client: Client, engine_id: int) -> list[str]:
    engine = client.session.directory.get(engine_id)
    if engine is None:
        raise NoSuchEngine(engine_id, client.ids)
    if engine.output_path is None:
        raise click.ClickException(f"engine {engine_id} keeps no output: its program writes where you have started it")
    if not os.path.exists(f"{engine.output_path}.stdout"):
        raise click.ClickException(f"engine {engine_id} writes on {engine.host}, into {engine.output_path}.stdout")
    return [f"{engine.output_path}.{stream}" for stream in ("stdout", "stderr")]


def _last_lines(path: str, count: int) -> Sequence[str]:
    try:
        with open(path, errors="replace", newline="\n") as file:
            return deque((_readable(line.rstrip("\n")) for line in file), maxlen=count)
    except FileNotFoundError:
        raise click.ClickException(f"there is no log at {path}") from None


def _readable(line: str) -> str:
    """Return a line of a log as a terminal would show it: without overwritten text and control codes.

    Colours stay if standard output is a terminal.
    """
    line = line.rstrip("\r").rpartition("\r")[2]  # the last state of a progress bar
    is_coloured = sys.stdout.isatty()
    parts = _COLOUR.split(line)  # text and colour codes alternate
    return "".join(is_coloured * part if i % 2 else printable(without_escapes(part)) for i, part in enumerate(parts))


def _summary(record: ClusterRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "state": "running" if record.state == "runs" else record.state,
        "host": record.owner.host,
        "pid": record.owner.pid,
        "started": record.started,
        "origin": record.origin,
        "address": None if record.connection is None else record.connection.address,
        "log": record.log,
    }


def _age(started: float) -> str:
    return time_in_words(time.time() - started)


_ADVICE = "Remove the cause, and add it again"


class _Engines(PlainErrors):
    """Group of engine commands that explains ``--cluster`` to users who type the cluster's name as an argument.

    Other commands take the name as their first argument; here the first argument is a subcommand.
    """

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(
                f"there is no command {args[0]!r}; the commands are {', '.join(self.list_commands(ctx))}. A cluster is "
                f"named with --cluster, as in: nsactors engines --cluster {args[0]}"
            )
        return super().resolve_command(ctx, args)


def _of_cluster(command: Callable[..., Any]) -> Callable[..., Any]:
    """Pass the name of the cluster to a subcommand; ``--cluster NAME`` may come before or after the subcommand."""

    @click.pass_obj
    @functools.wraps(command)
    def called(name: str | None, /, *args: Any, here: str | None, **kwargs: Any) -> Any:
        return command(here or name, *args, **kwargs)

    with_option: Callable[..., Any] = click.option("-c", "--cluster", "here", metavar="NAME", hidden=True)(called)
    return with_option


@click.group(cls=_Engines, invoke_without_command=True, short_help="List, start, end or restart engines.")
@cluster_option
@click.pass_context
def engines(context: click.Context, name: str | None) -> None:
    """List, start, end or restart engines.

    Without a subcommand, lists the engines. Subcommands take ENGINES as 3, 0,2 or ::2 or all.
    """
    context.obj = name
    if context.invoked_subcommand is None:
        context.invoke(list_engines, as_json=False)


@engines.command("list")
@json_option
@_of_cluster
def list_engines(name: str | None, /, as_json: bool) -> None:
    """List the engines, with their machines and processes."""
    with attached(name, "engines") as client:
        seen = client.activity().engines
    if as_json:
        return print_json([engine._asdict() for engine in seen])
    print_table(["engine", "host", "process", "state"], [[e.engine_id, e.host, e.pid or "", e.state] for e in seen])


@engines.command(short_help="Start N more engines.")
@click.argument("n", type=click.IntRange(min=1))
@click.option(
    "--recovery",
    type=click.Choice(["restart", "replay", "none"]),
    help="For new engines that die: restart with an empty namespace, replay to restore it, or none.",
)
@click.option("--on", metavar="HOST", help="The machine for the new engines.")
@click.option("--num-cpus", type=FiniteRange(min=0), help="Cores that each new engine reserves in Ray.")
@click.option("--num-gpus", type=FiniteRange(min=0), help="GPUs for each new engine.")
@click.option("--no-wait", is_flag=True, help="Return before the engines are ready.")
@_of_cluster
def add(name: str | None, /, n: int, no_wait: bool, **options: Any) -> None:
    """Start N more engines, with the cluster's own options unless you give others.

    Exits with status 1 if some engines fail to start, or if no machine has room for them yet.
    """
    from nsactors.cluster.cluster import AttachedCluster

    record = the_cluster(name)
    with attached(record.name, "engines add") as client:
        given = {option: value for option, value in options.items() if value is not None}
        with plain_refusals():
            ids = AttachedCluster(client, record.options).start_engines(n, **given)
        problems = {} if no_wait else _wait_for(client, ids)
    if there := [engine_id for engine_id in ids if engine_id not in problems]:
        click.echo(f"{'requested' if no_wait else 'added'}: {engine_ranges(there)}")
    if problems:
        raise click.ClickException("\n".join(map(str, problems.values())))


def _wait_for(client: Client, ids: Sequence[int]) -> dict[int, EngineStartError]:
    """Wait for engines; return the errors of those that did not start, by id."""
    session, directory = client.session, client.session.directory
    directory.wait_for(len(directory.ids) + len(directory.starting), None, patient=False)
    session.check()
    failed = {engine_id: error.with_advice(_ADVICE) for engine_id, error in directory.start_failures.items()}
    problems = {**failed, **without_place(client)}
    return {engine_id: problems[engine_id] for engine_id in ids if engine_id in problems}


@engines.command()
@click.argument("targets", type=TARGETS)
@click.option("--now", is_flag=True, help="Interrupt their work.")
@_of_cluster
def remove(name: str | None, /, targets: Targets, now: bool) -> None:
    """Let ENGINES finish their work, and end them."""
    from nsactors.cluster.cluster import AttachedCluster

    with attached(name, "engines remove") as client:
        AttachedCluster(client, {}).stop_engines(targets, finish=not now)
        _show_engines(client)


@engines.command(short_help="Restart ENGINES as new processes.")
@click.argument("targets", type=TARGETS, default="all")
@click.option("--recover", is_flag=True, help="Restore their namespaces, if the cluster has recovery 'replay'.")
@_of_cluster
def restart(name: str | None, /, targets: Targets, recover: bool) -> None:
    """End ENGINES, busy or not, and start new processes in their place."""
    from nsactors.cluster.cluster import AttachedCluster

    with attached(name, "engines restart") as client:
        AttachedCluster(client, {}).restart_engines(targets, recover=recover)
        client.wait_for_engines()
        _show_engines(client)


def _show_engines(client: Client) -> None:
    click.echo(f"The cluster now has {engine_ranges(client.ids)}.")


@click.command(short_help="Interrupt the engines' code, as Ctrl-C does.")
@cluster_argument_or_option
@targets_option
def interrupt(name: str | None, targets: Targets) -> None:
    """Interrupt the code that engines run, as Ctrl-C does; their namespaces stay."""
    with attached(name, "interrupt") as client:
        busy = {engine.engine_id for engine in client.activity().engines if engine.runs}
        told = client.interrupt(targets)
    if interrupted := busy.intersection(told):
        click.echo(f"interrupted: {engine_ranges(interrupted)}")
    else:
        click.echo(f"nothing runs on {engine_ranges(told)}")


@click.command(short_help="Show the work of all engines, live.")
@cluster_argument_or_option
@click.option("--seconds", type=FiniteRange(min=0), help="End after so many seconds; the default is to run until q.")
def top(name: str | None, seconds: float | None) -> None:
    """Show each engine's request, its client, and the CPU and memory it uses, until q or Ctrl-C.

    A terminal of less than 120 columns shows no nodes, clients and last errors. CPU is in percent of one core. If the
    output goes to a file or a pipe, each change is printed as a line.
    """
    from nsactors.client.activity import watch

    title = Path(name).stem if name else the_cluster(None).name
    with attached(name, "top") as client:
        watch(client.session.controller, seconds, title=title)


@click.command(short_help="Show the code that engines run now.")
@cluster_argument_or_option
@targets_option
@click.option("--threads", is_flag=True, help="Also show threads that the engines' code has started.")
@click.option(
    "--native", is_flag=True, help="Also show functions of C code; needs py-spy, which stops engines while it reads."
)
@click.option("--disturb", is_flag=True, help="Send a signal to engines that cannot be read otherwise.")
@json_option
def stack(name: str | None, targets: Targets, threads: bool, native: bool, disturb: bool, as_json: bool) -> None:
    """Show the code that each engine runs now; equal stacks are shown once.

    Engines reply immediately, however busy they are. An engine whose interpreter is held by C code is read from outside
    by py-spy, an optional package: pip install nsactors[inside]. The signal that --disturb sends may cut short a system
    call made by C code.
    """
    with attached(name, "stack") as client:
        stacks = client.stack(targets, threads=threads, native=native, disturb=disturb)
    if as_json:
        return print_json(stacks.as_dict())
    print_rich(stacks)
