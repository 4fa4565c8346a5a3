"""The base of views: client, targets and flags."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from nsactors._frozen import frozen
from nsactors.errors import NsactorsError, UnknownFlag, WrongType, suggest_name, warn_caller
from nsactors.inside.profiles import HOWS, Profile, Profiled
from nsactors.protocol import arguments as arg
from nsactors.protocol.serialize import Naming, Payload, pack
from nsactors.protocol.targets import Targets
from nsactors.results import OUTPUTS, AsyncMapResult
from nsactors.services.service import Service
from nsactors.services.state_machine import StateMachine
from nsactors.session.carried_data import CarriedData
from nsactors.session.memory import ClusterMemory
from nsactors.session.session import Session
from nsactors.tasks.detached_client import TaskSchedulers

if TYPE_CHECKING:
    from nsactors.views.executor import ViewExecutor


def _check_policy(value: object) -> arg.Unfit | None:
    decides = any(callable(getattr(type(value), method, None)) for method in ("priority", "choose_engine"))
    return (
        None
        if value is None or decides
        else arg.Unfit(value, "an object with a method priority() or choose_engine(), or None", WrongType)
    )


# The check of each flag's value; targets, labels, resources and dependencies need more, and are checked by the view.
_TAKES: dict[str, Callable[[Any], arg.Unfit | None]] = {
    "block": arg.flag,
    "label": partial(arg.text, or_none=True),
    "copy": arg.flag,
    "timeout": arg.seconds,
    "stop_on_error": arg.flag,
    "journal": arg.flag,
    "breakpoints": arg.flag,
    "track": arg.flag,
    "retries": partial(arg.whole, at_least=0),
    "max_losses": partial(arg.whole, at_least=0, or_none=True),
    "time_limit": arg.seconds,
    "priority": arg.number,
    "policy": _check_policy,
    "detached": arg.flag,
    "output": partial(arg.choice, choices=OUTPUTS, or_none=True),
}


class _Changeable:
    """The base of dataclasses of flags."""

    __slots__ = ()

    def changed(self, call: str = "set_flags", /, **changes: Any) -> Self:
        """Return these flags with some changed.

        Args:
            call: the name of the function that the flags are given to.
            changes: the flags.

        Raises:
            UnknownFlag: if a flag does not exist; nothing is changed then.
            InvalidArgument: if a flag cannot have the given value.
        """
        known = [field.name for field in fields(self)]  # type: ignore[arg-type]
        for name in changes:
            if name not in known:
                raise UnknownFlag(name, known)
        checked = changes.keys() & _TAKES.keys()
        arg.check(call, **{name: _TAKES[name](changes[name]) for name in changes if name in checked})
        changes |= {name: arg.plain(changes[name]) for name in checked}
        return replace(self, **changes)  # type: ignore[type-var]


@frozen
class Flags(_Changeable):
    """The flags of a view.

    Attributes:
        targets: the engines: an id, a list of ids, or ``"all"``.
        block: whether calls wait for their result and return it.
        label: the name of this view's calls in the history, in place of the name of their function.
        copy: whether arrays of any size arrive, on engines and at the client, as copies that can be written to;
            otherwise, arrays of more than 1 MiB are read-only views of shared memory, one copy for all engines of a
            machine.
        timeout: seconds after which a call is interrupted and fails with ``TimeLimitExceeded``; None: never.
        stop_on_error: whether a call that fails on an engine stops the calls of this client that are queued behind it
            there; they do not run, and their results are ``TaskAborted``.
        journal: whether a recovery of an engine's namespace runs these calls again; False for calls that have effects
            elsewhere.
        breakpoints: whether the engines stop at breakpoints in these calls, for the debugger; False to ignore them.
        output: ``"show"``: the output of calls appears while they are waited for; ``"keep"``: it is only in their
            results; None: the choice of ``Client.output`` applies, which is ``"show"`` at first.
        track: has no effect; kept for scripts written for ipyparallel. Arguments are copied before a call returns.
    """

    targets: Targets = "all"
    block: bool = False
    label: str | None = None
    copy: bool = False
    timeout: float | None = None
    stop_on_error: bool = False
    journal: bool = True
    breakpoints: bool = True
    output: str | None = None
    track: bool = False


@frozen
class TaskFlags(_Changeable):
    """The flags of a load-balanced view.

    A task fails with ``ImpossibleDependency`` at once if no engine suits it, not even one that is being started.

    Attributes:
        targets: the engines that its tasks may run on: a list of ids, or ``"all"`` for all engines at any time.
        labels: the labels that an engine must have for its tasks, such as ``{"zone": "b"}``, ``{"zone": "!b"}`` or
            ``{"zone": "in(b, c)"}``; an engine has the labels that it was started with, and those of its machine.
        resources: the resources that an engine must have been started with, at least, for its tasks, such as
            ``{"GPU": 1}``. A task has its engine to itself, so nothing is counted down.
        block: whether calls wait for their result and return it.
        label: the name of its tasks, in place of the name of their function.
        copy: as for other views.
        after: tasks that must have ended before: a result, a ``msg_id``, a list of these, or a ``Dependency``.
        follow: tasks that must have ended before, given as for ``after``; only engines that ran them are used then.
        retries: the number of times that a failed task is tried again, on other engines as long as there are any.
        max_losses: the number of engines that may die while they have the task; the default, None, means five. When the
            next one dies, the task fails with ``TaskLost``. If an engine dies while it has several short tasks, the
            death counts for each of them, but none fails: each runs alone next, so that the cause can be found.
        timeout: seconds within which an engine must take a task after its submission; otherwise, the task fails with
            ``TaskTimeout``.
        time_limit: seconds after which a running task is interrupted, and fails with ``TimeLimitExceeded``; in a map,
            the limit is for each item.
        priority: tasks of higher priority go first; those of equal priority go in the order of submission.
        policy: an object that decides, in place of ``priority``, which task goes first and which engine takes it; it is
            pickled. See :class:`nsactors.SchedulingPolicy`.
        detached: whether tasks outlive the client: a process of the cluster schedules them and stores their results,
            which any client gets by ``rc.get_result(msg_id)``. A call returns when that process has stored its tasks.
        output: as for other views; but executors and joblib show output only if this is ``"show"``.
        track: has no effect; kept for scripts written for ipyparallel.
    """

    targets: Targets = "all"
    labels: Mapping[str, str] | None = None
    resources: Mapping[str, float] | None = None
    block: bool = False
    label: str | None = None
    copy: bool = False
    after: Any = None
    follow: Any = None
    retries: int = 0
    max_losses: int | None = None
    timeout: float | None = None
    time_limit: float | None = None
    priority: float = 0
    policy: Any = None
    detached: bool = False
    output: str | None = None
    track: bool = False


class ViewClient(Protocol):
    """The part of a client that its views use: its session, its schedulers, and the methods that views have too."""

    block: bool
    carried_data: CarriedData

    @property
    def session(self) -> Session:
        """The connection to the cluster."""
        ...

    @property
    def schedulers(self) -> TaskSchedulers:
        """The schedulers of its tasks."""
        ...

    def wait(self, jobs: Any, timeout: float | None) -> bool:
        """See ``Client.wait``."""
        ...

    def queue_status(self, targets: Targets, verbose: bool) -> dict[Any, Any]:
        """See ``Client.queue_status``."""
        ...

    def shutdown(self, targets: Targets) -> None:
        """See ``Client.shutdown``."""
        ...

    def abort(self, jobs: Any, targets: Targets, block: bool | None) -> None:
        """See ``Client.abort``."""
        ...

    def interrupt(self, targets: Targets) -> list[int]:
        """See ``Client.interrupt``."""
        ...

    def memory(self, targets: Targets, *, top: int) -> ClusterMemory:
        """See ``Client.memory``."""
        ...

    def executor(self, targets: Targets) -> ViewExecutor:
        """See ``Client.executor``."""
        ...

    def load_balanced_view(self, targets: Targets = None) -> Any:
        """See ``Client.load_balanced_view``."""
        ...

    def host(self, machine: StateMachine, name: str | None = None) -> Service:
        """See ``Client.host``."""
        ...


def check_client(value: object) -> arg.Unfit | None:
    """Return why a value cannot be a view's client, for ``arg.check``; None if it can."""
    # A client is recognised by its session. This module cannot import the class Client, whose module imports views.
    return None if isinstance(getattr(value, "session", None), Session) else arg.Unfit(value, "a Client", WrongType)


F = TypeVar("F", Flags, TaskFlags)


class EngineView(Generic[F]):
    """Some engines of a client, and the flags of calls to them.

    Args:
        client: the client of the cluster.
        flags: the flags of its calls.
    """

    _why_unsendable = "a view stays with its client: make a client on the engine, by Client(cluster.connection_info())"

    def __init__(self, client: ViewClient, flags: F) -> None:
        self.client: Any = client  # for users, whose clients have more than the protocol says
        self._client = client
        self._session = client.session
        self._flags: F = flags

    if not TYPE_CHECKING:
        __getattr__ = suggest_name

    @property
    def targets(self) -> Targets:
        """The engines: an id, a list of ids, or ``"all"``."""
        targets: Targets = self._flags.targets
        return targets

    @targets.setter
    def targets(self, targets: Targets) -> None:
        self.set_flags(targets=targets)

    @property
    def block(self) -> bool:
        """True if calls wait for their result and return it."""
        return bool(self._flags.block)

    @block.setter
    def block(self, block: bool) -> None:
        self.set_flags(block=block)

    @property
    def output(self) -> str | None:
        """The choice for the output of calls: ``"show"``, ``"keep"``, or None for the choice of the client."""
        return self._flags.output

    @output.setter
    def output(self, output: str | None) -> None:
        self.set_flags(output=output)

    def set_flags(self, **flags: Any) -> Self:
        """Change flags and return the view itself.

        Raises:
            UnknownFlag: if a flag does not exist; nothing is changed then.
            TargetError: if ``targets`` names no engines of this cluster.
        """
        changed = self._changed("set_flags", flags)
        self._session.resolve(changed.targets)
        self._flags = changed
        return self

    def with_flags(self, **flags: Any) -> Self:
        """Return another view of the same engines, with some flags changed; errors as for :meth:`set_flags`."""
        return copy.copy(self).set_flags(**flags)

    @contextmanager
    def temp_flags(self, **flags: Any) -> Iterator[Self]:
        """Change flags within a ``with`` block; errors as for :meth:`set_flags`."""
        before = self._flags
        self.set_flags(**flags)
        try:
            yield self
        finally:
            self._flags = before

    map: Callable[..., Any]
    apply: Callable[..., Any]

    def map_async(self, function: Callable[..., Any], *sequences: Iterable[Any], **options: Any) -> AsyncMapResult:
        """Like :meth:`map`, but return the result at once."""
        result: AsyncMapResult = self.map(function, *sequences, block=False, **options)
        return result

    def map_sync(self, function: Callable[..., Any], *sequences: Iterable[Any], **options: Any) -> list[Any]:
        """Like :meth:`map`, but wait for the list."""
        values: list[Any] = self.map(function, *sequences, block=True, **options)
        return values

    def profiled(self, *, how: str = "sample", interval: float = 0.01) -> Profiled:
        """Measure where the engines spend their time within a ``with`` block, whose value is a ``Profile``.

        The profile includes all requests of this client on the engines: cells, calls, maps, and tasks that are not
        detached.

        Args:
            how: ``"sample"``: look at the running code now and then, which takes little time. ``"calls"``: count and
                time every function call in requests that begin within the block; code with many short calls takes
                several times as long. ``"memory"``: find with memray which allocations of requests are alive at the
                peak of each engine's memory; this needs ``pip install nsactors[memory]`` where the engines are.
            interval: seconds between two samples.

        Example:
            >>> with rc[:].profiled() as profile:
            ...     rc[:].map_sync(simulate, range(100))
            >>> profile
        """
        arg.check("profiled", how=arg.choice(how, HOWS), interval=arg.number(interval, above=0))
        session = self._session
        return Profiled(session, session.name, self._resolve(None), how, float(arg.plain(interval)))

    def profile(
        self, function: Callable[..., Any], /, *args: Any, how: str = "sample", interval: float = 0.01, **kwargs: Any
    ) -> Profile:
        """Call a function on the engines, and return a profile; the function's value is ``profile.value``.

        Args:
            function: the function.
            args: its arguments.
            how: see :meth:`profiled`.
            interval: seconds between two samples.
            kwargs: the function's arguments by name.
        """
        arg.check("profile", function=arg.function(function))
        with self.profiled(how=how, interval=interval) as profile:
            value = self.with_flags(block=True).apply(function, *args, **kwargs)
        profile.value = value
        return profile

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for results; see ``Client.wait``."""
        return self._client.wait(jobs, timeout)

    def queue_status(self, targets: Targets = None, verbose: bool = False) -> dict[Any, Any]:
        """Return the work of each engine; see ``Client.queue_status``."""
        return self._client.queue_status(self._resolve(targets), verbose)

    def shutdown(self, targets: Targets = None) -> None:
        """End the engines; see ``Client.shutdown``."""
        self._client.shutdown(self._resolve(targets))

    def __len__(self) -> int:
        return len(self._resolve(None))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.targets}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Print the engines and their work at IPython's prompt."""
        from nsactors.session.engine_directory import engines_in_words

        printer.text(f"<{type(self).__name__}: {engines_in_words(self._session, self._engines_now())}>")

    def __rich__(self) -> Any:
        """Return a table of the engines."""
        from nsactors.session.engine_directory import engine_table

        return engine_table(self._session, type(self).__name__, self._engines_now())

    def _repr_html_(self) -> str:
        from nsactors.results.display.tables import table_as_html

        return table_as_html(self.__rich__())

    def _changed(self, call: str, flags: dict[str, Any]) -> F:
        """Return this view's flags, changed by the flags given to a call; errors as for :meth:`set_flags`."""
        changed = self._flags.changed(call, **flags)
        if "targets" in flags:
            self._session.resolve(changed.targets)
        return changed

    def _engines_now(self) -> list[int]:
        """Return the engines to show: none if there is no cluster any more, or the targets have left it."""
        try:
            return self._resolve(None)
        except NsactorsError:
            return []

    def _pack(self, value: Any, what: str | Naming) -> Payload:
        return pack(value, what=what, ref_types=self._session.ref_types)

    def _warn_of_data(self, payload: Payload, function: Any, args: Any = (), kwargs: Any = None) -> None:
        for warning in self._client.carried_data.notice(payload, function, args, kwargs):
            warn_caller(warning)

    def _copies(self, copy: bool | None) -> bool:
        return self._flags.copy if copy is None else copy

    def _blocks(self, block: bool | None) -> bool:
        return self._flags.block if block is None else block

    def _resolve(self, targets: Targets) -> list[int]:
        return self._session.resolve(self._flags.targets if targets is None else targets)
