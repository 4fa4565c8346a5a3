"""Launchers of a site's MPI, played by small scripts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue

import pytest

from nsactors.mpi.launcher import MpiLauncher, in_job, launcher_of, told_by
from nsactors.mpi.library import Library
from nsactors.testing import TIMEOUT_S, wait_until

# What it was called with, and the hosts that Slurm's launcher would read.
TELLS = """
import json, os, sys
hosts = os.environ.get("SLURM_HOSTFILE")
told = {"arguments": sys.argv[1:], "hosts": hosts and open(hosts).read().split(), "rank": os.environ.get("PMI_RANK")}
print(json.dumps(told))
"""

Script = Callable[[str, str], str]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Writes a command; returns its path."""

    def write(name: str, source: str) -> str:
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\n{source}")
        path.chmod(0o755)
        return str(path)

    return write


def answer(command: Sequence[str], nodes: Sequence[str]) -> str:
    """Return the error of a launcher that ends early."""
    failed: SimpleQueue[str] = SimpleQueue()
    MpiLauncher(command, ["placeholder"], nodes, together=False, failed=failed.put)
    return failed.get(timeout=TIMEOUT_S)


def test_a_launcher_starts_one_placeholder_for_each_rank_and_inherits_no_rank(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PMI_RANK", "7")
    said = answer([script("mpiexec", TELLS), "--quiet"], ["a", "a", "b"])
    assert said == '{"arguments": ["--quiet", "-n", "3", "placeholder"], "hosts": null, "rank": null}'


def test_slurm_is_told_the_node_of_each_rank(script: Script) -> None:
    said = answer([script("srun", TELLS), "--mpi=pmix"], ["b", "a", "b"])
    assert '"-n", "3", "--nodes=2", "--distribution=arbitrary", "placeholder"' in said
    assert '"hosts": ["b", "a", "b"]' in said


def test_a_launcher_that_ends_in_silence_is_told_with_its_status(script: Script) -> None:
    assert answer([script("mpiexec", "raise SystemExit(3)")], ["a"]) == "with status 3"


def test_a_launcher_that_is_closed_is_ended_and_tells_nothing(script: Script, tmp_path: Path) -> None:
    failed: list[str] = []
    started = tmp_path / "started"
    waits = f"import signal, os; open({str(started)!r}, 'w').write(str(os.getpid())); signal.pause()"
    launcher = MpiLauncher([script("mpiexec", waits)], [], ["a"], together=True, failed=failed.append)
    wait_until(lambda: started.exists() and started.read_text())
    launcher.let_go()
    os.kill(int(started.read_text()), 0)
    launcher.close()
    launcher.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
    assert failed == []


def test_the_launcher_of_open_mpi_is_looked_for_beside_its_library(script: Script, tmp_path: Path) -> None:
    for folder in ("bin", "lib"):
        (tmp_path / folder).mkdir()
    library = Library("Open MPI", "5.0.6", str(tmp_path / "lib" / "libmpi.so.40"))
    script("bin/orterun", "print('HYDRA build details')")  # a name alone says nothing
    mpirun = script("bin/mpirun", "print('mpirun (Open MPI) 5.0.6')")
    assert launcher_of(library)[0] == mpirun
    assert launcher_of(library._replace(name="MPICH")) == ()


def test_a_launcher_of_slurm_is_sent_into_the_job_of_the_engines() -> None:
    job = {"SLURM_JOB_ID": "4711"}
    assert in_job(["srun", "--mpi=pmix"], job) == ("srun", "--jobid=4711", "--mpi=pmix")
    assert in_job(["srun", "--jobid=12"], job) == ("srun", "--jobid=12")
    assert in_job(["srun"], {}) == ("srun",)
    assert in_job(["mpiexec"], job) == ("mpiexec",)


def test_what_a_launcher_says_becomes_one_line() -> None:
    assert told_by("-----\nThere are not enough slots\n\nin the system.\n-----\n") == (
        "There are not enough slots in the system"
    )
    assert told_by("=====\n") == ""
    assert len(told_by("word " * 1_000)) < 2_000
