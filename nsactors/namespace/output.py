"""What user code writes and shows, in order, request by request."""

from __future__ import annotations

import pickle
import threading
from typing import Protocol

from nsactors.core.messages import OutputBatch, OutputChunk, RequestId, StreamText
from nsactors.core.output import OutputLog
from nsactors.errors import SerializationError
from nsactors.namespace.gate import protected

__all__ = ["Capture", "Output"]


class Capture(Protocol):
    """Where a namespace's text is caught: file descriptors of a process, or one thread's ``sys.stdout``."""

    def begin(self) -> list[StreamText]:
        """A request is about to run: see that the capture is in place; what has been written since the last read."""
        ...

    def read(self) -> list[StreamText]:
        """What has been written since the last call."""
        ...

    def close(self) -> None:
        """Give the streams back."""
        ...


class Output:
    """The output of one engine: a log for the request that runs, filled by a capture and by displays.

    Two threads use it: the one that runs user code, and the one that ships output while that code runs.
    """

    def __init__(self, engine_id: int, capture: Capture, whole: str = "") -> None:
        self._engine_id = engine_id
        self._whole = whole
        self._capture = capture
        self._log: OutputLog | None = None
        self._lock = threading.RLock()

    def begin(self, request: RequestId) -> OutputBatch | None:
        """Output belongs to ``request`` from now on; what came late for the one before is returned."""
        with self._lock:
            self._append(self._capture.begin())
            late = self._log.take() if self._log is not None and self._log.has_untaken else None
            self._log = OutputLog(request, self._engine_id, self._whole)
            return late

    def finish(self) -> OutputBatch:
        """The request has ended: what has not been acknowledged of its output.

        The log stays open: a thread or child process that it left behind may still write.
        """
        with self._lock:
            self._drain()
            assert self._log is not None, "finish comes after begin"
            return self._log.tail()

    @protected
    def show(self, chunk: OutputChunk) -> None:
        """Add a display, after the text that was written before it.

        Raises:
            SerializationError: if a part of it cannot be sent; a MIME bundle holds text, bytes and JSON.
        """
        try:
            pickle.dumps(chunk)
        except Exception as error:
            raise SerializationError("the display", f"{type(error).__name__}: {error}") from None
        with self._lock:
            self._drain()
            if self._log is not None:
                self._log.append(chunk)

    def note(self, text: str) -> None:
        """Add a word of our own to what the request writes to stderr."""
        if text:
            self.show(StreamText("stderr", text))

    def delivered(self) -> tuple[OutputChunk, ...]:
        """What has been acknowledged of the output of the request that has ended, and is not in its reply."""
        with self._lock:
            return () if self._log is None else self._log.delivered

    def since(self, request: RequestId, position: int) -> OutputBatch | None:
        """The output of the request that is running, from ``position`` on; None if another one is."""
        with self._lock:
            if self._log is None or self._log.request != request:
                return None
            return self._log.since(position)

    def mark(self) -> int:
        """How many chunks the request that runs has written; what it writes from now on begins another one."""
        with self._lock:
            self._drain()
            return 0 if self._log is None else self._log.mark()

    def take(self) -> OutputBatch | None:
        """What can be shipped ahead of the reply, if anything."""
        with self._lock:
            return self._take()

    def take_again(self) -> None:
        """Ship again what has not been acknowledged."""
        with self._lock:
            if self._log is not None:
                self._log.take_again()

    def acknowledge(self, batch: OutputBatch) -> None:
        """The client has this batch, and all before it."""
        with self._lock:
            if self._log is not None and self._log.request == batch.request:
                self._log.acknowledge(batch)

    def close(self) -> None:
        """Give the streams back."""
        self._capture.close()

    def _take(self) -> OutputBatch | None:
        self._drain()
        if self._log is None or not self._log.has_untaken:
            return None
        return self._log.take()

    def _drain(self) -> None:
        self._append(self._capture.read())

    def _append(self, texts: list[StreamText]) -> None:
        if texts and self._log is not None:
            for text in texts:
                self._log.append(text)
