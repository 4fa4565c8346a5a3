"""The way to a cluster that another process has started."""

from __future__ import annotations

import threading

from nsactors.errors import ClusterUnreachable
from nsactors.transport.connection import ConnectionInfo
from nsactors.transport.ray import RayTransport
from nsactors.transport.ray_runtime import ray_runtime

__all__ = ["connect"]


def connect(info: ConnectionInfo) -> RayTransport:
    """A client's way to a cluster that another process has started.

    Raises:
        ClusterUnreachable: if there is no such cluster, or this process is connected to another Ray.
        RayImportedFirst: if Ray has been imported, with settings of its own.
    """
    ray = ray_runtime.join(info.address, info.settings)
    try:
        controller = ray.get_actor("controller", namespace=info.namespace)
    except ValueError:
        raise ClusterUnreachable(info.address, "the cluster has stopped") from None
    return RayTransport(ray, controller, threading.Event())
