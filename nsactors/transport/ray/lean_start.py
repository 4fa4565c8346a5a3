"""A start of Ray without the parts that an embedded cluster does not need.

``ray.init(include_dashboard=False)`` starts processes one after the other and waits for most of them. This module
changes the start:

* the API server is not started: without a dashboard it only reports usage, which is off;
* the autoscaler's monitor is not started: this cluster will never have more than one node;
* the log monitor is not started: it forwards the output of workers to drivers, and this driver does not want it;
* the server of Ray Client is not started; ``ray start`` runs it if gRPC is installed, on the same port for all users;
* a stub replaces the dashboard's agent, and reports, as in a Ray without ``[default]``, that it serves nothing;
* the agent for runtime environments gets its port in advance, so that the raylet need not wait for it. It starts when
  the raylet first connects; until then a stub listens;
* the raylet's registration is noticed immediately; Ray looks once a second;
* as many workers as there will be actors start with the raylet, not with the registration of the driver. Ray answers
  that registration when the workers have started, and the driver waits for the answer with the GIL held, so that no
  thread can draw a line of progress for a second or two. Here the driver registers after the workers have started;
* workers and the agent import seldom-used libraries late (``run_script``);
* workers are forked from a process that has imported what they need, if there is one (``zygote_process``).

Tasks, actors, objects, placement groups and runtime environments work without these parts. The changes depend on
private names of Ray (``private_names``). If one of these names is gone, or this version of Ray was never tried, Ray
starts in its usual way.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nsactors.system.resources import ray_was_tried
from nsactors.transport.ray.private_names import missing_names

REGISTRATION_S = 10.0  # after this time Ray looks for the registration itself, and reports the reason
WORKERS_S = 100.0  # after this time the start has failed
LOOK_EVERY_S = 0.01
SERVES_NOTHING = -1

_NOT_STARTED = ("start_api_server", "start_monitor", "start_log_monitor", "start_ray_client_server")
_PORT_NAMES = ("METRICS_AGENT_PORT_NAME", "METRICS_EXPORT_PORT_NAME", "DASHBOARD_AGENT_LISTEN_PORT_NAME")
_RAYLET_OPTIONS = {
    "session_dir",
    "node_id",
    "node_ip_address",
    "runtime_env_agent_port",
    "python_worker_command",
    "runtime_env_agent_command",
    "dashboard_agent_command",
}
_STARTS_WORKERS = {"RAY_enable_worker_prestart": "1"}  # workers start with the raylet, not with the first driver
_SCRIPTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "scripts")
_AGENT_STUB = os.path.join(_SCRIPTS, "agent_stub.py")
_LEAN_PYTHON = "-I", "-S"


def starts_lean(ray: Any) -> bool:
    """Return whether this version of Ray can start lean."""
    return ray_was_tried(ray.__version__) and not missing_names(ray, "lean_start")


@contextlib.contextmanager
def lean_start(
    ray: Any,
    started: Callable[[str, Any], object] = lambda name, process: None,
    workers: int | None = None,
    zygote: str | None = None,
) -> Iterator[None]:
    """Let ``ray.init`` within the block start only the processes that an embedded cluster needs.

    Args:
        ray: the module.
        started: called with Ray's name for each server and its process, as soon as the server runs.
        workers: the number of workers that start with the raylet; None lets Ray start its own number of workers when a
            driver registers.
        zygote: the socket of the process that forks workers; None if workers are not forked.
    """
    if not starts_lean(ray):
        yield
        return
    node, services = ray._private.node.Node, ray._private.services
    with contextlib.ExitStack() as undo:
        for owner, name, stand_in in (
            *((node, name, _start_nothing) for name in _NOT_STARTED),
            # Rejected: sitecustomize on PYTHONPATH, which the user's child processes would also run; and no agent at
            # all, which a raylet refuses.
            (
                services,
                "start_ray_process",
                _process_starter(ray, services.start_ray_process, started, workers, zygote),
            ),
            (services, "get_node", _node_finder(ray, services.get_node, workers or 0)),
        ):
            undo.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, stand_in)
        yield


def lean_raylet(
    command: Sequence[str], ray_folder: str, agent_port: int, workers: int | None = None, zygote: str | None = None
) -> list[str]:
    """Return the command line of a raylet that starts lean workers and agents.

    Args:
        command: Ray's command line.
        ray_folder: the folder of the ray package.
        agent_port: the port of the agent for runtime environments, which starts at the first connection; 0 lets it
            start with the raylet, and find a port.
        workers: the number of workers that start first, at the same time; None for Ray's own number.
        zygote: the socket of the process that forks workers; None if workers are not forked.
    """
    script = os.path.join(_SCRIPTS, "run_script.py")
    stand_in = subprocess.list2cmdline([sys.executable, *_LEAN_PYTHON, _AGENT_STUB])
    lean = []
    for argument in command:
        option, _, value = argument.partition("=")
        if option == "--dashboard_agent_command":
            value = stand_in
        elif option == "--runtime_env_agent_port":
            value = str(agent_port)
        elif workers is not None and option == "--num_prestart_python_workers":
            value = str(workers)
        elif workers is not None and option == "--maximum_startup_concurrency" and value.isdecimal():
            value = str(max(workers, int(value)))  # not fewer: the cluster may get more engines later
        elif option.endswith("_command"):
            stub = [] if zygote is None else [*_LEAN_PYTHON, os.path.join(_SCRIPTS, "worker_stub.py"), zygote]
            late = [*_LEAN_PYTHON, _AGENT_STUB] if agent_port else []
            for theirs, first in (
                ("_private/workers/default_worker.py", stub),
                ("_private/runtime_env/agent/main.py", late),
            ):
                path = os.path.join(ray_folder, theirs)
                lean_command = subprocess.list2cmdline([*first, script, path])
                value = value.replace(subprocess.list2cmdline([path]), lean_command)
            value = value.replace("--runtime-env-agent-port=0", f"--runtime-env-agent-port={agent_port}")
        lean.append(f"{option}={value}" if "=" in argument else argument)
    return lean


def reserve_port(address: str) -> socket.socket:
    """Reserve a free port: until the socket is closed, the system gives the port only to processes that name it.

    Linux lets several sockets with ``SO_REUSEADDR`` have a port as long as none of them listens, and never gives such a
    port to a process that asks for any free port.
    """
    family, kind, protocol, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
    # Rejected: a port found by opening and closing a socket. Another process may take it in between, and the cluster
    # would die.
    reserved = socket.socket(family, kind, protocol)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(place)
    return reserved


def _start_nothing(*args: Any, **kwargs: Any) -> None:
    pass


def _process_starter(
    ray: Any,
    start: Callable[..., Any],
    started: Callable[[str, Any], object],
    workers: int | None,
    zygote: str | None,
) -> Callable[..., Any]:
    ray_folder = os.path.dirname(ray.__file__)

    def start_server(command: Sequence[str], *args: Any, **kwargs: Any) -> Any:
        options = dict(
            argument[2:].split("=", 1) for argument in command if argument.startswith("--") and "=" in argument
        )
        if not options.keys() >= _RAYLET_OPTIONS:
            return start(command, *args, **kwargs)
        for name in _PORT_NAMES:
            ray._raylet.persist_port(
                options["session_dir"], options["node_id"], getattr(ray._raylet, name), SERVES_NOTHING
            )
        if workers is not None:
            kwargs["env_updates"] = {**(kwargs.get("env_updates") or {}), **_STARTS_WORKERS}
        if sys.platform != "linux":
            return start(lean_raylet(command, ray_folder, 0, workers, zygote), *args, **kwargs)
        reserved = reserve_port(options["node_ip_address"])
        lean = lean_raylet(command, ray_folder, reserved.getsockname()[1], workers, zygote)
        server = start(lean, *args, **kwargs)
        weakref.finalize(server.process, reserved.close)  # the raylet may start its agent at any time
        return server

    def start_lean(command: Sequence[str], process_type: str, *args: Any, **kwargs: Any) -> Any:
        server = start_server(command, process_type, *args, **kwargs)
        started(process_type, server.process)
        return server

    return start_lean


def _node_finder(ray: Any, get_node: Callable[..., Any], workers: int) -> Callable[..., Any]:
    def get_node_at_once(gcs_address: str, node_id: str) -> Any:
        gcs, wanted = ray._raylet.GcsClient(address=gcs_address), ray.NodeID.from_hex(node_id)
        _wait_until(lambda: wanted in gcs.get_all_node_info(), REGISTRATION_S)
        node = get_node(gcs_address, node_id)
        if workers:
            where = ray._raylet.GcsClientOptions.create(
                gcs_address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
            )
            state = ray._raylet.GlobalStateAccessor(where)
            # Rejected: to leave the rest of a long wait to Ray. The raylet gives up workers that need more than a
            # minute, and the driver would wait for them for ever, with the GIL held.
            if state.connect() and not _wait_until(lambda: len(state.get_worker_table()) >= workers, WORKERS_S):
                raise TimeoutError(f"its {workers} workers have not started within {WORKERS_S:.0f} s")
        return node

    return get_node_at_once


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    give_up = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (holds := condition()) and time.monotonic() < give_up:
        pause.wait(LOOK_EVERY_S)
    return holds
