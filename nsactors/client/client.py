"""A client of a cluster: its engines as one object."""

from __future__ import annotations

import getpass
import os
import signal
import sys
import uuid
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nsactors.client.arriving import wait_for_engines
from nsactors.client.detached import is_detached
from nsactors.client.everywhere import Everywhere
from nsactors.client.forms import engine_table, table_as_html
from nsactors.client.hosting import Hosting
from nsactors.client.memory import ClusterMemory, ask_memory
from nsactors.client.prompt import join_prompt
from nsactors.client.session import Session
from nsactors.client.shared_work import SharedWork
from nsactors.client.task_work import TaskWork
from nsactors.client.ways import transport_to
from nsactors.core.carried import CarriedData
from nsactors.core.cluster import Interrupt, Signal
from nsactors.core.messages import Capability
from nsactors.core.recovery import RecoveryReport
from nsactors.core.targets import Targets, is_single, resolve
from nsactors.results import AsyncResult, Call
from nsactors.transport.base import Transport, require
from nsactors.transport.connection import ConnectionInfo

if TYPE_CHECKING:
    from nsactors.views.broadcast import BroadcastView
    from nsactors.views.direct import DirectView

__all__ = ["Client"]


class Client(Everywhere, SharedWork, TaskWork, Hosting):
    """The engines of a cluster, from one program.

    Indexing gives views: ``rc[0]`` one engine, ``rc[:]`` those there are now, ``rc[[2, 0]]`` two of them in this order;
    ``rc["x"]`` pulls ``x`` from all engines and ``rc["x"] = v`` pushes it to all.

    Args:
        cluster: the name of a cluster that runs in the background (see ``nsactors list``), the path of a file that
            ``Cluster.connection_info()`` has been saved in, or that itself. The default is the only cluster that this
            user has running. ``Cluster.connect_client_sync()`` gives a transport.
        name: what others see in the history, with a few letters that make it unique; the default is the user's name.
        report: where failures that nobody asked for are told when the client is closed; the default is stderr.

    Example:
        >>> with Cluster(n=4) as rc:
        ...     rc[:].map_sync(lambda x: x**10, range(8))
        [0, 1, 1024, 59049, 1048576, 9765625, 60466176, 282475249]

    Raises:
        ClusterNotFound: if there is no such cluster, or several and none was named.
        VersionMismatch: if this process and the cluster could not understand each other.
        AccessRefused: if the cluster is another user's.
        ClusterUnreachable: if there is no such cluster any more, or this process is connected to another Ray.
        RayImportedFirst: if this process has imported Ray, with settings of its own.
    """

    def __init__(
        self,
        cluster: Transport | ConnectionInfo | str | os.PathLike[str] | None = None,
        name: str | None = None,
        *,
        report: Callable[[str], object] | None = None,
    ) -> None:
        transport = transport_to(cluster)
        self.block = False
        # Engines number a client's requests by its name: whoever comes back under the same name is another client.
        self._session = Session(transport, f"{name or getpass.getuser()}-{uuid.uuid4().hex[:12]}")
        self.carried_data = CarriedData(transport.ref_types)
        self._report = report or _tell
        self._end_prompt_reports = join_prompt(self._session.ledger)
        # Also at interpreter exit: a script that ends without close() must not swallow a failure.
        self._finalizer = weakref.finalize(self, _close, self._session, self._end_prompt_reports, self._report)

    @classmethod
    def connect(cls, info: ConnectionInfo | str | os.PathLike[str], name: str | None = None, **options: Any) -> Self:
        """A client of a cluster that another process has started: ``Client(info, name)`` by its older name."""
        return cls(info, name, **options)

    @property
    def name(self) -> str:
        """What others see in the history."""
        return self._session.name

    @property
    def ids(self) -> list[int]:
        """Ids of the engines that take requests, in increasing order. Ids are never reused.

        Raises:
            ClientClosed: if this client has been closed.
        """
        self._check_open()
        return self._session.roster.ids

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[DirectView]:
        """One view per engine."""
        return (self.direct_view(engine_id) for engine_id in self.ids)

    def wait_for_engines(self, n: int | None = None, timeout: float | None = -1) -> None:
        """Wait until ``n`` engines take requests; without ``n``, until all that were asked for do or cannot.

        Engines that cannot start, or find no place in the cluster, are told by an ``EngineStartWarning`` if those that
        are there are enough. For a place is waited only if there is a time limit.

        Args:
            n: how many; more than this may come.
            timeout: seconds; None or negative: as long as it takes.

        Raises:
            TimeoutError: if they are not there in time.
            EngineStartError: if so many cannot start that ``n``, or any, cannot be reached: why, and for one without a
                place what it asks for and what there is. The newest one's, if there are several.
        """
        limited = timeout is not None and timeout >= 0
        wait_for_engines(self._session, n, timeout if limited else None, patient=limited)

    def on_join(self, callback: Callable[[int], object]) -> None:
        """Call ``callback(engine_id)`` whenever an engine joins; what it raises is printed."""
        self._session.roster.on_join(callback)

    def on_leave(self, callback: Callable[[int], object]) -> None:
        """Call ``callback(engine_id)`` whenever an engine leaves; what it raises is printed."""
        self._session.roster.on_leave(callback)

    def direct_view(self, targets: Targets = "all", **flags: Any) -> DirectView:
        """A view of some engines; ``"all"`` is looked up anew at each call, anything else once, now.

        Raises:
            TargetError: if ``targets`` names no engines of this cluster.
            UnknownFlag: if a flag does not exist.
        """
        from nsactors.views.direct import DirectView

        if targets is None or (isinstance(targets, str) and targets == "all"):
            self._check_open()
            return DirectView(self, "all", **flags)
        chosen = resolve(targets, self.ids)
        return DirectView(self, chosen[0] if is_single(targets) else chosen, **flags)

    def broadcast_view(self, targets: Targets = "all", is_coalescing: bool = False, **flags: Any) -> BroadcastView:
        """A view that calls many engines through a tree of relays; otherwise as :meth:`direct_view`.

        Args:
            targets: the engines.
            is_coalescing: not used; kept for scripts written for ipyparallel.
            flags: of the view.
        """
        from nsactors.views.broadcast import BroadcastView

        view = self.direct_view(targets, **flags)
        return BroadcastView(self, view.targets, **flags)

    def memory(self, targets: Targets = "all", *, top: int = 10) -> ClusterMemory:
        """What engines hold, by name and size (the ``top`` largest names), and how full their object stores are.

        Engines answer at once, however busy they are, unless C code holds their interpreter.
        """
        return ask_memory(self._session.transport.controller, resolve(targets, self.ids), top)

    def abort(self, jobs: Any = None, targets: Targets = "all", block: bool | None = None) -> None:
        """Take back calls and tasks of this client that have not started.

        Args:
            jobs: results or message ids, of detached tasks of other clients too; None: all of this client.
            targets: on these engines only.
            block: not used; kept for scripts written for ipyparallel.
        """
        ids = resolve(targets, self.ids)
        everywhere = isinstance(targets, str) and targets == "all"
        tasks = [call for call in self._session.open_tasks() if everywhere or call.engine_id in ids]
        chosen = _among([*self._session.open_calls(ids), *tasks], jobs)
        self._session.abort(chosen, interrupt=False)
        if others := [i for i in _msg_ids(jobs) - {str(call.request_id) for call in chosen} if is_detached(i)]:
            self._session.detached.take_back(others)

    def interrupt(self, targets: Targets = "all") -> list[int]:
        """Raise KeyboardInterrupt in whatever engines run; their namespaces stay.

        Returns:
            The ids of the engines that were told.

        Raises:
            CapabilityError: if engines share this process.
        """
        return self._command(targets, signal.SIGINT)

    def send_signal(self, number: int | str, targets: Targets = "all") -> list[int]:
        """Send a signal, by number or name, to the processes of engines; SIGINT interrupts what they run.

        Raises:
            ValueError: (or KeyError, for a name) if there is no such signal; nothing has been sent then.
            CapabilityError: if engines share this process.
        """
        known = signal.Signals[number] if isinstance(number, str) else signal.Signals(number)
        return self._command(targets, known)

    def shutdown(
        self, targets: Targets = "all", restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> None:
        """End engines, whatever they are doing.

        Args:
            targets: the engines.
            restart: start new processes under their ids, with empty namespaces.
            hub: close this client too.
            block: not used; kept for scripts written for ipyparallel.
        """
        ids = resolve(targets, self.ids)
        if restart:
            self._session.restart(ids, recovers=False)
        else:
            self._session.transport.controller.stop_engines(ids)
        if hub:
            self.close()

    def recover(self, targets: Targets = "all") -> None:
        """End engines, whatever they are doing, and bring them back as if they had died: for those that are stuck.

        What becomes of their namespaces is what the cluster's ``recovery`` says. What was running is not repeated.
        """
        self._session.restart(resolve(targets, self.ids), recovers=True)

    @property
    def recoveries(self) -> list[RecoveryReport]:
        """What became of namespaces that were recovered since this client came, oldest first.

        The last report of each engine is always among them; old ones are forgotten when they list 2,500 names in all.
        """
        reports = list(self._session.recoveries)
        self._session.ledger.heard(map(str, reports))
        return reports

    def close(self) -> None:
        """Leave the cluster: its engines go on, and failures that nobody has asked for are told."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._session.closed else f"engines {self._session.roster.ids}"
        return f"<Client {self.name}: {state}>"

    def __rich__(self) -> Any:
        """A table of the engines."""
        return engine_table(self._session)

    def _repr_html_(self) -> str:
        return table_as_html(engine_table(self._session))

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for results (None: for every call of this client); whether they are there.

        Args:
            jobs: results or message ids.
            timeout: seconds; None or negative: as long as it takes.
        """
        calls = _among([*self._session.open_calls(), *self._session.open_tasks()], jobs)
        return bool(AsyncResult(self._session, calls, label="wait").wait(timeout))

    @property
    def session(self) -> Session:
        """The conversation that views submit to."""
        return self._session

    def _command(self, targets: Targets, number: int) -> list[int]:
        session = self._session
        ids = resolve(targets, self.ids)
        require(session.transport, Capability.SIGNALS, "interrupt or signal an engine")
        command = Interrupt() if number == signal.SIGINT else Signal(number)
        return session.transport.controller.command(ids, command)

    def _check_open(self) -> None:
        self._session.check()


def _among(calls: list[Call], jobs: Any) -> list[Call]:
    """Those of ``calls`` that belong to results or bear message ids; all for None."""
    if jobs is None:
        return calls
    wanted = _msg_ids(jobs)
    return [call for call in calls if str(call.request_id) in wanted]


def _msg_ids(jobs: Any) -> set[str]:
    wanted: set[str] = set()
    for job in [jobs] if isinstance(jobs, str | AsyncResult) else jobs or ():
        wanted.update([job] if isinstance(job, str) else job.msg_ids)
    return wanted


def _close(session: Session, end_prompt_reports: Callable[[], None], report: Callable[[str], object]) -> None:
    end_prompt_reports()
    session.close()
    if text := session.ledger.report():
        report(text)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
