"""The controller: an actor that knows the engines of a cluster, and their history.

It watches engines, passes commands to them and their output to clients, and records requests. Requests and data do not
pass through it, so a slow controller delays no call. Its methods are coroutines of one event loop; none of them blocks.

Its process may be killed at any moment. Changes of the membership are stored before their effects are carried out; the
next process finds out which engines are alive, and carries out the remaining effects. Callers repeat calls that were
not answered, so each call may arrive twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from nsactors._frozen import frozen
from nsactors.errors.exceptions import SHUTDOWN_REQUESTED
from nsactors.membership.event_queues import ClientEventQueues, EventQueue
from nsactors.membership.history import History, Occupancy
from nsactors.membership.members import (
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
from nsactors.membership.store import NoStore, Store
from nsactors.namespace.module_versions import SourceStore
from nsactors.protocol.control import (
    ClientJoined,
    ClusterState,
    Command,
    EndProcess,
    EngineLeft,
    EngineOverdue,
    EngineReport,
    Event,
    HistoryEntry,
    MeasureIdle,
    OutputEvent,
    Presence,
    Program,
    Query,
    QueryCommand,
    QueryReply,
    Receipt,
)
from nsactors.protocol.engine_info import EngineInfo, EngineOptions, EngineSpec

Process = tuple[int, int]
"""The process of an engine: the engine's id, and its incarnation, which each restart increases."""


class CannotStart(Exception):
    """An engine cannot be started with its options; the message says why."""


@frozen
class Death:
    """The end of an engine's process: the cause, the last lines of its stderr, and whether its node is lost."""

    reason: str
    stderr_tail: str = ""
    displaced: bool = False


class Launcher(Protocol):
    """Starts and ends the processes of engines."""

    @property
    def after_grace(self) -> str:
        """Words for the end of an engine after the grace period."""
        ...

    @property
    def adds_nodes(self) -> bool:
        """True if the cluster adds machines when engines need them."""
        ...

    def launch(self, spec: EngineSpec) -> Any:
        """Start an engine; return its address.

        Raises:
            CannotStart: if the engine can never start with its options.
        """
        ...

    def obstacles(self, spec: EngineSpec, address: Any) -> AsyncIterator[str]:
        """Yield each reason that keeps an engine from starting; end when the engine has started or is dead."""
        ...

    async def watch(self, spec: EngineSpec, address: Any) -> Death:
        """Wait until the engine at this address is dead."""
        ...

    def end(self, process: Process, address: Any) -> None:
        """Make an engine end its interpreter gracefully, and then its process; return immediately."""
        ...

    def kill(self, address: Any) -> None:
        """Kill an engine, busy or not."""
        ...

    def take_over(self, hosts: Mapping[Process, str]) -> Mapping[Process, Any]:
        """Continue the work of an earlier process of the controller.

        Args:
            hosts: the machines of engines that are alive, or were alive earlier.

        Returns:
            The addresses of all engines of the cluster whose processes are alive.
        """
        ...


POLL_S = 20.0  # a long poll ends by itself, because abandoned polls would fill the actor for good
RETURN_S = 30.0  # the clients of a controller that was killed attach to the next one within this time
KILL_WAIT_S = 5.0  # a killed process ends within milliseconds
STOP_GRACE_S = 5.0  # the time for an engine to end its interpreter gracefully
STOP_WAIT_S = 15.0  # a call returns by itself, like a poll; its caller repeats it
IDLE_S = 0.5  # requests that were sent before clients learned that the engine leaves arrive within this time
IDLE_ANSWER_S = 2.0
SOURCES_S = 10.0  # the wait for sources that a client has announced to engines and is still sending


class Controller:
    """The membership, command queues, event routing and history of one cluster.

    Args:
        cluster: the cluster's name.
        launcher: starts and ends engines.
        environment: variables set in every engine before it imports numerical libraries.
        startup: a cell that every engine runs first.
        store: the store for the state of this process; it may have the state of an earlier one.
        stop_grace_s: the time for engines to end gracefully; 0 kills them immediately.
        sources: the store of sources of clients' modules; None if engines are threads of their client's process.
    """

    def __init__(
        self,
        cluster: str,
        launcher: Launcher,
        environment: dict[str, str],
        startup: str = "",
        store: Store | None = None,
        stop_grace_s: float = STOP_GRACE_S,
        sources: SourceStore | None = None,
    ) -> None:
        self._sources = sources
        self._sources_came = asyncio.Event()
        self._stop_grace_s = stop_grace_s
        self._kill_timers: dict[Process, asyncio.TimerHandle] = {}  # for engines that are ending
        self._unended: dict[Process, str] = {}  # what an ending engine has reported that it cannot finish in time
        self._overdue: list[str] = []  # the notices of all engines that had to be killed
        self._ran: dict[int, str] = {}  # by engine: the label of a request that was open when the engine left
        self._cluster = cluster
        self._launcher = launcher
        self._environment = environment
        self._startup = startup
        self._store = store or NoStore()
        self._addresses: dict[Process, Any] = {}
        self._commands: dict[Process, EventQueue[Command]] = {}
        self._queries: dict[int, asyncio.Future[QueryReply | None]] = {}
        self._queried: dict[Process, set[int]] = {}
        self._began = time.time_ns()  # later than the start of any earlier process
        self._query_ids = itertools.count(self._began)  # no earlier process has used these ids
        self._watches: dict[int, dict[int, asyncio.Task[None]]] = {}  # by engine and incarnation
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        stored = self._store.load()
        self._history = History(stored.history, stored.completed)
        self._occupancy = Occupancy(entry for entry in stored.history if entry.completed is None)
        self._clients = ClientEventQueues(stored.clients)
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
        self._spawn(self._await_clients())

    async def _await_clients(self) -> None:
        await asyncio.sleep(RETURN_S)
        # These clients ended while no controller was running.
        for client in self._clients.expected:
            await self.detach(client)

    async def start_engines(self, count: int, options: EngineOptions, order: str) -> list[int]:
        """Start ``count`` engines; return their ids. Clients get an event when each of them registers.

        ``order`` is unique for this request: a second call with the same ``order`` starts nothing.
        """
        self._handle(EnginesWanted(count, options, order))
        return self._membership.ordered(order)

    async def stop_engines(self, engine_ids: Iterable[int]) -> bool:
        """End these engines, busy or not; return whether their processes have ended.

        The call returns after a while, like a poll; if the result is False, repeat the call.
        """
        ids = tuple(engine_ids)
        self._handle(EnginesDismissed(ids))
        return await self._ended(ids, min(STOP_WAIT_S, self._stop_grace_s + KILL_WAIT_S))

    async def _ended(self, engine_ids: Iterable[int], timeout_s: float) -> bool:
        """Wait for the processes of ending engines. Return True even if a killed process has not disappeared yet."""
        ids = set(engine_ids)
        if going := [watch for engine_id in ids for watch in self._watches.get(engine_id, {}).values()]:
            await asyncio.wait(going, timeout=timeout_s)
        return not any(engine_id in ids for engine_id, _ in self._kill_timers)

    async def retire_engines(self, engine_ids: Iterable[int]) -> None:
        """Let these engines finish their requests, and then end them; return immediately."""
        self._handle(EnginesRetired(tuple(engine_ids)))

    async def restart_engines(self, engine_ids: Iterable[int], recovers: bool, order: str) -> None:
        """End these engines and start new processes under their ids, each when the old one has ended.

        With ``recovers``, the namespaces are recovered as if the engines had died; without it, they are empty.
        ``order`` has the same meaning as for :meth:`start_engines`.
        """
        self._handle(EnginesRestarted(tuple(engine_ids), recovers, order))

    async def register(self, engine: EngineInfo) -> bool:
        """Register an engine that has started; return False if it must end."""
        # Handle the event in any case, because that dismisses a process that is not wanted.
        wanted = self._membership.is_current(engine.engine_id, engine.incarnation)
        self._handle(EngineRegistered(replace(engine, address=self._addresses.get(_process(engine)))))
        return wanted

    async def poll(self, engine_id: int, incarnation: int) -> list[Command] | None:
        """Return commands for an engine; an empty list after a while without any, None if it must end."""
        # An engine that is ending polls on, because EndProcess is in its queue.
        is_ending = (engine_id, incarnation) in self._kill_timers
        if not is_ending and (self._closed or not self._membership.is_current(engine_id, incarnation)):
            return None
        return await self._commands_of(engine_id, incarnation).take(POLL_S)

    async def report(self, engine_id: int, incarnation: int, report: EngineReport) -> Receipt:
        """Handle a report of an engine. On return, its history entries are stored, and outlive this process."""
        for batch in report.output:
            self._clients.post(batch.request.client, OutputEvent(batch))
        for stop in report.stops:
            self._clients.post(stop.client, stop)
        if report.unended:
            self._unended[engine_id, incarnation] = report.unended
        for reply in report.query_replies:
            waiting = self._queries.get(reply.query_id)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)
        await self.announce(report.history)
        delivered = await self._clients.received({batch.request.client for batch in report.output})
        return Receipt(self._began, delivered)

    async def announce(self, entries: Iterable[HistoryEntry]) -> None:
        """Record requests that wait, have begun or have finished. On return, the records outlive this process."""
        if news := [entry for entry in entries if self._history.record(entry._replace(program=""))]:
            # Programs go to the store only: otherwise up to 50 MB would be in memory, and would be sent with every
            # history.
            without_programs = [entry._replace(program="") for entry in news]
            self._clients.tell_of_work([entry for entry in without_programs if self._occupancy.record(entry)])
            await self._store.record(news)
            # End the requests of an engine that has left by now, because no further report will end them.
            for engine_id in {entry.engine_id for entry in news}:
                if self._membership.is_gone(engine_id):
                    self._record_loss(engine_id)

    async def attach(self, client: str) -> ClusterState:
        """Register a client; return the state of the cluster, whose further events the client will get."""
        others = [name for name in self._clients.names if name != client]
        for other in others:
            self._clients.post(other, ClientJoined())
        self._clients.attach(client)
        self._store.note_client(client, connected=True)
        await self._note_presence(client, connected=True)
        return replace(self._state(), has_others=bool(others))

    async def watch_work(self, client: str) -> list[HistoryEntry]:
        """Return the open requests of other clients, except short ones, which are not reported.

        This client gets their changes later. Clients that schedule tasks call this.
        """
        self._clients.watch_work(client)
        return [entry for entry in self._occupancy.entries() if entry.request.client != client]

    async def detach(self, client: str) -> None:
        """Remove a client: its pending poll ends, and engines store further replies to it for other clients."""
        self._clients.detach(client)
        self._store.note_client(client, connected=False)
        await self._note_presence(client, connected=False)

    async def _note_presence(self, client: str, *, connected: bool) -> None:
        await self.command([engine.engine_id for engine in self._membership.engines], Presence(client, connected))

    async def clients(self) -> list[str]:
        """Return the names of the attached clients."""
        return self._clients.names

    async def events(self, client: str) -> list[Event] | None:
        """Return the events since the last call; None for a client that is not attached."""
        return await self._clients.take(client, POLL_S)

    async def state(self) -> ClusterState:
        """Return the present state of the cluster."""
        return self._state()

    async def command(self, engine_ids: Iterable[int], command: Command) -> list[int]:
        """Queue a command for engines; return the ids of the engines that are running."""
        reached = []
        for engine_id in sorted(set(engine_ids)):
            if (engine := self._membership.engine(engine_id)) is not None:
                self._commands_of(engine_id, engine.incarnation).put(command)
                reached.append(engine_id)
        return reached

    async def query(self, engine_ids: Iterable[int], query: Query, timeout_s: float) -> dict[int, QueryReply]:
        """Query engines, busy or not; return the replies by id, without those that did not arrive in time.

        An engine does not reply while C code holds its interpreter. This does not wait for an engine whose process
        ends.
        """
        ids = list(engine_ids)
        replies = await asyncio.gather(*(self._query(engine_id, query, timeout_s) for engine_id in ids))
        return {i: reply for i, reply in zip(ids, replies, strict=True) if reply is not None}

    async def _query(self, engine_id: int, query: Query, timeout_s: float) -> QueryReply | None:
        if (engine := self._membership.engine(engine_id)) is None:
            return None
        query_id = next(self._query_ids)
        reply = self._queries[query_id] = asyncio.get_running_loop().create_future()
        queried = self._queried.setdefault(_process(engine), set())
        queried.add(query_id)
        try:
            self._commands_of(engine_id, engine.incarnation).put(QueryCommand(query_id, query))
            return await asyncio.wait_for(reply, timeout_s)
        except TimeoutError:
            return None
        finally:
            del self._queries[query_id]
            queried.discard(query_id)

    async def lacking_sources(self, digests: Sequence[str]) -> list[str]:
        """Return the digests of module sources that are not stored here."""
        return [] if self._sources is None else await asyncio.to_thread(self._sources.lacking, digests)

    async def keep_sources(self, sources: Sequence[bytes]) -> None:
        """Store sources of modules, for engines that do not find them in files."""
        assert self._sources is not None, "only clients of engines that are processes send sources"
        for source in sources:
            await asyncio.to_thread(self._sources.keep, source)
        self._sources_came.set()
        self._sources_came = asyncio.Event()

    async def sources(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Return sources of modules by digest; wait a while for those that are being sent."""
        assert self._sources is not None, "only engines that are processes ask for sources"
        give_up = time.monotonic() + SOURCES_S
        while True:
            came = self._sources_came
            found = await asyncio.to_thread(lambda store: {each: store.get(each) for each in digests}, self._sources)
            left_s = give_up - time.monotonic()
            if None not in found.values() or left_s <= 0:
                return {digest: source for digest, source in found.items() if source is not None}
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(came.wait(), left_s)

    async def running(self) -> dict[int, tuple[int, list[HistoryEntry]]]:
        """Return for each engine the number of completed requests, and the requests reported as running."""
        return {
            e.engine_id: (self._history.completed(e.engine_id), self._history.running(e.engine_id))
            for e in self._membership.engines
        }

    async def history(
        self, client: str | None = None, engine_id: int | None = None, last: int | None = None
    ) -> list[HistoryEntry]:
        """Return the history of requests: client, engine, code, times and outcome."""
        return self._history.entries(client=client, engine_id=engine_id, last=last)

    async def programs(self, engine_id: int) -> tuple[str, list[Program]]:
        """Return the cell that every engine runs first, and the code that one engine has run since, in order."""
        return self._startup, await self._store.programs(engine_id)

    async def shut_down(self, stop_grace_s: float | None = None) -> list[str]:
        """End all engines and release all clients; return notices of the engines that had to be killed.

        Args:
            stop_grace_s: the grace period of the engines; None for the ``stop_grace_s`` of the controller.
        """
        # Do this first, so that an engine that polls from now on is told to end, and starts no further request.
        self._closed = True
        if stop_grace_s is not None:
            self._stop_grace_s = stop_grace_s
        told_before = len(self._overdue)
        ids = list(self._membership.members)
        self._handle(EnginesDismissed(tuple(ids)))
        for process in list(self._kill_timers):  # their grace period may have been longer
            self._limit_life(process)
        await self._ended(ids, self._stop_grace_s + KILL_WAIT_S)
        for queue in self._commands.values():
            queue.wake()
        self._clients.close()
        # Late events, such as deaths of killed engines, must not write to a store that is being removed.
        store, self._store = self._store, NoStore()
        store.remove()
        return self._overdue[told_before:]

    def _handle(self, event: MemberEvent) -> None:
        effects = self._membership.handle(event)
        # Save before the effects, so that the next process carries them out if this one is killed in between.
        self._store.save(self._membership)
        self._apply(effects)

    def _apply(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Launch(engine_id, incarnation, options, recovers):
                    spec = self._spec(engine_id, incarnation, options, recovers)
                    if ending := self._watches.get(engine_id):
                        self._spawn(self._launch_after([*ending.values()], spec))
                    else:
                        self._launch(spec)
                case Adopt(engine_id, incarnation, options):
                    self._watch(self._spec(engine_id, incarnation, options))
                case Dismiss(engine_id, incarnation, at_once):
                    self._dismiss((engine_id, incarnation), at_once=at_once)
                case Drain(engine_id, incarnation):
                    self._spawn(self._drain(engine_id, incarnation))
                case Announce(event):
                    if isinstance(event, EngineLeft):
                        self._ran.pop(event.engine_id, None)
                        self._record_loss(event.engine_id)
                    self._clients.announce(event)

    def _record_loss(self, engine_id: int) -> None:
        self._occupancy.engine_gone(engine_id)
        if lost := self._history.engine_lost(engine_id, time.time()):
            self._ran[engine_id] = lost[0].label
            self._spawn(self._store.record(lost))

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
            asyncio.get_running_loop().call_soon(self._handle, failed)  # after the effects that are being carried out
        else:
            self._watch(spec)

    def _watch(self, spec: EngineSpec) -> None:
        process = spec.engine_id, spec.incarnation
        watching = self._wait_for_death(spec, self._addresses[process])
        self._watches.setdefault(spec.engine_id, {})[spec.incarnation] = asyncio.get_running_loop().create_task(
            watching
        )
        self._spawn(self._watch_obstacles(spec, self._addresses[process]))

    async def _launch_after(self, ending: Iterable[asyncio.Task[None]], spec: EngineSpec) -> None:
        # The old process must end before the new one starts: the new one may read its last output, and need its GPU.
        await asyncio.wait(ending, timeout=self._stop_grace_s + KILL_WAIT_S)
        if self._membership.is_current(spec.engine_id, spec.incarnation):
            if self._membership.is_gone(spec.engine_id):
                self._handle(EngineDied(spec.engine_id, spec.incarnation, SHUTDOWN_REQUESTED))
            else:
                self._launch(spec)

    def _dismiss(self, process: Process, *, at_once: bool) -> None:
        address, queue = self._addresses.get(process), self._commands.get(process)
        if address is None or at_once or not self._stop_grace_s:
            if address is not None:
                self._launcher.kill(address)
            if queue is not None:
                queue.wake()
        elif process not in self._kill_timers:
            self._limit_life(process)
            self._commands_of(*process).put(EndProcess(self._stop_grace_s))
            self._launcher.end(process, address)

    def _limit_life(self, process: Process) -> None:
        """Kill an ending engine one grace period from now, or earlier if its timer is set to an earlier time."""
        loop = asyncio.get_running_loop()
        known = self._kill_timers.get(process)
        if known is None or known.when() > loop.time() + self._stop_grace_s:
            self._kill_timers[process] = loop.call_later(self._stop_grace_s, self._kill_overdue, process)
            if known is not None:
                known.cancel()

    def _kill_overdue(self, process: Process) -> None:
        del self._kill_timers[process]
        engine_id, incarnation = process
        ran = self._ran.get(engine_id)
        doing = self._unended.pop(process, "") or (
            f"its last known request was {ran}" if ran else "it did not report what it was doing"
        )
        fate = self._launcher.after_grace
        notice = f"engine {engine_id} did not end within {self._stop_grace_s:g} s and {fate}; {doing}"
        self._overdue.append(notice)
        self._clients.announce(EngineOverdue(engine_id, incarnation, notice))
        self._launcher.kill(self._addresses[process])

    async def _wait_for_death(self, spec: EngineSpec, address: Any) -> None:
        death = await self._launcher.watch(spec, address)
        process = spec.engine_id, spec.incarnation
        for known in (self._addresses, self._commands, self._unended):
            known.pop(process, None)
        if watches := self._watches.get(spec.engine_id):
            watches.pop(spec.incarnation, None)
            if not watches:
                del self._watches[spec.engine_id]
        if limit := self._kill_timers.pop(process, None):
            limit.cancel()
        died = EngineDied(spec.engine_id, spec.incarnation, death.reason, death.stderr_tail, death.displaced)
        self._handle(died)
        for query_id in self._queried.pop(process, ()):
            if not (reply := self._queries[query_id]).done():
                reply.set_result(None)

    async def _watch_obstacles(self, spec: EngineSpec, address: Any) -> None:
        async for reason in self._launcher.obstacles(spec, address):
            self._handle(EngineHeldUp(spec.engine_id, spec.incarnation, reason, self._launcher.adds_nodes))

    async def _drain(self, engine_id: int, incarnation: int) -> None:
        while self._membership.is_current(engine_id, incarnation):
            await asyncio.sleep(IDLE_S)
            reply = await self._query(engine_id, MeasureIdle(), IDLE_ANSWER_S)
            # The engine has been idle for longer than IDLE_S, so requests that were sent before clients learned of the
            # retirement have arrived and run.
            if reply is not None and reply.value is not None and reply.value >= IDLE_S:
                return self._handle(EnginesDismissed((engine_id,)))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # asyncio itself holds no reference
        task.add_done_callback(self._tasks.discard)

    def _commands_of(self, engine_id: int, incarnation: int) -> EventQueue[Command]:
        return self._commands.setdefault((engine_id, incarnation), EventQueue())

    def _state(self) -> ClusterState:
        members = self._membership
        groups = tuple(members.engines), tuple(members.starting), tuple(members.recovering)
        return ClusterState(self._cluster, *groups, members.next_id, tuple(members.waiting), tuple(members.leaving))


def _process(engine: EngineInfo) -> Process:
    return engine.engine_id, engine.incarnation
