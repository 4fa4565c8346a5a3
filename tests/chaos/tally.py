"""What a run has to say, counted up by all its threads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

__all__ = ["Tally"]


class Tally:
    """Requests by kind, outcomes by kind, and complaints."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.audits = 0
        self.checked = 0
        self.complaints: list[str] = []
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

    def complain(self, complaint: str) -> None:
        """Something is as it must not be."""
        with self._lock:
            self.complaints.append(complaint)
