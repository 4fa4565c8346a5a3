"""A view as an executor of the standard library: for code that is written for ``concurrent.futures``."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import TYPE_CHECKING, Any, Protocol, Self

from nsactors.errors import (
    ClientClosed,
    ClusterStopped,
    ConnectionLost,
    ImpossibleDependency,
    NoEngines,
    NsactorsError,
    TaskAborted,
)
from nsactors.protocol import arguments as arg
from nsactors.protocol.control import EngineLeft
from nsactors.protocol.engine_info import EngineInfo
from nsactors.protocol.messages import Capability
from nsactors.protocol.targets import Targets
from nsactors.results import NOWHERE, AsyncResult, AwaitedOutput, Call, MapCall, OutputGoes, TaskCall
from nsactors.results.interrupting import Presses, interrupt_and_wait, interruptible
from nsactors.results.map_result import PieceReader

if TYPE_CHECKING:
    from nsactors.tasks.scheduler import SchedulerClient, TaskPlan


class TaskView(Protocol):
    """The methods of a load-balanced view that executors use."""

    @property
    def client(self) -> Any:
        """See ``LoadBalancedView``."""
        ...

    @property
    def targets(self) -> Targets:
        """See ``LoadBalancedView``."""
        ...

    @property
    def output(self) -> str | None:
        """See ``LoadBalancedView``."""
        ...

    @property
    def task_scheduler(self) -> SchedulerClient:
        """See ``LoadBalancedView``."""
        ...

    def task_of(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskPlan:
        """See ``LoadBalancedView``."""
        ...

    def map_of(
        self, function: Callable[..., Any], sequences: Sequence[Iterable[Any]], *, chunksize: int | None
    ) -> TaskPlan:
        """See ``LoadBalancedView``."""
        ...

    def with_flags(self, **flags: Any) -> Self:
        """See ``LoadBalancedView``."""
        ...

    def __len__(self) -> int: ...


class ExecutorFuture(AsyncResult):
    """An :class:`AsyncResult` whose ``running`` and ``cancel`` mean the same as in the standard library.

    Args:
        owner: the scheduler to which the call has been submitted.
        call: the call.
        executor: the executor that made this future.
    """

    def __init__(self, owner: SchedulerClient, call: TaskCall, executor: ViewExecutor) -> None:
        self._executor = executor
        super().__init__(owner, [call], label=call.label, single=True)

    def running(self) -> bool:
        """Return whether an engine has the call, which may still be next in a queue, as in ``ProcessPoolExecutor``."""
        return not self.done() and self._calls[0].engine_id != NOWHERE

    def cancel(self) -> bool:
        """Cancel the call, unless it has begun; a call that has begun goes on.

        Returns:
            Whether the call is cancelled.
        """
        if not self.done():
            self._owner.abort(self._calls, interrupt=False)
        return self.cancelled()

    def _one_settled(self, call: Call | None = None) -> None:
        super()._one_settled(call)
        if call is not None:
            self._executor._ended(call)

    def _resolve(self) -> None:
        error = self._calls[0].error
        reason = None if error is None else self._executor._reason(error)
        if reason is error:
            super()._resolve()
        elif isinstance(reason, CancelledError):
            Future.cancel(self)
            self.set_running_or_notify_cancel()
        else:
            self.set_exception(reason)


class ViewExecutor(Executor):
    """Runs calls on free engines of a view, as a ``concurrent.futures.Executor``.

    Unlike a pool of processes, it takes functions and classes of ``__main__``, lambdas and closures. It does not break
    when an engine dies, because the tasks of that engine run on another one. The executor is broken when all engines
    have left and none is starting; a view then makes a new executor. Shutting down an executor does not affect the
    engines.

    Args:
        view: the engines, with flags (``retries``, ``priority`` ...) for each call.

    Example:
        >>> with rc.load_balanced_view().executor as executor:
        ...     list(executor.map(pow, [2, 3, 4], [5, 2, 3]))
        [32, 9, 64]
    """

    def __init__(self, view: TaskView) -> None:
        self.view = view
        self._changed = threading.Condition()
        self._open: set[Call] = set()
        self._shut_down = False
        self._broken = False
        directory = view.client.session.directory
        watch = _Watch(self)
        directory.watch(watch)
        weakref.finalize(self, directory.unwatch, watch).atexit = False

    @property
    def usable(self) -> bool:
        """True as long as it takes calls: until it is shut down or broken."""
        return not (self._shut_down or self._broken)

    @property
    def _max_workers(self) -> int:
        """The number of engines, with the name that Dask and other libraries read."""
        return len(self.view)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> ExecutorFuture:
        """Call ``fn(*args, **kwargs)`` on an engine; every keyword goes to the function.

        Raises:
            RuntimeError: if the executor has been shut down.
            BrokenExecutor: if all engines have gone, and none is starting.
            SerializationError: if function or arguments cannot be pickled; nothing has been sent then.
        """
        arg.check("submit", fn=arg.function(fn))
        with self._breaking():
            plan = self.view.task_of(fn, args, kwargs)
            future = ExecutorFuture(plan.scheduler, plan.spec.call, self)
            self._admit(plan)
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
    ) -> Iterator[Any]:
        """Compute ``map(fn, *iterables)``: submit all items immediately, give results in order, and then release them.

        When an item fails, or its time is over, items that have not begun never run.

        Args:
            fn: called with one item of each iterable.
            iterables: at least one; the map ends with the shortest.
            timeout: seconds from now within which results must arrive; otherwise ``TimeoutError`` is raised.
            chunksize: send items in multiples of this number; by default, the number depends on measured times.

        Raises:
            RuntimeError: see :meth:`submit`, as for other errors.
        """
        arg.check(
            "map",
            fn=arg.function(fn),
            iterables=arg.iterables(iterables),
            timeout=arg.seconds(timeout, negative=True),
            chunksize=arg.whole(chunksize, at_least=1, or_none=True),
        )
        with self._breaking():
            plan = self.view.map_of(fn, iterables, chunksize=chunksize)
            call = plan.map_call
            timeout_s = None if timeout is None else float(timeout)
            pieces = PieceReader(plan.scheduler, call, AwaitedOutput([call]), timeout_s=timeout_s)
            call.when_settled(self._ended)
            self._admit(plan)
        return self._results(pieces, call)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the engines stay.

        Args:
            wait: return when all calls have ended and their callbacks have been called. Ctrl-C during this wait
                interrupts the engines.
            cancel_futures: cancel calls that have not begun.
        """
        arg.check("shutdown", wait=arg.flag(wait), cancel_futures=arg.flag(cancel_futures))
        with self._changed:
            self._shut_down = True
        if cancel_futures:
            self.abort()
        if not wait:
            return
        with self._changed:
            calls = list(self._open)

        def stop(presses: Presses) -> bool:
            interrupt_and_wait(self._wait_for_end, calls, self._task_scheduler, presses=presses)
            raise KeyboardInterrupt

        interruptible(lambda: self._wait_for_end(None), stop)
        self.view.client.session.wait_for_callbacks()

    def abort(self, *, interrupt: bool = False) -> None:
        """Cancel calls and items of maps that have not begun; the executor goes on taking calls.

        Args:
            interrupt: also raise KeyboardInterrupt in the calls that run, if engines can be interrupted.
        """
        arg.check("abort", interrupt=arg.flag(interrupt))
        with self._changed:
            calls = list(self._open)
        if calls:
            can_interrupt = Capability.SIGNALS in self.view.client.session.transport.capabilities
            self._task_scheduler.abort(calls, interrupt=interrupt and can_interrupt)

    def _ended(self, call: Call) -> None:
        """Remove a call that has ended."""
        with self._changed:
            self._open.discard(call)
            if not self._open:
                self._changed.notify_all()

    def _reason(self, error: Exception) -> Exception:
        """Return the error that the standard library raises in place of ``error``."""
        match error:
            case ClientClosed() | ClusterStopped() | NoEngines():
                return BrokenExecutor(f"the executor is broken: {error}")
            case TaskAborted() if not self._broken:
                return CancelledError()
            case TaskAborted() | ImpossibleDependency() if self._broken or not self._has_engines():
                return BrokenExecutor("the executor is broken: its engines have gone")
            case _:
                return error

    def _look_for_engines(self) -> None:
        """Break the executor if no engines are left, because its open calls would never end."""
        with self._changed:
            if self._has_engines():
                return
            self._broken = True
        with contextlib.suppress(NsactorsError):  # the client may have been closed
            self.abort()

    @property
    def _task_scheduler(self) -> SchedulerClient:
        return self.view.task_scheduler

    @contextlib.contextmanager
    def _breaking(self) -> Iterator[None]:
        """Break the executor if the block finds no engines."""
        self._check()
        try:
            yield
        except (NoEngines, ClientClosed, ClusterStopped) as error:
            self._broken = True
            raise self._reason(error) from error

    def _admit(self, plan: TaskPlan) -> None:
        call = plan.spec.call
        if self.view.output != "show":  # libraries that wait for futures do not expect the wait to print
            call.output_goes = OutputGoes.NOWHERE
        with self._changed:
            self._check()
            self._open.add(call)
        # Do not hold the lock here, nor while the task is planned: the iteration over a map's input may wait for other
        # results. Calls take the lock when they end, and so does a call that a scheduler refuses.
        try:
            plan.submit()
        except BaseException:
            self._ended(call)
            raise

    def _check(self) -> None:
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._broken:
            raise self._reason(NoEngines())

    def _wait_for_end(self, timeout_s: float | None) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, timeout_s)

    def _has_engines(self) -> bool:
        directory, targets = self.view.client.session.directory, self.view.targets
        ids = {*directory.ids, *directory.starting}
        return bool(ids.intersection(targets) if isinstance(targets, list) else ids)

    def _results(self, pieces: PieceReader, call: MapCall) -> Iterator[Any]:
        try:
            for values in pieces:
                values.reverse()  # in place, so that each value is released when it has been taken
                while values:
                    yield values.pop()
        except NsactorsError as error:
            if (reason := self._reason(error)) is error:
                raise
            raise reason from error
        finally:
            if not call.done:
                with contextlib.suppress(NsactorsError):
                    self._task_scheduler.abort([call], interrupt=False)


class _Watch:
    """Notifies an executor that engines leave, without keeping the executor alive."""

    def __init__(self, executor: ViewExecutor) -> None:
        self._executor = weakref.ref(executor)
        self._call_back = executor.view.client.session.run_callback

    def engine_joined(self, engine: EngineInfo) -> None:
        """EngineListener: do nothing, as the scheduler sends tasks to the engine."""

    def engine_leaving(self, engine_id: int) -> None:
        """EngineListener: do nothing, as the engine takes no more tasks, but has not left yet."""

    def engine_left(self, left: EngineLeft) -> None:
        """EngineListener: break the executor if this was the last engine."""
        if (executor := self._executor()) is not None:
            self._call_back(executor._look_for_engines)

    def cut_off(self, reason: ConnectionLost) -> None:
        """EngineListener: do nothing, as the scheduler ends all tasks."""
