"""The size of batches.

A batch of tasks whose time has been measured takes ``Policy.batch_s``. When the queue gets short, batches shrink, so
that engines end together (guided self-scheduling: Polychronopoulos and Kuck, IEEE Trans. Computers C-36, 1987). Tasks
that have not been measured are sent one by one. If messages are slow, batches are larger, so that engines need not
wait.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from nsactors.tasks.messages import Policy
from nsactors.tasks.records import EngineTable, QueuedRange
from nsactors.tasks.task_table import ReadyQueue, ReadyQueues

_WEIGHT = 0.3  # the weight of the newest measurement in a mean
_SHORTEST_S = 1e-7  # a clock may measure 0 s
_MAX_KINDS = 1000
_LONGEST_MESSAGE_S = 0.05  # a message that takes longer carries much data, or has waited for another client's work
_LEAST_PART = 0.25  # a batch of a long queue takes at least this fraction of the time of a message
# A batch that waits behind another one may have this many items, even if they take longer than the time of a batch.
# Then it outlasts a message, even if most of its items take no time.
_FEW = 4
_LONG_QUEUE = 4  # a queue with more items than this for each engine is long


class DurationEstimates:
    """Estimates the seconds that an item of each kind of task takes: an exponentially weighted mean over batches."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = {}

    def __getitem__(self, kind: Hashable) -> float | None:
        """Return the seconds per item; None if no item has been measured."""
        return self._seconds.get(kind)

    def measured(self, kind: Hashable, seconds: float, items: int) -> None:
        """Take a measurement: ``items`` of a kind took ``seconds`` together."""
        new = max(seconds / items, _SHORTEST_S)
        old = self._seconds.pop(kind, new)
        self._seconds[kind] = old + _WEIGHT * (new - old)
        if len(self._seconds) > _MAX_KINDS:
            del self._seconds[next(iter(self._seconds))]  # the kind whose last measurement is the oldest


class BatchSizing:
    """The times that decide the size of batches: those of a policy, or longer ones.

    They are longer if messages take longer than the policy assumes. On a loaded machine, or with more engines than a
    client can keep up with, a message may take as long as a batch.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._message_s = 0.0

    @property
    def batch_s(self) -> float:
        """The seconds that a batch should run, so that the next one can arrive during this time."""
        return max(self._policy.batch_s, self._message_s)

    @property
    def least_s(self) -> float:
        """The seconds of work that a batch of a long queue has at least."""
        return max(self._policy.least_s, _LEAST_PART * self._message_s)

    def measured(self, seconds: float) -> None:
        """Take a measurement: the seconds that a batch on an idle engine took in addition to its work."""
        self._message_s += _WEIGHT * (min(max(seconds, 0.0), _LONGEST_MESSAGE_S) - self._message_s)


@dataclass(slots=True)
class _Room:
    """The items that a batch may still take: at most its seconds of work, and at most the engine's share of the queue.

    A mean says little about one item: a batch of one item may take no time, and then the engine would wait for the next
    batch. So a batch that waits behind another one may exceed its seconds by a few items.

    Attributes:
        batch_s: seconds of work.
        share: items of the queue.
        least_s: seconds of work that the batch may take even if they exceed its share.
        few: items that the batch may take even if they exceed its seconds.
        few_s: the last of these items begins within so many seconds of work.
    """

    batch_s: float
    share: int
    least_s: float
    few: int
    few_s: float

    def items(self, item_s: float) -> int:
        """Return how many items of this duration there is room for."""
        in_time = max(self.batch_s / item_s, min(self.few, -(-self.few_s // item_s)))
        return int(min(in_time, max(self.share, self.least_s / item_s)))

    def take(self, items: int, item_s: float) -> None:
        """Take items of this duration off."""
        self.batch_s -= items * item_s
        self.share -= items
        self.least_s -= items * item_s
        self.few -= items
        self.few_s -= items * item_s


class Batcher:
    """Makes batches from the tasks that are ready."""

    def __init__(
        self,
        policy: Policy,
        sizing: BatchSizing,
        ready_queues: ReadyQueues,
        engine_table: EngineTable,
        durations: DurationEstimates,
    ) -> None:
        self._policy = policy
        self._sizing = sizing
        self._ready_queues = ready_queues
        self._engine_table = engine_table
        self._durations = durations

    def may_prefetch(self, queue: ReadyQueue) -> bool:
        """Return whether the head of a queue may go to a busy engine, so that the engine need not wait for a message.

        Short tasks may go there. Long tasks may go there while the queue is long; near its end, they would have to be
        stolen.
        """
        seconds = self._durations[queue.heap[0].record.task.kind]
        if seconds is None or queue.heap[0].is_suspect or queue.heap[0].record.task.policy is not None:
            return False  # if the task has a policy, it chooses an engine when one is free
        return seconds < self._policy.prefetch_below_s or self._ready_queues.items > _LONG_QUEUE * len(
            self._engine_table.slots
        )

    def compose(self, engine_id: int, *, ahead: bool = False) -> list[QueuedRange]:
        """Take a batch for an engine from the ready queues, the most urgent items first.

        Args:
            engine_id: an engine.
            ahead: whether the batch will wait behind another one. In that case, only heads that :meth:`may_prefetch`
                accepts are taken.
        """
        pieces: list[QueuedRange] = []
        room = self._room(ahead=ahead)
        slot, queues = self._engine_table.slots[engine_id], self._ready_queues
        while (queue := queues.best_for(engine_id) if slot.lacking else queues.most_urgent((engine_id,))) is not None:
            # A new engine may lack a name that the tasks need, and all items would fail. So it gets one item, even of a
            # chunk.
            if not slot.is_proven:
                return [queues.take(queue, 1)]
            head = queue.heap[0]
            task = head.record.task
            seconds = self._durations[task.kind]
            if pieces and (seconds is None or head.is_suspect):
                break
            if pieces and task.policy is not None and task is not pieces[-1].record.task:
                break  # the task's policy may choose another engine
            if ahead and not self.may_prefetch(queue):
                break
            if head.is_suspect:  # it is sent alone, so that it is known to be the cause if this engine is lost as well
                return [queues.take(queue, head.stop - head.start)]
            if seconds is None:
                return [queues.take(queue, task.chunksize or 1)]
            count = room.items(seconds)
            if task.chunksize is not None:
                count = max(count // task.chunksize, not pieces) * task.chunksize
            elif not pieces:
                count = max(count, 1)
            if count < 1:
                break
            piece = queues.take(queue, count)
            pieces.append(piece)
            room.take(piece.stop - piece.start, seconds)
        return pieces

    def _room(self, *, ahead: bool) -> _Room:
        # Half of an equal part of the queue: batches shrink with the queue, so that engines end together.
        share = -(-self._ready_queues.items // (2 * len(self._engine_table.slots)))
        # While several engines are idle, each gets its share, even if the share is small.
        least_s = self._sizing.least_s if len(self._engine_table.idle) < 2 else 0.0
        few, few_s = (_FEW, self._policy.prefetch_below_s) if ahead else (0, 0.0)
        return _Room(self._sizing.batch_s, share, least_s, few, few_s)
