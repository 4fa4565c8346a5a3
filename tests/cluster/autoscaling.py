"""A Ray cluster that adds and removes nodes, for tests::

    with AutoscaledRay(folder, version=2) as ray:
        print(ray.run("from nsactors import Cluster; ..."))

It is one machine made of namespaces, on which Ray's own autoscaler starts raylets as if they were machines: by Ray's
provider for such tests, which ``ray.cluster_utils.AutoscalingCluster`` uses as well. That class calls ``ray stop``,
which would end every Ray of the machine; here the processes end with their namespace.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from nsactors.transport.ray.node_process import health_checks
from tests.cluster.hosts import RAY
from tests.cluster.machines import Machine, MachineProcess, why_not

__all__ = ["AutoscaledRay", "why_not"]

ROOT = Path(__file__).parents[2]
ADDRESS, GCS_PORT = "10.74.0.1", 6379
MONITORS = {1: "ray.autoscaler._private.monitor", 2: "ray.autoscaler.v2.monitor"}
HEAD_ID, HEAD_TYPE = "f" * 51 + "00000", "ray.head.default"  # as the provider calls them
STORE_BYTES = 100_000_000
RUN_LIMIT_S = 500.0

# As `ray start --autoscaling-config` runs it, but the raylets that it starts are lean. The provider's defaults are in a
# file that Ray's wheel lacks, and the configuration leaves none open.
MONITOR = """
import runpy
import sys
import ray
from ray.autoscaler._private import providers
from nsactors.transport.ray.lean_start import lean_start
(configuration,) = (word.partition("=")[2] for word in sys.argv if word.startswith("--autoscaling-config="))
providers._DEFAULT_CONFIGS["fake_multinode"] = lambda: configuration
with lean_start(ray):
    sys.argv[0] = sys.argv.pop(1)
    runpy.run_module(sys.argv[0], run_name="__main__")
"""


class AutoscaledRay:
    """A head without cores, and up to ``most`` nodes with two cores each, which are removed after six idle seconds.

    Args:
        folder: a short path.
        version: of Ray's autoscaler, 1 or 2.
        most: the limit of nodes.
    """

    def __init__(self, folder: Path, *, version: int, most: int) -> None:
        self._version = version
        self._folder = folder
        self._token, self._config = folder.with_name(f"{folder.name}-token"), folder.with_name(f"{folder.name}.json")
        self._most = most
        self._machine = Machine("cloud", folder, ADDRESS)
        self._servers: list[MachineProcess] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_health_check_failure_threshold": "20",  # the machine may be busy
            "RAY_raylet_start_wait_time_s": "300",
            "RAY_worker_niceness": "0",
            "TMPDIR": str(folder),
        }

    def run(self, program: str) -> list[str]:
        """Run a program on the head, and return the lines that it writes to stdout; AssertionError if it fails."""
        command = [sys.executable, "-c", program]
        with self._machine.popen(command, self.environment | {"RAY_ADDRESS": f"{ADDRESS}:{GCS_PORT}"}) as process:
            try:
                output, errors = process.communicate(timeout=RUN_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._machine.end()
                output, errors = process.communicate()
        assert process.returncode == 0, f"{output}\n{errors}\n{self._log()}"
        return output.splitlines()

    def _log(self) -> str:
        with self._machine.popen(["sh", "-c", "tail -n 40 session_latest/logs/monitor* server*.log"]) as process:
            return process.communicate()[0]

    def _start(self) -> None:
        self._machine.ip(f"addr add {ADDRESS}/32 dev lo")
        self._token.touch(mode=0o600)
        self._token.write_text(secrets.token_hex(32))
        self._config.write_text(json.dumps(self._configuration()))
        environment = self.environment | {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
        # A node that has been lost is replaced when the autoscaler has not heard of it for so long.
        environment["AUTOSCALER_HEARTBEAT_TIMEOUT_S"] = "10"
        if self._version == 2:
            environment["RAY_enable_autoscaler_v2"] = "1"
            environment |= {
                "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
                "RAY_NODE_TYPE_NAME": HEAD_TYPE,
                "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
            }
        options = {
            "port": GCS_PORT,
            "node-ip-address": ADDRESS,
            "num-cpus": 0,
            "include-dashboard": "false",
            "temp-dir": self._folder,
            "object-store-memory": STORE_BYTES,
            "system-config": json.dumps(health_checks() | {"health_check_failure_threshold": 20}),
            "min-worker-port": 0,
            "max-worker-port": 0,
        }
        head = self._popen(environment, RAY, "start", "--block", "--head", *_words(options))
        assert head.stdout is not None
        assert any("Ray runtime started" in line for line in head.stdout), "Ray does not start"
        options = {
            "gcs-address": f"{ADDRESS}:{GCS_PORT}",
            "autoscaling-config": self._config,
            "logs-dir": self._folder / "session_latest" / "logs",
            "monitor-ip": ADDRESS,
        }
        self._popen(environment, MONITOR, MONITORS[self._version], *_words(options))

    def _configuration(self) -> dict[str, object]:
        """Return the configuration of the autoscaler: nothing is run on a node, as there are no machines."""
        commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
        return {
            "cluster_name": "test",
            "max_workers": self._most,
            "upscaling_speed": 1.0,
            "idle_timeout_minutes": 0.1,
            "provider": {
                "type": "fake_multinode",
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
                "gcs_address": f"{ADDRESS}:{GCS_PORT}",
                "launch_multiple": True,
                "head_node_id": HEAD_ID,
            },
            "head_node_type": HEAD_TYPE,
            "available_node_types": {
                HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "small": {
                    "resources": {"CPU": 2, "object_store_memory": STORE_BYTES},
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": self._most,
                },
            },
            "auth": {"ssh_user": "root"},
            "docker": {},
            "file_mounts": {},
            "cluster_synced_files": [],
            "file_mounts_sync_continuously": False,
            **{f"{name}_commands": [] for name in commands},
        }

    def _popen(self, environment: dict[str, str], code: str, *arguments: str) -> MachineProcess:
        # What they write after their start is read by nobody, and would fill a pipe.
        script = '"$@" > "$0.log" 2>&1 & exec tail -F "$0.log"'
        command = ["sh", "-c", script, f"server{len(self._servers)}", sys.executable, "-c", code, *arguments]
        self._servers.append(self._machine.popen(command, environment))
        return self._servers[-1]

    def close(self) -> None:
        """End everything."""
        self._machine.end()
        for server in self._servers:
            server.communicate()
        for file in (self._token, self._config):
            file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _words(options: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]
