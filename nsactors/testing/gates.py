"""Gates: points in engine code that a test can wait for, hold, and let go on. They replace every sleep.

A gate is two named pipes, so it works between threads and between processes of one machine alike.
"""

from __future__ import annotations

import functools
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TIMEOUT_S = 60.0
"""A bound for a hang, never the expected wait."""


class Gate:
    """Holds engine code that calls ``pass_through`` until ``open`` is called.

    ``pass_through`` takes no argument, returns ``"passed"`` and can be sent to engines of this machine, as a function
    or inside of another one. ``pass_holding_gil`` is the same, and keeps the GIL while it waits, as C code may.

    Args:
        folder: an empty folder for the two pipes; engines must be able to reach it.

    Example:
        >>> gate = Gate(folder)
        >>> ar = view.apply_async(gate.pass_through)
        >>> gate.wait_arrived()      # the engine is inside the call
        >>> ar.ready()
        False
        >>> gate.open()
        >>> ar.get()
        'passed'
    """

    def __init__(self, folder: Path) -> None:
        self._paths = [os.fspath(folder / name) for name in ("arrived", "opened")]
        for path in self._paths:
            os.mkfifo(path)
        # Open at both ends: a write never blocks, and its bytes stay until the gate is closed.
        self._arrived, self._opened = (os.open(path, os.O_RDWR) for path in self._paths)
        self.pass_through: Callable[[], str] = functools.partial(_pass_through, *self._paths, holding_gil=False)
        self.pass_holding_gil: Callable[[], str] = functools.partial(_pass_through, *self._paths, holding_gil=True)

    def wait_arrived(self, count: int = 1) -> None:
        """Return when ``count`` more callers are inside ``pass_through``.

        Raises:
            AssertionError: after 60 s.
        """
        for arrived in range(count):
            ready, _, _ = select.select([self._arrived], [], [], TIMEOUT_S)
            if not ready:
                raise AssertionError(f"{arrived} of {count} callers have arrived at the gate after {TIMEOUT_S:g} s")
            os.read(self._arrived, 1)

    def has_visitor(self) -> bool:
        """Return whether a caller has arrived that ``wait_arrived`` has not counted."""
        return bool(select.select([self._arrived], [], [], 0)[0])

    def open(self) -> None:
        """Let every caller pass, from now on."""
        os.write(self._opened, b".")

    def close(self) -> None:
        """Let every caller pass and remove the gate: later calls raise FileNotFoundError."""
        self.open()
        for path in self._paths:
            os.unlink(path)
        for fd in (self._arrived, self._opened):
            os.close(fd)


@contextmanager
def open_gate(folder: Path) -> Iterator[Gate]:
    """Make a gate in a new folder, and close it at the end of the ``with`` block.

    Args:
        folder: the folder to make, such as ``tmp_path / "gate"``.
    """
    folder.mkdir()
    gate = Gate(folder)
    try:
        yield gate
    finally:
        gate.close()


def wait_until(condition: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    """Return when ``condition()`` is true: for changes that no event announces.

    Args:
        condition: called every 10 ms.
        timeout_s: a bound for a hang, in seconds.

    Raises:
        AssertionError: if the condition is still false after ``timeout_s``.
    """
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"this does not hold after {timeout_s:g} s")
        pause.wait(0.01)


def _pass_through(arrived_path: str, opened_path: str, *, holding_gil: bool) -> str:
    import ctypes
    import struct

    arrived, opened = (os.open(path, os.O_RDWR) for path in (arrived_path, opened_path))
    try:
        os.write(arrived, b".")
        if holding_gil:  # a PyDLL keeps the GIL during the call
            question = ctypes.create_string_buffer(struct.pack("ihh", opened, select.POLLIN, 0))
            passed = ctypes.PyDLL(None).poll(question, 1, int(TIMEOUT_S * 1000))
        else:
            passed = select.select([opened], [], [], TIMEOUT_S)[0]
        if not passed:
            raise TimeoutError(f"the gate was not opened within {TIMEOUT_S:g} s: call gate.open()")
        return "passed"
    finally:
        os.close(arrived)
        os.close(opened)
