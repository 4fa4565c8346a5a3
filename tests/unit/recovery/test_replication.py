from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nsactors.recovery.replication import (
    NOWHERE,
    JournalBatch,
    KeptSegments,
    Position,
    Segment,
    SegmentRange,
    next_span,
)


def test_a_keeper_that_has_nothing_is_sent_the_newest_segment() -> None:
    segments = [Segment(3, 10, 50), Segment(4, 5, 8)]
    assert next_span(NOWHERE, segments, 100) == SegmentRange(Position(4, 0), 8, 5)


def test_the_rest_of_the_segment_begun_comes_before_the_next_snapshot() -> None:
    segments = [Segment(3, 10, 50), Segment(4, 5, 8)]
    assert next_span(Position(3, 45), segments, 100) == SegmentRange(Position(3, 45), 5, 10)
    assert next_span(Position(3, 50), segments, 100) == SegmentRange(Position(4, 0), 8, 5)


def test_a_batch_is_no_larger_than_allowed() -> None:
    assert next_span(Position(0, 10), [Segment(0, 1, 100)], 20) == SegmentRange(Position(0, 10), 20, 1)


def test_a_keeper_that_has_everything_is_sent_nothing() -> None:
    assert next_span(Position(0, 7), [Segment(0, 1, 7)], 20) is None


def test_a_batch_that_comes_twice_is_taken_once() -> None:
    kept = KeptSegments()
    batch = JournalBatch(Position(0, 0), b"abc", 1)
    assert (kept.accept(batch), kept.accept(batch), kept.position) == (b"abc", b"", Position(0, 3))


def test_of_a_batch_that_overlaps_the_new_part_is_taken() -> None:
    kept = KeptSegments([Segment(0, 1, 3)])
    assert kept.accept(JournalBatch(Position(0, 1), b"bcde", 1)) == b"de"


def test_a_batch_after_a_gap_is_refused() -> None:
    kept = KeptSegments([Segment(0, 1, 3)])
    assert kept.accept(JournalBatch(Position(0, 4), b"e", 1)) == b""
    assert kept.accept(JournalBatch(Position(1, 4), b"e", 1)) == b""
    assert kept.position == Position(0, 3)


def test_an_old_segment_is_kept_until_the_snapshot_after_it_is_complete() -> None:
    kept = KeptSegments([Segment(0, 1, 3)])
    kept.accept(JournalBatch(Position(1, 0), b"ab", 3))
    assert kept.drop_replaced() == []
    kept.accept(JournalBatch(Position(1, 2), b"c", 3))
    assert kept.drop_replaced() == [0]


KINDS = ["write", "cut", "send", "send", "deliver", "deliver", "lose-batch", "lose-answer", "repeat", "replace-keeper"]
Happened = list[tuple[str, int]]
events: st.SearchStrategy[Happened] = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 9)), max_size=60)


class Shipping:
    """An engine's segments as texts, its keeper's copy, and batches in flight between them."""

    def __init__(self) -> None:
        self.written = {0: b"<0>"}
        self.bases = {0: 3}
        self.copy: dict[int, bytes] = {}
        self.kept = KeptSegments()
        self.known = NOWHERE  # what the engine knows of the copy
        self.in_flight: list[JournalBatch] = []

    @property
    def segments(self) -> list[Segment]:
        return [Segment(number, self.bases[number], len(data)) for number, data in self.written.items()]

    def happen(self, what: str, n: int) -> None:
        last = max(self.written)
        match what:
            case "write":
                self.written[last] += bytes(range(n))
            case "cut":
                self.written[last + 1] = b"<" + bytes(n) + b">"
                self.bases[last + 1] = n + 2
            case "send":
                if span := next_span(self.known, self.segments, n):
                    number, offset = span.start
                    data = self.written[number][offset : offset + span.nbytes]
                    self.in_flight.append(JournalBatch(span.start, data, span.base_bytes))
            case "lose-batch" if self.in_flight:
                self.in_flight.pop(n % len(self.in_flight))
            case "replace-keeper":  # the keeper by one that has nothing
                self.kept, self.copy = KeptSegments(), {}
            case "deliver" | "lose-answer" | "repeat" if self.in_flight:
                batch = self.in_flight[n % len(self.in_flight)]
                if what != "repeat":
                    self.in_flight.remove(batch)
                self._deliver(batch)
                if what != "lose-answer":
                    self.known = self.kept.position

    def _deliver(self, batch: JournalBatch) -> None:
        number = batch.start.segment
        if new := self.kept.accept(batch):
            self.copy[number] = self.copy.get(number, b"") + new
        for dropped in self.kept.drop_replaced():
            del self.copy[dropped]


@given(events)
def test_whatever_is_lost_or_comes_twice_the_copy_is_the_beginning_of_the_journal(happened: Happened) -> None:
    shipping = Shipping()
    had_a_journal = False
    for what, n in happened:
        shipping.happen(what, n)
        for number, data in shipping.copy.items():
            assert shipping.written[number].startswith(data)
        usable = any(segment.is_usable for segment in shipping.kept.segments)
        assert usable or what == "replace-keeper" or not had_a_journal, (
            "what could be recovered from before can be still"
        )
        had_a_journal = usable


@given(events)
def test_when_nothing_is_lost_any_more_the_copy_becomes_complete(happened: Happened) -> None:
    shipping = Shipping()
    for what, n in happened:
        shipping.happen(what, n)
    shipping.in_flight.clear()
    shipping.known = shipping.kept.position  # as one asks who has not heard for a while
    while next_span(shipping.known, shipping.segments, 4):
        shipping.happen("send", 4)
        shipping.happen("deliver", 0)
    last = max(shipping.written)
    assert shipping.copy == {last: shipping.written[last]}
