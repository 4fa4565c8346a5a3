"""The host of services by itself, without Ray: what comes late, twice, out of order, or never."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nsactors.errors import SerializationError, ServiceClosed, ServiceError
from nsactors.protocol.serialize import pack
from nsactors.services.state_machine import Answer, CallId, StateMachine
from nsactors.testing import TIMEOUT_S, wait_until
from nsactors.transport.ray import services
from nsactors.transport.ray.service_lines import Item
from nsactors.transport.ray.services import FULL, MOST_POSTED, OneWayBatcher, ServiceHost, flush_all
from nsactors.transport.service_socket import HostConnection, connect

Play = Callable[[Callable[[ServiceHost, str], Awaitable[Any]]], Any]


class Adder(StateMachine):
    """Adds up the numbers that it receives."""

    def __init__(self) -> None:
        self.sum = 0

    def handle(self, ticket: CallId, request: Any) -> Iterable[Answer]:
        self.sum += request
        return [Answer(ticket, self.sum)]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Runs a scene at a host with one adder; gives what the scene returns."""

    async def nobody_to_follow(host: ServiceHost) -> None:
        pass

    monkeypatch.setattr(ServiceHost, "_follow_controller", nobody_to_follow)

    def play(scene: Callable[[ServiceHost, str], Awaitable[Any]]) -> Any:
        async def whole() -> Any:
            host = ServiceHost("namespace")
            async with asyncio.timeout(TIMEOUT_S):
                return await scene(host, await host.host("adder", pack(Adder())))

        return asyncio.run(whole())

    return play


def test_what_is_told_twice_is_handled_once(play: Play) -> None:
    async def scene(host: ServiceHost, adder: str) -> Any:
        await host.post(adder, "me", [(1, 0, 5)])
        return (await host.call(adder, "me", 2, 1, 0, [(1, 0, 5)])).value

    assert play(scene) == 5


def test_who_waits_for_all_it_has_sent_waits_for_what_is_still_on_its_way(play: Play) -> None:
    async def scene(host: ServiceHost, adder: str) -> Any:
        flushing = asyncio.create_task(host.flush(adder, "me", (), 1))
        await asyncio.sleep(0)
        waits = not flushing.done()
        await host.post(adder, "me", [(1, 0, 5)])
        return waits, await flushing

    assert play(scene) == (True, None)


def test_what_never_comes_is_not_waited_for_without_end(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "SETTLE_S", 0.01)

    async def scene(host: ServiceHost, adder: str) -> Any:
        await host.call(adder, "me", 1, 0, 5)
        await host.leave(adder, "me", (), 2)
        return host._inboxes[adder].callers

    assert play(scene) == []


def test_a_party_that_has_left_already_is_not_watched(play: Play) -> None:
    async def scene(host: ServiceHost, adder: str) -> Any:
        await host.leave(adder, "me", (), 0)
        await host.presence("me")

    play(scene)


def test_the_ways_to_a_service_that_was_closed_do_not_lead_to_the_next_of_its_name(play: Play) -> None:
    async def scene(host: ServiceHost, adder: str) -> Any:
        await host.call(adder, "me", 1, 0, 5)
        await host.close(adder)
        later = await host.host("adder", pack(Adder()))
        closed = await host.call(adder, "me", 2, 1, 5)
        return closed.error, (await host.call(later, "you", 1, 0, 7)).value

    error, value = play(scene)
    assert isinstance(error, ServiceClosed)
    assert (error.name, value) == ("adder", 7)


class Unpicklable(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("odd")
        self.lock = threading.Lock()


class Unreadable(Exception):
    """Cannot be read from its pickle."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} {second}")


class Odd(StateMachine):
    """Answers what cannot be sent; waits for nobody."""

    def __init__(self) -> None:
        self.returned: list[int] = []

    def handle(self, ticket: CallId, request: Any) -> Iterable[Answer]:
        match request:
            case "value":
                return [Answer(ticket, [threading.Lock()], takes=True)]
            case "unpicklable":
                raise Unpicklable
            case "unreadable":
                raise Unreadable(1, 2)
        return [Answer(ticket, self.returned)]

    def give_back(self, answer: Answer) -> Iterable[Answer]:
        self.returned.append(answer.ticket.number)
        return ()


def test_an_answer_that_cannot_be_pickled_is_an_error_that_says_so(play: Play) -> None:
    async def scene(host: ServiceHost, adder: str) -> Any:
        odd = await host.host("odd", pack(Odd()))
        answer = await host.call(odd, "me", 1, 0, "value")
        return answer, (await host.call(odd, "me", 2, 1, "returned")).value

    answer, returned = play(scene)
    assert isinstance(answer.error, SerializationError)
    assert (answer.value, answer.takes, returned) == (None, False, [1])
    assert "the answer of the service 'odd'" in str(answer.error)


@pytest.mark.parametrize(("request_", "text"), [("unpicklable", "Unpicklable: odd"), ("unreadable", "Unreadable: 1 2")])
def test_an_error_that_callers_could_not_read_comes_as_its_text(play: Play, request_: str, text: str) -> None:
    async def scene(host: ServiceHost, adder: str) -> Any:
        odd = await host.host("odd", pack(Odd()))
        answer = await host.call(odd, "me", 1, 0, request_)
        await host.post(odd, "me", [(2, 1, request_)])
        return answer.error, await host.flush(odd, "me", (), 2)

    for error in play(scene):
        assert type(error) is ServiceError
        assert str(error).endswith(text)


def test_a_machine_that_exits_while_it_is_read_does_not_end_the_host(play: Play) -> None:
    async def scene(host: ServiceHost, adder: str) -> Any:
        with pytest.raises(ServiceError, match="SystemExit: 3"):
            await host.host("leaver", pack(LeavesWhenRead()))

    play(scene)


class LeavesWhenRead:
    """Calls ``sys.exit`` when it is read from its pickle."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


# Callers by a socket.


class Meeting(StateMachine):
    """Gives each thing to one that waits; a caller that has died is noted."""

    def __init__(self) -> None:
        self.things: list[Any] = []
        self.waiting: list[CallId] = []

    def handle(self, ticket: CallId, request: Any) -> Iterable[Answer]:
        match request:
            case "take":
                self.waiting.append(ticket)
                return self.serve()
            case "count":
                return [Answer(ticket, (len(self.things), len(self.waiting)))]
            case "strange":
                return [Answer(ticket, Strange(), takes=True)]
        self.things.append(request)
        return [Answer(ticket), *self.serve()]

    def withdraw(self, ticket: CallId) -> Iterable[Answer]:
        self.waiting.remove(ticket)
        return ()

    def give_back(self, answer: Answer) -> Iterable[Answer]:
        self.things.insert(0, answer.value)
        return self.serve()

    def gone(self, caller: str) -> Iterable[Answer]:
        self.things.append(f"{caller} has died")
        return self.serve()

    def serve(self) -> list[Answer]:
        served = []
        while self.things and self.waiting:
            served.append(Answer(self.waiting.pop(0), self.things.pop(0), takes=True))
        return served


class Strange:
    """A class that only Ray can send."""


class BySocket:
    """A host with one meeting, and what calls it; messages are those of a line by a socket.

    Args:
        host: the host.
        key: of its service.
        path: of its socket.
    """

    def __init__(self, host: ServiceHost, key: str, path: str) -> None:
        self.host, self.key, self.path = host, key, path

    async def connect(self, name: str) -> HostConnection:
        connection = await asyncio.to_thread(connect, self.path, self.key, name)
        assert connection is not None
        return connection

    async def call(self, connection: HostConnection, number: int, request: Any, after: int | None = None) -> Any:
        reply = connection.ask("call", number, number - 1 if after is None else after, request, [])
        return await asyncio.wrap_future(reply)

    async def count(self) -> Any:
        return (await self.host.call(self.key, "counter", 1, 0, "count")).value


@pytest.fixture
def by_socket(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a scene at a host with one meeting that can be called by a socket."""
    (tmp_path / "sockets").mkdir()
    monkeypatch.setattr(services, "session_folder", lambda: str(tmp_path))

    def run(scene: Callable[[BySocket], Awaitable[Any]]) -> Any:
        async def whole(host: ServiceHost, adder: str) -> Any:
            try:
                key = await host.host("meeting", pack(Meeting()))
                return await scene(BySocket(host, key, await host.socket_path()))
            finally:
                assert host._listener is not None
                host._listener.close()

        return play(whole)

    return run


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0)


def test_who_has_no_folder_for_a_socket_has_none(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "session_folder", lambda: "/nowhere")

    async def scene(host: ServiceHost, adder: str) -> Any:
        return await host.socket_path()

    assert play(scene) == ""


def test_calls_by_both_ways_are_in_the_order_in_which_they_were_made(by_socket: Callable[..., Any]) -> None:
    async def scene(at: BySocket) -> Any:
        me = await at.connect("me")
        second = asyncio.create_task(at.call(me, 2, "second"))
        await until(lambda: asyncio.sleep(0, bool(at.host._inboxes[at.key]._callers)))
        waits = not second.done()
        await at.host.call(at.key, "me", 1, 0, "first")
        await second
        things = [(await at.call(me, number, "take"))[1][0] for number in (3, 4)]
        me.close()
        return waits, things

    assert by_socket(scene) == (True, ["first", "second"])


def test_the_death_of_a_caller_gives_back_what_it_has_not_received_and_is_told(by_socket: Callable[..., Any]) -> None:
    async def scene(at: BySocket) -> Any:
        me, you = await at.connect("me"), await at.connect("you")
        await at.call(you, 1, "thing")
        taken = await at.call(me, 1, "take")
        me.close()  # without a farewell
        again = await at.call(you, 2, "take")
        told = await at.call(you, 3, "take")
        # Ray brings another call of the dead caller now, which takes nothing.
        late = await at.host.call(at.key, "me", 2, 1, "take")
        count = await at.count()
        you.close()
        return taken[1][0], again[1][0], told[1][0], type(late.error), count

    assert by_socket(scene) == ("thing", "thing", "me has died", RuntimeError, (0, 0))


def test_a_caller_that_leaves_by_its_socket_has_not_died(by_socket: Callable[..., Any]) -> None:
    async def scene(at: BySocket) -> Any:
        me = await at.connect("me")
        await at.call(me, 1, "thing")
        me.tell("leave", 1)
        me.close()

        async def has_left() -> bool:
            return "me" in at.host._left

        await until(has_left)
        return await at.count()

    assert by_socket(scene) == (1, 0)


def test_a_withdrawn_call_takes_nothing(by_socket: Callable[..., Any]) -> None:
    async def scene(at: BySocket) -> Any:
        me, you = await at.connect("me"), await at.connect("you")
        taking = asyncio.create_task(at.call(me, 1, "take"))
        await asyncio.sleep(0)
        me.tell("withdraw", 1)
        outcome, (_, error, _) = await taking
        await at.call(you, 1, "thing")
        count = await at.count()
        for one in (me, you):
            one.close()
        return outcome, type(error), count

    assert by_socket(scene) == ("done", RuntimeError, (1, 0))


def test_what_cannot_go_by_the_socket_is_kept_for_ray(by_socket: Callable[..., Any]) -> None:
    async def scene(at: BySocket) -> Any:
        me = await at.connect("me")
        outcome = [(await at.call(me, number, "strange"))[0] for number in (1, 2)]
        first = await at.host.answer(at.key, "me", 1)
        me.tell("withdraw", 2)  # interrupted before it had asked
        await asyncio.wrap_future(me.ask("flush", 2))
        second = await at.host.answer(at.key, "me", 2)
        count = await at.count()
        me.close()
        return outcome, type(first.value), first.takes, type(second.error), count

    assert by_socket(scene) == (["by Ray"] * 2, Strange, True, RuntimeError, (1, 0))


def test_one_way_calls_by_a_socket_are_handled_before_it_is_replied(by_socket: Callable[..., Any]) -> None:
    async def scene(at: BySocket) -> Any:
        me = await at.connect("me")
        await asyncio.wrap_future(me.ask("post", [(1, 0, "thing"), (2, 1, "other"), (1, 0, "thing")]))
        count = await at.count()
        flushed = await asyncio.wrap_future(me.ask("flush", 3))
        me.close()
        return count, flushed

    assert by_socket(scene) == ((2, 0), ("done", None))


# One-way items to a service, in few messages: all of them arrive in order, although nobody waits for them.


class Wire:
    """A wire that records the messages of items alone, and the replies for which a caller waited."""

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
def outbox(wire: Wire) -> Iterator[OneWayBatcher]:
    outbox = OneWayBatcher(wire.post, wire.settled.append)
    yield outbox
    outbox.close()


def test_what_is_told_is_sent_though_no_call_follows(outbox: OneWayBatcher, wire: Wire) -> None:
    for number in range(10):
        outbox.add(number)
    wait_until(lambda: len(wire.items) == 10)
    assert wire.items == list(range(10))


def test_a_call_takes_along_what_was_told_before(monkeypatch: pytest.MonkeyPatch, wire: Wire) -> None:
    outbox = OneWayBatcher(wire.post, wire.settled.append)
    monkeypatch.setattr(outbox, "_start", threading.Thread)  # it does not come in between
    outbox.add((1, 0, "told"))
    outbox.add(2)
    assert outbox.along(lambda told: told) == [(1, 0, "told"), 2]
    assert (outbox.along(lambda told: told), wire.messages, outbox.sent) == ([], [], 4)


def test_what_could_not_be_sent_is_sent_with_the_next_message(outbox: OneWayBatcher) -> None:
    def interrupted(told: list[Item]) -> Any:
        raise KeyboardInterrupt

    outbox._thread = threading.current_thread()  # it does not come in between
    outbox.add(1)
    with pytest.raises(KeyboardInterrupt):
        outbox.along(interrupted)
    assert outbox.along(lambda told: told) == [1]


def test_who_tells_much_waits_for_the_oldest_of_many_messages(outbox: OneWayBatcher, wire: Wire) -> None:
    outbox._thread = threading.current_thread()
    for number in range(FULL * (MOST_POSTED + 2)):
        outbox.add(number)
    assert (len(wire.messages), wire.settled) == (MOST_POSTED + 2, [1, 2])
    assert wire.items == list(range(FULL * (MOST_POSTED + 2)))


def test_what_was_told_is_waited_for_where_others_may_hear_of_it(outbox: OneWayBatcher, wire: Wire) -> None:
    outbox._thread = threading.current_thread()
    outbox.add((1, 0, "told"))
    flush_all()
    assert (wire.items, wire.settled) == ([(1, 0, "told")], [1])
    outbox.add(1)  # a receipt: nobody else hears of that
    flush_all()
    assert len(wire.messages) == 1


def test_the_rest_is_sent_at_the_end_and_the_thread_ends(wire: Wire) -> None:
    outbox = OneWayBatcher(wire.post, wire.settled.append)
    outbox.add(1)
    outbox.close()
    assert wire.items == [1]
    assert outbox._thread is not None
    outbox._thread.join(TIMEOUT_S)
    assert not outbox._thread.is_alive()


def test_what_went_wrong_when_nobody_looked_is_raised_by_the_next_call() -> None:
    def settle(message: None) -> None:
        raise LookupError("went wrong")

    outbox = OneWayBatcher(lambda items: None, settle)
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

    one = OneWayBatcher(post, lambda message: None)
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
        flush_all()
        seen.append(list(handled))

    outbox = OneWayBatcher(len, settle)
    outbox._thread = threading.current_thread()
    outbox.add((1, 0, "told"))
    first, second = threading.Thread(target=flush_all), threading.Thread(target=settle_and_look)
    first.start()
    assert entered.wait(TIMEOUT_S)
    second.start()
    second.join(0.05)  # time enough to pass, if it could
    go.set()
    for thread in (first, second):
        thread.join(TIMEOUT_S)
    assert seen == [[1]]
