"""A controller whose process is killed: the object is dropped, and another one made from what it wrote down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from nsactors import controller
from nsactors.controller import Controller, Death
from nsactors.membership.history import ENGINE_LOST, QUEUED
from nsactors.membership.store import SqliteStore
from nsactors.protocol.control import EndProcess, EngineOverdue, EngineReport, HistoryEntry, OutputEvent, Presence
from nsactors.protocol.engine_info import EngineInfo, EngineOptions, EngineSpec, Recovery
from nsactors.protocol.messages import OutputBatch, RequestId, StreamText

LIMIT_S = 30.0
OPTIONS = EngineOptions(Recovery.RESTART)
BATCH = OutputBatch(RequestId("ann", 0), 0, 0, (StreamText("stdout", "x"),))
ENTRY = HistoryEntry(RequestId("ann", 0), 0, "execute", "x = 1", 1.0, 2.0, "ok")


class Processes:
    """Stands in for the processes of engines, which outlive their controller."""

    def __init__(self) -> None:
        self.alive: set[tuple[int, int]] = set()
        self.stubborn: set[tuple[int, int]] = set()
        self.told: list[tuple[int, int]] = []
        self._deaths: dict[tuple[int, int], asyncio.Future[Death]] = {}

    def launch(self, spec: EngineSpec) -> tuple[int, int]:
        process = spec.engine_id, spec.incarnation
        assert process not in self._deaths, "one incarnation is one process"
        self.alive.add(process)
        self._deaths[process] = asyncio.get_running_loop().create_future()
        return process

    async def watch(self, spec: EngineSpec, address: tuple[int, int]) -> Death:
        return await asyncio.shield(self._deaths[address])

    async def obstacles(self, spec: EngineSpec, address: tuple[int, int]) -> AsyncIterator[str]:
        for nothing in ():
            yield nothing

    after_grace = "was killed"
    adds_nodes = False

    def end(self, process: tuple[int, int], address: tuple[int, int]) -> None:
        self.told.append(process)
        if process not in self.stubborn:
            self.kill(address)

    def kill(self, address: tuple[int, int]) -> None:
        if address in self.alive:
            self.alive.remove(address)
            self._deaths[address].set_result(Death("killed"))

    def take_over(self, hosts: Mapping[tuple[int, int], str]) -> dict[tuple[int, int], Any]:
        return {process: process for process in self.alive}


class World:
    """Processes, and the controller of the moment."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.processes = Processes()
        self.controller = self._new_controller()

    def _new_controller(self) -> Controller:
        self._store = SqliteStore(self._folder)
        return Controller("c", self.processes, {}, store=self._store)

    def kill_controller(self) -> None:
        """Replace the controller by a new one; the memory of the old one is lost."""
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        self._store.close()
        self.controller = self._new_controller()

    async def start(self, count: int, *, stop_grace_s: float | None = None) -> None:
        """Start engines that register; with a grace period of their own, in a controller of its own."""
        if stop_grace_s is not None:
            self.controller = Controller("c", self.processes, {}, store=self._store, stop_grace_s=stop_grace_s)
        for engine_id in await self.controller.start_engines(count, OPTIONS, "order"):
            await self.register(engine_id)

    async def register(self, engine_id: int, incarnation: int = 0) -> bool:
        return await self.controller.register(EngineInfo(engine_id, incarnation, pid=1, host="here", address=None))

    async def ids(self) -> list[int]:
        return [engine.engine_id for engine in (await self.controller.state()).engines]

    def close(self) -> None:
        self._store.close()


Scenario = Callable[[Callable[[World], Awaitable[None]]], None]


@pytest.fixture
def run(tmp_path: Path) -> Scenario:
    """Runs a scenario in a world of its own."""

    async def within(scenario: Callable[[World], Awaitable[None]]) -> None:
        with closing(World(str(tmp_path / "controller"))) as world:
            async with asyncio.timeout(LIMIT_S):
                await scenario(world)

    return lambda scenario: asyncio.run(within(scenario))


def test_a_new_controller_knows_the_engines_at_once_and_where_they_are(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(2)
        world.kill_controller()
        engines = (await world.controller.state()).engines
        assert [(e.engine_id, e.address) for e in engines] == [(0, (0, 0)), (1, (1, 0))]

    run(scenario)


def test_it_hears_of_a_death_after_it_has_taken_over(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(1)
        world.kill_controller()
        world.processes.kill((0, 0))
        while not world.processes.alive:
            await asyncio.sleep(0)
        assert world.processes.alive == {(0, 1)}

    run(scenario)


def test_an_engine_that_died_meanwhile_is_brought_back(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(1)
        world.processes.kill((0, 0))
        world.kill_controller()
        assert (await world.ids(), world.processes.alive) == ([], {(0, 1)})
        assert [e.incarnation for e in (await world.controller.state()).recovering] == [0]

    run(scenario)


def test_a_request_for_engines_that_was_not_answered_is_repeated_without_harm(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        first = await world.controller.start_engines(2, OPTIONS, "order")
        world.kill_controller()
        assert await world.controller.start_engines(2, OPTIONS, "order") == first
        assert world.processes.alive == {(0, 0), (1, 0)}

    run(scenario)


def test_an_engine_may_register_with_the_next_controller(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.controller.start_engines(1, OPTIONS, "order")
        world.kill_controller()
        assert (await world.controller.state()).starting == (0,)
        assert await world.register(0)
        assert await world.ids() == [0]

    run(scenario)


def test_history_that_was_reported_is_there(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(1)
        await world.controller.report(0, 0, EngineReport(history=(ENTRY,)))
        world.kill_controller()
        assert await world.controller.history() == [ENTRY]
        await world.controller.report(
            0, 0, EngineReport(history=(ENTRY,))
        )  # the engine has not heard that it was taken
        assert await world.controller.history() == [ENTRY]

    run(scenario)


def test_what_is_heard_of_a_request_after_the_end_of_its_engine_ended_with_it(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(1)
        await world.controller.stop_engines([0])
        await world.controller.announce([ENTRY._replace(completed=None, outcome=QUEUED)])
        assert [entry.outcome for entry in await world.controller.history()] == [ENGINE_LOST]

    run(scenario)


def test_an_engine_learns_that_its_report_has_another_reader(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(1)
        before = await world.controller.report(0, 0, EngineReport())
        world.kill_controller()
        after = await world.controller.report(0, 0, EngineReport())
        assert after.controller > before.controller

    run(scenario)


def test_output_that_comes_before_its_client_waits_for_it(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(1)
        await world.controller.attach("ann")
        world.kill_controller()
        receipt = await world.controller.report(0, 0, EngineReport(output=(BATCH,)))
        assert not receipt.delivered
        assert await world.controller.events("ann") is None
        await world.controller.attach("ann")
        assert await world.controller.events("ann") == [OutputEvent(BATCH)]

    run(scenario)


def test_a_client_that_does_not_come_back_has_left(run: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "RETURN_S", 0.0)

    async def scenario(world: World) -> None:
        await world.start(1)
        for client in ("ann", "ben", "eve"):
            await world.controller.attach(client)
        await world.controller.detach("eve")
        world.kill_controller()
        await world.controller.attach("ann")
        commands = await world.controller.poll(0, 0)
        while commands is not None and Presence("ben", connected=False) not in commands:
            commands = [*commands, *(await world.controller.poll(0, 0) or [])]
        assert Presence("eve", connected=False) not in (commands or [])

    run(scenario)


def test_engines_of_a_cluster_that_is_stopped_are_ended_also_by_the_next_controller(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(1)
        await world.controller.start_engines(1, OPTIONS, "another")
        world.kill_controller()
        await world.controller.shut_down()
        assert world.processes.alive == set()

    run(scenario)


def test_an_engine_that_does_not_end_in_time_is_killed_and_named(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(2)
        await world.controller.attach("ann")
        await world.controller.announce([ENTRY._replace(completed=None)])
        world.processes.stubborn = {(0, 0)}
        notices = await world.controller.shut_down(0.01)
        assert (world.processes.told, world.processes.alive) == ([(0, 0), (1, 0)], set())
        assert notices == ["engine 0 did not end within 0.01 s and was killed; its last known request was execute"]

    run(scenario)


def test_what_an_engine_says_of_its_end_is_what_is_told_of_it(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(1)
        world.processes.stubborn = {(0, 0)}
        ending = asyncio.ensure_future(world.controller.shut_down(0.05))
        commands = await world.controller.poll(0, 0)
        assert commands == [EndProcess(0.05)]
        await world.controller.report(0, 0, EngineReport(unended="it ran atexit handlers"))
        assert await ending == ["engine 0 did not end within 0.05 s and was killed; it ran atexit handlers"]

    run(scenario)


def test_clients_hear_of_an_engine_that_had_to_be_killed(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(1, stop_grace_s=0.01)
        await world.controller.attach("ann")
        world.processes.stubborn = {(0, 0)}
        assert await world.controller.stop_engines([0])
        overdue = [e for e in await world.controller.events("ann") or [] if isinstance(e, EngineOverdue)]
        assert [event.notice for event in overdue] == [
            "engine 0 did not end within 0.01 s and was killed; it did not report what it was doing"
        ]

    run(scenario)


def test_nobody_waits_for_ever_for_an_engine_that_cannot_be_killed(
    run: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.controller.KILL_WAIT_S", 0.01)

    async def scenario(world: World) -> None:
        errors: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["exception"]))
        await world.start(1, stop_grace_s=0.01)
        world.processes.stubborn = {(0, 0)}
        failure = RuntimeError("no such actor")
        monkeypatch.setattr(world.processes, "kill", Mock(side_effect=failure))
        while not await world.controller.stop_engines([0]):
            pass
        assert errors == [failure]

    run(scenario)


def test_a_new_process_takes_an_engines_place_when_the_old_one_has_ended(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(1)
        world.processes.stubborn = {(0, 0)}
        await world.controller.restart_engines([0], False, "again")
        await asyncio.sleep(0)
        assert world.processes.alive == {(0, 0)}
        world.processes.kill((0, 0))
        while not world.processes.alive:
            await asyncio.sleep(0)
        assert world.processes.alive == {(0, 1)}

    run(scenario)


def test_an_engine_that_is_ended_while_its_former_process_ends_is_not_started(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(1)
        world.processes.stubborn = {(0, 0)}
        await world.controller.restart_engines([0], False, "again")
        stopping = asyncio.ensure_future(world.controller.stop_engines([0]))
        await asyncio.sleep(0)
        world.processes.kill((0, 0))
        assert await stopping
        while (await world.controller.state()).starting:
            await asyncio.sleep(0)
        assert (world.processes.alive, await world.ids()) == (set(), [])

    run(scenario)


def test_an_engine_that_is_to_come_back_as_it_was_is_killed_at_once(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(1)
        world.processes.stubborn = {(0, 0)}
        await world.controller.restart_engines([0], True, "again")
        while world.processes.alive != {(0, 1)}:
            await asyncio.sleep(0)
        assert world.processes.told == []

    run(scenario)


def test_without_a_grace_period_engines_are_killed_at_once(run: Scenario) -> None:
    async def scenario(world: World) -> None:
        await world.start(1, stop_grace_s=0.0)
        assert await world.controller.stop_engines([0])
        assert (world.processes.told, world.processes.alive) == ([], set())

    run(scenario)
