"""The process of a client, the libraries that it has imported, and changes of its import system.

A module is in ``sys.modules`` from the start of its import, almost empty: reading ``sys.modules["numpy"].ndarray``
while another thread imports NumPy raises an AttributeError.

An import in another thread may be in the middle of ``sys.path`` or ``sys.meta_path``. If an entry is removed from the
list, that import skips another entry, and fails. So entries are removed by replacing the list.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable
from typing import Any, ClassVar

from nsactors.errors import ForkedClient


class OwnProcess:
    """The process that made an object with threads and connections; a child forked from it has neither.

    Forks are counted, because every call checks for one, and to get the process id from the system takes ten times as
    long.
    """

    __slots__ = ("_forks", "pid")

    forks: ClassVar[int | None] = None
    """The number of forks since this process or an ancestor made the first of these objects; None if none was made."""

    def __init__(self) -> None:
        if OwnProcess.forks is None:
            OwnProcess.forks = 0
            os.register_at_fork(after_in_child=_count)
        self._forks = OwnProcess.forks
        self.pid = os.getpid()

    @property
    def is_here(self) -> bool:
        """True in the process that made the object, False in a forked child."""
        return self._forks == OwnProcess.forks

    def check(self) -> None:
        """Refuse to work in a forked child.

        Raises:
            ForkedClient: if this is a forked child of the process that made the object.
        """
        if self._forks != OwnProcess.forks:
            raise ForkedClient(self.pid, os.getpid())

    def end_child(self, error: BaseException | None = None) -> None:
        """End this process if it is a forked child, as Python ends a program at the end of its code.

        Code that forks, and does not end its child, returns twice: also in the child, which is a copy of the process
        without its threads and connections.

        Args:
            error: the error that the child's code has raised.
        """
        if self._forks == OwnProcess.forks:
            return
        status = 0
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            status = 1
            traceback.print_exception(error, file=sys.__stderr__)
        os._exit(status & 0xFF)


def _count() -> None:
    OwnProcess.forks = (OwnProcess.forks or 0) + 1


def imported(name: str) -> Any:
    """Return the module ``name`` if its import has finished. Otherwise return None: no value has one of its classes.

    Imports nothing, does not wait, and does not trigger the import of a lazy module.
    """
    module = sys.modules.get(name)
    # Examine its type only: reading any attribute of a lazy module imports it.
    if module is None or type(module).__module__ == "importlib.util":
        return None
    try:
        # The test that the interpreter makes for a repeated `import` (import_ensure_initialized in import.c).
        initializing = module.__spec__._initializing  # type: ignore[union-attr]
    except AttributeError:  # a module put into sys.modules by hand
        return module
    return None if initializing else module


def set_search_path(entries: Iterable[str]) -> None:
    """Replace ``sys.path``; imports that already run in other threads continue with the old list."""
    sys.path = list(entries)


def remove_finder(finder: object) -> None:
    """Remove a finder from ``sys.meta_path``, if the list contains it."""
    sys.meta_path = [each for each in sys.meta_path if each is not finder]


def current_shell() -> Any:
    """Return IPython's shell if this process has one, otherwise None."""
    ipython = imported("IPython")
    return None if ipython is None else ipython.get_ipython()
