"""Results as futures of the standard library, which make their condition variable when it is needed."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, CancelledError, InvalidStateError
from typing import cast

import pytest

from nsactors.errors import CompositeError
from nsactors.protocol.messages import RequestId
from nsactors.results import AsyncResult, Call, CallController
from nsactors.testing import TIMEOUT_S, wait_until


class Owner:
    """Has made the calls."""

    detached = False
    has_stops = False

    def check_process(self) -> None: ...

    def mark_retrieved(self, calls: Iterable[Call]) -> None: ...

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None: ...

    def run_callback(self, function: Callable[[], object]) -> None:
        function()


def pending() -> AsyncResult:
    call = Call(RequestId("me", 0), 0, "apply", False)
    return AsyncResult(cast(CallController, Owner()), [call], label="apply", single=True)


def test_a_future_that_nobody_waits_for_makes_no_condition() -> None:
    future = pending()
    assert not future.done()
    future.set_result(7)
    assert future.done()
    assert future._made_condition is None
    assert (future.result(), future.exception(), future.cancelled()) == (7, None, False)


def test_an_exception_is_raised_by_who_asks() -> None:
    future = pending()
    future.set_exception(KeyError("x"))
    with pytest.raises(KeyError):
        future.result(0)


def test_an_exception_that_is_false_is_raised_all_the_same() -> None:
    class Empty(Exception):
        def __len__(self) -> int:
            return 0

    future = pending()
    future.set_exception(Empty("raised"))
    with pytest.raises(Empty, match="raised"):
        future.result()


def test_who_waits_is_woken() -> None:
    future = pending()
    results: list[int] = []
    waiter = threading.Thread(target=lambda: results.append(future.result(TIMEOUT_S)))
    waiter.start()
    wait_until(lambda: future._made_condition is not None and future._made_condition._waiters)
    future.set_result(7)
    waiter.join(TIMEOUT_S)
    assert results == [7]


def test_waiting_for_several_works_as_for_others() -> None:
    futures = [pending() for _ in range(3)]
    futures[1].set_result(1)
    done, _ = concurrent.futures.wait(futures, 0, concurrent.futures.FIRST_COMPLETED)
    assert done == {futures[1]}
    called: list[AsyncResult] = []
    futures[0].add_done_callback(called.append)  # type: ignore[arg-type]
    futures[0].set_result(0)
    futures[1].add_done_callback(called.append)  # type: ignore[arg-type]
    assert called == futures[:2]


def test_a_future_ends_once() -> None:
    future = pending()
    future.set_result(1)
    with pytest.raises(InvalidStateError):
        future.set_result(2)
    assert not future.cancel()


def test_a_cancelled_future_has_no_result() -> None:
    future = pending()
    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(CancelledError):
        future.result(0)
    with pytest.raises(InvalidStateError):
        future.set_result(1)
    with pytest.raises(CancelledError):
        future.get(0)
    with pytest.raises(CancelledError):
        future.get(0, return_exceptions=True)


def test_the_first_failure_is_raised_although_exceptions_would_be_returned_at_the_end() -> None:
    calls = [Call(RequestId("me", number), number, "apply", False) for number in range(2)]
    result = AsyncResult(cast(CallController, Owner()), calls, label="apply", return_exceptions=True)
    calls[0].settle(None, ValueError("x"))
    with pytest.raises(CompositeError, match="failed on 1 of 2 engines"):
        result.get(0, return_when=FIRST_EXCEPTION)
