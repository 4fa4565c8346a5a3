"""A transport in one process, without Ray: engines are threads, and another thread runs the controller's event loop.

Requests and replies are pickled both ways, so that a value that cannot travel between processes fails here too.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar

from nsactors._frozen import frozen
from nsactors.controller import STOP_GRACE_S, Controller, Death, Process
from nsactors.engine_actor import EngineActor, EngineEnds
from nsactors.errors import CapabilityError, ClusterStopped, ClusterUnreachable
from nsactors.errors.exceptions import SHUTDOWN_REQUESTED
from nsactors.namespace.host import EngineHost, ThreadHost
from nsactors.namespace.startup import StartupFailed
from nsactors.protocol.engine_info import EngineInfo, EngineSpec
from nsactors.protocol.messages import Capability, EngineRequest, Reply
from nsactors.protocol.process import OwnProcess
from nsactors.protocol.serialize import ObjectGone, Payload
from nsactors.protocol.wire import Sealed, decode_reply, decode_request, encode_body, encode_reply, seal, stamp
from nsactors.services.service import Services
from nsactors.transport.base import (
    ClusterEnd,
    ConnectionInfo,
    ControllerClient,
    EngineGone,
    Envelope,
    MakeNamedActor,
    answer,
    outcome_of,
    pack_arguments,
)
from nsactors.transport.local_services import LocalServices

T = TypeVar("T")
STOP_S = 5.0
_cluster_numbers = itertools.count(1)


@dataclass(slots=True)
class SentRequest:
    """A request on its way; the engine, or the end of the engine, sets the reply once."""

    header: bytes
    sealed: Sealed
    reply: Future[Any] = field(default_factory=Future)


class LocalEngine:
    """An engine of this process: the requests that it has not answered, and its end.

    The thread that runs the requests calls :meth:`open`, :meth:`run` for each one, and :meth:`close`.

    Attributes:
        requests: the queue of waiting requests, in order of arrival; None in the queue is the end.
        death: the end of the engine; None as long as it takes requests.
        died: a future of ``death``, for the controller; set when the engine has run its last request.
    """

    def __init__(self, spec: EngineSpec, cluster: LocalCluster) -> None:
        self.spec = spec
        self.requests: SimpleQueue[SentRequest | None] = SimpleQueue()
        self._cluster = cluster
        self._lock = threading.Lock()
        self._open: dict[int, SentRequest] = {}
        self._is_busy = False
        self._is_over = False
        self._engine: EngineActor | None = None
        self.death: Death | None = None
        self.died: asyncio.Future[Death] = cluster.loop.create_future()
        self._thread = 0

    def open(self, host: EngineHost) -> bool:
        """Start the engine, on the thread that will run its requests; return False if this fails."""
        with self._lock:
            self._thread = threading.get_ident()
        try:
            self._engine = EngineActor(self.spec, ControllerClient(self._cluster), host, _LocalStore(self))
        except StartupFailed as failed:
            self.end(Death(failed.reason, failed.output))
        except BaseException as error:
            self.end(Death(f"{type(error).__name__}: {error}"))
        return self._engine is not None

    def send(self, request: SentRequest) -> None:
        """Put a request into the queue; if the engine has ended, reply immediately."""
        with self._lock:
            if self.death is None:
                self._open[id(request)] = request
                self.requests.put(request)
                return
        request.reply.set_result(self._gone(self.death))

    def end(self, death: Death) -> None:
        """Take no more requests, fail the open ones, and report the death immediately.

        Code that runs cannot be stopped; its result is dropped.
        """
        self.finish(death)
        self._announce_soon(death)

    def finish(self, death: Death) -> None:
        """Take no more requests, fail the open ones, and report the death when the thread has ended.

        If the thread is busy, it cannot be interrupted. The death is then reported immediately, and the thread runs
        until its code ends.
        """
        with self._lock:
            if self.death is not None:
                return
            self.death = death
            abandoned = list(self._open.values())
            self._open.clear()
            is_busy = self._is_busy
            # Keep the lock: without it, the thread could end just before this, and another one could have its number.
            self._cluster.services.end_engine(self._thread, goes_on=not self._is_over)
        self.requests.put(None)
        for request in abandoned:
            request.reply.set_result(self._gone(death))
        if is_busy:
            self._announce_soon(death)

    def _gone(self, death: Death) -> EngineGone:
        begun = None if self._engine is None else self._engine.last_begun
        return EngineGone(death.reason, death.stderr_tail, begun, wanted=death is DISMISSED)

    def _announce_soon(self, death: Death) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: the cluster has ended before this thread
            self._cluster.loop.call_soon_threadsafe(self._announce, death)

    def _announce(self, death: Death) -> None:
        if not self.died.done():
            self.died.set_result(death)

    def run(self, sent: SentRequest) -> bool:
        """Run a request and send its reply; return False if the engine has ended and runs no further request."""
        engine = self._engine
        assert engine is not None, "it has been opened"
        self._is_busy = True
        try:
            request, payload = decode_request(sent.header, sent.sealed.buffers, sent.sealed.refs)
            reply, result = engine.handle(request, payload)
            sealed = copied(seal(result))
            header = encode_reply(reply, sealed)
            engine.replies.store(reply, header, result, sealed)
        except EngineEnds:
            return False
        except BaseException as error:  # not an error of user code: waiting callers must learn that there is no reply
            self.end(Death(f"{type(error).__name__}: {error}"))
            return False
        with self._lock:
            self._is_busy = False
            wanted = self._open.pop(id(sent), None) is not None
        if wanted:
            sent.reply.set_result((header, sealed))
        return True

    def close(self) -> None:
        """End the engine's namespace and helper threads, on the thread that ran its requests."""
        if (engine := self._engine) is not None:
            engine.end()
            engine.close()
            self._announce_soon(self.death or DISMISSED)

    def leave_thread(self) -> None:
        """Let the services forget this thread of the engine, because it is about to end."""
        with self._lock:
            self._is_over = True
            self._cluster.services.end_thread(threading.get_ident())


class EngineThread(LocalEngine):
    """An engine with a thread of its own.

    Args:
        spec: the description of the engine.
        cluster: the engine's cluster.
        host: the host of the engine; by default a new :class:`ThreadHost`.
    """

    def __init__(self, spec: EngineSpec, cluster: LocalCluster, host: EngineHost | None = None) -> None:
        super().__init__(spec, cluster)
        self._host = host or ThreadHost()
        threading.Thread(target=self._serve, name=f"engine-{spec.engine_id}", daemon=True).start()

    def _serve(self) -> None:
        try:
            if self.open(self._host):
                try:
                    while (request := self.requests.get()) is not None and self.run(request):
                        del request  # its reply would otherwise stay until the next request
                finally:
                    self.close()
        finally:
            self.leave_thread()


@frozen
class LocalObject:
    """A payload that an engine or a client holds; messages contain this object itself."""

    engine: LocalEngine | None
    payload: Payload

    def load(self) -> Payload:
        """Return the payload; see ``StoredObject``."""
        if self.engine is not None and self.engine.death is not None:
            raise ObjectGone(self.engine.death.reason)
        return self.payload


@frozen
class _LocalStore:
    """The object store of an engine: references to its own memory."""

    engine: LocalEngine
    ref_types: tuple[type, ...] = (LocalObject, LocalServices)

    def put(self, payload: Payload) -> LocalObject:
        return LocalObject(self.engine, payload.copied())

    def memory(self) -> None:
        """Return None, as the store has no memory besides that of this process."""


@dataclass(slots=True)
class LocalCluster:
    """A cluster in this process: its controller, called on its event loop from any other thread, and its services."""

    loop: asyncio.AbstractEventLoop
    controller: Controller | None = None
    stopped: ClusterEnd = field(default_factory=ClusterEnd)
    named_actors: dict[str, Any] = field(default_factory=dict)
    services: LocalServices = field(default_factory=lambda: LocalServices(_keep, (LocalObject,)))
    opening: threading.Lock = field(default_factory=threading.Lock)
    process: OwnProcess = field(default_factory=OwnProcess)
    _loop_thread: threading.Thread = field(init=False)

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """Call a method of the controller; see ``ControllerChannel``."""
        return self.await_answer(getattr(self.controller, method), *args, method=method, timeout_s=timeout_s)

    def start_loop(self) -> None:
        """Start the thread of the event loop."""
        self._loop_thread = threading.Thread(target=self._run_loop, name="nsactors-controller", daemon=True)
        self._loop_thread.start()

    def stop_loop(self) -> None:
        """Cancel all tasks of the event loop, and end its thread."""
        self.run(_cancel_others(), timeout_s=STOP_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._loop_thread.join(STOP_S)  # the thread closes the loop, which has three descriptors

    def _run_loop(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def await_answer(self, function: Callable[..., Any], *args: Any, method: str, timeout_s: float) -> Any:
        """Call a coroutine function on the event loop, and return its result.

        Raises:
            ClusterStopped: if the cluster has ended.
            ClusterUnreachable: if there is no answer in time.
        """
        self.process.check()
        if self.stopped.is_set():
            raise ClusterStopped
        try:
            return self.run(function(*args), timeout_s)
        except TimeoutError:
            raise ClusterUnreachable("this process", f"no answer to {method} in {timeout_s:g} s") from None
        except concurrent.futures.CancelledError:
            raise ClusterStopped from None

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run a coroutine on the event loop, and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout_s)


DISMISSED = Death(SHUTDOWN_REQUESTED)


@frozen
class _ThreadLauncher:
    cluster: LocalCluster
    after_grace: str = "goes on until its code ends, as threads cannot be killed"
    adds_nodes: bool = False

    def launch(self, spec: EngineSpec) -> EngineThread:
        return EngineThread(spec, self.cluster)

    async def obstacles(self, spec: EngineSpec, address: EngineThread) -> AsyncIterator[str]:
        none: tuple[str, ...] = ()  # there are none, because a thread can always be started
        for obstacle in none:
            yield obstacle

    async def watch(self, spec: EngineSpec, address: EngineThread) -> Death:
        return await address.died

    def end(self, process: Process, address: EngineThread) -> None:
        address.finish(DISMISSED)

    def kill(self, address: EngineThread) -> None:
        address.end(DISMISSED)

    def take_over(self, hosts: Mapping[tuple[int, int], str]) -> dict[tuple[int, int], EngineThread]:
        """Return no engines, because the engines of an earlier controller were in its process and ended with it."""
        return {}


@frozen
class _LocalNamedActorClient:
    """Calls a named actor on the controller's event loop."""

    cluster: LocalCluster
    target: Any

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        ref_types = LocalTransport.ref_types
        arguments = pack_arguments(method, args, ref_types).copied()
        sent = answer, self.target, method, arguments, ref_types
        return outcome_of(self.cluster.await_answer(*sent, method=method, timeout_s=timeout_s).copied())


def _not_from_elsewhere() -> CapabilityError:
    return CapabilityError(
        "be reached from another process", "the local transport", "use Cluster(backend='ray') for that"
    )


class FutureReplies:
    """The half of a transport that takes replies, for transports whose handles on replies are futures."""

    def __init__(self) -> None:
        self._replies: SimpleQueue[tuple[Callable[[Any], None], Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._deliver, name="nsactors-replies", daemon=True).start()

    def lane(self, engine: EngineInfo, prepared: Any) -> None:
        """Return None, because no lane is faster than :meth:`send`."""

    def make_safe(self) -> None:
        """Do nothing, because requests that have been sent have arrived."""

    def when_answered(self, pending: Future[Any], listener: Callable[[Any], None]) -> None:
        """Call the listener on a thread of the client.

        On an engine's thread, the listener's output would count as the engine's. A thread that reads messages must not
        block.
        """
        pending.add_done_callback(lambda reply: self._replies.put((listener, reply)))

    def take(self, pending: Sequence[Future[Any]], timeout_s: float) -> list[Any] | None:
        """Wait for replies on this thread."""
        return None if wait(pending, timeout_s).not_done else list(pending)

    def open(self, engine: EngineInfo, delivered: Future[Any]) -> tuple[Reply, Payload | None]:
        """Decode a reply."""
        if (error := delivered.exception()) is not None:
            raise EngineGone(str(error))
        content = delivered.result()
        if isinstance(content, EngineGone):
            raise content
        header, sealed = content
        return decode_reply(header, sealed.buffers, sealed.refs)

    def close(self) -> None:
        """Deliver no more replies."""
        self._replies.put(None)

    def _deliver(self) -> None:
        while (delivery := self._replies.get()) is not None:
            listener, reply = delivery
            listener(reply)
            del delivery, listener, reply  # large values would stay until the next reply


class LocalTransport(FutureReplies):
    """A client's connection to engines in its own process."""

    name = "local"
    namespace = ""
    capabilities: frozenset[Capability] = frozenset()
    ref_types: tuple[type, ...] = (LocalObject, LocalServices)
    relays = None

    def __init__(self, cluster: LocalCluster) -> None:
        self.controller = ControllerClient(cluster)
        self.stopped = cluster.stopped
        self.services: Services = cluster.services
        self._cluster = cluster
        super().__init__()

    @property
    def address(self) -> str:
        """The loopback address, because there are no other machines."""
        return "127.0.0.1"

    def stand_by(self, client: str) -> None:
        """Do nothing, because the controller dies with its clients."""

    def connection_info(self) -> ConnectionInfo:
        """Raise CapabilityError, because no other process can reach this one."""
        raise _not_from_elsewhere()

    def named_actor(self, name: str, make: MakeNamedActor | None = None) -> _LocalNamedActorClient | None:
        """Return a client of an object that lives in this process as long as the cluster."""
        cluster = self._cluster
        with cluster.opening:
            if name not in cluster.named_actors and make is not None:
                cluster.named_actors[name] = make(LocalTransport(cluster), _nothing_to_end)
            return _LocalNamedActorClient(cluster, cluster.named_actors[name]) if name in cluster.named_actors else None

    def prepare(
        self, request: EngineRequest, payload: Payload | None, quick: Sequence[EngineInfo] = ()
    ) -> tuple[bytes, Sealed]:
        """Encode a request and copy its payload, which the caller may change afterwards."""
        sealed = copied(seal(payload))
        return encode_body(request, sealed), sealed

    def keep(self, payload: Payload) -> LocalObject:
        """Copy a payload."""
        return _keep(payload)

    def send(self, request: Envelope, prepared: tuple[bytes, Sealed]) -> Future[Any]:
        """Put a request into the queue of the engine's thread."""
        body, sealed = prepared
        sent = SentRequest(stamp(request.seq, request.stops_seen, body), sealed)
        request.engine.address.send(sent)
        return sent.reply


class LocalBackend:
    """A cluster in this process.

    Args:
        environment: has no effect: engines share this process's environment, and its threads for linear algebra.
        startup: a cell that every engine runs first.
        stop_grace_s: the time that engines may take to end when they are asked to.
    """

    def __init__(self, environment: dict[str, str], startup: str = "", stop_grace_s: float = STOP_GRACE_S) -> None:
        self._stop_grace_s = stop_grace_s
        self._environment = environment
        self._startup = startup
        self._cluster: LocalCluster | None = None

    def start(self) -> None:
        """Start the event loop and the controller on it."""
        loop = asyncio.new_event_loop()
        cluster = self._cluster = LocalCluster(loop)
        name = f"local-{next(_cluster_numbers)}"
        launcher, grace_s = _ThreadLauncher(cluster), self._stop_grace_s
        cluster.controller = Controller(name, launcher, self._environment, self._startup, stop_grace_s=grace_s)
        cluster.start_loop()

    def connect(self) -> LocalTransport:
        """Return the transport of a new client."""
        if self._cluster is None:
            raise ClusterStopped
        return LocalTransport(self._cluster)

    def connection_info(self) -> ConnectionInfo:
        """Raise CapabilityError, because no other process can reach this one."""
        raise _not_from_elsewhere()

    def stop(self, stop_grace_s: float | None = None) -> list[str]:
        """End engines and controller; see ``Backend``. An engine that is busy ends when its code ends."""
        cluster, self._cluster = self._cluster, None
        if cluster is None:
            return []
        try:
            return ControllerClient(cluster).shut_down(self._stop_grace_s if stop_grace_s is None else stop_grace_s)
        finally:
            cluster.stopped.set()
            cluster.services.close()
            cluster.stop_loop()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _nothing_to_end() -> None:
    """Do nothing, because the process belongs to its client."""


def _keep(payload: Payload) -> LocalObject:
    return LocalObject(None, payload.copied())


def copied(sealed: Sealed) -> Sealed:
    """Return a sealed payload with memory of its own."""
    return sealed._replace(buffers=tuple(map(bytes, sealed.buffers))) if sealed.buffers else sealed
