"""From calls to a screen."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

from nsactors.core.messages import OutputChunk
from nsactors.errors import group_failures
from nsactors.results.call import Call
from nsactors.results.live.grouping import Merger, arrange
from nsactors.results.live.notebook import CellArea, CellScreen
from nsactors.results.live.screen import Progress, Screen
from nsactors.results.live.terminal import TerminalScreen

__all__ = ["LiveOutput", "open_screen"]

REDRAW_S = 0.1

_Arrival = tuple[int, list[OutputChunk] | None]
"""What an engine printed, or (None) that it has answered."""


class LiveOutput:
    """Shows the output of calls as it comes.

    Calls hand over their output on a thread that serves everybody, so it only queues here; whoever pumps shows it.

    Args:
        calls: one per engine.
        screen: where.
        label: what these calls are called in the progress bar.
        progress_after_s: seconds until a progress bar is shown; negative for never.
        tells_failures: say at the end what failed, for calls whose result nobody may ask for.
        groupby: show nothing before all have ended, and then in this order; see ``arrange``.
        clock: seconds.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        screen: Screen,
        *,
        label: str = "",
        progress_after_s: float = -1.0,
        groupby: str | None = None,
        tells_failures: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.screen = screen
        self._calls = list(calls)
        self._label = label
        self._progress_after_s = progress_after_s
        self._groupby = groupby
        self._tells_failures = tells_failures
        self._stopped = threading.Event()
        self._clock = clock
        self._began = clock()
        self._merger = Merger([call.engine_id for call in calls])
        self._arrivals: SimpleQueue[_Arrival | None] = SimpleQueue()
        self._running = len(self._calls)
        self._over = False
        self._interrupted = False
        for call in self._calls:
            call.watch_output(lambda call, chunks: self._arrivals.put((call.engine_id, chunks)))
            call.when_settled(lambda call: self._arrivals.put((call.engine_id, None)))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Show what comes until all calls have ended, or time is up; whether they have.

        Raises:
            KeyboardInterrupt: on Ctrl-C; the screen is quiet then, and waiting can go on.
        """
        deadline = None if timeout_s is None else self._clock() + timeout_s
        try:
            with self._interrupts_between_steps():
                while self._running and not self._stopped.is_set():
                    left = REDRAW_S if deadline is None else min(REDRAW_S, deadline - self._clock())
                    if left <= 0:
                        return False
                    self._pump(left)
                self._finish()
        except KeyboardInterrupt:
            self.screen.close()
            raise
        return True

    def follow(self) -> threading.Thread:
        """Show what comes from a thread of its own."""
        thread = threading.Thread(target=self.wait, name="nsactors-live-output", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """Show what is there and no more."""
        self._stopped.set()

    @contextmanager
    def _interrupts_between_steps(self) -> Iterator[None]:
        """Let Ctrl-C raise KeyboardInterrupt only between two steps.

        Raised anywhere, it was lost in one flood of six: Python ignores what is raised in callbacks of weak
        references, and drawing runs many.
        """
        on_main_thread = threading.current_thread() is threading.main_thread()
        if not on_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        self._interrupted = False
        signal.signal(signal.SIGINT, self._on_sigint)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._raise_interrupt()

    def _on_sigint(self, *_: object) -> None:
        if self._interrupted:  # a step hangs, as where the terminal takes no more text
            raise KeyboardInterrupt
        self._interrupted = True
        self._arrivals.put(None)  # ends the wait for arrivals

    def _raise_interrupt(self) -> None:
        interrupted, self._interrupted = self._interrupted, False
        if interrupted:
            raise KeyboardInterrupt

    def _pump(self, timeout_s: float) -> None:
        due = self._merger.next_due()
        if due is not None:
            timeout_s = min(timeout_s, max(0.0, due - self._clock()))
        try:
            self._take(self._arrivals.get(timeout=timeout_s))
            # As many as there are now: in a flood there is always one more.
            for _ in range(self._arrivals.qsize()):
                self._take(self._arrivals.get_nowait())
        except Empty:
            pass
        self._raise_interrupt()
        if self._groupby is None:
            self.screen.show(self._merger.due(self._clock()))
        self.screen.status({} if self._groupby else self._merger.statuses, self._progress())

    def _take(self, arrival: _Arrival | None) -> None:
        if arrival is None:
            return
        engine_id, chunks = arrival
        if chunks is None:
            self._running -= 1
            self._merger.end(engine_id, self._clock())
        elif self._groupby is None:
            self._merger.add(engine_id, chunks, self._clock())

    def _progress(self) -> Progress | None:
        elapsed = self._clock() - self._began
        if self._progress_after_s < 0 or elapsed < self._progress_after_s:
            return None
        total = len(self._calls)
        return Progress(self._label, total - self._running, total, elapsed)

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        self.screen.status({}, None)
        if self._groupby is None:
            self.screen.show(self._merger.rest())
        else:
            self.screen.show(arrange([(call.engine_id, call.output.chunks) for call in self._calls], self._groupby))
        left_out, last = self._merger.ending()
        if left_out:
            self.screen.notice(f"... {left_out:,} lines left out here; what was captured is in .stdout of the result")
        self.screen.show(last)
        if self._tells_failures:
            for group in group_failures([call.error for call in self._calls if call.error is not None]):
                self.screen.notice(group.summary)
        self.screen.close()


def open_screen(*, blocking: bool, title: str = "") -> Screen:
    """The screen of the cell that runs now: in a notebook the place under it, otherwise the terminal or pipe.

    Args:
        blocking: whether the cell waits for the calls; if not, output comes while something else goes on.
        title: stands for output that has not come yet.
    """
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and hasattr(shell, "kernel"):
        return CellScreen(shell.display_pub) if blocking else CellArea(shell.display_pub, title)
    return TerminalScreen(live=blocking and sys.stdout.isatty())
