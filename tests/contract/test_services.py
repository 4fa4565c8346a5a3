"""State machines that the cluster hosts: called from clients and from engines, they answer now or later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from nsactors import Client, DirectView, Reference, RemoteError
from nsactors.errors import SerializationError, ServiceClosed
from nsactors.protocol.messages import Capability
from nsactors.protocol.serialize import Payload
from nsactors.services.service import Service
from nsactors.services.state_machine import Answer, CallId, StateMachine
from nsactors.testing import TIMEOUT_S, wait_until

pytestmark = pytest.mark.services


class Shelf(StateMachine):
    """Things are put on it and taken from it; takers wait in turn."""

    def __init__(self) -> None:
        self.things: list[Any] = []
        self.takers: list[CallId] = []

    def handle(self, ticket: CallId, request: Any) -> Iterable[Answer]:
        match request:
            case ("put", thing):
                self.things.append(thing)
                return [Answer(ticket), *self._serve()]
            case ("count",):
                return [Answer(ticket, (len(self.things), len(self.takers)))]
            case ("take",):
                self.takers.append(ticket)
                return self._serve()
        raise LookupError(f"no such request: {request}")

    def withdraw(self, ticket: CallId) -> Iterable[Answer]:
        self.takers.remove(ticket)
        return ()

    def give_back(self, answer: Answer) -> Iterable[Answer]:
        self.things.insert(0, answer.value)
        return self._serve()

    def describe(self, request: Any) -> str:
        return "something on the shelf"

    def _serve(self) -> list[Answer]:
        served = []
        while self.things and self.takers:
            served.append(Answer(self.takers.pop(0), self.things.pop(0), takes=True))
        return served


@pytest.fixture
def shelf(rc: Client) -> Service:
    return rc.host(Shelf())


def waiting(shelf: Service) -> int:
    number: int = shelf.call(("count",))[1]
    return number


def take(shelf: Service) -> Any:
    return shelf.call(("take",))


@pytest.mark.services(both_ways=True)
def test_clients_and_engines_call_the_same_machine(dv: DirectView, shelf: Service) -> None:
    shelf.call(("put", "from the client"))
    assert dv.client[0].apply_sync(take, shelf) == "from the client"
    dv.push({"shelf": shelf})
    dv.client[1].execute("shelf.call(('put', 'from engine 1'))", block=True)
    assert dv.client[2].apply_sync(take, Reference("shelf")) == "from engine 1"


@pytest.mark.services(both_ways=True)
def test_a_call_waits_until_somebody_elses_makes_an_answer_possible(rc: Client, shelf: Service) -> None:
    takers = [rc[0].apply_async(take, shelf), rc[1].apply_async(take, shelf)]
    wait_until(lambda: waiting(shelf) == 2)
    shelf.call(("put", 1))
    shelf.call(("put", 2))
    assert {taker.get(TIMEOUT_S) for taker in takers} == {1, 2}


def test_what_the_machine_raises_is_raised_by_the_call(rc: Client, shelf: Service) -> None:
    with pytest.raises(LookupError, match="no such request"):
        shelf.call(("break",))
    with pytest.raises(LookupError, match="no such request"):
        rc[0].apply_sync(lambda shelf: shelf.call(("break",)), shelf)


@pytest.mark.services(both_ways=True)
def test_a_call_that_takes_too_long_is_withdrawn_and_takes_nothing(shelf: Service) -> None:
    with pytest.raises(TimeoutError) as kept:  # its traceback holds on to the call, as IPython does
        shelf.call(("take",), timeout_s=0.01)
    wait_until(lambda: waiting(shelf) == 0)
    assert kept.tb
    shelf.call(("put", 5))
    assert take(shelf) == 5


@pytest.mark.once
def test_an_answer_can_be_asked_for_now_and_had_later(shelf: Service) -> None:
    pending = shelf.ask(("take",))
    assert not pending.done()
    with pytest.raises(TimeoutError):
        pending.result(0.01)
    shelf.call(("put", 5))
    assert pending.result(TIMEOUT_S) == 5
    assert pending.done()
    assert pending.result() == 5


def test_an_answer_that_is_dropped_takes_nothing(shelf: Service) -> None:
    shelf.call(("put", 5))
    pending = shelf.ask(("take",))
    wait_until(pending.done)
    del pending
    assert shelf.call(("take",), timeout_s=TIMEOUT_S) == 5


@pytest.mark.services(both_ways=True)
def test_what_is_told_comes_before_what_is_asked_afterwards(rc: Client, shelf: Service) -> None:
    def tell_and_count(shelf: Service) -> tuple[int, int]:
        for number in range(200):
            shelf.tell(("put", number))
        counted: tuple[int, int] = shelf.call(("count",))
        return counted

    assert rc[0].apply_sync(tell_and_count, shelf) == (200, 0)
    assert [take(shelf) for _ in range(200)] == list(range(200))


@pytest.mark.once
def test_what_was_told_in_vain_is_raised_when_it_is_waited_for_at_the_latest(shelf: Service) -> None:
    def tell_and_wait() -> None:
        shelf.tell(("break",))
        shelf.flush()

    with pytest.raises(LookupError):
        tell_and_wait()


@pytest.mark.services(both_ways=True)
def test_values_travel_in_parcels_large_or_small(rc: Client, shelf: Service) -> None:
    small, large = np.arange(10), np.arange(200_000)
    for array in (small, large):
        parcel = shelf.pack(array)
        assert isinstance(parcel, Payload) == (array is small)
        shelf.call(("put", parcel))

    def read(shelf: Service) -> list[Any]:
        first, second = (shelf.unpack(shelf.call(("take",))) for _ in range(2))
        return [first.tolist(), int(second.sum()), second.flags.writeable]

    assert rc[0].apply_sync(read, shelf) == [small.tolist(), int(large.sum()), False]
    assert shelf.unpack(shelf.pack(large), copy=True).flags.writeable


@pytest.mark.once
def test_a_parcel_does_not_change_with_what_it_was_made_of(shelf: Service) -> None:
    array = np.zeros(4)
    parcel = shelf.pack(array)
    array[:] = 1
    assert shelf.unpack(parcel).tolist() == [0, 0, 0, 0]


def test_services_of_one_name_are_one(connect: Callable[..., Client]) -> None:
    first, second = (connect().host(Shelf(), "the one shelf") for _ in range(2))
    first.call(("put", 5))
    assert take(second) == 5
    first.close()


def test_when_a_service_is_closed_whoever_waits_is_told(rc: Client, shelf: Service) -> None:
    taker = rc[0].apply_async(take, shelf)
    wait_until(lambda: waiting(shelf) == 1)
    shelf.close()
    with pytest.raises(ServiceClosed):
        taker.get(TIMEOUT_S)
    with pytest.raises(ServiceClosed):
        take(shelf)


def test_threads_of_one_process_wait_each_for_its_own(shelf: Service) -> None:
    with ThreadPoolExecutor(20) as pool:
        takers = [pool.submit(take, shelf) for _ in range(20)]
        wait_until(lambda: waiting(shelf) == 20)
        for number in range(20):
            shelf.tell(("put", number))
        assert sorted(taker.result(TIMEOUT_S) for taker in takers) == list(range(20))


def test_who_waits_is_told_by_the_queue_status(rc: Client, shelf: Service) -> None:
    taker = rc[1].apply_async(take, shelf)
    wait_until(lambda: rc.queue_status()[1]["waits"])
    status = rc.queue_status()
    assert status[1]["waits"][0].startswith("something on the shelf for ")
    assert status[0]["waits"] == []
    shelf.call(("put", 5))
    taker.get(TIMEOUT_S)


@pytest.mark.services(both_ways=True)
def test_an_engine_that_ends_while_it_waits_takes_nothing(
    rc: Client, shelf: Service, victim: DirectView, end_engine: Callable[[int], None]
) -> None:
    victim.apply_async(take, shelf)
    wait_until(lambda: waiting(shelf) == 1)
    end_engine(victim.targets)  # type: ignore[arg-type]  # a view of one engine
    wait_until(lambda: waiting(shelf) == 0)
    shelf.call(("put", 5))
    assert take(shelf) == 5


@pytest.mark.services(both_ways=True)
@pytest.mark.needs(Capability.SIGNALS)
def test_an_engine_that_is_interrupted_while_it_waits_takes_nothing(rc: Client, shelf: Service) -> None:
    taker = rc[0].apply_async(take, shelf)
    wait_until(lambda: waiting(shelf) == 1)
    rc.interrupt(0)
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        taker.get(TIMEOUT_S)
    wait_until(lambda: waiting(shelf) == 0)
    shelf.call(("put", 5))
    assert rc[0].apply_sync(take, shelf) == 5


def test_many_who_wait_hold_up_nobody(shelf: Service) -> None:
    waiters = [shelf.ask(("take",)) for _ in range(300)]
    shelf.call(("put", "first"))
    assert waiters[0].result(TIMEOUT_S) == "first"
    del waiters
    wait_until(lambda: waiting(shelf) == 0)


def test_a_way_to_a_service_that_was_closed_leads_to_no_later_one(rc: Client) -> None:
    former = rc.host(Shelf(), "shelf that closes")
    for _ in range(3):
        former.call(("count",), TIMEOUT_S)
    rc[0].push({"former": former}, block=True)
    assert rc[0].pull("former.call(('count',))", block=True) == (0, 0)
    former.close()
    later = rc.host(Shelf(), "shelf that closes")
    with pytest.raises(ServiceClosed):
        former.call(("count",), TIMEOUT_S)
    with pytest.raises(ServiceClosed):
        rc[0].pull("former.call(('count',))", block=True)
    assert later.call(("count",), TIMEOUT_S) == (0, 0)
    later.close()


@pytest.mark.needs(Capability.PROCESS)
def test_what_cannot_be_sent_is_refused_and_the_service_goes_on(shelf: Service) -> None:
    with pytest.raises(SerializationError, match="the request"):
        shelf.tell(("put", threading.Lock()))
    with pytest.raises(SerializationError, match="the request"):
        shelf.call(("put", threading.Lock()))
    shelf.tell(("put", "a thing"))
    assert shelf.call(("count",), TIMEOUT_S) == (1, 0)


def test_a_machine_of_main_is_hosted_too(rc: Client, from_main: Callable[[str], Any]) -> None:
    source = """
        from nsactors.services.state_machine import Answer, StateMachine
        class Counter(StateMachine):
            count = 0
            def handle(self, ticket, request):
                self.count += request
                return [Answer(ticket, self.count)]
    """
    counter = rc.host(from_main(source).Counter())
    assert [rc[0].apply_sync(lambda counter: counter.call(5), counter), counter.call(2)] == [5, 7]


@pytest.mark.once
def test_the_machine_is_a_copy(rc: Client) -> None:
    shelf = Shelf()
    rc.host(shelf).call(("put", 5))
    assert shelf.things == []


@pytest.mark.services(both_ways=True)
def test_concurrent_givers_and_takers_lose_nothing(rc: Client, shelf: Service) -> None:
    def give(shelf: Service, first: int) -> None:
        for number in range(first, first + 50):
            shelf.tell(("put", number))
        shelf.flush()

    def collect(shelf: Service) -> list[int]:
        return [shelf.call(("take",)) for _ in range(50)]

    takers = [rc[engine].apply_async(collect, shelf) for engine in (0, 1)]
    for engine, first in ((2, 0), (3, 50)):
        rc[engine].apply_async(give, shelf, first)
    assert sorted(number for taker in takers for number in taker.get(TIMEOUT_S)) == list(range(100))


def test_closing_wakes_a_thread_of_the_client(shelf: Service) -> None:
    ended: list[BaseException] = []

    def wait_for_it() -> None:
        try:
            take(shelf)
        except ServiceClosed as error:
            ended.append(error)

    thread = threading.Thread(target=wait_for_it)
    thread.start()
    wait_until(lambda: waiting(shelf) == 1)
    shelf.close()
    thread.join(TIMEOUT_S)
    assert len(ended) == 1
