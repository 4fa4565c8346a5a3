"""Residents as actors on the head node: what is there lives as long as the cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import Any

from nsactors.core.payload import Payload
from nsactors.core.wire import seal
from nsactors.errors import ClusterStopped, ClusterUnreachable, StoreFull
from nsactors.transport.ray_death import death_of
from nsactors.transport.ray_nodes import head_place
from nsactors.transport.ray_store import as_array, is_full
from nsactors.transport.residents import MakeResident, ResidentGone, answer, outcome_of, pack_arguments

__all__ = ["RayResidentLine", "find_resident", "start_resident", "stop_actors"]

_PREFIX = "resident-"
MAX_CONCURRENCY = 10_000  # methods that wait are coroutines, and take no thread
END_S = 5.0  # by then whoever stops the cluster has ended its residents too, if anybody does
NAME_S, LOOK_S = 5.0, 0.02  # the name of an actor that has died is free again after some milliseconds

_Parcel = tuple[Any, Any, Any]


class RayResident:
    """The actor class of residents."""

    def __init__(self, namespace: str, make: MakeResident) -> None:
        import ray

        from nsactors.transport.ray import RayTransport  # which leads here itself

        # Who waits are threads of the resident's, and never the event loop, as Ray takes it to be.
        ray_log = logging.getLogger("ray._private.worker")
        ray_log.addFilter(lambda record: "blocking ray.get" not in record.getMessage())
        controller = ray.get_actor("controller", namespace)
        transport = RayTransport(ray, controller, threading.Event(), namespace)
        self._ref_types = transport.ref_types
        self._resident = make(transport, _end)

    async def call(self, method: str, *parcel: Any) -> _Parcel:
        """Call a method of the resident."""
        return _pack_up(await answer(self._resident, method, _unpack(*parcel), self._ref_types))


@dataclass(frozen=True, slots=True)
class RayResidentLine:
    """A resident as clients call it; see ``ResidentLine``.

    Attributes:
        ray: the module.
        actor: where it lives.
        stopped: set when this process has stopped the cluster. A call afterwards would make Ray start another one.
    """

    ray: Any
    actor: Any
    stopped: threading.Event

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """See ``ResidentLine``."""
        if self.stopped.is_set():
            raise ClusterStopped
        ray = self.ray
        parcel = _pack_up(pack_arguments(method, args, (ray.ObjectRef,)))
        try:
            returned = ray.get(self.actor.call.remote(method, *parcel), timeout=timeout_s)
        except ray.exceptions.GetTimeoutError:
            raise ClusterUnreachable("the head node", f"no answer to {method} in {timeout_s:g} s") from None
        except ray.exceptions.ActorUnavailableError as error:
            raise ClusterUnreachable("the head node", str(error)) from error
        except ray.exceptions.RayActorError as error:
            raise ResidentGone(death_of(error, None).reason) from None
        except Exception as error:
            if self.stopped.is_set():
                raise ClusterStopped from error  # Ray went while this was under way, and has many words for that
            if is_full(error):
                raise StoreFull(f"what {method}() takes") from None
            raise
        return outcome_of(_unpack(*returned))


def find_resident(ray: Any, namespace: str, name: str) -> Any:
    """The actor of a resident; None if there is none."""
    with contextlib.suppress(ValueError):
        return ray.get_actor(_PREFIX + name, namespace)
    return None


def start_resident(ray: Any, namespace: str, name: str, make: MakeResident) -> Any:
    """The actor of a resident, which is started if there is none."""
    actor_class = ray.remote(RayResident).options(
        name=_PREFIX + name,
        namespace=namespace,
        get_if_exists=True,
        lifetime="detached",
        num_cpus=0,
        max_restarts=0,  # what it holds would be gone all the same
        max_concurrency=MAX_CONCURRENCY,
        scheduling_strategy=head_place(),
        enable_task_events=False,  # as for engines
    )
    give_up, pause = time.monotonic() + NAME_S, threading.Event()
    while True:
        try:
            return actor_class.remote(namespace, make)
        except ValueError:  # the name belongs to one that has just died
            if time.monotonic() > give_up:
                raise
            pause.wait(LOOK_S)


def stop_actors(ray: Any, namespace: str) -> None:
    """End whatever lives in the namespace of a cluster that has stopped: residents, services, the keeper."""
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == namespace:
            with contextlib.suppress(ValueError):  # it has ended since
                ray.kill(ray.get_actor(actor["name"], namespace))


def _end() -> None:
    threading.Event().wait(END_S)
    os._exit(0)


def _pack_up(payload: Payload) -> _Parcel:
    """A payload in the forms that Ray carries best: small ones as bytes, large ones by its object store."""
    sealed = seal(payload)
    if not sealed.buffers:
        return sealed.inline, None, ()
    return None, [as_array(buffer) for buffer in sealed.buffers], list(sealed.refs)


def _unpack(inline: Any, arrays: Any, refs: Any) -> Payload:
    if inline is not None:
        return Payload(*inline)
    return Payload(arrays[0], tuple(arrays[1:]), tuple(refs))
