"""A start of Ray without what an embedded cluster has no use for.

``ray.init(include_dashboard=False)`` starts processes one after the other and waits for most of them. Here

* the API server is not started: without a dashboard it reports usage, which is off, and nothing else;
* nor is the autoscaler's monitor: this cluster is one node for good;
* nor the log monitor: it carries what workers print to drivers that want it, and this one does not;
* nor the server of Ray Client, which ``ray start`` has where gRPC is installed, on the same port for everybody;
* the dashboard's agent is a stand-in, and says what a Ray installed without ``[default]`` says: it serves nothing;
* the agent for runtime environments gets a port beforehand: the raylet need not wait until it has found one;
* the raylet's registration is noticed at once; Ray looks once a second;
* workers and the agent import late what they seldom use (``ray_script``).

Tasks, actors, objects, placement groups and runtime environments need none of what is left out. All this rests on
private names of Ray, which are used here and nowhere else. If one of them is gone, Ray starts as it comes.
"""

from __future__ import annotations

import contextlib
import operator
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

__all__ = ["lean_raylet", "lean_start", "missing_names", "reserve_port"]

REGISTRATION_S = 10.0  # after that Ray looks by itself, and says what is wrong
LOOK_EVERY_S = 0.01
SERVES_NOTHING = -1

_NOT_STARTED = ("start_api_server", "start_monitor", "start_log_monitor", "start_ray_client_server")
_PORT_NAMES = ("METRICS_AGENT_PORT_NAME", "METRICS_EXPORT_PORT_NAME", "DASHBOARD_AGENT_LISTEN_PORT_NAME")
_PRIVATE_NAMES = (
    *(f"_private.node.Node.{name}" for name in _NOT_STARTED),
    *(f"_private.services.{name}" for name in ("get_node", "start_ray_process")),
    *(f"_raylet.{name}" for name in ("GcsClient", "persist_port", *_PORT_NAMES)),
)
_RAYLET_OPTIONS = {
    "session_dir",
    "node_id",
    "node_ip_address",
    "runtime_env_agent_port",
    "python_worker_command",
    "runtime_env_agent_command",
    "dashboard_agent_command",
}
_FOLDER = os.path.dirname(os.path.abspath(__file__))


def missing_names(ray: Any) -> list[str]:
    """The private names of Ray used here that this version of Ray does not have."""
    return [name for name in _PRIVATE_NAMES if not _has(ray, name)]


@contextlib.contextmanager
def lean_start(ray: Any) -> Iterator[None]:
    """Let ``ray.init`` meanwhile start what an embedded cluster needs, and no more."""
    if missing_names(ray):
        yield
        return
    node, services = ray._private.node.Node, ray._private.services
    with contextlib.ExitStack() as undo:
        for owner, name, stand_in in (
            *((node, name, _start_nothing) for name in _NOT_STARTED),
            (services, "start_ray_process", _process_starter(ray, services.start_ray_process)),
            (services, "get_node", _node_finder(ray, services.get_node)),
        ):
            undo.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, stand_in)
        yield


def lean_raylet(command: Sequence[str], ray_folder: str, agent_port: int) -> list[str]:
    """The command line of a raylet that starts lean workers and agents.

    Args:
        command: as Ray has it.
        ray_folder: where Ray is installed.
        agent_port: for the agent for runtime environments; 0 if it is to find one.
    """
    python, script = sys.executable, os.path.join(_FOLDER, "ray_script.py")
    stand_in = subprocess.list2cmdline([python, "-I", "-S", os.path.join(_FOLDER, "stand_in.py")])
    lean = []
    for argument in command:
        option, _, value = argument.partition("=")
        if option == "--dashboard_agent_command":
            value = stand_in
        elif option == "--runtime_env_agent_port":
            value = str(agent_port)
        elif option.endswith("_command"):
            for theirs in ("_private/workers/default_worker.py", "_private/runtime_env/agent/main.py"):
                path = os.path.join(ray_folder, theirs)
                value = value.replace(subprocess.list2cmdline([path]), subprocess.list2cmdline([script, path]))
            value = value.replace("--runtime-env-agent-port=0", f"--runtime-env-agent-port={agent_port}")
        lean.append(f"{option}={value}" if "=" in argument else argument)
    return lean


def reserve_port(address: str) -> socket.socket:
    """A free port that nobody is given until this socket is closed, but that can be asked for.

    Linux lets several sockets with ``SO_REUSEADDR`` have a port as long as none of them listens, and gives no such port
    to those that ask for any.
    """
    family, kind, protocol, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
    reserved = socket.socket(family, kind, protocol)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(place)
    return reserved


def _start_nothing(*args: Any, **kwargs: Any) -> None:
    """Stands in for what starts a process."""


def _process_starter(ray: Any, start: Callable[..., Any]) -> Callable[..., Any]:
    ray_folder = os.path.dirname(ray.__file__)

    def start_lean(command: Sequence[str], *args: Any, **kwargs: Any) -> Any:
        options = dict(
            argument[2:].split("=", 1) for argument in command if argument.startswith("--") and "=" in argument
        )
        if not options.keys() >= _RAYLET_OPTIONS:
            return start(command, *args, **kwargs)
        for name in _PORT_NAMES:
            ray._raylet.persist_port(
                options["session_dir"], options["node_id"], getattr(ray._raylet, name), SERVES_NOTHING
            )
        if sys.platform != "linux":
            return start(lean_raylet(command, ray_folder, 0), *args, **kwargs)
        reserved = reserve_port(options["node_ip_address"])
        started = start(lean_raylet(command, ray_folder, reserved.getsockname()[1]), *args, **kwargs)
        weakref.finalize(started.process, reserved.close)  # kept for as long as the raylet may start its agent
        return started

    return start_lean


def _node_finder(ray: Any, get_node: Callable[..., Any]) -> Callable[..., Any]:
    def get_node_at_once(gcs_address: str, node_id: str) -> Any:
        gcs, wanted = ray._raylet.GcsClient(address=gcs_address), ray.NodeID.from_hex(node_id)
        give_up = time.monotonic() + REGISTRATION_S
        pause = threading.Event()
        while wanted not in gcs.get_all_node_info() and time.monotonic() < give_up:
            pause.wait(LOOK_EVERY_S)
        return get_node(gcs_address, node_id)

    return get_node_at_once


def _has(owner: Any, name: str) -> bool:
    try:
        operator.attrgetter(name)(owner)
    except AttributeError:
        return False
    return True
