"""A small process that forks others on request. These start in milliseconds, with the modules that it has imported.

The process has a single thread, since only such a process can be forked safely. Processes of one user send requests to
it over a UNIX socket, as lines of JSON:

    {"call": "package.module:function", "argument": ..., "limit_s": 10}    fork a process that calls this function
    {"import": ["package.module", ...]}                                    import these modules for later calls

The function is called with the argument and a function ``tell``. Each value passed to ``tell`` is sent back as
``{"told": ...}``, and the end as ``{"ended": status, "late": false}``. A process that does not call ``tell`` for
``limit_s`` is killed, and ``late`` is then true.

The forking process ends when the last connection closes, or without a request for :data:`IDLE_S`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

IDLE_S = 60.0
_FOREVER_S = 1e6
SEND_S = 5.0  # a connection whose other end reads nothing for this time is closed
COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from nsactors.namespace.forking import serve; serve()"
)
"""For ``python -c``, followed by ``sys.path`` as JSON, ``listener`` or ``connection``, and the number of a socket."""

_PR_SET_PDEATHSIG = 1
# Libraries start threads of their own when they are imported, and a process with threads cannot be forked safely.
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's allocator, and so pandas'
}

Tell = Callable[[Any], None]


class _ForkRequester:
    """A process that sends requests."""

    def __init__(self, stream: socket.socket) -> None:
        stream.settimeout(SEND_S)
        self.stream = stream
        self._received = b""

    def receive(self) -> list[Any] | None:
        """Return the requests that have arrived; None at the end of the connection."""
        try:
            data = self.stream.recv(1 << 20)
        except OSError:
            return None
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def send(self, answer: Any) -> None:
        """Send an answer; a closed connection is noticed at the next read."""
        with contextlib.suppress(OSError):
            self.stream.sendall(json.dumps(answer).encode() + b"\n")


class _Child:
    """A forked process."""

    def __init__(self, pid: int, pipe: int, limit_s: float, connection: _ForkRequester) -> None:
        self.pid = pid
        self.pipe = pipe
        self.connection = connection
        self.is_late = False
        self._limit_s = limit_s
        self._received = b""
        self.deadline = time.monotonic() + limit_s

    def forward(self) -> bool:
        """Send on the values that the child has passed to ``tell``; return False when the child has ended."""
        data = os.read(self.pipe, 1 << 16)
        if not data:
            return False
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self.connection.send({"told": json.loads(line)})
        self.deadline = time.monotonic() + self._limit_s
        return True

    def kill(self) -> None:
        """Kill the child; its pipe reports when it has ended."""
        self.is_late = True
        self.deadline = time.monotonic() + _FOREVER_S
        os.kill(self.pid, signal.SIGKILL)


class Forker:
    """Serve all connections in one thread.

    Args:
        listener: accepts connections; None if ``connection`` is the only one.
        connection: an open connection.
    """

    def __init__(self, listener: socket.socket | None, connection: socket.socket | None = None) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        self._connections: list[_ForkRequester] = []
        self._children: list[_Child] = []
        if listener is not None:
            self._selector.register(listener, selectors.EVENT_READ, None)
        if connection is not None:
            self._connect(connection)

    def run(self, idle_s: float = IDLE_S) -> None:
        """Serve until the last connection closes, or no request has come for ``idle_s``."""
        idle_since = time.monotonic()
        while True:
            deadlines = [child.deadline for child in self._children] or [idle_since + idle_s]
            events = self._selector.select(max(0.0, min(deadlines) - time.monotonic()))
            for key, _ in events:
                self._handle(key.data)
            for child in self._children:
                if time.monotonic() >= child.deadline:
                    child.kill()
            if events or self._children:
                idle_since = time.monotonic()
            elif time.monotonic() >= idle_since + idle_s:
                break
            if events and not self._connections:
                break
        for child in self._children:
            child.kill()

    def _handle(self, ready: _ForkRequester | _Child | None) -> None:
        match ready:
            case None if self._listener is not None:
                self._connect(self._listener.accept()[0])
            case _ForkRequester():
                requests = ready.receive()
                if requests is None:
                    self._disconnect(ready)
                for request in requests or ():
                    self._obey(request, ready)
            case _Child() if not ready.forward():
                self._selector.unregister(ready.pipe)
                os.close(ready.pipe)
                self._children.remove(ready)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(ready.pid, signal.SIGKILL)  # it may have closed its pipe without ending
                _, status = os.waitpid(ready.pid, 0)
                ready.connection.send({"ended": os.waitstatus_to_exitcode(status), "late": ready.is_late})

    def _connect(self, stream: socket.socket) -> None:
        connection = _ForkRequester(stream)
        self._connections.append(connection)
        self._selector.register(stream, selectors.EVENT_READ, connection)

    def _disconnect(self, connection: _ForkRequester) -> None:
        self._selector.unregister(connection.stream)
        connection.stream.close()
        self._connections.remove(connection)
        for child in self._children:
            if child.connection is connection:
                child.kill()

    def _obey(self, request: Any, connection: _ForkRequester) -> None:
        for name in request.get("import", ()):
            if name not in sys.modules:
                with contextlib.suppress(BaseException):  # the child's own import raises the error again
                    importlib.import_module(name)
        if "call" not in request:
            return
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._be_child(request, theirs)
        os.close(theirs)
        child = _Child(pid, ours, request["limit_s"], connection)
        self._children.append(child)
        self._selector.register(ours, selectors.EVENT_READ, child)

    def _be_child(self, request: Any, pipe: int) -> None:
        """Run a request in the new process, and end it."""
        status = 1
        try:
            _die_with_parent()
            # Children must hold no connection: its end tells clients that the forking process has ended.
            for stream in (self._listener, *(connection.stream for connection in self._connections)):
                if stream is not None:
                    stream.close()
            for child in self._children:
                os.close(child.pipe)
            module, _, function = request["call"].partition(":")

            def tell(value: Any) -> None:
                # Where the system does not report the parent's end, a child that goes on for long ends by itself.
                signal.setitimer(signal.ITIMER_REAL, 2 * request["limit_s"])
                os.write(pipe, json.dumps(value).encode() + b"\n")

            getattr(importlib.import_module(module), function)(request["argument"], tell)
            status = 0
        finally:
            os._exit(status)


def serve() -> None:
    """Run a forking process; see :data:`COMMAND`."""
    kind, number = sys.argv[2:4]
    os.environ.update(ONE_THREAD)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is meant for the program there
    stream = socket.socket(fileno=int(number))
    Forker(stream if kind == "listener" else None, stream if kind == "connection" else None).run()


def has_threads() -> bool:
    """Return whether this process has other threads, Python's or a library's; True if the system does not report it."""
    try:
        return len(os.listdir("/proc/self/task")) > 1
    except FileNotFoundError:
        return True


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):  # only Linux has it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # if memory runs out, the system kills this process first
