"""MPI in an engine: which requests use it, and keeping it out where it would do harm.

MPI is not known here but by its Python binding, mpi4py, and what holds objects of that.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from types import CodeType, FunctionType, ModuleType
from typing import Any

from nsactors.core.messages import Apply, Execute, Operation
from nsactors.core.payload import Payload
from nsactors.errors import MpiError

__all__ = ["BarredMpi", "MpiUse", "bar_mpi", "barring_mpi", "is_initialised", "mpi_types", "unbar_mpi"]

_BINDING = "mpi4py.MPI"
_WORD = re.compile(r"[^\W\d]\w*")
_SCANNED_BYTES = 100_000
_LOOKED_AT = 1_000  # items of a container


class BarredMpi(ModuleType):
    """Stands for mpi4py's ``MPI``, and for what came from it: whatever it is asked for, it raises.

    Args:
        error: what to raise.
        real: what it stands for, if that is there.
    """

    def __init__(self, error: MpiError, real: object = None) -> None:
        super().__init__(_BINDING)
        self.__dict__["_barred"] = error, real

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python asks modules for such names by itself
            raise AttributeError(name)
        raise self.__dict__["_barred"][0]


def bar_mpi(names: MutableMapping[str, Any], error: MpiError) -> None:
    """Let every use of MPI raise ``error``, by import or by these names: it would wait for somebody who is gone."""
    binding = sys.modules.get(_BINDING)
    if isinstance(binding, BarredMpi):
        return
    barred = BarredMpi(error, binding)
    sys.modules[_BINDING] = barred
    if "mpi4py" in sys.modules:
        vars(sys.modules["mpi4py"])["MPI"] = barred
    for name in [name for name, value in names.items() if _is_mpi(value)]:
        names[name] = barred


def unbar_mpi() -> None:
    """Let MPI be imported again."""
    barred = sys.modules.get(_BINDING)
    if not isinstance(barred, BarredMpi):
        return
    real = barred.__dict__["_barred"][1]
    package = vars(sys.modules["mpi4py"]) if "mpi4py" in sys.modules else {}
    if real is None:
        del sys.modules[_BINDING]
        package.pop("MPI", None)
    else:
        sys.modules[_BINDING] = package["MPI"] = real


@contextmanager
def barring_mpi(error: MpiError) -> Iterator[None]:
    """Within the block MPI cannot be imported: it would begin, for good, as a world of one process."""
    bar_mpi({}, error)
    try:
        yield
    finally:
        unbar_mpi()


def is_initialised() -> bool:
    """Whether MPI has been initialised in this process, by way of mpi4py."""
    binding = sys.modules.get(_BINDING)
    if isinstance(binding, BarredMpi):
        binding = binding.__dict__["_barred"][1]
    return binding is not None and bool(binding.Is_initialized())


def mpi_types() -> list[type]:
    """The classes of mpi4py, if it has been imported: what they are about ends with the process."""
    binding = sys.modules.get(_BINDING)
    if binding is None or isinstance(binding, BarredMpi):
        return []
    return [value for value in vars(binding).values() if isinstance(value, type) and value.__module__ == _BINDING]


class MpiUse:
    """Tells which requests have used MPI: those are not run again when the namespace is recovered.

    Nothing counts MPI's calls, so this looks at what a request can reach: a cell by the names that it uses at its top
    level, a call by what its pickle names, and both by what the functions and objects behind those names hold in turn.
    It costs nothing before MPI is initialised.

    Args:
        names: of the namespace.
    """

    def __init__(self, names: MutableMapping[str, Any]) -> None:
        self._names = names
        self._before = False
        self._words: set[str] = set()

    def begin(self, operation: Operation, payload: Payload | None) -> None:
        """A request is about to run."""
        self._before = is_initialised()
        match operation:
            case Execute(code) if self._before:
                self._words = _top_level_words(code)
            case Apply() if self._before and payload is not None:
                # A function's names stand in its pickle as text, a module's or class's do so too.
                self._words = set(_WORD.findall(bytes(payload.data[:_SCANNED_BYTES]).decode("latin-1")))
            case _:
                self._words = set()

    def used(self) -> bool:
        """Whether the request that was begun last has used MPI, or may have."""
        if not is_initialised():
            return False
        return not self._before or "mpi4py" in self._words or _Reach(self._names).from_words(self._words)


def _top_level_words(code: str) -> set[str]:
    """The names in a cell, without those in the bodies of functions that it only defines."""
    try:
        tree = ast.parse(code)
    except SyntaxError:  # IPython's own syntax
        return set(_WORD.findall(code))
    return set(_names_run(tree))


def _names_run(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                for part in (getattr(child, "decorator_list", []), child.args.defaults):
                    for expression in part:
                        yield from _names_run(ast.Expr(expression))
            case ast.Import(names):
                yield from (word for name in names for word in name.name.split("."))
            case ast.ImportFrom(module):
                yield from (module or "").split(".")
            case ast.Name(name):
                yield name
            case _:
                yield from _names_run(child)


class _Reach:
    """What can be reached from names of a namespace, each thing looked at once."""

    def __init__(self, names: MutableMapping[str, Any]) -> None:
        self._names = names
        self._seen: set[int] = set()

    def from_words(self, words: set[str]) -> bool:
        """Whether one of these names, or a module called so, holds MPI."""
        return any(self._holds_mpi(found[word]) for found in (self._names, sys.modules) for word in words & {*found})

    def _holds_mpi(self, value: Any) -> bool:
        if _is_mpi(value):
            return True
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        kind = type(value)  # not isinstance: a proxy would do whatever it stands for
        if kind is FunctionType:
            return self._runs_mpi(value.__code__, value.__globals__)
        if issubclass(kind, type):
            return value.__module__ == "__main__" and any(map(self._holds_mpi, [*vars(value).values()]))
        if any(map(_is_mpi, _parts(value))):
            return True
        return not issubclass(kind, ModuleType) and self._holds_mpi(kind)

    def _runs_mpi(self, code: CodeType, scope: dict[str, Any]) -> bool:
        if any(name.split(".")[0] == "mpi4py" for name in code.co_names):
            return True
        if any(self._holds_mpi(scope[name]) for name in code.co_names if name in scope):
            return True
        return any(self._runs_mpi(inner, scope) for inner in code.co_consts if isinstance(inner, CodeType))


def _parts(value: Any) -> list[Any]:
    """What a small container holds, or what an object or a module has as attributes."""
    kind = type(value)
    if kind in (list, tuple, set):
        return [*value] if len(value) <= _LOOKED_AT else []
    if kind is dict:
        return [*value.values()] if len(value) <= _LOOKED_AT else []
    try:
        return [*object.__getattribute__(value, "__dict__").values()]
    except AttributeError:
        return []


def _is_mpi(value: object) -> bool:
    kind = type(value)
    name = value.__name__ if issubclass(kind, ModuleType) else kind.__module__  # type: ignore[attr-defined]
    return isinstance(name, str) and name.partition(".")[0] == "mpi4py"
