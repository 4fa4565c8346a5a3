"""nsactors, with engines as Ray actors or as threads of one process, called directly or by broadcast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.operations.catalogue import HALO_STEPS
from benchmarks.operations.work import exchange
from benchmarks.operations.workload import ARGUMENTS, noop
from benchmarks.systems.views import prepare_balanced, prepare_on_view

__all__ = ["Nsactors", "NsactorsBroadcast", "NsactorsLocal"]


class Nsactors:
    """nsactors on Ray."""

    backend = "ray"

    def start(self, engines: int) -> None:
        from nsactors import Cluster

        self._cluster = Cluster(n=engines, backend=self.backend)
        self.client: Any = self._cluster.start_and_connect_sync()
        self.client[:].apply_sync(noop, *ARGUMENTS)

    def prepare(self, operation: str, engines: int) -> Callable[[], object] | None:
        ids = self.client.ids[:engines]
        if operation == "halo":
            return self._exchanges(ids)
        balanced = prepare_balanced(self.client.load_balanced_view(ids), operation)
        single = engines == 1 or operation == "call"
        return balanced or prepare_on_view(self.client[ids[0] if single else ids], operation, engines)

    def _exchanges(self, ids: list[int]) -> Callable[[], object]:
        from nsactors import Reference

        view = self.client[ids]
        view.communicator("comm")
        return lambda: view.apply_sync(exchange, Reference("comm"), HALO_STEPS)

    def close(self) -> None:
        self._cluster.stop_cluster_sync()


class NsactorsLocal(Nsactors):
    """nsactors with ``backend="local"``."""

    backend = "local"


class NsactorsBroadcast:
    """Calls that relays pass on, to engines that another system has started.

    Args:
        host: the system whose engines are called.
    """

    def __init__(self, host: Nsactors) -> None:
        self._host = host

    def start(self, engines: int) -> None:
        """There is nothing to start."""

    def prepare(self, operation: str, engines: int) -> Callable[[], object] | None:
        if engines == 1 or operation not in ("apply", "push", "execute"):
            return None  # this would not be relayed
        client = self._host.client
        return prepare_on_view(client.broadcast_view(client.ids[:engines]), operation, engines)

    def close(self) -> None:
        """There is nothing to end."""
