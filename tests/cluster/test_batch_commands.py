"""Clusters as jobs of PBS and LSF, whose commands are stand-ins: they run real processes by the manuals' rules."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsactors.testing import wait_until
from tests.cluster import batch_commands
from tests.cluster.interpreters import interpreter_without_nsactors
from tests.cluster.machines import MachineProcess
from tests.cluster.ssh import ROOT, SshMachines, why_not

REASON = why_not()

pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.full_size,
    pytest.mark.timeout(900),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]

PATH = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
NSACTORS = [sys.executable, "-c", f"{PATH}from nsactors.cli import main; main()"]
# On the desk, which joins the cluster: the client gets the values that four engines of two hosts have.
ASK = f"""{PATH}
import socket
from nsactors import Client
rc = Client("lab")
rc.wait_for_engines(4, timeout=240)
everyone = rc[:]
everyone.block = True
if sys.argv[1] == "first":
    everyone.scatter("part", list(range(8)))
    everyone.execute("square = sum(n * n for n in part)")
print(*sorted(set(everyone.apply(socket.gethostname))), everyone["square"], flush=True)
"""
VALUES = "[1, 13, 41, 85]"
OPTIONS = {"pbs": ["-l", "walltime=0:30:00"], "lsf": ["-W", "30"]}
# The log when the job has been deleted: PBS sends SIGTERM, and LSF SIGINT first.
DELETE = {"pbs": "qdel", "lsf": "bkill"}


class Batch:
    """A batch system on three machines."""

    def __init__(self, machines: SshMachines, folder: Path) -> None:
        self.machines = machines
        self.home = folder / "home"
        jobs, commands = folder / "jobs", folder / "bin"
        for made in (self.home, jobs, commands):
            made.mkdir()
        (jobs / "hosts").write_text("".join(f"{machine.name}\n" for machine in machines.hosts))
        for name in batch_commands.COMMANDS:
            (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {batch_commands.__file__} {name} "$@"\n')
            (commands / name).chmod(0o755)
        self.environment = {name: value for name, value in machines.environment.items() if name != "PYTHONPATH"} | {
            "BATCH_FOLDER": str(jobs),
            "HOME": str(self.home),
            "PATH": f"{commands}:{machines.environment['PATH']}",
        }
        names = "".join(f"{machine.address} {machine.name}\n" for machine in machines.hosts)
        for machine in (machines.desk, *machines.hosts):
            with machine.popen(
                [
                    "sh",
                    "-c",
                    'printf "127.0.0.1 localhost\n$1$0" > /etc/hosts',
                    names,
                    f"{machine.address} desk\n" if machine is machines.desk else "",
                ]
            ) as process:
                process.communicate()

    def popen(self, *command: str) -> MachineProcess:
        """Start a command on the desk."""
        return self.machines.desk.popen(command, self.environment)

    def run(self, *command: str) -> str:
        """Run a command on the desk to its end, and return its output."""
        with self.popen(*command) as process:
            output, errors = process.communicate(timeout=400)
        assert process.returncode == 0, f"{command}\n{output}\n{errors}\n{self.log()}"
        return output

    def log(self) -> str:
        """Return the job's log."""
        return "\n".join(path.read_text() for path in self.home.glob(".local/state/nsactors/jobs/lab/job.log"))

    def titles(self) -> list[str]:
        """Return the command lines of all processes of the machines, but those of ssh."""
        return [
            title for machine in (self.machines.desk, *self.machines.hosts) for title in self.machines.titles(machine)
        ]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batch]:
    with SshMachines(2) as machines:
        yield Batch(machines, tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    return interpreter_without_nsactors(tmp_path_factory.mktemp("environment"))


@pytest.mark.parametrize("system", ["pbs", "lsf"])
def test_a_job_runs_on_two_hosts_is_deleted_and_goes_on_as_another_job(batch: Batch, python: str, system: str) -> None:
    launch = [*NSACTORS, "launch", system, "--name=lab", "--nodes=2", "--engines-per-node=2", "--recovery=replay"]
    launch += ["--object-store-memory=100MB", f"--python={python}"]
    for time, options in (("first", ["--fresh"]), ("second", ["--continue"])):
        said = batch.run(*launch, *options, "--", *OPTIONS[system])
        assert "the cluster 'lab' is up" in said
        with batch.popen(*NSACTORS, "launch", "join", "lab") as joined:
            assert joined.read_line() == "this machine takes part in 'lab'"
            assert batch.run(sys.executable, "-c", ASK, time) == f"host-1 host-2 {VALUES}\n"
            batch.run(DELETE[system], said.split()[1])
            joined.communicate()
        wait_until(lambda: batch.titles() == [])
        assert {path.name for path in batch.home.glob(".local/state/nsactors/jobs/lab/*")} == {
            *("job.sh", "job.json", "job.log", "job_id", "package", "state")
        }
