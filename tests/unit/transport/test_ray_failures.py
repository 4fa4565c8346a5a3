"""Waits for results of Ray calls that end when Ray's servers die."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from nsactors.errors import ClusterLost
from nsactors.transport.ray.failures import can_be_ended, end_waits, result_of

LOST = ClusterLost("Ray's GCS (process 1)", "has died")


class Reference:
    """To the result of a call that has not been answered."""

    def __init__(self, when_asked: Callable[[], object] = lambda: None) -> None:
        self.answer: Future[Any] = Future()
        self._when_asked = when_asked

    def future(self) -> Future[Any]:
        self._when_asked()
        return self.answer


@pytest.fixture
def get(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], object]]]:
    """A Ray whose `get` calls what is in the list, and then runs into its time limit."""

    class GetTimeoutError(Exception):
        pass

    calls: list[Callable[[], object]] = []

    def get(reference: object, timeout: float) -> object:
        for call in calls:
            call()
        raise GetTimeoutError

    errors = types.SimpleNamespace(GetTimeoutError=GetTimeoutError)
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(get=get, exceptions=errors))
    monkeypatch.setattr("nsactors.transport.ray.failures._driver", threading.Event())
    can_be_ended()
    yield calls
    can_be_ended()


def test_a_wait_that_goes_on_ends_with_the_servers(get: object) -> None:
    with pytest.raises(ClusterLost, match="GCS"):
        result_of(Reference(lambda: end_waits(LOST)), None)


def test_a_wait_that_has_just_begun_ends_with_them_too(get: list[Callable[[], object]]) -> None:
    get.append(lambda: end_waits(LOST))
    with pytest.raises(ClusterLost, match="GCS"):
        result_of(Reference(), 10.0)


def test_what_is_connected_anew_has_lost_nothing(get: object) -> None:
    end_waits(LOST)
    can_be_ended()
    reference = Reference(lambda: reference.answer.set_result(5))
    assert result_of(reference, None) == 5
