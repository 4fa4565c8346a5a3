"""Digests of definitions: of the classes of ``__main__``, and of plain values.

A definition is the content of a class statement: names, bases, metaclass, the code of methods, annotations, and the
values of attributes. It does not include the place of the statement (file, line), the globals that methods find, or
counters that the class keeps in itself.

Equal digests guarantee equal definitions: a class that refers to an object which cannot be compared (an open file, a
lock) has no digest.
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import inspect
import struct
import types
import typing
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cloudpickle import cloudpickle

from nsactors.protocol.reducers import is_dispatcher

MAX_BYTES = 1_000_000  # a larger definition gets no digest: computing it would take longer than sending the class

# Attributes that the interpreter or a library derives from the others, or that depend on the place of the statement.
_DERIVED = frozenset(
    {
        *("__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__"),
        *("__dict__", "__firstlineno__", "__module__", "__qualname__", "__static_attributes__", "__weakref__"),
        *(
            "__callable_proto_members_only__",
            "__non_callable_proto_members__",
            "__protocol_attrs__",
            "__slotnames__",
            "_abc_impl",
        ),
    }
)
_SCALARS = (int, float, complex, str, bytes, bool, type(None), type(...), type(NotImplemented), range, slice)
_CONTAINERS = (tuple, list, dict, OrderedDict, set, frozenset)
_BUILT_IN = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_TYPE_VARIABLES = frozenset({"TypeVar", "ParamSpec", "TypeVarTuple"})

_digests: weakref.WeakKeyDictionary[type, bytes | None] = weakref.WeakKeyDictionary()


def definition_digest(cls: type) -> bytes | None:
    """Return the digest of a class that travels by value, or None if it has none; computed once per class."""
    try:
        return _digests[cls]
    except KeyError:
        return note_digest(cls, _digest_of(cls))


def note_digest(cls: type, digest: bytes | None) -> bytes | None:
    """Give a class that was made from a pickle the digest of its original."""
    _digests[cls] = digest
    return digest


def value_digest(value: object, max_bytes: int) -> bytes | None:
    """Return a digest that is the same for equal plain values; None for values that are large or cannot be compared."""
    return _digest_of(value, max_bytes)


def _digest_of(value: object, max_bytes: int = MAX_BYTES) -> bytes | None:
    writer = _Writer(max_bytes)
    try:
        writer.write(value)
    except (Exception, SystemExit):  # raised by user code behind attributes of the class
        return None
    return hashlib.blake2b(writer.written, digest_size=16).digest()


class _NoValue(Exception):
    """A value has no written form by which it can be compared."""


class _Writer:
    """Writes values; equal values are written in the same way in every process."""

    def __init__(self, max_bytes: int) -> None:
        self.written = bytearray()
        self._max_bytes = max_bytes
        self._open: dict[int, int] = {}  # the depth of each value being written, to recognise cycles

    def write(self, value: Any) -> None:
        """Write a value; raises an exception of any class if it has no written form."""
        if type(value) in _SCALARS:
            self._put(type(value).__name__, value if isinstance(value, bytes) else str(value))
        elif (depth := self._open.get(id(value))) is not None:
            self._put("again", str(len(self._open) - depth))
        else:
            self._open[id(value)] = len(self._open)
            self._write_parts(value)
            del self._open[id(value)]

    def _put(self, tag: str, content: str | bytes) -> None:
        data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        self.written += struct.pack("<HQ", len(tag), len(data)) + tag.encode() + data
        if len(self.written) > self._max_bytes:
            raise _NoValue

    def _sequence(self, tag: str, values: Iterable[Any]) -> None:
        parts = tuple(values)
        self._put(tag, str(len(parts)))
        for part in parts:
            self.write(part)

    def _mapping(self, items: Iterable[tuple[Any, Any]]) -> None:
        self._sequence("mapping", (part for item in items for part in item))

    def _write_parts(self, value: Any) -> None:
        kind = type(value)
        # Estimate the size before any copy: each part takes at least ten bytes.
        size = len(value) * 10 if kind in _CONTAINERS else getattr(value, "nbytes", 0)
        if isinstance(size, int) and size > self._max_bytes:
            raise _NoValue
        if isinstance(value, type) and kind is not types.GenericAlias:
            if _is_importable(value):
                self._put("known class", f"{value.__module__}.{value.__qualname__}")
            else:
                self._write_class(value)
        elif kind in (tuple, list):
            self._sequence(kind.__name__, value)
        elif kind in (dict, OrderedDict, types.MappingProxyType):
            self._mapping(value.items())
        elif kind in (set, frozenset):
            self._write_set(value)
        elif kind is types.FunctionType:
            self._write_function(value)
        elif kind is types.CodeType:
            self._write_code(value)
        elif kind is types.CellType:
            self._sequence("cell", [] if value == types.CellType() else [value.cell_contents])
        elif kind in (staticmethod, classmethod):
            self._sequence(kind.__name__, [value.__func__])
        elif kind is property:
            self._sequence("property", [value.fget, value.fset, value.fdel, value.__doc__])
        elif kind is functools.cached_property:
            self._sequence("cached property", [value.func, value.attrname])
        elif kind is functools.singledispatchmethod:
            self._sequence("dispatcher", [value.func, value.dispatcher])
        elif kind is functools._lru_cache_wrapper:
            self._sequence("cached", [value.__wrapped__, value.cache_parameters()])
        elif kind is types.ModuleType:
            self._put("module", value.__name__)
        elif kind in _SLOTS:
            self._put("slot", value.__name__)
        elif kind in _BUILT_IN:
            self._put("built-in", f"{getattr(value, '__module__', None)}.{value.__qualname__}")
        elif isinstance(value, enum.Enum):
            self._sequence("member", [kind, value._name_])
        elif kind.__module__ == "typing" and kind.__name__ in _TYPE_VARIABLES:
            about = ("__name__", "__bound__", "__constraints__", "__covariant__", "__contravariant__")
            self._sequence(kind.__name__, [getattr(value, name, None) for name in about])
        elif (origin := typing.get_origin(value)) is not None:
            self._sequence("generic", [origin, *typing.get_args(value)])
        elif kind.__module__ == "typing":
            self._put("typing", repr(value))
        else:
            self._write_object(value)

    def _write_class(self, cls: Any) -> None:
        self._put("class", f"{cls.__module__}.{cls.__qualname__}")
        for base in (type(cls), *cls.__bases__):
            # Write the digest of the base: a base made from a pickle may differ in details from its original.
            if id(base) in self._open or _is_importable(base):
                self.write(base)
            elif (digest := definition_digest(base)) is not None:
                self._put("base", digest)
            else:
                raise _NoValue
        if issubclass(cls, enum.Enum):
            self._mapping((name, member._value_) for name, member in cls.__members__.items())
        self._mapping(_attributes_of(cls))
        self._mapping(inspect.get_annotations(cls).items())

    def _write_set(self, values: Iterable[Any]) -> None:
        written = []
        for value in values:
            writer = _Writer(self._max_bytes)
            writer._open = self._open
            writer.write(value)
            written.append(bytes(writer.written))
        self._put("set", str(len(written)))
        for data in sorted(written):
            self._put("item", data)

    def _write_function(self, function: Any) -> None:
        if _is_importable(function):
            self._put("known function", f"{function.__module__}.{function.__qualname__}")
            return
        if is_dispatcher(function):  # its closure contains a cache of weak references
            self._sequence("dispatcher", [function.__wrapped__, *function.registry.items()])
            return
        about = function.__defaults__, function.__kwdefaults__, function.__annotations__, function.__closure__
        self._sequence("function", [function.__qualname__, function.__code__, *about, function.__dict__])

    def _write_code(self, code: types.CodeType) -> None:
        # Leave out the place of the code: co_filename, co_firstlineno and the line tables.
        numbers = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
        names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
        self._sequence("code", [*numbers, *names, code.co_code, code.co_exceptiontable, code.co_consts])

    def _write_object(self, value: Any) -> None:
        """Write an object as its parts for pickle."""
        reduced: Any = value.__reduce_ex__(4)
        if isinstance(reduced, str):
            self._put("known object", f"{getattr(value, '__module__', type(value).__module__)}.{reduced}")
            return
        make, args, state, items, pairs = (list(reduced) + [None] * 3)[:5]
        self._sequence("object", [make, args, state, list(items or ()), list(pairs or ())])


def _is_importable(value: Any) -> bool:
    if isinstance(value, type) and value in cloudpickle._BUILTIN_TYPE_NAMES:
        return True
    found: bool = cloudpickle._should_pickle_by_reference(value)
    return found


def _attributes_of(cls: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes that belong to the definition of a class, by name."""
    members = cls.__members__ if issubclass(cls, enum.Enum) else {}
    counted = _counted_by(cls)
    for name in sorted(vars(cls)):
        if name in _DERIVED or name in members or (members and name.startswith("_") and name.endswith("_")):
            continue
        yield name, None if name in counted else vars(cls)[name]


def _counted_by(cls: type) -> set[str]:
    """Return the names of counters and similar attributes, which the methods of the class assign on the class itself.

    Their values change with use: two processes that ran the same class statement would soon differ.
    """
    values = {name for name, value in vars(cls).items() if type(value) in _SCALARS and name not in _DERIVED}
    counted: set[str] = set()
    for name, method in vars(cls).items():
        of_class = isinstance(method, classmethod) or name in ("__new__", "__init_subclass__")
        function = method.__func__ if isinstance(method, classmethod | staticmethod) else method
        if isinstance(function, types.FunctionType) and not values.isdisjoint(function.__code__.co_names):
            first = function.__code__.co_varnames[:1] if of_class else ()
            receivers = {cls.__name__, "__class__", *first}
            counted |= values & set(_assigned_on(receivers, function.__code__))
    return counted


def _assigned_on(receivers: set[str], code: types.CodeType) -> Iterator[str]:
    """Yield the attributes that code assigns on ``type(...)`` or on one of the receivers."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "NOP")]
    for at, step in enumerate(steps):
        if step.opname == "STORE_ATTR" and _loads_one_of(receivers, steps, _receiver(steps, at)):
            yield step.argval


def _receiver(steps: Sequence[dis.Instruction], at: int) -> int:
    """Return the index of the step that loads the object on which step ``at`` stores an attribute."""
    if steps[at - 1].opname != "SWAP":
        return at - 1
    name = steps[at].argval  # an augmented assignment copied the object, and loaded the old value from the copy
    pairs = ((i, steps[i - 1].opname) for i in range(at - 1, 1, -1) if steps[i].opname == "LOAD_ATTR")
    return next((i - 2 for i, before in pairs if before == "COPY" and steps[i].argval == name), at - 1)


def _loads_one_of(receivers: set[str], steps: Sequence[dis.Instruction], at: int) -> bool:
    step = steps[at]
    if step.opname == "CALL":
        return any(before.argval == "type" for before in steps[max(0, at - 4) : at])
    loaded = step.argval[-1] if isinstance(step.argval, tuple) else step.argval
    return step.opname.startswith("LOAD_") and loaded in receivers
