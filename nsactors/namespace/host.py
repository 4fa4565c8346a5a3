"""The process or thread of a namespace, and its graceful end.

The engine asks its :class:`EngineHost` for everything that differs between a process of its own (:class:`ProcessHost`)
and a thread of the client's process (:class:`ThreadHost`).

The end follows Python's order: notify pools and join threads that are not daemons; run ``atexit`` handlers, which end
child processes known to ``multiprocessing``; release the names, which closes files and runs destructors; write what is
still buffered. The process itself goes on until the controller, which is notified, kills it.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import io
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable, Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NoReturn, Protocol

from nsactors.errors import plural
from nsactors.errors.reporting import print_traceback
from nsactors.namespace.entropy import ImportWatch
from nsactors.namespace.interrupts import CellEventLoop, InterruptHandler, is_library_file
from nsactors.namespace.memory import keep_freed_memory, process_memory
from nsactors.namespace.module_versions import Fetch, ModuleVersions, SourceStore, sources_folder
from nsactors.namespace.mpi_guard import alone_on_this_machine
from nsactors.namespace.output import Capture, FileCapture, OutputRecorder, ThreadCapture, leave_terminal
from nsactors.namespace.plain_shell import PlainShell, Shell, fresh_names
from nsactors.protocol.classes import enter_namespace
from nsactors.protocol.engine_info import ProcessMemory, ProcessorTime

_FILE: Any = io.IOBase.__base__  # not io.IOBase, which evaluates each object's __class__, and so runs code of proxies
_READ_ONLY = (io.BufferedReader, io.BytesIO, io.StringIO, io.FileIO)
_NOT_CLOSED = ("_io", "io", "nsactors.", "ray.")
# Released last, because destructors of data use them.
_DEFINITIONS = (type, FunctionType, BuiltinFunctionType, ModuleType)


class InterpreterEnd:
    """End the interpreter of this process; call :meth:`run` on its main thread.

    Create the object before user code runs: modules imported until then do not count as the user's.
    """

    def __init__(self) -> None:
        self._packages = {name.partition(".")[0] for name in sys.modules}  # such as Ray and this package
        self._doing: Callable[[], str] = lambda: "it had not begun to end"

    def run(self, names: dict[str, Any], close_shell: Callable[[], None]) -> None:
        """Take every step once; an error is printed and does not prevent the other steps.

        Args:
            names: the namespace.
            close_shell: ends the shell of the namespace.
        """
        steps: Sequence[tuple[Callable[[], object], Callable[[], str]]] = (
            (threading._shutdown, _waiting),  # type: ignore[attr-defined]
            (atexit._run_exitfuncs, lambda: "it ran atexit handlers"),
            # Write files before the names are released, because the release may take long or hang in a destructor.
            (lambda: flush_files(list(names.values())), lambda: "it wrote files"),
            (lambda: release_names([names, *self._user_modules()], close_shell), lambda: "it emptied its namespace"),
            (gc.unfreeze, str),  # last: a collection takes 1 ms without the frozen objects, 40 with them
            (lambda: flush_files(gc.get_objects(), closes=True), lambda: "it wrote files"),
        )
        # On the main thread: SQLite connections, windows and MPI need the thread that made them. Rejected: Ray's
        # exit_actor. Ray reports the actor as dead after 14 ms, but its process ends after 0.4 s, and nothing can kill
        # the process if it hangs.
        for step, self._doing in steps:
            try:
                step()
            except BaseException:  # also SystemExit, which handlers may raise
                print_traceback()

    def unended(self) -> str:
        """Return in words the step that is still under way; callable from another thread."""
        return self._doing()

    def _user_modules(self) -> Iterable[dict[str, Any]]:
        for name, module in reversed(list(sys.modules.items())):
            path = vars(module).get("__file__") if issubclass(type(module), ModuleType) else None
            if isinstance(path, str) and not is_library_file(path) and name.partition(".")[0] not in self._packages:
                yield vars(module)


def release_names(
    namespaces: Iterable[dict[str, Any]],
    close_shell: Callable[[], None] = lambda: None,
    collect: Callable[[], object] = gc.collect,
) -> None:
    """Empty namespaces, data first: destructors still find the functions and modules that they use.

    Args:
        namespaces: the dictionaries.
        close_shell: releases the objects that a shell keeps beside the names.
        collect: collects reference cycles.
    """
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        vars(sys).pop(name, None)  # these hold frames, and frames hold local variables
    namespaces = list(namespaces)
    for names in namespaces:
        for name in [n for n, value in list(names.items()) if not issubclass(type(value), _DEFINITIONS)]:
            if not name.startswith("__"):
                names.pop(name, None)
    collect()
    close_shell()
    for names in namespaces:
        for name in [n for n in list(names) if not n.startswith("__")]:
            names.pop(name, None)


def flush_files(objects: Sequence[object], *, closes: bool = False) -> None:
    """Write the buffers of Python's files and of C's streams.

    Args:
        objects: the objects to search for files, older ones first.
        closes: also close files that are more than a buffer: gzip writes its trailer on close.
    """
    types = {t for t in set(map(type, objects)) if issubclass(t, _FILE) and t not in _READ_ONLY}
    files: list[Any] = [o for o in objects if type(o) in types]
    for file in reversed(files):  # a file that writes into another file is younger than that file
        try:
            if closes and not type(file).__module__.startswith(_NOT_CLOSED):
                file.close()
            elif not file.closed and file.writable():
                file.flush()
        except Exception:
            print_traceback()
    ctypes.CDLL(None).fflush(None)


def _waiting() -> str:
    names = [t.name for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    return f"it waited for the {plural('thread', len(names))} {', '.join(names)}" if names else "it ended its threads"


class EngineHost(Protocol):
    """The surroundings of an engine: a process of its own, or a thread, which may belong to the user's program."""

    output_path: str | None
    keeps_journals: bool
    is_process: bool
    owns_thread: bool
    program_thread: int | None

    def fresh_names(self) -> dict[str, Any]:
        """Return the dictionary of a new namespace, and make it this process's or thread's ``__main__``."""
        ...

    def open_capture(self) -> Capture:
        """Begin to capture the text that this engine prints."""
        ...

    def make_shell(
        self, engine_id: int, names: dict[str, Any], output: OutputRecorder, cell_loop: CellEventLoop
    ) -> Shell:
        """Return a shell for cells."""
        ...

    def journal_folder(self, incarnation: int) -> str:
        """Return the folder of an incarnation's journal on this machine."""
        ...

    def install(self, handler: InterruptHandler) -> None:
        """Deliver interrupts to ``handler``, if this host can."""
        ...

    def module_versions(self, names: dict[str, Any], fetch: Fetch) -> ModuleVersions | None:
        """Return the finder of the clients' modules; None if engine and client share their modules.

        Args:
            names: the namespace.
            fetch: gets sources that are not on this machine.
        """
        ...

    def warm_up(self) -> None:
        """Import the modules that the first cell will need."""
        ...

    def set_aside(self) -> None:
        """Exempt all present objects from garbage collection; none of them belongs to the user yet."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal to this engine alone."""
        ...

    def memory(self) -> ProcessMemory | None:
        """Return the memory of this engine's process, if it has one of its own and the system reports it."""
        ...

    def processor_time(self) -> ProcessorTime | None:
        """Return the processor time of this engine's process, if it has one of its own."""
        ...

    def end(self, names: dict[str, Any], close_shell: Callable[[], None]) -> None:
        """End the namespace as an interpreter ends; see ``InterpreterEnd.run``."""
        ...

    def unended(self) -> str:
        """Return in words the step of :meth:`end` that is still under way."""
        ...

    def limit_life(self, seconds: float) -> None:
        """End this engine after some time even if it hangs and is not killed, if this host can."""
        ...

    def exit(self, reason: str) -> None:
        """End this engine from one of its helper threads."""
        ...


_shell_import = threading.Lock()


def import_shell() -> Any:
    """Import the module of IPython's shell; undo an import that fails or is interrupted, so that it can be repeated."""
    with _shell_import:
        before = set(sys.modules)
        try:
            return importlib.import_module("nsactors.namespace.ipython_shell")
        except BaseException:
            # IPython's modules import each other. If some of them stayed after an import that ended halfway, the next
            # import would have another order, and every import would fail from then on: "partially initialized module".
            for name in set(sys.modules) - before:
                if name.partition(".")[0] == "IPython":
                    sys.modules.pop(name, None)
            raise


class ProcessHost:
    """A process that belongs to one engine.

    Args:
        folder: the folder for output files and IPython's own files; it belongs to the cluster and is removed with it.
        name: the name of the engine, unique in ``folder``.
        incarnation: the incarnation of the engine.
    """

    keeps_journals = True
    is_process = True
    owns_thread = True
    program_thread: int | None = None

    def __init__(self, folder: str, name: str, incarnation: int) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._folder = folder
        self._name = name
        self.output_path: str | None = os.path.join(folder, f"{name}.{incarnation}")
        self._end = InterpreterEnd()

    def fresh_names(self) -> dict[str, Any]:
        """Make a new ``__main__`` and return its dictionary."""
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        module.__dict__.update(fresh_names())
        self._module = module
        enter_namespace(module.__dict__)
        return module.__dict__

    def open_capture(self) -> Capture:
        """Capture file descriptors 1 and 2, away from any terminal."""
        leave_terminal()
        for stop in (signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(stop, signal.SIG_IGN)
        ImportWatch().import_within("mpi4py.MPI", alone_on_this_machine)
        os.environ["PYTHONBREAKPOINT"] = "0"  # for child processes: Ray's hook would open a port and wait there
        assert self.output_path is not None
        return FileCapture(self.output_path)

    def make_shell(
        self, engine_id: int, names: dict[str, Any], output: OutputRecorder, cell_loop: CellEventLoop
    ) -> Shell:
        """Return a full IPython."""
        name = f"{self.output_path}.ipython"
        shell: Shell = import_shell().IPythonShell(engine_id, self._module, output, cell_loop, name)
        return shell

    def journal_folder(self, incarnation: int) -> str:
        """Return a folder beside the output files."""
        return os.path.join(self._folder, f"{self._name}.{incarnation}.journal")

    def install(self, handler: InterruptHandler) -> None:
        """Let SIGINT reach the handler, and SIGTERM end the process."""
        handler.install()
        # Ray's handler raises SystemExit in the request that runs, which would be reported as an error of its code.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def module_versions(self, names: dict[str, Any], fetch: Fetch) -> ModuleVersions:
        """Return a finder of modules in the versions that the clients have."""
        return ModuleVersions(names, SourceStore(sources_folder(self._folder)), fetch)

    def warm_up(self) -> None:
        """Import IPython, and prepare for large arrays."""
        keep_freed_memory()
        import_shell()

    def set_aside(self) -> None:
        """Freeze all objects.

        After that, a full collection takes 1 ms instead of 15, and IPython makes one at each reset.
        """
        gc.freeze()

    def signal(self, number: int) -> None:
        """Signal this process."""
        os.kill(os.getpid(), number)

    def memory(self) -> ProcessMemory | None:
        """Return the memory of this process."""
        return process_memory()

    def processor_time(self) -> ProcessorTime:
        """Return the processor time of all threads of this process."""
        return ProcessorTime(time.process_time(), time.monotonic())

    def end(self, names: dict[str, Any], close_shell: Callable[[], None]) -> None:
        """End this interpreter."""
        self._end.run(names, close_shell)

    def unended(self) -> str:
        """Return the step that this interpreter's end has reached."""
        return self._end.unended()

    def limit_life(self, seconds: float) -> None:
        """Have the system end this process."""
        # Not a thread: code that holds the GIL keeps every thread from running.
        # The timer matters for a process whose controller has died and cannot kill it.
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def exit(self, reason: str) -> NoReturn:
        """Print the reason as the last line of this process, and end the process."""
        print(reason, file=sys.stderr)
        # Not sys.exit, which in a helper thread ends that thread only.
        os._exit(0)


class ThreadHost:
    """One thread of a process that its client and other engines share."""

    output_path: str | None = None
    keeps_journals = False
    is_process = False
    owns_thread = True
    program_thread: int | None = None

    def fresh_names(self) -> dict[str, Any]:
        """Return a dictionary whose ``__name__`` is ``__main__``."""
        names = fresh_names()
        enter_namespace(names)
        return names

    def open_capture(self) -> Capture:
        """Capture the text that this thread prints."""
        return ThreadCapture()

    def make_shell(
        self, engine_id: int, names: dict[str, Any], output: OutputRecorder, cell_loop: CellEventLoop
    ) -> Shell:
        """Return a shell of plain Python."""
        return PlainShell(engine_id, names, output, cell_loop)

    def journal_folder(self, incarnation: int) -> str:
        """Raise an error: an engine without a process of its own does not die before its client."""
        raise NotImplementedError("an in-process engine keeps no journal")

    def install(self, handler: InterruptHandler) -> None:
        """Do nothing: signals belong to the whole process."""

    def module_versions(self, names: dict[str, Any], fetch: Fetch) -> None:
        """Return None: the client is in this process."""

    def warm_up(self) -> None:
        """Do nothing: no module is needed."""

    def set_aside(self) -> None:
        """Do nothing: the process belongs to the client."""

    def signal(self, number: int) -> None:
        """Raise an error: a signal would reach the client's process."""
        raise NotImplementedError("an in-process engine has no process of its own to signal")

    def memory(self) -> None:
        """Return None: the process is its client's."""

    def processor_time(self) -> None:
        """Return None: the process is its client's."""

    def end(self, names: dict[str, Any], close_shell: Callable[[], None]) -> None:
        """Empty the namespace, which closes its files; ``atexit`` handlers and threads belong to the process."""
        # No collection: in a large process it would take long, for each engine.
        release_names([names], close_shell, collect=lambda: None)

    def unended(self) -> str:
        """Return the only step that can take time here."""
        return "it emptied its namespace"

    def limit_life(self, seconds: float) -> None:
        """Do nothing: a thread cannot be ended from outside."""

    def exit(self, reason: str) -> None:
        """Do nothing: the thread ends when its transport stops sending requests."""
