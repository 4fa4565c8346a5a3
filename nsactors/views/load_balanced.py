"""The load-balanced view: calls run on whichever engine is free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from nsactors.client.detached import DetachedFarm
from nsactors.client.tasks import Farm, MapFunction
from nsactors.core.messages import Reference
from nsactors.core.partition import Block
from nsactors.core.payload import pack_call
from nsactors.core.targets import Targets
from nsactors.core.wire import INLINE_LIMIT_BYTES
from nsactors.results import AsyncResult, BalancedMapResult, Call, MapCall, TaskCall
from nsactors.views.dependencies import dependency_of
from nsactors.views.engine_view import EngineView
from nsactors.views.executor import ViewExecutor
from nsactors.views.flags import TaskFlags
from nsactors.views.functions import BalancedFunction, RemoteFunction
from nsactors.views.lazy_map import lazy_map
from nsactors.views.mapping import of_equal_length
from nsactors.views.task_forms import (
    MapCallChunk,
    checked_name,
    column_of,
    kept_copy,
    kind_of,
    parts_of,
    resolved_targets,
)
from nsactors.views.task_planning import Send, TaskPlanner

if TYPE_CHECKING:
    from nsactors.client import Client

__all__ = ["LoadBalancedView"]


class LoadBalancedView(EngineView[TaskFlags]):
    """Engines that share the work. What is asked of the view happens once, on one of them.

    Calls are *tasks*: they go to engines as these are free, many small ones in one message, and somewhere else if their
    engine dies. They see their engine's names, and cannot count on what other tasks left there.

    Args:
        client: whose engines these are.
        targets: a list of ids, or ``"all"``: those that there are at any time.
        flags: see :class:`nsactors.views.flags.TaskFlags`.

    Example:
        >>> lview = rc.load_balanced_view()
        >>> lview.map_sync(lambda x: x**2, range(5))
        [0, 1, 4, 9, 16]
    """

    def __init__(self, client: Client, targets: Targets = "all", **flags: Any) -> None:
        super().__init__(client, TaskFlags(targets=targets, block=client.block))
        self._planner = TaskPlanner(client.session)
        self._executor: ViewExecutor | None = None
        self.set_flags(**flags)

    def set_flags(self, **flags: Any) -> Self:
        """Change flags; the view itself is returned.

        Raises:
            UnknownFlag: if one does not exist; nothing is changed then.
            TargetError: if ``targets`` names no engines of this cluster.
            InvalidDependency: if ``after`` or ``follow`` names no tasks of this client, or no detached ones for such.
            CapabilityError: if there is a time limit and engines cannot be interrupted.
            TypeError: if labels are not text, or resources not numbers; ValueError if these are negative.
        """
        for name in ("after", "follow"):
            if name in flags:
                flags[name] = dependency_of(flags[name])
        if "targets" in flags:
            flags["targets"] = resolved_targets(flags["targets"], self.client.ids)
        changed = self._flags.changed(**flags)
        self._planner.check(changed)
        self._flags = changed
        return self

    def apply(self, function: Callable[..., Any] | Reference, /, *args: Any, **kwargs: Any) -> Any:
        """Call ``function(*args, **kwargs)`` on an engine; every keyword goes to the function.

        Functions, references and remote values are treated as by ``DirectView.apply``.

        Returns:
            An :class:`AsyncResult` of one value, or the value if the view blocks.

        Raises:
            SerializationError: if function or arguments cannot be pickled; nothing has been sent then.
            NoEngines: if there are none, and none is on its way.
        """
        return self._finish(self.apply_async(function, *args, **kwargs), None)

    def apply_async(self, function: Callable[..., Any] | Reference, /, *args: Any, **kwargs: Any) -> AsyncResult:
        """As :meth:`apply`, at once."""
        call, send = self.task_of(function, args, kwargs)
        result = AsyncResult(self.farm, [call], label=call.label, single=True)
        send()
        return result

    def task_of(
        self, function: Callable[..., Any] | Reference, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[TaskCall, Send]:
        """The task of a call, and what submits it, for those who make results of their own; errors as :meth:`apply`."""
        name = checked_name(function)
        payload = pack_call(
            function,
            args,
            kwargs,
            what=f"the call of {name}",
            ref_types=self.client.session.transport.ref_types,
        )
        self._warn_of_data(payload, function, args, kwargs)
        label = self._flags.label or f"apply({name})"
        return self._planner.call(self._flags, payload, label, kind_of(function))

    def apply_sync(self, function: Callable[..., Any] | Reference, /, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`apply`; waits for the value."""
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
    ) -> Any:
        """``list(map(function, *sequences))``, item by item on engines as they are free. Stops at the shortest.

        Args:
            function: called with one item of each sequence.
            sequences: at least one; ranges and arrays are cut without being unrolled.
            block: wait for the list.
            chunksize: items that are sent together, or a multiple of them; the default suits the time they take.
            ordered: whether iterating over the result gives the items in order, or as they come.
            return_exceptions: put exceptions into the list in place of the items they prevented.
            label: in place of ``map(function)``.

        Raises:
            TypeError: without sequences.
            SerializationError: if the function cannot be pickled; nothing has been sent then. An item that cannot is a
                failure of its own.
            NoEngines: if there are none, and none is on its way.
        """
        blocks = self._blocks(block)
        call, send = self.map_of(function, sequences, chunksize=chunksize, label=label, copies=not blocks)
        send()
        result = BalancedMapResult(
            self.farm, call, label=call.label, ordered=ordered, return_exceptions=return_exceptions
        )
        return self._finish(result, blocks)

    def map_of(
        self,
        function: Callable[..., Any],
        sequences: Sequence[Iterable[Any]],
        *,
        chunksize: int | None = None,
        label: str | None = None,
        copies: bool = True,
    ) -> tuple[MapCall, Send]:
        """The task of a map, and what submits it, for those who make results of their own; errors as :meth:`map`.

        Args:
            function: called with one item of each sequence.
            sequences: at least one.
            chunksize: as for :meth:`map`.
            label: in place of ``map(function)``.
            copies: the sequences may change before their items have been sent.
        """
        if not sequences:
            raise TypeError("map() needs at least one sequence")
        columns = tuple(of_equal_length([column_of(s) for s in sequences]))
        if copies:
            columns = tuple(kept_copy(column) for column in columns)
        name = checked_name(function)
        label = label or self._flags.label or f"map({name})"
        map_function, kind = self._map_function(function, name), kind_of(function)
        return self._planner.map(self._flags, map_function, columns, label, kind, chunksize=chunksize)

    def imap(
        self,
        function: Callable[..., Any],
        *iterables: Iterable[Any],
        ordered: bool = True,
        chunksize: int | None = None,
        max_outstanding: int | None = None,
        return_exceptions: bool = False,
        label: str | None = None,
    ) -> Iterator[Any]:
        """``map(function, *iterables)``, a few chunks ahead of who takes the results; the input may never end.

        It begins at once. Input is pulled, in the caller's thread, only as results are taken. Closing the iterator, or
        leaving the loop over it, takes back what has not begun.

        Args:
            function: called with one item of each iterable.
            iterables: at least one; it stops at the shortest.
            ordered: give results in the order of the items, or as they come.
            chunksize: items sent together; the default is what can be pulled and computed in about 20 ms.
            max_outstanding: chunks that are pulled and not yet given out, at most; the default is four an engine.
            return_exceptions: give exceptions in place of the results they prevented. Without, the first one is
                raised, after the results of what came before it, and ends the iterator.
            label: in place of ``map(function)``.

        Raises:
            TypeError: without iterables.
            ValueError: if a number is less than 1, or this view's tasks are detached: the input comes from here.
            SerializationError: if the function cannot be pickled; nothing has been sent then.
        """
        if self._flags.detached:
            raise ValueError("imap() takes its input from this process, so it cannot be detached: use map()")
        name = checked_name(function)
        label = label or self._flags.label or f"map({name})"
        map_function, kind = self._map_function(function, name), kind_of(function)

        def send(columns: tuple[Sequence[Any], ...], on_their_way: Sequence[Call]) -> MapCallChunk:
            call, submit = self._planner.map(self._flags, map_function, columns, label, kind)
            submit()
            return MapCallChunk(call)

        return lazy_map(
            self.farm,
            send,
            lambda: len(self),
            iterables,
            ordered=ordered,
            chunksize=chunksize,
            max_outstanding=max_outstanding,
            return_exceptions=return_exceptions,
        )

    def remote(self, block: bool | None = None, **flags: Any) -> Callable[[Callable[..., Any]], RemoteFunction]:
        """A decorator: the function runs on one of this view's engines whenever it is called."""
        self._flags.changed(**flags)
        return lambda function: RemoteFunction(self, function, block, flags)

    def parallel(
        self, chunksize: int | None = None, block: bool | None = None, ordered: bool = True, **flags: Any
    ) -> Callable[[Callable[..., Any]], BalancedFunction]:
        """A decorator: called with sequences, the function is mapped over them.

        Args:
            chunksize: as for :meth:`map`.
            block: wait for the list.
            ordered: as for :meth:`map`.
            flags: of the view, for these calls.
        """
        self._flags.changed(**flags)
        return lambda function: BalancedFunction(self, function, chunksize, block, ordered, flags)

    def call_on_parts(
        self, function: Callable[..., Any], sequences: Sequence[Any], chunksize: int | None = None
    ) -> Any:
        """Call ``function`` with parts of ``sequences`` (default: one part per engine), and join the results."""
        columns = of_equal_length([column_of(sequence) for sequence in sequences])
        size = chunksize or -(-len(columns[0]) // max(1, len(self))) or 1
        parts = [parts_of(column, size) for column in columns]
        name = checked_name(function)
        label = self._flags.label or f"parallel({name})"
        map_function, kind = self._map_function(function, name), kind_of(function)
        call, send = self._planner.map(self._flags, map_function, tuple(parts), label, kind, chunksize=1, joins=True)
        send()
        return self._finish(BalancedMapResult(self.farm, call, label=label, partitioner=Block()), None)

    def abort(self, jobs: Any = None, targets: Targets = None, block: bool | None = None) -> None:
        """Take back tasks that have not started; see ``Client.abort``."""
        self.client.abort(jobs, "all" if targets is None else targets, block)

    @property
    def executor(self) -> ViewExecutor:
        """This view as a ``concurrent.futures.Executor``; another one when the former was shut down or has broken."""
        executor = self._executor
        if executor is None or executor.view is not self or not executor.usable:  # this view may be a copy
            executor = self._executor = ViewExecutor(self)
        return executor

    def register_joblib_backend(self, name: str = "nsactors", make_default: bool = False) -> None:
        """Let ``joblib.Parallel``, and so scikit-learn, run its loops on this view's engines.

        Args:
            name: what joblib is to call it.
            make_default: use it wherever no backend is named.

        Example:
            >>> lview.register_joblib_backend()
            >>> with joblib.parallel_config(backend="nsactors"):
            ...     joblib.Parallel()(joblib.delayed(abs)(i) for i in range(-3, 0))
            [3, 2, 1]
        """
        from nsactors.views.joblib_backend import register

        register(self, name, make_default=make_default)

    @property
    def farm(self) -> Farm | DetachedFarm:
        """Where this view's tasks find their engines."""
        return self._planner.farm(self._flags)

    def _map_function(self, function: Any, name: str) -> MapFunction:
        payload = self._pack(function, f"the function {name}")
        if payload.nbytes > INLINE_LIMIT_BYTES:
            self._warn_of_data(payload, function)
        return self.farm.map_function(payload, f"map({name})", type(function).__name__)
