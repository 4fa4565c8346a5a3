"""The part of a client that its views use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from nsactors.errors import WrongType
from nsactors.protocol import arguments as arg
from nsactors.protocol.targets import Targets
from nsactors.services.service import Service
from nsactors.services.state_machine import StateMachine
from nsactors.session.carried_data import CarriedData
from nsactors.session.memory import ClusterMemory
from nsactors.session.session import Session
from nsactors.tasks.detached_client import TaskSchedulers

if TYPE_CHECKING:
    from nsactors.views.executor import ViewExecutor


class ViewClient(Protocol):
    """The part of a client that its views use: its session, its schedulers, and the methods that views have too."""

    block: bool
    carried_data: CarriedData

    @property
    def session(self) -> Session:
        """The connection to the cluster."""
        ...

    @property
    def schedulers(self) -> TaskSchedulers:
        """The schedulers of its tasks."""
        ...

    def wait(self, jobs: Any, timeout: float | None) -> bool:
        """See ``Client.wait``."""
        ...

    def queue_status(self, targets: Targets, verbose: bool) -> dict[Any, Any]:
        """See ``Client.queue_status``."""
        ...

    def shutdown(self, targets: Targets) -> None:
        """See ``Client.shutdown``."""
        ...

    def abort(self, jobs: Any, targets: Targets, block: bool | None) -> None:
        """See ``Client.abort``."""
        ...

    def interrupt(self, targets: Targets) -> list[int]:
        """See ``Client.interrupt``."""
        ...

    def memory(self, targets: Targets, *, top: int) -> ClusterMemory:
        """See ``Client.memory``."""
        ...

    def executor(self, targets: Targets) -> ViewExecutor:
        """See ``Client.executor``."""
        ...

    def load_balanced_view(self, targets: Targets = None) -> Any:
        """See ``Client.load_balanced_view``."""
        ...

    def host(self, machine: StateMachine, name: str | None = None) -> Service:
        """See ``Client.host``."""
        ...


def check_client(value: object) -> arg.Unfit | None:
    """Return why a value cannot be a view's client, for ``arg.check``; None if it can."""
    # A client is recognised by its session. This module cannot import the class Client, whose module imports views.
    return None if isinstance(getattr(value, "session", None), Session) else arg.Unfit(value, "a Client", WrongType)
