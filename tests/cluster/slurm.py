"""A real Slurm of two nodes, for tests of batch jobs::

    with Slurm(folder) as slurm:
        job = slurm.run("sbatch", "--parsable", "job.sh").strip()

Controller, authentication and both nodes are on one machine made of namespaces: they end with it, whatever they have
started, and meet no other Slurm. :class:`SlurmSite` has a machine for logins, with the controller, and one for each
node; none of them has a home folder, or an ssh server, for another.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster import machines
from tests.cluster.interpreters import command_to_open
from tests.cluster.machines import Machine, MachineProcess, Switch

__all__ = ["Slurm", "SlurmSite", "why_not"]

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
TmpFS={folder}/tmp-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort=17000
SrunPortRange=17100-17199
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODES = "NodeName=n[1-2] NodeHostname={host} NodeAddr={address} Port=[17001-17002] CPUs={cpus} State=UNKNOWN"
NODE = "NodeName={name} NodeAddr={address} Port=17001 CPUs={cpus} State=UNKNOWN"
SITE_ADDRESSES = {"login": "10.75.0.1", "n1": "10.75.0.2", "n2": "10.75.0.3"}

# A user's own processes are counted apart from those of the same user on other machines, as on machines with a kernel
# of their own, and by the limit that is given here. Root would be exempt from it.
AS_USER = r"""
import ctypes, json, os, resource, sys
uid, gid, limit, command = json.loads(sys.argv[1])
if limit is not None:
    ready, mapped = os.pipe(), os.pipe()
    if child := os.fork():
        os.read(ready[0], 1)
        for name, own in (("uid_map", uid), ("gid_map", gid)):
            with open(f"/proc/{child}/{name}", "w") as file:
                file.write(f"0 0 1\n{own} {own} 1\n")
        os.write(mapped[1], b"x")
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert ctypes.CDLL(None).unshare(0x10000000) == 0  # CLONE_NEWUSER
    os.write(ready[1], b"x")
    os.read(mapped[0], 1)
os.setgroups([])
os.setgid(gid)
os.setuid(uid)
if limit is not None:
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
os.execvp(command[0], command)
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
        self.environment = environment_of(folder)

    def run(self, *command: str, timeout_s: float = RUN_LIMIT_S) -> str:
        """Run a command to its end, and return what it wrote to stdout; AssertionError if it fails."""
        with self.popen(*command) as process:
            output, errors = process.communicate(timeout=timeout_s)
        assert process.returncode == 0, f"{command} ended with status {process.returncode}\n{output}\n{errors}"
        return output

    def popen(self, *command: str, **environment: str) -> MachineProcess:
        """Start a command where Slurm's are known; use it in a ``with`` statement."""
        return self._machine.popen(command, {**self.environment, **environment})

    def machines(self) -> list[Machine]:
        """All machines."""
        return [self._machine]

    def read(self, path: str) -> str:
        """Return the content of a file of nsactors, such as ``jobs/lab/job.log``; empty if it does not exist."""
        with self.popen("cat", f"state-home/nsactors/{path}") as process:
            return process.communicate()[0]

    def listing(self, path: str | None = None) -> set[str]:
        """The names in a folder of nsactors'; without, those beside Slurm's own files."""
        return set(self.run("ls", "-A", "." if path is None else f"state-home/nsactors/{path}").split())

    def titles(self) -> list[str]:
        """The command lines of what runs for jobs: all processes but Slurm's own daemons."""
        found = []
        for pid in (pid for machine in self.machines() for pid in machine.processes()):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:  # it has ended by now
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
                logs = "".join(map(self._logs, self.machines()))
                raise AssertionError(f"this does not hold after {WAIT_LIMIT_S:g} s\n{logs}\n{self.titles()}")
            pause.wait(0.1)

    def _logs(self, machine: Machine) -> str:
        with machine.popen(["sh", "-c", "tail -n 30 *.log; squeue; sinfo"], self.environment) as process:
            return process.communicate()[0]

    def _start(self) -> None:
        self._machine.ip(f"addr add {ADDRESS}/32 dev lo")
        nodes = NODES.format(host="login", address=ADDRESS, cpus=os.cpu_count())
        self._prepare(self._machine, nodes, secrets.token_bytes(64))
        self._daemon(self._machine, "slurmctld", "-D")
        for node in ("n1", "n2"):
            self._daemon(self._machine, "slurmd", "-D", "-N", node)
        self.wait_for(lambda: self._ready() == 2)

    def _prepare(self, machine: Machine, nodes: str, key: bytes) -> None:
        """Write what Slurm needs on a machine, and start the authentication there."""
        text = CONFIGURATION.format(host="login", folder=self.folder, address=self._machine.address, nodes=nodes)
        write(machine, "slurm.conf", text.encode(), mode="644")
        write(machine, "munge.key", key)
        with machine.popen(["mkdir", "state", "spool-n1", "spool-n2", "tmp-n1", "tmp-n2"]) as process:
            process.communicate()
        self._authenticate(machine, "munge")

    def _authenticate(self, machine: Machine, name: str) -> None:
        """Start the authentication with the key ``NAME.key`` on a machine."""
        files = [f"--{option}={self.folder}/{name}.{end}" for option, end in MUNGE_FILES.items()]
        self._daemon(machine, "munged", "--foreground", "--force", *files)

    def with_another_key(self) -> dict[str, str]:
        """Start an authentication with another key, and return the variables of commands that use it."""
        self.write("other.key", secrets.token_bytes(64))
        self._authenticate(self._machine, "other")
        self.run("sh", "-c", "sed s/munge.socket/other.socket/ slurm.conf > other.conf")
        self.wait_for(lambda: "other.socket" in self.listing())
        return {"SLURM_CONF": str(self.folder / "other.conf")}

    def _ready(self) -> int:
        with self.popen("sinfo", "--noheader", "--Node", "--format=%T") as process:
            return process.communicate()[0].split().count("idle")

    def write(self, name: str, content: bytes) -> None:
        """Make a file in the folder that only root can read."""
        write(self._machine, name, content)

    def _daemon(self, machine: Machine, *command: str) -> None:
        program = ["sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh", *command]
        self._daemons.append(machine.popen(program, self.environment))

    def close(self) -> None:
        """End Slurm, and all that it has started."""
        for machine in self.machines():
            machine.end()
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


class SlurmSite(Slurm):
    """A machine for logins, with Slurm's controller, and two nodes ``n1`` and ``n2``, on one network.

    They share the files of this machine, but each has its own folder of the test, which is the home of all users. The
    Python of this process is open to all users.

    Args:
        folder: a short path, of an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons = []
        self._switch = Switch(folder)
        self._machine, *self._nodes = [Machine(name, folder, address) for name, address in SITE_ADDRESSES.items()]
        for machine in self.machines():
            self._switch.plug_in(machine, machine.name)
        self.environment = environment_of(folder)

    def machines(self) -> list[Machine]:
        return [self._machine, *self._nodes]

    def popen_as(self, user: str, *command: str, processes: int | None = None) -> MachineProcess:
        """Start a command on the login machine as another user, who may have so many processes and threads there."""
        entry = pwd.getpwnam(user)
        what = json.dumps([entry.pw_uid, entry.pw_gid, processes, command])
        return self.popen(sys.executable, "-c", AS_USER, what, USER=user, LOGNAME=user)

    def close_way_to_nodes(self) -> None:
        """Let the login machine reach nothing on the nodes but Slurm, as a firewall does."""
        rules = [("sport", "17100-17199"), ("dport", "17001"), ("sport", "17000")]
        for number, (end, ports) in enumerate(rules, start=10):
            self.run("ip", "rule", "add", "pref", str(number), "ipproto", "tcp", end, ports, "lookup", "main")
        for node in self._nodes:
            self.run("ip", "rule", "add", "pref", "20", "to", node.address, "unreachable")

    def open_way_to_nodes(self) -> None:
        """Undo :meth:`close_way_to_nodes`."""
        for number in (10, 11, 12, 20, 20):
            self.run("ip", "rule", "del", "pref", str(number))

    def _start(self) -> None:
        open_interpreter = command_to_open(self.folder / "stage")
        names = "".join(f"{address} {name}\n" for name, address in SITE_ADDRESSES.items())
        nodes = "\n".join(
            NODE.format(name=node.name, address=node.address, cpus=os.cpu_count()) for node in self._nodes
        )
        key = secrets.token_bytes(64)
        for machine in self.machines():
            for command in (["sh", "-c", 'printf "127.0.0.1 localhost\n$0" > /etc/hosts', names], open_interpreter):
                with machine.popen(command) as process:
                    _, errors = process.communicate()
                assert process.returncode == 0, errors
            self._prepare(machine, nodes, key)
        self._daemon(self._machine, "slurmctld", "-D")
        for node in self._nodes:
            self._daemon(node, "slurmd", "-D", "-N", node.name)
        self.wait_for(lambda: self._ready() == 2)

    def close(self) -> None:
        super().close()
        self._switch.end()


def environment_of(folder: Path) -> dict[str, str]:
    """Return the variables of users whose home is this folder."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))},
        "HOME": str(folder),
        "RAY_health_check_failure_threshold": "8",  # all machines share one, which may be busy
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "XDG_STATE_HOME": str(folder / "state-home"),
        "SLURM_CONF": str(folder / "slurm.conf"),
        "TMPDIR": str(folder),
    }


def write(machine: Machine, name: str, content: bytes, *, mode: str = "600") -> None:
    """Make a file in a machine's own folder."""
    encoded = base64.b64encode(content).decode()
    script = 'umask 077; echo "$0" | base64 -d > "$1"; chmod "$2" "$1"'
    with machine.popen(["sh", "-c", script, encoded, name, mode]) as process:
        process.communicate()
