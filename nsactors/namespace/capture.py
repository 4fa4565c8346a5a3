"""Catching what code prints: by file descriptor in a process of its own, by thread where namespaces share one."""

from __future__ import annotations

import builtins
import codecs
import contextlib
import ctypes
import faulthandler
import fcntl
import getpass
import io
import os
import sys
import termios
import threading
import weakref
from collections.abc import Callable
from typing import Any, TextIO

from nsactors.core.messages import StreamText
from nsactors.namespace.gate import protected

__all__ = ["FileCapture", "ThreadCapture", "leave_terminal", "refuse_input"]

_IONBF = 2  # <stdio.h>: unbuffered


class _CapturedFile:
    """One stream of this process, appended to a file and read back from where the last read ended."""

    def __init__(self, name: str, fd: int, path: str) -> None:
        self.name = name
        # Append mode belongs to the open file, so children and C code that inherit it never overwrite each other.
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
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

    def close(self) -> None:
        os.dup2(self._original, self._fd)
        os.close(self._original)
        os.close(self._file)


class _OrderedStream(io.TextIOWrapper):
    """``sys.stdout`` or ``sys.stderr``: unbuffered, and it notes when the other stream was written to last."""

    def __init__(self, fd: int, on_write: Callable[[_OrderedStream], None]) -> None:
        # A raw file with write_through is what ``python -u`` uses: every write is in the file when it returns, so
        # text of Python, of C code and of child processes keeps its order.
        raw: Any = io.FileIO(fd, "w", closefd=False)
        super().__init__(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
        self._on_write = on_write

    def write(self, text: str) -> int:
        self._on_write(self)
        return super().write(text)


class FileCapture:
    """Captures file descriptors 1 and 2 of this process in two files.

    A file, not a pipe: a pipe that nobody empties blocks its writer, and code that holds the GIL while it writes would
    wait for ever. The files outlive the process, so the last words of one that crashed can still be read.
    """

    def __init__(self, path: str) -> None:
        self._libc = ctypes.CDLL(None)
        self._flush_c()
        sys.stdout.flush()
        sys.stderr.flush()
        self._files = [
            _CapturedFile("stdout", 1, path + ".stdout"),
            _CapturedFile("stderr", 2, path + ".stderr"),
        ]
        self._last_writer: object = None
        self._read_lock = threading.Lock()
        self._pending: list[StreamText] = []
        self._saved = (sys.stdout, sys.stderr)
        sys.stdout = _OrderedStream(1, self._note_writer)
        sys.stderr = _OrderedStream(2, self._note_writer)
        self._unbuffer_c_stdout()
        faulthandler.enable(file=2, all_threads=False)

    def begin(self) -> list[StreamText]:
        """What has been written since the last read; the descriptors are this process's own: nothing to take back."""
        with self._read_lock:
            self._read_files()
            read, self._pending = self._pending, []
            return read

    def read(self) -> list[StreamText]:
        """What has been written since the last call, stream by stream."""
        self._flush_c()
        return self.begin()

    def close(self) -> None:
        """Give the descriptors back to whom they belonged."""
        sys.stdout, sys.stderr = self._saved
        for file in self._files:
            file.close()

    @protected
    def _note_writer(self, stream: object) -> None:
        if stream is not self._last_writer:
            # The other stream may hold text that was written before this: read it first, and the order is kept.
            if self._last_writer is not None:
                with self._read_lock:
                    self._read_files()
            self._last_writer = stream

    def _read_files(self) -> None:
        for file in self._files:
            if text := file.read():
                self._pending.append(StreamText(file.name, text))

    def _flush_c(self) -> None:
        self._libc.fflush(None)

    def _unbuffer_c_stdout(self) -> None:
        with contextlib.suppress(ValueError):  # a C library that names it otherwise: flushed at each read all the same
            stdout = ctypes.c_void_p.in_dll(self._libc, "stdout")
            self._libc.setvbuf(stdout, None, _IONBF, 0)


def leave_terminal() -> None:
    """Give up the controlling terminal, which a worker inherits from whoever started Ray.

    A ``getpass`` there stopped the whole engine: a background process that reads the terminal is suspended.
    """
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # there is none
    try:
        fcntl.ioctl(fd, termios.TIOCNOTTY)
    finally:
        os.close(fd)


def refuse_input() -> None:
    """Make ``input`` and ``getpass`` of this process say at once that nobody can answer them."""

    def no_keyboard(*args: Any, **kwargs: Any) -> str:
        raise EOFError("an engine has no keyboard: ask at the client and push the answer, view['name'] = input()")

    builtins.input = no_keyboard
    getpass.getpass = no_keyboard


class _ThreadRouter(io.TextIOBase):
    """A ``sys.stdout`` that hands each thread's text to whoever listens to that thread."""

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
        self.original.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return threading.get_ident() not in self.listeners and self.original.isatty()

    def fileno(self) -> int:
        return self.original.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.original.encoding


class ThreadCapture:
    """Captures what one thread prints through ``sys.stdout`` and ``sys.stderr``; other threads are not touched.

    The streams are replaced while at least one capture is open.
    """

    _lock = threading.Lock()

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._parts: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._routers: list[tuple[str, weakref.ref[_ThreadRouter]]] = []  # replaced ones go with whoever replaced them
        self._take_streams()

    def begin(self) -> list[StreamText]:
        """What has been printed since the last read; the streams are taken back from whoever replaced them since."""
        read = self.read()
        self._take_streams()
        return read

    def _take_streams(self) -> None:
        # Pytest replaces them for every test, ``redirect_stdout`` too.
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
        """What the thread has printed since the last call."""
        read = []
        for name, parts in self._parts.items():
            count = len(parts)
            if count:
                read.append(StreamText(name, "".join(parts[:count])))
                del parts[:count]
        return read

    def close(self) -> None:
        """Stop listening; the last one puts the streams back."""
        with self._lock:
            for name, known in self._routers:
                if (router := known()) is None:
                    continue
                original = router.original
                del router.listeners[self._thread]
                if not router.listeners and getattr(sys, name, None) is router:
                    setattr(sys, name, original)
