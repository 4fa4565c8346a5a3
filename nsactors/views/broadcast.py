"""The broadcast view: the same call to many engines, through a tree."""

from __future__ import annotations

from typing import Any

from nsactors.core.messages import Operation, Pull
from nsactors.core.payload import Payload
from nsactors.results import Call
from nsactors.views.direct import DirectView

__all__ = ["BroadcastView"]


class BroadcastView(DirectView):
    """A :class:`DirectView` for many engines: relays pass its calls on, and bring the answers back in batches.

    It takes this process less work to call many engines, and a little longer to call few. Calls of both kinds of view
    reach an engine in the order in which they were made. What is different for each engine, or large on its way back
    (scatter, pull, gather), goes the direct way.

    Example:
        >>> everybody = rc.broadcast_view()
        >>> everybody.apply_sync(os.getpid)
        [4242, 4243, 4244, 4245]
    """

    def _send(
        self,
        ids: list[int],
        operation: Operation,
        payload: Payload | None = None,
        timeout: float | None = None,
        *,
        awaited: bool = False,
        relayed: bool = False,
    ) -> list[Call]:
        relayed = len(ids) > 1 and not isinstance(operation, Pull)
        options: dict[str, Any] = {"awaited": awaited, "relayed": relayed}
        return super()._send(ids, operation, payload, timeout, **options)
