"""The load-balanced view: calls run on engines that are free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any, Self

from nsactors._frozen import frozen
from nsactors.errors import NoEngines
from nsactors.protocol import arguments as arg
from nsactors.protocol.messages import Capability, Reference
from nsactors.protocol.partition import Block, Kind, cut, length_of
from nsactors.protocol.partition import kind_of as kind_of_sequence
from nsactors.protocol.process import imported
from nsactors.protocol.serialize import Payload, pack, pack_call, pack_small
from nsactors.protocol.targets import Targets
from nsactors.protocol.wire import INLINE_LIMIT_BYTES
from nsactors.results import AsyncResult, BalancedMapResult, Call, MapCall, TaskCall
from nsactors.tasks.messages import ANYWHERE, Needs, Task, TaskDependency
from nsactors.tasks.results import MapFunction, TaskSpec
from nsactors.tasks.scheduler import SchedulerClient, TaskPlan
from nsactors.views.base import EngineView
from nsactors.views.decorators import BalancedFunction, RemoteFunction
from nsactors.views.dependencies import Dependency, dependency_of
from nsactors.views.executor import ViewExecutor
from nsactors.views.flags import TaskFlags
from nsactors.views.lazy_map import LazyMapOptions, LazyMapResult, check_lazy_map, lazy_map
from nsactors.views.map_parts import MappedFunction, columns_of, mapped, name_of, rows_of
from nsactors.views.view_client import ViewClient, check_client

if TYPE_CHECKING:
    from nsactors.protocol.map_functions import Seed

_SLICEABLE = frozenset({range, list, tuple, str, bytes, bytearray})


@frozen
class MapCallChunk:
    """A chunk of a lazy map, as a task."""

    call: MapCall

    @property
    def length(self) -> int:
        """The number of its items."""
        return self.call.size

    @property
    def seconds(self) -> float | None:
        """The time that its items took together."""
        return sum(
            p.completed - p.started for p in self.call.pieces if p.started is not None and p.completed is not None
        )

    def results(self, return_exceptions: bool) -> Iterator[Any]:
        """Yield the results up to the first error, if there is one, and then raise it."""
        call, given = self.call, 0
        for piece in sorted(call.pieces, key=lambda piece: piece.start):
            if piece.start > given:
                break
            if piece.error is not None and not return_exceptions:
                raise piece.error
            yield from piece.values
            given = piece.stop
        if call.left and call.error is not None:  # the client was closed
            raise call.error


class LoadBalancedView(EngineView[TaskFlags]):
    """Engines that share the work; each call of the view runs on one of them.

    Calls are *tasks*. They are sent to engines that are free, many small tasks in one message. If an engine dies, its
    tasks are sent to another engine. Tasks see the names on their engine, but cannot rely on names that other tasks
    have bound there.

    Args:
        client: the client of the cluster.
        targets: a list of ids, or ``"all"`` for all engines, including those that join later.
        flags: see :class:`nsactors.views.flags.TaskFlags`.

    Example:
        >>> lview = rc.load_balanced_view()
        >>> lview.map_sync(lambda x: x**2, range(5))
        [0, 1, 4, 9, 16]
    """

    def __init__(self, client: ViewClient, targets: Targets = "all", **flags: Any) -> None:
        arg.check("LoadBalancedView", client=check_client(client))
        super().__init__(client, TaskFlags(block=client.block))
        self._latest: tuple[TaskFlags | None, Task] = None, Task(0)
        self._executor: ViewExecutor | None = None
        self.set_flags(targets=targets, **flags)

    def set_flags(self, **flags: Any) -> Self:
        """Change flags and return the view itself.

        Raises:
            UnknownFlag: if a flag does not exist; nothing is changed then.
            TargetError: if ``targets`` names no engines of this cluster.
            InvalidDependency: if ``after`` or ``follow`` names anything else than tasks of this client; for detached
                tasks, anything else than detached tasks.
            CapabilityError: if there is a time limit and engines cannot be interrupted.
            InvalidArgument: if another flag cannot have the given value.
        """
        self._flags = self._flags_with("set_flags", flags)
        return self

    def apply(self, function: Callable[..., Any] | Reference, /, *args: Any, **kwargs: Any) -> Any:
        """Call ``function(*args, **kwargs)`` on an engine; every keyword goes to the function.

        Functions, references and remote values are treated as ``DirectView.apply`` treats them.

        Returns:
            An :class:`AsyncResult` of one value, or the value if the view blocks.

        Raises:
            SerializationError: if function or arguments cannot be pickled; nothing has been sent then.
            NoEngines: if there is no engine, and none is starting.
        """
        result = self.apply_async(function, *args, **kwargs)
        return result.get() if self._flags.block else result

    def apply_async(self, function: Callable[..., Any] | Reference, /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Like :meth:`apply`, but return the result without waiting."""
        plan = self.task_of(function, args, kwargs)
        result = AsyncResult(plan.scheduler, [plan.spec.call], label=plan.spec.call.label, single=True)
        plan.submit()
        return result

    def task_of(
        self, function: Callable[..., Any] | Reference, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> TaskPlan:
        """Plan the task of a call, for callers with results of another kind; raise the errors of :meth:`apply`."""
        arg.check("apply", function=arg.function(function))
        flags, name = self._flags, name_of(function)
        payload = pack_call(function, args, kwargs, name=name, ref_types=self._session.ref_types)
        self._warn_of_data(payload, function, args, kwargs)
        return self._plan(flags, flags.label or f"apply({name})", kind_of(function), flags.copy, payload)

    def apply_sync(self, function: Callable[..., Any] | Reference, /, *args: Any, **kwargs: Any) -> Any:
        """Like :meth:`apply`, but wait for the value."""
        return self.apply_async(function, *args, **kwargs).get()

    def map(
        self,
        function: Callable[..., Any],
        *sequences: Iterable[Any],
        block: bool | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        label: str | None = None,
        copy: bool | None = None,
        kwargs: Mapping[str, Any] | None = None,
        seed: Seed | None = None,
        **keywords: Any,
    ) -> Any:
        """Compute ``list(map(function, *sequences))``, item by item on engines that are free.

        Args:
            function: called with one item of each sequence.
            sequences: at least one; the map ends with the shortest. Ranges and arrays are cut without making lists.
            block: wait for the list.
            chunksize: send items in multiples of this number; by default, the number depends on measured times.
            ordered: whether iteration over the result gives values in the order of the items; otherwise, it gives each
                value when it arrives.
            return_exceptions: put exceptions into the list in place of the values that they prevented.
            label: the name of the map, in place of ``map(function)``.
            copy: let the function and the caller write to the arrays that they get, also to arrays of more than 1 MiB.
                If the items are parts of an array, the size of a single item counts, even if many are sent together.
            kwargs: arguments of ``function`` by name, the same for all items; names of options are allowed.
            seed: give each item random numbers of its own, the same on any number of engines: the numbers of NumPy's
                ``SeedSequence(seed).spawn(n)[i]`` for item i. A function with a parameter ``rng`` gets a generator;
                for another function, ``random``, ``numpy.random`` and torch are seeded during its calls. The seed is a
                whole number or several, a ``SeedSequence``, a ``Generator`` (whose next map has another seed), or True
                for a new seed, which is the result's attribute ``seed``.
            keywords: further arguments like ``kwargs``: names that are no options, and that the function's signature
                accepts.

        Raises:
            TypeError: without sequences.
            UnknownOption: if a keyword is neither an option nor an argument of the function.
            CapabilityError: if there is a seed, engines are threads, and the function has no parameter ``rng``. This
                and ``UnknownOption`` are raised before anything is sent.
            SerializationError: if the function cannot be pickled; nothing has been sent then. An item that cannot be
                pickled fails alone.
            NoEngines: if there is no engine, and none is starting.
        """
        arg.check(
            "map",
            block=arg.flag(block, or_none=True),
            ordered=arg.flag(ordered),
            return_exceptions=arg.flag(return_exceptions),
            copy=arg.flag(copy, or_none=True),
        )
        blocks = self._blocks(block)
        what = mapped(self.map, function, sequences, kwargs, keywords, seed, self._session)
        plan = self._plan_map(what, sequences, chunksize, label, self._copies(copy), keeps=not blocks)
        plan.submit()
        result = BalancedMapResult(
            plan.scheduler,
            plan.map_call,
            label=plan.spec.call.label,
            ordered=ordered,
            return_exceptions=return_exceptions,
            seed=what.seed,
        )
        return result.get() if blocks else result

    def map_of(
        self,
        function: Callable[..., Any],
        sequences: Sequence[Iterable[Any]],
        *,
        chunksize: int | None = None,
        label: str | None = None,
        copies: bool = True,
    ) -> TaskPlan:
        """Plan the task of a map, for callers with results of another kind; raise the errors of :meth:`map`.

        Args:
            function: called with one item of each sequence.
            sequences: at least one.
            chunksize: see :meth:`map`.
            label: the name of the map, in place of ``map(function)``.
            copies: copy sequences, because they may change before their items have been sent.
        """
        arg.check("map", function=arg.function(function), copies=arg.flag(copies))
        what = MappedFunction(function, name_of(function))
        return self._plan_map(what, sequences, chunksize, label, self._flags.copy, keeps=copies)

    def imap(
        self,
        function: Callable[..., Any],
        *iterables: Iterable[Any],
        ordered: bool = True,
        chunksize: int | None = None,
        max_outstanding: int | str | None = None,
        return_exceptions: bool = False,
        label: str | None = None,
        copy: bool | None = None,
        kwargs: Mapping[str, Any] | None = None,
        seed: Seed | None = None,
        **keywords: Any,
    ) -> LazyMapResult:
        """Compute ``map(function, *iterables)``, a few chunks ahead of the loop over the results.

        The map begins immediately. The input may be endless; the caller's thread reads more of it only when results are
        taken. Closing the iterator, or leaving the loop over it, cancels the chunks that have not begun.

        Args:
            function: called with one item of each iterable.
            iterables: at least one; the map ends with the shortest.
            ordered: give results in the order of the items; otherwise, give each result when it arrives.
            chunksize: the size of a chunk; the default is as many items as can be read and computed in about 20 ms.
            max_outstanding: the largest number of chunks that have been read and whose results have not been taken; the
                default, also written ``"auto"``, is four per engine.
            return_exceptions: give exceptions in place of the results that they prevented. Otherwise, the first
                exception is raised after the results of the items before it, and ends the iterator.
            label: the name of the map, in place of ``map(function)``.
            copy: see :meth:`map`, as for ``kwargs``, ``seed`` and other ``keywords``.
            kwargs: arguments of ``function`` by name.
            seed: the seed of the items' random numbers; the iterator's ``seed`` gives the same numbers again.
            keywords: arguments of ``function`` by name.

        Raises:
            TypeError: without iterables.
            UnknownOption: if a keyword is neither an option nor an argument of the function.
            CapabilityError: if there is a seed, engines are threads, and the function has no parameter ``rng``. This
                and ``UnknownOption`` are raised before anything is sent.
            ValueError: if a number is less than 1, or if this view's tasks are detached: these cannot take input from
                this process.
            SerializationError: if the function cannot be pickled; nothing has been sent then.
        """
        arg.check(
            "imap",
            label=arg.text(label, or_none=True),
            copy=arg.flag(copy, or_none=True),
        )
        options = LazyMapOptions(ordered, chunksize, max_outstanding, return_exceptions)
        check_lazy_map(iterables, options)
        flags = self._flags if copy is None else self._flags_with("imap", {"copy": copy})
        if flags.detached:
            raise ValueError("imap() takes its input from this process, so it cannot be detached: use map()")
        what = mapped(self.imap, function, iterables, kwargs, keywords, seed, self._session)
        label = label or self._flags.label or f"map({what.name})"
        map_function, kind = self._map_function(flags, what), kind_of(function)

        sent = 0

        def send(columns: tuple[Sequence[Any], ...], on_their_way: Sequence[Call]) -> MapCallChunk:
            nonlocal sent
            plan = self._plan(flags, label, kind, flags.copy, None, map_function, columns)
            plan.map_call.first, sent = sent, sent + len(columns[0])
            plan.submit()
            return MapCallChunk(plan.map_call)

        return lazy_map(
            self._scheduler_of(flags),
            send,
            lambda: len(self),
            what.iterables(iterables),
            options,
            what.seed,
        )

    def remote(self, block: bool | None = None, **flags: Any) -> Callable[[Callable[..., Any]], RemoteFunction]:
        """Return a decorator: the function runs on one of this view's engines whenever it is called."""
        arg.check("remote", block=arg.flag(block, or_none=True))
        self._flags_with("remote", flags)
        return lambda function: RemoteFunction(self, function, block, flags)

    def parallel(
        self, chunksize: int | None = None, block: bool | None = None, ordered: bool = True, **flags: Any
    ) -> Callable[[Callable[..., Any]], BalancedFunction]:
        """Return a decorator: the function is called with parts of the sequences that are passed, on free engines.

        Args:
            chunksize: the number of items in a part; by default, there is one part per engine.
            block: wait for the joined result.
            ordered: see :meth:`map`; this is for the ``map`` of the decorated function.
            flags: flags of the view, for these calls.
        """
        arg.check(
            "parallel",
            chunksize=arg.whole(chunksize, at_least=1, or_none=True),
            block=arg.flag(block, or_none=True),
            ordered=arg.flag(ordered),
        )
        self._flags_with("parallel", flags)
        return lambda function: BalancedFunction(self, function, chunksize, block, ordered, flags)

    def call_on_parts(
        self, function: Callable[..., Any], sequences: Sequence[Any], chunksize: int | None = None
    ) -> Any:
        """Call ``function`` with parts of ``sequences`` (default: one part per engine), and join the results."""
        arg.check(
            "call_on_parts",
            function=arg.function(function),
            sequences=arg.iterables(sequences) or arg.splittable(*sequences),
            chunksize=arg.whole(chunksize, at_least=1, or_none=True),
        )
        columns = rows_of(sequences)
        size = chunksize or -(-length_of(columns[0]) // max(1, len(self))) or 1
        parts = [parts_of(column, size) for column in columns]
        flags, what = self._flags, MappedFunction(function, name_of(function))
        label, map_function = flags.label or f"parallel({what.name})", self._map_function(flags, what)
        kind, copies = kind_of(function), flags.copy
        plan = self._plan(flags, label, kind, copies, None, map_function, tuple(parts), chunksize=1, joins=True)
        plan.submit()
        result = BalancedMapResult(plan.scheduler, plan.map_call, label=label, partitioner=Block())
        return result.get() if flags.block else result

    def abort(self, jobs: Any = None, targets: Targets = None, block: bool | None = None) -> None:
        """Cancel tasks that have not started; see ``Client.abort``."""
        self._client.abort(jobs, "all" if targets is None else targets, block)

    @property
    def executor(self) -> ViewExecutor:
        """This view as a ``concurrent.futures.Executor``: a new one if the last one was shut down or is broken."""
        executor = self._executor
        if executor is None or executor.view is not self or not executor.usable:  # this view may be a copy
            executor = self._executor = ViewExecutor(self)
        return executor

    def register_joblib_backend(self, name: str = "nsactors", make_default: bool = False) -> None:
        """Let ``joblib.Parallel``, and so scikit-learn, run its loops on this view's engines.

        Args:
            name: the name of this backend in joblib.
            make_default: use this backend if none is named.

        Example:
            >>> lview.register_joblib_backend()
            >>> with joblib.parallel_config(backend="nsactors"):
            ...     joblib.Parallel()(joblib.delayed(abs)(i) for i in range(-3, 0))
            [3, 2, 1]
        """
        arg.check("register_joblib_backend", name=arg.text(name), make_default=arg.flag(make_default))
        from nsactors.views.joblib import register

        register(self, name, make_default=make_default)

    @property
    def task_scheduler(self) -> SchedulerClient:
        """The scheduler of this view's tasks."""
        return self._scheduler_of(self._flags)

    def _scheduler_of(self, flags: TaskFlags) -> SchedulerClient:
        schedulers = self._client.schedulers
        return schedulers.detached if flags.detached else schedulers.own

    def _flags_with(self, call: str, flags: dict[str, Any]) -> TaskFlags:
        for name in ("after", "follow"):
            if name in flags:
                flags = {**flags, name: dependency_of(flags[name], name)}
        if "targets" in flags:
            flags = {**flags, "targets": self._resolved(flags["targets"])}
        new = self._flags.replaced(call, **flags)
        if new.time_limit is not None:
            self._session.require(Capability.SIGNALS, "interrupt a task at its time limit")
        self._template(new)
        return new

    def _resolved(self, targets: Targets) -> Targets:
        if targets is None or (isinstance(targets, str) and targets == "all"):
            self._session.check()
            return "all"
        return self._session.resolve(targets)

    def _template(self, flags: TaskFlags) -> Task:
        """Return the fields that all tasks with these flags have in common."""
        latest, template = self._latest
        if latest is not flags:
            template = Task(
                0,
                needs=needs_of(flags),
                after=self._known("after", flags),
                follow=self._known("follow", flags),
                retries=flags.retries,
                max_losses=flags.max_losses,
                timeout_s=flags.timeout,
                priority=flags.priority,
                policy=None if flags.policy is None else pack_small(flags.policy, "the policy"),
            )
            self._latest = flags, template
        return template

    def _known(self, flag: str, flags: TaskFlags) -> TaskDependency | None:
        dependency: Dependency | None = getattr(flags, flag)
        return dependency.for_scheduler(self._scheduler_of(flags).name, flag) if dependency else None

    def _plan_map(
        self,
        what: MappedFunction,
        sequences: Sequence[Iterable[Any]],
        chunksize: int | None,
        label: str | None,
        copies: bool,
        *,
        keeps: bool,
    ) -> TaskPlan:
        """Plan a map; with ``keeps``, copy sequences, because they may change before their items have been sent."""
        arg.check(
            "map",
            sequences=arg.iterables(sequences),
            chunksize=arg.whole(chunksize, at_least=1, or_none=True),
            label=arg.text(label, or_none=True),
        )
        if not sequences:
            raise TypeError("map() needs at least one sequence")
        columns = columns_of(sequences, kind_in_tasks)
        if keeps:
            columns = [*map(kept_copy, columns)]
        flags, label = self._flags, label or self._flags.label or f"map({what.name})"
        function, kind, columns = self._map_function(flags, what), kind_of(what.given), [*what.columns(columns)]
        return self._plan(flags, label, kind, copies, None, function, tuple(columns), chunksize=arg.plain(chunksize))

    def _map_function(self, flags: TaskFlags, what: MappedFunction) -> MapFunction:
        payload = pack(what.travelling, what=f"the function {what.name}", ref_types=self._session.ref_types)
        if payload.nbytes > INLINE_LIMIT_BYTES:
            self._warn_of_data(payload, what.given, (), what.keywords)
        scheduler = self._scheduler_of(flags)
        return scheduler.map_function(payload, f"map({what.name})", type(what.given).__name__)

    def _plan(
        self,
        flags: TaskFlags,
        label: str,
        kind: tuple[Any, ...],
        copies: bool,
        payload: Payload | None,
        function: MapFunction | None = None,
        columns: tuple[Sequence[Any], ...] = (),
        *,
        chunksize: int | None = None,
        joins: bool = False,
    ) -> TaskPlan:
        """Plan a call, whose function and arguments are in ``payload``, or a map of ``function`` over ``columns``.

        Args:
            flags: the flags of the view.
            label: the name of the task for people.
            kind: see ``Task``.
            copies: give function and caller writable arrays.
            payload: the function and arguments of a call.
            function: the function of a map.
            columns: the columns of a map, all of one length, one for each argument of the function.
            chunksize: see ``Task``.
            joins: whether the values of a map are parts of one sequence.

        Raises:
            NoEngines: if there is no engine, and none is starting.
        """
        directory = self._session.directory
        if not (directory.ids or directory.starting):
            raise NoEngines
        scheduler, template = self._scheduler_of(flags), self._template(flags)
        call: TaskCall
        if function is None:
            call, size = scheduler.new_call(label, copies=copies), 1
        else:
            size = len(columns[0])
            call = scheduler.new_map(label, size, copies=copies, joins=joins)
        call.output_goes = self._session.output_goes(flags.output)
        told = label if template.policy else ""
        number = call.request_id.seq
        task = template._replace(task_id=number, size=size, kind=kind, chunksize=chunksize, label=told)
        spec = TaskSpec(task, call, payload, function, columns, flags.time_limit)
        return TaskPlan(scheduler, spec, (flags.after, flags.follow))


def kind_of(function: Callable[..., Any] | Reference) -> tuple[Any, ...]:
    """Return the kind of a function's tasks; tasks of one kind are expected to take about the same time."""
    code = getattr(function, "__code__", None)
    line = code.co_firstlineno if isinstance(code, CodeType) else None
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", name_of(function))
    # Schedulers use these as keys of dictionaries, so they must be plain strings.
    return module if type(module) is str else None, name if type(name) is str else None, line


def needs_of(flags: TaskFlags) -> Needs:
    """Return the conditions on engines that may run the tasks of a view.

    Raises:
        InvalidArgument: if labels are not text, or resources are not numbers from 0 on.
    """
    targets = flags.targets if isinstance(flags.targets, list) else None
    arg.check(
        "set_flags",
        labels=arg.texts(flags.labels, "names and conditions, such as {'zone': 'b'}", or_none=True),
        resources=arg.amounts(flags.resources, "names and amounts, such as {'GPU': 1}", or_none=True),
    )
    labels, resources = flags.labels or {}, flags.resources or {}
    return ANYWHERE if targets is None and not (labels or resources) else Needs.of(targets, resources, labels)


def kind_in_tasks(sequence: Any) -> Kind | None:
    """Return the kind of a sequence that is cut when engines take its items; None if it must first become a list.

    A scheduler cuts sequences later, on another thread, so a sequence of a user's class is iterated over at the call.
    """
    kind = kind_of_sequence(sequence)
    return kind if type(sequence) in _SLICEABLE or (kind is not None and _is_array(sequence)) else None


def kept_copy(column: Sequence[Any]) -> Sequence[Any]:
    """Return a sequence that its owner cannot change while its items are being sent."""
    if isinstance(column, list):
        return list(column)
    if isinstance(column, bytearray):
        return bytes(column)
    if _is_array(column):
        return _array_copy(column) if _can_change(column) else column
    return column


def _can_change(holder: Any) -> bool:
    """Return whether the memory of an array is writable, either through the array or through an object behind it."""
    while holder is not None:
        if _is_array(holder):
            if holder.flags.writeable:
                return True
            holder = holder.base
            continue
        try:
            view = memoryview(holder)
        except (TypeError, ValueError, BufferError):
            holder = getattr(holder, "base", None)  # NumPy has such holders between sliding windows and their array
            if not _is_array(holder):
                return False
            continue
        if not view.readonly:
            return True
        holder = view.obj if view.obj is not holder else None
    return False


def _array_copy(array: Any) -> Any:
    """Return a copy whose items share memory if those of the array do, as broadcast items and sliding windows do."""
    import numpy as np

    copied = None
    if type(array) is np.ndarray and array.size and not array.dtype.hasobject:
        upward = tuple(slice(None, None, -1 if step < 0 else 1) for step in array.strides)
        lowest, step = array[upward], array.itemsize  # the view begins with the item that is first in memory
        last = sum((length - 1) * stride for length, stride in zip(lowest.shape, lowest.strides, strict=True))
        if step and last // step + 1 < array.size and not any(stride % step for stride in lowest.strides):
            as_strided = np.lib.stride_tricks.as_strided
            memory = as_strided(lowest, (last // step + 1,), (step,)).copy()
            copied = as_strided(memory, lowest.shape, lowest.strides)[upward]
    if copied is None:
        copied = array.copy()
    copied.flags.writeable = array.flags.writeable
    return copied


def parts_of(column: Any, size: int) -> list[Any]:
    """Return consecutive parts of ``size`` items; the last may have fewer."""
    return [cut(column, slice(start, start + size)) for start in range(0, length_of(column), size)]


def _is_array(value: object) -> bool:
    numpy = imported("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)
