"""Failures that nobody has asked for, and other things to tell: errors never pass silently."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nsactors.core.messages import RequestId
from nsactors.errors import EngineLost, group_failures

if TYPE_CHECKING:
    from nsactors.results import Call

__all__ = ["Ledger"]

LIMIT = 1_000


class Ledger:
    """Calls that failed and whose end nobody has seen. They are reported once, at the next prompt or at the end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unseen: dict[RequestId, Exception] = {}
        self._left_out = 0
        self._notices: list[str] = []
        self._deaths: dict[int, str] = {}
        self._deaths_seen: set[int] = set()
        self._joined: dict[int, float] = {}

    def engine_died(self, engine_id: int, notice: str) -> None:
        """An engine has died, which people are to hear of, unless a call of theirs has told them."""
        with self._lock:
            if engine_id not in self._deaths_seen:
                self._deaths[engine_id] = notice

    def engine_joined(self, engine_id: int) -> None:
        """An engine is there, or there again: if it dies, that is news."""
        with self._lock:
            self._deaths_seen.discard(engine_id)
            self._joined[engine_id] = time.time()

    def tell(self, notice: str) -> None:
        """Something has happened that people are to hear of."""
        with self._lock:
            self._notices = [*self._notices[-LIMIT:], notice]

    def heard(self, notices: Iterable[str]) -> None:
        """Somebody has looked for this news themselves."""
        known = set(notices)
        with self._lock:
            self._notices = [notice for notice in self._notices if notice not in known]

    def failed(self, call: Call) -> None:
        """A call has failed."""
        assert call.error is not None, "a failed call has an error"
        with self._lock:
            if len(self._unseen) < LIMIT:
                self._unseen[call.request_id] = call.error
            else:
                self._left_out += 1

    def seen(self, calls: Iterable[Call]) -> None:
        """Somebody has asked how these calls ended."""
        if not self._unseen:
            return
        with self._lock:
            for call in calls:
                if isinstance(self._unseen.pop(call.request_id, None), EngineLost):
                    self._deaths.pop(call.engine_id, None)
                    if (call.received or 0.0) >= self._joined.get(call.engine_id, 0.0):  # else it is back by now
                        self._deaths_seen.add(call.engine_id)

    def report(self) -> str:
        """What is to be told since the last report: notices, and what failed unseen, equal failures once."""
        with self._lock:
            errors, self._unseen = list(self._unseen.values()), {}
            left_out, self._left_out = self._left_out, 0
            notices = [*self._deaths.values(), *self._notices]
            self._deaths, self._notices = {}, []
        lines = [f"nsactors: {notice}" for notice in notices]
        if not errors:
            return "\n".join(lines)
        many = len(errors) + left_out
        lines += [
            f"nsactors: {many} call{'s' * (many != 1)} failed, and nobody has asked for the result{'s' * (many != 1)}:"
        ]
        lines += [f"  {group.summary}" for group in group_failures(errors)]
        return "\n".join(lines)
