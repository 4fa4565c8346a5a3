"""The load-balanced view: calls run on whichever engine is free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from nsactors.client.tasks import Farm, Job, MapFunction
from nsactors.core.messages import Capability, Reference
from nsactors.core.partition import Block
from nsactors.core.payload import pack_call
from nsactors.core.remote_value import RemoteValue
from nsactors.core.scheduling import ANYWHERE, Needs, Task
from nsactors.core.targets import Targets
from nsactors.core.wire import INLINE_LIMIT_BYTES
from nsactors.errors import NoEngines
from nsactors.results import AsyncMapResult, AsyncResult, BalancedMapResult, Call, MapCall
from nsactors.transport.base import require
from nsactors.views.dependencies import dependency_of
from nsactors.views.engine_view import EngineView
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

if TYPE_CHECKING:
    from nsactors.client import Client

__all__ = ["LoadBalancedView"]

_ANY = Task(0)


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
        self._planned: TaskFlags | None = None
        self._plan = _ANY
        self.set_flags(**flags)

    def set_flags(self, **flags: Any) -> Self:
        """Change flags; the view itself is returned.

        Raises:
            UnknownFlag: if one does not exist; nothing is changed then.
            TargetError: if ``targets`` names no engines of this cluster.
            InvalidDependency: if ``after`` or ``follow`` names no tasks of this client.
            CapabilityError: if there is a time limit and engines cannot be interrupted.
        """
        for name in ("after", "follow"):
            if name in flags:
                flags[name] = dependency_of(flags[name])
        if "targets" in flags:
            flags["targets"] = resolved_targets(flags["targets"], self.client.ids)
        changed = self._flags.changed(**flags)
        if changed.time_limit is not None:
            require(self.client.session.transport, Capability.SIGNALS, "interrupt a task at its time limit")
        self._plan = _plan(changed, self._farm.name)
        self._planned = self._flags = changed
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
        farm, flags, name = self._farm, self._flags, checked_name(function)
        payload = pack_call(
            function,
            args,
            kwargs,
            what=f"the call of {name}",
            ref_types=self.client.session.transport.ref_types,
        )
        self._warn_of_data(payload, function, args, kwargs)
        label = flags.label or f"apply({name})"
        call = farm.new_call(label, copies=flags.copy)
        result = AsyncResult(farm, [call], label=label, single=True)
        task = self._planned_task()._replace(task_id=call.request_id.seq, kind=kind_of(function))
        farm.submit(task, Job(call, payload, limit_s=flags.time_limit), (flags.after, flags.follow))
        return result

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
        if not sequences:
            raise TypeError("map() needs at least one sequence")
        blocks = self._blocks(block)
        columns = tuple(of_equal_length([column_of(s) for s in sequences]))
        if not blocks:
            columns = tuple(kept_copy(column) for column in columns)
        name = checked_name(function)
        label = label or self._flags.label or f"map({name})"
        map_function = self._map_function(function, name)
        call = self._submit_map(map_function, columns, label, kind_of(function), chunksize)
        result = BalancedMapResult(self._farm, call, label=label, ordered=ordered, return_exceptions=return_exceptions)
        return self._finish(result, blocks)

    def map_async(self, function: Callable[..., Any], *sequences: Iterable[Any], **options: Any) -> AsyncMapResult:
        """As :meth:`map`, at once."""
        result: AsyncMapResult = self.map(function, *sequences, block=False, **options)
        return result

    def map_sync(self, function: Callable[..., Any], *sequences: Iterable[Any], **options: Any) -> list[Any]:
        """As :meth:`map`; waits for the list."""
        values: list[Any] = self.map(function, *sequences, block=True, **options)
        return values

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
            ValueError: if a number is less than 1.
            SerializationError: if the function cannot be pickled; nothing has been sent then.
        """
        name = checked_name(function)
        label = label or self._flags.label or f"map({name})"
        map_function, kind = self._map_function(function, name), kind_of(function)

        def send(columns: tuple[Sequence[Any], ...], on_their_way: Sequence[Call]) -> MapCallChunk:
            return MapCallChunk(self._submit_map(map_function, columns, label, kind, None))

        return lazy_map(
            self._farm,
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
        call = self._submit_map(self._map_function(function, name), tuple(parts), label, kind_of(function), 1)
        return self._finish(BalancedMapResult(self._farm, call, label=label, partitioner=Block()), None)

    def abort(self, jobs: Any = None, targets: Targets = None, block: bool | None = None) -> None:
        """Take back tasks that have not started; see ``Client.abort``."""
        self.client.abort(jobs, "all" if targets is None else targets, block)

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for results; see ``Client.wait``."""
        return self.client.wait(jobs, timeout)

    def queue_status(self, targets: Targets = None, verbose: bool = False) -> dict[Any, Any]:
        """What each engine has to do; see ``Client.queue_status``."""
        return self.client.queue_status(self._resolve(targets), verbose)

    def shutdown(self, targets: Targets = None) -> None:
        """End the engines; see ``Client.shutdown``."""
        self.client.shutdown(self._resolve(targets))

    @property
    def _farm(self) -> Farm:
        return self.client.session.farm

    def _planned_task(self) -> Task:
        if self._planned is not self._flags:  # temp_flags() has put the former ones back
            self._plan = _plan(self._flags, self._farm.name)
            self._planned = self._flags
        roster = self.client.session.roster
        if not (roster.ids or roster.starting):
            raise NoEngines
        return self._plan

    def _map_function(self, function: Any, name: str) -> MapFunction:
        payload = self._pack(function, f"the function {name}")
        if payload.nbytes > INLINE_LIMIT_BYTES:  # stored once, not for each engine
            self._warn_of_data(payload, function)
            stored = self.client.session.transport.keep(payload)
            value = RemoteValue(stored, name, None, f"map({name})", type(function).__name__, payload.nbytes)
            payload = self._pack(value, name)
        return MapFunction(self._farm.next_number(), payload)

    def _submit_map(
        self,
        function: MapFunction,
        columns: tuple[Sequence[Any], ...],
        label: str,
        kind: tuple[Any, ...],
        chunksize: int | None,
    ) -> MapCall:
        farm, flags = self._farm, self._flags
        size = len(columns[0])
        call = farm.new_map(label, size, copies=flags.copy)
        plan = self._planned_task()
        if not size:
            call.settle([], None)
            return call
        task = plan._replace(task_id=call.request_id.seq, size=size, kind=kind, chunksize=chunksize)
        job = Job(call, None, function, columns, flags.time_limit)
        farm.submit(task, job, (flags.after, flags.follow))
        return call


def _plan(flags: TaskFlags, client: str) -> Task:
    """What all tasks of a view have in common."""
    return Task(
        0,
        needs=Needs.of(flags.targets) if isinstance(flags.targets, list) else ANYWHERE,
        after=None if flags.after is None else flags.after.for_scheduler(client),
        follow=None if flags.follow is None else flags.follow.for_scheduler(client),
        retries=flags.retries,
        timeout_s=flags.timeout,
        priority=flags.priority,
    )
