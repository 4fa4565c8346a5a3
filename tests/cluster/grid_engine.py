"""A real Grid Engine of two hosts, for tests of batch jobs::

    with GridEngine(folder) as engine:
        job = engine.run("qsub", "-terse", "job.sh").strip()

The first host is also the one where jobs are submitted, and runs the master. The hosts are machines made of namespaces:
they end with the test, whatever they have started. They share the files of this machine, as hosts with a home folder on
a network, except that each has its own /tmp.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster import machines
from tests.cluster.machines import Machine, MachineProcess, Switch

__all__ = ["GridEngine", "why_not"]

ROOT = Path(__file__).parents[2]
INSTALLED = Path("/usr/share/gridengine")
BINARIES = Path("/usr/lib/gridengine")
NAMES = ("n1", "n2")
RUN_LIMIT_S = 180.0
WAIT_LIMIT_S = 300.0
NOTIFY_S = 30  # from the warning to SIGKILL

BOOTSTRAP = """
admin_user none
default_domain none
ignore_fqdn false
spooling_method classic
spooling_lib libspoolc
spooling_params {root}/default/common;{root}/spool
binary_path /usr/lib/gridengine
qmaster_spool_dir {root}/spool
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
# In place of Debian's: jobs of root, a folder of each host for its daemon, and quick reports.
CONFIGURATION = {
    "execd_spool_dir": "{private}",
    "mailer": "/bin/true",
    "min_uid": "0",
    "min_gid": "0",
    "load_report_time": "00:00:05",
}
# Times in the form that the queue's configuration has.
QUEUE = """
qname all.q
hostlist {hosts}
seq_no 0
load_thresholds NONE
suspend_thresholds NONE
nsuspend 1
suspend_interval 00:05:00
priority 0
min_cpu_interval 00:05:00
processors UNDEFINED
qtype BATCH INTERACTIVE
ckpt_list NONE
pe_list nodes
rerun FALSE
slots 4
tmpdir /tmp
shell /bin/bash
prolog NONE
epilog NONE
shell_start_mode posix_compliant
starter_method NONE
suspend_method NONE
resume_method NONE
terminate_method NONE
notify 00:00:{notify_s}
owner_list NONE
user_lists NONE
xuser_lists NONE
subordinate_list NONE
complex_values NONE
projects NONE
xprojects NONE
calendar NONE
initial_state default
s_rt INFINITY
h_rt INFINITY
s_cpu INFINITY
h_cpu INFINITY
s_fsize INFINITY
h_fsize INFINITY
s_data INFINITY
h_data INFINITY
s_stack INFINITY
h_stack INFINITY
s_core INFINITY
h_core INFINITY
s_rss INFINITY
h_rss INFINITY
s_vmem INFINITY
h_vmem INFINITY
"""
# One slot on each host.
ENVIRONMENT = """
pe_name nodes
slots 999
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule 1
control_slaves TRUE
job_is_first_task TRUE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""


def why_not() -> str | None:
    """Why there can be no Grid Engine here; None if there can."""
    needed = [BINARIES / name for name in ("sge_qmaster", "sge_execd", "qsub", "qconf")]
    if ROOT.is_relative_to("/tmp"):
        return "needs a checkout outside /tmp, which is each host's own"
    if not all(map(Path.exists, needed)):
        return "needs Grid Engine: gridengine-master, gridengine-exec and gridengine-client of Debian"
    return machines.why_not()


class GridEngine:
    """Two hosts, ``n1`` and ``n2``, and the commands of Grid Engine.

    Args:
        folder: a folder outside /tmp.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "sge"
        self.private = folder / "o"  # each machine has its own
        self.home = folder / "home"
        for made in (self.private, self.home, self.root / "default" / "common", self.root / "spool"):
            made.mkdir(parents=True)
        self._switch = Switch(self.private)
        self._machines: dict[str, Machine] = {}
        self._daemons: list[MachineProcess] = []
        left_out = ("RAY_", "SGE_", "PYTHONPATH")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(left_out)},
            "HOME": str(self.home),
            "PATH": f"{BINARIES}:{os.environ['PATH']}",
            "RAY_health_check_failure_threshold": "8",  # all machines share one, which may be busy
            "IPYTHONDIR": str(self.home / "ipython"),  # jobs have the user's real home folder
            "SGE_CELL": "default",
            "SGE_EXECD_PORT": "6445",
            "SGE_ND": "1",  # daemons stay in the foreground
            "SGE_QMASTER_PORT": "6444",
            "SGE_ROOT": str(self.root),
            "TMPDIR": "/tmp",
            "XDG_STATE_HOME": str(folder / "state-home"),
        }

    def run(self, *command: str, timeout_s: float = RUN_LIMIT_S, check: bool = True) -> str:
        """Run a command on the first host to its end, and return what it wrote to stdout."""
        with self.popen(*command) as process:
            output, errors = process.communicate(timeout=timeout_s)
        assert process.returncode == 0 or not check, (
            f"{command} ended with status {process.returncode}\n{output}\n{errors}"
        )
        return output

    def popen(self, *command: str, **environment: str) -> MachineProcess:
        """Start a command on the first host; use it in a ``with`` statement."""
        return self._machines["n1"].popen(command, {**self.environment, **environment})

    def read(self, path: str) -> str:
        """Return the text of a file of nsactors, such as ``jobs/lab/job.log``; nothing if it is not there."""
        file = Path(self.environment["XDG_STATE_HOME"], "nsactors", path)
        return file.read_text(errors="replace") if file.exists() else ""

    def listing(self, path: str) -> set[str]:
        """Return the names in a folder of nsactors."""
        return set(os.listdir(Path(self.environment["XDG_STATE_HOME"], "nsactors", path)))

    def temporary_files(self, name: str) -> set[str]:
        """Return the paths of a host's temporary files that are not Grid Engine's.

        Its folder for a job, ``JOB.TASK.QUEUE``, is left out if it is empty: it stays until each host of the job has
        reported, which a lost one does not do.
        """
        find = "cd /tmp && find . -mindepth 1 ! -name 'execd_messages*' ! '(' -type d -name '*.all.q' -empty ')'"
        with self._machines[name].popen(["sh", "-c", find]) as found:
            return set(found.communicate()[0].split())

    def titles(self, name: str) -> list[str]:
        """Return the command lines of what runs on a host: all processes but Grid Engine's own."""
        found = []
        for pid in self._machines[name].processes():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:  # it has ended by now
                continue
            title = b" ".join(words).decode().strip()
            if title and "sge_" not in title:
                found.append(title)
        return found

    def lose(self, name: str) -> None:
        """The power of a host fails: its connections are not closed, and its processes end."""
        self._switch.unplug(name)
        self._machines.pop(name).end()

    def start_host(self, name: str) -> None:
        """Switch on a host, with Grid Engine's daemon on it."""
        machine = Machine(name, self.private, self._address(name))
        self._machines[name] = machine
        self._switch.plug_in(machine, name)
        others = "".join(f"{self._address(other)} {other}\n" for other in NAMES if other != name)
        prepare = 'printf %s "$0" >> /etc/hosts && mount -t tmpfs tmp /tmp'
        with machine.popen(["sh", "-c", prepare, others]) as process:
            process.communicate()
        if name == NAMES[0]:
            self._start_master()
        self._daemon(machine, "sge_execd")
        self.wait_for(lambda: name in self._hosts_that_report())

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Return when this holds; if it does not in time, messages of the daemons are in the error."""
        pause = threading.Event()
        deadline = time.monotonic() + WAIT_LIMIT_S
        while not condition():
            if time.monotonic() > deadline:
                show = (
                    f"tail -n 20 {self.root}/spool/messages {self.private}/*/messages /tmp/*messages*; qstat -f; qhost"
                )
                with self.popen("sh", "-c", show) as process:
                    logs = process.communicate()[0]
                titles = {name: self.titles(name) for name in self._machines}
                raise AssertionError(f"this does not hold after {WAIT_LIMIT_S:g} s\n{logs}\n{titles}")
            pause.wait(0.2)

    def _start_master(self) -> None:
        common = self.root / "default" / "common"
        for name in ("bin", "lib", "utilbin", "util"):
            (self.root / name).symlink_to(f"/var/lib/gridengine/{name}")
        (common / "bootstrap").write_text(BOOTSTRAP.lstrip().format(root=self.root))
        (common / "act_qmaster").write_text(f"{NAMES[0]}\n")
        defaults = dict(
            line.split(None, 1)
            for line in (INSTALLED / "default-configuration").read_text().splitlines()
            if line and not line.startswith("#")
        )
        defaults |= {name: value.format(private=self.private) for name, value in CONFIGURATION.items()}
        configuration = self.root / "configuration"
        configuration.write_text("".join(f"{name} {value}\n" for name, value in defaults.items()))
        resources = INSTALLED / "util" / "resources"
        self.run(str(BINARIES / "spoolinit"), "classic", "libspoolc", f"{common};{self.root}/spool", "init")
        for kind, given in {
            "configuration": configuration,
            "complexes": resources / "centry",
            "usersets": resources / "usersets",
        }.items():
            self.run(str(BINARIES / "spooldefaults"), kind, str(given))
        self.run(str(BINARIES / "spooldefaults"), "managers", "root")
        self._daemon(self._machines[NAMES[0]], "sge_qmaster")
        self.wait_for(self._master_answers)
        for name in NAMES:
            self.run("qconf", "-ah", name)
        self.run("qconf", "-as", NAMES[0])
        self._configure("-Ap", ENVIRONMENT)

    def _configure(self, option: str, text: str) -> None:
        file = self.root / "given"
        file.write_text(text.lstrip().format(hosts=" ".join(NAMES), private=self.private, notify_s=NOTIFY_S))
        self.run("qconf", option, str(file))

    def _master_answers(self) -> bool:
        with self.popen("qconf", "-sconf") as process:
            process.communicate()
        return process.returncode == 0

    def _hosts_that_report(self) -> set[str]:
        with self.popen("qhost") as process:
            lines = [line.split() for line in process.communicate()[0].splitlines()]
        return {words[0] for words in lines if len(words) > 3 and words[3] != "-"}  # the load is known

    def _daemon(self, machine: Machine, command: str) -> None:
        program = ["sh", "-c", f"exec {BINARIES}/{command} >{self.private}/{command}.out 2>&1"]
        self._daemons.append(machine.popen(program, self.environment))

    def _address(self, name: str) -> str:
        return f"10.76.0.{NAMES.index(name) + 1}"

    def close(self) -> None:
        """End Grid Engine, and all that it has started."""
        for machine in self._machines.values():
            machine.end()
        self._switch.end()
        for daemon in self._daemons:
            daemon.communicate()

    def __enter__(self) -> Self:
        try:
            for name in NAMES:
                self.start_host(name)
            self._configure("-Aq", QUEUE)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
