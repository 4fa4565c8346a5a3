"""What an engine lives in: a process of its own, or one thread among others."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import time
import types
from typing import Any, NoReturn, Protocol

from nsactors.core.memory import ProcessMemory, ProcessorTime
from nsactors.namespace.capture import FileCapture, ThreadCapture, leave_terminal, refuse_input
from nsactors.namespace.gate import CellLoop, InterruptGate
from nsactors.namespace.memory import keep_freed_memory, process_memory
from nsactors.namespace.output import Capture, Output
from nsactors.namespace.plain_shell import PlainShell, fresh_names
from nsactors.namespace.shell import Shell

__all__ = ["Host", "ProcessHost", "ThreadHost"]


class Host(Protocol):
    """The surroundings of an engine."""

    output_path: str | None
    keeps_journals: bool

    def fresh_names(self) -> dict[str, Any]:
        """The dictionary of a new namespace."""
        ...

    def open_capture(self) -> Capture:
        """Begin to capture what this engine prints."""
        ...

    def make_shell(self, engine_id: int, names: dict[str, Any], output: Output, cell_loop: CellLoop) -> Shell:
        """The shell for cells."""
        ...

    def journal_folder(self, incarnation: int) -> str:
        """Where an incarnation of this engine keeps its journal, if it is on this machine."""
        ...

    def install(self, gate: InterruptGate) -> None:
        """Make interrupts reach ``gate``, if this host can."""
        ...

    def warm_up(self) -> None:
        """Import what the first cell will need."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal to this engine alone."""
        ...

    def memory(self) -> ProcessMemory | None:
        """What this engine's process takes, if it has one of its own and the system tells."""
        ...

    def processor_time(self) -> ProcessorTime | None:
        """What this engine's process has used, if it has one of its own."""
        ...

    def exit(self, reason: str) -> None:
        """End this engine from one of its helper threads."""
        ...


class ProcessHost:
    """A process that belongs to one engine.

    Args:
        folder: for output files and IPython's own; it belongs to the cluster and is removed with it.
        name: of the engine, unique in ``folder``.
        incarnation: of that engine.
    """

    keeps_journals = True

    def __init__(self, folder: str, name: str, incarnation: int) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._folder = folder
        self._name = name
        self.output_path: str | None = os.path.join(folder, f"{name}.{incarnation}")

    def fresh_names(self) -> dict[str, Any]:
        """A new ``__main__`` and its dictionary."""
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        module.__dict__.update(fresh_names())
        self._module = module
        return module.__dict__

    def open_capture(self) -> Capture:
        """Capture file descriptors 1 and 2, away from any terminal."""
        leave_terminal()
        for stop in (signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(stop, signal.SIG_IGN)
        refuse_input()
        assert self.output_path is not None
        return FileCapture(self.output_path)

    def make_shell(self, engine_id: int, names: dict[str, Any], output: Output, cell_loop: CellLoop) -> Shell:
        """A full IPython."""
        from nsactors.namespace.ipython_shell import IPythonShell

        return IPythonShell(engine_id, self._module, output, cell_loop, f"{self.output_path}.ipython")

    def journal_folder(self, incarnation: int) -> str:
        """Beside the output files."""
        return os.path.join(self._folder, f"{self._name}.{incarnation}.journal")

    def install(self, gate: InterruptGate) -> None:
        """Let SIGINT reach the gate."""
        gate.install()

    def warm_up(self) -> None:
        """Import IPython, and prepare for large arrays."""
        keep_freed_memory()
        importlib.import_module("nsactors.namespace.ipython_shell")
        # What is there now stays for good: a full collection then takes 1 ms in place of 15, and IPython makes one
        # whenever a namespace is emptied.
        gc.freeze()

    def signal(self, number: int) -> None:
        """Signal this process."""
        os.kill(os.getpid(), number)

    def memory(self) -> ProcessMemory | None:
        """What this process takes."""
        return process_memory()

    def processor_time(self) -> ProcessorTime:
        """What this process has used, in all its threads."""
        return ProcessorTime(time.process_time(), time.monotonic())

    def exit(self, reason: str) -> NoReturn:
        """End this process; the reason is its last line."""
        print(reason, file=sys.stderr)
        # Not sys.exit: in a helper thread that ends the thread alone.
        os._exit(0)


class ThreadHost:
    """One thread of a process that other engines, and their client, share."""

    output_path: str | None = None
    keeps_journals = False

    def fresh_names(self) -> dict[str, Any]:
        """A dictionary called ``__main__``."""
        return fresh_names()

    def open_capture(self) -> Capture:
        """Capture what this thread prints."""
        return ThreadCapture()

    def make_shell(self, engine_id: int, names: dict[str, Any], output: Output, cell_loop: CellLoop) -> Shell:
        """A shell of plain Python."""
        return PlainShell(engine_id, names, output, cell_loop)

    def journal_folder(self, incarnation: int) -> str:
        """There is none: an engine without a process of its own does not die before its client."""
        raise NotImplementedError("an in-process engine keeps no journal")

    def install(self, gate: InterruptGate) -> None:
        """Signals belong to the whole process: not to this engine."""

    def warm_up(self) -> None:
        """There is nothing to import."""

    def signal(self, number: int) -> None:
        """Signal this process."""
        raise NotImplementedError("an in-process engine has no process of its own to signal")

    def memory(self) -> None:
        """The process is its client's."""

    def processor_time(self) -> None:
        """The process is its client's."""

    def exit(self, reason: str) -> None:
        """The thread ends when its transport stops feeding it."""
