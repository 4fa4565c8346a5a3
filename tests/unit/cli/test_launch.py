"""``nsactors launch`` as it is typed, with commands in place of the batch system's."""

import functools
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import distribution, version
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nsactors import __version__
from nsactors.cli import main
from nsactors.cli.launch import launch as launch_group
from nsactors.cluster import ray_launcher
from nsactors.cluster.batch import BATCH_SYSTEMS
from nsactors.cluster.batch_job import COPIES
from nsactors.cluster.own_wheel import own_wheel, wheel_name
from nsactors.cluster.ray_launcher import EXAMPLES, RayLauncher, example
from nsactors.errors import LaunchError
from nsactors.transport.base import ConnectionInfo
from nsactors.transport.registry import Registry

Launch = Callable[..., Result]
Fake = Callable[[str, str], None]

same_wheel = functools.cache(own_wheel)
SCHEMA = Path("ray", "autoscaler", "ray-schema.json")


# In place of the command for the state of a job: as the real one behaves for an unknown job, and without an answer.
UNKNOWN = {
    "slurm": "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1",
    "pbs": "echo 'qstat: Unknown Job Id 4711.desk' >&2; exit 153",
    "sge": "exit 0",  # lists the user's jobs, and there is none
    "lsf": "echo 'Job <4711> is not found' >&2; exit 255",
}
SILENT = {
    "slurm": "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
    "pbs": "echo 'qstat: cannot connect to server desk (errno=111)' >&2; exit 111",
    "sge": "echo 'error: unable to send message to qmaster using port 6444: got send error' >&2; exit 1",
    "lsf": "echo 'LSF is down. Please wait ...' >&2; exit 255",
}
SUBMIT = {"slurm": "sbatch", "pbs": "qsub", "sge": "qsub", "lsf": "bsub"}
STATE = {system: BATCH_SYSTEMS[system].state[0] for system in SUBMIT}
SUBMITTED = {"slurm": "echo 4711", "pbs": "echo 4711.desk", "sge": "echo 4711", "lsf": "echo 'Job <4711> is submitted'"}
every_system = pytest.mark.parametrize("system", SUBMIT)


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Types a command; the user's files are in ``tmp_path``, and there is no batch system but the fake one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr("nsactors.cluster.own_wheel.own_wheel", same_wheel)  # packed once, not for each job
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").symlink_to("/bin/false")
    (tmp_path / "bin" / "squeue").write_text(f"#!/bin/sh\n{UNKNOWN['slurm']}\n")
    (tmp_path / "bin" / "squeue").chmod(0o755)
    return lambda *words: CliRunner().invoke(main, ["launch", *words])


@pytest.fixture
def fake(tmp_path: Path, launch: Launch) -> Fake:
    """Puts a shell script in the place of a command."""

    def put(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return put


def job_folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "nsactors" / "jobs" / "lab"


def test_each_batch_system_has_a_command() -> None:
    assert [name for name in launch_group.commands if name not in ("join", "ray")] == list(BATCH_SYSTEMS)


def test_show_prints_the_script_and_submits_nothing(launch: Launch, tmp_path: Path) -> None:
    shown = launch("slurm", "--name", "lab", "--nodes", "4", "--show", "--", "--time=2:00:00")
    assert shown.exit_code == 0
    assert "#SBATCH --nodes=4\n" in shown.output
    assert "#SBATCH --time=2:00:00\n" in shown.output
    assert not job_folder(tmp_path).exists()


def test_the_script_and_its_plan_are_written_and_submitted(launch: Launch, fake: Fake, tmp_path: Path) -> None:
    fake("sbatch", f"cat > {tmp_path}/submitted; echo 4711")
    command = "slurm --name lab --nodes 2 --engines-per-node 8 --recovery replay --no-wait"
    done = launch(*command.split())
    assert done.exit_code == 0, done.output
    assert "job 4711 is in the queue" in done.output
    script = (job_folder(tmp_path) / "job.sh").read_text()
    assert (tmp_path / "submitted").read_text() == script
    plan = json.loads((job_folder(tmp_path) / "job.json").read_text())
    assert (plan["name"], plan["nodes"], plan["engines"]) == ("lab", 2, 8)
    assert plan["options"] == {"recovery": "replay", "journal": "local"}
    assert stat.S_IMODE(job_folder(tmp_path).stat().st_mode) == 0o700


def test_the_engines_of_a_job_with_mpi_know_the_launcher_of_their_ranks(
    launch: Launch, fake: Fake, tmp_path: Path
) -> None:
    fake("sbatch", "cat > /dev/null; echo 4711")
    assert launch("slurm", "--name", "lab", "--mpi", "pmix", "--no-wait").exit_code == 0
    plan = json.loads((job_folder(tmp_path) / "job.json").read_text())
    assert plan["options"]["environment"] == {"NSACTORS_MPI": "srun --overlap --overcommit --mpi=pmix"}
    assert "No such option" in launch("pbs", "--mpi", "pmix", "--show").output


def test_it_returns_when_the_job_says_how_to_attach(launch: Launch, fake: Fake) -> None:
    registry = Registry()
    registry.folder.mkdir(parents=True, mode=0o700)
    # In place of a job: this process, whose cluster is up as soon as it has been submitted.
    record = registry.reserve("elsewhere")
    registry.remove(record)
    up = replace(record, name="lab", connection=ConnectionInfo("10.0.0.1:6379", "nsactors-x"))
    registry.update(up)
    text = (registry.folder / "lab.json").read_text()
    registry.remove(up)
    fake("sbatch", f"umask 077; cat > /dev/null; echo '{text}' > {registry.folder}/lab.json; echo 4711")
    done = launch("slurm", "--name", "lab")
    assert done.exit_code == 0, done.output
    assert "the cluster 'lab' is up" in done.output


def test_a_job_whose_home_folder_is_another_says_how_to_attach_by_a_file_in_its_own_folder(
    launch: Launch, fake: Fake, tmp_path: Path
) -> None:
    # In place of a job: this process, with a registry in another home folder.
    elsewhere = Registry(tmp_path / "elsewhere")
    up = replace(elsewhere.reserve("lab"), connection=ConnectionInfo("10.0.0.1:6379", "nsactors-x"))
    elsewhere.update(up)
    copies = job_folder(tmp_path) / COPIES
    fake("sbatch", f"cat > /dev/null; umask 077; cp -r {elsewhere.folder} {copies}; echo 4711")
    assert "the cluster 'lab' is up" in launch("slurm", "--name", "lab").output
    assert Registry().find("lab") == replace(up, copied_from=str(copies / "lab.json"))
    shutil.rmtree(copies)  # as the job does at its end
    assert Registry().records() == []


def test_a_job_that_ends_before_it_is_up_is_told_with_its_log(
    launch: Launch, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.cluster.batch.GONE_AFTER_S", 0.0)
    fake("sbatch", f"cat > /dev/null; echo 'no such module: ray' > {job_folder(tmp_path)}/job.log; echo 4711")
    done = launch("slurm", "--name", "lab")
    assert done.exit_code == 1
    assert "job 4711 has ended before its cluster was up" in done.output
    assert "no such module: ray" in done.output


@pytest.mark.parametrize(
    ("system", "answer"),
    [
        ("lsf", "EXIT"),  # for an hour
        ("lsf", "DONE"),
        ("slurm", "COMPLETED"),  # with SQUEUE_STATES=all
        ("slurm", "CANCELLED"),
        ("pbs", "Job Id: 4711.desk\n    Job_Name = lab\n    job_state = C"),  # Torque
        ("pbs", "Job Id: 4711.desk\n    job_state = F"),
    ],
)
def test_a_job_that_has_ended_and_is_still_known_is_told_to_have_ended(
    system: str, answer: str, launch: Launch, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.cluster.batch.GONE_AFTER_S", 0.0)
    fake(SUBMIT[system], f"cat > /dev/null; {SUBMITTED[system]}")
    fake(STATE[system], f"echo '{answer}'")
    done = launch(system, "--name", "lab")
    assert done.exit_code == 1
    assert re.search(r"job 4711\S* has ended before its cluster was up", done.output)


QUEUE = """job-ID  prior   name       user         state submit/start at     queue    slots ja-task-ID
--------------------------------------------------------------------------------------------
   {job} 0.50000 lab        ann          {state}     12/01/2026 12:43:19 all.q@n1     2"""


@pytest.mark.parametrize(
    ("system", "answer"),
    [
        ("lsf", "PEND"),
        ("lsf", "UNKWN"),  # its host does not answer
        ("slurm", "COMPLETING"),  # its processes may still be saving the engines
        ("pbs", "Job Id: 4711.desk\n    Job_Name = lab\n    job_state = Q"),
        ("pbs", "Job Id: 4711.desk\n    job_state = E"),
        ("sge", QUEUE.format(job=4711, state="qw")),
        ("sge", QUEUE.format(job=4711, state="dr")),
    ],
)
def test_an_earlier_job_that_has_not_ended_stands_in_the_way_of_another(
    system: str, answer: str, launch: Launch, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.cluster.batch.GONE_AFTER_S", 0.0)
    fake(SUBMIT[system], f"cat > /dev/null; {SUBMITTED[system]}")
    fake(STATE[system], f"echo '{answer}'")
    assert launch(system, "--name", "lab", "--no-wait").exit_code == 0
    refused = launch(system, "--name", "lab", "--no-wait")
    assert refused.exit_code == 1
    assert f"`{BATCH_SYSTEMS[system].cancel[0]} 4711" in refused.output


def test_a_job_of_grid_engine_that_is_not_listed_has_ended_although_its_details_are_known(
    launch: Launch, fake: Fake
) -> None:
    fake("qsub", "cat > /dev/null; echo 4711")
    # After `qdel -f`, while a host of the job has not reported.
    fake("qstat", f"case $* in *-j*) echo job_number: 4711;; *) echo '{QUEUE.format(job=47110, state='r')}';; esac")
    assert launch("sge", "--name", "lab", "--no-wait").exit_code == 0
    assert launch("sge", "--name", "lab", "--no-wait").exit_code == 0


def test_the_users_token_is_not_among_the_variables_of_a_job(
    launch: Launch, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    fake("sbatch", f"cat > /dev/null; env > {tmp_path}/variables; echo 4711")
    assert launch("slurm", "--name", "lab", "--no-wait").exit_code == 0
    assert "XDG_STATE_HOME=" in (tmp_path / "variables").read_text()
    assert "secret" not in (tmp_path / "variables").read_text()


def test_what_the_batch_system_refuses_is_told_in_its_words(launch: Launch, fake: Fake) -> None:
    fake("sbatch", "echo 'sbatch: error: invalid partition specified: fast' >&2; exit 1")
    done = launch("slurm", "--name", "lab")
    assert done.exit_code == 1
    assert "invalid partition specified: fast" in done.output


def test_a_machine_without_the_batch_system_is_told_so(launch: Launch) -> None:
    done = launch("lsf", "--name", "lab")
    assert done.exit_code == 1
    assert "there is no bsub on this machine" in done.output


@pytest.mark.parametrize(("option", "goes_on"), [("--continue", True), ("--fresh", False)])
def test_engines_of_an_earlier_job_are_gone_on_with_or_forgotten_but_never_by_chance(
    launch: Launch, fake: Fake, tmp_path: Path, option: str, goes_on: bool
) -> None:
    fake("sbatch", "cat > /dev/null; echo 4711")
    state = job_folder(tmp_path) / "state"
    state.mkdir(parents=True)
    asked = launch("slurm", "--name", "lab", "--no-wait")
    assert asked.exit_code == 1
    assert "--continue" in asked.output
    assert "--fresh" in asked.output
    assert launch("slurm", "--name", "lab", "--no-wait", option).exit_code == 0
    assert state.exists() is goes_on


def test_engines_of_an_earlier_job_stay_if_a_fresh_one_is_refused(launch: Launch, fake: Fake, tmp_path: Path) -> None:
    folder = job_folder(tmp_path)
    (folder / "state" / "nsactors-x").mkdir(parents=True)
    fake("sbatch", f"cat > /dev/null; ls -A {folder} > {tmp_path}/seen; exit 1")
    assert launch("slurm", "--name", "lab", "--no-wait", "--fresh").exit_code == 1
    assert "state" not in (tmp_path / "seen").read_text().split()  # by a job that begins at once
    assert (folder / "state" / "nsactors-x").is_dir()
    fake("sbatch", "cat > /dev/null; echo 4711")
    assert launch("slurm", "--name", "lab", "--no-wait", "--fresh").exit_code == 0
    assert [path.name for path in folder.iterdir() if "state" in path.name] == []


def test_a_copy_of_the_state_that_was_not_put_in_place_is_not_forgotten_by_chance(
    launch: Launch, fake: Fake, tmp_path: Path
) -> None:
    fake("sbatch", "cat > /dev/null; echo 4711")
    previous = job_folder(tmp_path) / ".state-previous"  # the process of the job was killed between two renames
    previous.mkdir(parents=True)
    assert "--continue" in launch("slurm", "--name", "lab", "--no-wait").output
    assert launch("slurm", "--name", "lab", "--no-wait", "--fresh").exit_code == 0
    assert not previous.exists()


def test_a_job_that_is_in_the_queue_keeps_its_plan(
    launch: Launch, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("sbatch", "cat > /dev/null; echo 4711")
    assert launch("slurm", "--name", "lab", "--nodes", "2", "--no-wait").exit_code == 0
    fake("squeue", 'test "$4" = 4711 && echo PENDING')
    monkeypatch.setattr("nsactors.cluster.batch.GONE_AFTER_S", 0.0)
    for system in ("slurm", "lsf"):
        refused = launch(system, "--name", "lab", "--nodes", "3", "--no-wait")
        assert refused.exit_code == 1
        assert "`scancel 4711` cancels it" in refused.output
    assert json.loads((job_folder(tmp_path) / "job.json").read_text())["nodes"] == 2


def test_a_job_that_is_ending_has_a_few_seconds(
    launch: Launch, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("sbatch", "cat > /dev/null; echo 4711")
    assert launch("slurm", "--name", "lab", "--no-wait").exit_code == 0
    ended = tmp_path / "ended"
    fake("squeue", f"test -e {ended} && exit; touch {ended}; echo COMPLETING")
    monkeypatch.setattr("nsactors.cluster.batch.LOOK_S", 0.0)
    monkeypatch.setattr("nsactors.cluster.batch.GONE_AFTER_S", 60.0)
    assert launch("slurm", "--name", "lab", "--no-wait").exit_code == 0


@every_system
def test_an_earlier_job_that_the_batch_system_does_not_know_is_over(system: str, launch: Launch, fake: Fake) -> None:
    fake(SUBMIT[system], f"cat > /dev/null; {SUBMITTED[system]}")
    fake(STATE[system], UNKNOWN[system])
    assert launch(system, "--name", "lab", "--no-wait").exit_code == 0
    assert launch(system, "--name", "lab", "--no-wait").exit_code == 0


@every_system
def test_a_batch_system_that_does_not_answer_is_not_taken_for_one_that_does_not_know_the_job(
    system: str, launch: Launch, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(SUBMIT[system], f"cat > /dev/null; {SUBMITTED[system]}")
    assert launch(system, "--name", "lab", "--no-wait").exit_code == 0
    monkeypatch.setattr("nsactors.cluster.batch.GONE_AFTER_S", 0.0)
    fake(STATE[system], SILENT[system])
    refused = launch(system, "--name", "lab", "--no-wait")
    assert refused.exit_code == 1
    assert "it is not known whether the cluster's earlier job 4711" in refused.output
    assert SILENT[system].split("'")[1] in refused.output
    assert f"If it has, remove {job_folder(tmp_path) / 'job_id'}" in refused.output


@every_system
def test_while_the_batch_system_does_not_answer_the_job_is_waited_for(
    system: str, launch: Launch, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.cluster.batch.GONE_AFTER_S", 0.0)
    monkeypatch.setattr("nsactors.cluster.batch.LOOK_S", 0.0)
    fake(SUBMIT[system], f"cat > /dev/null; {SUBMITTED[system]}")
    asked = tmp_path / "asked"
    fake(STATE[system], f"echo >> {asked}; test $(wc -l < {asked}) -lt 4 || {{ {UNKNOWN[system]}; }}\n{SILENT[system]}")
    done = launch(system, "--name", "lab")
    assert done.exit_code == 1
    assert done.output.count("it is not known whether job 4711") == 1
    assert "job 4711" in done.output.splitlines()[-1]
    assert "has ended before its cluster was up" in done.output
    assert len(asked.read_text()) >= 4


def test_there_has_to_be_something_to_go_on_with(launch: Launch) -> None:
    done = launch("slurm", "--name", "lab", "--continue")
    assert done.exit_code == 1
    assert "no job has saved engines" in done.output


def test_only_a_cluster_that_is_a_job_can_be_joined(launch: Launch) -> None:
    done = launch("join", "lab")
    assert done.exit_code == 1
    assert "you have no batch job for the cluster 'lab'" in done.output


def test_a_template_of_ones_own_takes_the_place_of_the_usual_one(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "own.sh").write_text("#!/bin/sh\n# @name on @nodes nodes\n")
    shown = launch("pbs", "--name", "lab", "--nodes", "3", "--template", str(tmp_path / "own.sh"), "--show")
    assert shown.output == "#!/bin/sh\n# lab on 3 nodes\n"


def test_an_empty_template_does_not_stand_for_the_usual_one(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "own.sh").write_text("\n")
    (tmp_path / "nothing.sh").write_text("")
    for name in ("own.sh", "nothing.sh"):
        shown = launch("pbs", "--name", "lab", "--template", str(tmp_path / name), "--show")
        assert shown.exit_code == 1
        assert "the template is empty" in shown.output


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_of_a_cluster_is_bound_to_a_token(name: str, tmp_path: Path) -> None:
    if name == "kuberay":
        assert "authOptions:\n    mode: token" in example(name)
    else:
        (tmp_path / "cluster.yaml").write_text(example(name))
        RayLauncher(tmp_path / "cluster.yaml", tmp_path / "token")


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "kuberay"])
def test_every_example_keeps_to_the_schema_of_rays_launcher(name: str) -> None:
    jsonschema, yaml = pytest.importorskip("jsonschema"), pytest.importorskip("yaml")  # Ray requires both
    schema = Path(str(distribution("ray").locate_file(SCHEMA))).read_text()
    jsonschema.validate(yaml.safe_load(example(name)), json.loads(schema))


# What the operator reads of the manifest, and the types of it: by its definition of a RayCluster.
OF_A_CLUSTER: dict[str, type] = {
    "rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": dict,
    "authOptions": dict,
    "headGroupSpec": dict,
    "workerGroupSpecs": list,
}
OF_A_GROUP: dict[str, type] = {"rayStartParams": dict, "template": dict}
OF_WORKERS: dict[str, type] = OF_A_GROUP | {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int}


def test_the_manifest_for_kuberay_has_the_fields_of_a_cluster_with_their_types() -> None:
    manifest = pytest.importorskip("yaml").safe_load(example("kuberay"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayCluster")
    spec = manifest["spec"]
    for part, fields in (
        (spec, OF_A_CLUSTER),
        (spec["headGroupSpec"], OF_A_GROUP),
        *((group, OF_WORKERS) for group in spec["workerGroupSpecs"]),
    ):
        assert {name: type(value) for name, value in part.items()} == fields
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container.keys() == {"name", "image", "env", "resources"}
        assert all(isinstance(value, str) for variable in container["env"] for value in variable.values())


@pytest.mark.skipif("NSACTORS_KUBERAY" not in os.environ, reason="NSACTORS_KUBERAY names no checkout of KubeRay")
def test_the_manifest_for_kuberay_keeps_to_its_definition_of_a_cluster() -> None:
    jsonschema, yaml = pytest.importorskip("jsonschema"), pytest.importorskip("yaml")
    definition = Path(os.environ["NSACTORS_KUBERAY"], "ray-operator/config/crd/bases/ray.io_rayclusters.yaml")
    versions = yaml.safe_load(definition.read_text())["spec"]["versions"]
    (schema,) = (version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1")
    jsonschema.validate(yaml.safe_load(example("kuberay")), without_other_fields(schema))


def without_other_fields(schema: object) -> object:
    """Return a schema of Kubernetes that refuses unknown fields, as its API server does under strict validation."""
    if isinstance(schema, list):
        return [without_other_fields(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: without_other_fields(part) for name, part in schema.items()}
    keeps_others = strict.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in strict
    if strict.get("type") == "object" and "properties" in strict and not keeps_others:
        strict["additionalProperties"] = False
    return strict


def test_an_example_is_printed_with_the_versions_that_are_installed(launch: Launch) -> None:
    shown = launch("ray", "--example", "aws")
    assert shown.exit_code == 0, shown.output
    assert shown.output == example("aws")
    ray = version("ray")
    assert f'"ray[default]=={ray}"' in shown.output
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    assert (
        f"FROM rayproject/ray:{ray}-{python}, and nsactors {__version__}"
        in launch("ray", "--example", "kuberay").output
    )


@pytest.mark.parametrize("words", [[], ["cluster.yaml", "--example", "aws"]])
def test_a_file_or_the_name_of_an_example_is_asked_for(launch: Launch, words: list[str]) -> None:
    asked = launch("ray", *words)
    assert asked.exit_code == 2
    assert "--example" in asked.output


@pytest.mark.parametrize("name", ["aws", "azure", "gcp"])
def test_machines_of_a_cloud_install_the_wheel_that_the_launcher_writes_for_them(name: str) -> None:
    text = example(name)
    assert '"~/.ray/nsactors": "~/.ray/nsactors"' in text
    assert f'  - pip install --quiet "ray[default]=={version("ray")}" ~/.ray/nsactors/*.whl\n' in text
    assert "pip install --quiet nsactors" not in text


def test_a_cluster_that_lets_everybody_in_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open.yaml"
    open_to_all.write_text("head_start_ray_commands: [ray start --head]\n")
    with pytest.raises(LaunchError, match="needs no token: put RAY_AUTH_MODE=token"):
        RayLauncher(open_to_all, tmp_path / "token")


def test_the_launcher_brings_it_up_with_a_token_and_starts_engines_on_its_head(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def run(command: list[str], **options: object) -> object:
        ran.append(command[3:])
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(ray_launcher.subprocess, "run", run)
    monkeypatch.setenv("HOME", str(tmp_path))
    config = str(tmp_path / "aws.yaml")
    Path(config).write_text(example("aws"))
    done = launch("ray", config, "-n", "16", "--num-cpus", "1", "--name", "sky")
    assert done.exit_code == 0, done.output
    assert ran == [
        ["up", "--yes", "--no-config-cache", config],
        [
            "exec",
            "--no-config-cache",
            config,
            "nsactors start --name sky --address localhost:6379 -n 16 --num-cpus 1.0",
        ],
    ]
    assert [wheel.name for wheel in (tmp_path / ".ray" / "nsactors").iterdir()] == [wheel_name()]
    token = tmp_path / ".ray" / "auth_token"
    assert len(token.read_text()) == 64
    assert stat.S_IMODE(os.stat(token).st_mode) == 0o600
