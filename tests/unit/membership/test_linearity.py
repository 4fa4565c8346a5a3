"""The cost of an event does not grow with the number of engines: steps are counted for few engines and for many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nsactors.controller import Controller, Death
from nsactors.membership.history import History
from nsactors.membership.members import (
    EngineDied,
    EngineRegistered,
    EnginesDismissed,
    EnginesRestarted,
    EnginesRetired,
    EnginesWanted,
    Membership,
)
from nsactors.membership.store import SqliteStore
from nsactors.protocol.control import EngineReport, HistoryEntry, MeasureIdle, Presence, QueryCommand, QueryReply
from nsactors.protocol.engine_info import EngineInfo, EngineOptions, EngineSpec, Recovery
from nsactors.protocol.messages import RequestId
from tests.counting import counted_steps

FEW, MANY = 20, 3_000
WARM_UP = 10  # engines of a round that is not counted: the first instance of a class costs more
OPTIONS = EngineOptions(Recovery.RESTART)


def info(engine_id: int, incarnation: int = 0) -> EngineInfo:
    return EngineInfo(engine_id, incarnation, pid=1, host="here", address=None)


def members(count: int) -> Membership:
    membership = Membership()
    membership.handle(EnginesWanted(count, OPTIONS, "all"))
    for engine_id in range(count - 1):
        membership.handle(EngineRegistered(info(engine_id)))
    return membership


def register(membership: Membership) -> None:
    membership.handle(EngineRegistered(info(membership.next_id - 1)))


def want(membership: Membership) -> None:
    membership.handle(EnginesWanted(1, OPTIONS, "one more"))
    assert membership.ordered("one more") == [membership.next_id - 1]


def die(membership: Membership) -> None:
    membership.handle(EngineDied(3, 0, "killed"))


def leave(membership: Membership) -> None:
    membership.handle(EnginesRetired((4,)))
    membership.handle(EnginesDismissed((4,)))
    membership.handle(EngineDied(4, 0, "as it was asked"))


def restart(membership: Membership) -> None:
    membership.handle(EnginesRestarted((5,), order="again"))


@pytest.mark.parametrize("event", [register, want, die, leave, restart])
def test_an_event_costs_as_many_steps_among_many_engines(event: Callable[[Membership], None], tmp_path: Path) -> None:
    counts = []
    for count in (WARM_UP, FEW, MANY):
        membership = members(count)
        with closing(SqliteStore(str(tmp_path / str(count)))) as store:
            store.save(membership)
            with counted_steps() as steps:
                event(membership)
                store.save(membership)
        counts.append(steps.count)
    assert counts[1] == counts[2]


def test_the_store_writes_changed_members_only(tmp_path: Path) -> None:
    membership = members(10)
    with closing(SqliteStore(str(tmp_path))) as store:
        store.save(membership)
        written: list[str] = []
        store._members.set_trace_callback(written.append)
        membership.handle(EngineDied(3, 0, "killed"))
        store.save(membership)
        store.save(membership)
    assert len([statement for statement in written if statement.startswith("INSERT")]) == 1


def test_the_requests_of_an_engine_are_found_without_a_look_at_those_of_others() -> None:
    counts = []
    for engines in (FEW, 2_000):
        history = History()
        for engine_id in range(engines):
            history.record(HistoryEntry(RequestId("ann", 1), engine_id, "execute", "x", 1.0, None, "running"))
        with counted_steps() as steps:
            assert len(history.running(3)) == 1
            assert [entry.engine_id for entry in history.engine_lost(3, 2.0)] == [3]
            assert history.running(3) == []
        counts.append(steps.count)
    assert counts[0] == counts[1]


class Processes:
    """Processes of engines that never end."""

    after_grace = "was killed"
    adds_nodes = False

    def launch(self, spec: EngineSpec) -> tuple[int, int]:
        return spec.engine_id, spec.incarnation

    async def watch(self, spec: EngineSpec, address: Any) -> Death:
        return await asyncio.get_running_loop().create_future()

    async def obstacles(self, spec: EngineSpec, address: Any) -> AsyncIterator[str]:
        for nothing in ():
            yield nothing

    def end(self, process: tuple[int, int], address: Any) -> None: ...

    def kill(self, address: Any) -> None: ...

    def take_over(self, hosts: Any) -> dict[tuple[int, int], Any]:
        return {}


async def controller_of(count: int) -> Controller:
    controller = Controller("c", Processes(), {})
    for engine_id in await controller.start_engines(count, OPTIONS, "all"):
        await controller.register(info(engine_id))
    return controller


async def steps_of_one_engine(count: int) -> int:
    """Count the steps in which one engine starts and is commanded."""
    controller = await controller_of(count)
    with counted_steps() as steps:
        (engine_id,) = await controller.start_engines(1, OPTIONS, "one more")
        await controller.register(info(engine_id))
        assert await controller.command([engine_id], Presence("ann", True)) == [engine_id]
    return steps.count


def test_an_engine_costs_the_controller_as_many_steps_among_many() -> None:
    _, few, many = (asyncio.run(steps_of_one_engine(count)) for count in (WARM_UP, FEW, 1_000))
    assert few == many


async def steps_of_a_query(count: int) -> int:
    """Count the steps in which the controller queries all engines, and takes their replies."""
    controller = await controller_of(count)
    with counted_steps() as steps:
        asking = asyncio.ensure_future(controller.query(range(count), MeasureIdle(), 30.0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for engine_id in range(count):
            (command,) = await controller.poll(engine_id, 0) or []
            assert isinstance(command, QueryCommand)
            await controller.report(engine_id, 0, EngineReport(query_replies=(QueryReply(command.query_id, 1.0),)))
        assert len(await asking) == count
    return steps.count


def test_a_query_of_all_engines_takes_steps_in_proportion_to_their_number() -> None:
    _, few, many = (asyncio.run(steps_of_a_query(count)) for count in (WARM_UP, 20, 200))
    assert many < 11 * few


def test_presence_of_a_client_is_queued_for_each_engine_once() -> None:
    async def scenario() -> None:
        controller = await controller_of(3)
        await controller.attach("ann")
        assert [await controller.poll(engine_id, 0) for engine_id in range(3)] == [[Presence("ann", True)]] * 3

    asyncio.run(scenario())
