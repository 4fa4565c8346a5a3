"""Snapshots: a namespace as bytes and back, and which names are the user's.

A snapshot counts only after it has been loaded in a clean interpreter (:mod:`clean_interpreter`), because the engine's
own process can load many objects that no other process can load.
"""

from __future__ import annotations

import importlib
import itertools
import operator
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType, ModuleType
from typing import Any

from nsactors.namespace.components import load_part, pack_components, reason_of
from nsactors.namespace.process_state import working_folder
from nsactors.recovery.journal import Snapshot

# Names of Python and IPython themselves. Inputs and results are in a snapshot, but not by these names.
_MACHINERY = re.compile(
    r"__(name|doc|package|loader|spec|file|cached|path|builtins?|nsactors\w*)__"
    r"|_{1,3}|_i{1,3}|_i?\d+|_[ido]h|_exit_code|In|Out"
)
_SHELL_FUNCTIONS = frozenset({"exit", "get_ipython", "open", "quit"})
_SHELL_LIBRARIES = frozenset({"IPython", "_io", "_sitebuiltins", "io"})


def is_users(name: str, value: object) -> bool:
    """Return whether a name belongs to the user, not to the shell."""
    if name in _SHELL_FUNCTIONS:
        return _library(value) not in _SHELL_LIBRARIES
    return _MACHINERY.fullmatch(name) is None


def _library(value: object) -> str:
    try:
        return str(getattr(value, "__module__", "")).partition(".")[0]
    except Exception:  # a proxy whose object is gone
        return ""


class Bindings:
    """Find out after each request which names have been rebound or removed.

    Objects are compared by address and not held: a namespace would otherwise keep the values that its user has
    replaced. So a new object at the address of the old one goes unnoticed.
    """

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names
        self._order: list[str] = []
        self._addresses: list[int] = []
        self.changed()

    def changed(self) -> tuple[str, ...]:
        """Return the user's names that have changed since the last call."""
        # Each list is made in one step of the interpreter, since the user's threads may bind names at any time.
        order, addresses = list(self._names), list(map(id, self._names.values()))
        if addresses == self._addresses and order == self._order:
            return ()
        known = len(self._order)
        if order[:known] == self._order:  # the usual case: no name was removed
            changed = [*itertools.compress(order, map(operator.ne, addresses, self._addresses)), *order[known:]]
        else:
            before, after = (
                dict(zip(*pair, strict=False)) for pair in ((self._order, self._addresses), (order, addresses))
            )
            changed = [name for name in before | after if before.get(name) != after.get(name)]
        self._order, self._addresses = order, addresses
        return tuple(name for name in changed if is_users(name, self._names.get(name)))


def take(names: dict[str, Any], *, ref_types: tuple[type, ...] = ()) -> Snapshot:
    """Return a snapshot of a namespace; call this between two requests.

    Nothing large is copied: buffers are the memory of the user's arrays, so write the buffers before the arrays change.

    Args:
        names: the namespace.
        ref_types: classes of references to an object store; values that hold one are left out.
    """
    users = {name: value for name, value in names.copy().items() if is_users(name, value)}
    modules = {name: value for name, value in users.items() if _is_importable(value)}
    values = {name: value for name, value in users.items() if name not in modules}
    inputs, results = names.get("In"), names.get("Out")
    if isinstance(results, dict):
        values |= {f"Out[{number}]": value for number, value in results.items()}
    parts, left_out = pack_components(names, values, ref_types)
    return Snapshot(
        parts,
        {name: module.__name__ for name, module in modules.items()},
        left_out,
        tuple(inputs) if isinstance(inputs, list) else (),
        working_folder(),
        tuple(sys.path),
    )


def restore(
    snapshot: Snapshot,
    names: dict[str, Any],
    *,
    skipped: Mapping[str, str] = MappingProxyType({}),
    loads: Callable[[str], object] = lambda name: None,
    copy: bool = True,
) -> dict[str, str]:
    """Restore a namespace from a snapshot; return the names that could not be restored, with the reason.

    Names that the snapshot left out stay as they are; all other names of the user are removed. ``In`` and ``Out`` are
    changed in place, so make the shell first; its next cell is number ``len(names["In"])``. Each component is bound as
    soon as it is loaded, because user code that runs while the next component loads may need it.

    Args:
        snapshot: the snapshot.
        names: the namespace.
        skipped: the first names of components, and the names of modules, that must not be loaded, with the reason.
        loads: called with the first name of each component, and each name of a module, before it is loaded.
        copy: False if arrays may use the memory that the snapshot is in.
    """
    sys.path += [entry for entry in snapshot.path if entry not in sys.path]
    failed: dict[str, str] = {}
    try:
        if snapshot.folder and snapshot.folder != working_folder():
            os.chdir(snapshot.folder)
    except OSError as error:
        failed["the working folder"] = str(error)
    known = snapshot.names | snapshot.left_out.keys()
    for name in [name for name, value in names.items() if is_users(name, value) and name not in known]:
        del names[name]
    values: dict[str, Any] = {}

    def attempt(bound: tuple[str, ...], load: Callable[[], Mapping[str, Any]]) -> None:
        if bound[0] in skipped:
            failed.update(dict.fromkeys(bound, skipped[bound[0]]))
            return
        loads(bound[0])
        try:
            loaded = load()
        except BaseException as error:  # a SystemExit comes from a user's class, and must not cost other names
            failed.update(dict.fromkeys(bound, reason_of(error)))
            return
        values.update(loaded)
        names.update({name: value for name, value in loaded.items() if not name.startswith("Out[")})

    for name, module in snapshot.modules.items():
        attempt((name,), partial(_imported, name, module))
    for part in snapshot.parts:
        attempt(part.names, partial(load_part, part, names, values, copy=copy))
    results = {int(name[4:-1]): value for name, value in values.items() if name.startswith("Out[")}
    _restore_histories(names, snapshot.inputs, results)
    return failed


def _imported(name: str, module: str) -> dict[str, ModuleType]:
    return {name: importlib.import_module(module)}


def _restore_histories(names: dict[str, Any], inputs: Iterable[str], results: Mapping[int, Any]) -> None:
    if inputs:
        names.setdefault("In", [])[:] = inputs
        shown = names.setdefault("Out", {})
        shown.clear()
        shown.update(results)
        names.update({f"_{number}": value for number, value in results.items()})


def _is_importable(value: object) -> bool:
    if not issubclass(type(value), ModuleType):  # not isinstance: an object's __class__ may raise
        return False
    attributes: Any = vars(ModuleType)["__dict__"]  # not vars(value), which the user's class may override
    name = attributes.__get__(value).get("__name__")
    return isinstance(name, str) and name != "__main__" and sys.modules.get(name) is value
