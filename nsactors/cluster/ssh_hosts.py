"""Hosts that ssh reaches: host lists, and nodes started on them.

The nodes of a Slurm allocation are hosts as well, which ``srun`` reaches: see :func:`reached`.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from nsactors._frozen import frozen
from nsactors._version import __version__
from nsactors.cluster import node_over_ssh
from nsactors.cluster.own_wheel import own_wheel
from nsactors.errors import LaunchError
from nsactors.system.processes import close_in_children
from nsactors.system.resources import available_cores
from nsactors.system.tls import new_authority
from nsactors.transport.ray.node_process import NodePlan, RayNode
from nsactors.transport.ray.nodes import engines_wanted
from nsactors.transport.ray.runtime import ray_runtime

_HERE = ("localhost", "127.0.0.1", "::1")
_WORD = r"[^\s,:@\[\]-][^\s,:@\[\]]*"  # no dash at its start: ssh would take it for an option
_ITEM = re.compile(rf"(?P<name>(?:{_WORD}@)?(?:{_WORD}|\[[0-9A-Fa-f:.]+\]))(?::(?P<engines>\d+))?")


@frozen
class Host:
    """A host for engines.

    Attributes:
        name: the host for ssh: a name of its configuration, or ``user@host``.
        engines: the number of engines; None for the default of ``SshHosts``.
    """

    name: str
    engines: int | None = None

    @property
    def is_here(self) -> bool:
        """True if the host is this machine."""
        return self.name in _HERE


def hosts_from_text(text: str) -> list[Host]:
    """Parse a list of hosts such as ``a,b:4``.

    Raises:
        ValueError: if the text is no such list, or a host is listed twice.

    Example:
        >>> hosts_from_text("a, ann@b:4")
        [Host(name='a', engines=None), Host(name='ann@b', engines=4)]
    """
    hosts: list[Host] = []
    for item in text.split(","):
        match = _ITEM.fullmatch(item.strip())
        if match is None:
            raise ValueError(
                f"hosts are listed as in 'a,b:4', with the number of engines behind a colon; {item!r} is not"
            )
        name = re.sub(r"[\[\]]", "", match["name"])
        if name in (host.name for host in hosts):
            raise ValueError(f"the host {name} is listed twice")
        hosts.append(Host(name, int(match["engines"]) if match["engines"] else None))
    return hosts


END_S = 5.0
SLURM = "slurm"  # in place of a host: the nodes of the allocation that this process is in
# BatchMode makes ssh fail in place of asking for a password. ServerAliveInterval lets ssh end with its host; Ray
# notices the loss earlier.
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15")


def by_ssh(host: str, words: Sequence[str]) -> list[str]:
    """Return the command that runs another one on a host, over ssh."""
    return [*_SSH, host, "--", f"exec {shlex.join(words)} 2>&1"]


def by_srun(host: str, words: Sequence[str]) -> list[str]:
    """Return the command that runs another one on a node of this process's Slurm allocation, as a step."""
    # The limits and the bindings of this process do not suit a node: a login node allows few processes, and a
    # step of one task would be bound to one core.
    options = ("--overlap", "--propagate=NONE", "--cpu-bind=none")
    return ["srun", "--nodes=1", "--ntasks=1", f"--nodelist={host}", *options, *words]


def allocated_hosts(host: Host, environment: Mapping[str, str]) -> list[Host]:
    """Return the nodes of the Slurm allocation that this process is in.

    Args:
        host: the host ``slurm`` of a list, with the number of engines for each node.
        environment: the variables of this process.

    Raises:
        LaunchError: if this process is in no allocation, or Slurm does not list the nodes.
    """
    nodes = environment.get("SLURM_JOB_NODELIST")
    if not nodes:
        raise LaunchError("this process is in no allocation of Slurm: `salloc --nodes=2` makes one, for programs in it")
    try:
        done = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=False)
    except OSError as error:
        raise LaunchError(f"scontrol cannot be started here: {error}") from None
    if done.returncode:
        raise LaunchError(f"scontrol does not list the nodes {nodes}", done.stderr)
    here = environment.get("SLURMD_NODENAME")
    return [Host(_HERE[0] if name == here else name, host.engines) for name in done.stdout.split()]


def reached(
    hosts: Sequence[Host], environment: Mapping[str, str]
) -> tuple[list[Host], Callable[[str, Sequence[str]], list[str]]]:
    """Return the hosts of a list, with the function that makes the command to reach one.

    Args:
        hosts: the list; the one host ``slurm`` stands for the nodes of a Slurm allocation.
        environment: the variables of this process.

    Raises:
        LaunchError: see :func:`allocated_hosts`.
        ValueError: if ``slurm`` is not the only host of the list.
    """
    if SLURM not in (host.name for host in hosts):
        return list(hosts), by_ssh
    if len(hosts) > 1:
        raise ValueError(f"'{SLURM}' stands for all nodes of an allocation, and is the only host of its list")
    return allocated_hosts(hosts[0], environment), by_srun


class SshHosts:
    """A Ray cluster on hosts that ssh reaches, or on nodes of a Slurm allocation, for the duration of a ``with`` block.

    During the block, this process is connected to the cluster. The token is sent through the stdin of ssh or srun, and
    is in no command line. If this process is killed, its ssh processes end, and with them the nodes.

    Args:
        hosts: the hosts; this machine has engines only if it is among them. The one host ``slurm`` stands for the nodes
            of the Slurm allocation that this process is in, where ``srun`` starts the engines.
        engines: the number of engines on hosts without a number of their own; the default, None, means one per core.
        python: the path of the interpreter on the hosts; the default is that of this process. Hosts need the packages
            that nsactors needs, with the same Ray. They get nsactors itself from this process, for the duration of the
            block, if they lack this version of it.
        store_bytes: the size of each host's object store in bytes; None for Ray's default.
        tls: encrypt the traffic between the hosts.

    Attributes:
        address: the address of the Ray cluster, for ``Cluster(address=...)``.
        engines: the number of engines on all hosts together.

    Example:
        >>> with SshHosts(hosts_from_text("a,b:4")) as hosts, Cluster(hosts.engines, address=hosts.address) as rc:
        ...     rc[:].apply_sync(socket.gethostname)

    Raises:
        LaunchError: if this process is in no Slurm allocation, and the host is ``slurm``. On entry: if a host cannot be
            reached, or has no such Python, or this machine has no ssh; the nodes on all other hosts are then stopped.
        ValueError: if there are other hosts beside ``slurm``.
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
        hosts, self._command = reached(hosts, os.environ)
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
            for host in self._remote:  # ssh connects while the head is starting
                started[host] = self._start(host)
            head = self._at_end.enter_context(RayNode(self._plan))
            self._at_end.callback(_end, started.values())  # nodes end before their head
            self.address = head.address
            _send_package(started)
            for host, process in started.items():
                self._send_plan(host, process)
            for host, process in started.items():
                _wait_until_up(host, process)
            ray = ray_runtime.join(head.address, head.settings)
            self._at_end.callback(ray.shutdown)  # before the end of the node that it is connected to
            self.engines = engines_wanted(ray.nodes())
            self._at_end = self._at_end.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._at_end.close()

    def _start(self, host: Host) -> subprocess.Popen[str]:
        words = [self._python, "-c", Path(node_over_ssh.__file__).read_text(), __version__]
        if path := os.environ.get("PYTHONPATH"):
            words = ["env", f"PYTHONPATH={path}", *words]
        command = self._command(host.name, words)
        # Slurm may show the variables of a step to all users. The node has a token of its own, from stdin.
        environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # out of reach of this terminal's Ctrl-C
            )
        except OSError as error:
            raise LaunchError(f"no engines on {host.name}: {command[0]} cannot be started here: {error}") from None
        assert process.stdin is not None
        close_in_children(process.stdin)
        return process

    def _send_plan(self, host: Host, process: subprocess.Popen[str]) -> None:
        engines = _first(host.engines, self._usual)
        plan = replace(self._plan, address=self.address, engines=engines, num_cpus=None)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # ssh has ended; _wait_until_up raises its message
            process.stdin.write(plan.to_json() + "\n")
            process.stdin.flush()


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


def _send_package(started: Mapping[Host, subprocess.Popen[str]]) -> None:
    """Send the wheel of this package to hosts that lack this version of it."""
    wheel = ""
    for host, process in started.items():
        if _wait_for_line(host, process, node_over_ssh.HERE, node_over_ssh.WANTED) == node_over_ssh.WANTED:
            wheel = wheel or base64.b64encode(own_wheel()).decode()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # ssh has ended; _wait_until_up raises its message
                process.stdin.write(f"{len(wheel)}\n{wheel}")
                process.stdin.flush()


def _wait_until_up(host: Host, process: subprocess.Popen[str]) -> None:
    _wait_for_line(host, process, "up")


def _wait_for_line(host: Host, process: subprocess.Popen[str], *lines: str) -> str:
    """Return the first of these lines that a host prints; a login shell may first print a greeting."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        if (text := line.rstrip("\n")) in lines:
            return text
        said.append(line)
    assert isinstance(process.args, list)
    reason = f"{process.args[0]} has ended with status {process.wait()}"
    raise LaunchError(f"no engines on {host.name}: {reason}", "".join(said))


def _end(processes: Collection[subprocess.Popen[str]]) -> None:
    """Close the stdin of ssh processes, which ends their nodes; kill an ssh whose host does not answer."""
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
