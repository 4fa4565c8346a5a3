"""The history of requests, and the engines that clients keep busy.

Engines report the requests that begin and finish; clients report the requests that wait. `History` keeps the latest
requests, for users; `Occupancy` keeps the engines that are busy, for schedulers of tasks.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from nsactors.protocol.control import HistoryEntry
from nsactors.protocol.messages import RequestId

ENGINE_LOST = "engine lost"
QUEUED = "queued"
HISTORY_ENTRIES = 10_000


class History:
    """The latest requests, and the number that each engine has completed.

    Args:
        entries: earlier requests, in order.
        completed: the number of earlier requests that each engine has completed, by engine.
        limit: the number of requests to remember.
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
        self._open: dict[int, dict[RequestId, None]] = {}  # running and waiting, by engine
        self._lost: dict[tuple[int, RequestId], HistoryEntry] = {}  # finished requests that may be sent again
        self._limit = limit
        self._completed: Counter[int] = Counter()
        self._last_ended: dict[tuple[int, str], int] = {}
        for entry in entries:
            self._note(entry)
        self._completed = Counter(completed or {})

    def record(self, entry: HistoryEntry) -> bool:
        """Record that a request waits, has begun (``completed is None``) or finished; return False for duplicates."""
        # One thread reports the start of a request, and another its end, so the start may be reported after the end.
        # Each is reported again if it is unknown whether the first report arrived.
        if entry.request.seq <= self._last_ended.get((entry.engine_id, entry.request.client), -1):
            return False
        # Clients report waiting requests, and engines running ones, so the client's report may arrive later.
        if entry.outcome == QUEUED and (entry.engine_id, entry.request) in self._running:
            return False
        self._note(entry)
        if entry.completed is not None:
            self._completed[entry.engine_id] += 1
        return True

    def _note(self, entry: HistoryEntry) -> None:
        key = (entry.engine_id, entry.request)
        if (lost := self._lost.pop(key, None)) is not None:  # it was sent again, or was answered before the loss
            with contextlib.suppress(ValueError):  # the entry was dropped for newer ones
                self._finished.remove(lost)
        if entry.outcome == QUEUED:
            self._queued[key] = entry
            self._open.setdefault(entry.engine_id, {})[entry.request] = None
            if len(self._queued) > self._limit:
                oldest = next(iter(self._queued))
                del self._queued[oldest]
                self._note_closed(oldest)
            return
        self._queued.pop(key, None)
        if entry.completed is None:
            self._running[key] = entry
            at_engine = self._open.setdefault(entry.engine_id, {})
            at_engine.pop(entry.request, None)  # so that requests are in the order in which they began
            at_engine[entry.request] = None
            return
        self._running.pop(key, None)
        self._note_closed(key)
        self._finished.append(entry)
        if entry.outcome == ENGINE_LOST:
            self._note_lost(key, entry)
        else:
            self._last_ended[entry.engine_id, entry.request.client] = entry.request.seq

    def _note_closed(self, key: tuple[int, RequestId]) -> None:
        engine_id, request = key
        if key in self._running or (at_engine := self._open.get(engine_id)) is None:
            return
        at_engine.pop(request, None)
        if not at_engine:
            del self._open[engine_id]

    def _note_lost(self, key: tuple[int, RequestId], entry: HistoryEntry) -> None:
        self._lost[key] = entry
        if len(self._lost) > self._limit:
            del self._lost[next(iter(self._lost))]

    def engine_lost(self, engine_id: int, at: float) -> list[HistoryEntry]:
        """End the requests that ran or waited on a lost engine; return their entries."""
        requests = self._open.pop(engine_id, {})
        open_there = [
            known.pop((engine_id, request))
            for known in (self._running, self._queued)
            for request in requests
            if (engine_id, request) in known
        ]
        lost = [
            entry._replace(completed=at, outcome=ENGINE_LOST)
            for entry in open_there
            if entry.outcome != QUEUED or not self._is_over(entry)
        ]
        for entry in lost:
            self._note(entry)
        return lost

    def entries(
        self, *, client: str | None = None, engine_id: int | None = None, last: int | None = None
    ) -> list[HistoryEntry]:
        """Return finished requests in order of their end, then running and waiting ones; only the ``last`` if given."""
        # Engines report independently of each other, so entries arrive almost in order.
        finished = sorted(self._finished, key=lambda entry: entry.completed or 0.0)
        chosen = [
            entry
            for entry in [*finished, *self._running.values(), *self._waiting()]
            if (client is None or client in (entry.request.client, entry.request.client.rpartition("-")[0]))
            and (engine_id is None or entry.engine_id == engine_id)
        ]
        return chosen if last is None else chosen[-last:] if last > 0 else []

    def _waiting(self) -> list[HistoryEntry]:
        # Filter them when the history is read: looking at all waiting requests whenever one ends would take long.
        return [entry for entry in self._queued.values() if not self._is_over(entry)]

    def _is_over(self, entry: HistoryEntry) -> bool:
        """Return whether a later request of the same client has ended at the engine, which runs them in order.

        The end of the request itself is not known if its engine's process died before it reported the end, and the
        client, which had received the reply, still reported the request as waiting.
        """
        return entry.request.seq <= self._last_ended.get((entry.engine_id, entry.request.client), -1)

    def running(self, engine_id: int) -> list[HistoryEntry]:
        """Return the requests that an engine has reported as running."""
        keys = ((engine_id, request) for request in self._open.get(engine_id, ()))
        return [self._running[key] for key in keys if key in self._running]

    def completed(self, engine_id: int) -> int:
        """Return the number of requests that an engine has completed, with any outcome."""
        return self._completed[engine_id]


class _OpenRequests(NamedTuple):
    """The unfinished requests of a client at an engine: the running or first one, and the number of the last."""

    entry: HistoryEntry
    last: int


class Occupancy:
    """The engines that clients keep busy, as far as reported.

    Short requests are not reported. The controller and each scheduler have an instance, and entries that change the
    controller's instance are sent to the schedulers.

    An engine runs the requests of one client in the order of their numbers. So when one ends, all with lower numbers
    have ended, and later reports about these are ignored.

    Args:
        entries: earlier entries.

    Example:
        >>> from nsactors.protocol.messages import RequestId
        >>> occupancy = Occupancy()
        >>> long = HistoryEntry(RequestId("ann", 7), 0, "execute", "sleep(9)", 1.0, None, "running")
        >>> occupancy.record(long), occupancy.busy_with(0).label
        (True, 'execute')
        >>> occupancy.record(long._replace(completed=10.0, outcome="ok")), occupancy.busy_with(0)
        (True, None)
    """

    def __init__(self, entries: Iterable[HistoryEntry] = ()) -> None:
        self._work: dict[int, dict[str, _OpenRequests]] = {}
        self._ended: dict[tuple[int, str], int] = {}
        for entry in entries:
            self.record(entry)

    def record(self, entry: HistoryEntry) -> bool:
        """Record that a request waits at an engine, has begun or has finished; return False if that changes nothing."""
        client, seq = entry.request
        if seq <= self._ended.get((entry.engine_id, client), -1):
            return False
        if entry.completed is None:
            return self._open(entry)
        return self._end(entry)

    def _open(self, entry: HistoryEntry) -> bool:
        client, seq = entry.request
        at_engine = self._work.setdefault(entry.engine_id, {})
        known = at_engine.get(client)
        # A running request is shown rather than a waiting one, and of the waiting ones the first, which runs next.
        shown = entry if known is None or entry.outcome == "running" else known.entry
        work = _OpenRequests(shown, seq if known is None else max(seq, known.last))
        at_engine[client] = work
        return work != known

    def _end(self, entry: HistoryEntry) -> bool:
        client, seq = entry.request
        self._ended[entry.engine_id, client] = seq  # its start may be reported later, by another thread
        at_engine = self._work.get(entry.engine_id, {})
        known = at_engine.get(client)
        if known is None or seq < known.entry.request.seq:
            return False
        if seq < known.last:
            at_engine[client] = known._replace(entry=_waiting(known))
            return True
        del at_engine[client]
        if not at_engine:
            del self._work[entry.engine_id]
        return True

    def engine_gone(self, engine_id: int) -> None:
        """Remove an engine whose process has ended, with its requests."""
        self._work.pop(engine_id, None)

    def busy_with(self, engine_id: int) -> HistoryEntry | None:
        """Return a request that keeps an engine busy, the running one if known; None if it is idle."""
        works = self._work.get(engine_id, {}).values()
        running = (work.entry for work in works if work.entry.outcome == "running")
        return next(running, next((work.entry for work in works), None))

    @property
    def engine_ids(self) -> list[int]:
        """The engines that have work."""
        return list(self._work)

    def entries(self) -> list[HistoryEntry]:
        """Return the entries that make another instance equal to this one."""
        entries = []
        for work in (work for at_engine in self._work.values() for work in at_engine.values()):
            entries.append(work.entry)
            if work.last != work.entry.request.seq:
                entries.append(_waiting(work))
        return entries


def _waiting(work: _OpenRequests) -> HistoryEntry:
    """Return an entry for the last of a client's requests, which waits."""
    return work.entry._replace(request=work.entry.request._replace(seq=work.last), outcome=QUEUED)
