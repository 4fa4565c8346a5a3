"""How far the dependencies of a task have been met."""

from __future__ import annotations

from typing import NamedTuple

from nsactors.core.scheduling.messages import Dependency, TaskId

__all__ = ["End", "Tally"]


class End(NamedTuple):
    """How a task ended, and the serial numbers of the engines that its results came from."""

    ok: bool
    places: frozenset[int]


class Tally:
    """What has become of the tasks that a dependency names.

    Args:
        dependency: it.
        relation: ``"after"`` or ``"follow"``, for the texts.
    """

    __slots__ = ("_dependency", "_met", "_relation", "homes", "impossible", "pending")

    def __init__(self, dependency: Dependency, relation: str) -> None:
        self._dependency = dependency
        self._relation = relation
        self._met = not dependency.task_ids
        self.pending = set(dependency.task_ids)
        self.homes: frozenset[int] | None = None
        self.impossible = ""

    @property
    def is_met(self) -> bool:
        """Whether enough of the tasks have ended in a way that counts."""
        return self._met and not self.impossible

    def note(self, task_id: TaskId, end: End) -> None:
        """One of the tasks has ended."""
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
            # Of several, the last to end decides; the text names that one.
            self.impossible = f"{self._relation}: it depends on the {self._wanted} of {self._which(task_id)}"

    def note_unknown(self, task_id: TaskId) -> None:
        """There is no such task, or nobody remembers it."""
        self.impossible = f"{self._relation}: there is no task {task_id}"

    @property
    def _wanted(self) -> str:
        return "success" if self._dependency.success else "failure"

    def _which(self, task_id: TaskId) -> str:
        became = "failed" if self._dependency.success else "succeeded"
        alone = self._dependency.all or len(self._dependency.task_ids) == 1
        return f"task {task_id}, which {became}" if alone else f"one of several tasks, which all {became}"
