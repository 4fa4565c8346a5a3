"""Errors of starting, finding and joining a cluster.

Launchers, the command and clients raise them before there is a session; each names the command or the call that helps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from nsactors.errors.exceptions import ClusterUnreachable, ConnectionLost, NsactorsError
from nsactors.errors.formatting import columns, last_lines

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # the names that clusters may have


class ClusterNotFound(ConnectionLost):
    """This user runs no cluster of this name; or no name was given, and the user runs several.

    Args:
        name: the name; None for the user's only cluster.
        known: the names of the user's running clusters.
        named_by: the environment variable that gave the name, ``"NSACTORS_CLUSTER"``; empty if the call gave it.
        programs: the names of the user's embedded programs, which are found by their names only.
    """

    def __init__(
        self, name: str | None, known: Iterable[str], named_by: str = "", programs: Iterable[str] = ()
    ) -> None:
        self.name = name
        self.known = tuple(known)
        self.named_by = named_by
        self.programs = tuple(programs)
        super().__init__(self.message(lambda chosen: f"Client({chosen!r})"))

    def message(self, example: Callable[[str], str]) -> str:
        """Return the message.

        Args:
            example: returns the code or the command that names a cluster or a program.
        """
        name, named_by = self.name, self.named_by
        shown = f"{name!r}, which {named_by} names," if named_by else repr(name)
        match name, self.known or self.programs:
            case _, ():
                what = "no cluster of yours runs here" if name is None else f"no cluster {shown} of yours runs here"
                named = f" --name {name}" if name is not None and _NAME.fullmatch(name) else ""
                return f"{what}: start one with `nsactors start{named}`"
            case None, (first, *_) if self.known:
                return (
                    f"{len(self.known)} clusters of yours run: {', '.join(map(repr, self.known))}. "
                    f"Name one, as in {example(first)}, or set NSACTORS_CLUSTER to its name"
                )
            case None, (only,):
                use = f"the program {only!r}, give its name, as in {example(only)}"
                return f"no cluster of yours runs here. To use {use}, or set NSACTORS_CLUSTER to it"
            case None, (first, *_):
                use = f"one of the programs {_listed(self.programs)}, give its name, as in {example(first)}"
                return f"no cluster of yours runs here. To use {use}, or set NSACTORS_CLUSTER to it"
        there = sorted({*self.known, *self.programs})
        return f"no cluster {shown} of yours runs here; there {'is' if len(there) == 1 else 'are'} {_listed(there)}"


def _listed(names: Sequence[str]) -> str:
    *others, last = map(repr, names)
    return f"{', '.join(others)} and {last}" if others else last


class ClusterNotReady(ConnectionLost):
    """The cluster ``name`` has not finished starting."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the cluster {name!r} is still starting: try again when `nsactors list` says that it runs")
        self.name = name


class ClusterNameTaken(NsactorsError):
    """A cluster or an embedded program of this name is already running.

    Args:
        name: the name of the cluster.
        host: the machine where the cluster was started, if it is another one; the cluster may have ended.
        is_program: whether it is an embedded program.
    """

    def __init__(self, name: str, host: str | None = None, *, is_program: bool = False) -> None:
        if is_program:
            text = f"a program {name!r} of yours runs already: take another name"
        else:
            text = f"a cluster {name!r} of yours runs already: `nsactors stop {name}` ends it, or take another name"
        if host is not None:
            text += (
                f". It was started on {host}, and its state cannot be seen from here: "
                f"if it has ended, `nsactors stop --forget {name}` removes it from the list"
            )
        super().__init__(text)
        self.name = name
        self.host = host
        self.is_program = is_program


class AccessRefused(ConnectionLost):
    """The cluster refuses access to this process.

    Args:
        address: the address of the cluster.
        reason: why.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            f"the cluster at {address} refuses access: {reason}. Only the user who started it has its token"
        )
        self.address = address
        self.reason = reason


class OutsideCluster(ConnectionLost):
    """This machine does not belong to the cluster, and clients run on the cluster's machines.

    Args:
        address: the address of the cluster.
        way_in: how to start a client on one of those machines, or to add this machine to the cluster; empty if unknown.
    """

    def __init__(self, address: str, way_in: str = "") -> None:
        text = f"this machine does not belong to the cluster at {address}, and a client must run on one that does"
        super().__init__(f"{text}: {way_in}" if way_in else text)
        self.address = address
        self.way_in = way_in


class AlreadyConnected(ClusterUnreachable):
    """This process is connected to another Ray cluster, and can be connected to one only.

    Args:
        address: the address of the cluster that was to be joined.
        here: the address of the cluster to which this process is connected.
    """

    def __init__(self, address: str, here: str) -> None:
        NsactorsError.__init__(
            self,
            f"this process is connected to the Ray cluster at {here}, and can join the one at {address} only when that "
            "has ended: stop it (cluster.stop_cluster_sync(), or leave the session that has started it), or attach in "
            "another process",
        )
        self.address = address
        self.here = here


class ProcessLimit(NsactorsError, RuntimeError):
    """This user may not start as many processes and threads on this machine as Ray needs.

    Args:
        needed: the least number that Ray needs.
        limit: the limit of the user.
        running: the number of the user's processes and threads that run now.
    """

    def __init__(self, needed: int, limit: int, running: int) -> None:
        super().__init__(
            f"Ray starts at least {needed} processes and threads on this machine, and you may have {limit} "
            f"(`ulimit -u`), of which {running} run: use another machine, such as a node of a batch job"
        )
        self.needed = needed
        self.limit = limit
        self.running = running


class RayImportedFirst(NsactorsError, RuntimeError):
    """This process cannot start or join Ray, because it has already imported Ray with other settings."""

    def __init__(self) -> None:
        super().__init__(
            "Ray was imported before nsactors could make it safe: bound to this machine alone, with a token. "
            "Start the Cluster, or make the Client, before 'import ray'; or call ray.init() yourself first"
        )


class RayStartError(NsactorsError, RuntimeError):
    """Ray does not start on this machine.

    Args:
        reason: the server process that ended, the time waited, or Ray's own words.
        logs: the folder of Ray's logs.
    """

    def __init__(self, reason: str, logs: str) -> None:
        super().__init__(
            f"Ray does not start on this machine: {reason}. Ray may end this process within a minute: save what you "
            f"need, and try again in a new one. `nsactors doctor`, and the logs in {logs}, may say more"
        )
        self.reason = reason
        self.logs = logs


class FolderTooLong(NsactorsError, OSError):
    """The folder for temporary files has too long a path for Ray's sockets, and ``/tmp`` cannot be used.

    Args:
        folder: the folder.
        longest: the longest path in bytes.
    """

    def __init__(self, folder: str, longest: int) -> None:
        super().__init__(
            f"{folder} has too long a path for Ray's sockets, and /tmp cannot be used: set TMPDIR to a folder of yours "
            f"whose path has at most {longest} bytes"
        )
        self.folder = folder
        self.longest = longest


class VersionMismatch(ConnectionLost):
    """This process and the cluster run incompatible versions.

    Args:
        differences: the version here and the version of the cluster, by name.
    """

    def __init__(self, differences: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(
            f"this process and the cluster do not understand each other:\n{version_table(differences)}\n"
            "Use the environment that the cluster was started in, or start a cluster from this one"
        )
        self.differences = dict(differences)


def version_table(differences: Mapping[str, tuple[str, str]]) -> str:
    """Return a table of versions, one row per name, in plain text."""
    return columns([("", "here", "cluster"), *((name, *versions) for name, versions in differences.items())])


class LaunchError(NsactorsError):
    """A batch system or another machine failed to start, or to run, a part of a cluster.

    Args:
        what: the part, and the failure.
        output: the text that it wrote.
    """

    def __init__(self, what: str, output: str = "") -> None:
        super().__init__("\n".join(filter(None, [what, last_lines(output).rstrip()])))
        self.what = what
        self.output = output
