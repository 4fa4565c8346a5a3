"""A user of the debugger: ``python -m tests.chaos.debugger_user CONNECTION NAME SEED``, which is stopped and killed.

The user asks engines for calls that stop at breakpoints or fail, and types lines at the debugger's prompt, until the
standard input of the process ends. For each call that has ended it writes a line of JSON: see :class:`Ended`.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from nsactors import AsyncResult, Client, CompositeError
from nsactors.errors import ClusterUnreachable, DebuggerUnavailable

__all__ = ["HANG_S", "NO_SHARE", "Ended", "main", "share_of_core"]

HANG_S = 5.0
LOOK_S = 0.1
NO_SHARE = 0.05  # with a smaller share of a core, even the controller does not reply in half a minute
PAUSE_S = 0.5  # a longer time between two looks: the process was stopped, or had no processor
LINES = 8
LIMIT_S, LIMIT_PROMPT_S = 4.0, 5.0
LATE_S = 0.3  # the duration of a line that sleeps, which may be interrupted
TAIL_CHARS = 3000

# Functions of the name of the user, for engines have one namespace.
CELL = """
def {0}_add(k, y):
    return y + k
def {0}_work(x):
    edit = 0
    y = 2 * x
    breakpoint()
    for k in range(3):
        y = {0}_add(k, y)
    return y + edit
print({0}_work({1}) + 1)
breakpoint()
{0}_end = {1}
"""


class Ended(NamedTuple):
    """The end of a call.

    Attributes:
        kind: the kind of round.
        engine_id: the engine; -1 for a task.
        began: seconds on the clock that all processes of the machine share.
        ended: likewise.
        outcome: ``"ok"``, or the name of the error.
        caused: the names of the errors that the user has caused, by quitting or by Ctrl-C.
        wrong: the wrong value; empty if it is right.
    """

    kind: str
    engine_id: int
    began: float
    ended: float
    outcome: str
    caused: tuple[str, ...]
    wrong: str


def share_of_core() -> float:
    """Return the part of a core that a process gets now, at least: others may use this machine, too.

    Limits are for a machine that has nothing else to do, so time counts by this share.
    """
    runnable = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    return min(1.0, (os.cpu_count() or 1) / max(1, runnable))


class Report:
    """Writes lines of JSON for the process that has started this one."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._lock = threading.Lock()

    def ended(self, ended: Ended) -> None:
        """Report the end of a call."""
        self._write({"ended": ended})

    def answered(self, seconds: float) -> None:
        """Report the time between a line and the next prompt."""
        self._write({"line_s": seconds})

    def interrupts(self, engine_id: int) -> None:
        """Report that what runs on an engine is going to be interrupted."""
        self._write({"interrupts": engine_id})

    def complain(self, text: str) -> None:
        """Report something wrong."""
        self._write({"complaint": text})

    def _write(self, value: Any) -> None:
        with self._lock:
            os.write(self._file, json.dumps(value).encode() + b"\n")


class Watch:
    """Complains of waits that do not end; time in which this process is stopped or has no processor does not count.

    Args:
        rc: the user's client.
        complain: hears of them.

    Attributes:
        paused_s: seconds for which this process was stopped.
    """

    def __init__(self, rc: Client, complain: Callable[[str], object]) -> None:
        self._rc = rc
        self._complain = complain
        self._waits_for: Callable[[], Iterable[int]] | None = None
        self._what = ""
        self._waited_s = 0.0
        self._unexplained = 0
        self.paused_s = 0.0
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    def begin(self, what: str, engine_ids: Callable[[], Iterable[int]]) -> None:
        """Watch a wait for engines, which replaces the one before."""
        self._waited_s, self._what, self._unexplained = 0.0, what, 0
        self._waits_for = engine_ids

    def end(self) -> None:
        """Nothing is waited for."""
        self._waits_for = None

    def _look(self) -> None:
        last = time.monotonic()
        pause = threading.Event()
        while True:
            pause.wait(LOOK_S)
            now = time.monotonic()
            waits_for = self._waits_for
            if waits_for is not None and set(waits_for()) <= set(self._rc.ids):
                self._waited_s += min(now - last, PAUSE_S) * share_of_core()
            self.paused_s += max(0.0, now - last - PAUSE_S)
            last = now
            if waits_for is None or self._waited_s < HANG_S:
                continue
            self._unexplained = 0 if self._is_explained(set(waits_for())) else self._unexplained + 1
            if self._unexplained == 3 and self._waits_for is waits_for:
                main = sys._current_frames()[threading.main_thread().ident or 0]
                told = f"{self._what} for {self._waited_s:.1f} s\n{''.join(traceback.format_stack(main)[-12:])}"
                self._complain(f"{told}\n{self._rc.activity()!r}")

    def _is_explained(self, engine_ids: set[int]) -> bool:
        """Return whether one of the engines is away, serves somebody else, or has just begun with the call."""
        seen = [engine for engine in self._rc.activity().engines if engine.engine_id in engine_ids]
        return len(seen) < len(engine_ids) or any(
            engine.state not in ("idle", "busy", "stopped")
            or (engine.client and engine.client != self._rc.name)
            or (engine.for_s is not None and engine.for_s < HANG_S)
            for engine in seen
        )


class Prompt:
    """Types lines at the debugger's prompt, and checks what it shows.

    Args:
        chance: chooses the lines.
        shown: what the process prints.
        report: hears of replies that are wrong.
    """

    def __init__(self, chance: random.Random, shown: io.StringIO, report: Report) -> None:
        self._chance = chance
        self._shown = shown
        self._report = report
        self._timers: list[threading.Timer] = []
        self._typed = ""
        self._typed_at = 0.0
        self._expected: re.Pattern[str] | None = None
        self._left = 0
        self._first_wait_s = 0.0
        self._closing: Sequence[str] = ()
        self._may: frozenset[str] = frozenset()
        self._x = 0
        self.word = self.kind = ""
        self.watch: Watch
        self.rc: Client
        self.engine_ids: Sequence[int] = ()
        self.edits: set[int] = set()
        self.caused: set[str] = set()

    @contextmanager
    def round(
        self,
        x: int,
        closing: Sequence[str],
        *,
        lines: int = LINES,
        first_wait_s: float = 0.0,
        may: Iterable[str] = ("edit", "press", "interrupt", "steps"),
    ) -> Iterator[None]:
        """Type some lines within the block, and the closing ones then.

        Args:
            x: the variable of that name in the user's functions; 0 if it is not known.
            closing: one of these ends the debugger.
            lines: at most so many lines are typed before.
            first_wait_s: seconds at the first prompt.
            may: what else may be done.
        """
        self._x, self._closing, self._may = x, closing, frozenset(may)
        self._left, self._first_wait_s = self._chance.randrange(lines + 1), first_wait_s
        self.edits, self.caused = set(), set()
        self._forget_line()
        try:
            yield
        finally:
            for timer in self._timers:
                timer.cancel()
                timer.join()
            self._timers.clear()
            self.watch.end()

    def __call__(self, prompt: str) -> str:
        self.watch.end()
        self._check(prompt)
        if self._first_wait_s:
            threading.Event().wait(self._first_wait_s)
            self._first_wait_s = 0.0
        line = self._choose()
        engine_ids = self.engine_ids
        self._typed, self._typed_at = line, time.monotonic() - self.watch.paused_s
        self._shown.seek(0)
        self._shown.truncate()
        self.watch.begin(f"{line!r} at {prompt!r} has no reply", lambda: engine_ids)
        return line

    def _forget_line(self) -> None:
        self._typed, self._expected = "", None
        self._shown.seek(0)
        self._shown.truncate()

    def _check(self, prompt: str) -> None:
        if self._typed:
            self._report.answered(time.monotonic() - self.watch.paused_s - self._typed_at)
            shown = self._shown.getvalue()
            if self._expected is not None and not self._expected.search(shown):
                self._report.complain(f"{self.kind}: {self._typed!r} at {prompt!r} shows {shown!r}, and x is {self._x}")
        self._forget_line()

    def _choose(self) -> str:
        if self._left <= 0:
            line = self._chance.choice(self._closing)
            if line.rpartition(" ")[2] == "q":
                self.caused.add("BdbQuit")
            return line
        self._left -= 1
        x, edit = self._x, self._chance.randrange(1000, 2000)
        # If the debugger is at another place than expected, x does not exist. A line that begins with *** reports that
        # an engine continues or has left.
        looks = {"p x": x, "all p x": x, "x * 3": 3 * x, "all p [x] * 2": [x, x], "p x if x else 0": x}
        lines = [*looks, "w", "all w", "l", "ll", "u", "d", "locals", "all locals", "engines", "here", "all here"]
        lines += [f"engine {self._chance.choice(self.engine_ids)}", "p 1 / 0", "no_such_name", "b no_such_function"]
        late = f"__import__('time').sleep({LATE_S})"
        lines += [late, f"all {late}"]
        if "steps" in self._may:
            lines += ["n", "s", "r", "all n", "all s", "all r", "unt"] * 2
        if "break" in self._may:
            lines += [f"b {self.word}_add", f"all b {self.word}_add", "cl", "all cl"]
        if "edit" in self._may:
            lines += [f"edit = {edit}", f"all edit = {edit}"] * 2
        doings: list[Callable[[], None]] = []
        if "press" in self._may:
            doings += [self._press_now, self._press_soon]
        if "interrupt" in self._may:
            doings.append(self._interrupt)
        if doings and self._chance.random() < 0.15:
            self._chance.choice(doings)()
        line = self._chance.choice(lines)
        if "edit =" in line:
            self.edits.add(edit)
        if line in looks and x:
            self._expected = re.compile(rf"{re.escape(str(looks[line]))}|\*\*\*|KeyboardInterrupt")
        return line

    def _press_now(self) -> None:
        raise KeyboardInterrupt

    def _press_soon(self) -> None:
        """Press Ctrl-C while the line is carried out, or later."""
        self.caused.add("KeyboardInterrupt")
        self._timers.append(threading.Timer(self._chance.uniform(0, LATE_S), os.kill, [os.getpid(), signal.SIGINT]))
        self._timers[-1].start()

    def _interrupt(self) -> None:
        self.caused.add("KeyboardInterrupt")
        engine_id = self._chance.choice(self.engine_ids)
        self._report.interrupts(engine_id)  # whosever request runs there
        self.rc.interrupt(engine_id)


class User:
    """Asks for one call after the other.

    Args:
        rc: the user's client.
        prompt: types lines.
        chance: chooses the calls.
        report: hears how they end.
    """

    def __init__(self, rc: Client, prompt: Prompt, chance: random.Random, report: Report) -> None:
        self._rc = rc
        self._prompt = prompt
        self._chance = chance
        self._report = report
        self._watch = prompt.watch = Watch(rc, report.complain)
        prompt.rc, prompt.word = rc, rc.name.partition("-")[0]
        self._rounds: dict[Callable[[list[int]], None], int] = {
            self._cell: 6,
            self._function: 6,
            self._map: 3,
            self._failure: 6,
            self._failed_items: 2,
            self._within_limit: 1,
            self._beyond_limit: 2,
            self._take: 2,
            self._later: 2,
            self._without_breakpoints: 2,
        }

    def work(self, over: threading.Event) -> None:
        """Go on until ``over`` is set."""
        while not over.is_set():
            there = self._rc.ids
            if not there:
                over.wait(LOOK_S)
                continue
            chosen = sorted(self._chance.sample(there, self._chance.randrange(len(there)) + 1))
            (ask,) = self._chance.choices(list(self._rounds), list(self._rounds.values()))
            self._prompt.engine_ids, self._prompt.kind = chosen, ask.__name__
            try:
                self._rc.debug(forget=True)  # or an older failure is opened where there is none of this round
                ask(chosen)
            except ClusterUnreachable as error:
                if share_of_core() > NO_SHARE:
                    self._report.complain(f"{ask.__name__}: {error!r}")
            except KeyboardInterrupt:
                if "KeyboardInterrupt" not in self._prompt.caused:
                    self._report.complain(f"{ask.__name__}: KeyboardInterrupt\n{traceback.format_exc()}")
            self._rc.session.unretrieved.report()

    # Rounds.

    def _cell(self, ids: list[int]) -> None:
        x = self._chance.randrange(10, 500)
        with self._prompt.round(x, ["all c", "all c", "c", "all q", "q"], may=_ALL):
            result = self._rc[ids].execute(CELL.format(self._prompt.word, x), block=False)
            self._collect("cell", result, lambda call: call.text("stdout").strip(), lambda: map(str, self._right(x, 1)))

    def _function(self, ids: list[int]) -> None:
        x = self._chance.randrange(10, 500)
        with self._prompt.round(x, ["all c", "all c", "c", "all q", "q"]):
            result = self._rc[ids].apply_async(_stopping(), x)
            self._collect("function", result, lambda call: call.value, lambda: self._right(x))

    def _map(self, ids: list[int]) -> None:
        x = self._chance.randrange(10, 500)
        work = _stopping()
        with self._prompt.round(x, ["all c", "all c", "c", "all q"]):
            result = self._rc.load_balanced_view(targets=ids).map_async(work, [x] * 2 * len(ids))
            self._collect_items("map", result, ids, lambda: self._right(x))

    def _failure(self, ids: list[int]) -> None:
        x = self._chance.randrange(10, 500)
        with self._prompt.round(x, ["q"], may=["press"]):
            began = time.monotonic()
            result = self._rc[ids].apply_async(_failing(), x)
            self._collect("failure", result, lambda call: "no error", lambda: (), right_error="ZeroDivisionError")
            self._look_at("post-mortem", ids, began, result.debug if self._chance.random() < 0.5 else self._rc.debug)

    def _failed_items(self, ids: list[int]) -> None:
        x = self._chance.randrange(10, 500)
        with self._prompt.round(x, ["q"], may=["press"]):
            began = time.monotonic()
            result = self._rc.load_balanced_view(targets=ids).map_async(_failing(), [x] * 3)
            self._collect_items("failed items", result, ids, lambda: (), right_error="ZeroDivisionError")
            self._look_at("post-mortem of items", ids, began, result.debug)

    def _within_limit(self, ids: list[int]) -> None:
        """The time at the prompt does not count."""
        x = self._chance.randrange(10, 500)
        with self._prompt.round(x, ["all c"], lines=2, first_wait_s=LIMIT_PROMPT_S, may=["edit"]):
            result = self._rc[ids[:1]].with_flags(timeout=LIMIT_S).apply_async(_stopping(), x)
            self._collect("within its limit", result, lambda call: call.value, lambda: self._right(x))

    def _beyond_limit(self, ids: list[int]) -> None:
        """A time limit ends a call that has gone on from its breakpoint."""
        x = self._chance.randrange(10, 500)
        with self._prompt.round(x, ["all c"], may=[]):
            self._prompt.caused.add("TimeLimitExceeded")
            result = self._rc[ids].with_flags(timeout=0.5).apply_async(_endless(), x)
            self._collect("beyond its limit", result, lambda call: "no error", lambda: ())

    def _take(self, ids: list[int]) -> None:
        """Take over the debugger of another client."""
        stops = {i: stop for i, stop in self._rc.stopped().items() if stop.client != self._rc.name}
        self._prompt.engine_ids = sorted(stops) or ids
        with self._prompt.round(0, ["all c"], lines=3, may=[]):
            if stops:
                began = time.monotonic()
                self._look_at("take", sorted(stops), began, lambda: self._rc.debug(sorted(stops), take=True), safe=True)

    def _later(self, ids: list[int]) -> None:
        """Ask for the debugger of calls that nobody waits for."""
        x = self._chance.randrange(10, 500)
        with self._prompt.round(x, ["all c", "all q"]):
            began = time.monotonic()
            result = self._rc[ids].apply_async(_stopping(), x)
            threading.Event().wait(self._chance.uniform(0, 1))
            self._look_at("later", ids, began, lambda: self._rc.debug(ids), safe=True)
            self._collect("later", result, lambda call: call.value, lambda: self._right(x), began=began)

    def _without_breakpoints(self, ids: list[int]) -> None:
        x = self._chance.randrange(10, 500)
        with self._prompt.round(x, ["c"]):
            result = self._rc[ids].with_flags(breakpoints=False).apply_async(_stopping(), x)
            self._collect("without breakpoints", result, lambda call: call.value, lambda: [2 * x + 3])

    # What became of them.

    def _right(self, x: int, more: int = 0) -> list[int]:
        return [2 * x + 3 + more + edit for edit in (0, *self._prompt.edits)]

    def _wait(self, result: AsyncResult, engine_ids: Callable[[], Iterable[int]]) -> None:
        """Wait for a result; Ctrl-C may end a wait, and the call goes on."""
        while True:
            self._watch.begin("a call does not end", engine_ids)
            try:
                result.wait()
                break
            except KeyboardInterrupt:
                if "KeyboardInterrupt" not in self._prompt.caused:
                    raise
        self._watch.end()

    def _collect(
        self,
        kind: str,
        result: AsyncResult,
        value: Callable[[Any], Any],
        right: Callable[[], Iterable[Any]],
        right_error: str = "",
        began: float | None = None,
    ) -> None:
        began = time.monotonic() if began is None else began
        self._wait(result, lambda: [call.engine_id for call in result.calls if not call.done])
        ended = time.monotonic()
        result.exception()
        for call in result.calls:
            outcome = _outcome(call.error)
            wrong = ""
            if call.error is None and (found := value(call)) not in (allowed := list(right())):
                wrong = f"{found!r} in place of one of {allowed}"
            outcome = "ok" if outcome == right_error else outcome
            caused = tuple(self._prompt.caused)
            self._report.ended(Ended(kind, call.engine_id, began, ended, outcome, caused, wrong))

    def _collect_items(
        self,
        kind: str,
        result: AsyncResult,
        ids: Iterable[int],
        right: Callable[[], Iterable[Any]],
        right_error: str = "",
    ) -> None:
        began = time.monotonic()
        self._wait(result, lambda: ids)
        ended = time.monotonic()
        wrong, outcomes = "", ["ok"]
        if (error := result.exception()) is None:
            values = [] if right_error else [value for value in result.get() if value not in list(right())]
            wrong = f"{values} and not some of {list(right())}" if values or right_error else ""
        else:
            errors = error.exceptions if isinstance(error, CompositeError) else [error]
            outcomes = [_outcome(one) for one in errors]
        for outcome in ("ok" if one == right_error else one for one in outcomes):
            self._report.ended(Ended(kind, -1, began, ended, outcome, tuple(self._prompt.caused), wrong))

    def _look_at(
        self, kind: str, ids: Sequence[int], began: float, debug: Callable[[], object], *, safe: bool = False
    ) -> None:
        """Open a debugger; with ``safe``, there may be none any more."""
        self._watch.begin(f"{kind}: the debugger does not open", lambda: ids)
        outcome = "ok"
        try:
            debug()
        except DebuggerUnavailable as unavailable:
            outcome = "ok" if safe else f"DebuggerUnavailable: {unavailable}"
        self._watch.end()
        self._prompt._forget_line()
        for engine_id in ids:
            self._report.ended(Ended(kind, engine_id, began, time.monotonic(), outcome, tuple(self._prompt.caused), ""))


_ALL = ("edit", "press", "interrupt", "steps", "break")


def _stopping() -> Callable[[int], int]:
    def work(x: int) -> int:
        edit = 0
        y = 2 * x
        breakpoint()
        for k in range(3):
            y += k
        return y + edit

    return work


def _failing() -> Callable[[int], float]:
    def fail(x: int) -> float:
        part = [x, x + 1]
        return part[0] / (x - x)

    return fail


def _endless() -> Callable[[int], None]:
    def work(x: int) -> None:
        breakpoint()
        while True:
            x += 1

    return work


def _outcome(error: BaseException | None) -> str:
    return "ok" if error is None else str(getattr(error, "ename", type(error).__name__))


def main(connection: str, name: str, seed: str) -> None:
    """Work until the standard input ends."""
    import nsactors.results.interrupting
    import nsactors.session.session

    report = Report(os.dup(1))
    shown = sys.stdout = io.StringIO()
    chance = random.Random(seed)
    prompt = Prompt(chance, shown, report)
    nsactors.session.session.user_input = lambda: prompt
    nsactors.session.session.UserPrompt.can_ask = lambda self: True  # type: ignore[method-assign]
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    with Client.connect(connection, name, report=lambda text: None) as rc:
        User(rc, prompt, chance, report).work(over)


if __name__ == "__main__":
    main(*sys.argv[1:])
