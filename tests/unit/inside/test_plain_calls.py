"""What the debugger, stacks, profiles and peeks cost calls that use none of them."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType

import nsactors

PACKAGE = f"{Path(nsactors.__file__).parent}/"
THREADS = {"MainThread", "engine-0"}  # the control thread looks after sessions now and then
OWN = ("inside/", "namespace/debuggers.py", "results/interrupting.py")


def test_a_call_asks_two_functions_whether_it_may_stop() -> None:
    called: list[str] = []
    counts = threading.Event()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if not counts.is_set() or event != "call" or threading.current_thread().name not in THREADS:
            return
        if frame.f_code.co_filename.removeprefix(PACKAGE).startswith(OWN):
            called.append(frame.f_code.co_qualname)

    before = threading.getprofile()
    threading.setprofile(note)  # for the threads of the engine
    try:
        with nsactors.Cluster(n=1, backend="local") as rc:
            view = rc[0]
            view.execute("a = 1", block=True)  # it makes what only the first call needs
            sys.setprofile(note)
            counts.set()
            view.execute("a = 2", block=True)
            counts.clear()
            sys.setprofile(None)
    finally:
        threading.setprofile(before)  # type: ignore[arg-type]
    # The wait for a call has a function of its own for Ctrl-C, whether or not there are debuggers.
    assert sorted(called) == ["DebuggerBypass.begin", "UserPrompt.can_ask", "interruptible"]
