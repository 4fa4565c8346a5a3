"""Interrupts and time limits, the border between user code and machinery, and failures of user code.

An interrupt may reach user code only. KeyboardInterrupt in the machinery around it (IPython compiling a cell, a
traceback being drawn) has left modules half imported and engines broken. So all user code runs below
:func:`run_user_code`, and the signal handler looks for that frame on the stack that it has stopped.
"""

from __future__ import annotations

import asyncio
import bdb
import ctypes
import itertools
import linecache
import os
import selectors
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import CodeType, FrameType, TracebackType
from typing import Any, ParamSpec, TypeVar

from nsactors.errors import Failure
from nsactors.errors.exception_state import traceback_of
from nsactors.errors.failure import FailedAt, file_name, take_item
from nsactors.protocol.control import Obstacle
from nsactors.protocol.messages import Expired
from nsactors.protocol.read_only import note_on_read_only
from nsactors.protocol.serialize import pack_whole

P = ParamSpec("P")
T = TypeVar("T")

RESEND_AFTER_S = 0.02
UNSEEN_TIMES = 20  # signals in a row that were not handled; even a starved process handles one before that
_LOOP_FILES = (asyncio.__path__[0], selectors.__file__)
_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
_LIBRARY_PREFIXES = (
    *(sysconfig.get_path(p) for p in ("stdlib", "platstdlib", "purelib", "platlib")),
    "<frozen",
    _PACKAGE,
)
_PROTECTED: set[CodeType] = set()


def run_user_code(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call ``function(*args, **kwargs)``; user code is running while this frame is on the stack."""
    return function(*args, **kwargs)


def run_user_item(function: Callable[[Any], T], item: Any) -> T:
    """Call ``function(item)`` as :func:`run_user_code` does, in a third of its time."""
    return function(item)


def run_user_row(function: Callable[..., T], items: tuple[Any, ...]) -> T:
    """Call ``function(*items)`` as :func:`run_user_item` does."""
    return function(*items)


_RUNS_USER_CODE = frozenset({run_user_code.__code__, run_user_item.__code__, run_user_row.__code__})


def user_traceback(error: BaseException) -> TracebackType | None:
    """Return the part of an exception's traceback that lies below the machinery; None if there is none.

    That part begins with the first frame outside of this package, so the error of a call that cannot be unpickled shows
    no frames of this package.
    """
    at = traceback_of(error)
    while at is not None and not _is_border(at.tb_frame.f_code):
        at = at.tb_next
    below = None if at is None else at.tb_next
    while below is not None and below.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        below = below.tb_next
    # The signal handler and the debugger raise these, in functions that user code seems to call.
    return _without_machinery(below) if issubclass(type(error), KeyboardInterrupt | bdb.BdbQuit) else below


def _without_machinery(first: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the signal handler, and functions of this package that it stopped, at its end."""
    last, at = None, first
    while at is not None:
        if not at.tb_frame.f_code.co_filename.startswith(_PACKAGE):
            last = at
        at = at.tb_next
    if last is None:
        return None
    last.tb_next = None
    return first


def is_user_frame(frame: FrameType) -> bool:
    """Return whether a frame runs code of the user, not of a library."""
    return is_user_code(frame.f_code)


def is_user_code(code: CodeType) -> bool:
    """Return whether code belongs to the user, not to a library."""
    return code.co_filename.startswith("<engine ") or not is_library_file(code.co_filename)


def is_library_file(filename: str) -> bool:
    """Return whether a file belongs to Python, to an installed package or to nsactors."""
    # Packages may also be installed in the user's home, or in an environment that the present one extends.
    return filename.startswith(_LIBRARY_PREFIXES) or "/site-packages/" in filename or "/dist-packages/" in filename


def protected(function: Callable[P, T]) -> Callable[P, T]:
    """Exempt a function of this package that user code calls (``print`` ends in one) from interrupts."""
    _PROTECTED.add(function.__code__)
    return function


class CellEventLoop:
    """The event loop of a namespace: it runs top-level ``await`` and the tasks that cells leave behind.

    Args:
        is_current: make this loop the event loop of the thread, for ``asyncio.get_event_loop()`` in later cells; False
            if the thread does not belong to the engine.
    """

    def __init__(self, *, is_current: bool = True) -> None:
        self._is_current = is_current
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._interrupted = False
        self.awaiting = False  # True while a cell's own code runs or is suspended: all code on the loop is the user's

    async def user_code(self, coroutine: Awaitable[T]) -> T:
        """Await a cell's own code; the counterpart of :func:`run_user_code` for coroutines."""
        self.awaiting = True
        try:
            return await coroutine
        except asyncio.CancelledError:
            if self._interrupted:
                raise KeyboardInterrupt from None
            raise
        finally:
            self.awaiting = False

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task of the cell that runs; None between cells that await."""
        return self._task

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a cell's coroutine to its end.

        Raises:
            KeyboardInterrupt: if the coroutine was interrupted. Every task of the loop has then been cancelled, so that
                no task of an earlier cell is resumed inside the next cell that awaits.
        """
        loop = self._loop = self._loop or asyncio.new_event_loop()
        if self._is_current:
            asyncio.set_event_loop(loop)
        with _suspended_loop():
            return self._run(loop, coroutine)

    def _run(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
        self._interrupted = False
        self._task = loop.create_task(coroutine)
        try:
            result: T = loop.run_until_complete(self._task)
            return result
        except KeyboardInterrupt:
            self._interrupted = True
            raise
        finally:
            self._task = None
            self.awaiting = False
            if self._interrupted:
                self._cancel_everything(loop)

    def interrupt(self) -> None:
        """Cancel the awaited coroutine; call this from a signal handler on the thread of the loop."""
        if self._loop is not None and self._task is not None:
            self._interrupted = True
            self._loop.call_soon_threadsafe(self._task.cancel)

    def _cancel_everything(self, loop: asyncio.AbstractEventLoop) -> None:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))

    def close(self) -> None:
        """Close the loop at the end of the namespace."""
        if self._loop is not None:
            self._loop.close()


@contextmanager
def _suspended_loop() -> Iterator[None]:
    """Let a second event loop run on this thread while a task of another loop runs here, as in an embedded program."""
    outer = asyncio._get_running_loop()
    if outer is None:
        yield
        return
    task = asyncio.current_task(outer)
    if task is not None:
        asyncio._leave_task(outer, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        if task is not None:
            asyncio._enter_task(outer, task)


class InterruptHandler:
    """Raises KeyboardInterrupt on SIGINT in user code of the interrupted request, and nowhere else."""

    def __init__(self, cell_loop: CellEventLoop) -> None:
        self._cell_loop = cell_loop
        self._running: object | None = None
        self._target: object | None = None
        self._struck: object | None = None  # the last request in which KeyboardInterrupt was raised
        self._insists = False
        self._tracer: tuple[Any] | None = None  # the user's trace function, until a line has been interrupted
        self._handled = 0  # the number of signals that have been handled
        self._handled_before = 0  # that number when the last signal was sent
        self._main_thread = threading.get_ident()
        self._is_of_command = False
        # If the request is at a debugger's prompt, ends it without a signal, and returns True.
        self.instead: Callable[[], bool] = lambda: False
        self.is_at_prompt: Callable[[], bool] = lambda: False  # the request is at a debugger's prompt
        self._never = threading.Event()  # to pause on: a new event would cost each request 3 microseconds

    def install(self) -> None:
        """Take over SIGINT; Ray blocks it in its workers."""
        signal.signal(signal.SIGINT, self._on_sigint)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def enter(self, request: object) -> None:
        """Let interrupts of ``request`` have an effect from now on."""
        self._running = request

    def leave(self) -> None:
        """End the request that :meth:`enter` began; a pending interrupt is dropped."""
        self._running = self._target = None
        if self._insists:
            self._insists = False
            if self._tracer is not None:
                sys.settrace(*self._tracer)
                self._tracer = None

    def interrupt(
        self, request: object, *, insists: bool = False, is_of_command: bool = False, give_up_after_s: float = 1.0
    ) -> bool:
        """Interrupt ``request`` from another thread; return whether it was interrupted within ``give_up_after_s``.

        A signal that arrives in the machinery has no effect, so the signal is sent again until one arrives in user code
        or the request ends. After this method has returned, :meth:`remind` sends further signals. C code sees a signal
        only when it returns to Python.

        Args:
            request: the request; nothing happens if another one is running.
            insists: raise KeyboardInterrupt a second time in the next line that runs. If the code has caught the first
                one, that line is in its exception handler.
            is_of_command: interrupt only a command typed at the request's debugger; nothing happens at its prompt.
            give_up_after_s: seconds to keep trying while Python code runs.
        """
        self._is_of_command = is_of_command
        if self._running == request and self._ends_at_prompt():
            return True
        self._insists = insists
        self._target = request
        handled = self._handled
        for times in range(int(give_up_after_s / RESEND_AFTER_S)):
            if self._running != request or self._target is None:
                break
            if self._ends_at_prompt():  # the request has reached a prompt by now, where signals have no effect
                self._target = None
                break
            if times >= UNSEEN_TIMES and self._handled == handled:
                break  # C code is running and the signal waits for it; this thread has other work to do
            self._send()
            self._never.wait(RESEND_AFTER_S)
        return self._target is None

    def remind(self) -> None:
        """Send the signal once more if it had no effect; call this now and then."""
        target = self._target
        if target is not None and target == self._running and self._ends_at_prompt():
            self._target = None
            return
        # Not while a signal is pending: each would wake C code that waits, to no effect.
        if target is not None and target == self._running and self._handled != self._handled_before:
            self._send()

    def _ends_at_prompt(self) -> bool:
        """End the request if it is at a debugger's prompt; return False if a signal is needed."""
        return self.is_at_prompt() if self._is_of_command else self.instead()

    def has_struck(self, request: object) -> bool:
        """Return whether KeyboardInterrupt has been raised in this request."""
        return self._struck == request

    def obstacle(self, request: object) -> Obstacle | None:
        """Return the reason why an interrupted request has not ended; None if it does not run or no reason is known."""
        if self._running != request:
            return None
        frame = _user_frame(sys._current_frames().get(self._main_thread))
        where = "" if frame is None else _describe_line(frame)
        if self._target == request and self._handled == self._handled_before:
            return Obstacle("native", where)
        return Obstacle("caught", where) if self._struck == request else None

    def _send(self) -> None:
        self._handled_before = self._handled
        signal.pthread_kill(self._main_thread, signal.SIGINT)

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        self._handled += 1
        if self._target is None or self._target != self._running:
            return
        if self._cell_loop.awaiting and frame is not None and frame.f_code.co_filename.startswith(_LOOP_FILES):
            # The loop is idle or between two tasks: an exception would break the loop, a cancellation reaches the cell.
            self._struck, self._target = self._target, None
            self._cell_loop.interrupt()
        elif _is_users(frame, by_default=self._cell_loop.awaiting):
            self._struck, self._target = self._target, None
            if self._insists:
                self._tracer = self._tracer or (sys.gettrace(),)
                _raise_in_next_line(frame)
            raise KeyboardInterrupt


def raise_in_thread(thread: int, error: type[BaseException]) -> None:
    """Raise an exception in another thread when it next runs a line of Python; C code goes on."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def in_user_code(frame: FrameType | None) -> bool:
    """Return whether a frame is in user code of a request, and not in machinery that user code calls."""
    return _is_users(frame, by_default=False)


def _is_users(frame: FrameType | None, *, by_default: bool) -> bool:
    """Return whether :func:`in_user_code` holds; ``by_default`` for a frame below neither user code nor machinery."""
    while frame is not None:
        if frame.f_code in _RUNS_USER_CODE:
            return True
        if frame.f_code in _PROTECTED:
            return False
        frame = frame.f_back
    return by_default


def _raise_in_next_line(frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt in the next line of the user's frames.

    That line is in the exception handler that caught an earlier KeyboardInterrupt, or in a caller. Nothing else ends
    ``while True`` around ``try: ... except BaseException: pass``, because a signal nearly always arrives inside the
    ``try``. Python stops tracing when a trace function raises.
    """

    def in_line(frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            raise KeyboardInterrupt
        return in_line

    sys.settrace(lambda frame, event, argument: None)  # do not trace new frames, such as those of the machinery
    while frame is not None and not calls_user_code(frame):
        frame.f_trace = in_line
        frame = frame.f_back


def calls_user_code(frame: FrameType) -> bool:
    """Return whether a frame is the last one of the machinery before user code."""
    return _is_border(frame.f_code) or frame.f_code.co_filename.startswith(_LOOP_FILES)


def _is_border(code: CodeType) -> bool:
    """Return whether a frame of this code calls user code."""
    return code in _RUNS_USER_CODE or code is CellEventLoop.user_code.__code__


def _user_frame(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame of the user's code below the machinery; None if no user code is running."""
    found = None
    while frame is not None and not calls_user_code(frame):
        if found is None and is_user_frame(frame):
            found = frame
        frame = frame.f_back
    return None if frame is None else found


def _describe_line(frame: FrameType) -> str:
    """Describe the current line of a frame: ``np.sort(x) (<cell 3>, line 1)``."""
    code, line = frame.f_code, frame.f_lineno
    place = f"{file_name(code.co_filename)}, line {line}"
    text = linecache.getline(code.co_filename, line).rstrip("\n")
    first, last, start, stop = next(itertools.islice(code.co_positions(), frame.f_lasti // 2, None), (None,) * 4)
    if first == last == line and start is not None and stop is not None:
        text = text.encode()[start:stop].decode(errors="replace")  # offsets are in bytes
    return f"{text.strip()} ({place})" if text.strip() else place


def is_unknown_name(error: BaseException) -> bool:
    """Return whether an error means that a name is not bound in the namespace."""
    # By the type: `isinstance` would evaluate `__class__` of the user's exception.
    return issubclass(type(error), NameError) and not issubclass(type(error), UnboundLocalError)


def restart_note(engine_id: int, clock_time: str) -> str:
    """Return the note for errors about unknown names on an engine that restarted at ``clock_time``."""
    return f"engine {engine_id} restarted at {clock_time} with an empty namespace: define or push the name again"


def capture_failure(
    error: BaseException, engine_id: int, call: str, new: str = "", item: FailedAt | None = None
) -> Failure:
    """Describe an error that user code of ``call`` raised on an engine.

    Args:
        error: the error.
        engine_id: the engine.
        call: the label of the request, for people.
        new: the note to add if the error is about an unknown name; see :func:`restart_note`.
        item: the item of a map; None if the error itself says it, see ``set_item``, or for other calls.
    """
    if new and is_unknown_name(error):
        _add_note(error, new)
    return describe_failure(error, user_traceback(error), engine_id, call, item or take_item(error))


@protected  # otherwise an interrupt could be taken for an error of a user's class, and be lost
def describe_failure(
    error: BaseException, traceback: TracebackType | None, engine_id: int, call: str, item: FailedAt | None = None
) -> Failure:
    """Describe an error that ``call`` raised, with the frames of ``traceback`` from the first frame of user code on.

    ``item`` is the item of a map, and the arguments of its function.
    """
    BaseException.with_traceback(error, traceback)
    if (note := note_on_read_only(error, traceback, on_engine=True)) is not None:
        _add_note(error, note)
    return Failure.capture(
        error, engine_id=engine_id, call=call, dumps=pack_whole, is_user_frame=is_user_frame, item=item
    )


def _add_note(error: BaseException, note: str) -> None:
    with suppress(BaseException):  # the notes of a user's class may be any object
        BaseException.add_note(error, note)


# Seconds between interrupts. Code that has caught an interrupt may be cleaning up: it gets two seconds, and two more.
# After that it is interrupted even in an exception handler, at growing intervals.
AGAIN_AFTER_S = (2.0, 2.0, 4.0, 8.0, 16.0)
PATIENT_TIMES = 2


class TimeLimit:
    """Interrupt a request when its time is over, and again for as long as it goes on.

    The thread that runs requests calls :meth:`begin` and :meth:`end`; another one calls :meth:`look`.

    Args:
        handler: interrupts requests.
        clock: returns seconds.
    """

    def __init__(self, handler: InterruptHandler, clock: Callable[[], float] = time.monotonic) -> None:
        self._interrupts = handler
        self._clock = clock
        self._lock = threading.Lock()
        self._running: object | None = None
        self._began = self._due = 0.0
        self._limit_s = 0.0
        self._times = 0
        self._paused_at: float | None = None

    def begin(self, request: object, limit_s: float, *, ran_s: float = 0.0) -> None:
        """Start the clock of a request.

        Args:
            request: the request.
            limit_s: its limit in seconds.
            ran_s: the time in seconds for which it has already run.
        """
        with self._lock:
            self._began = self._clock() - ran_s
            self._due = self._began + limit_s
            self._running, self._limit_s, self._times = request, limit_s, 0

    def pause(self) -> None:
        """Stop the clock, because the request waits for a user."""
        with self._lock:
            self._paused_at = self._clock()

    def resume(self) -> None:
        """Let the clock go on."""
        with self._lock:
            if self._paused_at is not None:
                paused_s = self._clock() - self._paused_at
                self._began, self._due, self._paused_at = self._began + paused_s, self._due + paused_s, None

    def look(self) -> None:
        """Interrupt the request if its time is over; call this every few hundredths of a second."""
        if self._running is None:
            return
        with self._lock:
            request, times = self._running, self._times
            if request is None or self._paused_at is not None or self._clock() < self._due:
                return
            self._due = self._clock() + AGAIN_AFTER_S[min(times, len(AGAIN_AFTER_S) - 1)]
            self._times += 1
        self._interrupts.interrupt(request, insists=times >= PATIENT_TIMES)

    def end(self, *, by_interrupt: bool) -> Expired | None:
        """Stop the clock of a request that has ended; return its outcome if it was interrupted at its limit.

        This outcome counts even if the request caught the interrupt and returned a value.

        Args:
            by_interrupt: whether the request raised KeyboardInterrupt.
        """
        if self._running is None:
            return None
        with self._lock:
            request, self._running = self._running, None
            if not self._times or not self._interrupts.has_struck(request):
                return None  # it ended by itself just before the interrupt
            return Expired(self._limit_s, None if by_interrupt else self._clock() - self._began)
