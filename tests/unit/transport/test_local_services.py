"""Services in this process: what goes on at their desks."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import pytest

from nsactors.errors import ServiceClosed
from nsactors.protocol.serialize import Payload
from nsactors.services.service import Service
from nsactors.services.state_machine import Answer, CallId, StateMachine
from nsactors.testing import TIMEOUT_S
from nsactors.transport.local_services import LocalServices


class Bell(StateMachine):
    """Everybody waits until somebody rings."""

    def __init__(self) -> None:
        self.waiting: list[CallId] = []

    def handle(self, ticket: CallId, request: Any) -> Iterable[Answer]:
        if request == "who":
            return [Answer(ticket, [waiter.caller.partition("/")[0] for waiter in self.waiting])]
        if request == "ring":
            rung, self.waiting = self.waiting, []
            return [Answer(ticket), *map(Answer, rung)]
        self.waiting.append(ticket)
        return []

    def withdraw(self, ticket: CallId) -> Iterable[Answer]:
        self.waiting.remove(ticket)
        return ()


def nowhere(payload: Payload) -> Any:
    raise AssertionError("nothing here is large")


@pytest.fixture
def services() -> LocalServices:
    return LocalServices(nowhere, ())


@pytest.fixture
def bell(services: LocalServices) -> Service:
    return services.host(Bell(), "bell")


def test_a_way_to_a_service_that_is_dropped_is_forgotten(services: LocalServices) -> None:
    first, second = services.host(Bell(), "bell"), services.host(Bell(), "bell")
    dropped = first.ask("wait")
    assert second.call("who") == ["MainThread"]
    del first, dropped
    assert second.call("who") == []


def test_a_thread_that_ends_waits_no_more(services: LocalServices, bell: Service) -> None:
    waits = threading.Event()
    ended: list[BaseException] = []

    def wait() -> None:
        pending = bell.ask("wait")
        waits.set()
        try:
            pending.result(TIMEOUT_S)
        except RuntimeError as error:
            ended.append(error)

    thread = threading.Thread(target=wait, name="engine-3")
    thread.start()
    assert waits.wait(TIMEOUT_S)
    assert bell.call("who") == ["engine 3"]
    assert thread.ident is not None
    services.end_engine(thread.ident)
    thread.join(TIMEOUT_S)
    assert len(ended) == 1
    assert bell.call("who") == []


def test_an_engine_that_has_ended_calls_nothing_from_its_thread_any_more(
    services: LocalServices, bell: Service
) -> None:
    thread = threading.get_ident()
    services.end_engine(thread, goes_on=True)
    with pytest.raises(RuntimeError, match="withdrawn"):
        bell.call("who")
    with pytest.raises(RuntimeError, match="withdrawn"):
        bell.tell("who")
    services.end_thread(thread)  # its number is another one's from now on
    assert bell.call("who") == []


def test_at_the_end_of_all_services_everybody_who_waits_is_told(services: LocalServices, bell: Service) -> None:
    pending = bell.ask("wait")
    services.close()
    with pytest.raises(ServiceClosed, match="bell"):
        pending.result()
    with pytest.raises(ServiceClosed, match="bell"):
        bell.call("who")


def test_an_answer_that_is_dropped_while_the_desk_is_at_work_is_withdrawn_afterwards(bell: Service) -> None:
    # The garbage collector may drop one at any moment, also in a thread that has the lock.
    pending = bell.ask("wait")
    with bell._channel.services._lock:  # type: ignore[attr-defined]  # a local channel
        del pending
    assert bell.call("who") == []
