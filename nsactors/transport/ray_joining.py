"""The way to a cluster that another process has started."""

from __future__ import annotations

import threading

from nsactors.core.versions import compare
from nsactors.errors import ClusterUnreachable, VersionMismatch, VersionWarning, warn_caller
from nsactors.transport.access import check_access
from nsactors.transport.connection import ConnectionInfo
from nsactors.transport.ray import RayTransport
from nsactors.transport.ray_runtime import ray_runtime
from nsactors.transport.versions import versions_here

__all__ = ["connect"]


def connect(info: ConnectionInfo) -> RayTransport:
    """A client's way to a cluster that another process has started.

    Whether that can be is found out before Ray is asked, which takes long to say no.

    Raises:
        VersionMismatch: if this process and the cluster could not understand each other.
        AccessRefused: if the token is not there, not this user's, or wrong.
        ClusterUnreachable: if there is no such cluster, or this process is connected to another Ray.
        RayImportedFirst: if Ray has been imported, with settings of its own.
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
    return RayTransport(ray, controller, threading.Event(), info.namespace)
