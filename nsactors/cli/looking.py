"""A cluster at one moment, as values."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from nsactors.core.history import QUEUED

if TYPE_CHECKING:
    from nsactors.client import Client

__all__ = ["ClusterSeen", "EngineSeen", "look"]

LAST_ENTRIES = 5_000
SOURCE_CHARS = 40


class EngineSeen(NamedTuple):
    """One engine.

    Attributes:
        engine_id: its id.
        host: its machine; empty while it is starting.
        pid: its process; None while it is starting.
        state: ``idle``, ``busy`` or ``starting``.
        runs: the beginning of what it runs.
        client: for whom.
        for_s: for how many seconds.
        queued: requests that wait there.
        completed: requests that it has completed.
    """

    engine_id: int
    host: str
    pid: int | None
    state: str
    runs: str = ""
    client: str = ""
    for_s: float | None = None
    queued: int = 0
    completed: int = 0


class ClusterSeen(NamedTuple):
    """Its engines, in the order of their ids, and the names of its clients other than the one that looks."""

    engines: list[EngineSeen]
    clients: list[str]


def look(client: Client) -> ClusterSeen:
    """See what there is now."""
    roster, controller = client.session.roster, client.session.transport.controller
    running, now = controller.running(), time.time()
    queued = Counter(e.engine_id for e in controller.history(None, None, LAST_ENTRIES) if e.outcome == QUEUED)
    engines = [EngineSeen(engine_id, "", None, "starting") for engine_id in roster.starting]
    for engine_id in roster.ids:
        engine = roster.get(engine_id)
        if engine is None:
            continue
        completed, entries = running.get(engine_id, (0, []))
        seen = EngineSeen(engine_id, engine.host, engine.pid, "idle", queued=queued[engine_id], completed=completed)
        if entries:
            entry = entries[-1]
            text = (entry.source.strip().splitlines() or [entry.label])[0][:SOURCE_CHARS]
            busy_s = max(0.0, now - entry.started)
            seen = seen._replace(state="busy", runs=text, client=entry.request.client, for_s=busy_s)
        engines.append(seen)
    return ClusterSeen(sorted(engines), [name for name in client.clients() if name != client.name])
