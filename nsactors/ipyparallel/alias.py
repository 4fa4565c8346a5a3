"""An alias: makes ``import ipyparallel`` mean ``nsactors.ipyparallel``.

An import finder is put before Python's own. The modules are the same objects under both names, so a class has one
identity under both.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

__all__ = ["ON_ENGINES", "install", "installed", "uninstall"]

THEIRS = "ipyparallel"
OURS = "nsactors.ipyparallel"

ON_ENGINES = "import nsactors.ipyparallel as _ipp; _ipp.install(); del _ipp"
"""Start-up code that installs the alias on engines."""


class _AliasFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules of nsactors under ipyparallel's names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != THEIRS and not fullname.startswith(f"{THEIRS}."):
            return None
        ours = OURS + fullname.removeprefix(THEIRS)
        if importlib.util.find_spec(ours) is None:
            raise ModuleNotFoundError(
                f"nsactors does not provide {fullname}: see the page on ipyparallel for its replacement",
                name=fullname,
            )
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(OURS + spec.name.removeprefix(THEIRS))
        # Importing under a second name replaces the module's spec; exec_module() restores it.
        self._specs: dict[str, Any] = {**getattr(self, "_specs", {}), spec.name: module.__spec__}
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None:
            module.__spec__ = self._specs.pop(spec.name)


def install() -> None:
    """Make ``import ipyparallel`` mean this package, in this process, unless it does already.

    Raises:
        RuntimeError: if ipyparallel itself has been imported.
    """
    loaded = sys.modules.get(THEIRS)
    if loaded is not None and loaded.__name__ != OURS:
        raise RuntimeError("ipyparallel itself has been imported: call nsactors.ipyparallel.install() before that")
    if not installed():
        sys.meta_path.insert(0, _AliasFinder())


def installed() -> bool:
    """Return whether ``import ipyparallel`` means this package here."""
    return any(isinstance(finder, _AliasFinder) for finder in sys.meta_path)


def uninstall() -> None:
    """Undo :func:`install`."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _AliasFinder)]
    for name in [name for name in sys.modules if name == THEIRS or name.startswith(f"{THEIRS}.")]:
        if sys.modules[name].__name__.startswith(OURS):
            del sys.modules[name]
