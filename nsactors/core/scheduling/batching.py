"""How much work goes into one message.

Batches of tasks that have been measured are worth ``Policy.batch_s`` each, and shrink as the queue runs out (guided
self-scheduling: Polychronopoulos and Kuck, IEEE Trans. Computers C-36, 1987), so that engines end together. Tasks that
have not been measured go out one by one. Where messages are slow, each holds more: engines would wait for the next.
"""

from __future__ import annotations

from collections.abc import Hashable

from nsactors.core.scheduling.fleet import Fleet
from nsactors.core.scheduling.lanes import Lane, Lanes
from nsactors.core.scheduling.messages import Policy
from nsactors.core.scheduling.records import Piece

__all__ = ["Batcher", "Pace", "Tempo"]

_WEIGHT = 0.3  # of the newest measurement
_SHORTEST_S = 1e-7  # clocks may say that nothing took no time
_MAX_KINDS = 1000
_LONGEST_MESSAGE_S = 0.05  # what takes longer carries much, or has waited for another client's work
_LEAST_PART = 0.25  # of a message's time that a batch of a long queue is worth at least
_FEW = 4  # items of a batch that waits behind another: to outlast a message, even if most of them end at once
_LONG_QUEUE = 4  # items for each engine


class Pace:
    """How long an item of each kind of task takes: an exponentially weighted mean over batches."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = {}

    def __getitem__(self, kind: Hashable) -> float | None:
        """Seconds an item; None if none has been measured."""
        return self._seconds.get(kind)

    def measured(self, kind: Hashable, seconds: float, items: int) -> None:
        """``items`` of them took ``seconds`` in sum."""
        new = max(seconds / items, _SHORTEST_S)
        old = self._seconds.pop(kind, new)
        self._seconds[kind] = old + _WEIGHT * (new - old)
        if len(self._seconds) > _MAX_KINDS:
            del self._seconds[next(iter(self._seconds))]  # the one not measured for longest


class Tempo:
    """The times of a policy, longer where messages take longer than it supposes.

    On a loaded machine, or with more engines than a client can keep up with, a message may take as long as a batch.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._message_s = 0.0

    @property
    def batch_s(self) -> float:
        """How long a batch should run: the next is on its way meanwhile."""
        return max(self._policy.batch_s, self._message_s)

    @property
    def least_s(self) -> float:
        """What a batch of a long queue is worth at least."""
        return max(self._policy.least_s, _LEAST_PART * self._message_s)

    def measured(self, seconds: float) -> None:
        """A batch went to an engine that had nothing to do, and took this long beyond its work to come back."""
        self._message_s += _WEIGHT * (min(max(seconds, 0.0), _LONGEST_MESSAGE_S) - self._message_s)


class Batcher:
    """Makes batches from what is ready."""

    def __init__(self, policy: Policy, tempo: Tempo, lanes: Lanes, fleet: Fleet, pace: Pace) -> None:
        self._policy = policy
        self._tempo = tempo
        self._lanes = lanes
        self._fleet = fleet
        self._pace = pace

    def may_prefetch(self, lane: Lane) -> bool:
        """Whether the head of ``lane`` may be bound to an engine that is busy, to save it the wait for a message.

        Short ones may. Long ones while the queue is long too: near its end they would have to be taken back.
        """
        seconds = self._pace[lane.head.record.task.kind]
        if seconds is None or lane.head.is_suspect:
            return False
        return seconds < self._policy.prefetch_below_s or self._lanes.items > _LONG_QUEUE * len(self._fleet.members)

    def compose(self, engine_id: int, *, ahead: bool = False) -> list[Piece]:
        """Take a batch for an engine out of the lanes, the most urgent first.

        Args:
            engine_id: an engine.
            ahead: whether it is one to wait behind another, of short tasks only.
        """
        pieces: list[Piece] = []
        left_s = self._tempo.batch_s
        share = -(-self._lanes.items // (2 * len(self._fleet.members)))
        # While several engines have nothing to do, each gets its share, however little that is.
        least_s = self._tempo.least_s if len(self._fleet.idle) < 2 else 0.0
        # A mean says little of one item: a batch of one that ends at once leaves no time to send the next meanwhile.
        few, few_s = (_FEW, self._policy.prefetch_below_s) if ahead else (0, 0.0)
        engine = (engine_id,)
        while (lane := self._lanes.most_urgent(engine)) is not None:
            head = lane.heap[0]
            task = head.record.task
            seconds = self._pace[task.kind]
            if pieces and (seconds is None or head.is_suspect):
                break
            if ahead and not self.may_prefetch(lane):
                break
            if head.is_suspect:  # alone, so that it is known to be guilty if this engine is lost too
                return [self._lanes.take(lane, head.stop - head.start)]
            if seconds is None:
                return [self._lanes.take(lane, task.chunksize or 1)]
            enough = max(left_s / seconds, min(few, -(-few_s // seconds)))
            count = int(min(enough, max(share, least_s / seconds)))
            if task.chunksize is not None:
                count = max(count // task.chunksize, not pieces) * task.chunksize
            elif not pieces:
                count = max(count, 1)
            if count < 1:
                break
            piece = self._lanes.take(lane, count)
            pieces.append(piece)
            taken = piece.stop - piece.start
            few -= taken
            few_s -= taken * seconds
            left_s -= taken * seconds
            least_s -= taken * seconds
            share -= taken
        return pieces
