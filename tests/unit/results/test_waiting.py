"""Ctrl-C while waiting: what reaches the engines, and what is asked when they do not stop."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from nsactors.core.messages import RequestId
from nsactors.results.call import Call
from nsactors.results.waiting import wait_or_interrupt


class Owner:
    """Records what it is asked to do."""

    def __init__(self, *, can_interrupt: bool = True) -> None:
        self.did: list[tuple[str, list[int]]] = []
        self._can_interrupt = can_interrupt

    goes_on = False

    def interrupt(self, calls: Iterable[Call]) -> bool:
        self.did.append(("interrupt", [c.engine_id for c in calls]))
        return self._can_interrupt

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        self.did.append(("abort", [c.engine_id for c in calls]))

    def restart(self, engine_ids: Iterable[int]) -> None:
        self.did.append(("restart", sorted(engine_ids)))

    def asked(self, calls: Iterable[Call]) -> None: ...

    def call_back(self, function: Callable[[], object]) -> None: ...


def waits(*outcomes: bool | type[BaseException]) -> Callable[[float | None], bool]:
    """A wait that goes through these outcomes, one at each call."""
    script = iter(outcomes)

    def wait(timeout_s: float | None) -> bool:
        outcome = next(script)
        if isinstance(outcome, type):
            raise outcome
        return outcome

    return wait


@pytest.fixture
def calls() -> list[Call]:
    done = Call(RequestId("me", 0), 0, "execute", True)
    done.settle(None, None)
    return [done, Call(RequestId("me", 1), 1, "execute", True), Call(RequestId("me", 2), 2, "execute", True)]


def never(question: str) -> str:
    raise AssertionError(f"asked: {question}")


def test_calls_that_go_on_are_left_alone_and_it_is_said_how_to_get_at_them(calls: list[Call]) -> None:
    owner = Owner()
    owner.goes_on = True
    with pytest.raises(KeyboardInterrupt) as caught:
        wait_or_interrupt(waits(KeyboardInterrupt), calls, owner, None, never)
    assert owner.did == []
    assert [("me:1" in note, "get_result" in note) for note in caught.value.__notes__] == [(True, True), (False, True)]


def test_without_ctrl_c_nothing_is_done_to_the_engines(calls: list[Call]) -> None:
    owner = Owner()
    assert wait_or_interrupt(waits(True), calls, owner, None, never)
    assert owner.did == []


def test_ctrl_c_interrupts_only_the_engines_that_have_not_answered(calls: list[Call]) -> None:
    owner = Owner()
    assert wait_or_interrupt(waits(KeyboardInterrupt, True), calls, owner, None, never)
    assert owner.did == [("abort", [1, 2]), ("interrupt", [1, 2])]


def test_engines_that_cannot_be_interrupted_let_ctrl_c_through(calls: list[Call]) -> None:
    with pytest.raises(KeyboardInterrupt):
        wait_or_interrupt(waits(KeyboardInterrupt), calls, Owner(can_interrupt=False), None, never)


def test_a_second_ctrl_c_asks_and_kill_restarts_what_has_not_answered(calls: list[Call]) -> None:
    owner, questions = Owner(), []

    def ask(question: str) -> str:
        questions.append(question)
        return "k"

    assert wait_or_interrupt(waits(KeyboardInterrupt, KeyboardInterrupt, True), calls, owner, None, ask)
    assert owner.did[-1] == ("restart", [1, 2])
    assert "engines 1-2 did not stop" in questions[0]


def test_engines_that_do_not_stop_in_time_are_asked_about_without_a_second_ctrl_c(
    calls: list[Call], capsys: Any
) -> None:
    owner = Owner()
    with pytest.raises(KeyboardInterrupt) as left:
        wait_or_interrupt(waits(KeyboardInterrupt, False, False), calls, owner, None, lambda question: "l")
    assert "left running: engines 1-2" in left.value.__notes__[0]
    assert "interrupting engines 1-2" in capsys.readouterr().err
    assert ("restart", [1, 2]) not in owner.did


def test_waiting_on_goes_on_until_the_engines_answer(calls: list[Call]) -> None:
    answers = iter(["w", "w"])
    wait = waits(KeyboardInterrupt, KeyboardInterrupt, KeyboardInterrupt, True)
    assert wait_or_interrupt(wait, calls, Owner(), None, lambda question: next(answers))


def test_where_nobody_can_answer_the_engines_are_left_running(calls: list[Call], monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(KeyboardInterrupt):
        wait_or_interrupt(waits(KeyboardInterrupt, KeyboardInterrupt), calls, Owner(), None)
