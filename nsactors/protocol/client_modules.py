"""The modules of a client's program, and the modules that an engine must load for it.

A client sends engines its search path for modules, and the versions of its own modules that it has imported. An engine
uses these versions for every import that runs for that client. This module decides which modules belong to a program,
and which loaded modules an engine must load again.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

MAX_SENT_BYTES = 10_000_000  # the source that one client sends
_INSTALLED = tuple(
    os.path.join(path, "") for path in {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib")}
)
_PACKAGE_FOLDERS = frozenset({"site-packages", "dist-packages"})
_ZIPPED = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
_RESERVED = frozenset({"__main__", "__mp_main__", "nsactors", *sys.builtin_module_names, *sys.stdlib_module_names})


class OwnModule(NamedTuple):
    """A module of a client's program, in the version that the client has imported.

    Attributes:
        name: its full name.
        origin: the path of its source, in an archive as ``app.pyz/helper.py``; empty for a namespace package.
        digest: the digest of its source; empty for a namespace package.
        search: the search path of its submodules, if it is a package; otherwise None.
        serial: increases whenever the client loads a module.
        is_sent: whether the cluster delivers the source to engines that do not find it.
    """

    name: str
    origin: str
    digest: str
    search: tuple[str, ...] | None
    serial: int
    is_sent: bool


class ClientModules(NamedTuple):
    """The modules of a client's program, as sent to engines.

    Attributes:
        owner: the client to which the modules belong; the scheduler of its tasks may send them in its place.
        paths: its search path without Python's own folders, in order.
        modules: its own modules, in the order in which it loaded them.
    """

    owner: str
    paths: tuple[str, ...]
    modules: tuple[OwnModule, ...]


class LoadedModule(NamedTuple):
    """A version of a module that an engine has loaded, the client for which it was loaded, and its serial there."""

    digest: str
    origin: str
    client: str
    serial: int


class FromImport(NamedTuple):
    """A statement ``from module import name as bound``; ``name`` may be ``*``."""

    module: str
    name: str
    bound: str


def digest_of(source: bytes) -> str:
    """Return the digest that identifies a source."""
    return hashlib.sha256(source).hexdigest()


def is_installed(path: str) -> bool:
    """Return whether a file or folder belongs to Python or to an installed package."""
    parts = path.split(os.sep)
    return (
        os.path.join(path, "").startswith(_INSTALLED)
        or not _PACKAGE_FOLDERS.isdisjoint(parts)
        or parts[-1] == _ZIPPED  # a place on Python's search path where usually no file exists
    )


def is_reserved(name: str) -> bool:
    """Return whether a module belongs to Python or to this package: no module of a client's program may replace it."""
    return name.partition(".")[0] in _RESERVED


def imported_modules(source: bytes, name: str, *, is_package: bool) -> set[str]:
    """Return the full names of modules that a source may import; ``from a import b`` may import ``a`` and ``a.b``."""
    found: set[str] = set()
    for node in _imports(source):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.update(_with_parents(alias.name))
        elif base := _base(node, name, is_package=is_package):
            found.update(_with_parents(base))
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def from_imports(source: bytes, name: str, *, is_package: bool) -> list[FromImport]:
    """Return the names that a source imports from other modules."""
    return [
        FromImport(base, alias.name, alias.asname or alias.name)
        for node in _imports(source)
        if isinstance(node, ast.ImportFrom) and (base := _base(node, name, is_package=is_package))
        for alias in node.names
    ]


def reload_plan(
    client: str,
    before: Mapping[str, OwnModule] | None,
    wanted: Mapping[str, OwnModule],
    loaded: Mapping[str, LoadedModule],
    imports: Callable[[str], AbstractSet[str]],
    stale: Iterable[str] = (),
) -> list[str]:
    """Return the modules that an engine loads again to match a client's imports, in the client's order.

    If the client also sent the previous request, the engine reloads the modules that the client has reloaded. For
    another client, the engine must look like a process that has just imported the modules. So it also loads those
    modules again that had imported an old version.

    Args:
        client: the client.
        before: its modules at its last request; None if it had no request yet, or other clients have had requests
            since.
        wanted: the modules that the client has imported.
        loaded: the modules that the engine has loaded.
        imports: returns the names that a loaded module imports.
        stale: loaded modules that the client has not imported, and would find in another version.
    """
    other = {
        name
        for name, module in wanted.items()
        if module.digest and name in loaded and loaded[name][:2] != (module.digest, module.origin)
    }
    if before is not None:
        again = {
            name
            for name, module in wanted.items()
            if name in loaded and name in before and before[name].serial != module.serial and module.digest
        }
        return sorted(other | again, key=lambda name: wanted[name].serial)
    todo = other | (set(stale) & loaded.keys())
    if not todo:
        return []
    needs = {name: imports(name) & loaded.keys() - {name} for name in loaded}
    while more := {name for name in loaded if name not in todo and not needs[name].isdisjoint(todo)}:
        todo |= more
    return sorted(todo, key=lambda name: (wanted[name].serial if name in wanted else sys.maxsize, name))


def load_order(names: set[str], needs: Mapping[str, AbstractSet[str]]) -> list[str]:
    """Return modules in an order in which each follows the modules it needs, unless they need each other."""
    ordered: dict[str, None] = {}
    begun: set[str] = set()

    def place(name: str) -> None:
        if name in begun:
            return
        begun.add(name)
        for needed in sorted(needs[name] & names):
            place(needed)
        ordered[name] = None

    for name in sorted(names):
        place(name)
    return list(ordered)


def _imports(source: bytes) -> Iterator[ast.Import | ast.ImportFrom]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # the import itself will report it
        return
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def _base(node: ast.ImportFrom, name: str, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join([*kept, node.module] if node.module else kept)


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
