"""A line of progress, and output as plain text above it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from nsactors.protocol.messages import Display, RequestId, StreamText
from nsactors.protocol.process import current_shell
from nsactors.results.call import EngineOutput
from nsactors.results.display.notebook import CellScreen
from nsactors.results.display.screen import HeldInterrupts, Progress
from nsactors.results.display.terminal import progress_bar

REDRAW_S = 0.2


class ProgressLine(Protocol):
    """A line of progress on a screen."""

    def draw(self, progress: Progress) -> None:
        """Draw the progress as it is now."""
        ...

    def leave(self) -> None:
        """Leave the line as it is drawn, for good."""
        ...

    def remove(self) -> None:
        """Remove the line."""
        ...


class _OpenLine(ProgressLine, Protocol):
    def conclude(self, progress: Progress) -> None:
        """Show how the work ended in the place of the removed line, if this place still exists."""
        ...


def open_line() -> _OpenLine | None:
    """Return a line under the cell that runs, or at the terminal; None where output goes to a file or a pipe."""
    shell = current_shell()
    if hasattr(shell, "kernel"):
        return _CellLine(CellScreen(shell.display_pub))
    return _TerminalLine() if sys.stderr is not None and sys.stderr.isatty() else None


class LentLine:
    """A line that one thread draws; another thread may take it over, to draw it together with output.

    Args:
        line: the line.
        read: returns the progress.
    """

    def __init__(self, line: ProgressLine, read: Callable[[], Progress]) -> None:
        self._line = line
        self._read = read
        self._lock = threading.Lock()
        self._taken = False

    def draw(self, progress: Progress) -> None:
        """Draw the progress, until the line is taken over; see :class:`ProgressLine`."""
        with self._lock:
            if not self._taken:
                self._line.draw(progress)

    def leave(self) -> None:
        """See :class:`ProgressLine`."""
        with self._lock:
            if not self._taken:
                self._line.leave()

    def remove(self) -> None:
        """See :class:`ProgressLine`."""
        self.take_over()

    def take_over(self) -> Callable[[], Progress]:
        """Remove the line; return the function that reads the progress, for the thread that draws it from now on."""
        with self._lock:
            taken, self._taken = self._taken, True
            if not taken:
                self._line.remove()
        return self._read


@contextmanager
def showing(read: Callable[[], Progress], *, after_s: float, concludes: bool = False) -> Iterator[LentLine | None]:
    """Show a line once the block has taken ``after_s`` seconds, until it ends.

    Nothing is shown where output goes to a file or a pipe. Threads other than the main thread show nothing either,
    because they work in the background while the user types or reads.

    Args:
        read: returns the progress; called on another thread.
        after_s: seconds.
        concludes: let a notebook show how the work ended, in place of an empty display.

    Returns:
        The line, with which output may be drawn; None if there is none.
    """
    opened = open_line() if threading.current_thread() is threading.main_thread() else None
    if opened is None:
        yield None
        return
    line = LentLine(opened, read)
    over = threading.Event()
    # A separate thread draws the line: while an object is stored, or Ray starts, the caller's thread is busy.
    thread = threading.Thread(target=draw_until, args=(over, line, read, after_s), name="nsactors-progress")
    thread.start()
    try:
        yield line
    finally:
        over.set()
        thread.join()
        if concludes:
            opened.conclude(read())


def draw_until(over: threading.Event, line: ProgressLine, read: Callable[[], Progress], after_s: float) -> None:
    """Draw the progress from ``after_s`` seconds on until ``over`` is set, and then remove the line."""
    if over.wait(after_s):
        return
    try:
        while True:
            line.draw(read())
            if over.wait(REDRAW_S):
                return
    finally:
        line.remove()


class _CellLine:
    def __init__(self, screen: CellScreen) -> None:
        self._screen = screen
        self._drawn: Progress | None = None

    def draw(self, progress: Progress) -> None:
        self._drawn = progress
        self._screen.status({}, progress)

    def leave(self) -> None:
        self._screen.flush({}, self._drawn)

    def remove(self) -> None:
        self._screen.close()

    def conclude(self, progress: Progress) -> None:
        if self._drawn is not None:
            self._screen.conclude(progress)


class _TerminalLine:
    def __init__(self) -> None:
        self._live: Any = None

    def draw(self, progress: Progress) -> None:
        from rich.console import Console
        from rich.live import Live

        if self._live is None:
            # Streams stay as they are, because another thread may be about to replace them.
            self._live = Live(
                console=Console(file=sys.stderr, force_jupyter=False),
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(progress_bar(progress), refresh=True)

    def leave(self) -> None:
        if self._live is not None:
            self._live.transient = False
            self._live.stop()

    def remove(self) -> None:
        if self._live is not None:
            self._live.stop()

    def conclude(self, progress: Progress) -> None:
        pass  # the line has left no place


HELD_CHARS = 20_000
"""Characters of an unfinished line that wait for its end."""


class PlainOutput:
    """Writes output of engines to the same stream of this program, without prefixes, as ``multiprocessing`` does.

    Lines stay whole: if several engines print, the beginning of a line waits for its end.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[int, RequestId | None, str], str] = {}
        self._line: ProgressLine | None = None

    def add(self, output: EngineOutput, now: float) -> None:
        """Write output of an engine."""
        self._remove_line()
        for chunk in output.chunks:
            match chunk:
                case StreamText(name, text):
                    self._add_text((output.engine_id, output.source, name), text)
                case Display(data, _, _, _):
                    for name in ("stdout", "stderr"):
                        self._let_go((output.engine_id, output.source, name))
                    print(data.get("text/plain", f"<{', '.join(data)}>"))

    def draw(self, interrupts: HeldInterrupts, now: float, progress: Progress | None) -> None:
        """Flush the streams, and draw progress, unless it would go to a file or a pipe."""
        _flush()
        if progress is not None:
            self._line = self._line or open_line()
            if self._line is not None:
                self._line.draw(progress)

    def settle(self, interrupts: HeldInterrupts, *, over: bool) -> None:
        """Write all output so far; with ``over``, unfinished lines as well."""
        self._remove_line()
        if over:
            for whose in list(self._held):
                self._let_go(whose)
        _flush()

    def _remove_line(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.remove()

    def _add_text(self, whose: tuple[int, RequestId | None, str], text: str) -> None:
        text = self._held.pop(whose, "") + text
        lines, end, rest = text.rpartition("\n")
        if len(rest) > HELD_CHARS:
            lines, end, rest = text, "", ""
        if rest:
            self._held[whose] = rest
        _write(whose[2], lines + end)

    def _let_go(self, whose: tuple[int, RequestId | None, str]) -> None:
        _write(whose[2], self._held.pop(whose, ""))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def _write(name: str, text: str) -> None:
    stream = sys.stderr if name == "stderr" else sys.stdout
    if not text or stream is None or stream.closed:  # the result contains the text anyway
        return
    try:
        stream.write(text)
    except UnicodeEncodeError:  # text that an engine can print must not fail here
        stream.write(text.encode(stream.encoding, "backslashreplace").decode(stream.encoding))
