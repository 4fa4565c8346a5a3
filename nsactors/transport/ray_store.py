"""Ray's object store, as engines put values aside in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nsactors.core.memory import StoreMemory
from nsactors.core.payload import Payload
from nsactors.core.remote_value import ObjectGone
from nsactors.errors import StoreFull, bytes_in_words
from nsactors.transport.ray_memory import store_memory

__all__ = ["RayObject", "RayStore", "as_array", "is_full", "put"]

_STOPPED = "the cluster has stopped"


@dataclass(frozen=True, slots=True)
class RayObject:
    """A payload in Ray's object store; Ray moves it from node to node, once to each.

    Args:
        ref: Ray's reference. It travels beside pickles, where Ray sees it and keeps the object.
    """

    ref: Any

    def load(self) -> Payload:
        """The payload; see ``StoredObject``."""
        import ray

        if not ray.is_initialized():  # Ray would start another cluster to look in
            raise ObjectGone(_STOPPED)
        try:
            (data, *buffers), refs = ray.get(self.ref)
        except ray.exceptions.OwnerDiedError:
            raise ObjectGone("the process that held it has ended") from None
        except ray.exceptions.ObjectLostError as error:
            raise ObjectGone(f"Ray has no copy of it any more ({type(error).__name__})") from None
        except ValueError:  # what Ray says to a reference from before it was started
            raise ObjectGone(_STOPPED) from None
        return Payload(data, tuple(buffers), tuple(refs))


class RayStore:
    """The store that an engine owns objects in: they go when it dies, and outlive the client that asked for them."""

    def __init__(self) -> None:
        import ray

        self.ref_types: tuple[type, ...] = (ray.ObjectRef,)

    def put(self, payload: Payload) -> RayObject:
        """Keep a payload; see ``ObjectStore``."""
        arrays = [as_array(buffer) for buffer in (payload.data, *payload.buffers)]
        # One level down: Ray does not store a reference itself, but sees those in a list.
        return RayObject(put([arrays, list(payload.refs)], "the value", payload.nbytes))

    def memory(self) -> StoreMemory | None:
        """This node's store; see ``ObjectStore``."""
        return store_memory()


def put(value: Any, what: str, nbytes: int) -> Any:
    """Store a value; Ray's reference to it.

    Raises:
        StoreFull: if there is no room; ``what`` and ``nbytes`` say for what.
    """
    import ray

    try:
        return ray.put(value)
    except Exception as error:
        if is_full(error):
            raise StoreFull(f"{what} ({bytes_in_words(nbytes)})") from None
        raise


def is_full(error: object) -> bool:
    """Whether this is how Ray says that neither the object store nor its disk has room."""
    import ray

    return isinstance(error, ray.exceptions.ObjectStoreFullError | ray.exceptions.OutOfDiskError)


def as_array(buffer: Any) -> Any:
    """A buffer in the form that Ray keeps out of band: one copy into the store, none out of it."""
    import numpy as np

    view = memoryview(buffer)
    return np.frombuffer(view, np.uint8) if view.nbytes else np.empty(0, np.uint8)
