"""Services of the local transport: each call runs in its caller's thread, under a lock."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import field
from functools import partial
from typing import Any

from nsactors._frozen import frozen
from nsactors.errors import ServiceClosed
from nsactors.protocol.process import OwnProcess
from nsactors.protocol.serialize import Payload, StoredObject, pack, unpack
from nsactors.services.service import Service
from nsactors.services.state_machine import (
    Answer,
    CallId,
    ServiceInbox,
    ServiceInboxes,
    StateMachine,
    Waiting,
    name_of,
    withdrawn,
)

_serials = itertools.count(1)


class LocalServices:
    """The services of a local cluster, pickled by reference.

    Args:
        keep: stores a payload.
        ref_types: classes of references that payloads may hold.
    """

    def __init__(self, keep: Callable[[Payload], StoredObject], ref_types: tuple[type, ...]) -> None:
        self.keep = keep
        self.ref_types = (*ref_types, LocalServices)
        self._lock = threading.Lock()
        self._inboxes = ServiceInboxes()
        self._answers: dict[tuple[str, CallId], Future[Answer]] = {}
        self._deferred: deque[Callable[[], None]] = deque()
        self._ended: set[int] = set()  # threads that continue after their engines have ended

    def host(self, machine: StateMachine, name: str | None) -> Service:
        """Return the service of this name, made from ``machine`` if there is none; see ``Services``."""
        name = name or f"{type(machine).__name__}-{secrets.token_hex(4)}"
        # Copy the machine, as if it were sent to another process.
        copy = unpack(pack(machine, what="the machine", ref_types=self.ref_types))
        with self._lock:
            key = self._inboxes.open(name, lambda: copy)
        return Service(_LocalChannel(self, key, next(_serials)))

    def waiting(self) -> list[Waiting]:
        """Return the calls that wait; see ``Services``."""
        now = time.monotonic()
        with self._lock:
            calls = [waiting for inbox in self._inboxes.values() for waiting in inbox.waiting()]
        return [waiting._replace(since=now - waiting.since) for waiting in calls]

    def call(self, key: str, ticket: CallId, request: Any) -> Future[Answer]:
        """Submit a call; return a future of its answer."""
        answer: Future[Answer] = Future()

        def submit() -> None:
            self._answers[key, ticket] = answer
            # Calls cannot overtake each other, because the caller is still inside its call when the inbox gets it.
            self._deliver(key, self._inboxes[key].call(ticket, 0, request, time.monotonic()))

        with self._lock:
            self._run_deferred()
            if threading.get_ident() in self._ended:
                answer.set_result(withdrawn(ticket))
                return answer
            if key in self._inboxes:
                submit()
                return answer
        answer.set_result(Answer(ticket, error=ServiceClosed(name_of(key))))
        return answer

    def soon(self, key: str, act: Callable[[ServiceInbox], list[Answer] | None]) -> None:
        """Act on an inbox before its next call; callable from anywhere.

        A garbage collection that drops an answer calls this method, perhaps on a thread that holds the lock. So ``act``
        is deferred if the lock is taken.
        """

        def at_inbox() -> None:
            if key in self._inboxes:
                self._deliver(key, act(self._inboxes[key]) or [])

        self._deferred.append(at_inbox)
        while self._deferred and self._lock.acquire(blocking=False):
            try:
                self._run_deferred()
            finally:
                self._lock.release()

    def end_engine(self, thread: int, *, goes_on: bool = False) -> None:
        """Withdraw the calls of an engine that has ended.

        Args:
            thread: the number of its thread.
            goes_on: the thread has not ended, and may run user code. Later calls of the thread are withdrawn as well.
        """
        mark = f"/{thread}."
        with self._lock:
            if goes_on:
                self._ended.add(thread)
            for key, inbox in self._inboxes.items():
                for caller in [caller for caller in inbox.callers if mark in caller]:
                    self._deliver(key, inbox.leave(caller, died=True))

    def end_thread(self, thread: int) -> None:
        """Forget a thread that is about to end, because another thread may get its number."""
        with self._lock:
            self._ended.discard(thread)

    def leave(self, key: str, serial: int) -> None:
        """End the calls of a channel that has been dropped."""

        def leave_all(inbox: ServiceInbox) -> list[Answer]:
            mine = [caller for caller in inbox.callers if caller.endswith(f".{serial}")]
            return [answer for caller in mine for answer in inbox.leave(caller)]

        self.soon(key, leave_all)

    def close(self, key: str | None = None) -> None:
        """Close a service, or all of them."""
        with self._lock:
            for ending in [key] if key is not None else list(self._inboxes):
                if inbox := self._inboxes.pop(ending, None):
                    self._deliver(ending, inbox.close(partial(ServiceClosed, name_of(ending))))

    def _run_deferred(self) -> None:
        while self._deferred:
            try:
                call = self._deferred.popleft()
            except IndexError:  # another thread has taken it
                return
            call()

    def _deliver(self, key: str, answers: list[Answer]) -> None:
        for answer in answers:
            if waiting := self._answers.pop((key, answer.ticket), None):
                waiting.set_result(answer)


@frozen
class _LocalChannel:
    """A channel to a local service; see ``ServiceChannel``."""

    services: LocalServices
    key: str
    serial: int
    process: OwnProcess = field(default_factory=OwnProcess)

    @property
    def name(self) -> str:
        return name_of(self.key)

    @property
    def ref_types(self) -> tuple[type, ...]:
        return self.services.ref_types

    def caller(self) -> str:
        thread = threading.current_thread()
        label = thread.name.replace("engine-", "engine ")
        return f"{label}/{thread.ident}.{self.serial}"

    def submit(self, ticket: CallId, after: int, request: Any) -> Future[Answer]:
        return self.services.call(self.key, ticket, request)

    def tell(self, ticket: CallId, after: int, request: Any) -> None:
        answer = self.services.call(self.key, ticket, request)
        # The request is handled immediately. An answer that comes later is not read.
        if answer.done() and (error := answer.result().error) is not None:
            raise error

    def flush(self) -> None:
        """Do nothing, because no request is on its way."""

    def is_answered(self, handle: Future[Answer]) -> bool:
        return handle.done()

    def receive(self, handle: Future[Answer], timeout_s: float | None) -> Answer:
        return handle.result(timeout_s)

    def acknowledge(self, ticket: CallId) -> None:
        self.services.soon(self.key, lambda inbox: inbox.acknowledge(ticket))

    def withdraw(self, ticket: CallId) -> None:
        self.services.soon(self.key, lambda inbox: inbox.withdraw(ticket))

    def keep(self, payload: Payload) -> StoredObject:
        return self.services.keep(payload)

    def close(self) -> None:
        self.services.close(self.key)

    def __del__(self) -> None:
        if self.process.is_here:
            self.services.leave(self.key, self.serial)

    def __reduce__(self) -> Any:
        return _wire_here, (self.services, self.key)


def _wire_here(services: LocalServices, key: str) -> _LocalChannel:
    return _LocalChannel(services, key, next(_serials))
