"""A Ray of several hosts: its head is here, and a node on each of the others is started over ssh."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from nsactors.cluster.resources import available_cores
from nsactors.core.hosts import Host
from nsactors.errors import LaunchError
from nsactors.transport.certificates import new_authority
from nsactors.transport.ray_node import NodePlan, RayNode
from nsactors.transport.ray_nodes import engines_wanted
from nsactors.transport.ray_runtime import ray_runtime

__all__ = ["SshHosts"]

END_S = 5.0
# Never a question, which nobody would answer; and the end of a host is noticed, though Ray does so earlier.
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15")


class SshHosts:
    """Hosts whose Ray lasts as long as a ``with`` block, to which this process is connected meanwhile.

    The token goes to them through ssh, and is in no command. If this process is killed, ssh ends, and its nodes do.

    Args:
        hosts: which; this machine has engines only if it is among them.
        engines: how many on a host that the list says nothing of; None for as many as it has cores.
        python: the interpreter on the hosts; the default is where this one is here.
        store_bytes: of the object store on each; None: as Ray thinks fit.
        tls: encrypt what the hosts send each other.

    Attributes:
        address: of the Ray cluster, for ``Cluster(address=...)``.
        engines: for how many engines the hosts are there together.

    Example:
        >>> with SshHosts(hosts_from_text("a,b:4")) as hosts, Cluster(hosts.engines, address=hosts.address) as rc:
        ...     rc[:].apply_sync(socket.gethostname)

    Raises:
        LaunchError: (on entry) if a host cannot be reached, or has no such Python; nothing is left then.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        *,
        engines: int | None = None,
        python: str = sys.executable,
        store_bytes: int | None = None,
        tls: bool = False,
    ) -> None:
        self._remote = [host for host in hosts if not host.is_here]
        self._usual = engines
        self._python = python
        here = [host for host in hosts if host.is_here]
        cores, share = (available_cores(), _first(here[0].engines, engines)) if here else (0, 0)
        authority = new_authority() if tls else ""
        plan = NodePlan(secrets.token_hex(32), share, None, cores, store_bytes, authority=authority)
        self._plan = plan.with_cores(cores)
        self._at_end = contextlib.ExitStack()
        self.address = ""
        self.engines = 0

    def __enter__(self) -> Self:
        with self._at_end:
            started: dict[Host, subprocess.Popen[str]] = {}
            self._at_end.callback(_end, started.values())
            for host in self._remote:  # they connect while the head is starting
                started[host] = self._start(host)
            head = self._at_end.enter_context(RayNode(self._plan))
            self._at_end.callback(_end, started.values())  # before the head that they belong to
            self.address = head.address
            for host, process in started.items():
                self._send_plan(host, process)
            for host, process in started.items():
                _wait_until_up(host, process)
            ray = ray_runtime.join(head.address, head.settings)
            self._at_end.callback(ray.shutdown)  # before the node that it is connected to has gone
            self.engines = engines_wanted(ray.nodes())
            self._at_end = self._at_end.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._at_end.close()

    def _start(self, host: Host) -> subprocess.Popen[str]:
        words = [self._python, "-m", "nsactors.cluster.node", "-"]
        if path := os.environ.get("PYTHONPATH"):
            words = ["env", f"PYTHONPATH={path}", *words]
        return subprocess.Popen(
            [*_SSH, host.name, "--", f"exec {shlex.join(words)} 2>&1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # no Ctrl-C of ours
        )

    def _send_plan(self, host: Host, process: subprocess.Popen[str]) -> None:
        engines = _first(host.engines, self._usual)
        plan = replace(self._plan, address=self.address, engines=engines, num_cpus=None)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and is asked why below
            process.stdin.write(plan.to_json() + "\n")
            process.stdin.flush()


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


def _wait_until_up(host: Host, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    said = []
    for line in process.stdout:  # a login shell may have something to say first
        if line == "up\n":
            return
        said.append(line)
    raise LaunchError(f"no engines on {host.name}: ssh has ended with status {process.wait()}", "".join(said))


def _end(processes: Collection[subprocess.Popen[str]]) -> None:
    """Close what they read, which ends the nodes there; one whose host does not answer any more is left to itself."""
    for process in processes:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    give_up = time.monotonic() + END_S
    for process in processes:
        try:
            process.wait(max(0.0, give_up - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
