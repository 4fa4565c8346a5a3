"""Ctrl-C while waiting: what reaches the engines, and what is asked when they do not stop."""

from __future__ import annotations

import itertools
import math
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from nsactors.errors import TaskAborted
from nsactors.protocol.messages import RequestId
from nsactors.protocol.partition import Block
from nsactors.results.async_result import AsyncResult, receive
from nsactors.results.call import NOWHERE, Call, MapCall
from nsactors.results.interrupting import (
    Presses,
    aside,
    interrupt_and_wait,
    unless_interrupted,
    wait_or_interrupt,
)
from nsactors.results.map_result import AsyncMapResult, BalancedMapResult
from nsactors.testing import TIMEOUT_S
from nsactors.views.lazy_map import LazyMapOptions, LazyMapResult, lazy_map
from nsactors.views.map_parts import CallChunk


class Owner:
    """Records what it is asked to do."""

    detached = False
    has_stops = False

    def __init__(self, *, can_interrupt: bool = True) -> None:
        self.did: list[tuple[str, list[int]]] = []
        self.why: dict[int, str] = {}
        self.told = threading.Event()  # the engines know
        self.may_tell = threading.Event()
        self.may_tell.set()
        self.explained = threading.Event()
        self._can_interrupt = can_interrupt

    def interrupt(self, calls: Iterable[Call]) -> bool:
        self.did.append(("interrupt", [c.engine_id for c in calls]))
        self.told.set()
        return self._can_interrupt

    def obstacles(self, calls: Iterable[Call]) -> dict[int, str]:
        self.explained.set()
        return self.why

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        assert self.may_tell.wait(TIMEOUT_S)
        self.did.append(("abort", [c.engine_id for c in calls]))

    def restart(self, engine_ids: Iterable[int]) -> None:
        self.did.append(("restart", sorted(engine_ids)))

    def debug_stops(self, settle: Callable[[], object]) -> None:
        settle()
        self.did.append(("debug", []))
        self.has_stops = False

    def debug(self, calls: Iterable[Call]) -> None: ...

    def mark_retrieved(self, calls: Iterable[Call]) -> None: ...

    def run_callback(self, function: Callable[[], object]) -> None: ...


class Engines:
    """A wait for engines: at given times somebody presses Ctrl-C, and at last the engines have ended.

    Args:
        presses: the times of the presses.
        done: the time at which the engines have ended.
        paused: the time at which the clock stops, and the event for which it waits, which another thread sets.
        press: presses Ctrl-C.
        calls: calls that fail with the interrupt when the engines have ended.
    """

    def __init__(
        self,
        *presses: float,
        done: float = math.inf,
        paused: tuple[float, threading.Event] | None = None,
        press: Callable[[], object] | None = None,
        calls: Iterable[Call] = (),
    ) -> None:
        self.now = 0.0
        self._calls = list(calls)
        self._presses = list(presses)
        self._done = done
        self._paused = paused
        self._press = press or self._interrupt

    def _interrupt(self) -> None:
        raise KeyboardInterrupt

    def clock(self) -> float:
        return self.now

    def wait(self, timeout_s: float | None) -> bool:
        end = math.inf if timeout_s is None else self.now + timeout_s
        if self._presses and self._presses[0] <= end:
            self.now = self._presses.pop(0)
            self._press()
            return False
        if self._paused is not None and self._paused[0] <= end:
            assert self._paused[1].wait(TIMEOUT_S)
        self.now = min(end, self._done)
        if self._done <= end:
            for call in self._calls:
                call.settle(None, RuntimeError("KeyboardInterrupt"))
        return self._done <= end


@pytest.fixture
def calls() -> list[Call]:
    done = Call(RequestId("me", 0), 0, "execute", True)
    done.settle(None, None)
    return [done, Call(RequestId("me", 1), 1, "execute", True), Call(RequestId("me", 2), 2, "execute", True)]


def never(question: str) -> str:
    raise AssertionError(f"asked: {question}")


def press_and_wait(engines: Engines, calls: list[Call], owner: Owner, ask: Callable[[str], str] | None) -> bool:
    """Wait as after a first Ctrl-C, at time 0."""
    return interrupt_and_wait(engines.wait, calls, owner, ask, clock=engines.clock)


def test_a_second_ctrl_c_before_presses_are_counted_means_what_the_first_does(calls: list[Call]) -> None:
    class Slow(Owner):
        presses = 2

        @property
        def detached(self) -> bool:  # type: ignore[override]
            self.presses -= 1
            if self.presses >= 0:
                raise KeyboardInterrupt
            return False

    owner = Slow()
    assert wait_or_interrupt(Engines(0.0, done=1.0, calls=calls[1:]).wait, calls, owner, None, never)
    assert owner.did == [("abort", [1, 2]), ("interrupt", [1, 2])]


class Torn(Owner):
    """Its replies are taken, and its engines told, by a thread that Ctrl-C is pressed on each time."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call
        self._presses = 2

    @property
    def detached(self) -> bool:  # type: ignore[override]
        self._presses -= 1
        if self._presses >= 0:
            raise KeyboardInterrupt
        return False

    def take(self, calls: Iterable[Call]) -> bool:
        raise KeyboardInterrupt

    def interrupt(self, calls: Iterable[Call]) -> bool:
        self._call.settle(None, RuntimeError("it was interrupted"))
        return super().interrupt(calls)

    def check_process(self) -> None: ...


@pytest.mark.parametrize("as_result", [False, True])
def test_so_it_does_where_a_caller_takes_the_replies_itself(as_result: bool) -> None:
    call = Call(RequestId("me", 1), 1, "execute", True)
    owner = Torn(call)
    with pytest.raises(RuntimeError, match="it was interrupted"):
        receive(owner, [call], label="execute", single=True, as_result=as_result)
    assert owner.did == [("abort", [1]), ("interrupt", [1])]


def test_so_it_does_where_a_result_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call(RequestId("me", 1), 1, "execute", True)
    owner = Torn(call)
    result = AsyncResult(owner, [call], label="execute", single=True)
    monkeypatch.setattr(result, "_wait", Engines(1.0, done=1.1, paused=(1.05, owner.told)).wait)
    with pytest.raises(KeyboardInterrupt, match="execute was interrupted"):
        result.wait(TIMEOUT_S)
    assert owner.did == [("abort", [1]), ("interrupt", [1])]


class Pressed(Owner):
    """Ctrl-C is pressed when the replies are first waited for, and then interrupts the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.retrieved: list[Call] = []
        self._presses = 1

    def check_process(self) -> None:
        self._presses -= 1
        if self._presses == 0:
            raise KeyboardInterrupt

    def interrupt(self, calls: Iterable[Call]) -> bool:
        for call in calls:
            call.settle(None, RuntimeError("it was interrupted"))
        return super().interrupt(calls)

    def mark_retrieved(self, calls: Iterable[Call]) -> None:
        self.retrieved += calls


def a_result(owner: Owner, call: Call) -> AsyncResult:
    return AsyncResult(owner, [call], label="execute", return_exceptions=True)


def a_map(owner: Owner, call: Call, *, ordered: bool = True) -> AsyncMapResult:
    return AsyncMapResult(owner, [call], label="map(f)", partitioner=Block(), ordered=ordered, return_exceptions=True)


def a_balanced_map(owner: Owner, call: Call) -> BalancedMapResult:
    assert isinstance(call, MapCall)
    return BalancedMapResult(owner, call, label="map(f)", return_exceptions=True)


def a_lazy_map(owner: Owner, call: Call, *, ordered: bool = True) -> LazyMapResult:
    def send(columns: tuple[Sequence[Any], ...], on_their_way: Sequence[Call]) -> CallChunk:
        return CallChunk(call, 1)

    return lazy_map(owner, send, lambda: 1, [itertools.count()], LazyMapOptions(ordered, 1, 1, True), None)


@pytest.mark.parametrize(
    "read",
    [
        lambda owner, call: a_result(owner, call).get(TIMEOUT_S),
        lambda owner, call: a_map(owner, call).get(TIMEOUT_S),
        lambda owner, call: a_balanced_map(owner, call).get(TIMEOUT_S),
        lambda owner, call: next(iter(a_result(owner, call))),
        lambda owner, call: next(iter(a_map(owner, call))),
        lambda owner, call: next(iter(a_map(owner, call, ordered=False))),
        lambda owner, call: next(iter(a_balanced_map(owner, call))),
        lambda owner, call: next(a_lazy_map(owner, call)),
        lambda owner, call: next(a_lazy_map(owner, call, ordered=False)),
    ],
)
def test_ctrl_c_raises_where_exceptions_are_taken_for_values(read: Callable[[Owner, Call], object]) -> None:
    call = MapCall(RequestId("me", 1), NOWHERE, "map(f)", False, size=1, left=1)
    owner = Pressed()
    with pytest.raises(KeyboardInterrupt) as caught:
        read(owner, call)
    assert caught.value.__notes__ == ["interrupted: map(f)"]
    assert owner.did == [("abort", [NOWHERE]), ("interrupt", [NOWHERE])]
    assert call in owner.retrieved


def test_calls_that_go_on_are_left_alone_and_it_is_said_how_to_get_at_them(calls: list[Call]) -> None:
    owner = Owner()
    owner.detached = True
    with pytest.raises(KeyboardInterrupt) as caught:
        wait_or_interrupt(Engines(1.0).wait, calls, owner, None, never)
    assert owner.did == []
    assert [("me:1" in note, "get_result" in note) for note in caught.value.__notes__] == [(True, True), (False, True)]


def test_without_ctrl_c_nothing_is_done_to_the_engines(calls: list[Call]) -> None:
    owner = Owner()
    assert wait_or_interrupt(Engines(done=1.0).wait, calls, owner, None, never)
    assert owner.did == []


def test_ctrl_c_interrupts_only_the_engines_that_have_not_answered(calls: list[Call]) -> None:
    owner = Owner()
    assert wait_or_interrupt(
        Engines(1.0, done=1.1, paused=(1.05, owner.told), calls=calls).wait, calls, owner, None, never
    )
    assert owner.did == [("abort", [1, 2]), ("interrupt", [1, 2])]


def test_an_interrupt_that_a_shutdown_request_follows_leaves_the_engines_alone(calls: list[Call]) -> None:
    owner, engines = Owner(), Engines()
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupt_and_wait(engines.wait, calls, owner, never, is_ending=lambda: engines.now > 0.1, clock=engines.clock)
    assert owner.did == []
    assert "get_result('me:1')" in caught.value.__notes__[0]


def test_an_interrupt_that_no_shutdown_request_follows_reaches_the_engines_a_moment_later(calls: list[Call]) -> None:
    owner = Owner()
    engines = Engines(done=0.3, paused=(0.21, owner.told), calls=calls)
    assert interrupt_and_wait(engines.wait, calls, owner, never, is_ending=lambda: False, clock=engines.clock)
    assert owner.did == [("abort", [1, 2]), ("interrupt", [1, 2])]


def test_engines_that_cannot_be_interrupted_let_ctrl_c_through_and_it_is_said_that_they_go_on(
    calls: list[Call],
) -> None:
    owner = Owner(can_interrupt=False)
    with pytest.raises(KeyboardInterrupt) as caught:
        press_and_wait(Engines(paused=(0.1, owner.told)), calls, owner, never)
    assert "left running: engines 1-2" in caught.value.__notes__[0]


def test_ctrl_c_while_nothing_has_begun_takes_all_back_and_raises(calls: list[Call]) -> None:
    class Queue(Owner):
        def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
            for call in calls:
                call.settle(None, TaskAborted(call.engine_id, call.label))

    owner = Queue()
    with pytest.raises(KeyboardInterrupt) as caught:
        press_and_wait(Engines(done=0.1, paused=(0.05, owner.told)), calls, owner, never)
    assert caught.value.__notes__ == ["cancelled before it ran on engines 1-2: execute"]


def test_ctrl_c_raises_where_everything_succeeds_all_the_same(calls: list[Call]) -> None:
    with pytest.raises(KeyboardInterrupt):  # or a loop of short calls could hardly be ended
        press_and_wait(Engines(done=0.1), calls, Owner(), never)


def test_code_that_is_asked_to_end_by_a_signal_of_the_users_may_succeed(calls: list[Call]) -> None:
    assert wait_or_interrupt(Engines(1.0, done=1.1).wait, calls, Owner(), None, never, may_succeed=True)


@pytest.mark.parametrize("second", [0.01, 0.4, 2.0])
def test_a_second_ctrl_c_asks_and_kill_restarts_what_has_not_answered(calls: list[Call], second: float) -> None:
    owner, questions, engines = Owner(), [], Engines(second, done=4.0, calls=calls)

    def ask(question: str) -> str:
        questions.append((engines.now, question))
        return "k"

    assert press_and_wait(engines, calls, owner, ask)
    assert ("restart", [1, 2]) in owner.did
    ((at, question),) = questions
    assert "engines 1-2 did not stop" in question
    assert at == pytest.approx(max(second, 0.5), abs=0.11)


def test_engines_that_stop_in_a_moment_are_not_asked_about_however_often_it_is_pressed(calls: list[Call]) -> None:
    assert press_and_wait(Engines(0.01, 0.02, 0.1, 0.2, 0.3, done=0.4, calls=calls), calls, Owner(), never)


@pytest.mark.parametrize("presses", [1, 2, 5])
def test_a_press_while_engines_are_being_told_does_not_keep_them_from_hearing_of_it(
    calls: list[Call], presses: int
) -> None:
    owner, raised = Owner(), []
    owner.may_tell.clear()

    def press() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raised.append(True)
            raise

    def ask(question: str) -> str:
        owner.may_tell.set()
        assert owner.told.wait(TIMEOUT_S)
        return "l"

    with pytest.raises(KeyboardInterrupt) as left:
        press_and_wait(Engines(*(0.02 * n for n in range(presses)), press=press), calls, owner, ask)
    assert (raised, left.value.__context__) == ([], None)
    assert owner.did == [("abort", [1, 2]), ("interrupt", [1, 2])]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_nobody_looks_at_presses_any_more_the_third_raises(calls: list[Call]) -> None:
    pressed = []

    def hang() -> None:  # as where a terminal takes no more text
        while len(pressed) < 10:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        press_and_wait(Engines(0.1, press=hang), calls, Owner(), lambda question: "l")
    assert len(pressed) == 3


def test_ctrl_c_at_the_question_leaves_the_engines_running(calls: list[Call]) -> None:
    def press(question: str) -> str:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it did not raise")

    with pytest.raises(KeyboardInterrupt) as left:
        press_and_wait(Engines(1.0), calls, Owner(), press)
    assert "left running: engines 1-2" in left.value.__notes__[0]


def test_engines_that_do_not_stop_in_time_are_asked_about_without_a_second_ctrl_c(
    calls: list[Call], capsys: Any
) -> None:
    owner = Owner()
    with pytest.raises(KeyboardInterrupt) as left:
        press_and_wait(Engines(), calls, owner, lambda question: "l")
    assert "left running: engines 1-2" in left.value.__notes__[0]
    assert "interrupting engines 1-2" in capsys.readouterr().err
    assert ("restart", [1, 2]) not in owner.did


def test_it_is_said_what_keeps_engines_from_stopping(calls: list[Call], capsys: Any) -> None:
    owner = Owner()
    why = "in C code, which cannot be interrupted: np.sort(x) (<cell {}>, line 1)"
    owner.why = {1: why.format(3), 2: why.format(4)}
    assert press_and_wait(Engines(done=4.0, paused=(0.7, owner.explained), calls=calls), calls, owner, never)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "nsactors: interrupting engines 1-2 ... (Ctrl-C again to leave or kill)",
        "nsactors: engines 1-2: in C code, which cannot be interrupted: np.sort(x) (<cell 3>, line 1)",
    ]


def test_waiting_on_goes_on_until_the_engines_answer(calls: list[Call]) -> None:
    answers = iter(["w", "w"])
    engines = Engines(1.0, 20.0, done=60.0, calls=calls)
    assert press_and_wait(engines, calls, Owner(), lambda question: next(answers))
    assert (engines.now, next(answers, "asked twice")) == (60.0, "asked twice")


def test_where_nobody_can_answer_the_engines_are_left_running(calls: list[Call], monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(KeyboardInterrupt):
        press_and_wait(Engines(1.0), calls, Owner(), None)


def test_what_goes_wrong_while_engines_are_told_is_raised(calls: list[Call]) -> None:
    class Gone(Owner):
        def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
            self.told.set()
            raise ConnectionError("the cluster has stopped")

    owner = Gone()
    with pytest.raises(ConnectionError, match="has stopped"):
        press_and_wait(Engines(paused=(0.1, owner.told)), calls, owner, never)


def test_ctrl_c_while_a_result_is_waited_for_interrupts_and_then_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Call(RequestId("me", 1), 1, "execute", True)

    class Obedient(Owner):
        def interrupt(self, calls: Iterable[Call]) -> bool:
            call.settle(None, RuntimeError("it was interrupted"))
            return super().interrupt(calls)

    owner = Obedient()
    result = AsyncResult(owner, [call], label="execute", single=True)
    monkeypatch.setattr(result, "_wait", Engines(1.0, done=1.1, paused=(1.05, owner.told)).wait)
    with pytest.raises(KeyboardInterrupt, match="execute was interrupted"):
        result.wait(TIMEOUT_S)
    assert owner.did == [("abort", [1]), ("interrupt", [1])]


@pytest.mark.parametrize("progress", [True, False])
def test_a_wait_opens_the_debuggers_of_engines_that_stop_and_goes_on(calls: list[Call], *, progress: bool) -> None:
    owner, engines, settled = Owner(), Engines(done=5.0), []

    def wait(timeout_s: float | None) -> bool:
        owner.has_stops = owner.has_stops or 1.0 < engines.now < 1.2 or 3.0 < engines.now < 3.2
        return engines.wait(timeout_s)

    assert wait_or_interrupt(wait, calls, owner, None, progress=progress, settle=lambda: settled.append(True))
    assert [what for what, _ in owner.did].count("debug") >= 2
    assert len(settled) == 2 * len(owner.did)


def test_a_thread_in_the_background_opens_no_debugger(calls: list[Call]) -> None:
    owner, engines, ended = Owner(), Engines(done=5.0), threading.Event()
    owner.has_stops = True

    def wait() -> None:
        if wait_or_interrupt(engines.wait, calls, owner, None):
            ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(TIMEOUT_S)
    assert ended.is_set()
    assert owner.did == []


def test_where_no_thread_can_be_started_a_function_runs_on_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert unless_interrupted(threading.current_thread) is threading.current_thread()


def test_an_error_of_the_other_thread_is_raised_here() -> None:
    def fail() -> None:
        raise LookupError("of the other thread")

    with pytest.raises(LookupError, match="of the other thread"):
        unless_interrupted(fail)


def test_a_press_that_is_no_reason_to_end_lets_the_wait_go_on() -> None:
    pressed = threading.Event()

    def work() -> bool:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return pressed.wait(TIMEOUT_S)

    assert aside(work, pressed.set)


def test_presses_may_be_counted_again_but_not_within_themselves() -> None:
    presses = Presses()
    with presses:
        pass
    with presses, pytest.raises(AssertionError), presses:
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_raises_at_a_question_and_is_counted_after_it() -> None:
    with Presses() as presses:
        with pytest.raises(KeyboardInterrupt), presses.raising():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert presses.take()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
