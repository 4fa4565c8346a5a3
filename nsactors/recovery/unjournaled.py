"""A mark on disk for requests that are in no journal, because the disk was full.

The file has its full size from the start, and is written in place, which needs no further room. When the journal can be
written again, it contains those requests itself, and the mark is cleared. So the requests in a mark are missing in the
journal of its folder.
"""

from __future__ import annotations

import os

from nsactors.protocol.messages import Execute
from nsactors.recovery.encoding import decode, encode
from nsactors.recovery.journal import JournalEntry, RequestStarted, State

GAP_NAME = "unwritten"
_SIZE_BYTES = 64 * 1024
_LAST_BYTES = 4 * 1024  # reserved for the entry that counts the requests whose own entries find no room
_NOTHING = bytes(16)  # no record starts like this


class GapMark:
    """The mark in one folder.

    Args:
        folder: the folder; the mark is made if it is missing.

    Raises:
        OSError: if there is no room for the mark.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._path = os.path.join(folder, GAP_NAME)
        self._count = 0
        self._end = 0
        self._last = 0  # position of the entry that counts the requests whose own entries find no room
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            self._end = sum(len(_bytes(entry)) for entry in read_gap(folder))
        except FileNotFoundError:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                # Write zeros instead of leaving a hole: only written blocks are sure to have room later.
                if os.write(self._file, bytes(_SIZE_BYTES)) < _SIZE_BYTES:
                    raise OSError("there is no room for a mark") from None
            except OSError:
                self.close()
                os.unlink(self._path)
                raise

    @classmethod
    def linked(cls, folder: str, other: str) -> GapMark:
        """Make a mark in a folder, or link the mark of another folder if there is no room for a new one."""
        try:
            return cls(folder)
        except OSError:
            # A hard link needs no room for data.
            os.link(os.path.join(other, GAP_NAME), os.path.join(folder, GAP_NAME))
            return cls(folder)

    def add(self, begun: RequestStarted) -> None:
        """Add a request that is about to run and is in no journal."""
        self._count += 1
        entry = JournalEntry(begun.request, begun.operation, None, State.UNWRITTEN)
        data = _bytes(entry)
        if not self._last and self._end + len(data) <= _SIZE_BYTES - _LAST_BYTES:
            os.pwrite(self._file, data + _NOTHING, self._end)
            self._end += len(data)
            return
        self._last = self._last or self._end
        label = f"{self._count} requests, the last of them: {entry.label}"
        os.pwrite(
            self._file,
            _bytes(JournalEntry(begun.request, Execute(label), None, State.UNWRITTEN)) + _NOTHING,
            self._last,
        )

    def clear(self) -> None:
        """Clear the mark: the journal contains all requests."""
        self._count = self._end = self._last = 0
        os.pwrite(self._file, _NOTHING, 0)

    def close(self) -> None:
        """Close the file without removing it."""
        os.close(self._file)


def read_gap(folder: str) -> tuple[JournalEntry, ...]:
    """Return the requests in the mark of a folder.

    Raises:
        FileNotFoundError: if there is no mark.
    """
    with open(os.path.join(folder, GAP_NAME), "rb") as file:
        data = file.read()
    return tuple(record for record, _ in decode(memoryview(data)) if isinstance(record, JournalEntry))


def _bytes(entry: JournalEntry) -> bytes:
    return b"".join(bytes(part) for part in encode(entry))
