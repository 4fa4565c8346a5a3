"""How requests are numbered, sent, answered and settled, over a transport that the test controls."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from nsactors.errors import ClusterUnreachable, EngineLost, Failure, TaskAborted
from nsactors.protocol.client_modules import ClientModules
from nsactors.protocol.control import EngineLeft
from nsactors.protocol.engine_info import EngineInfo
from nsactors.protocol.messages import (
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
from nsactors.protocol.serialize import Payload
from nsactors.results import Call, RequestOptions
from nsactors.session import requests
from nsactors.session.requests import FEW, LOSSES, WINDOW, OtherWork, RequestSender
from nsactors.transport.base import EngineGone, Envelope, Transport

OPERATION = Apply("apply(f)")


class ScriptedTransport:
    """Keeps what is sent; the test answers."""

    relays: Any = None

    def __init__(self) -> None:
        self.sent: list[Envelope] = []
        self.listeners: dict[int, Callable[[Any], None]] = {}
        self.quick: dict[int, Any] = {}
        self.prepared: list[Any] = []
        self.broken = False
        self.interrupted_at = 0
        self.lanes: dict[int, Any] = {}
        self.quick_engines: list[int] = []

    def prepare(self, instruction: Any, payload: Any, quick: Sequence[EngineInfo]) -> Any:
        self.prepared.append(instruction)
        self.quick_engines = [engine.engine_id for engine in quick]
        return instruction

    def lane(self, engine: EngineInfo, prepared: Any) -> Any:
        return self.lanes.get(engine.engine_id)

    def send(self, request: Envelope, prepared: Any) -> int:
        if self.broken:
            raise OSError("no way")
        self.sent.append(request)
        if len(self.sent) == self.interrupted_at:
            raise KeyboardInterrupt
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

    def send(self, requests: Sequence[Envelope], prepared: Any) -> list[int]:
        self.sent.append([request.seq for request in requests])
        return [request.seq for request in requests]


class NotingSender(RequestSender):
    """Notes the calls that it ends."""

    def __init__(self, settled: list[tuple[int, Any, Exception | None]], *terms: Any, **options: Any) -> None:
        super().__init__(*terms, **options)
        self._settled = settled

    def end(self, call: Call, value: Any, error: Exception | None) -> None:
        is_first = not call.done
        super().end(call, value, error)
        if is_first:
            self._settled.append((call.request_id.seq, value, error))


class Desk:
    """A post with two engines, and what it told its owner."""

    def __init__(self, transport: ScriptedTransport) -> None:
        self.transport = transport
        self.settled: list[tuple[int, Any, Exception | None]] = []
        self.lost: list[str] = []
        self.abandoned: list[Sequence[Call]] = []
        self._later: list[Callable[[], object]] = []
        self.modules: ClientModules | None = None
        self.concludes: EngineLeft | None = None  # from a loss of which the transport tells
        self.post = NotingSender(
            self.settled,
            cast(Transport, transport),
            "ann",
            failed=lambda call: None,
            later=self._later.append,
            lost=self._note_loss,
            abandoned=self.abandoned.append,
            modules=lambda: self.modules,
        )
        for engine_id in (0, 1):
            self.post.add_engine(engine(engine_id))

    def _note_loss(self, engine: EngineInfo, gone: EngineGone) -> None:
        self.lost.append(gone.reason)
        if self.concludes is not None:
            self.post.engine_left(self.concludes)

    def submit(self, *engine_ids: int, awaited: bool = False, relayed: bool = False, stops: bool = False) -> list[Call]:
        terms = RequestOptions(stops_on_error=stops)
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


def test_engines_are_quick_as_long_as_a_request_with_data_takes_a_lane_at_once(desk: Desk) -> None:
    def quick_engines(*engine_ids: int) -> list[int]:
        desk.post.submit(engine_ids, OPERATION, Payload(b""), RequestOptions(), awaited=False, relayed=False)
        return desk.transport.quick_engines

    desk.transport.lanes[0] = ScriptedRelays()
    found = [quick_engines(0) for _ in range(FEW + 1)]
    assert found == [*[[0]] * FEW, []]
    assert quick_engines(1) == [1]
    assert quick_engines(1) == []  # the first has taken no lane, and has no reply
    desk.transport.answer(FEW + 1, reply(FEW + 1))
    assert quick_engines(1, 0) == []  # engine 0 has many requests
    for seq in range(FEW + 1):
        desk.transport.answer(seq, reply(seq))


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


def test_answers_that_are_not_taken_together_all_come_by_themselves(desk: Desk) -> None:
    calls = [*desk.submit(0), *desk.submit(1, awaited=True)]
    assert not desk.post.take(calls)
    assert sorted(desk.transport.listeners) == [0, 1]


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


def lost_with(desk: Desk, calls: Sequence[Call], gone: EngineGone) -> list[EngineLost]:
    for call in calls:
        desk.transport.answer(call.request_id.seq, gone)
    desk.run_later()
    errors = [call.error for call in calls]
    assert all(isinstance(error, EngineLost) for error in errors)
    return cast(list[EngineLost], errors)


def test_the_call_that_ran_is_blamed_with_what_it_wrote_and_those_behind_it_are_not(desk: Desk) -> None:
    calls = [desk.submit(0)[0] for _ in range(3)]
    desk.transport.answer(0, reply(0))
    ran, waited = lost_with(desk, calls[1:], EngineGone("it crashed", "last words", "ann:1"))
    assert (ran.began, ran.stderr_tail) == (True, "last words")
    assert (waited.began, waited.running, waited.stderr_tail) == (False, "apply(f)", "")
    assert "apply(f) had not begun there" in str(waited)
    assert "last words" not in str(waited)


def test_a_call_that_waited_for_that_of_another_client_is_not_blamed(desk: Desk) -> None:
    (waited,) = lost_with(desk, desk.submit(0), EngineGone("it crashed", "last words", "bob-1f2e:7"))
    assert str(waited).startswith("engine 0 died while running a call by bob-1f2e: it crashed\napply(f) had not begun")


def test_a_call_on_its_way_to_an_engine_that_dies_idle_is_not_blamed(desk: Desk) -> None:
    before, after = desk.submit(0)[0], desk.submit(0)[0]
    desk.transport.answer(0, reply(0))
    (waited,) = lost_with(desk, [after], EngineGone("it was killed", "", str(before.request_id)))
    assert str(waited).startswith("engine 0 died: it was killed\napply(f) had not begun there. ")


def test_where_it_is_not_known_what_ran_only_those_behind_the_first_have_surely_waited(desk: Desk) -> None:
    first, second = lost_with(desk, [desk.submit(0)[0] for _ in range(2)], EngineGone("its node died"))
    assert (first.began, second.began) == (None, False)
    assert str(first).startswith("engine 0 died before it answered apply(f): its node died\n")


@pytest.mark.parametrize(
    ("event", "wanted", "told"),
    [
        (left(), False, "It does not restart"),
        (left(returns=True), False, "It restarts with an empty namespace"),
        (left(returns=True), True, "If it was asked to restart, it does so with an empty namespace"),
    ],
)
def test_a_call_says_what_becomes_of_its_engine(desk: Desk, event: EngineLeft, wanted: bool, told: str) -> None:
    (call,) = desk.submit(0)
    desk.post.engine_left(event)
    (lost,) = lost_with(desk, [call], EngineGone("it ended", wanted=wanted))
    assert told in str(lost)


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


def test_the_same_news_twice_leaves_what_was_sent_to_fail_by_itself(desk: Desk) -> None:
    (call,) = desk.submit(0)
    for _ in range(2):
        assert desk.post.engine_left(left(returns=True)) == []
    (lost,) = lost_with(desk, [call], EngineGone("it crashed", last_begun="ann:0"))
    assert lost.began


def test_what_waits_for_a_namespace_that_is_not_restored_after_all_tells_its_own_loss(desk: Desk) -> None:
    calls = [desk.submit(0)[0] for _ in range(WINDOW + 1)]
    desk.post.engine_left(left(returns=True, replays=True))
    for call in calls[:2]:
        desk.transport.answer(call.request_id.seq, EngineGone("it crashed", last_begun="ann:0"))
    desk.run_later()
    assert not any(call.done for call in calls)
    (after,) = desk.submit(0)
    assert desk.post.engine_left(left(returns=True)) == [calls[-1]]
    desk.run_later()
    assert [(call.request_id.seq, error.began) for call in calls if isinstance(error := call.error, EngineLost)] == [
        (0, True),
        (1, False),
    ]
    desk.post.add_engine(engine(0, incarnation=1))
    assert desk.transport.sent[-1].seq == after.request_id.seq


def test_a_loss_does_not_make_calls_wait_when_it_is_known_that_the_namespace_is_not_restored(desk: Desk) -> None:
    (call,) = desk.submit(0)
    desk.concludes = left(returns=True, replays=True)
    desk.post.engine_left(left(returns=True))
    (lost,) = lost_with(desk, [call], EngineGone("it crashed", last_begun="ann:0"))
    assert lost.began


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
        patch.setattr(requests, "read_outcome", interrupted)
        with pytest.raises(KeyboardInterrupt):
            desk.post.take(calls)
    desk.transport.answer(0, reply(0))
    assert desk.ended == [0]


def test_an_answer_that_was_interrupted_before_its_call_ended_still_ends_it(desk: Desk) -> None:
    def interrupted(call: Call, value: Any, error: Exception | None, failed: Any) -> None:
        raise KeyboardInterrupt

    (call,) = desk.submit(0, awaited=True)
    desk.transport.quick = {0: reply(0)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Call, "settle", interrupted)
        with pytest.raises(KeyboardInterrupt):
            desk.post.take([call])
    desk.run_later()
    assert (desk.ended, desk.transport.listeners) == ([0], {})


def interrupted_at(line: int, function: Callable[..., object], *args: object) -> bool:
    """Call a method, with KeyboardInterrupt before its nth line; return whether it has so many."""
    code = function.__code__  # type: ignore[attr-defined]
    left = line

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code is not code:
            return None
        left -= event == "line"
        if left < 0:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*args)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("is_quick", [True, False])
def test_ctrl_c_at_any_line_of_taking_an_answer_loses_none(desk: Desk, is_quick: bool) -> None:
    for line in itertools.count():
        (call,) = desk.submit(0, awaited=True)
        seq = call.request_id.seq
        desk.transport.quick = {seq: reply(seq)} if is_quick else {}
        if not interrupted_at(line, RequestSender.take, desk.post, [call]):
            break
        desk.run_later()
        desk.post.listen_to_strays(math.inf)  # as the queue reporter does
        if not call.done:
            desk.transport.answer(seq, reply(seq))
        assert call.done
    assert line > 10


def test_an_interrupted_answer_makes_room_once(desk: Desk) -> None:
    def interrupted(call: Call, value: Any, error: Exception | None, failed: Any) -> None:
        raise KeyboardInterrupt

    calls = [desk.submit(0, awaited=True)[0] for _ in range(WINDOW + 2)]
    desk.transport.quick = {0: reply(0)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Call, "settle", interrupted)
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


def test_ctrl_c_before_a_request_has_a_listener_costs_no_reply(desk: Desk) -> None:
    when_answered = desk.transport.when_answered

    def strike(pending: int, listener: Callable[[Any], None]) -> None:
        desk.transport.when_answered = when_answered  # type: ignore[method-assign]
        raise KeyboardInterrupt

    desk.transport.when_answered = strike  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        desk.submit(0)
    desk.run_later()
    desk.post.give_up(desk.abandoned[0])
    desk.transport.answer(0, reply(0))
    assert desk.ended == [0]


def test_a_reply_that_cannot_be_read_twice_makes_room_once(desk: Desk) -> None:
    for _ in range(WINDOW + 2):
        desk.submit(0)
    deliver = desk.transport.listeners[0]
    for _ in range(2):
        deliver(ValueError("garbled"))
    desk.run_later()
    assert len(desk.transport.sent) == WINDOW + 1


def test_a_submission_that_is_interrupted_is_handed_over_to_be_taken_back(desk: Desk) -> None:
    desk.transport.interrupted_at = 2
    with pytest.raises(KeyboardInterrupt):
        desk.submit(0, 1)
    desk.run_later()
    assert [[call.request_id.seq for call in calls] for calls in desk.abandoned] == [[0, 1]]


def test_what_may_have_been_sent_when_it_was_interrupted_ends_and_the_rest_is_listened_to(desk: Desk) -> None:
    desk.transport.interrupted_at = 2
    with pytest.raises(KeyboardInterrupt):
        desk.submit(0, 1, awaited=True)
    desk.run_later()
    desk.post.give_up(desk.abandoned[0])
    ((seq, _, error),) = desk.settled
    assert (seq, type(error)) == (1, TaskAborted)
    desk.transport.answer(0, reply(0))
    assert (desk.ended, desk.post.open_requests()) == ([1, 0], [])


# What engines have to do besides tasks.


def submit_tasks(desk: Desk, engine_id: int = 0) -> Call:
    (call,) = desk.post.submit(
        [engine_id], OPERATION, None, RequestOptions(carries_tasks=True), awaited=False, relayed=False
    )
    return call


def test_an_engine_has_other_work_until_it_has_answered_all_that_carries_no_tasks(desk: Desk) -> None:
    submit_tasks(desk)
    assert (desk.post.busy, desk.post.other_work(0)) == (set(), None)
    desk.submit(0)
    assert (desk.post.busy, desk.post.other_work(0)) == ({0}, OtherWork("apply(f)", is_first=False))
    desk.transport.answer(0, reply(0))
    assert desk.post.other_work(0) == OtherWork("apply(f)", is_first=True)
    desk.transport.answer(1, reply(1))
    assert (desk.post.busy, desk.post.other_work(0), desk.post.other_work(7)) == (set(), None, None)


def test_the_end_of_what_an_engine_has_to_do_now_is_told_whatever_follows(desk: Desk) -> None:
    told: list[str] = []
    desk.submit(0)
    desk.submit(0)
    desk.post.when_passed(0, lambda: told.append("both"))
    desk.submit(0)
    for seq, expected in ((0, []), (1, ["both"]), (2, ["both"])):
        desk.transport.answer(seq, reply(seq))
        desk.run_later()
        assert told == expected
    desk.post.when_passed(0, lambda: told.append("nothing"))
    desk.run_later()
    assert told == ["both", "nothing"]


def test_a_call_that_has_been_withdrawn_or_lost_is_no_work(desk: Desk) -> None:
    desk.post.engine_left(left(returns=True))
    desk.submit(0)
    for call in desk.post.withdraw(desk.post.open_calls()):
        desk.post.end(call, None, None)
    assert (desk.post.busy, desk.post.other_work(0)) == (set(), None)


def test_an_engine_is_silent_that_has_answered_nothing_since_its_first_open_request(desk: Desk) -> None:
    first, other = desk.submit(0, 1)
    desk.submit(0)
    now = time.time() + 1.0
    assert desk.post.silent(first.submitted - 1.0) == []
    assert desk.post.silent(now) == [first, other]
    desk.transport.answer(1, reply(1))
    assert desk.post.silent(now) == [first]
    desk.transport.answer(0, reply(0))
    assert desk.post.silent(first.submitted) == []


def told(desk: Desk) -> list[ClientModules | None]:
    """Return the description of modules in each request."""
    return [instruction.modules for instruction in desk.transport.prepared]


def test_modules_are_told_until_each_engine_has_answered_and_again_when_they_change(desk: Desk) -> None:
    desk.modules = first = ClientModules("ann", ("/src",), ())
    desk.submit(0)
    desk.submit(0)
    desk.transport.answer(0, reply(0))
    desk.submit(0)
    desk.submit(0, 1)
    assert told(desk) == [first, first, None, first]
    desk.modules = second = ClientModules("ann", ("/other",), ())
    desk.submit(0)
    assert told(desk)[-1] is second


def test_another_incarnation_of_an_engine_is_told_anew(desk: Desk) -> None:
    desk.modules = ClientModules("ann", ("/src",), ())
    desk.submit(0)
    desk.transport.answer(0, reply(0))
    desk.post.engine_left(left(returns=True))
    desk.post.add_engine(engine(0, 1))
    desk.submit(0)
    assert told(desk) == [desk.modules, desk.modules]


def test_a_client_without_modules_tells_nothing(desk: Desk) -> None:
    desk.submit(0, 1)
    assert told(desk) == [None]
