"""The request that an engine's process has begun last, in a file that outlives the process.

When a process has died, its clients must learn which call it ran, which calls only waited, and the output of the call
that ran. No surviving process knows this: several clients share an engine, and output is sent in rounds.
"""

from __future__ import annotations

import contextlib
import os

_SUFFIX = ".begun"
_ROOM_BYTES = 4096


class BegunFile:
    """The writing side: one short record, overwritten at each request.

    Args:
        output_path: the path of the engine's output files, without their endings; the record is stored beside them.
    """

    def __init__(self, output_path: str) -> None:
        self._file: int | None = None
        with contextlib.suppress(OSError):  # if the disk is full, the last request stays unknown
            self._file = os.open(output_path + _SUFFIX, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def note(self, request: str, position: int) -> None:
        """Record that a request begins; ``position`` is the offset of its output in the engine's stderr."""
        if self._file is not None:
            # One system call of a microsecond. Mapped memory would take a fifth of that, but a full disk would then
            # end the process by SIGBUS.
            try:  # noqa: SIM105 (a context manager takes half a microsecond)
                os.pwrite(self._file, f"{position} {request}\0".encode("utf-8", "backslashreplace"), 0)
            except OSError:
                pass

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def last_begun(output_path: str) -> tuple[str | None, int]:
    """Return the last request that a process has begun, and the offset of its output in the process's stderr.

    Return (None, 0) if the process has begun no request, or its files are on another machine.
    """
    try:
        with open(output_path + _SUFFIX, "rb") as file:
            record, ended, _ = file.read(_ROOM_BYTES).decode(errors="replace").partition("\0")
    except OSError:
        return None, 0
    position, _, request = record.partition(" ")
    return (request, int(position)) if ended and position.isdecimal() else (None, 0)
