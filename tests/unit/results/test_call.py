"""A call is settled once."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import pytest

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


class TakenByAnother(list[Callable[[Call], None]]):
    """Listeners of which another thread takes one just before this one does."""

    def pop(self, *_: object) -> Callable[[Call], None]:  # type: ignore[override]  # always the last
        super().pop()
        return super().pop()


def test_another_thread_may_take_the_last_listener_of_a_call() -> None:
    call = Call(RequestId("ann", 0), 0, "apply(f)", executes=False)
    called: list[Call] = []
    call._listeners = TakenByAnother([called.append])
    call.settle("answer", None)
    call.when_settled(called.append)
    assert (call.value, called) == ("answer", [])


def test_an_index_error_of_a_listener_is_raised() -> None:
    call = Call(RequestId("ann", 0), 0, "apply(f)", executes=False)
    call.settle("answer", None)

    def fail(call: Call) -> None:
        raise IndexError("of the listener")

    with pytest.raises(IndexError, match="of the listener"):
        call.when_settled(fail)
