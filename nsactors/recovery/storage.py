"""A journal on disk: append, cut, read; and its replica on another machine.

The segments of a journal are numbered files in one folder. A new segment begins with a snapshot. It is written as a
draft while the old segment continues, and replaces the old one only after a check that the snapshot can be loaded. A
process that dies before that leaves the old segment, with all records up to its death. Writes are not synchronised with
the disk. They survive their process, which is the purpose of a journal; if the machine is lost, the replica survives.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import os
import re
import shutil
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from nsactors.protocol.serialize import Buffer
from nsactors.recovery.encoding import decode, encode
from nsactors.recovery.journal import (
    Journal,
    Record,
    RequestFinished,
    RequestStarted,
    SegmentHeader,
    Snapshot,
    State,
    unwritten,
)
from nsactors.recovery.replay import slice_for
from nsactors.recovery.replication import NOWHERE, JournalBatch, KeptSegments, Position, Segment, SegmentRange
from nsactors.recovery.unjournaled import GapMark

WAITING_BYTES = 100_000_000  # the limit for payloads in memory that wait for room on the disk
_NAME = re.compile(r"(\d+)\.journal")
_SAVED = "saved"
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
# Bounds the memory for copying the records since a draft, which are usually few.
_COPIED_BYTES = 16_000_000
_IOV_MAX = min(os.sysconf("SC_IOV_MAX"), 1024)


class _Written(NamedTuple):
    """A file that may become a segment."""

    path: str
    file: int
    nbytes: int

    def extended(self, other: int, start: int, end: int) -> _Written:
        """Append the bytes of another file between two positions."""
        nbytes = self.nbytes
        while start < end:
            data = os.pread(other, min(end - start, _COPIED_BYTES), start)
            nbytes += _write(self.file, nbytes, [data])
            start += len(data)
        return self._replace(nbytes=nbytes)

    def discard(self) -> None:
        """Remove the file."""
        os.close(self.file)
        os.unlink(self.path)


class Draft(NamedTuple):
    """A segment that may replace the current one.

    Attributes:
        written: its file.
        journal: the journal that its snapshot replaces.
        position: the end of that journal on disk.
        records: the number of its records, including those that wait for room.
        replay_s: the duration of the requests in that journal.
    """

    written: _Written
    journal: Journal
    position: Position
    records: int
    replay_s: float

    @property
    def path(self) -> str:
        """The path of the file, which begins with the snapshot."""
        return self.written.path

    def discard(self) -> None:
        """Remove the file."""
        self.written.discard()

    def read(self) -> Snapshot:
        """Return the snapshot as it was written. The values in the namespace may have changed since."""
        base, _ = next(decode(memoryview(mmap.mmap(self.written.file, 0, access=mmap.ACCESS_READ))))
        assert isinstance(base, SegmentHeader)
        assert base.snapshot is not None
        return base.snapshot


class JournalFile:
    """The journal that one incarnation of an engine writes.

    One thread appends; at the same time, another thread may adopt a draft, and others may read ranges.

    If the disk has no room for a record, the record waits in memory. It is written as soon as there is room: before the
    next record, or by :meth:`flush`. Large payloads do not wait for ever: past a limit they are dropped, and the
    journal only contains that their requests ran, until a snapshot includes their effects.

    Args:
        folder: the folder for its segments, which must not exist.

    Attributes:
        replay_s: the duration of the requests since the last snapshot.
        failure: the error that keeps records waiting; None if no record waits.

    Raises:
        FileExistsError: if the folder exists: it contains the journal of another engine.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files: dict[int, int] = {}  # file descriptors by the number of the segment
        self._segments: dict[int, Segment] = {}
        self._number = -1  # the number of the current segment
        self._drafts = itertools.count()
        # Reentrant, since append() calls flush().
        self._writing = threading.RLock()
        self._unwritten: deque[Record] = deque()
        self._is_new = True  # the unwritten records will begin a segment
        self._count = 0  # the number of written records
        self._ends: dict[int, int] = {}  # where records that had to wait end in the segment, by their count
        self._payload_bytes = 0  # the size of the payloads of unwritten records
        self._mark: GapMark | None = None
        self._mark_folder = folder
        self._incomplete_until = 0  # the count of the last record whose payload was dropped
        self.failure: OSError | None = None
        self.replay_s = 0.0
        # An incarnation writes one journal: a second process with the same number must not add its records to the
        # journal of the first process.
        if os.path.exists(folder):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), folder)
        # The engine starts even if the disk is full: the header waits like any record.
        self._unwritten.append(SegmentHeader())
        self.flush()

    @property
    def is_begun(self) -> bool:
        """True if the journal is on disk, from its beginning."""
        return not self._is_new

    @property
    def is_incomplete(self) -> bool:
        """True if payloads were dropped, so that a snapshot is due as soon as there is room."""
        return self._incomplete_until > 0

    @property
    def waiting(self) -> int:
        """The number of requests that are in memory only."""
        return sum(isinstance(record, RequestStarted) for record in [*self._unwritten])

    @property
    def position(self) -> Position:
        """The position after the last record on disk."""
        return self._segments[self._number].end if self._files else NOWHERE

    @property
    def grown_bytes(self) -> int:
        """The size of the records since the last snapshot, written or waiting."""
        segment = self._segments.get(self._number)
        return self._payload_bytes + (segment.nbytes - segment.base_bytes if segment else 0)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments that can still be read, oldest first."""
        return tuple(self._segments.copy().values())

    def append(self, record: Record) -> None:
        """Write a record, whole or not at all; it waits if there is no room."""
        with self._writing:
            if isinstance(record, RequestFinished):
                self.replay_s += record.took_s
            if not self._unwritten:
                try:
                    return self._write_record(record)
                except OSError as error:
                    self.failure = error
            self._wait(record)
            self.flush()

    def flush(self) -> bool:
        """Write the waiting records; return whether all could be written."""
        with self._writing:
            try:
                if self._is_new:
                    self._begin()
                while self._unwritten:
                    self._write_record(self._unwritten[0])
                    self._ends[self._count] = self.position.offset
                    self._drop_first()
            except OSError as error:
                self.failure = error
                return False
            self._all_written()
            return True

    def note_missing(self, begun: RequestStarted) -> None:
        """Mark on disk that this request has run, and may be in no journal."""
        with contextlib.suppress(OSError):  # if this fails, the user knows of it only from the notice in each reply
            self._mark = self._mark or GapMark(self._mark_folder)
            self._mark.add(unwritten(begun))

    def mark_in(self, folder: str) -> None:
        """Set the folder of the predecessor, for the mark of unjournaled requests while this journal has no room."""
        self._mark_folder = folder

    def begin_with(self, journal: Journal, stored: StoredJournal | None = None) -> None:
        """Begin with the content of another journal, before any other record.

        Args:
            journal: the entries of that journal that were replayed.
            stored: that journal as a whole, if no process writes to it any more. Its file is then shared, because
                writing 50 MB takes as long as restoring them. The next recovery then reports the entries that were not
                replayed again.
        """
        with self._writing:
            self.replay_s = sum(entry.took_s for entry in journal.entries)
            if stored is not None and self._share_file_of(stored):
                return
            records = (record for entry in journal.entries for record in entry.records)
            base = SegmentHeader(journal.snapshot, len(journal.kept), journal.taken_before)
            self._unwritten = deque([base, *journal.kept, *records])
            self._is_new = True
            if not self.flush():
                self._remove_incomplete()

    def _share_file_of(self, stored: StoredJournal) -> bool:
        """Share the file of another journal, which needs no room on the disk; return whether this is possible."""
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            if self._mark is None or self._mark.folder != self._folder:
                self._mark = GapMark.linked(self._folder, self._mark_folder)
            path = self._draft_path()
            os.link(stored.path, path)
        except OSError:  # another file system, or one without links
            return False
        written = _Written(path, os.open(path, _FLAGS), stored.nbytes)
        try:
            # The file may end with an incomplete record. Records after it could not be read.
            os.ftruncate(written.file, stored.nbytes)
            self._replace(written)
        except BaseException:
            written.discard()
            raise
        self._unwritten.clear()
        self.failure = None  # not by flush(), which would clear the other journal's mark before it is reported
        if any(entry.state is State.BEGUN for entry in stored.journal.entries[-1:]):
            self.append(RequestFinished(State.BEGUN))
        return True

    def draft(self, snapshot: Snapshot, journal: Journal | None = None) -> Draft:
        """Write a segment that begins with a snapshot, to replace the current one after a check.

        The segment keeps the entries that created objects which the snapshot leaves out.

        Args:
            snapshot: all names, between two requests.
            journal: the journal that the snapshot replaces; None for the content of this one so far.

        Raises:
            OSError: if there is no room. The journal is unchanged then.
        """
        journal = journal or self.read()
        with self._writing:
            # Read these numbers under the lock: adopt() assumes that later records are not in the draft.
            count, position, replay_s = self._count + len(self._unwritten), self.position, self.replay_s
        return Draft(self._written(_base(snapshot, journal)), journal, position, count, replay_s)

    def adopt(self, draft: Draft, refused: Mapping[str, str] = MappingProxyType({})) -> Snapshot:
        """Replace the current segment by a draft, with the records written since; return its snapshot.

        The file of the old segment is removed, but can be read until :meth:`release`.

        Args:
            draft: the draft.
            refused: names that cannot be loaded from its snapshot, with reasons; the draft is rewritten without these.

        Raises:
            OSError: if there is no room. The journal is unchanged then.
        """
        snapshot, written = draft.read(), draft.written
        if refused:
            snapshot = snapshot.without(refused)
            try:
                written = self._written(_base(snapshot, draft.journal))
            finally:
                draft.written.discard()
        with self._writing:
            try:
                if self._files:
                    # Records that waited when the draft was made may have been written since. Its snapshot includes
                    # them, so begin after them.
                    start = self._ends.get(draft.records, draft.position.offset)
                    end = self.position.offset if self._count > draft.records else start
                    written = written.extended(self._files[self._number], start, end)
                self._replace(written)
            except OSError:
                written.discard()
                raise
            for _ in range(draft.records - self._count):
                self._drop_first()
            self._count = max(self._count, draft.records)
            if draft.records >= self._incomplete_until:
                self._incomplete_until = 0
            # Do not set it to zero: requests since the draft count towards the next snapshot.
            self.replay_s -= draft.replay_s
            self.flush()
        return snapshot

    def cut(self, snapshot: Snapshot, journal: Journal | None = None) -> Position:
        """Begin a new segment with a snapshot that needs no check; return the position after it."""
        self.adopt(self.draft(snapshot, journal))
        return self.position

    def read(self) -> Journal:
        """Return the content so far, with waiting records."""
        with self._writing:
            written = _records(self._files[self._number]) if self._files and not self._is_new else iter(())
            return Journal.of(itertools.chain(written, self._unwritten)) or Journal()

    def read_span(self, span: SegmentRange) -> JournalBatch:
        """Return a part of a segment, for the replica."""
        segment, offset = span.start
        return JournalBatch(span.start, os.pread(self._files[segment], span.nbytes, offset), span.base_bytes)

    def release(self, kept: Position) -> None:
        """Close old segments, except the segment in which the replica ends, unless it ends at :attr:`position`."""
        # Do not close the newest segment: another thread may have just made it, and not write to it yet.
        for number in self._files.keys() - {kept.segment, self._number, max(self._files, default=-1)}:
            self._close_segment(number)

    def close(self) -> None:
        """Close the files without removing them."""
        for number in list(self._files):
            self._close_segment(number)
        if self._mark is not None:
            self._mark.close()
            self._mark = None

    def _begin(self) -> None:
        """Begin a segment with all waiting records, in one step."""
        ends: list[int] = []
        self._replace(self._written(self._unwritten, ends))
        self._ends.update(enumerate(ends, self._count + 1))
        self._count += len(self._unwritten)
        self._unwritten.clear()

    def _write_record(self, record: Record) -> None:
        number, base_bytes, nbytes = self._segments[self._number]
        nbytes += _write(self._files[number], nbytes, encode(record))
        self._segments[number] = Segment(number, base_bytes, nbytes)
        self._count += 1

    def _wait(self, record: Record) -> None:
        self._unwritten.append(record)
        if not isinstance(record, RequestStarted):
            return
        self.note_missing(record)
        self._payload_bytes += record.payload.nbytes if record.payload else 0
        # This is better than to run out of memory or to stop the engine. The next recovery reports the losses.
        if self._payload_bytes > WAITING_BYTES:
            self._unwritten = deque(
                unwritten(each) if isinstance(each, RequestStarted) and each.payload else each
                for each in self._unwritten
            )
            self._payload_bytes = 0
            self._incomplete_until = self._count + len(self._unwritten)

    def _drop_first(self) -> None:
        record = self._unwritten.popleft()
        if isinstance(record, RequestStarted) and record.payload:
            self._payload_bytes -= record.payload.nbytes

    def _all_written(self) -> None:
        if self.failure is not None and self._mark is not None:
            with contextlib.suppress(OSError):
                self._mark.clear()
        self.failure = None
        self._payload_bytes = 0

    def _written(self, records: Iterable[Record], ends: list[int] | None = None) -> _Written:
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            if self._mark is None or self._mark.folder != self._folder:
                self._mark = GapMark(self._folder)
            path = self._draft_path()
            file = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
            written = _Written(path, file, 0)
            try:
                for record in records:
                    written = written._replace(nbytes=written.nbytes + _write(file, written.nbytes, encode(record)))
                    if ends is not None:
                        ends.append(written.nbytes)
            except BaseException:
                written.discard()
                raise
        except BaseException:
            if not self._files:
                self._remove_incomplete()
            raise
        return written

    def _draft_path(self) -> str:
        return os.path.join(self._folder, f"draft-{next(self._drafts)}")

    def _remove_incomplete(self) -> None:
        """Remove an incomplete journal, because another incarnation would treat it as complete."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._mark_folder == self._folder:  # an empty folder means that there was no room
            with contextlib.suppress(OSError):
                os.makedirs(self._folder, mode=0o700)

    def _replace(self, written: _Written) -> None:
        old, number = self._number, self._number + 1
        # Rename before the old segment is removed: a process that dies in between leaves two segments, and the newer
        # one is read.
        os.rename(written.path, _path(self._folder, number))
        self._files[number] = written.file
        self._segments[number] = Segment(number, written.nbytes, written.nbytes)
        self._number = number
        self._is_new = False
        self._ends.clear()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_path(self._folder, old))

    def _close_segment(self, number: int) -> None:
        del self._segments[number]
        os.close(self._files.pop(number))


class JournalCopy:
    """The replica of a journal, which continues with the content of its folder.

    Args:
        folder: the folder for the segments, made if it is missing.
    """

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._folder = folder
        self._kept = self._look()

    @property
    def position(self) -> Position:
        """The end of the replica."""
        return self._kept.position

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments, oldest first."""
        return tuple(self._kept.segments)

    def read_span(self, span: SegmentRange) -> JournalBatch:
        """Return a part of a segment."""
        with open(_path(self._folder, span.start.segment), "rb") as file:
            return JournalBatch(span.start, os.pread(file.fileno(), span.nbytes, span.start.offset), span.base_bytes)

    def accept(self, batch: JournalBatch) -> Position:
        """Add a batch; return the new end of the replica.

        Raises:
            OSError: if the batch could not be written completely; the replica contains the part for which there was
                room.
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
        segments: list[Segment] = []
        for number in _numbers(self._folder):
            size = os.path.getsize(_path(self._folder, number))
            # If an older segment exists, the newer one is incomplete: otherwise the older one would have been removed.
            # The records written while its snapshot was being checked follow the snapshot, and belong to it.
            is_usable = not segments and _read_path(_path(self._folder, number)) is not None
            segments.append(Segment(number, 0 if is_usable else size + 1, size))
        return KeptSegments(segments)


def note_saved(folder: str, at: float) -> None:
    """Mark a copy of a journal as saved, so that another cluster can continue from it.

    Args:
        folder: the folder of the copy.
        at: the time in seconds since the epoch.
    """
    with open(os.path.join(folder, _SAVED), "w") as file:
        file.write(repr(at))


def saved_at(folder: str) -> float | None:
    """Return the time that :func:`note_saved` has written; None if it has written none."""
    try:
        with open(os.path.join(folder, _SAVED)) as file:
            return float(file.read())
    except (FileNotFoundError, ValueError):  # ValueError: the disk had no room for the time
        return None


def read_journal(folder: str) -> Journal:
    """Return the content of the journal in a folder, up to the last complete record; empty if there is none.

    Buffers of its payloads are parts of the mapped files; the files may be removed while they are in use.
    """
    stored = find_journal(folder)
    return stored.journal if stored else Journal()


class StoredJournal(NamedTuple):
    """A journal, with the file that it was read from and the size of its complete records."""

    journal: Journal
    path: str
    nbytes: int


def find_journal(folder: str) -> StoredJournal | None:
    """Return the journal in a folder with its file, like :func:`read_journal`; None if there is none."""
    # The newest segment may be incomplete: in a replica, if not all of its snapshot has arrived.
    for number in reversed(_numbers(folder)):
        path = _path(folder, number)
        if stored := _read_path(path):
            return stored
    return None


def _base(snapshot: Snapshot, journal: Journal) -> list[Record]:
    kept = slice_for(journal.standing_alone(), snapshot.left_out.keys(), snapshot.names)
    return [SegmentHeader(replace(snapshot, taken=journal.taken), len(kept)), *kept]


def _read_path(path: str) -> StoredJournal | None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        journal, nbytes = _read(file)
    finally:
        os.close(file)
    return None if journal is None else StoredJournal(journal, path, nbytes)


def _read(file: int) -> tuple[Journal | None, int]:
    """Return the journal in a file, and the end of its last complete record."""
    if not os.fstat(file).st_size:
        return None, 0
    data = memoryview(mmap.mmap(file, 0, access=mmap.ACCESS_READ))
    records = [*decode(data)]
    return Journal.of(record for record, _ in records), records[-1][1] if records else 0


def _records(file: int) -> Iterator[Record]:
    if os.fstat(file).st_size:
        data = memoryview(mmap.mmap(file, 0, access=mmap.ACCESS_READ))
        yield from (record for record, _ in decode(data))


def _path(folder: str, number: int) -> str:
    return os.path.join(folder, f"{number}.journal")


def _numbers(folder: str) -> list[int]:
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)


def _write(file: int, end: int, parts: list[Buffer]) -> int:
    """Append ``parts`` to a file that ends at ``end``; return the number of bytes."""
    if len(parts) == 1 and os.write(file, parts[0]) == len(parts[0]):
        return len(parts[0])
    # There are several buffers, or more bytes than the system writes in one call, or no room on the disk.
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
