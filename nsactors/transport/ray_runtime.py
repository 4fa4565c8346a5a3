"""The one module that imports Ray first, starts it, and stops what it started.

Ray reads much of its configuration from the environment, once, when it is imported. So this module sets that
environment before it imports Ray; if somebody has imported Ray before with other settings, that cannot be mended and
is said at once.

What is set, and why:

* everything listens on the loopback interface only (Ray's default is all interfaces, 13 of 14 listeners);
* token authentication is on, with a token of its own in a private folder (Ray writes one that everybody may read);
* workers run at normal priority (Ray's default is nice 15);
* a blocked ``ray.get`` looks for signals every 50 ms (Ray's default is 1 s), so that Ctrl-C is felt at once;
* nothing is reported to anybody.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from typing import Any

from nsactors.errors import ClusterUnreachable, RayImportedFirst
from nsactors.transport.lean_start import lean_start
from nsactors.transport.private_folder import PrivateFolder
from nsactors.transport.ray_entry import entry_settings
from nsactors.transport.ray_script import SELDOM_USED, imported_on_use

__all__ = ["PRESETS", "RayRuntime", "ray_runtime"]

JOIN_S = 20.0

PRESETS = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name: binds everything to 127.0.0.1
    "RAY_worker_niceness": "0",
    "RAY_get_check_signal_interval_milliseconds": "50",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # errors reach people through their results
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a future default, and a warning line without it
    "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",  # who joins is warned of other differences, by us
}

_ENCRYPTION = ("RAY_USE_TLS", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
_ACCESS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", *_ENCRYPTION)
_TOKEN_ITSELF = "RAY_AUTH_TOKEN"  # Ray takes it in place of the one in the file


class RayRuntime:
    """This process's Ray: whose it is, and who still needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._process = os.getpid()
        self._embedded = False
        self._folder: PrivateFolder | None = None
        self._ray: Any = None
        self._starter: _LastingThread | None = None

    def acquire(
        self,
        *,
        num_cpus: int,
        address: str | None,
        environment: dict[str, str],
        show_logs: bool,
        store_bytes: int | None = None,
    ) -> Any:
        """The ``ray`` module, connected; starts an embedded cluster if there is none to connect to.

        Args:
            num_cpus: what an embedded Ray may use.
            address: an existing Ray cluster; None takes ``RAY_ADDRESS``, or embeds one.
            environment: what the workers of an embedded Ray find in their environment.
            show_logs: let Ray's own lines through.
            store_bytes: the size of an embedded Ray's object store; None: as Ray thinks fit.

        Raises:
            ClusterUnreachable: if the cluster at ``address`` does not take us.
            AccessRefused: if it wants a token that this process does not have.
            RayImportedFirst: if it wants a token, and Ray was imported without.
        """
        with self._lock:
            address = address or os.environ.get("RAY_ADDRESS")
            if address is not None and self._ray is None:
                self._see_to_entry(address)
            ray = self._import_ray(embeds=address is None)
            if self._starter is not None:
                self._starter.join()  # an earlier start that was interrupted
            if not ray.is_initialized():
                if address is None:
                    self._embed(ray, num_cpus, environment, show_logs, store_bytes)
                else:
                    _connect(ray, address, show_logs)
            self._users += 1
            return ray

    def join(self, address: str, settings: Mapping[str, str]) -> Any:
        """The ``ray`` module, connected to a cluster that another process has started.

        Args:
            address: of that cluster.
            settings: what :meth:`settings_for_others` says there.

        Raises:
            ClusterUnreachable: if it does not take us, or this process is connected to another cluster.
            RayImportedFirst: if Ray has been imported, with other settings.
        """
        self.check_joining(address, settings)
        if "ray" not in sys.modules:
            os.environ.update(settings)
            if "RAY_AUTH_TOKEN_PATH" in settings:
                os.environ.pop(_TOKEN_ITSELF, None)
        ray = self.acquire(num_cpus=0, address=address, environment={}, show_logs=False)
        self.check_joining(address, settings)
        return ray

    @staticmethod
    def check_joining(address: str, settings: Mapping[str, str]) -> None:
        """See that this process can join a cluster, as far as it depends on this process; as :meth:`join`."""
        ray = sys.modules.get("ray")
        if ray is None:
            return
        if ray.is_initialized() and (here := ray.get_runtime_context().gcs_address) != address:
            raise ClusterUnreachable(address, f"this process is connected to the Ray at {here}, and can be to one only")
        if any(os.environ.get(name) != settings[name] for name in _ACCESS if name in settings):
            raise RayImportedFirst

    @staticmethod
    def settings_for_others() -> dict[str, str]:
        """What Ray is to find in the environment of a process that joins this cluster; no secret is among it."""
        return {name: os.environ[name] for name in (*PRESETS, *_ACCESS) if name in os.environ}

    def release(self) -> None:
        """One user less; the last one stops an embedded Ray."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._embedded:
                self._stop_embedded()
                if self._folder is not None:
                    self._folder.empty()

    def remove_folder(self) -> None:
        """Remove the files of an embedded Ray whose processes have been killed: this process is about to end."""
        if self._folder is not None:
            self._folder.remove()

    @staticmethod
    def _see_to_entry(address: str) -> None:
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            return
        settings = entry_settings(address, os.environ)
        if settings and ray is not None:
            raise RayImportedFirst
        os.environ.update(settings)

    def _import_ray(self, *, embeds: bool) -> Any:
        if self._ray is not None:
            return self._ray
        if "ray" not in sys.modules and embeds:
            self._folder = PrivateFolder()
            atexit.register(self._end)
            for name, value in {**PRESETS, "RAY_AUTH_TOKEN_PATH": self._folder.token_path}.items():
                os.environ.setdefault(name, value)
            os.environ.pop(_TOKEN_ITSELF, None)
        logging.getLogger("ray.widgets.util").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of progress bars for notebooks, which nobody asked for
            with imported_on_use(*SELDOM_USED):
                self._ray = importlib.import_module("ray")
        return self._ray

    def _embed(
        self, ray: Any, num_cpus: int, environment: dict[str, str], show_logs: bool, store_bytes: int | None
    ) -> None:
        if self._folder is None:
            raise RayImportedFirst

        folder = self._folder.ray_path

        def start() -> None:
            # Whoever wants to see Ray's own lines gets all the processes that write and carry them.
            with _environment(environment), contextlib.nullcontext() if show_logs else lean_start(ray):
                ray.init(
                    num_cpus=num_cpus,
                    object_store_memory=store_bytes,
                    include_dashboard=False,
                    log_to_driver=show_logs,
                    logging_level="INFO" if show_logs else "ERROR",
                    _temp_dir=folder,
                )

        # Before the wait: Ctrl-C may end it, and what was begun must be ended all the same.
        self._embedded = True
        self._starter = _LastingThread(start)
        try:
            self._starter.wait()
        except Exception:
            self._embedded = False
            raise
        _exit_on_sigterm()  # after Ray, whose own handler prints the stack of its C++ code and leaves everything behind
        if not show_logs:
            _silence_raylet(ray)

    def _stop_embedded(self) -> None:
        if self._embedded and self._starter is not None:
            self._embedded = False
            self._starter.join()
            if self._ray.is_initialized():
                self._ray.shutdown()
            self._starter.end()

    def _end(self) -> None:
        if os.getpid() != self._process:  # a forked child: Ray and its files are its parent's
            return
        self._stop_embedded()
        self.remove_folder()


def _exit_on_sigterm() -> None:
    """Let SIGTERM end this process as ``sys.exit`` does, so that Ray and its files go too.

    A handler of the user's stays: it is set again, for Ray has put its own in place of it without Python's knowing.
    """
    if threading.current_thread() is threading.main_thread():
        known = signal.getsignal(signal.SIGTERM)
        if known is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        elif known is not None:
            signal.signal(signal.SIGTERM, known)


class _LastingThread:
    """Runs a function in a thread that lives on until it is ended.

    Ray's servers die with the *thread* that started them (``PR_SET_PDEATHSIG``): started from a thread of a pool,
    they went when the pool did, and took the user's process with them a minute later.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._over = threading.Event()
        self._done: Future[None] = Future()
        threading.Thread(target=self._run, args=(function,), name="nsactors-ray", daemon=True).start()

    def wait(self) -> None:
        """Wait until the function has returned; what it raised is raised here."""
        self._done.result()

    def join(self) -> None:
        """Wait until the function has ended, for a while and however it did."""
        wait([self._done], timeout=JOIN_S)

    def end(self) -> None:
        """Let the thread go."""
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


def _connect(ray: Any, address: str, show_logs: bool) -> None:
    try:
        ray.init(address=address, log_to_driver=show_logs, logging_level="INFO" if show_logs else "ERROR")
    except (ConnectionError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        raise ClusterUnreachable(address, str(error)) from error
    if not show_logs:
        _silence_raylet(ray)


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """What a child process inherits meanwhile; this process's own environment is as before afterwards."""
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


def _silence_raylet(ray: Any) -> None:
    """Keep Ray's "A worker died" lines off the terminal: they come even with ``log_to_driver=False``.

    The function that prints them is private. If it is gone, the lines are back and nothing else is lost.
    """
    worker: Any = getattr(getattr(ray, "_private", None), "worker", None)
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _drop_raylet_lines


def _drop_raylet_lines(data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
    """Stands in for Ray's printer; what is dropped is reported by us, with the engine's name."""
