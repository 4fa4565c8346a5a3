"""The errors of finding a cluster that runs in the background, and of getting in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nsactors.errors.tree import ConnectionLost, NsactorsError
from nsactors.errors.wording import columns

__all__ = [
    "AccessRefused",
    "ClusterNameTaken",
    "ClusterNotFound",
    "ClusterNotReady",
    "RayImportedFirst",
    "VersionMismatch",
]


class ClusterNotFound(ConnectionLost):
    """No cluster of this user goes by this name, or it is not clear which one is meant.

    Args:
        name: what was asked for; None for "the only one".
        known: the names of those that run.
    """

    def __init__(self, name: str | None, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        listed = ", ".join(map(repr, self.known))
        match name, self.known:
            case _, ():
                what = "no cluster of yours runs here" if name is None else f"no cluster {name!r} of yours runs here"
                text = f"{what}: start one with `nsactors start{'' if name is None else f' --name {name}'}`"
            case None, (first, *_):
                text = f"{len(self.known)} clusters of yours run: {listed}. Say which, as in Client({first!r})"
            case _:
                text = f"no cluster {name!r} of yours runs here; there is {listed}"
        super().__init__(text)


class ClusterNotReady(ConnectionLost):
    """The cluster ``name`` is being started."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the cluster {name!r} is still starting: try again when `nsactors list` says that it runs")
        self.name = name


class ClusterNameTaken(NsactorsError):
    """A cluster of this name runs already.

    Args:
        name: of the cluster.
        host: where its owner is, if that cannot be looked at from here; it may have ended.
    """

    def __init__(self, name: str, host: str | None = None) -> None:
        text = f"a cluster {name!r} of yours runs already: `nsactors stop {name}` ends it, or take another name"
        if host is not None:
            text += (
                f". It was started on {host}, and cannot be looked at from here: "
                f"if it has ended, `nsactors stop --forget {name}` strikes it off the list"
            )
        super().__init__(text)
        self.name = name
        self.host = host


class AccessRefused(ConnectionLost):
    """The cluster does not let this process in.

    Args:
        address: of the cluster.
        reason: why.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"the cluster at {address} does not let you in: {reason}. Only who started it has its token")
        self.address = address
        self.reason = reason


class RayImportedFirst(NsactorsError, RuntimeError):
    """Ray was to be started, or joined, by a process that has imported Ray with settings of its own."""

    def __init__(self) -> None:
        super().__init__(
            "Ray was imported before nsactors could make it safe: bound to this machine alone, with a token. "
            "Start the Cluster, or make the Client, before 'import ray'; or call ray.init() yourself first"
        )


class VersionMismatch(ConnectionLost):
    """This process and the cluster run versions that do not understand each other.

    Args:
        differences: by name, the version here and the version there.
    """

    def __init__(self, differences: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(
            f"this process and the cluster do not understand each other:\n{version_table(differences)}\n"
            "Use the environment that the cluster was started in, or start a cluster from this one"
        )
        self.differences = dict(differences)


def version_table(differences: Mapping[str, tuple[str, str]]) -> str:
    """Versions here and there, one row each, as plain text."""
    return columns([("", "here", "cluster"), *((name, *versions) for name, versions in differences.items())])
