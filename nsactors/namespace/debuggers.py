"""Debuggers and consoles on engines, which have no keyboard: breakpoints stop for the client, all else is refused."""

from __future__ import annotations

import bdb
import builtins
import code
import getpass
import pdb
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar, NamedTuple

from nsactors.errors.failure import file_name
from nsactors.namespace.interrupts import is_user_frame
from nsactors.protocol.process import imported

NO_DEBUGGER = "no request runs"
NO_KEYBOARD_HERE = "it needs a keyboard, and breakpoint() does not"
NO_KEYBOARD = "an engine has no keyboard: call input() at the client and push its value, view['name'] = input()"


class _Patch(NamedTuple):
    """A function that is replaced while there are engines."""

    owner: Any
    name: str
    original: Any
    replacement: Any


class DebuggerBypass:
    """Stop at ``breakpoint()`` for the client or skip it, and refuse requests for input on an engine.

    Every debugger of Python and IPython enters through ``bdb.Bdb.set_trace``, or prompts its user in
    ``pdb.Pdb.interaction``; each would wait for a keyboard forever, or for a connection to a port. So these functions
    are replaced while a bypass is open, but only for the threads of engines: in a process that engines share with their
    client, the client's own debugging goes on. The hook of an editor stays, since an editor shows all threads of a
    process.

    Args:
        thread: the thread of the engine; None if every thread of this process is an engine's.

    Attributes:
        stop: stops at a breakpoint in a frame, and returns "" when the code may continue; if it cannot stop there,
            returns the reason.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _open: ClassVar[dict[int | None, DebuggerBypass]] = {}
    _patches: ClassVar[list[_Patch]] = []

    def __init__(self, thread: int | None) -> None:
        self._thread = thread
        self._told: set[tuple[object, int]] = set()
        self.stop: Callable[[FrameType], str] = lambda frame: NO_DEBUGGER
        self.open()

    def open(self) -> None:
        """Replace the functions again, after :meth:`close`."""
        with self._lock:
            if not self._open:
                self._patch()
            self._open[self._thread] = self

    def begin(self) -> None:
        """Begin a request: its output mentions each skipped place once."""
        if self._told:
            self._told.clear()

    def close(self) -> None:
        """Close the bypass of one engine; the last one restores every function."""
        with self._lock:
            if self._open.get(self._thread) is self:
                del self._open[self._thread]
            if not self._open:
                while self._patches:
                    owner, name, original, replacement = self._patches.pop()
                    if vars(owner).get(name) is replacement:  # otherwise somebody else has replaced the function since
                        setattr(owner, name, original)

    @classmethod
    def here(cls) -> DebuggerBypass | None:
        """Return the bypass of the engine that this thread belongs to."""
        return cls._open.get(threading.get_ident()) or cls._open.get(None)

    @classmethod
    def _patch(cls) -> None:
        def replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
            if isinstance(owner, type):  # a Jupyter kernel replaces pdb.Pdb by a class of its own
                owner = next(base for base in owner.__mro__ if name in vars(base))
            original = vars(owner)[name]
            replacement = wrap(original)
            setattr(owner, name, replacement)
            cls._patches.append(_Patch(owner, name, original, replacement))

        replace(sys, "breakpointhook", cls._passing_hook)
        replace(bdb.Bdb, "set_trace", cls._passing_set_trace)
        replace(pdb.Pdb, "interaction", cls._passing_interaction)
        for owner, name in ((builtins, "input"), (getpass, "getpass"), (code.InteractiveConsole, "interact")):
            replace(owner, name, cls._refusing)

    @classmethod
    def _passing_hook(cls, original: Any) -> Any:
        def breakpointhook(*args: Any, **kwargs: Any) -> Any:
            bypass = cls.here()
            if bypass is None or (bypass._thread is not None and _is_editors(original)):
                return original(*args, **kwargs)
            bypass._stop("breakpoint()", sys._getframe(1))
            return None

        return breakpointhook

    @classmethod
    def _passing_set_trace(cls, original: Any) -> Any:
        def set_trace(debugger: bdb.Bdb, frame: FrameType | None = None, *args: Any, **kwargs: Any) -> Any:
            bypass = cls.here()
            if bypass is None or getattr(debugger, "serves_client", False):
                return original(debugger, frame or sys._getframe(1), *args, **kwargs)
            bypass._stop("set_trace()", frame or sys._getframe(1))
            return None

        return set_trace

    @classmethod
    def _passing_interaction(cls, original: Any) -> Any:
        def interaction(debugger: pdb.Pdb, *args: Any, **kwargs: Any) -> Any:
            bypass = cls.here()
            if bypass is None or getattr(debugger, "serves_client", False):
                return original(debugger, *args, **kwargs)
            bypass._tell("the debugger", sys._getframe(1), NO_KEYBOARD_HERE)
            debugger.set_continue()  # so that pdb.run() and its like run the code
            return None

        return interaction

    @classmethod
    def _refusing(cls, original: Any) -> Any:
        def no_keyboard(*args: Any, **kwargs: Any) -> Any:
            if cls.here() is None:
                return original(*args, **kwargs)
            raise EOFError(NO_KEYBOARD)

        return no_keyboard

    def _stop(self, call: str, frame: FrameType) -> None:
        if reason := self.stop(frame):
            self._tell(call, frame, reason)

    def _tell(self, call: str, frame: FrameType, reason: str) -> None:
        at: FrameType | None = frame
        while at is not None and not is_user_frame(at):
            at = at.f_back
        at = at or frame
        place = (at.f_code, at.f_lineno)
        if place not in self._told:
            self._told.add(place)
            where = f"{file_name(at.f_code.co_filename)}, line {at.f_lineno}"
            print(f"{call} at {where}, was skipped: {reason}", file=sys.stderr)


def _is_editors(hook: Callable[..., Any]) -> bool:
    """Return whether an editor shows the breakpoints at which this hook stops.

    A Jupyter kernel has a hook of ``debugpy`` in any case, which does nothing as long as no editor is connected.
    """
    if hook is sys.__breakpointhook__:
        return False
    debugpy = imported("debugpy")
    if debugpy is None or not str(getattr(hook, "__module__", "")).startswith("debugpy"):
        return True
    return bool(debugpy.is_client_connected())
