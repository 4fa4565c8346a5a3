from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from nsactors.controller import mailboxes
from nsactors.controller.mailboxes import ClientMailboxes
from nsactors.core.cluster import EngineStarting, OutputEvent
from nsactors.core.messages import OutputBatch, RequestId, StreamText

LONG_S = 30.0


def output(text: str = "x") -> OutputEvent:
    return OutputEvent(OutputBatch(RequestId("ann", 0), 0, 0, (StreamText("stdout", text),)))


@pytest.fixture
def boxes() -> ClientMailboxes:
    """Of ann alone."""
    boxes = ClientMailboxes()
    boxes.attach("ann")
    return boxes


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, LONG_S))


async def started(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task that has gone as far as it can."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


def test_whoever_waits_gets_what_is_posted(boxes: ClientMailboxes) -> None:
    async def scenario() -> None:
        waiting = await started(boxes.take("ann", LONG_S))
        boxes.post("ann", output())
        assert await waiting == [output()]

    run(scenario())


def test_whoever_is_not_attached_gets_none(boxes: ClientMailboxes) -> None:
    async def scenario() -> None:
        boxes.post("ben", output())
        assert await boxes.take("ben", LONG_S) is None

    run(scenario())


def test_leaving_ends_the_wait(boxes: ClientMailboxes) -> None:
    async def scenario() -> None:
        waiting = await started(boxes.take("ann", LONG_S))
        boxes.detach("ann")
        assert await waiting is None

    run(scenario())


def test_what_was_posted_is_received_when_its_client_comes_for_more(boxes: ClientMailboxes) -> None:
    async def scenario() -> None:
        boxes.post("ann", output())
        received = await started(boxes.received(["ann"]))
        assert await boxes.take("ann", LONG_S) == [output()]
        await started(asyncio.sleep(0))
        assert not received.done(), "it may be lost on its way"
        more = await started(boxes.take("ann", LONG_S))
        assert await received
        more.cancel()

    run(scenario())


def test_a_client_that_does_not_come_has_not_received_it(
    boxes: ClientMailboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "DELIVERY_S", 0.01)

    async def scenario() -> None:
        boxes.post("ann", output())
        assert not await boxes.received(["ann"])

    run(scenario())


def test_a_client_that_is_away_is_waited_for_once(boxes: ClientMailboxes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        boxes.post("ann", output())
        monkeypatch.setattr(mailboxes, "DELIVERY_S", 0.01)
        await boxes.received(["ann"])
        monkeypatch.setattr(mailboxes, "DELIVERY_S", 2 * LONG_S)
        assert not await boxes.received(["ann"])

    run(scenario())


def test_nobody_waits_for_a_client_that_is_not_there(boxes: ClientMailboxes) -> None:
    async def scenario() -> None:
        assert await boxes.received(["ben"])

    run(scenario())


def test_output_for_a_client_that_will_come_back_is_kept_until_it_does() -> None:
    async def scenario() -> None:
        boxes = ClientMailboxes(returning=["ann"])
        boxes.post("ann", output())
        boxes.announce(EngineStarting(0))  # of which it learns when it attaches
        assert await boxes.take("ann", LONG_S) is None
        boxes.attach("ann")
        assert await boxes.take("ann", LONG_S) == [output()]
        assert boxes.expected == []

    run(scenario())


def test_attaching_anew_begins_anew(boxes: ClientMailboxes) -> None:
    async def scenario() -> None:
        waiting = await started(boxes.take("ann", LONG_S))
        boxes.attach("ann")
        boxes.announce(EngineStarting(0))
        assert await waiting is None
        assert await boxes.take("ann", LONG_S) == [EngineStarting(0)]

    run(scenario())


@pytest.mark.parametrize(("limit", "value"), [("MAILBOX_EVENTS", 3), ("MAILBOX_BYTES", 3), ("CLIENT_LEASE_S", -1.0)])
def test_a_client_that_is_too_far_behind_is_let_go(
    boxes: ClientMailboxes, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    monkeypatch.setattr(mailboxes, limit, value)

    async def scenario() -> None:
        for _ in range(4):
            boxes.post("ann", output())
        assert await boxes.take("ann", LONG_S) is None

    run(scenario())


def test_those_that_do_not_come_are_forgotten_when_others_do(
    boxes: ClientMailboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "CLIENT_LEASE_S", -1.0)
    boxes.attach("ben")
    assert boxes.names == ["ben"]
