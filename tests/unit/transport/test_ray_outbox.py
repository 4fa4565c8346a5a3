"""What is told to a service, in few messages: everything arrives, in order, though nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nsactors.transport.ray_outbox import FULL, MOST_POSTED, Item, Outbox, settle_all
from tests.gates import TIMEOUT_S, wait_until


class Wire:
    """What has been sent by itself, and what was waited for."""

    def __init__(self) -> None:
        self.messages: list[list[Item]] = []
        self.settled: list[int] = []

    def post(self, items: list[Item]) -> int:
        self.messages.append(items)
        return len(self.messages)

    @property
    def items(self) -> list[Item]:
        return [item for message in self.messages for item in message]


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def outbox(wire: Wire) -> Iterator[Outbox]:
    outbox = Outbox(wire.post, wire.settled.append)
    yield outbox
    outbox.close()


def test_what_is_told_is_sent_though_no_call_follows(outbox: Outbox, wire: Wire) -> None:
    for number in range(10):
        outbox.add(number)
    wait_until(lambda: len(wire.items) == 10)
    assert wire.items == list(range(10))


def test_a_call_takes_along_what_was_told_before(monkeypatch: pytest.MonkeyPatch, wire: Wire) -> None:
    outbox = Outbox(wire.post, wire.settled.append)
    monkeypatch.setattr(outbox, "_start", threading.Thread)  # it does not come in between
    outbox.add((1, 0, "told"))
    outbox.add(2)
    assert outbox.along(lambda told: told) == [(1, 0, "told"), 2]
    assert (outbox.along(lambda told: told), wire.messages, outbox.sent) == ([], [], 4)


def test_what_could_not_be_sent_is_sent_with_the_next_message(outbox: Outbox) -> None:
    def interrupted(told: list[Item]) -> Any:
        raise KeyboardInterrupt

    outbox._thread = threading.current_thread()  # it does not come in between
    outbox.add(1)
    with pytest.raises(KeyboardInterrupt):
        outbox.along(interrupted)
    assert outbox.along(lambda told: told) == [1]


def test_who_tells_much_waits_for_the_oldest_of_many_messages(outbox: Outbox, wire: Wire) -> None:
    outbox._thread = threading.current_thread()
    for number in range(FULL * (MOST_POSTED + 2)):
        outbox.add(number)
    assert (len(wire.messages), wire.settled) == (MOST_POSTED + 2, [1, 2])
    assert wire.items == list(range(FULL * (MOST_POSTED + 2)))


def test_what_was_told_is_waited_for_where_others_may_hear_of_it(outbox: Outbox, wire: Wire) -> None:
    outbox._thread = threading.current_thread()
    outbox.add((1, 0, "told"))
    settle_all()
    assert (wire.items, wire.settled) == ([(1, 0, "told")], [1])
    outbox.add(1)  # a receipt: nobody else hears of that
    settle_all()
    assert len(wire.messages) == 1


def test_the_rest_is_sent_at_the_end_and_the_thread_ends(wire: Wire) -> None:
    outbox = Outbox(wire.post, wire.settled.append)
    outbox.add(1)
    outbox.close()
    assert wire.items == [1]
    assert outbox._thread is not None
    outbox._thread.join(TIMEOUT_S)
    assert not outbox._thread.is_alive()


def test_what_went_wrong_when_nobody_looked_is_raised_by_the_next_call() -> None:
    def settle(message: None) -> None:
        raise LookupError("went wrong")

    outbox = Outbox(lambda items: None, settle)
    outbox.add((1, 0, "told"))
    outbox._posted.extend([None] * (MOST_POSTED + 1))
    wait_until(lambda: outbox._failure is not None)
    with pytest.raises(LookupError, match="went wrong"):
        outbox.along(lambda told: told)
    assert outbox._thread is not None
    assert outbox._thread.is_alive()
    outbox.close()


def test_an_outbox_may_be_closed_by_the_garbage_collector_while_it_sends() -> None:
    posted: list[Item] = []

    def post(items: list[Item]) -> None:
        posted.extend(items)
        if len(posted) == 1:
            one.close()

    one = Outbox(post, lambda message: None)
    one.add((1, 0, "told"))
    assert one._thread is not None
    one._thread.join(TIMEOUT_S)
    assert not one._thread.is_alive()


def test_who_settles_second_waits_for_what_the_first_one_waits_for() -> None:
    entered, go = threading.Event(), threading.Event()
    handled: list[int] = []
    seen: list[list[int]] = []

    def settle(message: int) -> None:
        entered.set()
        assert go.wait(TIMEOUT_S)
        handled.append(message)

    def settle_and_look() -> None:
        settle_all()
        seen.append(list(handled))

    outbox = Outbox(len, settle)
    outbox._thread = threading.current_thread()
    outbox.add((1, 0, "told"))
    first, second = threading.Thread(target=settle_all), threading.Thread(target=settle_and_look)
    first.start()
    assert entered.wait(TIMEOUT_S)
    second.start()
    second.join(0.05)  # time enough to pass, if it could
    go.set()
    for thread in (first, second):
        thread.join(TIMEOUT_S)
    assert seen == [[1]]
