"""How the controller notices that a client's process has ended.

A client makes a call of the controller's that does not return, and hands the reference to what it would return back to
the controller. The reference belongs to the client's process: when that has ended, waiting for it fails, 2.0 s later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

__all__ = ["Presences"]


class Presences:
    """The clients whose processes are watched."""

    def __init__(self) -> None:
        self._left: dict[str, asyncio.Event] = {}

    async def last(self, client: str) -> None:
        """Does not return as long as the client is there: nothing of Ray's ends a call whose caller is dead."""
        await self._left.setdefault(client, asyncio.Event()).wait()

    def end(self, client: str) -> None:
        """The client has left."""
        left = self._left.pop(client, None)
        if left is not None:
            left.set()

    async def died(self, presence: Sequence[Any]) -> bool:
        """Wait until the owner of the one reference in this list has died, or the client has left."""
        import ray

        try:
            await presence[0]
        except ray.exceptions.OwnerDiedError:
            return True
        except ray.exceptions.RayError:  # the call was one to a controller that is no more
            return False
        return False
