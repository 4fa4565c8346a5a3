"""How many items of a stream make up a message."""

from __future__ import annotations

__all__ = ["CHUNK_S", "ChunkSize"]

CHUNK_S = 0.02  # of work in a chunk: much more than the 1 ms that a message costs, and short for who waits for it
MAX_ITEMS = 1_000  # what is quick to compute may be large to keep


class ChunkSize:
    """The size of chunks: a given one, or as many items as take :data:`CHUNK_S`, found out from one item on.

    Args:
        fixed: the size, if it is given.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self.items = fixed or 1
        self.adapts = fixed is None

    def observe(self, items: int, seconds: float) -> None:
        """A chunk of so many items (at least one) has been computed in so many seconds."""
        if self.adapts:
            affordable = int(CHUNK_S * items / max(seconds, 1e-6))
            # At most doubled at a time: the first items may be the quick ones.
            self.items = max(1, min(affordable, 2 * self.items, MAX_ITEMS))
