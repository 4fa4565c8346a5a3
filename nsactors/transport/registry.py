"""The clusters of this user that run in the background, by name.

Each has a file in a folder that only the user can read. A file whose cluster has died is recognised by the process
that owned it, and removed, with what that has left behind, by whoever comes across it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nsactors.errors import AccessRefused, ClusterNameTaken, ClusterNotFound
from nsactors.transport.connection import ConnectionInfo
from nsactors.transport.leftovers import end_leftovers
from nsactors.transport.private_files import private_folder_at, read_private, write_private
from nsactors.transport.private_folder import sweep_folders
from nsactors.transport.process_identity import ProcessIdentity

__all__ = ["ClusterRecord", "Registry", "check_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """What is known of a cluster.

    Attributes:
        name: what its user calls it.
        owner: the process whose end is the cluster's.
        connection: how it is reached; None while it is being started.
        origin: how it came to be, in words.
        started: seconds since the epoch.
        log: the path of what its owner writes; empty if that goes to a terminal.
        options: what its engines are asked for with unless told otherwise; see ``EngineKeywords``.
        stop_with: the command that ends it where its owner is on another machine.
        mark: in the environment of each of its processes; see ``leftovers``.
    """

    name: str
    owner: ProcessIdentity
    connection: ConnectionInfo | None = None
    origin: str = "nsactors start"
    started: float = 0.0
    log: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    stop_with: tuple[str, ...] = ()
    mark: str = ""


class Registry:
    """The clusters of one user.

    Args:
        folder: where their files are; the default is in the user's own state folder, which the machines of a cluster
            may share. It is made when the first cluster is.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = _usual_folder(os.environ) if folder is None else Path(folder)

    def records(self) -> list[ClusterRecord]:
        """Those that live, as far as can be told from here, by name."""
        living, dead = self._look()
        for record in dead:
            end_leftovers(record.mark)
            sweep_folders()
            self.remove(record, keeps_log=True)  # it may say why
        return living

    def find(self, name: str | None = None) -> ClusterRecord:
        """The cluster of this name, or the only one.

        Raises:
            ClusterNotFound: if there is no such cluster, or no name and several clusters.
        """
        records = self.records()
        chosen = [record for record in records if name in (None, record.name)]
        if len(chosen) != 1:
            raise ClusterNotFound(name, [record.name for record in records])
        return chosen[0]

    def reserve(self, name: str | None = None, **fields: Any) -> ClusterRecord:
        """Take a name for a cluster that this process is about to start.

        Args:
            name: None for one that is free: ``cluster-1``, ``cluster-2`` and so on.
            fields: of the record.

        Raises:
            ClusterNameTaken: if a cluster of this name lives.
            ValueError: if that cannot be a name.
        """
        if name is not None:
            check_name(name)
        private_folder_at(self.folder)
        self.records()  # what dead ones have left is ended before a name is used again
        with self._alone():
            taken = {record.name: record.owner for record in self._look()[0]}
            if name in taken:
                raise ClusterNameTaken(name, None if taken[name].is_here else taken[name].host)
            free = name or next(free for n in range(1, len(taken) + 2) if (free := f"cluster-{n}") not in taken)
            usual = {"owner": ProcessIdentity.of(os.getpid()), "started": time.time(), "mark": secrets.token_hex(16)}
            record = ClusterRecord(free, **{**usual, **fields})
            self._write(record)
        return record

    def update(self, record: ClusterRecord) -> None:
        """Write down what is known of a cluster by now."""
        with self._alone():
            self._write(record)

    def remove(self, record: ClusterRecord, *, keeps_log: bool = False) -> None:
        """Forget a cluster; one that has taken its name since stays."""
        if not self.folder.is_dir():
            return
        with self._alone():
            path = self._path(record.name)
            if (found := _read(path)) is not None and found.mark == record.mark:
                path.unlink(missing_ok=True)
                if not keeps_log:
                    self.log_path(record.name).unlink(missing_ok=True)

    def log_path(self, name: str) -> Path:
        """Where a cluster's owner writes, or has written before it died."""
        return self.folder / f"{name}.log"

    def _look(self) -> tuple[list[ClusterRecord], list[ClusterRecord]]:
        """Those that live, and those that do not."""
        found = [record for path in sorted(self.folder.glob("*.json")) if (record := _read(path)) is not None]
        return [r for r in found if not r.owner.is_gone], [r for r in found if r.owner.is_gone]

    def _write(self, record: ClusterRecord) -> None:
        write_private(self._path(record.name), json.dumps(asdict(record), indent=2))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others from changing anything meanwhile. The lock's file is there for as long as it is held."""
        path = self.folder / "lock"
        while True:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not _is_same(lock.fileno(), path):  # its last holder has just removed it
                    continue
                try:
                    yield
                finally:
                    path.unlink()
                return


def check_name(name: str) -> None:
    """See that a cluster can be called this; ValueError if not."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"a cluster's name is made of letters, digits, '.', '_' and '-'; {name!r} is not")


def _is_same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _usual_folder(environment: Mapping[str, str]) -> Path:
    state = environment.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "nsactors" / "clusters"


def _read(path: Path) -> ClusterRecord | None:
    """What a file says; None if it has just been removed, or is none of this user's or this version's."""
    try:
        fields = json.loads(read_private(path))
        owner, connection = ProcessIdentity(**fields["owner"]), fields["connection"]
        info = None if connection is None else ConnectionInfo.from_dict(connection)
        return ClusterRecord(**{**fields, "owner": owner, "connection": info, "stop_with": tuple(fields["stop_with"])})
    except (OSError, AccessRefused, ValueError, TypeError, KeyError):
        return None
