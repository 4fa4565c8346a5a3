"""Records of the scheduler: tasks, dependencies and engines."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

from nsactors.protocol.tasks import RangeOutcome, TaskId, TaskRange
from nsactors.tasks.messages import ANYWHERE, Engine, Needs, Task, TaskDependency


class TaskEnd(NamedTuple):
    """The end of a task: whether it succeeded, and the serial numbers of the engines that gave its results."""

    ok: bool
    places: frozenset[int]


class Tally:
    """The state of the tasks that a dependency names.

    Args:
        dependency: the dependency.
        relation: ``"after"`` or ``"follow"``, for messages.
    """

    __slots__ = ("_dependency", "_met", "_relation", "homes", "impossible", "pending")

    def __init__(self, dependency: TaskDependency, relation: str) -> None:
        self._dependency = dependency
        self._relation = relation
        self._met = not dependency.task_ids
        self.pending = set(dependency.task_ids)
        self.homes: frozenset[int] | None = None
        self.impossible = ""

    @property
    def is_met(self) -> bool:
        """True if enough of the tasks have ended with an outcome that counts."""
        return self._met and not self.impossible

    def note(self, task_id: TaskId, end: TaskEnd) -> None:
        """Take the end of one of the tasks into account."""
        self.pending.discard(task_id)
        needs_all = self._dependency.all
        if self._dependency.success if end.ok else self._dependency.failure:
            if self.homes is None:
                self.homes = end.places
            else:
                self.homes = self.homes & end.places if needs_all else self.homes | end.places
            self._met = not (needs_all and self.pending)
            if needs_all and self._relation == "follow" and not self.homes:
                self.impossible = "follow: no engine has run all of the tasks that it follows"
        elif needs_all or not (self.pending or self._met):
            # If one of several tasks is enough, the task that ends last decides, and the text names it.
            self.impossible = f"{self._relation}: it depends on the {self._wanted} of {self._which(task_id)}"

    def note_unknown(self, task_id: TaskId) -> None:
        """Mark the dependency as impossible, because one of the tasks is not known, or has been forgotten."""
        self.impossible = f"{self._relation}: there is no task {task_id}, or nobody holds its result any more"

    @property
    def _wanted(self) -> str:
        return "success" if self._dependency.success else "failure"

    def _which(self, task_id: TaskId) -> str:
        became = "failed" if self._dependency.success else "succeeded"
        alone = self._dependency.all or len(self._dependency.task_ids) == 1
        return f"task {task_id}, which {became}" if alone else f"one of several tasks, which all {became}"


_NONE: frozenset[int] = frozenset()


class Placement(NamedTuple):
    """The engines that may run a piece, by serial numbers. A restarted engine gets a new serial number.

    Attributes:
        needs: the task's conditions on engines.
        homes: the engines that ran the tasks which it follows; no other engines are allowed. None if it follows no
            task.
        refused: engines that do not meet a condition of the task.
        tried: engines on which the piece failed, which are used only if there are no others.
    """

    needs: Needs = ANYWHERE
    homes: frozenset[int] | None = None
    refused: frozenset[int] = _NONE
    tried: frozenset[int] = _NONE


class Trial(NamedTuple):
    """The failures of a piece so far. Engines are given by serial number, but lost engines by id."""

    refused: frozenset[int] = _NONE
    tried: frozenset[int] = _NONE
    failures: int = 0
    lost_on: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class TaskRecord:
    """A task that has not ended.

    Attributes:
        task: the task.
        order: its place among all tasks, in the order of submission.
        deadline: the time by which an engine must have taken it; None if there is no limit.
        left: how many of its items have not ended.
        place: the engines that may run it.
        ok: whether all items that have ended succeeded.
        aborted: whether it must not run any more.
        forgotten: whether it is certain that no other task will depend on it.
        unmet: the last condition that an engine did not meet; empty if it is not known.
        places: the serial numbers of the engines that gave its results.
        after: the state of the tasks that must have ended before it begins.
        follow: the state of the tasks on whose engines it must run.
        held: its items that wait for other tasks.
    """

    task: Task
    order: int
    deadline: float | None
    left: int
    place: Placement
    ok: bool = True
    aborted: bool = False
    forgotten: bool = False
    unmet: str = ""
    places: frozenset[int] = _NONE
    after: Tally | None = None
    follow: Tally | None = None
    held: list[QueuedRange] = field(default_factory=list)


class QueuedRange(NamedTuple):
    """Items of a task that are queued, sent or returned together; the most urgent range sorts first."""

    rank: float
    order: int
    start: int
    stop: int
    record: TaskRecord
    trial: Trial | None

    @property
    def place(self) -> Placement:
        """The engines that may run these items."""
        trial = self.trial
        place = self.record.place
        return place if trial is None else place._replace(refused=trial.refused, tried=trial.tried)

    @property
    def span(self) -> TaskRange:
        """The range of these items."""
        return TaskRange(self.record.task.task_id, self.start, self.stop)

    @property
    def is_suspect(self) -> bool:
        """True if an engine was lost while it had these items."""
        return self.trial is not None and bool(self.trial.lost_on)


@dataclass(slots=True, eq=False)
class EngineSlot:
    """An engine's process. A restarted engine has another slot, with another ``serial``.

    Attributes:
        engine: the engine and its resources.
        engine_id: its id.
        serial: its number among all slots that there have been.
        closing: whether it takes no more work.
        busy_with: in words, its work that does not come from this scheduler; empty if it has no such work.
        is_stuck: whether its batches wait for that work.
        is_proven: whether a task has ended on it since it was new.
        lacking: kinds of tasks that failed on it because it lacks a name.
        batches: its batches, in the order in which it runs them.
    """

    engine: Engine
    engine_id: int
    serial: int
    closing: bool = False
    busy_with: str = ""
    is_stuck: bool = False
    is_proven: bool = True
    lacking: set[Hashable] = field(default_factory=set)
    batches: dict[int, SentBatch] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class SentBatch:
    """The pieces that an engine was sent in one message, without those that were stolen."""

    batch_id: int
    slot: EngineSlot
    sent: float
    pieces: dict[tuple[TaskId, int], QueuedRange]  # by task and first item, in order
    is_ahead: bool  # whether it was sent in advance, behind another batch
    asked: set[tuple[TaskId, int]] = field(default_factory=set)  # the pieces for which a steal has been sent

    @property
    def is_suspect(self) -> bool:
        """True if an engine was lost while it had one of these pieces. A batch behind them might be lost as well."""
        return any(piece.is_suspect for piece in self.pieces.values())

    @property
    def items(self) -> int:
        """The number of its items."""
        return sum(piece.stop - piece.start for piece in self.pieces.values())

    def claim(self, outcome: RangeOutcome) -> QueuedRange | None:
        """Take out the items of an outcome; return None if they are not the beginning of a piece."""
        task_id, start, stop = outcome[:3]
        piece = self.pieces.pop((task_id, start), None)
        if piece is None or stop == piece.stop:
            return piece
        if not start < stop < piece.stop:
            self.pieces[task_id, start] = piece
            return None
        self.pieces[task_id, stop] = piece._replace(start=stop)
        return piece._replace(stop=stop)

    def give_back(self, span: TaskRange) -> QueuedRange | None:
        """Take out ``span``; return None if it is not the end of a piece."""
        task_id, start, stop = span
        key = (task_id, start)
        piece = self.pieces.get(key)
        if piece is not None and piece.stop == stop:
            return self.pieces.pop(key)
        for key, piece in self.pieces.items():
            if key[0] == task_id and piece.start < start < stop == piece.stop:
                self.pieces[key] = piece._replace(stop=start)
                return piece._replace(start=start)
        return None

    def not_asked(self) -> list[QueuedRange]:
        """Return the pieces that the engine may not have begun, and for which no steal has been sent."""
        is_first = next(iter(self.slot.batches)) == self.batch_id and not self.slot.is_stuck
        begun = next(iter(self.pieces.values()), None) if is_first else None  # the first item of this piece has begun
        return [
            piece
            for key, piece in self.pieces.items()
            if key not in self.asked and (piece is not begun or piece.stop - piece.start > 1)
        ]


class EngineTable:
    """Engines by id, and which of them are idle or have no next batch."""

    def __init__(self, last_batch: int = 0) -> None:
        self.slots: dict[int, EngineSlot] = {}
        self.away: set[int] = set()  # engines that are being started or restarted
        # Ordered dictionaries, because a plain one skips all deleted entries to find its first item.
        self.idle: OrderedDict[int, int] = OrderedDict()  # engines with no batch, the one that has waited longest first
        self.hungry: OrderedDict[int, None] = OrderedDict()  # engines with one batch, behind which another may be sent
        self._turn = 0
        self.batches: dict[int, SentBatch] = {}
        self.lacking: set[int] = set()  # engines that lack names that tasks needed
        self.busy: dict[int, tuple[str, bool]] = {}  # engines' other work, in words, and whether batches wait for it
        self._serial = 0
        self.last_batch = last_batch

    def add(self, engine: Engine) -> None:
        """Add an engine, which takes tasks from now on."""
        self._serial += 1
        work, before = self.busy.get(engine.engine_id, ("", False))
        slot = EngineSlot(
            engine, engine.engine_id, self._serial, busy_with=work, is_stuck=before, is_proven=not engine.is_new
        )
        self.slots[engine.engine_id] = slot
        self.away.discard(engine.engine_id)
        self._sort_in(slot)

    def close(self, engine_id: int) -> None:
        """Send an engine no more batches; it finishes those that it has."""
        slot = self.slots.get(engine_id)
        if slot is not None:
            slot.closing = True
            self._sort_in(slot)

    def occupy(self, engine_id: int, work: str, *, before: bool) -> list[SentBatch]:
        """Mark an engine as busy with other work; return its batches if they wait for that work."""
        self.busy[engine_id] = work, before
        slot = self.slots.get(engine_id)
        if slot is None:
            return []
        slot.busy_with, slot.is_stuck = work, before
        self._sort_in(slot)
        return list(slot.batches.values()) if before else []

    def release(self, engine_id: int) -> SentBatch | None:
        """Mark an engine as free of other work; return the batch that it begins now, if it has one."""
        self.busy.pop(engine_id, None)
        slot = self.slots.get(engine_id)
        if slot is None:
            return None
        slot.busy_with, slot.is_stuck = "", False
        self._sort_in(slot)
        return next(iter(slot.batches.values()), None)

    def first_idle(self, engine_ids: AbstractSet[int]) -> int | None:
        """Return the engine among these that has been idle for longest; None if none of them is idle."""
        idle = self.idle
        if len(engine_ids) < len(idle):
            return min((i for i in engine_ids if i in idle), key=idle.__getitem__, default=None)
        return next((i for i in idle if i in engine_ids), None)

    def takes_one(self, engine_id: int) -> bool:
        """Return whether a batch may be sent to an engine with other work, to wait there for its turn."""
        slot = self.slots.get(engine_id)
        return slot is not None and not slot.closing and not slot.batches

    def forget_lacks(self, engine_id: int) -> None:
        """Forget which names an engine lacks, because they may have been bound by now; tasks are tried there again."""
        slot = self.slots.get(engine_id)
        if slot is not None and slot.lacking:
            slot.lacking.clear()
            self.lacking.discard(engine_id)

    def remove(self, engine_id: int, *, returns: bool) -> list[SentBatch]:
        """Remove an engine; return its batches in the order in which it would have run them."""
        (self.away.add if returns else self.away.discard)(engine_id)
        self.idle.pop(engine_id, None)
        self.hungry.pop(engine_id, None)
        self.lacking.discard(engine_id)
        slot = self.slots.pop(engine_id, None)
        return [self.batches.pop(batch_id) for batch_id in slot.batches] if slot is not None else []

    def load(self, engine_id: int, pieces: list[QueuedRange], at: float) -> SentBatch:
        """Give an engine a batch."""
        self.last_batch += 1
        slot = self.slots[engine_id]
        by_start = {(piece.record.task.task_id, piece.start): piece for piece in pieces}
        batch = SentBatch(self.last_batch, slot, at, by_start, is_ahead=bool(slot.batches))
        self.batches[batch.batch_id] = slot.batches[batch.batch_id] = batch
        self._sort_in(slot)
        return batch

    def prove(self, slot: EngineSlot, kind: Hashable, *, has_names: bool) -> None:
        """Count an engine as proven: a task of a kind has ended on it. Without ``has_names``, it lacks a name."""
        slot.is_proven = has_names
        if has_names:
            slot.lacking.discard(kind)
        else:
            slot.lacking.add(kind)
            self.lacking.add(slot.engine_id)
        self._sort_in(slot)

    def unload(self, batch_id: int) -> SentBatch | None:
        """Remove a batch that has ended and return it; None if it is not known, or its engine was lost."""
        batch = self.batches.pop(batch_id, None)
        if batch is not None:
            del batch.slot.batches[batch_id]
            self._sort_in(batch.slot)
        return batch

    def _sort_in(self, slot: EngineSlot) -> None:
        self.idle.pop(slot.engine_id, None)
        self.hungry.pop(slot.engine_id, None)
        if slot.closing or slot.busy_with:
            return
        if len(slot.batches) == 0:
            self._turn += 1
            self.idle[slot.engine_id] = self._turn
        elif len(slot.batches) == 1 and slot.is_proven:
            (batch,) = slot.batches.values()
            if not batch.is_suspect:
                self.hungry[slot.engine_id] = None
