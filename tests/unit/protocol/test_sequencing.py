from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.protocol.messages import RequestId
from nsactors.protocol.sequencing import RequestStream, SendWindow, Verdict


def ann(seq: int) -> RequestId:
    return RequestId("ann", seq)


@pytest.fixture
def stream() -> RequestStream:
    return RequestStream()


def test_requests_run_in_the_order_of_their_numbers(stream: RequestStream) -> None:
    assert [stream.take(ann(n)) for n in range(3)] == [Verdict.RUN] * 3


def test_a_request_that_was_delivered_twice_runs_once(stream: RequestStream) -> None:
    assert [stream.take(ann(0)), stream.take(ann(0))] == [Verdict.RUN, Verdict.REPEATED]


def test_a_gap_is_passed_over(stream: RequestStream) -> None:
    assert [stream.take(ann(n)) for n in (0, 5, 3)] == [Verdict.RUN, Verdict.RUN, Verdict.REPEATED]


def test_each_client_has_numbers_of_its_own(stream: RequestStream) -> None:
    stream.take(ann(5))
    assert stream.take(RequestId("ben", 0)) is Verdict.RUN


def test_a_request_that_was_taken_back_does_not_run(stream: RequestStream) -> None:
    stream.abort([ann(1)])
    assert [stream.take(ann(n)) for n in range(3)] == [Verdict.RUN, Verdict.ABORTED, Verdict.RUN]


def test_an_aborted_request_that_comes_twice_is_a_repeated_one(stream: RequestStream) -> None:
    stream.abort([ann(0)])
    assert [stream.take(ann(0)), stream.take(ann(0))] == [Verdict.ABORTED, Verdict.REPEATED]


def test_what_has_had_its_turn_cannot_be_taken_back(stream: RequestStream) -> None:
    stream.take(ann(0))
    stream.abort([ann(0)])
    assert stream.take(ann(1)) is Verdict.RUN


def test_an_abort_concerns_one_client(stream: RequestStream) -> None:
    stream.abort([ann(0)])
    assert stream.take(RequestId("ben", 0)) is Verdict.RUN


@pytest.fixture
def window() -> SendWindow[str]:
    return SendWindow(size=2)


def test_what_fits_into_the_window_is_sent_at_once(window: SendWindow[str]) -> None:
    assert [window.offer(item) for item in "abc"] == ["a", "b", None]


def test_an_answer_lets_the_next_go(window: SendWindow[str]) -> None:
    for item in "abcd":
        window.offer(item)
    assert window.next() is None
    assert [(window.settle(), window.next()) for _ in range(4)] == [
        (True, "c"),
        (True, "d"),
        (False, None),
        (False, None),
    ]


def test_nothing_overtakes_what_waits_when_there_is_room_again(window: SendWindow[str]) -> None:
    for item in "abc":
        window.offer(item)
    window.settle()
    assert window.offer("d") is None
    assert window.next() == "c"


def test_some_of_what_waits_can_be_taken_back(window: SendWindow[str]) -> None:
    for item in "abcde":
        window.offer(item)
    assert window.withdraw(lambda item: item == "d") == ["d"]
    window.settle()
    window.settle()
    assert [window.next(), window.next(), window.next()] == ["c", "e", None]


def test_what_waits_can_be_given_up(window: SendWindow[str]) -> None:
    for item in "abcd":
        window.offer(item)
    assert (window.drain(), window.settle(), len(window)) == (["c", "d"], False, 1)


def test_a_window_holds_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least one"):
        SendWindow(0)


@given(st.integers(1, 4), st.lists(st.booleans(), max_size=60))
def test_all_are_sent_once_in_order_and_no_more_than_the_window_at_a_time(size: int, offers: list[bool]) -> None:
    window: SendWindow[int] = SendWindow(size)
    sent: list[int] = []
    offered = answered = 0
    for offer in offers:
        if offer:
            going = window.offer(offered)
            offered += 1
        elif answered < len(sent):
            window.settle()
            answered += 1
            going = window.next()
        else:
            continue
        sent += [] if going is None else [going]
        assert len(sent) - answered <= size
        assert len(window) == offered - answered
    assert sent == list(range(len(sent)))
    assert len(sent) - answered == min(size, offered - answered)


def test_what_takes_another_lane_waits_until_all_in_flight_are_answered() -> None:
    window: SendWindow[str] = SendWindow(size=4)
    assert [window.offer("a", "direct"), window.offer("b", "direct"), window.offer("c", "relay")] == ["a", "b", None]
    assert (window.settle(), window.next()) == (True, None)
    assert (window.settle(), window.next()) == (True, "c")


def test_nothing_overtakes_what_waits_for_its_lane(window: SendWindow[str]) -> None:
    window.offer("a", "direct")
    window.offer("b", "relay")
    assert window.offer("c", "direct") is None
    window.settle()
    assert (window.next(), window.next()) == ("b", None)


@given(st.lists(st.sampled_from(["direct", "relay", None]), max_size=60))
def test_all_in_flight_are_on_one_lane_and_leave_in_order(events: list[str | None]) -> None:
    window: SendWindow[tuple[int, str]] = SendWindow(size=3)
    sent: list[tuple[int, str]] = []
    offered = answered = 0
    for lane in events:
        if lane is not None:
            going = window.offer((offered, lane), lane)
            offered += 1
        elif answered < len(sent):
            window.settle()
            answered += 1
            going = window.next()
        else:
            continue
        sent += [] if going is None else [going]
        assert len({lane for _, lane in sent[answered:]}) <= 1
    assert [number for number, _ in sent] == list(range(len(sent)))
