"""What a client does with tasks that find an engine by themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nsactors.client.hosting import waits_by_engine
from nsactors.client.tasks import TaskStatus
from nsactors.core.targets import Targets, resolve

if TYPE_CHECKING:
    from nsactors.client.session import Session
    from nsactors.views.executor import ViewExecutor
    from nsactors.views.load_balanced import LoadBalancedView

__all__ = ["TaskWork"]


class TaskWork(ABC):
    """A client's tasks."""

    @property
    @abstractmethod
    def session(self) -> Session:
        """The conversation with the cluster."""

    @property
    @abstractmethod
    def ids(self) -> list[int]:
        """Ids of the engines that take requests."""

    def load_balanced_view(self, targets: Targets = None, **flags: Any) -> LoadBalancedView:
        """A view that runs each call on whichever engine is free.

        Args:
            targets: the engines; None and ``"all"`` are all that there are at any time, anything else is looked up now.
            flags: of the view, see ``LoadBalancedFlags``.

        Raises:
            TargetError: if ``targets`` names no engines of this cluster.
            UnknownFlag: if a flag does not exist.

        Example:
            >>> lview = rc.load_balanced_view()
            >>> lview.map_sync(lambda x: x**2, range(5))
            [0, 1, 4, 9, 16]
        """
        from nsactors.views.load_balanced import LoadBalancedView

        if targets is None or (isinstance(targets, str) and targets == "all"):
            self.session.check()
            return LoadBalancedView(self, "all", **flags)  # type: ignore[arg-type]  # only Client has this
        return LoadBalancedView(self, resolve(targets, self.ids), **flags)  # type: ignore[arg-type]

    def executor(self, targets: Targets = None) -> ViewExecutor:
        """A ``concurrent.futures.Executor`` over these engines: that of a load-balanced view of them.

        Example:
            >>> with rc.executor() as executor:
            ...     executor.submit(pow, 2, 5).result()
            32
        """
        return self.load_balanced_view(targets).executor

    def tasks(self) -> list[TaskStatus]:
        """The tasks of this client that have not ended, and all that is known of detached ones of any client.

        Each in the order of submission. Detached ones are listed for as long as their results are kept.
        """
        return [*self.session.farm.statuses(), *self.session.detached.statuses()]

    def queue_status(self, targets: Targets = "all", verbose: bool = False) -> dict[Any, Any]:
        """What each engine has to do.

        Answers at once, however busy the engines are: it is put together from what this client and the controller know.

        Args:
            targets: the engines to tell of.
            verbose: give lists of calls in place of numbers.

        Returns:
            For each id ``queue`` (calls of this client that are not answered), ``completed`` (calls of all clients),
            ``tasks`` (of this client's load-balanced views, and detached ones of all, counted in items), ``running``
            (what it runs, as far as it has said) and ``waits`` (what code on it waits for at services, such as
            ``"recv from 2 tag 5 for 12 s"``); and under ``"unassigned"`` the number of tasks without an engine.
        """
        ids = resolve(targets, self.ids)
        running = self.session.transport.controller.running()
        unassigned, assigned = self.session.assigned_tasks()
        waits = waits_by_engine(self.session.transport.services.waiting())
        open_tasks = [task for task in self.tasks() if task.ended is None] if verbose else []
        status: dict[Any, Any] = {"unassigned": unassigned}
        for engine_id in ids:
            mine = [call.label for call in self.session.open_calls({engine_id})]
            completed, entries = running.get(engine_id, (0, []))
            status[engine_id] = {
                "queue": mine if verbose else len(mine),
                "completed": completed,
                "tasks": _labels(open_tasks, engine_id) if verbose else assigned.get(engine_id, 0),
                "running": entries[-1].source if entries else None,
                "waits": waits.get(engine_id, []),
            }
        return status


def _labels(tasks: Iterable[TaskStatus], engine_id: int) -> list[str]:
    return [task.label for task in tasks if engine_id in task.engines]
