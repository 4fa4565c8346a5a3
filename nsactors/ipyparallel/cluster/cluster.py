"""Clusters with ipyparallel's names and meanings. Each of them uses a cluster of nsactors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import nsactors
from nsactors import errors
from nsactors.ipyparallel.alias import ON_ENGINES
from nsactors.ipyparallel.arguments import OF_CLUSTERS, warn_once
from nsactors.ipyparallel.client.client import Client, has_magics
from nsactors.ipyparallel.commands import nsactors_command
from nsactors.ipyparallel.error import NotProvided
from nsactors.ipyparallel.translation import translating

__all__ = ["Cluster", "ClusterManager", "EngineSet"]

T = TypeVar("T")

_INSTEAD = {
    "slurm": "`nsactors launch slurm`",
    "pbs": "`nsactors launch pbs`",
    "sge": "`nsactors launch sge`",
    "lsf": "`nsactors launch lsf`",
    "htcondor": "engines on a Ray cluster there, Cluster(address=...)",
    "ssh": "`nsactors start --hosts a:4,b:4`",
    "sshproxy": "`nsactors start --hosts a:4,b:4`",
    "windowshpc": "engines on a Ray cluster there, Cluster(address=...)",
}


class EngineSet(NamedTuple):
    """Engines started by one call."""

    engine_set_id: str
    ids: tuple[int, ...]

    @property
    def n(self) -> int:
        """The number of engines."""
        return len(self.ids)


class Cluster:
    """A controller and engines, started and stopped together.

    Methods that take time are coroutines, each with a blocking form whose name ends in ``_sync``.

    Args:
        engines: ``"local"``, or ``"mpi"`` for engines that form one MPI world. For ipyparallel's other launchers
            nsactors has commands, which the error names.
        controller: not used.
        kwargs: ``n``, the number of engines (by default one for each core); ``cluster_id``; ``cluster_file``, a path
            for the connection information; ``shutdown_atexit``; and all arguments of ``nsactors.Cluster``. An engine
            that dies is not restarted without ``recovery``. Settings of ipyparallel's processes give a warning and have
            no effect.

    Example:
        >>> with ipp.Cluster(n=4) as rc:
        ...     rc[:].apply_sync(os.getpid)
        [4711, 4712, 4713, 4714]

    Raises:
        NotProvided: for engines that a command of nsactors starts.
        InvalidArgument: if an argument has a wrong value.
    """

    def __init__(self, *, engines: Any = None, controller: Any = None, **kwargs: Any) -> None:
        self.profile_dir = str(kwargs.get("profile_dir") or "")
        for name in OF_CLUSTERS:
            if kwargs.pop(name, None):
                warn_once(f"Cluster({name}=...) does nothing: it sets up a process that is not needed here")
        kind = _launcher(kwargs.pop("engine_launcher_class", None) if engines is None else engines)
        if kind in _INSTEAD:
            raise NotProvided(f"Cluster(engines={kind!r})", f"use {_INSTEAD[kind]}, and connect with ipp.Client()")
        if kind not in ("local", "mpi"):
            instead = (
                "engines are 'local' or 'mpi'; for hosts and batch systems see `nsactors start` and `nsactors launch`"
            )
            raise NotProvided(f"Cluster(engines={engines!r})", instead)
        self.cluster_id = str(kwargs.pop("cluster_id", "") or uuid.uuid4().hex[:8])
        self.cluster_file = str(kwargs.pop("cluster_file", ""))
        self.profile = str(kwargs.pop("profile", "default"))
        self.shutdown_atexit = bool(kwargs.pop("shutdown_atexit", True))
        if not self.shutdown_atexit:
            warn_once("shutdown_atexit=False does nothing: a cluster that stays is started by `nsactors start`")
        self.engines: dict[str, EngineSet] = {}
        self._mpi = kind == "mpi"
        self._world: Any = None
        kwargs.setdefault("recovery", "none")  # as in ipyparallel, whose programs look at rc.ids
        self._options = kwargs
        if kwargs.get("backend", "ray") == "ray":
            kwargs["startup"] = "\n".join(filter(None, [ON_ENGINES, kwargs.get("startup", "")]))
        self.core = nsactors.Cluster(**kwargs)
        self._name: str | None = None  # the name of a cluster in the background
        self._running = False
        self.has_added_magics = False  # the next client replaces them by magics of this package
        self._client: nsactors.Client | None = None
        self._clients: weakref.WeakSet[Client] = weakref.WeakSet()

    @property
    def n(self) -> int:
        """The number of engines at the start."""
        return int(self.core.n)

    @property
    def controller(self) -> str | None:
        """A true value while the cluster runs; None otherwise."""
        return "running" if self._running else None

    @property
    def engine_set(self) -> EngineSet | None:
        """The first set of engines; None before the start."""
        return next(iter(self.engines.values()), None)

    def start_cluster_sync(self, n: int | None = None) -> Self:
        """Start the controller, unless it runs, and request ``n`` new engines, which join as they become ready."""
        if self._running:
            self.start_engines_sync(n)
            return self
        self._start(n)
        if self.n:
            self._add_set(None, range(self.n))
        return self

    def start_controller_sync(self, **kwargs: Any) -> None:
        """Start the cluster without engines; RuntimeError if it runs already."""
        if self._running:
            raise RuntimeError("the controller runs already: stop it with stop_controller_sync() first")
        self._start(0)

    def _start(self, n: int | None) -> None:
        with translating():
            if n is not None and n != self.core.n:
                self.core = nsactors.Cluster(**{**self._options, "n": n})
            had_magics = has_magics()
            self.core.start_cluster_sync()
            self.has_added_magics = has_magics() and not had_magics
        self._running = True
        if self.cluster_file:
            self.write_cluster_file()

    def start_engines_sync(self, n: int | None = None, engine_set_id: str | None = None, **kwargs: Any) -> str:
        """Request more engines; return the id of their set.

        Args:
            n: the number of new engines; the default is the cluster's own ``n``.
            engine_set_id: the id of the set; by default a new one.
            kwargs: see ``nsactors.Cluster.start_engines``.
        """
        self._check_own("start_engines", "engines")
        with translating():
            ids = self.core.start_engines(self.n or 1 if n is None else n, **kwargs)
        return self._add_set(engine_set_id, ids)

    def _add_set(self, name: str | None, ids: Any) -> str:
        chosen = name or uuid.uuid4().hex[:8]
        self.engines[chosen] = EngineSet(chosen, tuple(ids))
        return chosen

    def connect_client_sync(self, **client_kwargs: Any) -> Client:
        """Return a client of this cluster; for the arguments see ``Client``."""
        if self._name is not None:
            client = Client(self._name, cluster=self, **client_kwargs)
            self._clients.add(client)
            return client
        with translating():
            client = Client(cluster=self, **client_kwargs)
            self._clients.add(client)
            self.has_added_magics = False
            if self._mpi and self._world is None:
                client.core.wait_for_engines()
                self._world = client.core[:].mpi()
        return client

    def start_and_connect_sync(self, n: int | None = None, activate: bool = False) -> Client:
        """Start ``n`` engines, wait for them, and return a client.

        Args:
            n: the number of engines; the default is the cluster's own ``n``.
            activate: make ``%px`` run on all of them.
        """
        was_running = self._running
        try:
            self.start_cluster_sync(n)
            rc = self.connect_client_sync()
            rc.wait_for_engines(self.n if n is None else n)
        except BaseException:  # the caller has no client yet with which to stop the engines
            if not was_running:
                self.stop_cluster_sync()
            raise
        if activate:
            rc.activate()
        return rc

    def stop_cluster_sync(self) -> None:
        """Stop engines and controller."""
        self.engines.clear()
        self._running = False
        if self._name is not None:
            _command("stop", self._name)
            return
        self.core.stop_cluster_sync()
        self.remove_cluster_file()

    def stop_controller_sync(self) -> None:
        """Stop the cluster: engines do not outlive their controller."""
        self.stop_cluster_sync()

    def stop_engines_sync(self, engine_set_id: str | None = None) -> None:
        """Stop the engines of a set, or all."""
        self._check_own("stop_engines", "engines")
        chosen = list(self.engines) if engine_set_id is None else [engine_set_id]
        ids = [engine_id for each in chosen for engine_id in self.engines.pop(each).ids]
        present = [engine_id for engine_id in ids if engine_id in self._own_client().ids]
        if present:
            with translating():
                self.core.stop_engines(present, finish=False)

    def stop_engine_sync(self, engine_id: int) -> None:
        """Stop one engine."""
        self._check_own("stop_engine", "engines")
        with translating():
            self.core.stop_engines([engine_id], finish=False)

    def restart_engines_sync(self, engine_set_id: str | None = None) -> None:
        """Restart the engines of a set, or all, as new processes under the same ids."""
        self._restart(self._ids_of(engine_set_id))

    def restart_engine_sync(self, engine_id: int) -> None:
        """Restart one engine as a new process under the same id."""
        self._restart(engine_id)

    def _restart(self, targets: Any) -> None:
        with translating():
            # The next call of the client that restarts engines waits for the new processes. Other clients learn of the
            # new processes a moment later, and their calls fail until then. So the user's client restarts the engines.
            for client in list(self._clients):
                with contextlib.suppress(errors.ClientClosed):
                    client.core.shutdown(targets, restart=True)
                    return
            self._own_client().shutdown(targets, restart=True)

    def _ids_of(self, engine_set_id: str | None) -> Any:
        return "all" if engine_set_id is None else list(self.engines[engine_set_id].ids)

    def signal_engines_sync(self, signum: int, engine_set_id: str | None = None) -> None:
        """Send a signal to the engines of a set, or to all."""
        with translating():
            self._own_client().send_signal(signum, self._ids_of(engine_set_id))

    def signal_engine_sync(self, signum: int, engine_id: int) -> None:
        """Send a signal to one engine."""
        with translating():
            self._own_client().send_signal(signum, engine_id)

    async def start_cluster(self, n: int | None = None) -> Self:
        """Like :meth:`start_cluster_sync`, without blocking the event loop; so are all methods without ``_sync``."""
        return await self._start_aside(partial(self.start_cluster_sync, n))

    async def start_controller(self, **kwargs: Any) -> None:
        """See :meth:`start_controller_sync`."""
        await self._start_aside(partial(self.start_controller_sync, **kwargs))

    async def start_engines(self, n: int | None = None, engine_set_id: str | None = None, **kwargs: Any) -> str:
        """See :meth:`start_engines_sync`."""
        return await asyncio.to_thread(self.start_engines_sync, n, engine_set_id, **kwargs)

    async def connect_client(self, **client_kwargs: Any) -> Client:
        """See :meth:`connect_client_sync`."""
        return await asyncio.to_thread(self.connect_client_sync, **client_kwargs)

    async def start_and_connect(self, n: int | None = None, activate: bool = False) -> Client:
        """See :meth:`start_and_connect_sync`."""
        return await self._start_aside(partial(self.start_and_connect_sync, n, activate))

    async def _start_aside(self, start: Callable[[], T]) -> T:
        """Return ``start()``, called on a thread; if its caller is cancelled, a cluster that did not run is stopped."""
        if self._running:
            return await asyncio.to_thread(start)
        starting = asyncio.ensure_future(asyncio.to_thread(start))

        async def undo() -> None:
            await asyncio.to_thread(self.core.stop_cluster_sync)  # ends the waits of the start
            await asyncio.gather(starting, return_exceptions=True)
            await self.stop_cluster()

        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.shield(undo())
            raise

    async def stop_cluster(self) -> None:
        """See :meth:`stop_cluster_sync`."""
        await asyncio.to_thread(self.stop_cluster_sync)

    async def stop_controller(self) -> None:
        """See :meth:`stop_controller_sync`."""
        await asyncio.to_thread(self.stop_controller_sync)

    async def stop_engines(self, engine_set_id: str | None = None) -> None:
        """See :meth:`stop_engines_sync`."""
        await asyncio.to_thread(self.stop_engines_sync, engine_set_id)

    async def stop_engine(self, engine_id: int) -> None:
        """See :meth:`stop_engine_sync`."""
        await asyncio.to_thread(self.stop_engine_sync, engine_id)

    async def restart_engines(self, engine_set_id: str | None = None) -> None:
        """See :meth:`restart_engines_sync`."""
        await asyncio.to_thread(self.restart_engines_sync, engine_set_id)

    async def restart_engine(self, engine_id: int) -> None:
        """See :meth:`restart_engine_sync`."""
        await asyncio.to_thread(self.restart_engine_sync, engine_id)

    async def signal_engines(self, signum: int, engine_set_id: str | None = None) -> None:
        """See :meth:`signal_engines_sync`."""
        await asyncio.to_thread(self.signal_engines_sync, signum, engine_set_id)

    async def signal_engine(self, signum: int, engine_id: int) -> None:
        """See :meth:`signal_engine_sync`."""
        await asyncio.to_thread(self.signal_engine_sync, signum, engine_id)

    def write_cluster_file(self) -> None:
        """Write the connection information to ``cluster_file``, readable by this user alone."""
        if self.cluster_file:
            self.core.connection_info().save(self.cluster_file)

    def update_cluster_file(self) -> None:
        """As :meth:`write_cluster_file`."""
        self.write_cluster_file()

    def remove_cluster_file(self) -> None:
        """Remove the file that :meth:`write_cluster_file` has written."""
        if self.cluster_file:
            Path(self.cluster_file).unlink(missing_ok=True)

    def to_dict(self) -> dict[str, Any]:
        """Return a description for :meth:`from_dict`, in this process or another."""
        sets = {name: {"ids": list(each.ids)} for name, each in self.engines.items()}
        cluster = {"cluster_id": self.cluster_id, "profile": self.profile, "cluster_file": self.cluster_file}
        controller = {"state": {"running": self._running}}
        return {
            "cluster": {**cluster, "n": self.n, "name": self._name},
            "controller": controller,
            "engines": {"sets": sets},
        }

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], **kwargs: Any) -> Self:
        """Return the cluster that :meth:`to_dict` has described, without starting it."""
        described = d["cluster"]
        made = cls(n=described["n"], cluster_id=described["cluster_id"], profile=described["profile"], **kwargs)
        made._name = described["name"] or described["cluster_file"] or None
        made._running = made._name is not None
        made.shutdown_atexit = False  # this object does not own the cluster
        for name, each in d.get("engines", {}).get("sets", {}).items():
            made._add_set(name, each["ids"])
        return made

    @classmethod
    def from_file(
        cls,
        cluster_file: str | os.PathLike[str] | None = None,
        *,
        profile: str | None = None,
        profile_dir: str | None = None,
        cluster_id: str = "",
        **kwargs: Any,
    ) -> Self:
        """Return a cluster that runs in the background.

        Args:
            cluster_file: the path of the cluster's file.
            profile: not used.
            profile_dir: not used.
            cluster_id: the cluster's name; the default, without a path, is the only running cluster.
            kwargs: see ``Cluster``.

        Raises:
            FileNotFoundError: if there is no such cluster.
        """
        if cluster_file is not None and not Path(cluster_file).exists():
            raise FileNotFoundError(f"there is no cluster file {os.fspath(cluster_file)}")
        made = cls(**{"cluster_id": cluster_id, **kwargs})
        running = _running_clusters()
        if cluster_file is not None:
            made._name = os.fspath(cluster_file)
        elif cluster_id in running:
            made._name = cluster_id
        elif not cluster_id and len(running) == 1:
            made._name = next(iter(running))
        else:
            raise FileNotFoundError(f"there is no such cluster; running are: {', '.join(running) or 'none'}")
        made.cluster_id = cluster_id or made._name
        made._running = True
        made.shutdown_atexit = False
        return made

    def _own_client(self) -> nsactors.Client:
        """Return a client for control, which no user has."""
        if self._client is None:
            self._client = nsactors.Client(self._name) if self._name else self.core.connect_client_sync()
        return self._client

    def _check_own(self, method: str, command: str) -> None:
        if self._name is not None:
            instead = f"use `nsactors {command}` with {self._name!r}"
            raise NotProvided(f"{method}() of a cluster in the background", instead)

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
        profile = f"profile_dir={self.profile_dir!r}" if self.profile_dir else f"profile={self.profile!r}"
        parts = [f"cluster_id={self.cluster_id!r}", profile]
        if self._running:
            parts += ["controller=<running>", *([f"engine_sets={list(self.engines)}"] if self.engines else [])]
        return f"<Cluster({', '.join(parts)})>"


class ClusterManager:
    """The clusters of this user that run in the background, and new ones, by id."""

    def __init__(self, **kwargs: Any) -> None:
        self.clusters: dict[str, Cluster] = {}

    def load_clusters(
        self,
        *,
        profile_dirs: Any = None,
        profile_dir: Any = None,
        profiles: Any = None,
        profile: Any = None,
        init_default_clusters: bool = False,
        **kwargs: Any,
    ) -> dict[str, Cluster]:
        """Find the clusters that run in the background; the arguments are not used."""
        for name in _running_clusters():
            if name not in self.clusters:
                self.clusters[name] = Cluster.from_file(cluster_id=name)
        return self.clusters

    def get_cluster(self, cluster_id: str) -> Cluster:
        """Return the cluster of an id; raise KeyError if there is none."""
        return self.clusters[cluster_id]

    def new_cluster(self, **kwargs: Any) -> tuple[str, Cluster]:
        """Make a cluster without starting it; return its id and the cluster.

        Raises:
            KeyError: if there is a cluster of this id.
        """
        cluster = Cluster(**kwargs)
        if cluster.cluster_id in self.clusters:
            raise KeyError(f"Cluster {cluster.cluster_id} already exists!")
        self.clusters[cluster.cluster_id] = cluster
        return cluster.cluster_id, cluster

    def remove_cluster(self, cluster_id: str) -> None:
        """Forget the cluster of an id; raise KeyError if there is none."""
        del self.clusters[cluster_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.clusters)


def _launcher(engines: Any) -> str:
    """Return the kind of engines in lower case, from a name or one of ipyparallel's launcher classes."""
    if engines is None or engines == "":
        return "local"
    name = engines if isinstance(engines, str) else str(getattr(engines, "__name__", engines))
    name = name.rpartition(".")[2]  # such as that of ipyparallel.cluster.launcher.LocalEngineSetLauncher
    return name.lower().removesuffix("enginesetlauncher").removesuffix("launcher") or "local"


def _command(*words: str) -> str:
    """Run the ``nsactors`` command; return its output."""
    done = subprocess.run(nsactors_command(*words), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"`nsactors {' '.join(words)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _running_clusters() -> dict[str, dict[str, Any]]:
    listed = json.loads(_command("list", "--json") or "[]")
    return {each["name"]: each for each in listed}
