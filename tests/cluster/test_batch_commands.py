"""Clusters as jobs of PBS and LSF, whose commands are stand-ins: they run real processes by the manuals' rules."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsactors.testing import wait_until
from tests.cluster import batch_commands
from tests.cluster.interpreters import interpreter_without_nsactors
from tests.cluster.machines import Machine, MachineProcess
from tests.cluster.ssh import ROOT, SshMachines, why_not

REASON = why_not()

pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]

PATH = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
NSACTORS = [sys.executable, "-c", f"{PATH}from nsactors.cli import main; main()"]
# Shows the values of four engines, and their hosts.
PROGRAM = f"""{PATH}
import socket, threading
from nsactors import Client
rc = Client("lab")
rc.wait_for_engines(4, timeout=240)
everyone = rc[:]
everyone.block = True

def show():
    print(*sorted(set(everyone.apply(socket.gethostname))), everyone["square"], flush=True)
"""
SHARE = (
    PROGRAM
    + """
everyone.scatter("part", list(range(8)))
everyone.execute("square = sum(n * n for n in part)")
"""
)
START = f"{SHARE}\nshow()"
# Shows the values again when two engines have come back.
STAY = (
    SHARE
    + """
back = threading.Semaphore(0)
rc.on_join(lambda engine_id: back.release())
show()
for engine in range(2):
    assert back.acquire(timeout=240)
show()
everyone.execute("import os; log = open(os.path.expanduser(f'~/log-{os.getpid()}'), 'w'); log.write('unwritten')")
"""
)
GO_ON = f"{PROGRAM}\nshow()"
VALUES = "[1, 13, 41, 85]"
OPTIONS = {"pbs": ["-l", "walltime=0:30:00"], "lsf": ["-W", "30"]}
DELETE = {"pbs": "qdel", "lsf": "bkill"}
WARNING_S = 60
# Of the log of a job that has reached its limit: LSF warns of it, and PBS sends SIGTERM at the limit.
AT_LIMIT = {"pbs": "", "lsf": "the time limit is near: the engines are ended gracefully"}


class Batch:
    """A batch system on three machines."""

    def __init__(self, machines: SshMachines, folder: Path) -> None:
        self.machines = machines
        self.home = folder / "home"
        self._jobs, commands = folder / "jobs", folder / "bin"
        for made in (self.home, self._jobs, commands):
            made.mkdir()
        (self._jobs / "hosts").write_text("".join(f"{machine.name}\n" for machine in machines.hosts))
        for name in batch_commands.COMMANDS:
            (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {batch_commands.__file__} {name} "$@"\n')
            (commands / name).chmod(0o755)
        self.environment = {name: value for name, value in machines.environment.items() if name != "PYTHONPATH"} | {
            "BATCH_FOLDER": str(self._jobs),
            "HOME": str(self.home),
            "PATH": f"{commands}:{machines.environment['PATH']}",
        }
        self._name_hosts(machines.desk, *machines.hosts)

    def _name_hosts(self, *machines: Machine) -> None:
        """Let machines know the names of all hosts."""
        names = "".join(f"{machine.address} {machine.name}\n" for machine in self.machines.hosts)
        for machine in machines:
            own = f"{machine.address} desk\n" if machine is self.machines.desk else ""
            command = ["sh", "-c", 'printf "127.0.0.1 localhost\n$1$0" > /etc/hosts', names, own]
            with machine.popen(command) as process:
                process.communicate()

    def start_host(self, number: int) -> None:
        """Switch on a host that was lost."""
        self.machines.start_host(number)
        self._name_hosts(self.machines.hosts[number - 1])

    def limit(self, job: str, left_s: float) -> None:
        """Let a running job reach its time limit in so many seconds."""
        folder = self._jobs / job.partition(".")[0]
        limit_s = time.time() - (folder / "script").stat().st_mtime + left_s
        (folder / "limit.new").write_text(str(limit_s))
        (folder / "limit.new").rename(folder / "limit")

    def popen(self, *command: str) -> MachineProcess:
        """Start a command on the desk."""
        return self.machines.desk.popen(command, self.environment)

    def client(self, code: str) -> MachineProcess:
        """Start a client on the first host."""
        return self.machines.hosts[0].popen([sys.executable, "-c", code], self.environment)

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


def wait_gone(batch: Batch) -> None:
    """Wait for the end of a job, and see that nothing is left of it but what is to be read or gone on from."""
    wait_until(lambda: batch.titles() == [], timeout_s=180)
    files = {path.name for path in batch.home.glob(".local/state/nsactors/jobs/lab/*")}
    assert files == {"job.sh", "job.json", "job.log", "job_id", "package", "state"}, batch.log()
    assert [*batch.home.glob(".local/state/nsactors/clusters/*.json")] == []


def launch(batch: Batch, python: str, system: str, option: str) -> str:
    """Return the id of a job whose cluster is up."""
    command = [*NSACTORS, "launch", system, "--name=lab", "--nodes=2", "--engines-per-node=2", f"--python={python}"]
    command += ["--recovery=replay", "--journal=sync", "--object-store-memory=100MB", f"--warning={WARNING_S}"]
    said = batch.run(*command, option, "--", *OPTIONS[system])
    assert "the cluster 'lab' is up" in said
    return said.split()[1]


@pytest.mark.parametrize("system", ["pbs", "lsf"])
def test_a_job_starts_on_both_hosts_and_is_deleted(batch: Batch, python: str, system: str) -> None:
    job = launch(batch, python, system, "--fresh")
    with batch.client(START) as program:
        assert program.read_line() == f"host-1 host-2 {VALUES}"
        program.communicate()
    batch.run(DELETE[system], job)
    wait_gone(batch)


@pytest.mark.full_size
@pytest.mark.parametrize("system", ["pbs", "lsf"])
def test_a_job_loses_a_host_reaches_its_limit_and_goes_on_as_another_job_until_it_is_deleted(
    batch: Batch, python: str, system: str
) -> None:
    job = launch(batch, python, system, "--fresh")
    with batch.client(STAY) as program:
        assert program.read_line() == f"host-1 host-2 {VALUES}"
        batch.machines.lose(2)
        assert program.read_line() == f"host-1 {VALUES}"
        program.communicate()
    batch.limit(job, WARNING_S)
    wait_until(lambda: batch.machines.titles(batch.machines.hosts[0]) == [], timeout_s=180)
    batch.start_host(2)
    wait_gone(batch)
    assert AT_LIMIT[system] in batch.log()
    written = [*batch.home.glob("log-*")]
    assert [file.read_text() for file in written] == ["unwritten"] * 4
    for file in written:
        file.unlink()

    job = launch(batch, python, system, "--continue")
    with batch.popen(*NSACTORS, "launch", "join", "lab") as joined:
        assert joined.read_line() == "this machine takes part in 'lab'"
        assert batch.run(sys.executable, "-c", GO_ON) == f"host-1 host-2 {VALUES}\n"
        batch.run(DELETE[system], job)
        joined.communicate()
    wait_gone(batch)
