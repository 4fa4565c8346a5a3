"""How requests are numbered, sent, answered and settled, over a transport that does as it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from nsactors.client import post
from nsactors.client.post import LOSSES, WINDOW, Post
from nsactors.core.cluster import EngineInfo, EngineLeft
from nsactors.core.messages import (
    Aborted,
    Apply,
    Failed,
    Ok,
    Outcome,
    OutputBatch,
    Refused,
    Reply,
    RequestId,
    StreamText,
)
from nsactors.errors import ClusterUnreachable, EngineLost, Failure
from nsactors.results import Call, Terms
from nsactors.transport.base import Addressed, EngineGone, Transport

OPERATION = Apply("apply(f)")


class ScriptedTransport:
    """Keeps what is sent; the test answers."""

    relays: Any = None

    def __init__(self) -> None:
        self.sent: list[Addressed] = []
        self.listeners: dict[int, Callable[[Any], None]] = {}
        self.quick: dict[int, Any] = {}
        self.broken = False

    def prepare(self, instruction: Any, payload: Any) -> Any:
        return instruction

    def send(self, request: Addressed, prepared: Any) -> int:
        if self.broken:
            raise OSError("no way")
        self.sent.append(request)
        return request.seq

    def when_answered(self, pending: int, listener: Callable[[Any], None]) -> None:
        self.listeners[pending] = listener

    def take(self, pending: Sequence[int], timeout_s: float) -> list[Any] | None:
        return [self.quick[seq] for seq in pending] if all(seq in self.quick for seq in pending) else None

    def open(self, engine: EngineInfo, delivered: Any) -> Any:
        if isinstance(delivered, Exception):
            raise delivered
        return delivered, None

    def answer(self, seq: int, content: Any) -> None:
        self.listeners.pop(seq)(content)


class ScriptedRelays:
    def __init__(self) -> None:
        self.sent: list[list[int]] = []

    def send(self, requests: Sequence[Addressed], prepared: Any) -> list[int]:
        self.sent.append([request.seq for request in requests])
        return [request.seq for request in requests]


class Desk:
    """A post with two engines, and what it told its owner."""

    def __init__(self, transport: ScriptedTransport) -> None:
        self.transport = transport
        self.settled: list[tuple[int, Any, Exception | None]] = []
        self.lost: list[str] = []
        self._later: list[Callable[[], object]] = []
        self.post = Post(
            cast(Transport, transport),
            "ann",
            settle=self._settle,
            later=self._later.append,
            lost=lambda engine, gone: self.lost.append(gone.reason),
        )
        for engine_id in (0, 1):
            self.post.add_engine(engine(engine_id))

    def _settle(self, call: Call, value: Any, error: Exception | None) -> None:
        if not call.done:
            call.settle(value, error)
            self.settled.append((call.request_id.seq, value, error))

    def submit(self, *engine_ids: int, awaited: bool = False, relayed: bool = False, stops: bool = False) -> list[Call]:
        terms = Terms(stops_on_error=stops)
        return self.post.submit(engine_ids, OPERATION, None, terms, awaited=awaited, relayed=relayed)

    def run_later(self) -> None:
        while self._later:
            self._later.pop(0)()

    @property
    def ended(self) -> list[int]:
        return [seq for seq, _, _ in self.settled]


@pytest.fixture
def desk() -> Desk:
    return Desk(ScriptedTransport())


def engine(engine_id: int, incarnation: int = 0) -> EngineInfo:
    return EngineInfo(engine_id, incarnation, 1, "here", None)


def left(*, returns: bool = False, replays: bool = False) -> EngineLeft:
    return EngineLeft(0, 0, "it crashed", expected=False, returns=returns, replays=replays)


def reply(seq: int, outcome: Outcome | None = None, *, routed_chunks: int = 0) -> Reply:
    request = RequestId("ann", seq)
    return Reply(
        request, 0, 0, Ok() if outcome is None else outcome, OutputBatch(request, 0, routed_chunks, ()), 1.0, 2.0
    )


def test_requests_are_numbered_upwards_whatever_engine_they_go_to(desk: Desk) -> None:
    desk.submit(0, 1)
    desk.submit(1)
    assert [(request.engine.engine_id, request.seq) for request in desk.transport.sent] == [(0, 0), (1, 1), (1, 2)]


def test_an_answer_settles_its_call(desk: Desk) -> None:
    (call,) = desk.submit(0)
    desk.transport.answer(0, reply(0))
    assert (call.done, call.started, call.completed, desk.post.open_calls()) == (True, 1.0, 2.0, [])


def test_who_waits_takes_quick_answers_without_a_listener(desk: Desk) -> None:
    calls = desk.submit(0, 1, awaited=True)
    desk.transport.quick = {0: reply(0), 1: reply(1)}
    assert desk.post.take(calls)
    assert (desk.ended, desk.transport.listeners) == ([0, 1], {})


def test_slow_answers_come_by_themselves_once_nobody_takes_them(desk: Desk) -> None:
    calls = desk.submit(0, 1, awaited=True)
    desk.transport.quick = {0: reply(0)}
    assert not desk.post.take(calls)
    for seq in (1, 0):
        desk.transport.answer(seq, reply(seq))
    assert desk.ended == [1, 0]


def test_an_interrupted_wait_leaves_the_answers_to_come_by_themselves(desk: Desk) -> None:
    calls = desk.submit(0, awaited=True)

    def interrupted(pending: Sequence[int], timeout_s: float) -> None:
        raise KeyboardInterrupt

    desk.transport.take = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        desk.post.take(calls)
    desk.transport.answer(0, reply(0))
    assert desk.ended == [0]


def test_a_call_whose_output_is_still_on_its_way_ends_with_it(desk: Desk) -> None:
    (call,) = desk.submit(0)
    desk.transport.answer(0, reply(0, routed_chunks=1))
    assert not call.done
    desk.post.take_output(OutputBatch(call.request_id, 0, 0, (StreamText("stdout", "hello"),)))
    assert (call.done, call.text("stdout")) == (True, "hello")


def test_late_output_is_still_its_calls(desk: Desk) -> None:
    (call,) = desk.submit(0)
    desk.transport.answer(0, reply(0))
    desk.post.take_output(OutputBatch(call.request_id, 0, 0, (StreamText("stdout", "late"),)))
    assert call.text("stdout") == "late"


def test_what_does_not_fit_into_the_window_follows_the_answers_in_order(desk: Desk) -> None:
    for _ in range(WINDOW + 2):
        desk.submit(0)
    assert len(desk.transport.sent) == WINDOW
    desk.transport.answer(0, reply(0))
    desk.transport.answer(1, reply(1))
    desk.run_later()
    assert [request.seq for request in desk.transport.sent[-2:]] == [WINDOW, WINDOW + 1]


def test_a_call_of_which_the_window_has_no_room_is_not_taken_but_comes(desk: Desk) -> None:
    for _ in range(WINDOW):
        desk.submit(0)
    calls = desk.submit(0, awaited=True)
    assert not desk.post.take(calls)
    desk.transport.answer(0, reply(0))
    desk.run_later()
    desk.transport.answer(WINDOW, reply(WINDOW))
    assert calls[0].done


def test_what_has_not_been_sent_can_be_withdrawn(desk: Desk) -> None:
    calls = [desk.submit(0)[0] for _ in range(WINDOW + 1)]
    assert desk.post.withdraw(calls) == [calls[-1]]


def test_a_request_to_an_engine_that_has_left_fails_at_once(desk: Desk) -> None:
    (call,) = desk.submit(7)
    assert isinstance(call.error, EngineLost)


def test_a_request_that_cannot_be_sent_says_so(desk: Desk) -> None:
    desk.transport.broken = True
    (call,) = desk.submit(0)
    assert isinstance(call.error, ClusterUnreachable)
    assert "no way" in str(call.error)


def test_a_lost_engine_is_told_before_its_call_ends(desk: Desk) -> None:
    (call,) = desk.submit(0)
    desk.transport.answer(0, EngineGone("it crashed"))
    assert (desk.lost, call.done) == ([], False)  # not on the transport's thread
    desk.run_later()
    assert desk.lost == ["it crashed"]
    assert isinstance(call.error, EngineLost)


def test_what_was_not_sent_to_a_lost_engine_is_given_back_to_be_told(desk: Desk) -> None:
    calls = [desk.submit(0)[0] for _ in range(WINDOW + 1)]
    assert desk.post.engine_left(left()) == [calls[-1]]


def test_what_is_asked_of_an_engine_that_is_away_waits_for_its_return(desk: Desk) -> None:
    desk.post.engine_left(left(returns=True))
    (call,) = desk.submit(0)
    assert (desk.transport.sent, call.done) == ([], False)
    desk.post.add_engine(engine(0, incarnation=1))
    assert [(request.engine.incarnation, request.seq) for request in desk.transport.sent] == [(1, 0)]
    desk.transport.answer(0, reply(0))
    assert call.error is None


def test_what_waits_for_an_engine_that_does_not_return_after_all_is_given_back(desk: Desk) -> None:
    desk.post.engine_left(left(returns=True))
    calls = desk.submit(0)
    assert desk.post.engine_left(left()) == calls
    assert isinstance(desk.submit(0)[0].error, EngineLost)


def test_what_an_engine_had_not_answered_is_sent_again_in_order_if_its_namespace_returns(desk: Desk) -> None:
    calls = [desk.submit(0)[0] for _ in range(WINDOW + 1)]
    desk.transport.answer(1, reply(1))
    desk.transport.answer(0, EngineGone("it crashed"))
    assert desk.post.engine_left(left(returns=True, replays=True)) == []
    desk.run_later()
    held = desk.submit(0)
    desk.transport.sent.clear()
    desk.post.add_engine(engine(0, incarnation=1))
    again = [request.seq for request in desk.transport.sent]
    assert again == [0, *range(2, WINDOW + 1)]
    assert not any(call.done for call in [calls[0], *calls[2:], *held])
    desk.transport.answer(0, reply(0))
    desk.run_later()
    assert desk.transport.sent[-1].seq == WINDOW + 1


def test_what_the_engine_had_begun_before_it_died_is_lost_and_not_repeated(desk: Desk) -> None:
    (call,) = desk.submit(0)
    desk.post.engine_left(left(returns=True, replays=True))
    desk.post.add_engine(engine(0, incarnation=1))
    desk.transport.answer(0, reply(0, Refused()))
    assert isinstance(call.error, EngineLost)
    assert "not repeated" in str(call.error)


def test_without_its_namespace_what_was_sent_before_fails_and_what_came_after_runs(desk: Desk) -> None:
    (before,) = desk.submit(0)
    desk.post.engine_left(left(returns=True))
    (after,) = desk.submit(0)
    desk.transport.answer(0, EngineGone("it crashed"))
    desk.run_later()
    desk.post.add_engine(engine(0, incarnation=1))
    assert isinstance(before.error, EngineLost)
    assert [request.seq for request in desk.transport.sent] == [0, 1]
    assert not after.done


def test_a_loss_that_is_heard_of_after_the_engine_is_back_is_one_all_the_same(desk: Desk) -> None:
    (before,) = desk.submit(0)
    desk.post.engine_left(left(returns=True))
    desk.post.add_engine(engine(0, incarnation=1))
    desk.transport.answer(0, EngineGone("it crashed"))
    desk.run_later()
    assert isinstance(before.error, EngineLost)


def test_what_waits_for_the_return_can_be_withdrawn(desk: Desk) -> None:
    desk.post.engine_left(left(returns=True))
    calls = desk.submit(0)
    assert desk.post.withdraw(calls) == calls


def test_old_news_of_an_engine_that_is_back_changes_nothing(desk: Desk) -> None:
    desk.post.engine_left(left(returns=True))
    desk.post.add_engine(engine(0, incarnation=1))
    assert desk.post.engine_left(left()) == []
    desk.submit(0)
    assert desk.transport.sent[0].engine.incarnation == 1


def test_a_reply_that_cannot_be_read_is_an_error_of_its_call(desk: Desk) -> None:
    (call,) = desk.submit(0)
    desk.transport.answer(0, ValueError("garbled"))
    assert str(call.error) == "garbled"


def test_stops_that_a_client_knows_of_travel_with_later_requests(desk: Desk) -> None:
    desk.submit(0, stops=True)
    failure = Failure.capture(ValueError("x"), engine_id=0, call="f", dumps=lambda value: b"")
    desk.transport.answer(0, reply(0, Failed(failure)))
    desk.submit(0)
    desk.submit(1)
    assert [request.stops_seen for request in desk.transport.sent] == [0, 1, 0]


def test_stops_of_an_engine_are_forgotten_when_another_process_takes_its_place(desk: Desk) -> None:
    desk.submit(0, stops=True)
    desk.submit(0, stops=True)
    failure = Failure.capture(ValueError("x"), engine_id=0, call="f", dumps=lambda value: b"")
    desk.transport.answer(0, reply(0, Failed(failure)))
    desk.post.add_engine(engine(0, incarnation=1))
    desk.transport.answer(1, reply(1, Failed(failure)))  # it came from the former one
    desk.submit(0)
    assert [request.stops_seen for request in desk.transport.sent] == [0, 0, 0]


def test_an_aborted_call_frees_its_place(desk: Desk) -> None:
    desk.submit(0)
    desk.transport.answer(0, reply(0, Aborted()))
    assert desk.post.open_calls() == []


def test_relayed_requests_leave_together(desk: Desk) -> None:
    desk.transport.relays = relays = ScriptedRelays()
    calls = desk.submit(0, 1, relayed=True)
    assert (relays.sent, desk.transport.sent) == ([[0, 1]], [])
    desk.transport.answer(1, reply(1))
    assert [call.done for call in calls] == [False, True]


def test_a_direct_request_waits_for_relayed_ones_to_be_answered(desk: Desk) -> None:
    desk.transport.relays = ScriptedRelays()
    desk.submit(0, 1, relayed=True)
    desk.submit(0)
    assert desk.transport.sent == []
    desk.transport.answer(0, reply(0))
    desk.run_later()
    assert [request.seq for request in desk.transport.sent] == [2]


def test_a_relayed_request_waits_for_direct_ones_of_its_engine_alone(desk: Desk) -> None:
    desk.transport.relays = relays = ScriptedRelays()
    desk.submit(0)
    desk.submit(0, 1, relayed=True)
    assert relays.sent == [[2]]
    desk.transport.answer(0, reply(0))
    desk.run_later()
    assert relays.sent == [[2], [1]]


def test_without_relays_each_request_goes_by_itself(desk: Desk) -> None:
    desk.submit(0, 1, relayed=True)
    assert len(desk.transport.sent) == 2


def test_a_request_that_cannot_be_sent_keeps_nobody_waiting(desk: Desk) -> None:
    desk.transport.relays = relays = ScriptedRelays()
    desk.transport.broken = True
    desk.submit(0)
    desk.transport.broken = False
    desk.submit(0, 1, relayed=True)
    assert relays.sent == [[1, 2]]


def test_an_answer_that_comes_by_itself_is_not_taken_as_well(desk: Desk) -> None:
    desk.transport.relays = ScriptedRelays()
    calls = desk.submit(0, 1, relayed=True, awaited=True)
    desk.transport.quick = {0: reply(0), 1: reply(1)}
    assert not desk.post.take(calls)
    desk.transport.answer(0, reply(0))
    desk.transport.answer(1, reply(1))
    desk.submit(0)
    assert [request.seq for request in desk.transport.sent] == [2]


def test_an_answer_is_brought_again_whose_reading_was_interrupted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    calls = desk.submit(0, awaited=True)
    desk.transport.quick = {0: reply(0)}
    with monkeypatch.context() as patch:
        patch.setattr(post, "read_outcome", interrupted)
        with pytest.raises(KeyboardInterrupt):
            desk.post.take(calls)
    desk.transport.answer(0, reply(0))
    assert desk.ended == [0]


def test_an_answer_that_was_interrupted_before_its_call_ended_still_ends_it(desk: Desk) -> None:
    def interrupted(call: Call, value: Any, error: Exception | None) -> None:
        raise KeyboardInterrupt

    (call,) = desk.submit(0, awaited=True)
    desk.transport.quick = {0: reply(0)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk.post, "_settle", interrupted)
        with pytest.raises(KeyboardInterrupt):
            desk.post.take([call])
    desk.run_later()
    assert (desk.ended, desk.transport.listeners) == ([0], {})


def test_an_interrupted_answer_makes_room_once(desk: Desk) -> None:
    def interrupted(call: Call, value: Any, error: Exception | None) -> None:
        raise KeyboardInterrupt

    calls = [desk.submit(0, awaited=True)[0] for _ in range(WINDOW + 2)]
    desk.transport.quick = {0: reply(0)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk.post, "_settle", interrupted)
        with pytest.raises(KeyboardInterrupt):
            desk.post.take(calls[:1])
    desk.run_later()
    assert len(desk.transport.sent) == WINDOW + 1


def test_what_an_engine_dies_of_again_and_again_is_given_up(desk: Desk) -> None:
    first, second = desk.submit(0)[0], desk.submit(0)[0]
    for incarnation in range(LOSSES + 1):
        desk.post.engine_left(EngineLeft(0, incarnation, "it crashed", expected=False, returns=True, replays=True))
        desk.post.add_engine(engine(0, incarnation + 1))
        desk.run_later()
    assert isinstance(first.error, EngineLost)
    assert not second.done
    assert desk.transport.sent[-1].seq == 1


def test_what_waits_behind_that_is_not_to_blame(desk: Desk) -> None:
    first, second = desk.submit(0)[0], desk.submit(0)[0]
    for incarnation in range(2 * LOSSES + 1):
        desk.post.engine_left(EngineLeft(0, incarnation, "it crashed", expected=False, returns=True, replays=True))
        desk.post.add_engine(engine(0, incarnation + 1))
        desk.run_later()
    assert (first.done, second.done) == (True, False)
