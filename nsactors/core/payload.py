"""Values as they travel: pickled once, with the memory of arrays and object-store references kept apart."""

from __future__ import annotations

import contextlib
import copyreg
import functools
import io
import itertools
import pickle
import reprlib
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from nsactors.core.functions import FunctionPickler, Rebuilder
from nsactors.errors.tree import SerializationError

__all__ = ["Buffer", "Payload", "pack", "unpack"]

Buffer = bytes | bytearray | memoryview

_SMALL_BYTES = 4096
_SEARCHED_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class Payload:
    """A pickled value.

    Args:
        data: the pickle, less what is beside it.
        buffers: contiguous memory of arrays, in order; after :func:`pack` it is theirs, not a copy.
        refs: references to objects in a store that the value holds, in order; here a transport can see them.
    """

    data: bytes
    buffers: tuple[Buffer, ...] = ()
    refs: tuple[object, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of data and buffers in bytes."""
        return sum(memoryview(part).nbytes for part in (self.data, *self.buffers))


def pack(value: object, *, what: str = "value", ref_types: tuple[type, ...] = ()) -> Payload:
    """Pickle ``value``; functions and classes of ``__main__`` by value.

    Nothing large is copied: buffers are the memory of the arrays in ``value``, so send them before they
    change.

    Args:
        what: what ``value`` is to the user, for errors.
        ref_types: exact types of references that must not be pickled.

    Raises:
        SerializationError: if ``value`` cannot be pickled; it says which part of it.
    """
    buffers: list[memoryview] = []
    refs: list[object] = []
    file = io.BytesIO()
    try:
        _Pickler(file, buffers, refs, ref_types).dump(value)
    except Exception as error:
        raise SerializationError(what, _reason(value, error, ref_types)) from error
    return Payload(file.getvalue(), tuple(buffers), tuple(refs))


def unpack(payload: Payload, *, scope: dict[str, Any] | None = None, copy: bool = False, stays: bool = True) -> Any:
    """The value that ``payload`` holds.

    Args:
        scope: an engine's namespace. Functions and classes of ``__main__`` then belong to it, and each
            ``Reference`` is what it names there.
        copy: make arrays that can be written to. Otherwise they are read-only views of the payload's buffers,
            however small; only arrays of Python objects and subclasses such as masked arrays are copies.
        stays: False for a value that is only used within ``keeping_builtins(scope)``, such as a function to
            call and its arguments: nothing needs to be bound in ``scope`` for it then.

    Raises:
        Exception: whatever unpickling raises, e.g. ImportError for a module that is missing here.
    """
    if not payload.buffers and not payload.refs and _is_plain(payload.data):
        return pickle.loads(payload.data)
    buffers: Iterable[Buffer]
    if copy:
        buffers = (bytearray(buffer) for buffer in payload.buffers)
    else:
        buffers = (memoryview(buffer).toreadonly() for buffer in payload.buffers)
    rebuilder = Rebuilder(scope, stays=stays)
    value = _Unpickler(payload, buffers, rebuilder).load()
    rebuilder.finish()
    return value


def _is_plain(data: Buffer) -> bool:
    """Whether a small pickle surely names nothing that is to be replaced on the way: numbers, texts, containers.

    The plain unpickler takes a third of the time.
    """
    return type(data) is bytes and len(data) < _SMALL_BYTES and b"cloudpickle" not in data and b"nsactors" not in data


class _Pickler(FunctionPickler):
    def __init__(
        self, file: io.BytesIO, buffers: list[memoryview], refs: list[object], ref_types: tuple[type, ...]
    ) -> None:
        # No persistent_id: asked about every object, a list of ints takes 3.3 times as long.
        table = dict(_reducers(len(copyreg.dispatch_table), "numpy" in sys.modules))

        def set_aside(ref: object) -> tuple[Any, ...]:
            refs.append(ref)
            return _reference, (len(refs) - 1,)

        table.update(dict.fromkeys(ref_types, set_aside))
        self.dispatch_table = table
        super().__init__(file, lambda buffer: buffers.append(buffer.raw()))


@lru_cache(maxsize=2)
def _reducers(registered: int, has_numpy: bool) -> dict[type, Any]:
    """How to reduce what pickle does not know; made anew when a reducer has been registered, or NumPy imported.

    A flat table: cloudpickle's is a ChainMap, searched in Python, and 2.5 times as slow for many small objects.
    """
    table: dict[type, Any] = {}
    for part in reversed(FunctionPickler.dispatch_table.maps):
        table.update(part)
    if has_numpy:
        table[sys.modules["numpy"].ndarray] = _reduce_array
    return table


class _Unpickler(pickle.Unpickler):
    def __init__(self, payload: Payload, buffers: Iterable[Buffer], rebuilder: Rebuilder) -> None:
        super().__init__(io.BytesIO(payload.data), buffers=buffers)
        self._refs = payload.refs
        self._rebuilder = rebuilder

    def find_class(self, module: str, name: str) -> Any:
        # Nothing that leads back to this unpickler: its memo would keep all it made until it is collected.
        if (module, name) == (__name__, "_reference"):
            return self._refs.__getitem__
        return self._rebuilder.replacement(module, name) or super().find_class(module, name)


def _reference(index: int) -> object:
    raise pickle.UnpicklingError(f"reference {index} is beside the pickle: use unpack()")


def _reduce_array(array: Any) -> Any:
    """As NumPy, and out of band also where it copies into the pickle: strided arrays, dates, time spans."""
    if array.dtype.kind in "mM":
        return _as_dtype, (array.view("i8"), array.dtype)
    if not array.dtype.hasobject and not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = array.copy()
    return array.__reduce_ex__(5)


def _as_dtype(array: Any, dtype: Any) -> Any:
    return array.view(dtype)


def _reason(value: object, error: Exception, ref_types: tuple[type, ...]) -> str:
    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        return "it is nested too deeply"
    path, culprit, error = _find_culprit(value, error, ref_types)
    if isinstance(culprit, types.GeneratorType):
        text = "a generator cannot be copied, make a list of it with list(...)"
    else:
        text = str(error) or type(error).__name__
    return f"at {path}: {text}" if path else text


def _find_culprit(value: object, error: Exception, ref_types: tuple[type, ...]) -> tuple[str, object, Exception]:
    """The innermost part of ``value`` that cannot be pickled: the way there, itself, and its error."""
    path = ""
    seen: set[int] = set()
    while id(value) not in seen:
        seen.add(id(value))
        for step, part in itertools.islice(_parts(value), _SEARCHED_PARTS):
            if id(part) in seen:
                continue
            try:
                _Pickler(io.BytesIO(), [], [], ref_types).dump(part)
            except Exception as part_error:
                path, value, error = path + step, part, part_error
                break
    return path, value, error


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What ``value`` holds, with the text that leads there."""
    match value:
        case dict():
            yield from ((f"[{reprlib.repr(key)}]", item) for key, item in value.items())
        case list() | tuple() | set() | frozenset():
            yield from ((f"[{i}]", item) for i, item in enumerate(value))
        case functools.partial():
            yield from ((f".{name}", getattr(value, name)) for name in ("func", "args", "keywords"))
        case types.MethodType():
            yield ".__self__", value.__self__
        case types.FunctionType():
            yield from ((f".<{name}>", item) for name, item in _used_names(value).items())
        case types.ModuleType() | type():
            return
        case _:
            yield from ((f".{name}", item) for name, item in getattr(value, "__dict__", {}).items())


def _used_names(function: types.FunctionType) -> dict[str, object]:
    """Globals and variables of outer functions that ``function`` uses."""
    code = function.__code__
    used = {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not yet bound
            used[name] = cell.cell_contents
    return used
