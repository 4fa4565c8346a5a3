"""A line of progress for transfers that take long, where somebody looks on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from nsactors.errors import bytes_in_words
from nsactors.results.call import Call
from nsactors.results.live.notebook import CellScreen
from nsactors.results.live.screen import Progress
from nsactors.results.live.terminal import progress_bar

__all__ = ["showing_transfer", "wait_showing"]

AFTER_S = 2.0
REDRAW_S = 0.2

Wait = Callable[[float | None], bool]


class _Line(Protocol):
    """Where progress is drawn."""

    def draw(self, progress: Progress) -> None: ...
    def remove(self) -> None: ...


class _Transfer:
    """What is known of a transfer under way."""

    def __init__(self, label: str, nbytes: int | None, calls: Sequence[Call]) -> None:
        self.calls = calls
        self._label = label if nbytes is None else f"{label}: {bytes_in_words(nbytes)}"
        self._started = min((call.submitted for call in calls), default=time.time())

    def progress(self) -> Progress:
        done = sum(call.done for call in self.calls)
        return Progress(self._label, done, len(self.calls), time.time() - self._started)

    def draw_until(self, over: threading.Event, line: _Line, after_s: float) -> None:
        if over.wait(after_s):
            return
        try:
            while not over.wait(REDRAW_S):
                line.draw(self.progress())
        finally:
            line.remove()


_under_way: ContextVar[_Transfer | None] = ContextVar("transfer under way", default=None)


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
    line = _line()
    if line is None:
        yield
        return
    transfer = _Transfer(label, nbytes, calls)
    over = threading.Event()
    # A thread: while an object is stored, the caller's own is in the midst of that.
    thread = threading.Thread(target=transfer.draw_until, args=(over, line, after_s), name="nsactors-transfer")
    thread.start()
    token = _under_way.set(transfer)
    try:
        yield
    finally:
        _under_way.reset(token)
        over.set()
        thread.join()


def wait_showing(wait: Wait, calls: Sequence[Call], timeout_s: float | None) -> bool:
    """As ``wait(timeout_s)``; shows a line if ``calls`` move data and take long."""
    if not calls or not _moves_data(calls[0].label):
        return wait(timeout_s)
    if (transfer := _under_way.get()) is not None:
        transfer.calls = calls
        return wait(timeout_s)
    if timeout_s is not None and timeout_s <= AFTER_S:
        return wait(timeout_s)
    if wait(AFTER_S):
        return True
    with showing_transfer(calls[0].label, None, calls, after_s=0.0):
        return wait(None if timeout_s is None else timeout_s - AFTER_S)


def _moves_data(label: str) -> bool:
    return label == "push" or label.startswith("pull(")


def _line() -> _Line | None:
    """Where a line can be shown: under a notebook's cell, or at a terminal; None elsewhere."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if hasattr(shell, "kernel"):
        return _CellLine(CellScreen(shell.display_pub))
    return _TerminalLine() if sys.stderr is not None and sys.stderr.isatty() else None


class _CellLine:
    def __init__(self, screen: CellScreen) -> None:
        self._screen = screen

    def draw(self, progress: Progress) -> None:
        self._screen.status({}, progress)

    def remove(self) -> None:
        self._screen.close()


class _TerminalLine:
    def __init__(self) -> None:
        self._live: Any = None

    def draw(self, progress: Progress) -> None:
        from rich.console import Console
        from rich.live import Live

        if self._live is None:
            # Streams stay as they are: this draws beside a thread that may be about to replace them.
            self._live = Live(
                console=Console(file=sys.stderr, force_jupyter=False),
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(progress_bar(progress), refresh=True)

    def remove(self) -> None:
        if self._live is not None:
            self._live.stop()
