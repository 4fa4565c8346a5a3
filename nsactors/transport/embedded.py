"""A user's program whose namespace is an engine: ``nsactors.embed()``.

The parts are those of the local transport: a controller on an event loop, and one engine. Clients are in other
processes of the same user, and reach these parts by a UNIX socket in a private folder. In place of the engine's thread,
the program itself may run requests, between two steps of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import math
import os
import re
import signal
import sys
import threading
import time
import uuid
import weakref
from collections.abc import AsyncIterator, Mapping
from contextvars import Context, copy_context
from dataclasses import replace
from queue import Empty
from types import FrameType, TracebackType
from typing import Any, Self

from nsactors.controller import Controller, Death, Process
from nsactors.errors import CapabilityError, EngineStartError, NsactorsError
from nsactors.namespace.host import EngineHost, ThreadHost
from nsactors.namespace.interrupts import CellEventLoop, in_user_code
from nsactors.namespace.output import OutputRecorder, ThreadCapture
from nsactors.namespace.plain_shell import PlainShell, Shell
from nsactors.protocol import arguments as arg
from nsactors.protocol.classes import enter_namespace, leave_namespace
from nsactors.protocol.engine_info import EngineOptions, EngineSpec, Recovery
from nsactors.protocol.process import OwnProcess, imported
from nsactors.system.private_files import PrivateFolder
from nsactors.system.resources import versions_here
from nsactors.transport.base import ControllerClient
from nsactors.transport.channel import listen
from nsactors.transport.embedded_server import Server, no_fork
from nsactors.transport.local import DISMISSED, EngineThread, LocalCluster, LocalEngine, SentRequest
from nsactors.transport.registry import ProgramAddress, Registry

SERVES = ("thread", "between")
START_S = 30.0
READY_LOOK_S = 0.001
_ADDED = ("__name__", "__builtins__")

_open: weakref.WeakSet[Embedded] = weakref.WeakSet()
_BETWEEN = (
    "Ray would pass a client's requests on through a process of its own, and change their order: attach clients to the "
    "program by its name"
)
_RECOVERY = "its namespace is the program's own, which nothing can start again from here"


class Embedded:
    """This program as an engine, until it ends or :meth:`close` is called; the result of :func:`embed`.

    Attributes:
        name: its name for ``Client(name)``, ``nsactors console NAME`` and ``nsactors list``.
    """

    def __init__(self, names: dict[str, Any], name: str | None, serve: str) -> None:
        self._process = OwnProcess()
        self._names = names
        self._added = [added for added in _ADDED if added not in names]
        self._lock = threading.Lock()
        self._is_closed = self._runs_request = self._has_to_wait = False
        self._thread = threading.current_thread() if serve == "between" else None
        self._context: Context = copy_context()
        self._host = _ProgramHost(names, owns_thread=self._thread is None)
        self._registry = Registry()
        self._record = self._registry.reserve(
            name, stem=f"{_stem()}-{os.getpid()}", origin=f"embed() in {_script()}", program=ProgramAddress()
        )
        self.name = self._record.name
        self._steps = contextlib.ExitStack()  # the steps of close(), the last one first
        self._steps.callback(self._registry.remove, self._record)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self._folder = PrivateFolder()
        self._steps.callback(self._folder.remove)
        path = os.path.join(self._folder.path, "program")
        listener = self._steps.enter_context(listen(path))
        self._cluster = LocalCluster(asyncio.new_event_loop())
        self._launcher = _Launcher(self._cluster, self._host, has_thread=self._thread is None)
        self._cluster.controller = Controller(self.name, self._launcher, {})
        self._cluster.start_loop()
        self._steps.callback(self._stop_loop)
        self._steps.callback(self._end_engine)
        options = EngineOptions(recovery=Recovery.NONE)
        self._cluster.call("start_engines", 1, options, uuid.uuid4().hex, timeout_s=START_S)
        assert self._launcher.engine is not None, "it has been launched"
        self._engine = self._launcher.engine
        if self._thread is not None:
            self._context.run(self._engine.open, self._host)
            self._host.release()
        self._server = Server(listener, self._cluster, self._engine)
        self._steps.callback(self._server.close)
        _open.add(self)
        atexit.register(self.close)
        self._await_engine()
        self._record = replace(self._record, program=ProgramAddress(path, versions_here()))
        self._registry.update(self._record)

    def _await_engine(self) -> None:
        give_up, pause = time.monotonic() + START_S, threading.Event()
        while not (self._host.ready.is_set() and ControllerClient(self._cluster).state().engines):
            if (death := self._engine.death) is not None or time.monotonic() > give_up:
                raise EngineStartError(0, "it was not ready in time" if death is None else death.reason)
            pause.wait(READY_LOOK_S)

    def serve(self, timeout: float = 0) -> int:
        """Run the requests that wait, and return their number; call it between two steps of the program.

        If no request waits, this takes less than a microsecond. Requests that arrive later wait for the next call to
        ``serve``. After Ctrl-C in a request, that request fails with KeyboardInterrupt, and this call raises it too.

        Args:
            timeout: seconds to wait for a request if there is none.

        Raises:
            CapabilityError: for ``embed(serve="thread")``, with which a thread runs requests; and on any other thread
                than the one that called :func:`embed`.
        """
        requests = self._engine.requests
        count = requests.qsize()
        if self._thread is not None and not count and not timeout:
            return 0
        arg.check("serve", timeout=arg.seconds(timeout, or_none=False))
        if not self._process.is_here:  # a forked child runs no requests
            return 0
        self._check_thread()
        if not count:
            with contextlib.suppress(Empty):
                return int(self._run(requests.get(timeout=timeout)))
            return 0
        ran = 0
        for _ in range(count):
            with contextlib.suppress(Empty):
                ran += self._run(requests.get_nowait())
        return ran

    def wait(self, timeout: float | None = None) -> None:
        """Block, and run requests, until a client has come and all clients have left.

        Args:
            timeout: the limit in seconds; None for no limit.

        Raises:
            TimeoutError: if the limit passes while a client is attached, or before one has attached.
        """
        arg.check("wait", timeout=arg.seconds(timeout))
        if not self._process.is_here:
            return
        if self._thread is not None:
            self._check_thread()
        give_up, visits = math.inf if timeout is None else time.monotonic() + timeout, self._server.visits
        left_before = visits.left

        def has_requests() -> bool:
            return self._thread is not None and not self._engine.requests.empty()

        def is_over() -> bool:
            return self._is_closed or (visits.left > left_before and not visits.present and not has_requests())

        while not is_over():
            left_s = give_up - time.monotonic()
            if left_s < 0:
                state = "a client is attached" if visits.present else "no client has come"
                raise TimeoutError(f"{self.name}: {state} after {timeout:g} s")
            with visits.changed:
                visits.changed.wait_for(lambda: is_over() or has_requests(), min(left_s, threading.TIMEOUT_MAX))
            if self._thread is not None:
                self.serve()

    def close(self) -> None:
        """End the engine: clients are notified, and the program goes on without it. A second call does nothing.

        A request that runs, even one that calls this, goes on until its code ends; its client is notified immediately.
        """
        if not self._process.is_here:
            return
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._has_to_wait = self._runs_request
        atexit.unregister(self.close)
        _open.discard(self)
        self._steps.close()

    def _end_engine(self) -> None:
        self._launcher.finish()
        if not self._has_to_wait:  # otherwise the thread of the running request does this when the request ends
            self._leave_names()

    def _leave_names(self) -> None:
        if self._thread is not None and self._launcher.engine is not None:
            self._context.run(self._launcher.engine.close)
        leave_namespace(self._names)
        for added in self._added:
            self._names.pop(added, None)

    def _stop_loop(self) -> None:
        self._cluster.stopped.set()
        with contextlib.suppress(NsactorsError, TimeoutError):
            self._cluster.stop_loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._is_closed:
            return f"<Embedded {self.name!r}: closed>"
        return f"<Embedded {self.name!r}: Client({self.name!r}) attaches to it, or `nsactors console {self.name}`>"

    def _check_thread(self) -> None:
        if self._thread is None:
            raise CapabilityError("serve between steps", "embed(serve='thread')", "use embed(serve='between')")
        if threading.current_thread() is not self._thread:
            raise CapabilityError(
                "serve here", f"thread {threading.current_thread().name}", f"call it on {self._thread.name}, as embed()"
            )
        if self._runs_request:
            raise CapabilityError("serve others", "a request", "the program does so when this one has ended")

    def _run(self, request: SentRequest | None) -> bool:
        if request is None:
            return False
        try:
            with self._lock:
                if self._is_closed:  # the client has been notified
                    return False
                self._runs_request = True
            with _SparedInterrupt() as interrupt:
                self._context.run(self._engine.run, request)
                self._host.release()
        finally:
            with self._lock:
                was_closed_meanwhile = self._runs_request and self._is_closed
                self._runs_request = False
            if was_closed_meanwhile:
                self._leave_names()
        interrupt.pass_on()
        return True

    def _abandon(self) -> None:
        """Close the descriptors, in a forked child; everything else belongs to the parent."""
        self._server.abandon()
        self._folder.abandon()


class _ParentsProgram(Embedded):
    """The parent's program in a child that imports a module which calls ``embed()``; it runs no requests."""

    def __init__(self, name: str) -> None:
        self.name = name

    def serve(self, timeout: float = 0) -> int:
        """Return 0, because requests go to the other process."""
        arg.check("serve", timeout=arg.seconds(timeout, or_none=False))
        return 0

    def wait(self, timeout: float | None = None) -> None:
        """Return immediately."""
        arg.check("wait", timeout=arg.seconds(timeout))

    def close(self) -> None:
        """Do nothing, because the other process goes on."""

    def __repr__(self) -> str:
        return f"<Embedded {self.name!r}: the process that started this one>"


def _name_in_parent(frame: FrameType | None, name: str | None) -> str | None:
    """Return the name of the parent's program if a module runs again in a child of multiprocessing; None otherwise.

    A spawned child imports the main module, as ``__mp_main__``, and the modules of its functions. A call to ``embed()``
    at the top of one of them is meant for the parent, not for the child.

    Args:
        frame: the frame that calls ``embed()``.
        name: the name in that call.
    """
    process = imported("multiprocessing.process")
    parent = None if process is None else process.parent_process()
    importing: set[str] = set()
    is_child = parent is not None
    while process is not None and frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name == "<module>":
            importing.add(module)
        # These modules are imported before multiprocessing sets `parent_process()`.
        is_child = is_child or module == "multiprocessing.spawn"
        frame = frame.f_back
    if not is_child or not importing - {"__main__"}:  # the child's own code may embed the child
        return None
    pid = os.getppid() if parent is None else parent.pid
    parents = [
        record.name
        for record in Registry().records()
        if record.program is not None and record.owner.is_here and record.owner.pid == pid
    ]
    if name in parents or (parents and name is None):
        return name or parents[0]
    return (name or f"{_stem()}-{pid}") if "__mp_main__" in importing else None


def embed(
    names: dict[str, Any] | None = None,
    *,
    name: str | None = None,
    serve: str = "thread",
    cluster: object = None,
    recovery: str | None = None,
) -> Embedded:
    """Make this program's namespace an engine, to which other programs of the same user attach by its name.

    ``Client("sim-4711")`` in another process gives views of the program: they execute code, push and pull, peek, and
    open the debugger. Neither Ray nor a port is needed. The program continues while clients attach and leave.

    Args:
        names: the namespace, a dictionary; by default the global names of the caller.
        name: the name; by default the name of the script with the id of its process, such as ``sim-4711``.
        serve: with ``"thread"``, a thread runs requests while the program runs, so a client may pull an array half old
            and half new if the program is writing it. With ``"between"``, requests run only within ``serve()`` and
            ``wait()`` of the result, on the thread that calls this function.
        cluster: not available: a program cannot be a member of a cluster.
        recovery: not available: nsactors cannot start the program again.

    Returns:
        The embedded engine, which lasts as long as the program. When a child that multiprocessing has spawned imports
        the module in which the parent called this function, nothing is embedded, and the methods do nothing.

    Raises:
        ClusterNameTaken: if the name is taken.
        CapabilityError: for ``cluster`` and ``recovery``.

    Example:
        >>> session = nsactors.embed(serve="between")
        >>> for step in range(1000):
        ...     advance(grid)
        ...     session.serve()
    """
    arg.check(
        "embed",
        names=arg.instance(names, dict, "a dictionary of names, or None", or_none=True),
        name=arg.text(name, or_none=True),
        serve=arg.choice(serve, SERVES),
    )
    if cluster is not None:
        raise CapabilityError("be a member of a cluster", "an embedded program", _BETWEEN)
    if recovery is not None:
        raise CapabilityError("be recovered", "an embedded program", _RECOVERY)
    caller = sys._getframe(1)
    if (parents := _name_in_parent(caller, name)) is not None:
        return _ParentsProgram(parents)
    return Embedded(caller.f_globals if names is None else names, name, serve)


class _ProgramHost(ThreadHost):
    """The host of a program's engine: both have the same names, and the program outlives the engine."""

    def __init__(self, names: dict[str, Any], *, owns_thread: bool) -> None:
        self.owns_thread = owns_thread
        self.program_thread = threading.main_thread().ident if owns_thread else threading.get_ident()
        self._names = names
        self._capture: _RequestCapture | None = None
        self.ready = threading.Event()

    def fresh_names(self) -> dict[str, Any]:
        """Return the names of the program; until the engine ends, names that Python needs are added."""
        import builtins

        for added, value in zip(_ADDED, ("__main__", builtins), strict=True):
            self._names.setdefault(added, value)
        enter_namespace(self._names, is_programs=True)
        return self._names

    def open_capture(self) -> ThreadCapture:
        """Capture the output of requests; between requests, the program prints as usual."""
        self._capture = _RequestCapture()
        return self._capture

    def make_shell(
        self, engine_id: int, names: dict[str, Any], output: OutputRecorder, cell_loop: CellEventLoop
    ) -> Shell:
        """Return a shell of plain Python, with histories of its own."""
        return _ProgramShell(engine_id, names, output, cell_loop, history={})

    def release(self) -> None:
        """Let the program print and stop at its breakpoints as it does without an engine."""
        if self._capture is not None:
            self._capture.release()
        self.ready.set()

    def end(self, names: dict[str, Any], close_shell: Any) -> None:
        """Do nothing, because the names belong to the program."""


class _RequestCapture(ThreadCapture):
    """Captures the text that a thread prints while it runs a request."""

    def begin(self, request: Any) -> Any:
        self._debuggers.open()
        return super().begin(request)

    def release(self) -> None:
        self._debuggers.close()
        self.release_streams()


class _ProgramShell(PlainShell):
    def reset(self) -> None:
        """Refuse, because the program would go on without its names.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError("be cleared", "an embedded program", "it works with its names; `del` removes some")


class _Launcher:
    """Starts the only engine, once."""

    after_grace = "goes on until its code ends, because it belongs to the program"
    adds_nodes = False

    def __init__(self, cluster: LocalCluster, host: _ProgramHost, *, has_thread: bool) -> None:
        self._cluster = cluster
        self._host = host
        self._has_thread = has_thread
        self._lock = threading.Lock()
        self._is_over = False
        self.engine: LocalEngine | None = None

    def launch(self, spec: EngineSpec) -> LocalEngine:
        with self._lock:
            if self._has_thread:
                self.engine = _ProgramThread(spec, self._cluster, self._host)
            else:
                self.engine = LocalEngine(spec, self._cluster)
            if self._is_over:
                self.engine.finish(DISMISSED)
            return self.engine

    def finish(self) -> None:
        """End the engine, even if it is launched only later, for example after Ctrl-C during its start."""
        with self._lock:
            self._is_over = True
            if self.engine is not None:
                self.engine.finish(DISMISSED)

    async def obstacles(self, spec: EngineSpec, address: LocalEngine) -> AsyncIterator[str]:
        none: tuple[str, ...] = ()
        for obstacle in none:
            yield obstacle

    async def watch(self, spec: EngineSpec, address: LocalEngine) -> Death:
        return await address.died

    def end(self, process: Process, address: LocalEngine) -> None:
        address.finish(DISMISSED)

    def kill(self, address: LocalEngine) -> None:
        address.end(DISMISSED)

    def take_over(self, hosts: Mapping[Process, str]) -> dict[Process, LocalEngine]:
        return {}


class _ProgramThread(EngineThread):
    def open(self, host: EngineHost) -> bool:
        is_open = super().open(host)
        assert isinstance(host, _ProgramHost), "it has been made with one"
        host.release()
        return is_open

    def run(self, sent: SentRequest) -> bool:
        goes_on = super().run(sent)
        assert isinstance(self._host, _ProgramHost), "it has been made with one"
        self._host.release()
        return goes_on


class _SparedInterrupt:
    """Lets Ctrl-C raise KeyboardInterrupt in user code of a request, and afterwards in the program.

    Anywhere else in a request, the exception would break the engine. A handler that the program has set stays.
    """

    def __init__(self) -> None:
        self._is_pressed = self._takes = False

    def __enter__(self) -> Self:
        on_main_thread = threading.current_thread() is threading.main_thread()
        self._takes = on_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._takes:
            signal.signal(signal.SIGINT, self._on_sigint)
        return self

    def __exit__(self, *_: object) -> None:
        if self._takes and signal.getsignal(signal.SIGINT) == self._on_sigint:  # otherwise a request has changed it
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def pass_on(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C has been pressed."""
        if self._is_pressed:
            raise KeyboardInterrupt

    def _on_sigint(self, number: int, frame: FrameType | None) -> None:
        self._is_pressed = True
        if in_user_code(frame):
            raise KeyboardInterrupt


def _script() -> str:
    return os.path.basename(sys.argv[0] if sys.argv and sys.argv[0] not in ("", "-c", "-m") else "Python")


def _stem() -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", os.path.splitext(_script())[0]).strip("-._")
    return (stem or "python")[:40]


def _after_fork() -> None:
    no_fork.release()
    for embedded in list(_open):
        embedded._abandon()
    _open.clear()


os.register_at_fork(before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=_after_fork)
