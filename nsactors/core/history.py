"""What a cluster remembers of its requests: who ran what, where, when, with which outcome."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Iterable, Mapping

from nsactors.core.cluster import HistoryEntry
from nsactors.core.messages import RequestId

__all__ = ["ENGINE_LOST", "HISTORY_ENTRIES", "QUEUED", "History"]

ENGINE_LOST = "engine lost"
QUEUED = "queued"
HISTORY_ENTRIES = 10_000


class History:
    """The last requests, and how many each engine has completed.

    Args:
        entries: what is remembered already, in order.
        completed: by engine, how many it has completed already.
        limit: how many requests are remembered.
    """

    def __init__(
        self,
        entries: Iterable[HistoryEntry] = (),
        completed: Mapping[int, int] | None = None,
        *,
        limit: int = HISTORY_ENTRIES,
    ) -> None:
        self._finished: deque[HistoryEntry] = deque(maxlen=limit)
        self._running: dict[tuple[int, RequestId], HistoryEntry] = {}
        self._queued: dict[tuple[int, RequestId], HistoryEntry] = {}
        self._lost: dict[tuple[int, RequestId], HistoryEntry] = {}  # those of the finished ones that may yet go on
        self._limit = limit
        self._completed: Counter[int] = Counter()
        self._last_ended: dict[tuple[int, str], int] = {}
        for entry in entries:
            self._note(entry)
        self._completed = Counter(completed or {})

    def record(self, entry: HistoryEntry) -> bool:
        """A request waits for its turn, has started (``completed is None``) or ended; False if that is no news."""
        # A start is said by another thread than the one that runs it, and may come after the end; and both are said
        # again if it was not known whether anybody had heard.
        if entry.request.seq <= self._last_ended.get((entry.engine_id, entry.request.client), -1):
            return False
        if entry.outcome == QUEUED and (entry.engine_id, entry.request) in self._running:
            return False
        self._note(entry)
        if entry.completed is not None:
            self._completed[entry.engine_id] += 1
        return True

    def _note(self, entry: HistoryEntry) -> None:
        key = (entry.engine_id, entry.request)
        if (lost := self._lost.pop(key, None)) is not None:  # it was sent again, or had been answered before the loss
            with contextlib.suppress(ValueError):  # it was too long ago
                self._finished.remove(lost)
        if entry.outcome == QUEUED:
            self._queued[key] = entry
            if len(self._queued) > self._limit:
                del self._queued[next(iter(self._queued))]
            return
        self._queued.pop(key, None)
        if entry.completed is None:
            self._running[key] = entry
            return
        self._running.pop(key, None)
        self._finished.append(entry)
        if entry.outcome == ENGINE_LOST:
            self._note_lost(key, entry)
        else:
            self._last_ended[entry.engine_id, entry.request.client] = entry.request.seq

    def _note_lost(self, key: tuple[int, RequestId], entry: HistoryEntry) -> None:
        self._lost[key] = entry
        if len(self._lost) > self._limit:
            del self._lost[next(iter(self._lost))]

    def engine_lost(self, engine_id: int, at: float) -> list[HistoryEntry]:
        """What a lost engine was running ended with it, and what waited there; how that is remembered."""
        open_there = [
            known.pop(key) for known in (self._running, self._queued) for key in list(known) if key[0] == engine_id
        ]
        lost = [entry._replace(completed=at, outcome=ENGINE_LOST) for entry in open_there]
        for entry in lost:
            self._note(entry)
        return lost

    def entries(
        self, *, client: str | None = None, engine_id: int | None = None, last: int | None = None
    ) -> list[HistoryEntry]:
        """Finished requests in order of their end, the running ones, those that wait; the ``last`` ones if given."""
        # Engines report in rounds of their own, so what arrives is nearly in order.
        finished = sorted(self._finished, key=lambda entry: entry.completed or 0.0)
        chosen = [
            entry
            for entry in [*finished, *self._running.values(), *self._queued.values()]
            if (client is None or client in (entry.request.client, entry.request.client.rpartition("-")[0]))
            and (engine_id is None or entry.engine_id == engine_id)
        ]
        return chosen if last is None else chosen[-last:] if last > 0 else []

    def running(self, engine_id: int) -> list[HistoryEntry]:
        """What an engine is running, as far as it has said."""
        return [entry for (owner, _), entry in self._running.items() if owner == engine_id]

    def completed(self, engine_id: int) -> int:
        """How many requests an engine has ended, whatever their outcome."""
        return self._completed[engine_id]
