"""The scheduler's decisions, as a state machine that takes events and returns effects."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Hashable, Iterable
from collections.abc import Set as AbstractSet

from nsactors.errors.formatting import engine_ranges
from nsactors.protocol.tasks import RangeOutcome, RangeStatus, TaskId, TaskRange
from nsactors.tasks.batching import Batcher, BatchSizing, DurationEstimates
from nsactors.tasks.messages import (
    AbortRequested,
    Alarm,
    Deliver,
    Effect,
    EngineAdded,
    EngineBusy,
    EngineClosing,
    EngineFree,
    EngineProgressed,
    EngineRemoved,
    Event,
    InterruptRanges,
    PeekBatch,
    Policy,
    Release,
    Replied,
    Retry,
    SendBatch,
    Steal,
    Stolen,
    Submitted,
    TaskState,
    TaskStatus,
    Tick,
    Why,
)
from nsactors.tasks.policies import Policies, QueuedTask
from nsactors.tasks.records import EngineTable, QueuedRange, SentBatch, TaskRecord, Trial
from nsactors.tasks.task_table import ReadyQueues, TaskTable, have_common

_BUDGET = 2.0  # a batch ends when it has run this many times as long as a batch should
_SUSPECT_PARTS = 16  # a piece is cut into this many parts when its engine is lost, to find the cause


class SchedulerState:
    """Assigns tasks to engines in batches, and makes sure that each of their items ends exactly once.

    ``handle`` takes one event and returns effects. The driver carries these out in order, and passes events one at a
    time, in the order in which they happened.

    Attributes:
        lacking: the restarted engines that lack names which tasks have needed since the restart.

    Example:
        >>> scheduler = SchedulerState()
        >>> scheduler.handle(EngineAdded(Engine(0), at=0.0))
        []
        >>> scheduler.handle(Submitted((Task("t"),), at=0.0))
        [SendBatch(engine_id=0, batch_id=1, spans=(TaskRange(task_id='t', start=0, stop=1),), budget_s=0.1)]
        >>> scheduler.handle(Replied(1, (RangeOutcome("t", 0, 1, RangeStatus.OK, 0.5, "it worked"),), at=0.6))
        [Deliver(engine_id=0, outcomes=(RangeOutcome(task_id='t', start=0, stop=1, ...),))]
    """

    def __init__(self, policy: Policy | None = None, *, last_batch: int = 0) -> None:
        self._policy = policy or Policy()
        self._effects: list[Effect] = []
        self._emit = self._effects.append
        self._engine_table = EngineTable(last_batch)
        self.lacking: AbstractSet[int] = self._engine_table.lacking
        self._ready_queues = ReadyQueues(self._engine_table.slots, self._engine_table.away)
        self._durations = DurationEstimates()
        self._policies = Policies(self._emit)
        self._task_table = TaskTable(self._ready_queues, self._emit, self._rank)
        self._sizing = BatchSizing(self._policy)
        self._batcher = Batcher(self._policy, self._sizing, self._ready_queues, self._engine_table, self._durations)
        # First the batches with items that may not have begun, the oldest first; then the starts of batches of several
        # items, the earliest first. An OrderedDict finds its first entry quickly, even after many entries were removed.
        self._recallable: OrderedDict[int, SentBatch] = OrderedDict()
        self._running: OrderedDict[int, float] = OrderedDict()
        self._alarm: float | None = None

    @property
    def unassigned(self) -> int:
        """The number of items that are ready and wait for an engine."""
        return self._ready_queues.items

    @property
    def last_batch(self) -> int:
        """The number of the last batch. A state that replaces this one goes on from there."""
        return self._engine_table.last_batch

    def assigned(self, engine_id: int) -> int:
        """Count the items of an engine's batches."""
        slot = self._engine_table.slots.get(engine_id)
        return sum(batch.items for batch in slot.batches.values()) if slot is not None else 0

    def statuses(self) -> dict[TaskId, TaskStatus]:
        """Return the statuses of the tasks that have not ended, in the order of their submission."""
        engine_ids: dict[TaskRecord, set[int]] = defaultdict(set)
        waits_for: dict[TaskRecord, set[tuple[int, str]]] = defaultdict(set)
        for batch in self._engine_table.batches.values():
            slot = batch.slot
            for piece in batch.pieces.values():
                engine_ids[piece.record].add(slot.engine_id)
                if slot.is_stuck:
                    waits_for[piece.record].add((slot.engine_id, slot.busy_with))
        stranded = {
            piece.record for queue in self._ready_queues.by_place.values() if not queue.eligible for piece in queue.heap
        }
        for queue in self._ready_queues.by_place.values():
            fit = [self._engine_table.slots[engine_id] for engine_id in queue.eligible]
            if all(slot.busy_with for slot in fit):
                for piece in queue.heap:
                    waits_for[piece.record].update((slot.engine_id, slot.busy_with) for slot in fit)

        def status(record: TaskRecord) -> TaskStatus:
            state = TaskState.STRANDED if record in stranded else TaskState.READY
            if record.held:
                state = TaskState.WAITING
            if record in engine_ids:
                state = TaskState.ASSIGNED
            waits = _waits(state, sorted(waits_for.get(record, ())))
            engines = tuple(sorted(engine_ids.get(record, ())))
            return TaskStatus(
                str(record.task.task_id), record.task.label, state, engines, record.left, 0.0, waits=waits
            )

        return {task_id: status(record) for task_id, record in self._task_table.records.items()}

    def handle(self, event: Event) -> list[Effect]:
        """Handle one event; return the effects, to be carried out in order."""
        in_line = None
        match event:
            case Submitted(tasks, at):
                for task in tasks:
                    self._task_table.enter(task, at)
            case Replied():
                self._replied(event)
            case Stolen():
                self._stolen(event)
            case AbortRequested(task_ids):
                self._abort(task_ids)
            case EngineAdded(engine, at):
                lost = self._engine_table.remove(engine.engine_id, returns=True)
                self._engine_table.add(engine)
                self._engines_changed(engine.engine_id, lost, at)
            case EngineClosing(engine_id):
                self._engine_table.close(engine_id)
            case EngineRemoved(engine_id, at, returns):
                lost = self._engine_table.remove(engine_id, returns=returns)
                self._engines_changed(engine_id, lost, at)
            case EngineBusy(engine_id, work, _, before):
                self._occupied(self._engine_table.occupy(engine_id, work, before=before))
            case EngineProgressed(engine_id):
                in_line = engine_id
                self._engine_table.forget_lacks(engine_id)
            case EngineFree(engine_id, at):
                self._engine_table.forget_lacks(engine_id)
                self._watch(self._engine_table.release(engine_id), at)
            case Release(task_ids):
                self._task_table.forget(task_ids)
            case Tick(at):
                if self._alarm is not None and at >= self._alarm:
                    self._alarm = None
        self._task_table.expire(event.at)
        self._task_table.flush()
        self._hand_out(event.at, in_line)
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    # Results of batches.

    def _replied(self, event: Replied) -> None:
        batch = (
            self._engine_table.batches.get(event.batch_id) if event.more else self._engine_table.unload(event.batch_id)
        )
        if batch is None:
            return  # the engine was lost, and the batch's items have gone to other engines
        if not event.more:
            self._forget(event.batch_id)
            self._watch(next(iter(batch.slot.batches.values()), None), event.at)
            if event.outcomes and not batch.is_ahead:
                self._sizing.measured(event.at - batch.sent - sum(outcome.elapsed_s for outcome in event.outcomes))
        slot = batch.slot
        serial = slot.serial
        final: list[RangeOutcome] = []
        pieces: list[QueuedRange] = []
        measured: dict[Hashable, tuple[float, int]] = {}
        for outcome in event.outcomes:
            piece = batch.claim(outcome)
            if piece is None:
                continue
            if outcome.status is not RangeStatus.UNMET:  # items with unmet conditions have not really run
                kind = piece.record.task.kind
                if outcome.status is RangeStatus.UNNAMED or not slot.is_proven:
                    self._engine_table.prove(slot, kind, has_names=outcome.status is not RangeStatus.UNNAMED)
                seconds, count = measured.get(kind, (0.0, 0))
                measured[kind] = (seconds + outcome.elapsed_s, count + piece.stop - piece.start)
            if outcome.status is RangeStatus.OK or not self._try_again(piece, outcome, batch, event.at):
                final.append(outcome)
                pieces.append(piece)
        for kind, (seconds, count) in measured.items():
            self._durations.measured(kind, seconds, count)
        if final:
            self._emit(Deliver(slot.engine_id, tuple(final)))
        for outcome, piece in zip(final, pieces, strict=True):
            self._task_table.settle(piece.record, piece.stop - piece.start, outcome.status is RangeStatus.OK, serial)
        for piece in () if event.more else batch.pieces.values():
            self._task_table.requeue(piece, event.at)

    def _try_again(self, piece: QueuedRange, outcome: RangeOutcome, batch: SentBatch, at: float) -> bool:
        """Queue a failed piece for another engine, if that is allowed; return whether it was queued."""
        record, serial = piece.record, batch.slot.serial
        trial = piece.trial or Trial()
        if record.aborted:
            return False
        if outcome.status is RangeStatus.UNMET:
            trial = trial._replace(refused=trial.refused | {serial})
            record.unmet = outcome.value if isinstance(outcome.value, str) else ""  # detached tasks keep values pickled
        else:
            if trial.failures >= record.task.retries or (record.deadline is not None and at >= record.deadline):
                return False
            trial = trial._replace(tried=trial.tried | {serial}, failures=trial.failures + 1)
            self._emit(Retry(piece.span, batch.slot.engine_id, outcome))
        self._task_table.requeue(piece._replace(trial=trial), at)
        return True

    def _stolen(self, event: Stolen) -> None:
        batch = self._engine_table.batches.get(event.batch_id)
        if batch is None:
            return
        for span in event.spans:
            piece = batch.give_back(span)
            if piece is not None:
                self._task_table.requeue(piece, event.at)

    # Aborts, and engines that come or go.

    def _abort(self, task_ids: Iterable[TaskId]) -> None:
        unwanted = self._task_table.abort(task_ids)
        if not unwanted:
            return
        for batch in self._engine_table.batches.values():
            spans = tuple(piece.span for piece in batch.pieces.values() if piece.record in unwanted)
            if spans:
                # Only the engine knows which of these items have begun.
                self._emit(Steal(batch.slot.engine_id, batch.batch_id, spans))
                self._emit(InterruptRanges(batch.slot.engine_id, batch.batch_id, spans))

    def _engines_changed(self, engine_id: int, lost: list[SentBatch], at: float) -> None:
        """Handle an engine that has joined or left; ``lost`` are the batches of its former process."""
        self._task_table.engine_changed(engine_id)
        for batch in lost:
            self._forget(batch.batch_id)
            ran_alone = batch is lost[0] and batch.items == 1
            for piece in batch.pieces.values():
                self._lost(piece, engine_id, at, ran_alone=ran_alone)

    def _lost(self, piece: QueuedRange, engine_id: int, at: float, *, ran_alone: bool) -> None:
        """Handle a piece whose engine was lost. Any piece that the engine had may be the cause, not only the first."""
        trial = piece.trial or Trial()
        trial = trial._replace(lost_on=(*trial.lost_on, engine_id))
        if piece.record.aborted:
            self._task_table.give_up(piece, Why.ABORTED, f"it was aborted, and engine {engine_id} was lost")
            return
        limit = piece.record.task.max_losses
        if ran_alone and len(trial.lost_on) > (self._policy.max_losses if limit is None else limit):
            reason = f"{engine_ranges(trial.lost_on)} died while running it, or items sent with it"
            self._task_table.give_up(piece, Why.ENGINES_LOST, reason)
            return
        step = -(-(piece.stop - piece.start) // _SUSPECT_PARTS)
        starts = range(piece.start, piece.stop, step)
        parts = [piece._replace(start=i, stop=min(i + step, piece.stop), trial=trial) for i in starts]
        requeued = [self._task_table.requeue(part, at) for part in parts]
        if all(requeued):
            self._emit(Retry(piece.span, engine_id, None))

    # The distribution of work to engines.

    def _hand_out(self, at: float, in_line: int | None) -> None:
        idle, hungry = self._engine_table.idle, self._engine_table.hungry
        while idle and (engine_id := self._next_engine()) is not None:
            self._send(engine_id, self._batcher.compose(engine_id), at)
        if in_line is not None and self._engine_table.takes_one(in_line) and (pieces := self._batcher.compose(in_line)):
            self._send(in_line, pieces, at)
        for queue in list(self._ready_queues.by_place.values()) if self._engine_table.busy else ():
            engine_id = queue.place.needs.only_target
            if engine_id in queue.eligible and self._engine_table.takes_one(engine_id):
                # Only this engine may ever run the task. It is sent now, to keep its place among the requests of its
                # client.
                chunksize = queue.heap[0].record.task.chunksize if self._engine_table.slots[engine_id].is_proven else 1
                self._send(engine_id, [self._ready_queues.take(queue, chunksize or 1)], at)
        for queue in list(self._ready_queues.by_place.values()) if hungry else ():
            if queue.heap and self._batcher.may_prefetch(queue):
                for engine_id in [engine_id for engine_id in hungry if engine_id in queue.eligible]:
                    if pieces := self._batcher.compose(engine_id, ahead=True):
                        self._send(engine_id, pieces, at)
        next_recall = self._recall(at) if idle and self._recallable else None
        self._set_alarm(next_recall, self._peek(at), self._task_table.next_deadline())

    def _next_engine(self) -> int | None:
        """Return the idle engine that takes the next batch; None if no queued piece suits an idle engine."""
        idle = self._engine_table.idle
        if not self._engine_table.lacking:
            queue = self._ready_queues.most_urgent(idle)
            if queue is None:
                return None
            if (piece := queue.heap[0]).record.task.policy is None:
                return self._engine_table.first_idle(queue.eligible)
            engines = [self._engine_table.slots[i].engine for i in idle if i in queue.eligible]
            return self._policies.choose(piece.record.task, self._queued(piece), engines)
        queues = {engine_id: self._ready_queues.best_for(engine_id) for engine_id in idle}
        heads = [(queue.heap[0], engine_id) for engine_id, queue in queues.items() if queue is not None]
        return min(heads)[1] if heads else None

    def _rank(self, piece: QueuedRange) -> float:
        return -self._policies.priority(piece.record.task, self._queued(piece))

    def _queued(self, piece: QueuedRange) -> QueuedTask:
        """Return a piece as policies see it."""
        task, trial = piece.record.task, piece.trial or Trial()
        failures = trial.failures + len(trial.lost_on)
        items = piece.stop - piece.start
        return QueuedTask(task.label, piece.order, items, task.priority, self._durations[task.kind], failures)

    def _send(self, engine_id: int, pieces: list[QueuedRange], at: float) -> None:
        batch = self._engine_table.load(engine_id, pieces, at)
        if len(batch.slot.batches) > 1 or batch.items > 1 or batch.slot.is_stuck:
            self._recallable[batch.batch_id] = batch
        if len(batch.slot.batches) == 1:
            self._watch(batch, at)
        spans = tuple(piece.span for piece in pieces)
        budget_s = max(_BUDGET * self._sizing.batch_s, self._policy.prefetch_below_s)
        self._emit(SendBatch(engine_id, batch.batch_id, spans, budget_s))

    def _watch(self, batch: SentBatch | None, at: float) -> None:
        """Begin to watch the time of a batch, because its engine begins it."""
        if batch is not None and batch.items > 1 and not batch.slot.is_stuck:
            self._running[batch.batch_id] = at

    def _occupied(self, waiting: Iterable[SentBatch]) -> None:
        """Mark batches as not begun, because other work of their engine comes first."""
        for batch in waiting:
            self._recallable.setdefault(batch.batch_id, batch)
            self._running.pop(batch.batch_id, None)

    def _forget(self, batch_id: int) -> None:
        """Stop watching a batch that has left its engine."""
        self._recallable.pop(batch_id, None)
        self._running.pop(batch_id, None)

    def _peek(self, at: float) -> float | None:
        """Ask each batch that takes long once for its outcomes so far; return when to call this again.

        Without this, a task that depends on a quick task would wait for a slow task in the same batch.
        """
        while self._running:
            batch_id, since = next(iter(self._running.items()))
            if at < since + self._policy.late_s:
                return since + self._policy.late_s
            del self._running[batch_id]
            self._emit(PeekBatch(self._engine_table.batches[batch_id].slot.engine_id, batch_id))
        return None

    def _recall(self, at: float) -> float | None:
        """Steal items that other engines could begin now; return when to call this again."""
        idle = self._engine_table.idle
        wanted = len(idle)
        look_again = None
        settled: list[int] = []  # removed after the loop, so that a long dict need not be copied
        for batch_id, batch in self._recallable.items():
            if wanted <= 0:
                break
            pieces = batch.not_asked()
            if not pieces:
                settled.append(batch_id)
                continue
            movable = [piece for piece in pieces if self._has_taker(piece)]
            if not movable:
                continue
            if at < batch.sent + self._policy.patience_s:
                look_again = batch.sent + self._policy.patience_s
                break  # the batches that follow are younger, because they are in the order of sending
            spans: tuple[TaskRange, ...] = tuple(piece.span for piece in movable)
            batch.asked.update((span.task_id, span.start) for span in spans)
            self._emit(Steal(batch.slot.engine_id, batch_id, spans))
            wanted -= sum(span.stop - span.start for span in spans)
        for batch_id in settled:
            del self._recallable[batch_id]
        return look_again

    def _has_taker(self, piece: QueuedRange) -> bool:
        """Return whether an idle engine would take a piece."""
        eligible, idle = self._ready_queues.eligible(piece.place), self._engine_table.idle
        if not self._engine_table.lacking:
            return have_common(eligible, idle)
        return any(self._ready_queues.suits(engine_id, piece) for engine_id in eligible.intersection(idle))

    def _set_alarm(self, *times: float | None) -> None:
        earliest = self._alarm
        for at in times:
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        if earliest is not None and earliest != self._alarm:
            self._alarm = earliest
            self._emit(Alarm(earliest))


def _waits(state: TaskState, engines: Iterable[tuple[int, str]]) -> str:
    """Return in words for which engines a task waits, and which work keeps them busy."""
    reasons = [f"engine {engine_id}, which is busy with {work}" for engine_id, work in engines]
    preposition = "at" if state is TaskState.ASSIGNED else "for"
    return f"waits {preposition} {'; or '.join(reasons)}" if reasons else ""
