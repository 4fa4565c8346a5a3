"""A check that no process is left behind."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GRACE_S = 10.0
_MARK = "NSACTORS_TEST_PROCESSES"


@contextmanager
def no_process_left_behind(grace_s: float = GRACE_S) -> Iterator[None]:
    """Fail if a process started in the ``with`` block, at any depth, is alive after it.

    Orphans are found too: they no longer descend from this process, but inherit a mark in their environment.

    Args:
        grace_s: time for processes to end by themselves, in seconds.

    Raises:
        AssertionError: with the id and the command line of each process.
    """
    import psutil  # deferred: 35 ms

    outer = os.environ.get(_MARK)
    mark = os.environ[_MARK] = outer or uuid.uuid4().hex  # nested blocks share a mark, and each finds its orphans

    def is_marked(process: Any) -> bool:
        try:
            return bool(process.pid != os.getpid() and process.environ().get(_MARK) == mark)
        except psutil.Error:  # the process has ended already, or belongs to another user
            return False

    def living() -> set[Any]:
        return {*psutil.Process().children(recursive=True), *filter(is_marked, psutil.process_iter())}

    before = living()
    try:
        yield
    finally:
        if outer is None:
            del os.environ[_MARK]
    _, alive = psutil.wait_procs(living() - before, timeout=grace_s)
    if alive:
        raise AssertionError(f"processes left behind: {[(process.pid, _command(process)) for process in alive]}")


def _command(process: Any) -> list[str]:
    import psutil

    try:
        return [word for word in process.cmdline() if word]  # Ray pads the line of a renamed process with empty words
    except psutil.Error:
        return []
