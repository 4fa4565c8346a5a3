"""The result of a call to one engine or many, now or later."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from nsactors.errors import CompositeError
from nsactors.results.asynchronous import AwaitedResult
from nsactors.results.call import Call, CallOwner, ExecuteReply
from nsactors.results.call_group import CallGroup
from nsactors.results.lean_future import LeanFuture
from nsactors.results.task_calls import MapCall
from nsactors.results.waiting import wait_or_interrupt

__all__ = ["AsyncResult"]

_COUNTING = threading.RLock()  # held for an instant: one is enough for all. A garbage collection may come back to it


class AsyncResult(AwaitedResult):
    """The result of one request to each of several engines.

    It is a ``concurrent.futures.Future`` and can be awaited. It is done when every engine has answered and all their
    output is here. A call to one engine given by its id has a single value; any other has a list, in the order of the
    targets.

    Args:
        owner: who made the calls.
        calls: one per engine; none of them may have settled before.
        label: what people call it, e.g. ``apply(f)``.
        single: whether the value is that of the only call rather than a list.
        return_exceptions: put exceptions into the list of values instead of raising them.
    """

    def __init__(
        self,
        owner: CallOwner,
        calls: Sequence[Call],
        *,
        label: str,
        single: bool = False,
        return_exceptions: bool = False,
    ) -> None:
        LeanFuture.__init__(self)
        CallGroup.__init__(self, list(calls), label, single)
        self._owner = owner
        self._return_exceptions = return_exceptions
        self._parts_awaited = False
        self._open = len(self._calls) + 1  # one more, so that it cannot end before it is made
        for call in self._calls:
            call.when_settled(self._one_settled)
        self._one_settled()

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """As ``Future.add_done_callback``; ``fn`` may wait for other results, for it has a thread for that."""
        if (
            getattr(fn, "__module__", "") == "asyncio.futures"
        ):  # it only wakes an event loop, and is not to stand behind one that waits
            super().add_done_callback(fn)
        else:
            super().add_done_callback(lambda done: self._owner.call_back(partial(fn, done)))

    def _one_settled(self, call: Call | None = None) -> None:
        with _COUNTING:
            self._open -= 1
            last = self._open == 0
        # Waking somebody who waits for all of them at each answer is what costs a call to many engines most.
        if self._parts_awaited or (call is not None and call.error is not None):
            self.notify()
        if last:
            # A result that was cancelled meanwhile has no use for an outcome.
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                self._resolve()

    def _resolve(self) -> None:
        errors = self._failures()
        if errors and not self._return_exceptions:
            self.set_exception(self._combined(errors))
            return
        try:
            value = self._value([_outcome(call) for call in self._calls])
        except Exception as error:  # parts that cannot be joined
            self.set_exception(error)
        else:
            self.set_result(value)

    def _failures(self) -> list[Exception]:
        return [call.error for call in self._calls if call.error is not None]

    def _combined(self, errors: list[Exception]) -> Exception:
        if self._single:
            return errors[0]
        many = len({call.engine_id for call in self._calls})
        failed = len({call.engine_id for call in self._calls if call.error in errors})
        return CompositeError(f"{self._label} failed on {failed} of {many} engine{'s' * (many != 1)}", errors)

    def _value(self, values: list[Any]) -> Any:
        return values[0] if self._single else values

    def result(self, timeout: float | None = None) -> Any:
        """As ``Future.result``: waits for all engines; Ctrl-C does not reach them."""
        with self._asking():
            return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As ``Future.exception``."""
        with self._asking():
            return super().exception(timeout)

    def get(
        self,
        timeout: float | None = None,
        return_exceptions: bool | None = None,
        return_when: str | None = None,
    ) -> Any:
        """Wait for the result and return it.

        Ctrl-C meanwhile interrupts the engines it is waiting for.

        Args:
            timeout: seconds to wait; None or a negative number waits as long as it takes.
            return_exceptions: return exceptions in place of the values they prevented; the default is what the call was
                made with.
            return_when: ``concurrent.futures.FIRST_EXCEPTION`` raises as soon as one engine has failed.

        Raises:
            TimeoutError: (the built-in one) if the result is not there in time.
            RemoteError: of the original class as well, if a call to one engine failed.
            CompositeError: with all failures, if a call to several engines failed on some. Every call raises it again.
        """
        first = return_when == concurrent.futures.FIRST_EXCEPTION
        wait = partial(self._wait, first_exception=first)
        if not wait_or_interrupt(wait, self._calls, self._owner, timeout):
            raise TimeoutError(
                f"{self._label} is not done after {timeout:g} s: {self.progress} of {len(self)} answered"
            )
        self._owner.asked(self._calls)
        if return_exceptions is None:
            return_exceptions = self._return_exceptions
        if return_exceptions:
            return self._value([_outcome(call) for call in self._calls])
        if not self.done():
            raise self._combined(self._failures())
        return super().result()

    r = property(get, doc="The result; waits for it.")

    def get_dict(self, timeout: float | None = None) -> dict[int, Any]:
        """The results by engine id, as :meth:`get`; ValueError if an engine answered more than once."""
        values = self.get(timeout)
        ids = [call.engine_id for call in self._calls]
        if len(set(ids)) != len(ids):
            raise ValueError(f"some of the engines {sorted(set(ids))} answered more than once: there is no dict")
        return dict(zip(ids, [values] if self._single else values, strict=True))

    @property
    def result_dict(self) -> dict[int, Any]:
        """The results by engine id; waits for them."""
        return self.get_dict()

    def wait(self, timeout: float | None = -1, return_when: str | None = None) -> Any:
        """Wait until the result is there, or for ``timeout`` seconds (None and negative: as long as it takes).

        Returns:
            Whether it is there. With ``return_when`` (a constant of ``concurrent.futures``): the sets of done and
            pending parts, one per engine.
        """
        if return_when is not None:
            limit = None if timeout is None or timeout < 0 else timeout
            return concurrent.futures.wait(self.split(), limit, return_when)
        return self._wait(timeout)

    def wait_for_output(self, timeout: float | None = -1) -> bool:
        """Wait until all output is there, which it is when the result is."""
        return self._wait(timeout)

    def ready(self) -> bool:
        """Whether every engine has answered."""
        return self.done()

    def successful(self) -> bool:
        """Whether every engine has answered without an error; RuntimeError if it is not done."""
        if not self.done():
            raise RuntimeError(f"{self._label} is not done: ask ready() first")
        self._owner.asked(self._calls)
        return not self.cancelled() and not self._failures()

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Somebody asks how it ended: if it has by then, they know."""
        try:
            yield
        finally:
            if self.done():
                self._owner.asked(self._calls)

    def _wait(self, timeout: float | None, *, first_exception: bool = False) -> bool:
        if self.done():  # as most are whose caller has taken the answer: no condition is made for them
            return True
        limit = None if timeout is None or timeout < 0 else timeout

        def over() -> bool:
            return self.done() or (first_exception and any(c.error is not None for c in self._calls))

        with self._condition:
            return self._condition.wait_for(over, limit)

    def abort(self, *, interrupt: bool = False) -> None:
        """Take back what has not started: it never runs, and its result is ``TaskAborted``.

        Args:
            interrupt: also raise KeyboardInterrupt in what runs.

        Raises:
            RuntimeError: if it is done.
        """
        if self.done():
            raise RuntimeError(f"{self._label} is done: nothing can be aborted")
        self._owner.abort([call for call in self._calls if not call.done], interrupt=interrupt)

    def cancel(self) -> bool:
        """Give the result up, in any state: what has not started never runs, what runs goes on and is not waited for.

        Returns:
            False if it was done already.
        """
        if self.cancelled() or not super().cancel():
            return self.cancelled()
        self.set_running_or_notify_cancel()
        self._owner.abort([call for call in self._calls if not call.done], interrupt=False)
        return True

    @classmethod
    def join(cls, *results: AsyncResult) -> AsyncResult:
        """One result of several (at least one): its values are theirs, one after the other."""
        if not results:
            raise ValueError("join() takes at least one result")
        calls = [call for result in results for call in result._calls]
        return AsyncResult(results[0]._owner, calls, label=results[0]._label)

    def split(self) -> tuple[AsyncResult, ...]:
        """One result per engine, for ``concurrent.futures.wait`` and the like."""
        if len(self._calls) == 1:
            return (self,)
        tolerant = self._return_exceptions
        return tuple(
            AsyncResult(self._owner, [call], label=self._label, single=True, return_exceptions=tolerant)
            for call in self._calls
        )

    def __iter__(self) -> Iterator[Any]:
        """The values, each as soon as it and those before it are there; a single one cannot be iterated over."""
        if self._single:
            raise TypeError(f"{self._label} ran on one engine: its result is one value, in .get()")
        return self._iterate()

    def _iterate(self) -> Iterator[Any]:
        for call in self._calls:
            yield self._one(call)

    def _one(self, call: Call) -> Any:
        def wait(timeout_s: float | None) -> bool:
            with self._condition:
                self._parts_awaited = True
                return self._condition.wait_for(lambda: call.done, timeout_s)

        wait_or_interrupt(wait, self._calls, self._owner, None)
        if call.error is not None and not self._return_exceptions:
            self._owner.asked(self._calls)
            raise self._combined([call.error])
        return _outcome(call)

    def __getitem__(self, key: int | slice | str) -> Any:
        """Values by position, once they are there; what is known about the calls by name, at any time."""
        if isinstance(key, str):
            return self.known(key)
        if not self.done():
            raise TimeoutError(f"{self._label} is not done")
        return self.get()[key]

    def wait_interactive(self, interval: float = 0.1, timeout: float | None = -1, widget: object = None) -> None:
        """Wait behind a progress bar, for many tasks with rate and estimate; Ctrl-C ends the waiting, not the work.

        Args:
            interval: seconds between two looks.
            timeout: seconds to wait at most; None or negative: as long as it takes.
            widget: not used, as in scripts for ipyparallel.
        """
        from nsactors.results.showing import show_progress

        show_progress(self, interval, None if timeout is None or timeout < 0 else timeout)

    def display_outputs(self, groupby: str = "type", result_only: bool = False) -> None:
        """Show what the engines printed and displayed, labelled by engine.

        Args:
            groupby: ``"type"`` (all stdout, then all stderr ...), ``"engine"`` or ``"order"`` (as written).
            result_only: show values and displays, not text.

        Raises:
            ValueError: for another ``groupby``.
        """
        from nsactors.results.showing import show_outputs

        self._wait(-1)
        show_outputs(self.calls, groupby, result_only=result_only)

    def __repr__(self) -> str:
        if self.cancelled():
            state = "cancelled"
        elif not self.done():
            state = f"pending, {self.progress} of {len(self)} answered" if not self._single else "pending"
        else:
            state = "failed" if self._failures() else "finished"
        return f"<{type(self).__name__}({self._label}): {state}>"


def _outcome(call: Call) -> Any:
    if call.error is not None:
        return call.error
    if isinstance(call, MapCall):
        return call.values
    return ExecuteReply(call) if call.executes else call.value
