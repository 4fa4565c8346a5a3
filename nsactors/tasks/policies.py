"""Users' policies: the order of tasks, and the choice among free engines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nsactors.protocol.serialize import Payload, unpack
from nsactors.tasks.messages import Engine, PolicyFailed, Task


class QueuedTask(NamedTuple):
    """A waiting task, as policies see it.

    Attributes:
        label: its name for people.
        number: its number. The tasks of a client are numbered in the order of submission.
        items: the number of its items that wait; 1 for a call.
        priority: the priority that its view gives it.
        seconds: the mean time of an item of its function; None if no such item has ended.
        failures: how often it has failed, or its engine was lost.
    """

    label: str
    number: int
    items: int
    priority: float
    seconds: float | None
    failures: int


class SchedulingPolicy:
    """A policy that changes nothing, from which to inherit. Any object with one of these methods is a policy too.

    Views take a policy as their flag ``policy``. The policy is pickled and sent to the scheduler. For a client's own
    tasks, the scheduler is in the client's process; for detached tasks, it is on the head node. The scheduler calls the
    methods often, so they must be quick, and their values must depend only on their arguments. A policy that raises an
    error or returns a wrong value is reported once and no longer asked; its tasks go on in the usual order.

    Example:
        >>> class ShortestFirst(SchedulingPolicy):
        ...     def priority(self, task):
        ...         return -(task.seconds or 0.0)
        >>> lview = rc.load_balanced_view(policy=ShortestFirst())
    """

    def priority(self, task: QueuedTask) -> float:
        """Return the urgency of a task. The highest goes first; equally urgent tasks go in the order of submission.

        This method is called when the task is ready, and again when the task has failed on an engine.
        """
        return task.priority

    def choose_engine(self, task: QueuedTask, engines: Sequence[Engine]) -> int:
        """Return the id of the engine that takes a task.

        ``engines`` are the engines that are free and suit the task; the one that has been idle for longest comes first.
        The items of a map are sent in parts, and this method is called for each part.
        """
        return engines[0].engine_id


class Policies:
    """Calls policies, and handles their errors.

    Args:
        emit: takes the effect for a policy that has failed.
    """

    def __init__(self, emit: Callable[[PolicyFailed], None]) -> None:
        self._emit = emit
        self._loaded: dict[bytes, Any] = {}  # None for a policy that has failed

    def priority(self, task: Task, queued: QueuedTask) -> float:
        """Return the urgency of a task."""
        answer = self._ask(task, "priority", _number, queued)
        return task.priority if answer is None else float(answer)

    def choose(self, task: Task, queued: QueuedTask, engines: Sequence[Engine]) -> int:
        """Return the id of the engine that takes a task."""
        ids = [engine.engine_id for engine in engines]
        answer = self._ask(task, "choose_engine", lambda chosen: _one_of(chosen, ids), queued, tuple(engines))
        return ids[0] if answer is None else int(answer)

    def _ask(self, task: Task, method: str, check: Callable[[Any], None], *args: Any) -> Any:
        assert task.policy is not None, "only tasks that have a policy are asked about"
        try:
            if task.policy not in self._loaded:
                self._loaded[task.policy] = None
                self._loaded[task.policy] = unpack(Payload(task.policy))
            policy = self._loaded[task.policy]
            if policy is None or not hasattr(policy, method):
                return None
            answer = getattr(policy, method)(*args)
            check(answer)
        except BaseException as error:  # this includes SystemExit, which would end the scheduler
            policy, self._loaded[task.policy] = self._loaded[task.policy], None
            name = "the policy" if policy is None else type(policy).__name__
            self._emit(PolicyFailed(f"{name}.{method}() failed for {task.label}: {type(error).__name__}: {error}"))
            return None
        return answer


def _number(answer: Any) -> None:
    if not math.isfinite(answer):
        raise ValueError(f"{answer!r} is no priority")


def _one_of(answer: Any, ids: Sequence[int]) -> None:
    if answer not in ids:
        raise ValueError(f"{answer!r} is none of the engines {ids}")
