"""Sequencing of requests: each runs once, and those of one client run in order.

The engine passes arriving requests through a `RequestStream`; a client holds back requests in a `SendWindow`.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from nsactors.protocol.messages import RequestId

T = TypeVar("T")


class Verdict(enum.Enum):
    """The decision on a request when its turn comes."""

    RUN = "run"
    ABORTED = "aborted"
    REPEATED = "repeated"


class RequestStream:
    """The requests that an engine has received, and those that were cancelled.

    A client numbers its requests upwards, and they reach the engine in that order. A request whose number is not
    greater than the last number was delivered twice. A gap means that a request was lost on its way; its sender knows
    of this.

    Args:
        taken: the number of the last request of each client, for a stream that continues another one.
    """

    def __init__(self, taken: Mapping[str, int] | None = None) -> None:
        self._last_seq: dict[str, int] = dict(taken or {})
        self._aborted: set[RequestId] = set()
        self._stops: dict[str, int] = {}

    def take(self, request: RequestId, stops_seen: int = 0) -> Verdict:
        """Decide on a request whose turn has come.

        Args:
            request: its id.
            stops_seen: the number of its client's stops that the client knew of when it sent the request.
        """
        if request.seq <= self._last_seq.get(request.client, -1):
            return Verdict.REPEATED
        # Also keep the number of a request that is aborted below, because its reply must be final.
        self._last_seq[request.client] = request.seq
        if request in self._aborted:
            self._aborted.discard(request)
            return Verdict.ABORTED
        # The client sent the request before it knew of a failure after which no request may run.
        if stops_seen < self._stops.get(request.client, 0):
            return Verdict.ABORTED
        return Verdict.RUN

    def has_passed(self, request: RequestId) -> bool:
        """Return whether the turn of this request, or of a later one of its client, has come."""
        return request.seq <= self._last_seq.get(request.client, -1)

    def stop(self, client: str) -> None:
        """Abort the requests that a client sends before it learns of a failure with ``stops_on_error``."""
        self._stops[client] = self._stops.get(client, 0) + 1

    def abort(self, requests: Iterable[RequestId]) -> frozenset[RequestId]:
        """Cancel requests whose turn has not come, and return them."""
        cancelled = frozenset(r for r in requests if r.seq > self._last_seq.get(r.client, -1))
        self._aborted.update(cancelled)
        return cancelled


class SendWindow(Generic[T]):
    """Lets at most ``size`` items be in flight; further items wait, first in, first out.

    Items may take different *lanes*: a lane is a connection, and preserves the order of its own items only. So all
    items in flight are on one lane; an item for another lane waits until all of them have been answered.

    Attributes:
        lane: the lane of the items in flight; if no item is in flight, the lane of the last one.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a send window holds at least one item, not {size}")
        self._size = size
        self._in_flight = 0
        self.lane: object = None
        self._waiting: deque[tuple[T, object]] = deque()

    def __len__(self) -> int:
        return self._in_flight + len(self._waiting)

    def offer(self, item: T, lane: object = None) -> T | None:
        """Return the item if it may be sent now; otherwise store it and return None."""
        if self._waiting or not self._has_room(lane):
            self._waiting.append((item, lane))
            return None
        self.lane = lane
        self._in_flight += 1
        return item

    def settle(self) -> bool:
        """Count one item in flight as answered; return whether others wait for its place (see :meth:`next`)."""
        self._in_flight -= 1
        return bool(self._waiting)

    def next(self) -> T | None:
        """Return the next waiting item that may be sent now, or None. No later item overtakes it."""
        if not self._waiting or not self._has_room(self._waiting[0][1]):
            return None
        item, self.lane = self._waiting.popleft()
        self._in_flight += 1
        return item

    def withdraw(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove and return the waiting items that are unwanted; the others keep their order."""
        taken = [item for item, _ in self._waiting if unwanted(item)]
        self._waiting = deque(entry for entry in self._waiting if not unwanted(entry[0]))
        return taken

    def drain(self) -> list[T]:
        """Remove and return all waiting items; those in flight stay counted."""
        waiting = [item for item, _ in self._waiting]
        self._waiting.clear()
        return waiting

    def _has_room(self, lane: object) -> bool:
        return not self._in_flight or (self._in_flight < self._size and lane == self.lane)
