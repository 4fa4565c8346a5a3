from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import cast

import pytest

from nsactors.client.prompt import join_prompt
from nsactors.errors import ClientClosed, EngineLost, TaskAborted, TimeLimitExceeded
from nsactors.protocol.messages import RequestId
from nsactors.results import Call
from nsactors.session import unretrieved
from nsactors.session.own_modules import OwnModules
from nsactors.session.unretrieved import LIMIT, UnretrievedErrors


def failed_call(seq: int, error: Exception | None = None) -> Call:
    call = Call(RequestId("ann", seq), engine_id=seq % 4, label="execute", executes=True)
    call.error = error or ValueError("bad")
    return call


@pytest.fixture
def ledger() -> UnretrievedErrors:
    return UnretrievedErrors()


def test_nothing_is_reported_when_nothing_failed(ledger: UnretrievedErrors) -> None:
    assert ledger.report() == ""


def test_a_failure_that_nobody_has_seen_is_reported(ledger: UnretrievedErrors) -> None:
    ledger.failed(failed_call(0, TimeLimitExceeded(0, "apply(f)", 1.0)))
    report = ledger.report()
    assert "1 call failed, and nobody has asked for the result:" in report
    assert "apply(f)" in report


@pytest.mark.parametrize("error", [TaskAborted(0, "apply(f)"), ClientClosed()])
def test_an_intended_failure_is_not_reported(ledger: UnretrievedErrors, error: Exception) -> None:
    ledger.failed(failed_call(0, error))
    assert ledger.report() == ""


def test_a_failure_is_reported_once(ledger: UnretrievedErrors) -> None:
    ledger.failed(failed_call(0))
    ledger.report()
    assert ledger.report() == ""


def test_a_failure_that_somebody_has_seen_is_not_reported(ledger: UnretrievedErrors) -> None:
    seen, unseen = failed_call(0), failed_call(1)
    for call in (seen, unseen):
        ledger.failed(call)
    ledger.seen([seen])
    assert "1 call failed" in ledger.report()


def test_what_is_seen_before_it_fails_is_reported_all_the_same(ledger: UnretrievedErrors) -> None:
    call = failed_call(0)
    ledger.seen([call])
    ledger.failed(call)
    assert ledger.report() != ""


def test_a_failure_that_a_display_will_show_is_left_to_it(ledger: UnretrievedErrors) -> None:
    displayed, other = failed_call(0), failed_call(1)
    ledger.leave_to_display([displayed])
    for call in (displayed, other):
        ledger.failed(call)
        call.done = True
    assert "1 call failed" in ledger.report()
    ledger.seen([displayed])
    assert ledger.report(at_exit=True) == ""


def test_the_death_of_an_engine_is_left_to_the_display_of_its_call(ledger: UnretrievedErrors) -> None:
    call = failed_call(2, EngineLost(2, "execute", "killed"))
    ledger.leave_to_display([call])
    ledger.failed(call)
    call.done = True
    ledger.engine_died(2, "engine 2 died")
    ledger.engine_died(3, "engine 3 died")
    assert ledger.report() == "nsactors: engine 3 died"
    ledger.seen([call])
    assert ledger.report(at_exit=True) == ""


def test_a_failure_that_no_display_has_shown_is_reported_at_the_exit(ledger: UnretrievedErrors) -> None:
    call = failed_call(0)
    ledger.leave_to_display([call])
    ledger.failed(call)
    assert ledger.report() == ""
    assert "1 call failed" in ledger.report(at_exit=True)


def test_a_failure_whose_call_nobody_holds_any_more_is_still_reported(ledger: UnretrievedErrors) -> None:
    for seq in range(100):
        ledger.failed(failed_call(seq))  # each call is gone at once, and its address used again
    assert "100 calls failed" in ledger.report()


def test_equal_failures_are_reported_once(ledger: UnretrievedErrors) -> None:
    for seq in range(4):
        ledger.failed(failed_call(seq))
    assert ledger.report().count("bad") == 1


def test_failures_beyond_the_limit_are_counted(ledger: UnretrievedErrors) -> None:
    for seq in range(LIMIT + 5):
        ledger.failed(failed_call(seq))
    assert f"{LIMIT + 5} calls failed" in ledger.report()


def test_failures_beyond_the_limit_that_somebody_has_seen_are_not_counted(ledger: UnretrievedErrors) -> None:
    calls = [failed_call(seq) for seq in range(LIMIT + 5)]
    for call in calls:
        ledger.failed(call)
    ledger.seen(calls)
    ledger.failed(failed_call(LIMIT + 5))
    assert "1 call failed" in ledger.report()


def test_failures_beyond_the_limit_are_reported_when_all_others_have_been_seen(ledger: UnretrievedErrors) -> None:
    calls = [failed_call(seq) for seq in range(LIMIT + 5)]
    for call in calls:
        ledger.failed(call)
    ledger.seen(calls[:LIMIT])
    report = ledger.report()
    assert "5 calls failed" in report
    assert "5 of the errors were not kept" in report
    assert ledger.report() == ""


def test_a_failure_beyond_the_limit_that_a_display_will_show_is_left_to_it(ledger: UnretrievedErrors) -> None:
    for seq in range(LIMIT):
        ledger.failed(failed_call(seq))
    ledger.report()
    calls = [failed_call(seq) for seq in range(LIMIT, 2 * LIMIT + 1)]
    ledger.leave_to_display(calls)
    for call in calls:
        ledger.failed(call)
        call.done = True
    assert ledger.report() == ""
    ledger.seen(calls[:-1])
    assert "1 call failed" in ledger.report(at_exit=True)


def test_of_a_flood_of_failures_it_is_told_that_there_are_more(
    ledger: UnretrievedErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unretrieved, "LIMIT", 2)
    monkeypatch.setattr(unretrieved, "COUNTED", 3)
    for seq in range(10):
        ledger.failed(failed_call(seq))
    assert "5 or more calls failed" in ledger.report()


class Events:
    """The callbacks that IPython calls after each cell."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[..., object]] = []

    def register(self, name: str, callback: Callable[..., object]) -> None:
        assert name == "post_run_cell"
        self.callbacks.append(callback)

    def unregister(self, name: str, callback: Callable[..., object]) -> None:
        self.callbacks.remove(callback)


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch) -> Events:
    """An IPython prompt, as far as the ledger knows it."""
    ipython = types.ModuleType("IPython")
    magics = types.SimpleNamespace(magics={"line": {}})
    shell = types.SimpleNamespace(
        events=Events(),
        custom_exceptions=(),
        set_custom_exc=lambda *args: None,
        magics_manager=magics,
        debugger=lambda force=False: None,
    )
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    return shell.events


def test_unseen_failures_are_reported_at_the_next_prompt(
    ledger: UnretrievedErrors, prompt: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    join_prompt(ledger)
    ledger.failed(failed_call(0))
    for callback in prompt.callbacks:
        callback(None)
    assert "bad" in capsys.readouterr().err


def test_a_prompt_after_nothing_failed_shows_nothing(
    ledger: UnretrievedErrors, prompt: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    join_prompt(ledger)
    prompt.callbacks[0](None)
    assert capsys.readouterr().err == ""


def test_reports_at_prompts_can_be_ended(ledger: UnretrievedErrors, prompt: Events) -> None:
    end = join_prompt(ledger)
    end()
    assert prompt.callbacks == []


def test_without_a_prompt_nothing_is_registered(ledger: UnretrievedErrors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.delattr(sys, "ps1", raising=False)  # which a shell of another test may have set
    end = join_prompt(ledger, cast(OwnModules, object()))
    assert "IPython" not in sys.modules
    assert not hasattr(sys, "ps1")
    end()


def test_news_is_told_once_and_not_to_who_has_looked_for_it(ledger: UnretrievedErrors) -> None:
    ledger.tell("engine 0 is recovered")
    ledger.tell("engine 1 is recovered")
    ledger.heard(["engine 0 is recovered"])
    assert ledger.report() == "nsactors: engine 1 is recovered"
    assert ledger.report() == ""


def lost(engine_id: int) -> Call:
    call = Call(RequestId("ann", engine_id), engine_id, "execute", executes=True)
    call.error = EngineLost(engine_id, "execute", "it crashed")
    return call


def test_a_death_that_a_call_has_told_of_is_no_news(ledger: UnretrievedErrors) -> None:
    call = lost(0)
    ledger.failed(call)
    ledger.engine_died(0, "engine 0 died")
    ledger.seen([call])
    assert ledger.report() == ""


def test_nor_is_it_if_the_call_was_first(ledger: UnretrievedErrors) -> None:
    call = lost(0)
    ledger.failed(call)
    ledger.seen([call])
    ledger.engine_died(0, "engine 0 died")
    ledger.engine_died(1, "engine 1 died")
    assert ledger.report() == "nsactors: engine 1 died"


def test_the_next_death_of_an_engine_is_news_again(ledger: UnretrievedErrors) -> None:
    call = lost(0)
    ledger.failed(call)
    ledger.seen([call])
    ledger.engine_joined(0)
    ledger.engine_died(0, "engine 0 died")
    assert ledger.report() == "nsactors: engine 0 died"


def test_a_call_asked_for_when_its_engine_is_back_does_not_hide_the_next_death(ledger: UnretrievedErrors) -> None:
    call = lost(0)
    ledger.failed(call)
    ledger.engine_died(0, "engine 0 died")
    ledger.engine_joined(0)
    ledger.seen([call])
    ledger.engine_died(0, "engine 0 died again")
    assert ledger.report() == "nsactors: engine 0 died again"
