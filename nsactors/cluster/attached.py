"""A cluster that another process has started: its engines come and go at a client's wish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nsactors.client import Client
from nsactors.cluster.options import engine_options
from nsactors.cluster.scaling import Scaling
from nsactors.core.cluster import EngineOptions

__all__ = ["AttachedCluster"]


class AttachedCluster(Scaling):
    """Starts and ends engines of a cluster that runs in the background.

    Args:
        client: of that cluster.
        options: what its engines are asked for with, unless told otherwise; see ``EngineKeywords``.
    """

    def __init__(self, client: Client, options: Mapping[str, Any]) -> None:
        self._client = client
        self._in_threads = False
        self._engine_options = engine_options(EngineOptions(), options, in_threads=False)

    def _running(self) -> Client:
        return self._client
