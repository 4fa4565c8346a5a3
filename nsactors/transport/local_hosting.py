"""Services in this process: whoever calls one does its work, under a lock."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from nsactors.core.machine import Answer, Desk, Desks, Machine, Ticket, Waiting, name_of
from nsactors.core.payload import Payload, pack, unpack
from nsactors.core.remote_value import StoredObject
from nsactors.errors import ServiceClosed
from nsactors.transport.hosting import Service

__all__ = ["LocalServices"]

_serials = itertools.count(1)


class LocalServices:
    """The services of a local cluster. It travels as itself.

    Args:
        keep: puts a payload aside.
        ref_types: of what may be inside payloads.
    """

    def __init__(self, keep: Callable[[Payload], StoredObject], ref_types: tuple[type, ...]) -> None:
        self.keep = keep
        self.ref_types = (*ref_types, LocalServices)
        self._lock = threading.Lock()
        self._desks = Desks()
        self._answers: dict[tuple[str, Ticket], Future[Answer]] = {}
        self._put_off: deque[Callable[[], None]] = deque()

    def host(self, machine: Machine, name: str | None) -> Service:
        """The service of this name, or a new one; see ``Services``."""
        name = name or f"{type(machine).__name__}-{secrets.token_hex(4)}"
        copy = unpack(pack(machine, what="the machine", ref_types=self.ref_types))  # as it goes to a process elsewhere
        with self._lock:
            key = self._desks.open(name, lambda: copy)
        return Service(_LocalWire(self, key, next(_serials)))

    def waiting(self) -> list[Waiting]:
        """The calls that wait; see ``Services``."""
        now = time.monotonic()
        with self._lock:
            calls = [waiting for desk in self._desks.values() for waiting in desk.waiting()]
        return [waiting._replace(since=now - waiting.since) for waiting in calls]

    def call(self, key: str, ticket: Ticket, request: Any) -> Future[Answer]:
        """Hand in a call; its answer, once there is one."""
        answer: Future[Answer] = Future()

        def hand_in() -> None:
            self._answers[key, ticket] = answer
            # Nothing is overtaken here: the caller is still inside its call when the desk has it.
            self._deliver(key, self._desks[key].call(ticket, 0, request, time.monotonic()))

        with self._lock:
            self._do_put_off()
            if key in self._desks:
                hand_in()
                return answer
        answer.set_result(Answer(ticket, error=ServiceClosed(name_of(key))))
        return answer

    def soon(self, key: str, act: Callable[[Desk], list[Answer] | None]) -> None:
        """Do something at a desk, now or before anything else is done there. It may be called anywhere.

        What drops an answer may do so while it holds the lock: the garbage collector chooses the moment.
        """

        def at_desk() -> None:
            if key in self._desks:
                self._deliver(key, act(self._desks[key]) or [])

        self._put_off.append(at_desk)
        while self._put_off and self._lock.acquire(blocking=False):
            try:
                self._do_put_off()
            finally:
                self._lock.release()

    def end_thread(self, thread: int | None) -> None:
        """A thread has ended that was an engine, or should have: it waits no more."""
        mark = f"/{thread}."
        with self._lock:
            for key, desk in self._desks.items():
                for party in [party for party in desk.parties if mark in party]:
                    self._deliver(key, desk.leave(party, died=True))

    def leave(self, key: str, serial: int) -> None:
        """Nobody has this way to a service any more."""

        def let_go(desk: Desk) -> list[Answer]:
            mine = [party for party in desk.parties if party.endswith(f".{serial}")]
            return [answer for party in mine for answer in desk.leave(party)]

        self.soon(key, let_go)

    def close(self, key: str | None = None) -> None:
        """End a service, or all of them."""
        with self._lock:
            for ending in [key] if key is not None else list(self._desks):
                if desk := self._desks.pop(ending, None):
                    self._deliver(ending, desk.close(partial(ServiceClosed, name_of(ending))))

    def _do_put_off(self) -> None:
        while self._put_off:
            with contextlib.suppress(IndexError):
                self._put_off.popleft()()

    def _deliver(self, key: str, answers: list[Answer]) -> None:
        for answer in answers:
            if waiting := self._answers.pop((key, answer.ticket), None):
                waiting.set_result(answer)


@dataclass(frozen=True, slots=True)
class _LocalWire:
    """A way to a local service; see ``Wire``."""

    services: LocalServices
    key: str
    serial: int

    @property
    def name(self) -> str:
        return name_of(self.key)

    @property
    def ref_types(self) -> tuple[type, ...]:
        return self.services.ref_types

    def party(self) -> str:
        thread = threading.current_thread()
        label = thread.name.replace("engine-", "engine ")
        return f"{label}/{thread.ident}.{self.serial}"

    def submit(self, ticket: Ticket, after: int, request: Any) -> Future[Answer]:
        return self.services.call(self.key, ticket, request)

    def tell(self, ticket: Ticket, after: int, request: Any) -> None:
        answer = self.services.call(self.key, ticket, request)
        # It is handled at once; an answer that comes later would be one that nobody looks at.
        if answer.done() and (error := answer.result().error) is not None:
            raise error

    def flush(self) -> None:
        """Nothing is under way here."""

    def is_answered(self, handle: Future[Answer]) -> bool:
        return handle.done()

    def receive(self, handle: Future[Answer], timeout_s: float | None) -> Answer:
        return handle.result(timeout_s)

    def acknowledge(self, ticket: Ticket) -> None:
        self.services.soon(self.key, lambda desk: desk.acknowledge(ticket))

    def withdraw(self, ticket: Ticket) -> None:
        self.services.soon(self.key, lambda desk: desk.withdraw(ticket))

    def keep(self, payload: Payload) -> StoredObject:
        return self.services.keep(payload)

    def close(self) -> None:
        self.services.close(self.key)

    def __del__(self) -> None:
        self.services.leave(self.key, self.serial)

    def __reduce__(self) -> Any:
        return _wire_here, (self.services, self.key)


def _wire_here(services: LocalServices, key: str) -> _LocalWire:
    return _LocalWire(services, key, next(_serials))
