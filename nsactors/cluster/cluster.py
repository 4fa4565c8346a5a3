"""A cluster: a controller and engines, started and stopped together."""

from __future__ import annotations

import asyncio
import atexit
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, Unpack

from nsactors.client import Client
from nsactors.client.arriving import wait_for_engines
from nsactors.cluster.options import EngineKeywords, engine_options
from nsactors.cluster.resources import available_cores, store_bytes, thread_environment
from nsactors.cluster.scaling import Scaling, whole_number
from nsactors.core.cluster import EngineOptions
from nsactors.errors import ClusterStopped, EngineStartError, EngineStartWarning
from nsactors.transport.base import Backend
from nsactors.transport.connection import ConnectionInfo

__all__ = ["Cluster", "EngineStartWarning"]

START_TIMEOUT_S = 120.0


# What may have been meant by a keyword that is none.
_OPTIONS = ("n", "backend", "address", "startup", "show_logs", "object_store_memory")


class Cluster(Scaling):
    """A controller and ``n`` engines.

    Args:
        n: how many engines; the default is one for each core that this process may use.
        backend: ``"ray"`` makes each engine a process; ``"local"`` makes it a thread of this process, which starts at
            once, needs no Ray, and runs in a debugger.
        address: an existing Ray cluster to start the engines on; the default is ``RAY_ADDRESS``, or a Ray of our own,
            bound to this machine.
        startup: a cell that every engine runs before anything else.
        show_logs: let Ray's own messages through; an embedded Ray then starts all its servers, which takes longer.
        object_store_memory: the size of the object store of a Ray of our own, in bytes or as text such as ``"2GB"``;
            the default is what Ray thinks fit, about a third of the machine's memory. The first cluster of a process
            sets it.
        options: what each engine is asked for with, unless :meth:`start_engines` says otherwise: ``recovery``,
            ``journal``, ``on``, ``num_cpus``, ``num_gpus``, ``memory``, ``resources`` and ``environment``; see
            :class:`EngineKeywords`.

    Example:
        >>> with Cluster(n=4) as rc:
        ...     rc[:].apply_sync(os.getpid)
        [4711, 4712, 4713, 4714]

    Raises:
        ValueError: if ``n`` is negative, there is no such backend, no object store of this size, or an option that
            cannot be.
        UnknownOption: if there is no such option.
        CapabilityError: if ``backend="local"`` does not have it.
        ClusterUnreachable: (on start) if the Ray cluster does not take us.
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
        **options: Unpack[EngineKeywords],
    ) -> None:
        if n is not None:
            whole_number(n)
        if backend not in ("ray", "local"):
            raise ValueError(f"backend is 'ray' or 'local', not {backend!r}")
        self._cores = available_cores()
        self.n = self._cores if n is None else n
        self._make_backend = {"ray": self._ray_backend, "local": self._local_backend}[backend]
        self._options: dict[str, Any] = {
            "address": address,
            "show_logs": show_logs,
            "store_bytes": store_bytes(object_store_memory, address or os.environ.get("RAY_ADDRESS")),
        }
        self._startup = startup
        self._environment = thread_environment(self._cores, self.n, os.environ)
        self._in_threads = backend == "local"
        self._engine_options = engine_options(EngineOptions(), options, in_threads=self._in_threads, others=_OPTIONS)
        self._backend: Backend | None = None
        self._process = os.getpid()
        self._client: Client | None = None

    def start_cluster_sync(self) -> Self:
        """Start the controller and ask for the engines; they join as they are ready."""
        if self._backend is not None:
            return self
        backend = self._make_backend()
        backend.start()
        self._backend = backend
        atexit.register(self.stop_cluster_sync)
        self._client = Client(backend.connect())
        if self.n:
            self.start_engines(self.n)
        return self

    def start_and_connect_sync(self, n: int | None = None) -> Client:
        """Start, wait for the engines, and return a client.

        Engines that cannot start, or find no place, are told by an ``EngineStartWarning``, with the last lines of their
        stderr or with what they ask for and what there is; the others are usable.

        Args:
            n: how many engines to wait for; the default is all.

        Raises:
            EngineStartError: if none of them can.
            TimeoutError: if they are not there after two minutes.
        """
        try:
            self.start_cluster_sync()
            client = self._running()
            wait_for_engines(client.session, n, START_TIMEOUT_S, patient=False)
        except EngineStartError as error:
            self.stop_cluster_sync()
            advice = "The cluster has been stopped: remove the cause and start it again, or ask for fewer"
            raise error.with_advice(advice) from None
        except BaseException:  # Ctrl-C too: nobody would stop what has been started so far
            self.stop_cluster_sync()
            raise
        return client

    def connect_client_sync(self, name: str | None = None, report: Callable[[str], object] | None = None) -> Client:
        """Another client of this cluster, with a history and streams of its own.

        Args:
            name: what others see in the history.
            report: where failures that nobody asked for are told when it is closed; the default is stderr.

        Raises:
            ClusterStopped: if the cluster does not run.
        """
        if self._backend is None:
            raise ClusterStopped
        return Client(self._backend.connect(), name, report=report)

    def connection_info(self) -> ConnectionInfo:
        """What another process of this user needs for ``Client.connect``; ``.save(path)`` puts it into a private file.

        Raises:
            ClusterStopped: if the cluster does not run.
            CapabilityError: if its engines are threads of this process.
        """
        if self._backend is None:
            raise ClusterStopped
        return self._backend.connection_info()

    def stop_cluster_sync(self) -> None:
        """End engines and controller, and Ray if this cluster started it. What nobody asked for is reported."""
        backend, self._backend = self._backend, None
        client, self._client = self._client, None
        if backend is None or os.getpid() != self._process:  # a forked child's cluster is its parent's
            return
        try:
            if client is not None:
                client.close()
        finally:
            backend.stop()
            atexit.unregister(self.stop_cluster_sync)

    async def start_cluster(self) -> Self:
        """As :meth:`start_cluster_sync`, without blocking the event loop."""
        return await asyncio.to_thread(self.start_cluster_sync)

    async def start_and_connect(self, n: int | None = None) -> Client:
        """As :meth:`start_and_connect_sync`, without blocking the event loop."""
        return await asyncio.to_thread(self.start_and_connect_sync, n)

    async def connect_client(self) -> Client:
        """As :meth:`connect_client_sync`, without blocking the event loop."""
        return await asyncio.to_thread(self.connect_client_sync)

    async def stop_cluster(self) -> None:
        """As :meth:`stop_cluster_sync`, without blocking the event loop."""
        await asyncio.to_thread(self.stop_cluster_sync)

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
        state = "stopped" if self._client is None else f"engines {self._client.session.roster.ids}"
        return f"<Cluster: {state}>"

    def _running(self) -> Client:
        if self._client is None:
            raise ClusterStopped
        return self._client

    def _ray_backend(self) -> Backend:
        from nsactors.transport.ray import RayBackend

        return RayBackend(num_cpus=self._cores, environment=self._environment, startup=self._startup, **self._options)

    def _local_backend(self) -> Backend:
        from nsactors.transport.local import LocalBackend

        return LocalBackend(self._environment, self._startup)
