"""Engines, controller and clients as Ray actors and drivers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from nsactors.controller import Controller, Death
from nsactors.core.cluster import EngineInfo, EngineSpec
from nsactors.core.messages import Capability, Reply, Request
from nsactors.core.payload import Payload
from nsactors.core.wire import Sealed, decode_reply, decode_request, encode, seal
from nsactors.engine_actor import EngineActor
from nsactors.errors import ClusterStopped, ClusterUnreachable, ConnectionLost, ProtocolError
from nsactors.namespace.host import ProcessHost
from nsactors.transport.base import ControllerProxy, EngineGone, tail_of
from nsactors.transport.ray_runtime import ray_runtime

__all__ = ["RayBackend"]

MAX_CONCURRENCY = 10_000  # long polls of every engine and client, and the calls beside them


class RayEngine:
    """The actor class of engines: an :class:`EngineActor` on Ray's wire.

    A plain synchronous actor: its methods run on the process's main thread, one after the other.
    """

    def __init__(self, spec: EngineSpec, controller: Any) -> None:
        import ray

        os.environ.update(spec.environment)
        host = ProcessHost(*_output_place(spec.cluster, spec.engine_id, spec.incarnation))
        self._engine = EngineActor(spec, ControllerProxy(RayLine(controller)), host, (ray.ObjectRef,))

    def handle(self, header: bytes, buffers: tuple[Any, ...] = (), refs: tuple[Any, ...] = ()) -> Any:
        """Run one request; ``buffers`` and ``refs`` are there if its payload is large."""
        request, payload = decode_request(header, buffers, refs)
        reply, result = self._engine.handle(request, payload)
        sealed = seal(result)
        if not sealed.buffers:
            return encode(reply, sealed)
        return encode(reply, sealed), [_as_array(b) for b in sealed.buffers], list(sealed.refs)

    def watch(self, never: Any) -> None:
        """Parked by the controller on an argument that never resolves: it fails the moment this process dies."""


class RayController(Controller):
    """The actor class of the controller."""

    def __init__(self, cluster: str, namespace: str, environment: dict[str, str], startup: str) -> None:
        super().__init__(cluster, _RayLauncher(namespace), environment, startup)

    async def never(self) -> None:
        """Does not return: what parked calls wait for."""
        await asyncio.Event().wait()


class RayLine:
    """Calls the controller actor.

    Args:
        controller: its handle.
        stopped: set when this process has stopped the cluster. A call afterwards would make Ray start another one.
    """

    def __init__(self, controller: Any, stopped: threading.Event | None = None) -> None:
        self._controller = controller
        self._stopped = stopped or threading.Event()

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """Call a method of the controller; see ``ControllerLine``."""
        import ray

        if self._stopped.is_set():
            raise ClusterStopped
        try:
            return ray.get(getattr(self._controller, method).remote(*args), timeout=timeout_s)
        except ray.exceptions.GetTimeoutError:
            raise ClusterUnreachable("the controller", f"no answer to {method} in {timeout_s:g} s") from None
        except ray.exceptions.RayActorError:
            raise ClusterStopped from None
        except Exception as error:
            if self._stopped.is_set():
                raise ClusterStopped from error  # Ray went while this was under way, and has many words for that
            if isinstance(error, ray.exceptions.RaySystemError):
                raise ClusterUnreachable("the controller", str(error)) from error
            raise


class _RayLauncher:
    """Starts engines as detached actors of the cluster's Ray namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._never: Any = None

    def launch(self, spec: EngineSpec) -> Any:
        import ray

        return (
            ray.remote(RayEngine)
            .options(
                name=f"engine-{spec.engine_id}.{spec.incarnation}",
                namespace=self._namespace,
                lifetime="detached",
                num_cpus=0,
                max_restarts=0,
                max_task_retries=0,
            )
            .remote(spec, ray.get_runtime_context().current_actor)
        )

    async def watch(self, spec: EngineSpec, address: Any) -> Death:
        import ray

        # One for all engines: each call that does not return holds a place of the controller's.
        self._never = self._never or ray.get_runtime_context().current_actor.never.remote()
        try:
            await address.watch.remote(self._never)
        except Exception as error:
            folder, name = _output_place(spec.cluster, spec.engine_id, spec.incarnation)
            return _death(error, os.path.join(folder, name))
        raise AssertionError("the parked call ended while its engine lives")

    def kill(self, address: Any) -> None:
        import ray

        ray.kill(address)


class RayTransport:
    """A client's way to engines that are Ray actors."""

    name = "ray"
    capabilities = frozenset(Capability)

    def __init__(self, ray: Any, controller: Any, stopped: threading.Event) -> None:
        self._ray = ray
        self.stopped = stopped
        self.ref_types: tuple[type, ...] = (ray.ObjectRef,)
        self.controller = ControllerProxy(RayLine(controller, stopped))

    def prepare(self, payload: Payload | None) -> tuple[Sealed, tuple[Any, ...]]:
        """Seal a payload; a large one goes into the object store, once for all engines."""
        sealed = seal(payload)
        if not sealed.buffers:
            return sealed, ()
        # References stay nested in a list: as an argument of its own, one that is pending would hold up the engine's
        # queue.
        return sealed, (self._ray.put([_as_array(b) for b in sealed.buffers]), list(sealed.refs))

    def submit(
        self,
        engine: EngineInfo,
        request: Request,
        prepared: tuple[Sealed, tuple[Any, ...]],
        on_reply: Callable[[Any], None],
    ) -> None:
        """Call the engine's actor."""
        sealed, arguments = prepared
        reply = engine.address.handle.remote(encode(request, sealed), *arguments)
        reply.future().add_done_callback(on_reply)

    def open(self, engine: EngineInfo, delivered: Any) -> tuple[Reply, Payload | None]:
        """Decode a reply."""
        try:
            value = delivered.result()
        except self._ray.exceptions.RayActorError as error:
            death = _death(error, engine.output_path)
            raise EngineGone(death.reason, death.stderr_tail) from None
        except self._ray.exceptions.RayTaskError as error:
            raise ProtocolError(f"engine {engine.engine_id} could not answer: {error.cause}") from error
        if isinstance(value, bytes):
            return decode_reply(value)
        header, buffers, refs = value
        return decode_reply(header, tuple(buffers), tuple(refs))

    def close(self) -> None:
        """Nothing is held: replies belong to their calls."""


class RayBackend:
    """A cluster on Ray: embedded in this process, or an existing one.

    Args:
        num_cpus: what an embedded Ray may use.
        environment: set in every engine before it imports anything numerical.
        address: an existing Ray cluster.
        startup: a cell that every engine runs first.
        show_logs: let Ray's own lines through.
    """

    def __init__(
        self,
        *,
        num_cpus: int,
        environment: dict[str, str],
        address: str | None = None,
        startup: str = "",
        show_logs: bool = False,
    ) -> None:
        self._num_cpus = num_cpus
        self._environment = environment
        self._address = address
        self._startup = startup
        self._show_logs = show_logs
        self._ray: Any = None
        self._controller: Any = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start Ray if need be, and the controller."""
        self._ray = ray_runtime.acquire(
            num_cpus=self._num_cpus,
            address=self._address,
            environment=self._environment,
            show_logs=self._show_logs,
        )
        cluster = secrets.token_hex(4)
        namespace = f"nsactors-{cluster}"
        actor_class = self._ray.remote(RayController).options(
            name="controller",
            namespace=namespace,
            lifetime="detached",
            num_cpus=0,
            max_concurrency=MAX_CONCURRENCY,
        )
        self._controller = actor_class.remote(cluster, namespace, self._environment, self._startup)

    def connect(self) -> RayTransport:
        """A new client's transport."""
        if self._controller is None:
            raise ClusterStopped
        return RayTransport(self._ray, self._controller, self._stopped)

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
            self._ray.kill(controller)
            ray_runtime.release()


def _as_array(buffer: Any) -> Any:
    """A buffer in the form that Ray keeps out of band: one copy into the store, none out of it."""
    import numpy as np

    view = memoryview(buffer)
    return np.frombuffer(view, np.uint8) if view.nbytes else np.empty(0, np.uint8)


def _output_place(cluster: str, engine_id: int, incarnation: int) -> tuple[str, str]:
    """Folder and name of an engine's output files: in Ray's session folder, which goes when the cluster goes."""
    log = os.readlink(f"/proc/{os.getpid()}/fd/1") if os.path.exists("/proc/self/fd/1") else ""
    folder = os.path.dirname(log) if log.endswith(".out") else tempfile.gettempdir()
    return os.path.join(folder, f"nsactors-{cluster}"), f"engine-{engine_id}.{incarnation}"


def _death(error: BaseException, output_path: str | None) -> Death:
    """What Ray says of a dead actor, in words for people."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    tail = tail_of(f"{output_path}.stderr") if output_path else ""
    if "creation task" in text:
        lines = text.strip().splitlines()
        return Death(lines[-1].strip(), text.strip())
    if fatal := re.search(r"^Fatal Python error: (.+)$", tail, re.MULTILINE):
        return Death(f"it crashed: {fatal.group(1)}", _user_part(tail[fatal.start() :]))
    if "ray.kill" in text:
        return Death("it was killed by ray.kill", tail)
    if "node" in text and "died" in text and "worker process" not in text:
        return Death("its node died", tail)
    if "memory" in text and "OutOfMemory" in type(error).__name__:
        return Death("it was killed because the machine ran out of memory", tail)
    return Death("its process ended unexpectedly (killed, or os._exit was called)", tail)


def _user_part(crash: str) -> str:
    """Of the interpreter's last report, the lines down to where our own machinery called the user's code."""
    lines = crash.splitlines()
    machinery = next((i for i, line in enumerate(lines) if "nsactors/namespace/" in line), len(lines))
    return "\n".join(lines[:machinery])
