"""Source lines of cells, for tracebacks: kept as long as one may need them."""

from __future__ import annotations

import linecache
from types import CodeType

__all__ = ["CellSources"]


class CellSources:
    """Forgets the source of a cell when the next one comes, unless the cell has defined something.

    Failures take their source lines with them, so those of a finished cell are needed again only if a function or class
    that it defined fails later. Kept for all, a hundred thousand cells are 90 MB.
    """

    def __init__(self) -> None:
        self._last = ""
        self._defines = False

    def begin(self, filename: str) -> str:
        """A cell with this file name comes next; the file name whose source has been forgotten, empty if none was."""
        gone = "" if self._defines else self._last
        linecache.cache.pop(gone, None)
        self._last, self._defines = filename, False
        return gone

    def compiled(self, code: CodeType) -> None:
        """This is the code of the cell, or of one of its statements."""
        self._defines = self._defines or any(isinstance(constant, CodeType) for constant in code.co_consts)
