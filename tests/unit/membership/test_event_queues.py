from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from nsactors.membership import event_queues
from nsactors.membership.event_queues import ClientEventQueues
from nsactors.protocol.control import EngineStarting, HistoryEntry, OutputEvent, WorkReported
from nsactors.protocol.messages import OutputBatch, RequestId, StreamText

LONG_S = 30.0


def output(text: str = "x") -> OutputEvent:
    return OutputEvent(OutputBatch(RequestId("ann", 0), 0, 0, (StreamText("stdout", text),)))


@pytest.fixture
def queues() -> ClientEventQueues:
    """Of ann alone."""
    queues = ClientEventQueues()
    queues.attach("ann")
    return queues


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, LONG_S))


async def started(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task that has gone as far as it can."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


def test_whoever_waits_gets_what_is_posted(queues: ClientEventQueues) -> None:
    async def scenario() -> None:
        waiting = await started(queues.take("ann", LONG_S))
        queues.post("ann", output())
        assert await waiting == [output()]

    run(scenario())


def test_whoever_is_not_attached_gets_none(queues: ClientEventQueues) -> None:
    async def scenario() -> None:
        queues.post("ben", output())
        assert await queues.take("ben", LONG_S) is None

    run(scenario())


def test_leaving_ends_the_wait(queues: ClientEventQueues) -> None:
    async def scenario() -> None:
        waiting = await started(queues.take("ann", LONG_S))
        queues.detach("ann")
        assert await waiting is None

    run(scenario())


def test_what_was_posted_is_received_when_its_client_comes_for_more(queues: ClientEventQueues) -> None:
    async def scenario() -> None:
        queues.post("ann", output())
        received = await started(queues.received(["ann"]))
        assert await queues.take("ann", LONG_S) == [output()]
        await started(asyncio.sleep(0))
        assert not received.done(), "it may be lost on its way"
        more = await started(queues.take("ann", LONG_S))
        assert await received
        more.cancel()

    run(scenario())


def test_a_client_that_does_not_come_has_not_received_it(
    queues: ClientEventQueues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queues, "DELIVERY_S", 0.01)

    async def scenario() -> None:
        queues.post("ann", output())
        assert not await queues.received(["ann"])

    run(scenario())


def test_a_client_that_is_away_is_waited_for_once(queues: ClientEventQueues, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        queues.post("ann", output())
        monkeypatch.setattr(event_queues, "DELIVERY_S", 0.01)
        await queues.received(["ann"])
        monkeypatch.setattr(event_queues, "DELIVERY_S", 2 * LONG_S)
        assert not await queues.received(["ann"])

    run(scenario())


def test_nobody_waits_for_a_client_that_is_not_there(queues: ClientEventQueues) -> None:
    async def scenario() -> None:
        assert await queues.received(["ben"])

    run(scenario())


def test_output_for_a_client_that_will_come_back_is_kept_until_it_does() -> None:
    async def scenario() -> None:
        queues = ClientEventQueues(returning=["ann"])
        queues.post("ann", output())
        queues.announce(EngineStarting(0))  # the client learns of this when it attaches
        assert await queues.take("ann", LONG_S) is None
        queues.attach("ann")
        assert await queues.take("ann", LONG_S) == [output()]
        assert queues.expected == []

    run(scenario())


def test_attaching_anew_begins_anew(queues: ClientEventQueues) -> None:
    async def scenario() -> None:
        waiting = await started(queues.take("ann", LONG_S))
        queues.attach("ann")
        queues.announce(EngineStarting(0))
        assert await waiting is None
        assert await queues.take("ann", LONG_S) == [EngineStarting(0)]

    run(scenario())


@pytest.mark.parametrize(("limit", "value"), [("QUEUE_EVENTS", 3), ("QUEUE_BYTES", 3), ("CLIENT_LEASE_S", -1.0)])
def test_a_client_that_is_too_far_behind_is_let_go(
    queues: ClientEventQueues, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    monkeypatch.setattr(event_queues, limit, value)

    async def scenario() -> None:
        for _ in range(4):
            queues.post("ann", output())
        assert await queues.take("ann", LONG_S) is None

    run(scenario())


def test_those_that_do_not_come_are_forgotten_when_others_do(
    queues: ClientEventQueues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queues, "CLIENT_LEASE_S", -1.0)
    queues.attach("ben")
    assert queues.names == ["ben"]


def test_those_who_watch_are_told_of_the_work_of_others(queues: ClientEventQueues) -> None:
    async def scenario() -> None:
        entries = [HistoryEntry(RequestId(c, 1), 0, "call", "", 1.0, None, "running") for c in ("ann", "ben")]
        queues.tell_of_work(entries)
        queues.watch_work("ann")
        queues.watch_work("nobody")
        queues.tell_of_work(entries[:1])
        queues.tell_of_work(entries)
        assert await queues.take("ann", LONG_S) == [WorkReported((entries[1],))]

    run(scenario())
