"""The engines that a client knows of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from nsactors.core.cluster import EngineInfo, EngineLeft
from nsactors.errors import EngineStartError

__all__ = ["Roster", "Watcher"]

EngineCallback = Callable[[int], object]


class Watcher(Protocol):
    """Somebody who must hear of engines at once, and in order; called under a lock, so it only takes notes."""

    def engine_joined(self, engine: EngineInfo) -> None:
        """An engine takes requests, or another process does under its id."""
        ...

    def engine_leaving(self, engine_id: int) -> None:
        """An engine finishes what it has, and takes no more."""
        ...

    def engine_left(self, left: EngineLeft) -> None:
        """An engine takes none, or none yet; this may be said again, with another prospect of its coming."""
        ...

    def cut_off(self) -> None:
        """Nothing more will be heard."""
        ...


class Roster:
    """Who is there, who is on the way, who could not start; and who wants to hear of it.

    Args:
        call: calls a function of the user's soon, on a thread where it may wait.
    """

    def __init__(self, call: Callable[[Callable[[], object]], None]) -> None:
        self._call = call
        self.start_failures: dict[int, EngineStartError] = {}
        self._engines: dict[int, EngineInfo] = {}
        self._ids: tuple[int, ...] = ()  # in order; every call of a view asks for them
        self._starting: set[int] = set()
        self._away: set[int] = set()
        self._leaving: set[int] = set()
        self._waiting: dict[int, EngineStartError] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._waiters = 0
        self._told: set[int] = set()
        self._on_join: list[EngineCallback] = []
        self._on_leave: list[EngineCallback] = []
        self._told_at_once: list[Watcher] = []

    @property
    def ids(self) -> list[int]:
        """Ids of the engines that take requests, in order; those that are being brought back among them.

        Engines that are about to leave are not.
        """
        return list(self._ids)

    @property
    def starting(self) -> list[int]:
        """Ids of engines that have been asked for and are not there yet."""
        with self._changed:
            return sorted(self._starting)

    @property
    def away(self) -> list[int]:
        """Ids of engines that have died and are being brought back."""
        with self._changed:
            return sorted(self._away)

    @property
    def waiting(self) -> dict[int, EngineStartError]:
        """The engines that have no place, and why; by id."""
        with self._changed:
            return dict(self._waiting)

    @property
    def known(self) -> dict[int, EngineInfo]:
        """All engines that have joined and not gone, by id."""
        with self._changed:
            return dict(self._engines)

    def take_problems(self) -> list[EngineStartError]:
        """Why engines could not start or have no place, each once."""
        with self._changed:
            problems = {**self.start_failures, **self._waiting}
            new = [problem for engine_id, problem in sorted(problems.items()) if engine_id not in self._told]
            self._told.update(problems)
            return new

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for engines, and so will hear of those that do not come."""
        return self._waiters > 0

    def get(self, engine_id: int) -> EngineInfo | None:
        """Where an engine lives; None if it is not there."""
        return self._engines.get(engine_id)

    def expect(self, engine_ids: Iterable[int]) -> None:
        """These engines have been asked for."""
        with self._changed:
            known = self._engines.keys() | self.start_failures.keys() | self._starting
            news = set(engine_ids) - known
            self._starting |= news
            for watcher in self._told_at_once:
                for engine_id in news:
                    watcher.engine_left(_not_yet_there(engine_id))

    def add(self, engine: EngineInfo) -> bool:
        """An engine is there; False if that was known."""
        with self._changed:
            self._starting.discard(engine.engine_id)
            self._waiting.pop(engine.engine_id, None)
            news = self._engines.get(engine.engine_id) != engine
            self._engines[engine.engine_id] = engine
            self._away.discard(engine.engine_id)
            self._list_ids()
            callbacks = list(self._on_join)  # of who asked before it could be seen that the engine is there
            self._changed.notify_all()
            for watcher in self._told_at_once if news else ():
                watcher.engine_joined(engine)
        if news:
            self._tell(callbacks, engine.engine_id)
        return news

    def hold_up(self, obstacle: EngineStartError) -> None:
        """An engine that was asked for has no place."""
        with self._changed:
            self._waiting[obstacle.engine_id] = obstacle
            self._changed.notify_all()

    def retire(self, engine_ids: Iterable[int]) -> None:
        """These engines finish what they have to do, and take no more."""
        with self._changed:
            news = self._engines.keys() & set(engine_ids) - self._leaving
            self._leaving |= news
            self._list_ids()
            for watcher in self._told_at_once:
                for engine_id in news:
                    watcher.engine_leaving(engine_id)

    def leave(self, left: EngineLeft) -> None:
        """An incarnation of an engine is gone; nothing happens if it is not the one that is known."""
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
        """An engine that was on the way will not come."""
        with self._changed:
            self.start_failures[failure.engine_id] = failure
            self._stop_expecting(EngineLeft(failure.engine_id, 0, str(failure), expected=False))

    def wait_for(self, count: int, timeout_s: float | None, *, patient: bool) -> bool:
        """Wait until ``count`` engines are there; whether they are.

        Ends early if some have failed and no others are on the way. Those without a place are, to the patient.
        """

        def enough() -> bool:
            return len(self._ids) - len(self._away) >= count

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
        """Wait until none of these engines is there or on the way; whether it is so."""
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

    def watch(self, watcher: Watcher) -> None:
        """Tell ``watcher`` of every engine that is there, and from now on of all that happens."""
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

    def unwatch(self, watcher: Watcher) -> None:
        """Tell ``watcher`` nothing more."""
        with self._changed:
            self._told_at_once.remove(watcher)

    def close(self) -> None:
        """Nothing more will be heard: end every wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            for watcher in self._told_at_once:
                watcher.cut_off()

    def _stop_expecting(self, left: EngineLeft) -> None:
        """An engine has gone; if it was still awaited, it will not come."""
        engine_id = left.engine_id
        awaited = engine_id in self._starting
        self._starting.discard(engine_id)
        self._waiting.pop(engine_id, None)
        self._changed.notify_all()
        for watcher in self._told_at_once if awaited else ():
            watcher.engine_left(left)

    def _list_ids(self) -> None:
        self._ids = tuple(sorted(self._engines.keys() - self._leaving))

    def _tell(self, callbacks: Iterable[EngineCallback], engine_id: int) -> None:
        for callback in list(callbacks):
            self._call(partial(callback, engine_id))


def _not_yet_there(engine_id: int) -> EngineLeft:
    return EngineLeft(engine_id, 0, "it is being started", expected=False, returns=True)
