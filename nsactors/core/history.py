"""What a cluster remembers of its requests: who ran what, where, when, with which outcome."""

from __future__ import annotations

from collections import Counter, deque

from nsactors.core.cluster import HistoryEntry
from nsactors.core.messages import RequestId

__all__ = ["History"]


class History:
    """The last ``limit`` requests, and how many each engine has completed."""

    def __init__(self, limit: int = 10_000) -> None:
        self._finished: deque[HistoryEntry] = deque(maxlen=limit)
        self._running: dict[tuple[int, RequestId], HistoryEntry] = {}
        self._completed: Counter[int] = Counter()
        self._last_ended: dict[tuple[int, str], int] = {}

    def record(self, entry: HistoryEntry) -> None:
        """A request has started (``completed is None``) or ended."""
        key = (entry.engine_id, entry.request)
        stream = (entry.engine_id, entry.request.client)
        if entry.completed is None:
            # Said by another thread than the one that runs it: it may come after its end.
            if entry.request.seq > self._last_ended.get(stream, -1):
                self._running[key] = entry
            return
        self._last_ended[stream] = max(entry.request.seq, self._last_ended.get(stream, -1))
        self._running.pop(key, None)
        self._finished.append(entry)
        self._completed[entry.engine_id] += 1

    def engine_lost(self, engine_id: int, at: float) -> None:
        """What a lost engine was running ended with it."""
        for key in [k for k in self._running if k[0] == engine_id]:
            entry = self._running.pop(key)
            self._finished.append(entry._replace(completed=at, outcome="engine lost"))

    def entries(
        self, *, client: str | None = None, engine_id: int | None = None, last: int | None = None
    ) -> list[HistoryEntry]:
        """Finished requests in order of their end, then the running ones; the ``last`` ones if given."""
        # Engines report in rounds of their own, so what arrives is nearly in order.
        finished = sorted(self._finished, key=lambda entry: entry.completed or 0.0)
        chosen = [
            entry
            for entry in [*finished, *self._running.values()]
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
