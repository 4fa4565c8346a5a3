"""Code that has had its time ends with the time limit's error, whatever it makes of being interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.namespace import interrupts
from nsactors.namespace.interrupts import CellEventLoop, InterruptHandler, TimeLimit, run_user_code
from nsactors.protocol.messages import Expired


class FakeGate:
    """Records when it interrupts."""

    def __init__(self, clock: SimpleNamespace) -> None:
        self.at: list[tuple[float, bool]] = []
        self.strikes = True
        self._clock = clock

    def interrupt(self, request: object, *, insists: bool) -> bool:
        self.at.append((self._clock.now, insists))
        return self.strikes

    def has_struck(self, request: object) -> bool:
        return self.strikes and bool(self.at)


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now=0.0)


@pytest.fixture
def fake(clock: SimpleNamespace) -> Any:
    return FakeGate(clock)


@pytest.fixture
def limit(fake: Any, clock: SimpleNamespace) -> TimeLimit:
    return TimeLimit(fake, lambda: clock.now)


def look_until(limit: TimeLimit, clock: SimpleNamespace, until: float) -> None:
    while clock.now < until:
        limit.look()
        clock.now += 0.5


def test_what_goes_on_is_interrupted_again_and_from_the_third_time_on_in_its_handlers(
    limit: TimeLimit, fake: Any, clock: SimpleNamespace
) -> None:
    limit.begin("request", 1.0)
    look_until(limit, clock, 20.0)
    assert fake.at == [(1.0, False), (3.0, False), (5.0, True), (9.0, True), (17.0, True)]


def test_what_caught_its_interrupt_has_expired_and_it_is_said_for_how_long_it_ran(
    limit: TimeLimit, clock: SimpleNamespace
) -> None:
    limit.begin("request", 1.0)
    look_until(limit, clock, 6.0)
    assert limit.end(by_interrupt=False) == Expired(1.0, 6.0)


def test_what_ends_by_its_interrupt_has_expired(limit: TimeLimit, clock: SimpleNamespace) -> None:
    limit.begin("request", 1.0)
    look_until(limit, clock, 1.5)
    assert limit.end(by_interrupt=True) == Expired(1.0, None)


def test_what_ends_before_it_is_interrupted_has_not_expired(
    limit: TimeLimit, fake: Any, clock: SimpleNamespace
) -> None:
    fake.strikes = False
    limit.begin("request", 1.0)
    look_until(limit, clock, 1.5)
    assert limit.end(by_interrupt=False) is None


def test_nothing_is_interrupted_after_the_end(limit: TimeLimit, fake: Any, clock: SimpleNamespace) -> None:
    limit.begin("request", 1.0)
    limit.end(by_interrupt=False)
    look_until(limit, clock, 5.0)
    assert fake.at == []


def test_the_clock_stands_still_at_the_prompt_of_a_debugger(
    limit: TimeLimit, fake: Any, clock: SimpleNamespace
) -> None:
    limit.begin("request", 1.0)
    limit.pause()
    look_until(limit, clock, 100.0)
    limit.resume()
    look_until(limit, clock, 100.5)
    assert fake.at == []
    look_until(limit, clock, 101.5)
    assert fake.at == [(101.0, False)]
    assert limit.end(by_interrupt=False) == Expired(1.0, 1.5)


@pytest.fixture
def gate() -> Iterator[InterruptHandler]:
    before = signal.getsignal(signal.SIGINT)
    gate = InterruptHandler(CellEventLoop())
    gate.install()
    yield gate
    signal.signal(signal.SIGINT, before)


def test_a_loop_that_catches_everything_ends(gate: InterruptHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "AGAIN_AFTER_S", (0.05,))
    limit, over = TimeLimit(gate), threading.Event()

    def spin_and_catch() -> None:
        while True:
            try:
                while True:
                    pass
            except BaseException:  # noqa: S110 (the limit must end this loop)
                pass

    def look_now_and_then() -> None:
        while not over.wait(0.01):
            limit.look()

    watcher = threading.Thread(target=look_now_and_then)
    watcher.start()
    gate.enter("request")
    limit.begin("request", 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_user_code(spin_and_catch)
    finally:
        gate.leave()
        over.set()
        watcher.join()
    assert limit.end(by_interrupt=True) == Expired(0.05, None)
