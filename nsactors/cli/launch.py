"""``nsactors launch``: clusters on a batch system, and on machines of Ray's cluster launcher."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from nsactors.cli.common import FiniteRange, checked, job_folder, plain_refusals
from nsactors.errors import ClusterNameTaken, bytes_from_words
from nsactors.transport.registry import check_name


@click.group(short_help="Start a cluster on a batch system, or on a cloud.")
def launch() -> None:
    """Start a cluster on a batch system, or with Ray's cluster launcher.

    For engines on this machine, or on hosts that ssh reaches, see: nsactors start --help
    """


def _batch_command(system: str, title: str, submit: str) -> click.Command:
    @click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="Number of nodes.")
    @click.option(
        "--engines-per-node",
        type=click.IntRange(0),
        default=0,
        help="Engines on each node; the default is one for each core that the job has there.",
    )
    @click.option(
        "--name", default=system, show_default=True, callback=checked(check_name), help="Name of the cluster."
    )
    @click.option(
        "--recovery",
        type=click.Choice(["restart", "replay", "none"]),
        default="restart",
        show_default=True,
        help="For engines that die: restart with an empty namespace, replay to restore it (a later job can also "
        "continue with it), or none.",
    )
    @click.option(
        "--journal",
        type=click.Choice(["local", "sync"]),
        default="local",
        show_default=True,
        help="With `sync` and recovery `replay`, the loss of a node loses no request that was answered.",
    )
    @click.option("--continue", "goes_on", is_flag=True, help="Continue with the engines that the last job saved.")
    @click.option("--fresh", is_flag=True, help="Delete the engines that the last job saved.")
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
        help="Size of each node's object store, such as 2GB; the default is a third of the node's memory.",
    )
    @click.option("--folder", type=click.Path(path_type=Path), help="Folder of the job's files; all nodes must see it.")
    @click.option("--python", default=sys.executable, help="The interpreter on the nodes; the default is this one.")
    @click.option("--template", type=click.File(), help="Template of the batch script, with @names for the values.")
    @click.option("--show", is_flag=True, help="Print the batch script, and submit nothing.")
    @click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until clients can attach.")
    @click.argument("options", nargs=-1)
    def submit_job(**given: Any) -> None:
        _submit(system, **given)

    if system == "slurm":
        with_mpi = click.option(
            "--mpi",
            metavar="TYPE",
            help="Let view.mpi() start the ranks with `srun --mpi=TYPE`, for an MPI of your site such as Open MPI; "
            "`srun --mpi=list` lists the types.",
        )
        submit_job = with_mpi(submit_job)

    text = f"""Start a cluster as a job of {title}.

    Writes a batch script, submits it with `{submit}`, and waits until clients can attach. Engines start as nodes join,
    and end with the job. OPTIONS behind `--` go to {submit}: nsactors launch {system} --nodes 4 -- --time=2:00:00
    """
    return click.command(system, help=text)(submit_job)


# These commands are not made from BATCH_SYSTEMS, because importing that would slow ``--help``.
for _system, _title, _submits in (
    ("slurm", "Slurm", "sbatch"),
    ("pbs", "PBS", "qsub"),
    ("sge", "Grid Engine", "qsub"),
    ("lsf", "LSF", "bsub"),
):
    launch.add_command(_batch_command(_system, _title, _submits))


@launch.command("join")
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), help="Folder of the job's files, if not the default.")
def join(name: str, folder: Path | None) -> None:
    """Let programs on this machine attach to the cluster NAME, which runs as a batch job.

    Use it on a login node, which does not belong to the job. It runs a Ray node without engines here, until Ctrl-C or
    the end of the job.
    """
    from nsactors.cluster.node import take_part
    from nsactors.errors import AccessRefused, ClusterUnreachable, ProcessLimit
    from nsactors.transport.ray.node_process import NodePlan
    from nsactors.transport.registry import Registry, way_inside

    plan = (folder or job_folder(Registry(), name)) / "node.json"
    if not plan.exists():
        raise click.ClickException(f"you have no batch job for the cluster {name!r}: there is no {plan}")
    with plain_refusals():
        node = NodePlan.from_json(plan.read_text())
    try:
        told = take_part(node, lambda: click.echo(f"this machine takes part in {name!r}"))
    except (ClusterUnreachable, AccessRefused, ProcessLimit) as error:
        way = next((way_inside(record) for record in Registry().records() if record.name == name), "")
        reason = error.reason if isinstance(error, ClusterUnreachable) else str(error)
        advice = f". But {way}" if way else ""
        raise click.ClickException(f"this machine cannot take part in {name!r}: {reason}{advice}") from error
    if not told:
        raise click.ClickException(f"the cluster {name!r} has ended")


@launch.command("ray")
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option(
    "--example",
    type=click.Choice(["aws", "azure", "gcp", "kuberay", "local"]),
    help="Print a file to begin with, with the versions that are installed here, and start nothing.",
)
@click.option("-n", "engines", type=click.IntRange(0), help="Number of engines; the default is the head node's cores.")
@click.option("--name", default="lab", show_default=True, callback=checked(check_name), help="Name of the cluster.")
@click.option(
    "--recovery",
    type=click.Choice(["restart", "replay", "none"]),
    help="For engines that die: restart with an empty namespace, replay to restore it, or none.",
)
@click.option(
    "--num-cpus", type=FiniteRange(min=0), help="Cores that each engine reserves; Ray adds nodes as engines need them."
)
def launch_ray(
    config: Path | None,
    example: str | None,
    engines: int | None,
    name: str,
    recovery: str | None,
    num_cpus: float | None,
) -> None:
    """Start a cluster with Ray's cluster launcher.

    Starts the machines that CONFIG describes with `ray up`, and then engines on them. The cluster is listed on the head
    node, where its clients run. A file to begin with: nsactors launch ray --example aws > cluster.yaml
    """
    from nsactors.cluster.ray_launcher import HEAD, RayLauncher
    from nsactors.cluster.ray_launcher import example as example_text

    if example is not None:
        if config is not None:
            raise click.UsageError("give either CONFIG or --example")
        return click.echo(example_text(example), nl=False)
    if config is None:
        raise click.UsageError("which CONFIG? A file to begin with: nsactors launch ray --example aws > cluster.yaml")
    launcher = RayLauncher(config)
    launcher.bring_up()
    given = {"-n": engines, "--recovery": recovery, "--num-cpus": num_cpus}
    options = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    launcher.run_on_head(["nsactors", "start", "--name", name, "--address", HEAD, *options])
    click.echo(
        f"the cluster {name!r} is up. Attach on its head node: `ray attach {config}`, then `nsactors console {name}`.\n"
        f"End it with `ray down {config}`"
    )
    return None


def _submit(
    system: str,
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
    mpi: str | None = None,
) -> None:
    from nsactors.cluster.batch import BatchJob, Submission
    from nsactors.cluster.batch_job import JobPlan
    from nsactors.cluster.options import engine_options
    from nsactors.protocol.engine_info import EngineOptions
    from nsactors.system.resources import store_bytes
    from nsactors.transport.registry import Registry

    registry = Registry()
    folder = (folder or job_folder(registry, name)).absolute()
    job = BatchJob(name, nodes, engines_per_node, str(folder), python, options, warning_s)
    kept: dict[str, Any] = {"recovery": recovery, "journal": journal}
    if mpi is not None:
        kept["environment"] = {"NSACTORS_MPI": f"srun --overlap --overcommit --mpi={mpi}"}
    with plain_refusals():
        engine_options(EngineOptions(), kept, in_threads=False)  # fails now, not when the job begins
        store = store_bytes(object_store_memory, None)
        plan = JobPlan(name, nodes, engines_per_node, store, kept, float(warning_s))
        submission = Submission(system, job, plan, template and template.read())
    if show:
        return click.echo(submission.script, nl=False)
    for record in registry.records():
        if record.name == name:
            raise ClusterNameTaken(name, None if record.owner.is_here else record.owner.host)
    if (cancel := submission.earlier_job()) is not None:
        raise click.ClickException(f"an earlier job for {name!r} is in the queue or runs: `{cancel}` cancels it")
    if submission.saved and not (goes_on or fresh):
        raise click.ClickException(
            f"an earlier job has saved its engines in {folder / 'state'}: continue with them (--continue), or "
            "delete them (--fresh)"
        )
    if goes_on and not submission.saved:
        raise click.ClickException(f"no job has saved engines in {folder / 'state'}: leave out --continue")
    submission.submit(fresh=fresh)
    click.echo(f"job {submission.job_id} is in the queue: {submission.folder / 'job.sh'}")
    if not wait:
        return None
    try:
        submission.wait(registry, tell=lambda text: click.echo(text, err=True))
    except KeyboardInterrupt:
        raise click.ClickException(f"the job stays in the queue; `{submission.cancel_command}` cancels it") from None
    click.echo(f"the cluster {name!r} is up. Attach with `nsactors console {name}`, or in Python: Client({name!r})")
    return None
