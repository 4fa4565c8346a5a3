"""Engines that come and go while their cluster runs."""

from __future__ import annotations

import asyncio
import operator
import os
from abc import ABC, abstractmethod
from typing import Unpack

from nsactors.client import Client
from nsactors.cluster.options import EngineKeywords, engine_options, with_threads
from nsactors.core.cluster import EngineOptions
from nsactors.core.targets import Targets, resolve

__all__ = ["Scaling", "whole_number"]


class Scaling(ABC):
    """Starts and ends engines of a cluster that runs.

    Every method raises ``ClusterStopped`` if the cluster does not run, and each has a form that does not block the
    event loop, with ``_async`` at the end of its name.
    """

    _engine_options: EngineOptions
    _in_threads: bool

    @abstractmethod
    def _running(self) -> Client:
        """The cluster's own client.

        Raises:
            ClusterStopped: if there is none.
        """

    def start_engines(self, n: int, **options: Unpack[EngineKeywords]) -> list[int]:
        """Ask for ``n`` more engines; their ids. They join as they are ready.

        Args:
            n: how many.
            options: in place of what the cluster was started with; see :class:`EngineKeywords`.

        Example:
            >>> cluster.start_engines(2, on="gpu-box", num_gpus=1)
            [4, 5]
            >>> rc.wait_for_engines()

        Raises:
            UnknownOption: if there is no such option; ValueError or TypeError if it cannot be this.
            CapabilityError: if engines that are threads cannot have it.
        """
        client = self._running()
        count = whole_number(n)
        asked = engine_options(self._engine_options, options, in_threads=self._in_threads)
        asked = with_threads(asked, os.environ)
        ids = client.session.transport.controller.start_engines(count, asked)
        client.session.roster.expect(ids)
        return ids

    def stop_engines(self, engine_ids: Targets, *, finish: bool = True, timeout: float | None = None) -> None:
        """Let engines finish what they have been asked to do, and end them; returns when they have gone.

        From this call on they are not among any client's ``ids``, and get no more work. What they hold goes with them:
        their namespaces, and results of clients that have left.

        Args:
            engine_ids: the engines, also ones that have not joined yet.
            finish: False to end them at once: what they are doing fails with ``EngineLost``.
            timeout: seconds after which they are ended all the same; None: as long as it takes. If the wait is
                interrupted they go on to finish.

        Raises:
            TargetError: if there are no such engines; nothing has been ended then.
        """
        session = self._running().session
        roster = session.roster
        ids = resolve(engine_ids, sorted({*roster.known, *roster.starting}))
        if not (finish and session.retire(ids, timeout)):
            session.transport.controller.stop_engines(ids)
            roster.wait_until_gone(ids, None)

    def restart_engines(self, engine_ids: Targets = "all", *, recover: bool = False) -> None:
        """End engines, whatever they are doing, and start new processes under their ids.

        Args:
            engine_ids: the engines.
            recover: give them what they would have had they died: with ``recovery="replay"`` their namespaces. Without,
                they begin with empty ones.

        Raises:
            TargetError: if there are no such engines.
        """
        session = self._running().session
        session.restart(resolve(engine_ids, session.roster.ids), recovers=recover)

    def scale(
        self, n: int, *, finish: bool = True, timeout: float | None = None, **options: Unpack[EngineKeywords]
    ) -> list[int]:
        """Let there be ``n`` engines: start as many as are missing, or end those without a place and the newest.

        Args:
            n: how many.
            finish: as for :meth:`stop_engines`.
            timeout: as for :meth:`stop_engines`.
            options: of the new ones; see :meth:`start_engines`.

        Returns:
            The ids of the engines that there are then, those that have yet to join among them.
        """
        roster = self._running().session.roster
        wanted = whole_number(n)
        placeless = roster.waiting
        there = sorted({*roster.ids, *roster.starting}, key=lambda engine_id: (engine_id in placeless, engine_id))
        if wanted > len(there):
            return sorted(there + self.start_engines(wanted - len(there), **options))
        if wanted < len(there):
            self.stop_engines(there[wanted:], finish=finish, timeout=timeout)
        return sorted(there[:wanted])

    async def start_engines_async(self, n: int, **options: Unpack[EngineKeywords]) -> list[int]:
        """As :meth:`start_engines`, without blocking the event loop."""
        return await asyncio.to_thread(self.start_engines, n, **options)

    async def stop_engines_async(
        self, engine_ids: Targets, *, finish: bool = True, timeout: float | None = None
    ) -> None:
        """As :meth:`stop_engines`, without blocking the event loop."""
        await asyncio.to_thread(self.stop_engines, engine_ids, finish=finish, timeout=timeout)

    async def restart_engines_async(self, engine_ids: Targets = "all", *, recover: bool = False) -> None:
        """As :meth:`restart_engines`, without blocking the event loop."""
        await asyncio.to_thread(self.restart_engines, engine_ids, recover=recover)

    async def scale_async(
        self, n: int, *, finish: bool = True, timeout: float | None = None, **options: Unpack[EngineKeywords]
    ) -> list[int]:
        """As :meth:`scale`, without blocking the event loop."""
        return await asyncio.to_thread(self.scale, n, finish=finish, timeout=timeout, **options)


def whole_number(n: object) -> int:
    """How many engines somebody wants.

    Raises:
        TypeError: if that is no whole number.
        ValueError: if it is negative.
    """
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n is how many engines to start, a whole number, not {n!r}")
    count = operator.index(n)
    if count < 0:
        raise ValueError(f"n is how many engines to start, 0 or more, not {n!r}")
    return count
