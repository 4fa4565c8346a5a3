"""MPI in an engine: which requests use it, and how its use is prevented where it would do harm.

MPI is recognised by its Python binding, mpi4py, and by objects that hold parts of mpi4py.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from nsactors.errors import MpiError
from nsactors.namespace.mentions import parse_code
from nsactors.protocol.messages import Apply, Execute, Operation
from nsactors.protocol.process import imported
from nsactors.protocol.serialize import Payload

ONE_MACHINE = {"UCX_NET_DEVICES": "lo", "FI_TCP_IFACE": "lo"}
"""Let messages pass through shared memory only; otherwise MPICH's two networks would listen for other machines."""
OPEN_MPI_ONE_MACHINE = {"OMPI_MCA_btl": "self,vader"}
"""The same for Open MPI, which listens at every address, even if its settings name some interfaces only."""
NO_DAEMON = {"OMPI_MCA_ess_singleton_isolated": "1"}
"""Without this, Open MPI starts a daemon for a world of one process, which leaves a folder."""
_ALONE = {**ONE_MACHINE, **OPEN_MPI_ONE_MACHINE, **NO_DAEMON}
_BINDING = "mpi4py.MPI"
_WORD = re.compile(r"[^\W\d]\w*")
_SCANNED_BYTES = 100_000
_LOOKED_AT = 1_000  # items of a container that are searched at most


class BarredMpi(ModuleType):
    """A replacement of mpi4py's ``MPI``, or of an object from it: every use raises an error.

    Args:
        error: the error.
        real: the replaced object, if there is one.
    """

    def __init__(self, error: MpiError, real: object = None) -> None:
        super().__init__(_BINDING)
        self.__dict__["_barred"] = error, real

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python itself looks up such names in modules
            raise AttributeError(name)
        raise self.__dict__["_barred"][0]


def bar_mpi(names: MutableMapping[str, Any], error: MpiError) -> None:
    """Let every import of MPI and every use of ``names`` raise ``error``: MPI would wait for a lost process."""
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
    """Bar MPI within the block, because an import would permanently initialise MPI as a world of one process."""
    bar_mpi({}, error)
    try:
        yield
    finally:
        unbar_mpi()


@contextmanager
def alone_on_this_machine() -> Iterator[None]:
    """Let mpi4py be imported within the block. If that initialises MPI as a world of one process, no port is opened.

    A world of one process also has a file in shared memory. The file is removed, since a killed engine would leave it
    behind. The environment is restored afterwards, because a world of several engines may span machines, and because
    child processes belong to the user.
    """
    given = {name: value for name, value in _ALONE.items() if name not in os.environ}
    os.environ.update(given)
    try:
        yield
        release_memory()
    finally:
        for name in given:
            os.environ.pop(name, None)


def release_memory() -> None:
    """Unlink the memory that the members of a world share, so that it is freed when they end. All must have joined.

    MPI itself removes the file only at a graceful exit, and engines are killed.
    """
    maps = Path("/proc/self/maps")
    for line in maps.read_text().splitlines() if maps.exists() else ():
        path = line[line.find("/") :]
        if path.startswith("/dev/shm/mpich_shm_") and not path.endswith(" (deleted)"):
            with contextlib.suppress(FileNotFoundError):  # another member was first
                os.unlink(path)


def is_initialised() -> bool:
    """Return whether MPI has been initialised in this process through mpi4py."""
    binding = imported(_BINDING)
    if isinstance(binding, BarredMpi):
        binding = binding.__dict__["_barred"][1]
    return binding is not None and bool(binding.Is_initialized())


def mpi_types() -> list[type]:
    """Return the classes of mpi4py, if it has been imported: their objects do not outlive the process."""
    binding = imported(_BINDING)
    if binding is None or isinstance(binding, BarredMpi):
        return []
    return [value for value in vars(binding).values() if isinstance(value, type) and value.__module__ == _BINDING]


class MpiUse:
    """Find out which requests have used MPI: such requests are not replayed when the namespace is recovered.

    Calls to MPI cannot be counted, so this looks at the objects that a request can reach. A cell reaches the names at
    its top level, a call reaches the names in its pickle, and both reach the functions and objects behind those names.
    The search costs nothing before MPI is initialised.

    Args:
        names: the namespace.
    """

    def __init__(self, names: MutableMapping[str, Any]) -> None:
        self._names = names
        self._before = False
        self._words: set[str] = set()

    def begin(self, operation: Operation, payload: Payload | None) -> None:
        """Begin a request: keep the names that it can reach."""
        # Rejected: a wrapper of the communicator that counts calls. Each message would cost a Python call, and compiled
        # libraries do not use the wrapper.
        self._before = is_initialised()
        match operation:
            case Execute(code) if self._before:
                self._words = _top_level_words(code)
            case Apply() if self._before and payload is not None:
                # A pickle contains the names of functions, modules and classes as text.
                self._words = set(_WORD.findall(bytes(payload.data[:_SCANNED_BYTES]).decode("latin-1")))
            case _:
                self._words = set()

    def used(self) -> bool:
        """Return whether the request that began last has used MPI, or may have."""
        if not is_initialised():
            return False
        return not self._before or "mpi4py" in self._words or _Reach(self._names).from_words(self._words)


def _top_level_words(code: str) -> set[str]:
    """Return the names in a cell, without those in bodies of functions that it only defines."""
    try:
        tree = parse_code(code)
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
    """Search of the objects that names of a namespace lead to, each visited once."""

    def __init__(self, names: MutableMapping[str, Any]) -> None:
        self._names = names
        self._seen: set[int] = set()

    def from_words(self, words: set[str]) -> bool:
        """Return whether one of these names, or a module of such a name, holds MPI."""
        return any(self._holds_mpi(found[word]) for found in (self._names, sys.modules) for word in words & {*found})

    def _holds_mpi(self, value: Any) -> bool:
        if _is_mpi(value):
            return True
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        kind = type(value)  # not isinstance, because a proxy would answer for its object
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
    """Return the items of a small container, or the attributes of an object or a module."""
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
