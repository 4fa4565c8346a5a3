"""The engines that a client knows of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial

from nsactors.core.cluster import EngineInfo, EngineLeft
from nsactors.errors import EngineStartError

__all__ = ["Roster"]

EngineCallback = Callable[[int], object]


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
        self._changed = threading.Condition()
        self._closed = False
        self._on_join: list[EngineCallback] = []
        self._on_leave: list[EngineCallback] = []

    @property
    def ids(self) -> list[int]:
        """Ids of the engines that take requests, in order; those that are being brought back among them."""
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

    def get(self, engine_id: int) -> EngineInfo | None:
        """Where an engine lives; None if it is not there."""
        return self._engines.get(engine_id)

    def expect(self, engine_ids: Iterable[int]) -> None:
        """These engines have been asked for."""
        with self._changed:
            known = self._engines.keys() | self.start_failures.keys()
            self._starting.update(set(engine_ids) - known)

    def add(self, engine: EngineInfo) -> bool:
        """An engine is there; False if that was known."""
        with self._changed:
            self._starting.discard(engine.engine_id)
            news = self._engines.get(engine.engine_id) != engine
            self._engines[engine.engine_id] = engine
            self._away.discard(engine.engine_id)
            self._ids = tuple(sorted(self._engines))
            self._changed.notify_all()
        if news:
            self._tell(self._on_join, engine.engine_id)
        return news

    def leave(self, left: EngineLeft) -> None:
        """An incarnation of an engine is gone; nothing happens if it is not the one that is known."""
        engine_id = left.engine_id
        with self._changed:
            self._starting.discard(engine_id)
            engine = self._engines.get(engine_id)
            if engine is None or engine.incarnation != left.incarnation:
                return
            was_there = engine_id not in self._away
            if left.returns:
                self._away.add(engine_id)
            else:
                self._away.discard(engine_id)
                del self._engines[engine_id]
                self._ids = tuple(sorted(self._engines))
            self._changed.notify_all()
        if was_there:
            self._tell(self._on_leave, engine_id)

    def failed_to_start(self, failure: EngineStartError) -> None:
        """An engine that was on the way will not come."""
        with self._changed:
            self._starting.discard(failure.engine_id)
            self.start_failures[failure.engine_id] = failure
            self._changed.notify_all()

    def wait_for(self, count: int, timeout_s: float | None) -> bool:
        """Wait until ``count`` engines are there; whether they are. Ends early if the last on the way has failed."""

        def over() -> bool:
            failed = bool(self.start_failures) and not self._starting
            return self._closed or failed or len(self._engines) - len(self._away) >= count

        with self._changed:
            self._changed.wait_for(over, timeout_s)
            return len(self._engines) - len(self._away) >= count

    def on_join(self, callback: EngineCallback) -> None:
        """Call ``callback(engine_id)`` for every engine that joins."""
        self._on_join.append(callback)

    def on_leave(self, callback: EngineCallback) -> None:
        """Call ``callback(engine_id)`` for every engine that leaves."""
        self._on_leave.append(callback)

    def close(self) -> None:
        """Nothing more will be heard: end every wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _tell(self, callbacks: Iterable[EngineCallback], engine_id: int) -> None:
        for callback in list(callbacks):
            self._call(partial(callback, engine_id))
