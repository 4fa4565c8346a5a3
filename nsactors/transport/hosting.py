"""Services, as those who call them see them: the same on each transport, above its *wire*."""

from __future__ import annotations

import itertools
import threading
from typing import Any, Protocol

from nsactors.core.machine import Answer, Machine, Ticket, Waiting
from nsactors.core.payload import Payload, pack, unpack
from nsactors.core.remote_value import StoredObject
from nsactors.core.wire import INLINE_LIMIT_BYTES
from nsactors.namespace.contacts import CONTACTS

__all__ = ["Parcel", "Pending", "Service", "Services", "Wire"]

Parcel = Payload | StoredObject


class Wire(Protocol):
    """One caller's way to a service."""

    @property
    def name(self) -> str:
        """The name of the service."""
        ...

    @property
    def ref_types(self) -> tuple[type, ...]:
        """See ``ObjectStore``."""
        ...

    def party(self) -> str:
        """Who is calling: this process, or this thread."""
        ...

    def submit(self, ticket: Ticket, after: int, request: Any) -> Any:
        """Send a call; what stands for its answer until it is here."""
        ...

    def tell(self, ticket: Ticket, after: int, request: Any) -> None:
        """Send a call that needs no answer, soon; nothing that is sent later overtakes it."""
        ...

    def flush(self) -> None:
        """Wait until all that was told has been handled; raises what went wrong with it."""
        ...

    def is_answered(self, handle: Any) -> bool:
        """Whether the answer is here."""
        ...

    def receive(self, handle: Any, timeout_s: float | None) -> Answer:
        """Wait for the answer.

        Raises:
            TimeoutError: if it is not here in time.
            ServiceClosed: if there will be none.
        """
        ...

    def acknowledge(self, ticket: Ticket) -> None:
        """Say that what this call took has been received; does not wait."""
        ...

    def withdraw(self, ticket: Ticket) -> None:
        """Say that nobody waits for this call any more; does not wait."""
        ...

    def keep(self, payload: Payload) -> StoredObject:
        """Put a payload into the object store of this machine."""
        ...

    def close(self) -> None:
        """End the service."""
        ...


class Services(Protocol):
    """The services of a cluster."""

    def host(self, machine: Machine, name: str | None) -> Service:
        """The service of this name; if there is none, a new one with this machine."""
        ...

    def waiting(self) -> list[Waiting]:
        """The calls that wait at any of them; ``since`` is how many seconds ago they were made."""
        ...


class Pending:
    """The answer to a call, once it is there. Whoever drops it withdraws the call."""

    def __init__(self, wire: Wire, ticket: Ticket) -> None:
        self._wire = wire
        self._ticket = ticket
        self._handle: Any = None
        self._answer: Answer | None = None
        self._is_open = True

    def send(self, after: int, request: Any) -> None:
        """Send the call; see :meth:`Wire.submit`."""
        self._handle = self._wire.submit(self._ticket, after, request)

    def done(self) -> bool:
        """Whether :meth:`result` returns at once."""
        return self._answer is not None or self._wire.is_answered(self._handle)

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the answer.

        Raises:
            TimeoutError: if it is not there in time; the call goes on.
            ServiceClosed: if there will be none.
            Exception: what the service answers with.
        """
        if self._answer is None:
            self._answer = self._wire.receive(self._handle, timeout_s)
            if self._answer.takes:
                self._wire.acknowledge(self._ticket)
            self._is_open = False
        if self._answer.error is not None:
            raise self._answer.error
        return self._answer.value

    def withdraw(self) -> None:
        """Wait no more: the service forgets the call, and takes back what has not been received."""
        if self._is_open:
            self._is_open = False
            self._wire.withdraw(self._ticket)

    def __del__(self) -> None:
        self.withdraw()


class Service:
    """A state machine that the cluster hosts: see :class:`nsactors.core.machine.Machine`.

    It can be pushed to engines, passed to calls there, and be part of what is: its calls mean the same everywhere.
    It is used from any thread; the calls of one process are handled in the order in which they were made.

    Args:
        wire: the way to it.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._last = 0

    @property
    def name(self) -> str:
        """What it is known by in its cluster."""
        return self._wire.name

    def call(self, request: Any, timeout_s: float | None = None) -> Any:
        """Make a request and wait for the answer.

        An interrupt withdraws the call: nothing is taken then.

        Args:
            request: plain values and parcels (see :meth:`pack`), in tuples.
            timeout_s: None: as long as it takes.

        Raises:
            TimeoutError: if there is no answer in time; the call has been withdrawn.
            ServiceClosed: if the service has ended.
            Exception: what the service answers with.
        """
        pending = self.ask(request)
        try:
            return pending.result(timeout_s)
        except BaseException:
            pending.withdraw()
            raise

    def ask(self, request: Any) -> Pending:
        """Make a request; its answer is waited for later."""
        CONTACTS.note()
        with self._lock:
            # An interrupt may come anywhere: a number that is left out nobody waits for, and what has been sent is
            # withdrawn when its Pending goes.
            ticket = Ticket(self._wire.party(), next(self._numbers))
            pending = Pending(self._wire, ticket)
            pending.send(self._last, request)
            self._last = ticket.number
        return pending

    def tell(self, request: Any) -> None:
        """Make a request that needs no answer; does not wait, unless many of them are under way.

        It is sent with the next call, or by itself as soon as this thread is busy with other things.

        Raises:
            ServiceClosed: if the service is known to have ended.
            Exception: what goes wrong with it, if that is known already; otherwise :meth:`flush` raises it.
        """
        CONTACTS.note()
        with self._lock:
            ticket = Ticket(self._wire.party(), next(self._numbers))
            self._wire.tell(ticket, self._last, request)
            self._last = ticket.number

    def flush(self) -> None:
        """Wait until all that was told has been handled.

        Raises:
            ServiceClosed: if the service has ended.
            Exception: what the service answered to the last thing told that it did not like.
        """
        self._wire.flush()

    def pack(self, value: object, what: str = "the value") -> Parcel:
        """A value as part of a request. A large one goes into the object store: its bytes do not pass the service.

        Raises:
            SerializationError: if it cannot be pickled.
        """
        payload = pack(value, what=what, ref_types=self._wire.ref_types)
        if payload.refs or payload.nbytes > INLINE_LIMIT_BYTES:
            return self._wire.keep(payload)
        return payload._replace(buffers=tuple(bytes(buffer) for buffer in payload.buffers))

    def unpack(self, parcel: Parcel, *, copy: bool = False) -> Any:
        """The value of a parcel.

        Args:
            copy: make arrays that can be written to.

        Raises:
            ObjectLost: if the process that packed it has ended, and it was large.
        """
        return unpack(parcel if isinstance(parcel, Payload) else parcel.load(), copy=copy)

    def close(self) -> None:
        """End it: whoever waits gets :class:`ServiceClosed`."""
        self._wire.close()

    def __repr__(self) -> str:
        return f"<Service {self.name}>"

    def __reduce__(self) -> Any:
        return Service, (self._wire,)
