"""Live output: shown on a screen while engines print it."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from queue import Empty, SimpleQueue

from nsactors.errors import ClientClosed, group_failures
from nsactors.protocol.messages import ExecuteResult, OutputChunk
from nsactors.protocol.process import current_shell
from nsactors.results.call import Call, EngineOutput, OutputGoes, TaskCall
from nsactors.results.display.line import LentLine, PlainOutput
from nsactors.results.display.merging import Merger, Shown, arrange
from nsactors.results.display.notebook import CellArea, CellScreen
from nsactors.results.display.screen import HeldInterrupts, Progress, Screen
from nsactors.results.display.terminal import TerminalScreen

STEP_S = 0.05
BATCH = 200  # pieces that are drawn in one step: Ctrl-C waits for the end of a step
AFTER_INTERRUPT = 200  # how many of the lines that have arrived by then are drawn after Ctrl-C

_TO_WAITER = OutputGoes.TO_WAITER

Wait = Callable[[float | None], bool]
"""Waits for at most the given seconds; returns whether the wait is over."""


def has_unshown(calls: Iterable[Call]) -> bool:
    """Return whether calls have output to be shown to the thread that waits for them."""
    # A loop is faster than a generator, and a global name is faster than a member of an enumeration. The speed matters,
    # because this runs for every call that is waited for, and nearly all calls have printed nothing.
    for call in calls:  # noqa: SIM110
        if call.has_unshown and call.output_goes is _TO_WAITER:
            return True
    return False


def is_watched() -> bool:
    """Return whether a user reads output when it arrives, at a terminal or in a notebook; it may also go to a file."""
    return hasattr(current_shell(), "kernel") or (sys.stdout is not None and sys.stdout.isatty())


class AwaitedOutput:
    """Shows the output of calls, once, while their results are waited for.

    At a terminal and in a notebook, lines begin with their engines, and equal lines are shown once; elsewhere output is
    shown as it was printed. No screen is made before there is output. No thread is made at all, because the waiting
    thread looks for output every ``STEP_S`` seconds.

    Args:
        calls: the calls; there may be more later.
        clock: seconds.

    Attributes:
        line: the line of progress of this wait, if there is one.
    """

    __slots__ = ("_calls", "_clock", "_output", "_progress", "line")

    def __init__(self, calls: Sequence[Call], clock: Callable[[], float] = time.monotonic) -> None:
        self._calls = calls
        self._clock = clock
        self._output: MergedOutput | PlainOutput | None = None
        self._progress: Callable[[], Progress] | None = None
        self.line: LentLine | None = None

    def around(self, wait: Wait) -> Wait:
        """Return a function that waits as ``wait`` does, and shows the output during the wait."""

        def wait_and_show(timeout_s: float | None) -> bool:
            deadline = None if timeout_s is None else self._clock() + timeout_s
            try:
                while True:
                    left_s = STEP_S if deadline is None else min(STEP_S, max(0.0, deadline - self._clock()))
                    if wait(left_s):
                        return True
                    self._look()
                    if deadline is not None and self._clock() >= deadline:
                        return False
            except KeyboardInterrupt:
                if isinstance(self._output, MergedOutput):
                    self._output.cut()
                raise

        return wait_and_show

    def settle(self) -> None:
        """Show all output so far, because the wait is over, and the next wait may begin much later."""
        self._progress = self.line = None
        if self._output is None and not has_unshown(self._calls):
            return
        with HeldInterrupts() as interrupts:
            over = all(call.done for call in self._calls)  # ask this before the rest is taken
            self._take().settle(interrupts, over=over)
            if over:
                self._output = None

    def _look(self) -> None:
        if self._output is None and not has_unshown(self._calls):
            return
        with HeldInterrupts() as interrupts:
            output = self._take()
            if self.line is not None:
                self._progress, self.line = self.line.take_over(), None
            output.draw(interrupts, self._clock(), None if self._progress is None else self._progress())

    def _take(self) -> MergedOutput | PlainOutput:
        if self._output is None:
            self._output = MergedOutput(_screen(), self._calls) if is_watched() else PlainOutput()
        for call in self._calls:
            if call.has_unshown and call.output_goes is _TO_WAITER:
                for output in call.take_unshown():
                    self._output.add(output._replace(chunks=_without_values(output.chunks)), self._clock())
        return self._output


class MergedOutput:
    """Puts the output of engines together and draws it.

    Args:
        screen: the screen.
        calls: the calls that give the output.
    """

    def __init__(self, screen: Screen, calls: Sequence[Call]) -> None:
        self.screen = screen
        self._submitted = min((call.submitted for call in calls), default=math.inf)
        tasks = any(isinstance(call, TaskCall) for call in calls)  # tasks have no engine until they are sent to one
        self.merger = Merger([] if tasks else [call.engine_id for call in calls], open_ended=tasks)

    def add(self, output: EngineOutput, now: float) -> None:
        """Add output of an engine."""
        if self.merger.began is None:
            self.merger.began = now - max(0.0, time.time() - self._submitted)
        self.merger.add(output.engine_id, output.chunks, now, output.source)

    def draw(self, interrupts: HeldInterrupts, now: float, progress: Progress | None) -> None:
        """Draw the output that is due, and the progress."""
        self._show(partial(self.merger.due, now), interrupts)
        self.screen.status(self.merger.statuses(now), progress)

    def settle(self, interrupts: HeldInterrupts, *, over: bool) -> None:
        """Draw all output so far; with ``over``, unfinished lines as well."""
        self.screen.status({}, None)
        if over:
            self.finish(interrupts)
        else:
            self._show(self.merger.finished, interrupts)
        self.screen.close()

    def cut(self) -> None:
        """Leave out most of a flood after Ctrl-C, and report this at the end. A question to the user may follow."""
        self.merger.cut(AFTER_INTERRUPT)
        self.screen.close()

    def finish(self, interrupts: HeldInterrupts) -> None:
        """Draw the rest."""
        self._show(self.merger.rest, interrupts)
        left_out, last = self.merger.ending()
        if left_out:
            self.screen.notice(f"... {left_out:,} lines left out here; what was captured is in .stdout of the result")
        self.screen.show(last)

    def _show(self, more: Callable[[int], Sequence[Shown]], interrupts: HeldInterrupts) -> None:
        while some := more(BATCH):
            self.screen.show(some)
            interrupts.check()


def _screen() -> Screen:
    shell = current_shell()
    if hasattr(shell, "kernel"):
        return CellScreen(shell.display_pub)
    # Two threads that wait would draw into each other's lines.
    is_main = threading.current_thread() is threading.main_thread()
    return TerminalScreen(live=is_main and sys.stdout.isatty())


def _without_values(chunks: Iterable[OutputChunk]) -> list[OutputChunk]:
    """Leave out the value of a cell, which its result shows."""
    return [chunk for chunk in chunks if not isinstance(chunk, ExecuteResult)]


REDRAW_S = 0.1
SETTLE_S = 0.01

_Arrival = tuple[Call, bool]
"""A call, and whether it has ended; if it has not ended, it has new output."""


class LiveOutput:
    """Shows the output of calls as it arrives, in place of the threads that wait for these calls.

    Calls pass on their output on a thread that serves all calls, so that thread only queues it; :meth:`wait` shows it.

    Args:
        calls: one per engine.
        screen: the screen.
        label: the name of these calls in the progress bar.
        progress_after_s: seconds until a progress bar is shown; negative for never.
        groupby: show nothing before all calls have ended, and then all output in this order; see ``arrange``.
        again: whether output that has already been shown is shown again.
        failures_told: for calls whose results are perhaps never asked for: print their errors at the end, unless the
            client was closed, and then call this with the calls. None: print no errors.
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
        again: bool = False,
        failures_told: Callable[[list[Call]], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.screen = screen
        self._calls = list(calls)
        self._label = label
        self._progress_after_s = progress_after_s
        self._groupby = groupby
        self._failures_told = failures_told
        self._stopped = threading.Event()
        self._clock = clock
        self._began = clock()
        self._output = MergedOutput(screen, self._calls)
        self._arrivals: SimpleQueue[_Arrival | None] = SimpleQueue()
        self._interrupts = HeldInterrupts(lambda: self._arrivals.put(None))
        self._running = len(self._calls)
        self._open = Counter(call.engine_id for call in self._calls)
        self._over = False
        for call in self._calls:
            call.output_goes, call.shows_value = OutputGoes.TO_DISPLAY, False
            if again:
                call.shown = 0
            call.watch_output(lambda call, chunks: self._arrivals.put((call, False)))
            call.when_settled(lambda call: self._arrivals.put((call, True)))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Show output until all calls have ended or the time is over; return whether all calls have ended.

        Raises:
            KeyboardInterrupt: on Ctrl-C. Nothing is then being drawn, and this method can be called again.
        """
        deadline = None if timeout_s is None else self._clock() + timeout_s
        try:
            with self._interrupts:
                while self._running and not self._stopped.is_set():
                    left = REDRAW_S if deadline is None else min(REDRAW_S, deadline - self._clock())
                    if left <= 0:
                        return False
                    self._pump(left)
                self._finish()
        except KeyboardInterrupt:
            self._output.cut()
            raise
        return True

    def settle(self) -> None:
        """Show the output so far, and leave the screen to a prompt."""
        self.wait(SETTLE_S)
        self.screen.status({}, None)
        self.screen.close()

    def follow(self) -> threading.Thread:
        """Show output from a separate thread."""
        thread = threading.Thread(target=self.wait, name="nsactors-live-output", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """Show the output so far and no more."""
        self._stopped.set()

    def let_go(self) -> None:
        """Leave output that has not been shown yet to the threads that wait for the calls."""
        for call in self._calls:
            call.output_goes = OutputGoes.TO_WAITER

    def _pump(self, timeout_s: float) -> None:
        due = self._output.merger.next_due()
        if due is not None:
            timeout_s = min(timeout_s, max(0.0, due - self._clock()))
        try:
            self._take(self._arrivals.get(timeout=timeout_s))
            # Take only as many as there are now, because in a flood there would always be one more.
            for _ in range(self._arrivals.qsize()):
                self._take(self._arrivals.get_nowait())
        except Empty:
            pass
        self._interrupts.check()
        if self._groupby is None:
            self._output.draw(self._interrupts, self._clock(), self._progress())
        else:
            self.screen.status({}, self._progress())

    def _take(self, arrival: _Arrival | None) -> None:
        if arrival is None:
            return
        call, has_ended = arrival
        now = self._clock()
        for output in call.take_unshown():
            if self._groupby is None:
                self._output.add(output, now)
        if has_ended:
            self._running -= 1
            self._open[call.engine_id] -= 1
            if not self._open[call.engine_id]:
                self._output.merger.end(call.engine_id, now)

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
        if self._groupby is not None:
            self.screen.show(arrange([(call.engine_id, call.output.chunks) for call in self._calls], self._groupby))
        self._output.finish(self._interrupts)
        if self._failures_told is not None:
            errors = [call.error for call in self._calls if call.error is not None]
            # The user has closed the client, perhaps by leaving IPython, and with it has left the calls.
            for group in group_failures([error for error in errors if not isinstance(error, ClientClosed)]):
                self.screen.notice(group.summary)
            self._failures_told(self._calls)
        self.screen.close()


def open_screen(*, blocking: bool, title: str = "") -> Screen:
    """Return the screen of the cell that runs now: in a notebook the place under it, otherwise the terminal or pipe.

    Args:
        blocking: whether the cell waits for the calls; if not, output arrives while other cells run.
        title: shown until there is output.
    """
    shell = current_shell()
    if shell is not None and hasattr(shell, "kernel"):
        return CellScreen(shell.display_pub) if blocking else CellArea(shell.display_pub, title)
    return TerminalScreen(live=blocking and sys.stdout.isatty())
