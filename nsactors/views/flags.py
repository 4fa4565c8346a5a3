"""What views can be set to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from nsactors.core.targets import Targets
from nsactors.errors import UnknownFlag

__all__ = ["Flags", "TaskFlags"]


class _Changeable:
    """A dataclass of flags, which have names that people know."""

    __slots__ = ()

    def changed(self, **changes: Any) -> Self:
        """These flags with some changed.

        Raises:
            UnknownFlag: if one does not exist; nothing is changed then.
        """
        known = [field.name for field in fields(self)]  # type: ignore[arg-type]
        for name in changes:
            if name not in known:
                raise UnknownFlag(name, known)
        return replace(self, **changes)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class Flags(_Changeable):
    """The flags of a view.

    Attributes:
        targets: the engines: an id, a list of ids, or ``"all"``.
        block: whether calls wait for their result and return it.
        label: what this view's calls are called in the history, in place of their function's name.
        copy: arrays arrive as copies that can be written to, on engines and at the client; otherwise they are read-only
            views of shared memory, one copy for all engines of a machine.
        timeout: seconds after which a call is interrupted and fails with ``TimeLimitExceeded``; None: never.
        stop_on_error: a call that fails on an engine takes what this client has queued behind it there with it: that is
            not run, and its results are ``TaskAborted``.
        journal: whether a recovery of an engine's namespace runs these calls again; False for what has effects outside.
        track: nothing; kept for scripts written for ipyparallel. Arguments are copied before a call returns.
    """

    targets: Targets = "all"
    block: bool = False
    label: str | None = None
    copy: bool = False
    timeout: float | None = None
    stop_on_error: bool = False
    journal: bool = True
    track: bool = False


@dataclass(frozen=True, slots=True)
class TaskFlags(_Changeable):
    """The flags of a load-balanced view.

    A task that no engine suits, of those that there are and those that are being started, fails with
    ``ImpossibleDependency`` at once.

    Attributes:
        targets: the engines that its tasks may run on: a list of ids, or ``"all"``: those that there are at any time.
        labels: what labels an engine must have for its tasks, such as ``{"zone": "b"}``, ``{"zone": "!b"}`` or
            ``{"zone": "in(b, c)"}``; it has those that it was started with, and those of its machine.
        resources: what an engine must have been started with for its tasks, and how much of it at least, such as
            ``{"GPU": 1}``. A task has its engine to itself, so nothing is counted down.
        block: whether calls wait for their result and return it.
        label: what its tasks are called, in place of their function's name.
        copy: as for other views.
        after: tasks that must have ended before: a result, a ``msg_id``, a list of these, or a ``Dependency``.
        follow: tasks on one of whose engines it must run, after they have ended; in the same forms.
        retries: how often a task that failed is tried again, on other engines as long as there are any.
        timeout: seconds from its submission within which a task must get to an engine, or it fails with
            ``TaskTimeout``.
        time_limit: seconds after which a task that runs is interrupted, and fails with ``TimeLimitExceeded``; of a map,
            an item.
        priority: tasks of higher priority go first; those of equal priority in the order of submission.
        detached: whether tasks outlive the client: they are scheduled, and their results kept, in a process of the
            cluster's, and any client gets them by ``rc.get_result(msg_id)``. A call returns when they are safe there.
        track: nothing; kept for scripts written for ipyparallel.
    """

    targets: Targets = "all"
    labels: Mapping[str, str] | None = None
    resources: Mapping[str, float] | None = None
    block: bool = False
    label: str | None = None
    copy: bool = False
    after: Any = None
    follow: Any = None
    retries: int = 0
    timeout: float | None = None
    time_limit: float | None = None
    priority: float = 0
    detached: bool = False
    track: bool = False
