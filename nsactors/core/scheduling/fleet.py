"""The engines of a scheduler, and what each has been sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from nsactors.core.scheduling.messages import Engine, Ran, Span, TaskId
from nsactors.core.scheduling.records import Piece

__all__ = ["Batch", "Fleet", "Member"]


@dataclass(slots=True, eq=False)
class Member:
    """An engine's process. ``serial`` is its own for ever: a restarted engine is another member."""

    engine: Engine
    serial: int
    closing: bool = False  # it takes no more work
    batches: dict[int, Batch] = field(default_factory=dict)  # in the order in which it runs them

    @property
    def engine_id(self) -> int:
        """The id that the world knows it by."""
        return self.engine.engine_id


@dataclass(slots=True, eq=False)
class Batch:
    """What an engine was sent in one message, less what it has given back."""

    batch_id: int
    member: Member
    sent: float
    pieces: dict[tuple[TaskId, int], Piece]  # by task and first item, in order
    is_ahead: bool  # it was sent behind another
    asked: set[tuple[TaskId, int]] = field(default_factory=set)  # what it was asked to give back

    @property
    def is_head(self) -> bool:
        """Whether the engine has nothing to do before it."""
        return next(iter(self.member.batches)) == self.batch_id

    @property
    def is_suspect(self) -> bool:
        """Whether an engine was lost under it: nothing is sent behind it, to be lost with it."""
        return any(piece.is_suspect for piece in self.pieces.values())

    @property
    def items(self) -> int:
        """How many items it holds."""
        return sum(piece.stop - piece.start for piece in self.pieces.values())

    def claim(self, ran: Ran) -> Piece | None:
        """Take out what ``ran`` is about; None if that is not here, or is not the beginning of what is."""
        piece = self.pieces.pop((ran.task_id, ran.start), None)
        if piece is None or ran.stop == piece.stop:
            return piece
        if not ran.start < ran.stop < piece.stop:
            self.pieces[ran.task_id, ran.start] = piece
            return None
        self.pieces[ran.task_id, ran.stop] = piece._replace(start=ran.stop)
        return piece._replace(stop=ran.stop)

    def give_back(self, span: Span) -> Piece | None:
        """Take out ``span``; None if it is not the end of anything here."""
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

    def not_asked(self) -> list[Piece]:
        """What the engine may not have begun and was not asked to give back."""
        unasked = (piece for key, piece in self.pieces.items() if key not in self.asked)
        if not self.is_head:
            return list(unasked)
        begun = next(iter(self.pieces.values()), None)  # its first item has been
        return [piece for piece in unasked if piece is not begun or piece.stop - piece.start > 1]


class Fleet:
    """Engines by id, and which of them have nothing to do, or nothing to do next."""

    def __init__(self) -> None:
        self.members: dict[int, Member] = {}
        self.away: set[int] = set()  # being started, or restarted
        self.idle: dict[int, None] = {}  # with no batch; the one that has waited longest first
        self.hungry: dict[int, None] = {}  # with one batch that another may be sent behind
        self.batches: dict[int, Batch] = {}
        self._serial = 0
        self._batch_id = 0

    def add(self, engine: Engine) -> None:
        """An engine takes work from now on."""
        self._serial += 1
        self.members[engine.engine_id] = Member(engine, self._serial)
        self.away.discard(engine.engine_id)
        self.idle[engine.engine_id] = None

    def close(self, engine_id: int) -> None:
        """An engine takes no more work, and does what it has."""
        member = self.members.get(engine_id)
        if member is not None:
            member.closing = True
            self._sort_in(member)

    def remove(self, engine_id: int, *, returns: bool) -> list[Batch]:
        """An engine takes no more work. Returns what it held, in its order."""
        (self.away.add if returns else self.away.discard)(engine_id)
        self.idle.pop(engine_id, None)
        self.hungry.pop(engine_id, None)
        member = self.members.pop(engine_id, None)
        return [self.batches.pop(batch_id) for batch_id in member.batches] if member is not None else []

    def load(self, engine_id: int, pieces: list[Piece], at: float) -> Batch:
        """Give an engine a batch."""
        self._batch_id += 1
        member = self.members[engine_id]
        by_start = {(piece.record.task.task_id, piece.start): piece for piece in pieces}
        batch = Batch(self._batch_id, member, at, by_start, is_ahead=bool(member.batches))
        self.batches[batch.batch_id] = member.batches[batch.batch_id] = batch
        self._sort_in(member)
        return batch

    def unload(self, batch_id: int) -> Batch | None:
        """An engine is done with a batch; None if it is not known, or its engine was lost."""
        batch = self.batches.pop(batch_id, None)
        if batch is not None:
            del batch.member.batches[batch_id]
            self._sort_in(batch.member)
        return batch

    def _sort_in(self, member: Member) -> None:
        self.idle.pop(member.engine_id, None)
        self.hungry.pop(member.engine_id, None)
        if member.closing:
            return
        if len(member.batches) == 0:
            self.idle[member.engine_id] = None
        elif len(member.batches) == 1 and not any(batch.is_suspect for batch in member.batches.values()):
            self.hungry[member.engine_id] = None
