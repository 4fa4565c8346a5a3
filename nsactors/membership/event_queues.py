"""Queues of commands for engines and of events for clients, which poll the controller for them.

The controller fills the queues; a poll waits for the first item and takes all. Clients have to poll, because an
actor can call only actors, which clients are not. A client that has stopped polling loses its queue, and attaches
again if it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from nsactors.protocol.control import Event, HistoryEntry, OutputEvent, WorkReported
from nsactors.protocol.output import size_bytes

T = TypeVar("T")

CLIENT_LEASE_S = 90.0
QUEUE_EVENTS = 20_000
QUEUE_BYTES = 100_000_000
DELIVERY_S = 0.2


class EventQueue(Generic[T]):
    """The items for one engine or client."""

    def __init__(self) -> None:
        self.items: deque[T] = deque()
        self._arrived = asyncio.Event()

    def put(self, item: T) -> None:
        """Add an item."""
        self.items.append(item)
        self._arrived.set()

    def wake(self) -> None:
        """End the present wait for an item."""
        self._arrived.set()

    async def take(self, timeout_s: float) -> list[T]:
        """Remove and return all items; if there are none, wait for the first."""
        if not self.items:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), timeout_s)
        self._arrived.clear()
        taken = list(self.items)
        self.items.clear()
        return taken


class _ClientQueue(EventQueue[Event]):
    """The events for one client, and which of them it has received.

    Attributes:
        attached: whether the client knows the state of the cluster before the first of these events.
        last_seen: the time of its last poll.
        nbytes: the approximate size of the items.
        is_prompt: False if the controller has waited in vain for a poll of the client, and it has not polled since.
        watches_work: whether it gets events about the requests of other clients.
    """

    def __init__(self, *, attached: bool) -> None:
        super().__init__()
        self.attached = attached
        self.last_seen = time.monotonic()
        self.nbytes = 0
        self.is_prompt = True
        self.watches_work = False
        self._put = self._taken = self._received = 0
        self._progress = asyncio.Event()

    @property
    def takes_more(self) -> bool:
        """True if the client polls, and the queue is not full."""
        fits = len(self.items) < QUEUE_EVENTS and self.nbytes < QUEUE_BYTES
        return fits and self.last_seen > time.monotonic() - CLIENT_LEASE_S

    def put(self, item: Event) -> None:
        super().put(item)
        self._put += 1
        if isinstance(item, OutputEvent):
            self.nbytes += sum(map(size_bytes, item.batch.chunks))

    async def take(self, timeout_s: float) -> list[Event]:
        # A client that polls again has received the items of its last poll.
        self._received, self.is_prompt = self._taken, True
        self._progressed()
        self.last_seen = time.monotonic()
        taken = await super().take(timeout_s)
        self.last_seen = time.monotonic()
        self._taken += len(taken)
        self.nbytes = 0
        return taken

    def end(self) -> None:
        """End the pending poll, and all waits for this client."""
        self._received = self._put
        self._progressed()
        self.wake()

    async def received(self, timeout_s: float) -> bool:
        """Wait until the client has received the present items; return False if it is busy or away."""
        goal = self._put
        try:
            async with asyncio.timeout(timeout_s if self.is_prompt else 0):
                while self._received < goal:
                    await self._progress.wait()
        except TimeoutError:
            self.is_prompt = False
            return False
        return True

    def _progressed(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()


class ClientEventQueues:
    """The event queues of all clients.

    Args:
        returning: clients of a previous controller, which will attach again; until then, their output is stored.
    """

    def __init__(self, returning: Iterable[str] = ()) -> None:
        self._queues = {client: _ClientQueue(attached=False) for client in returning}

    @property
    def expected(self) -> list[str]:
        """The clients that have not attached again."""
        return [client for client, queue in self._queues.items() if not queue.attached]

    @property
    def names(self) -> list[str]:
        """The clients that are attached."""
        return [client for client, queue in self._queues.items() if queue.attached]

    def attach(self, client: str) -> None:
        """Queue all further events for a client."""
        self._drop_lapsed()
        early = self._queues.get(client)
        if early is not None and not early.attached:
            early.attached = True
        else:
            self.detach(client)
            self._queues[client] = _ClientQueue(attached=True)

    def detach(self, client: str) -> None:
        """Remove a client's queue, and end its pending poll."""
        queue = self._queues.pop(client, None)
        if queue is not None:
            queue.end()

    async def take(self, client: str, timeout_s: float) -> list[Event] | None:
        """Return the events since the last call; None for a client that is not attached."""
        queue = self._queues.get(client)
        if queue is None or not queue.attached:
            return None
        events = await queue.take(timeout_s)
        return events if events or self._queues.get(client) is queue else None

    def announce(self, event: Event) -> None:
        """Queue an event for all clients."""
        for client, queue in list(self._queues.items()):
            if queue.attached:
                self.post(client, event)

    def post(self, client: str, event: Event) -> None:
        """Queue an event for one client, if it is attached or expected."""
        queue = self._queues.get(client)
        if queue is None:
            return
        if queue.takes_more:
            queue.put(event)
        else:
            # The client is away, or far behind. If it returns, it attaches again and gets the state of the cluster.
            self.detach(client)

    def watch_work(self, client: str) -> None:
        """Send a client events about the requests of other clients, as long as it is attached."""
        if (queue := self._queues.get(client)) is not None:
            queue.watches_work = True

    def tell_of_work(self, entries: Sequence[HistoryEntry]) -> None:
        """Queue slow requests for the clients that watch them, except each client's own."""
        for client, queue in list(self._queues.items()) if entries else ():
            if queue.watches_work and (others := tuple(e for e in entries if e.request.client != client)):
                self.post(client, WorkReported(others))

    async def received(self, clients: Iterable[str]) -> bool:
        """Wait a moment for these clients; return whether those attached have received their events."""
        queues = [self._queues[client] for client in clients if client in self._queues]
        return all(await asyncio.gather(*(queue.received(DELIVERY_S) for queue in queues)))

    def close(self) -> None:
        """End all polls."""
        for client in list(self._queues):
            self.detach(client)

    def _drop_lapsed(self) -> None:
        lapsed = time.monotonic() - CLIENT_LEASE_S
        for client in [client for client, queue in self._queues.items() if queue.last_seen < lapsed]:
            self.detach(client)
