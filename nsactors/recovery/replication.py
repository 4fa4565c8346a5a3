"""Replication of a journal: batches in order, acknowledged.

A journal is a sequence of *segments*, each beginning with a snapshot that replaces all segments before it. The replica
of a segment is always a prefix of the segment. Each reply of the replica contains the position where the replica ends,
and the next batch begins there. So the sender need not keep track of batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Position(NamedTuple):
    """A position in a journal; later positions compare as greater. Bytes up to the end of a replica are safe."""

    segment: int
    offset: int


NOWHERE = Position(-1, 0)
"""The end of an empty replica."""


class Segment(NamedTuple):
    """One segment. It begins with ``base_bytes`` of snapshot and kept entries, without which it is useless."""

    number: int
    base_bytes: int
    nbytes: int

    @property
    def end(self) -> Position:
        """The position after the segment."""
        return Position(self.number, self.nbytes)

    @property
    def is_usable(self) -> bool:
        """True if its snapshot is complete."""
        return self.nbytes >= self.base_bytes


class SegmentRange(NamedTuple):
    """The range to send next: ``nbytes`` from ``start`` on, in a segment whose snapshot takes ``base_bytes``."""

    start: Position
    nbytes: int
    base_bytes: int


class JournalBatch(NamedTuple):
    """A part of a segment, sent to the replica."""

    start: Position
    data: bytes
    base_bytes: int


def next_span(kept: Position, segments: Sequence[Segment], limit_bytes: int) -> SegmentRange | None:
    """Return the range to send to the replica next; None if it has everything.

    The rest of the segment in which the replica ends comes first, so that the replica is as complete as possible while
    a large snapshot is being sent.

    Args:
        kept: the end of the replica, according to its last reply.
        segments: the segments that can still be read, oldest first.
        limit_bytes: the largest size of a batch.
    """
    begun = [segment for segment in segments if segment.number == kept.segment]
    newest = [segment for segment in segments[-1:] if segment.number > kept.segment]
    for segment in begun + newest:
        offset = kept.offset if segment.number == kept.segment else 0
        if offset < segment.nbytes:
            nbytes = min(limit_bytes, segment.nbytes - offset)
            return SegmentRange(Position(segment.number, offset), nbytes, segment.base_bytes)
    return None


@dataclass(slots=True)
class KeptSegments:
    """The sizes of the segments in the replica of one journal: they decide which part of a batch is appended."""

    segments: list[Segment] = field(default_factory=list)

    @property
    def position(self) -> Position:
        """The end of the replica, which is the reply to every batch."""
        return self.segments[-1].end if self.segments else NOWHERE

    def accept(self, batch: JournalBatch) -> bytes:
        """Return the part of a batch to append to its segment; empty if it is a duplicate, late or early."""
        at = self.position
        # A newer segment makes the rest of the present one unnecessary.
        if batch.start.segment > at.segment and batch.start.offset == 0:
            self.segments.append(Segment(batch.start.segment, batch.base_bytes, len(batch.data)))
            return batch.data
        if batch.start.segment != at.segment or batch.start.offset > at.offset:
            return b""
        new = batch.data[at.offset - batch.start.offset :]
        last = self.segments[-1]
        self.segments[-1] = Segment(last.number, batch.base_bytes, last.nbytes + len(new))
        return new

    def drop_replaced(self) -> list[int]:
        """Drop the segments that a complete newer snapshot has replaced; return their numbers."""
        usable = max((s.number for s in self.segments if s.is_usable), default=-1)
        dropped = [s.number for s in self.segments if s.number < usable]
        self.segments = [s for s in self.segments if s.number >= usable]
        return dropped
