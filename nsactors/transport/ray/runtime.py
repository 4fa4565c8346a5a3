"""Import Ray first, start it, and stop what this process started; the only module that does.

Ray reads much of its configuration from the environment, once, when it is imported. So this module sets the environment
before it imports Ray. If the user has already imported Ray with other settings, this cannot be changed any more, and is
reported immediately.

The settings, and their reasons:

* all servers listen on the loopback interface only (Ray's default is all interfaces, for 13 of 14 listeners);
* token authentication is on, with a separate token in a private folder (Ray writes a token that every user may read);
* workers run at normal priority (Ray's default is nice 15);
* a blocked ``ray.get`` looks for signals every 50 ms (Ray's default is 1 s), so that Ctrl-C works immediately;
* no usage is reported.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from nsactors.errors import (
    AlreadyConnected,
    ClusterLost,
    ClusterUnreachable,
    OutsideCluster,
    RayImportedFirst,
    RayStartError,
)
from nsactors.protocol.process import OwnProcess
from nsactors.system.private_files import PrivateFolder, is_private_token, state_folder
from nsactors.system.processes import keep_sockets_from_children, open_sockets
from nsactors.system.resources import check_processes, installed_ray, ray_was_tried
from nsactors.transport.base import ClusterEnd
from nsactors.transport.ray.access import check_machine, entry_settings
from nsactors.transport.ray.failures import QUICK_S, can_be_ended, end_waits
from nsactors.transport.ray.lean_start import lean_start, starts_lean
from nsactors.transport.ray.scripts.run_script import import_ray
from nsactors.transport.ray.servers import (
    ServerDeath,
    ServerMonitor,
    Watchdog,
    end_rest,
    logs_folder,
    raylet_process,
    servers_of,
    take_death_reports,
)
from nsactors.transport.ray.zygote_process import ZygoteProcess, obstacle_to_forking

JOIN_S = 20.0
CLIENTS_LEAVE_S = 4.0  # clients need a third of a second on a quiet machine
LOOK_S = 0.5
# Numbers of processes and threads: no machine has been seen to use fewer.
NODE_PROCESSES, DRIVER_PROCESSES = 50, 25
START_S = 120.0  # a start takes two seconds, and 20 times as long on a busy, slow machine

PRESETS = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name: binds everything to 127.0.0.1
    "RAY_worker_niceness": "0",
    "RAY_get_check_signal_interval_milliseconds": "50",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # errors reach users through their results
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a future default, and a warning line without it
    "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",  # nsactors itself warns of other differences
}
# In half of all starts, the raylet first connects to its own object store a moment too early. By default it would try
# again after a second. The product of both settings is Ray's own limit of 10 s. A version of Ray that was never tried
# may have only the setting for the shorter time, and give up early.
PRESETS_OF_TRIED_RAY = {
    "RAY_raylet_client_connect_timeout_milliseconds": "20",
    "RAY_raylet_client_num_connect_attempts": "500",
}

_ENCRYPTION = ("RAY_USE_TLS", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
_ACCESS = ("RAY_AUTH_MODE", _TOKEN_PATH, *_ENCRYPTION)
_SAFETY = ("RAY_AUTH_MODE", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
_TOKEN_ITSELF = "RAY_AUTH_TOKEN"  # Ray prefers it to the token in the file


def presets() -> dict[str, str]:
    """Return Ray's settings for the environment of each process of an embedded cluster."""
    is_tried = ray_was_tried(installed_ray() or "")
    return {**PRESETS, **(PRESETS_OF_TRIED_RAY if is_tried else {})}


class RayRuntime:
    """This process's Ray, and the count of clusters that use it.

    Attributes:
        serves_others: True in the owner of a cluster in the background. Such a process has no watchdog, because a
            watchdog would hold the terminal where it was started. If its raylet dies, its clients get time to
            disconnect before the GCS ends: otherwise their disconnection would hang until Ray ends their processes.
    """

    def __init__(self) -> None:
        self.serves_others = False
        self._lock = threading.Lock()
        self._users = 0
        self._process = OwnProcess()
        self._embedded = False
        self._is_safe = False  # Ray has been imported here with the settings of a cluster that nsactors has embedded
        self._folder: PrivateFolder | None = None
        self._own_token_path = ""  # the file with the token of an embedded Ray
        self._ray: Any = None
        self._starter: _StarterThread | None = None
        self._zygote: ZygoteProcess | None = None
        self._monitor: ServerMonitor | None = None
        self._watchdog: Watchdog | None = None
        self._ends: weakref.WeakSet[ClusterEnd] = weakref.WeakSet()

    def acquire(
        self,
        *,
        num_cpus: int,
        address: str | None,
        environment: dict[str, str],
        show_logs: bool,
        store_bytes: int | None = None,
        workers: int | None = None,
        releases: bool = True,
    ) -> Any:
        """Return the ``ray`` module, connected; start an embedded cluster if there is no other.

        Args:
            num_cpus: the CPUs of an embedded Ray.
            address: an existing Ray cluster; None takes ``RAY_ADDRESS``, or embeds one.
            environment: variables for the workers of an embedded Ray.
            show_logs: show Ray's own log lines.
            store_bytes: the size of an embedded Ray's object store; None for Ray's default.
            workers: the number of workers that an embedded Ray starts at the same time; None for Ray's default.
            releases: whether the caller will call :meth:`release`.

        Raises:
            ClusterUnreachable: if the cluster at ``address`` cannot be joined.
            OutsideCluster: if this cluster has no node on this machine.
            ProcessLimit: if this user may not start as many processes and threads as Ray needs.
            AccessRefused: if this cluster requires a token that this process does not have.
            RayImportedFirst: if Ray was imported without the settings that this cluster needs.
            ForkedClient: in a forked child of a connected process.
        """
        if self._ray is not None and self._ray.is_initialized():
            self._process.check()  # Ray can neither be used nor started again in a forked child
        with self._lock:
            address = address or os.environ.get("RAY_ADDRESS")
            self._check_machine(address)
            if address is not None and self._ray is None:
                self._apply_entry_settings(address)
            ray = self._import_ray(embeds=address is None, zygote_environment=None if show_logs else environment)
            if self._starter is not None:
                self._starter.join()  # wait for an earlier start that was interrupted
            if not ray.is_initialized():
                if address is None:
                    self._embed(ray, num_cpus, environment, show_logs, store_bytes, workers)
                else:
                    _connect(ray, address, show_logs)
            if self._monitor is None and _is_driver(ray):
                self._watch_servers(ray)
            self._users += releases
            return ray

    def belong_here(self) -> None:
        """Accept this process as the owner: it was forked after the import of this module and before any connection."""
        self._process = OwnProcess()

    def new_end(self) -> ClusterEnd:
        """Return a flag that is set when a cluster on this Ray ends, here or because Ray's servers die."""
        end = ClusterEnd()
        self._ends.add(end)
        return end

    def join(self, address: str, settings: Mapping[str, str]) -> Any:
        """Return the ``ray`` module, connected to a cluster that another process has started.

        Args:
            address: the address of that cluster.
            settings: the result of :meth:`settings_for_others` in that process.

        Raises:
            ClusterUnreachable: if the cluster cannot be joined.
            AlreadyConnected: if this process is connected to another cluster.
            RayImportedFirst: if Ray has been imported with other settings.
        """
        self.check_joining(address, settings)
        if "ray" not in sys.modules:
            os.environ.update(settings)
            if _TOKEN_PATH in settings:
                os.environ.pop(_TOKEN_ITSELF, None)
        elif _TOKEN_PATH in settings:
            self._use_token(settings[_TOKEN_PATH])
        ray = self.acquire(num_cpus=0, address=address, environment={}, show_logs=False, releases=False)
        self.check_joining(address, settings)
        return ray

    def check_joining(self, address: str, settings: Mapping[str, str]) -> None:
        """Check that this process can join a cluster; raise the errors of :meth:`join` otherwise."""
        ray = sys.modules.get("ray")
        if ray is None:
            return
        if ray.is_initialized() and (here := ray.get_runtime_context().gcs_address) != address:
            raise AlreadyConnected(address, here)
        others = {name for name in _ACCESS if name in settings and os.environ.get(name) != settings[name]}
        if others and not (others == {_TOKEN_PATH} and self._can_change_token()):
            raise RayImportedFirst

    def _can_change_token(self) -> bool:
        """Return whether Ray can read another token, because it is not connected, and has been imported safely."""
        return self._is_safe and not self._ray.is_initialized() and _token_loader() is not None

    def _use_token(self, path: str) -> None:
        """Let Ray read its token from this file from now on; Ray keeps the first token that it has read."""
        if os.environ.get(_TOKEN_PATH) != path:
            os.environ[_TOKEN_PATH] = path
            if (loader := _token_loader()) is not None:
                loader.reset_cache()

    @staticmethod
    def settings_for_others() -> dict[str, str]:
        """Return Ray's settings for the environment of a process that joins this cluster; they hold no secret."""
        names = *PRESETS, *PRESETS_OF_TRIED_RAY, *_ACCESS
        return {name: os.environ[name] for name in names if name in os.environ}

    def release(self) -> None:
        """End one use of Ray; the last one stops an embedded Ray."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._embedded:
                self._stop_watching()
                self._stop_embedded()
                if self._folder is not None:
                    self._folder.empty()

    def leave_servers_unwatched(self) -> None:
        """Count the ends of servers as intended from now on, in a process that watches them itself.

        When both servers end at the same time, as at the end of a batch job, a disconnection would end this process
        before it has cleaned up.
        """
        self._stop_watching()

    def remove_folder(self) -> None:
        """Remove the files of an embedded Ray whose processes have been killed; call this before this process ends."""
        if self._folder is not None:
            self._folder.remove()

    @staticmethod
    def _check_machine(address: str | None) -> None:
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            return
        if address is not None:
            try:
                check_machine(address)
            except OutsideCluster:
                entry_settings(address, os.environ)  # raises an error if no cluster of this user answers at the address
                raise
        # Before Ray is imported: the import alone starts threads.
        check_processes(DRIVER_PROCESSES if address is not None else NODE_PROCESSES + DRIVER_PROCESSES)

    @staticmethod
    def _apply_entry_settings(address: str) -> None:
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            return
        settings = entry_settings(address, os.environ)
        if settings and ray is not None:
            raise RayImportedFirst
        os.environ.update(settings)

    def _import_ray(self, *, embeds: bool, zygote_environment: Mapping[str, str] | None) -> Any:
        if self._ray is not None:
            if embeds and self._can_change_token():  # it may have been another cluster's
                if self._folder is None:
                    self._own_token_path = self._make_folder()
                self._use_token(self._own_token_path)
            return self._ray
        is_new = "ray" not in sys.modules
        if is_new and embeds:
            token_path = self._make_folder()
            if is_private_token(os.environ.get(_TOKEN_PATH, "")):  # of the process that has started this one
                del os.environ[_TOKEN_PATH]
            for name, value in {**presets(), _TOKEN_PATH: token_path}.items():
                os.environ.setdefault(name, value)
            self._own_token_path = os.environ[_TOKEN_PATH]
            os.environ.pop(_TOKEN_ITSELF, None)
            if zygote_environment is not None:
                self._start_zygote(zygote_environment)  # the zygote imports Ray while this process does
        logging.getLogger("ray.widgets.util").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about progress bars in notebooks, which are not used
            self._ray = import_ray()
        _drop_excepthook(self._ray)
        self._is_safe = is_new and all(os.environ.get(name) == PRESETS[name] for name in _SAFETY)
        os.register_at_fork(after_in_child=partial(_leave_ray_to_parent, self._ray, self._stop_watching))
        return self._ray

    def _make_folder(self) -> str:
        """Make the folder of an embedded Ray; return the path of the file with its token."""
        self._folder = PrivateFolder()
        atexit.register(self._end)
        return self._folder.token_path

    def _start_zygote(self, environment: Mapping[str, str]) -> None:
        """Start the process that forks workers, if there is none and they can be forked.

        Args:
            environment: the workers' variables besides those of this process.
        """
        complete = {**os.environ, **environment}
        if self._zygote is not None and self._zygote.has_raylet:  # from a start that was interrupted and has failed
            self._end_zygote()
        if self._zygote is None and self._folder is not None and obstacle_to_forking(complete) is None:
            with contextlib.suppress(OSError):  # workers are then executed
                self._zygote = ZygoteProcess(self._folder.path, complete)

    def _end_zygote(self) -> None:
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.end()

    def _embed(
        self,
        ray: Any,
        num_cpus: int,
        environment: dict[str, str],
        show_logs: bool,
        store_bytes: int | None,
        workers: int | None,
    ) -> None:
        if self._folder is None:
            raise RayImportedFirst

        folder = self._folder.ray_path
        logs = os.path.join(folder, "session_latest", "logs")
        servers: dict[str, Any] = {}
        if show_logs or not starts_lean(ray):
            self._end_zygote()
        else:
            self._start_zygote(environment)
        zygote = self._zygote

        def started(name: str, server: Any) -> None:
            servers[name] = server
            if zygote is not None and name == "raylet":
                zygote.serve(server.pid)

        def obstacle(waited_s: float) -> RayStartError | None:
            return _start_failure(servers, waited_s, logs)

        def start() -> None:
            # With show_logs, all processes that write and forward Ray's own log lines are started.
            with (
                _died_first(obstacle, logs),
                _environment(environment),
                _own_breakpoints(),
                contextlib.nullcontext()
                if show_logs
                else lean_start(ray, started, workers, None if zygote is None else zygote.path),
            ):
                ray.init(
                    num_cpus=num_cpus,
                    object_store_memory=store_bytes,
                    include_dashboard=False,
                    log_to_driver=show_logs,
                    logging_level="INFO" if show_logs else "ERROR",
                    _temp_dir=folder,
                )

        # Set before the wait: if Ctrl-C ends the wait, the start must still be undone.
        self._embedded = True
        self._starter = _StarterThread(start)
        try:
            self._starter.wait(obstacle)
        except Exception as error:
            self._embedded = False
            self._end_zygote()
            if isinstance(error, RayStartError):
                self._starter.end()
                end_rest(folder)
            raise
        _exit_on_sigterm()  # set after Ray's handler, which prints a C++ stack and leaves Ray's processes behind
        if not show_logs:
            _silence_raylet(ray)

    def _stop_embedded(self) -> None:
        if self._embedded and self._starter is not None:
            self._embedded = False
            self._starter.join()
            if self._ray.is_initialized():
                self._ray.shutdown()
            self._starter.end()
            self._end_zygote()
            _restore_sigterm()

    def _watch_servers(self, ray: Any) -> None:
        can_be_ended()
        self._monitor = ServerMonitor(list(servers_of(ray)), self._server_died)
        folder = state_folder(os.environ) / "ended"
        for text in take_death_reports(folder):
            print(text, file=sys.stderr)
        raylet = raylet_process(ray)
        if raylet is not None and not self.serves_others:
            with contextlib.suppress(OSError):
                self._watchdog = Watchdog(raylet, logs_folder(ray), folder)
        atexit.register(self._stop_watching)  # runs before Ray's own handler, which ends the servers

    def _stop_watching(self) -> None:
        """Count the ends of servers as intended from now on."""
        atexit.unregister(self._stop_watching)
        (monitor, self._monitor), (watchdog, self._watchdog) = (self._monitor, None), (self._watchdog, None)
        if monitor is not None:
            monitor.stop()
        if watchdog is not None:
            watchdog.stop()

    def _server_died(self, death: ServerDeath) -> None:
        """Report that a server has died, and disconnect before Ray ends this process."""
        if not self._ray.is_initialized():  # the user's code has shut down Ray
            return
        lost = ClusterLost(death.server, death.reason)
        ends = list(self._ends)
        losers = [end for end in ends if end.has_something_to_lose]
        for end in ends:
            if end not in losers:  # the cluster has been stopped, and its servers with it
                end.set()
        if any([end.lose(lost) for end in losers]):  # noqa: C419 (each end must be set)
            with contextlib.suppress(OSError, ValueError):  # a closed terminal must not keep calls from ending
                print(f"nsactors: {lost}\n", end="", file=sys.stderr, flush=True)

        def notify() -> None:
            end_waits(lost)
            for end in ends:
                end.tell_listeners()

        # Without the object store, Ray may end this process at the user's next step. So threads that wait continue only
        # after the disconnection, a third of a second later. Without the GCS, the disconnection takes six seconds, and
        # they can safely continue during this time.
        if death.holds_store:
            self._disconnect()
            notify()
        else:
            notify()
            self._disconnect()

    def _disconnect(self) -> None:
        with self._lock:
            # After this pause no thread of nsactors is inside Ray.
            threading.Event().wait(CLIENTS_LEAVE_S if self.serves_others else 3 * QUICK_S)
            self._stop_watching()
            embedded, self._embedded = self._embedded, False
            if self._ray.is_initialized():
                self._ray.shutdown()
            if self._starter is not None:
                self._starter.end()
            self._end_zygote()
            if embedded and self._folder is not None:
                end_rest(self._folder.ray_path)
                self._folder.empty()

    def _end(self) -> None:
        if not self._process.is_here:  # in a forked child, Ray and its files belong to the parent
            return
        self._stop_embedded()
        self._end_zygote()
        self.remove_folder()


def _drop_excepthook(ray: Any) -> None:
    """Let uncaught errors be shown as before the import of Ray.

    Ray's hook first sends the traceback to the GCS. If the GCS has died, the hook shows nothing, and Ray ends this
    process after a minute. The names are private.
    """
    worker = getattr(getattr(ray, "_private", None), "worker", None)
    if sys.excepthook is getattr(worker, "custom_excepthook", None):
        sys.excepthook = getattr(worker, "normal_excepthook", sys.__excepthook__)


def _token_loader() -> Any:
    """Return the part of Ray that reads and keeps the token; None if this version of Ray has no such part."""
    raylet = getattr(sys.modules.get("ray"), "_raylet", None)
    loader: Any = getattr(raylet, "AuthenticationTokenLoader", None)
    return loader.instance() if hasattr(loader, "instance") and hasattr(loader, "reset_cache") else None


def _is_driver(ray: Any) -> bool:
    """Return whether this process is a driver, and not a worker of Ray, which ends with its raylet anyway."""
    return bool(ray.get_runtime_context().worker.mode == ray.SCRIPT_MODE)


def _exit_on_sigterm() -> None:
    """Let SIGTERM end this process as ``sys.exit`` does, so that Ray is stopped and its files are removed.

    A handler that the user has set stays. It is set again, since Ray has replaced it without Python's knowledge.
    """
    if threading.current_thread() is threading.main_thread():
        known = signal.getsignal(signal.SIGTERM)
        if known is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _exit)
        elif known is not None:
            signal.signal(signal.SIGTERM, known)


def _restore_sigterm() -> None:
    """Restore the system's handling of SIGTERM, unless the user has a handler."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _exit:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _start_failure(servers: Mapping[str, Any], waited_s: float, logs: str) -> RayStartError | None:
    """Return the error if a start has failed; Ray itself would wait for minutes, or forever."""
    for name, process in list(servers.items()):
        if process.poll() is not None:
            return RayStartError(f"its {name} ended with status {process.returncode}", logs)
    return RayStartError(f"it has taken {waited_s:.0f} s", logs) if waited_s > START_S else None


@contextlib.contextmanager
def _died_first(obstacle: Callable[[float], RayStartError | None], logs: str) -> Iterator[None]:
    """Raise the death of a server in place of Ray's own error, which never mentions it.

    If a server is not ready in time, Ray raises a bare ``Exception``. If workers have not started in time, a lean start
    raises a ``TimeoutError``.

    The thread that starts the servers must use this, since servers end with their thread.
    """
    try:
        yield
    except Exception as error:
        if (failure := obstacle(0.0)) is not None:
            raise failure from None
        if type(error) in (Exception, TimeoutError):
            raise RayStartError(str(error).strip().rstrip("."), logs) from error
        raise


class _StarterThread:
    """A thread that starts Ray and lives until Ray is stopped.

    Ray's servers die with the *thread* that started them (``PR_SET_PDEATHSIG``): when a pool's thread started them,
    they ended with the pool, and the user's process ended a minute later.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._over = threading.Event()
        self._done: Future[None] = Future()
        threading.Thread(target=self._run, args=(function,), name="nsactors-ray", daemon=True).start()

    def wait(self, obstacle: Callable[[float], Exception | None]) -> None:
        """Wait until the function has returned; its error is raised here.

        Args:
            obstacle: called now and then with the seconds that have passed; an error that it returns is raised.
        """
        began = time.monotonic()
        while not wait([self._done], timeout=LOOK_S).done:
            if (error := obstacle(time.monotonic() - began)) is not None:
                raise error
        self._done.result()

    def join(self) -> None:
        """Wait until the function has returned or failed, but not for ever."""
        wait([self._done], timeout=JOIN_S)

    def end(self) -> None:
        """Let the thread end."""
        self._over.set()

    def _run(self, function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            self._done.set_exception(error)
        else:
            self._done.set_result(None)
            self._over.wait()


ray_runtime = RayRuntime()
_HOOK = "PYTHONBREAKPOINT"


@contextlib.contextmanager
def _own_breakpoints() -> Iterator[None]:
    """Keep ``breakpoint()`` in this process unchanged: ``ray.init`` would make it call Ray's debugger."""
    before = os.environ.get(_HOOK)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_HOOK, None)
        else:
            os.environ[_HOOK] = before


def _connect(ray: Any, address: str, show_logs: bool) -> None:
    of_others = open_sockets().values()
    try:
        with _own_breakpoints():
            ray.init(address=address, log_to_driver=show_logs, logging_level="INFO" if show_logs else "ERROR")
    except (ConnectionError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        raise ClusterUnreachable(address, str(error)) from error
    keep_sockets_from_children(of_others)
    if not show_logs:
        _silence_raylet(ray)


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """Set variables for child processes within the block; restore this process's environment afterwards."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _leave_ray_to_parent(ray: Any, stop_watching: Callable[[], None]) -> None:
    """Let a forked child end: it has none of Ray's threads, and Ray would wait for them forever.

    Ray's C++ objects wait or crash when their last reference is dropped, so one reference to each is kept for good; the
    names of these objects are private. Ray's static objects crash when they are destroyed, after Python has ended. So
    the process ends just before that, with its exit status. If Ray has no such names any more, or the C library has no
    ``on_exit``, a child that ends in another way than with ``os._exit`` may crash.
    """
    atexit.unregister(stop_watching)
    atexit.unregister(ray.shutdown)
    private = getattr(ray, "_private", None)
    worker = getattr(getattr(private, "worker", None), "global_worker", None)
    state = getattr(getattr(private, "state", None), "state", None)
    for owner, name in ((worker, "core_worker"), (worker, "gcs_client"), (state, "_global_state_accessor")):
        if (held := getattr(owner, name, None)) is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)  # called with the exit status


def _silence_raylet(ray: Any) -> None:
    """Keep Ray's "A worker died" lines off the terminal; Ray prints them even with ``log_to_driver=False``.

    The function that prints them is private. If it is gone, the lines appear again, and nothing else is lost.
    """
    worker: Any = getattr(getattr(ray, "_private", None), "worker", None)
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _drop_raylet_lines


def _drop_raylet_lines(data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
    """Drop Ray's lines: nsactors reports these deaths itself, with the engine's name."""
