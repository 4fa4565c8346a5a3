"""The host of services by itself, without Ray: what comes late, twice, out of order, or never."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from nsactors.core.machine import Answer, Machine, Ticket
from nsactors.core.payload import pack
from nsactors.errors import ServiceClosed
from nsactors.transport import ray_hosting
from nsactors.transport.ray_hosting import ServiceHost
from tests.gates import TIMEOUT_S

Play = Callable[[Callable[[ServiceHost, str], Awaitable[Any]]], Any]


class Adder(Machine):
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.sum = 0

    def handle(self, ticket: Ticket, request: Any) -> Iterable[Answer]:
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
    monkeypatch.setattr(ray_hosting, "SETTLE_S", 0.01)

    async def scene(host: ServiceHost, adder: str) -> Any:
        await host.call(adder, "me", 1, 0, 5)
        await host.leave(adder, "me", (), 2)
        return host._desks[adder].parties

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
