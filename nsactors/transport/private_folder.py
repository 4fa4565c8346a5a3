"""A folder of one process, for an embedded Ray and the token that opens it."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path

__all__ = ["PrivateFolder"]

_TOKEN = "token"


class PrivateFolder:
    """A new folder that only its owner can read, with a fresh token in it.

    Its name holds the process's id: what a process that was killed has left is removed by the next one.
    """

    def __init__(self) -> None:
        _sweep(Path(tempfile.gettempdir()))
        # Short: the paths of sockets in it are limited to 107 bytes.
        self.path = tempfile.mkdtemp(prefix=f"nsa-{os.getpid()}-")
        self.token_path = os.path.join(self.path, _TOKEN)
        with open(os.open(self.token_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))

    def empty(self) -> None:
        """Remove all but the token: Ray keeps it for as long as the process lives, and a next cluster uses it again."""
        for entry in Path(self.path).iterdir():
            if entry.name != _TOKEN:
                _remove(entry)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def _sweep(parent: Path) -> None:
    for folder in parent.glob("nsa-*-*"):
        match = re.fullmatch(r"nsa-(\d+)-\w+", folder.name)
        if match and not Path(f"/proc/{match[1]}").exists() and Path("/proc/self").exists() and _is_mine(folder):
            shutil.rmtree(folder, ignore_errors=True)


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
