"""Named actors: actors on the head node that clients find by name."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import field
from typing import Any

from nsactors._frozen import frozen
from nsactors.errors import ClusterUnreachable, StoreFull
from nsactors.protocol.process import OwnProcess
from nsactors.protocol.serialize import Payload
from nsactors.protocol.wire import seal
from nsactors.transport.base import (
    ClusterEnd,
    MakeNamedActor,
    NamedActorGone,
    Transport,
    answer,
    outcome_of,
    pack_arguments,
)
from nsactors.transport.ray.failures import death_of, result_of
from nsactors.transport.ray.nodes import on_head_node, once_name_is_free
from nsactors.transport.ray.object_store import as_array, is_full

_PREFIX = "named-actor-"
MAX_CONCURRENCY = 10_000  # methods that wait are coroutines, without threads
END_S = 5.0  # a process that stops the cluster ends its named actors within this time

OpenTransport = Callable[[str], Transport]  # the argument is the Ray namespace of the cluster
_Parcel = tuple[Any, Any, Any]


class RayNamedActor:
    """The actor class of named actors."""

    def __init__(self, namespace: str, open_transport: OpenTransport, make: MakeNamedActor) -> None:
        # Ray warns that a wait blocks the event loop. But threads of the named actor wait here, and the loop continues.
        ray_log = logging.getLogger("ray._private.worker")
        ray_log.addFilter(lambda record: "blocking ray.get" not in record.getMessage())
        transport = open_transport(namespace)
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
                raise self.stopped.error() from error  # the end of Ray during the call raises errors of many kinds
            if is_full(error):
                raise StoreFull(f"the arguments of {method}()") from None
            raise
        return outcome_of(_unpack(*returned))


def find_named_actor(ray: Any, namespace: str, name: str) -> Any:
    """Return Ray's actor for a named actor; None if there is none."""
    with contextlib.suppress(ValueError):
        return ray.get_actor(_PREFIX + name, namespace)
    return None


def start_named_actor(ray: Any, namespace: str, name: str, open_transport: OpenTransport, make: MakeNamedActor) -> Any:
    """Return Ray's actor for a named actor; start it if there is none."""
    # The actor never restarts, because its state would be lost anyway.
    options: dict[str, Any] = {"max_restarts": 0, "max_concurrency": MAX_CONCURRENCY}
    actor_class = on_head_node(ray.remote(RayNamedActor), _PREFIX + name, namespace, **options)
    return once_name_is_free(lambda: actor_class.remote(namespace, open_transport, make))


def stop_actors(ray: Any, namespace: str) -> None:
    """Stop all actors in the namespace of a cluster that has stopped: named actors, services, the journal replica."""
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == namespace:
            with contextlib.suppress(ValueError):  # it has ended by now
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
