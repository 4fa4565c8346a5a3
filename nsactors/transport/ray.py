"""Engines, controller and clients as Ray actors and drivers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from nsactors.controller import Controller, Death, SqliteStore
from nsactors.core.cluster import EngineInfo, EngineSpec, Recovery
from nsactors.core.engines import with_labels
from nsactors.core.messages import Capability, Instruction, Reply, StreamText
from nsactors.core.payload import Payload
from nsactors.core.remote_value import StoredObject
from nsactors.core.wire import decode_reply, decode_request, encode, encode_body, seal, stamp
from nsactors.engine_actor import EngineActor
from nsactors.errors import ClusterStopped, ConnectionLost, warn_caller
from nsactors.namespace.host import ProcessHost
from nsactors.transport.base import Addressed, ControllerProxy
from nsactors.transport.connection import ConnectionInfo
from nsactors.transport.hosting import Services
from nsactors.transport.ray_death import NODE_DIED, death_of, failure_of
from nsactors.transport.ray_folders import output_folder
from nsactors.transport.ray_hosting import RayServices
from nsactors.transport.ray_keeper import keeper_for, start_keeper
from nsactors.transport.ray_line import RayLine
from nsactors.transport.ray_memory import SpillCheck
from nsactors.transport.ray_nodes import EnginePlaces, head_place, labels_here
from nsactors.transport.ray_outbox import settle_all
from nsactors.transport.ray_presence import Presences
from nsactors.transport.ray_relays import Promise, RayRelays
from nsactors.transport.ray_residents import RayResidentLine, find_resident, start_resident, stop_actors
from nsactors.transport.ray_runtime import ray_runtime
from nsactors.transport.ray_store import RayStore, as_array, put
from nsactors.transport.residents import MakeResident
from nsactors.transport.versions import versions_here

__all__ = ["RayBackend", "RayTransport"]

PARK_AGAIN_S = 0.1
UNPARK_S = 2.0
MAX_CONCURRENCY = 10_000  # long polls of every engine and client, and the calls beside them


class RayEngine:
    """The actor class of engines: an :class:`EngineActor` on Ray's wire.

    A plain synchronous actor: its methods run on the process's main thread, one after the other.
    """

    def __init__(self, spec: EngineSpec, controller: Any, keeper: tuple[str, Any] | None) -> None:
        os.environ.update(spec.environment)
        spec = with_labels(spec, labels_here())
        host = ProcessHost(output_folder(spec.cluster), f"engine-{spec.engine_id}", spec.incarnation)
        line = ControllerProxy(RayLine(controller))
        self._engine = EngineActor(spec, line, host, RayStore(), keeper_for(keeper))
        self._spills = SpillCheck()

    def handle(self, header: bytes) -> Any:
        """Run one request."""
        return self.handle_large(header)

    def handle_large(self, header: bytes, buffers: tuple[Any, ...] = (), refs: tuple[Any, ...] = ()) -> Any:
        """Run one request with a large payload beside it."""
        request, payload = decode_request(header, buffers, refs)
        reply, result = self._engine.handle(request, payload)
        settle_all()
        sealed = seal(result)
        if sealed.buffers and (warning := self._spills.before_put(sealed.buffers)):
            reply = _with_remark(reply, f"{type(warning).__name__}: {warning}\n")
        answer = encode(reply, sealed)
        self._engine.answers.keep(reply, answer, result, sealed)
        return (answer, [as_array(b) for b in sealed.buffers], list(sealed.refs)) if sealed.buffers else answer

    def watch(self, never: Any) -> None:
        """Parked by the controller on an argument that never resolves: it fails the moment this process dies."""


class RayController(Controller):
    """The actor class of the controller."""

    def __init__(
        self, cluster: str, namespace: str, environment: dict[str, str], startup: str, engine_class: Any
    ) -> None:
        # Ray calls this again, with the same arguments, in the process that takes the place of one that died.
        store = SqliteStore(os.path.join(output_folder(cluster), "controller"))
        self._ray_launcher = _RayLauncher(namespace, engine_class)
        super().__init__(cluster, self._ray_launcher, environment, startup, store)
        self._presences = Presences()
        self._over = asyncio.Event()

    async def shut_down(self) -> None:
        """As every controller; then parked calls may end: Ray says on the terminal what it would have repeated."""
        await super().shut_down()
        self._over.set()
        await self._ray_launcher.unpark()

    async def presence(self, client: str) -> None:
        """Called by a client, and does not return while that is there; it may have left before this call was begun."""
        if client in self._clients.names:
            await self._presences.last(client)

    async def stand_by(self, client: str, presence: Sequence[Any]) -> None:
        """Watch over the process of the client whose reference to its :meth:`presence` this is."""
        if await self._presences.died(presence):
            await self.detach(client)

    async def detach(self, client: str) -> None:
        """A client has left, or its process has died; see ``Controller``."""
        self._presences.end(client)
        await super().detach(client)

    async def never(self) -> None:
        """Does not return while there is a cluster: what parked calls wait for."""
        await self._over.wait()


class _RayLauncher:
    """Starts engines as detached actors of the cluster's Ray namespace."""

    def __init__(self, namespace: str, engine_class: Any) -> None:
        self._namespace = namespace
        self._engine_class = engine_class
        self._places = EnginePlaces()
        self._keeper: tuple[str, Any] | None = None
        self._never: Any = None

    def launch(self, spec: EngineSpec) -> Any:
        import ray

        return self._engine_class.options(
            name=f"engine-{spec.engine_id}.{spec.incarnation}",
            namespace=self._namespace,
            lifetime="detached",
            **self._places.take(spec),
            max_restarts=0,
            max_task_retries=0,
            enable_task_events=False,  # for Ray's dashboard: its GCS keeps 3 kB a call, up to 300 MB
        ).remote(spec, ray.get_runtime_context().current_actor, self._keeper_for(spec))

    def _keeper_for(self, spec: EngineSpec) -> tuple[str, Any] | None:
        if spec.options.recovery is not Recovery.REPLAY:
            return None
        self._keeper = self._keeper or start_keeper(spec.cluster, self._namespace)
        return self._keeper

    def obstacles(self, spec: EngineSpec, address: Any) -> AsyncIterator[str]:
        return self._places.obstacles(spec, address)

    async def watch(self, spec: EngineSpec, address: Any) -> Death:
        try:
            await self._park(address)
        except Exception as error:
            name = f"engine-{spec.engine_id}.{spec.incarnation}"
            path = os.path.join(output_folder(spec.cluster), name)
            ending = death_of(error, path, self._places.host_of(spec))
            return Death(*ending, displaced=ending.reason == NODE_DIED)
        finally:
            self._places.leave(spec)
        raise AssertionError("the parked call ended while its engine lives")

    async def _park(self, address: Any) -> None:
        import ray

        while True:
            # One for all engines: each call that does not return holds a place of the controller's. Ray repeats it: of
            # a controller that has just been brought back it does not know at once that it can be called.
            controller = ray.get_runtime_context().current_actor
            self._never = self._never or controller.never.options(max_task_retries=-1).remote()
            try:
                await address.watch.remote(self._never)
                return
            except (ray.exceptions.RayTaskError, ray.exceptions.ActorUnavailableError):
                # It is the argument that has failed, or the way to the engine. Taken for a death, this would bring a
                # second process beside one that lives.
                self._never = None
                await asyncio.sleep(PARK_AGAIN_S)

    async def unpark(self) -> None:
        """Return when Ray knows that nothing is parked any more; ``RayController.never`` is about to end."""
        if self._never is not None:
            with contextlib.suppress(Exception):  # however it ended, and if it does not
                await asyncio.wait_for(asyncio.wrap_future(self._never.future()), UNPARK_S)

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
        self._places.restore(hosts, found)
        return found


class RayTransport:
    """A client's way to engines that are Ray actors."""

    name = "ray"
    capabilities = frozenset(Capability)

    def __init__(self, ray: Any, controller: Any, stopped: threading.Event, namespace: str) -> None:
        self._ray = ray
        self._controller = controller
        self._namespace = namespace
        self.stopped = stopped
        self.ref_types: tuple[type, ...] = (ray.ObjectRef,)
        self.controller = ControllerProxy(RayLine(controller, stopped))
        self.services: Services = RayServices(namespace, stopped)
        self.relays = RayRelays(ray, stopped)
        self._spills = SpillCheck()

    @property
    def address(self) -> str:
        """The address by which Ray knows this machine."""
        return str(self._ray.util.get_node_ip_address())

    def stand_by(self, client: str) -> None:
        """Hand the controller something that fails when this process dies."""
        self._controller.stand_by.remote(client, [self._controller.presence.remote(client)])

    def resident(self, name: str, make: MakeResident | None = None) -> RayResidentLine | None:
        """An actor on the head node."""
        if self.stopped.is_set():
            raise ClusterStopped
        actor = find_resident(self._ray, self._namespace, name)
        if actor is None and make is not None:
            actor = start_resident(self._ray, self._namespace, name, make)
        return None if actor is None else RayResidentLine(self._ray, actor, self.stopped)

    def prepare(self, instruction: Instruction, payload: Payload | None) -> tuple[bytes, Any]:
        """Encode a request; a large payload goes into the object store, once for all engines."""
        settle_all()
        sealed = seal(payload)
        body = encode_body(instruction, sealed)
        if not sealed.buffers:
            return body, None
        if warning := self._spills.before_put(sealed.buffers):
            warn_caller(warning)
        # References stay nested in a list: as an argument of its own, one that is pending would hold up the engine's
        # queue.
        arrays = [as_array(b) for b in sealed.buffers]
        stored = put(arrays, "what was to be sent", sum(array.nbytes for array in arrays))
        return body, (stored, list(sealed.refs)) if sealed.refs else (stored,)

    def keep(self, payload: Payload) -> StoredObject:
        """Put a payload into the object store."""
        if warning := self._spills.before_put((payload.data, *payload.buffers)):
            warn_caller(warning)
        return RayStore().put(payload)

    def send(self, request: Addressed, prepared: tuple[bytes, Any]) -> Any:
        """Call the engine's actor."""
        engine, seq, stops_seen = request
        body, large = prepared
        header = stamp(seq, stops_seen, body)
        if large is None:
            return engine.address.handle.remote(header)
        return engine.address.handle_large.remote(header, *large)

    def when_answered(self, pending: Any, listener: Callable[[Any], None]) -> None:
        """Wait on a thread of Ray's."""
        if isinstance(pending, Promise):
            return pending.when_kept(listener)
        pending.future().add_done_callback(lambda answer: listener(answer.exception() or answer.result()))

    def take(self, pending: Sequence[Any], timeout_s: float) -> list[Any] | None:
        """Wait here: no thread has to be woken."""
        try:
            answers: list[Any] = self._ray.get(pending, timeout=timeout_s)
        except Exception:  # too slow, or one of them has failed: each says so by itself
            return None
        return answers

    def open(self, engine: EngineInfo, delivered: Any) -> tuple[Reply, Payload | None]:
        """Decode a reply."""
        match delivered:
            case bytes():
                return decode_reply(delivered)
            case [header, buffers, refs]:
                return decode_reply(header, tuple(buffers), tuple(refs))
            case _:
                raise failure_of(delivered, engine.engine_id, engine.output_path, engine.host)

    def close(self) -> None:
        """End the relays; replies belong to their calls."""
        if not self.stopped.is_set():
            self.relays.close()


class RayBackend:
    """A cluster on Ray: embedded in this process, or an existing one.

    Args:
        num_cpus: what an embedded Ray may use.
        environment: set in every engine before it imports anything numerical.
        address: an existing Ray cluster.
        startup: a cell that every engine runs first.
        show_logs: let Ray's own lines through.
        store_bytes: the size of an embedded Ray's object store; None: as Ray thinks fit.
        cluster: the cluster's id, if it goes on from what an earlier one of this id has left on the head node.
    """

    def __init__(
        self,
        *,
        num_cpus: int,
        environment: dict[str, str],
        address: str | None = None,
        startup: str = "",
        show_logs: bool = False,
        store_bytes: int | None = None,
        cluster: str | None = None,
    ) -> None:
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
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start Ray if need be, and the controller."""
        self._ray = ray_runtime.acquire(
            num_cpus=self._num_cpus,
            address=self._address,
            environment=self._environment,
            show_logs=self._show_logs,
            store_bytes=self._store_bytes,
        )
        cluster = self._cluster or secrets.token_hex(4)
        namespace = self._namespace = f"nsactors-{cluster}"
        actor_class = self._ray.remote(RayController).options(
            name="controller",
            namespace=namespace,
            # A cluster that an engine has started ends when that engine does.
            lifetime=None if self._ray.get_runtime_context().get_actor_id() else "detached",
            scheduling_strategy=head_place(),
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=MAX_CONCURRENCY,
            enable_task_events=False,  # as for engines
        )
        # Made once: every client and the GCS keep a class for each time that this is called.
        engine_class = self._ray.remote(RayEngine)
        self._controller = actor_class.remote(cluster, namespace, self._environment, self._startup, engine_class)

    def connect(self) -> RayTransport:
        """A new client's transport."""
        if self._controller is None:
            raise ClusterStopped
        return RayTransport(self._ray, self._controller, self._stopped, self._namespace)

    def connection_info(self) -> ConnectionInfo:
        """How another process reaches this cluster."""
        if self._controller is None:
            raise ClusterStopped
        address = self._ray.get_runtime_context().gcs_address
        return ConnectionInfo(address, self._namespace, ray_runtime.settings_for_others(), versions_here())

    def stop(self) -> None:
        """End the engines and the controller, and Ray if it was started for them."""
        controller, self._controller = self._controller, None
        if controller is None:
            return
        self._stopped.set()
        try:
            with contextlib.suppress(ConnectionLost):  # gone already, or too busy to answer: it is killed below
                ControllerProxy(RayLine(controller)).shut_down()
        finally:
            try:
                self._ray.kill(controller)
                stop_actors(self._ray, self._namespace)
            finally:
                ray_runtime.release()


def _with_remark(reply: Reply, text: str) -> Reply:
    """A reply whose output ends with a line on stderr."""
    tail = reply.tail
    return reply._replace(tail=tail._replace(chunks=(*tail.chunks, StreamText("stderr", text))))
