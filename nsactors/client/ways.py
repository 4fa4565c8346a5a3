"""From what a user calls a cluster to the way there."""

from __future__ import annotations

import os

from nsactors.errors import ClusterNotReady
from nsactors.transport.base import Transport
from nsactors.transport.connection import ConnectionInfo
from nsactors.transport.registry import Registry

__all__ = ["connection_of", "transport_to"]


def transport_to(cluster: Transport | ConnectionInfo | str | os.PathLike[str] | None) -> Transport:
    """The way to a cluster; see ``Client``."""
    match cluster:
        case None | str() | os.PathLike() | ConnectionInfo():
            from nsactors.transport.ray_joining import connect

            return connect(cluster if isinstance(cluster, ConnectionInfo) else connection_of(cluster))
    return cluster


def connection_of(cluster: str | os.PathLike[str] | None) -> ConnectionInfo:
    """How a cluster is reached.

    Args:
        cluster: its name, or the path of a file, which has a slash or a dot and an ending; None for the only one.

    Raises:
        ClusterNotFound: if there is no such cluster, or no name and several clusters.
        ClusterNotReady: if it is being started.
        ClusterUnreachable: if there is no such file, or something else is in it.
        AccessRefused: if the file is another user's.
    """
    if cluster is not None and (not isinstance(cluster, str) or os.sep in cluster or cluster.endswith(".json")):
        return ConnectionInfo.load(cluster)
    record = Registry().find(cluster)
    if record.connection is None:
        raise ClusterNotReady(record.name)
    return record.connection
