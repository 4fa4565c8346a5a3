"""Edited modules of the user, loaded again here and on the engines."""

from __future__ import annotations

import importlib
from typing import Any

from IPython.extensions.autoreload import superreload

from nsactors.session.own_modules import OwnModules


class EditedModules:
    """Reloads modules that have been edited since they were loaded, also if this was before the first ``%pxreload``."""

    def __init__(self) -> None:
        self._own: OwnModules | None = None
        self._old_objects: dict[Any, Any] = {}

    def reload(self, own: OwnModules | None) -> list[str]:
        """Reload edited modules here immediately, and on engines with the client's next call; return their names.

        As with ``%autoreload``, functions and classes that were imported by name are also replaced.

        Args:
            own: the client's record of imported modules; None if the client sends no modules, or its engines share
                this process.

        Raises:
            Exception: the error of a module that cannot be loaded.
        """
        if own is None:
            own = self._own = self._own or OwnModules()
        edited = own.edited()
        for module in edited:
            superreload(module, importlib.reload, self._old_objects)
        return [module.__name__ for module in edited]

    def close(self) -> None:
        """Stop watching modules."""
        if self._own is not None:
            self._own.close()
