"""Where user code begins on the stack, and how it is interrupted.

An interrupt may hit user code only. Raised in the machinery around it (IPython compiling a cell, a traceback being
drawn) it has left modules half imported and engines broken. So all user code runs below :func:`run_user_code`, and
the signal handler looks for that frame on the stack it has stopped.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import sysconfig
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import CodeType, FrameType, TracebackType
from typing import Any, ParamSpec, TypeVar

__all__ = ["CellLoop", "InterruptGate", "is_user_frame", "protected", "run_user_code", "user_traceback"]

P = ParamSpec("P")
T = TypeVar("T")

RESEND_AFTER_S = 0.02
_LOOP_FILES = (asyncio.__path__[0], selectors.__file__)
_PACKAGE = os.path.dirname(os.path.dirname(__file__))
_LIBRARY_PREFIXES = (
    *(sysconfig.get_path(p) for p in ("stdlib", "platstdlib", "purelib", "platlib")),
    "<frozen",
    _PACKAGE,
)
_PROTECTED: set[CodeType] = set()


def run_user_code(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call ``function(*args, **kwargs)``; while this frame is on the stack, user code is running."""
    return function(*args, **kwargs)


def user_traceback(error: BaseException) -> TracebackType | None:
    """The part of an exception's traceback that is the user's: what lies below the machinery, None if nothing does."""
    at = error.__traceback__
    while at is not None and at.tb_frame.f_code not in (run_user_code.__code__, CellLoop.user_code.__code__):
        at = at.tb_next
    below = None if at is None else at.tb_next
    return _without_machinery(below) if isinstance(error, KeyboardInterrupt) else below


def _without_machinery(first: TracebackType | None) -> TracebackType | None:
    """Take our signal handler, and what of ours it struck, off the end of a traceback: the user was above."""
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
    """Whether a frame is the user's own code rather than that of a library."""
    filename = frame.f_code.co_filename
    return filename.startswith("<engine ") or not filename.startswith(_LIBRARY_PREFIXES)


def protected(function: Callable[P, T]) -> Callable[P, T]:
    """Mark a function of ours that user code calls into (its ``print`` ends there) and that must not be torn apart."""
    _PROTECTED.add(function.__code__)
    return function


class CellLoop:
    """The event loop of a namespace: top-level ``await`` runs on it, and tasks left behind live on it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._interrupted = False
        self.awaiting = False  # a cell's own code is running or suspended: everything on the loop is the user's

    async def user_code(self, coroutine: Awaitable[T]) -> T:
        """Await a cell's own code; as :func:`run_user_code`, for coroutines."""
        self.awaiting = True
        try:
            return await coroutine
        except asyncio.CancelledError:
            if self._interrupted:
                raise KeyboardInterrupt from None
            raise
        finally:
            self.awaiting = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a cell's coroutine to its end.

        Raises:
            KeyboardInterrupt: if it was interrupted; every task of the loop has been cancelled then. One that was not
                resumed inside the next cell that awaited.
        """
        loop = self._loop = self._loop or asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
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
        """Cancel what is being awaited (called from a signal handler on the loop's own thread)."""
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
        """End the loop; call it when the namespace ends."""
        if self._loop is not None:
            self._loop.close()


class InterruptGate:
    """Turns SIGINT into KeyboardInterrupt, in user code of the request it was meant for and nowhere else."""

    def __init__(self, cell_loop: CellLoop) -> None:
        self._cell_loop = cell_loop
        self._running: object | None = None
        self._target: object | None = None
        self._main_thread = threading.get_ident()
        self._never = threading.Event()  # to pause on: an event per request would cost each of them 3 microseconds

    def install(self) -> None:
        """Take over SIGINT; Ray blocks it in its workers."""
        signal.signal(signal.SIGINT, self._on_sigint)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def enter(self, request: object) -> None:
        """``request`` is running from now on."""
        self._running = request

    def leave(self) -> None:
        """No request is running; an interrupt on its way is void."""
        self._running = self._target = None

    def interrupt(self, request: object, *, give_up_after_s: float = 1.0) -> bool:
        """Interrupt ``request`` from another thread; whether it took effect.

        A signal that finds the machinery at work is void, so it is sent again until it finds user code or the request
        ends. Code that holds the GIL sees it only when it lets go.
        """
        self._target = request
        for _ in range(int(give_up_after_s / RESEND_AFTER_S)):
            if self._running != request or self._target is None:
                break
            signal.pthread_kill(self._main_thread, signal.SIGINT)
            self._never.wait(RESEND_AFTER_S)
        return self._target is None

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        if self._target is None or self._target != self._running:
            return
        if self._cell_loop.awaiting and frame is not None and frame.f_code.co_filename.startswith(_LOOP_FILES):
            # The loop is idle or between two tasks: an exception here would tear it, a cancellation reaches the cell.
            self._target = None
            self._cell_loop.interrupt()
        elif _in_user_code(frame) or self._cell_loop.awaiting:
            self._target = None
            raise KeyboardInterrupt


def _in_user_code(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is run_user_code.__code__:
            return True
        if frame.f_code in _PROTECTED:
            return False
        frame = frame.f_back
    return False
