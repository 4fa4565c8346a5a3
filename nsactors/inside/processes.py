"""Stacks of other processes of this machine, whose Python does not reply.

py-spy reads the memory of a process, without disturbing it. A signal makes the process write its stacks itself, even
while C code holds the interpreter lock, but the signal may interrupt a system call of C code, as in ``usleep``.
"""

from __future__ import annotations

import faulthandler
import json
import linecache
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from nsactors.errors.failure import file_name
from nsactors.inside.frames import BORDERS, LINE_CHARS, REQUESTS
from nsactors.namespace.interrupts import is_library_file
from nsactors.protocol.inspection import ProcessStacks, StackFrame, ThreadStack

STACK_SIGNAL = signal.SIGRTMIN + 9
READ_S = 3.0  # py-spy takes some 20 ms on an idle machine
NATIVE_S = 15.0  # py-spy takes some 400 ms with the functions of C code
WRITTEN_S = 1.0
AT_ONCE = 8
LOOK_S = 0.01
_BORDER_FILE = os.path.basename(next(iter(BORDERS)).co_filename)
_Line = tuple[str, int, str]
_NATIVE = re.compile(r"\.so(\.\d+)*$|\.(c|cc|cpp|cxx|h|hpp|pyx)$")
_THREAD = re.compile(r"^(?:Current thread|Thread) (0x[0-9a-f]+)")
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$')

INSTALL = "pip install nsactors[inside]"


def read_processes(pids: Sequence[int], files: Sequence[str] = (), *, native: bool = False) -> list[ProcessStacks]:
    """Read the stacks of several processes at a time, because py-spy mostly waits for threads of a process to stop.

    Args:
        pids: the processes.
        files: for each process the file into which it writes its stacks when it gets a signal; empty to send none.
        native: also read the functions of C code, for which py-spy stops the process.
    """

    def read(number: int) -> ProcessStacks:
        one = _spied(pids[number], native=native)
        if one.threads or not files:
            return one
        by_signal = _signalled(pids[number], files[number])
        return by_signal if by_signal.threads else one._replace(note=f"{one.note}; {by_signal.note}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(read, range(len(pids))))


def py_spy() -> str | None:
    """Return the path of py-spy, beside this interpreter or on the path; None if it is not installed."""
    beside = os.path.join(os.path.dirname(sys.executable), "py-spy")
    return beside if os.access(beside, os.X_OK) else shutil.which("py-spy")


def _spied(pid: int, *, native: bool) -> ProcessStacks:
    if (program := py_spy()) is None:
        return ProcessStacks(note=f"py-spy, which could read its stack all the same, is not installed: {INSTALL}")
    how, limit_s = ("--native", NATIVE_S) if native else ("--nonblocking", READ_S)
    try:
        ran = subprocess.run(
            [program, "dump", "--pid", str(pid), "--json", "--full-filenames", how],
            capture_output=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ProcessStacks(note=f"py-spy did not end within {limit_s:g} s")
    except OSError as error:
        return ProcessStacks(note=f"py-spy cannot be run: {error.strerror}")
    if ran.returncode == 0:
        try:
            return ProcessStacks(spied_threads(json.loads(ran.stdout), pid))
        except (ValueError, KeyError, TypeError):
            return ProcessStacks(note="this version of py-spy writes a form that is not known")
    return ProcessStacks(note=refusal(ran.stderr.decode(errors="replace"), ptrace_scope()))


def ptrace_scope() -> str:
    """Return the kernel's setting of which processes may be read; empty where there is none."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope") as file:
            return file.read().strip()
    except OSError:
        return ""


def refusal(error: str, scope: str) -> str:
    """Return the reason why py-spy could not read a process, and a remedy.

    Args:
        error: the text that py-spy wrote to stderr.
        scope: the kernel's setting, see :func:`ptrace_scope`.
    """
    if re.search(r"permission denied|operation not permitted|os error 1\b|os error 13\b", error, re.IGNORECASE):
        if scope not in ("", "0"):
            return (
                f"the kernel lets py-spy read no process but its own children (ptrace_scope is {scope}): the machine's "
                "administrator allows it with `sysctl kernel.yama.ptrace_scope=0`. A signal needs no permission: "
                "disturb=True"
            )
        return (
            "py-spy may not read this process: a container needs the capability SYS_PTRACE, as in "
            "`docker run --cap-add SYS_PTRACE`. A signal needs no permission: disturb=True"
        )
    first = next(
        (line.removeprefix("Error:").strip() for line in error.splitlines() if line.strip()), "it gives no reason"
    )
    return f"py-spy could not read this process: {first}"


def spied_threads(dump: list[dict[str, Any]], pid: int) -> tuple[ThreadStack, ...]:
    """Return the threads in a dump of py-spy's, the main thread first, each without the machinery around user code."""
    threads = sorted(dump, key=lambda thread: thread["os_thread_id"] != pid)
    found: list[tuple[str, list[_Line]]] = []
    for thread in threads:
        frames = [(one["filename"], one["line"], one["name"]) for one in reversed(thread["frames"])]
        name = REQUESTS if thread["os_thread_id"] == pid else thread["thread_name"] or "without a name"
        found.append((name, frames))
    return _threads(found)


def written_threads(text: str) -> tuple[ThreadStack, ...]:
    """Return the threads in a text that ``faulthandler`` has written, the one that runs requests first."""
    found: list[tuple[str, list[_Line]]] = []
    for line in text.splitlines():
        if (thread := _THREAD.match(line)) is not None:
            found.append((thread[1], []))
        elif found and (frame := _FRAME.match(line)) is not None:
            found[-1][1].insert(0, (frame[1], int(frame[2]), frame[3]))
    found.reverse()  # the main thread comes last, since it is the oldest
    if found:
        found[0] = REQUESTS, found[0][1]
    return _threads(found)


def _threads(found: list[tuple[str, list[_Line]]]) -> tuple[ThreadStack, ...]:
    """Return the thread that runs requests, and the other threads that run user code."""
    threads = []
    for name, lines in found:
        borders = [i for i, (file, _, function) in enumerate(lines) if is_border(file, function)]
        if borders:
            lines = lines[borders[-1] + 1 :]  # noqa: PLW2901
        frames = tuple(_frame(*line) for line in lines)
        if name == REQUESTS:
            threads.append(ThreadStack(name, frames if borders else ()))
        elif any(frame.own for frame in frames):
            threads.append(ThreadStack(name, frames))
    return tuple(threads)


def is_border(file: str, function: str) -> bool:
    """Return whether a function, given by its file and name, is the innermost function of the machinery."""
    name = function.rpartition(".")[2]
    return any(name == code.co_name and os.path.basename(file) == _BORDER_FILE for code in BORDERS) or (
        name == "handle" and os.path.basename(file) == "engine_actor.py"
    )


def is_own(file: str) -> bool:
    """Return whether a file, or a cell of this name, is the user's own code."""
    return file.startswith("<engine ") or not (is_library_file(file) or file.startswith("<") or _NATIVE.search(file))


def _frame(file: str, line: int, function: str) -> StackFrame:
    own = is_own(file)
    source = linecache.getline(file, line).strip()[:LINE_CHARS] if not file.startswith("<") else ""
    return StackFrame(file_name(file), line, function, source, own)


class StackFile:
    """The file into which this process writes the stacks of its threads when it gets a signal.

    Args:
        path: the path of the file, which is emptied.
    """

    def __init__(self, path: str) -> None:
        self._file: BinaryIO = open(path, "wb", buffering=0, opener=_private)  # noqa: SIM115  (kept open)
        # Python's own handler is written in C, and needs no interpreter lock.
        faulthandler.register(STACK_SIGNAL, file=self._file, all_threads=True, chain=False)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _signalled(pid: int, path: str) -> ProcessStacks:
    """Let a process write its stacks, and read them."""
    if not path:
        return ProcessStacks(note="it has no file for its stacks")
    never = threading.Event()
    try:
        before = os.stat(path).st_size
        os.kill(pid, STACK_SIGNAL)
        give_up = time.monotonic() + WRITTEN_S
        size = before
        while time.monotonic() < give_up:
            never.wait(LOOK_S)
            last, size = size, os.stat(path).st_size
            if before < size == last:
                break
        with open(path, errors="replace") as file:
            file.seek(before)
            return ProcessStacks(written_threads(file.read()), "" if size > before else "it did not react to a signal")
    except OSError as error:
        return ProcessStacks(note=f"it could not be sent a signal: {error.strerror}")
