"""Whether debuggers hold anything up: ``python -m tests.chaos.debuggers``.

Users of the debugger, each a process of its own, ask engines for calls that stop at breakpoints or fail, and type
lines at random. At the same time, users are killed and stopped, engines are killed, and calls are interrupted. No wait
may last longer than a few seconds without a reason, no engine may be held for a user who is gone, and every call must
end with its right value or with an error that a fault has caused.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nsactors import Client, Cluster
from nsactors.errors import ClusterUnreachable
from tests.chaos.debugger_user import HANG_S, NO_SHARE, Ended, share_of_core
from tests.chaos.faults import Scene, Snapshot, kill_engine
from tests.chaos.recoveries import Recoveries
from tests.chaos.tally import Tally

__all__ = ["DebuggerFigures", "DebuggerPlan", "carry_out", "main"]

ROOT = Path(__file__).parents[2]
STOPPED_HANG_S = 20.0  # the longest hang because of a stopped user, whose lease is 15 s
STAY_S = 40.0  # the longest hang because of a user that works; the lines of users take less
STOPPED_S = (0.5, 25.0)
FORGIVEN_S = 60.0  # the time in which users learn that an engine was killed
JUST_BEFORE_S = 3.0
JUDGED_S = 30.0
LOOK_S = 0.5
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class DebuggerPlan:
    """The plan of a run.

    Attributes:
        seed: the seed of all random choices.
        engines: the number of engines.
        users: the number of users at a time.
        seconds: the longest duration.
        rounds: the run ends when this number of calls and debuggers have ended, and a tenth as many faults have
            happened; None: when the time is over.
        pause_s: between two faults, on average.
    """

    seed: int = 0
    engines: int = 3
    users: int = 3
    seconds: float = 60.0
    rounds: int | None = None
    pause_s: float = 2.0


@dataclass(slots=True)
class DebuggerFigures:
    """What has happened.

    Attributes:
        tell: hears each complaint at once.
        complaints: what was wrong.
        faults: the number of each kind.
        rounds: the number of calls and debuggers of each kind.
        outcomes: the number of each.
        lines_s: seconds from a line to the next prompt.
        freed_s: seconds for which engines were still held for a user who had been killed.
        freed_of_stopped_s: likewise for users who had been stopped.
    """

    tell: Callable[[str], object] = lambda text: None
    complaints: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    rounds: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    lines_s: list[float] = field(default_factory=list)
    freed_s: list[float] = field(default_factory=list)
    freed_of_stopped_s: list[float] = field(default_factory=list)

    def complain(self, text: str) -> None:
        """Something is as it must not be."""
        self.complaints.append(text)
        self.tell(text)


class Log:
    """The faults by their times, so that errors can be told from failures of the cluster."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, str, int]] = []

    def add(self, error: str, engine_id: int) -> None:
        """Something has been done to an engine that may end its calls with an error of this name."""
        self._entries.append((time.monotonic(), error, engine_id))

    def excuses(self, ended: Ended) -> bool:
        """Return whether the outcome of a call is one that a fault accounts for."""
        error = ended.outcome.partition(":")[0]
        error = "EngineLost" if error == "DebuggerUnavailable" else error
        before_s = FORGIVEN_S if error == "EngineLost" else JUST_BEFORE_S
        return any(
            error == caused
            and (ended.engine_id in (-1, engine_id))
            and ended.began - before_s <= at <= ended.ended + JUST_BEFORE_S
            for at, caused, engine_id in list(self._entries)
        )


class UserProcess:
    """A user of the debugger, in a process of its own.

    Attributes:
        name: the name of its client.
        killed_at: the time at which it was killed; None before.
        stopped_at: the time at which it was stopped; None while it runs.
        has_begun: whether it has reported anything.
    """

    def __init__(self, connection: Path, name: str, seed: str, hear: Callable[[str, Any], None]) -> None:
        self.name = name
        self.killed_at: float | None = None
        self.stopped_at: float | None = None
        self.has_begun = False
        self._errors: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.debugger_user", connection, name, seed],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._threads = [
            threading.Thread(target=self._hear, args=[hear]),
            threading.Thread(target=lambda: self._errors.extend(self._process.stderr or ())),
        ]
        for thread in self._threads:
            thread.start()

    def _hear(self, hear: Callable[[str, Any], None]) -> None:
        for line in self._process.stdout or ():
            self.has_begun = True
            if line.endswith("\n"):  # it was not killed in the middle of it
                hear(self.name, json.loads(line))

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self.killed_at = time.monotonic()
        self.join(0)

    def stop(self) -> None:
        """Stop it, as Ctrl-Z does."""
        self._process.send_signal(signal.SIGSTOP)
        self.stopped_at = time.monotonic()

    def go_on(self) -> None:
        """Let it go on."""
        self.stopped_at = None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)

    @property
    def has_ended(self) -> bool:
        """True if its process has ended."""
        return self._process.poll() is not None

    def leave(self) -> None:
        """Let it end after its present round."""
        self.go_on()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def join(self, expected: int) -> str:
        """Wait for its end; return what is wrong with it."""
        try:
            status = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return f"{self.name} did not end"
        for thread in self._threads:
            thread.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        return f"{self.name} ended with status {status}: {''.join(self._errors)}" if status != expected else ""


class Users:
    """The users: one comes for each that is killed.

    Args:
        plan: how many there are.
        connection: the file by which they become clients.
        figures: what they report.
        log: the faults.
    """

    def __init__(self, plan: DebuggerPlan, connection: Path, figures: DebuggerFigures, log: Log) -> None:
        self._plan = plan
        self._connection = connection
        self._figures = figures
        self._log = log
        self._lock = threading.Lock()
        self._doubtful: list[tuple[str, Ended]] = []
        self.all: dict[str, UserProcess] = {}
        for _ in range(plan.users):
            self._come()

    def _come(self) -> None:
        name = f"user{len(self.all)}"
        self.all[name] = UserProcess(self._connection, name, f"{self._plan.seed} {name}", self._hear)

    @property
    def there(self) -> list[UserProcess]:
        """Those that are neither killed nor stopped."""
        return [user for user in self.all.values() if user.killed_at is None and user.stopped_at is None]

    @property
    def at_work(self) -> list[UserProcess]:
        """Those of them that have begun."""
        return [user for user in self.there if user.has_begun]

    def of(self, client: str) -> UserProcess | None:
        """The user with a client of this name, to which a cluster has added letters of its own."""
        return self.all.get(client.partition("-")[0])

    def kill(self, user: UserProcess) -> None:
        """Kill one, and let another come."""
        user.kill()
        self._come()

    def _hear(self, name: str, told: dict[str, Any]) -> None:
        figures = self._figures
        with self._lock:
            if "line_s" in told:
                figures.lines_s.append(told["line_s"])
            elif "complaint" in told:
                figures.complain(f"{name}: {told['complaint']}")
            elif "interrupts" in told:
                self._log.add("KeyboardInterrupt", told["interrupts"])
            else:
                ended = Ended(*told["ended"])
                figures.rounds[ended.kind] += 1
                figures.outcomes[ended.outcome.partition(":")[0]] += 1
                if ended.wrong or ended.outcome not in ("ok", *ended.caused):
                    self._doubtful.append((name, ended))

    def judge(self, *, all_: bool = False) -> None:
        """Complain of calls that have ended with another error than somebody has caused, or with a wrong value.

        Args:
            all_: also of those that have just ended; otherwise other users may still have something to say of them.
        """
        with self._lock:
            doubtful, self._doubtful = self._doubtful, []
            for name, ended in doubtful:
                if not all_ and time.monotonic() - ended.ended < JUDGED_S:
                    self._doubtful.append((name, ended))
                elif ended.wrong or not self._log.excuses(ended):
                    self._figures.complain(f"{name}: {ended}")

    def end(self) -> None:
        """Let all of them end."""
        for user in self.all.values():
            if user.killed_at is None:
                user.leave()
        for user in self.all.values():
            if user.killed_at is None and (wrong := user.join(0)):
                self._figures.complain(wrong)
        self.judge(all_=True)


class Holders:
    """Watches for whom engines are held.

    Args:
        rc: a client that never is the holder.
        users: they hold engines.
        figures: hears of engines that are held for too long.
    """

    def __init__(self, rc: Client, users: Users, figures: DebuggerFigures) -> None:
        self._rc = rc
        self._users = users
        self._figures = figures
        self._held: dict[tuple[int, str, str], tuple[float, float]] = {}  # the time at first, and the time that counts
        self._busy: dict[int, tuple[object, float]] = {}
        self._told: set[str] = set()

    def work(self, over: threading.Event) -> None:
        """Look again and again until ``over`` is set."""
        last = time.monotonic()
        while not over.wait(LOOK_S):
            now = time.monotonic()
            passed_s, last = (now - last) * share_of_core(), now
            try:
                self._look_at_stops(now, passed_s)
                self._look_at_work(passed_s)
            except ClusterUnreachable as error:
                if share_of_core() > NO_SHARE:
                    self._figures.complain(f"no look at the engines: {error!r}")

    def _look_at_stops(self, now: float, passed_s: float) -> None:
        held = {}
        for engine_id, stop in self._rc.stopped().items():
            user = self._users.of(stop.client)
            if user is None:
                continue
            state, limit_s = "working", STAY_S
            if user.killed_at is not None:
                state, limit_s = "killed", HANG_S
            elif user.stopped_at is not None:
                state, limit_s = "stopped", STOPPED_HANG_S
            key = engine_id, stop.client, state
            began, counts_s = self._held.get(key, (now, -passed_s))
            held[key] = began, counts_s + passed_s
            self._judge(key, counts_s + passed_s, limit_s, f"engine {engine_id} is held for {stop}, {state}")
        for key in self._held.keys() - held.keys():
            if key[2] != "working":
                figures = self._figures.freed_s if key[2] == "killed" else self._figures.freed_of_stopped_s
                figures.append(now - self._held[key][0])
        self._held = held

    def _look_at_work(self, passed_s: float) -> None:
        for engine in self._rc.activity().engines:
            key = engine.pid, engine.state, engine.client, engine.completed
            last, counts_s = self._busy.get(engine.engine_id, (None, 0.0))
            self._busy[engine.engine_id] = key, counts_s + passed_s if last == key else 0.0
            user = self._users.of(engine.client)
            if engine.state in ("busy", "leaving") and (user is None or user.stopped_at is None):
                self._judge((engine.engine_id, key), self._busy[engine.engine_id][1], HANG_S, f"{engine} does not end")

    def _judge(self, key: object, seconds: float, limit_s: float, text: str) -> None:
        if seconds > limit_s and str(key) not in self._told:
            self._told.add(str(key))
            self._figures.complain(f"{text} ({seconds:.1f} s)")


def carry_out(plan: DebuggerPlan, tell: Callable[[str], object] = lambda text: None) -> DebuggerFigures:
    """Start a cluster, and let it all happen; ``tell`` hears each complaint at once."""
    figures, log, tally = DebuggerFigures(tell), Log(), Tally()
    with _complaining(figures), ExitStack() as closing:
        cluster = Cluster(n=plan.engines, recovery="replay")
        closing.callback(cluster.stop_cluster_sync)
        rc = cluster.start_and_connect_sync()
        connection = Path(closing.enter_context(TemporaryDirectory(prefix="nsachaos-")), "cluster.json")
        cluster.connection_info().save(connection)
        scene = Scene(rc, random.Random(f"{plan.seed} faults"), Recoveries(rc, tally), connection)
        users = Users(plan, connection, figures, log)
        over = threading.Event()
        watching = threading.Thread(target=Holders(rc, users, figures).work, args=[over])
        watching.start()
        try:
            _strike(plan, scene, users, figures, log)
        except Exception:
            figures.complain(traceback.format_exc())
        finally:
            users.end()
            over.set()
            watching.join()
        for complaint in (*tally.complaints, *_look_back(plan, scene)):
            figures.complain(complaint)
        rc.session.unretrieved.report()
    return figures


def _strike(plan: DebuggerPlan, scene: Scene, users: Users, figures: DebuggerFigures, log: Log) -> None:
    """One fault after the other."""
    chance, pause = scene.chance, threading.Event()
    snapshot = Snapshot()
    end = time.monotonic() + plan.seconds
    stopped: dict[UserProcess, float] = {}

    def kill_user() -> bool:
        if not users.at_work:
            return False
        users.kill(chance.choice(users.at_work))
        return True

    def stop_user() -> bool:
        if stopped or not users.at_work:
            return False
        user = chance.choice(users.at_work)
        stopped[user] = time.monotonic() + chance.uniform(*STOPPED_S)
        user.stop()
        return True

    def kill_an_engine() -> bool:
        engine_id = kill_engine(scene)
        if engine_id is not None:
            log.add("EngineLost", engine_id)
        return engine_id is not None

    def interrupt() -> bool:
        engine_id = chance.choice(scene.rc.ids or [0])
        log.add("KeyboardInterrupt", engine_id)
        scene.rc.interrupt(engine_id)
        return True

    def take_snapshot() -> bool:
        return snapshot.strike(scene)

    faults = {kill_user: 3, stop_user: 2, kill_an_engine: 3, interrupt: 6, take_snapshot: 1}
    while time.monotonic() < end and not _is_done(plan, figures):
        pause.wait(chance.uniform(0, 2 * plan.pause_s))
        for user, until in list(stopped.items()):
            if time.monotonic() > until:
                del stopped[user]
                user.go_on()
        (fault,) = chance.choices(list(faults), list(faults.values()))
        try:
            figures.faults[fault.__name__] += fault()
        except (ClusterUnreachable, TimeoutError) as error:
            if share_of_core() > NO_SHARE:
                figures.complain(f"{fault.__name__}: {error!r}")
        users.judge()
        for user in users.there:
            if user.has_ended:
                users.all[user.name].killed_at = time.monotonic()
                figures.complain(user.join(0) or f"{user.name} has ended")
                users._come()


def _is_done(plan: DebuggerPlan, figures: DebuggerFigures) -> bool:
    rounds = plan.rounds
    return rounds is not None and figures.rounds.total() >= rounds and figures.faults.total() >= rounds / 10


STATE = """
import bdb, gc, sys, threading
left = []
if sys.gettrace() is not None or threading.gettrace() is not None: left.append("a tracer")
if bdb.Breakpoint.bplist: left.append(f"breakpoints: {bdb.Breakpoint.bplist}")
left += [thread.name for thread in threading.enumerate() if "debugger" in thread.name]
gc.collect()
for one in gc.get_objects():
    if type(one).__name__ in ("Conversation", "StopConversation") and not one.ended: left.append(repr(one.client))
    if type(one).__name__ == "KeptFailure": left.append(one.name)
del gc
"""


def _look_back(plan: DebuggerPlan, scene: Scene) -> Iterator[str]:
    """Yield the complaints when all users have left."""
    rc = scene.rc
    if not scene.recoveries.wait(PATIENCE_S):
        yield f"engines {sorted(scene.recoveries.awaited)} are not back after {PATIENCE_S:g} s"
    if rc.ids != list(range(plan.engines)):
        yield f"of {plan.engines} engines there are {rc.ids}"
        return
    result = rc[:].execute(STATE, block=False)
    if not result.wait(PATIENCE_S):
        yield f"engines do not answer: {rc.activity()!r}"
        return
    left = dict(zip(rc.ids, rc[:].pull("left", block=True), strict=True))
    yield from (f"engine {engine_id} has {things} left" for engine_id, things in left.items() if things)
    if stops := rc.stopped():
        yield f"these are stopped: {stops}"


@contextmanager
def _complaining(figures: DebuggerFigures) -> Iterator[None]:
    """What ends any thread is a complaint."""
    before = threading.excepthook
    threading.excepthook = lambda args: figures.complain(f"{args.thread} was ended by {args.exc_value!r}")
    try:
        yield
    finally:
        threading.excepthook = before


def draw(figures: DebuggerFigures, took_s: float) -> Iterator[str]:
    """Return the figures as text."""
    yield f"{took_s:.0f} s, {figures.faults.total()} faults: {_listed(figures.faults)}"
    yield f"{figures.rounds.total():,} calls and debuggers: {_listed(figures.rounds)}"
    yield f"outcomes: {_listed(figures.outcomes)}"
    yield f"line to prompt: {_spread(figures.lines_s)}"
    yield f"engines held for users that were killed: {_spread(figures.freed_s)}"
    yield f"engines held for users that were stopped: {_spread(figures.freed_of_stopped_s)}"
    yield f"{len(figures.complaints)} complaints"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "never"
    p95 = sorted(seconds)[min(len(seconds) - 1, int(0.95 * len(seconds)))]
    return f"{len(seconds):,} times, median {statistics.median(seconds):.3f} s, p95 {p95:.3f}, most {max(seconds):.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a run and print its figures; 1 if there is something to complain of."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.debuggers")
    parser.add_argument("--seed", type=int, default=0, help="of what is chosen; when it happens is left to chance")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two faults, on average")
    parser.add_argument("--engines", type=int, default=3)
    parser.add_argument("--users", type=int, default=3)
    options = parser.parse_args(arguments)
    plan = DebuggerPlan(
        options.seed, options.engines, options.users, seconds=options.minutes * 60, pause_s=options.pause
    )
    began = time.monotonic()
    figures = carry_out(plan, tell=lambda text: print(f"{time.monotonic() - began:.0f} s: {text}", flush=True))
    print(*draw(figures, time.monotonic() - began), sep="\n")
    return 1 if figures.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
