from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.core.messages import RequestId
from nsactors.core.stream import InstructionStream, Outbox, Verdict


def ann(seq: int) -> RequestId:
    return RequestId("ann", seq)


@pytest.fixture
def stream() -> InstructionStream:
    return InstructionStream()


def test_requests_run_in_the_order_of_their_numbers(stream: InstructionStream) -> None:
    assert [stream.take(ann(n)) for n in range(3)] == [Verdict.RUN] * 3


def test_a_request_that_was_delivered_twice_runs_once(stream: InstructionStream) -> None:
    assert [stream.take(ann(0)), stream.take(ann(0))] == [Verdict.RUN, Verdict.REPEATED]


def test_a_gap_is_passed_over(stream: InstructionStream) -> None:
    assert [stream.take(ann(n)) for n in (0, 5, 3)] == [Verdict.RUN, Verdict.RUN, Verdict.REPEATED]


def test_each_client_has_numbers_of_its_own(stream: InstructionStream) -> None:
    stream.take(ann(5))
    assert stream.take(RequestId("ben", 0)) is Verdict.RUN


def test_a_request_that_was_taken_back_does_not_run(stream: InstructionStream) -> None:
    stream.abort([ann(1)])
    assert [stream.take(ann(n)) for n in range(3)] == [Verdict.RUN, Verdict.ABORTED, Verdict.RUN]


def test_an_aborted_request_that_comes_twice_is_a_repeated_one(stream: InstructionStream) -> None:
    stream.abort([ann(0)])
    assert [stream.take(ann(0)), stream.take(ann(0))] == [Verdict.ABORTED, Verdict.REPEATED]


def test_what_has_had_its_turn_cannot_be_taken_back(stream: InstructionStream) -> None:
    stream.take(ann(0))
    stream.abort([ann(0)])
    assert stream.take(ann(1)) is Verdict.RUN


def test_an_abort_concerns_one_client(stream: InstructionStream) -> None:
    stream.abort([ann(0)])
    assert stream.take(RequestId("ben", 0)) is Verdict.RUN


@pytest.fixture
def outbox() -> Outbox[str]:
    return Outbox(window=2)


def test_what_fits_into_the_window_is_sent_at_once(outbox: Outbox[str]) -> None:
    assert [outbox.offer(item) for item in "abc"] == ["a", "b", None]


def test_an_answer_lets_the_next_go(outbox: Outbox[str]) -> None:
    for item in "abcd":
        outbox.offer(item)
    assert outbox.next() is None
    assert [(outbox.settle(), outbox.next()) for _ in range(4)] == [
        (True, "c"),
        (True, "d"),
        (False, None),
        (False, None),
    ]


def test_nothing_overtakes_what_waits_when_there_is_room_again(outbox: Outbox[str]) -> None:
    for item in "abc":
        outbox.offer(item)
    outbox.settle()
    assert outbox.offer("d") is None
    assert outbox.next() == "c"


def test_some_of_what_waits_can_be_taken_back(outbox: Outbox[str]) -> None:
    for item in "abcde":
        outbox.offer(item)
    assert outbox.take_back(lambda item: item == "d") == ["d"]
    outbox.settle()
    outbox.settle()
    assert [outbox.next(), outbox.next(), outbox.next()] == ["c", "e", None]


def test_what_waits_can_be_given_up(outbox: Outbox[str]) -> None:
    for item in "abcd":
        outbox.offer(item)
    assert (outbox.drain(), outbox.settle(), len(outbox)) == (["c", "d"], False, 1)


def test_a_window_holds_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Outbox(0)


@given(st.integers(1, 4), st.lists(st.booleans(), max_size=60))
def test_all_are_sent_once_in_order_and_no_more_than_the_window_at_a_time(window: int, offers: list[bool]) -> None:
    outbox: Outbox[int] = Outbox(window)
    sent: list[int] = []
    offered = answered = 0
    for offer in offers:
        if offer:
            going = outbox.offer(offered)
            offered += 1
        elif answered < len(sent):
            outbox.settle()
            answered += 1
            going = outbox.next()
        else:
            continue
        sent += [] if going is None else [going]
        assert len(sent) - answered <= window
        assert len(outbox) == offered - answered
    assert sent == list(range(len(sent)))
    assert len(sent) - answered == min(window, offered - answered)


def test_what_takes_another_lane_waits_until_all_in_flight_are_answered() -> None:
    outbox: Outbox[str] = Outbox(window=4)
    assert [outbox.offer("a", "direct"), outbox.offer("b", "direct"), outbox.offer("c", "relay")] == ["a", "b", None]
    assert (outbox.settle(), outbox.next()) == (True, None)
    assert (outbox.settle(), outbox.next()) == (True, "c")


def test_nothing_overtakes_what_waits_for_its_lane(outbox: Outbox[str]) -> None:
    outbox.offer("a", "direct")
    outbox.offer("b", "relay")
    assert outbox.offer("c", "direct") is None
    outbox.settle()
    assert (outbox.next(), outbox.next()) == ("b", None)


@given(st.lists(st.sampled_from(["direct", "relay", None]), max_size=60))
def test_all_in_flight_are_on_one_lane_and_leave_in_order(events: list[str | None]) -> None:
    outbox: Outbox[tuple[int, str]] = Outbox(window=3)
    sent: list[tuple[int, str]] = []
    offered = answered = 0
    for lane in events:
        if lane is not None:
            going = outbox.offer((offered, lane), lane)
            offered += 1
        elif answered < len(sent):
            outbox.settle()
            answered += 1
            going = outbox.next()
        else:
            continue
        sent += [] if going is None else [going]
        assert len({lane for _, lane in sent[answered:]}) <= 1
    assert [number for number, _ in sent] == list(range(len(sent)))
