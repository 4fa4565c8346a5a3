"""Calls whose reply has come before some of their output, which is awaited or not."""

from __future__ import annotations

import time
import weakref

from nsactors.core.messages import RequestId
from nsactors.results import Call

__all__ = ["Overtaken", "RecentCalls"]

OUTPUT_GRACE_S = 10.0  # a controller that was killed is back after two, or more on a busy machine
RECENT = 1_000


class Overtaken:
    """Calls that wait for routed output which their reply has overtaken; for a while, and not for ever."""

    def __init__(self) -> None:
        self._calls: dict[RequestId, tuple[Call, float]] = {}

    def add(self, call: Call) -> None:
        """This call's reply is here, and not all of its output."""
        self._calls[call.request_id] = (call, time.monotonic() + OUTPUT_GRACE_S)

    def remove(self, call: Call) -> bool:
        """This call's output is complete; whether it was waited for."""
        return self._calls.pop(call.request_id, None) is not None

    @property
    def seconds_left(self) -> float | None:
        """Until the next call has waited long enough; None if none waits."""
        if not self._calls:
            return None
        calls = list(self._calls.values())  # in one step: replies may add to them meanwhile
        return max(0.0, min(deadline for _, deadline in calls) - time.monotonic())

    def take_overdue(self) -> list[Call]:
        """Calls that have waited long enough."""
        now = time.monotonic()
        overdue = [call for call, deadline in self._calls.values() if deadline <= now]
        for call in overdue:
            del self._calls[call.request_id]
        return overdue


class RecentCalls:
    """The calls that ended last, as long as anybody holds them: output that comes late is still theirs."""

    def __init__(self) -> None:
        self._calls: dict[RequestId, weakref.ref[Call]] = {}

    def add(self, call: Call) -> None:
        """This call has ended."""
        self._calls[call.request_id] = weakref.ref(call)
        if len(self._calls) > RECENT:
            del self._calls[next(iter(self._calls))]

    def get(self, request: RequestId) -> Call | None:
        """The call with this id, if it ended not long ago and is still held."""
        known = self._calls.get(request)
        return None if known is None else known()
