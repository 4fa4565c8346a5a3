"""All that this package uses of Ray beyond its documented interface.

The names were tried with the versions of Ray in ``nsactors.system.resources.TRIED_RAY``. With any other version, Ray
starts in its usual way, no worker is forked, and no undocumented setting of the raylet is made; ``nsactors doctor``
reports this. A name or setting that is used with all versions has a plain substitute. Each entry of :data:`NAMES` and
:data:`SETTINGS` describes it.
"""

from __future__ import annotations

import operator
from typing import Any

from nsactors._frozen import frozen


@frozen
class PrivateName:
    """A name of Ray that is not documented.

    Attributes:
        name: the name below ``ray``.
        used_in: the module below ``nsactors.transport.ray`` that uses it.
        without: what happens if Ray lacks it.
        is_static: whether it exists before Ray is connected.
    """

    name: str
    used_in: str
    without: str
    is_static: bool = True


def _lean(*names: str) -> tuple[PrivateName, ...]:
    return tuple(PrivateName(name, "lean_start", "Ray starts in its usual way") for name in names)


def _at_connection(name: str, used_in: str, without: str) -> PrivateName:
    return PrivateName(name, used_in, without, is_static=False)


_FORKED_CHILD = "a forked child of a client that does not end by os._exit may crash"
_NOT_WATCHED = "the program may end without a message when Ray's servers die"

NAMES = (
    *_lean(
        "_private.node.Node.start_api_server",
        "_private.node.Node.start_monitor",
        "_private.node.Node.start_log_monitor",
        "_private.node.Node.start_ray_client_server",
        "_private.services.get_node",
        "_private.services.start_ray_process",
        "_raylet.GcsClient",
        "_raylet.GcsClientOptions",
        "_raylet.GlobalStateAccessor",
        "_raylet.persist_port",
        "_raylet.METRICS_AGENT_PORT_NAME",
        "_raylet.METRICS_EXPORT_PORT_NAME",
        "_raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME",
    ),
    PrivateName("_common.usage.usage_lib", "scripts.run_script", "workers import `requests` when they connect"),
    PrivateName("_private.utils.open_log", "scripts.run_script", "an engine that starts on a full disk may hang"),
    PrivateName("_raylet.AuthenticationTokenLoader.reset_cache", "runtime", "a process can join only one cluster"),
    PrivateName("_private.worker.print_to_stdstream", "runtime", "Ray's lines about dead workers are shown"),
    _at_connection("_private.worker.global_worker.core_worker", "runtime", _FORKED_CHILD),
    _at_connection("_private.worker.global_worker.gcs_client", "runtime", _FORKED_CHILD),
    _at_connection("_private.state.state._global_state_accessor", "runtime", _FORKED_CHILD),
    _at_connection("_private.worker._global_node.all_processes", "servers", _NOT_WATCHED),
    _at_connection("_private.worker._global_node.raylet_socket_name", "servers", _NOT_WATCHED),
    _at_connection("_private.worker._global_node._logs_dir", "servers", "errors do not name the folder of logs"),
    PrivateName("_private.worker.custom_excepthook", "runtime", "no uncaught error is shown if the GCS has just died"),
    PrivateName("_private.worker.normal_excepthook", "runtime", "uncaught errors are shown by Python's own hook"),
    PrivateName("_private.worker.shutdown", "engine_process", "an engine ends while the user's exit handlers run"),
    PrivateName("_private.worker", "named_actors", "a warning of Ray's about blocking calls is shown"),
    PrivateName("_private.state.actors", "nodes", "users are not told why an engine does not start"),
    PrivateName("_private.state.available_resources_per_node", "nodes", "engines are placed as if nothing else ran"),
    _at_connection("_private.worker.global_worker.core_worker.log_plasma_usage", "object_store", "no report of memory"),
    _at_connection("_private.worker.global_worker.node.get_session_dir_path", "object_store", "spills are not noticed"),
    PrivateName("util.rpdb.set_trace", "engine_process", "calls of Ray's debugger by name wait at a port"),
)

SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0 binds all servers to 127.0.0.1; without it they listen everywhere",
    "RAY_worker_niceness": "without it workers have low priority",
    "RAY_get_check_signal_interval_milliseconds": "without it Ctrl-C takes up to a second in ray.get",
    "RAY_IGNORE_UNHANDLED_ERRORS": "without it Ray prints errors that users get from their results",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "without it Ray prints a warning",
    "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "without it a patch of Python that differs is an error",
    "RAY_raylet_client_connect_timeout_milliseconds": "for tried versions: without it half of all starts take 1 s more",
    "RAY_raylet_client_num_connect_attempts": "the same",
    "RAY_enable_worker_prestart": "for tried versions: without it the driver waits for workers with the GIL held",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "without it a batch job may be killed before it has cleaned up",
    "RAY_raylet_start_wait_time_s": "without it nodes on busy machines may not start",
    "RAY_RAYLET_PID": "read when Ray is loaded; set for workers that are forked, and read by stubs of agents",
    "RAY_JOB_ID": "read when Ray is loaded; set for workers that are forked",
    "RAY_CLIENT_MODE": "set by Ray for each worker; need not be the same in a worker that is forked",
    "RAY_LD_PRELOAD_ON_WORKERS": "the same",
}
"""Environment variables that Ray reads or sets without documenting them, and their purpose."""

BEHAVIOUR = (
    "the raylet's command line, with those of workers and agents, the scripts `default_worker.py` and"
    " `runtime_env/agent/main.py` in them, and the options `--runtime-env-hash` and `--worker-type` of workers",
    "a worker's process id is the one that it registers with, not that of the process that the raylet has started",
    "the raylet waits for the answer of its agent for runtime environments, however long that takes",
    "that agent binds its port by `socket.bind`",
    "the raylet reads the ports of agents from files of the session",
    "the modules that workers import: `scripts.zygote` imports them before it forks",
    "a process of Ray's writes its title over its command line",
)
"""Further facts on which tried versions rely. If one of them changes, a test fails, and workers are executed."""


def missing_names(ray: Any, used_in: str | None = None) -> list[str]:
    """Return the static names that this version of Ray lacks.

    Args:
        ray: the module.
        used_in: the module that uses the names; None for all of them.
    """
    wanted = [name.name for name in NAMES if name.is_static and used_in in (None, name.used_in)]
    return [name for name in wanted if not _has(ray, name)]


def _has(owner: Any, name: str) -> bool:
    try:
        operator.attrgetter(name)(owner)
    except AttributeError:
        return False
    return True
