"""When a cluster has been idle for so long that it may end."""

from __future__ import annotations

__all__ = ["Idleness"]


class Idleness:
    """Whether anybody still uses a cluster.

    It is idle while no client is there and nothing runs. A client that is there and does nothing counts as one that
    uses it: its names are on the engines.

    Args:
        limit_s: how long it may be idle.
        at: the time now, in seconds.
    """

    def __init__(self, limit_s: float, at: float) -> None:
        self._limit_s = limit_s
        self._since = at
        self._completed = 0

    def is_over(self, *, clients: int, running: int, completed: int, at: float) -> bool:
        """Whether the limit is reached.

        Args:
            clients: how many there are.
            running: requests that run or wait.
            completed: how many have been completed so far.
            at: the time now, in seconds.
        """
        if clients or running or completed != self._completed:
            self._since = at
        self._completed = completed
        return at - self._since >= self._limit_s
