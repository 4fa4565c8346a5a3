"""The tasks of a scheduler: what waits for what, what is ready, what has ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from nsactors.core.scheduling.dependencies import End, Tally
from nsactors.core.scheduling.lanes import Lanes
from nsactors.core.scheduling.messages import GiveUp, Task, TaskId, Why
from nsactors.core.scheduling.records import Piece, Record

__all__ = ["Ledger"]

_MAX_MEMO = 1000


class Ledger:
    """Records of tasks. Each item leaves it once: by :meth:`settle` or in a :class:`GiveUp`.

    Args:
        lanes: where pieces go that are ready.
        emit: takes the effects.
    """

    def __init__(self, lanes: Lanes, emit: Callable[[GiveUp], None]) -> None:
        self.records: dict[TaskId, Record] = {}  # of tasks that have not ended
        self._lanes = lanes
        self._emit = emit
        self._order = 0
        self._ends: dict[TaskId, End] = {}
        self._equal_ends: dict[End, End] = {}  # one object for all tasks that ended alike
        self._dependents: dict[TaskId, list[Record]] = {}
        self._deadlines: list[tuple[float, int, Record]] = []
        self._ended: deque[tuple[TaskId, End]] = deque()  # and others wait for it

    def enter(self, task: Task, at: float) -> None:
        """A task is to be run, unless it is known already."""
        if task.task_id in self.records or task.task_id in self._ends:
            return
        self._order += 1
        record = Record(task, self._order, None if task.timeout_s is None else at + task.timeout_s)
        if task.after is not None or task.follow is not None:
            self._link(record)
        self.records[task.task_id] = record
        if record.deadline is not None:
            heappush(self._deadlines, (record.deadline, record.order, record))
        if task.size == 0:
            self._finish(record)
        elif task.after is None and task.follow is None:
            self._push(record.piece())
        else:
            record.held.append(record.piece())
            self._release(record)

    def settle(self, record: Record, items: int, ok: bool, serial: int) -> None:
        """Results of ``items`` of its items are final."""
        if serial not in record.places:
            record.places |= {serial}
        record.ok &= ok
        record.left -= items
        if record.left == 0:
            self._finish(record)

    def flush(self) -> None:
        """Tell those that wait for what has ended. To be called before work is handed out."""
        # A queue, not a recursion: a chain of tasks that depend on each other may be of any length.
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

    def requeue(self, piece: Piece, at: float) -> bool:
        """A piece comes back from an engine. Returns whether it may go to another."""
        record = piece.record
        if record.aborted:
            self.give_up(piece, Why.ABORTED, "it was aborted before it ran")
        elif record.deadline is not None and at >= record.deadline:
            self._time_out(piece)
        else:
            return self._push(piece)
        return False

    def give_up(self, piece: Piece, why: Why, reason: str) -> None:
        """End items without a result."""
        record = piece.record
        record.ok = False
        record.left -= piece.stop - piece.start
        self._emit(GiveUp(piece.span, why, reason))
        if record.left == 0:
            self._finish(record)

    def abort(self, task_ids: Iterable[TaskId]) -> set[Record]:
        """End what no engine has of these tasks. Returns the records of those with items that an engine may have."""
        unwanted = {self.records[task_id] for task_id in task_ids if task_id in self.records}
        for record in unwanted:
            record.aborted = True
        for piece in self._withdraw(unwanted):
            self.give_up(piece, Why.ABORTED, "it was aborted before it ran")
        return {record for record in unwanted if record.left}

    def expire(self, at: float) -> None:
        """End what should have gone to an engine by now."""
        late = set()
        while self._deadlines and self._deadlines[0][0] <= at:
            late.add(heappop(self._deadlines)[2])
        for piece in self._withdraw(late):
            self._time_out(piece)

    def next_deadline(self) -> float | None:
        """When :meth:`expire` is to be called next."""
        while self._deadlines and not self._deadlines[0][2].left:
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def engines_changed(self) -> None:
        """End what no engine can ever run now."""
        for piece, reason in self._lanes.engines_changed():
            self._strand(piece, reason)

    def forget(self, task_ids: Iterable[TaskId]) -> None:
        """Nobody will depend on these any more."""
        for task_id in task_ids:
            self._ends.pop(task_id, None)
            if (record := self.records.get(task_id)) is not None:
                record.forgotten = True

    def _link(self, record: Record) -> None:
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

    def _release(self, record: Record) -> None:
        """Let a task that waits go on, or end, if it can be told by now."""
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

    def _widen(self, record: Record, follow: Tally) -> None:
        """Let a task that is ready go where another of those that it may follow has ended."""
        if follow.homes != record.place.homes:
            pieces = self._withdraw({record})
            record.place = record.place._replace(homes=follow.homes)
            for piece in pieces:
                self._push(piece)

    def _push(self, piece: Piece) -> bool:
        if not self._lanes.eligible(piece.place) and (reason := self._lanes.hopeless(piece.place)):
            return self._strand(piece, reason)
        self._lanes.push(piece)
        return True

    def _strand(self, piece: Piece, reason: str) -> bool:
        follow = piece.record.follow
        if follow is not None and follow.pending:
            piece.record.held.append(piece)  # another that it may follow may yet end on an engine that will do
            return True
        self.give_up(piece, Why.IMPOSSIBLE, reason)
        return False

    def _withdraw(self, records: set[Record]) -> list[Piece]:
        """Take out everything of these tasks that no engine has."""
        if not records:
            return []
        pieces = [piece for record in records for piece in record.held]
        for record in records:
            record.held = []
        pieces += self._lanes.remove(lambda piece: piece.record in records)
        return sorted(pieces)

    def _time_out(self, piece: Piece) -> None:
        limit_s = piece.record.task.timeout_s
        self.give_up(piece, Why.TIMED_OUT, f"it was submitted {limit_s:g} s ago, and no engine runs it")

    def _finish(self, record: Record) -> None:
        task_id = record.task.task_id
        del self.records[task_id]
        end = End(record.ok, record.places)
        if len(self._equal_ends) >= _MAX_MEMO:
            self._equal_ends.clear()
        end = self._equal_ends.setdefault(end, end)
        if not record.forgotten:
            self._ends[task_id] = end
        if task_id in self._dependents:
            self._ended.append((task_id, end))
