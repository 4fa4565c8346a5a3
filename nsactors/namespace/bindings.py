"""Which names of a namespace are the user's, and which of them a request has bound anew."""

from __future__ import annotations

import itertools
import operator
import re
from typing import Any

__all__ = ["Bindings", "is_users"]

# What Python and IPython keep in a namespace for themselves. Inputs and results have their place in a snapshot.
_MACHINERY = re.compile(r"__\w+__|_{1,3}|_i{1,3}|_i?\d+|_[ido]h|_exit_code|In|Out")
_SHELL_FUNCTIONS = frozenset({"exit", "get_ipython", "open", "quit"})
_SHELL_LIBRARIES = frozenset({"IPython", "_io", "_sitebuiltins", "io"})


def is_users(name: str, value: object) -> bool:
    """Whether a name is part of what the user made, rather than of the shell."""
    if name in _SHELL_FUNCTIONS:
        return str(getattr(value, "__module__", "")).partition(".")[0] not in _SHELL_LIBRARIES
    return _MACHINERY.fullmatch(name) is None


class Bindings:
    """Tells, after each request, which names are bound to something else than before it, or are gone.

    Objects are told apart by their addresses and not held: a namespace would otherwise keep what its user has
    replaced. So it goes unseen if a name is given a new object at the address of its old one.
    """

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names
        self._order: list[str] = []
        self._addresses: list[int] = []
        self.changed()

    def changed(self) -> tuple[str, ...]:
        """The user's names that have changed since the last time."""
        # Single steps of the interpreter: the user's threads may bind names meanwhile.
        order, addresses = list(self._names), list(map(id, self._names.values()))
        if addresses == self._addresses and order == self._order:
            return ()
        known = len(self._order)
        if order[:known] == self._order:  # nothing is gone: the quick way
            changed = [*itertools.compress(order, map(operator.ne, addresses, self._addresses)), *order[known:]]
        else:
            before, after = (
                dict(zip(*pair, strict=False)) for pair in ((self._order, self._addresses), (order, addresses))
            )
            changed = [name for name in before | after if before.get(name) != after.get(name)]
        self._order, self._addresses = order, addresses
        return tuple(name for name in changed if is_users(name, self._names.get(name)))
