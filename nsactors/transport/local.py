"""Everything in one process, without Ray: engines are threads, the controller runs on an event loop in another.

Requests and replies are pickled both ways, so that what would fail between processes fails here too.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar

from nsactors.controller import Controller, Death
from nsactors.core.cluster import EngineInfo, EngineSpec
from nsactors.core.messages import Capability, Instruction, Reply
from nsactors.core.payload import Payload
from nsactors.core.remote_value import ObjectGone
from nsactors.core.wire import Sealed, decode_reply, decode_request, encode, encode_body, seal, stamp
from nsactors.engine_actor import EngineActor
from nsactors.errors import CapabilityError, ClusterStopped, ClusterUnreachable
from nsactors.namespace.host import ThreadHost
from nsactors.transport.base import Addressed, ControllerProxy, EngineGone
from nsactors.transport.connection import ConnectionInfo
from nsactors.transport.hosting import Services
from nsactors.transport.local_hosting import LocalServices
from nsactors.transport.residents import MakeResident, answer, outcome_of, pack_arguments

__all__ = ["LocalBackend"]

T = TypeVar("T")
_cluster_numbers = itertools.count(1)


@dataclass(slots=True)
class _Letter:
    """One request on its way; answered exactly once, by the engine or by its end."""

    header: bytes
    sealed: Sealed
    answer: Future[Any] = field(default_factory=Future)


class _EngineThread:
    """A thread that serves an engine's requests in order of arrival."""

    def __init__(self, spec: EngineSpec, line: _LoopLine) -> None:
        self._spec = spec
        self._line = line
        self._letters: SimpleQueue[_Letter | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._open: dict[int, _Letter] = {}
        self.death: Death | None = None
        self.died: asyncio.Future[Death] = line.loop.create_future()
        self._thread = threading.Thread(target=self._serve, name=f"engine-{spec.engine_id}", daemon=True)
        self._thread.start()

    def post(self, letter: _Letter) -> None:
        with self._lock:
            if self.death is None:
                self._open[id(letter)] = letter
                self._letters.put(letter)
                return
        letter.answer.set_result(EngineGone(self.death.reason, self.death.stderr_tail))

    def end(self, death: Death) -> None:
        """Take no more requests and fail those that are open.

        What is running cannot be stopped; its result is dropped.
        """
        with self._lock:
            if self.death is not None:
                return
            self.death = death
            abandoned = list(self._open.values())
            self._open.clear()
        self._letters.put(None)
        for letter in abandoned:
            letter.answer.set_result(EngineGone(death.reason, death.stderr_tail))
        self._line.services.end_thread(self._thread.ident)
        self._line.loop.call_soon_threadsafe(self._announce, death)

    def _announce(self, death: Death) -> None:
        if not self.died.done():
            self.died.set_result(death)

    def _serve(self) -> None:
        host = ThreadHost()
        try:
            engine = EngineActor(self._spec, ControllerProxy(self._line), host, _LocalStore(self))
        except BaseException as error:
            return self.end(Death(f"{type(error).__name__}: {error}"))
        try:
            while (letter := self._letters.get()) is not None:
                self._answer(letter, self._run(engine, letter))
        except BaseException as error:  # not the user's: whoever waits must hear that nobody will answer
            self.end(Death(f"{type(error).__name__}: {error}"))
        finally:
            engine.close()

    def _run(self, engine: EngineActor, letter: _Letter) -> tuple[bytes, Sealed]:
        request, payload = decode_request(letter.header, letter.sealed.buffers, letter.sealed.refs)
        reply, result = engine.handle(request, payload)
        sealed = _copied(seal(result))
        header = encode(reply, sealed)
        engine.answers.keep(reply, header, result, sealed)
        return header, sealed

    def _answer(self, letter: _Letter, reply: Any) -> None:
        with self._lock:
            wanted = self._open.pop(id(letter), None) is not None
        if wanted:
            letter.answer.set_result(reply)


@dataclass(frozen=True, slots=True)
class _LocalObject:
    """A payload that an engine holds, or a client; it travels as itself."""

    engine: _EngineThread | None
    payload: Payload

    def load(self) -> Payload:
        if self.engine is not None and self.engine.death is not None:
            raise ObjectGone(self.engine.death.reason)
        return self.payload


@dataclass(frozen=True, slots=True)
class _LocalStore:
    """What an engine has put aside."""

    engine: _EngineThread
    ref_types: tuple[type, ...] = (_LocalObject, LocalServices)

    def put(self, payload: Payload) -> _LocalObject:
        return _LocalObject(self.engine, _detached(payload))

    def memory(self) -> None:
        """It is this process's own memory."""


@dataclass(slots=True)
class _LoopLine:
    """Calls the controller on its event loop, from any other thread."""

    loop: asyncio.AbstractEventLoop
    controller: Controller | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    residents: dict[str, Any] = field(default_factory=dict)
    services: LocalServices = field(default_factory=lambda: LocalServices(_keep, (_LocalObject,)))
    opening: threading.Lock = field(default_factory=threading.Lock)

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        return self.await_answer(getattr(self.controller, method), *args, method=method, timeout_s=timeout_s)

    def await_answer(self, function: Callable[..., Any], *args: Any, method: str, timeout_s: float) -> Any:
        if self.stopped.is_set():
            raise ClusterStopped
        try:
            return self.run(function(*args), timeout_s)
        except TimeoutError:
            raise ClusterUnreachable("this process", f"no answer to {method} in {timeout_s:g} s") from None
        except concurrent.futures.CancelledError:
            raise ClusterStopped from None

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout_s)


@dataclass(frozen=True, slots=True)
class _ThreadLauncher:
    line: _LoopLine

    def launch(self, spec: EngineSpec) -> _EngineThread:
        return _EngineThread(spec, self.line)

    async def obstacles(self, spec: EngineSpec, address: _EngineThread) -> AsyncIterator[str]:
        none: tuple[str, ...] = ()  # a thread can always be started
        for obstacle in none:
            yield obstacle

    async def watch(self, spec: EngineSpec, address: _EngineThread) -> Death:
        return await address.died

    def kill(self, address: _EngineThread) -> None:
        address.end(Death("it was asked to shut down"))

    def take_over(self, hosts: Mapping[tuple[int, int], str]) -> dict[tuple[int, int], _EngineThread]:
        """Nobody is left: the controller and the engines are one process."""
        return {}


@dataclass(frozen=True, slots=True)
class _LocalResidentLine:
    """Calls a resident on the controller's event loop."""

    line: _LoopLine
    resident: Any

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        ref_types = LocalTransport.ref_types
        arguments = _detached(pack_arguments(method, args, ref_types))
        sent = answer, self.resident, method, arguments, ref_types
        return outcome_of(_detached(self.line.await_answer(*sent, method=method, timeout_s=timeout_s)))


class LocalTransport:
    """A client's way to engines in its own process."""

    name = "local"
    capabilities: frozenset[Capability] = frozenset()
    ref_types: tuple[type, ...] = (_LocalObject, LocalServices)
    relays = None

    def __init__(self, line: _LoopLine) -> None:
        self.controller = ControllerProxy(line)
        self.stopped = line.stopped
        self.services: Services = line.services
        self._line = line
        self._replies: SimpleQueue[tuple[Callable[[Any], None], Any] | None] = SimpleQueue()
        threading.Thread(target=self._deliver, name="nsactors-replies", daemon=True).start()

    @property
    def address(self) -> str:
        """Loopback: there are no other machines."""
        return "127.0.0.1"

    def stand_by(self, client: str) -> None:
        """The controller dies with it."""

    def resident(self, name: str, make: MakeResident | None = None) -> _LocalResidentLine | None:
        """An object of this process's, for as long as the cluster is there."""
        line = self._line
        with line.opening:
            if name not in line.residents and make is not None:
                line.residents[name] = make(LocalTransport(line), _nothing_to_end)
            return _LocalResidentLine(line, line.residents[name]) if name in line.residents else None

    def prepare(self, instruction: Instruction, payload: Payload | None) -> tuple[bytes, Sealed]:
        """Encode a request and copy its payload: what the caller changes afterwards must not change what was sent."""
        sealed = _copied(seal(payload))
        return encode_body(instruction, sealed), sealed

    def keep(self, payload: Payload) -> _LocalObject:
        """Copy a payload."""
        return _keep(payload)

    def send(self, request: Addressed, prepared: tuple[bytes, Sealed]) -> Future[Any]:
        """Post a request to the engine's thread."""
        body, sealed = prepared
        letter = _Letter(stamp(request.seq, request.stops_seen, body), sealed)
        request.engine.address.post(letter)
        return letter.answer

    def when_answered(self, pending: Future[Any], listener: Callable[[Any], None]) -> None:
        """Wait on a thread of the client's: on an engine's, what a callback prints would be the engine's."""
        pending.add_done_callback(lambda answer: self._replies.put((listener, answer.result())))

    def take(self, pending: Sequence[Future[Any]], timeout_s: float) -> list[Any] | None:
        """Wait here."""
        if wait(pending, timeout_s).not_done:
            return None
        return [answer.result() for answer in pending]

    def open(self, engine: EngineInfo, delivered: Any) -> tuple[Reply, Payload | None]:
        """Decode a reply."""
        if isinstance(delivered, EngineGone):
            raise delivered
        header, sealed = delivered
        return decode_reply(header, sealed.buffers, sealed.refs)

    def close(self) -> None:
        """Deliver no more."""
        self._replies.put(None)

    def _deliver(self) -> None:
        while (delivery := self._replies.get()) is not None:
            listener, reply = delivery
            listener(reply)


class LocalBackend:
    """A cluster in this process.

    Args:
        environment: not used: engines share this process's environment, and its threads for linear algebra.
        startup: a cell that every engine runs first.
    """

    def __init__(self, environment: dict[str, str], startup: str = "") -> None:
        self._environment = environment
        self._startup = startup
        self._line: _LoopLine | None = None

    def start(self) -> None:
        """Start the event loop and the controller on it."""
        loop = asyncio.new_event_loop()
        line = self._line = _LoopLine(loop)
        name = f"local-{next(_cluster_numbers)}"
        line.controller = Controller(name, _ThreadLauncher(line), self._environment, self._startup)
        threading.Thread(target=self._run_loop, args=(loop,), name="nsactors-controller", daemon=True).start()

    def connect(self) -> LocalTransport:
        """A new client's transport."""
        if self._line is None:
            raise ClusterStopped
        return LocalTransport(self._line)

    def connection_info(self) -> ConnectionInfo:
        """There is no way here from another process."""
        raise CapabilityError("be reached from another process", "local", "use Cluster(backend='ray') for that")

    def stop(self) -> None:
        """End engines and controller. An engine that is busy ends when its code does."""
        line, self._line = self._line, None
        if line is None:
            return
        line.call("shut_down", timeout_s=5.0)
        line.stopped.set()
        line.services.close()
        line.run(_cancel_others(), timeout_s=5.0)
        line.loop.call_soon_threadsafe(line.loop.stop)

    @staticmethod
    def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
        loop.run_forever()
        loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _nothing_to_end() -> None:
    """The process is its client's."""


def _keep(payload: Payload) -> _LocalObject:
    return _LocalObject(None, _detached(payload))


def _detached(payload: Payload) -> Payload:
    """A payload whose buffers are nobody else's."""
    return payload._replace(buffers=tuple(bytes(b) for b in payload.buffers))


def _copied(sealed: Sealed) -> Sealed:
    return sealed._replace(buffers=tuple(bytes(b) for b in sealed.buffers))
