"""A folder of one process, for a node of Ray and the token that opens it."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path

from nsactors.transport.process_identity import is_alive

__all__ = ["PrivateFolder", "sweep_folders"]

_TOKEN = "token"


class PrivateFolder:
    """A new folder that only its owner can read, with a token in it.

    Its name holds the process's id, and the process a lock on the token: what one that was killed has left is removed
    by the next one. The id alone would not do: containers may share this folder, and do not see each other's processes.

    Args:
        token: None for a fresh one.
    """

    def __init__(self, token: str | None = None) -> None:
        sweep_folders()
        # Short: the paths of sockets in it are limited to 107 bytes.
        self.path = tempfile.mkdtemp(prefix=f"nsa-{os.getpid()}-")
        self.ray_path = os.path.join(self.path, "r")  # Ray lets everybody write into the folder that it is given
        self.token_path = os.path.join(self.path, _TOKEN)
        self._lock = os.open(self.token_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.write(self._lock, (token or secrets.token_hex(32)).encode())

    def empty(self) -> None:
        """Remove all but the token: Ray keeps it for as long as the process lives, and a next cluster uses it again."""
        for entry in Path(self.path).iterdir():
            if entry.name != _TOKEN:
                _remove(entry)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def sweep_folders() -> None:
    """Remove the folders of processes of this user that were killed."""
    for folder in Path(tempfile.gettempdir()).glob("nsa-*-*"):
        match = re.fullmatch(r"nsa-(\d+)-\w+", folder.name)
        if match and not is_alive(int(match[1])) and _is_mine(folder):
            _remove_unlocked(folder)


def _remove_unlocked(folder: Path) -> None:
    try:
        with open(folder / _TOKEN, "rb") as token:
            fcntl.flock(token, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if token.read(1):  # else its owner has just made it, and is about to lock it
                shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return  # locked: its owner lives, seen from elsewhere; or somebody else has just removed it


def _is_mine(folder: Path) -> bool:
    try:
        return folder.lstat().st_uid == os.getuid()
    except OSError:
        return False


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
