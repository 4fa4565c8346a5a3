"""Serialisation of values: pickles with out-of-band buffers, and handles on stored values.

`pack` turns a value into a `Payload`, `unpack` restores it. Functions and classes of ``__main__`` travel by value; the
memory of arrays travels beside the pickle. A `RemoteValue` stands for a value that an engine has stored.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import io
import itertools
import pickle
import reprlib
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, cast

from nsactors.errors.exception_state import cause_of, name_of, text_of
from nsactors.errors.exceptions import ObjectLost, SerializationError
from nsactors.errors.formatting import bytes_in_words
from nsactors.protocol.functions import FunctionPickler, Rebuilder, describe_function, make_function, stands_alone
from nsactors.protocol.process import imported
from nsactors.protocol.reducers import library_types, names_its_class, reduce_by_type, refuse_library

if TYPE_CHECKING:
    from nsactors.protocol.engine_info import StoreMemory


class ObjectGone(Exception):
    """A stored object is not available any more; the text says why."""


class StoredObject(Protocol):
    """A payload in the store of an engine; it can be loaded in every process that it is sent to."""

    def load(self) -> Payload:
        """Return the payload, fetching it if it is elsewhere.

        Raises:
            ObjectGone: if it is not available any more.
        """
        ...


class ObjectStore(Protocol):
    """The store in which an engine puts values that it need not send."""

    @property
    def ref_types(self) -> tuple[type, ...]:
        """Classes of references to stored objects, which travel beside payloads and not in them."""
        ...

    def put(self, payload: Payload) -> StoredObject:
        """Store a payload for as long as the returned object is referenced anywhere, and this engine lives."""
        ...

    def memory(self) -> StoreMemory | None:
        """Return the use of the store of this node; None if there is no store, or its use is unknown."""
        ...


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RemoteValue:
    """A value stored by an engine: the result of ``view.pull("a", as_ref=True)`` in place of the value itself.

    Push it to other engines, or pass it anywhere inside the arguments of a call: it arrives as the value, which travels
    from engine to engine and not through the client. It is the value at the time of the pull, even if the name is later
    bound to another value. It lives as long as its engine and the references to it. Arrays of more than 1 MiB arrive as
    read-only views of one copy per node, unless the push or call has ``copy=True``; other values belong to the
    receiver.

    Attributes:
        stored: the object in the store.
        name: the name or expression that was pulled.
        engine_id: the engine that stores it; None for a value that a client has stored.
        call: the call that made it, e.g. ``pull(a)``.
        type_name: the class of the value.
        nbytes: its pickled size, with arrays.

    Example:
        >>> a = rc[0].pull("a", as_ref=True, block=True)
        >>> a
        <RemoteValue 'a' on engine 0: numpy.ndarray, 80 MB>
        >>> rc[1:].push({"b": a}, block=True)
        >>> rc[1].apply_sync(lambda array: array.sum(), a)
        10000000.0
    """

    stored: StoredObject
    name: str
    engine_id: int | None
    call: str
    type_name: str
    nbytes: int

    def get(self, *, copy: bool = False) -> Any:
        """Fetch the value.

        Args:
            copy: make arrays of every size writable.

        Raises:
            ObjectLost: if the engine that stored it is lost.
        """
        from nsactors.protocol import arguments as arg  # imports this module

        arg.check("get", copy=arg.flag(copy))
        return unpack(self.load(), copy=bool(copy))

    def load(self) -> Payload:
        """Return the value as it was stored. The errors are those of :meth:`get`."""
        try:
            return self.stored.load()
        except ObjectGone as gone:
            raise ObjectLost(self.name, self.engine_id, self.call, str(gone)) from None

    def __repr__(self) -> str:
        where = "here" if self.engine_id is None else f"on engine {self.engine_id}"
        return f"<RemoteValue {self.name!r} {where}: {self.type_name}, {bytes_in_words(self.nbytes)}>"

    def __reduce__(self) -> NoReturn:
        # In another pickle, the store would not see the reference, and would drop the object.
        raise TypeError(
            "a RemoteValue is pickled only as part of a call: give it to push(), apply() or map() of a view, "
            "or take its value with get()"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A result that stays in the store of its engine; see :func:`keep`."""

    value: Any
    name: str

    def __reduce__(self) -> NoReturn:
        raise TypeError("keep() is for results of functions that run on an engine")


def keep(value: object, name: str = "result") -> Any:
    """Store a result on its engine: the caller gets a :class:`RemoteValue` in its place.

    The result of ``keep`` may be anywhere inside the returned value.

    Args:
        value: any value that can be pickled.
        name: a name for the value, shown in its repr and in errors.

    Example:
        >>> parts = rc[:].apply_sync(lambda: [keep([1, 2, 3]), keep([4])])
        >>> rc[0].apply_sync(sum, parts[1][0])
        6
    """
    from nsactors.protocol import arguments as arg  # imports this module

    arg.check("keep", name=arg.text(name))
    return Kept(value, name)


Buffer = bytes | bytearray | memoryview
Keep = Callable[[str, Any], RemoteValue]
Steps = Sequence[str]
Naming = Callable[[Steps], tuple[str, Steps]]

OWN_BYTES = 1 << 20
"""Arrays up to this size arrive as writable copies; larger ones as read-only views, unless copies are requested.

Copying this much takes 24 us, and sending it 3 ms. Larger copies cost more per byte, because they need fresh memory.
"""

_SMALL_BYTES = 4096
_SIMPLE_ITEMS = 8
_SCALARS = frozenset({int, float, complex, str, bytes, bool, type(None)})
_SIMPLE_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)
_CALL_MARK = b"call:"  # no pickle starts with these bytes
_SEARCHED_PARTS = 10_000
_VARIABLE = "variable "  # prefix of a step that leads from a function to a variable that it uses


class Payload(NamedTuple):
    """A pickled value.

    Attributes:
        data: the pickle, without the parts beside it.
        buffers: contiguous memory of arrays, in order; after :func:`pack`, the memory of the arrays themselves, not a
            copy.
        refs: references to stored objects inside the value, in order, because a transport must know them.
    """

    data: bytes
    buffers: tuple[Buffer, ...] = ()
    refs: tuple[object, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of data and buffers in bytes."""
        return sum(memoryview(part).nbytes for part in (self.data, *self.buffers))

    def copied(self) -> Payload:
        """Return a copy of the payload with buffers of its own."""
        return self._replace(data=bytes(self.data), buffers=tuple(map(bytes, self.buffers)))


def pack(
    value: object, *, what: str | Naming = "value", ref_types: tuple[type, ...] = (), keep: Keep | None = None
) -> Payload:
    """Pickle ``value``; functions and classes of ``__main__`` by value.

    Nothing large is copied: buffers are the memory of the arrays in ``value``, so send them before the arrays change.

    Args:
        value: the value.
        what: the name of ``value`` for errors; or a function that gets the steps from ``value`` to the part that cannot
            be pickled. It returns a name for one of the parts on that way, and the remaining steps from that part on.
        ref_types: exact types of references that must not be pickled.
        keep: stores, by name, results that stay on this engine.

    Raises:
        SerializationError: if ``value`` cannot be pickled; the error names the part.
    """
    if _is_simple(value):
        return Payload(pickle.dumps(value, protocol=5))
    try:
        return _pack_with(_Pickler, value, ref_types, keep)
    except KeyboardInterrupt:  # most likely the user pressed Ctrl-C; the caller on an engine decides
        raise
    except BaseException:  # a class may raise SystemExit in its `__reduce__`
        return _pack_by_type(value, what, ref_types, keep)


def _pack_by_type(value: object, what: str | Naming, ref_types: tuple[type, ...], keep: Keep | None) -> Payload:
    """Pickle a value that the usual pickler refuses; if this fails too, raise an error that names the part."""
    try:
        return _pack_with(_ByTypePickler, value, ref_types, keep)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        steps, reason = _reason(value, error, ref_types, keep)
        name, left = (what, steps) if isinstance(what, str) else what(steps)
        raise SerializationError(name, f"{_way(left)}: {reason}" if left else reason) from error


def _pack_with(make_pickler: type[_Pickler], value: object, ref_types: tuple[type, ...], keep: Keep | None) -> Payload:
    buffers: list[memoryview] = []
    refs: list[object] = []
    file = io.BytesIO()
    make_pickler(file, buffers, refs, ref_types, keep).dump(value)
    return Payload(file.getvalue(), tuple(buffers), tuple(refs))


def pack_call(
    function: object, args: tuple[Any, ...], kwargs: dict[str, Any], *, name: str, ref_types: tuple[type, ...] = ()
) -> Payload:
    """Pickle ``(function, args, kwargs)`` as :func:`pack` does, with a fast path for the most common calls.

    Args:
        function: the function.
        args: its arguments.
        kwargs: its keyword arguments.
        name: the name of the function, for errors; they name the argument that cannot be pickled.
        ref_types: exact types of references that must not be pickled.
    """
    # Simple arguments cannot be large, except for texts: hence the test of the size below.
    if type(function) in _SIMPLE_FUNCTIONS and _is_simple(args) and _is_simple(kwargs):
        data = b""
        if type(function) is types.FunctionType:
            if stands_alone(function):
                data = _CALL_MARK + pickle.dumps((*describe_function(function), args, kwargs), protocol=5)
        elif type(cast(Any, function).__self__) is types.ModuleType:  # such as `abs`, which is pickled by its name
            with contextlib.suppress(Exception):  # another pickler names the reason
                data = pickle.dumps((function, args, kwargs), protocol=5)
        if 0 < len(data) < _SMALL_BYTES:
            return Payload(data)
    return pack((function, args, kwargs), what=functools.partial(_part_of_call, name), ref_types=ref_types)


def _part_of_call(name: str, steps: Steps) -> tuple[str, Steps]:
    match steps:
        case ["[0]", *rest]:
            return f"the function {name}", rest
        case ["[1]", place, *rest]:
            return f"argument {int(place[1:-1]) + 1} of {name}", rest
        case ["[2]", key, *rest]:
            return f"argument {key[1:-1]} of {name}", rest
    return f"the call to {name}", steps


def pack_whole(value: object, limit_bytes: int) -> bytes:
    """Pickle ``value`` with the memory of its arrays into one ``bytes`` object, which ``pickle.loads`` loads.

    Raises:
        ValueError: if it takes more than ``limit_bytes``; memory beyond the limit is not copied.
        BaseException: any exception that pickling raises.
    """
    file = BoundedFile(limit_bytes)
    try:
        _Pickler(file, None, [], (), None).dump(value)
    except ValueError:
        raise
    except Exception:
        file = BoundedFile(limit_bytes)
        _ByTypePickler(file, None, [], (), None).dump(value)
    return file.getvalue()


def pack_small(value: object, what: str, limit_bytes: int = 1_000_000) -> bytes:
    """Pickle the user's object that is part of a description, such as a function.

    Raises:
        SerializationError: if it cannot be pickled, or takes more than ``limit_bytes``.
    """
    pack(value, what=what)  # called for its error, which names the part that cannot be pickled
    try:
        return pack_whole(value, limit_bytes)
    except ValueError as error:
        raise SerializationError(what, str(error)) from None


class BoundedFile(io.BytesIO):
    """A file in memory that refuses data beyond a limit with a ValueError, and does not copy that data.

    Args:
        limit_bytes: its largest size.
    """

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self._limit_bytes = limit_bytes

    def write(self, data: Any) -> int:
        """Append data."""
        if self.tell() + memoryview(data).nbytes > self._limit_bytes:
            raise ValueError(f"it takes more than {bytes_in_words(self._limit_bytes)}")
        return super().write(data)


def unpack(payload: Payload, *, scope: dict[str, Any] | None = None, copy: bool = False, stays: bool = True) -> Any:
    """Return the value of a payload.

    Args:
        payload: the payload.
        scope: the namespace of an engine. Functions and classes of ``__main__`` then belong to it. Each ``Reference``
            becomes the value of its expression in this namespace, and each ``RemoteValue`` becomes its value, which is
            fetched from its engine.
        copy: make all arrays writable. Otherwise arrays of more than ``OWN_BYTES`` are read-only views of the payload's
            buffers, except arrays of Python objects and subclasses such as masked arrays.
        stays: False for a value that is only used within ``keeping_builtins(scope)``, such as a function to call and
            its arguments; no names are then bound in ``scope`` for it.

    Raises:
        ObjectLost: if the value of a ``RemoteValue`` is lost.
        Exception: any exception that unpickling raises, e.g. ImportError for a module that is missing here.
    """
    data = payload.data
    if len(data) < _SMALL_BYTES and type(data) is bytes and not payload.buffers and not payload.refs:
        if data.startswith(_CALL_MARK):
            code, name, extras, args, kwargs = pickle.loads(memoryview(data)[len(_CALL_MARK) :])
            return make_function(code, name, extras, scope), args, kwargs
        # The pickle contains nothing to replace. The plain unpickler takes a third of the time.
        if b"cloudpickle" not in data and b"nsactors" not in data:
            return pickle.loads(data)
    rebuilder = Rebuilder(scope, stays=stays)
    value = _PayloadUnpickler(payload, received(payload.buffers, copy=copy), rebuilder, scope, copy).load()
    rebuilder.finish()
    return value


def received(buffers: Iterable[Buffer], *, copy: bool) -> Iterator[Buffer]:
    """Yield memory for the receiver: copies of small buffers, or of all if ``copy``; read-only views of the others."""
    for buffer in buffers:
        view = memoryview(buffer)
        yield bytearray(view) if copy or view.nbytes <= OWN_BYTES else view.toreadonly()


def class_finder(
    payload: Payload, *, scope: dict[str, Any] | None, copy: bool
) -> tuple[Callable[[str, str], Any], Callable[[], object]]:
    """Return the ``find_class`` for another unpickler of a payload, and a function to call when it has finished."""
    rebuilder = Rebuilder(scope, stays=True)
    return _PayloadUnpickler(payload, (), rebuilder, scope, copy).find_class, rebuilder.finish


def _is_simple(value: object, depth: int = 2) -> bool:
    """Return whether ``value`` is a number, a text, or a small container of these: the plain pickler can take it."""
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
        buffers: list[memoryview] | None,
        refs: list[object],
        ref_types: tuple[type, ...],
        keep: Keep | None,
    ) -> None:
        # No persistent_id: it is called for every object, and a list of ints takes 3.3 times as long.
        table = dict(_reducers(len(copyreg.dispatch_table), imported("numpy"), imported("ctypes")))

        def set_aside(ref: object) -> tuple[Any, ...]:
            refs.append(ref)
            return _reference, (len(refs) - 1,)

        table.update(dict.fromkeys(ref_types, set_aside))
        if keep is not None:
            table[Kept] = lambda kept: _reduce_remote_value(keep(kept.name, kept.value))
        self.dispatch_table = table
        super().__init__(file, None if buffers is None else lambda buffer: buffers.append(buffer.raw()))


class _ByTypePickler(_Pickler):
    """Also pickles objects whose ``__class__`` is not their type.

    It examines every object in Python, which is slow, so it is used only where the usual pickler has failed.
    """

    def reducer_override(self, obj: Any) -> Any:
        return reduce_by_type(obj) if names_its_class(type(obj)) else super().reducer_override(obj)


@lru_cache(maxsize=2)
def _reducers(registered: int, numpy: Any, ctypes: Any) -> dict[type, Any]:
    """Return reducers for types that pickle does not know; cached until a reducer or one of these modules is added.

    The table is flat: cloudpickle's is a ChainMap, which is searched in Python and 2.5 times slower for many small
    objects.
    """
    table: dict[type, Any] = {RemoteValue: _reduce_remote_value}
    for part in reversed(FunctionPickler.dispatch_table.maps):
        table.update(part)
    if numpy is not None:
        table[numpy.ndarray] = _reduce_array
    if ctypes is not None:
        table.update(dict.fromkeys(library_types(), refuse_library))
    return table


class _PickleReader:
    """A pickle as a file, read frame by frame. ``io.BytesIO`` would first copy a buffer that is not ``bytes``."""

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


class _PayloadUnpickler(pickle.Unpickler):
    def __init__(
        self,
        payload: Payload,
        buffers: Iterable[Buffer],
        rebuilder: Rebuilder,
        scope: dict[str, Any] | None,
        copy: bool,
    ) -> None:
        super().__init__(_PickleReader(payload.data), buffers=buffers)
        self._refs = payload.refs
        self._rebuilder = rebuilder
        self._scope = scope
        self._copy = copy

    def find_class(self, module: str, name: str) -> Any:
        # Return no bound methods of this unpickler: its memo would refer to it, and that cycle would keep every object
        # that it made until a garbage collection.
        if module == __name__:
            if name == "_reference":
                return self._refs.__getitem__
            if name == "_remote_value" and self._scope is not None:
                return functools.partial(_brought_here, scope=self._scope, copy=self._copy)
        if name == "_frombuffer" and module.startswith("numpy."):
            return functools.partial(_make_array, super().find_class(module, name), self._copy)
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
    """Reduce an array like NumPy, but put strided arrays and dates out of band, which NumPy copies into the pickle."""
    if array.dtype.kind in "mM":
        return _as_dtype, (array.view("i8"), array.dtype)
    if not array.dtype.hasobject and not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = array.copy()
    return array.__reduce_ex__(5)


def _make_array(make_array: Callable[..., Any], copy: bool, buffer: Any, *rest: Any) -> Any:
    # The pickle of a read-only array, such as a part of a large array that arrived, makes a read-only view of the copy.
    # But the copy belongs to the receiver, so return writable memory.
    if isinstance(buffer, memoryview) and (copy or buffer.nbytes <= OWN_BYTES):
        buffer = buffer.obj
    return make_array(buffer, *rest)


def _as_dtype(array: Any, dtype: Any) -> Any:
    return array.view(dtype)


def _reason(
    value: object, error: BaseException, ref_types: tuple[type, ...], keep: Keep | None
) -> tuple[list[str], str]:
    """Return the steps to the part that cannot be pickled, and the reason."""
    if issubclass(type(error), RecursionError) or issubclass(type(cause_of(error)), RecursionError):
        return [], "it is nested too deeply"
    steps, culprit, error = _find_culprit(value, error, ref_types, keep)
    if type(culprit) is types.GeneratorType:
        return steps, "a generator cannot be copied: make a list of it with list(...)"
    if why := _why_unsendable(culprit):
        return steps, why
    return steps, text_of(error) or name_of(type(error))


def _way(steps: Steps) -> str:
    """Describe steps in words: ``at [1].args``, or ``in its variable 'x'`` for a function."""
    words: list[str] = []
    for step in steps:
        if step.startswith(_VARIABLE):
            words.append(f"in its variable {step.removeprefix(_VARIABLE)!r}")
        elif words and words[-1].startswith("at "):
            words[-1] += step
        else:
            words.append(f"at {step}")
    return ", ".join(words)


def _find_culprit(
    value: object, error: BaseException, ref_types: tuple[type, ...], keep: Keep | None
) -> tuple[list[str], object, BaseException]:
    """Return the innermost part of ``value`` that cannot be pickled: the steps to it, the part, and its error."""
    steps: list[str] = []
    seen: set[int] = set()
    while id(value) not in seen:
        seen.add(id(value))
        try:
            parts = [*itertools.islice(_parts(value), _SEARCHED_PARTS)]
        except Exception:  # raised by the user's code behind an attribute
            break
        for step, part in parts:
            if id(part) in seen:
                continue
            try:
                _ByTypePickler(io.BytesIO(), [], [], ref_types, keep).dump(part)
            except KeyboardInterrupt:
                raise
            except BaseException as part_error:
                value, error = part, part_error
                steps.append(step)
                break
    return steps, value, error


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """Yield the parts of ``value``, with the source text that leads to each."""
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
            yield from ((f"{_VARIABLE}{name}", item) for name, item in _used_names(value).items())
        case types.ModuleType() | type():
            return
        case _ if type(value) in library_types() or _why_unsendable(value):
            return
        case _:
            yield from ((f".{name}", item) for name, item in getattr(value, "__dict__", {}).items())


def _why_unsendable(value: object) -> str:
    """Return the reason in ``_why_unsendable`` of a class whose objects are never sent; empty for other classes."""
    return next((why for cls in type(value).__mro__ if type(why := vars(cls).get("_why_unsendable")) is str), "")


def _used_names(function: types.FunctionType) -> dict[str, object]:
    """Return the globals and the variables of outer functions that ``function`` uses."""
    code = function.__code__
    used = {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not yet bound
            used[name] = cell.cell_contents
    return used
