"""Batch scripts and the answers of batch systems, by value."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.cluster.batch import BATCH_SYSTEMS, BatchJob, batch_script

TEMPLATES = Path(__file__).parents[3] / "nsactors" / "cluster" / "templates"
JOB = BatchJob("lab", 4, 8, "/home/ann/jobs/lab", "/usr/bin/python3", ("--time=2:00:00", "-p", "debug"), warning_s=150)


def script(system: str, job: BatchJob = JOB) -> str:
    return batch_script((TEMPLATES / f"{system}.sh").read_text(), job, BATCH_SYSTEMS[system])


def test_a_slurm_script_asks_for_the_nodes_the_warning_and_what_the_user_wants() -> None:
    directives = [line for line in script("slurm").splitlines() if line.startswith("#SBATCH")]
    assert directives == [
        "#SBATCH --job-name=lab",
        "#SBATCH --nodes=4",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --output=/home/ann/jobs/lab/job.log",
        "#SBATCH --open-mode=append",
        "#SBATCH --signal=B:USR1@150",
        "#SBATCH --propagate=NONE",
        "#SBATCH --time=2:00:00",
        "#SBATCH -p debug",
    ]


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_a_script_starts_the_other_nodes_and_then_becomes_the_cluster(system: str) -> None:
    text = script(system)
    assert "/usr/bin/python3 -m nsactors.cluster.node /home/ann/jobs/lab/node.json" in text
    assert text.endswith("exec /usr/bin/python3 -m nsactors.cluster.batch_job /home/ann/jobs/lab\n")
    assert f"{BATCH_SYSTEMS[system].directive} -p debug" in text


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_the_job_and_the_other_nodes_run_the_copy_of_the_package_in_the_jobs_folder(system: str) -> None:
    before, _, after = script(system).partition(
        "\nexport PYTHONPATH=/home/ann/jobs/lab/package${PYTHONPATH:+:$PYTHONPATH}\n"
    )
    assert "nsactors.cluster" not in before
    assert "nsactors.cluster.node " in after
    # Slurm hands the variables on; the commands of the others may not.
    assert system == "slurm" or 'env PYTHONPATH="$PYTHONPATH" /usr/bin/python3 -m nsactors.cluster.node ' in after


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_no_script_holds_a_secret_or_ends_what_is_others(system: str) -> None:
    text = script(system)
    assert "token" not in text.lower()
    assert "ray stop" not in text
    assert "symmetric-run" not in text


def test_the_warning_is_given_in_minutes_where_those_are_wanted() -> None:
    assert "#BSUB -wt 3\n" in script("lsf")


@given(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1))
def test_a_folder_of_any_name_is_one_word_of_the_shell(name: str) -> None:
    job = BatchJob("lab", 1, 1, f"/scratch/{name}", "/usr/bin/python3")
    last = script("slurm", job).rstrip("\n").rpartition("\n")[2]
    assert shlex.split(last) == ["exec", "/usr/bin/python3", "-m", "nsactors.cluster.batch_job", f"/scratch/{name}"]


@pytest.mark.parametrize("field", ["name", "folder", "python"])
def test_a_line_break_cannot_smuggle_a_line_into_the_script(field: str) -> None:
    job = BatchJob(**{"name": "lab", "nodes": 1, "engines": 1, "folder": "/f", "python": "/p", field: "a\nrm -rf ~"})
    with pytest.raises(ValueError, match="line break"):
        script("slurm", job)


def test_a_template_of_ones_own_is_told_which_names_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"asks for @queue; there are cores, folder, name, nodes, options, package, python"
    ):
        batch_script("#SBATCH -p @queue", JOB, BATCH_SYSTEMS["slurm"])


@pytest.mark.parametrize(
    ("system", "answer", "job"),
    [
        ("slurm", "4711\n", "4711"),
        ("slurm", "4711;east\n", "4711"),
        ("pbs", "4711.server.example.org\n", "4711.server.example.org"),
        ("sge", "4711\n", "4711"),
        ("lsf", "Job <4711> is submitted to queue <normal>.\n", "4711"),
    ],
)
def test_the_id_of_a_job_is_found_in_what_the_batch_system_answers(system: str, answer: str, job: str) -> None:
    assert BATCH_SYSTEMS[system].job_of(answer) == job


def test_an_answer_without_an_id_is_shown() -> None:
    with pytest.raises(ValueError, match="sbatch printed no job id: 'try again later'"):
        BATCH_SYSTEMS["slurm"].job_of("try again later\n")
