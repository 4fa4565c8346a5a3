"""A journal on disk: append, cut, read; and the copy that its keeper has.

A journal's segments are files in one folder, numbered upwards. A new one begins with a snapshot, and only when that
is complete the old one is removed: a process that dies meanwhile leaves both, and the older one counts. Writes are
not synchronised with the disk: they survive their process, which is what a journal is for; against the loss of the
machine there is the keeper's copy on another.
"""

from __future__ import annotations

import itertools
import mmap
import os
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from nsactors.core.journal import Base, Ended, Journal, Record, Snapshot
from nsactors.core.lineage import makers
from nsactors.core.payload import Buffer
from nsactors.core.records import decode, encode
from nsactors.core.shipping import Batch, KeptSegments, Position, Segment, Span

__all__ = ["JournalCopy", "JournalFile", "read_journal"]

_NAME = re.compile(r"(\d+)\.journal")
_IOV_MAX = min(os.sysconf("SC_IOV_MAX"), 1024)


class JournalFile:
    """The journal that one incarnation of an engine writes. One thread writes; others may read spans meanwhile.

    Args:
        folder: for its segments; made here.

    Raises:
        FileExistsError: if the folder is there: it has the journal of somebody else.
        OSError: from every method, if the disk is full or gone. What was written before is still sound.
    """

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, mode=0o700)
        self._folder = folder
        self._files: dict[int, int] = {}  # descriptors by number of segment
        self._segments: dict[int, Segment] = {}
        self._number = 0  # of the segment that is written to
        self.replay_s = 0.0
        self._begin_segment(0, [Base()])

    @property
    def position(self) -> Position:
        """Behind the last record."""
        return self._segments[self._number].end

    @property
    def grown_bytes(self) -> int:
        """Size of what was written since the last snapshot; ``replay_s`` is how long the requests in it took."""
        segment = self._segments[self._number]
        return segment.nbytes - segment.base_bytes

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Those that can be read still, oldest first."""
        return tuple(self._segments.copy().values())

    def append(self, record: Record) -> Position:
        """Write a record, whole or not at all; the position behind it."""
        number, base_bytes, nbytes = self._segments[self._number]
        nbytes += _write(self._files[number], nbytes, encode(record))
        self._segments[number] = Segment(number, base_bytes, nbytes)
        if isinstance(record, Ended):
            self.replay_s += record.took_s
        return Position(number, nbytes)

    def cut(self, snapshot: Snapshot, journal: Journal | None = None) -> Position:
        """Begin a new segment with a snapshot of the namespace as it is now; the position behind it.

        Entries are kept that made what the snapshot leaves out. The old segment's file is removed, and its contents
        can be read until :meth:`release`.

        Args:
            snapshot: all names, between two requests.
            journal: what led there; None for this journal so far.
        """
        journal = journal or self.read()
        kept = makers(journal.kept + journal.entries, snapshot.left_out.keys(), snapshot.names)
        old = self._number
        self._begin_segment(old + 1, [Base(replace(snapshot, taken=journal.taken), len(kept)), *kept])
        self.replay_s = 0.0
        os.unlink(_path(self._folder, old))
        return self.position

    def read(self) -> Journal:
        """What it says so far."""
        return _read(self._files[self._number]) or Journal()

    def read_span(self, span: Span) -> Batch:
        """A part of a segment, for the keeper."""
        segment, offset = span.start
        return Batch(span.start, os.pread(self._files[segment], span.nbytes, offset), span.base_bytes)

    def release(self, kept: Position) -> None:
        """Let go of old segments, except for the one that a keeper's copy ends in; all, if that is :attr:`position`."""
        # Another thread may just have begun the newest, and not be writing to it yet.
        for number in self._files.keys() - {kept.segment, self._number, max(self._files)}:
            self._close_segment(number)

    def close(self) -> None:
        """Close the files; they stay where they are."""
        for number in list(self._files):
            self._close_segment(number)

    def _begin_segment(self, number: int, records: Sequence[Record]) -> None:
        path = _path(self._folder, number)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        nbytes = 0
        try:
            for record in records:
                nbytes += _write(file, nbytes, encode(record))
        except BaseException:
            os.close(file)
            os.unlink(path)
            raise
        self._files[number] = file
        self._segments[number] = Segment(number, nbytes, nbytes)
        self._number = number

    def _close_segment(self, number: int) -> None:
        del self._segments[number]
        os.close(self._files.pop(number))


class JournalCopy:
    """The keeper's copy of a journal, which goes on with what its folder holds.

    Args:
        folder: for the segments; made if need be.
    """

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._folder = folder
        self._kept = self._look()

    @property
    def position(self) -> Position:
        """How far it goes."""
        return self._kept.position

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What there is, oldest first."""
        return tuple(self._kept.segments)

    def read_span(self, span: Span) -> Batch:
        """A part of it."""
        with open(_path(self._folder, span.start.segment), "rb") as file:
            return Batch(span.start, os.pread(file.fileno(), span.nbytes, span.start.offset), span.base_bytes)

    def accept(self, batch: Batch) -> Position:
        """Take a batch; how far the copy goes now.

        Raises:
            OSError: if it could not be written; the copy is as long as the disk had room.
        """
        new = self._kept.accept(batch)
        try:
            if new:
                with open(_path(self._folder, batch.start.segment), "ab", buffering=0) as file:
                    _write(file.fileno(), os.fstat(file.fileno()).st_size, [new])
        except OSError:
            self._kept = self._look()
            raise
        for number in self._kept.drop_replaced():
            os.unlink(_path(self._folder, number))
        return self.position

    def _look(self) -> KeptSegments:
        segments = []
        for number in _numbers(self._folder):
            size = os.path.getsize(_path(self._folder, number))
            is_usable = _read_path(_path(self._folder, number)) is not None
            segments.append(Segment(number, 0 if is_usable else size + 1, size))
        return KeptSegments(segments)


def read_journal(folder: str) -> Journal:
    """What the journal in a folder says, up to where its writer stopped; empty if there is none.

    Buffers of its payloads are parts of the files, which may be removed meanwhile.
    """
    for number in reversed(_numbers(folder)):
        journal = _read_path(_path(folder, number))
        if journal is not None:
            return journal
    return Journal()


def _read_path(path: str) -> Journal | None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read(file)
    finally:
        os.close(file)


def _read(file: int) -> Journal | None:
    if not os.fstat(file).st_size:
        return None
    data = memoryview(mmap.mmap(file, 0, access=mmap.ACCESS_READ))
    return Journal.of(record for record, _ in decode(data))


def _path(folder: str, number: int) -> str:
    return os.path.join(folder, f"{number}.journal")


def _numbers(folder: str) -> list[int]:
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)


def _write(file: int, end: int, parts: list[Buffer]) -> int:
    """Append ``parts`` to a file that ends at ``end``; how many bytes."""
    if len(parts) == 1 and os.write(file, parts[0]) == len(parts[0]):
        return len(parts[0])
    # Many buffers, or more than the system takes at once, or no room.
    os.ftruncate(file, end)
    left = deque(memoryview(part).cast("B") for part in parts if memoryview(part).nbytes)
    nbytes = sum(map(len, left))
    try:
        while left:
            written = os.writev(file, list(itertools.islice(left, _IOV_MAX)))
            while left and written >= len(left[0]):
                written -= len(left.popleft())
            if written:
                left[0] = left[0][written:]
    except OSError:
        os.ftruncate(file, end)
        raise
    return nbytes
