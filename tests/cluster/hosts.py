"""A Ray cluster of several hosts on one machine, for tests of what happens to real ones.

Their power fails, they hang, their cables are pulled out, and the bytes that they send and receive are counted::

    with Hosts(3) as hosts:
        print(hosts.head.run("import ray; ray.init(); print(ray.nodes())"))
        hosts[1].kill()
        hosts.repair()

Hosts see the files of the machine, so that they share Python, this checkout and ``tmp_path``; but each has its own
folder for Ray and its own /dev/shm, both in memory: what an engine writes there is not seen on another host.

All that may stay behind, and only after SIGKILL, is a folder with a token in it, which the next run removes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from nsactors.transport.ray.node_process import health_checks
from tests.cluster.machines import Machine, MachineProcess, Switch, why_not

__all__ = ["DriverFailed", "Host", "Hosts", "why_not"]

ROOT = Path(__file__).parents[2]
GCS_PORT = 6379
STORE_BYTES = 250_000_000
RUN_LIMIT_S = 400.0

# `ray start` without what nobody needs here: 1.5 s of CPU time a host in place of 4 to 5, and of 8 where JupyterLab is
# installed. And a raylet gives up if its agents are not there after 15 s, which on a busy machine they are not.
RAY = """
from nsactors.transport.ray.lean_start import lean_start
from nsactors.transport.ray.scripts.run_script import SELDOM_USED, imported_on_use
with imported_on_use(*SELDOM_USED):
    import ray
    from ray.scripts.scripts import main
with lean_start(ray):
    main()
"""
HEAD = [
    "--head",
    f"--port={GCS_PORT}",
    "--include-dashboard=false",
    f"--system-config={json.dumps(health_checks())}",
]


class DriverFailed(AssertionError):
    """A program on a host has failed or did not end in time; the message holds what it wrote."""


class Host:
    """One host: a machine and its Ray node. It is plugged in and started by :class:`Hosts`.

    Args:
        number: its place among the hosts.
        switch: what it is plugged into.
        folder: where Ray has its files; see :class:`StateMachine`.
        environment: of all its processes.
    """

    def __init__(self, number: int, switch: Switch, folder: Path, environment: dict[str, str]) -> None:
        self.name = f"host-{number}"
        self.address = f"10.77.0.{number + 1}"
        self._switch = switch
        self._port = f"port{number}"
        self._folder = folder
        self._environment = environment
        self._machine: Machine | None = None
        self._ray: MachineProcess | None = None
        self._untouched = False

    def run(self, code: str | Path, *arguments: str, timeout_s: float = RUN_LIMIT_S, **environment: str) -> str:
        """Run a Python program on this host to its end, and return what it wrote to stdout.

        Args:
            code: the program's text, or the path of its file.
            arguments: for its ``sys.argv``.
            timeout_s: when it is killed.
            environment: set in addition to what attaches it to this Ray cluster.

        Raises:
            DriverFailed: if it exits with another status than 0, or not in time.
        """
        process = self.popen(code, *arguments, **environment)
        try:
            output, errors = process.communicate(timeout=timeout_s)
            outcome = f"ended with status {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # children too: they would hold the pipes open
            output, errors = process.communicate()
            outcome = f"did not end within {timeout_s:g} s"
        if process.returncode != 0:
            raise DriverFailed(f"the program on {self.name} {outcome}\n--- stdout\n{output}\n--- stderr\n{errors}")
        return output

    def popen(self, code: str | Path, *arguments: str, **environment: str) -> MachineProcess:
        """Start a Python program on this host; arguments as for :meth:`run`. Use it in a ``with`` statement."""
        program = [str(code)] if isinstance(code, Path) else ["-c", code]
        return self._running().popen([sys.executable, *program, *arguments], {**self._environment, **environment})

    def kill(self) -> None:
        """Let the power fail: every process ends immediately, and nobody is notified."""
        machine, self._machine = self._machine, None
        ray, self._ray = self._ray, None
        self._untouched = False
        if machine is not None:
            self._switch.unplug(self._port)  # first: a dying process would close its connections properly
            machine.end()
        if ray is not None:
            ray.communicate()

    def freeze(self) -> None:
        """The host hangs: its processes stand still, and its connections stay open."""
        self._untouched = False
        self._running().freeze()

    def thaw(self) -> None:
        """A frozen host goes on as if nothing had happened."""
        self._running().thaw()

    def cut_off(self) -> None:
        """The cable is pulled out: the host lives on alone."""
        self._untouched = False
        self._switch.set_link(self._port, "down")

    def reconnect(self) -> None:
        """The cable of a host that was cut off is put in again."""
        self._switch.set_link(self._port, "up")

    def bytes_received(self) -> int:
        """The bytes that the host has received since its start, frames and headers included."""
        return self._running().traffic()[0]

    def bytes_sent(self) -> int:
        """The bytes that the host has sent since its start, frames and headers included."""
        return self._running().traffic()[1]

    def processes(self) -> list[int]:
        """Ids of what runs on the host, as the real machine counts them: on the host itself they are others."""
        return self._running().processes()

    def titles(self) -> list[str]:
        """The command lines of what runs on the host."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):  # it has ended by now
                found.append(Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0"))
        return found

    @property
    def is_sound(self) -> bool:
        """True if no test has damaged the host, and its Ray node runs."""
        return self._untouched and self._ray is not None and self._ray.poll() is None

    def plug_in(self) -> None:
        """Switch on the machine."""
        self._machine = Machine(self.name, self._folder, self.address)
        self._switch.plug_in(self._machine, self._port)

    def begin_ray(self, place: list[str]) -> None:
        """Begin to start the Ray node.

        Args:
            place: options of ``ray start`` that say whether it is the head or where that is.
        """
        options = {
            "node-ip-address": self.address,
            "num-cpus": 2,
            "num-gpus": 1,  # so says Ray, which does not look
            "resources": '{"licence": 1}',
            "labels": f"rack={self.name.replace('host', 'rack')}",
            "object-store-memory": STORE_BYTES,
            "temp-dir": self._folder,
        }
        command = ["start", "--block", *(f"--{name}={value}" for name, value in options.items()), *place]
        self._ray = self._running().popen(
            [sys.executable, "-c", RAY, *command], self._environment, stderr=subprocess.STDOUT
        )

    def wait_for_ray(self) -> None:
        """Return when the node belongs to the cluster; ``ray start`` has time limits of its own.

        Raises:
            DriverFailed: if it cannot be started.
        """
        assert self._ray is not None
        assert self._ray.stdout is not None
        lines = []
        for line in self._ray.stdout:
            lines.append(line)
            if "Ray runtime started" in line:
                self._untouched = True
                return
        logs = "tail -n 30 session_latest/logs/raylet.* session_latest/logs/gcs_server.*"
        with self._running().popen(["sh", "-c", logs]) as tail:
            raise DriverFailed(f"Ray does not start on {self.name}:\n{''.join(lines)}\n{tail.communicate()[0]}")

    def _running(self) -> Machine:
        if self._machine is None:
            raise RuntimeError(f"{self.name} has been killed")
        return self._machine


class Hosts:
    """Hosts on one switch, and the Ray cluster that they are; the first one is its head.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        _remove_leftovers()
        # Short: the paths of sockets in it are limited to 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix=f"nsahosts-{os.getpid()}-", dir="/tmp"))
        token, private = self._folder / "token", self._folder / "ray"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        private.mkdir()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "RAY_ADDRESS": f"10.77.0.1:{GCS_PORT}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "RAY_raylet_start_wait_time_s": "300",  # Ray's 30 s are too short on a busy machine
        }
        self._switch = Switch(private)
        self._hosts = [Host(number, self._switch, private, environment) for number in range(count)]

    @property
    def head(self) -> Host:
        """The host with Ray's control store, where the controllers of clusters are."""
        return self._hosts[0]

    def repair(self) -> None:
        """Start anew every host to which something has been done, or whose Ray node has ended; if the head, then all.

        Hosts that have been frozen or cut off too, whatever came after: Ray may have given them up.
        """
        broken = [host for host in self._hosts if not host.is_sound]
        self._start(self._hosts if self.head in broken else broken)

    def close(self) -> None:
        """Switch everything off; nothing of it stays."""
        try:
            for host in self._hosts:
                host.kill()
        finally:
            self._switch.end()
            shutil.rmtree(self._folder)

    def _start(self, hosts: Iterable[Host]) -> None:
        for host in hosts:
            host.kill()
            host.plug_in()
        head = [host for host in hosts if host is self.head]
        others = [host for host in hosts if host is not self.head]
        # The head first: the others ask it for what they need.
        for group, place in ((head, HEAD), (others, [f"--address={self.head.address}:{GCS_PORT}"])):
            for host in group:
                host.begin_ray(place)
            for host in group:
                host.wait_for_ray()

    def __len__(self) -> int:
        return len(self._hosts)

    def __getitem__(self, number: int) -> Host:
        return self._hosts[number]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts)

    def __enter__(self) -> Self:
        try:
            self.repair()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _remove_leftovers() -> None:
    for folder in Path("/tmp").glob("nsahosts-*-*"):
        match = re.match(r"nsahosts-(\d+)-", folder.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            shutil.rmtree(folder, ignore_errors=True)
