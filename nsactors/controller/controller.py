"""The controller: an actor around membership.

It knows who is in the cluster, watches over them, carries commands to engines and output to clients, and remembers
who ran what. It is never in the path of requests and data: a slow controller slows nobody. Its methods are coroutines
of one event loop; nothing in them blocks.

Its process may be killed at any moment. What changes in the membership is written down before anything is done about
it; whoever takes over finds out which processes are alive, and does what is left to be done. Callers repeat calls that
were not answered, so each of them may come twice.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from typing import Any

from nsactors.controller.launching import CannotStart, Launcher, Process
from nsactors.controller.mailboxes import ClientMailboxes, Mailbox
from nsactors.controller.store import Nowhere, Store
from nsactors.core.cluster import (
    Answer,
    Ask,
    ClusterState,
    Command,
    EngineInfo,
    EngineLeft,
    EngineOptions,
    EngineSpec,
    Event,
    HistoryEntry,
    OutputEvent,
    Presence,
    Question,
    Receipt,
    Report,
    Rest,
)
from nsactors.core.history import History
from nsactors.core.membership import (
    Adopt,
    Announce,
    ControllerRestarted,
    Dismiss,
    Drain,
    Effect,
    EngineDied,
    EngineHeldUp,
    EngineRegistered,
    EnginesDismissed,
    EnginesRestarted,
    EnginesRetired,
    EnginesWanted,
    Launch,
    MemberEvent,
    Membership,
)

__all__ = ["Controller"]

POLL_S = 20.0  # a long poll ends by itself: an abandoned one would fill the actor for good
RETURN_S = 30.0  # within it the clients of a controller that was killed attach to the next one
KILL_WAIT_S = 5.0  # a killed process is gone within milliseconds
REST_S = 0.5  # without anything to do: long enough for what was on its way to an engine when clients heard of its end
REST_ANSWER_S = 2.0


class Controller:
    """One cluster's membership, command lines, event routing and history.

    Args:
        cluster: the cluster's name.
        launcher: starts and ends engines.
        environment: set in every engine before it imports anything numerical.
        startup: a cell that every engine runs first.
        store: what an earlier process of this controller wrote down, and where this one does.
    """

    def __init__(
        self,
        cluster: str,
        launcher: Launcher,
        environment: dict[str, str],
        startup: str = "",
        store: Store | None = None,
    ) -> None:
        self._cluster = cluster
        self._launcher = launcher
        self._environment = environment
        self._startup = startup
        self._store = store or Nowhere()
        self._addresses: dict[Process, Any] = {}
        self._lines: dict[Process, Mailbox[Command]] = {}
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._began = time.time_ns()  # later than any earlier one of this controller
        self._tickets = itertools.count(self._began)  # no answer to an earlier process is one to this
        self._watches: dict[Process, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        stored = self._store.load()
        self._history = History(stored.history, stored.completed)
        self._clients = ClientMailboxes(stored.clients)
        self._membership = Membership(dict(stored.members), stored.next_id)
        if stored.clients or stored.next_id > 0:
            self._take_over()

    def _take_over(self) -> None:
        members = self._membership.members
        known = [engine for member in members.values() for engine in (member.info, member.former) if engine is not None]
        alive = self._launcher.take_over({_process(engine): engine.host for engine in known})
        for engine_id, member in members.items():
            if member.info is not None:
                info = replace(member.info, address=alive.get(_process(member.info)))
                members[engine_id] = replace(member, info=info)
        self._addresses.update(alive)
        self._handle(ControllerRestarted(alive.keys()))
        self._go_on(self._await_clients())

    async def _await_clients(self) -> None:
        await asyncio.sleep(RETURN_S)
        for client in self._clients.expected:
            await self.detach(client)

    async def start_engines(self, count: int, options: EngineOptions, order: str) -> list[int]:
        """Start ``count`` engines; their ids. They are announced to clients as they register.

        ``order`` is unique for this request: repeated, it starts nothing.
        """
        self._handle(EnginesWanted(count, options, order))
        return self._membership.ordered(order)

    async def stop_engines(self, engine_ids: Iterable[int]) -> None:
        """End these engines, whatever they are doing; returns when their processes have gone."""
        ids = tuple(engine_ids)
        self._handle(EnginesDismissed(ids))
        if going := [watch for (engine_id, _), watch in self._watches.items() if engine_id in ids]:
            await asyncio.wait(going, timeout=KILL_WAIT_S)

    async def retire_engines(self, engine_ids: Iterable[int]) -> None:
        """Let these engines finish what they have to do, and then end them; returns at once."""
        self._handle(EnginesRetired(tuple(engine_ids)))

    async def restart_engines(self, engine_ids: Iterable[int], recovers: bool, order: str) -> None:
        """End these engines and start new processes under their ids.

        Their namespaces are empty, or, with ``recovers``, what they would be had the engines died. ``order`` is as in
        :meth:`start_engines`.
        """
        self._handle(EnginesRestarted(tuple(engine_ids), recovers, order))

    async def register(self, engine: EngineInfo) -> bool:
        """An engine is up; False if it is not wanted any more."""
        wanted = self._membership.is_current(engine.engine_id, engine.incarnation)
        self._handle(EngineRegistered(replace(engine, address=self._addresses.get(_process(engine)))))
        return wanted

    async def poll(self, engine_id: int, incarnation: int) -> list[Command] | None:
        """Commands for an engine; an empty list after a while without any, None if it is to end."""
        if self._closed or not self._membership.is_current(engine_id, incarnation):
            return None
        return await self._line(engine_id, incarnation).take(POLL_S)

    async def report(self, engine_id: int, incarnation: int, report: Report) -> Receipt:
        """Output and news from an engine. When this returns, the news outlive this process."""
        for batch in report.output:
            self._clients.post(batch.request.client, OutputEvent(batch))
        for answer in report.answers:
            waiting = self._answers.get(answer.ticket)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)
        await self.announce(report.history)
        delivered = await self._clients.received({batch.request.client for batch in report.output})
        return Receipt(self._began, delivered)

    async def announce(self, entries: Iterable[HistoryEntry]) -> None:
        """Requests that wait at their engines, have begun or ended. When this returns that outlives this process."""
        if news := [entry for entry in entries if self._history.record(entry)]:
            await self._store.record(news)
            # What is said of an engine that has gone meanwhile ended with it: nobody else will say so.
            for engine_id in {entry.engine_id for entry in news}:
                if self._membership.is_gone(engine_id):
                    self._record_loss(engine_id)

    async def attach(self, client: str) -> ClusterState:
        """A client has come, or come back: what there is, and from now on it hears what happens."""
        self._clients.attach(client)
        self._store.note_client(client, here=True)
        await self._note_presence(client, here=True)
        return self._state()

    async def detach(self, client: str) -> None:
        """A client has left; its pending poll ends, and engines keep for others what it would have got."""
        self._clients.detach(client)
        self._store.note_client(client, here=False)
        await self._note_presence(client, here=False)

    async def _note_presence(self, client: str, *, here: bool) -> None:
        await self.command([engine.engine_id for engine in self._membership.engines], Presence(client, here))

    async def clients(self) -> list[str]:
        """Who is attached."""
        return self._clients.names

    async def events(self, client: str) -> list[Event] | None:
        """What happened since the last call; None for a client that is not attached."""
        return await self._clients.take(client, POLL_S)

    async def state(self) -> ClusterState:
        """Who is there now."""
        return self._state()

    async def command(self, engine_ids: Iterable[int], command: Command) -> list[int]:
        """Pass a command to engines; the ids of those that are there to get it."""
        reached = []
        for engine in self._membership.engines:
            if engine.engine_id in engine_ids:
                self._line(engine.engine_id, engine.incarnation).put(command)
                reached.append(engine.engine_id)
        return reached

    async def ask(self, engine_ids: Iterable[int], question: Question, timeout_s: float) -> dict[int, Answer]:
        """Ask engines, busy or not; the answers by id, without those that did not come in time.

        An engine does not answer while C code holds its interpreter.
        """
        ids = list(engine_ids)
        answers = await asyncio.gather(*(self._ask(engine_id, question, timeout_s) for engine_id in ids))
        return {i: answer for i, answer in zip(ids, answers, strict=True) if answer is not None}

    async def _ask(self, engine_id: int, question: Question, timeout_s: float) -> Answer | None:
        ticket = next(self._tickets)
        answer = self._answers[ticket] = asyncio.get_running_loop().create_future()
        try:
            if not await self.command([engine_id], Ask(ticket, question)):
                return None
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            return None
        finally:
            del self._answers[ticket]

    async def running(self) -> dict[int, tuple[int, list[HistoryEntry]]]:
        """For each engine: how many requests it has completed, and what it runs as far as it has said."""
        return {
            e.engine_id: (self._history.completed(e.engine_id), self._history.running(e.engine_id))
            for e in self._membership.engines
        }

    async def history(
        self, client: str | None = None, engine_id: int | None = None, last: int | None = None
    ) -> list[HistoryEntry]:
        """Who ran what, where, when, with which outcome."""
        return self._history.entries(client=client, engine_id=engine_id, last=last)

    async def shut_down(self) -> None:
        """End every engine and release every client."""
        self._closed = True
        await self.stop_engines(list(self._membership.members))
        for line in self._lines.values():
            line.wake()
        self._clients.close()
        store, self._store = self._store, Nowhere()
        store.remove()

    def _handle(self, event: MemberEvent) -> None:
        effects = self._membership.handle(event)
        self._store.save(self._membership)
        self._carry_out(effects)

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Launch(engine_id, incarnation, options, recovers):
                    self._launch(self._spec(engine_id, incarnation, options, recovers))
                case Adopt(engine_id, incarnation, options):
                    self._watch(self._spec(engine_id, incarnation, options))
                case Dismiss(engine_id, incarnation):
                    self._dismiss(engine_id, incarnation)
                case Drain(engine_id, incarnation):
                    self._go_on(self._drain(engine_id, incarnation))
                case Announce(event):
                    if isinstance(event, EngineLeft):
                        self._record_loss(event.engine_id)
                    self._clients.announce(event)

    def _record_loss(self, engine_id: int) -> None:
        if lost := self._history.engine_lost(engine_id, time.time()):
            self._go_on(self._store.record(lost))

    def _spec(
        self, engine_id: int, incarnation: int, options: EngineOptions, recovers: int | None = None
    ) -> EngineSpec:
        environment = {**self._environment, **options.environment}
        return EngineSpec(engine_id, incarnation, self._cluster, environment, self._startup, options, recovers)

    def _launch(self, spec: EngineSpec) -> None:
        try:
            self._addresses[spec.engine_id, spec.incarnation] = self._launcher.launch(spec)
        except Exception as error:
            reason = str(error) if isinstance(error, CannotStart) else f"{type(error).__name__}: {error}"
            failed = EngineDied(spec.engine_id, spec.incarnation, reason)
            asyncio.get_running_loop().call_soon(self._handle, failed)  # after what is being done now
        else:
            self._watch(spec)

    def _watch(self, spec: EngineSpec) -> None:
        process = spec.engine_id, spec.incarnation
        watching = self._wait_for_death(spec, self._addresses[process])
        self._watches[process] = asyncio.get_running_loop().create_task(watching)
        self._go_on(self._see_to_place(spec, self._addresses[process]))

    def _dismiss(self, engine_id: int, incarnation: int) -> None:
        address = self._addresses.get((engine_id, incarnation))
        if address is not None:
            self._launcher.kill(address)
        line = self._lines.get((engine_id, incarnation))
        if line is not None:
            line.wake()

    async def _wait_for_death(self, spec: EngineSpec, address: Any) -> None:
        death = await self._launcher.watch(spec, address)
        for known in (self._addresses, self._lines, self._watches):
            known.pop((spec.engine_id, spec.incarnation), None)
        died = EngineDied(spec.engine_id, spec.incarnation, death.reason, death.stderr_tail, death.displaced)
        self._handle(died)

    async def _see_to_place(self, spec: EngineSpec, address: Any) -> None:
        async for reason in self._launcher.obstacles(spec, address):
            self._handle(EngineHeldUp(spec.engine_id, spec.incarnation, reason))

    async def _drain(self, engine_id: int, incarnation: int) -> None:
        while self._membership.is_current(engine_id, incarnation):
            await asyncio.sleep(REST_S)
            answer = await self._ask(engine_id, Rest(), REST_ANSWER_S)
            if answer is not None and answer.value is not None and answer.value >= REST_S:
                return self._handle(EnginesDismissed((engine_id,)))

    def _go_on(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # asyncio itself holds none
        task.add_done_callback(self._tasks.discard)

    def _line(self, engine_id: int, incarnation: int) -> Mailbox[Command]:
        return self._lines.setdefault((engine_id, incarnation), Mailbox())

    def _state(self) -> ClusterState:
        members = self._membership
        groups = tuple(members.engines), tuple(members.starting), tuple(members.recovering)
        return ClusterState(self._cluster, *groups, members.next_id, tuple(members.waiting), tuple(members.leaving))


def _process(engine: EngineInfo) -> Process:
    return engine.engine_id, engine.incarnation
