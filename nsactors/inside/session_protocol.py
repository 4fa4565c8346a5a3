"""The parts of a client's session that this package uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from nsactors.protocol.control import ClusterState, HistoryEntry, Query, QueryReply
from nsactors.protocol.engine_info import EngineInfo


class ControllerQueries(Protocol):
    """The part of the controller that is used here."""

    def query(self, engine_ids: Iterable[int], query: Query, timeout_s: float) -> dict[int, QueryReply]:
        """Return the replies that arrive in time, by engine."""
        ...

    def state(self) -> ClusterState:
        """Return the state of the cluster."""
        ...

    def running(self) -> dict[int, tuple[int, list[HistoryEntry]]]:
        """Return for each engine the number of completed requests, and the requests that run."""
        ...


class Directory(Protocol):
    """The engines of a session."""

    @property
    def ids(self) -> Sequence[int]:
        """The ids of the engines that take requests."""
        ...

    def get(self, engine_id: int) -> EngineInfo | None:
        """Return an engine; None if there is no such engine."""
        ...


class SessionProtocol(Protocol):
    """A client's session."""

    @property
    def controller(self) -> ControllerQueries:
        """Sends queries to the controller."""
        ...

    @property
    def directory(self) -> Directory:
        """The engines."""
        ...
