"""Which engine runs which task when: events in, effects out."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from nsactors.core.scheduling.batching import Batcher, Pace, Tempo
from nsactors.core.scheduling.fleet import Batch, Fleet
from nsactors.core.scheduling.lanes import Lanes
from nsactors.core.scheduling.ledger import Ledger
from nsactors.core.scheduling.messages import (
    AbortRequested,
    Alarm,
    Deliver,
    Dispatch,
    Effect,
    EngineAdded,
    EngineClosing,
    EngineRemoved,
    Event,
    Forgotten,
    Interrupt,
    Peek,
    Policy,
    Ran,
    Replied,
    Retry,
    Span,
    Status,
    Submitted,
    TakeBack,
    TakenBack,
    TaskId,
    Tick,
    Why,
)
from nsactors.core.scheduling.records import Piece, Record, Trial
from nsactors.errors.ranges import engine_ranges

__all__ = ["Scheduler", "TaskInfo", "TaskState"]

_BUDGET = 2.0  # batches that were thought to be short are cut off when they have run this many times as long
_SUSPECT_PARTS = 16  # work that an engine was lost under is cut into this many parts, to find the guilty item


class TaskState(enum.Enum):
    """Where a task is; a scheduler knows of those that have not ended."""

    WAITING = "waiting for other tasks"
    READY = "ready"
    STRANDED = "ready, but no engine there is may run it"
    ASSIGNED = "at an engine"
    SUCCEEDED = "ended"
    FAILED = "ended, and some of it failed"


class TaskInfo(NamedTuple):
    """A task that has not ended: the items left, and the engines that have some of them."""

    task_id: TaskId
    state: TaskState
    items_left: int
    engine_ids: tuple[int, ...]


class Scheduler:
    """Hands tasks to engines in batches, and sees that each item of them ends exactly once.

    ``handle`` takes what happened and says what to do, in order. Whoever drives it carries the effects out, sends
    events in the order in which things happened, and never two at a time.

    Example:
        >>> scheduler = Scheduler()
        >>> scheduler.handle(EngineAdded(Engine(0), at=0.0))
        []
        >>> scheduler.handle(Submitted((Task("t"),), at=0.0))
        [Dispatch(engine_id=0, batch_id=1, spans=(Span(task_id='t', start=0, stop=1),), budget_s=0.1)]
        >>> scheduler.handle(Replied(1, (Ran("t", 0, 1, Status.OK, 0.5, "it worked"),), at=0.6))
        [Deliver(engine_id=0, results=(Ran(task_id='t', start=0, stop=1, status=<Status.OK: 'ok'>, ...),))]
    """

    def __init__(self, policy: Policy | None = None) -> None:
        self._policy = policy or Policy()
        self._effects: list[Effect] = []
        self._fleet = Fleet()
        self._lanes = Lanes(self._fleet.members, self._fleet.away)
        self._ledger = Ledger(self._lanes, self._emit)
        self._pace = Pace()
        self._tempo = Tempo(self._policy)
        self._batcher = Batcher(self._policy, self._tempo, self._lanes, self._fleet, self._pace)
        self._recallable: dict[int, Batch] = {}  # that may hold what its engine has not begun; oldest first
        self._running: dict[int, float] = {}  # batches of several items by their start; the longest-running first
        self._alarm: float | None = None

    @property
    def unassigned(self) -> int:
        """How many items are ready and wait for an engine."""
        return self._lanes.items

    def assigned(self, engine_id: int) -> int:
        """How many items an engine has been sent that have not come back."""
        member = self._fleet.members.get(engine_id)
        return sum(batch.items for batch in member.batches.values()) if member is not None else 0

    def tasks(self) -> list[TaskInfo]:
        """The tasks that have not ended, in the order of their submission."""
        engine_ids: dict[Record, set[int]] = defaultdict(set)
        for batch in self._fleet.batches.values():
            for piece in batch.pieces.values():
                engine_ids[piece.record].add(batch.member.engine_id)
        stranded = {piece.record for lane in self._lanes if not lane.eligible for piece in lane.heap}

        def state(record: Record) -> TaskState:
            if record in engine_ids:
                return TaskState.ASSIGNED
            if record.held:
                return TaskState.WAITING
            return TaskState.STRANDED if record in stranded else TaskState.READY

        return [
            TaskInfo(task_id, state(record), record.left, tuple(sorted(engine_ids.get(record, ()))))
            for task_id, record in self._ledger.records.items()
        ]

    def handle(self, event: Event) -> list[Effect]:
        """Take one event; the effects are to be carried out in order."""
        match event:
            case Submitted(tasks, at):
                for task in tasks:
                    self._ledger.enter(task, at)
            case Replied():
                self._replied(event)
            case TakenBack():
                self._taken_back(event)
            case AbortRequested(task_ids):
                self._abort(task_ids)
            case EngineAdded(engine, at):
                lost = self._fleet.remove(engine.engine_id, returns=True)
                self._fleet.add(engine)
                self._engines_changed(engine.engine_id, lost, at)
            case EngineClosing(engine_id):
                self._fleet.close(engine_id)
            case EngineRemoved(engine_id, at, returns):
                lost = self._fleet.remove(engine_id, returns=returns)
                self._engines_changed(engine_id, lost, at)
            case Forgotten(task_ids):
                self._ledger.forget(task_ids)
            case Tick(at):
                if self._alarm is not None and at >= self._alarm:
                    self._alarm = None
        self._ledger.expire(event.at)
        self._ledger.flush()
        self._hand_out(event.at)
        effects, self._effects = self._effects, []
        return effects

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    # Results.

    def _replied(self, event: Replied) -> None:
        batch = self._fleet.batches.get(event.batch_id) if event.more else self._fleet.unload(event.batch_id)
        if batch is None:
            return  # its engine was lost: what it held has gone elsewhere
        if not event.more:
            self._forget(event.batch_id)
            self._watch(next(iter(batch.member.batches.values()), None), event.at)
            if event.results and not batch.is_ahead:
                self._tempo.measured(event.at - batch.sent - sum(ran.elapsed_s for ran in event.results))
        serial = batch.member.serial
        final: list[Ran] = []
        pieces: list[Piece] = []
        measured: dict[Hashable, tuple[float, int]] = {}
        for ran in event.results:
            piece = batch.claim(ran)
            if piece is None:
                continue
            if ran.status is not Status.UNMET:  # those have not really run
                kind = piece.record.task.kind
                seconds, count = measured.get(kind, (0.0, 0))
                measured[kind] = (seconds + ran.elapsed_s, count + piece.stop - piece.start)
            if ran.status is Status.OK or not self._try_again(piece, ran, batch, event.at):
                final.append(ran)
                pieces.append(piece)
        for kind, (seconds, count) in measured.items():
            self._pace.measured(kind, seconds, count)
        if final:
            self._emit(Deliver(batch.member.engine_id, tuple(final)))
        for ran, piece in zip(final, pieces, strict=True):
            self._ledger.settle(piece.record, piece.stop - piece.start, ran.status is Status.OK, serial)
        for piece in () if event.more else batch.pieces.values():
            self._ledger.requeue(piece, event.at)

    def _try_again(self, piece: Piece, ran: Ran, batch: Batch, at: float) -> bool:
        """Send what failed elsewhere, if it may be."""
        record, serial = piece.record, batch.member.serial
        trial = piece.trial or Trial()
        if record.aborted:
            return False
        if ran.status is Status.UNMET:
            trial = trial._replace(refused=trial.refused | {serial})
        else:
            if trial.failures >= record.task.retries or (record.deadline is not None and at >= record.deadline):
                return False
            trial = trial._replace(tried=trial.tried | {serial}, failures=trial.failures + 1)
            self._emit(Retry(piece.span, batch.member.engine_id, ran))
        self._ledger.requeue(piece._replace(trial=trial), at)
        return True

    def _taken_back(self, event: TakenBack) -> None:
        batch = self._fleet.batches.get(event.batch_id)
        if batch is None:
            return
        for span in event.spans:
            piece = batch.give_back(span)
            if piece is not None:
                self._ledger.requeue(piece, event.at)

    # Ends that are asked for, and engines that go.

    def _abort(self, task_ids: Iterable[TaskId]) -> None:
        unwanted = self._ledger.abort(task_ids)
        if not unwanted:
            return
        for batch in self._fleet.batches.values():
            spans = tuple(piece.span for piece in batch.pieces.values() if piece.record in unwanted)
            if spans:
                # Which of them it has begun only the engine knows.
                self._emit(TakeBack(batch.member.engine_id, batch.batch_id, spans))
                self._emit(Interrupt(batch.member.engine_id, batch.batch_id, spans))

    def _engines_changed(self, engine_id: int, lost: list[Batch], at: float) -> None:
        """An engine has come or gone; ``lost`` is what a process under its id held."""
        self._ledger.engines_changed()
        for batch in lost:
            self._forget(batch.batch_id)
            for piece in batch.pieces.values():
                self._lost(piece, engine_id, at)

    def _lost(self, piece: Piece, engine_id: int, at: float) -> None:
        """An engine was lost that held a piece. It may have been the cause, even behind others whose reply was late."""
        trial = piece.trial or Trial()
        trial = trial._replace(lost_on=(*trial.lost_on, engine_id))
        if piece.record.aborted:
            self._ledger.give_up(piece, Why.ABORTED, f"it was aborted, and engine {engine_id} was lost under it")
            return
        if len(trial.lost_on) > self._policy.max_losses:
            reason = f"{engine_ranges(trial.lost_on)} died while running it, or what was sent with it at first"
            self._ledger.give_up(piece, Why.ENGINES_LOST, reason)
            return
        step = -(-(piece.stop - piece.start) // _SUSPECT_PARTS)
        starts = range(piece.start, piece.stop, step)
        parts = [piece._replace(start=i, stop=min(i + step, piece.stop), trial=trial) for i in starts]
        requeued = [self._ledger.requeue(part, at) for part in parts]
        if all(requeued):
            self._emit(Retry(piece.span, engine_id, None))

    # Work for engines.

    def _hand_out(self, at: float) -> None:
        idle, hungry = self._fleet.idle, self._fleet.hungry
        while idle and (lane := self._lanes.most_urgent(idle)) is not None:
            engine_id = next(engine_id for engine_id in idle if engine_id in lane.eligible)
            self._send(engine_id, self._batcher.compose(engine_id), at)
        for lane in list(self._lanes) if hungry else ():
            if lane.heap and self._batcher.may_prefetch(lane):
                for engine_id in [engine_id for engine_id in hungry if engine_id in lane.eligible]:
                    if pieces := self._batcher.compose(engine_id, ahead=True):
                        self._send(engine_id, pieces, at)
        next_recall = self._recall(at) if idle and self._recallable else None
        self._set_alarm(next_recall, self._peek(at), self._ledger.next_deadline())

    def _send(self, engine_id: int, pieces: list[Piece], at: float) -> None:
        batch = self._fleet.load(engine_id, pieces, at)
        if len(batch.member.batches) > 1 or batch.items > 1:
            self._recallable[batch.batch_id] = batch
        if len(batch.member.batches) == 1:
            self._watch(batch, at)
        spans = tuple(piece.span for piece in pieces)
        budget_s = max(_BUDGET * self._tempo.batch_s, self._policy.prefetch_below_s)
        self._emit(Dispatch(engine_id, batch.batch_id, spans, budget_s))

    def _watch(self, batch: Batch | None, at: float) -> None:
        """An engine begins a batch."""
        if batch is not None and batch.items > 1:
            self._running[batch.batch_id] = at

    def _forget(self, batch_id: int) -> None:
        """A batch is at no engine any more."""
        self._recallable.pop(batch_id, None)
        self._running.pop(batch_id, None)

    def _peek(self, at: float) -> float | None:
        """Ask for what there is of batches that take long, each once: nothing of it begins so late. When to look again.

        Without that, what depends on a quick task would wait for a slow one that was sent with it.
        """
        while self._running:
            batch_id, since = next(iter(self._running.items()))
            if at < since + self._policy.late_s:
                return since + self._policy.late_s
            del self._running[batch_id]
            self._emit(Peek(self._fleet.batches[batch_id].member.engine_id, batch_id))
        return None

    def _recall(self, at: float) -> float | None:
        """Ask for work back that others could begin now. Returns when to look again."""
        idle = self._fleet.idle
        wanted = len(idle)
        for batch_id, batch in list(self._recallable.items()):
            if wanted <= 0:
                break
            pieces = batch.not_asked()
            if not pieces:
                del self._recallable[batch_id]
                continue
            movable = [piece for piece in pieces if not self._lanes.eligible(piece.place).isdisjoint(idle)]
            if not movable:
                continue
            if at < batch.sent + self._policy.patience_s:
                return batch.sent + self._policy.patience_s  # they are in the order of sending: the next are younger
            spans: tuple[Span, ...] = tuple(piece.span for piece in movable)
            batch.asked.update((span.task_id, span.start) for span in spans)
            self._emit(TakeBack(batch.member.engine_id, batch_id, spans))
            wanted -= sum(span.stop - span.start for span in spans)
        return None

    def _set_alarm(self, *times: float | None) -> None:
        wanted = min((time for time in times if time is not None), default=None)
        if wanted is not None and (self._alarm is None or wanted < self._alarm):
            self._alarm = wanted
            self._emit(Alarm(wanted))
