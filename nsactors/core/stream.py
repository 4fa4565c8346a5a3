"""The order in which an engine takes requests, and send windows that keep what is in flight bounded."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from nsactors.core.messages import RequestId

__all__ = ["InstructionStream", "SendWindow", "Verdict"]

T = TypeVar("T")


class Verdict(enum.Enum):
    """What becomes of a request when its turn comes."""

    RUN = "run"
    ABORTED = "aborted"
    REPEATED = "repeated"


class InstructionStream:
    """Which requests an engine has taken, and which have been taken back.

    A client numbers its requests upwards, and they reach the engine in that order. A number that is not above the
    last one taken was delivered twice; a gap is a request that was lost on its way, and its sender has been told.

    Args:
        taken: the number of the last request of each client, where a stream goes on.
    """

    def __init__(self, taken: Mapping[str, int] | None = None) -> None:
        self._last_seq: dict[str, int] = dict(taken or {})
        self._aborted: set[RequestId] = set()
        self._stops: dict[str, int] = {}

    def take(self, request: RequestId, stops_seen: int = 0) -> Verdict:
        """Decide about a request whose turn has come.

        Args:
            request: its id.
            stops_seen: how many of its client's stops the client knew of when it sent this.
        """
        if request.seq <= self._last_seq.get(request.client, -1):
            return Verdict.REPEATED
        self._last_seq[request.client] = request.seq
        if request in self._aborted:
            self._aborted.discard(request)
            return Verdict.ABORTED
        if stops_seen < self._stops.get(request.client, 0):
            return Verdict.ABORTED
        return Verdict.RUN

    def has_passed(self, request: RequestId) -> bool:
        """Whether this request's turn has come, or that of a later one of its client."""
        return request.seq <= self._last_seq.get(request.client, -1)

    def stop(self, client: str) -> None:
        """A request failed that nothing was to run after: take back what its client sent before it knows."""
        self._stops[client] = self._stops.get(client, 0) + 1

    def abort(self, requests: Iterable[RequestId]) -> None:
        """Take requests back; those whose turn has come already are left alone."""
        self._aborted.update(r for r in requests if r.seq > self._last_seq.get(r.client, -1))


class SendWindow(Generic[T]):
    """At most ``size`` items in flight; the rest wait here, first in first out.

    Items may take different *lanes*, ways that keep order each for itself and not among one another. So all that is in
    flight is on one lane; what takes another waits until they have been answered.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a send window holds at least one item, not {size}")
        self._size = size
        self._in_flight = 0
        self._lane: object = None
        self._waiting: deque[tuple[T, object]] = deque()

    def __len__(self) -> int:
        return self._in_flight + len(self._waiting)

    def offer(self, item: T, lane: object = None) -> T | None:
        """The item, if it may be sent now; otherwise None, and it waits."""
        if self._waiting or not self._has_room(lane):
            self._waiting.append((item, lane))
            return None
        return self._let_go(item, lane)

    def settle(self) -> bool:
        """One item in flight has been answered; whether others wait for its place (see :meth:`next`)."""
        self._in_flight -= 1
        return bool(self._waiting)

    def next(self) -> T | None:
        """The next waiting item that may be sent now, if any. Until it is taken, nothing overtakes it."""
        if not self._waiting or not self._has_room(self._waiting[0][1]):
            return None
        return self._let_go(*self._waiting.popleft())

    def take_back(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Give up those that wait and are unwanted; the others keep their order."""
        taken = [item for item, _ in self._waiting if unwanted(item)]
        self._waiting = deque(entry for entry in self._waiting if not unwanted(entry[0]))
        return taken

    def drain(self) -> list[T]:
        """Give up everything that waits; what is in flight stays counted."""
        waiting = [item for item, _ in self._waiting]
        self._waiting.clear()
        return waiting

    def _has_room(self, lane: object) -> bool:
        return not self._in_flight or (self._in_flight < self._size and lane == self._lane)

    def _let_go(self, item: T, lane: object) -> T:
        self._lane = lane
        self._in_flight += 1
        return item
