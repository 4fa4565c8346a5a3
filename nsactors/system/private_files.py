"""Private files and folders of this user, and JSON read from them.

Connection files and tokens give access to a cluster, so they are written with mode 0600 and read only if no other user
can have written them. `PrivateFolder` is the folder for Ray's files when this process starts Ray.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nsactors.errors import AccessRefused, FolderTooLong
from nsactors.system.processes import is_alive


def state_folder(environment: Mapping[str, str]) -> Path:
    """Return this user's folder for the state of nsactors; it need not exist."""
    state = environment.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "nsactors"


def write_private(path: str | os.PathLike[str], text: str) -> None:
    """Write a file of mode 0600 in one step; missing folders are made, with mode 0700."""
    folder = Path(path).absolute().parent
    make_private(folder)
    handle, written = tempfile.mkstemp(dir=folder)  # mode 0600; under another name until the text is complete
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(written, path)
    except OSError as error:  # the error of a full disk names no file
        os.unlink(written)
        error.filename = os.fspath(path)
        raise


def read_private(path: str | os.PathLike[str]) -> str:
    """Read a private file.

    A file written by another user could lead to that user's cluster, and reveal this user's token to it.

    Raises:
        AccessRefused: if another user owns the file, or may have written it.
        OSError: if it cannot be read.
    """
    try:
        with open(path) as file:
            status = os.fstat(file.fileno())
            # Check the status of the open file, not of its path: the file could be replaced between check and reading.
            if status.st_uid not in (os.getuid(), 0):
                raise AccessRefused(os.fspath(path), f"this file belongs to {_user(status.st_uid)}")
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise AccessRefused(
                    os.fspath(path), "others can write to this file; `chmod 600` it if that was a mistake"
                )
            return file.read()
    except PermissionError as error:
        raise AccessRefused(os.fspath(path), f"this file is not yours to read ({error.strerror})") from None


def make_private(path: Path) -> None:
    """Make a folder of mode 0700, and missing folders above it; existing folders stay as they are."""
    # parents=True is not used: it gives the folders above the mode that the umask leaves.
    if not path.is_dir():
        if path.parent != path:
            make_private(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def private_folder_at(path: Path) -> Path:
    """Return a folder of mode 0700, made if it is missing.

    Raises:
        AccessRefused: if it belongs to another user.
    """
    make_private(path)
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


SOCKET_LIMIT = 107  # bytes in the path of a socket
SOCKET_TAIL = len("/nsa-4194304-abcdefgh/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
YOUNG_S = 60.0  # a token is written within milliseconds after its folder is made
_TOKEN, _PREFIX = "token", "nsa-"


class PrivateFolder:
    """A new folder that only its owner can read, with a token in it.

    Its name contains the id of its process, and the process locks the token: so the next process can remove the folders
    of processes that were killed. The id alone is not enough: containers may share the parent folder, and do not see
    each other's processes.

    Args:
        token: the token; None for a new one.
    """

    def __init__(self, token: str | None = None) -> None:
        sweep_folders()
        self.path = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent_folder(tempfile.gettempdir()))
        self.ray_path = os.path.join(self.path, "r")  # Ray makes the folder that it is given writable for everyone
        self.token_path = os.path.join(self.path, _TOKEN)
        self._lock = os.open(self.token_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        # The system releases the lock however the process ends.
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.write(self._lock, (token or secrets.token_hex(32)).encode())

    def empty(self) -> None:
        """Remove all but the token: Ray remembers it for the life of the process, and the next cluster uses it."""
        with contextlib.suppress(FileNotFoundError):  # the folder has been removed
            for entry in Path(self.path).iterdir():
                if entry.name != _TOKEN:
                    _remove(entry)

    def remove(self) -> None:
        """Remove the folder, and the token last, so that the next process finds a folder that was removed in part."""
        self.empty()
        shutil.rmtree(self.path, ignore_errors=True)
        self.abandon()

    def abandon(self) -> None:
        """Close the lock of the token. After a fork, the other process still holds it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def is_private_token(path: str) -> bool:
    """Return whether a path is that of the token of a :class:`PrivateFolder`, which may have been removed."""
    return os.path.basename(path) == _TOKEN and os.path.basename(os.path.dirname(path)).startswith(_PREFIX)


def parent_folder(usual: str) -> str:
    """Return the parent of private folders: the folder for temporary files, or another whose path is short enough.

    It will contain Ray's sockets. A link with a short path is not enough: processes of Ray are recognised by the files
    that they have open, whose paths contain no links.

    Args:
        usual: the folder for temporary files, which users and batch systems choose.

    Raises:
        FolderTooLong: if no folder can be used.
    """
    for folder in (usual, *SHORT_FOLDERS):
        if len(os.fsencode(folder.rstrip("/"))) + SOCKET_TAIL > SOCKET_LIMIT:
            continue
        if folder == usual or os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise FolderTooLong(usual, SOCKET_LIMIT - SOCKET_TAIL)


def sweep_folders() -> None:
    """Remove the private folders of this user's processes that were killed."""
    for parent in dict.fromkeys((tempfile.gettempdir(), *SHORT_FOLDERS)):
        for folder in Path(parent).glob("nsa-*-*"):
            match = re.fullmatch(r"nsa-(\d+)-\w+", folder.name)
            if match and not is_alive(int(match[1])) and _is_mine(folder):
                _remove_unlocked(folder)


def _remove_unlocked(folder: Path) -> None:
    try:
        with open(folder / _TOKEN, "rb") as token:
            fcntl.flock(token, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if token.read(1) or _is_old(folder):  # otherwise it is new, and its owner is about to lock it
                shutil.rmtree(folder, ignore_errors=True)
    except FileNotFoundError:
        if _is_old(folder):  # its owner was killed before it wrote a token, or while it removed the folder
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return  # locked by its owner, which runs in another container


def _is_old(folder: Path) -> bool:
    """Return whether a folder is older than YOUNG_S, by the clock of its file system, which containers may share."""
    try:
        with tempfile.TemporaryFile(dir=folder.parent) as now:
            return os.fstat(now.fileno()).st_mtime - folder.lstat().st_mtime > YOUNG_S
    except OSError:
        return False


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


T = TypeVar("T")


def from_fields(cls: type[T], found: object) -> T:
    """Make an instance of ``cls`` from the result of :func:`dataclasses.asdict` after a round trip through JSON.

    Raises:
        ValueError: if ``found`` is not such a result, or a field has another type.
    """
    if not isinstance(found, Mapping):
        raise ValueError(f"a {cls.__name__} is a table, not {type(found).__name__}")
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    if strange := [name for name in found if name not in known]:
        raise ValueError(f"a {cls.__name__} has no field {strange[0]!r}")
    optional = {name for name, f in known.items() if f.default is not MISSING or f.default_factory is not MISSING}
    if missing := known.keys() - optional - found.keys():
        raise ValueError(f"a {cls.__name__} has a field {min(missing)!r}, which is missing")
    hints = get_type_hints(cls)
    return cls(**{name: _read(f"{cls.__name__}.{name}", hints[name], value) for name, value in found.items()})


def _read(name: str, hint: Any, value: Any) -> Any:
    """Return the value of a field, checking its type."""
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        (hint,) = (part for part in parts if part is not type(None))  # unions here have one type besides None
        return _read(name, hint, value)
    if isinstance(hint, type) and is_dataclass(hint):
        return from_fields(hint, value)
    if hint is Any:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_read(name, parts[0], item) for item in value)
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {key: _read(f"{name}[{key!r}]", parts[1], item) for key, item in value.items()}
    fits = isinstance(value, int | float if origin is float else origin) and (origin is bool) == isinstance(value, bool)
    if not fits:
        raise ValueError(f"{name} is {getattr(hint, '__name__', hint)}, not {type(value).__name__}")
    return value
