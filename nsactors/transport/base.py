"""The interface of a transport and its parts, connection info, and the end of a cluster."""

from __future__ import annotations

import json
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, field
from typing import Any, NamedTuple, Protocol

from nsactors._frozen import frozen
from nsactors.errors import (
    AccessRefused,
    CapabilityError,
    ClusterLost,
    ClusterStopped,
    ClusterUnreachable,
    NsactorsError,
    SerializationError,
)
from nsactors.protocol import arguments as arg
from nsactors.protocol.control import (
    ClusterState,
    Command,
    EngineReport,
    Event,
    HistoryEntry,
    Program,
    Query,
    QueryReply,
    Receipt,
)
from nsactors.protocol.engine_info import EngineInfo, EngineOptions
from nsactors.protocol.messages import Capability, EngineRequest, Reply
from nsactors.protocol.serialize import Payload, StoredObject, pack, unpack
from nsactors.services.service import Services
from nsactors.system.private_files import from_fields, read_private, write_private

MakeNamedActor = Callable[["Transport", Callable[[], None]], Any]
"""A class or function that makes a named actor, in the process in which the actor lives; it is importable there.

Its arguments are a transport for the actor, and a function to call when the cluster is gone. The methods of the actor
are coroutines on an event loop that other coroutines share: no method may block.
"""


class NamedActorGone(Exception):
    """The process of a named actor has ended, and its data is lost."""


class NamedActorClient(Protocol):
    """Calls methods of a named actor and waits for their results."""

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """Call a method. Arguments and result are pickled, even within one process.

        Raises:
            NsactorsError: an error that the method raises.
            NamedActorGone: if the actor's process has ended.
            ConnectionLost: if the cluster is gone, or there is no reply in time.
        """
        ...


def pack_arguments(method: str, args: tuple[Any, ...], ref_types: tuple[type, ...]) -> Payload:
    """Pack the arguments of a call to a named actor."""
    return pack(args, what=f"what {method}() takes", ref_types=ref_types)


async def answer(target: Any, method: str, arguments: Payload, ref_types: tuple[type, ...]) -> Payload:
    """Call a method of a named actor; return its packed outcome."""
    try:
        outcome = True, await getattr(target, method)(*unpack(arguments))
    except NsactorsError as error:  # raised again at the caller
        outcome = False, error
    except (SystemExit, KeyboardInterrupt) as error:
        # Unpickling an argument has raised this error. It must not end the event loop, which all callers share.
        reason = f"reading it raises {type(error).__name__}"
        outcome = False, SerializationError(f"what {method}() takes", reason)
    return pack(outcome, what=f"what {method}() gives", ref_types=ref_types)


def outcome_of(answer: Payload) -> Any:
    """Return the value of a method from its packed outcome, or raise its error."""
    succeeded, outcome = unpack(answer)
    if succeeded:
        return outcome
    raise outcome


_LAST_PORT = 65_535


@frozen
class ConnectionInfo:
    """The connection info of a cluster, for ``Client.connect(info)`` in any process of the same user.

    The info holds no secret, only the path of a secret. Use :meth:`save` and :meth:`load` to pass it to another
    process.

    Attributes:
        address: the address of the Ray cluster, ``host:port``.
        namespace: the cluster's namespace in Ray.
        settings: environment variables for Ray in a process that connects.
        versions: the cluster's versions of Python and packages; a process that connects compares them with its own.
    """

    address: str
    namespace: str
    settings: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The fields may come from a file of any origin.
        check_address(self.address, elsewhere=True)
        if any(not name or "=" in name or "\0" in name + value for name, value in self.settings.items()):
            raise ValueError("its settings are not environment variables")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the connection info to a file that only this user can read; make missing folders in the same way."""
        arg.check("save", path=arg.path(path))
        write_private(path, json.dumps(asdict(self), indent=2))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ConnectionInfo:
        """Read a file that :meth:`save` has written.

        Raises:
            ClusterUnreachable: if there is no such file, or the file is not a connection file.
            AccessRefused: if the file belongs to another user.
        """
        arg.check("load", path=arg.path(path))  # a number would be an open file of this process
        try:
            return cls.from_dict(json.loads(read_private(path)))
        except AccessRefused:
            raise
        except OSError as error:
            raise ClusterUnreachable(os.fspath(path), f"this file cannot be read ({error.strerror})") from None
        except (ValueError, RecursionError) as error:
            reason = f"ConnectionInfo.save() has not written this file ({error})"
            raise ClusterUnreachable(os.fspath(path), reason) from None

    @classmethod
    def from_dict(cls, fields: Any) -> ConnectionInfo:
        """Return connection info from the dictionary that :func:`dataclasses.asdict` makes of it.

        Raises:
            ValueError: if it has other keys or types.
        """
        return from_fields(cls, fields)


def check_address(address: str, *, elsewhere: bool = False) -> None:
    """Raise ValueError if this cannot be the address of a Ray cluster.

    Args:
        address: the text to check.
        elsewhere: do not accept words that mean a cluster on this machine.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and int(port) <= _LAST_PORT:
        return
    if elsewhere or not (address in ("auto", "local") or address.startswith("ray://")):
        word = "" if elsewhere else ", or auto"
        raise ValueError(
            f"a Ray cluster's address is written host:port, such as 10.0.0.1:6379{word}; {address!r} is not"
        )


class LossListener(Protocol):
    """Gets notice of the loss of a cluster. Its methods must neither block nor call the cluster."""

    @property
    def has_something_to_lose(self) -> bool:
        """True if there are engines or open calls, so that a loss matters."""
        ...

    def cluster_lost(self, lost: ClusterLost) -> None:
        """End all open calls."""
        ...


class ClusterEnd(threading.Event):
    """The end of a cluster: set when this process has stopped it, or has lost it.

    Attributes:
        lost: the reason, if the cluster was lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost: ClusterLost | None = None
        self._listeners: weakref.WeakSet[LossListener] = weakref.WeakSet()

    def check(self) -> None:
        """Raise ClusterLost or ClusterStopped if the cluster has ended."""
        if self.is_set():
            raise self.error()

    def error(self) -> ClusterStopped:
        """Return the error of calls to a cluster that has ended."""
        return ClusterStopped() if self.lost is None else self.lost.again()

    def when_lost(self, listener: LossListener) -> None:
        """Register a listener for the loss of the cluster, by a weak reference."""
        self._listeners.add(listener)

    @property
    def has_something_to_lose(self) -> bool:
        """True if a loss matters to a listener; otherwise no client is open, or the engines have been stopped."""
        return any(listener.has_something_to_lose for listener in list(self._listeners))

    def lose(self, lost: ClusterLost) -> bool:
        """Let calls from now on fail because the cluster is lost; return whether the loss matters to a listener.

        Calls that are open end when :meth:`tell_listeners` is called.
        """
        if self.is_set():
            return False
        news = self.has_something_to_lose
        self.lost = lost
        self.set()
        return news

    def tell_listeners(self) -> None:
        """End all open calls, if the cluster was lost."""
        if self.lost is not None:
            for listener in list(self._listeners):
                listener.cluster_lost(self.lost)


CALL_TIMEOUT_S = 30.0
WATCH_TIMEOUT_S = 2.0  # tasks wait for the reply, but can do without it
POLL_TIMEOUT_S = 60.0  # more than the controller's own limit for a long poll
TAIL_BYTES = 16_000


class EngineGone(Exception):
    """An engine's process has ended and cannot reply.

    Args:
        reason: the reason for its end, in words.
        stderr_tail: the last lines that it wrote to stderr since it began its last request, as far as they are known.
        last_begun: that request; None if it is not known.
        wanted: whether somebody asked for the end.
    """

    def __init__(self, reason: str, stderr_tail: str = "", last_begun: str | None = None, wanted: bool = False) -> None:
        super().__init__(reason, stderr_tail, last_begun, wanted)
        self.reason = reason
        self.stderr_tail = stderr_tail
        self.last_begun = last_begun
        self.wanted = wanted


class ControllerChannel(Protocol):
    """Calls a method of the controller and waits for its result."""

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """Call a method; repeat the call if the controller dies and restarts during the call.

        Raises:
            ConnectionLost: if the controller is gone or does not reply in time.
        """
        ...


@frozen
class ControllerClient:
    """The controller's methods, as clients and engines call them."""

    line: ControllerChannel

    def register(self, engine: EngineInfo) -> bool:
        """Register an engine that has started; return False if it is not wanted any more."""
        return bool(self.line.call("register", engine, timeout_s=CALL_TIMEOUT_S))

    def poll(self, engine_id: int, incarnation: int) -> list[Command] | None:
        """Wait for commands to an engine; return them, or None if the engine must end."""
        commands: list[Command] | None = self.line.call("poll", engine_id, incarnation, timeout_s=POLL_TIMEOUT_S)
        return commands

    def report(
        self, engine_id: int, incarnation: int, report: EngineReport, timeout_s: float = CALL_TIMEOUT_S
    ) -> Receipt:
        """Deliver the report of an engine: its output, and the requests that it has begun and ended."""
        receipt: Receipt = self.line.call("report", engine_id, incarnation, report, timeout_s=timeout_s)
        return receipt

    def start_engines(self, count: int, options: EngineOptions) -> list[int]:
        """Start engines; return their ids."""
        ids: list[int] = self.line.call("start_engines", count, options, uuid.uuid4().hex, timeout_s=CALL_TIMEOUT_S)
        return ids

    def stop_engines(self, engine_ids: Iterable[int]) -> None:
        """Stop engines; return when their processes have ended."""
        while not self.line.call("stop_engines", list(engine_ids), timeout_s=CALL_TIMEOUT_S):
            pass  # the call returns False from time to time, as a long poll does

    def retire_engines(self, engine_ids: Iterable[int]) -> None:
        """Stop engines when they have finished their requests; return immediately."""
        self.line.call("retire_engines", list(engine_ids), timeout_s=CALL_TIMEOUT_S)

    def restart_engines(self, engine_ids: Iterable[int], *, recovers: bool) -> None:
        """Stop engines and start new processes with their ids; with ``recovers``, recover their namespaces."""
        self.line.call("restart_engines", list(engine_ids), recovers, uuid.uuid4().hex, timeout_s=CALL_TIMEOUT_S)

    def attach(self, client: str) -> ClusterState:
        """Attach a client; return the state of the cluster."""
        state: ClusterState = self.line.call("attach", client, timeout_s=CALL_TIMEOUT_S)
        return state

    def state(self) -> ClusterState:
        """Return the state of the cluster."""
        state: ClusterState = self.line.call("state", timeout_s=CALL_TIMEOUT_S)
        return state

    def clients(self) -> list[str]:
        """Return the names of the clients that are attached."""
        names: list[str] = self.line.call("clients", timeout_s=CALL_TIMEOUT_S)
        return names

    def announce(self, entries: Sequence[HistoryEntry], timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Record in the history the requests that wait at their engines."""
        self.line.call("announce", list(entries), timeout_s=timeout_s)

    def watch_work(self, client: str) -> list[HistoryEntry]:
        """Return the requests of other clients that take long, and send the client events of changes from now on."""
        entries: list[HistoryEntry] = self.line.call("watch_work", client, timeout_s=WATCH_TIMEOUT_S)
        return entries

    def detach(self, client: str) -> None:
        """Detach a client."""
        self.line.call("detach", client, timeout_s=CALL_TIMEOUT_S)

    def events(self, client: str) -> list[Event] | None:
        """Wait for events to a client."""
        events: list[Event] | None = self.line.call("events", client, timeout_s=POLL_TIMEOUT_S)
        return events

    def command(self, engine_ids: Iterable[int], command: Command) -> list[int]:
        """Pass a command to engines; return the ids of the engines that it has reached."""
        reached: list[int] = self.line.call("command", list(engine_ids), command, timeout_s=CALL_TIMEOUT_S)
        return reached

    def query(self, engine_ids: Iterable[int], query: Query, timeout_s: float) -> dict[int, QueryReply]:
        """Send a query to engines, busy or not; return the replies that arrive in time, by engine."""
        replies: dict[int, QueryReply] = self.line.call(
            "query", list(engine_ids), query, timeout_s, timeout_s=timeout_s + CALL_TIMEOUT_S
        )
        return replies

    def lacking_sources(self, digests: Sequence[str]) -> list[str]:
        """Return the digests of the module sources that the cluster does not have."""
        lacking: list[str] = self.line.call("lacking_sources", list(digests), timeout_s=CALL_TIMEOUT_S)
        return lacking

    def keep_sources(self, sources: Sequence[bytes]) -> None:
        """Store sources of modules for engines."""
        self.line.call("keep_sources", list(sources), timeout_s=CALL_TIMEOUT_S)

    def sources(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Return by digest those sources of modules that exist; wait for sources that a client is still sending."""
        sources: dict[str, bytes] = self.line.call("sources", list(digests), timeout_s=CALL_TIMEOUT_S)
        return sources

    def running(self) -> dict[int, tuple[int, list[HistoryEntry]]]:
        """Return for each engine the number of requests it has completed, and the requests that it runs."""
        running: dict[int, tuple[int, list[HistoryEntry]]] = self.line.call("running", timeout_s=CALL_TIMEOUT_S)
        return running

    def history(self, client: str | None, engine_id: int | None, last: int | None) -> list[HistoryEntry]:
        """Return the history of requests, or a part of it: client, engine, times and outcome of each."""
        entries: list[HistoryEntry] = self.line.call("history", client, engine_id, last, timeout_s=CALL_TIMEOUT_S)
        return entries

    def programs(self, engine_id: int) -> tuple[str, list[Program]]:
        """Return the start-up cell of all engines, and the programs that an engine has run since, in order."""
        programs: tuple[str, list[Program]] = self.line.call("programs", engine_id, timeout_s=CALL_TIMEOUT_S)
        return programs

    def shut_down(self, stop_grace_s: float) -> list[str]:
        """Stop all engines and release all clients; return a notice for each engine that had to be killed."""
        notices: list[str] = self.line.call("shut_down", stop_grace_s, timeout_s=CALL_TIMEOUT_S + stop_grace_s)
        return notices


class Envelope(NamedTuple):
    """The address of a request: the engine, the request's number, and the number of stops that its client knew."""

    engine: EngineInfo
    seq: int
    stops_seen: int


class Lane(Protocol):
    """A connection to engines, on which the requests of one client reach each of them in order.

    Requests on different lanes may overtake each other.
    """

    def send(self, requests: Sequence[Envelope], prepared: Any) -> Sequence[Any]:
        """Send the same request to several engines; return a handle on each reply."""
        ...


class Transport(Protocol):
    """One client's connection to the engines and the controller of a cluster.

    ``namespace`` is that of the cluster's :class:`ConnectionInfo`; it is empty for a cluster inside this process.
    """

    name: str
    namespace: str
    capabilities: frozenset[Capability]
    ref_types: tuple[type, ...]
    controller: ControllerClient
    services: Services
    stopped: ClusterEnd

    @property
    def address(self) -> str:
        """The address of this machine for other machines of the cluster."""
        ...

    @property
    def relays(self) -> Lane | None:
        """A tree of relays to many engines; None if each request should be sent by itself."""
        ...

    def stand_by(self, client: str) -> None:
        """Let the controller notice the death of this client's process."""
        ...

    def connection_info(self) -> ConnectionInfo:
        """Return the connection info for other processes; CapabilityError if they cannot connect."""
        ...

    def named_actor(self, name: str, make: MakeNamedActor | None = None) -> NamedActorClient | None:
        """Return a client of a named actor, which is an object that lives in the cluster.

        Args:
            name: its name, which is unique in the cluster.
            make: makes the actor if it does not exist; None to make none.

        Returns:
            None if the actor does not exist, and ``make`` is None.
        """
        ...

    def prepare(self, request: EngineRequest, payload: Payload | None, quick: Sequence[EngineInfo] = ()) -> Any:
        """Encode a request without its number, once for any number of engines.

        Args:
            request: the request.
            payload: its payload.
            quick: its engines, if the request can take a lane to each of them without waiting; otherwise empty. A lane
                may then take larger payloads.
        """
        ...

    def keep(self, payload: Payload) -> StoredObject:
        """Store a payload for several requests to refer to."""
        ...

    def lane(self, engine: EngineInfo, prepared: Any) -> Lane | None:
        """Return a lane that is faster for this request than :meth:`send` (also a lane); None if there is none."""
        ...

    def send(self, request: Envelope, prepared: Any) -> Any:
        """Send a request to one engine; return a handle on its reply."""
        ...

    def make_safe(self) -> None:
        """Let requests that have been sent reach their engines even if this process ends."""
        ...

    def when_answered(self, pending: Any, listener: Callable[[Any], None]) -> None:
        """Call ``listener`` once with the reply in its encoded form, for :meth:`open`, on a thread of the transport."""
        ...

    def take(self, pending: Sequence[Any], timeout_s: float) -> list[Any] | None:
        """Wait for replies; return each in its encoded form for :meth:`open`, or None if some are late.

        After None or an exception, :meth:`when_answered` still delivers each reply.
        """
        ...

    def open(self, engine: EngineInfo, delivered: Any) -> tuple[Reply, Payload | None]:
        """Decode a reply.

        Raises:
            EngineGone: if the engine died before it replied.
        """
        ...

    def close(self) -> None:
        """Let the client leave; drop replies from now on."""
        ...


class Backend(Protocol):
    """Starts and stops the controller of a cluster."""

    def start(self) -> None:
        """Start the controller."""
        ...

    def connect(self) -> Transport:
        """Return the transport of a new client."""
        ...

    def connection_info(self) -> ConnectionInfo:
        """Return the connection info for other processes; CapabilityError if they cannot connect."""
        ...

    def stop(self, stop_grace_s: float | None = None) -> list[str]:
        """Stop the controller and all that was started with it.

        An exception during the wait for engines, for example after Ctrl-C, ends the wait; the engines are then killed.

        Args:
            stop_grace_s: the time that engines may take to end gracefully; None for the time that was set at their
                start.

        Returns:
            A notice for each engine that had to be killed.
        """
        ...


_USE_RAY = "use Cluster(backend='ray') for that"
_LACKS = {"embedded": ("an embedded program", "engines of `nsactors start` and Cluster(n=4) can")}


def require(transport: Transport, capability: Capability, what: str) -> None:
    """Raise CapabilityError if a transport lacks a capability that ``what`` needs."""
    if capability not in transport.capabilities:
        raise CapabilityError(what, *_LACKS.get(transport.name, (f"the {transport.name} transport", _USE_RAY)))


def tail_of(path: str, since: int = 0) -> str:
    """Return the end of a file after position ``since``, at most ``TAIL_BYTES``; empty if there is no file."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(since, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return text.strip()
