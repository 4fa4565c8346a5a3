"""What a cluster leaves so that another one, in a later batch job, goes on with its engines.

It is what the next controller and keeper of journals would read if those of this cluster had died: who the members
are, and the journals of their namespaces. The next cluster has the same id, and brings each engine back from its
journal.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import tempfile
from pathlib import Path

__all__ = ["restore_state", "save_state"]

_FOLDER = re.compile(r"nsactors-(\w+)")
_JOURNAL = re.compile(r"(engine-\d+\.\d+)\.(?:journal|kept)")


def save_state(logs: Path, target: Path) -> None:
    """Copy what there is to go on from; the cluster may run meanwhile.

    Args:
        logs: where Ray's processes write on the cluster's head node.
        target: the folder that becomes the copy.

    Raises:
        OSError: if it cannot be written.
        FileNotFoundError: if the cluster has no controller yet.
    """
    source = _cluster_folder(logs)
    new = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)) / source.name
    (new / "controller").mkdir(parents=True)
    for database in sorted((source / "controller").glob("*.sqlite")):
        _copy_database(database, new / "controller" / database.name)
    for folder in sorted(source.iterdir()):
        if match := _JOURNAL.fullmatch(folder.name):
            # As the keeper has them: the next cluster's engines are on other nodes, and ask it.
            _copy_journal(folder, new / f"{match[1]}.kept")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(new.parent, target)


def restore_state(saved: Path, logs: Path) -> str | None:
    """Put a copy where the next controller looks; the cluster's id, or None if nothing has been saved.

    Args:
        saved: what :func:`save_state` has made.
        logs: where Ray's processes write on the new cluster's head node.
    """
    if not saved.is_dir():
        return None
    source = _cluster_folder(saved)
    shutil.copytree(source, logs / source.name)
    return source.name.partition("-")[2]


def _cluster_folder(parent: Path) -> Path:
    for folder in parent.iterdir():
        if _FOLDER.fullmatch(folder.name) and (folder / "controller").is_dir():
            return folder
    raise FileNotFoundError(f"no controller of a cluster has written anything into {parent}")


def _copy_database(source: Path, target: Path) -> None:
    target.touch(mode=0o600)
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)


def _copy_journal(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    for segment in sorted(source.glob("*.journal")):
        with contextlib.suppress(FileNotFoundError):  # a snapshot has just taken its place, and is copied after it
            shutil.copy2(segment, target / segment.name)
