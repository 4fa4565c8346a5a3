"""Clients come and go: what one has asked for can be seen, followed and collected by another."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from nsactors import Client, DirectView, RemoteError
from nsactors.errors import ClientClosed, EngineLost, ResultUnavailable, TaskAborted
from nsactors.protocol.control import HistoryEntry
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate, wait_until
from nsactors.transport.base import ControllerClient


@pytest.fixture
def other(connect: Callable[..., Client]) -> Client:
    """Another client of the same engines."""
    return connect("other")


def known(rc: Client, other: Client, outcome: str | None = None) -> list[HistoryEntry]:
    """Return the entries of the other client in the history; with an outcome, only those that ended so."""
    return [entry for entry in rc.history(client=other.name) if outcome in (None, entry.outcome)]


def test_clients_see_each_other_come_and_go(rc: Client, other: Client) -> None:
    assert {rc.name, other.name} <= set(rc.clients())
    other.close()
    assert other.name not in rc.clients()


def test_a_value_can_be_had_by_another_client(rc: Client, other: Client) -> None:
    sent = other[0].apply_async(lambda: {"answer": 42})
    sent.get(TIMEOUT_S)
    wait_until(lambda: known(rc, other, "ok"))
    assert rc.get_result(sent.msg_ids[0]).get(TIMEOUT_S) == {"answer": 42}


def test_an_error_and_the_output_before_it_can_be_had_by_another_client(rc: Client, other: Client) -> None:
    sent = other[0].execute("print('before'); 1 / 0")
    sent.exception(TIMEOUT_S)
    wait_until(lambda: known(rc, other, "ZeroDivisionError"))
    result = rc.get_result(sent.msg_ids[0])
    with pytest.raises(ZeroDivisionError) as caught:
        result.get(TIMEOUT_S)
    assert isinstance(caught.value, RemoteError)
    assert result.stdout == "before\n"


def test_what_still_runs_and_what_waits_behind_it_is_waited_for(rc: Client, other: Client, gate: Gate) -> None:
    other[0].apply_async(gate.pass_through)
    other[0].apply_async(lambda: "second")
    gate.wait_arrived()
    other.flush()
    result = rc.get_result(other.name)
    assert not result.wait(0.1)
    gate.open()
    assert result.get(TIMEOUT_S) == ["passed", "second"]


def test_what_a_client_leaves_unfinished_goes_on_and_can_be_had(rc: Client, other: Client, gate: Gate) -> None:
    other[:2].apply_async(gate.pass_through)
    gate.wait_arrived(2)
    other.close()
    result = rc.get_result(other.name)
    gate.open()
    assert result.get(TIMEOUT_S) == ["passed", "passed"]


def test_output_that_came_before_is_there_and_more_comes_live(rc: Client, other: Client, gate: Gate) -> None:
    other[0].push({"gate": gate.pass_through}, block=True)
    sent = other[0].execute("print('early', flush=True)\ngate()\nprint('late')")
    gate.wait_arrived()
    wait_until(lambda: known(rc, other, "running"))
    result = rc.get_result(sent.msg_ids[0])
    wait_until(lambda: result.stdout == "early\n")
    gate.open()
    result.get(TIMEOUT_S)
    sent.get(TIMEOUT_S)  # nothing orders what two clients hear
    assert result.stdout == sent.stdout == "early\nlate\n"


def test_what_waits_at_an_engine_is_in_the_history_as_queued(rc: Client, other: Client, gate: Gate) -> None:
    other[0].apply_async(gate.pass_through)
    other[0].apply_async(int)
    gate.wait_arrived()
    wait_until(lambda: [entry.label for entry in known(rc, other, "queued")] == ["apply(int)"])
    gate.open()
    wait_until(lambda: [entry.outcome for entry in known(rc, other)] == ["ok", "ok"])


def test_a_large_value_is_kept_for_others_when_its_client_had_said_that_it_may_go(
    rc: Client, other: Client, gate: Gate
) -> None:
    def pass_and_fill() -> bytes:
        pass_through()
        return b"x" * 3_000_000

    pass_through = gate.pass_through
    sent = other[0].apply_async(pass_and_fill)
    gate.wait_arrived()
    other.flush()
    gate.open()
    assert rc.get_result(sent.msg_ids[0]).get(TIMEOUT_S) == b"x" * 3_000_000


def test_a_large_value_is_kept_for_others_when_its_client_has_gone(rc: Client, other: Client, gate: Gate) -> None:
    pass_through = gate.pass_through
    sent = other[0].apply_async(lambda: pass_through() and b"x" * 3_000_000)
    gate.wait_arrived()
    other.close()
    result = rc.get_result(sent.msg_ids[0])
    gate.open()
    assert result.get(TIMEOUT_S) == b"x" * 3_000_000


def test_a_large_value_that_its_own_client_has_got_is_not_kept_and_that_is_said(rc: Client, other: Client) -> None:
    sent = other[0].execute("print('made')")
    large = other[0].apply_async(lambda: b"x" * 3_000_000)
    assert len(large.get(TIMEOUT_S)) == 3_000_000
    wait_until(lambda: len(known(rc, other, "ok")) == 2)
    with pytest.raises(ResultUnavailable, match="too large to store"):
        rc.get_result(large.msg_ids[0]).get(TIMEOUT_S)
    assert rc.get_result(sent.msg_ids[0], block=True).stdout == "made\n"


def test_a_dropped_answer_is_an_error_that_says_so(rc: Client, other: Client) -> None:
    """An engine keeps 16 MB."""
    sent = [other[0].apply_async(lambda: b"x" * 1_900_000) for _ in range(10)]
    for result in sent:
        result.get(TIMEOUT_S)
    wait_until(lambda: len(known(rc, other, "ok")) == 10)
    with pytest.raises(ResultUnavailable, match="newer ones have taken its place"):
        rc.get_result(sent[0].msg_ids[0]).get(TIMEOUT_S)
    assert len(rc.get_result(sent[-1].msg_ids[0]).get(TIMEOUT_S)) == 1_900_000


@pytest.mark.usefixtures("no_news")
@pytest.mark.parametrize("unknown", ["nobody", "nobody:3", 10**6])
def test_what_the_history_does_not_know_is_an_error(rc: Client, unknown: object) -> None:
    with pytest.raises(ResultUnavailable, match="the history"):
        rc.get_result(unknown)


def test_a_request_that_was_aborted_says_so_to_others_too(rc: Client, other: Client, gate: Gate) -> None:
    other[0].apply_async(gate.pass_through)
    queued = other[0].apply_async(int)
    gate.wait_arrived()
    queued.abort()
    gate.open()
    wait_until(lambda: known(rc, other, "aborted"))
    with pytest.raises(TaskAborted):
        rc.get_result(queued.msg_ids[0]).get(TIMEOUT_S)


def test_what_runs_at_an_engine_that_dies_is_lost_to_others_too(
    rc: Client, other: Client, victim: DirectView, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.session.other_clients.MISSING_S", 0.0)  # no reply can be on its way
    other.wait_for_engines(5, TIMEOUT_S)
    sent = other[victim.targets].apply_async(gate.pass_through)
    gate.wait_arrived()
    wait_until(lambda: known(rc, other, "running"))
    result = rc.get_result(sent.msg_ids[0])
    rc.shutdown(victim.targets)
    assert isinstance(result.exception(TIMEOUT_S), EngineLost)


def test_ones_own_result_can_be_had_again(rc: Client, gate: Gate) -> None:
    sent = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    wait_until(lambda: rc.history(client=rc.name))
    again = rc.get_result(sent)
    gate.open()
    assert again.get(TIMEOUT_S) == ["passed"]
    assert again.calls[0] is sent.calls[0]


@pytest.mark.needs(Capability.SIGNALS)
def test_a_client_may_interrupt_the_work_of_another(rc: Client, other: Client, gate: Gate) -> None:
    sent = other[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    wait_until(lambda: known(rc, other, "running"))
    rc.get_result(sent.msg_ids[0]).abort(interrupt=True)
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        sent.get(TIMEOUT_S)


def test_resuming_shows_what_came_before_and_goes_on_to_the_end(
    rc: Client, connect: Callable[..., Client], gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    other = connect("kernel")
    other[0].push({"gate": gate.pass_through}, block=True)
    other[0].execute("print('early', flush=True)\ngate()\nprint('late')")
    gate.wait_arrived()
    other.close()
    wait_until(lambda: known(rc, other, "running"))
    shown: list[str] = []

    def resume_for_a_while() -> str:
        rc.resume(timeout=0.5)
        shown.append(capsys.readouterr().out)
        return shown[-1]

    wait_until(lambda: "early" in resume_for_a_while())
    assert "late" not in "".join(shown)
    gate.open()
    result = rc.resume("kernel")
    assert result.done()
    printed = capsys.readouterr().out
    assert "early" in printed
    assert "late" in printed


def test_watching_shows_who_runs_what(
    rc: Client, other: Client, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    other[1].apply_async(gate.pass_through)
    gate.wait_arrived()
    wait_until(lambda: known(rc, other, "running"))
    rc.watch(timeout=0.1)
    assert other.name in capsys.readouterr().out


@pytest.mark.once
def test_ctrl_c_ends_the_wait_for_close_and_the_client_leaves_all_the_same(
    rc: Client, other: Client, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = other[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    detach, may_go_on = ControllerClient.detach, threading.Event()

    def interrupt(controller: ControllerClient, name: str) -> None:
        if name == other.name:
            signal.raise_signal(signal.SIGINT)
            assert may_go_on.wait(TIMEOUT_S)
        detach(controller, name)

    monkeypatch.setattr(ControllerClient, "detach", interrupt)
    with pytest.raises(KeyboardInterrupt):
        other.close()
    may_go_on.set()
    other.close()
    assert other.name not in rc.clients()
    with pytest.raises(ClientClosed):
        held.get(0)


@pytest.mark.once
def test_a_step_of_close_that_fails_does_not_hold_up_the_others(
    other: Client, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError("the socket is gone")

    held = other[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    monkeypatch.setattr(other.session.transport, "close", fail)
    with pytest.raises(OSError, match="the socket is gone"):
        other.close()
    with pytest.raises(ClientClosed):
        held.get(0)


@pytest.mark.once
def test_a_callback_that_is_added_after_close_is_called(other: Client) -> None:
    result = other[0].apply_async(abs, -1)
    result.get(TIMEOUT_S)
    other.close()
    called: list[object] = []
    result.add_done_callback(called.append)
    assert called == [result]
