"""A view as an executor of the standard library: for code that is written for ``concurrent.futures``."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import TYPE_CHECKING, Any

from nsactors.core.cluster import EngineInfo, EngineLeft
from nsactors.errors import ClientClosed, ClusterStopped, ImpossibleDependency, NoEngines, NsactorsError, TaskAborted
from nsactors.results import NOWHERE, AsyncResult, BalancedMapResult, Call, MapCall, MapPiece, TaskCall
from nsactors.results.waiting import interrupt_and_wait

if TYPE_CHECKING:
    from nsactors.client.detached import DetachedFarm
    from nsactors.client.tasks import Farm
    from nsactors.views.load_balanced import LoadBalancedView

__all__ = ["ExecutorFuture", "ViewExecutor"]


class ExecutorFuture(AsyncResult):
    """An :class:`AsyncResult` whose ``running`` and ``cancel`` mean what they do in the standard library.

    Args:
        owner: where the call has been submitted.
        call: the call.
        executor: who made it.
    """

    def __init__(self, owner: Farm | DetachedFarm, call: TaskCall, executor: ViewExecutor) -> None:
        self._executor = executor
        super().__init__(owner, [call], label=call.label, single=True)

    def running(self) -> bool:
        """Whether an engine has it. As in ``ProcessPoolExecutor``, one that is next in an engine's line counts."""
        return not self.done() and self._calls[0].engine_id != NOWHERE

    def cancel(self) -> bool:
        """See that it never runs. What has begun goes on, and its result comes.

        Returns:
            Whether it is cancelled.
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


class _ExecutorMap(BalancedMapResult):
    """The results of a map, each let go when it has been taken."""

    def __init__(
        self, owner: Farm | DetachedFarm, call: MapCall, executor: ViewExecutor, timeout: float | None
    ) -> None:
        self._executor = executor
        self._deadline = None if timeout is None else time.monotonic() + timeout
        super().__init__(owner, call, label=call.label)

    def _one_settled(self, call: Call | None = None) -> None:
        super()._one_settled(call)
        if call is not None:
            self._executor._ended(call)

    def _resolve(self) -> None:
        self.set_result(None)  # not the list, which would hold them all

    def _seconds_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _values_of(self, piece: MapPiece) -> Iterator[Any]:
        values = super()._values_of(piece)
        assert isinstance(values, list), "it is emptied, and not a copy: others have it, too"
        values.reverse()
        while values:
            yield values.pop()


class ViewExecutor(Executor):
    """Runs calls on whichever engines of a view are free, as a ``concurrent.futures.Executor``.

    Unlike a pool of processes it takes functions and classes of ``__main__``, lambdas and closures, and does not break
    when a worker dies: its tasks run on another engine. It is broken when all engines have gone and none is on
    its way; a view makes another one then. Shutting it down leaves the engines as they are.

    Args:
        view: whose flags (``retries``, ``priority`` ...) count for each call.

    Example:
        >>> with rc.load_balanced_view().executor as executor:
        ...     list(executor.map(pow, [2, 3, 4], [5, 2, 3]))
        [32, 9, 64]
    """

    def __init__(self, view: LoadBalancedView) -> None:
        self.view = view
        self._changed = threading.Condition()
        self._open: set[Call] = set()
        self._shut_down = False
        self._broken = False
        roster = view.client.session.roster
        watch = _Watch(self)
        roster.watch(watch)
        weakref.finalize(self, roster.unwatch, watch).atexit = False

    @property
    def usable(self) -> bool:
        """Whether it takes calls: it has not been shut down, and is not broken."""
        return not (self._shut_down or self._broken)

    @property
    def _max_workers(self) -> int:
        """The number of engines, under the name by which Dask and others ask executors for it."""
        return len(self.view)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> ExecutorFuture:
        """Call ``fn(*args, **kwargs)`` on an engine; every keyword goes to the function.

        Raises:
            RuntimeError: if it has been shut down.
            BrokenExecutor: if there are no engines any more, and none is on its way.
            SerializationError: if function or arguments cannot be pickled; nothing has been sent then.
        """
        with self._breaking():
            call, send = self.view.task_of(fn, args, kwargs)
            future = ExecutorFuture(self._farm, call, self)
            self._admit(call, send)
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
    ) -> Iterator[Any]:
        """``map(fn, *iterables)``, all of it submitted at once; results are given in order and then forgotten.

        When one fails, or its time is up, what has not begun never runs.

        Args:
            fn: called with one item of each iterable.
            iterables: at least one; it stops at the shortest.
            timeout: seconds from now for the results to be there; ``TimeoutError`` when one is late.
            chunksize: items that are sent together, or a multiple of them; the default suits the time they take.

        Raises:
            RuntimeError: and other errors, as :meth:`submit`.
        """
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"chunksize is at least 1, not {chunksize}")
        with self._breaking():
            call, send = self.view.map_of(fn, iterables, chunksize=chunksize)
            result = _ExecutorMap(self._farm, call, self, timeout)
            self._admit(call, send)
        return self._results(result, call)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the engines stay.

        Args:
            wait: return when all calls have ended and their callbacks have been called. Ctrl-C meanwhile interrupts the
                engines.
            cancel_futures: what has not begun never runs.
        """
        with self._changed:
            self._shut_down = True
        if cancel_futures:
            self.abort()
        if not wait:
            return
        with self._changed:
            calls = list(self._open)
        try:
            self._wait_for_end(None)
        except KeyboardInterrupt:
            interrupt_and_wait(self._wait_for_end, calls, self._farm)
            raise
        self.view.client.session.wait_for_callbacks()

    def abort(self, *, interrupt: bool = False) -> None:
        """Take back what has not begun, of calls and maps alike; it goes on taking calls.

        Args:
            interrupt: also raise KeyboardInterrupt in what runs, where engines can be interrupted.
        """
        with self._changed:
            calls = list(self._open)
        if calls:
            self._farm.abort(calls, interrupt=interrupt)

    def _ended(self, call: Call) -> None:
        """A call has ended, and everybody who holds its future can see it."""
        with self._changed:
            self._open.discard(call)
            if not self._open:
                self._changed.notify_all()

    def _reason(self, error: Exception) -> Exception:
        """What the standard library raises where ``error`` kept a call from giving a value."""
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
        """See whether there are engines left; without, what has not ended never will."""
        with self._changed:
            if self._has_engines():
                return
            self._broken = True
        with contextlib.suppress(NsactorsError):  # the client may have been closed
            self.abort()

    @property
    def _farm(self) -> Farm | DetachedFarm:
        return self.view.farm

    @contextlib.contextmanager
    def _breaking(self) -> Iterator[None]:
        """Within it the executor breaks if there are no engines."""
        self._check()
        try:
            yield
        except (NoEngines, ClientClosed, ClusterStopped) as error:
            self._broken = True
            raise self._reason(error) from error

    def _admit(self, call: Call, send: Callable[[], object]) -> None:
        with self._changed:
            self._check()
            self._open.add(call)
        # Not under the lock, nor is what comes before: iterating over a map's input may mean to wait for other results,
        # whose end takes the lock, and so does the end of those that a farm refuses.
        try:
            send()
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
        roster, targets = self.view.client.session.roster, self.view.targets
        ids = {*roster.ids, *roster.starting}
        return bool(ids.intersection(targets) if isinstance(targets, list) else ids)

    def _results(self, result: _ExecutorMap, call: MapCall) -> Iterator[Any]:
        try:
            yield from result
        except NsactorsError as error:
            if (reason := self._reason(error)) is error:
                raise
            raise reason from error
        finally:
            if not call.done:
                with contextlib.suppress(NsactorsError):
                    self._farm.abort([call], interrupt=False)


class _Watch:
    """Tells an executor, as long as there is one, when engines leave."""

    def __init__(self, executor: ViewExecutor) -> None:
        self._executor = weakref.ref(executor)
        self._call_back = executor.view.client.session.call_back

    def engine_joined(self, engine: EngineInfo) -> None:
        """Roster: the farm sends it tasks."""

    def engine_leaving(self, engine_id: int) -> None:
        """Roster: it takes no more tasks, and is not away yet."""

    def engine_left(self, left: EngineLeft) -> None:
        """Roster: perhaps the last one."""
        if (executor := self._executor()) is not None:
            self._call_back(executor._look_for_engines)

    def cut_off(self) -> None:
        """Roster: the farm ends all tasks."""
