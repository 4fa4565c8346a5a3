"""The user's functions that are called when results have arrived, or engines have joined or left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from nsactors.errors.reporting import print_traceback


class Callbacks:
    """Calls functions one after the other, on a thread of its own.

    The threads that deliver replies and events must not run these functions: if a function waited for another result,
    that result could not arrive. The errors of a function, ``SystemExit`` included, are printed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function()`` soon. After :meth:`close`, call it immediately, on this thread."""
        with self._lock:
            if not self._closed:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="nsactors-callbacks", daemon=True)
                    self._thread.start()
                self._waiting.put(function)
                return
        _call_and_print_errors(function)

    def drain(self) -> None:
        """Return when the functions given so far have been called; return immediately on the thread that calls them."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        drained = threading.Event()
        self._waiting.put(drained.set)
        while thread.is_alive() and not drained.wait(0.1):  # the thread may end during the wait
            continue

    def close(self) -> None:
        """Call the functions given so far, and end the thread."""
        with self._lock:
            self._closed = True
        self._waiting.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)

    def _run(self) -> None:
        while (function := self._waiting.get()) is not None:
            _call_and_print_errors(function)


def _call_and_print_errors(function: Callable[[], object]) -> None:
    try:
        function()
    except BaseException:
        print_traceback()
