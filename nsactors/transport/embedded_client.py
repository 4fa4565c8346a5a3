"""A client's connection to an embedded program: messages over a UNIX socket; see ``embedded_server``."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pickle import PickleBuffer
from typing import Any

from nsactors.errors import (
    CapabilityError,
    ClusterUnreachable,
    ProgramEnded,
    VersionMismatch,
    VersionWarning,
    warn_caller,
)
from nsactors.protocol.engine_info import EngineInfo, compare
from nsactors.protocol.messages import Capability, EngineRequest
from nsactors.protocol.process import OwnProcess
from nsactors.protocol.serialize import ObjectGone, Payload
from nsactors.protocol.wire import Sealed, encode_body, seal, stamp
from nsactors.services.service import Service, Services
from nsactors.services.state_machine import StateMachine, Waiting
from nsactors.system.resources import versions_here
from nsactors.transport.base import (
    ClusterEnd,
    ConnectionInfo,
    ControllerClient,
    EngineGone,
    Envelope,
    MakeNamedActor,
)
from nsactors.transport.channel import Changes, Channel, ChannelClosed, connect, decode, encode
from nsactors.transport.embedded_server import GIVEN, HELD, beside, received
from nsactors.transport.local import FutureReplies

LOAD_S = 60.0
_ONE_ENGINE = "it is one engine; Cluster(n=4) has several"


class HeldObject:
    """A payload that the program stores as long as this object exists."""

    def __init__(self, connection: ProgramConnection, object_id: int) -> None:
        self._connection = connection
        self.object_id = object_id
        weakref.finalize(self, connection.release, object_id).atexit = False

    def load(self) -> Payload:
        """Return the payload; see ``StoredObject``."""
        return self._connection.load(self.object_id)


@dataclass(frozen=True, slots=True, eq=False)
class GivenObject:
    """A payload that this process stores, and sends with each request that refers to it."""

    payload: Payload

    def load(self) -> Payload:
        """Return the payload."""
        return self.payload


class ProgramConnection:
    """Messages to and from an embedded program.

    Args:
        channel: the channel.
        name: the program's name.
    """

    def __init__(self, channel: Channel, name: str) -> None:
        self.stopped = ClusterEnd()
        self._channel = channel
        self._name = name
        self._process = OwnProcess()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._open: dict[int, Future[Any]] = {}
        self._changes: Changes = {
            HeldObject: lambda held: (HELD, held.object_id),
            GivenObject: lambda given: (
                GIVEN,
                PickleBuffer(given.payload.data),
                tuple(map(PickleBuffer, given.payload.buffers)),
                given.payload.refs,
            ),
        }
        _of_this_process.add(self)
        threading.Thread(target=self._receive, name="nsactors-program", daemon=True).start()

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """Call a method of the controller; see ``ControllerChannel``."""
        return self._await(self.submit("call", method, args), method, timeout_s)

    def load(self, object_id: int) -> Payload:
        """Return the payload of an object that the program stores.

        Raises:
            ObjectGone: if it is not available any more.
        """
        try:
            data, buffers, refs = self._await(self.submit("load", object_id), "a value", LOAD_S)
        except (ProgramEnded, ClusterUnreachable) as lost:
            raise ObjectGone(str(lost)) from None
        return Payload(bytes(data), tuple(buffers), tuple(refs))

    def release(self, object_id: int) -> None:
        """Let the program release a stored object; callable from anywhere."""
        if self._process.is_here:
            self._channel.send(encode(("release", object_id), {}))

    def submit(self, kind: str, *terms: Any, waits: bool = False) -> Future[Any]:
        """Send a message; return a future of its reply."""
        self._process.check()
        reply: Future[Any] = Future()
        with self._lock:
            self.stopped.check()
            number = next(self._numbers)
            self._open[number] = reply
        try:
            parts = encode((kind, number, *terms), self._changes)
        except BaseException:
            self._open.pop(number, None)
            raise
        self._channel.send(parts, waits=waits)
        return reply

    def close(self) -> None:
        """Leave the program."""
        if self._process.is_here:
            self.stopped.set()
            self._channel.close()

    def abandon(self) -> None:
        """Close the descriptor in a forked process; the client continues in the parent."""
        self._channel.abandon()

    def _await(self, reply: Future[Any], what: str, timeout_s: float) -> Any:
        try:
            return reply.result(timeout_s)
        except TimeoutError:
            raise ClusterUnreachable(self._name, f"no answer to {what} in {timeout_s:g} s") from None

    def _receive(self) -> None:
        reason = ""
        try:
            while True:
                self._handle(decode(self._channel.receive(), self._arrive))
        except ChannelClosed:
            pass
        except Exception as error:
            reason = f"it sends what cannot be read: {type(error).__name__}: {error}"
        self._end(ProgramEnded(self._name, reason))

    def _end(self, ended: ProgramEnded) -> None:
        with self._lock:
            self.stopped.lose(ended)
            left = list(self._open.values())
            self._open.clear()
        # Notify the listeners first: their error for open calls says more than that the engine has left.
        self.stopped.tell_listeners()
        for reply in left:
            reply.set_exception(self.stopped.error())
        self._channel.close()

    def _handle(self, message: tuple[Any, ...]) -> None:
        reply = self._open.pop(message[1], None)
        if reply is None:
            return
        match message:
            case ("answer", _, True, value):
                reply.set_result(value)
            case ("answer", _, False, error):
                reply.set_exception(error)
            case ("reply", _, header, sealed):
                reply.set_result((bytes(header), received(sealed)))
            case ("gone", _, reason):
                reply.set_result(EngineGone(reason))

    def _arrive(self, *made: Any) -> Any:
        match made:
            case ("held", object_id):
                return HeldObject(self, object_id)
        return None


_of_this_process: weakref.WeakSet[ProgramConnection] = weakref.WeakSet()


def _after_fork() -> None:
    for connection in list(_of_this_process):
        connection.abandon()
    _of_this_process.clear()


os.register_at_fork(after_in_child=_after_fork)


class _NoServices:
    """The services of an embedded program, which has none."""

    def host(self, machine: StateMachine, name: str | None) -> Service:
        raise CapabilityError("host services, such as communicators", "an embedded program", _ONE_ENGINE)

    def waiting(self) -> list[Waiting]:
        return []


class ProgramTransport(FutureReplies):
    """A client's connection to the engine of an embedded program."""

    name = "embedded"
    capabilities: frozenset[Capability] = frozenset()
    ref_types: tuple[type, ...] = (HeldObject, GivenObject)
    relays = None
    address = "127.0.0.1"
    namespace = ""

    def __init__(self, connection: ProgramConnection) -> None:
        self.controller = ControllerClient(connection)
        self.stopped = connection.stopped
        self.services: Services = _NoServices()
        self._connection = connection
        super().__init__()

    def stand_by(self, client: str) -> None:
        """Do nothing, because the program notices the end of a connection."""

    def connection_info(self) -> ConnectionInfo:
        """Raise CapabilityError, because other processes find the program by its name.

        Raises:
            CapabilityError: always.
        """
        what = "give connection info, which kernels of Jupyter need"
        raise CapabilityError(what, "an embedded program", "others find it by its name, as `nsactors console` does")

    def named_actor(self, name: str, make: MakeNamedActor | None = None) -> None:
        """Return None, because there are no processes for objects that outlive their clients.

        Raises:
            CapabilityError: if ``make`` is given.
        """
        if make is not None:
            raise CapabilityError("keep detached tasks", "an embedded program", _ONE_ENGINE)

    def prepare(
        self, request: EngineRequest, payload: Payload | None, quick: Sequence[EngineInfo] = ()
    ) -> tuple[bytes, Sealed]:
        """Encode a request; its payload is sent before :meth:`send` returns."""
        sealed = seal(payload)
        return encode_body(request, sealed), sealed

    def keep(self, payload: Payload) -> GivenObject:
        """Copy a payload."""
        return GivenObject(payload.copied())

    def send(self, request: Envelope, prepared: tuple[bytes, Sealed]) -> Future[Any]:
        """Send a request; large arrays have been written when this returns."""
        body, sealed = prepared
        process = request.engine.engine_id, request.engine.incarnation
        header = stamp(request.seq, request.stops_seen, body)
        return self._connection.submit("request", process, header, beside(sealed), waits=bool(sealed.buffers))

    def close(self) -> None:
        """Leave the program, and deliver no more replies."""
        self._connection.close()
        super().close()


def connect_to_program(name: str, path: str, versions: Mapping[str, str], host: str = "") -> ProgramTransport:
    """Return a client's transport to an embedded program.

    Args:
        name: the program's name.
        path: the path of its socket.
        versions: the program's versions of Python and packages.
        host: the name of its machine, if that is another machine.

    Raises:
        VersionMismatch: if the versions of this process and the program are incompatible.
        AccessRefused: if the program belongs to another user.
        ClusterUnreachable: if the program does not run any more, or is on another machine.
    """
    if host and not os.path.exists(path):
        here = socket.gethostname()
        raise ClusterUnreachable(name, f"it runs on {host}, and is reached there alone; this is {here}")
    compared = compare(versions_here(), versions)
    if compared.fatal:
        raise VersionMismatch(compared.differences)
    if compared.differences:
        warn_caller(VersionWarning(compared.differences))
    return ProgramTransport(ProgramConnection(connect(path, name), name))
