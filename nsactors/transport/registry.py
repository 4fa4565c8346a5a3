"""Clusters in the background, by name.

Each cluster has a file, in a folder that only the cluster's user can read. The file names the process that owns the
cluster. A process that finds the owner dead removes the file, and everything that the cluster has left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any

from nsactors._frozen import frozen
from nsactors.errors import (
    AccessRefused,
    ClusterNameTaken,
    ClusterNotFound,
    ClusterNotReady,
    ClusterUnreachable,
    OutsideCluster,
    WrongType,
    printable,
)
from nsactors.system.private_files import (
    from_fields,
    private_folder_at,
    read_private,
    state_folder,
    sweep_folders,
    write_private,
)
from nsactors.system.processes import ProcessIdentity, end_leftovers
from nsactors.transport.base import ConnectionInfo, Transport

CLUSTER_VARIABLE = "NSACTORS_CLUSTER"
"""The environment variable that names the cluster for commands and programs that do not name one."""

LOOK_S = 0.2
"""The time between two searches for a cluster that is awaited."""

TELL_AFTER_S = 1.0
"""The time after which a waiting client prints for which cluster it waits."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@frozen
class ProgramAddress:
    """The address of an embedded program, for other processes of the same user on the same machine.

    Attributes:
        socket: the path of its socket; empty while it starts.
        versions: the program's versions of Python and packages.
    """

    socket: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@frozen
class ClusterRecord:
    """A cluster in the background.

    Attributes:
        name: its name.
        owner: the process with which the cluster ends.
        connection: the connection info; None while it starts.
        origin: how it was started, in words.
        started: seconds since the epoch.
        log: the path of its owner's log; empty if its owner writes to a terminal.
        options: the default options of its engines; see ``EngineKeywords``.
        stop_with: the command that stops it if its owner is on another machine.
        enter_with: a command to put before another command, so that the other command runs on a machine of the cluster;
            empty if there is none.
        stop_grace_s: the time that its engines have to end gracefully, if the user who stops it has set a time.
        mark: a text in the environment of each of its processes; see ``end_leftovers``.
        copied_from: the path of the file from which this record was copied; empty for the cluster's own record.
        program: the address of a program that has made itself an engine with ``nsactors.embed()``; None for a cluster.
    """

    name: str
    owner: ProcessIdentity
    connection: ConnectionInfo | None = None
    origin: str = "nsactors start"
    started: float = 0.0
    log: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    stop_with: tuple[str, ...] = ()
    enter_with: tuple[str, ...] = ()
    stop_grace_s: float | None = None
    mark: str = ""
    copied_from: str = ""
    program: ProgramAddress | None = None

    @property
    def has_ended(self) -> bool:
        """True if the cluster has certainly ended; False if it has not, or if this machine cannot know."""
        return self.owner.is_gone or bool(self.copied_from and not Path(self.copied_from).exists())

    @property
    def state(self) -> str:
        """``"starting"`` or ``"runs"``."""
        is_ready = self.connection is not None if self.program is None else bool(self.program.socket)
        return "runs" if is_ready else "starting"


def not_found(name: str | None, records: Iterable[ClusterRecord], named_by: str = "") -> ClusterNotFound:
    """Return the error that there is no cluster of a name, or no only cluster, among these."""
    names: dict[bool, list[str]] = {True: [], False: []}
    for record in records:
        names[record.program is not None].append(record.name)
    return ClusterNotFound(name, names[False], named_by, names[True])


class Registry:
    """The clusters of one user.

    Args:
        folder: the folder of their files, which is made for the first cluster. The default is in the user's state
            folder, which the machines of a cluster may share.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = state_folder(os.environ) / "clusters" if folder is None else Path(folder)

    def records(self) -> list[ClusterRecord]:
        """Return the clusters that live, as far as this machine knows, by name; clean up after dead clusters."""
        living, dead = self._look()
        for record in dead:
            end_leftovers(record.mark)
            sweep_folders()
            self.remove(record, keeps_log=True)  # the log may contain the reason for its death
        return living

    def find(self, name: str | None = None, *, named_by: str = "") -> ClusterRecord:
        """Return the cluster or program of this name, or the only cluster.

        Args:
            name: the name; None for the only cluster.
            named_by: the source of the name, for the error; empty if the caller gave it.

        Raises:
            ClusterNotFound: if there is no such cluster, or no name and several clusters.
        """
        records = self.records()
        # An embedded program is found only by its name, because a command without a name would reach it by accident.
        chosen = [r for r in records if (r.program is None if name is None else r.name == name)]
        if len(chosen) != 1:
            raise not_found(name, records, named_by)
        return chosen[0]

    def reserve(self, name: str | None = None, *, stem: str = "", **fields: Any) -> ClusterRecord:
        """Reserve a name for a cluster that this process is about to start.

        Args:
            name: the name; None for a free name: ``cluster-1``, ``cluster-2`` and so on.
            stem: if ``name`` is None, the first free name of ``stem``, ``stem-2``, ``stem-3`` and so on is taken.
            fields: fields of the record.

        Raises:
            ClusterNameTaken: if a cluster of this name is alive.
            ValueError: if the name is not valid.
        """
        if name is not None:
            check_name(name)
        private_folder_at(self.folder)
        self.records()  # clean up after dead clusters before a name is used again
        with self._alone():
            taken = {record.name: record for record in self._look()[0]}
            if name in taken:
                owner, is_program = taken[name].owner, taken[name].program is not None
                raise ClusterNameTaken(name, None if owner.is_here else owner.host, is_program=is_program)
            numbered = (f"{stem or 'cluster'}-{n}" if n > 1 or not stem else stem for n in range(1, len(taken) + 2))
            free = name or next(free for free in numbered if free not in taken)
            usual = {"owner": ProcessIdentity.of(os.getpid()), "started": time.time(), "mark": secrets.token_hex(16)}
            record = ClusterRecord(free, **{**usual, **fields})
            self._write(record)
        return record

    def adopt(self, copy: Path) -> ClusterRecord | None:
        """Add a cluster whose own record is in a home folder that this machine does not see.

        Args:
            copy: the file with a copy of its record, named after the cluster. The cluster is listed as long as this
                file exists.

        Returns:
            None if there is no such file.
        """
        record = _read(copy)
        if record is None:
            return None
        record = replace(record, copied_from=str(copy))
        private_folder_at(self.folder)
        self.update(record)
        return record

    def again(self, record: ClusterRecord) -> ClusterRecord:
        """Return the current record of a cluster, or the given record if it has been removed."""
        found = _read(self._path(record.name))
        return found if found is not None and found.mark == record.mark else record

    def update(self, record: ClusterRecord) -> None:
        """Save the record of a cluster."""
        with self._alone():
            self._write(record)

    def remove(self, record: ClusterRecord, *, keeps_log: bool = False) -> None:
        """Remove a cluster, unless a later cluster has its name by now."""
        if not self.folder.is_dir():
            return
        with self._alone():
            path = self._path(record.name)
            if (found := _read(path)) is not None and found.mark == record.mark:
                path.unlink(missing_ok=True)
                if not keeps_log:
                    self.log_path(record.name).unlink(missing_ok=True)

    def log_path(self, name: str) -> Path:
        """Return the path of a cluster's log, which stays after its owner has died."""
        return self.folder / f"{name}.log"

    def _look(self) -> tuple[list[ClusterRecord], list[ClusterRecord]]:
        """Return the living and the dead clusters."""
        paths = sorted(self.folder.glob("*.json"), key=lambda path: path.stem)
        found = [record for path in paths if (record := _read(path)) is not None]
        return [r for r in found if not r.has_ended], [r for r in found if r.has_ended]

    def _write(self, record: ClusterRecord) -> None:
        write_private(self._path(record.name), json.dumps(asdict(record), indent=2))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Exclude other processes while the registry changes. The lock's file exists only while it is held."""
        # filelock is not used, because its import takes 0.1 s, and its file would stay.
        path = self.folder / "lock"
        while True:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not _is_same(lock.fileno(), path):  # the last holder has just removed this file
                    continue
                try:
                    yield
                finally:
                    path.unlink()
                return


def check_name(name: str) -> None:
    """Raise ValueError unless ``name`` can be the name of a cluster."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"a cluster's name is made of letters, digits, '.', '_' and '-'; {name!r} is not")


def _is_same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _read(path: Path) -> ClusterRecord | None:
    """Return a record; None if its file has just been removed, or is from another user or version."""
    try:
        record = from_fields(ClusterRecord, json.loads(read_private(path)))
    except (OSError, AccessRefused, ValueError, RecursionError):
        return None
    # The name becomes part of paths and of terminal output.
    return record if record.name == path.stem and _NAME.fullmatch(record.name) else None


def transport_to(
    cluster: Transport | ConnectionInfo | str | os.PathLike[str] | None, timeout_s: float = 0.0
) -> Transport:
    """Return a transport to a cluster; see ``Client``."""
    match cluster:
        case None | str() | os.PathLike() | ConnectionInfo():
            found: ConnectionInfo | ClusterRecord
            if isinstance(cluster, ConnectionInfo):
                found = cluster
            else:
                found = await_connection(cluster, os.environ.get(CLUSTER_VARIABLE) or None, timeout_s)
            if isinstance(found, ClusterRecord):
                assert found.program is not None, "it has no connection info"
                from nsactors.transport.embedded_client import connect_to_program

                elsewhere = "" if found.owner.is_here else found.owner.host
                return connect_to_program(found.name, found.program.socket, found.program.versions, elsewhere)
            from nsactors.transport.ray.transport import connect

            try:
                return connect(found)
            except (ClusterUnreachable, OutsideCluster) as error:
                raise with_way_in(error, found, Registry().records()) from None
        case _ if not hasattr(cluster, "controller"):
            takes = "a cluster's name, the path of its file, connection info or a transport, or None"
            raise WrongType("Client", "cluster", cluster, takes)
    return cluster


def with_way_in(
    error: ClusterUnreachable | OutsideCluster, info: ConnectionInfo, records: Iterable[ClusterRecord]
) -> ClusterUnreachable | OutsideCluster:
    """Return the error of a connection, with advice if the cluster's owner is on another machine.

    Args:
        error: the error.
        info: the cluster.
        records: the user's clusters.
    """
    record = next((record for record in records if record.connection == info), None)
    if record is None or record.owner.is_here:
        return error
    if isinstance(error, ClusterUnreachable):
        way = way_inside(record)
        return ClusterUnreachable(error.address, f"{error.reason}. If it runs, {way}") if way else error
    ways = [way_inside(record) or f"`nsactors console {record.name}` works on {record.owner.host}"]
    if record.stop_with:  # it is a batch job
        ways.append(f"`nsactors launch join {record.name}` lets this machine take part")
    return OutsideCluster(error.address, ", and ".join(ways))


def way_inside(record: ClusterRecord) -> str:
    """Return the advice to run a client on a machine of the cluster; empty if no command does that from here."""
    if not record.enter_with:
        return ""
    command = shlex.join((*record.enter_with, "nsactors", "console", record.name))
    return f"`{command}` opens a prompt on a machine of the cluster"


def await_connection(
    cluster: str | os.PathLike[str] | None,
    usual: str | None = None,
    timeout_s: float = 0.0,
    *,
    tell: Callable[[str], object] | None = None,
    tell_after_s: float = TELL_AFTER_S,
) -> ConnectionInfo | ClusterRecord:
    """Return the connection info of a cluster, or the record of a program; wait for a cluster that does not exist yet.

    The errors are those of :func:`connection_of`.

    Args:
        cluster: see :func:`connection_of`.
        usual: the name or path in the user's environment.
        timeout_s: the time to wait for a cluster or a file that does not exist, or for a cluster that still starts.
        tell: prints a sentence about the wait; the default writes to stderr.
        tell_after_s: the time after which ``tell`` is called, once.
    """
    began, pause = time.monotonic(), threading.Event()
    deadline, has_told = began + timeout_s, False
    while True:
        try:
            return connection_of(cluster, usual)
        except (ClusterNotFound, ClusterNotReady, ClusterUnreachable) as error:
            is_ambiguous = isinstance(error, ClusterNotFound) and error.name is None and error.known
            # A file that is no connection file will not become one. os.path.exists() is no test for this: a file that
            # was missing may exist by now.
            is_other_file = isinstance(error, ClusterUnreachable) and not isinstance(
                error.__context__, FileNotFoundError
            )
            if is_ambiguous or is_other_file or (now := time.monotonic()) >= deadline:
                raise
            if now - began >= tell_after_s and not has_told:
                has_told = True
                (tell or _tell)(f"waiting up to {timeout_s:g} s for a cluster: {error}")
        pause.wait(min(LOOK_S, max(deadline - time.monotonic(), 0.0)))


def _tell(text: str) -> None:
    if sys.stderr is not None:
        print(printable(f"nsactors: {text}"), file=sys.stderr, flush=True)


def connection_of(cluster: str | os.PathLike[str] | None, usual: str | None = None) -> ConnectionInfo | ClusterRecord:
    """Return the connection info of a cluster, or the record of an embedded program.

    Args:
        cluster: its name, or the path of a file, which has a slash or ends in ``.json``; None for ``usual``.
        usual: the name or path in the user's environment; None for the only cluster.

    Raises:
        ClusterNotFound: if there is no such cluster, or no name and several clusters.
        ClusterNotReady: if it is still starting.
        ClusterUnreachable: if the file does not exist, or is not a connection file.
        AccessRefused: if the file belongs to another user.
    """
    named_by = CLUSTER_VARIABLE if cluster is None and usual is not None else ""
    cluster = usual if cluster is None else cluster
    if cluster is not None and (not isinstance(cluster, str) or os.sep in cluster or cluster.endswith(".json")):
        return ConnectionInfo.load(cluster)
    record = Registry().find(cluster, named_by=named_by)
    if record.state == "starting":
        raise ClusterNotReady(record.name)
    return record if record.connection is None else record.connection
