"""Where a client's tasks find their engines: with a scheduler of its own, or one that outlives it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nsactors.client.detached import DetachedFarm
from nsactors.client.tasks import Farm
from nsactors.results import Call, TaskCall

if TYPE_CHECKING:
    from nsactors.client.session import Session

__all__ = ["Farms"]


class Farms:
    """A client's two farms, each made when it is needed.

    Args:
        session: the conversation with the cluster.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._own: Farm | None = None
        self._detached: DetachedFarm | None = None
        self._lock = threading.Lock()

    @property
    def own(self) -> Farm:
        """For tasks that end with the client."""
        with self._lock:
            if self._own is None:
                self._session.check()
                self._own = Farm(self._session)
            return self._own

    @property
    def detached(self) -> DetachedFarm:
        """For tasks that outlive it."""
        with self._lock:
            if self._detached is None:
                self._session.check()
                self._detached = DetachedFarm(self._session)
            return self._detached

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        """Take back those of ``calls`` that are tasks and have not started; with ``interrupt``, stop what has."""
        calls = list(calls)
        for farm in self._made():
            if tasks := [call for call in calls if farm.owns(call)]:
                farm.abort(tasks, interrupt=interrupt)

    def open_calls(self) -> list[TaskCall]:
        """Tasks of which the client awaits the end, in the order of submission; its own ones first."""
        return [call for farm in self._made() for call in farm.open_calls()]

    def assigned(self) -> tuple[int, dict[int, int]]:
        """How many items wait for an engine, and how many each engine has: of its own tasks, and all detached ones."""
        waiting, own = (0, {}) if self._own is None else self._own.assigned()
        more, detached = self.detached.assigned()
        return waiting + more, {i: own.get(i, 0) + detached.get(i, 0) for i in own.keys() | detached.keys()}

    def close(self) -> None:
        """End: tasks that have not ended fail with ``ClientClosed``, and detached ones go on."""
        for farm in self._made():
            farm.close()

    def _made(self) -> list[Farm | DetachedFarm]:
        return [farm for farm in (self._own, self._detached) if farm is not None]
