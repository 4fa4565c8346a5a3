"""Components of a namespace: the parts that can be pickled apart without splitting shared objects.

Names belong together if they share an object that can change. The memo of the pickler that pickled a name lists the
objects that the name reaches, so no other search is needed: each name is pickled alone, and names whose memos have
objects in common are pickled once more, together.

Two kinds of objects would join nearly all names in one component:

* Functions and classes of ``__main__``, and other definitions. A definition that is bound to a name is a component of
  its own, and other components refer to it by that name. Only definitions that refer to each other in a circle are
  pickled together.
* Immutable objects: texts, numbers, tuples, an index of pandas. Each component has its own copy.

Arrays that overlap in memory overlap again after loading, if they are bound to names, or held by lists, tuples,
dictionaries and objects of the user's classes. Nothing inside a pandas table is shared: pandas counts references to its
memory, so that it copies before it writes, and these counts would not be restored.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import gc
import heapq
import io
import itertools
import logging
import operator
import pathlib
import pickle
import re
import sys
import typing
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from nsactors.errors.formatting import with_article
from nsactors.namespace.mpi_guard import mpi_types
from nsactors.protocol.functions import FunctionPickler, Rebuilder
from nsactors.protocol.reducers import is_importable, library_types
from nsactors.protocol.serialize import Payload
from nsactors.recovery.journal import SnapshotPart

_LARGE_BYTES = 64 * 1024  # larger objects are not copied into each component, even immutable ones
_MOST_REPEATED = 10_000  # objects that are pickled again for each name that reaches them, before names are pruned
_SCALARS = frozenset({int, float, complex, bool, type(None)})
_TEXTS = frozenset({str, bytes})
_UNCHANGING = frozenset({*_SCALARS, *_TEXTS, tuple, frozenset, range, slice, CodeType, BuiltinFunctionType, re.Pattern})
_UNCHANGING_KINDS: tuple[type, ...] = (
    type,
    FunctionType,
    ModuleType,
    enum.Enum,
    decimal.Decimal,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
    pathlib.PurePath,
    logging.Logger,  # restored by its name
)
_UNCHANGING_ELSEWHERE = (
    ("numpy", "generic"),
    ("numpy", "dtype"),
    ("numpy", "ufunc"),
    ("pandas.api.extensions", "ExtensionDtype"),
)
_DEFINITIONS = (
    FunctionType,
    type,
    type(functools.lru_cache(len)),
    typing.NewType,
    typing.TypeVar,
    typing.ParamSpec,
    typing.TypeVarTuple,
)
_CONTAINERS = list, tuple, dict, deque, SimpleNamespace
_DICTIONARIES: tuple[dict[Any, Any], ...] = ({}, OrderedDict())
_VIEWS = (MappingProxyType, *(type(v) for d in _DICTIONARIES for v in (d.keys(), d.values(), d.items())))
_REFUSED = (io.TextIOWrapper, weakref.ProxyType, weakref.CallableProxyType)


def pack_components(
    scope: dict[str, Any], values: Mapping[str, Any], ref_types: tuple[type, ...] = ()
) -> tuple[tuple[SnapshotPart, ...], dict[str, str]]:
    """Pickle values by component, in an order in which the components can be loaded.

    Nothing large is copied: buffers are the memory of the user's arrays, so write the buffers before the arrays change.

    Args:
        scope: the namespace; its functions are pickled without the names that they use.
        values: the values by name.
        ref_types: classes of references to an object store.

    Returns:
        The components; and for each name that is in no component, the reason.
    """
    with _collecting_no_garbage():
        return _Packer(scope, values, ref_types).pack()


@contextmanager
def _collecting_no_garbage() -> Iterator[None]:
    """Disable garbage collection: the memos of 300,000 objects trigger collections that take longer than pickling."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def load_part(
    part: SnapshotPart, scope: dict[str, Any], loaded: Mapping[str, Any], *, copy: bool = True
) -> dict[str, Any]:
    """Load a component; return its values by name. Arrays are writable if they were writable when they were pickled.

    Args:
        part: the component.
        scope: the namespace of its functions and classes.
        loaded: the values loaded so far; names of ``__main__`` are looked up there, not in this process's ``__main__``.
        copy: False if arrays may use the memory of the component's buffers.

    Raises:
        BaseException: any error of the user's classes; ``UnpicklingError`` if a name that it needs is missing.
    """
    buffers = part.payload.buffers
    value: dict[str, Any] = _load(part.payload.data, map(bytearray, buffers) if copy else buffers, scope, loaded)
    return value


def reason_of(error: BaseException) -> str:
    """Describe an error of user code, even if its own ``__str__`` fails."""
    kind = type(error).__name__
    try:
        text = str(error)
    except BaseException:
        return kind
    return f"{kind}: {text}" if text else kind


# Loading


def _load(data: Any, buffers: Iterable[Any], scope: dict[str, Any], loaded: Mapping[str, Any]) -> Any:
    rebuilder = Rebuilder(scope, again=True)
    value = _ComponentUnpickler(data, buffers, rebuilder, scope, loaded).load()
    rebuilder.finish()
    return value


class _ComponentUnpickler(pickle.Unpickler):
    def __init__(
        self,
        data: Any,
        buffers: Iterable[Any],
        rebuilder: Rebuilder,
        scope: dict[str, Any],
        loaded: Mapping[str, Any],
    ) -> None:
        super().__init__(io.BytesIO(data), buffers=buffers)
        self._rebuilder = rebuilder
        self._scope = scope
        self._loaded = loaded

    def find_class(self, module: str, name: str) -> Any:
        # No reference back to this unpickler: its memo would keep every object until a collection.
        if module == "__main__":
            first, *attributes = name.split(".")
            return functools.reduce(getattr, attributes, _named(first, self._loaded))
        if module == __name__ and name == "_named":
            return functools.partial(_named, loaded=self._loaded)
        if module == __name__ and name == "_unsealed":
            return functools.partial(_unsealed, scope=self._scope, loaded=self._loaded)
        return self._rebuilder.replacement(module, name) or super().find_class(module, name)


def _named(name: str, loaded: Mapping[str, Any]) -> Any:
    if name not in loaded:
        raise pickle.UnpicklingError(f"it needs {name}, which was not restored")
    return loaded[name]


def _unsealed(data: bytes, *buffers: Any, scope: dict[str, Any], loaded: Mapping[str, Any]) -> Any:
    return _load(data, buffers, scope, loaded)


def _array_in(
    memory: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any, writeable: bool, kind: Any
) -> Any:
    import numpy as np

    array: Any = np.ndarray.__new__(kind, shape, dtype, memory, offset, strides)
    array.flags.writeable = writeable
    return array


def _set_array(array: Any, state: tuple[Any, dict[str, Any]]) -> None:
    of_array, attributes = state
    if of_array is not None:
        array.__setstate__(of_array)
    vars(array).update(attributes)


# Pickling


class _Memory(NamedTuple):
    """A range of memory shared by several arrays, and those arrays, which keep it alive."""

    start: int
    whole: Any  # an array of its bytes
    arrays: list[Any]


class _Sealed(NamedTuple):
    """A value to pickle separately: it shares no object with its surroundings."""

    value: Any


class _Context:
    """State that all components of a namespace have in common."""

    def __init__(self, scope: dict[str, Any], values: Mapping[str, Any], ref_types: tuple[type, ...]) -> None:
        self.scope = scope
        self.homes = _homes(values)
        self.named = set(map(id, values.values()))
        self.memory: dict[int, _Memory] = {}  # by id of an array
        # A flat table: cloudpickle's is a ChainMap, searched in Python.
        self.table: dict[type, Any] = {}
        for part in reversed(FunctionPickler.dispatch_table.maps):
            self.table.update(part)
        # cloudpickle would pickle a file that is open for reading as a StringIO of its whole content, and a proxy as
        # the object behind it.
        self.table.update(dict.fromkeys((*_REFUSED, *ref_types, *mpi_types(), *library_types()), _refuse))
        self.table[memoryview] = _reduce_memory_view
        self.table.update(dict.fromkeys(_VIEWS, _reduce_dictionary_view))
        self.array = getattr(sys.modules.get("numpy"), "ndarray", None)
        self.arrays: tuple[type, ...] = (self.array,) if self.array is not None else ()
        self._is_array: dict[int, bool] = {}  # by id of a class, which may have no hash
        self.sealed, self.blocks = _pandas_kinds()
        elsewhere = (getattr(sys.modules.get(module), name, None) for module, name in _UNCHANGING_ELSEWHERE)
        self._unchanging = (*_UNCHANGING_KINDS, *filter(None, elsewhere))
        self._of_libraries: set[int] = set()
        self._seen: set[type] = set()

    def is_shared(self, value: Any, by_value: set[int]) -> bool:
        """Return whether two names that reach a value belong together."""
        if id(value) in self.homes:
            return False
        if id(value) in by_value or _is_large(value):
            return True
        return not (
            self.is_sealed(value)
            or type(value) in _UNCHANGING
            or issubclass(type(value), self._unchanging)
            or id(value) in self._of_libraries
            or _is_found_by_name(value)
        )

    def is_sealed(self, value: Any) -> bool:
        """Return whether a value is pickled separately; an index that is bound to a name is not."""
        return type(value) in self.sealed and id(value) not in self.named

    def is_array(self, kind: Any) -> bool:
        """Return whether values of a class are arrays that NumPy's own code pickles."""
        if (known := self._is_array.get(id(kind))) is None:
            known = issubclass(kind, self.arrays) and _pickles_as(kind, *self.arrays)
            self._is_array[id(kind)] = known
        return known

    def note_kinds(self, kinds: Iterable[type]) -> None:
        """Record the attributes of classes of pickled objects: pandas pickles lists that belong to a class."""
        for kind in kinds:
            for cls in kind.__mro__:
                if cls not in self._seen and cls.__module__ != "__main__":
                    self._seen.add(cls)
                    self._of_libraries.update(map(id, vars(cls).values()))


def _pickles_as(kind: Any, base: type) -> bool:
    """Return whether a class leaves pickling to a base class."""
    own = itertools.takewhile(lambda cls: cls is not base, kind.__mro__)
    try:
        return not any(name in vars(cls) for cls in own for name in ("__reduce__", "__reduce_ex__", "__setstate__"))
    except BaseException:  # a metaclass may raise anything
        return False


def _is_found_by_name(value: Any) -> bool:
    try:
        return callable(value) and is_importable(value)
    except BaseException:  # attributes of the user's objects may raise anything
        return False


def _homes(values: Mapping[str, Any]) -> dict[int, str]:
    """Map the id of each definition of ``__main__`` to its name."""
    homes: dict[int, str] = {}
    for name, value in values.items():
        kind = type(value)
        if not any(kind is each for each in _DEFINITIONS) and not issubclass(kind, type):
            continue  # not `in`: a metaclass may raise when its classes are compared or hashed
        try:
            is_home = value.__module__ == "__main__" and (id(value) not in homes or value.__name__ == name)
        except BaseException:  # a metaclass may raise anything
            is_home = False
        if is_home and not name.startswith("Out["):
            homes[id(value)] = name
    return homes


def _pandas_kinds() -> tuple[frozenset[type], frozenset[type]]:
    """Return pandas' index classes, and its classes of blocks whose values are not a NumPy array."""
    pandas = sys.modules.get("pandas")
    blocks = sys.modules.get("pandas.core.internals.blocks")
    index, block = getattr(pandas, "Index", None), getattr(blocks, "EABackedBlock", None)
    return frozenset(_subclasses(index)), frozenset(_subclasses(block))


def _subclasses(cls: Any) -> Iterator[type]:
    if cls is not None:
        yield cls
        for derived in cls.__subclasses__():
            yield from _subclasses(derived)


class _ComponentPickler(FunctionPickler):
    """Pickle names of one component.

    Functions of the namespace are pickled without the names that they mention. Those names are components of their own,
    or cannot be pickled, which does not matter for the functions.
    """

    def __init__(self, file: io.BytesIO, context: _Context, group: frozenset[str], keep: Any) -> None:
        self.dispatch_table = context.table
        super().__init__(file, keep)
        self._context = context
        self._group = group
        self._bare: dict[int, dict[str, Any]] = {}
        self._seals = 0
        self.needs: set[str] = set()
        self.by_value: set[int] = set()  # ids of functions and classes
        self.has_arrays = False

    def reducer_override(self, obj: Any) -> Any:
        context, kind = self._context, type(obj)
        home = context.homes.get(id(obj))
        if home is not None and home not in self._group:
            self.needs.add(home)
            return _named, (home,)
        if kind is context.array or (issubclass(kind, context.arrays) and context.is_array(kind)):
            self.has_arrays = True
            return self._reduce_array(obj, kind)
        if kind is _Sealed:
            return self._reduce_sealed(obj.value)
        if not self._seals and context.is_sealed(obj):
            return self._reduce_sealed(obj)
        if kind in context.blocks:
            make, (values, *rest) = obj.__reduce__()
            return make, (_Sealed(values), *rest)
        if issubclass(kind, BaseException):
            return _reduce_exception(obj)
        if kind is not FunctionType and not issubclass(kind, type):
            return NotImplemented  # cloudpickle would evaluate the object's __class__, which may raise
        reduced = super().reducer_override(obj)
        if reduced is not NotImplemented and (kind is FunctionType or len(reduced) > 2):
            self.by_value.add(id(obj))
        return reduced

    def _reduce_array(self, array: Any, kind: Any) -> Any:
        is_plain = kind is self._context.array
        # NumPy's pickle drops attributes of subclasses; those of its own, such as memmap, belong to the process.
        attributes = {} if is_plain or str(kind.__module__).partition(".")[0] == "numpy" else vars(array)
        if (memory := self._context.memory.get(id(array))) is not None:
            offset = array.__array_interface__["data"][0] - memory.start
            where = memory.whole, offset, array.shape, array.strides, array.dtype, array.flags.writeable, kind
            return (_array_in, where, (None, attributes), None, None, _set_array) if attributes else (_array_in, where)
        if not attributes:
            return NotImplemented
        make, args, state = array.__reduce__()
        return make, args, (state, attributes), None, None, _set_array

    def _reduce_sealed(self, value: Any) -> Any:
        buffers: list[pickle.PickleBuffer] = []
        file = io.BytesIO()
        inner = _ComponentPickler(file, self._context, frozenset(), buffers.append)
        inner._seals = self._seals + 1
        inner.dump(value)
        self.needs |= inner.needs
        return _unsealed, (file.getvalue(), *buffers)

    def _function_reduce(self, function: FunctionType) -> Any:
        is_here = function.__globals__ is self._context.scope
        return super()._function_reduce(self._alone(function) if is_here else function)

    def _alone(self, function: FunctionType) -> FunctionType:
        """Return the function with an empty ``__main__``, shared by all functions with the same builtins.

        Names that came with a function from a client are a layer over its builtins, and stay there.
        """
        layer: dict[str, Any] = getattr(function, "__builtins__")  # noqa: B009 (type checkers do not know of it)
        bare = self._bare.setdefault(id(layer), {"__name__": "__main__", "__builtins__": layer})
        alone = FunctionType(function.__code__, bare, function.__name__, function.__defaults__, function.__closure__)
        alone.__dict__.update(function.__dict__)
        for name in ("__annotations__", "__doc__", "__kwdefaults__", "__module__", "__qualname__"):
            setattr(alone, name, getattr(function, name))
        return alone


def _reduce_memory_view(view: memoryview) -> Any:
    """Reduce a view of a whole object; cloudpickle would turn any view into bytes."""
    whole = memoryview(view.obj)
    if (view.format, view.shape, view.strides, view.readonly) != (
        whole.format,
        whole.shape,
        whole.strides,
        whole.readonly,
    ):
        raise TypeError("a memoryview of a part of an object cannot be restored")
    return memoryview, (view.obj,)


def _reduce_dictionary_view(view: Any) -> Any:
    """Reduce a view to its dictionary; cloudpickle would make a view of a copy."""
    (mapping,) = gc.get_referents(view)
    if type(view) is MappingProxyType:
        if "__module__" in mapping and "__doc__" in mapping:
            raise TypeError("the attributes of a class cannot be restored apart from it")
        return MappingProxyType, (mapping,)
    return operator.methodcaller(type(view).__name__.partition("_")[2]), (mapping,)


def _reduce_exception(error: BaseException) -> Any:
    """Reduce an exception with its cause and context, which pickle drops."""
    links = error.__cause__, error.__context__, error.__suppress_context__
    reduced = error.__reduce_ex__(5)
    if links == (None, None, False) or not isinstance(reduced, tuple) or len(reduced) > 3:
        return reduced
    make, args, state = (*reduced, None)[:3]
    return make, args, (state, links), None, None, _set_exception


def _set_exception(error: BaseException, state: tuple[Any, tuple[Any, Any, bool]]) -> None:
    own, (error.__cause__, error.__context__, error.__suppress_context__) = state
    if own:
        error.__setstate__(own)


def _refuse(value: object) -> Any:
    raise TypeError(f"{with_article(type(value).__name__)} does not outlive its process")


class _PruningPickler(_ComponentPickler):
    """Pickle a name without the objects that it shares with other names, to find these names.

    Pickle calls :meth:`persistent_id` for every object, which takes three times as long. So this pickler is only used
    for names that share many objects.

    Attributes:
        joined: the names that share an object with this one.
    """

    def __init__(
        self,
        file: io.BytesIO,
        context: _Context,
        group: frozenset[str],
        keep: Any,
        reached: Mapping[int, str],
        shared_by_value: set[int],
    ) -> None:
        super().__init__(file, context, group, keep)
        self._reached = reached
        self._shared_by_value = shared_by_value
        self.joined: set[str] = set()

    def persistent_id(self, obj: Any) -> str | None:
        name = self._reached.get(id(obj))
        if name is None or not self._context.is_shared(obj, self._shared_by_value):
            return None
        self.joined.add(name)
        return name


class _PackedNames(NamedTuple):
    """Names that were pickled together, and the pickler, whose memo holds the objects that it pickled."""

    payload: Payload
    pickler: _ComponentPickler


class _Packer:
    """Find the components and pickle them."""

    def __init__(self, scope: dict[str, Any], values: Mapping[str, Any], ref_types: tuple[type, ...]) -> None:
        self._values = values
        self._context = _Context(scope, values, ref_types)
        self._left_out: dict[str, str] = {}

    def pack(self) -> tuple[tuple[SnapshotPart, ...], dict[str, str]]:
        plain = [name for name, value in self._values.items() if _is_plain(value)]
        alone, groups = self._pack_alone(self._values.keys() - set(plain))
        again = self._share_memory(alone, groups)
        parts = [self._together(plain)] if plain else []
        for group in groups.sets():
            is_packed = len(group) == 1 and group[0] not in again
            parts.append(_part(group, alone[group[0]]) if is_packed else self._together(group))
        ordered = self._in_order([part for part in parts if part is not None])
        return tuple(self._self_contained(ordered)), self._left_out

    def _pack_alone(self, names: AbstractSet[str]) -> tuple[dict[str, _PackedNames], _Sets]:
        """Pickle each name by itself, and find the names that share an object."""
        context = self._context
        alone: dict[str, _PackedNames] = {}
        groups = _Sets()
        reached: dict[int, str] = {}  # the first name whose pickler met an object
        by_value: set[int] = set()
        repeated = 0  # objects that were pickled for a second name
        for name in (name for name in self._values if name in names):
            value = self._values[name]
            if id(value) in reached and context.is_shared(value, by_value):
                groups.join(name, reached[id(value)])
                continue
            # Without pruning, a list of 20,000 objects that twenty names hold was pickled 21 times; now it is pickled
            # three times.
            prunes = functools.partial(_PruningPickler, reached=reached, shared_by_value=by_value)
            if (packed := self._pickled([name], prunes if repeated > _MOST_REPEATED else _ComponentPickler)) is None:
                continue
            # Keep the picklers until the end: the id of an object made for pickling could be reused.
            alone[name] = packed
            groups.add(name)
            by_value |= packed.pickler.by_value
            met = {
                key: item
                for key, (_, item) in packed.pickler.memo.copy().items()
                if type(item) not in _UNCHANGING or sys.getsizeof(item) >= _LARGE_BYTES
            }
            context.note_kinds(set(map(type, met.values())))
            shared = reached.keys() & met.keys()
            repeated += len(shared)
            for other in getattr(packed.pickler, "joined", ()):
                groups.join(name, other)
            for key in shared:
                if context.is_shared(met[key], by_value):
                    groups.join(name, reached[key])
            reached.update(dict.fromkeys(met.keys() - shared, name))
        return alone, groups

    def _pickled(
        self, names: list[str], make_pickler: Callable[..., _ComponentPickler] = _ComponentPickler
    ) -> _PackedNames | None:
        file = io.BytesIO()
        buffers: list[memoryview] = []
        pickler = make_pickler(file, self._context, frozenset(names), lambda buffer: buffers.append(buffer.raw()))
        try:
            pickler.dump({name: self._values[name] for name in names})
        except BaseException as error:  # a SystemExit comes from a user's class; interrupts are not raised here
            self._left_out |= dict.fromkeys(names, reason_of(error))
            return None
        return _PackedNames(Payload(file.getvalue(), tuple(buffers)), pickler)

    def _together(self, names: list[str]) -> SnapshotPart | None:
        packed = self._pickled(names)
        return None if packed is None else _part(names, packed)

    def _share_memory(self, alone: Mapping[str, _PackedNames], groups: _Sets) -> set[str]:
        """Let overlapping arrays be pickled as parts of one memory; return the names that hold such arrays."""
        holders: dict[int, set[str]] = defaultdict(set)
        arrays: dict[int, Any] = {}
        for group in groups.sets():
            if any(name in alone and alone[name].pickler.has_arrays for name in group):
                for name in group:
                    for array in self._arrays_in(self._values[name]):
                        holders[id(array)].add(name)
                        arrays[id(array)] = array
        again: set[str] = set()
        for memory in _overlaps(arrays.values()):
            self._context.memory.update(dict.fromkeys(map(id, memory.arrays), memory))
            first, *others = set().union(*(holders[id(array)] for array in memory.arrays))
            for other in others:
                groups.join(first, other)
            again.update((first, *others))
        return again

    def _arrays_in(self, value: Any) -> Iterator[Any]:
        """Yield the arrays in a value, through containers and objects of the user's classes."""
        holds: dict[int, bool] = {}  # by id of a class
        seen: set[int] = set()
        ahead = [value]
        while ahead:
            value = ahead.pop()
            kind = type(value)
            if self._context.is_array(kind):
                yield value
            if (is_holder := holds.get(id(kind))) is None:
                is_holder = holds[id(kind)] = issubclass(kind, _CONTAINERS) or _is_of_main(kind)
            if is_holder and id(value) not in seen:
                seen.add(id(value))
                ahead += gc.get_referents(value)  # runs no code of the user's classes

    def _in_order(self, components: list[SnapshotPart]) -> list[SnapshotPart]:
        """Order components after those that they need, definitions before data; pickle circles together."""
        while True:
            places = {name: place for place, part in enumerate(components) for name in part.names}
            needs = {
                place: {places[name] for name in part.needs if name in places} - {place}
                for place, part in enumerate(components)
            }
            sorter = TopologicalSorter(needs)
            try:
                sorter.prepare()
            except CycleError as error:
                circle = set(error.args[1])
                joined = self._together([name for place in sorted(circle) for name in components[place].names])
                components = [part for place, part in enumerate(components) if place not in circle]
                components += [joined] if joined is not None else []
                continue
            ready: list[tuple[bool, int]] = []
            ordered: list[SnapshotPart] = []
            while sorter.is_active():
                for place in sorter.get_ready():
                    heapq.heappush(ready, (self._is_data(components[place]), place))
                _, place = heapq.heappop(ready)
                ordered.append(components[place])
                sorter.done(place)
            return ordered

    def _is_data(self, part: SnapshotPart) -> bool:
        # Loading may run user code, which uses functions, classes and constants of the namespace.
        values = [self._values[name] for name in part.names]
        return not all(_is_plain(value) or id(value) in self._context.homes for value in values)

    def _self_contained(self, ordered: Iterable[SnapshotPart]) -> Iterator[SnapshotPart]:
        known: set[str] = set()
        for part in ordered:
            missing = sorted(set(part.needs) - known - {*part.names})
            if missing:
                reason = self._left_out.get(missing[0], "which was also left out")
                self._left_out |= dict.fromkeys(part.names, f"it needs {missing[0]} ({reason})")
            else:
                known.update(part.names)
                yield part


def _is_of_main(kind: Any) -> bool:
    try:
        return bool(kind.__module__ == "__main__")
    except BaseException:  # a metaclass may raise anything
        return False


class _Sets:
    """Disjoint sets of names."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def add(self, name: str) -> None:
        self._parents.setdefault(name, name)

    def join(self, name: str, other: str) -> None:
        self.add(name)
        self._parents[self._find(name)] = self._find(other)

    def sets(self) -> list[list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name in self._parents:
            found[self._find(name)].append(name)
        return list(found.values())

    def _find(self, name: str) -> str:
        parents = self._parents
        while parents[name] != name:
            parents[name] = name = parents[parents[name]]
        return name


def _part(names: list[str], packed: _PackedNames) -> SnapshotPart:
    return SnapshotPart(tuple(names), packed.payload, tuple(sorted(packed.pickler.needs)))


def _is_plain(value: object) -> bool:
    kind = type(value)
    if any(kind is each for each in _TEXTS):
        return not _is_large(value)
    return any(kind is each for each in _SCALARS)  # not `in`: see _homes


def _is_large(value: object) -> bool:
    try:
        return sys.getsizeof(value) >= _LARGE_BYTES
    except BaseException:  # a user's __sizeof__ may raise anything
        return False


def _overlaps(arrays: Iterable[Any]) -> list[_Memory]:
    """Return the ranges of memory shared by more than one of these arrays."""
    spans = sorted(((*_bounds(array), array) for array in arrays if _has_memory(array)), key=lambda span: span[:2])
    found: list[tuple[int, int, list[Any]]] = []
    for low, high, array in spans:
        if found and low < found[-1][1]:
            start, end, others = found[-1]
            found[-1] = start, max(end, high), [*others, array]
        else:
            found.append((low, high, [array]))
    return [
        _Memory(low, _bytes_at(low, high, together), together) for low, high, together in found if len(together) > 1
    ]


class _Addressed:
    """A range of memory as NumPy's array interface, and the objects that keep it alive."""

    def __init__(self, low: int, high: int, keeps: list[Any]) -> None:
        self.__array_interface__ = {"version": 3, "data": (low, False), "shape": (high - low,), "typestr": "|u1"}
        self._keeps = keeps


def _bytes_at(low: int, high: int, keeps: list[Any]) -> Any:
    import numpy as np

    return np.asarray(_Addressed(low, high, keeps))


def _has_memory(array: Any) -> bool:
    return array.size > 0 and array.itemsize > 0 and not array.dtype.hasobject


def _bounds(array: Any) -> tuple[int, int]:
    """Return the address of an array's first byte, and the address after its last."""
    low = high = array.__array_interface__["data"][0]
    for length, stride in zip(array.shape, array.strides, strict=True):
        if stride < 0:
            low += stride * (length - 1)
        else:
            high += stride * (length - 1)
    return low, high + array.itemsize
