"""The engines of a cluster, kept up to date by the controller, and tables of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from nsactors.errors import ConnectionLost, EngineStartError, as_text, engine_ranges, plural
from nsactors.protocol.control import (
    ClusterState,
    EngineFailedToStart,
    EngineJoined,
    EngineLeaving,
    EngineLeft,
    EngineStarting,
    Event,
)
from nsactors.protocol.engine_info import EngineInfo, Recovery
from nsactors.protocol.messages import StreamText

if TYPE_CHECKING:
    from nsactors.session.session import Session

EngineCallback = Callable[[int], object]


_UNHEARD = "the reason is unknown, because this client heard of it too late"


class EngineListener(Protocol):
    """Learns of changes of engines immediately and in order. Its methods run under a lock, so they must be quick."""

    def engine_joined(self, engine: EngineInfo) -> None:
        """An engine takes requests, perhaps in a new process."""
        ...

    def engine_leaving(self, engine_id: int) -> None:
        """An engine finishes its requests, and takes no more."""
        ...

    def engine_left(self, left: EngineLeft) -> None:
        """An engine takes no requests, or none yet; called again when more is known about its return."""
        ...

    def cut_off(self, reason: ConnectionLost) -> None:
        """No more changes will be reported."""
        ...


class EngineDirectory:
    """The engines that have joined, are starting, or could not start. It notifies listeners of changes.

    Args:
        call: calls the user's function soon, on a thread where it may wait.

    Attributes:
        ids: the ids of the engines that take requests, in order, including those that restart, but not those that are
            about to leave.
    """

    def __init__(self, call: Callable[[Callable[[], object]], None]) -> None:
        self._call = call
        self.start_failures: dict[int, EngineStartError] = {}
        self._nodes_may_come = False  # whether the cluster may add machines for engines that have no place
        self._engines: dict[int, EngineInfo] = {}
        self.ids: tuple[int, ...] = ()
        self._starting: set[int] = set()
        self._away: set[int] = set()
        self._leaving: set[int] = set()
        self._waiting: dict[int, EngineStartError] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._waiters = 0
        self._told: set[int] = set()
        self._startup_outputs: dict[int, tuple[StreamText, ...]] = {}
        self._on_join: list[EngineCallback] = []
        self._on_leave: list[EngineCallback] = []
        self._told_at_once: list[EngineListener] = []

    @property
    def starting(self) -> list[int]:
        """Ids of the engines that have been asked for and have not joined yet."""
        with self._changed:
            return sorted(self._starting)

    @property
    def away(self) -> list[int]:
        """Ids of the engines that have died and restart."""
        with self._changed:
            return sorted(self._away)

    @property
    def waiting(self) -> dict[int, EngineStartError]:
        """The reasons why engines have no place, by the ids of these engines."""
        with self._changed:
            return dict(self._waiting)

    @property
    def known(self) -> dict[int, EngineInfo]:
        """All engines that have joined and have not gone, by id."""
        with self._changed:
            return dict(self._engines)

    def may_come(self, engine_id: int) -> bool:
        """Return whether an engine that has no place may get one, because the cluster adds machines."""
        with self._changed:
            return self._nodes_may_come and engine_id in self._waiting

    def take_problems(self) -> list[EngineStartError]:
        """Return the reasons why engines could not start or have no place, each once."""
        with self._changed:
            problems = {**self.start_failures, **self._waiting}
            new = [problem for engine_id, problem in sorted(problems.items()) if engine_id not in self._told]
            self._told.update(problems)
            return new

    def take_startup_outputs(self) -> dict[int, tuple[StreamText, ...]]:
        """Return the output of start-up code on engines that this client has asked for, each output once."""
        with self._changed:
            taken, self._startup_outputs = self._startup_outputs, {}
            return taken

    @property
    def is_awaited(self) -> bool:
        """True if a caller waits for engines. This caller then learns which of them do not come."""
        return self._waiters > 0

    def get(self, engine_id: int) -> EngineInfo | None:
        """Return the description of an engine; None if it takes no requests."""
        return self._engines.get(engine_id)

    def expect(self, engine_ids: Iterable[int]) -> None:
        """Expect engines that have been asked for."""
        with self._changed:
            known = self._engines.keys() | self.start_failures.keys() | self._starting
            news = set(engine_ids) - known
            self._starting |= news
            for watcher in self._told_at_once:
                for engine_id in news:
                    watcher.engine_left(_not_yet_there(engine_id))

    def add(self, engine: EngineInfo) -> bool:
        """Add an engine that takes requests; return False if it was known."""
        with self._changed:
            if engine.engine_id in self._starting and engine.startup_output:  # this client has asked for the engine
                self._startup_outputs[engine.engine_id] = engine.startup_output
            self._starting.discard(engine.engine_id)
            self._waiting.pop(engine.engine_id, None)
            news = self._engines.get(engine.engine_id) != engine
            self._engines[engine.engine_id] = engine
            self._away.discard(engine.engine_id)
            self._list_ids()
            callbacks = list(self._on_join)  # only callbacks that were set before the engine could be seen
            self._changed.notify_all()
            for watcher in self._told_at_once if news else ():
                watcher.engine_joined(engine)
        if news:
            self._tell(callbacks, engine.engine_id)
        return news

    def hold_up(self, obstacle: EngineStartError, nodes_may_come: bool = False) -> None:
        """Keep the reason why an engine that was asked for has no place."""
        with self._changed:
            self._waiting[obstacle.engine_id] = obstacle
            self._nodes_may_come = nodes_may_come
            self._changed.notify_all()

    def retire(self, engine_ids: Iterable[int]) -> None:
        """Mark engines as leaving: they finish their requests and take no more."""
        with self._changed:
            news = self._engines.keys() & set(engine_ids) - self._leaving
            self._leaving |= news
            self._list_ids()
            for watcher in self._told_at_once:
                for engine_id in news:
                    watcher.engine_leaving(engine_id)

    def leave(self, left: EngineLeft) -> None:
        """Remove an incarnation of an engine, unless a later incarnation is known."""
        engine_id = left.engine_id
        with self._changed:
            self._stop_expecting(left)
            engine = self._engines.get(engine_id)
            if engine is None or engine.incarnation != left.incarnation:
                return
            was_there = engine_id not in self._away
            if left.returns:
                self._away.add(engine_id)
            else:
                self._away.discard(engine_id)
                self._leaving.discard(engine_id)
                del self._engines[engine_id]
                self._list_ids()
            for watcher in self._told_at_once:
                watcher.engine_left(left)
        if was_there:
            self._tell(self._on_leave, engine_id)

    def failed_to_start(self, failure: EngineStartError) -> None:
        """Remove an engine that could not start."""
        with self._changed:
            self.start_failures[failure.engine_id] = failure
            self._stop_expecting(EngineLeft(failure.engine_id, 0, str(failure), expected=False))

    def wait_for(self, count: int, timeout_s: float | None, *, patient: bool) -> bool:
        """Wait until ``count`` engines take requests; return whether they do.

        The wait ends early if some engines have failed and no others are starting. With ``patient``, engines without a
        place count as starting.
        """

        def enough() -> bool:
            return len(self.ids) - len(self._away) >= count

        def over() -> bool:
            on_the_way = self._starting | self._away
            if not patient:
                on_the_way -= self._waiting.keys()
            return self._closed or enough() or (bool(self.start_failures or self._waiting) and not on_the_way)

        with self._changed:
            self._waiters += 1
            try:
                self._changed.wait_for(over, timeout_s)
            finally:
                self._waiters -= 1
            return enough()

    def wait_until_gone(self, engine_ids: Iterable[int], timeout_s: float | None) -> bool:
        """Wait until none of these engines takes requests or is starting; return whether this is so."""
        ids = set(engine_ids)
        with self._changed:
            return self._changed.wait_for(
                lambda: self._closed or not ids & (self._engines.keys() | self._starting), timeout_s
            )

    def on_join(self, callback: EngineCallback) -> None:
        """Call ``callback(engine_id)`` for every engine that joins."""
        self._on_join.append(callback)

    def on_leave(self, callback: EngineCallback) -> None:
        """Call ``callback(engine_id)`` for every engine that leaves."""
        self._on_leave.append(callback)

    def watch(self, watcher: EngineListener) -> None:
        """Notify ``watcher`` of every engine that takes requests, and from now on of every change."""
        with self._changed:
            self._told_at_once.append(watcher)
            for engine_id in self._starting:
                watcher.engine_left(_not_yet_there(engine_id))
            for engine_id, engine in self._engines.items():
                watcher.engine_joined(engine)
                if engine_id in self._away:
                    watcher.engine_left(EngineLeft(engine_id, engine.incarnation, "", expected=False, returns=True))
                if engine_id in self._leaving:
                    watcher.engine_leaving(engine_id)

    def unwatch(self, watcher: EngineListener) -> None:
        """Notify ``watcher`` no more."""
        with self._changed:
            self._told_at_once.remove(watcher)

    def close(self, reason: ConnectionLost) -> None:
        """End every wait, because no more changes will be reported."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            for watcher in self._told_at_once:
                watcher.cut_off(reason)

    def _stop_expecting(self, left: EngineLeft) -> None:
        """No longer expect an engine that has gone."""
        engine_id = left.engine_id
        awaited = engine_id in self._starting
        self._starting.discard(engine_id)
        self._waiting.pop(engine_id, None)
        self._changed.notify_all()
        for watcher in self._told_at_once if awaited else ():
            watcher.engine_left(left)

    def _list_ids(self) -> None:
        self.ids = tuple(sorted(self._engines.keys() - self._leaving))

    def _tell(self, callbacks: Iterable[EngineCallback], engine_id: int) -> None:
        for callback in list(callbacks):
            self._call(partial(callback, engine_id))


def _not_yet_there(engine_id: int) -> EngineLeft:
    return EngineLeft(engine_id, 0, "it is being started", expected=False, returns=True)


def missed_events(
    known: Mapping[int, EngineInfo], away: Collection[int], starting: Iterable[int], state: ClusterState
) -> list[Event]:
    """Return the events that lead from the engines that a client knows to the present engines.

    Args:
        known: the engines that the client knows, by id.
        away: the engines among them that restart, as far as the client knows.
        starting: ids of engines that the client waits for.
        state: the state of the cluster now.
    """
    there = {engine.engine_id: engine for engine in (*state.recovering, *state.engines)}
    recovering = {engine.engine_id for engine in state.recovering}
    events: list[Event] = []
    for engine_id, engine in known.items():
        now = there.get(engine_id)
        if now != engine or (engine_id in recovering and engine_id not in away):
            events.append(leave_of(engine, _UNHEARD, returns=now is not None))
    for engine_id in starting:
        if engine_id < state.next_id and engine_id not in there and engine_id not in state.starting:
            events.append(EngineFailedToStart(engine_id, 0, "it has ended, for a reason that is not known"))
    events += [EngineStarting(engine_id) for engine_id in state.starting]
    for engine_id, engine in there.items():
        if known.get(engine_id) != engine:
            events.append(EngineJoined(engine))
            if engine_id in recovering:
                events.append(leave_of(engine, _UNHEARD, returns=True))
    return [*events, *state.waiting, *(EngineLeaving(engine_id) for engine_id in state.leaving)]


def leave_of(engine: EngineInfo, reason: str, *, returns: bool) -> EngineLeft:
    """Return the event that an engine has left, for a client that has found this out by itself."""
    replays = returns and engine.recovery is Recovery.REPLAY
    return EngineLeft(engine.engine_id, engine.incarnation, reason, expected=False, returns=returns, replays=replays)


def engine_table(session: Session, title: str = "", engine_ids: Iterable[int] | None = None) -> Any:
    """Return a rich table of engines: id, host, process, and the number of this client's open calls.

    Args:
        session: the client's session.
        title: the title; by default the client's name, and whether it is closed.
        engine_ids: the engines to show; None for all, including those that are starting.
    """
    from rich.table import Table

    title = title or f"{session.name}: {'closed' if session.closed else 'engines'}"
    table = Table(title=as_text(title), title_justify="left")
    for heading in ("engine", "host", "process", "state"):
        table.add_column(heading)
    directory = session.directory
    for engine_id in [*directory.ids, *directory.starting] if engine_ids is None else engine_ids:
        engine = directory.get(engine_id)
        host, process = ("", "") if engine is None else (engine.host, str(engine.pid))
        table.add_row(*map(as_text, (str(engine_id), host, process, _state(session, engine_id))))
    return table


def engines_in_words(session: Session, engine_ids: Iterable[int]) -> str:
    """Name engines by their states: ``engines 0-2 idle, engine 3 busy (1 call open)``."""
    groups: dict[str, list[int]] = {}
    for engine_id in engine_ids:
        groups.setdefault(_state(session, engine_id), []).append(engine_id)
    return ", ".join(f"{engine_ranges(ids)} {state}" for state, ids in groups.items()) or "no engines"


def _state(session: Session, engine_id: int) -> str:
    if engine_id in session.directory.starting:
        return "waits for a place" if engine_id in session.directory.waiting else "starting"
    if session.closed or session.directory.get(engine_id) is None:
        return "gone"
    waiting = len(session.open_calls({engine_id}))
    return f"busy ({waiting} {plural('call', waiting)} open)" if waiting else "idle"
