"""The process of the controller: a Ray actor that starts and watches the actors of engines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from nsactors.controller import Controller, Death, Process
from nsactors.membership.store import SqliteStore
from nsactors.namespace.module_versions import SourceStore, sources_folder
from nsactors.protocol.engine_info import EngineSpec, Recovery
from nsactors.transport.ray.direct_server import knock_at
from nsactors.transport.ray.failures import NODE_DIED, LivenessMonitor, death_of, output_folder
from nsactors.transport.ray.journal_replica import start_replica
from nsactors.transport.ray.nodes import EnginePlaces, has_had_actors

PARK_AGAIN_S = 0.1
KILL_AGAIN_S = 0.005
UNPARK_S = 2.0


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
        """Stop the cluster; then let parked calls return, because Ray would report them on the terminal."""
        notices = await super().shut_down(stop_grace_s)
        self._over.set()
        await self._ray_launcher.unpark()
        return notices

    async def presence(self, client: str) -> None:
        """Return when the client has left; a client calls this, and may have left before the call arrives."""
        if client in self._clients.names:
            await self._presences.until_gone(client)

    async def stand_by(self, client: str, presence: Sequence[Any]) -> None:
        """Watch the process of a client through a reference to its call to :meth:`presence`."""
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
        """Return when an engine must end; the call that is parked at the engine waits for this."""
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
            while True:  # the interpreter has ended; kill again if a call has overtaken the kill and returned
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
            # failure shows only when the actor is called. This call is repeated together with the parked call, since
            # both can be lost with the connection. It comes first, since Ray sends no call after one whose argument is
            # pending.
            address.is_here.remote()
            # Let Ray repeat the call, because Ray does not know immediately that a restarted controller can be called.
            controller = ray.get_runtime_context().current_actor
            end_requested = controller.end_requested.options(max_task_retries=-1).remote(*process)
            waiting = asyncio.wrap_future(end_requested.future())
            self._waiting.add(waiting)
            waiting.add_done_callback(self._waiting.discard)
            try:
                await address.end.remote(end_requested)
                return
            except (ray.exceptions.RayTaskError, ray.exceptions.ActorUnavailableError):
                # The argument or the connection to the engine has failed. If this counted as a death, a second process
                # would start although the first is alive.
                await asyncio.sleep(PARK_AGAIN_S)

    async def end_requested(self, process: Process) -> None:
        """Return when this engine has been asked to end, or is dead."""
        if end_requested := self._end_requests.get(process):
            await end_requested.wait()

    async def unpark(self) -> None:
        """Return when Ray knows that no call is parked any more."""
        if self._waiting:
            await asyncio.wait(self._waiting, timeout=UNPARK_S)  # at most for this time, and with any outcome

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
        # copied, so engines may start anywhere. They should be spread again, because they may all have been on one
        # machine after the loss of another.
        if found or has_had_actors({f"engine-{engine_id}.{incarnation}" for engine_id, incarnation in hosts}):
            self._places.restore(hosts, found)
        return found
