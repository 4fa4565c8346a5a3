"""How a journal is copied to its keeper: by position, in batches of bytes, whatever is lost or comes twice.

A journal is a row of *segments*, each beginning with a snapshot; a new one takes the place of those before it. The
keeper's copy of a segment is always the beginning of the engine's. Each answer of the keeper says how far its copy
goes, and the next batch begins there: so nothing needs to be remembered of what was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["NOWHERE", "Batch", "KeptSegments", "Position", "Segment", "Span", "next_span"]


class Position(NamedTuple):
    """A place in a journal. Later places are greater: what ends at or before the end of a copy is safe with it."""

    segment: int
    offset: int


NOWHERE = Position(-1, 0)
"""Where the copy of a keeper ends that has nothing."""


class Segment(NamedTuple):
    """One segment: what it begins with takes up ``base_bytes``; without all of those it is of no use."""

    number: int
    base_bytes: int
    nbytes: int

    @property
    def end(self) -> Position:
        """The position behind it."""
        return Position(self.number, self.nbytes)

    @property
    def is_usable(self) -> bool:
        """Whether its snapshot is complete."""
        return self.nbytes >= self.base_bytes


class Span(NamedTuple):
    """What to send next: ``nbytes`` from ``start`` on, of a segment whose beginning has ``base_bytes``."""

    start: Position
    nbytes: int
    base_bytes: int


class Batch(NamedTuple):
    """A part of a segment on its way to the keeper."""

    start: Position
    data: bytes
    base_bytes: int


def next_span(kept: Position, segments: Sequence[Segment], limit_bytes: int) -> Span | None:
    """What the keeper should be sent next; None if it has everything.

    The rest of the segment that it has a part of comes first, so that its copy goes as far as possible while a large
    snapshot is on its way.

    Args:
        kept: how far its copy goes, as it has said last.
        segments: those that can be read still, oldest first.
        limit_bytes: for one batch.
    """
    begun = [segment for segment in segments if segment.number == kept.segment]
    newest = [segment for segment in segments[-1:] if segment.number > kept.segment]
    for segment in begun + newest:
        offset = kept.offset if segment.number == kept.segment else 0
        if offset < segment.nbytes:
            nbytes = min(limit_bytes, segment.nbytes - offset)
            return Span(Position(segment.number, offset), nbytes, segment.base_bytes)
    return None


@dataclass(slots=True)
class KeptSegments:
    """What a keeper has of one journal, and what it does with a batch. Knows sizes, not contents."""

    segments: list[Segment] = field(default_factory=list)

    @property
    def position(self) -> Position:
        """How far the copy goes: the answer to every batch."""
        return self.segments[-1].end if self.segments else NOWHERE

    def accept(self, batch: Batch) -> bytes:
        """The part of a batch that is to be appended to its segment; empty if it comes twice, late or too early."""
        at = self.position
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
        """Forget the segments that a complete newer snapshot has replaced; their numbers."""
        usable = max((s.number for s in self.segments if s.is_usable), default=-1)
        dropped = [s.number for s in self.segments if s.number < usable]
        self.segments = [s for s in self.segments if s.number >= usable]
        return dropped
