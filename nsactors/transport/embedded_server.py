"""The part of a client's connection that is in the embedded program; it passes messages on to engine and controller.

The messages of a client are tuples. A reply has the ``number`` of its message, and need not be in order::

    ("call", number, method, args)       a method of the controller; the reply is ("answer", number, succeeded, value)
    ("request", number, process, header, sealed)
                                         a request to the engine; ("reply", number, header, sealed), or ("gone", number,
                                         reason) if it has ended
    ("load", number, object)             a stored object; ("answer", number, succeeded, payload)
    ("release", object)                  a stored object that the client no longer refers to
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import select
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pickle import PickleBuffer
from typing import Any

from nsactors.errors import CapabilityError, NsactorsError, SerializationError
from nsactors.protocol.control import EndProcess, Interrupt, InterruptTasks, Signal
from nsactors.protocol.serialize import ObjectGone, Payload
from nsactors.protocol.wire import Sealed
from nsactors.transport.base import EngineGone
from nsactors.transport.channel import Changes, Channel, accept, decode, encode
from nsactors.transport.local import LocalCluster, LocalEngine, LocalObject, SentRequest
from nsactors.transport.local_services import LocalServices

PAUSE_S = 0.1  # the time until the next try to accept a client
HELD, GIVEN = "held", "given"  # objects stored here, and payloads that a client has stored
no_fork = threading.Lock()
"""Held while a connection is accepted and stored: a child forked in between would keep the connection open."""

_CALLS = frozenset(
    {
        *("announce", "attach", "clients", "command", "detach", "events", "history", "programs", "query"),
        *("running", "state", "watch_work"),
    }
)
_REFUSED = {
    "start_engines": "start more engines",
    "stop_engines": "stop its engine",
    "retire_engines": "stop its engine",
    "restart_engines": "restart its engine",
    "shut_down": "be stopped by a client",
}
_ITS_OWN = "it is a program of its own; Cluster(n=4) and `nsactors start` make engines"


class Visits:
    """The clients that attach to a program and leave.

    Attributes:
        present: the names of the clients that are attached.
        left: the number of clients that have left.
        changed: held while these change; notified of each change, of each request, and of the end.
    """

    def __init__(self) -> None:
        self.present: set[str] = set()
        self.left = 0
        self.changed = threading.Condition()

    def come(self, client: str) -> None:
        """Add a client that attaches."""
        with self.changed:
            self.present.add(client)
            self.changed.notify_all()

    def leave(self, client: str) -> None:
        """Remove a client that has left."""
        with self.changed:
            self.present.discard(client)
            self.left += 1
            self.changed.notify_all()

    def tell(self) -> None:
        """Wake the threads that wait for a change."""
        with self.changed:
            self.changed.notify_all()


class Server:
    """Accepts clients of an embedded program, and passes their messages on.

    Args:
        listener: the socket.
        cluster: the controller and its event loop.
        engine: the engine.

    Attributes:
        visits: the clients that attach and leave.
    """

    def __init__(self, listener: socket.socket, cluster: LocalCluster, engine: LocalEngine) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._cluster = cluster
        self._engine = engine
        self.visits = Visits()
        self._connections: set[_Connection] = set()
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        threading.Thread(target=self._accept, name="nsactors-embed", daemon=True).start()

    def close(self) -> None:
        """Accept no more clients, and close the connections."""
        with self._lock:
            self._is_closed.set()
            connections = list(self._connections)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the wait for clients
        self._listener.close()
        for connection in connections:
            connection.close()
        self.visits.tell()

    def abandon(self) -> None:
        """Close the descriptors, in a process that has been forked."""
        self._listener.close()
        for connection in self._connections:
            connection.channel.abandon()

    def _accept(self) -> None:
        clients = select.poll()
        clients.register(self._listener, select.POLLIN)
        while not self._is_closed.is_set():
            clients.poll()
            try:
                self._admit()
            except BlockingIOError:  # the client has left again
                continue
            except Exception:  # there are too many open files or threads now, or the listener has been closed
                self._is_closed.wait(PAUSE_S)

    def _admit(self) -> None:
        with no_fork:
            connection = self._next()
        if connection is None:
            return
        try:
            run = partial(self._serve, connection)
            threading.Thread(target=run, name="nsactors-embed-client", daemon=True).start()
        except BaseException:
            self._forget(connection)
            connection.channel.close()
            raise

    def _next(self) -> _Connection | None:
        channel = accept(self._listener)
        if channel is None:
            return None
        with self._lock:
            if self._is_closed.is_set():
                channel.close()
                return None
            connection = _Connection(channel, self._cluster, self._engine, self.visits)
            self._connections.add(connection)
        return connection

    def _serve(self, connection: _Connection) -> None:
        try:
            connection.serve()
        finally:
            self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        with self._lock:
            self._connections.discard(connection)


class _Connection:
    """The connection of one client.

    Attributes:
        channel: its channel.
        clients: the names of the clients that are attached by this connection.
    """

    def __init__(self, channel: Channel, cluster: LocalCluster, engine: LocalEngine, visits: Visits) -> None:
        self.channel = channel
        self.clients: set[str] = set()
        self._cluster = cluster
        self._engine = engine
        self._visits = visits
        self._is_closed = False
        self._held: dict[int, LocalObject] = {}
        self._numbers = itertools.count()
        self._changes: Changes = {
            LocalObject: self._hold,
            LocalServices: lambda services: ("nothing",),
            type(engine): lambda engine: ("nothing",),
        }

    def serve(self) -> None:
        """Handle messages until the client closes its end, dies, or sends a message that cannot be read."""
        try:
            while (message := self._receive()) is not None:
                self._handle(message)
                del message  # its arrays would otherwise stay until the next message
        finally:
            self.channel.close()
            self._held.clear()
            for client in list(self.clients):
                if not self._is_closed:
                    self._submit(self._cluster.controller.detach(client), lambda done: None)  # type: ignore[union-attr]
                self._leave(client)

    def _receive(self) -> tuple[Any, ...] | None:
        try:
            message: tuple[Any, ...] = decode(self.channel.receive(), self._arrive)
        except Exception:  # ChannelClosed, or an error of a pickle: errors of clients do not belong on this terminal
            return None
        return message

    def close(self) -> None:
        """Close the channel: the program ends its engine."""
        self._is_closed = True
        self.channel.close()

    def _handle(self, message: tuple[Any, ...]) -> None:
        match message:
            case ("call", number, method, args):
                self._call(number, method, args)
            case ("request", number, process, header, sealed):
                self._request(number, process, bytes(header), sealed)
            case ("load", number, object_id):
                self._load(number, object_id)
            case ("release", object_id):
                self._held.pop(object_id, None)

    def _call(self, number: int, method: str, args: tuple[Any, ...]) -> None:
        if method not in _CALLS or (
            method == "command" and isinstance(args[1], Interrupt | InterruptTasks | Signal | EndProcess)
        ):
            what = _REFUSED.get(method, "be interrupted or signalled" if method == "command" else method)
            return self._answer(number, False, CapabilityError(what, "an embedded program", _ITS_OWN))
        if method == "attach":
            self.clients.add(args[0])
            self._visits.come(args[0])
        elif method == "detach":
            self._leave(args[0])

        def answer(done: Future[Any]) -> None:
            if done.cancelled():
                return  # the program closes its engine
            error = done.exception()
            self._answer(number, error is None, done.result() if error is None else error)

        self._submit(getattr(self._cluster.controller, method)(*args), answer)

    def _leave(self, client: str) -> None:
        if client in self.clients:
            self.clients.remove(client)
            self._visits.leave(client)

    def _submit(self, coroutine: Any, then: Callable[[Future[Any]], None]) -> None:
        try:
            asyncio.run_coroutine_threadsafe(coroutine, self._cluster.loop).add_done_callback(then)
        except RuntimeError:  # the loop has been closed
            coroutine.close()

    def _request(self, number: int, process: tuple[int, int], header: bytes, sealed: Sealed) -> None:
        spec = self._engine.spec
        if process != (spec.engine_id, spec.incarnation):
            return self._send(("gone", number, "there is no such engine"))

        def reply(done: Future[Any]) -> None:
            outcome = done.result()
            if isinstance(outcome, EngineGone):
                self._send(("gone", number, outcome.reason))
            else:
                header, sealed = outcome
                self._send(("reply", number, header, beside(sealed)))

        sent = SentRequest(header, received(sealed))
        sent.reply.add_done_callback(reply)
        self._engine.send(sent)
        self._visits.tell()

    def _load(self, number: int, object_id: int) -> None:
        try:
            data, buffers, refs = self._held[object_id].load()
        except (KeyError, ObjectGone) as error:
            return self._answer(number, False, ObjectGone(str(error)))
        self._answer(number, True, (PickleBuffer(data), tuple(map(PickleBuffer, buffers)), refs))

    def _answer(self, number: int, succeeded: bool, value: Any) -> None:
        self._send(("answer", number, succeeded, value))

    def _send(self, message: tuple[Any, ...]) -> None:
        try:
            parts = encode(message, self._changes)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            failed = error if isinstance(error, NsactorsError) else SerializationError("the answer", reason)
            parts = encode(("answer", message[1], False, failed), self._changes)
        self.channel.send(parts)

    def _hold(self, stored: LocalObject) -> tuple[Any, ...]:
        object_id = next(self._numbers)
        self._held[object_id] = stored
        return HELD, object_id

    def _arrive(self, *made: Any) -> Any:
        match made:
            case ("held", object_id):
                return self._held[object_id]
            case ("given", data, buffers, refs):
                return LocalObject(None, Payload(bytes(data), tuple(buffers), tuple(refs)))
        return None


def beside(sealed: Sealed) -> Sealed:
    """Return a sealed payload whose buffers travel beside the pickle of a message."""
    return sealed._replace(buffers=tuple(map(PickleBuffer, sealed.buffers)))


def received(sealed: Sealed) -> Sealed:
    """Return a sealed payload that has arrived in a message: its first buffer is a pickle, which is ``bytes``."""
    if not sealed.buffers:
        return sealed
    data, *buffers = sealed.buffers
    return sealed._replace(buffers=(bytes(data), *buffers))
