"""What has come of tasks whose submitter need not be there: kept until somebody asks, within limits."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nsactors.core.scheduling import GiveUp, Ran
from nsactors.errors import SchedulerOverloaded

__all__ = ["KeptTask", "KeptTasks", "Piece"]

LIMIT_TASKS = 20_000
LIMIT_BYTES = 200_000_000  # of small results and output, in the memory of who keeps them
LIMIT_STORED_BYTES = 4_000_000_000  # of large ones, in the object store, which can put them on disk
LIMIT_INPUT_BYTES = 2_000_000_000  # of arguments of tasks that have not ended, in the memory of who keeps them
REMEMBERED = 10_000  # tasks that have been dropped, whose name is still known

Piece = tuple[Ran, int] | GiveUp
"""How some of a task's items ended: with what an engine says of them, and its id, or without."""


@dataclass(slots=True)
class KeptTask:
    """A task, and what has come of it so far.

    Attributes:
        number: its number.
        label: what people call it.
        size: of a map, how many items it has; None for a call.
        copies: whether arrays in its results are copies that can be written to.
        joins: whether its results are parts of one sequence.
        submitted: when, in seconds since the epoch.
        input_bytes: the size of its arguments, which are held until it has ended.
        handle: of its keeper, which drops it with the task.
        pieces: what has come, in the order in which it came.
        ended: when all of it had come.
        failed: whether some of it failed.
        nbytes: what it takes of the memory of who keeps it.
        stored_bytes: what it takes of the object store.
    """

    number: int
    label: str
    size: int | None
    copies: bool
    joins: bool
    submitted: float
    input_bytes: int = 0
    handle: Any = None
    pieces: list[Piece] = field(default_factory=list)
    ended: float | None = None
    failed: bool = False
    nbytes: int = 0
    stored_bytes: int = 0


class KeptTasks:
    """Tasks by number. The results of those that ended first go first when there are too many.

    What ended last is kept whatever its size, and so is what has come of tasks that have not ended.

    Args:
        limit_tasks: how many that have ended are kept.
        limit_bytes: how much of the keeper's memory all may take.
        limit_stored_bytes: how much of the object store.
        limit_input_bytes: how much the arguments of those that have not ended may take.

    Example:
        >>> kept = KeptTasks(limit_tasks=1)
        >>> for number in (1, 2):
        ...     kept.enter(KeptTask(number, "apply(f)", None, False, False, 0.0))
        ...     kept.end(number, at=1.0)
        >>> kept.get(1) is None, kept.dropped_label(1)
        (True, 'apply(f)')
    """

    def __init__(
        self,
        limit_tasks: int = LIMIT_TASKS,
        limit_bytes: int = LIMIT_BYTES,
        limit_stored_bytes: int = LIMIT_STORED_BYTES,
        limit_input_bytes: int = LIMIT_INPUT_BYTES,
    ) -> None:
        self._limit_tasks = limit_tasks
        self._limit_bytes = limit_bytes
        self._limit_stored_bytes = limit_stored_bytes
        self._limit_input_bytes = limit_input_bytes
        self._tasks: dict[int, KeptTask] = {}
        self._ended: deque[int] = deque()
        self._dropped: dict[int, str] = {}
        self._nbytes = self._stored_bytes = self._input_bytes = 0

    def __iter__(self) -> Iterator[KeptTask]:
        """In the order of submission."""
        return iter(list(self._tasks.values()))

    def enter(self, task: KeptTask) -> None:
        """A task has been submitted.

        Raises:
            SchedulerOverloaded: if there is no room for its arguments; there always is for those of a single task.
        """
        if self._input_bytes and self._input_bytes + task.input_bytes > self._limit_input_bytes:
            raise SchedulerOverloaded(task.label, self._input_bytes)
        self._tasks[task.number] = task
        self._input_bytes += task.input_bytes

    def get(self, number: int) -> KeptTask | None:
        """A task; None if nothing of it is kept, or ever was."""
        return self._tasks.get(number)

    def dropped_label(self, number: int) -> str | None:
        """What people called a task whose results had to go; None for any other."""
        return self._dropped.get(number)

    def add(self, number: int, piece: Piece, nbytes: int = 0, stored_bytes: int = 0, *, failed: bool = False) -> None:
        """Some of a task's items have ended.

        Args:
            number: the task.
            piece: how they did.
            nbytes: what that takes of the keeper's memory.
            stored_bytes: what it takes of the object store.
            failed: whether they failed.
        """
        task = self._tasks[number]
        task.pieces.append(piece)
        task.failed |= failed
        task.nbytes += nbytes
        task.stored_bytes += stored_bytes
        self._nbytes += nbytes
        self._stored_bytes += stored_bytes
        self._make_room()

    def end(self, number: int, at: float) -> None:
        """All of a task has come."""
        self._tasks[number].ended = at
        self._input_bytes -= self._tasks[number].input_bytes
        self._ended.append(number)
        self._make_room()

    def withdraw(self, number: int) -> None:
        """A task has not been submitted after all."""
        self._input_bytes -= self._tasks.pop(number).input_bytes

    def _make_room(self) -> None:
        while len(self._ended) > 1 and self._has_too_much():
            task = self._tasks.pop(self._ended.popleft())
            self._nbytes -= task.nbytes
            self._stored_bytes -= task.stored_bytes
            self._dropped[task.number] = task.label
            if len(self._dropped) > REMEMBERED:
                del self._dropped[next(iter(self._dropped))]

    def _has_too_much(self) -> bool:
        return (
            len(self._ended) > self._limit_tasks
            or self._nbytes > self._limit_bytes
            or self._stored_bytes > self._limit_stored_bytes
        )
