"""A disk that can be full, for files in one folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """The disk below a folder; files that already exist keep the room that they have.

    Attributes:
        error: the error number of writes that need room, and with ``refuses_new`` also of new files and folders; 0 for
            none.
        refuses_new: whether the disk refuses new files, as a read-only disk does.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder = str(folder)
        self.error = 0
        self.refuses_new = False
        self._write = os.write
        for name in ("write", "writev"):
            patch.setattr(os, name, self._checked(getattr(os, name), self._of_file))
        patch.setattr(os, "pwrite", self._checked(os.pwrite, self._of_file_to_read))
        for name in ("mkdir", "rename"):
            patch.setattr(os, name, self._checked(getattr(os, name), lambda path, *rest: self.refuses_new))
        patch.setattr(os, "open", self._checked(os.open, self._is_made))

    def _checked(self, call: Callable[..., Any], needs_room: Callable[..., bool]) -> Callable[..., Any]:
        def checked(what: Any, *args: Any, **kwargs: Any) -> Any:
            if self.error and needs_room(what, *args):
                raise OSError(self.error, os.strerror(self.error))
            return call(what, *args, **kwargs)

        return checked

    def _of_file(self, fd: int, data: Any) -> bool:
        if not os.readlink(f"/proc/self/fd/{fd}").startswith(self._folder):
            return False
        if isinstance(data, list) and self.error == errno.ENOSPC:
            self._write(fd, bytes(data[0])[:10])  # as much as there is room for
        return True

    def _of_file_to_read(self, fd: int, *args: Any) -> bool:
        return self.refuses_new and self._of_file(fd, b"")

    def _is_made(self, path: Any, flags: int, *args: Any) -> bool:
        return bool(self.refuses_new and flags & os.O_CREAT and str(path).startswith(self._folder))
