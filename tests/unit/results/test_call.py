"""A call is settled once."""

from __future__ import annotations

from threading import Thread

from nsactors.protocol.messages import RequestId
from nsactors.results import Call

RIVAL_S = 0.2  # long enough for a thread to settle a call, if it can


def test_of_two_threads_that_settle_a_call_one_is_heard() -> None:
    call = Call(RequestId("ann", 0), 0, "apply(f)", executes=False)
    rival = Thread(target=call.settle, args=("answer", None))
    noted: list[tuple[object, Exception | None]] = []

    def note(call: Call) -> None:
        rival.start()
        rival.join(RIVAL_S)
        noted.append((call.value, call.error))

    error = RuntimeError("its engine has left")
    call.settle(None, error, note)
    rival.join()
    assert (noted, call.value, call.error) == ([(None, error)], None, error)


def test_a_call_that_has_ended_is_not_noted_again() -> None:
    call = Call(RequestId("ann", 0), 0, "apply(f)", executes=False)
    noted: list[Call] = []
    call.settle("answer", None)
    call.settle(None, RuntimeError("its engine has left"), noted.append)
    assert (call.value, call.error, noted) == ("answer", None, [])
