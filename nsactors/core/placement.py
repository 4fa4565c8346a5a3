"""On which node an engine starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["least_loaded"]


def least_loaded(nodes: Sequence[str], engines: Iterable[str]) -> str:
    """The node with the fewest engines; of equals, the first.

    Args:
        nodes: those to choose from, in order of preference; at least one.
        engines: the node of each engine that there is, also of those on nodes that cannot be chosen.

    Example:
        >>> least_loaded(["a", "b", "c"], ["a", "c", "gone"])
        'b'
    """
    load = Counter(engines)
    return min(nodes, key=load.__getitem__)
