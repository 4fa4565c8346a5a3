"""ipyparallel: a controller and engines as processes, connected by ZeroMQ."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from benchmarks.operations.workload import ARGUMENTS, noop
from benchmarks.systems.views import prepare_balanced, prepare_on_view

__all__ = ["Ipyparallel"]


class Ipyparallel:
    """ipyparallel with its defaults, listening on this machine alone."""

    def start(self, engines: int) -> None:
        ipyparallel: Any = importlib.import_module("ipyparallel")
        # 127.0.0.1 is also the default address; it is set here because the comparison depends on it.
        self._cluster = ipyparallel.Cluster(
            n=engines, controller_ip="127.0.0.1", profile_dir=os.path.abspath("profile"), log_level=40
        )
        self._client = self._cluster.start_and_connect_sync()
        self._client[:].apply_sync(noop, *ARGUMENTS)

    def prepare(self, operation: str, engines: int) -> Callable[[], object] | None:
        ids = self._client.ids[:engines]
        if operation in ("map-many", "map-power"):
            return None  # with one message for each item, they take six minutes and an hour
        balanced = prepare_balanced(self._client.load_balanced_view(ids), operation)
        single = engines == 1 or operation == "call"
        return balanced or prepare_on_view(self._client[ids[0] if single else ids], operation, engines)

    def close(self) -> None:
        self._client.close()
        self._cluster.stop_cluster_sync()
