"""Source lines of cells, for tracebacks: kept as long as one may need them."""

from __future__ import annotations

import linecache
import weakref
from collections.abc import Iterator
from types import CodeType

__all__ = ["CellSources"]

_SOME = 100  # kept sources, among which it is not worth while to look for what is not needed any more


class CellSources:
    """Forgets the source of a cell when the next one comes, or later, as soon as nothing that it defined can run.

    Failures take their source lines with them, so those of a finished cell are needed again only if a function or class
    that it defined fails later. Kept for all, a hundred thousand cells are 90 MB.
    """

    def __init__(self) -> None:
        self._last = ""
        self._kept: dict[str, list[weakref.ref[CodeType]]] = {}
        self._many = _SOME

    def begin(self, filename: str) -> list[str]:
        """A cell with this file name comes next; the file names whose sources have been forgotten."""
        gone = [self._last] if self._last and not self._is_needed(self._last) else []
        if len(self._kept) > self._many:
            gone += [name for name in self._kept if name not in gone and not self._is_needed(name)]
            self._many = _SOME + 2 * (len(self._kept) - len(gone))  # so a look at all of them is seldom
        for name in gone:
            self._kept.pop(name, None)
            linecache.cache.pop(name, None)
        self._last = filename
        return gone

    def compiled(self, code: CodeType) -> None:
        """This is the code of the cell that has begun, or of one of its statements."""
        if defined := [weakref.ref(inner) for inner in _codes_in(code)]:
            self._kept.setdefault(self._last, []).extend(defined)

    def _is_needed(self, filename: str) -> bool:
        return any(code() is not None for code in self._kept.get(filename, ()))


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    """The code of functions, classes and comprehensions in this one; each may outlive the one that it stands in."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes_in(constant)
