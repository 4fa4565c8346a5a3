"""Gates: places in engine code that a test can wait for, hold up, and let go on. They stand in for every sleep.

A gate is two named pipes, so it works between threads and between processes of one machine alike. Nothing here needs
to be importable on an engine: what travels there is sent by value.
"""

from __future__ import annotations

import functools
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cloudpickle

__all__ = ["TIMEOUT_S", "Gate", "open_gate", "wait_until"]

TIMEOUT_S = 60.0
"""A bound for a hang, never the expected wait."""


class Gate:
    """Holds up engine code that calls ``pass_through`` until ``open`` is called.

    Args:
        folder: where the pipes are made; it must be empty.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = [os.fspath(folder / name) for name in ("arrived", "opened")]
        for path in self._paths:
            os.mkfifo(path)
        # Open at both ends: writing never blocks, and what is written stays until this test is over.
        self._arrived, self._opened = (os.open(path, os.O_RDWR) for path in self._paths)
        self.pass_through: Callable[[], str] = functools.partial(_pass_through, *self._paths, holding_gil=False)
        self.pass_holding_gil: Callable[[], str] = functools.partial(_pass_through, *self._paths, holding_gil=True)

    def wait_arrived(self, count: int = 1) -> None:
        """Return when ``count`` more callers are inside ``pass_through``."""
        for arrived in range(count):
            ready, _, _ = select.select([self._arrived], [], [], TIMEOUT_S)
            assert ready, f"{arrived} of {count} callers have arrived at the gate after {TIMEOUT_S:g} s"
            os.read(self._arrived, 1)

    def has_visitor(self) -> bool:
        """Whether somebody has arrived whom ``wait_arrived`` has not counted."""
        return bool(select.select([self._arrived], [], [], 0)[0])

    def open(self) -> None:
        """Let everybody pass, from now on."""
        os.write(self._opened, b".")

    def close(self) -> None:
        """Let everybody pass and remove the gate: who comes later finds no such file."""
        self.open()
        for path in self._paths:
            os.unlink(path)
        for fd in (self._arrived, self._opened):
            os.close(fd)


@contextmanager
def open_gate(folder: Path) -> Iterator[Gate]:
    """A gate that is removed at the end, whatever happened."""
    folder.mkdir()
    gate = Gate(folder)
    try:
        yield gate
    finally:
        gate.close()


def wait_until(condition: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    """Return when ``condition()`` holds: for what nobody announces, such as news that is sent in rounds."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"this does not hold after {timeout_s:g} s"
        pause.wait(0.01)


def _pass_through(arrived_path: str, opened_path: str, *, holding_gil: bool) -> str:
    import ctypes
    import os
    import select
    import struct

    arrived, opened = (os.open(path, os.O_RDWR) for path in (arrived_path, opened_path))
    try:
        os.write(arrived, b".")
        if holding_gil:  # a PyDLL keeps the GIL during the call
            question = ctypes.create_string_buffer(struct.pack("ihh", opened, select.POLLIN, 0))
            passed = ctypes.PyDLL(None).poll(question, 1, 60_000)
        else:
            passed = select.select([opened], [], [], 60.0)[0]
        if not passed:
            raise TimeoutError("nobody has opened the gate")
        return "passed"
    finally:
        os.close(arrived)
        os.close(opened)


cloudpickle.register_pickle_by_value(sys.modules[__name__])
