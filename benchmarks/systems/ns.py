"""nsactors, with engines as Ray actors or as threads of one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.systems.views import prepare_on_view
from benchmarks.workload import ARGUMENTS, noop

__all__ = ["Nsactors", "NsactorsLocal"]


class Nsactors:
    """nsactors on Ray."""

    backend = "ray"

    def start(self, engines: int) -> None:
        from nsactors import Cluster

        self._cluster = Cluster(n=engines, backend=self.backend)
        self._client: Any = self._cluster.start_and_connect_sync()
        self._client[:].apply_sync(noop, *ARGUMENTS)

    def prepare(self, operation: str, engines: int) -> Callable[[], object] | None:
        ids = self._client.ids[:engines]
        return prepare_on_view(self._client[ids[0] if engines == 1 else ids], operation, engines)

    def close(self) -> None:
        self._cluster.stop_cluster_sync()


class NsactorsLocal(Nsactors):
    """nsactors with ``backend="local"``."""

    backend = "local"
