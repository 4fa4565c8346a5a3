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
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from nsactors.core.functions import FunctionPickler, Rebuilder, describe_function, make_function, stands_alone
from nsactors.core.remote_value import Kept, RemoteValue
from nsactors.errors.tree import SerializationError

__all__ = ["Buffer", "Payload", "pack", "pack_call", "unpack"]

Buffer = bytes | bytearray | memoryview
Keep = Callable[[str, Any], RemoteValue]

_SMALL_BYTES = 4096
_SIMPLE_ITEMS = 8
_SCALARS = frozenset({int, float, complex, str, bytes, bool, type(None)})
_CALL_MARK = b"call:"  # no pickle begins like this
_SEARCHED_PARTS = 10_000


class Payload(NamedTuple):
    """A pickled value.

    Attributes:
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


def pack(value: object, *, what: str = "value", ref_types: tuple[type, ...] = (), keep: Keep | None = None) -> Payload:
    """Pickle ``value``; functions and classes of ``__main__`` by value.

    Nothing large is copied: buffers are the memory of the arrays in ``value``, so send them before they
    change.

    Args:
        what: what ``value`` is to the user, for errors.
        ref_types: exact types of references that must not be pickled.
        keep: puts aside, by name, what is to stay here.

    Raises:
        SerializationError: if ``value`` cannot be pickled; it says which part of it.
    """
    if _is_simple(value):
        return Payload(pickle.dumps(value, protocol=5))
    buffers: list[memoryview] = []
    refs: list[object] = []
    file = io.BytesIO()
    try:
        _Pickler(file, buffers, refs, ref_types, keep).dump(value)
    except Exception as error:
        raise SerializationError(what, _reason(value, error, ref_types, keep)) from error
    return Payload(file.getvalue(), tuple(buffers), tuple(refs))


def pack_call(
    function: object, args: tuple[Any, ...], kwargs: dict[str, Any], *, what: str, ref_types: tuple[type, ...] = ()
) -> Payload:
    """Pickle ``(function, args, kwargs)``; as :func:`pack`, and quicker for what people call most."""
    # What is simple has no place for a variable that could make it large, but for texts.
    if type(function) is types.FunctionType and _is_simple(args) and _is_simple(kwargs) and stands_alone(function):
        data = _CALL_MARK + pickle.dumps((*describe_function(function), args, kwargs), protocol=5)
        if len(data) < _SMALL_BYTES:
            return Payload(data)
    return pack((function, args, kwargs), what=what, ref_types=ref_types)


def unpack(payload: Payload, *, scope: dict[str, Any] | None = None, copy: bool = False, stays: bool = True) -> Any:
    """The value that ``payload`` holds.

    Args:
        scope: an engine's namespace. Functions and classes of ``__main__`` then belong to it, each ``Reference`` is
            what it names there, and each ``RemoteValue`` the value, brought from where it is.
        copy: make arrays that can be written to. Otherwise they are read-only views of the payload's buffers,
            however small; only arrays of Python objects and subclasses such as masked arrays are copies.
        stays: False for a value that is only used within ``keeping_builtins(scope)``, such as a function to
            call and its arguments: nothing needs to be bound in ``scope`` for it then.

    Raises:
        ObjectLost: if the value of a ``RemoteValue`` is lost.
        Exception: whatever unpickling raises, e.g. ImportError for a module that is missing here.
    """
    data = payload.data
    if len(data) < _SMALL_BYTES and type(data) is bytes and not payload.buffers and not payload.refs:
        if data.startswith(_CALL_MARK):
            code, name, extras, args, kwargs = pickle.loads(memoryview(data)[len(_CALL_MARK) :])
            return make_function(code, name, extras, scope), args, kwargs
        # Surely nothing in it is to be replaced on the way. The plain unpickler takes a third of the time.
        if b"cloudpickle" not in data and b"nsactors" not in data:
            return pickle.loads(data)
    buffers: Iterable[Buffer]
    if copy:
        buffers = (bytearray(buffer) for buffer in payload.buffers)
    else:
        buffers = (memoryview(buffer).toreadonly() for buffer in payload.buffers)
    rebuilder = Rebuilder(scope, stays=stays)
    value = _Unpickler(payload, buffers, rebuilder, scope, copy).load()
    rebuilder.finish()
    return value


def _is_simple(value: object, depth: int = 2) -> bool:
    """Whether ``value`` is a number, a text, or a small container of such: then the plain pickler does."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if not depth or kind not in (tuple, list, dict):
        return False
    parts: Any = value
    if len(parts) > _SIMPLE_ITEMS:
        return False
    for part in parts:
        if not _is_simple(part, depth - 1):
            return False
    return kind is not dict or all(_is_simple(part, depth - 1) for part in parts.values())


class _Pickler(FunctionPickler):
    def __init__(
        self,
        file: io.BytesIO,
        buffers: list[memoryview],
        refs: list[object],
        ref_types: tuple[type, ...],
        keep: Keep | None,
    ) -> None:
        # No persistent_id: asked about every object, a list of ints takes 3.3 times as long.
        table = dict(_reducers(len(copyreg.dispatch_table), "numpy" in sys.modules))

        def set_aside(ref: object) -> tuple[Any, ...]:
            refs.append(ref)
            return _reference, (len(refs) - 1,)

        table.update(dict.fromkeys(ref_types, set_aside))
        if keep is not None:
            table[Kept] = lambda kept: _reduce_remote_value(keep(kept.name, kept.value))
        self.dispatch_table = table
        super().__init__(file, lambda buffer: buffers.append(buffer.raw()))


@lru_cache(maxsize=2)
def _reducers(registered: int, has_numpy: bool) -> dict[type, Any]:
    """How to reduce what pickle does not know; made anew when a reducer has been registered, or NumPy imported.

    A flat table: cloudpickle's is a ChainMap, searched in Python, and 2.5 times as slow for many small objects.
    """
    table: dict[type, Any] = {RemoteValue: _reduce_remote_value}
    for part in reversed(FunctionPickler.dispatch_table.maps):
        table.update(part)
    if has_numpy:
        table[sys.modules["numpy"].ndarray] = _reduce_array
    return table


class _Reader:
    """A pickle as a file, read frame by frame. ``io.BytesIO`` begins with a copy of what is not bytes."""

    def __init__(self, data: Buffer) -> None:
        self._data = memoryview(data)
        self._position = 0

    def read(self, size: int) -> bytes:
        return bytes(self._take(size))

    def readinto(self, target: memoryview) -> int:
        part = self._take(len(target))
        target[: len(part)] = part
        return len(part)

    def readline(self) -> bytes:
        raise pickle.UnpicklingError("protocol 5 has no lines")

    def _take(self, size: int) -> memoryview:
        start, self._position = self._position, self._position + size
        return self._data[start : self._position]


class _Unpickler(pickle.Unpickler):
    def __init__(
        self,
        payload: Payload,
        buffers: Iterable[Buffer],
        rebuilder: Rebuilder,
        scope: dict[str, Any] | None,
        copy: bool,
    ) -> None:
        super().__init__(_Reader(payload.data), buffers=buffers)
        self._refs = payload.refs
        self._rebuilder = rebuilder
        self._scope = scope
        self._copy = copy

    def find_class(self, module: str, name: str) -> Any:
        # Nothing that leads back to this unpickler: its memo would keep all it made until it is collected.
        if module == __name__:
            if name == "_reference":
                return self._refs.__getitem__
            if name == "_remote_value" and self._scope is not None:
                return functools.partial(_brought_here, scope=self._scope, copy=self._copy)
        if self._copy and name == "_frombuffer" and module.startswith("numpy."):
            return functools.partial(_make_writable, super().find_class(module, name))
        return self._rebuilder.replacement(module, name) or super().find_class(module, name)


def _reference(index: int) -> object:
    raise pickle.UnpicklingError(f"reference {index} is beside the pickle: use unpack()")


def _reduce_remote_value(value: RemoteValue) -> Any:
    return _remote_value, (value.stored, value.name, value.engine_id, value.call, value.type_name, value.nbytes)


def _remote_value(*fields: Any) -> RemoteValue:
    return RemoteValue(*fields)


def _brought_here(*fields: Any, scope: dict[str, Any], copy: bool) -> Any:
    return unpack(_remote_value(*fields).load(), scope=scope, copy=copy)


def _reduce_array(array: Any) -> Any:
    """As NumPy, and out of band also where it copies into the pickle: strided arrays, dates, time spans."""
    if array.dtype.kind in "mM":
        return _as_dtype, (array.view("i8"), array.dtype)
    if not array.dtype.hasobject and not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = array.copy()
    return array.__reduce_ex__(5)


def _make_writable(make_array: Callable[..., Any], buffer: Any, *rest: Any) -> Any:
    # Where an array was read-only its pickle says so, and lays a read-only view over the copy that was made for it.
    return make_array(buffer.obj if isinstance(buffer, memoryview) else buffer, *rest)


def _as_dtype(array: Any, dtype: Any) -> Any:
    return array.view(dtype)


def _reason(value: object, error: Exception, ref_types: tuple[type, ...], keep: Keep | None) -> str:
    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        return "it is nested too deeply"
    path, culprit, error = _find_culprit(value, error, ref_types, keep)
    if isinstance(culprit, types.GeneratorType):
        text = "a generator cannot be copied, make a list of it with list(...)"
    else:
        text = str(error) or type(error).__name__
    return f"at {path}: {text}" if path else text


def _find_culprit(
    value: object, error: Exception, ref_types: tuple[type, ...], keep: Keep | None
) -> tuple[str, object, Exception]:
    """The innermost part of ``value`` that cannot be pickled: the way there, itself, and its error."""
    path = ""
    seen: set[int] = set()
    while id(value) not in seen:
        seen.add(id(value))
        for step, part in itertools.islice(_parts(value), _SEARCHED_PARTS):
            if id(part) in seen:
                continue
            try:
                _Pickler(io.BytesIO(), [], [], ref_types, keep).dump(part)
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
