from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.errors import ClientClosed
from nsactors.protocol.messages import StreamText
from nsactors.results import EngineOutput
from nsactors.results.display.live import LiveOutput
from nsactors.results.display.merging import Shown
from nsactors.results.display.screen import Progress


class FakeCall:
    """A call whose output and end a test decides on."""

    engine_id = 0
    error: Exception | None = None
    output = SimpleNamespace(chunks=[])
    shown = 0
    submitted = 0.0

    def __init__(self) -> None:
        self._unshown: list[StreamText] = []

    def watch_output(self, tell: Callable[..., object]) -> None:
        self._tell = tell

    def say(self, text: str) -> None:
        self._unshown.append(StreamText("stdout", text))
        self._tell(self, self._unshown[-1:])

    def take_unshown(self) -> list[EngineOutput]:
        fresh, self._unshown = self._unshown, []
        return [EngineOutput(0, None, [*fresh])] if fresh else []

    def when_settled(self, tell: Callable[..., object]) -> None:
        self.end = lambda: tell(self)


class FakeScreen:
    """Calls ``on_show`` for what it is given."""

    def __init__(self, on_show: Callable[[], object] = lambda: None) -> None:
        self._on_show = on_show
        self.lines: list[str] = []
        self.notices: list[str] = []

    def show(self, shown: Sequence[Shown]) -> None:
        if shown:
            self.lines += [one.piece.text for one in shown]
            self._on_show()

    def status(self, lines: Mapping[int, str], progress: Progress | None) -> None: ...
    def notice(self, text: str) -> None:
        self.notices.append(text)

    def close(self) -> None: ...


def press_control_c(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)


def press_where_python_ignores_exceptions() -> None:
    class Thing: ...

    thing = Thing()
    reference = weakref.ref(thing, press_control_c)
    del thing
    assert reference() is None


@pytest.fixture
def call() -> Any:
    return FakeCall()


def test_control_c_is_not_lost_while_output_is_drawn(call: Any) -> None:
    live = LiveOutput([call], FakeScreen(press_where_python_ignores_exceptions))
    call.say("line\n")
    with pytest.raises(KeyboardInterrupt):
        live.wait(10)


def test_control_c_ends_the_wait_for_output(call: Any) -> None:
    live = LiveOutput([call], FakeScreen())
    timer = threading.Timer(0.05, press_control_c)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        live.wait(10)
    timer.join()


def test_control_c_gets_through_to_a_screen_that_hangs(call: Any) -> None:
    def hang() -> None:
        press_control_c()
        press_control_c()
        pytest.fail("the second one ends the wait at once")

    live = LiveOutput([call], FakeScreen(hang))
    call.say("line\n")
    with pytest.raises(KeyboardInterrupt):
        live.wait(10)


def test_waiting_goes_on_after_control_c(call: Any) -> None:
    screen = FakeScreen()
    live = LiveOutput([call], screen)
    press = threading.Timer(0.05, press_control_c)
    press.start()
    with pytest.raises(KeyboardInterrupt):
        live.wait(10)
    call.say("late\n")
    call.end()
    assert live.wait(10)
    assert screen.lines == ["late"]


def test_calls_that_the_user_has_left_by_closing_the_client_end_without_a_notice() -> None:
    calls: list[Any] = [FakeCall(), FakeCall()]
    calls[0].error, calls[1].error = ClientClosed(), ValueError("no")
    screen, told = FakeScreen(), []
    live = LiveOutput(calls, screen, failures_told=told.append)
    for call in calls:
        call.end()
    assert live.wait(10)
    assert screen.notices == ["ValueError: no"]
    assert told == [calls]


def test_the_users_own_handler_is_left_alone(call: Any) -> None:
    seen: list[object] = []
    live = LiveOutput([call], FakeScreen(press_control_c))
    before = signal.signal(signal.SIGINT, lambda *_: seen.append("pressed"))
    try:
        call.say("line\n")
        call.end()
        assert live.wait(10)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == ["pressed"]
