"""``nsactors launch``: clusters by a batch system, and on Ray's own cluster launcher."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from nsactors.cli.common import checked, job_folder, plain_refusals
from nsactors.errors import ClusterNameTaken, bytes_from_words
from nsactors.transport.registry import check_name

__all__ = ["launch"]


@click.group()
def launch() -> None:
    """Start a cluster by a batch system, or by Ray's cluster launcher.

    For this machine alone, or for hosts that ssh reaches, see: nsactors start --help
    """


def _batch(name: str, system: str, submit: str) -> click.Command:
    @click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="How many nodes.")
    @click.option(
        "--engines-per-node",
        type=click.IntRange(0),
        default=0,
        help="How many engines on each; the default is one for each core that the job has there.",
    )
    @click.option(
        "--name", default=name, show_default=True, callback=checked(check_name), help="What clients call the cluster."
    )
    @click.option(
        "--recovery",
        type=click.Choice(["restart", "replay", "none"]),
        default="restart",
        show_default=True,
        help="What becomes of engines that die; with `replay`, a later job can go on.",
    )
    @click.option(
        "--journal",
        type=click.Choice(["local", "sync"]),
        default="local",
        show_default=True,
        help="With `sync` and replay, what was answered is never lost with a node.",
    )
    @click.option("--continue", "goes_on", is_flag=True, help="Go on with the engines that the last job has saved.")
    @click.option("--fresh", is_flag=True, help="Forget the engines that the last job has saved.")
    @click.option(
        "--warning",
        "warning_s",
        type=click.IntRange(1),
        default=120,
        show_default=True,
        help="Seconds before the time limit at which engines are saved.",
    )
    @click.option(
        "--object-store-memory",
        callback=checked(bytes_from_words),
        help="Of each node, such as 2GB; the default is a third of its memory.",
    )
    @click.option("--folder", type=click.Path(path_type=Path), help="For the job's files; all nodes must see it.")
    @click.option("--python", default=sys.executable, help="The interpreter on the nodes; the default is this one.")
    @click.option("--template", type=click.File(), help="A batch script with @names for what is filled in.")
    @click.option("--show", is_flag=True, help="Print the batch script, and submit nothing.")
    @click.option("--wait/--no-wait", default=True, show_default=True, help="Return when clients can attach.")
    @click.argument("options", nargs=-1)
    def submit_job(**given: Any) -> None:
        _submit(name, **given)

    text = f"""Start a cluster as a job of {system}.

    Writes a batch script, submits it with `{submit}`, and waits until clients can attach. Engines appear as nodes join,
    and end with the job. OPTIONS behind `--` are those of {submit}: nsactors launch {name} --nodes 4 -- --time=2:00:00
    """
    return click.command(name, help=text)(submit_job)


for _name, _system, _submits in (
    ("slurm", "Slurm", "sbatch"),
    ("pbs", "PBS", "qsub"),
    ("sge", "Grid Engine", "qsub"),
    ("lsf", "LSF", "bsub"),
):
    launch.add_command(_batch(_name, _system, _submits))


@launch.command("join")
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), help="Of the job's files, if not the usual one.")
def join(name: str, folder: Path | None) -> None:
    """Let programs on this machine attach to the cluster NAME, which runs as a batch job.

    For a login node, which is none of the job's nodes: runs a process of Ray's here, without engines, until Ctrl-C or
    the end of the job.
    """
    from nsactors.cluster.node import take_part
    from nsactors.transport.ray_node import NodePlan
    from nsactors.transport.registry import Registry

    plan = (folder or job_folder(Registry(), name)) / "node.json"
    if not plan.exists():
        raise click.ClickException(f"no job of yours is the cluster {name!r}: there is no {plan}")
    told = take_part(NodePlan.from_json(plan.read_text()), lambda: click.echo(f"this machine takes part in {name!r}"))
    if not told:
        raise click.ClickException(f"the cluster {name!r} has ended")


@launch.command("ray")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("-n", "engines", type=click.IntRange(0), help="How many engines; the default is one a core of the head.")
@click.option(
    "--name", default="lab", show_default=True, callback=checked(check_name), help="What clients call the cluster."
)
@click.option("--recovery", type=click.Choice(["restart", "replay", "none"]), help="What becomes of engines that die.")
@click.option(
    "--num-cpus", type=click.FloatRange(min=0), help="Cores that each engine asks for: nodes come as they are needed."
)
def launch_ray(config: Path, engines: int | None, name: str, recovery: str | None, num_cpus: float | None) -> None:
    """Start a cluster on Ray's cluster launcher.

    Brings up what CONFIG describes, by `ray up`, and starts engines there. Their cluster lives on the head node, and
    so do its clients.
    """
    from nsactors.cluster.ray_launcher import HEAD, RayLauncher

    launcher = RayLauncher(config)
    launcher.bring_up()
    given = {"-n": engines, "--recovery": recovery, "--num-cpus": num_cpus}
    options = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    launcher.run_on_head(["nsactors", "start", "--name", name, "--address", HEAD, *options])
    click.echo(
        f"the cluster {name!r} is up. Attach on its head node: `ray attach {config}`, then `nsactors console {name}`.\n"
        f"End it with `ray down {config}`"
    )


def _submit(
    scheduler: str,
    *,
    nodes: int,
    engines_per_node: int,
    name: str,
    recovery: str,
    journal: str,
    goes_on: bool,
    fresh: bool,
    warning_s: int,
    object_store_memory: str | None,
    folder: Path | None,
    python: str,
    template: Any,
    show: bool,
    wait: bool,
    options: tuple[str, ...],
) -> None:
    from nsactors.cluster.job import JobPlan
    from nsactors.cluster.resources import store_bytes
    from nsactors.cluster.submitting import Submission
    from nsactors.core.batch import BatchJob
    from nsactors.transport.registry import Registry

    registry = Registry()
    folder = (folder or job_folder(registry, name)).absolute()
    job = BatchJob(name, nodes, engines_per_node, str(folder), python, options, warning_s)
    kept = {"recovery": recovery, "journal": journal}
    with plain_refusals():
        plan = JobPlan(name, nodes, engines_per_node, store_bytes(object_store_memory, None), kept)
        submission = Submission(scheduler, job, plan, template and template.read())
    if show:
        return click.echo(submission.script, nl=False)
    for record in registry.records():
        if record.name == name:
            raise ClusterNameTaken(name, None if record.owner.is_here else record.owner.host)
    if submission.saved and not (goes_on or fresh):
        raise click.ClickException(
            f"an earlier job has saved its engines in {folder / 'state'}: go on with them by --continue, or forget "
            "them by --fresh"
        )
    if goes_on and not submission.saved:
        raise click.ClickException(f"no job has saved engines in {folder / 'state'}: leave out --continue")
    if fresh:
        submission.forget()
    submission.submit()
    click.echo(f"job {submission.job_id} is in the queue: {submission.folder / 'job.sh'}")
    if not wait:
        return None
    try:
        submission.wait(registry)
    except KeyboardInterrupt:
        raise click.ClickException(f"the job stays in the queue; `{submission.cancel_command}` takes it out") from None
    click.echo(f"the cluster {name!r} is up. Attach with `nsactors console {name}`, or in Python: Client({name!r})")
    return None
