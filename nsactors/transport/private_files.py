"""Files that only their user can read, and that nobody else has written."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from nsactors.errors import AccessRefused

__all__ = ["private_folder_at", "read_private", "write_private"]


def write_private(path: str | os.PathLike[str], text: str) -> None:
    """Write a file of mode 0600, at once as a whole; folders that are missing are made, of mode 0700."""
    folder = Path(path).absolute().parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, written = tempfile.mkstemp(dir=folder)  # 0600, and never half written where others look
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(written, path)
    except OSError as error:  # a full disk does not say which one it is
        os.unlink(written)
        error.filename = os.fspath(path)
        raise


def read_private(path: str | os.PathLike[str]) -> str:
    """Read such a file.

    What somebody else has written could lead to a cluster of theirs, and tell them this user's token.

    Raises:
        AccessRefused: if it is, or may have been written by, somebody else's.
        OSError: if it cannot be read.
    """
    try:
        with open(path) as file:
            status = os.fstat(file.fileno())
            if status.st_uid not in (os.getuid(), 0):
                raise AccessRefused(os.fspath(path), f"this file belongs to {_user(status.st_uid)}")
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise AccessRefused(
                    os.fspath(path), "others can write this file; `chmod 600` it if that was by mistake"
                )
            return file.read()
    except PermissionError as error:
        raise AccessRefused(os.fspath(path), f"this file is not yours to read ({error.strerror})") from None


def private_folder_at(path: Path) -> Path:
    """A folder of mode 0700; it is made if it is missing.

    Raises:
        AccessRefused: if it belongs to somebody else.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_uid != os.getuid():
        raise AccessRefused(os.fspath(path), f"this folder belongs to {_user(status.st_uid)}")
    if stat.S_IMODE(status.st_mode) != 0o700:
        path.chmod(0o700)
    return path


def _user(uid: int) -> str:
    import pwd

    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"another user ({uid})"
