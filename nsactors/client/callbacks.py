"""A thread for functions of the user's that are to be called when something has happened."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["Callbacks"]


class Callbacks:
    """Calls functions one after the other, on a thread of its own.

    The threads that bring replies and events must not run them: one that waited for another result would wait for
    itself. What a function raises, ``SystemExit`` included, is printed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function()`` soon."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nsactors-callbacks", daemon=True)
                self._thread.start()
        self._waiting.put(function)

    def drain(self) -> None:
        """Return when all that has been asked for so far has been called; at once on the thread that does it."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        drained = threading.Event()
        self._waiting.put(drained.set)
        while thread.is_alive() and not drained.wait(0.1):  # it may have been closed meanwhile
            continue

    def close(self) -> None:
        """Call what has been asked for, and end."""
        self._waiting.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)

    def _run(self) -> None:
        while (function := self._waiting.get()) is not None:
            try:
                function()
            except BaseException:
                traceback.print_exc()
