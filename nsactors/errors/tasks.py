"""The errors of tasks: why one has no result."""

from __future__ import annotations

from nsactors.errors.sizes import bytes_in_words
from nsactors.errors.tree import EngineError, NsactorsError

__all__ = [
    "ImpossibleDependency",
    "InvalidDependency",
    "SchedulerLost",
    "SchedulerOverloaded",
    "TaskLost",
    "TaskTimeout",
    "UnmetDependency",
]


class UnmetDependency(NsactorsError):
    """This engine does not meet a condition of a task, which goes to another one; raise it to say so.

    Args:
        condition: what is not met, such as ``"import numpy"``.
    """

    def __init__(self, condition: str = "") -> None:
        super().__init__(f"not met on this engine: {condition}" if condition else "not met on this engine")
        self.condition = condition


class ImpossibleDependency(NsactorsError):
    """The conditions of a task can never be met; it has not run.

    Args:
        call: the task, such as ``"apply(f)"``.
        reason: what cannot be.
    """

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(f"{call} can never run: {reason}")
        self.call = call
        self.reason = reason


class InvalidDependency(NsactorsError, TypeError):
    """Something that a task cannot depend on; nothing has been sent.

    Args:
        dependency: its short form.
    """

    def __init__(self, dependency: str) -> None:
        super().__init__(
            f"a task cannot depend on {dependency}: "
            "give results of load-balanced views of this client, or their msg_ids; "
            "detached tasks depend on detached ones, of any client, and other tasks on others"
        )
        self.dependency = dependency


class TaskTimeout(NsactorsError, TimeoutError):
    """A task did not get to an engine in time; it has not run.

    Args:
        call: the task, such as ``"apply(f)"``.
        reason: how long it has waited.
    """

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(f"{call} was given up: {reason}")
        self.call = call
        self.reason = reason


class SchedulerLost(NsactorsError):
    """The process that schedules detached tasks has ended, and what it held has gone with it.

    Args:
        call: the task that was asked for, such as ``"apply(f)"``.
        reason: how it ended.
    """

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(
            f"{call} is lost with the process that schedules detached tasks, and kept their results: {reason}. "
            "Submit it again: another one is started for that"
        )
        self.call = call
        self.reason = reason


class SchedulerOverloaded(NsactorsError):
    """A detached task is refused, since the arguments of those that have not ended take all the room there is.

    Args:
        call: the task, such as ``"apply(f)"``.
        held_bytes: the size of those arguments.
    """

    def __init__(self, call: str, held_bytes: int) -> None:
        super().__init__(
            f"{call} is not submitted: detached tasks that have not ended hold {bytes_in_words(held_bytes)} of "
            "arguments. Let some of them end; or push large data once, and give tasks a Reference to its name"
        )
        self.call = call
        self.held_bytes = held_bytes


class TaskLost(EngineError):
    """Engines died while they ran a task, one after the other, so that it was given up.

    Args:
        call: the task, such as ``"apply(f)"``.
        reason: which engines.
    """

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(f"{call} was given up: {reason}. Run it with apply() on an engine of its own to see why")
        self.call = call
        self.reason = reason
