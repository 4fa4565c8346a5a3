"""Progress of calls, and of data on its way to them."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from nsactors.errors import bytes_in_words, printable
from nsactors.errors.formatting import Speedometer
from nsactors.results.call import Call, MapCall, TaskCall
from nsactors.results.display.line import LentLine, open_line, showing
from nsactors.results.display.live import AwaitedOutput, Wait
from nsactors.results.display.screen import Progress

if TYPE_CHECKING:
    from nsactors.results.async_result import AsyncResult


class Amount(NamedTuple):
    """A count of things that have ended, their total, and their name."""

    done: int
    total: int
    unit: str


def amount_of(calls: Sequence[Call]) -> Amount:
    """Count the ended parts of calls: items of balanced maps, tasks, parts of other maps, or engines."""
    if calls and all(isinstance(call, TaskCall) for call in calls):
        maps = [call for call in calls if isinstance(call, MapCall)]
        others = [call for call in calls if not isinstance(call, MapCall)]
        done = sum(call.size - call.left for call in maps) + sum(call.done for call in others)
        return Amount(done, sum(call.size for call in maps) + len(others), "items" if maps else "tasks")
    unit = "engines" if len({call.engine_id for call in calls}) == len(calls) else "parts"
    return Amount(sum(call.done for call in calls), len(calls), unit)


class ProgressMeter:
    """Reads the progress of calls, with rate and estimate if there are many things to count.

    Args:
        label: the name of the calls together.
        calls: any number.
        began: the time of their submission, in seconds since the epoch; by default the time of the first submission.
    """

    def __init__(self, label: str, calls: Sequence[Call], began: float | None = None) -> None:
        self._label = label
        self._calls = calls
        self._began = min((call.submitted for call in calls), default=time.time()) if began is None else began
        self._speed = Speedometer(amount_of(calls).total)
        self._speed.note(0, self._began)

    def read(self) -> Progress:
        """Return the progress now."""
        done, total, unit = amount_of(self._calls)
        now = time.time()
        if done == total:  # the last call may have ended a while ago
            now = max((call.received for call in self._calls if call.received is not None), default=now)
        elapsed_s = now - self._began
        if unit not in ("items", "tasks"):  # engines reply at about the same time, so there is no rate
            return Progress(self._label, done, total, elapsed_s, unit)
        self._speed.note(done, now)
        return Progress(self._label, done, total, elapsed_s, unit, self._speed.rate, self._speed.left_s)

    def sum_up(self) -> Progress:
        """Return the progress at the end, with the average rate."""
        last = self.read()
        rate = last.done / last.elapsed_s if last.rate is not None and last.elapsed_s > 0 else None
        return last._replace(rate=rate, left_s=None)


def show_progress(
    result: AsyncResult, interval_s: float, timeout_s: float | None, return_when: str | None = None
) -> None:
    """Draw a line of progress until ``result`` is done, ``return_when`` is met or time is up; leave the line there.

    Where output goes to a file or a pipe, only the last state is written.
    """
    meter = ProgressMeter(result._label, result._calls)
    line = open_line()
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    try:
        while (
            not result._wait(max(0.0, min(interval_s, deadline - time.monotonic())))
            and time.monotonic() < deadline
            and not (return_when is not None and _far_enough(result.calls, return_when))
        ):
            if line is not None:
                line.draw(meter.read())
    finally:
        last = meter.sum_up()
        if line is None:
            print(f"{printable(last.label, '')}: {last.amount}, {last.times}", file=sys.stderr)
        else:
            line.draw(last)
            line.leave()


def _far_enough(calls: Sequence[Call], return_when: str | None) -> bool:
    """Return whether the condition ``return_when`` is met. The caller waits for all calls anyway."""
    match return_when:
        case "FIRST_COMPLETED":
            return any(call.done for call in calls)
        case "FIRST_EXCEPTION":
            return any(call.error is not None for call in calls)
    return False


AFTER_S = 2.0
TRANSFER_AFTER_S = 0.5  # users want to know early how large and how fast a transfer is
LARGE_BYTES = 20_000_000  # storing smaller data takes no noticeable time


class _Wait:
    """The progress of a wait that is under way.

    Args:
        label: the name of the calls.
        nbytes: the size of the data that is first stored for them; 0 for none.
        calls: the calls, if they have been made.
    """

    def __init__(self, label: str, nbytes: int, calls: Sequence[Call]) -> None:
        self._label = label
        self._nbytes = nbytes
        self._began = min((call.submitted for call in calls), default=time.time())
        self._calls: Sequence[Call] = ()
        self._meter: ProgressMeter | None = None
        self._bytes_rate: float | None = None
        self._shared_before = _shared_bytes()
        self.line: LentLine | None = None
        if calls:
            self.watch(calls)

    def watch(self, calls: Sequence[Call]) -> None:
        """Wait for these calls from now on, because the data has been sent."""
        if self._nbytes:
            self._bytes_rate = self._nbytes / max(time.time() - self._began, 1e-6)
        self._calls = calls
        self._meter = ProgressMeter(self._label, calls, self._began)

    def read(self) -> Progress:
        """Return the progress."""
        if self._meter is None:
            elapsed_s = max(time.time() - self._began, 1e-6)
            if (stored := min(_shared_bytes() - self._shared_before, self._nbytes)) > 0:
                return Progress(self._label, stored, self._nbytes, elapsed_s, "bytes", bytes_rate=stored / elapsed_s)
            label = f"{self._label}: {bytes_in_words(self._nbytes)}"
            return Progress(label, 0, 0, elapsed_s, doing="into the object store")
        progress = self._meter.read()
        moved, rate = self._nbytes, self._bytes_rate
        if not moved and (moved := sum(call.nbytes for call in self._calls)):
            rate = moved / max(progress.elapsed_s, 1e-6)
        if not moved:
            return progress
        return progress._replace(label=f"{self._label}: {bytes_in_words(moved)}", bytes_rate=rate)


_under_way: ContextVar[_Wait | None] = ContextVar("wait under way", default=None)


@contextmanager
def showing_transfer(label: str, nbytes: int, *, after_s: float = TRANSFER_AFTER_S) -> Iterator[None]:
    """Show a line once a block that sends data has taken ``after_s`` seconds, until it ends.

    Args:
        label: the name of the transfer, e.g. ``push``.
        nbytes: the size of the data; nothing is shown for less than 20 MB.
        after_s: seconds.
    """
    if nbytes < LARGE_BYTES or _under_way.get() is not None:
        yield
        return
    shown = _Wait(label, nbytes, ())
    token = _under_way.set(shown)
    try:
        with showing(shown.read, after_s=after_s) as shown.line:
            yield
    finally:
        _under_way.reset(token)


def wait_showing(
    wait: Wait, calls: Sequence[Call], timeout_s: float | None, output: AwaitedOutput | None = None
) -> bool:
    """Return ``wait(timeout_s)``; show a line of progress if it takes long.

    Only the main thread shows a line; other threads wait in the background while the user types or reads. ``output`` is
    the output that ``wait`` shows.
    """
    if not calls or threading.current_thread() is not threading.main_thread():
        return wait(timeout_s)
    if (shown := _under_way.get()) is not None:
        shown.watch(calls)
        if output is not None:
            output.line = shown.line
        return wait(timeout_s)
    label = calls[0].label
    after_s = TRANSFER_AFTER_S if _moves_data(label) else AFTER_S
    if timeout_s is not None and timeout_s <= after_s:
        return wait(timeout_s)
    if wait(after_s):
        return True
    with showing(_Wait(label, 0, calls).read, after_s=0.0) as line:
        if output is not None:
            output.line = line
        return wait(None if timeout_s is None else timeout_s - after_s)


def _shared_bytes() -> int:
    """Return the bytes of shared memory that this process has touched; 0 if they are not known.

    This number shows how much of an object Ray has stored, which Ray does not report. Only a copy to new pages takes
    long: a push of 480 MB took 1.8 and 1.2 s into new pages, and 0.2 s into the pages of a deleted object.
    """
    try:
        with open("/proc/self/status", "rb") as file:
            fields = dict(line.split(b":", 1) for line in file)
        return int(fields[b"RssShmem"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0


def _moves_data(label: str) -> bool:
    return label in ("push", "scatter") or label.startswith(("pull(", "gather("))
