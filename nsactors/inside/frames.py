"""Stacks of threads of this process."""

from __future__ import annotations

import bdb
import linecache
import sys
import threading
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

from nsactors.errors.failure import file_name
from nsactors.namespace.interrupts import CellEventLoop, is_user_code, run_user_code
from nsactors.protocol.inspection import StackFrame, ThreadStack

BORDERS = frozenset({run_user_code.__code__, CellEventLoop.user_code.__code__})
"""The functions of the machinery that call user code."""

_DEBUGGER = bdb.Bdb.trace_dispatch.__code__

REQUESTS = "requests"
"""The name of the thread that runs requests."""

LINE_CHARS = 200
_REQUEST = "EngineActor.handle"

Place = tuple[CodeType, int]
"""A function and a line in it; the line is 0 if it is not known."""


def user_places(frame: FrameType | None, cell_loop: CellEventLoop | None = None) -> list[Place] | None:
    """Return the functions of user code that a thread is in, the innermost first; None if it runs no user code.

    A cell that waits in an ``await`` is in the coroutines that it awaits. Functions of a debugger that has stopped the
    thread are left out.

    Args:
        frame: the innermost frame of the thread.
        cell_loop: the event loop of the cells, if the thread runs them.
    """
    places: list[Place] = []
    while frame is not None:
        if frame.f_code in BORDERS:
            return places
        places.append((frame.f_code, frame.f_lineno or 0))
        if frame.f_code is _DEBUGGER:
            places.clear()
        frame = frame.f_back
    if cell_loop is not None and cell_loop.awaiting:
        return list(reversed(_awaited(cell_loop)))
    return None


def _awaited(cell_loop: CellEventLoop) -> list[Place]:
    """Return the coroutines of a suspended cell, the outermost first."""
    task = cell_loop.task
    at: Any = None if task is None else task.get_coro()
    places: list[Place] = []
    while (frame := getattr(at, "cr_frame", None)) is not None:
        places.append((frame.f_code, frame.f_lineno or 0))
        at = at.cr_await
    border = next((i for i, (code, _) in enumerate(places) if code in BORDERS), -1)
    return places[border + 1 :]


def request_stack(thread: int, cell_loop: CellEventLoop, *, is_running: bool) -> ThreadStack:
    """Return the stack of the thread that runs requests; without frames if no request runs.

    Args:
        thread: the identifier of the thread.
        cell_loop: the event loop of the cells.
        is_running: whether a request runs. If it runs no user code, the stack is that of the machinery: it unpickles
            arguments, or pickles a result.
    """
    frame = sys._current_frames().get(thread)
    places = user_places(frame, cell_loop)
    if places is None and is_running:
        places = list(_machinery(frame))
    return ThreadStack(REQUESTS, described(places or ()))


def program_stack(thread: int) -> ThreadStack | None:
    """Return the stack of a thread that runs user code without a request; None if it runs no user code.

    Args:
        thread: the identifier of the thread.
    """
    places = _users_own(sys._current_frames().get(thread))
    if not places:
        return None
    name = next((one.name for one in threading.enumerate() if one.ident == thread), f"thread {thread}")
    return ThreadStack(name, described(places))


def _users_own(frame: FrameType | None) -> list[Place]:
    """Return the functions of a thread, the innermost first, up to the user's outermost function."""
    places = list(_all(frame))
    while places and not is_user_code(places[-1][0]):
        places.pop()
    return places


def other_stacks(*threads: int | None) -> tuple[ThreadStack, ...]:
    """Return the stacks of all other threads of this process that run user code.

    Args:
        threads: the identifiers of the threads to leave out, such as the thread that runs requests.
    """
    names = {one.ident: one.name for one in threading.enumerate()}
    found = []
    for ident, frame in sys._current_frames().items():
        if ident in (*threads, threading.get_ident()):
            continue
        if places := _users_own(frame):
            found.append(ThreadStack(names.get(ident, f"thread {ident}"), described(places)))
    return tuple(sorted(found, key=lambda stack: stack.name))


def described(places: Any) -> tuple[StackFrame, ...]:
    """Describe functions for people, the outermost first. ``places`` begins with the innermost."""
    return tuple(
        StackFrame(
            file_name(code.co_filename),
            line,
            code.co_qualname,
            linecache.getline(code.co_filename, line).strip()[:LINE_CHARS],
            is_user_code(code),
        )
        for code, line in reversed(list(places))
    )


def _all(frame: FrameType | None) -> Iterator[Place]:
    while frame is not None:
        yield frame.f_code, frame.f_lineno or 0
        frame = frame.f_back


def _machinery(frame: FrameType | None) -> Iterator[Place]:
    for code, line in _all(frame):
        if code.co_qualname == _REQUEST:
            return
        yield code, line
