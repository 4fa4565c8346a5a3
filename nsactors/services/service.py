"""A hosted service, as its callers see it: a handle that calls its state machine.

`Service` numbers calls and sends them through a `ServiceChannel`, which each transport implements.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any, Protocol

from nsactors.errors import SerializationError, printable
from nsactors.protocol import arguments as arg
from nsactors.protocol.process import OwnProcess
from nsactors.protocol.serialize import Payload, StoredObject, pack, unpack
from nsactors.protocol.wire import copied_or_stored
from nsactors.services.state_machine import Answer, CallId, StateMachine, Waiting


class Contacts:
    """Counts calls to services, so that a journal knows which requests made such calls.

    Attributes:
        count: the number of calls so far.
    """

    def __init__(self) -> None:
        self.count = 0

    def note(self) -> None:
        """Count a call."""
        self.count += 1


CONTACTS = Contacts()
"""The calls that this process makes. An engine that keeps a journal has a process of its own."""


Parcel = Payload | StoredObject
"""A value as part of a request: pickled, or in the object store."""


class ServiceChannel(Protocol):
    """The connection of one caller to a service."""

    @property
    def name(self) -> str:
        """The name of the service."""
        ...

    @property
    def ref_types(self) -> tuple[type, ...]:
        """See ``ObjectStore``."""
        ...

    def caller(self) -> str:
        """Return the name of this process, or of this thread, as a caller."""
        ...

    def submit(self, ticket: CallId, after: int, request: Any) -> Any:
        """Send a call; return a handle on its answer."""
        ...

    def tell(self, ticket: CallId, after: int, request: Any) -> None:
        """Send a call that needs no answer, immediately or later; the next calls do not overtake it."""
        ...

    def flush(self) -> None:
        """Wait until all calls without an answer have been handled; raise the error of a call that failed."""
        ...

    def is_answered(self, handle: Any) -> bool:
        """Return whether the answer has arrived."""
        ...

    def receive(self, handle: Any, timeout_s: float | None) -> Answer:
        """Wait for the answer.

        Raises:
            TimeoutError: if the answer has not arrived in time.
            ServiceClosed: if no answer will arrive.
        """
        ...

    def acknowledge(self, ticket: CallId) -> None:
        """Report, without waiting, that the value taken by this call has arrived."""
        ...

    def withdraw(self, ticket: CallId) -> None:
        """Report, without waiting, that this process does not need the answer any more."""
        ...

    def keep(self, payload: Payload) -> StoredObject:
        """Put a payload into the object store of this machine."""
        ...

    def close(self) -> None:
        """End the service."""
        ...


class Services(Protocol):
    """The services of a cluster."""

    def host(self, machine: StateMachine, name: str | None) -> Service:
        """Return the service of this name; if there is none, a new service with this state machine."""
        ...

    def waiting(self) -> list[Waiting]:
        """Return the calls that wait at any service; ``since`` is their age in seconds."""
        ...


class ServiceFuture:
    """The answer to a call, which may arrive later. A future that is garbage collected withdraws its call."""

    def __init__(self, channel: ServiceChannel, ticket: CallId, process: OwnProcess) -> None:
        self._channel = channel
        self._process = process
        self._ticket = ticket
        self._handle: Any = None
        self._answer: Answer | None = None
        self._is_open = True

    def send(self, after: int, request: Any) -> None:
        """Send the call; see :meth:`ServiceChannel.submit`."""
        try:
            self._handle = self._channel.submit(self._ticket, after, request)
        except SerializationError:
            self._is_open = False  # nothing has been sent, so there is nothing to withdraw
            raise

    def done(self) -> bool:
        """Return whether :meth:`result` returns immediately."""
        return self._answer is not None or self._channel.is_answered(self._handle)

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the answer.

        Raises:
            TimeoutError: if the answer has not arrived in time; the call continues.
            ServiceClosed: if no answer will arrive.
            Exception: the error that the service answers with.
        """
        arg.check("result", timeout_s=arg.seconds(timeout_s))
        if self._answer is None:
            self._process.check()
            self._answer = self._channel.receive(self._handle, arg.limit_s(timeout_s))
            if self._answer.takes:
                self._channel.acknowledge(self._ticket)
            self._is_open = False
        if self._answer.error is not None:
            raise self._answer.error
        return self._answer.value

    def withdraw(self) -> None:
        """Stop waiting: the service forgets the call, and keeps a value that has not arrived."""
        if self._is_open:
            self._is_open = False
            if self._process.is_here:  # the copy in a forked child stands for a call that its parent has made
                self._channel.withdraw(self._ticket)

    def __del__(self) -> None:
        self.withdraw()


class Service:
    """A state machine that the cluster hosts: see :class:`nsactors.services.state_machine.StateMachine`.

    It can be pushed to engines, and passed to calls on engines, also inside other arguments: its calls mean the same
    everywhere. It can be used from any thread; the calls of one process are handled in the order in which they were
    made.

    Args:
        channel: the connection to it.
    """

    def __init__(self, channel: ServiceChannel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._process = OwnProcess()
        self._numbers = itertools.count(1)
        self._last = 0

    @property
    def name(self) -> str:
        """The name of the service in its cluster."""
        return self._channel.name

    def call(self, request: Any, timeout_s: float | None = None) -> Any:
        """Send a request and wait for the answer.

        An interrupt withdraws the call, which then takes nothing.

        Args:
            request: plain values and parcels (see :meth:`pack`), in tuples.
            timeout_s: the time limit in seconds; None for no limit.

        Raises:
            TimeoutError: if there is no answer in time; the call has been withdrawn.
            ServiceClosed: if the service has ended.
            Exception: the error that the service answers with.
        """
        arg.check("call", timeout_s=arg.seconds(timeout_s))
        pending = self.ask(request)
        try:
            return pending.result(timeout_s)
        except BaseException:
            pending.withdraw()
            raise

    def ask(self, request: Any) -> ServiceFuture:
        """Send a request; wait for its answer later."""
        self._process.check()
        CONTACTS.note()
        with self._lock:
            # An interrupt may come anywhere: no call waits for a number that is left out, and a call that was sent is
            # withdrawn when its future is garbage collected.
            ticket = CallId(self._channel.caller(), next(self._numbers))
            pending = ServiceFuture(self._channel, ticket, self._process)
            pending.send(self._last, request)
            self._last = ticket.number
        return pending

    def tell(self, request: Any) -> None:
        """Send a request that needs no answer; do not wait, unless many such requests are under way.

        It is sent with the next call, or soon by a thread in the background.

        Raises:
            ServiceClosed: if the service is known to have ended.
            Exception: the error of the request, if it is known already; otherwise :meth:`flush` raises it.
        """
        self._process.check()
        CONTACTS.note()
        with self._lock:
            ticket = CallId(self._channel.caller(), next(self._numbers))
            self._channel.tell(ticket, self._last, request)
            self._last = ticket.number

    def flush(self) -> None:
        """Wait until all requests sent by :meth:`tell` have been handled.

        Raises:
            ServiceClosed: if the service has ended.
            Exception: the error of the last request that failed.
        """
        self._process.check()
        self._channel.flush()

    def pack(self, value: object, what: str = "the value") -> Parcel:
        """Pickle a value as part of a request. A large one goes into the object store, and not through the service.

        Raises:
            SerializationError: if it cannot be pickled.
        """
        arg.check("pack", what=arg.text(what))
        payload = pack(value, what=what, ref_types=self._channel.ref_types)
        # All values pass through one process, the host: large ones would make it the bottleneck.
        return copied_or_stored(payload, self._channel.keep)

    def unpack(self, parcel: Parcel, *, copy: bool = False) -> Any:
        """Return the value of a parcel.

        Args:
            copy: make arrays of every size writable.

        Raises:
            ObjectLost: if the value was large, and the process that packed it has ended.
        """
        arg.check("unpack", copy=arg.flag(copy))
        return unpack(parcel if isinstance(parcel, Payload) else parcel.load(), copy=bool(copy))

    def close(self) -> None:
        """End the service: calls that wait raise :class:`ServiceClosed`."""
        self._process.check()
        self._channel.close()

    def __repr__(self) -> str:
        return printable(f"<Service {self.name}>", "")

    def __reduce__(self) -> Any:
        return Service, (self._channel,)
