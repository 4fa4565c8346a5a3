"""The client: a cluster's engines as one object."""

from __future__ import annotations

import getpass
import os
import signal
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nsactors.client import activity
from nsactors.client.activity import ClusterActivity, Observer, queue_status, waits_by_engine, watch
from nsactors.client.find_requests import (
    STATES,
    RequestFinder,
    check_jobs,
    detached_ids,
    label_of,
    left_behind,
    names_one,
    select_requests,
    select_tasks,
)
from nsactors.client.prompt import draw_errors_at_prompt, join_prompt, join_session, write_notice
from nsactors.client.tables import history_table, recovery_table, task_table
from nsactors.errors import WrongType, WrongValue, printable, suggest_name
from nsactors.inside.stacks import Stacks
from nsactors.inside.values import Variables, variables
from nsactors.protocol import arguments as arg
from nsactors.protocol.control import HistoryEntry, Interrupt, Signal, Stop
from nsactors.protocol.engine_info import RecoveryReport
from nsactors.protocol.messages import Capability, RequestId
from nsactors.protocol.targets import Targets, is_single
from nsactors.results import OUTPUTS, AsyncResult
from nsactors.results.display.line import showing
from nsactors.results.display.tables import Table, table_as_html
from nsactors.results.map_result import map_of_part
from nsactors.services.service import Service
from nsactors.services.state_machine import StateMachine
from nsactors.session.carried_data import CarriedData
from nsactors.session.engine_directory import engine_table
from nsactors.session.engine_start import StartProgress, tell_of_start, wait_for_engines
from nsactors.session.memory import ClusterMemory, query_memory
from nsactors.session.own_modules import OwnModules
from nsactors.session.session import Session
from nsactors.tasks.detached_client import TaskSchedulers, is_detached
from nsactors.tasks.messages import TaskStatus
from nsactors.transport.base import ConnectionInfo, Transport, require
from nsactors.transport.registry import transport_to

if TYPE_CHECKING:
    from nsactors.views.direct import BroadcastView, DirectView
    from nsactors.views.executor import ViewExecutor
    from nsactors.views.load_balanced import LoadBalancedView


FLUSH_S = 30.0
SHOWN_AFTER_S = 2.0


class Client:
    """The engines of a cluster, from one program.

    Indexing gives views: ``rc[0]`` of one engine, ``rc[:]`` of all present engines, ``rc[[2, 0]]`` of two, in order;
    ``rc["x"]`` pulls ``x`` from all engines and ``rc["x"] = v`` pushes it to all.

    Args:
        cluster: the name of a cluster that runs in the background (see ``nsactors list``), the result of
            ``Cluster.connection_info()``, or the path of a file in which that was saved. The default is the cluster
            that ``NSACTORS_CLUSTER`` in the environment names, or else the only cluster that this user runs.
            ``Cluster.connect_client_sync()`` passes a transport.
        name: the client's name in the history, with a few letters that make it unique; the default is the user's name.
        report: prints the unretrieved errors when the client is closed; the default writes to stderr.
        modules: ``"auto"``: engines find the modules of this program where the program finds them, and run the version
            that it has imported; ``"off"``: engines import only modules that they find themselves.
        output: the default for the output of calls, which a view may change; see :attr:`output`.
        timeout: seconds to wait for a cluster in the background, or a file, that does not exist yet, or for a cluster
            that is still starting. After a second, a line on stderr names what is awaited.

    Example:
        >>> with Cluster(n=4) as rc:
        ...     rc[:].map_sync(lambda x: x**10, range(8))
        [0, 1, 1024, 59049, 1048576, 9765625, 60466176, 282475249]

    Raises:
        ClusterNotFound: if there is no such cluster in time, or there are several and no name is given.
        ClusterNotReady: if the cluster is still starting when the time is up.
        VersionMismatch: if this process and the cluster could not understand each other.
        AccessRefused: if the cluster is another user's.
        ClusterUnreachable: if there is no such cluster any more, or this process is connected to another Ray cluster.
        RayImportedFirst: if this process has imported Ray, with settings of its own.
    """

    _why_unsendable = "a client stays in its process: make one on the engine, with Client(cluster.connection_info())"

    def __init__(
        self,
        cluster: Transport | ConnectionInfo | str | os.PathLike[str] | None = None,
        name: str | None = None,
        *,
        report: Callable[[str], object] | None = None,
        modules: str = "auto",
        output: str = "show",
        timeout: float = 0,
    ) -> None:
        draw_errors_at_prompt()
        arg.check(
            "Client",
            name=arg.text(name, or_none=True),
            report=arg.function(report, or_none=True),
            modules=arg.choice(modules, ("auto", "off")),
            output=arg.choice(output, OUTPUTS),
            timeout=arg.seconds(timeout, or_none=False),
        )
        transport = transport_to(cluster, timeout)
        self.block = False
        # Engines that share this process share its modules.
        tells = modules == "auto" and Capability.PROCESS in transport.capabilities
        # Engines count requests by the name of the client, so no two clients may ever have the same name.
        unique = f"{name or getpass.getuser()}-{uuid.uuid4().hex[:12]}"
        own = OwnModules(unique) if tells else None
        try:
            self.session = session = Session(transport, unique, own)
        except BaseException:
            if own is not None:
                own.close()
            raise
        self.schedulers = session.schedulers = TaskSchedulers(session)
        self._requests = RequestFinder(session, self.schedulers)
        self.session.output = output
        self.carried_data = CarriedData(transport.ref_types)
        self._report = report or write_notice
        self._end_prompt_reports = join_prompt(
            session.unretrieved, own, lambda: session.requests_sent, session.debug_error
        )
        # This runs at interpreter exit as well, because a script that ends without close() must not swallow a failure.
        self._finalizer = weakref.finalize(self, _close, self.session, self._end_prompt_reports, self._report)
        join_session(self)

    if not TYPE_CHECKING:
        __getattr__ = suggest_name

    @classmethod
    def connect(cls, info: ConnectionInfo | str | os.PathLike[str], name: str | None = None, **options: Any) -> Self:
        """Return a client of a cluster that another process has started: the older name of ``Client(info, name)``."""
        if info is None:  # Client(None) would mean the only cluster
            raise WrongType("connect", "info", info, "connection info, the name of a cluster, or the path of a file")
        return cls(info, name, **options)

    @property
    def output(self) -> str:
        """The default for the output of calls: ``"show"`` shows it while they are waited for, ``"keep"`` does not.

        At a terminal and in a notebook, output is shown as ``%px`` shows it: with the engines in front, and equal lines
        only once. Where standard output is not a terminal, output is written as it was printed. Results have the output
        in any case. The flag ``output`` of a view takes precedence.
        """
        return self.session.output

    @output.setter
    def output(self, output: str) -> None:
        arg.check("output", output=arg.choice(output, OUTPUTS))
        self.session.output = output

    @property
    def name(self) -> str:
        """The client's name in the history."""
        return self.session.name

    @property
    def ids(self) -> list[int]:
        """Ids of the engines that take requests, in increasing order. Ids are never reused.

        Raises:
            ClientClosed: if this client has been closed.
        """
        self.session.check()
        return list(self.session.directory.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[DirectView]:
        """Yield a view of each engine."""
        return (self.direct_view(engine_id) for engine_id in self.ids)

    def wait_for_engines(self, n: int | None = None, timeout: float | None = -1) -> None:
        """Wait until ``n`` engines take requests; without ``n``, until each engine takes requests or cannot start.

        If the other engines are enough, an ``EngineStartWarning`` names those that cannot start or find no place in the
        cluster. Engines without a place are waited for only if there is a time limit.

        Args:
            n: the number of engines; there may be more.
            timeout: seconds; None or negative for no limit.

        Raises:
            TimeoutError: if the engines do not take requests in time.
            EngineStartError: if so many engines cannot start that fewer than ``n``, or none, will take requests. The
                error gives the reason, and for an engine without a place its demands and the available resources. If
                several engines cannot start, the error is that of the newest.
        """
        arg.check(
            "wait_for_engines",
            n=arg.whole(n, at_least=0, or_none=True),
            timeout=arg.seconds(timeout, negative=True),
        )
        limited = timeout is not None and timeout >= 0
        directory = self.session.directory
        progress = StartProgress(len({*directory.ids, *directory.starting}) if n is None else n)
        progress.counts(self.session)
        with showing(progress.read, after_s=SHOWN_AFTER_S, concludes=True):
            wait_for_engines(self.session, n, timeout if limited else None, patient=limited)
        tell_of_start(self.session)

    def on_join(self, callback: Callable[[int], object]) -> None:
        """Call ``callback(engine_id)`` whenever an engine joins; errors of the callback are printed."""
        arg.check("on_join", callback=arg.function(callback))
        self.session.directory.on_join(callback)

    def on_leave(self, callback: Callable[[int], object]) -> None:
        """Call ``callback(engine_id)`` whenever an engine leaves; errors of the callback are printed."""
        arg.check("on_leave", callback=arg.function(callback))
        self.session.directory.on_leave(callback)

    def direct_view(self, targets: Targets = "all", **flags: Any) -> DirectView:
        """Return a view of some engines; ``"all"`` is resolved at each call, other targets are resolved now.

        Raises:
            TargetError: if ``targets`` names no engines of this cluster.
            UnknownFlag: if a flag does not exist.
        """
        from nsactors.views.direct import DirectView

        if targets is None or (isinstance(targets, str) and targets == "all"):
            self.session.check()
            return DirectView(self, "all", **flags)
        chosen = self.session.resolve(targets)
        return DirectView(self, chosen[0] if is_single(targets) else chosen, **flags)

    def broadcast_view(self, targets: Targets = "all", is_coalescing: bool = False, **flags: Any) -> BroadcastView:
        """Return a view that calls many engines through a tree of relays; otherwise it is like :meth:`direct_view`.

        Args:
            targets: the engines.
            is_coalescing: not used; kept for scripts written for ipyparallel.
            flags: flags of the view.
        """
        from nsactors.views.direct import BroadcastView

        arg.check("broadcast_view", is_coalescing=arg.flag(is_coalescing))
        view = self.direct_view(targets, **flags)
        return BroadcastView(self, view.targets, **flags)

    def memory(self, targets: Targets = "all", *, top: int = 10) -> ClusterMemory:
        """Return the memory of engines, by name and size (the ``top`` largest names), and of their object stores.

        Engines reply immediately, however busy they are, unless C code holds their interpreter.
        """
        arg.check("memory", top=arg.whole(top, at_least=0))
        return query_memory(self.session.controller, self.session.resolve(targets), arg.plain(top))

    def stack(
        self, targets: Targets = "all", *, threads: bool = False, native: bool = False, disturb: bool = False
    ) -> Stacks:
        """Return the code that each engine runs now; equal stacks are shown once.

        Engines reply immediately, however busy they are. An engine whose interpreter is held by C code is read from
        outside by ``py-spy``, an optional package: ``pip install nsactors[inside]``.

        Args:
            targets: the engines.
            threads: also return the stacks of threads that user code has started.
            native: also return functions of C code; to read these, py-spy stops the engines for half a second.
            disturb: send a signal to an engine that cannot be read otherwise; it may cut short a system call in C code.
        """
        return activity.stacks_of(self.session, targets, threads=threads, native=native, disturb=disturb)

    def variables(self, targets: Targets = "all") -> Variables:
        """Return the names on engines: class, short value and size; engines reply immediately, even if busy."""
        return variables(self.session, self.session.resolve(targets))

    def abort(self, jobs: Any = None, targets: Targets = "all", block: bool | None = None) -> None:
        """Cancel calls and tasks of this client that have not begun.

        Args:
            jobs: results or message ids, also of detached tasks of other clients; None for all calls of this client.
            targets: cancel on these engines only.
            block: not used; kept for scripts written for ipyparallel.

        Raises:
            InvalidArgument: if ``jobs`` is something else, the message id of another client's call, or a part of a map,
                which is cancelled with the whole map.
        """
        arg.check("abort", block=arg.flag(block, or_none=True))
        ids = self.session.resolve(targets)
        everywhere = isinstance(targets, str) and targets == "all"
        named, others = self._requests.unfinished("abort", jobs)
        for call in named:
            if (whole := map_of_part(str(call.request_id))) is not None:
                raise WrongValue("abort", "jobs", str(call.request_id), f"the id of the whole map, {whole!r}")
        if strangers := [msg_id for msg_id in others if not is_detached(msg_id)]:
            takes = "results or message ids of this client, or of detached tasks"
            raise WrongValue("abort", "jobs", strangers[0], takes)
        self.session.abort([call for call in named if everywhere or call.engine_id in ids], interrupt=False)
        if others:
            self.schedulers.detached.cancel(others)

    def interrupt(self, targets: Targets = "all") -> list[int]:
        """Raise KeyboardInterrupt in the code that engines run; their namespaces stay.

        Returns:
            The ids of the engines to which the interrupt was sent.

        Raises:
            CapabilityError: if engines share this process.
        """
        return self._command(targets, signal.SIGINT)

    def send_signal(self, number: int | str, targets: Targets = "all") -> list[int]:
        """Send a signal, by number or name, to the processes of engines; SIGINT interrupts the code that they run.

        Raises:
            InvalidArgument: if there is no such signal; in this case nothing has been sent.
            CapabilityError: if engines share this process.
        """
        return self._command(targets, arg.signal_of("send_signal", number))

    def debug(
        self, targets: Targets = "all", *, result: AsyncResult | None = None, forget: bool = False, take: bool = False
    ) -> None:
        """Open the debugger of engines that are stopped at a breakpoint; if none is, open it on their last failures.

        The debugger prompts in this program; ``%pxdebug`` does the same. An engine keeps the frames of the last failure
        of each client that has a prompt: a terminal or a notebook. It releases these frames, and the objects in them,
        at the client's next failure, after ten minutes, and when the client leaves or the namespace is cleared. Until
        then, the engine runs other requests.

        At the prompt, the commands are those of Python's debugger, and ``locals``, ``engines``, ``engine 2`` and
        ``all COMMAND``; ``q`` leaves the prompt. Expressions are evaluated in the current frame, but not on
        the thread of the engine's requests.

        Args:
            targets: the engines.
            result: the failures of this result only.
            forget: do not open the debugger, but release the frames on these engines.
            take: take over the debuggers of engines that are stopped for another client, whose prompt ends.

        Raises:
            DebuggerUnavailable: if no engine keeps such a failure, or there is no prompt.

        Example:
            >>> rc[:].execute("1 / x", block=True)
            >>> rc.debug()
        """
        activity.debug(self.session, targets, result, forget=forget, take=take)

    def stopped(self) -> dict[int, Stop]:
        """Return, for each engine stopped at a breakpoint, the place, the client with the debugger, and seconds so far.

        Engines reply immediately, however busy they are, unless C code holds their interpreter.
        """
        return activity.stops_of(self.session)

    def shutdown(
        self, targets: Targets = "all", restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> None:
        """Stop engines gracefully, whatever they are doing: their code is interrupted, and files are closed.

        An engine that takes longer than the cluster's ``stop_grace`` is killed, and named.

        Args:
            targets: the engines.
            restart: start new processes under the engines' ids, with empty namespaces.
            hub: close this client too.
            block: not used; kept for scripts written for ipyparallel.
        """
        arg.check("shutdown", restart=arg.flag(restart), hub=arg.flag(hub), block=arg.flag(block, or_none=True))
        ids = self.session.resolve(targets)
        if restart:
            self.session.restart(ids, recovers=False)
        else:
            self.session.controller.stop_engines(ids)
        if hub:
            self.close()

    def recover(self, targets: Targets = "all") -> None:
        """Kill engines, even if they are stuck, and restart them as if they had died.

        The cluster's option ``recovery`` decides about their namespaces. Calls that were running are not repeated.
        """
        self.session.restart(self.session.resolve(targets), recovers=True)

    @property
    def recoveries(self) -> Table[RecoveryReport]:
        """The reports on namespaces that were recovered since this client began, oldest first.

        The last report of each engine is always kept; older ones are dropped when all reports together list more than
        2,500 names.
        """
        return recovery_table(self.session.recovery_reports())

    @property
    def outstanding(self) -> set[str]:
        """Message ids of the calls and tasks of this client that have not ended."""
        self.session.check()
        return {str(call.request_id) for call in self._requests.unfinished("outstanding", None)[0]}

    def activate(self, targets: Targets = "all", suffix: str = "") -> DirectView:
        """Let ``%px<suffix>`` and the other magics run on engines; see ``DirectView.activate``.

        Returns:
            The view on which the magics run, which waits for its calls.
        """
        arg.check("activate", suffix=arg.text(suffix))
        view = self.direct_view(targets, block=True)
        view.activate(suffix)
        return view

    def close(self) -> None:
        """Leave the cluster, and report unretrieved errors; the engines go on."""
        if self._finalizer.alive:
            self._finalizer()
        else:
            self.session.close()  # an earlier call may have been interrupted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.session.closed else f"engines {list(self.session.directory.ids)}"
        return printable(f"<Client {self.name}: {state}>", "")

    def __rich__(self) -> Any:
        """Return a table of the engines."""
        return engine_table(self.session)

    def _repr_html_(self) -> str:
        return table_as_html(engine_table(self.session))

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for results (None: for every call of this client); return whether they have arrived.

        Ctrl-C during the wait interrupts the calls that run, as in ``AsyncResult.wait``; if one of them is a detached
        task, Ctrl-C only ends the wait.

        Args:
            jobs: results or message ids, also of other clients.
            timeout: seconds; None or negative for no limit.

        Raises:
            InvalidArgument: if ``jobs`` is something else.
            ResultUnavailable: if there is no request with such an id.
        """
        arg.check("wait", timeout=arg.seconds(timeout, negative=True))
        calls, others = self._requests.unfinished("wait", jobs)
        if others:
            calls += self.get_result(others).calls
        goes_on = any(is_detached(str(call.request_id)) for call in calls)
        owner = self.schedulers.detached if goes_on else self.session
        return bool(AsyncResult(owner, calls, label="wait").wait(timeout))

    def _command(self, targets: Targets, number: int) -> list[int]:
        ids = self.session.resolve(targets)
        require(self.session.transport, Capability.SIGNALS, "interrupt or signal an engine")
        return self.session.controller.command(ids, Interrupt() if number == signal.SIGINT else Signal(number))

    def __getitem__(self, key: Any) -> Any:
        """Return a view of engines; for a name, its values on all engines."""
        if isinstance(key, str) and key != "all":
            return self.direct_view("all").pull(key, block=True)
        return self.direct_view(key)

    def __setitem__(self, name: str, value: Any) -> None:
        """Bind a name on all engines."""
        if not isinstance(name, str):
            raise WrongType("rc[name] = value", "name", name, "text, which is bound on all engines")
        self.push_all({name: value})

    def push_all(self, names: dict[str, Any], *, copy: bool | None = None) -> None:
        """Bind names on all engines, as ``DirectView.push`` does; return when the names are bound."""
        arg.check(
            "push_all",
            names=arg.mapping(names, "a dictionary of names and values"),
            copy=arg.flag(copy, or_none=True),
        )
        self.direct_view("all").push(names, block=True, copy=copy)

    def pull_all(self, names: str | Iterable[str], *, copy: bool | None = None) -> list[Any]:
        """Return the values of a name (or of several) on all engines, as ``DirectView.pull`` does."""
        values: list[Any] = self.direct_view("all").pull(names, block=True, copy=copy)
        return values

    def scatter_all(self, name: str, seq: Any, **options: Any) -> None:
        """Split ``seq`` over all engines under ``name``; the options are those of ``DirectView.scatter``."""
        arg.check("scatter_all", name=arg.text(name))
        self.direct_view("all").scatter(name, seq, block=True, **options)

    def gather_all(self, name: str, **options: Any) -> Any:
        """Join the parts that all engines hold under ``name``; the options are those of ``DirectView.gather``."""
        arg.check("gather_all", name=arg.text(name))
        return self.direct_view("all").gather(name, block=True, **options)

    def map_all(self, function: Callable[..., Any], *sequences: Any, **options: Any) -> list[Any]:
        """Return ``list(map(function, *sequences))``, computed by all engines; for options see ``DirectView.map``."""
        return self.direct_view("all").map_sync(function, *sequences, **options)

    def execute_all(self, code: str) -> AsyncResult:
        """Run a cell on all engines; return when the cell has ended."""
        result: AsyncResult = self.direct_view("all").execute(code, silent=False, block=True)
        return result

    def clear(self, targets: Targets = "all", block: bool | None = None) -> Any:
        """Empty the namespaces of engines."""
        return self.direct_view("all").clear(targets=targets, block=block)

    def history(
        self,
        *,
        client: str | None = None,
        engine: int | None = None,
        last: int | None = None,
        label: str | None = None,
        state: str | None = None,
        since: datetime | float | None = None,
        until: datetime | float | None = None,
    ) -> Table[HistoryEntry]:
        """Return the history of requests: client, engine, times and outcome; of all clients unless one is named.

        Requests that run and those that wait come last, with outcome ``running`` and ``queued``. Engines report in
        rounds of half a second, clients report requests that wait for longer than a quarter of a second, and the last
        10,000 requests are kept. The value is a list that is shown as a table; ``history().to_pandas()`` returns a data
        frame.

        Short tasks of load-balanced views are sent together, as one request with the label of the first task:
        ``"10 tasks: LABEL ..."``. The outcome of a request of tasks is ``ok`` even if tasks have failed. :meth:`tasks`
        lists the tasks that have not ended one by one, and results have the outcome of each task.

        Args:
            client: a client's name, with or without its unique part.
            engine: the id of an engine.
            last: the number of entries, the latest ones.
            label: the label of views, maps and cells, or a pattern of labels: ``"sweep-*"``. Requests of several tasks
                match by the label above.
            state: ``"queued"``, ``"running"``, ``"ok"`` or ``"failed"``.
            since: return requests that had not ended at this time; a time without a zone is local.
            until: return requests that had begun at this time.

        Example:
            >>> rc.history(label="sweep-*", state="failed", since=datetime.now() - timedelta(hours=1))
        """
        arg.check(
            "history",
            client=arg.text(client, or_none=True),
            engine=arg.whole(engine, at_least=0, or_none=True),
            last=arg.whole(last, at_least=0, or_none=True),
            label=arg.text(label, or_none=True),
            state=arg.choice(state, STATES, or_none=True),
            since=arg.moment(since, or_none=True),
            until=arg.moment(until, or_none=True),
        )
        self.session.check()
        times = [None if moment is None else arg.moment_s(moment) for moment in (since, until)]
        if label is None and state is None and since is None and until is None:
            return history_table(self.session.controller.history(client, engine, last))
        entries = self.session.controller.history(client, engine, None)
        found = select_requests(entries, label=label, state=state, since_s=times[0], until_s=times[1])
        return history_table(found if last is None else found[len(found) - min(last, len(found)) :])

    def clients(self) -> list[str]:
        """Return the names of the attached clients; one whose process has died is removed after two seconds."""
        self.session.check()
        return self.session.controller.clients()

    def get_result(self, jobs: Any = -1, block: bool = False) -> AsyncResult:
        """Return the result of requests of any client, in any process.

        The result is like that of this client's requests: pending until the requests have ended, with their value or
        error and all their output, which arrives live. Engines keep their last 4,000 replies, up to 16 MB. They keep a
        value of more than 2 MB only if its client had gone, or had called :meth:`flush` after the request.

        Args:
            jobs: a message id, the name of a client (for all its requests in the history), a position in
                :meth:`history`, one of its entries, a result, or several of these; the default is the last request.
                Name detached tasks by message ids, results or entries of ``tasks()``, and in a call of their own.
            block: wait for the result.

        Raises:
            ResultUnavailable: if there is no such request in the history. The result raises it if the reply is not kept
                any more, was never kept, or the request never began; the message says which.
            EngineLost: raised by the result, if the engine died.
        """
        jobs = list(jobs) if isinstance(jobs, Iterator) else jobs
        check_jobs("get_result", jobs)
        arg.check("get_result", block=arg.flag(block))
        self.session.check()
        if detached := detached_ids(jobs):
            single = isinstance(jobs, str | TaskStatus | RequestId)
            result = self._requests.result_of_tasks(detached, single=single)
        else:
            result = self._requests.result(self._requests.find(jobs), single=names_one(jobs))
        if block:
            result.get()
        return result

    def resume(self, jobs: Any = None, timeout: float | None = None) -> AsyncResult:
        """Show the output of requests from its beginning, then show further output live until the requests have ended.

        This is for a restarted kernel or a broken connection. Text, images and progress are drawn again here.
        Ctrl-C ends the display, not the work.

        Args:
            jobs: see :meth:`get_result`. The default is the unfinished requests of the client that left last; for
                engines without such a request, it is the last request that this departed client ran on them.
            timeout: seconds for which to show the output; None for all of it.

        Returns:
            The result of the requests.

        Raises:
            ResultUnavailable: if there is no such request.
        """
        from nsactors.results.display.live import LiveOutput, open_screen

        jobs = list(jobs) if isinstance(jobs, Iterator) else jobs
        if jobs is not None:
            check_jobs("resume", jobs)
        arg.check("resume", timeout=arg.seconds(timeout))
        self.session.check()
        chosen = left_behind(self.history(), self.clients()) if jobs is None else self._requests.find(jobs)
        result = self._requests.result(chosen, single=False)
        live = LiveOutput(
            result.calls, open_screen(blocking=True), label=label_of(chosen), progress_after_s=0.5, again=True
        )
        live.wait(timeout)
        live.let_go()
        return result

    def flush(self, timeout: float = FLUSH_S) -> None:
        """Return when all requests so far are *accepted*: they run and get a reply even if this process ends.

        A request is accepted when it is in its engine's queue and in the cluster's history, and its engine will keep
        the reply for other clients however large it is. Arguments of more than 64 kB stay in this process's part of the
        object store: if this process ends, calls with such arguments that have not begun never run, and
        :meth:`get_result` reports this.

        Without ``flush``, a request is in its engine's queue some milliseconds later, and in the history after a
        quarter of a second.

        Args:
            timeout: seconds. If more than a thousand calls to one engine are open, the rest wait in this process for
                their turn, and this method waits for them.

        Raises:
            TimeoutError: if the requests have not been accepted in time.
        """
        arg.check("flush", timeout=arg.seconds(timeout, or_none=False))
        self.session.check()
        self.session.flush(timeout)

    def activity(self) -> ClusterActivity:
        """Return the state that :meth:`watch` shows, as values, but without the cores in use, which need two looks."""
        self.session.check()
        return Observer(self.session.controller).look()

    def watch(self, timeout: float | None = None) -> None:
        """Show the activity of the cluster live: engines, the requests they run, and their clients.

        At a terminal, this lasts until q or Ctrl-C. In a notebook, the cell ends immediately, and the table under it is
        kept up to date until the client is closed or this is called again. Where output goes to a file or a pipe,
        changes are printed line by line.

        Args:
            timeout: seconds; None for no limit, 0 to show the activity once.
        """
        arg.check("watch", timeout=arg.seconds(timeout))
        self.session.check()
        watch(self.session.controller, timeout, ended=self.session.new_watch())

    def load_balanced_view(self, targets: Targets = None, **flags: Any) -> LoadBalancedView:
        """Return a view that runs each call on an engine that is free.

        Args:
            targets: the engines; None and ``"all"`` stand for all engines, including those that join later. Other
                targets are resolved now.
            flags: flags of the view; see :class:`nsactors.views.flags.TaskFlags`.

        Raises:
            TargetError: if ``targets`` names no engines of this cluster.
            UnknownFlag: if a flag does not exist.

        Example:
            >>> lview = rc.load_balanced_view()
            >>> lview.map_sync(lambda x: x**2, range(5))
            [0, 1, 4, 9, 16]
        """
        from nsactors.views.load_balanced import LoadBalancedView

        if targets is None or (isinstance(targets, str) and targets == "all"):
            self.session.check()
            return LoadBalancedView(self, "all", **flags)
        return LoadBalancedView(self, self.session.resolve(targets), **flags)

    def executor(self, targets: Targets = None) -> ViewExecutor:
        """Return a ``concurrent.futures.Executor`` that runs its calls on a load-balanced view of these engines.

        Example:
            >>> with rc.executor() as executor:
            ...     executor.submit(pow, 2, 5).result()
            32
        """
        return self.load_balanced_view(targets).executor

    def tasks(self, *, label: str | None = None, state: str | None = None) -> Table[TaskStatus]:
        """Return the tasks of this client that have not ended, and the detached tasks of all clients.

        Both are in the order of submission. Detached tasks are listed for as long as their results are kept. The value
        is a list that is shown as a table.

        Args:
            label: the label of views, maps and calls, or a pattern of labels: ``"sweep-*"``.
            state: ``"queued"``, ``"running"`` (an engine has some of it), ``"ok"`` or ``"failed"``; the last two are
                states of detached tasks alone.

        Example:
            >>> rc.tasks(label="sweep-*", state="queued")
        """
        arg.check("tasks", label=arg.text(label, or_none=True), state=arg.choice(state, STATES, or_none=True))
        statuses = [*self.schedulers.own.statuses(), *self.schedulers.detached.statuses()]
        return task_table(select_tasks(statuses, label=label, state=state))

    def queue_status(self, targets: Targets = "all", verbose: bool = False) -> dict[Any, Any]:
        """Return the work of each engine.

        This returns immediately, however busy the engines are: the client and the controller know all of the work.

        Args:
            targets: the engines.
            verbose: give lists of calls in place of numbers.

        Returns:
            For each id ``queue`` (calls of this client without a reply), ``completed`` (calls of all clients),
            ``tasks`` (tasks of this client's load-balanced views, and detached tasks of all clients, counted in items),
            ``running`` (the code that the engine runs, if it has been reported) and ``waits`` (calls to services that
            this code waits for, such as ``"recv from 2 tag 5 for 12 s"``); and under ``"unassigned"`` the number of
            tasks without an engine.
        """
        arg.check("queue_status", verbose=arg.flag(verbose))
        ids = self.session.resolve(targets)
        waits = waits_by_engine(self.session.services.waiting())
        open_tasks = [task for task in self.tasks() if task.ended is None] if verbose else None
        return queue_status(self.session, ids, waits, open_tasks)

    def host(self, machine: StateMachine, name: str | None = None) -> Service:
        """Host a state machine in the cluster; return the service through which engines and clients call it.

        The models of parallel computing are built on this: mailboxes, barriers and tuple spaces are such machines. The
        machine keeps its state until the service is closed, the cluster ends, or its process on the head node dies.

        Args:
            machine: the state machine; it is copied.
            name: if there is a service of this name, return that service, and do not use ``machine``.

        Raises:
            SerializationError: if the machine cannot be pickled.

        Example:
            >>> service = rc.host(Mailboxes(4))
            >>> rc[:].push({"mail": service})
        """
        arg.check(
            "host",
            machine=arg.instance(machine, StateMachine, "a state machine"),
            name=arg.text(name, or_none=True),
        )
        self.session.check()
        return self.session.services.host(machine, name)


def _close(session: Session, end_prompt_reports: Callable[[], None], report: Callable[[str], object]) -> None:
    if not session.is_here:  # in a forked child, at its end or when it collects its garbage
        return
    end_prompt_reports()
    try:
        session.close()
    finally:  # also after Ctrl-C
        if text := session.unretrieved.report(at_exit=True):
            report(text)
