"""The table of tasks, and the queues of tasks that are ready."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace

from nsactors.errors.formatting import engine_ranges
from nsactors.protocol.tasks import TaskId
from nsactors.tasks.messages import ANYWHERE, Fail, Task, Why
from nsactors.tasks.records import EngineSlot, Placement, QueuedRange, Tally, TaskEnd, TaskRecord

_MAX_MEMO = 1000
_ANY_PLACE = Placement()
_UNMET = "every engine that it may run on has reported that a condition is not met there"


@dataclass(slots=True, eq=False)
class ReadyQueue:
    """One or more pieces that the same engines may run. The most urgent piece is ``heap[0]``."""

    place: Placement
    eligible: set[int]
    heap: list[QueuedRange]


class ReadyQueues:
    """Pieces that wait for an engine.

    Args:
        slots: the engines, which are only read here.
        away: the ids of engines that are being started or restarted.
    """

    def __init__(self, slots: Mapping[int, EngineSlot], away: Collection[int]) -> None:
        self._members = slots
        self._away = away
        self.by_place: dict[Placement, ReadyQueue] = {}
        self._eligible: dict[Placement, set[int]] = {}
        self.items = 0

    def push(self, piece: QueuedRange) -> None:
        """Queue a piece."""
        place = piece.place
        queue = self.by_place.get(place)
        if queue is None:
            self.by_place[place] = ReadyQueue(place, self.eligible(place), [piece])
        else:
            heappush(queue.heap, piece)
        self.items += piece.stop - piece.start

    def take(self, queue: ReadyQueue, count: int) -> QueuedRange:
        """Take the first ``count`` items of the head of ``queue``, or all its items if it has fewer."""
        head = queue.heap[0]
        cut = head.start + count
        if cut < head.stop:
            heapreplace(queue.heap, head._replace(start=cut))
            head = head._replace(stop=cut)
        else:
            heappop(queue.heap)
            if not queue.heap:
                del self.by_place[queue.place]
        self.items -= head.stop - head.start
        return head

    def most_urgent(self, engine_ids: Collection[int]) -> ReadyQueue | None:
        """Return the queue with the most urgent head that any of these engines may take; None if there is none."""
        best = None
        for queue in self.by_place.values():
            if (best is None or queue.heap[0] < best.heap[0]) and have_common(queue.eligible, engine_ids):
                best = queue
        return best

    def best_for(self, engine_id: int) -> ReadyQueue | None:
        """Return the queue with the most urgent head that an engine may take and that :meth:`suits` it, or None."""
        suitable = [
            queue
            for queue in self.by_place.values()
            if engine_id in queue.eligible and self.suits(engine_id, queue.heap[0])
        ]
        return min(suitable, key=lambda queue: queue.heap[0], default=None)

    def suits(self, engine_id: int, piece: QueuedRange) -> bool:
        """Return whether an engine that may run a piece should run it, because no other engine would be better.

        If a task of the piece's kind has failed on a restarted engine because a name was missing there, further tasks
        go to engines that have the name, and wait if these are busy. If all engines lack the name, the restart is not
        the reason, and the tasks go to any engine.
        """
        kind = piece.record.task.kind
        slot = self._members[engine_id]
        if kind not in slot.lacking:
            return True
        others = (self._members[other] for other in self.eligible(piece.place))
        return all(other.closing or kind in other.lacking for other in others)

    def remove(self, unwanted: Callable[[QueuedRange], bool]) -> list[QueuedRange]:
        """Remove the pieces that are unwanted, and return them."""
        removed: list[QueuedRange] = []
        for place, queue in list(self.by_place.items()):
            kept: list[QueuedRange] = []
            for piece in queue.heap:
                (removed if unwanted(piece) else kept).append(piece)
            queue.heap = kept
            heapify(kept)
            if not kept:
                del self.by_place[place]
        self.items -= sum(piece.stop - piece.start for piece in removed)
        return removed

    def engine_changed(self, engine_id: int) -> list[tuple[QueuedRange, str]]:
        """Handle an engine that has joined, has left or has a new process.

        Remove the pieces that no engine can ever run any more, and return them with the reasons.
        """
        self._eligible.clear()
        hopeless: dict[Placement, str] = {}
        slot = self._members.get(engine_id)
        for place, queue in self.by_place.items():
            if place.tried:  # whether an engine may run these pieces depends on the other engines
                queue.eligible = self.eligible(place)
            else:
                # The other engines have not changed. To check all of them whenever one joins would take quadratic time
                # in a large cluster.
                if slot is not None and self._fits(place, slot) and slot.serial not in place.refused:
                    queue.eligible.add(engine_id)
                else:
                    queue.eligible.discard(engine_id)
                self._eligible[place] = queue.eligible
            if reason := self.hopeless(place):
                hopeless[place] = reason
        gone = self.remove(lambda piece: piece.place in hopeless) if hopeless else []
        return [(piece, hopeless[piece.place]) for piece in gone]

    def eligible(self, place: Placement) -> set[int]:
        """Return the engines that may run pieces of a placement; engines where they failed only if no other is left."""
        known = self._eligible.get(place)
        if known is None:
            fit = [m for m in self._members.values() if self._fits(place, m) and m.serial not in place.refused]
            fresh = [m for m in fit if m.serial not in place.tried]
            known = {m.engine.engine_id for m in fresh or fit}
            if len(self._eligible) >= _MAX_MEMO:
                self._eligible.clear()
            self._eligible[place] = known
        return known

    def hopeless(self, place: Placement) -> str:
        """Return why pieces of a placement can never run; empty if a suitable engine has joined or may join."""
        if self.eligible(place):
            return ""
        needs, targets = place.needs, place.needs.targets
        if place.homes is not None:
            return "follow: the tasks that it follows have run on none of the engines that it may run on"
        if place.refused and any(self._fits(place, slot) for slot in self._members.values()):
            return _UNMET
        if targets is not None and not any(i in self._members or i in self._away for i in targets):
            return f"targets: {engine_ranges(targets)} gone" if targets else "targets: none were given"
        if (asked := needs.in_words) and not self._away:
            where = "" if targets is None else f" among {engine_ranges(targets)}"
            return f"it asks for an engine with {asked}, and there is none{where}"
        return ""

    def _fits(self, place: Placement, slot: EngineSlot) -> bool:
        return (place.homes is None or slot.serial in place.homes) and place.needs.met_by(slot.engine)


def have_common(eligible: set[int], engine_ids: Collection[int]) -> bool:
    """Return whether an engine is in both collections. For the second one, ``in`` must be quick, as it is for a set."""
    if len(eligible) < len(engine_ids):
        return any(i in engine_ids for i in eligible)
    return not eligible.isdisjoint(engine_ids)


class TaskTable:
    """Records of tasks. Each item ends once: by :meth:`settle` or in a :class:`Fail`.

    Args:
        ready_queues: the queues of pieces that are ready.
        emit: takes the effects.
        rank: gives the rank of a piece with a policy; the lowest rank goes first.
    """

    def __init__(
        self, ready_queues: ReadyQueues, emit: Callable[[Fail], None], rank: Callable[[QueuedRange], float]
    ) -> None:
        self.records: dict[TaskId, TaskRecord] = {}  # the tasks that have not ended
        self._ready_queues = ready_queues
        self._emit = emit
        self._rank = rank
        self._order = 0
        self._ends: dict[TaskId, TaskEnd] = {}
        self._equal_ends: dict[TaskEnd, TaskEnd] = {}  # so that tasks with equal ends share one object
        self._dependents: dict[TaskId, list[TaskRecord]] = {}
        self._deadlines: list[tuple[float, int, TaskRecord]] = []
        self._ended: deque[tuple[TaskId, TaskEnd]] = deque()  # ends for which other tasks wait

    def enter(self, task: Task, at: float) -> None:
        """Add a task, unless it is known already."""
        if task.task_id in self.records or task.task_id in self._ends:
            return
        self._order += 1
        deadline = None if task.timeout_s is None else at + task.timeout_s
        place = _ANY_PLACE if task.needs is ANYWHERE else Placement(task.needs)
        record = TaskRecord(task, self._order, deadline, task.size, place)
        whole = QueuedRange(-task.priority, self._order, 0, task.size, record, None)
        if task.after is not None or task.follow is not None:
            self._link(record)
        self.records[task.task_id] = record
        if record.deadline is not None:
            heappush(self._deadlines, (record.deadline, record.order, record))
        if task.size == 0:
            self._finish(record)
        elif task.after is None and task.follow is None:
            self._push(whole)
        else:
            record.held.append(whole)
            self._release(record)

    def settle(self, record: TaskRecord, items: int, ok: bool, serial: int) -> None:
        """Count ``items`` of a task's items as ended: they have final outcomes."""
        if serial not in record.places:
            record.places |= {serial}
        record.ok &= ok
        record.left -= items
        if record.left == 0:
            self._finish(record)

    def flush(self) -> None:
        """Release the tasks that wait for tasks that have ended; call this before batches are made."""
        # This uses a queue and no recursion, because a chain of tasks that depend on each other may be of any length.
        while self._ended:
            task_id, end = self._ended.popleft()
            for record in self._dependents.pop(task_id):
                for tally in (record.after, record.follow):
                    if tally is not None and task_id in tally.pending:
                        tally.note(task_id, end)
                if record.held:
                    self._release(record)
                elif record.left and record.follow is not None:
                    self._widen(record, record.follow)

    def requeue(self, piece: QueuedRange, at: float) -> bool:
        """Queue a piece that comes back from an engine, unless it must end; return whether it may still run."""
        record = piece.record
        if record.aborted:
            self.give_up(piece, Why.ABORTED, "it was aborted before it ran")
        elif record.deadline is not None and at >= record.deadline:
            self._time_out(piece)
        else:
            return self._push(piece)
        return False

    def give_up(self, piece: QueuedRange, why: Why, reason: str) -> None:
        """End the items of a piece without an outcome."""
        record = piece.record
        record.ok = False
        record.left -= piece.stop - piece.start
        self._emit(Fail(piece.span, why, reason))
        if record.left == 0:
            self._finish(record)

    def abort(self, task_ids: Iterable[TaskId]) -> set[TaskRecord]:
        """End those items of tasks that no engine has; return the records of the tasks that have other items left."""
        unwanted = {self.records[task_id] for task_id in task_ids if task_id in self.records}
        for record in unwanted:
            record.aborted = True
        for piece in self._withdraw(unwanted) if unwanted else ():
            self.give_up(piece, Why.ABORTED, "it was aborted before it ran")
        return {record for record in unwanted if record.left}

    def expire(self, at: float) -> None:
        """End the items that should have gone to an engine by now but have not."""
        late = set()
        while self._deadlines and self._deadlines[0][0] <= at:
            late.add(heappop(self._deadlines)[2])
        for piece in self._withdraw(late) if late else ():
            self._time_out(piece)

    def next_deadline(self) -> float | None:
        """Return the time at which to call :meth:`expire` next; None if there is no deadline."""
        while self._deadlines and not self._deadlines[0][2].left:
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def engine_changed(self, engine_id: int) -> None:
        """Handle an engine that has joined or left: end the items that no engine can ever run any more."""
        for piece, reason in self._ready_queues.engine_changed(engine_id):
            self._strand(piece, reason)

    def forget(self, task_ids: Iterable[TaskId]) -> None:
        """Forget tasks on which no other task will depend."""
        for task_id in task_ids:
            self._ends.pop(task_id, None)
            if (record := self.records.get(task_id)) is not None:
                record.forgotten = True

    def _link(self, record: TaskRecord) -> None:
        task = record.task
        for relation, dependency in (("after", task.after), ("follow", task.follow)):
            if dependency is None:
                continue
            tally = Tally(dependency, relation)
            for task_id in dependency.task_ids:
                if (end := self._ends.get(task_id)) is not None:
                    tally.note(task_id, end)
                elif task_id in self.records:
                    self._dependents.setdefault(task_id, []).append(record)
                else:
                    tally.note_unknown(task_id)
            if relation == "after":
                record.after = tally
            else:
                record.follow = tally

    def _release(self, record: TaskRecord) -> None:
        """Queue or end a task that waits for other tasks, if its dependencies are decided by now."""
        after, follow = record.after, record.follow
        impossible = (after and after.impossible) or (follow and follow.impossible)
        if impossible:
            held, record.held = record.held, []
            for piece in held:
                self.give_up(piece, Why.IMPOSSIBLE, impossible)
        elif (after is None or after.is_met) and (follow is None or follow.is_met):
            if follow is not None:
                record.place = record.place._replace(homes=follow.homes)
            held, record.held = record.held, []
            for piece in held:
                self._push(piece)

    def _widen(self, record: TaskRecord, follow: Tally) -> None:
        """Let a ready task also go to the engines of a further task that it may follow, because that task has ended."""
        if follow.homes != record.place.homes:
            pieces = self._withdraw({record})
            record.place = record.place._replace(homes=follow.homes)
            for piece in pieces:
                self._push(piece)

    def _push(self, piece: QueuedRange) -> bool:
        if not self._ready_queues.eligible(piece.place) and (reason := self._ready_queues.hopeless(piece.place)):
            return self._strand(piece, reason)
        if piece.record.task.policy is not None:
            piece = piece._replace(rank=self._rank(piece))
        self._ready_queues.push(piece)
        return True

    def _strand(self, piece: QueuedRange, reason: str) -> bool:
        follow = piece.record.follow
        if follow is not None and follow.pending:
            piece.record.held.append(piece)  # another task that it may follow may still end on a suitable engine
            return True
        if reason == _UNMET and piece.record.unmet:
            reason = f"{reason}: {piece.record.unmet}"
        self.give_up(piece, Why.IMPOSSIBLE, reason)
        return False

    def _withdraw(self, records: set[TaskRecord]) -> list[QueuedRange]:
        """Remove those items of tasks that no engine has, and return them."""
        pieces = [piece for record in records for piece in record.held]
        for record in records:
            record.held = []
        pieces += self._ready_queues.remove(lambda piece: piece.record in records)
        return sorted(pieces)

    def _time_out(self, piece: QueuedRange) -> None:
        limit_s = piece.record.task.timeout_s
        self.give_up(piece, Why.TIMED_OUT, f"it was submitted {limit_s:g} s ago, and no engine runs it")

    def _finish(self, record: TaskRecord) -> None:
        task_id = record.task.task_id
        del self.records[task_id]
        end = TaskEnd(record.ok, record.places)
        if len(self._equal_ends) >= _MAX_MEMO:
            self._equal_ends.clear()
        end = self._equal_ends.setdefault(end, end)
        if not record.forgotten:
            self._ends[task_id] = end
        if task_id in self._dependents:
            self._ended.append((task_id, end))
