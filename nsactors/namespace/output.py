"""Output of user code by request, and its capture.

An :class:`OutputRecorder` has one log per request; a :class:`Capture` fills it with the text of file descriptors 1 and
2 (:class:`FileCapture`) or of one thread's prints (:class:`ThreadCapture`).
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import errno
import faulthandler
import fcntl
import io
import os
import pickle
import sys
import termios
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from nsactors.errors import SerializationError
from nsactors.namespace.debuggers import DebuggerBypass
from nsactors.namespace.interrupts import protected
from nsactors.namespace.last_request import BegunFile
from nsactors.protocol.messages import OutputBatch, OutputChunk, RequestId, StreamText, TaskMark
from nsactors.protocol.output import OutputLog


class Capture(Protocol):
    """The source of a namespace's text: file descriptors of a process, or one thread's ``sys.stdout``."""

    def begin(self, request: RequestId) -> list[StreamText]:
        """Prepare for a request: restore the capture, and return the text written since the last read."""
        ...

    def read(self) -> list[StreamText]:
        """Return the text written since the last call."""
        ...

    def close(self) -> None:
        """Restore the streams."""
        ...


class OutputRecorder:
    """The output of one engine: a log for the request that runs, filled by a capture and by displays.

    Two threads use a recorder: one runs user code, and the other sends the output at the same time.

    Attributes:
        task_id: the id of the running task of a batch, with which its output is marked; None between tasks.
    """

    def __init__(self, engine_id: int, capture: Capture, whole: str = "") -> None:
        self._engine_id = engine_id
        self._whole = whole
        self._capture = capture
        self._log: OutputLog | None = None
        self._marked: Hashable = None  # the task of the last text in the log
        self._lock = threading.RLock()
        self.task_id: Hashable = None

    def begin(self, request: RequestId) -> OutputBatch | None:
        """Assign output to ``request`` from now on; return the late output of the previous request."""
        with self._lock:
            self._append(self._capture.begin(request))
            late = self._log.take() if self._log is not None and self._log.has_untaken else None
            self._log = OutputLog(request, self._engine_id, self._whole)
            self._marked = None
            return late

    def finish(self) -> OutputBatch:
        """Return the unacknowledged output of a request that has ended.

        The log stays open: a thread or child process of the request may still write.
        """
        with self._lock:
            self._append(self._capture.read())
            assert self._log is not None, "finish comes after begin"
            return self._log.tail()

    @protected
    def show(self, chunk: OutputChunk) -> None:
        """Add a display, after the text that was written before it.

        Raises:
            SerializationError: if a part of the display cannot be sent; a MIME bundle holds text, bytes and JSON.
        """
        try:
            pickle.dumps(chunk)
        except Exception as error:
            raise SerializationError("the display", f"{type(error).__name__}: {error}") from None
        with self._lock:
            self._append(self._capture.read())
            self._append([chunk])

    def note(self, text: str) -> None:
        """Add a text of this package to the request's stderr."""
        if text:
            self.show(StreamText("stderr", text))

    def delivered(self) -> tuple[OutputChunk, ...]:
        """Return the acknowledged output of the request that has ended; the reply does not contain it."""
        with self._lock:
            return () if self._log is None else self._log.delivered

    def since(self, request: RequestId, position: int) -> OutputBatch | None:
        """Return the output of the running request from ``position`` on; None if another request runs."""
        with self._lock:
            if self._log is None or self._log.request != request:
                return None
            return self._log.since(position)

    def mark(self) -> int:
        """Return the number of chunks that the request has written, and begin a new chunk."""
        with self._lock:
            self._append(self._capture.read())
            return 0 if self._log is None else self._log.mark()

    def take(self) -> OutputBatch | None:
        """Return the output that can be sent ahead of the reply, if any."""
        with self._lock:
            self._append(self._capture.read())
            return None if self._log is None or not self._log.has_untaken else self._log.take()

    def take_again(self) -> None:
        """Send unacknowledged output once more."""
        with self._lock:
            if self._log is not None:
                self._log.take_again()

    def acknowledge(self, batch: OutputBatch) -> None:
        """Record that the client has received this batch and all earlier batches."""
        with self._lock:
            if self._log is not None and self._log.request == batch.request:
                self._log.acknowledge(batch)

    def close(self) -> None:
        """Restore the streams."""
        self._capture.close()

    def _append(self, chunks: Sequence[OutputChunk]) -> None:
        if chunks and self._log is not None:
            # Add the mark at the first output, not when a task begins, since most tasks write nothing.
            if self.task_id is not None and self.task_id != self._marked:
                self._marked = self.task_id
                self._log.append(TaskMark(self.task_id))
            for chunk in chunks:
                self._log.append(chunk)


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
_IONBF = 2  # <stdio.h>: unbuffered


class _CapturedFile:
    """A stream of this process: a file to which text is appended. Each read begins where the last one ended."""

    def __init__(self, name: str, fd: int, path: str) -> None:
        self.name = name
        self._file = _opened(path)
        self._position = os.fstat(self._file).st_size
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._fd = fd
        self._original = os.dup(fd)
        os.dup2(self._file, fd)

    def read(self) -> str:
        size = os.lseek(self._file, 0, os.SEEK_END)  # a third of the time of fstat; appending needs no offset
        if size == self._position:
            return ""
        data = os.pread(self._file, size - self._position, self._position)
        self._position += len(data)
        return self._decoder.decode(data)

    @property
    def position(self) -> int:
        """Return how many bytes of the file have been read."""
        return self._position

    def reopen(self) -> None:
        """Restore a descriptor that has been closed: otherwise the next file would get its number."""
        try:
            os.fstat(self._fd)
        except OSError:
            os.dup2(self._file, self._fd)

    def close(self) -> None:
        os.dup2(self._original, self._fd)
        os.close(self._original)
        os.close(self._file)


def _opened(path: str) -> int:
    # Append mode belongs to the open file, so children and C code that inherit it never overwrite each other.
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
    # An engine starts even if the disk is full. Its last output is then in memory, and lost when the engine ends.
    file = os.memfd_create(os.path.basename(path))
    fcntl.fcntl(file, fcntl.F_SETFL, os.O_APPEND)
    return file


class _RoomyFile(io.FileIO):
    """A file that accepts all text: the part that does not fit on the disk is passed to ``instead``.

    A print must not fail on a full disk, least of all in a replay of a print that succeeded.
    """

    def __init__(self, fd: int, instead: Callable[[int, str], None]) -> None:
        super().__init__(fd, "w", closefd=False)
        self._instead = instead

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        nbytes = len(rest)
        try:
            while rest:  # a disk that becomes full accepts a part of the text
                rest = rest[super().write(rest) or 0 :]
        except OSError as error:
            # EBADF: user code has closed the descriptor, as ``os.fdopen(1)`` does when it is collected.
            if error.errno not in NO_ROOM and error.errno != errno.EBADF:
                raise
            self._instead(self.fileno(), bytes(rest).decode(errors="replace"))
        return nbytes


class _OrderedStream(io.TextIOWrapper):
    """Unbuffered ``sys.stdout`` or ``sys.stderr`` that keeps the order of the two streams."""

    def __init__(
        self, fd: int, on_write: Callable[[_OrderedStream], None], instead: Callable[[int, str], None]
    ) -> None:
        # A raw file with write_through, as ``python -u`` uses: when a write returns, its text is in the file. So the
        # text of Python, of C code and of child processes keeps its order.
        raw: Any = _RoomyFile(fd, instead)
        super().__init__(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
        self._on_write = on_write

    def write(self, text: str) -> int:
        self._on_write(self)
        return super().write(text)

    def close(self) -> None:
        """Flush, but do not close: after ``sys.stdout.close()`` in a cell, later requests still write to the stream."""
        self.flush()


class FileCapture:
    """Capture file descriptors 1 and 2 of this process in two files.

    Pipes were rejected: a full pipe blocks its writer, and code that holds the GIL while it writes would wait forever.
    The files outlive the process, so the last output of a process that crashed can still be read.
    """

    def __init__(self, path: str) -> None:
        self._libc = ctypes.CDLL(None)
        self._debuggers = DebuggerBypass(None)
        self._flush_c()
        sys.stdout.flush()
        sys.stderr.flush()
        self._files = [
            _CapturedFile("stdout", 1, path + ".stdout"),
            _CapturedFile("stderr", 2, path + ".stderr"),
        ]
        self._begun = BegunFile(path)
        self._last_writer: object = None
        self._read_lock = threading.Lock()
        self._pending: list[StreamText] = []
        self._saved = (sys.stdout, sys.stderr)
        self._streams = [_OrderedStream(fd, self._note_writer, self._keep) for fd in (1, 2)]
        sys.stdout, sys.stderr = self._streams
        self._unbuffer_c_stdout()
        faulthandler.enable(file=2, all_threads=False)

    def begin(self, request: RequestId) -> list[StreamText]:
        """Return the text written since the last read; restore streams that were replaced and closed."""
        self._debuggers.begin()
        for name, stream in zip(("stdout", "stderr"), self._streams, strict=True):
            if (found := getattr(sys, name, None)) is not stream and getattr(found, "closed", True):
                setattr(sys, name, stream)
        read = self._read_pending()
        self._begun.note(str(request), self._files[1].position)
        return read

    def _read_pending(self) -> list[StreamText]:
        with self._read_lock:
            self._read_files()
            read, self._pending = self._pending, []
            return read

    def read(self) -> list[StreamText]:
        """Return the text written since the last call, by stream."""
        self._flush_c()
        return self._read_pending()

    def close(self) -> None:
        """Restore the file descriptors."""
        self._debuggers.close()
        sys.stdout, sys.stderr = self._saved
        for file in self._files:
            file.close()
        self._begun.close()

    @protected
    def _note_writer(self, stream: object) -> None:
        if stream is not self._last_writer:
            # The other stream may hold earlier text: read that stream first to keep the order.
            if self._last_writer is not None:
                with self._read_lock:
                    self._read_files()
            self._last_writer = stream

    @protected
    def _keep(self, fd: int, text: str) -> None:
        """Keep text in memory because the file has no room for it, or its descriptor is closed."""
        with self._read_lock:
            self._read_files()
            self._pending.append(StreamText(self._files[fd - 1].name, text))
            self._files[fd - 1].reopen()

    def _read_files(self) -> None:
        for file in self._files:
            if text := file.read():
                self._pending.append(StreamText(file.name, text))

    def _flush_c(self) -> None:
        self._libc.fflush(None)

    def _unbuffer_c_stdout(self) -> None:
        with contextlib.suppress(ValueError):  # another C library; each read flushes its stdout anyway
            stdout = ctypes.c_void_p.in_dll(self._libc, "stdout")
            self._libc.setvbuf(stdout, None, _IONBF, 0)


def leave_terminal() -> None:
    """Give up the controlling terminal, which a worker inherits from the process that started Ray.

    A background process that reads the terminal is suspended: a ``getpass`` stopped the whole engine.
    """
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # there is none
    try:
        fcntl.ioctl(fd, termios.TIOCNOTTY)
    finally:
        os.close(fd)


class _ThreadRouter(io.TextIOBase):
    """A ``sys.stdout`` that passes each thread's text to the listener of that thread."""

    def __init__(self, original: TextIO) -> None:
        self.original = original
        self.listeners: dict[int, list[str]] = {}

    def write(self, text: str) -> int:
        listener = self.listeners.get(threading.get_ident())
        if listener is None:
            return self.original.write(text)
        listener.append(text)
        return len(text)

    def flush(self) -> None:
        if threading.get_ident() not in self.listeners:  # a listener's text is not buffered
            self.original.flush()

    def close(self) -> None:
        """Do nothing: the original belongs to its owner, and may be closed before this router is collected."""

    def writable(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        # A kernel calls ``set_parent`` of its stream for each cell, and programs write to ``sys.stdout.buffer``. An
        # engine's thread gets no such attribute of the original, because its bytes would bypass the capture.
        if threading.get_ident() in self.listeners:
            raise AttributeError(f"'sys.stdout' of an engine that is a thread has no attribute {name!r}")
        return getattr(self.original, name)

    def isatty(self) -> bool:
        return threading.get_ident() not in self.listeners and self.original.isatty()

    def fileno(self) -> int:
        return self.original.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.original.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.original.errors  # without it, input() would not let the user edit the line


_ROUTING = threading.Lock()


@contextmanager
def printing_to(text: list[str]) -> Iterator[None]:
    """Append the text that this thread prints through ``sys.stdout`` to a list; other threads print as usual.

    A stream that simply replaced ``sys.stdout`` would also take the text that other threads print.
    """
    thread = threading.get_ident()
    with _ROUTING:
        stream: Any = sys.stdout or sys.__stdout__
        router: Any = stream if isinstance(stream, _ThreadRouter) else _ThreadRouter(stream)
        sys.stdout = router
        before = router.listeners.get(thread)
        router.listeners[thread] = text
    try:
        yield
    finally:
        with _ROUTING:
            if before is not None:
                router.listeners[thread] = before
            else:
                router.listeners.pop(thread, None)
            if not router.listeners and sys.stdout is router:
                sys.stdout = router.original


class ThreadCapture:
    """Capture the text that one thread prints through ``sys.stdout`` and ``sys.stderr``, and no other thread's.

    The streams are replaced while at least one capture is open.
    """

    _lock = _ROUTING

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._debuggers = DebuggerBypass(self._thread)
        self._parts: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._routers: list[
            tuple[str, weakref.ref[_ThreadRouter]]
        ] = []  # weak, so that a replaced router can be collected
        self._take_streams()

    def begin(self, request: RequestId) -> list[StreamText]:
        """Return the text printed since the last read; capture streams that were replaced after the last read."""
        self._debuggers.begin()
        read = self.read()
        self._take_streams()
        return read

    def _take_streams(self) -> None:
        # Pytest replaces the streams for every test, and so does ``redirect_stdout``.
        with self._lock:
            for name, parts in self._parts.items():
                router: Any = getattr(sys, name, None) or getattr(sys, f"__{name}__")
                if not isinstance(router, _ThreadRouter):
                    router = _ThreadRouter(router)
                    setattr(sys, name, router)
                if router.listeners.get(self._thread) is not parts:
                    router.listeners[self._thread] = parts
                    self._routers = [(n, known) for n, known in self._routers if known() is not None]
                    self._routers.append((name, weakref.ref(router)))

    def read(self) -> list[StreamText]:
        """Return the text that the thread has printed since the last call."""
        read = []
        for name, parts in self._parts.items():
            count = len(parts)
            if count:
                read.append(StreamText(name, "".join(parts[:count])))
                del parts[:count]
        return read

    def close(self) -> None:
        """Stop capturing; the last capture restores the streams."""
        self._debuggers.close()
        self.release_streams()

    def release_streams(self) -> None:
        """Let this thread print as if it were not captured, until the next request begins."""
        with self._lock:
            for name, known in self._routers:
                if (router := known()) is None:
                    continue
                original = router.original
                router.listeners.pop(self._thread, None)
                if not router.listeners and getattr(sys, name, None) is router:
                    setattr(sys, name, original)
            self._routers.clear()
