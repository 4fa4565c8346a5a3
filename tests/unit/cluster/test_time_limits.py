"""The time that batch systems leave a job, from their answers."""

import os
from pathlib import Path

import pytest

from nsactors.cluster.time_limits import left_in_answer, time_left_s

PBS = """Job Id: 4711.server
    Job_Name = lab
    Resource_List.ncpus = 16
    Resource_List.walltime = 02:00:00
    session_id = 7
"""
GRID_ENGINE = """job_number:                 4711
hard resource_list:         h_vmem=4G,h_rt=7200
notify:                     TRUE
"""


@pytest.mark.parametrize(
    ("system", "answer", "left_s"),
    [
        ("Slurm", "29:58\n", 1798.0),
        ("Slurm", "1:59:30\n", 7170.0),
        ("Slurm", "2-01:00:00\n", 176400.0),
        ("Slurm", "UNLIMITED\n", None),
        ("Slurm", "NOT_SET\n", None),
        ("Slurm", "", None),
        ("LSF", "1:30 L\n", 5400.0),
        ("LSF", "-\n", None),
        ("PBS", PBS, 7100.0),
        ("PBS", PBS.replace("walltime", "cput"), None),
        ("Grid Engine", GRID_ENGINE, 7100.0),
        ("Grid Engine", GRID_ENGINE.replace("7200", "0:30:00"), 1700.0),
        ("Grid Engine", GRID_ENGINE.replace("h_rt", "s_rt"), None),
    ],
)
def test_an_answer_tells_the_time_that_a_job_of_100_seconds_has_left(
    system: str, answer: str, left_s: float | None
) -> None:
    assert left_in_answer(system, answer, 100.0) == left_s


def test_a_job_that_is_older_than_its_limit_has_no_time_left() -> None:
    assert left_in_answer("PBS", PBS, 9000.0) == 0.0


def test_the_batch_system_of_the_job_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "squeue").write_text('#!/bin/sh\n[ "$*" = "--noheader --format=%L --jobs 4711" ] && echo 10:00\n')
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert time_left_s("Slurm job 4711", 5.0) == 600.0
    assert time_left_s("Slurm job 4712", 5.0) is None  # the command fails


@pytest.mark.parametrize("origin", ["nsactors start", "a batch job", "Grid Engine job 4711"])
def test_without_a_job_or_a_batch_system_nothing_is_known(
    origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert time_left_s(origin, 5.0) is None
