"""The controller: an actor around membership.

It knows who is in the cluster, watches over them, carries commands to engines and output to clients, and remembers
who ran what. It is never in the path of requests and data: a slow controller slows nobody. Its methods are coroutines
of one event loop; nothing in them blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

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
    Question,
    Report,
)
from nsactors.core.history import History
from nsactors.core.membership import (
    Announce,
    Dismiss,
    Effect,
    EngineDied,
    EngineRegistered,
    EnginesDismissed,
    EnginesRestarted,
    EnginesWanted,
    Launch,
    Membership,
)

__all__ = ["Controller", "Death", "Launcher"]

T = TypeVar("T")

POLL_S = 20.0  # a long poll ends by itself: an abandoned one would fill the actor for good
CLIENT_LEASE_S = 90.0
KILL_WAIT_S = 5.0  # a killed process is gone within milliseconds
MAILBOX_EVENTS = 20_000


@dataclass(frozen=True, slots=True)
class Death:
    """How an engine's process ended, and the last lines it wrote to stderr."""

    reason: str
    stderr_tail: str = ""


class Launcher(Protocol):
    """Starts and ends the processes of engines."""

    def launch(self, spec: EngineSpec) -> Any:
        """Start an engine; its address."""
        ...

    async def watch(self, spec: EngineSpec, address: Any) -> Death:
        """Wait until the engine at this address is dead."""
        ...

    def kill(self, address: Any) -> None:
        """End an engine whatever it is doing."""
        ...


@dataclass(slots=True)
class _Mailbox(Generic[T]):
    """Items for one party that comes to fetch them."""

    items: deque[T] = field(default_factory=deque)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    last_seen: float = 0.0

    def put(self, item: T) -> None:
        self.items.append(item)
        self.arrived.set()

    async def take(self, timeout_s: float) -> list[T]:
        """Everything there is; waits for the first item."""
        if not self.items:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.arrived.wait(), timeout_s)
        self.arrived.clear()
        taken = list(self.items)
        self.items.clear()
        return taken


class Controller:
    """One cluster's membership, command lines, event routing and history.

    Args:
        cluster: the cluster's name.
        launcher: starts and ends engines.
        environment: set in every engine before it imports anything numerical.
        startup: a cell that every engine runs first.
    """

    def __init__(self, cluster: str, launcher: Launcher, environment: dict[str, str], startup: str = "") -> None:
        self._cluster = cluster
        self._launcher = launcher
        self._environment = environment
        self._startup = startup
        self._membership = Membership()
        self._history = History()
        self._addresses: dict[tuple[int, int], Any] = {}
        self._lines: dict[tuple[int, int], _Mailbox[Command]] = {}
        self._clients: dict[str, _Mailbox[Event]] = {}
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._tickets = itertools.count()
        self._watches: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._closed = False

    async def start_engines(self, count: int, options: EngineOptions) -> list[int]:
        """Start ``count`` engines; their ids. They are announced to clients as they register."""
        effects = self._membership.handle(EnginesWanted(count, options))
        self._carry_out(effects)
        return [effect.engine_id for effect in effects if isinstance(effect, Launch)]

    async def stop_engines(self, engine_ids: Iterable[int]) -> None:
        """End these engines, whatever they are doing; returns when their processes have gone."""
        ids = tuple(engine_ids)
        self._carry_out(self._membership.handle(EnginesDismissed(ids)))
        if going := [watch for (engine_id, _), watch in self._watches.items() if engine_id in ids]:
            await asyncio.wait(going, timeout=KILL_WAIT_S)

    async def restart_engines(self, engine_ids: Iterable[int], recovers: bool) -> None:
        """End these engines and start new processes under their ids.

        Their namespaces are empty, or, with ``recovers``, what they would be had the engines died.
        """
        self._carry_out(self._membership.handle(EnginesRestarted(tuple(engine_ids), recovers)))

    async def register(self, engine: EngineInfo) -> bool:
        """An engine is up; False if it is not wanted any more."""
        address = self._addresses.get((engine.engine_id, engine.incarnation))
        wanted = self._membership.is_current(engine.engine_id, engine.incarnation)
        self._carry_out(self._membership.handle(EngineRegistered(replace(engine, address=address))))
        return wanted

    async def poll(self, engine_id: int, incarnation: int) -> list[Command] | None:
        """Commands for an engine; an empty list after a while without any, None if it is to end."""
        if self._closed or not self._membership.is_current(engine_id, incarnation):
            return None
        return await self._line(engine_id, incarnation).take(POLL_S)

    async def report(self, engine_id: int, incarnation: int, report: Report) -> None:
        """Output and news from an engine."""
        for batch in report.output:
            self._post(batch.request.client, OutputEvent(batch))
        for entry in report.history:
            self._history.record(entry)
        for answer in report.answers:
            waiting = self._answers.get(answer.ticket)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    async def attach(self, client: str) -> ClusterState:
        """A client has come: what there is, and from now on it hears what happens."""
        self._forget_lapsed_clients()
        self._clients[client] = _Mailbox(last_seen=time.monotonic())
        return self._state()

    async def detach(self, client: str) -> None:
        """A client leaves; its pending poll ends."""
        mailbox = self._clients.pop(client, None)
        if mailbox is not None:
            mailbox.arrived.set()

    async def events(self, client: str) -> list[Event] | None:
        """What happened since the last call; None for a client that is not attached."""
        mailbox = self._clients.get(client)
        if mailbox is None:
            return None
        mailbox.last_seen = time.monotonic()
        events = await mailbox.take(POLL_S)
        mailbox.last_seen = time.monotonic()
        return events if events or client in self._clients else None

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
        everyone = [e.engine_id for e in self._membership.engines] + self._membership.starting
        await self.stop_engines(everyone)
        for arrived in [m.arrived for m in self._lines.values()] + [m.arrived for m in self._clients.values()]:
            arrived.set()
        self._clients.clear()

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Launch():
                    self._launch(effect)
                case Dismiss(engine_id, incarnation):
                    self._dismiss(engine_id, incarnation)
                case Announce(event):
                    if isinstance(event, EngineLeft):
                        self._history.engine_lost(event.engine_id, time.time())
                    for client in list(self._clients):
                        self._post(client, event)

    def _post(self, client: str, event: Event) -> None:
        mailbox = self._clients.get(client)
        if mailbox is None:
            return
        if len(mailbox.items) < MAILBOX_EVENTS and mailbox.last_seen > time.monotonic() - CLIENT_LEASE_S:
            mailbox.put(event)
        else:
            # It is away, or far behind. If it comes back it attaches anew and is told how things stand.
            del self._clients[client]

    def _launch(self, launch: Launch) -> None:
        engine_id, incarnation = launch.engine_id, launch.incarnation
        environment = {**self._environment, **launch.options.environment}
        spec = EngineSpec(
            engine_id, incarnation, self._cluster, environment, self._startup, launch.options, launch.recovers
        )
        address = self._launcher.launch(spec)
        self._addresses[engine_id, incarnation] = address
        self._watches[engine_id, incarnation] = asyncio.get_running_loop().create_task(self._watch(spec, address))

    def _dismiss(self, engine_id: int, incarnation: int) -> None:
        address = self._addresses.get((engine_id, incarnation))
        if address is not None:
            self._launcher.kill(address)
        line = self._lines.get((engine_id, incarnation))
        if line is not None:
            line.arrived.set()

    async def _watch(self, spec: EngineSpec, address: Any) -> None:
        death = await self._launcher.watch(spec, address)
        for known in (self._addresses, self._lines, self._watches):
            known.pop((spec.engine_id, spec.incarnation), None)
        died = EngineDied(spec.engine_id, spec.incarnation, death.reason, death.stderr_tail)
        self._carry_out(self._membership.handle(died))

    def _line(self, engine_id: int, incarnation: int) -> _Mailbox[Command]:
        return self._lines.setdefault((engine_id, incarnation), _Mailbox())

    def _state(self) -> ClusterState:
        members = self._membership
        return ClusterState(self._cluster, tuple(members.engines), tuple(members.starting), tuple(members.recovering))

    def _forget_lapsed_clients(self) -> None:
        lapsed = time.monotonic() - CLIENT_LEASE_S
        for client in [c for c, mailbox in self._clients.items() if mailbox.last_seen < lapsed]:
            del self._clients[client]
