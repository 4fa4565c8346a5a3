"""Snapshots: the names of a namespace as bytes, and back.

All that can be pickled goes into one pickle, so that what names share they share again. Functions go without the
globals they use: those are in the snapshot themselves, or else cannot be pickled, which must not cost the functions
that mention them.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections import ChainMap
from collections.abc import Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Any

from nsactors.core.functions import FunctionPickler
from nsactors.core.journal import Snapshot, SnapshotPart
from nsactors.core.payload import Payload, unpack
from nsactors.namespace.bindings import is_users
from nsactors.namespace.mpi_use import mpi_types
from nsactors.namespace.plain_shell import fresh_names

__all__ = ["restore", "take"]


def take(names: dict[str, Any], *, ref_types: tuple[type, ...] = ()) -> Snapshot:
    """A snapshot of a namespace, to be taken between two requests.

    Nothing large is copied: buffers are the memory of the user's arrays, so write them before they change. The
    snapshot has been read back once: what pickles but does not unpickle is left out while the journal can still make
    it.

    Args:
        names: the namespace.
        ref_types: classes of references to an object store; what holds one is left out.
    """
    users = {name: value for name, value in names.copy().items() if is_users(name, value)}
    modules = {name: value for name, value in users.items() if _is_importable(value)}
    values = {name: value for name, value in users.items() if name not in modules}
    inputs, results = names.get("In"), names.get("Out")
    if isinstance(results, dict):
        values |= {f"Out[{number}]": value for number, value in results.items()}
    parts, left_out = _Packer(names, modules, ref_types).pack(values)
    return Snapshot(
        parts,
        {name: module.__name__ for name, module in modules.items()},
        left_out,
        tuple(inputs) if isinstance(inputs, list) else (),
        _folder(),
        tuple(sys.path),
    )


def restore(snapshot: Snapshot, names: dict[str, Any]) -> dict[str, str]:
    """Make a namespace what a snapshot says; names that could not be restored, with the reason.

    Names that were left out of it stay as they are; all others of the user's that it does not have are removed.
    ``In`` and ``Out`` are changed in place, so the shell should be there already; its next cell is number
    ``len(names["In"])``. Arrays can be written to.
    """
    sys.path += [entry for entry in snapshot.path if entry not in sys.path]
    failed: dict[str, str] = {}
    values: dict[str, Any] = {}
    try:
        if snapshot.folder and snapshot.folder != _folder():
            os.chdir(snapshot.folder)
    except OSError as error:
        failed["the working folder"] = str(error)
    for name, module in snapshot.modules.items():
        try:
            names[name] = importlib.import_module(module)
        except Exception as error:
            failed[name] = _reason(error)
    for part in snapshot.parts:
        try:
            values |= unpack(part.payload, scope=names, copy=True)
        except Exception as error:
            failed |= dict.fromkeys(part.names, _reason(error))
    results = {int(name[4:-1]): values.pop(name) for name in list(values) if name.startswith("Out[")}
    known = snapshot.names | snapshot.left_out.keys()
    for name in [name for name, value in names.items() if is_users(name, value) and name not in known]:
        del names[name]
    names.update(values)
    _restore_histories(names, snapshot.inputs, results)
    return failed


def _restore_histories(names: dict[str, Any], inputs: Iterable[str], results: Mapping[int, Any]) -> None:
    if inputs:
        names.setdefault("In", [])[:] = inputs
        shown = names.setdefault("Out", {})
        shown.clear()
        shown.update(results)
        names.update({f"_{number}": value for number, value in results.items()})


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it has been removed
        return ""


def _is_importable(value: object) -> bool:
    return isinstance(value, ModuleType) and value.__name__ != "__main__" and sys.modules.get(value.__name__) is value


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class _Packer:
    """Pickles values together where it can."""

    def __init__(self, scope: dict[str, Any], modules: Mapping[str, ModuleType], ref_types: tuple[type, ...]) -> None:
        self._scope = scope
        self._modules = modules
        self._ref_types = ref_types

    def pack(self, values: dict[str, Any]) -> tuple[tuple[SnapshotPart, ...], dict[str, str]]:
        """Parts that hold the values, and why some are in none of them."""
        refused: dict[str, str] = {}
        if (part := self._part(values)) is None:
            alone = {}
            for name, value in values.items():
                try:
                    alone[name] = self._checked({name: value})
                except Exception as error:
                    refused[name] = _reason(error)
            part = self._part({name: values[name] for name in alone})
            if part is None:
                return tuple(SnapshotPart((name,), payload) for name, payload in alone.items()), refused
        return (part,) if part.names else (), refused

    def _part(self, values: dict[str, Any]) -> SnapshotPart | None:
        try:
            return SnapshotPart(tuple(values), self._checked(values))
        except Exception:
            return None  # what stands in the way is found out value by value

    def _checked(self, values: dict[str, Any]) -> Payload:
        file = io.BytesIO()
        buffers: list[memoryview] = []
        _ScopePickler(file, self._scope, self._ref_types, lambda buffer: buffers.append(buffer.raw())).dump(values)
        payload = Payload(file.getvalue(), tuple(buffers))
        try:
            unpack(payload, scope={**fresh_names(), **self._modules})
        except Exception:
            # Some classes are made of memory that they can write to: a restoring gives them that, but first without.
            unpack(payload, scope={**fresh_names(), **self._modules}, copy=True)
        return payload


class _ScopePickler(FunctionPickler):
    """Pickles functions that belong to ``scope`` without its names."""

    def __init__(self, file: io.BytesIO, scope: dict[str, Any], ref_types: tuple[type, ...], keep: Any) -> None:
        # Of a file that is open for reading cloudpickle would make a StringIO with all that is in it.
        refused = dict.fromkeys((io.TextIOWrapper, *ref_types, *mpi_types()), _refuse)
        self.dispatch_table = ChainMap(refused, FunctionPickler.dispatch_table)
        super().__init__(file, keep)
        self._scope = scope
        self._bare: dict[int, dict[str, Any]] = {}

    def _function_reduce(self, function: FunctionType) -> Any:
        return super()._function_reduce(self._alone(function) if function.__globals__ is self._scope else function)

    def _alone(self, function: FunctionType) -> FunctionType:
        """The function with a ``__main__`` that is empty: one for all that have the same builtins.

        Names that came with a function from a client lie over its builtins, and stay there.
        """
        layer: dict[str, Any] = getattr(function, "__builtins__")  # noqa: B009 (type checkers do not know of it)
        bare = self._bare.setdefault(id(layer), {"__name__": "__main__", "__builtins__": layer})
        alone = FunctionType(function.__code__, bare, function.__name__, function.__defaults__, function.__closure__)
        alone.__dict__.update(function.__dict__)
        for name in ("__annotations__", "__doc__", "__kwdefaults__", "__module__", "__qualname__"):
            setattr(alone, name, getattr(function, name))
        return alone


def _refuse(reference: object) -> Any:
    raise TypeError(f"a {type(reference).__name__} does not outlive its process")
