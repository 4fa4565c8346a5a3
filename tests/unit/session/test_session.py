"""Waiting for calls that have been sent."""

from nsactors.protocol.messages import RequestId
from nsactors.results import Call
from nsactors.session.session import wait_for_calls


def call(number: int) -> Call:
    return Call(RequestId("me", number), 0, "push", False)


def test_settled_calls_are_not_waited_for() -> None:
    settled = [call(0), call(1)]
    for each in settled:
        each.settle(None, None)
    assert wait_for_calls(settled, 0.0)


def test_a_call_that_stays_open_ends_the_wait_in_time() -> None:
    settled = call(0)
    settled.settle(None, None)
    assert not wait_for_calls([settled, call(1)], 0.01)
