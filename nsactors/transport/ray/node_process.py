"""A node of a Ray cluster of several machines: a child of this process, which ends when this process ends.

This user or other users may have nodes on the same machine. So the system chooses free ports, files are in a folder of
this node, and only processes that this node has started are ended. ``ray stop`` is never used, because it ends every
Ray that it finds. (See ``cluster.node`` for nodes on other machines.)
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from nsactors._frozen import frozen
from nsactors.errors import ClusterUnreachable
from nsactors.system.private_files import PrivateFolder, from_fields, write_private
from nsactors.system.resources import check_processes
from nsactors.system.tls import certify
from nsactors.transport.ray.access import check_access
from nsactors.transport.ray.lean_start import reserve_port
from nsactors.transport.ray.nodes import ENGINES
from nsactors.transport.ray.runtime import NODE_PROCESSES, presets

END_S = 10.0
CONNECT_S, PAUSE_S, WAY_BACK_S = 3.0, 0.5, 8.0
_STARTED = "Ray runtime started"

# A node that was killed, hangs or is cut off counts as dead after some two seconds. With Ray's defaults, this takes
# 15 s, and more than a minute for a node that hangs. One or two checks in a row may fail because a machine is merely
# slow.
_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 250,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}


@frozen
class NodePlan:
    """The plan of a node.

    Attributes:
        token: the token of the cluster. It is passed on in files that only the user can read, never on a command line.
        engines: the number of engines for the node; by default, None, as many as it has cores.
        address: the cluster that it joins; None makes it the head of a new cluster.
        num_cpus: its number of cores; None for the cores that its process may use.
        store_bytes: the size of its object store; None for Ray's default.
        labels: its labels, besides the label with the number of engines.
        authority: signs the certificates of the cluster's machines (see ``system.tls``), and is passed on in the same
            way as the token; empty for a cluster without encryption.
    """

    token: str = field(repr=False)
    engines: int | None
    address: str | None = None
    num_cpus: int | None = None
    store_bytes: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    authority: str = field(default="", repr=False)

    def with_cores(self, cores: int) -> NodePlan:
        """Return the plan for a machine with this number of cores."""
        engines = cores if self.engines is None else self.engines
        return replace(self, engines=engines, num_cpus=cores if self.num_cpus is None else self.num_cpus)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the plan in a file that only this user can read."""
        write_private(path, self.to_json())

    def to_json(self) -> str:
        """Return the plan as text on one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> NodePlan:
        """Return the plan in a text of :meth:`to_json`; ValueError for any other text."""
        return from_fields(cls, json.loads(text))


class RayNode:
    """A node that runs until :meth:`stop`, or until the process that started it ends.

    Args:
        plan: the plan, with the numbers of cores and engines of this machine; see :meth:`NodePlan.with_cores`.
        ended: called on a thread when Ray has ended in any way.

    Attributes:
        address: the address of the cluster, ``host:port``.
        token_path: the token's file for processes of this machine.
        settings: Ray's settings for the environment of these processes.
    """

    def __init__(self, plan: NodePlan, ended: Callable[[], object] = lambda: None) -> None:
        self._plan = plan
        self._ended = ended
        self._folder = PrivateFolder(plan.token)
        self.token_path = self._folder.token_path
        self.settings = ray_settings(self.token_path)
        self.address = plan.address or ""
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def log_folder(self) -> Path:
        """Return the folder of the logs of Ray's processes."""
        return next(Path(self._folder.ray_path).glob("session_2*")) / "logs"

    @property
    def is_running(self) -> bool:
        """Return whether its Ray has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the node; return when it belongs to the cluster.

        Raises:
            ClusterUnreachable: if the node cannot be started; the message has Ray's last lines.
            AccessRefused: if the cluster has another token.
            ProcessLimit: if this user may not start as many processes and threads as Ray needs.
        """
        check_processes(NODE_PROCESSES)
        if self._plan.address is not None:
            _check_way_back(self._plan.address)
        own = own_address(self._plan.address)
        if self._plan.authority:
            self.settings |= certify(self._plan.authority, Path(self._folder.path, "tls"), [own])
        if self._plan.address is not None:
            with contextlib.suppress(ClusterUnreachable):  # the head may be busy; Ray waits longer
                check_access(self._plan.address, self.settings)  # Ray would try a wrong token for a long time
        with contextlib.closing(reserve_port(own)) as reserved:
            port = reserved.getsockname()[1]
            self.address = self._plan.address or f"{own}:{port}"
            self._process = subprocess.Popen(
                [
                    *(
                        sys.executable,
                        "-m",
                        "nsactors.transport.ray.scripts.start_node",
                        self._folder.path,
                        str(os.getpid()),
                    ),
                    *node_options(self._plan, own, port, self._folder.ray_path),
                ],
                env={**os.environ, **self.settings},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # Ctrl-C does not reach its processes, and _kill_session() finds them
            )
            self._wait_for_start(self._process)
        self._reader = threading.Thread(target=self._read_to_end, args=(self._process,), daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """End the node with every process that it has started, and remove its files."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
            _kill_session(self._process.pid)
            self._process.wait()
        if self._reader is not None:
            self._reader.join()
        self._folder.remove()

    def _wait_for_start(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            if _STARTED in line:
                return
            lines.append(line)
        raise ClusterUnreachable(self.address, "Ray does not start on this machine:\n" + "".join(lines[-20:]))

    def _read_to_end(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for _ in process.stdout:  # the lines are not needed, but the pipe must not fill up
            pass
        self._ended()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def _check_way_back(address: str) -> None:
    """Check that this machine can reach the head: Ray would try in silence, and forever."""
    host, _, port = address.rpartition(":")
    give_up, pause = time.monotonic() + WAY_BACK_S, threading.Event()
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
        except OSError as error:
            if time.monotonic() > give_up:
                raise ClusterUnreachable(
                    address,
                    f"{socket.gethostname()} has no way to the cluster's head ({error}). The machines of a cluster "
                    "must reach each other, on all ports: look for a firewall, or for a host name that stands for "
                    "another address",
                ) from None
            pause.wait(PAUSE_S)
        else:
            return


def ray_settings(token_path: str) -> dict[str, str]:
    """Return Ray's settings for the environment of every process of a cluster of several machines."""
    return {
        **presets(),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # despite its name: listens to other machines
        "RAY_AUTH_TOKEN_PATH": token_path,
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # Ray's 30 s are as long as Slurm waits before it kills
        "RAY_raylet_start_wait_time_s": "90",  # Ray's 30 s are too short on a busy machine
    }


def health_checks() -> dict[str, int]:
    """Return the settings by which Ray watches nodes.

    ``RAY_health_check_failure_threshold=20`` and the like in the environment change them.
    """
    return {name: int(os.environ.get(f"RAY_{name}", value)) for name, value in _HEALTH_CHECKS.items()}


def node_options(plan: NodePlan, own: str, port: int, folder: str) -> list[str]:
    """Return options of ``ray start``.

    Args:
        plan: the plan of the node.
        own: the node's address.
        port: the port of a head; the system chooses all other ports when they are needed, so that nodes on one machine
            do not collide.
        folder: the folder for the node's files.
    """
    if plan.address is None:
        place = [
            "--head",
            f"--port={port}",
            "--include-dashboard=false",
            f"--system-config={json.dumps(health_checks())}",
        ]
    else:
        place = [f"--address={plan.address}"]
    labels = {**plan.labels, ENGINES: str(plan.engines)}
    return [
        *place,
        f"--node-ip-address={own}",
        f"--temp-dir={folder}",
        f"--num-cpus={plan.num_cpus}",
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--dashboard-agent-listen-port=0",
        "--labels=" + ",".join(f"{name}={value}" for name, value in labels.items()),
        *([] if plan.store_bytes is None else [f"--object-store-memory={plan.store_bytes}"]),
    ]


def own_address(towards: str | None) -> str:
    """Return the address by which other machines reach this machine.

    Args:
        towards: one of the other machines, ``host:port``, which selects the network interface. By default, the
            result is the address of this machine's name. If that is a loopback address, the result is the address of
            the interface that leads to other networks.
    """
    if towards is not None:
        host, _, port = towards.rpartition(":")
        return _address_towards(host, int(port)) or "127.0.0.1"
    try:
        named = socket.gethostbyname(socket.gethostname())
    except OSError:
        named = "127.0.0.1"
    return named if not named.startswith("127.") else _address_towards("192.0.2.1", 9) or "127.0.0.1"


def _address_towards(host: str, port: int) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, port))  # sends nothing
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _kill_session(session: int) -> None:
    """Kill the processes of a session, including processes whose parents have ended."""
    # Do not use psutil, whose scan of all processes takes 61 ms instead of 5.
    while found := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) == session]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _session(pid: int) -> int:
    """Return the session of a running process; 0 if it does not run."""
    try:
        state, _, _, session, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if state in "ZX" else int(session)
