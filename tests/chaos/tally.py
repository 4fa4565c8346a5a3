"""What a run has to say, counted up by all its threads."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

__all__ = ["Tally"]


class Tally:
    """Requests by kind, outcomes by kind, and complaints."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.audits = 0
        self.checked = 0
        self.complaints: list[str] = []
        self._told_lost: dict[int, set[str]] = defaultdict(set)
        self._lock = threading.Lock()

    def count(self, kind: str, outcomes: Sequence[str]) -> None:
        """Requests of a kind have ended."""
        with self._lock:
            self.requests[kind] += len(outcomes)
            self.outcomes.update(outcomes)

    def audited(self, effects: int) -> None:
        """Books with so many effects have been gone through."""
        with self._lock:
            self.audits += 1
            self.checked += effects

    def tell_lost(self, engine_id: int, names: Iterable[str]) -> None:
        """A recovery has said that an engine does not have these names any more."""
        with self._lock:
            self._told_lost[engine_id].update(names)

    def told_lost(self, engine_id: int) -> AbstractSet[str]:
        """The names of an engine that recoveries have said to be lost."""
        with self._lock:
            return set(self._told_lost[engine_id])

    def complain(self, complaint: str) -> None:
        """Something is as it must not be."""
        with self._lock:
            self.complaints.append(complaint)
