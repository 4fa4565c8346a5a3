"""The client with ipyparallel's names and meanings. It uses a client of nsactors."""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import GeneratorType, SimpleNamespace, TracebackType
from typing import Any, Self

import nsactors
from nsactors import errors
from nsactors.ipyparallel.alias import ON_ENGINES, installed
from nsactors.ipyparallel.arguments import OF_CLIENTS, check_flags, check_seconds, warn_once
from nsactors.ipyparallel.client.asyncresult import AsyncHubResult, AsyncResult, wait_all
from nsactors.ipyparallel.client.chunks import task_id_of
from nsactors.ipyparallel.client.metadata import KEPT, ExecuteReply, Metadata, engine_uuid
from nsactors.ipyparallel.client.records import Records, SendAgain, matches
from nsactors.ipyparallel.client.view import BroadcastView, DirectView, LoadBalancedView, ViewExecutor
from nsactors.ipyparallel.error import NotProvided, RemoteError, collect_exceptions
from nsactors.ipyparallel.translation import translating

__all__ = ["Client", "ExecuteReply", "Metadata"]

_SEVERAL = (list, tuple, set, GeneratorType)  # kinds of several results or ids


class Client:
    """A client of a cluster. ``core`` is the client of nsactors, which has more methods.

    Args:
        connection_info: a cluster's name, the path of its file, connection info, or a client of nsactors; the default
            is this user's only cluster in the background.
        url_file: an older argument: the path of a cluster's file.
        profile: not used: clusters have names.
        cluster_id: the name of a cluster.
        cluster: the client's ``Cluster``, if it has one.
        timeout: seconds to wait for a cluster that does not exist yet.
        extra_args: not used.

    All other arguments have no effect, and give a warning.

    Raises:
        OSError: if there is no such cluster in time.
    """

    def __init__(
        self,
        connection_info: Any = None,
        *,
        url_file: str | None = None,
        profile: str | None = None,
        profile_dir: Any = None,
        ipython_dir: str | None = None,
        context: Any = None,
        debug: bool = False,
        sshserver: str | None = None,
        sshkey: str | None = None,
        password: str | None = None,
        paramiko: bool | None = None,
        timeout: float = 10,
        cluster_id: str | None = None,
        cluster: Any = None,
        **extra_args: Any,
    ) -> None:
        given = {"context": context, "debug": debug, "ipython_dir": ipython_dir, "paramiko": paramiko}
        given |= {"password": password, "profile_dir": profile_dir, "sshkey": sshkey, "sshserver": sshserver}
        for name in OF_CLIENTS:
            if given[name]:
                warn_once(f"Client({name}=...) does nothing: a client finds its cluster by name, see `nsactors list`")
        if profile not in (None, "default"):
            warn_once(f"Client(profile={profile!r}) does nothing: clusters have names, see `nsactors list`")
        had_magics = has_magics()
        self.core = self._connected(connection_info or url_file or cluster_id, cluster, timeout)
        # As in ipyparallel, the output of calls stays in their results until the user shows it.
        self.core.output = "keep"
        self.block = False
        self.cluster = cluster
        self.debug = debug
        self.profile = profile or "default"
        self.sends_globals = False  # see view.use_cloudpickle()
        self.history: list[str] = []
        self.dask_clusters: list[Any] = []
        self._records = Records(self.core)
        self._lock = threading.Lock()
        self._open: dict[AsyncResult, None] = {}
        # Results by id of request; for all chunks of a balanced map, by the id of the map.
        self._known: weakref.WeakValueDictionary[str, AsyncResult] = weakref.WeakValueDictionary()
        self.session = SimpleNamespace(session=self.core.name)  # its name in records, as `client_uuid`
        self.metadata: dict[str, Metadata] = _KnownMetadata(self._find)
        self.results: dict[str, Any] = _KnownResults(self._find)
        self._waiting: ThreadPoolExecutor | None = None
        if installed() and cluster is None:
            _share_alias(self.core)
        # The first client of a session adds the magics of nsactors: this client, or one that started the cluster.
        if has_magics() and (not had_magics or getattr(cluster, "has_added_magics", False)):
            self.activate()

    @staticmethod
    def _connected(where: Any, cluster: Any, timeout: Any) -> nsactors.Client:
        if isinstance(where, nsactors.Client):
            return where
        try:
            if where is None and cluster is not None:
                made: nsactors.Client = cluster.core.connect_client_sync()
                return made
            is_negative = isinstance(timeout, int | float) and timeout < 0
            return nsactors.Client(where, timeout=0 if is_negative else timeout)
        except (errors.ClusterNotFound, errors.ClusterNotReady, errors.ClusterUnreachable) as error:
            # Scripts for ipyparallel catch OSError, and start a cluster then.
            raise OSError(
                f"{error}\n(start one with ipp.Cluster(), or in the background with `nsactors start`)"
            ) from error

    @property
    def ids(self) -> list[int]:
        """Ids of the engines, in increasing order."""
        return self.core.ids

    @property
    def _engines(self) -> dict[int, str | None]:
        """The names of engines in records, by id: ipyparallel's documentation uses this attribute for queries."""
        return {engine_id: engine_uuid(engine_id) for engine_id in self.ids}

    @property
    def outstanding(self) -> set[str]:
        """Ids of requests that have no reply yet."""
        return {msg_id for result in self._open_results() for msg_id in result.pending_ids()}

    def _open_results(self) -> list[AsyncResult]:
        """Return the results with requests that have no reply yet."""
        with self._lock:
            self._open = {result: None for result in self._open if not result.done()}
            return list(self._open)

    def _find(self, msg_id: str) -> AsyncResult | None:
        """Return this client's result that has a request, alone or with others; None without one."""
        found = self._known.get(msg_id)
        return self._known.get(task_id_of(msg_id)) if found is None else found

    def enter(self, result: AsyncResult, again: SendAgain | None = None) -> list[str]:
        """Add requests to the histories; return their ids, at most the last ``KEPT``. Views call this.

        Args:
            result: the result of the requests.
            again: sends one of the requests again, for :meth:`resubmit`; None if that is not possible.
        """
        msg_ids = result.last_ids(KEPT)
        with self._lock:
            self.history += msg_ids
            del self.history[:-KEPT]
            self._known.update(dict.fromkeys(map(task_id_of, msg_ids), result))
            if len(self._open) > 1000:
                self._open = {one: None for one in self._open if not one.done()}
            if not result.done():
                self._open[result] = None
        self._records.add(result, again)
        return msg_ids

    def __len__(self) -> int:
        return len(self.core)

    def __iter__(self) -> Iterator[DirectView]:
        return (self.direct_view(engine_id) for engine_id in self.ids)

    def __getitem__(self, key: Any) -> DirectView:
        """Return a view of engines, by id, slice or list of ids."""
        if not isinstance(key, int | slice | tuple | list | range):
            raise TypeError(f"a client is indexed by int, slice or list, not {type(key).__name__}")
        return self.direct_view(list(key) if isinstance(key, tuple | range) else key)

    def direct_view(self, targets: Any = "all", **kwargs: Any) -> DirectView:
        """Return a view of engines: an id, a list of ids, a slice, or ``"all"``, which is looked up at each call."""
        return DirectView(self, targets=targets, **kwargs)

    def load_balanced_view(self, targets: Any = None, **kwargs: Any) -> LoadBalancedView:
        """Return a view that runs each call on a free engine."""
        if isinstance(targets, int):
            targets = [targets]
        is_all = isinstance(targets, str) and targets == "all"
        return LoadBalancedView(self, targets=None if is_all else targets, **kwargs)

    def broadcast_view(self, targets: Any = "all", is_coalescing: bool = False, **kwargs: Any) -> BroadcastView:
        """Return a view that calls many engines through a tree; ``"all"`` means the engines that have joined by now."""
        is_all = targets is None or (isinstance(targets, str) and targets == "all")
        view = BroadcastView(self, targets=(self.ids or "all") if is_all else targets, **kwargs)
        view.is_coalescing = is_coalescing
        return view

    def executor(self, targets: Any = None) -> ViewExecutor:
        """Return an executor of the standard library over these engines."""
        return self.load_balanced_view(targets).executor

    def activate(self, targets: Any = "all", suffix: str = "") -> DirectView:
        """Make ``%px<suffix>`` and related magics run on engines; return the view."""
        if not isinstance(suffix, str):
            raise TypeError(f"activate() takes suffix as text, not {suffix!r}")
        view = self.direct_view(targets)
        view.block = True
        view.activate(suffix)
        return view

    def close(self, linger: Any = None) -> None:
        """Disconnect from the cluster; its engines continue to run.

        Args:
            linger: not used.
        """
        self.core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # Waiting.

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for results; return whether they have ended in time.

        Args:
            jobs: results, ids of requests, positions in the history, futures of any kind, or several of these; the
                default is all outstanding requests. A request that the cluster does not know counts as ended.
            timeout: the limit in seconds; negative for no limit.
        """
        check_seconds("wait", "timeout", timeout)
        if jobs is None:
            return wait_all(self._open_results(), timeout)
        futures: list[Future[Any]] = []
        for job in _several(jobs):
            with contextlib.suppress(errors.ResultUnavailable):
                futures.append(job if isinstance(job, Future) else self.get_result(job))
        return wait_all(futures, timeout)

    def wait_interactive(self, jobs: Any = None, interval: float = 1.0, timeout: float = -1.0) -> None:
        """Wait, and show a progress bar.

        Args:
            jobs: see :meth:`wait`.
            interval: seconds between updates.
            timeout: the limit in seconds.
        """
        chosen: list[Any] = list(self._open_results()) if jobs is None else self._ids_of(jobs)
        if chosen:
            self.get_result(chosen).wait_interactive(interval, timeout)

    def wait_for_engines(
        self,
        n: int | None = None,
        *,
        timeout: float = -1,
        block: bool = True,
        interactive: bool | None = None,
        widget: bool | None = None,
    ) -> Any:
        """Wait until ``n`` engines are ready.

        Args:
            n: the number of engines; the default is all that are starting.
            timeout: the limit in seconds; negative for no limit.
            block: False returns a future in place of waiting.
            interactive: not used.
            widget: not used.

        Raises:
            TimeoutError: if the limit is reached.
        """
        check_flags("wait_for_engines", block=block)
        check_seconds("wait_for_engines", "timeout", timeout)
        if block:
            with translating():
                return self.core.wait_for_engines(n, timeout)
        if n is not None and len(self) >= n:
            ready: Future[None] = Future()
            ready.set_result(None)
            return ready
        if self._waiting is None:
            self._waiting = ThreadPoolExecutor(1, "wait_for_engines")
        return self._waiting.submit(self.core.wait_for_engines, n, timeout)

    def spin(self) -> None:
        """Do nothing: replies arrive without polling."""

    def spin_thread(self, interval: float = 1) -> None:
        """Do nothing: replies arrive without polling."""

    def stop_spin_thread(self) -> None:
        """Do nothing; see :meth:`spin_thread`."""

    # Control.

    def abort(self, jobs: Any = None, targets: Any = None, block: bool | None = None) -> Future[None] | None:
        """Cancel requests that have not begun.

        Args:
            jobs: results or ids of requests; the default is all requests of this client. Ids of other requests are
                ignored.
            targets: cancel requests on these engines only.
            block: False returns a future, which is done; the default is this client's ``block``.

        Raises:
            TypeError: if a request is not named by an id, a position or a result.
            NotProvided: for some chunks of a balanced map without the others.
        """
        if targets is not None:
            with translating():
                self.core.direct_view(targets)  # raises an error if there are no such engines
        outstanding = self.outstanding
        chosen = outstanding if jobs is None else set(self._ids_of(jobs))
        pending = outstanding & chosen
        tasks = {task_id_of(msg_id) for msg_id in pending}
        if rest := {each for each in outstanding - pending if task_id_of(each) in tasks}:
            raise NotProvided("abort() of some chunks of a map", f"ar.abort() aborts all, with {min(rest)}")
        if tasks:
            with translating():
                self.core.abort(sorted(tasks), "all" if targets is None or jobs is not None else targets)
        return self._done(block)

    def clear(self, targets: Any = None, block: bool | None = None) -> Future[Any] | None:
        """Empty the namespaces of engines; return None if this call waits, and a future otherwise."""
        blocks = self.block if block is None else block
        cleared: Future[Any] = self.direct_view("all" if targets is None else targets).clear(block=False)
        if blocks:
            cleared.result()
        return None if blocks else cleared

    def send_signal(self, sig: int | str, targets: Any = None, block: bool | None = None) -> Future[None] | None:
        """Send a signal to the processes of engines.

        Args:
            sig: the number of the signal, or its name; 0 sends no signal.
            targets: the engines; the default is all.
            block: see :meth:`abort`.
        """
        chosen = "all" if targets is None else targets
        with translating():
            if sig == 0:
                self.core.direct_view(chosen)  # raises an error if there are no such engines
            else:
                self.core.send_signal(sig, chosen)
        return self._done(block)

    def _done(self, block: bool | None) -> Future[None] | None:
        """Return the value of a method that has done its work: None if it should block, and a future otherwise."""
        if self.block if block is None else block:
            return None
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def shutdown(
        self, targets: Any = "all", restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> None:
        """Stop engines, busy or not.

        Args:
            targets: the engines.
            restart: start new processes under the same ids.
            hub: stop the whole cluster; if another process owns it, close this client.
            block: not used.
        """
        with translating():
            self.core.shutdown(targets, restart)
        if hub:
            if self.cluster is not None:
                self.cluster.stop_cluster_sync()
            self.close()

    def queue_status(self, targets: Any = "all", verbose: bool = False) -> Any:
        """Return each engine's requests: the numbers (or lists of ids) of ``queue``, ``completed`` and ``tasks``.

        Args:
            targets: the engines; for a single id, the dictionary of that engine is returned.
            verbose: return ids of requests in place of numbers.
        """
        check_flags("queue_status", verbose=verbose)
        with translating():
            status = self.core.queue_status(targets)
        made = {key: _counts(value) for key, value in status.items() if key != "unassigned"}
        if verbose:
            records = self._records.all()
            for engine_id, counts in made.items():
                here = [each for each in records if each["engine_uuid"] == f"engine-{engine_id}"]
                counts["completed"] = [each["msg_id"] for each in here if each["completed"] is not None]
                counts["queue"] = [each["msg_id"] for each in here if each["completed"] is None]
                counts["tasks"] = [task.msg_id for task in self.core.tasks() if engine_id in task.engines]
        if isinstance(targets, int):
            return made[self.core.direct_view(targets).targets]
        return {**made, "unassigned": [] if verbose and not status["unassigned"] else status["unassigned"]}

    # Results.

    def get_result(self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = True) -> AsyncResult:
        """Return the result of requests, of this client or another.

        Args:
            indices_or_msg_ids: ids of requests, positions in the history, results, or several; the default is the last.
            block: wait for the result.
            owner: not used.

        Raises:
            KeyError: if there is no such request.
        """
        check_flags("get_result", block=block)
        wanted: Any = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        single = not isinstance(wanted, _SEVERAL)
        jobs = [self.history[job] if isinstance(job, int) else job for job in _several(wanted)]
        for job in jobs:
            if not isinstance(job, str | AsyncResult):
                raise TypeError(f"a result is found by id, position or result, not by {type(job).__name__}")
        children: list[Any] = [job if isinstance(job, AsyncResult) else self._child(job) for job in jobs]
        kind = AsyncHubResult if any(isinstance(child, str) for child in children) else AsyncResult
        with translating():
            if single and isinstance(children[0], AsyncResult) and not isinstance(children[0], AsyncHubResult):
                result: AsyncResult = children[0]
            else:
                result = kind(self, children[0] if single else children, owner=owner)
        if result not in children:
            for msg_id, part in zip(result.msg_ids, result.split(), strict=False):
                self._known.setdefault(msg_id, part)
        if self.block if block is None else block:
            result.wait()
        return result

    def _child(self, msg_id: str) -> AsyncResult | str:
        """Return this client's result of a request; if it has none, the request's id."""
        result = self._find(msg_id)
        return msg_id if result is None else result.child(msg_id)

    def _ids_of(self, jobs: Any) -> list[str]:
        ids: list[str] = []
        for job in _several(jobs):
            if isinstance(job, AsyncResult):
                ids += job.msg_ids
            elif isinstance(job, int | str):
                ids.append(self.history[job] if isinstance(job, int) else job)
            else:
                raise TypeError(f"a request is named by id, position or result, not by {type(job).__name__}")
        return ids

    def resubmit(
        self, indices_or_msg_ids: Any = None, metadata: Mapping[str, Any] | None = None, block: bool | None = None
    ) -> AsyncHubResult:
        """Repeat calls with the same arguments; possible for the last 200 calls of this client.

        Chunks of a balanced map count as calls, if the map's sequences can be sliced. The result has a list, also for a
        single call.

        Args:
            indices_or_msg_ids: see :meth:`get_result`.
            metadata: not used.
            block: wait for the result.

        Raises:
            RemoteError: (``KeyError``, as ipyparallel's hub raises it) if a call is unknown, or has been dropped.
        """
        check_flags("resubmit", block=block)
        made = []
        for msg_id in self._ids_of(-1 if indices_or_msg_ids is None else indices_or_msg_ids):
            try:
                send = partial(self._records.again(msg_id), msg_id)
                result = AsyncResult(self, send(), "resubmit")
            except KeyError:
                reason = f"there is no call {msg_id!r} to be sent again"
                raise RemoteError("KeyError", reason, f"KeyError: {reason}") from None
            self.enter(result, lambda _, send=send: send())  # type: ignore[misc]  # bound for each call
            self._records.resubmitted(msg_id, result.msg_ids[0])
            made.append(result)
        again = AsyncHubResult(self, made, "resubmit")
        if self.block if block is None else block:
            again.wait()
        return again

    def result_status(self, msg_ids: Any, status_only: bool = True) -> dict[str, Any]:
        """Return the ids of ``pending`` and of ``completed`` requests, and ``"status": "ok"``.

        Args:
            msg_ids: see :meth:`get_result`.
            status_only: False also returns the results of completed requests, by id.

        Raises:
            RemoteError: without ``status_only``, if a request has failed.
        """
        results = {msg_id: self.get_result(msg_id) for msg_id in self._ids_of(msg_ids)}
        done = [msg_id for msg_id, result in results.items() if result.ready()]
        pending = [each for each in results if each not in done]
        status: dict[str, Any] = {"status": "ok", "completed": done, "pending": pending}
        if not status_only:
            status |= {msg_id: results[msg_id].get(return_exceptions=True) for msg_id in done}
            failures = [status[msg_id] for msg_id in done if isinstance(status[msg_id], Exception)]
            if len(results) == 1 and failures:
                raise failures[0]
            collect_exceptions(failures, "result_status")
        return status

    def hub_history(self) -> list[str]:
        """Return the ids of the requests of all clients, in the order of submission; the last 10,000."""
        return [record["msg_id"] for record in self._records.all()]

    def db_query(self, query: Mapping[str, Any], keys: Any = None) -> list[dict[str, Any]]:
        """Return the records of all clients' requests that match a query.

        Args:
            query: for each key a value, or a dictionary of operators: ``$lt $lte $gt $gte $eq $ne $in $nin $all $mod
                $exists $glob $regex``.
            keys: the keys to return in addition to ``msg_id``; the default is all.

        Example:
            >>> rc.db_query({"label": {"$glob": "sweep_*"}, "completed": None}, keys=["msg_id", "engine_uuid"])

        Raises:
            TypeError: if ``query`` is not a mapping, or ``keys`` are not text.
            ValueError: if there is no such operator.
        """
        if not isinstance(query, Mapping):
            raise TypeError(f"db_query() takes query as a dictionary, not {query!r}")
        several = [] if keys is None or isinstance(keys, str) else keys
        if not isinstance(several, Iterable) or not all(isinstance(key, str) for key in several):
            raise TypeError(f"db_query() takes keys as a name or several, as text, not {keys!r}")
        found = [record for record in self._records.all() if matches(record, query)]
        if keys is None:
            return found
        wanted = {"msg_id", *([keys] if isinstance(keys, str) else keys)}
        return [{key: value for key, value in record.items() if key in wanted} for record in found]

    def purge_local_results(self, jobs: Any = [], targets: Any = []) -> None:  # noqa: B006 (never written to)
        """Drop this client's results of requests.

        Args:
            jobs: see :meth:`get_result`; or ``"all"``.
            targets: the engines whose results are dropped.

        Raises:
            ValueError: if neither is given.
            RuntimeError: if a request has no reply yet.
        """
        ids = self._purged_ids(jobs, targets)
        if open_ids := self.outstanding.intersection(ids):
            raise RuntimeError(f"requests that are not answered cannot be purged: {', '.join(sorted(open_ids))}")
        for msg_id in ids:
            self._known.pop(msg_id, None)
            self.results.pop(msg_id, None)
            self.metadata.pop(msg_id, None)
        if isinstance(jobs, str) and jobs == "all":
            self.results.clear()
            self.metadata.clear()

    def purge_hub_results(self, jobs: Any = [], targets: Any = []) -> None:  # noqa: B006
        """Leave requests out of :meth:`hub_history` and :meth:`db_query`; the cluster forgets them by itself.

        Args:
            jobs: see :meth:`get_result`; or ``"all"``.
            targets: the engines whose requests are left out.

        Raises:
            ValueError: if neither is given.
        """
        if isinstance(jobs, str) and jobs == "all":
            self._records.purge_all()
        else:
            self._records.purge(self._purged_ids(jobs, targets))

    def purge_results(self, jobs: Any = [], targets: Any = []) -> None:  # noqa: B006
        """Call :meth:`purge_local_results` and :meth:`purge_hub_results`."""
        self.purge_local_results(jobs, targets)
        self.purge_hub_results(jobs, targets)

    def purge_everything(self) -> None:
        """Drop all results and records of requests, and the history."""
        self.purge_results("all")
        self.history = []

    def _purged_ids(self, jobs: Any, targets: Any) -> set[str]:
        if jobs is None or (not isinstance(jobs, str | int | AsyncResult) and not len(jobs)):
            if targets is None or (isinstance(targets, list) and not targets):
                raise ValueError("say which results: purge_results(jobs) or purge_results(targets=...)")
            jobs = []
        if isinstance(jobs, str) and jobs == "all":
            return set(self.history)
        ids = set(self._ids_of(jobs)) if not isinstance(jobs, list) or jobs else set()
        if targets is None or (isinstance(targets, list) and not targets):
            return ids
        view = self.direct_view(targets)
        engines = (
            [view.targets] if isinstance(view.targets, int) else self.ids if view.targets == "all" else view.targets
        )
        names = {f"engine-{engine_id}" for engine_id in engines}
        return ids | {record["msg_id"] for record in self._records.all() if record["engine_uuid"] in names}

    def become_dask(
        self,
        targets: Any = "all",
        port: int = 0,
        nanny: bool = False,
        scheduler_args: Mapping[str, Any] | None = None,
        **worker_args: Any,
    ) -> Any:
        """Make the engines workers of a Dask scheduler in this process; return Dask's client.

        Args:
            targets: the engines.
            port: the port of the scheduler; 0 for any free one.
            nanny: refused: workers run in the engines' own processes.
            scheduler_args: arguments of ``distributed.LocalCluster``, such as ``host``, for engines of other machines.
            worker_args: arguments of ``distributed.Worker``.

        Raises:
            PackageMissing: if Dask's scheduler is not installed.
            NotProvided: with ``nanny``.
            RemoteError: if a worker cannot start.
        """
        from nsactors.ipyparallel.dask import become_dask

        if nanny:
            instead = "workers are in the engines' processes; rc.shutdown(restart=True) restarts these"
            raise NotProvided("become_dask(nanny=True)", instead)
        return become_dask(self, targets, port, scheduler_args or {}, worker_args)

    def stop_dask(self, targets: Any = "all") -> None:
        """Stop the workers on engines, and the scheduler in this process."""
        from nsactors.ipyparallel.dask import stop_dask

        stop_dask(self, targets)

    become_distributed = become_dask
    stop_distributed = stop_dask

    def __repr__(self) -> str:
        return f"<Client {self.core.name}: {len(self)} engines>"


class _KnownMetadata(dict[str, Metadata]):
    """Metadata by id of request; empty for requests whose result no longer exists."""

    def __init__(self, find: Callable[[str], AsyncResult | None]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, msg_id: str) -> Metadata:
        if (result := self._find(msg_id)) is None:
            made = self[msg_id] = Metadata(msg_id=msg_id)
            return made
        return result.metadata_of_child(msg_id)


class _KnownResults(dict[str, Any]):
    """Values by id of request, for requests that have ended and whose result still exists."""

    def __init__(self, find: Callable[[str], AsyncResult | None]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, msg_id: str) -> Any:
        known = self._find(msg_id)
        result = None if known is None else known.child(msg_id)
        if result is None or not result.done():
            raise KeyError(msg_id)
        return result.get(return_exceptions=True)


def _several(jobs: Any) -> list[Any]:
    return list(jobs) if isinstance(jobs, _SEVERAL) else [jobs]


def _share_alias(core: nsactors.Client) -> None:
    """Install the alias on engines, so that their code can import ipyparallel in any cluster of nsactors."""

    def share(engine_id: int) -> None:
        core[engine_id].execute(ON_ENGINES, block=False)

    for engine_id in core.ids:
        share(engine_id)
    core.on_join(share)


def _counts(status: Mapping[str, Any]) -> dict[str, Any]:
    return {key: status[key] for key in ("queue", "completed", "tasks")}


def has_magics() -> bool:
    """Return whether this process is an IPython session with the magic ``%px``."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "px" in shell.magics_manager.magics["line"]
