"""Counts the steps of Python code: a measure of its work that does not depend on the machine's load."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

__all__ = ["Steps", "counted_steps"]

_TOOL = 4  # a number that `sys.monitoring` reserves for no debugger, coverage tool, profiler or optimiser


class Steps:
    """The number of bytecode instructions of Python code; a call to C code, such as sorting a list, counts as one."""

    def __init__(self) -> None:
        self.count = 0
        self._thread = threading.get_ident()

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        """Count, as the trace function of this thread."""
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.count += event == "opcode"
        return self.trace

    def step(self, code: CodeType, offset: int) -> None:
        """Count, as a tool that hears of every instruction of every thread."""
        self.count += threading.get_ident() == self._thread


@contextmanager
def counted_steps() -> Iterator[Steps]:
    """Count the steps of all functions that this thread calls in the block.

    Garbage collection is disabled in the block, because it may call functions too.
    """
    steps, collects = Steps(), gc.isenabled()
    gc.disable()
    try:
        if sys.version_info >= (3, 12):  # whose trace functions miss the instructions of the first call of a function
            yield from _monitored(steps)
        else:
            yield from _traced(steps)
    finally:
        if collects:
            gc.enable()


def _traced(steps: Steps) -> Iterator[Steps]:
    before = sys.gettrace()
    sys.settrace(steps.trace)
    try:
        yield steps
    finally:
        sys.settrace(before)


def _monitored(steps: Steps) -> Iterator[Steps]:
    monitoring: Any = vars(sys)["monitoring"]
    event = monitoring.events.INSTRUCTION
    monitoring.use_tool_id(_TOOL, "steps")
    monitoring.register_callback(_TOOL, event, steps.step)
    monitoring.set_events(_TOOL, event)
    try:
        yield steps
    finally:
        monitoring.set_events(_TOOL, monitoring.events.NO_EVENTS)
        monitoring.register_callback(_TOOL, event, None)
        monitoring.free_tool_id(_TOOL)
