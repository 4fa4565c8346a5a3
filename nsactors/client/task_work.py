"""What a client does with tasks that find an engine by themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from nsactors.client.tasks import TaskStatus
from nsactors.core.targets import Targets, resolve

if TYPE_CHECKING:
    from nsactors.client.session import Session
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

    def tasks(self) -> list[TaskStatus]:
        """The tasks of this client that have not ended, in the order of submission."""
        return self.session.farm.statuses()
