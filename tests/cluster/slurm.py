"""A real Slurm of two nodes, for tests of batch jobs::

    with Slurm(folder) as slurm:
        job = slurm.run("sbatch", "--parsable", "job.sh").strip()

Controller, authentication and both nodes are on one machine made of namespaces: they end with it, whatever they have
started, and meet no other Slurm.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster import machines
from tests.cluster.machines import Machine, MachineProcess

__all__ = ["Slurm", "why_not"]

ROOT = Path(__file__).parents[2]
ADDRESS = "10.77.1.1"
RUN_LIMIT_S = 120.0
WAIT_LIMIT_S = 180.0  # longer than Slurm waits before it kills
DAEMONS = ("munged", "slurmctld", "slurmd", "slurmscriptd", "slurmstepd")
MUNGE_FILES = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}

# As on a cluster, except that nothing is accounted for, that a job has more time to end, and that processes are
# followed by their parents: control groups are not to be had in every container.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/builtin
SelectType=select/linear
ReturnToService=2
KillWait=60
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort=17000
NodeName=n[1-2] NodeHostname={host} NodeAddr={address} Port=[17001-17002] CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why there can be no Slurm here; None if there can."""
    needed = ("munged", "slurmctld", "slurmd", "sbatch")
    if not all(map(shutil.which, needed)):
        return f"needs Slurm: the commands {', '.join(needed)}"
    return machines.why_not()


class Slurm:
    """Two nodes, ``n1`` and ``n2``, and the commands of Slurm.

    Args:
        folder: a short path; what is in it is seen by jobs, and nowhere else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._machine = Machine("login", folder, ADDRESS)
        self._daemons: list[MachineProcess] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))},
            "HOME": str(folder),
            "RAY_health_check_failure_threshold": "8",  # all machines share one, which may be busy
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "XDG_STATE_HOME": str(folder / "state-home"),
            "SLURM_CONF": str(folder / "slurm.conf"),
            "TMPDIR": str(folder),
        }

    def run(self, *command: str, timeout_s: float = RUN_LIMIT_S) -> str:
        """Run a command to its end, and return what it wrote to stdout; AssertionError if it fails."""
        with self.popen(*command) as process:
            output, errors = process.communicate(timeout=timeout_s)
        assert process.returncode == 0, f"{command} ended with status {process.returncode}\n{output}\n{errors}"
        return output

    def popen(self, *command: str, **environment: str) -> MachineProcess:
        """Start a command where Slurm's are known; use it in a ``with`` statement."""
        return self._machine.popen(command, {**self.environment, **environment})

    def read(self, path: str) -> str:
        """What a file of nsactors' says, such as ``jobs/lab/job.log``; nothing if it is not there."""
        with self.popen("cat", f"state-home/nsactors/{path}") as process:
            return process.communicate()[0]

    def listing(self, path: str | None = None) -> set[str]:
        """The names in a folder of nsactors'; without, those beside Slurm's own files."""
        return set(self.run("ls", "-A", "." if path is None else f"state-home/nsactors/{path}").split())

    def titles(self) -> list[str]:
        """The command lines of what runs for jobs: all processes but Slurm's own daemons."""
        found = []
        for pid in self._machine.processes():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:  # it has ended meanwhile
                continue
            title = b" ".join(words).decode().strip()
            if title and not os.path.basename(title.removeprefix(": ").split()[0]).startswith(DAEMONS):
                found.append(title)
        return found

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Return when this holds; if it does not in time, the logs are in the error."""
        pause = threading.Event()
        deadline = time.monotonic() + WAIT_LIMIT_S
        while not condition():
            if time.monotonic() > deadline:
                logs = self.run("sh", "-c", "tail -n 30 slurmctld.log slurmd-*.log; squeue; sinfo")
                raise AssertionError(f"this does not hold after {WAIT_LIMIT_S:g} s\n{logs}\n{self.titles()}")
            pause.wait(0.1)

    def _start(self) -> None:
        self._machine.ip(f"addr add {ADDRESS}/32 dev lo")
        text = CONFIGURATION.format(host="login", folder=self.folder, address=ADDRESS, cpus=os.cpu_count())
        self.write("slurm.conf", text.encode())
        self.write("munge.key", secrets.token_bytes(64))
        self.run("mkdir", "state", "spool-n1", "spool-n2")
        files = [f"--{name}={self.folder}/munge.{end}" for name, end in MUNGE_FILES.items()]
        self._daemon("munged", "--foreground", "--force", *files)
        self._daemon("slurmctld", "-D")
        for node in ("n1", "n2"):
            self._daemon("slurmd", "-D", "-N", node)
        self.wait_for(lambda: self._ready() == 2)

    def _ready(self) -> int:
        with self.popen("sinfo", "--noheader", "--Node", "--format=%T") as process:
            return process.communicate()[0].split().count("idle")

    def write(self, name: str, content: bytes) -> None:
        """Make a file in the folder that only root can read."""
        encoded = base64.b64encode(content).decode()
        self.run("sh", "-c", 'umask 077; echo "$0" | base64 -d > "$1"', encoded, name)

    def _daemon(self, *command: str) -> None:
        self._daemons.append(self.popen("sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh", *command))

    def close(self) -> None:
        """End Slurm, and all that it has started."""
        self._machine.end()
        for daemon in self._daemons:
            daemon.communicate()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
