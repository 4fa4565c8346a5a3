"""Clusters: engines started and stopped together."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import operator
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from nsactors.client import Client
from nsactors.client.prompt import draw_errors_at_prompt
from nsactors.cluster.options import (
    EngineKeywords,
    engine_options,
    memory_size,
    ray_address,
    startup_cell,
    with_threads,
)
from nsactors.controller import STOP_GRACE_S
from nsactors.errors import CapabilityError, ClusterStopped, EngineStartError, keyboard_interrupt, suggest_name
from nsactors.errors.formatting import engine_ranges
from nsactors.protocol import arguments as arg
from nsactors.protocol.engine_info import EngineOptions, Recovery
from nsactors.protocol.process import OwnProcess
from nsactors.protocol.targets import Targets, resolve
from nsactors.results import OUTPUTS
from nsactors.results.display.line import showing
from nsactors.session.engine_start import StartProgress, tell_of_start, wait_for_engines
from nsactors.system.resources import available_cores, store_bytes, thread_environment
from nsactors.transport.base import Backend, ConnectionInfo

T = TypeVar("T")


class Scaling(ABC):
    """Starts and stops engines of a running cluster.

    Every method raises ``ClusterStopped`` if the cluster does not run, and each has a form that does not block the
    event loop, with ``_async`` at the end of its name.
    """

    _engine_options: EngineOptions
    _in_threads: bool

    if not TYPE_CHECKING:
        __getattr__ = suggest_name

    @abstractmethod
    def _running(self) -> Client:
        """Return the cluster's own client.

        Raises:
            ClusterStopped: if the cluster does not run.
        """

    def start_engines(self, n: int, **options: Unpack[EngineKeywords]) -> list[int]:
        """Request ``n`` more engines and return their ids; the engines join as they become ready.

        Args:
            n: the number of new engines.
            options: options that differ from the cluster's own; see :class:`EngineKeywords`.

        Example:
            >>> cluster.start_engines(2, on="gpu-box", num_gpus=1)
            [4, 5]
            >>> rc.wait_for_engines()

        Raises:
            InvalidArgument: if an option has a wrong value; its subclass UnknownOption, if there is no such option.
            CapabilityError: if engines of the local backend cannot have an option.
        """
        arg.check("start_engines", n=arg.whole(n, at_least=0))
        client = self._running()
        usual, in_threads = self._engine_options, self._in_threads
        asked = engine_options(usual, options, in_threads=in_threads, call="start_engines")
        asked = with_threads(asked, os.environ)
        ids = client.session.controller.start_engines(operator.index(n), asked)
        client.session.directory.expect(ids)
        return ids

    def stop_engines(self, engine_ids: Targets, *, finish: bool = True, timeout: float | None = None) -> None:
        """Let engines finish their requests, stop them, and return when their processes have ended.

        From this call on the engines are in no client's ``ids``, and get no more work. Their namespaces are lost, and
        so are the results that they hold for clients which have left. Engines end gracefully: threads are joined,
        ``atexit`` handlers run, and files are closed. An engine that takes longer than the cluster's ``stop_grace`` is
        killed and named.

        Args:
            engine_ids: the engines; they may still be starting.
            finish: False to interrupt their requests, which then fail with ``EngineLost``.
            timeout: seconds after which busy engines are stopped all the same; None waits without a limit. Ctrl-C ends
                the wait, and leaves the engines to finish.

        Raises:
            TargetError: if there are no such engines; in this case no engine has been stopped.
        """
        arg.check("stop_engines", finish=arg.flag(finish), timeout=arg.seconds(timeout))
        session = self._running().session
        directory = session.directory
        ids = resolve(engine_ids, sorted({*directory.known, *directory.starting}))
        if finish:
            session.retire(ids, arg.limit_s(timeout))
        session.controller.stop_engines(ids)  # engines that have left may not have ended yet
        directory.wait_until_gone(ids, None)

    def restart_engines(self, engine_ids: Targets = "all", *, recover: bool = False) -> None:
        """Stop engines, busy or not, and start new processes under their ids.

        Without ``recover`` the engines end gracefully, as in :meth:`stop_engines`, and the new processes have empty
        namespaces.

        Args:
            engine_ids: the engines.
            recover: kill the engines immediately, and restore their namespaces as after a crash; this needs
                ``recovery="replay"``.

        Raises:
            TargetError: if there are no such engines.
            CapabilityError: if ``recover`` is true, and an engine was not started with ``recovery="replay"``; in this
                case no engine has been restarted.
        """
        arg.check("restart_engines", recover=arg.flag(recover))
        session = self._running().session
        ids = resolve(engine_ids, session.directory.ids)
        forgetful = [i for i in ids if (engine := session.directory.get(i)) and engine.recovery is not Recovery.REPLAY]
        if recover and forgetful:
            advice = "start engines with recovery='replay', or restart these with empty namespaces, without this option"
            raise CapabilityError("recover a namespace", engine_ranges(forgetful), advice)
        session.restart(ids, recovers=recover)

    def scale(
        self, n: int, *, finish: bool = True, timeout: float | None = None, **options: Unpack[EngineKeywords]
    ) -> list[int]:
        """Start or stop engines so that the cluster has ``n``.

        Engines that wait for a place are stopped first, then those with the highest ids.

        Args:
            n: the number of engines to have.
            finish: see :meth:`stop_engines`.
            timeout: see :meth:`stop_engines`.
            options: options of new engines; see :meth:`start_engines`.

        Returns:
            The ids of the cluster's engines, including those that are still starting.
        """
        arg.check("scale", n=arg.whole(n, at_least=0), finish=arg.flag(finish), timeout=arg.seconds(timeout))
        # Check the options even if no engine will start: a wrong option fails whatever the number of engines.
        engine_options(self._engine_options, options, in_threads=self._in_threads, call="scale")
        directory = self._running().session.directory
        wanted = operator.index(n)
        placeless = directory.waiting
        there = sorted({*directory.ids, *directory.starting}, key=lambda engine_id: (engine_id in placeless, engine_id))
        if wanted > len(there):
            return sorted(there + self.start_engines(wanted - len(there), **options))
        if wanted < len(there):
            self.stop_engines(there[wanted:], finish=finish, timeout=timeout)
        return sorted(there[:wanted])

    async def start_engines_async(self, n: int, **options: Unpack[EngineKeywords]) -> list[int]:
        """Like :meth:`start_engines`, without blocking the event loop."""
        return await asyncio.to_thread(self.start_engines, n, **options)

    async def stop_engines_async(
        self, engine_ids: Targets, *, finish: bool = True, timeout: float | None = None
    ) -> None:
        """Like :meth:`stop_engines`, without blocking the event loop."""
        await asyncio.to_thread(self.stop_engines, engine_ids, finish=finish, timeout=timeout)

    async def restart_engines_async(self, engine_ids: Targets = "all", *, recover: bool = False) -> None:
        """Like :meth:`restart_engines`, without blocking the event loop."""
        await asyncio.to_thread(self.restart_engines, engine_ids, recover=recover)

    async def scale_async(
        self, n: int, *, finish: bool = True, timeout: float | None = None, **options: Unpack[EngineKeywords]
    ) -> list[int]:
        """Like :meth:`scale`, without blocking the event loop."""
        return await asyncio.to_thread(self.scale, n, finish=finish, timeout=timeout, **options)


START_TIMEOUT_S = 120.0
START_SHOWN_AFTER_S = 0.5


# Suggestions for an unknown keyword.
_OPTIONS = ("n", "backend", "address", "startup", "show_logs", "object_store_memory", "stop_grace", "modules", "output")


class Cluster(Scaling):
    """A controller and ``n`` engines.

    Args:
        n: the number of engines; the default is one for each core that this process may use.
        backend: ``"ray"`` makes each engine a process; ``"local"`` makes it a thread of this process, which starts
            immediately, needs no Ray, and runs in a debugger.
        address: the address of an existing Ray cluster for the engines; the default is ``RAY_ADDRESS``, or an embedded
            Ray that listens on this machine alone.
        startup: a cell that every engine runs first. Its output is shown when the engines are ready. An engine on which
            it fails does not start, and reports the error. A syntax error is raised here.
        show_logs: show Ray's own messages; an embedded Ray then starts all its servers, which takes longer.
        object_store_memory: the size of the object store of an embedded Ray, in bytes or as text such as ``"2GB"``;
            the default is Ray's, about a third of the machine's memory. The first cluster of a process sets it.
        stop_grace: seconds that all engines together have to end gracefully: their code is interrupted, threads are
            joined, ``atexit`` handlers run and files are closed. Engines that have not ended by then are killed and
            named. 0 kills engines immediately.
        modules: ``"auto"`` or ``"off"``, for the cluster's clients in this process; see :class:`Client`.
        output: where the output of its clients' calls is shown; see ``Client.output``.
        options: the options of each engine, which :meth:`start_engines` may override: ``recovery``, ``journal``,
            ``on``, ``num_cpus``, ``num_gpus``, ``memory``, ``resources``, ``environment``, ``on_error`` and
            ``breakpoints``; see :class:`EngineKeywords`.

    Example:
        >>> with Cluster(n=4) as rc:
        ...     rc[:].apply_sync(os.getpid)
        [4711, 4712, 4713, 4714]

    Raises:
        InvalidArgument: if an argument or an option has a wrong value; its subclass UnknownOption, if there is no such
            option.
        CapabilityError: if ``backend="local"`` does not support an option.
        ClusterUnreachable: (on start) if the Ray cluster does not answer, or refuses the connection.
    """

    def __init__(
        self,
        n: int | None = None,
        *,
        backend: str = "ray",
        address: str | None = None,
        startup: str = "",
        show_logs: bool = False,
        object_store_memory: int | str | None = None,
        stop_grace: float = STOP_GRACE_S,
        modules: str = "auto",
        output: str = "show",
        **options: Unpack[EngineKeywords],
    ) -> None:
        draw_errors_at_prompt()
        arg.check(
            "Cluster",
            n=arg.whole(n, at_least=0, or_none=True),
            backend=arg.choice(backend, ("ray", "local")),
            address=ray_address(address),
            startup=startup_cell(startup),
            show_logs=arg.flag(show_logs),
            object_store_memory=memory_size(object_store_memory),
            stop_grace=arg.seconds(stop_grace, or_none=False),
            modules=arg.choice(modules, ("auto", "off")),
            output=arg.choice(output, OUTPUTS),
        )
        self._cores = available_cores()
        self.n = self._cores if n is None else operator.index(n)
        self._make_backend = {"ray": self._ray_backend, "local": self._local_backend}[backend]
        self._options: dict[str, Any] = {
            "address": address,
            "show_logs": show_logs,
            "store_bytes": store_bytes(object_store_memory, address or os.environ.get("RAY_ADDRESS")),
        }
        self._stop_grace_s = float(stop_grace)
        self._startup = startup
        self._modules = modules
        self._output = output
        self._in_threads = backend == "local"
        self._engine_options = engine_options(EngineOptions(), options, in_threads=self._in_threads, others=_OPTIONS)
        self._backend: Backend | None = None
        self._starting = threading.RLock()  # held during a start; a stop waits for its end
        self._process = OwnProcess()
        self._client: Client | None = None
        self.start_progress = StartProgress(self.n)

    def start_cluster_sync(self) -> Self:
        """Start the controller and request the engines, which join as they become ready."""
        return self._show_start(self._start_cluster)

    def _start_cluster(self) -> Self:
        self._process.check()
        with self._starting:
            if self._backend is not None:
                return self
            backend = self._make_backend()
            self.start_progress.awaits("Ray")
            backend.start()
            self._backend = backend
            atexit.register(self._stop_at_exit)
            try:
                self.start_progress.awaits("the controller")
                self._client = Client(backend.connect(), modules=self._modules, output=self._output)
                if self.n:
                    self.start_engines(self.n)
                self.start_progress.counts(self._client.session)
            except BaseException:  # even Ctrl-C: without its client, the cluster would seem to run
                self.stop_cluster_sync()
                raise
            return self

    def _show_start(self, start: Callable[[], T]) -> T:
        """Return ``start()``, and show its progress.

        Raises:
            KeyboardInterrupt: on Ctrl-C. It has no frames of Ray, or of the functions of this package that waited.
        """
        try:
            with self._showing_start():
                return start()
        except KeyboardInterrupt:
            pass
        raise keyboard_interrupt("the start of the cluster was cancelled")

    @contextlib.contextmanager
    def _showing_start(self) -> Iterator[None]:
        """Show the progress of the start, at a terminal or in a notebook."""
        self.start_progress = StartProgress(self.n)
        with showing(self.start_progress.read, after_s=START_SHOWN_AFTER_S, concludes=True):
            yield

    def start_and_connect_sync(self, n: int | None = None) -> Client:
        """Start ``n`` engines, wait for them, and return a client.

        If the cluster runs already, only the missing engines are started.

        An ``EngineStartWarning`` reports engines that fail to start, with the last lines of their stderr, and engines
        for which no machine has room, with the resources that they need and those that are free; the other engines are
        usable.

        Args:
            n: the number of engines; the default is the cluster's own ``n``.

        Raises:
            EngineStartError: if no engine can start; on a Ray cluster that adds nodes, engines start as nodes join.
            TimeoutError: if the engines are not ready after two minutes.
        """
        self._check_number(n)
        client = self._show_start(partial(self._start_and_connect, n))
        self._tell_of_start(client)
        return client

    def _check_number(self, n: int | None) -> None:
        arg.check("start_and_connect_sync", n=arg.whole(n, at_least=0, or_none=True))
        if n is not None and self._backend is None:
            self.n = operator.index(n)

    def _start_and_connect(self, n: int | None) -> Client:
        client: Client | None = None
        try:
            self._start_cluster()
            client = self._running()
            directory = client.session.directory
            if n is not None and (missing := n - len({*directory.ids, *directory.starting})) > 0:
                self.start_engines(missing)
            self.start_progress.counts(client.session, n)
            wait_for_engines(client.session, n, START_TIMEOUT_S, patient=False)
        except EngineStartError as error:
            if client is not None and client.session.directory.may_come(error.engine_id):
                return client  # Ray adds nodes, which takes minutes: a warning names the engines that wait for them
            self.stop_cluster_sync()
            advice = "The cluster has been stopped: remove the cause and start it again, or ask for fewer"
            raise error.with_advice(advice) from None
        except BaseException:  # even Ctrl-C: the caller has no client yet with which to stop the engines
            self.stop_cluster_sync()
            raise
        return client

    def _tell_of_start(self, client: Client) -> None:
        try:
            tell_of_start(client.session)
        except BaseException:  # warnings may be errors
            self.stop_cluster_sync()
            raise

    def connect_client_sync(self, name: str | None = None, report: Callable[[str], object] | None = None) -> Client:
        """Return another client of this cluster, with a history and output of its own.

        Args:
            name: the client's name in the cluster's history.
            report: called on close with each error that was never retrieved; the default prints to stderr.

        Raises:
            ClusterStopped: if the cluster does not run.
        """
        self._process.check()
        arg.check("connect_client_sync", name=arg.text(name, or_none=True), report=arg.function(report, or_none=True))
        if self._backend is None:
            raise ClusterStopped
        return Client(self._backend.connect(), name, report=report, modules=self._modules, output=self._output)

    def connection_info(self) -> ConnectionInfo:
        """Return the argument of ``Client.connect`` for another process of this user; ``.save(path)`` writes a file.

        Raises:
            ClusterStopped: if the cluster does not run.
            CapabilityError: if its engines are threads of this process.
        """
        self._process.check()
        if self._backend is None:
            raise ClusterStopped
        return self._backend.connection_info()

    def stop_cluster_sync(self, *, grace: float | None = None, report: Callable[[str], object] | None = None) -> None:
        """Stop engines and controller, and Ray if this cluster started it; report errors that were never retrieved.

        Engines end gracefully; Ctrl-C during the stop kills them.

        Args:
            grace: seconds that engines have to end gracefully, in place of ``stop_grace``.
            report: called with a line for each engine that was killed at the end of the grace period; the default
                prints to stderr.
        """
        arg.check("stop_cluster_sync", grace=arg.seconds(grace), report=arg.function(report, or_none=True))
        grace_s = self._stop_grace_s if grace is None else float(grace)
        if not self._process.is_here:  # in a forked child, the cluster belongs to the parent
            self._backend = self._client = None
            return
        with self._starting:
            backend, self._backend = self._backend, None
            client, self._client = self._client, None
        if backend is None:
            return
        try:
            if client is not None:
                client.close()
        finally:
            atexit.unregister(self._stop_at_exit)
            for notice in backend.stop(grace_s):
                (report or _print_error)(f"nsactors: {notice}")

    def _stop_at_exit(self) -> None:
        with contextlib.suppress(KeyboardInterrupt, SystemExit):  # Ctrl-C has skipped the grace period
            self.stop_cluster_sync()

    async def start_cluster(self) -> Self:
        """Like :meth:`start_cluster_sync`, without blocking the event loop; a start that is cancelled is undone."""
        self._process.check()
        if self._backend is not None:
            return self
        with self._showing_start():  # on this thread: progress is shown for the main thread only
            return await _start_aside(self._start_cluster, self.stop_cluster_sync, hurry=self.stop_cluster_sync)

    async def start_and_connect(self, n: int | None = None) -> Client:
        """Like :meth:`start_and_connect_sync`, without blocking the event loop; a start that is cancelled is undone."""
        self._check_number(n)
        with self._showing_start():
            start = partial(self._start_and_connect, n)
            client = await _start_aside(start, self.stop_cluster_sync, hurry=self.stop_cluster_sync)
        self._tell_of_start(client)
        return client

    async def connect_client(self) -> Client:
        """Like :meth:`connect_client_sync`, without blocking the event loop."""
        return await asyncio.to_thread(self.connect_client_sync)

    async def stop_cluster(self, *, grace: float | None = None) -> None:
        """Like :meth:`stop_cluster_sync`, without blocking the event loop."""
        await asyncio.to_thread(self.stop_cluster_sync, grace=grace)

    def __enter__(self) -> Client:
        return self.start_and_connect_sync()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop_cluster_sync()

    async def __aenter__(self) -> Client:
        return await self.start_and_connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.stop_cluster()

    def __repr__(self) -> str:
        state = "stopped" if self._client is None else f"engines {list(self._client.session.directory.ids)}"
        return f"<Cluster: {state}>"

    def _running(self) -> Client:
        self._process.check()
        if self._client is None:
            raise ClusterStopped
        return self._client

    def _ray_backend(self) -> Backend:
        from nsactors.transport.ray.transport import RayBackend

        return RayBackend(
            num_cpus=self._cores,
            environment=self._environment(),
            startup=self._startup,
            stop_grace_s=self._stop_grace_s,
            engines=self.n,
            **self._options,
        )

    def _local_backend(self) -> Backend:
        from nsactors.transport.local import LocalBackend

        return LocalBackend(self._environment(), self._startup, self._stop_grace_s)

    def _environment(self) -> dict[str, str]:
        return thread_environment(self._cores, self.n, os.environ)


async def _start_aside(
    start: Callable[[], T], stop: Callable[[], object], hurry: Callable[[], object] = lambda: None
) -> T:
    """Return ``start()``, called on a thread. If the caller is cancelled before its end, the start is undone first.

    Args:
        start: starts a cluster.
        stop: stops it.
        hurry: ends the waits of ``start``, which then raises an error.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        if outcome.set_running_or_notify_cancel():
            try:
                outcome.set_result(start())
            except BaseException as error:
                outcome.set_exception(error)

    def undo() -> None:
        hurry()
        if outcome.exception() is None:
            stop()

    try:
        # A thread cannot be cancelled; without the shield, nobody could tell any more when it has ended.
        await asyncio.shield(asyncio.to_thread(run))
    except asyncio.CancelledError:
        if not outcome.cancel():  # it has begun
            await asyncio.shield(asyncio.to_thread(undo))
        raise
    return outcome.result()


def _print_error(text: str) -> None:
    print(text, file=sys.stderr)


class AttachedCluster(Scaling):
    """Starts and stops engines of a cluster that runs in the background.

    Args:
        client: a client of the cluster.
        options: the default options of new engines; see ``EngineKeywords``.
    """

    def __init__(self, client: Client, options: Mapping[str, Any]) -> None:
        self._client = client
        self._in_threads = False
        self._engine_options = engine_options(EngineOptions(), options, in_threads=False)

    def _running(self) -> Client:
        return self._client
