"""What a transport offers to clients, and a backend to clusters."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from nsactors.core.cluster import (
    Answer,
    ClusterState,
    Command,
    EngineInfo,
    EngineOptions,
    Event,
    HistoryEntry,
    Question,
    Receipt,
    Report,
)
from nsactors.core.messages import Capability, Instruction, Reply
from nsactors.core.payload import Payload
from nsactors.core.remote_value import StoredObject
from nsactors.errors import CapabilityError
from nsactors.transport.connection import ConnectionInfo
from nsactors.transport.hosting import Services
from nsactors.transport.residents import MakeResident, ResidentLine

__all__ = [
    "Addressed",
    "Backend",
    "ControllerLine",
    "ControllerProxy",
    "EngineGone",
    "Relays",
    "Transport",
    "require",
    "tail_of",
]

CALL_TIMEOUT_S = 30.0
POLL_TIMEOUT_S = 60.0  # above the controller's own limit of a long poll
TAIL_BYTES = 16_000


class EngineGone(Exception):
    """An engine's process has ended and cannot answer."""

    def __init__(self, reason: str, stderr_tail: str = "") -> None:
        super().__init__(reason, stderr_tail)
        self.reason = reason
        self.stderr_tail = stderr_tail


class ControllerLine(Protocol):
    """Calls a method of the controller and waits for its result."""

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """Call a method. It is called again if the controller has died meanwhile, and is being brought back.

        Raises:
            ConnectionLost: if the controller is gone or does not answer in time.
        """
        ...


@dataclass(frozen=True, slots=True)
class ControllerProxy:
    """The controller's methods, as clients and engines call them."""

    line: ControllerLine

    def register(self, engine: EngineInfo) -> bool:
        """An engine is up; False if it is not wanted any more."""
        return bool(self.line.call("register", engine, timeout_s=CALL_TIMEOUT_S))

    def poll(self, engine_id: int, incarnation: int) -> list[Command] | None:
        """Wait for commands to an engine."""
        commands: list[Command] | None = self.line.call("poll", engine_id, incarnation, timeout_s=POLL_TIMEOUT_S)
        return commands

    def report(self, engine_id: int, incarnation: int, report: Report) -> Receipt:
        """Hand over an engine's output and news."""
        receipt: Receipt = self.line.call("report", engine_id, incarnation, report, timeout_s=CALL_TIMEOUT_S)
        return receipt

    def start_engines(self, count: int, options: EngineOptions) -> list[int]:
        """Start engines; their ids."""
        ids: list[int] = self.line.call("start_engines", count, options, uuid.uuid4().hex, timeout_s=CALL_TIMEOUT_S)
        return ids

    def stop_engines(self, engine_ids: Iterable[int]) -> None:
        """End engines."""
        self.line.call("stop_engines", list(engine_ids), timeout_s=CALL_TIMEOUT_S)

    def retire_engines(self, engine_ids: Iterable[int]) -> None:
        """Let engines finish what they have to do, and then end them; returns at once."""
        self.line.call("retire_engines", list(engine_ids), timeout_s=CALL_TIMEOUT_S)

    def restart_engines(self, engine_ids: Iterable[int], *, recovers: bool) -> None:
        """End engines and start new processes under their ids, with or without what they held."""
        self.line.call("restart_engines", list(engine_ids), recovers, uuid.uuid4().hex, timeout_s=CALL_TIMEOUT_S)

    def attach(self, client: str) -> ClusterState:
        """A client comes."""
        state: ClusterState = self.line.call("attach", client, timeout_s=CALL_TIMEOUT_S)
        return state

    def state(self) -> ClusterState:
        """Who is there now."""
        state: ClusterState = self.line.call("state", timeout_s=CALL_TIMEOUT_S)
        return state

    def clients(self) -> list[str]:
        """Who is attached."""
        names: list[str] = self.line.call("clients", timeout_s=CALL_TIMEOUT_S)
        return names

    def announce(self, entries: Sequence[HistoryEntry], timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Say which requests wait at their engines."""
        self.line.call("announce", list(entries), timeout_s=timeout_s)

    def detach(self, client: str) -> None:
        """A client leaves."""
        self.line.call("detach", client, timeout_s=CALL_TIMEOUT_S)

    def events(self, client: str) -> list[Event] | None:
        """Wait for events to a client."""
        events: list[Event] | None = self.line.call("events", client, timeout_s=POLL_TIMEOUT_S)
        return events

    def command(self, engine_ids: Iterable[int], command: Command) -> list[int]:
        """Pass a command to engines; the ids of those reached."""
        reached: list[int] = self.line.call("command", list(engine_ids), command, timeout_s=CALL_TIMEOUT_S)
        return reached

    def ask(self, engine_ids: Iterable[int], question: Question, timeout_s: float) -> dict[int, Answer]:
        """Ask engines, busy or not; the answers by id, without those that did not come in time."""
        answers: dict[int, Answer] = self.line.call(
            "ask", list(engine_ids), question, timeout_s, timeout_s=timeout_s + CALL_TIMEOUT_S
        )
        return answers

    def running(self) -> dict[int, tuple[int, list[HistoryEntry]]]:
        """For each engine: how many requests it has completed, and what it runs."""
        running: dict[int, tuple[int, list[HistoryEntry]]] = self.line.call("running", timeout_s=CALL_TIMEOUT_S)
        return running

    def history(self, client: str | None, engine_id: int | None, last: int | None) -> list[HistoryEntry]:
        """Who ran what, where, when, with which outcome."""
        entries: list[HistoryEntry] = self.line.call("history", client, engine_id, last, timeout_s=CALL_TIMEOUT_S)
        return entries

    def shut_down(self) -> None:
        """End every engine and release every client."""
        self.line.call("shut_down", timeout_s=CALL_TIMEOUT_S)


class Addressed(NamedTuple):
    """To whom a request goes: the engine, its number there, and how many stops its client knew of."""

    engine: EngineInfo
    seq: int
    stops_seen: int


class Relays(Protocol):
    """A tree to many engines, through which one client's requests reach each of them in order."""

    def send(self, requests: Sequence[Addressed], prepared: Any) -> Sequence[Any]:
        """Send the same request to several engines; what stands for each answer until it is here."""
        ...


class Transport(Protocol):
    """One client's way to the engines and the controller of a cluster."""

    name: str
    capabilities: frozenset[Capability]
    ref_types: tuple[type, ...]
    controller: ControllerProxy
    services: Services
    stopped: threading.Event  # set when this process has stopped the cluster

    @property
    def address(self) -> str:
        """Where other machines of the cluster reach this one."""
        ...

    @property
    def relays(self) -> Relays | None:
        """A tree to many engines; None where each request is best sent by itself."""
        ...

    def stand_by(self, client: str) -> None:
        """See that the controller notices at once, and not when its lease ends, if this client's process dies."""
        ...

    def resident(self, name: str, make: MakeResident | None = None) -> ResidentLine | None:
        """The way to an object of the cluster's own; see ``residents``.

        Args:
            name: its name; there is one of a name in a cluster.
            make: makes it if there is none; None if that is not wanted.

        Returns:
            None if there is none, and none has been made.
        """
        ...

    def prepare(self, instruction: Instruction, payload: Payload | None) -> Any:
        """Get a request ready to be sent, once for any number of engines."""
        ...

    def keep(self, payload: Payload) -> StoredObject:
        """Store a payload for several requests to refer to."""
        ...

    def send(self, request: Addressed, prepared: Any) -> Any:
        """Send a request to one engine; what stands for its answer until it is here."""
        ...

    def when_answered(self, pending: Any, listener: Callable[[Any], None]) -> None:
        """Call ``listener`` once, on a thread of the transport, with something for :meth:`open`."""
        ...

    def take(self, pending: Sequence[Any], timeout_s: float) -> list[Any] | None:
        """Wait for answers; something for :meth:`open` for each, None if they are not all here in time.

        Then, and if this raises, :meth:`when_answered` still brings each of them.
        """
        ...

    def open(self, engine: EngineInfo, delivered: Any) -> tuple[Reply, Payload | None]:
        """Decode an answer.

        Raises:
            EngineGone: if the engine died before it answered.
        """
        ...

    def close(self) -> None:
        """The client leaves; what comes in from now on is dropped."""
        ...


class Backend(Protocol):
    """Where a cluster lives: starts and ends its controller."""

    def start(self) -> None:
        """Start the controller."""
        ...

    def connect(self) -> Transport:
        """A new client's transport."""
        ...

    def connection_info(self) -> ConnectionInfo:
        """How another process reaches this cluster; CapabilityError if none can."""
        ...

    def stop(self) -> None:
        """End the controller and whatever was started with it."""
        ...


def require(transport: Transport, capability: Capability, what: str) -> None:
    """See that a transport can do something.

    Raises:
        CapabilityError: if it cannot.
    """
    if capability not in transport.capabilities:
        raise CapabilityError(what, transport.name, "use Cluster(backend='ray') for that")


def tail_of(path: str) -> str:
    """The last lines of a file that may not exist; at most ``TAIL_BYTES``."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return text.strip()
