"""Errors of tasks that have no result.

The scheduler sets them as the exception of a task's result; only `UnmetDependency` is raised inside tasks.
"""

from __future__ import annotations

from nsactors.errors.exceptions import EngineError, InvalidArgument, NsactorsError
from nsactors.errors.formatting import bytes_in_words, short_repr


class UnmetDependency(NsactorsError):
    """This engine does not meet a condition of a task; raise this error in a task to send the task to another engine.

    Args:
        condition: the condition, such as ``"import numpy"``.
    """

    def __init__(self, condition: str = "") -> None:
        super().__init__(f"not met on this engine: {condition}" if condition else "not met on this engine")
        self.condition = condition


class ImpossibleDependency(NsactorsError):
    """The conditions of a task can never be met; it has not run.

    Args:
        call: the task, such as ``"apply(f)"``.
        reason: the condition that cannot be met.
    """

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(f"{call} can never run: {reason}")
        self.call = call
        self.reason = reason


class InvalidDependency(InvalidArgument, TypeError):
    """An argument that a task cannot depend on; nothing has been sent.

    Args:
        dependency: the argument; only its short repr is kept.
        where: the call and its parameter, such as ``"set_flags(after)"``.
    """

    def __init__(self, dependency: object, where: str = "") -> None:
        self.dependency = short_repr(dependency)
        self.where = where
        super().__init__(
            f"{f'{where}: ' if where else ''}a task cannot depend on {self.dependency}: "
            "give results of load-balanced views of this client, or their msg_ids; "
            "detached tasks depend on detached tasks, of any client, and other tasks on tasks that are not detached"
        )


class TaskTimeout(NsactorsError, TimeoutError):
    """A task did not start on an engine in time; it has not run.

    Args:
        call: the task, such as ``"apply(f)"``.
        reason: how long it waited.
    """

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(f"{call} was given up: {reason}")
        self.call = call
        self.reason = reason


class SchedulerLost(NsactorsError):
    """The scheduler of a task ended before the task, and the state of the task is lost.

    Args:
        call: the task, such as ``"apply(f)"``.
        reason: how the scheduler ended.
        process: whether the process of the detached scheduler ended; otherwise the client's scheduler failed, and
            another one has replaced it.
    """

    def __init__(self, call: str, reason: str, *, process: bool = True) -> None:
        if process:
            what = f"the process that schedules detached tasks, and stored their results: {reason}"
            advice = "Submit it again: that starts another one"
        else:
            what = f"the scheduler of tasks, which failed: {reason}. The task may have run, or may be running"
            advice = "Submit it again, unless it must not run twice: another scheduler has started"
        super().__init__(f"{call} is lost with {what}. {advice}")
        self.call = call
        self.reason = reason


class SchedulerOverloaded(NsactorsError):
    """A detached task is refused, because the arguments of unfinished tasks take all the room.

    Args:
        call: the task, such as ``"apply(f)"``.
        held_bytes: the size of those arguments.
    """

    def __init__(self, call: str, held_bytes: int) -> None:
        super().__init__(
            f"{call} is not submitted: unfinished detached tasks hold {bytes_in_words(held_bytes)} of arguments. "
            "Wait for some of them; or push large data once, and pass a Reference to its name"
        )
        self.call = call
        self.held_bytes = held_bytes


class TaskLost(EngineError):
    """A task failed because engines died one after the other while they ran it.

    Args:
        call: the task, such as ``"apply(f)"``.
        reason: the engines that died.
    """

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(f"{call} was given up: {reason}. Run it with apply() on an engine of its own to see why")
        self.call = call
        self.reason = reason
