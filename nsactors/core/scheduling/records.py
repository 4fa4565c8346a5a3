"""What a scheduler remembers of tasks: a record for each, and pieces of it that are in one place."""

from __future__ import annotations

from typing import NamedTuple

from nsactors.core.scheduling.dependencies import Tally
from nsactors.core.scheduling.messages import ANYWHERE, Needs, Span, Task

__all__ = ["Piece", "Place", "Record", "Trial"]

_NONE: frozenset[int] = frozenset()


class Place(NamedTuple):
    """Where a piece may run. Engines are meant by serial number, which a restarted engine does not keep.

    Attributes:
        needs: what the task asks of an engine.
        homes: the only engines that will do, where the tasks that it follows ran; None if it follows none.
        refused: engines that do not meet a condition of it.
        tried: engines that it failed on, which will do if there are no others.
    """

    needs: Needs = ANYWHERE
    homes: frozenset[int] | None = None
    refused: frozenset[int] = _NONE
    tried: frozenset[int] = _NONE


class Trial(NamedTuple):
    """What has gone wrong with a piece so far: engines by serial number, those that were lost by id."""

    refused: frozenset[int] = _NONE
    tried: frozenset[int] = _NONE
    failures: int = 0
    lost_on: tuple[int, ...] = ()


class Record:
    """A task that has not ended."""

    __slots__ = (
        "aborted",
        "after",
        "deadline",
        "follow",
        "forgotten",
        "held",
        "left",
        "ok",
        "order",
        "place",
        "places",
        "task",
    )

    def __init__(self, task: Task, order: int, deadline: float | None) -> None:
        self.task = task
        self.order = order
        self.deadline = deadline
        self.left = task.size  # items that have not ended
        self.ok = True
        self.aborted = False
        self.forgotten = False
        self.place = Place(task.needs) if task.needs is not ANYWHERE else _ANY_PLACE
        self.places = _NONE  # serial numbers of the engines that gave its results
        self.after: Tally | None = None
        self.follow: Tally | None = None
        self.held: list[Piece] = []  # what waits for other tasks

    def piece(self) -> Piece:
        """All of it."""
        return Piece(-self.task.priority, self.order, 0, self.task.size, self, None)


_ANY_PLACE = Place()


class Piece(NamedTuple):
    """Items of a task that are in one place and share their fortunes. Sorted by urgency."""

    rank: float
    order: int
    start: int
    stop: int
    record: Record
    trial: Trial | None

    @property
    def place(self) -> Place:
        """Where it may run."""
        trial = self.trial
        place = self.record.place
        return place if trial is None else place._replace(refused=trial.refused, tried=trial.tried)

    @property
    def span(self) -> Span:
        """Its items, as the world knows them."""
        return Span(self.record.task.task_id, self.start, self.stop)

    @property
    def is_suspect(self) -> bool:
        """Whether an engine was lost under it."""
        return self.trial is not None and bool(self.trial.lost_on)
