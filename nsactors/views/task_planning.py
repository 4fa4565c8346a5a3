"""Tasks, made of calls and maps as a view's flags say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from nsactors.client.tasks import Job, MapFunction
from nsactors.core import scheduling
from nsactors.core.messages import Capability
from nsactors.core.payload import Payload
from nsactors.core.scheduling import Task
from nsactors.errors import NoEngines
from nsactors.results import MapCall, TaskCall
from nsactors.transport.base import require
from nsactors.views.dependencies import Dependency
from nsactors.views.flags import TaskFlags
from nsactors.views.task_forms import needs_of

if TYPE_CHECKING:
    from nsactors.client.detached import DetachedFarm
    from nsactors.client.session import Session
    from nsactors.client.tasks import Farm

__all__ = ["Send", "TaskPlanner"]

Send = Callable[[], object]
"""Submits a task."""


class TaskPlanner:
    """Makes the tasks of a view, and of its copies with other flags.

    Args:
        session: of the client whose tasks they are.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._latest: tuple[TaskFlags | None, Task] = None, Task(0)

    def check(self, flags: TaskFlags) -> None:
        """See that tasks can be made with these flags; errors as for ``LoadBalancedView.set_flags``."""
        if flags.time_limit is not None:
            require(self._session.transport, Capability.SIGNALS, "interrupt a task at its time limit")
        self._plan(flags)

    def farm(self, flags: TaskFlags) -> Farm | DetachedFarm:
        """Where tasks with these flags find their engines."""
        return self._session.detached if flags.detached else self._session.farm

    def call(self, flags: TaskFlags, payload: Payload, label: str, kind: tuple[Any, ...]) -> tuple[TaskCall, Send]:
        """A task that calls a function once, and what submits it.

        Raises:
            NoEngines: if there are none, and none is on its way.
        """
        farm = self.farm(flags)
        plan = self._plan_for_engines(flags)
        call = farm.new_call(label, copies=flags.copy)
        job = Job(call, payload, limit_s=flags.time_limit)
        task = plan._replace(task_id=call.request_id.seq, kind=kind)
        return call, partial(farm.submit, task, job, (flags.after, flags.follow))

    def map(
        self,
        flags: TaskFlags,
        function: MapFunction,
        columns: tuple[Sequence[Any], ...],
        label: str,
        kind: tuple[Any, ...],
        *,
        chunksize: int | None = None,
        joins: bool = False,
    ) -> tuple[MapCall, Send]:
        """A task that calls a function with each item of columns of one length; as :meth:`call`.

        Args:
            flags: of the view.
            function: the function.
            columns: as many as it has arguments.
            label: what people call the task.
            kind: see ``Task``.
            chunksize: see ``Task``.
            joins: its values are parts of one sequence.
        """
        farm = self.farm(flags)
        plan = self._plan_for_engines(flags)
        size = len(columns[0])
        call = farm.new_map(label, size, copies=flags.copy, joins=joins)
        if not size:
            return call, partial(call.settle, [], None)
        job = Job(call, None, function, columns, flags.time_limit)
        task = plan._replace(task_id=call.request_id.seq, size=size, kind=kind, chunksize=chunksize)
        return call, partial(farm.submit, task, job, (flags.after, flags.follow))

    def _plan_for_engines(self, flags: TaskFlags) -> Task:
        roster = self._session.roster
        if not (roster.ids or roster.starting):
            raise NoEngines
        return self._plan(flags)

    def _plan(self, flags: TaskFlags) -> Task:
        """What all tasks with these flags have in common."""
        latest, plan = self._latest
        if latest is not flags:
            plan = Task(
                0,
                needs=needs_of(flags),
                after=self._known(flags.after, flags),
                follow=self._known(flags.follow, flags),
                retries=flags.retries,
                timeout_s=flags.timeout,
                priority=flags.priority,
            )
            self._latest = flags, plan
        return plan

    def _known(self, dependency: Dependency | None, flags: TaskFlags) -> scheduling.Dependency | None:
        return dependency.for_scheduler(self.farm(flags).name) if dependency else None
