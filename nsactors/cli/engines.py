"""``engines`` and ``interrupt``: what a cluster consists of, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from nsactors.cli.common import (
    TARGETS,
    PlainErrors,
    attached,
    cluster_argument,
    cluster_option,
    json_option,
    plain_refusals,
    print_json,
    print_table,
    targets_option,
    the_cluster,
    without_place,
)
from nsactors.core.targets import Targets
from nsactors.errors import EngineStartError, engine_ranges

if TYPE_CHECKING:
    from nsactors.client import Client

__all__ = ["engines", "interrupt"]

_ADVICE = "Remove the cause, and add it again"


@click.group(cls=PlainErrors, invoke_without_command=True)
@cluster_option
@click.pass_context
def engines(context: click.Context, name: str | None) -> None:
    """List engines, start more, end or restart some.

    Without a command it lists them. Engines are named as 3, 0,2 or ::2 or all.
    """
    context.obj = name
    if context.invoked_subcommand is None:
        context.invoke(list_engines, as_json=False)


@engines.command("list")
@json_option
@click.pass_obj
def list_engines(name: str | None, /, as_json: bool) -> None:
    """List them, with their machines and processes."""
    with attached(name, "engines") as client:
        seen = client.activity().engines
    if as_json:
        return print_json([engine._asdict() for engine in seen])
    print_table(["engine", "host", "process", "state"], [[e.engine_id, e.host, e.pid or "", e.state] for e in seen])


@engines.command()
@click.argument("n", type=click.IntRange(min=1))
@click.option("--recovery", type=click.Choice(["restart", "replay", "none"]), help="What becomes of one that dies.")
@click.option("--on", metavar="HOST", help="The machine they are to be on.")
@click.option("--num-cpus", type=click.FloatRange(min=0), help="Cores that each counts for.")
@click.option("--num-gpus", type=click.FloatRange(min=0), help="GPUs that each gets.")
@click.option("--no-wait", is_flag=True, help="Do not wait until they are there.")
@click.pass_obj
def add(name: str | None, /, n: int, no_wait: bool, **options: Any) -> None:
    """Start N more, as those of this cluster were started unless you say otherwise.

    Exits with status 1 if some cannot start, or have no place: the latter start when they have one.
    """
    from nsactors.cluster.attached import AttachedCluster

    record = the_cluster(name)
    with attached(record.name, "engines add") as client:
        given = {option: value for option, value in options.items() if value is not None}
        with plain_refusals():
            ids = AttachedCluster(client, record.options).start_engines(n, **given)
        problems = {} if no_wait else _wait_for(client, ids)
    if there := [engine_id for engine_id in ids if engine_id not in problems]:
        click.echo(f"{'asked for' if no_wait else 'added'}: {engine_ranges(there)}")
    if problems:
        raise click.ClickException("\n".join(map(str, problems.values())))


def _wait_for(client: Client, ids: Sequence[int]) -> dict[int, EngineStartError]:
    """Wait for engines; those that do not come, and why."""
    session, roster = client.session, client.session.roster
    roster.wait_for(len(roster.ids) + len(roster.starting), None, patient=False)
    session.check()
    failed = {engine_id: error.with_advice(_ADVICE) for engine_id, error in roster.start_failures.items()}
    problems = {**failed, **without_place(client)}
    return {engine_id: problems[engine_id] for engine_id in ids if engine_id in problems}


@engines.command()
@click.argument("targets", type=TARGETS)
@click.option("--now", is_flag=True, help="Do not let them finish what they have to do.")
@click.pass_obj
def remove(name: str | None, /, targets: Targets, now: bool) -> None:
    """Let ENGINES finish what they have to do, and end them."""
    from nsactors.cluster.attached import AttachedCluster

    with attached(name, "engines remove") as client:
        AttachedCluster(client, {}).stop_engines(targets, finish=not now)
        click.echo(f"left: {engine_ranges(client.ids)}" if client.ids else "no engine is left")


@engines.command()
@click.argument("targets", type=TARGETS, default="all")
@click.option("--recover", is_flag=True, help="Bring their namespaces back, if the cluster keeps them.")
@click.pass_obj
def restart(name: str | None, /, targets: Targets, recover: bool) -> None:
    """End ENGINES, whatever they are doing, and start new processes in their place."""
    from nsactors.cluster.attached import AttachedCluster

    with attached(name, "engines restart") as client:
        AttachedCluster(client, {}).restart_engines(targets, recover=recover)
        client.wait_for_engines()
        click.echo(f"there: {engine_ranges(client.ids)}")


@click.command()
@cluster_argument
@targets_option
def interrupt(name: str | None, targets: Targets) -> None:
    """Interrupt what engines run, as Ctrl-C does; their namespaces stay."""
    with attached(name, "interrupt") as client:
        told = client.interrupt(targets)
    click.echo(f"interrupted: {engine_ranges(told)}")
