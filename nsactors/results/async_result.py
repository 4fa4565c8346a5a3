"""``AsyncResult``: the handle on the calls to one or more engines."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from nsactors.errors import CompositeError, UnknownKey, keyboard_interrupt, plural, printable, suggest_name
from nsactors.protocol import arguments as arg
from nsactors.results.as_completed import AsyncNotifier
from nsactors.results.call import METADATA_KEYS, Call, CallController, ExecuteReply, MapCall, Metadata
from nsactors.results.display.live import AwaitedOutput, has_unshown
from nsactors.results.display.progress import wait_showing
from nsactors.results.interrupting import (
    Presses,
    debugging,
    interrupt_and_wait,
    interruptible,
    stopping,
    wait_or_interrupt,
)

if TYPE_CHECKING:
    from nsactors.results.display.timeline import Timeline

RETURN_WHEN = (
    concurrent.futures.FIRST_COMPLETED,
    concurrent.futures.FIRST_EXCEPTION,
    concurrent.futures.ALL_COMPLETED,
)
GROUPS = ("type", "engine", "order")

# Each lock is held for an instant, so one is enough for all results. A garbage collection in that instant may take the
# lock again.
_COUNTING = threading.RLock()
_MAKING = threading.RLock()


class AsyncResult(Future[Any]):
    """The result of one request to each of several engines.

    It is a ``concurrent.futures.Future`` and can be awaited. It is done when every engine has replied and all
    output has arrived. A call to one engine given by its id has a single value; any other call has a list of values, in
    the order of the targets.

    Args:
        owner: the part of the client that made the calls.
        calls: one per engine.
        label: the name of the call, e.g. ``apply(f)``.
        single: whether the value of the only call is returned, rather than a list.
        return_exceptions: put exceptions into the list of values instead of raising them.
    """

    _why_unsendable = "a result cannot leave its client's process: pass its value, result.get()"

    def __init__(
        self,
        owner: CallController,
        calls: Sequence[Call],
        *,
        label: str,
        single: bool = False,
        return_exceptions: bool = False,
    ) -> None:
        # Future.__init__ is not called. It makes a condition variable, which is two thirds of the memory of a future.
        # Here it is made when it is needed: if there are many results, most are looked at only when they have ended.
        self._made_condition: threading.Condition | None = None
        self._state = PENDING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []

        self._owner = owner
        self._calls = list(calls)
        self._label = label
        self._single = single
        self._return_exceptions = return_exceptions
        self._parts_awaited = False
        self._output = AwaitedOutput(self._calls)
        self._open = len(self._calls) + 1  # one more, so that the result cannot end before it is made
        for call in self._calls:
            call.when_settled(self._one_settled)
        self._one_settled()

    # The end of the calls

    def _one_settled(self, call: Call | None = None) -> None:
        with _COUNTING:
            self._open -= 1
            last = self._open == 0
        # A thread that waits for all replies is not woken at each reply: this would be the greatest cost of a call to
        # many engines.
        if self._parts_awaited or (call is not None and call.error is not None):
            self.notify()
        if last:
            # A result that has been cancelled by now has no use for an outcome.
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                self._resolve()

    def _resolve(self) -> None:
        errors: list[Exception] = []
        outcomes = []
        for call in self._calls:
            if call.error is not None:
                errors.append(call.error)
            outcomes.append(outcome_of(call))
        if errors and not self._return_exceptions:
            self.set_exception(self._combined(errors))
            return
        try:
            value = self._value(outcomes)
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
        failed = len({call.engine_id for call in self._calls if call.error is not None})
        return CompositeError(f"{self._label} failed on {failed} of {many} {plural('engine', many)}", errors)

    def _value(self, values: list[Any]) -> Any:
        return values[0] if self._single else values

    # A future of the standard library

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]  # where the parent has an attribute
        made = self._made_condition
        if made is None:
            with _MAKING:
                made = self._made_condition = self._made_condition or threading.Condition()
        return made

    def done(self) -> bool:
        """Return whether the result has arrived, or has been cancelled."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED)

    def cancelled(self) -> bool:
        """Return whether :meth:`cancel` was called before the result arrived."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result and return it, as ``Future.result`` does; Ctrl-C ends the waiting and not the calls."""
        arg.check("result", timeout=arg.seconds(timeout, negative=True))
        with self._asking():
            return self._value_or_raise(arg.plain(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the result and return its exception, as ``Future.exception`` does."""
        arg.check("exception", timeout=arg.seconds(timeout, negative=True))
        with self._asking():
            self._wait_until_done(arg.plain(timeout))
            return super().exception(0)

    def _value_or_raise(self, timeout: float | None = None) -> Any:
        self._wait_until_done(timeout)
        if self._state != FINISHED:
            return super().result(0)
        if self._exception is None:  # the parent would have made a lock first
            return self._result
        try:
            # The parent would not raise an exception that is false because its length is 0.
            raise self._exception
        finally:
            # Otherwise the exception's traceback would hold this future.
            self = None  # type: ignore[assignment]  # noqa: PLW0642

    def _wait_until_done(self, timeout: float | None) -> None:
        # Do not call the parent's method: if it is woken before the end, even by notify(), it raises TimeoutError.
        if not self.done():
            self._owner.check_process()
            with self._condition:
                self._condition.wait_for(self.done, timeout)

    def set_result(self, result: Any) -> None:
        """Give the future its value, as ``Future.set_result`` does."""
        if not self._end_unnoticed(result, None):
            super().set_result(result)

    def set_exception(self, exception: BaseException | None) -> None:
        """Give the future its exception, as ``Future.set_exception`` does."""
        if not self._end_unnoticed(None, exception):
            super().set_exception(exception)

    def _end_unnoticed(self, result: Any, exception: BaseException | None) -> bool:
        """End without a notification, if no thread has asked for one."""
        with _MAKING:
            if self._made_condition is not None or self._state != PENDING:
                return False
            self._result, self._exception = result, exception
            self._state = FINISHED
            return True

    def notify(self) -> None:
        """Wake the threads that wait, so that they check whether they have waited long enough."""
        condition = self._made_condition  # a thread that makes a condition later checks after making it
        if condition is not None:
            with condition:
                condition.notify_all()

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Call ``fn`` with this future when it is done, on a thread where ``fn`` may wait for other results."""
        arg.check("add_done_callback", fn=arg.function(fn))
        self._owner.check_process()
        # asyncio's callback only wakes an event loop, and must not queue behind a callback that waits.
        if getattr(fn, "__module__", "") == "asyncio.futures":
            super().add_done_callback(fn)
        else:
            super().add_done_callback(lambda done: self._owner.run_callback(partial(fn, done)))

    def cancel(self) -> bool:
        """Give the result up, in any state. Calls that have not begun never run; calls that run are not waited for.

        Returns:
            False if the result was done already.
        """
        if self.cancelled() or not super().cancel():
            return self.cancelled()
        self.set_running_or_notify_cancel()
        self._owner.abort([call for call in self._calls if not call.done], interrupt=False)
        return True

    # Waiting

    def get(
        self,
        timeout: float | None = None,
        return_exceptions: bool | None = None,
        return_when: str | None = None,
    ) -> Any:
        """Wait for the result and return it.

        Ctrl-C during the wait interrupts the engines that have not replied, and their errors are raised; with
        ``return_exceptions``, KeyboardInterrupt is raised instead.

        Args:
            timeout: seconds to wait; None or a negative number waits as long as it takes.
            return_exceptions: return exceptions in place of the values they prevented; the default is the option of the
                call.
            return_when: ``concurrent.futures.FIRST_EXCEPTION`` raises as soon as one engine has failed.

        Raises:
            TimeoutError: (the built-in class) if the result has not arrived in time.
            CancelledError: after :meth:`cancel`.
            RemoteError: if a call to one engine failed; the error is also an instance of the original class.
            CompositeError: if a call to several engines failed on some; it has all failures, and each ``get`` raises
                it.
        """
        arg.check(
            "get",
            timeout=arg.seconds(timeout, negative=True),
            return_exceptions=arg.flag(return_exceptions, or_none=True),
            return_when=arg.choice(return_when, RETURN_WHEN, or_none=True),
        )
        if return_exceptions is None:
            return_exceptions = self._return_exceptions
        first = return_when == concurrent.futures.FIRST_EXCEPTION
        wait = partial(self._wait, first_exception=first)
        if not wait_or_interrupt(
            wait, self._calls, self._owner, timeout, keeps_errors=bool(return_exceptions), output=self._output
        ):
            raise TimeoutError(
                f"{self._label} is not done after {timeout:g} s: {self.progress} of {len(self)} answered. "
                "It goes on: call get() again to wait longer, or abort() to cancel it"
            )
        self._owner.mark_retrieved(self._calls)
        if not self.done():  # one engine has failed, and others have not replied
            raise self._combined(self._failures())
        if return_exceptions and not self.cancelled():
            return self._value([outcome_of(call) for call in self._calls])
        return self._value_or_raise()

    r = property(get, doc="The result; waits for it.")

    def get_dict(self, timeout: float | None = None) -> dict[int, Any]:
        """Wait like :meth:`get` and return the values by engine id; ValueError if an engine replied more than once."""
        arg.check("get_dict", timeout=arg.seconds(timeout, negative=True))
        values = self.get(timeout)
        ids = [call.engine_id for call in self._calls]
        if len(set(ids)) != len(ids):
            raise ValueError(f"some of the engines {sorted(set(ids))} answered more than once: there is no dict")
        return dict(zip(ids, [values] if self._single else values, strict=True))

    @property
    def result_dict(self) -> dict[int, Any]:
        """The values by engine id; waits for them."""
        return self.get_dict()

    def wait(self, timeout: float | None = -1, return_when: str | None = None) -> Any:
        """Wait until the result has arrived, or for ``timeout`` seconds (None and negative: as long as it takes).

        Returns:
            Whether the result has arrived. With ``return_when`` (a constant of ``concurrent.futures``): the set of done
            parts and the set of pending parts, where each engine has one part.

        Raises:
            KeyboardInterrupt: after Ctrl-C, which interrupts the engines without a reply, as it does in :meth:`get`.
        """
        arg.check(
            "wait",
            timeout=arg.seconds(timeout, negative=True),
            return_when=arg.choice(return_when, RETURN_WHEN, or_none=True),
        )
        limit = arg.limit_s(timeout)

        def wait() -> Any:
            if return_when is None:
                return wait_showing(stopping(self._wait, self._owner), self._calls, limit)
            if not self.done():
                self._owner.check_process()
            return concurrent.futures.wait(self.split(), limit, return_when)

        def stop(presses: Presses) -> None:
            interrupt_and_wait(self._wait, self._calls, self._owner, presses=presses)
            self._owner.mark_retrieved(self._calls)
            # get() raises the errors of the result; wait() does not. But wait() must not return either, because the
            # next statement would run.
            raise keyboard_interrupt(f"{self._label} was interrupted: its get() says where")

        return debugging(lambda: interruptible(wait, stop), self._owner, self._output.settle)

    def wait_for_output(self, timeout: float | None = -1) -> bool:
        """Wait until all output has arrived, which is when the result is complete; see :meth:`wait`."""
        arg.check("wait_for_output", timeout=arg.seconds(timeout, negative=True))
        return bool(self.wait(timeout))

    def wait_interactive(
        self,
        interval: float = 0.1,
        timeout: float | None = -1,
        widget: object = None,
        return_when: str | None = None,
    ) -> None:
        """Wait with a progress bar; many tasks also have a rate and an estimate. Ctrl-C ends the waiting, not the work.

        Args:
            interval: seconds between two updates.
            timeout: seconds to wait at most; None or negative: as long as it takes.
            widget: has no effect; accepted for scripts written for ipyparallel.
            return_when: a constant of ``concurrent.futures``: wait only for the first reply or failure.
        """
        from nsactors.results.display.progress import show_progress

        arg.check(
            "wait_interactive",
            interval=arg.number(interval, above=0),
            timeout=arg.seconds(timeout, negative=True),
            return_when=arg.choice(return_when, RETURN_WHEN, or_none=True),
        )
        show_progress(self, float(interval), arg.limit_s(timeout), return_when)

    def ready(self) -> bool:
        """Return whether every engine has replied."""
        return self.done()

    def successful(self) -> bool:
        """Return whether every engine has replied without an error; RuntimeError if the result is not done."""
        if not self.done():
            raise RuntimeError(f"{self._label} is not done: ask ready() first")
        self._owner.mark_retrieved(self._calls)
        return not self.cancelled() and not self._failures()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Count the errors as retrieved if the result is done at the end of the block, and show its output."""
        try:
            yield
        finally:
            if self.done():
                self._owner.mark_retrieved(self._calls)
                self._output.settle()

    def _wait(self, timeout: float | None, *, first_exception: bool = False) -> bool:
        if self.done():  # the usual case if the caller has taken the replies: no condition is needed
            return True
        self._owner.check_process()
        limit = arg.limit_s(timeout)

        def over() -> bool:
            return self.done() or (first_exception and any(c.error is not None for c in self._calls))

        with self._condition:
            return self._condition.wait_for(over, limit)

    def _one(self, call: Call) -> Any:
        """Return the outcome of one call; wait for it, and raise its error."""

        def wait(timeout_s: float | None) -> bool:
            if not call.done:
                self._owner.check_process()
            with self._condition:
                self._parts_awaited = True
                return self._condition.wait_for(lambda: call.done, timeout_s)

        keeps_errors = self._return_exceptions
        wait_or_interrupt(wait, self._calls, self._owner, None, keeps_errors=keeps_errors, output=self._output)
        if call.error is not None and not keeps_errors:
            self._owner.mark_retrieved(self._calls)
            raise self._combined([call.error])
        return outcome_of(call)

    # Parts

    @classmethod
    def join(cls, *results: AsyncResult) -> AsyncResult:
        """Join several results (at least one) into one result, with their values one after the other.

        It returns exceptions in place of values, as with ``return_exceptions``, if all of ``results`` do so.
        """
        for result in results:
            arg.check("join", results=arg.instance(result, AsyncResult, "results of calls"))
        if not results:
            raise ValueError("join() takes at least one result")
        calls = [call for result in results for call in result._calls]
        tolerant = all(result._return_exceptions for result in results)
        return AsyncResult(results[0]._owner, calls, label=results[0]._label, return_exceptions=tolerant)

    def split(self) -> tuple[AsyncResult, ...]:
        """Return one result per engine, for ``concurrent.futures.wait`` and the like."""
        if len(self._calls) == 1:
            return (self,)
        tolerant = self._return_exceptions
        return tuple(
            AsyncResult(self._owner, [call], label=self._label, single=True, return_exceptions=tolerant)
            for call in self._calls
        )

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Any]:
        """Yield the values in order, each when it and all earlier ones have arrived; TypeError for a single value."""
        if self._single:
            raise TypeError(f"{self._label} ran on one engine: its result is one value, in .get()")
        return self._iterate()

    def _iterate(self) -> Iterator[Any]:
        for call in self._calls:
            yield self._one(call)

    def __await__(self) -> Generator[Any, None, Any]:
        with self._asking():
            return (yield from asyncio.wrap_future(self).__await__())

    def __aiter__(self) -> AsyncIterator[Any]:
        """Yield the values as ``for`` does, without blocking the event loop."""
        if self._single:
            raise TypeError(f"{self._label} ran on one engine: its result is one value, which `await` gives")
        return self._iterate_async()

    async def _iterate_async(self) -> AsyncIterator[Any]:
        notifier = AsyncNotifier()
        for call in self._calls:
            call.when_settled(notifier.tell)
        for call in self._calls:
            await notifier.wait_for(lambda: call.done)  # noqa: B023 (it is awaited at once)
            yield self._one(call)

    def __getitem__(self, key: int | slice | str) -> Any:
        """Return values by position, if the result is done, or an entry of the metadata by name, at any time."""
        if isinstance(key, str):
            return self.known(key)
        if not isinstance(key, slice):
            arg.check("result[key]", key=arg.whole(key))
        if not self.done():
            raise TimeoutError(f"{self._label} is not done: get() waits for it")
        return self.get()[key]

    def abort(self, *, interrupt: bool = False) -> None:
        """Cancel the calls that have not begun: they never run, and getting their result raises ``TaskAborted``.

        Args:
            interrupt: also raise KeyboardInterrupt in the calls that run.

        Raises:
            RuntimeError: if the result is done.
            CapabilityError: with ``interrupt``, if calls run on engines that are threads or embedded programs; calls
                that had not begun are cancelled anyway.
        """
        arg.check("abort", interrupt=arg.flag(interrupt))
        if self.done():
            raise RuntimeError(f"{self._label} is done: nothing can be aborted")
        self._owner.abort([call for call in self._calls if not call.done], interrupt=interrupt)

    def debug(self) -> None:
        """Open the debugger on the frames of the calls that failed, at this program's prompt.

        Engines keep the frames of the last failure of each client that has a prompt: see ``Client.debug``.

        Raises:
            RuntimeError: if the result is not done.
            DebuggerUnavailable: if no engine keeps frames of this result any more, or there is no prompt.
        """
        if not any(call.done for call in self._calls):
            raise RuntimeError(f"{self._label} is not done: there is no failure to look at")
        self._owner.mark_retrieved(self._calls)
        self._owner.debug(self._calls)

    # Progress, times and metadata

    @property
    def calls(self) -> list[Call]:
        """The calls, in the order of the targets."""
        return list(self._calls)

    @property
    def settled(self) -> bool:
        """True if every engine has replied."""
        return all(call.done for call in self._calls)

    @property
    def progress(self) -> int:
        """The number of engines that have replied."""
        return sum(call.done for call in self._calls)

    @property
    def msg_ids(self) -> list[str]:
        """The ids of the requests."""
        return [str(call.request_id) for call in self._calls]

    @property
    def elapsed(self) -> float:
        """Seconds since submission, until now or the last reply."""
        if not self._calls:
            return 0.0
        end = time.time() if not self.settled else max((c.received or 0.0) for c in self._calls)
        return end - min(call.submitted for call in self._calls)

    @property
    def serial_time(self) -> float:
        """Seconds that the engines have computed so far, added up."""
        return sum(c.completed - c.started for c in self.calls if c.completed is not None and c.started is not None)

    @property
    def wall_time(self) -> float:
        """Seconds from submission to the last reply.

        Raises:
            TimeoutError: if the result is not done.
        """
        if not self.settled:
            raise TimeoutError(f"{self._label} is not done: wait() for it first")
        return self.elapsed

    @property
    def metadata(self) -> Any:
        """The metadata of the call to each engine, as a list; for a single call, its metadata alone."""
        known = [Metadata.of(call) for call in self.calls]
        return known[0] if self._single else known

    def known(self, key: str) -> Any:
        """Return one entry of the metadata: a list with the entry of each call, or the entry of the single call.

        Raises:
            UnknownKey: if there is no such entry.
        """
        arg.check("known", key=arg.text(key))
        if key not in METADATA_KEYS:
            raise UnknownKey(key, METADATA_KEYS)
        values = [Metadata.of(call)[key] for call in self.calls]
        return values[0] if self._single else values

    def __getattr__(self, name: str) -> Any:
        if name in METADATA_KEYS:
            return self.known(name)
        return suggest_name(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *METADATA_KEYS})

    def timeline(self, engines: Iterable[int] = ()) -> Timeline:
        """Return a picture of the engines' work in time, with utilisation and speed-up, for the calls that have ended.

        Args:
            engines: ids of engines that get a line even if they did nothing, and then count as unused, e.g. ``rc.ids``.
        """
        from nsactors.results.display.timeline import Timeline, check_engines

        check_engines("timeline", engines)
        return Timeline.of(self, engines=engines)

    # Display

    @contextmanager
    def stream_output(self) -> Iterator[None]:
        """Show the output of the engines live, within a ``with`` block.

        Example:
            >>> with result.stream_output():
            ...     result.wait()
        """
        from nsactors.results.display.live import LiveOutput, open_screen

        live = LiveOutput(self._calls, open_screen(blocking=True))
        thread = live.follow()
        try:
            yield
        finally:
            if not self.settled:
                live.stop()
            thread.join()
            live.let_go()

    def display_outputs(self, groupby: str = "type", result_only: bool = False) -> None:
        """Show the output of the engines that has not been shown yet, labelled by engine.

        Args:
            groupby: ``"type"`` (all stdout, then all stderr ...), ``"engine"`` or ``"order"`` (as written).
            result_only: show values and displays, not text.

        Raises:
            InvalidArgument: for another ``groupby``.
        """
        from nsactors.results.display.outputs import print_outputs

        arg.check("display_outputs", groupby=arg.choice(groupby, GROUPS), result_only=arg.flag(result_only))
        self.wait()
        print_outputs(self._calls, groupby, result_only=result_only)

    @property
    def shows_nothing(self) -> bool:
        """True if a prompt shows nothing for this result, because its cells have no value."""
        from nsactors.results.display.outputs import cell_values

        return cell_values(self._calls) == []

    def __rich__(self) -> Any:
        """Return a table of the progress of each engine."""
        from nsactors.results.display.outputs import result_table

        return result_table(repr(self), self.calls)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show this result at IPython's prompt: the values if it is a cell that has ended, otherwise the ``repr``."""
        from nsactors.results.display.outputs import cell_values, values_as_text

        values = cell_values(self._calls)
        printer.text(values_as_text(values, single=self._single) if values else repr(self))

    def _repr_html_(self) -> str | None:
        from nsactors.results.display.outputs import cell_values, values_as_html
        from nsactors.results.display.tables import table_as_html

        values = cell_values(self._calls)
        return table_as_html(self.__rich__()) if values is None else values_as_html(values, single=self._single)

    def __repr__(self) -> str:
        if self.cancelled():
            state = "cancelled"
        elif not self.done():
            state = f"pending, {self.progress} of {len(self)} answered" if not self._single else "pending"
        else:
            state = "failed" if self._failures() else "finished"
        return printable(f"<{type(self).__name__}({self._label}): {state}>", "")


def outcome_of(call: Call) -> Any:
    """Return the value or error of a call that has ended."""
    if call.error is not None:
        return call.error
    if isinstance(call, MapCall):
        return call.values
    return ExecuteReply(call) if call.executes else call.value


class CallTaker(CallController, Protocol):
    """A maker of calls; the threads that make them may take the replies themselves."""

    def take(self, calls: Sequence[Call]) -> bool:
        """Wait a moment for the replies to calls that were submitted as ``awaited``; return whether all have arrived.

        If not, other threads receive the missing replies from now on.
        """
        ...


def receive(owner: CallTaker, calls: Sequence[Call], *, label: str, single: bool, as_result: bool = False) -> Any:
    """Return the value of calls that were submitted as ``awaited``, as ``AsyncResult.get`` would.

    Most calls are answered within milliseconds. The caller's own thread takes their replies, so no other thread must
    wake it, and no result object is made on which other threads could wait.

    Args:
        owner: the maker of the calls.
        calls: the calls.
        label: the name of the result.
        single: return the value of the only call, not a list.
        as_result: return an ``AsyncResult`` that is done, in place of its value.
    """

    def take() -> bool:
        if not owner.take(calls):
            return False
        for call in calls:
            if call.error is not None:
                return False
        if has_unshown(calls):
            AwaitedOutput(calls).settle()
        return True

    def stop(presses: Presses) -> bool:
        interrupt_and_wait(AsyncResult(owner, calls, label=label, single=single)._wait, calls, owner, presses=presses)
        return False

    succeeded = interruptible(take, stop)
    if succeeded and not as_result:
        return calls[0].value if single else [call.value for call in calls]
    result = AsyncResult(owner, calls, label=label, single=single)
    value = None if succeeded else result.get()
    return result if as_result else value
