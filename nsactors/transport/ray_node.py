"""A node of a Ray cluster of several machines: started here, and ended with whoever has started it.

Others may have nodes on the same machine, this user's and strangers'. So ports are free ones that the system chooses,
files are in a folder of the node's own, and what is ended is what the node has started: never ``ray stop``, which ends
every Ray that it sees. (See ``cluster.node`` for nodes on other machines.)
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
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from nsactors.errors import ClusterUnreachable
from nsactors.transport.certificates import certify
from nsactors.transport.lean_start import reserve_port
from nsactors.transport.private_files import write_private
from nsactors.transport.private_folder import PrivateFolder
from nsactors.transport.ray_nodes import ENGINES
from nsactors.transport.ray_runtime import PRESETS

__all__ = ["NodePlan", "RayNode", "health_checks", "node_options", "ray_settings"]

END_S = 10.0
_STARTED = "Ray runtime started"

# A node that was killed, hangs or is cut off is known to be dead after some two seconds; Ray's defaults need 15 s and
# over a minute. One or two checks in a row may fail because a machine is merely slow.
_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 250,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What a node is to be.

    Attributes:
        token: of the cluster. It is passed on in files that only the user can read, and never in a command.
        engines: for how many engines it is there; None for one a core.
        address: of the cluster that it joins; None makes it the head of a new one.
        num_cpus: cores that it offers; None for those that its process may use.
        store_bytes: of its object store; None: as Ray thinks fit.
        labels: beside the one that says for how many engines.
        authority: who signs the certificates of the cluster's machines (see ``certificates``), and passed on as the
            token is; empty if what they send each other is not to be encrypted.
    """

    token: str = field(repr=False)
    engines: int | None
    address: str | None = None
    num_cpus: int | None = None
    store_bytes: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    authority: str = field(default="", repr=False)

    def with_cores(self, cores: int) -> NodePlan:
        """The plan on a machine with so many cores."""
        engines = cores if self.engines is None else self.engines
        return replace(self, engines=engines, num_cpus=cores if self.num_cpus is None else self.num_cpus)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it into a file that only this user can read."""
        write_private(path, self.to_json())

    def to_json(self) -> str:
        """As text on one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> NodePlan:
        """The plan that :meth:`to_json` has written."""
        return cls(**json.loads(text))


class RayNode:
    """A node that runs until :meth:`stop`, or until the thread that has started it ends.

    Args:
        plan: what it is to be, with nothing left open that depends on the machine.
        ended: called on a thread when Ray has ended, by itself or not.

    Attributes:
        address: of the cluster, ``host:port``.
        token_path: where processes of this machine find the token.
        settings: what Ray is to find in their environment.
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
        """Where Ray's processes write."""
        return next(Path(self._folder.ray_path).glob("session_2*")) / "logs"

    def start(self) -> None:
        """Start it, and return when it belongs to the cluster.

        Raises:
            ClusterUnreachable: if it cannot be started; the message holds what Ray says.
        """
        own = own_address(self._plan.address)
        if self._plan.authority:
            self.settings |= certify(self._plan.authority, Path(self._folder.path, "tls"), [own])
        with contextlib.closing(reserve_port(own)) as reserved:
            port = reserved.getsockname()[1]
            self.address = self._plan.address or f"{own}:{port}"
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "nsactors.transport.ray_start", self._folder.path, str(os.getpid())),
                    *node_options(self._plan, own, port, self._folder.ray_path),
                ],
                env={**os.environ, **self.settings},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # no Ctrl-C of ours, and all its processes can be found
            )
            self._wait_for_start(self._process)
        self._reader = threading.Thread(target=self._read_to_end, args=(self._process,), daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """End it, with every process that it has started, and remove its files."""
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
        for _ in process.stdout:  # nothing that anybody asked for, but the pipe must not fill up
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


def ray_settings(token_path: str) -> dict[str, str]:
    """What Ray is to find in the environment of every process of a cluster of several machines."""
    return {
        **PRESETS,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # despite its name: listens to other machines
        "RAY_AUTH_TOKEN_PATH": token_path,
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # Ray's 30 s are as long as Slurm waits before it kills
        "RAY_raylet_start_wait_time_s": "90",  # Ray's 30 s are too short on a busy machine
    }


def health_checks() -> dict[str, int]:
    """How Ray is to watch over nodes; ``RAY_health_check_failure_threshold=20`` and the like change it."""
    return {name: int(os.environ.get(f"RAY_{name}", value)) for name, value in _HEALTH_CHECKS.items()}


def node_options(plan: NodePlan, own: str, port: int, folder: str) -> list[str]:
    """Options of ``ray start``.

    Args:
        plan: what the node is to be.
        own: its address.
        port: that others reach a head on; all other ports are chosen by the system when they are needed, so that nodes
            on one machine do not meet.
        folder: for its files.
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
    """The address under which other machines reach this one.

    Args:
        towards: one of them, ``host:port``; the network card is the one that leads there. Without, it is the address
            that this machine's name has, unless that is known here alone.
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
    """Kill what belongs to a session, also processes whose parents have gone."""
    while found := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) == session]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _session(pid: int) -> int:
    """The session of a process that runs; 0 if it does not."""
    try:
        state, _, _, session, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if state in "ZX" else int(session)
