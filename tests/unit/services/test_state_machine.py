"""ServiceInboxes: calls of many callers to one machine, each answered once."""

import sys
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.errors import ServiceClosed, ServiceError, ServiceOverloaded
from nsactors.services import state_machine
from nsactors.services.state_machine import Answer, CallId, ServiceInbox, ServiceInboxes, StateMachine, Waiting, name_of

A1, A2, A3 = (CallId("engine 0/a", number) for number in (1, 2, 3))
B1 = CallId("engine 1/b", 1)


class Queue(StateMachine):
    """Items are put and taken; takers wait in turn."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.takers: list[CallId] = []
        self.lost: list[str] = []

    def handle(self, ticket: CallId, request: Any) -> Iterable[Answer]:
        match request:
            case ("put", item):
                self.items.append(item)
                return [Answer(ticket), *self._serve()]
            case "take":
                self.takers.append(ticket)
                return self._serve()
        raise ValueError(request)

    def withdraw(self, ticket: CallId) -> Iterable[Answer]:
        self.takers.remove(ticket)
        return ()

    def give_back(self, answer: Answer) -> Iterable[Answer]:
        self.items.insert(0, answer.value)
        return self._serve()

    def gone(self, caller: str) -> Iterable[Answer]:
        self.lost.append(caller)
        return ()

    def describe(self, request: Any) -> str:
        return str(request)

    def _serve(self) -> list[Answer]:
        served = []
        while self.items and self.takers:
            served.append(Answer(self.takers.pop(0), self.items.pop(0), takes=True))
        return served


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def desk(queue: Queue) -> ServiceInbox:
    return ServiceInbox(queue)


def call(desk: ServiceInbox, ticket: CallId, request: Any, after: int | None = None) -> list[Answer]:
    return desk.call(ticket, ticket.number - 1 if after is None else after, request, now=10.0 + ticket.number)


def test_a_call_that_can_be_answered_is_answered_at_once(desk: ServiceInbox) -> None:
    assert call(desk, A1, ("put", 5)) == [Answer(A1)]
    assert call(desk, A2, "take") == [Answer(A2, 5, takes=True)]


def test_a_call_that_cannot_be_answered_waits_until_another_makes_that_possible(desk: ServiceInbox) -> None:
    assert call(desk, A1, "take") == []
    assert desk.waiting() == [Waiting(A1, "take", 11.0)]
    assert call(desk, B1, ("put", 5)) == [Answer(B1), Answer(A1, 5, takes=True)]
    assert desk.waiting() == []


def test_what_the_machine_raises_is_the_answer(desk: ServiceInbox) -> None:
    [answer] = call(desk, A1, "nonsense")
    assert isinstance(answer.error, ValueError)


class Leaver(StateMachine):
    """Each method calls ``sys.exit``."""

    def handle(self, ticket: CallId, request: Any) -> Iterable[Answer]:
        if request == "wait":
            return []
        sys.exit("enough")

    def withdraw(self, ticket: CallId) -> Iterable[Answer]:
        sys.exit("withdraw")

    def gone(self, caller: str) -> Iterable[Answer]:
        sys.exit("gone")

    def describe(self, request: Any) -> str:
        sys.exit("describe")


def test_an_exit_in_a_machine_is_the_answer() -> None:
    [answer] = call(ServiceInbox(Leaver()), A1, "leave")
    assert isinstance(answer.error, ServiceError)
    assert str(answer.error) == "SystemExit: enough"


def test_an_exit_in_a_machine_does_not_reach_the_host(capsys: pytest.CaptureFixture[str]) -> None:
    desk = ServiceInbox(Leaver())
    for ticket in (A1, A2, A3):
        assert call(desk, ticket, "wait") == []
    assert [one.what for one in desk.waiting()] == ["an answer"] * 3
    assert [answer.ticket for answer in desk.withdraw(A1)] == [A1]
    assert [answer.ticket for answer in desk.leave(A1.caller, died=True)] == [A2, A3]
    assert (desk.callers, desk.waiting()) == ([], [])
    assert "SystemExit: gone" in capsys.readouterr().err


class Keeper(Queue):
    """Takes nothing back."""

    def give_back(self, answer: Answer) -> Iterable[Answer]:
        raise LookupError("no")


def test_a_value_that_is_not_taken_back_ends_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    desk = ServiceInbox(keeper := Keeper())
    call(desk, A1, ("put", 5))
    call(desk, A2, "take")
    call(desk, A3, "take")
    desk.leave(A1.caller, died=True)
    assert (keeper.takers, keeper.lost) == ([], [A1.caller])
    assert "LookupError: no" in capsys.readouterr().err


def test_calls_that_overtook_each_other_are_handled_in_the_order_in_which_they_were_made(desk: ServiceInbox) -> None:
    assert call(desk, A2, ("put", "second")) == []
    assert call(desk, A3, ("put", "third")) == []
    assert call(desk, A1, ("put", "first")) == [Answer(A1), Answer(A2), Answer(A3)]
    assert [call(desk, CallId("b", n), "take")[0].value for n in (1, 2, 3)] == ["first", "second", "third"]


def test_a_number_that_was_never_used_holds_nobody_up(desk: ServiceInbox) -> None:
    call(desk, A1, ("put", 5))
    assert call(desk, A3, "take", after=1) == [Answer(A3, 5, takes=True)]


@given(st.permutations(range(1, 8)))
def test_any_order_of_arrival_gives_the_order_of_making(arrivals: list[int]) -> None:
    desk, order = ServiceInbox(Queue()), []
    for number in arrivals:
        order += [answer.ticket.number for answer in call(desk, CallId("a", number), ("put", number))]
    assert order == list(range(1, 8))


def test_a_call_that_is_withdrawn_takes_nothing(desk: ServiceInbox) -> None:
    call(desk, A1, "take")
    assert [answer.ticket for answer in desk.withdraw(A1)] == [A1]
    call(desk, B1, ("put", 5))
    assert call(desk, A2, "take") == [Answer(A2, 5, takes=True)]


def test_a_call_that_is_withdrawn_before_it_comes_takes_nothing(desk: ServiceInbox, queue: Queue) -> None:
    call(desk, A1, ("put", 5))
    assert desk.withdraw(A2) == []
    [answer] = call(desk, A2, "take")
    assert answer.error is not None
    assert queue.items == [5]


def test_what_was_taken_and_not_received_comes_back_when_the_call_is_withdrawn(
    desk: ServiceInbox, queue: Queue
) -> None:
    call(desk, A1, ("put", 5))
    call(desk, A2, "take")
    desk.withdraw(A2)
    assert queue.items == [5]


def test_what_has_been_received_does_not_come_back(desk: ServiceInbox, queue: Queue) -> None:
    call(desk, A1, ("put", 5))
    call(desk, A2, "take")
    desk.acknowledge(A2)
    desk.withdraw(A2)
    desk.leave(A2.caller, died=True)
    assert queue.items == []


def test_what_comes_back_goes_to_who_waits_for_it(desk: ServiceInbox) -> None:
    call(desk, A1, ("put", 5))
    call(desk, A2, "take")
    call(desk, B1, "take")
    assert desk.withdraw(A2) == [Answer(B1, 5, takes=True)]


def test_a_party_that_dies_swallows_nothing_and_the_machine_is_told(desk: ServiceInbox, queue: Queue) -> None:
    call(desk, A1, ("put", 5))
    call(desk, A2, "take")
    call(desk, A3, "take")
    desk.leave(A1.caller, died=True)
    assert (queue.items, queue.takers, queue.lost) == ([5], [], [A1.caller])
    assert desk.callers == []


def test_a_party_that_leaves_of_its_own_accord_is_not_mourned(desk: ServiceInbox, queue: Queue) -> None:
    call(desk, A1, "take")
    desk.leave(A1.caller)
    assert (queue.takers, queue.lost) == ([], [])


def test_when_a_service_ends_everybody_who_waits_is_told(desk: ServiceInbox) -> None:
    call(desk, A1, "take")
    call(desk, B1, "take")
    answers = desk.close(lambda: ServiceClosed("queue"))
    assert [(answer.ticket, type(answer.error)) for answer in answers] == [(A1, ServiceClosed), (B1, ServiceClosed)]


def test_more_calls_than_there_is_room_for_are_refused(
    desk: ServiceInbox, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_machine, "MOST_WAITING", 2)
    call(desk, A1, "take")
    call(desk, A2, "take")
    [answer] = call(desk, A3, "take")
    assert isinstance(answer.error, ServiceOverloaded)
    assert queue.takers == [A1, A2]


def test_the_services_of_a_host_share_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_machine, "MOST_WAITING", 2)
    desks = ServiceInboxes()
    one, other = (desks[desks.open(name, Queue)] for name in ("one", "other"))
    assert call(one, A1, "take") == call(other, B1, "take") == []
    [answer] = call(one, A2, "take")
    assert isinstance(answer.error, ServiceOverloaded)


def test_a_name_that_was_closed_is_a_new_service() -> None:
    desks = ServiceInboxes()
    first = desks.open("queue#1", Queue)
    assert desks.open("queue#1", Queue) == first
    del desks[first]
    second = desks.open("queue#1", Queue)
    assert (first in desks, name_of(first), name_of(second)) == (False, "queue#1", "queue#1")


class Step:
    """Strategies: what may happen at a desk."""

    callers = st.sampled_from(["a", "b", "c"])
    steps = st.lists(
        st.tuples(st.sampled_from(["put", "take", "acknowledge", "withdraw", "die"]), callers, st.integers(0, 3)),
        max_size=40,
    )


@given(Step.steps)
def test_whatever_happens_no_item_is_lost_or_doubled(steps: list[tuple[str, str, int]]) -> None:
    queue = Queue()
    desk = ServiceInbox(queue)
    numbers = dict.fromkeys("abc", 0)
    put, taken, received = 0, {}, 0
    for what, caller, back in steps:
        answers: list[Answer] = []
        ticket = CallId(caller, max(1, numbers[caller] - back))
        if what in ("put", "take"):
            numbers[caller] += 1
            put += what == "put"
            answers = call(desk, CallId(caller, numbers[caller]), ("put", put) if what == "put" else "take")
        elif what == "acknowledge" and ticket in taken:
            del taken[ticket]
            received += 1
            desk.acknowledge(ticket)
        elif what == "withdraw" and numbers[caller]:  # what was not made is not withdrawn
            taken.pop(ticket, None)
            answers = desk.withdraw(ticket)
        elif what == "die":
            taken = {ticket: item for ticket, item in taken.items() if ticket.caller != caller}
            answers = desk.leave(caller, died=True)
            numbers[caller] = 0
        taken.update({answer.ticket: answer.value for answer in answers if answer.takes})
    assert put == received + len(taken) + len(queue.items)
    assert not (queue.items and queue.takers)
