"""The transport on Ray actors: clients, engines and the controller."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import logging
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import field
from typing import Any, ClassVar

from nsactors._frozen import frozen
from nsactors.controller import STOP_GRACE_S, Controller, Death, Process
from nsactors.engine_actor import EngineActor, EngineEnds
from nsactors.errors import (
    ClusterStopped,
    ClusterUnreachable,
    ConnectionLost,
    StoreFull,
    VersionMismatch,
    VersionWarning,
    keyboard_interrupt,
    warn_caller,
)
from nsactors.membership.store import SqliteStore
from nsactors.namespace.host import ProcessHost
from nsactors.namespace.module_versions import SourceStore, sources_folder
from nsactors.protocol.engine_info import EngineInfo, EngineSpec, Recovery, compare, with_labels
from nsactors.protocol.messages import Capability, EngineRequest, Reply, StreamText
from nsactors.protocol.process import OwnProcess
from nsactors.protocol.serialize import Payload, StoredObject
from nsactors.protocol.wire import decode_reply, decode_request, encode_body, encode_reply, seal, stamp
from nsactors.services.service import Services
from nsactors.system.processes import keep_sockets_from_children
from nsactors.system.resources import versions_here
from nsactors.transport.base import (
    ClusterEnd,
    ConnectionInfo,
    ControllerClient,
    EngineGone,
    Envelope,
    MakeNamedActor,
    NamedActorGone,
    answer,
    outcome_of,
    pack_arguments,
)
from nsactors.transport.ray.access import check_access
from nsactors.transport.ray.direct_lines import DirectLine, DirectLines, DirectReply
from nsactors.transport.ray.direct_server import MESSAGE_BYTES, DirectServer, knock_at
from nsactors.transport.ray.failures import NODE_DIED, LivenessMonitor, death_of, failure_of, output_folder, result_of
from nsactors.transport.ray.journal_replica import replica_for, start_replica
from nsactors.transport.ray.nodes import (
    EnginePlaces,
    has_had_actors,
    head_place,
    labels_here,
    on_head_node,
    once_name_is_free,
)
from nsactors.transport.ray.object_store import RayStore, SpillCheck, as_array, is_full, put, require_room
from nsactors.transport.ray.relays import Promise, RayRelays
from nsactors.transport.ray.runtime import ray_runtime
from nsactors.transport.ray.services import RayServices, flush_all

PAUSES_S = (0.02, 0.1, 0.2, 0.4)  # between calls to a controller that restarts


class RayControllerChannel:
    """Call the controller actor.

    Args:
        controller: its handle.
        stopped: set when the cluster has ended for this process; a later call would make Ray start another cluster.
    """

    def __init__(self, controller: Any, stopped: ClusterEnd | None = None) -> None:
        self._controller = controller
        self._stopped = stopped or ClusterEnd()
        self._process = OwnProcess()

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """Call a method of the controller; see ``ControllerChannel``."""
        import ray

        self._process.check()
        give_up = time.monotonic() + timeout_s
        for pause_s in itertools.chain(PAUSES_S, itertools.repeat(PAUSES_S[-1])):
            self._stopped.check()
            try:
                return self._call_once(method, args, max(0.0, give_up - time.monotonic()))
            except KeyboardInterrupt:
                raise keyboard_interrupt() from None
            except ray.exceptions.GetTimeoutError:
                break
            except ray.exceptions.ActorUnavailableError:  # the controller died, and restarts
                if time.monotonic() + pause_s > give_up:
                    break
                self._stopped.wait(pause_s)
        raise ClusterUnreachable("the controller", f"no answer to {method} in {timeout_s:g} s")

    def _call_once(self, method: str, args: tuple[Any, ...], timeout_s: float) -> Any:
        import ray

        try:
            return result_of(getattr(self._controller, method).remote(*args), timeout_s)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnavailableError, ConnectionLost):
            raise
        except ray.exceptions.RayActorError:
            raise ClusterStopped from None
        except Exception as error:
            if self._stopped.is_set():
                raise self._stopped.error() from error  # Ray ended during the call, which raises many kinds of errors
            if isinstance(error, ray.exceptions.RaySystemError):
                raise ClusterUnreachable("the controller", str(error)) from error
            raise


_PREFIX = "named-actor-"
_NAMESPACE = "nsactors-"
MAX_CONCURRENCY = 10_000  # methods that wait are coroutines, without threads
END_S = 5.0  # a process that stops the cluster ends its named actors within this time

_Parcel = tuple[Any, Any, Any]


class RayNamedActor:
    """The actor class of named actors."""

    def __init__(self, namespace: str, make: MakeNamedActor) -> None:
        import ray

        # Ray warns that a wait blocks the event loop. But here, threads of the named actor wait, and the loop goes on.
        ray_log = logging.getLogger("ray._private.worker")
        ray_log.addFilter(lambda record: "blocking ray.get" not in record.getMessage())
        controller = ray.get_actor("controller", namespace)
        transport = RayTransport(ray, controller, ClusterEnd(), namespace)
        self._ref_types = transport.ref_types
        self._target = make(transport, _end)

    async def call(self, method: str, *parcel: Any) -> _Parcel:
        """Call a method of the named actor."""
        return _pack_up(await answer(self._target, method, _unpack(*parcel), self._ref_types))


@frozen
class RayNamedActorClient:
    """A named actor as clients call it; see ``NamedActorClient``.

    Attributes:
        ray: the module.
        actor: the named actor's actor.
        stopped: set when the cluster has ended for this process; a later call would make Ray start another cluster.
    """

    ray: Any
    actor: Any
    stopped: ClusterEnd
    process: OwnProcess = field(default_factory=OwnProcess)

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """See ``NamedActorClient``."""
        self.process.check()
        self.stopped.check()
        ray = self.ray
        parcel = _pack_up(pack_arguments(method, args, (ray.ObjectRef,)))
        try:
            returned = result_of(self.actor.call.remote(method, *parcel), timeout_s)
        except ray.exceptions.GetTimeoutError:
            raise ClusterUnreachable("the head node", f"no answer to {method} in {timeout_s:g} s") from None
        except ray.exceptions.ActorUnavailableError as error:
            raise ClusterUnreachable("the head node", str(error)) from error
        except ray.exceptions.RayActorError as error:
            raise NamedActorGone(death_of(error, None).reason) from None
        except Exception as error:
            if self.stopped.is_set():
                raise self.stopped.error() from error  # Ray ended during the call, which raises many kinds of errors
            if is_full(error):
                raise StoreFull(f"the arguments of {method}()") from None
            raise
        return outcome_of(_unpack(*returned))


def find_named_actor(ray: Any, namespace: str, name: str) -> Any:
    """Return Ray's actor for a named actor; None if there is none."""
    with contextlib.suppress(ValueError):
        return ray.get_actor(_PREFIX + name, namespace)
    return None


def start_named_actor(ray: Any, namespace: str, name: str, make: MakeNamedActor) -> Any:
    """Return Ray's actor for a named actor; start it if there is none."""
    # The actor never restarts, because its state would be lost all the same.
    options: dict[str, Any] = {"max_restarts": 0, "max_concurrency": MAX_CONCURRENCY}
    actor_class = on_head_node(ray.remote(RayNamedActor), _PREFIX + name, namespace, **options)
    return once_name_is_free(lambda: actor_class.remote(namespace, make))


def stop_actors(ray: Any, namespace: str) -> None:
    """Stop all actors in the namespace of a cluster that has stopped: named actors, services, the journal replica."""
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == namespace:
            with contextlib.suppress(ValueError):  # it has ended since
                ray.kill(ray.get_actor(actor["name"], namespace))


def _end() -> None:
    threading.Event().wait(END_S)
    os._exit(0)


def _pack_up(payload: Payload) -> _Parcel:
    """Return a payload in the forms that suit Ray: small ones as bytes, large ones for the object store."""
    sealed = seal(payload)
    if not sealed.buffers:
        return sealed.inline, None, ()
    return None, [as_array(buffer) for buffer in sealed.buffers], list(sealed.refs)


def _unpack(inline: Any, arrays: Any, refs: Any) -> Payload:
    if inline is not None:
        return Payload(*inline)
    return Payload(arrays[0], tuple(arrays[1:]), tuple(refs))


PARK_AGAIN_S = 0.1
KILL_AGAIN_S = 0.005
UNPARK_S = 2.0


class RayEngine:
    """The actor class of engines: an :class:`EngineActor` that Ray calls.

    The actor is synchronous: its methods run on the process's main thread, one after the other.

    Attributes:
        here: the engine of this process; None in other processes.
    """

    here: ClassVar[EngineSpec | None] = None

    def __init__(self, spec: EngineSpec, controller: Any, replica: tuple[str, Any] | None) -> None:
        os.environ.update(spec.environment)
        keep_sockets_from_children()  # before any user code runs, so these sockets are Ray's alone
        spec = with_labels(spec, labels_here())
        host = ProcessHost(output_folder(spec.cluster), f"engine-{spec.engine_id}", spec.incarnation)
        line = ControllerClient(RayControllerChannel(controller))
        self._spills = SpillCheck()
        self._large: dict[bytes, Any] = {}
        assert host.output_path is not None, "a process has files of output"
        self._direct: DirectServer | None = None
        with contextlib.suppress(OSError):  # clients call through Ray
            self._direct = DirectServer(host.output_path, self._handle_direct, self._large)
        fence = (lambda: None) if self._direct is None else self._direct.fence
        self._engine = EngineActor(spec, line, host, RayStore(), replica_for(replica), fence)
        _skip_debugger()
        RayEngine.here = spec

    def handle(self, header: bytes) -> Any:
        """Run a request."""
        return self.handle_large(header)

    def handle_large(self, header: bytes, buffers: tuple[Any, ...] = (), refs: tuple[Any, ...] = ()) -> Any:
        """Run a request with a large payload beside it."""
        return self._handle(header, buffers, refs, past_ray=False)

    def _handle(self, header: bytes, buffers: tuple[Any, ...], refs: tuple[Any, ...], *, past_ray: bool) -> Any:
        if self._large:
            if header in self._large:  # the client asks for a large reply again through Ray, which must own it
                kept = self._large.pop(header)
                if isinstance(kept, Exception):
                    raise kept
                return kept
            self._keep_large()
        request, payload = decode_request(header, buffers, refs)
        try:
            reply, result = self._engine.handle(request, payload)
        except EngineEnds as ends:
            raise EngineGone(str(ends), last_begun=ends.last_begun, wanted=True) from None
        if not past_ray and self._direct is not None:
            self._direct.called_through_ray(request.id.client.encode())
        flush_all()
        sealed = seal(result)
        if sealed.buffers:
            require_room("the result", sum(memoryview(buffer).nbytes for buffer in sealed.buffers))
        if sealed.buffers and (warning := self._spills.before_put(sealed.buffers)):
            reply = _with_remark(reply, f"{type(warning).__name__}: {warning}\n")
        header = encode_reply(reply, sealed)
        self._engine.replies.store(reply, header, result, sealed)
        return (header, [as_array(b) for b in sealed.buffers], list(sealed.refs)) if sealed.buffers else header

    def serve(self, epoch: int, line: bytes) -> bool:
        """Run the requests that clients of this host have sent past Ray; see :class:`DirectServer`."""
        return self._direct is not None and self._direct.serve(epoch, line)

    def _handle_direct(self, header: bytes) -> bytes | None:
        """Run a request that has come past Ray; return its reply, or None if that is too large for the socket."""
        try:
            reply = self._handle(header, (), (), past_ray=True)
        except EngineGone:
            raise
        except Exception as error:  # no room for the result; the client is to get this error through Ray
            reply = error
        if isinstance(reply, bytes) and len(reply) <= MESSAGE_BYTES:
            return reply
        self._large[header] = reply
        return None

    def _keep_large(self) -> None:
        """Copy the large replies that have not been asked for yet, as the next request may change their arrays."""
        for header, reply in self._large.items():
            if isinstance(reply, tuple) and reply[1][0].base is not None:
                head, arrays, refs = reply
                try:
                    self._large[header] = head, [array.copy() for array in arrays], refs
                except MemoryError as error:
                    self._large[header] = error

    def is_here(self) -> None:
        """Do nothing: if the engine could not be made, Ray ends the process at this first call."""

    def end(self, end_requested: Any) -> None:
        """End the interpreter gracefully.

        The controller calls this early, with an argument that resolves when the engine is to end; so the call fails the
        moment this process dies. When the call has returned, the controller kills the process: Ray would treat an exit
        of the process as a failure, and after ``exit_actor`` report it as dead 0.4 s before its files are closed.
        """
        _spare_ray_at_exit()
        self._engine.end()


class RayController(Controller):
    """The actor class of the controller."""

    def __init__(
        self,
        cluster: str,
        namespace: str,
        environment: dict[str, str],
        startup: str,
        engine_class: Any,
        stop_grace_s: float,
    ) -> None:
        # Ray calls this again, with the same arguments, when the controller restarts.
        folder = output_folder(cluster)
        store, sources = SqliteStore(os.path.join(folder, "controller")), SourceStore(sources_folder(folder))
        self._ray_launcher = _RayLauncher(namespace, engine_class)
        super().__init__(cluster, self._ray_launcher, environment, startup, store, stop_grace_s, sources)
        self._presences = LivenessMonitor()
        self._over = asyncio.Event()

    async def shut_down(self, stop_grace_s: float | None = None) -> list[str]:
        """Stop the cluster; then let parked calls return, which Ray would otherwise report on the terminal."""
        notices = await super().shut_down(stop_grace_s)
        self._over.set()
        await self._ray_launcher.unpark()
        return notices

    async def presence(self, client: str) -> None:
        """Return when the client has left; a client calls this, and may have left before the call arrives."""
        if client in self._clients.names:
            await self._presences.until_gone(client)

    async def stand_by(self, client: str, presence: Sequence[Any]) -> None:
        """Watch the process of a client through a reference to its call of :meth:`presence`."""
        if await self._presences.died(presence):
            await self.detach(client)

    async def detach(self, client: str) -> None:
        """Forget a client that has left or died; see ``Controller``."""
        self._presences.end(client)
        await super().detach(client)

    async def never(self) -> None:
        """Return when the cluster has stopped; named actors wait for this."""
        await self._over.wait()

    async def end_requested(self, engine_id: int, incarnation: int) -> None:
        """Return when an engine is to end; the call parked at the engine waits for this."""
        await self._ray_launcher.end_requested((engine_id, incarnation))


class _RayLauncher:
    """Start engines as detached actors in the cluster's Ray namespace."""

    after_grace = "was killed"

    def __init__(self, namespace: str, engine_class: Any) -> None:
        self._namespace = namespace
        self._engine_class = engine_class
        self._places = EnginePlaces()
        self._replica: tuple[str, Any] | None = None
        self._end_requests: dict[Process, asyncio.Event] = {}
        self._output_paths: dict[Process, str] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    def launch(self, spec: EngineSpec) -> Any:
        import ray

        return self._engine_class.options(
            name=f"engine-{spec.engine_id}.{spec.incarnation}",
            namespace=self._namespace,
            lifetime="detached",
            **self._places.take(spec),
            max_restarts=0,
            max_task_retries=0,
            enable_task_events=False,  # for Ray's dashboard; the GCS would keep 3 kB for each call, up to 300 MB
        ).remote(spec, ray.get_runtime_context().current_actor, self._replica_for(spec))

    def _replica_for(self, spec: EngineSpec) -> tuple[str, Any] | None:
        if spec.options.recovery is not Recovery.REPLAY:
            return None
        self._replica = self._replica or start_replica(spec.cluster, self._namespace)
        return self._replica

    def obstacles(self, spec: EngineSpec, address: Any) -> AsyncIterator[str]:
        return self._places.obstacles(spec, address)

    @property
    def adds_nodes(self) -> bool:
        """See :class:`Launcher`."""
        return self._places.adds_nodes

    async def watch(self, spec: EngineSpec, address: Any) -> Death:
        process = spec.engine_id, spec.incarnation
        self._end_requests.setdefault(process, asyncio.Event())
        path = os.path.join(output_folder(spec.cluster), f"engine-{spec.engine_id}.{spec.incarnation}")
        self._output_paths[process] = path
        try:
            await self._park(process, address)
            while True:  # the interpreter has ended; kill again if a call has returned because it overtook the kill
                self.kill(address)
                await address.end.remote(None)
                await asyncio.sleep(KILL_AGAIN_S)
        except Exception as error:
            ending = death_of(error, path, self._places.host_of(spec))
            return Death(ending.reason, ending.stderr_tail, displaced=ending.reason == NODE_DIED)
        finally:
            self._places.leave(spec)
            self._output_paths.pop(process, None)
            self._end_requests.pop(process).set()

    async def _park(self, process: Process, address: Any) -> None:
        """Return when the engine has ended its interpreter gracefully; raise Ray's error if the engine has died."""
        import ray

        while True:
            # Ray has reported an actor as alive although its worker had met a full disk before it made the engine. The
            # failure shows only when the actor is called. The call is repeated with the parked one, since both can be
            # lost with the connection. It comes first, since no call is sent after one whose argument is pending.
            address.is_here.remote()
            # Let Ray repeat the call, as Ray does not know at once that a restarted controller can be called.
            controller = ray.get_runtime_context().current_actor
            end_requested = controller.end_requested.options(max_task_retries=-1).remote(*process)
            waiting = asyncio.wrap_future(end_requested.future())
            self._waiting.add(waiting)
            waiting.add_done_callback(self._waiting.discard)
            try:
                await address.end.remote(end_requested)
                return
            except (ray.exceptions.RayTaskError, ray.exceptions.ActorUnavailableError):
                # The argument has failed, or the connection to the engine. If this counted as a death, a second process
                # would start beside the living one.
                await asyncio.sleep(PARK_AGAIN_S)

    async def end_requested(self, process: Process) -> None:
        """Return when this engine has been asked to end, or is dead."""
        if end_requested := self._end_requests.get(process):
            await end_requested.wait()

    async def unpark(self) -> None:
        """Return when Ray knows that no call is parked any more."""
        if self._waiting:
            await asyncio.wait(self._waiting, timeout=UNPARK_S)  # at most for this time, and whatever their outcome

    def end(self, process: Process, address: Any) -> None:
        self._end_requests[process].set()
        if process in self._output_paths:
            knock_at(self._output_paths[process], b"controller")

    def kill(self, address: Any) -> None:
        import ray

        ray.kill(address)

    def take_over(self, hosts: Mapping[tuple[int, int], str]) -> dict[tuple[int, int], Any]:
        import ray

        found = {}
        for actor in ray.util.list_named_actors(all_namespaces=True):
            named = re.fullmatch(r"engine-(\d+)\.(\d+)", actor["name"] if actor["namespace"] == self._namespace else "")
            if named:
                with contextlib.suppress(ValueError):  # it has ended since
                    found[int(named[1]), int(named[2])] = ray.get_actor(actor["name"], self._namespace)
        # If a batch job continues an earlier one, no engine has been an actor of this Ray. The journals have been
        # copied, so engines may start anywhere. They should, because they may all have been on one
        # machine after the loss of another.
        if found or has_had_actors({f"engine-{engine_id}.{incarnation}" for engine_id, incarnation in hosts}):
            self._places.restore(hosts, found)
        return found


class RayTransport:
    """A client's connection to engines that are Ray actors."""

    name = "ray"
    capabilities = frozenset(Capability)

    def __init__(self, ray: Any, controller: Any, stopped: ClusterEnd, namespace: str) -> None:
        self._ray = ray
        self._controller = controller
        self.namespace = namespace
        self.stopped = stopped
        self.ref_types: tuple[type, ...] = (ray.ObjectRef,)
        self.controller = ControllerClient(RayControllerChannel(controller, stopped))
        self.services: Services = RayServices(namespace, stopped)
        self._direct = DirectLines(stopped)
        self.relays = RayRelays(ray, stopped, self._direct.before_ray)
        self._spills = SpillCheck()

    @property
    def address(self) -> str:
        """Return the address by which Ray knows this machine."""
        return str(self._ray.util.get_node_ip_address())

    def stand_by(self, client: str) -> None:
        """Pass the controller a reference that fails when this process dies."""
        # Ray has no other sign of a client's death. This one comes after 2.0 s (2.02 to 2.17 in 42 trials).
        self._direct.client = client
        self._controller.stand_by.remote(client, [self._controller.presence.remote(client)])

    def connection_info(self) -> ConnectionInfo:
        """Return the connection info for other processes."""
        return _connection_info(self._ray, self.namespace)

    def named_actor(self, name: str, make: MakeNamedActor | None = None) -> RayNamedActorClient | None:
        """Return the named actor of this name, an actor on the head node; start it with ``make`` if there is none."""
        self.stopped.check()
        actor = find_named_actor(self._ray, self.namespace, name)
        if actor is None and make is not None:
            actor = start_named_actor(self._ray, self.namespace, name, make)
        return None if actor is None else RayNamedActorClient(self._ray, actor, self.stopped)

    def prepare(self, request: EngineRequest, payload: Payload | None) -> tuple[bytes, Any]:
        """Encode a request; put a large payload into the object store, once for all engines."""
        flush_all()
        sealed = seal(payload)
        body = encode_body(request, sealed)
        if not sealed.buffers:
            return body, None
        if warning := self._spills.before_put(sealed.buffers):
            warn_caller(warning)
        # References stay nested in a list, because a pending one as an argument would block the engine's queue.
        arrays = [as_array(b) for b in sealed.buffers]
        stored = put(arrays, "the request's payload", sum(array.nbytes for array in arrays))
        return body, (stored, list(sealed.refs)) if sealed.refs else (stored,)

    def keep(self, payload: Payload) -> StoredObject:
        """Put a payload into the object store."""
        if warning := self._spills.before_put((payload.data, *payload.buffers)):
            warn_caller(warning)
        return RayStore().put(payload)

    def lane(self, engine: EngineInfo, prepared: tuple[bytes, Any]) -> DirectLine | None:
        """Return the socket to an engine of this host if a small request is answered sooner by it."""
        body, large = prepared
        return None if large is not None else self._direct.line_for(engine, body)

    def send(self, request: Envelope, prepared: tuple[bytes, Any]) -> Any:
        """Call the engine's actor."""
        engine, seq, stops_seen = request
        body, large = prepared
        header = stamp(seq, stops_seen, body)
        self._direct.before_ray(engine)
        if large is None:
            return engine.address.handle.remote(header)
        return engine.address.handle_large.remote(header, *large)

    def when_answered(self, pending: Any, listener: Callable[[Any], None]) -> None:
        """Wait on a thread of Ray's."""
        if isinstance(pending, Promise):
            pending.when_kept(listener)
            return pending.line.listen() if isinstance(pending, DirectReply) else None
        pending.future().add_done_callback(lambda answer: listener(answer.exception() or answer.result()))

    def take(self, pending: Sequence[Any], timeout_s: float) -> list[Any] | None:
        """Wait on this thread, so that no other thread has to be woken."""
        if isinstance(pending[0], DirectReply):
            direct = [reply for reply in pending if isinstance(reply, DirectReply)]
            return self._direct.take(direct, timeout_s) if len(direct) == len(pending) else None
        try:
            answers: list[Any] = self._ray.get(pending, timeout=timeout_s)
        except Exception:  # some are late, or one has failed; each reply is then delivered by itself
            return None
        return answers

    def open(self, engine: EngineInfo, delivered: Any) -> tuple[Reply, Payload | None]:
        """Decode a reply."""
        self._direct.heard(engine)
        match delivered:
            case bytes():
                return decode_reply(delivered)
            case [header, buffers, refs]:
                return decode_reply(header, tuple(buffers), tuple(refs))
            case _:
                raise failure_of(delivered, engine.engine_id, engine.output_path, engine.host)

    def make_safe(self) -> None:
        """Send through Ray the requests that have gone to sockets only."""
        self._direct.make_safe()

    def close(self) -> None:
        """End the relays and close the sockets; replies to calls of Ray still come."""
        self._direct.close()
        if not self.stopped.is_set():
            self.relays.close()


class RayBackend:
    """A cluster on Ray: embedded in this process, or on an existing Ray cluster.

    Args:
        num_cpus: the CPUs of an embedded Ray.
        environment: variables that every engine sets before it imports any numerical library.
        address: an existing Ray cluster.
        startup: a cell that every engine runs first.
        stop_grace_s: the time that engines have to end gracefully.
        show_logs: show Ray's own log lines.
        store_bytes: the size of an embedded Ray's object store; None for Ray's default.
        engines: the number of engines that will be started first.
        cluster: the id of an earlier cluster, to go on from its files on the head node.
    """

    def __init__(
        self,
        *,
        num_cpus: int,
        environment: dict[str, str],
        address: str | None = None,
        startup: str = "",
        stop_grace_s: float = STOP_GRACE_S,
        show_logs: bool = False,
        store_bytes: int | None = None,
        engines: int = 0,
        cluster: str | None = None,
    ) -> None:
        self._engines = engines
        self._stop_grace_s = stop_grace_s
        self._cluster = cluster
        self._num_cpus = num_cpus
        self._environment = environment
        self._address = address
        self._startup = startup
        self._show_logs = show_logs
        self._store_bytes = store_bytes
        self._ray: Any = None
        self._controller: Any = None
        self._namespace = ""
        self._stopped = ray_runtime.new_end()

    def start(self) -> None:
        """Start Ray if need be, and the controller."""
        self._ray = ray_runtime.acquire(
            num_cpus=self._num_cpus,
            address=self._address,
            environment=self._environment,
            show_logs=self._show_logs,
            store_bytes=self._store_bytes,
            workers=min(self._engines, self._num_cpus) + 1,  # one for the controller
        )
        cluster = self._cluster or secrets.token_hex(4)
        namespace = self._namespace = _NAMESPACE + cluster
        actor_class = self._ray.remote(RayController).options(
            name="controller",
            namespace=namespace,
            # A cluster that was started by an engine ends with that engine.
            lifetime=None if self._ray.get_runtime_context().get_actor_id() else "detached",
            scheduling_strategy=head_place(),
            num_cpus=0,
            # Ray restarts the controller within 1.8 s. Its memory is lost, but its state is in SQLite on the head node.
            max_restarts=-1,
            max_concurrency=MAX_CONCURRENCY,
            enable_task_events=False,  # as for engines
        )
        # Make the class once: each call of `remote` would leave one more in every client and the GCS.
        engine_class = self._ray.remote(RayEngine)
        self._controller = actor_class.remote(
            cluster, namespace, self._environment, self._startup, engine_class, self._stop_grace_s
        )

    def connect(self) -> RayTransport:
        """Return the transport of a new client."""
        if self._controller is None:
            raise ClusterStopped
        return RayTransport(self._ray, self._controller, self._stopped, self._namespace)

    def connection_info(self) -> ConnectionInfo:
        """Return the connection info for other processes."""
        if self._controller is None:
            raise ClusterStopped
        return _connection_info(self._ray, self._namespace)

    def stop(self, stop_grace_s: float | None = None) -> list[str]:
        """Stop the engines and the controller, and Ray if this started it; see ``Backend``."""
        controller, self._controller = self._controller, None
        if controller is None:
            return []
        if self._stopped.lost is not None:  # a call would make Ray start another cluster
            ray_runtime.release()
            return []
        self._stopped.set()
        grace_s = self._stop_grace_s if stop_grace_s is None else stop_grace_s
        try:
            with contextlib.suppress(ConnectionLost):  # the controller has gone, or is too busy; it is killed below
                return ControllerClient(RayControllerChannel(controller)).shut_down(grace_s)
            return []
        finally:
            try:
                self._ray.kill(controller)
                stop_actors(self._ray, self._namespace)
            finally:
                ray_runtime.release()


def _connection_info(ray: Any, namespace: str) -> ConnectionInfo:
    address = ray.get_runtime_context().gcs_address
    return ConnectionInfo(address, namespace, ray_runtime.settings_for_others(), versions_here())


def engine_here() -> tuple[ConnectionInfo, int] | None:
    """Return the connection info and the id of the engine in this process; None if this process is not an engine."""
    spec = RayEngine.here
    if spec is None:
        return None
    import ray

    return _connection_info(ray, _NAMESPACE + spec.cluster), spec.engine_id


def _spare_ray_at_exit() -> None:
    """Remove Ray's own exit handler, which would end this process before some of the user's handlers have run.

    The handler's name is private. If Ray drops the name, this process ends while handlers run; nothing else is lost.
    """
    import ray

    worker: Any = getattr(getattr(ray, "_private", None), "worker", None)
    if hasattr(worker, "shutdown"):
        atexit.unregister(worker.shutdown)


def _skip_debugger() -> None:
    """Let calls of Ray's debugger by name act as ``breakpoint()``, because Ray would wait at a port."""
    with contextlib.suppress(ImportError):
        from ray.util import rpdb

        rpdb.set_trace = lambda *_: sys.breakpointhook()


def _with_remark(reply: Reply, text: str) -> Reply:
    """Return a reply whose output ends with a line on stderr."""
    tail = reply.tail
    return reply._replace(tail=tail._replace(chunks=(*tail.chunks, StreamText("stderr", text))))


def connect(info: ConnectionInfo) -> RayTransport:
    """Return a client's transport to a cluster that another process has started.

    Access is checked before Ray connects, which takes long to fail.

    Raises:
        VersionMismatch: if the versions of this process and the cluster are incompatible.
        AccessRefused: if the token is missing, another user's, or wrong.
        ClusterUnreachable: if there is no such cluster, or this process is connected to another Ray cluster.
        RayImportedFirst: if Ray has been imported with other settings.
    """
    compared = compare(versions_here(), info.versions)
    if compared.fatal:
        raise VersionMismatch(compared.differences)
    if compared.differences:
        warn_caller(VersionWarning(compared.differences))
    ray_runtime.check_joining(info.address, info.settings)
    check_access(info.address, info.settings)
    ray = ray_runtime.join(info.address, info.settings)
    try:
        controller = ray.get_actor("controller", namespace=info.namespace)
    except ValueError:
        raise ClusterUnreachable(info.address, "the cluster has stopped") from None
    return RayTransport(ray, controller, ray_runtime.new_end(), info.namespace)
