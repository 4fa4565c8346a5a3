"""Edits of local modules reach the engines."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable
from types import ModuleType
from typing import NamedTuple

from nsactors.views.direct import DirectView

__all__ = ["ModuleSource", "SourceShipper", "install"]


class ModuleSource(NamedTuple):
    """A module as a file on this machine has it."""

    name: str
    filename: str
    is_package: bool
    source: str


class SourceShipper:
    """Sends modules that were edited since the last time, also to hosts that lack their files.

    Modules are those that this process has imported from files outside the Python installation.

    Args:
        modules: where to find them; the default is what has been imported.
    """

    def __init__(self, modules: dict[str, ModuleType] | None = None) -> None:
        self._modules = sys.modules if modules is None else modules
        self._sent = {name: _changed_at(filename) for name, filename in self._local()}

    def edited(self) -> list[ModuleSource]:
        """Modules that are new or whose file has changed since the last call; they count as sent."""
        found = []
        for name, filename in self._local():
            changed_at = _changed_at(filename)
            if changed_at is None or self._sent.get(name) == changed_at:
                continue
            self._sent[name] = changed_at
            with open(filename, encoding="utf-8") as file:
                found.append(ModuleSource(name, filename, hasattr(self._modules[name], "__path__"), file.read()))
        return found

    def ship(self, view: DirectView) -> list[str]:
        """Bring the engines of ``view``, and this process, up to date; the names of the modules.

        Raises:
            CompositeError: if an edited module fails to import on engines.
        """
        edited = self.edited()
        if edited:
            view.apply_sync(install, edited)
            install(edited)
        return [module.name for module in edited]

    def _local(self) -> list[tuple[str, str]]:
        installed = tuple(os.path.join(path, "") for path in set(sysconfig.get_paths().values()))
        found = []
        for name, module in list(self._modules.items()):
            filename = getattr(module, "__file__", None)
            mine = filename and filename.endswith(".py") and not os.path.abspath(filename).startswith(installed)
            if mine and name != "__main__" and name.partition(".")[0] != "nsactors":
                found.append((name, str(filename)))
        return found


def install(modules: Iterable[ModuleSource]) -> None:
    """Run the source of modules in the modules of this process, which are made if need be."""
    for name, filename, is_package, source in modules:
        module = sys.modules.get(name)
        if module is None:
            module = sys.modules[name] = ModuleType(name)
            module.__file__ = filename
            module.__package__ = name if is_package else name.rpartition(".")[0]
            if is_package:
                module.__path__ = [os.path.dirname(filename)]
            parent, _, own = name.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], own, module)
        exec(compile(source, filename, "exec"), module.__dict__)


def _changed_at(filename: str) -> int | None:
    try:
        return os.stat(filename).st_mtime_ns
    except OSError:
        return None
