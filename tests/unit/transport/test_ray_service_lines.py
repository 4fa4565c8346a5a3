"""Callers of a service on Ray by either way, by the socket of its host or by calls of its actor; Ray is played."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nsactors.errors import SerializationError, ServiceClosed
from nsactors.models.tuple_space import TupleSpace
from nsactors.protocol.serialize import pack
from nsactors.services.service import Service
from nsactors.services.tuple_index import template_of
from nsactors.services.tuple_space import Ask, TupleSpaces
from nsactors.testing import TIMEOUT_S, wait_until
from nsactors.transport.ray import services
from nsactors.transport.ray.services import ServiceHost, _RayChannel


class GetTimeoutError(Exception):
    """A replacement of Ray's error."""


class RayActorError(Exception):
    """A replacement of Ray's error."""


class Played(ModuleType):
    """The part of Ray that callers of services use; references are futures."""

    ObjectRef = Future
    exceptions = SimpleNamespace(GetTimeoutError=GetTimeoutError, RayActorError=RayActorError)

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def get(reference: Future[Any], timeout: float | None = None) -> Any:
        try:
            return reference.result(timeout)
        except TimeoutError:
            raise GetTimeoutError from None

    @staticmethod
    def wait(references: list[Future[Any]], timeout: float) -> Any:
        return [reference for reference in references if reference.done()], []


class PlayedHost:
    """The actor of a host, on an event loop of its own.

    Attributes:
        called: how often which of its methods was called by Ray.
    """

    def __init__(self) -> None:
        self.called: dict[str, int] = {}
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.host = ServiceHost("namespace")

    def __getattr__(self, method: str) -> Any:
        def remote(*args: Any) -> Future[Any]:
            self.called[method] = self.called.get(method, 0) + 1
            if method in ("presence", "stand_by"):  # which live as long as the processes
                return Future()
            return asyncio.run_coroutine_threadsafe(getattr(self.host, method)(*args), self.loop)

        return SimpleNamespace(remote=remote)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(TIMEOUT_S)

    def end(self) -> None:
        async def close() -> None:
            if self.host._listener is not None:
                self.host._listener.close()
            for _ in range(3):  # connections that have been closed at the other end are closed here
                await asyncio.sleep(0)

        self.run(close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(TIMEOUT_S)
        self.loop.close()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedHost]:
    async def nobody_to_follow(host: ServiceHost) -> None:
        pass

    (tmp_path / "sockets").mkdir()
    monkeypatch.setitem(sys.modules, "ray", Played("ray"))
    monkeypatch.setattr(ServiceHost, "_follow_controller", nobody_to_follow)
    monkeypatch.setattr(services, "session_folder", lambda: str(tmp_path))
    monkeypatch.setattr(services, "_label", lambda: "engine 0")
    host = PlayedHost()
    yield host
    host.end()


@pytest.fixture(params=["socket", "calls"])
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def spaces(host: PlayedHost, way: str) -> Iterator[Callable[[], TupleSpace]]:
    """Makes callers of one tuple space."""
    path = host.run(host.host.socket_path()) if way == "socket" else ""
    key = host.run(host.host.host("spaces", pack(TupleSpaces())))
    made: list[TupleSpace] = []

    def make() -> TupleSpace:
        space = TupleSpace.__new__(TupleSpace)
        space._client, space.name = None, "main"
        space._service = Service(_RayChannel(host, "spaces", key, path))
        made.append(space)
        return space

    yield make
    made.clear()
    gc.collect()
    wait_until(lambda: not host.host._inboxes.get(key) or not host.host._inboxes[key].callers)


class Odd:
    """A class that the receiver may not have, and the host need not."""


def test_what_is_told_comes_before_what_is_asked(spaces: Callable[[], TupleSpace]) -> None:
    one, other = spaces(), spaces()
    for number in range(200):
        one.out("job", number)
    assert len(one) == 200
    assert [other.in_("job", int)[1] for _ in range(200)] == list(range(200))


def test_messages_by_both_ways_are_in_order(spaces: Callable[[], TupleSpace], host: PlayedHost, way: str) -> None:
    one, other = spaces(), spaces()
    for number in range(20):
        one.out("text", number, "x" * (200_000 if number % 3 == 0 else 1))
    assert [other.in_("text", int, str)[1] for _ in range(20)] == list(range(20))
    if way == "socket":
        assert host.called["answer"] == 7  # the long ones, for which the taker has asked by Ray


def test_objects_of_any_class_arrive(spaces: Callable[[], TupleSpace]) -> None:
    one, other = spaces(), spaces()
    one.out("odd", Odd())
    assert type(other.in_("odd", object)[1]) is Odd


class Unreadable:
    """An object whose pickle cannot be read; ``sys.exit`` is the worst that may happen there."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


def test_a_request_that_the_host_cannot_read_fails_alone(spaces: Callable[[], TupleSpace]) -> None:
    one, other = spaces(), spaces()
    with pytest.raises(SerializationError, match=r"the request .* where services are hosted, it raises SystemExit: 3"):
        one._service.call(Unreadable(), TIMEOUT_S)
    one.out("job", 5)
    assert other.in_("job", int, timeout=TIMEOUT_S) == ("job", 5)
    one._service.tell(Unreadable())
    one.out("job", 6)
    assert other.in_("job", int, timeout=TIMEOUT_S) == ("job", 6)
    with pytest.raises(SerializationError, match="SystemExit"):
        one._service.flush()


@pytest.mark.parametrize("request_", [[threading.Lock()], namedtuple("Mine", "lock")(threading.Lock())])
def test_a_request_that_cannot_be_pickled_fails_here(spaces: Callable[[], TupleSpace], request_: Any) -> None:
    space = spaces()
    for send in (space._service.call, space._service.tell):
        with pytest.raises(SerializationError, match=r"^the request cannot be sent"):
            send(request_)
    space.out("job", 5)
    assert space.in_("job", int, timeout=TIMEOUT_S) == ("job", 5)


def test_plain_messages_do_not_go_by_ray(spaces: Callable[[], TupleSpace], host: PlayedHost, way: str) -> None:
    space = spaces()
    space.out("job", 1)
    space.in_("job", int)
    called = {"call", "post", "flush", "answer"} & host.called.keys()
    assert bool(called) == (way == "calls")


def test_a_call_that_takes_too_long_is_withdrawn(spaces: Callable[[], TupleSpace]) -> None:
    space = spaces()
    with pytest.raises(TimeoutError):
        space.in_("job", int, timeout=0.01)
    wait_until(lambda: space.waiting == 0)


def test_a_value_that_is_dropped_goes_back(spaces: Callable[[], TupleSpace]) -> None:
    space = spaces()
    pending = space._service.ask(Ask("main", template_of(("job", int)), True, True))
    assert not pending.done()
    space.out("job", 5)
    wait_until(pending.done)
    del pending
    assert space.in_("job", int, timeout=TIMEOUT_S) == ("job", 5)


def test_threads_wait_each_for_its_own(spaces: Callable[[], TupleSpace]) -> None:
    space, found = spaces(), list[Any]()
    threads = [threading.Thread(target=lambda n=n: found.append((n, space.in_("job", n)))) for n in range(5)]
    for thread in threads:
        thread.start()
    for number in reversed(range(5)):
        space.out("job", number)
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert sorted(found) == [(number, ("job", number)) for number in range(5)]


def test_a_closed_service_is_closed_for_those_that_wait_and_those_that_come(spaces: Callable[[], TupleSpace]) -> None:
    space, raised = spaces(), list[BaseException]()

    def wait() -> None:
        try:
            space.in_("job", int)
        except ServiceClosed as closed:
            raised.append(closed)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: space.waiting == 1)
    space._service.close()
    thread.join(TIMEOUT_S)
    assert [str(error).partition(":")[0] for error in raised] == ["the service 'spaces' has ended"]
    with pytest.raises(ServiceClosed):
        space.in_("job", int)


@pytest.mark.parametrize("way", ["socket"], indirect=True)
def test_the_end_of_the_host_is_the_end_of_the_service(spaces: Callable[[], TupleSpace]) -> None:
    space = spaces()
    len(space)
    line: Any = space._service._channel._line  # type: ignore[attr-defined]
    line.close()  # as if the host had
    with pytest.raises(ServiceClosed):
        space.in_("job", int)
