"""The queue of work that is ready, as one lane for each set of engines that may take it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from heapq import heapify, heappop, heappush, heapreplace

from nsactors.core.scheduling.fleet import Member
from nsactors.core.scheduling.records import Piece, Place
from nsactors.errors.ranges import engine_ranges

__all__ = ["Lane", "Lanes"]

_MAX_MEMO = 1000


class Lane:
    """Pieces that the same engines may run, the most urgent first. Never empty."""

    __slots__ = ("eligible", "heap", "place")

    def __init__(self, place: Place, eligible: frozenset[int], heap: list[Piece]) -> None:
        self.place = place
        self.eligible = eligible
        self.heap = heap

    @property
    def head(self) -> Piece:
        """The most urgent piece."""
        return self.heap[0]


class Lanes:
    """Pieces that wait for an engine.

    Args:
        members: the engines there are; read, never changed.
        away: ids of engines that are being started, or restarted.
    """

    def __init__(self, members: Mapping[int, Member], away: Collection[int]) -> None:
        self._members = members
        self._away = away
        self._lanes: dict[Place, Lane] = {}
        self._eligible: dict[Place, frozenset[int]] = {}
        self.items = 0

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def push(self, piece: Piece) -> None:
        """Let a piece wait for an engine."""
        place = piece.place
        lane = self._lanes.get(place)
        if lane is None:
            self._lanes[place] = Lane(place, self.eligible(place), [piece])
        else:
            heappush(lane.heap, piece)
        self.items += piece.stop - piece.start

    def take(self, lane: Lane, count: int) -> Piece:
        """Take the first ``count`` items of the head of ``lane``, or all if there are no more."""
        head = lane.heap[0]
        cut = head.start + count
        if cut < head.stop:
            heapreplace(lane.heap, head._replace(start=cut))
            head = head._replace(stop=cut)
        else:
            heappop(lane.heap)
            if not lane.heap:
                del self._lanes[lane.place]
        self.items -= head.stop - head.start
        return head

    def most_urgent(self, engine_ids: Collection[int]) -> Lane | None:
        """The lane with the most urgent head among those that one of these engines may take from."""
        best = None
        for lane in self._lanes.values():
            if (best is None or lane.heap[0] < best.heap[0]) and not lane.eligible.isdisjoint(engine_ids):
                best = lane
        return best

    def remove(self, unwanted: Callable[[Piece], bool]) -> list[Piece]:
        """Take out all pieces that are unwanted."""
        removed: list[Piece] = []
        for place, lane in list(self._lanes.items()):
            kept: list[Piece] = []
            for piece in lane.heap:
                (removed if unwanted(piece) else kept).append(piece)
            lane.heap = kept
            heapify(kept)
            if not kept:
                del self._lanes[place]
        self.items -= sum(piece.stop - piece.start for piece in removed)
        return removed

    def engines_changed(self) -> list[tuple[Piece, str]]:
        """Look at the engines again. Returns the pieces that none can ever run now, which wait no longer, and why."""
        self._eligible.clear()
        hopeless: dict[Place, str] = {}
        for place, lane in self._lanes.items():
            lane.eligible = self.eligible(place)
            if reason := self.hopeless(place):
                hopeless[place] = reason
        gone = self.remove(lambda piece: piece.place in hopeless) if hopeless else []
        return [(piece, hopeless[piece.place]) for piece in gone]

    def eligible(self, place: Place) -> frozenset[int]:
        """The engines that may run what has this place. Those that it has not failed on, if there are any."""
        known = self._eligible.get(place)
        if known is None:
            fit = [m for m in self._members.values() if self._fits(place, m) and m.serial not in place.refused]
            fresh = [m for m in fit if m.serial not in place.tried]
            known = frozenset(m.engine.engine_id for m in fresh or fit)
            if len(self._eligible) >= _MAX_MEMO:
                self._eligible.clear()
            self._eligible[place] = known
        return known

    def hopeless(self, place: Place) -> str:
        """Why nothing with this place can ever run; empty if it can, or an engine may still join that it suits."""
        if self.eligible(place):
            return ""
        needs, targets = place.needs, place.needs.targets
        if place.homes is not None:
            return "follow: no engine that it may run on is one where the tasks that it follows have run"
        if any(self._fits(place, member) for member in self._members.values()):
            return "every engine that it may run on says that a condition of it is not met there"
        if targets is not None and targets.isdisjoint(self._members) and targets.isdisjoint(self._away):
            return f"targets: {engine_ranges(targets)} gone" if targets else "targets: none were given"
        if (asked := needs.in_words) and not self._away:
            where = "" if targets is None else f" among {engine_ranges(targets)}"
            return f"it asks for an engine with {asked}, and there is none{where}"
        return ""

    def _fits(self, place: Place, member: Member) -> bool:
        return (place.homes is None or member.serial in place.homes) and place.needs.met_by(member.engine)
