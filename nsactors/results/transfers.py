"""A line of progress for transfers and tasks that take long, where somebody looks on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from nsactors.errors import bytes_in_words
from nsactors.results.call import Call
from nsactors.results.live.line import ProgressLine, open_line
from nsactors.results.progress import ProgressMeter
from nsactors.results.task_calls import MapCall, TaskCall

__all__ = ["showing_transfer", "wait_showing"]

AFTER_S = 2.0
REDRAW_S = 0.2

Wait = Callable[[float | None], bool]


class _Wait:
    """What is known of a wait under way."""

    def __init__(self, label: str, nbytes: int | None, calls: Sequence[Call]) -> None:
        self._label = label if nbytes is None else f"{label}: {bytes_in_words(nbytes)}"
        self._began = min((call.submitted for call in calls), default=time.time())
        self.watch(calls)

    def watch(self, calls: Sequence[Call]) -> None:
        """These are waited for."""
        self._meter = ProgressMeter(self._label, calls, self._began)

    def draw_until(self, over: threading.Event, line: ProgressLine, after_s: float) -> None:
        if over.wait(after_s):
            return
        try:
            while not over.wait(REDRAW_S):
                line.draw(self._meter.read())
        finally:
            line.remove()


_under_way: ContextVar[_Wait | None] = ContextVar("wait under way", default=None)


@contextmanager
def showing_transfer(
    label: str, nbytes: int | None = None, calls: Sequence[Call] = (), *, after_s: float = AFTER_S
) -> Iterator[None]:
    """Show a line once the block has taken ``after_s`` seconds, until it ends; nothing where nobody looks on.

    Args:
        label: what is under way, e.g. ``push``.
        nbytes: the size of what is sent; None: not known.
        calls: whose answers are awaited, if they have been made.
        after_s: seconds.
    """
    line = open_line()
    if line is None:
        yield
        return
    shown = _Wait(label, nbytes, calls)
    over = threading.Event()
    # A thread: while an object is stored, the caller's own is in the midst of that.
    thread = threading.Thread(target=shown.draw_until, args=(over, line, after_s), name="nsactors-progress")
    thread.start()
    token = _under_way.set(shown)
    try:
        yield
    finally:
        _under_way.reset(token)
        over.set()
        thread.join()


def wait_showing(wait: Wait, calls: Sequence[Call], timeout_s: float | None) -> bool:
    """As ``wait(timeout_s)``; shows a line if it takes long and ``calls`` move data, or are many tasks.

    For tasks on the main thread alone: others wait in the background, while somebody types or reads.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not calls or not (_moves_data(calls[0].label) or (is_main and _are_many_tasks(calls))):
        return wait(timeout_s)
    if (shown := _under_way.get()) is not None:
        shown.watch(calls)
        return wait(timeout_s)
    if timeout_s is not None and timeout_s <= AFTER_S:
        return wait(timeout_s)
    if wait(AFTER_S):
        return True
    with showing_transfer(calls[0].label, None, calls, after_s=0.0):
        return wait(None if timeout_s is None else timeout_s - AFTER_S)


def _moves_data(label: str) -> bool:
    return label == "push" or label.startswith("pull(")


def _are_many_tasks(calls: Sequence[Call]) -> bool:
    return isinstance(calls[0], MapCall) or (len(calls) > 1 and isinstance(calls[0], TaskCall))
