"""What a lean start of Ray leaves out, by the names and command lines that it changes."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.testing import wait_until
from nsactors.transport.ray import lean_start as lean_start_module
from nsactors.transport.ray import scripts
from nsactors.transport.ray.lean_start import lean_raylet, lean_start, reserve_port
from nsactors.transport.ray.private_names import missing_names
from nsactors.transport.ray.runtime import START_S

RAY = "/a folder/ray"
WORKER = f"{RAY}/_private/workers/default_worker.py"
AGENT = f"{RAY}/_private/runtime_env/agent/main.py"


def raylet(session: Path | str = "/session") -> list[str]:
    """A raylet's command line as Ray writes it, shortened."""
    return [
        "raylet",
        "--head",
        f"--session_dir={session}",
        "--node_id=abc",
        "--node_ip_address=127.0.0.1",
        "--runtime_env_agent_port=0",
        "--maximum_startup_concurrency=8",
        "--num_prestart_python_workers=8",
        "--python_worker_command="
        + subprocess.list2cmdline(["python", WORKER, "--runtime-env-agent-port=0", "--x=a=b"]),
        "--java_worker_command=",
        "--runtime_env_agent_command=" + subprocess.list2cmdline(["python", AGENT, "--runtime-env-agent-port=0"]),
        "--dashboard_agent_command=python agent.py",
    ]


def options(command: Sequence[str]) -> dict[str, str]:
    return dict(argument.split("=", 1) for argument in command if "=" in argument)


class Process:
    """A process as Ray keeps it."""


class Ray(SimpleNamespace):
    """Something with Ray's private names; what it starts is noted down."""

    def __init__(self) -> None:
        class Node:
            def start_api_server(self) -> str:
                return "api server"

            start_monitor = start_log_monitor = start_ray_client_server = start_api_server

        def start_ray_process(command: list[str], kind: str, env_updates: dict[str, str] | None = None) -> Any:
            self.started.append(command)
            self.environments.append(env_updates)
            return SimpleNamespace(process=Process())

        def persist_port(session: str, node_id: str, name: str, port: int) -> None:
            self.ports[name] = port

        names = {f"{kind}_PORT_NAME": kind for kind in ("METRICS_AGENT", "METRICS_EXPORT", "DASHBOARD_AGENT_LISTEN")}
        super().__init__(
            __file__=f"{RAY}/__init__.py",
            __version__="2.60.0",
            started=[],
            environments=[],
            workers=[],
            ports={},
            looked=[],
            NodeID=SimpleNamespace(from_hex=lambda text: text),
            _private=SimpleNamespace(
                node=SimpleNamespace(Node=Node),
                services=SimpleNamespace(
                    start_ray_process=start_ray_process, get_node=lambda gcs, node_id: (gcs, node_id)
                ),
            ),
            _raylet=SimpleNamespace(
                persist_port=persist_port,
                GcsClient=self._client,
                GcsClientOptions=SimpleNamespace(create=lambda address, *args, **options: address),
                GlobalStateAccessor=self._state,
                **names,
            ),
        )

    def _client(self, address: str) -> Any:
        def get_all_node_info() -> list[str]:
            self.looked.append(address)
            return ["abc"] if len(self.looked) == 3 else []

        return SimpleNamespace(get_all_node_info=get_all_node_info)

    def _state(self, address: str) -> Any:
        """A state of a GCS with one worker more each time that it is asked for them."""

        def get_worker_table() -> list[str]:
            self.workers.append(address)
            return list(self.workers)

        return SimpleNamespace(connect=lambda: True, get_worker_table=get_worker_table)


@pytest.fixture
def ray() -> Ray:
    return Ray()


def test_a_lean_raylet_runs_a_stand_in_for_the_dashboards_agent() -> None:
    command = options(lean_raylet(raylet(), RAY, 5))["--dashboard_agent_command"]
    assert command.startswith(sys.executable)
    assert command.endswith("agent_stub.py")


def test_workers_are_run_by_our_script_whatever_its_folder_is_called() -> None:
    python, ours, rest = options(lean_raylet(raylet(), RAY, 5))["--python_worker_command"].split(" ", 2)
    assert (python, os.path.basename(ours)) == ("python", "run_script.py")
    assert rest.startswith(f'"{WORKER}"')


@pytest.mark.parametrize(("port", "stub"), [(5, ["-I", "-S", "agent_stub.py"]), (0, [])])
def test_a_stub_that_knows_its_port_waits_for_the_agent_s_first_caller(port: int, stub: list[str]) -> None:
    words = options(lean_raylet(raylet(), RAY, port))["--runtime_env_agent_command"].split(" ")
    assert [os.path.basename(word) for word in words[: len(stub) + 2]] == ["python", *stub, "run_script.py"]
    assert " ".join(words[len(stub) + 2 :]).startswith(f'"{AGENT}"')


def test_everybody_is_told_the_agents_port() -> None:
    lean = options(lean_raylet(raylet(), RAY, 5))
    assert lean["--runtime_env_agent_port"] == "5"
    assert "--runtime-env-agent-port=5 --x=a=b" in lean["--python_worker_command"]
    assert lean["--runtime_env_agent_command"].endswith("--runtime-env-agent-port=5")


def test_the_rest_of_a_command_line_is_as_it_was() -> None:
    before, after = raylet(), lean_raylet(raylet(), RAY, 5)
    changed = {
        "--python_worker_command",
        "--runtime_env_agent_command",
        "--dashboard_agent_command",
        "--runtime_env_agent_port",
    }
    kept = [(a, b) for a, b in zip(before, after, strict=True) if a.split("=")[0] not in changed]
    assert all(a == b for a, b in kept)
    assert len(kept) == len(before) - len(changed)


def test_names_are_missed_by_name(ray: Ray) -> None:
    assert missing_names(ray, "lean_start") == []
    del ray._private.node.Node.start_monitor
    del ray._raylet.persist_port
    assert missing_names(ray, "lean_start") == ["_private.node.Node.start_monitor", "_raylet.persist_port"]


def test_a_ray_that_lacks_a_name_starts_as_it_comes(ray: Ray) -> None:
    del ray._raylet.persist_port
    with lean_start(ray):
        assert ray._private.node.Node().start_api_server() == "api server"
        ray._private.services.start_ray_process(raylet(), "raylet")
    assert ray.started == [raylet()]


def test_a_ray_of_a_version_that_was_never_tried_starts_as_it_comes(ray: Ray) -> None:
    ray.__version__ = "2.61.0"
    with lean_start(ray):
        assert ray._private.node.Node().start_api_server() == "api server"
        ray._private.services.start_ray_process(raylet(), "raylet")
    assert ray.started == [raylet()]


def test_servers_that_nobody_needs_are_not_started_meanwhile_and_are_afterwards(ray: Ray) -> None:
    node = ray._private.node.Node()
    with lean_start(ray):
        assert [node.start_api_server(), node.start_monitor(), node.start_log_monitor()] == [None] * 3
    assert [node.start_api_server(), node.start_monitor(), node.start_log_monitor()] == ["api server"] * 3


def test_a_raylet_hears_at_once_that_its_agent_serves_nothing(ray: Ray) -> None:
    with lean_start(ray):
        ray._private.services.start_ray_process(raylet(), "raylet")
    assert ray.ports == {"METRICS_AGENT": -1, "METRICS_EXPORT": -1, "DASHBOARD_AGENT_LISTEN": -1}
    assert ray.started != [raylet()]


@pytest.mark.parametrize("left_out", ["session_dir", "node_id", "runtime_env_agent_command"])
def test_a_command_line_of_another_form_is_left_alone(ray: Ray, left_out: str) -> None:
    command = [argument for argument in raylet() if left_out not in argument]
    with lean_start(ray):
        ray._private.services.start_ray_process(command, "raylet")
    assert (ray.started, ray.ports) == ([command], {})


def test_a_node_is_asked_for_when_it_has_registered(ray: Ray) -> None:
    with lean_start(ray):
        assert ray._private.services.get_node("gcs:1", "abc") == ("gcs:1", "abc")
    assert ray.looked == ["gcs:1"] * 3
    assert ray.workers == []


def test_a_node_with_workers_is_there_when_they_have_come_so_that_its_driver_need_not_wait_for_them(ray: Ray) -> None:
    with lean_start(ray, workers=4):
        assert ray._private.services.get_node("gcs:1", "abc") == ("gcs:1", "abc")
    assert ray.workers == ["gcs:1"] * 4


def test_workers_that_do_not_come_end_the_start_since_ray_would_wait_for_ever(
    ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean_start_module, "WORKERS_S", 0.0)
    with lean_start(ray, workers=4), pytest.raises(TimeoutError, match="its 4 workers have not started within 0 s"):
        ray._private.services.get_node("gcs:1", "abc")


def test_a_start_waits_for_workers_for_less_than_its_own_limit() -> None:
    assert lean_start_module.REGISTRATION_S + lean_start_module.WORKERS_S < START_S


@pytest.mark.parametrize(("workers", "at_once"), [(3, "8"), (9, "9")])
def test_workers_start_with_the_raylet_as_many_as_were_asked_for(ray: Ray, workers: int, at_once: str) -> None:
    with lean_start(ray, workers=workers):
        ray._private.services.start_ray_process(raylet(), "raylet", env_updates={"A": "1"})
    numbers = options(ray.started[0])
    assert numbers["--num_prestart_python_workers"] == str(workers)
    assert numbers["--maximum_startup_concurrency"] == at_once
    assert ray.environments == [{"A": "1", "RAY_enable_worker_prestart": "1"}]


def test_workers_start_in_rays_way_if_no_number_is_given(ray: Ray) -> None:
    with lean_start(ray):
        ray._private.services.start_ray_process(raylet(), "raylet")
    numbers = options(ray.started[0])
    assert (numbers["--num_prestart_python_workers"], numbers["--maximum_startup_concurrency"]) == ("8", "8")
    assert ray.environments == [None]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the agent finds a port by itself")
def test_a_reserved_port_is_there_for_who_asks_for_it_and_for_nobody_else() -> None:
    with reserve_port("127.0.0.1") as reserved, socket.socket() as agent, socket.socket() as other:
        place = reserved.getsockname()
        with pytest.raises(OSError, match="in use"):
            other.bind(place)
        agent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        agent.bind(place)
        agent.listen()
        socket.create_connection(place, timeout=5).close()


AGENT_STUB = os.path.join(os.path.dirname(scripts.__file__), "agent_stub.py")
RUN_SCRIPT = os.path.join(os.path.dirname(scripts.__file__), "run_script.py")
# A raylet that starts an agent by the command that it is given, and ends when its stdin is closed.
SMALL_RAYLET = """
import os, subprocess, sys
os.environ["RAY_RAYLET_PID"] = str(os.getpid())
subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
sys.stdin.read()
"""
# Answers its first caller with its arguments, as Ray's agent binds its port.
SMALL_AGENT = """
import os, socket, sys
options = dict(argument.split("=") for argument in sys.argv[1:])
with socket.socket() as listener, socket.socket() as other:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((options["--node-ip-address"], int(options["--runtime-env-agent-port"])))
    listener.listen(128)
    other.bind(("127.0.0.1", 0))
    caller, _ = listener.accept()
    caller.sendall(f"{sys.argv[1:]} {[name for name in os.environ if name.startswith('NSACTORS')]}".encode())
"""


@pytest.mark.parametrize("arguments", [[], ["SCRIPT", "--node-ip-address=127.0.0.1", "--runtime-env-agent-port=PORT"]])
def test_a_stub_ends_with_its_raylet(arguments: list[str]) -> None:
    with reserve_port("127.0.0.1") as reserved:
        port = str(reserved.getsockname()[1])
        stub = [sys.executable, "-I", "-S", AGENT_STUB, *(word.replace("PORT", port) for word in arguments)]
        # The pipe that both write to closes when the last of them has gone, and only then is the output complete.
        subprocess.run(
            [sys.executable, "-c", SMALL_RAYLET, *stub], input=b"", capture_output=True, timeout=30, check=True
        )


def test_a_stub_becomes_the_agent_which_answers_the_caller_that_has_connected(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("")
    script = tmp_path / "agent.py"
    script.write_text(SMALL_AGENT)
    callers: list[socket.socket] = []

    def connects() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            callers.append(socket.create_connection(place, timeout=30))
        return bool(callers)

    with reserve_port("127.0.0.1") as reserved:
        place = reserved.getsockname()
        arguments = ["--node-ip-address=127.0.0.1", f"--runtime-env-agent-port={place[1]}"]
        stub = [sys.executable, "-I", "-S", AGENT_STUB, RUN_SCRIPT, str(script), *arguments]
        with subprocess.Popen(
            [sys.executable, "-c", SMALL_RAYLET, *stub], stdin=subprocess.PIPE, env={"PYTHONPATH": str(tmp_path)}
        ):
            wait_until(connects)
            with callers[0].makefile() as answer:
                assert answer.read() == f"{arguments} []"
    callers[0].close()
