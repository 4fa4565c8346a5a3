"""What waits for those that come to fetch it: commands for engines, events for clients."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from nsactors.core.cluster import Event, OutputEvent
from nsactors.core.output import size_bytes

__all__ = ["ClientMailboxes", "Mailbox"]

T = TypeVar("T")

CLIENT_LEASE_S = 90.0
MAILBOX_EVENTS = 20_000
MAILBOX_BYTES = 100_000_000
DELIVERY_S = 0.2


class Mailbox(Generic[T]):
    """Items for one party."""

    def __init__(self) -> None:
        self.items: deque[T] = deque()
        self._arrived = asyncio.Event()

    def put(self, item: T) -> None:
        """Add an item."""
        self.items.append(item)
        self._arrived.set()

    def wake(self) -> None:
        """Whoever waits has waited long enough."""
        self._arrived.set()

    async def take(self, timeout_s: float) -> list[T]:
        """Everything there is; waits for the first item."""
        if not self.items:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), timeout_s)
        self._arrived.clear()
        taken = list(self.items)
        self.items.clear()
        return taken


class _ClientMailbox(Mailbox[Event]):
    """Events for one client, and how far it has them.

    Attributes:
        attached: it has been told how things stood when the first of these events happened.
        last_seen: when it came last.
        nbytes: what the items take up, about.
        is_prompt: it has fetched what there was each time somebody waited for that.
    """

    def __init__(self, *, attached: bool) -> None:
        super().__init__()
        self.attached = attached
        self.last_seen = time.monotonic()
        self.nbytes = 0
        self.is_prompt = True
        self._put = self._taken = self._received = 0
        self._progress = asyncio.Event()

    @property
    def takes_more(self) -> bool:
        """Whether it is listened to, and not too full."""
        fits = len(self.items) < MAILBOX_EVENTS and self.nbytes < MAILBOX_BYTES
        return fits and self.last_seen > time.monotonic() - CLIENT_LEASE_S

    def put(self, item: Event) -> None:
        super().put(item)
        self._put += 1
        if isinstance(item, OutputEvent):
            self.nbytes += sum(map(size_bytes, item.batch.chunks))

    async def take(self, timeout_s: float) -> list[Event]:
        # Whoever comes for more has received what it took before.
        self._received, self.is_prompt = self._taken, True
        self._progressed()
        self.last_seen = time.monotonic()
        taken = await super().take(timeout_s)
        self.last_seen = time.monotonic()
        self._taken += len(taken)
        self.nbytes = 0
        return taken

    def end(self) -> None:
        """Nobody waits here or for this any more."""
        self._received = self._put
        self._progressed()
        self.wake()

    async def received(self, timeout_s: float) -> bool:
        """Wait until the client has what is here now; whether it has, for it may be busy or away."""
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


class ClientMailboxes:
    """The events of all clients.

    Args:
        returning: clients of a controller before this one, which will attach again; output that comes for them before
            they do is kept.
    """

    def __init__(self, returning: Iterable[str] = ()) -> None:
        self._boxes = {client: _ClientMailbox(attached=False) for client in returning}

    @property
    def expected(self) -> list[str]:
        """The clients that have not attached again."""
        return [client for client, box in self._boxes.items() if not box.attached]

    @property
    def names(self) -> list[str]:
        """The clients that are attached."""
        return [client for client, box in self._boxes.items() if box.attached]

    def attach(self, client: str) -> None:
        """From now on a client is told everything."""
        self._forget_lapsed()
        early = self._boxes.get(client)
        if early is not None and not early.attached:
            early.attached = True
        else:
            self.detach(client)
            self._boxes[client] = _ClientMailbox(attached=True)

    def detach(self, client: str) -> None:
        """A client leaves; its pending poll ends."""
        box = self._boxes.pop(client, None)
        if box is not None:
            box.end()

    async def take(self, client: str, timeout_s: float) -> list[Event] | None:
        """What has happened since the last call; None for a client that is not attached."""
        box = self._boxes.get(client)
        if box is None or not box.attached:
            return None
        events = await box.take(timeout_s)
        return events if events or self._boxes.get(client) is box else None

    def announce(self, event: Event) -> None:
        """Tell every client."""
        for client, box in list(self._boxes.items()):
            if box.attached:
                self.post(client, event)

    def post(self, client: str, event: Event) -> None:
        """Tell one client, if it is there or expected back."""
        box = self._boxes.get(client)
        if box is None:
            return
        if box.takes_more:
            box.put(event)
        else:
            # It is away, or far behind. If it comes back it attaches anew and is told how things stand.
            self.detach(client)

    async def received(self, clients: Iterable[str]) -> bool:
        """Wait a moment for these clients; whether those that are there have what was posted to them."""
        boxes = [self._boxes[client] for client in clients if client in self._boxes]
        return all(await asyncio.gather(*(box.received(DELIVERY_S) for box in boxes)))

    def close(self) -> None:
        """End every poll."""
        for client in list(self._boxes):
            self.detach(client)

    def _forget_lapsed(self) -> None:
        lapsed = time.monotonic() - CLIENT_LEASE_S
        for client in [c for c, box in self._boxes.items() if box.last_seen < lapsed]:
            self.detach(client)
