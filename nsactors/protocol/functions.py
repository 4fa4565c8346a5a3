"""Functions and classes of ``__main__``, rebuilt inside an engine's namespace.

cloudpickle sends such a function with the globals it uses. On an engine, global names are looked up in this order:

    names of the engine         ``function.__globals__`` is the namespace, so ``global x; x = 1`` binds there
    names sent with it          a layer over the builtins, in a dictionary that is ``function.__builtins__``
    builtins

Both are plain dictionaries, so the look-up of global names is as fast as usual. The interpreter takes the builtins of a
function from ``globals["__builtins__"]`` when it makes the function; for that moment, this name is bound to the layer.
Only an engine's main thread unpickles into its namespace, so this needs no lock.

The interpreter makes inner functions (lambdas, generator expressions, before Python 3.12 all comprehensions) while the
outer function runs. They do not see a layer that has been removed by then. Hence there are two kinds of payload:

* A payload that is used once (a call): its layer stays in place during the call, see :func:`keeping_builtins`.
* A payload that stays (a push), or may leave functions behind (it assigns a global, or contains a class): the names
  that its inner functions use are bound in the namespace. A name that the engine has bound is never replaced; later
  bindings replace a name that is bound here.

The module ``classes`` decides which class of a namespace an arriving class becomes.

This relies on private names of cloudpickle. Without them, code loads as cloudpickle makes it.
"""

from __future__ import annotations

import builtins
import marshal
import opcode
from collections import ChainMap
from collections.abc import Callable, Iterator
from functools import cache, lru_cache, partial
from types import CellType, CodeType, FunctionType
from typing import Any

from cloudpickle import cloudpickle

from nsactors.protocol.classes import make_class, reduce_class, set_class_state
from nsactors.protocol.reducers import REDUCERS, is_dispatcher, is_importable, reduce_dispatcher

PRIVATE_NAMES = (
    "_BUILTIN_TYPE_NAMES",
    "_DYNAMIC_CLASS_TRACKER_LOCK",
    "_class_setstate",
    "_function_setstate",
    "_make_function",
    "_make_skeleton_class",
    "_make_skeleton_enum",
    "_should_pickle_by_reference",
)
"""The names of cloudpickle that are needed here, besides ``_function_reduce``, ``_function_getnewargs`` and
``dispatch_table`` of its pickler."""

_ARRIVED = "__arrived__"  # the key in a layer for the names that it adds to the builtins
_RECORD = "__nsactors__"  # name in a namespace: its _Record
_STORE_GLOBAL = opcode.opmap["STORE_GLOBAL"]
_ABSENT = object()
_DISPATCH_TABLE = ChainMap(REDUCERS, *cloudpickle.Pickler.dispatch_table.maps)
_PLAIN = (int, float, complex, str, bytes, bool, type(None), None)


class keeping_builtins:  # lower case, as it reads after "with"; a generator function takes three times as long
    """Restore ``scope["__builtins__"]`` at the end of the block.

    A payload unpacked with ``stays=False`` leaves its layer in ``__builtins__``, for the inner functions of the
    function that is called. So make the call in the same block.
    """

    __slots__ = ("_before", "_scope")

    def __init__(self, scope: dict[str, Any]) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        self._before = self._scope.get("__builtins__", _ABSENT)

    def __exit__(self, *exception: object) -> None:
        _put_back(self._scope, self._before)


def _put_back(scope: dict[str, Any], before: Any) -> None:
    if before is _ABSENT:
        scope.pop("__builtins__", None)
    else:
        scope["__builtins__"] = before


class _ArrivedGlobals:
    """The globals that arrived with the functions of one module in one payload.

    Functions refer to the layer, but the layer does not refer to this object. There is no cycle, so the globals are
    freed with the last function.
    """

    __slots__ = ("assigns", "inner_names", "layer", "names", "origin")

    def __init__(self, origin: dict[str, Any]) -> None:
        self.origin = origin  # as unpickled; held so that no other dictionary gets its id
        self.names: dict[str, Any] = {}
        self.layer: dict[str, Any] = {**vars(builtins), _ARRIVED: self.names}
        self.inner_names: set[str] = set()
        self.assigns = False

    def add(self, names: dict[str, Any], code: CodeType) -> None:
        """Add the globals and the code of one function."""
        self.names.update(names)
        self.layer.update(names)
        self.assigns = self.assigns or _assigns_global(code)
        for inner in _inner_codes(code):
            # co_names also contains attributes, so at worst a name is bound without need.
            self.inner_names.update(inner.co_names)
            self.assigns = self.assigns or _assigns_global(inner)

    def needed_inside(self) -> dict[str, Any]:
        """Return the globals that inner functions use."""
        return {name: self.names[name] for name in self.inner_names & self.names.keys()}


class _Record:
    """The names that payloads bound in a namespace."""

    def __init__(self) -> None:
        self._bound: dict[str, Any] = {}

    @classmethod
    def of(cls, scope: dict[str, Any]) -> _Record:
        """Return the record in ``scope``, adding it if it is missing."""
        record = scope.get(_RECORD)
        if not isinstance(record, cls):
            record = scope[_RECORD] = cls()
        return record

    def bind(self, scope: dict[str, Any], names: dict[str, Any]) -> None:
        """Bind ``names``, except those that the engine has bound itself."""
        unchanged = {name: value for name, value in self._bound.items() if scope.get(name, _ABSENT) is value}
        ours = {name: value for name, value in names.items() if name not in scope or name in unchanged}
        self._bound = unchanged | ours
        scope.update(ours)


class Rebuilder:
    """Makes the functions and classes of one payload.

    Args:
        scope: the namespace of an engine; None lets functions keep the globals with which they arrived.
        stays: whether the value may be used later; if not, it is used only within :func:`keeping_builtins`.
        again: whether the value was in the namespace before, and is restored.
    """

    def __init__(self, scope: dict[str, Any] | None, *, stays: bool = True, again: bool = False) -> None:
        self._scope = scope
        self._again = again
        self._stays = stays
        self._arrivals: dict[int, _ArrivedGlobals] = {}
        self._has_classes = False

    def replacement(self, module: str, name: str) -> Callable[..., Any] | None:
        """Return the function that an unpickler must use in place of ``module.name``; None if there is none."""
        match module, name:
            case "cloudpickle.cloudpickle", _:
                return self._replace_cloudpickle(name) if _has_private_names() else None
            case "nsactors.protocol.classes", "make_class" if self._scope is not None:
                return partial(make_class, scope=self._scope, again=self._again)
            case "nsactors.protocol.classes", "set_class_state" if self._scope is not None:
                return self._set_class_state
            case "nsactors.protocol.functions", "make_function" if self._scope is not None:
                return partial(make_function, scope=self._scope)
            case "nsactors.protocol.messages", "dereference" if self._scope is not None:
                return partial(_evaluate, scope=self._scope)
        return None

    def _replace_cloudpickle(self, name: str) -> Callable[..., Any] | None:
        match name:
            case "_make_function" if self._scope is not None:
                return partial(self._make_function, self._scope)
            case "_function_setstate" if self._scope is not None:
                return partial(self._set_function_state, self._scope)
        return None

    def finish(self) -> None:
        """Bind the names that inner functions need; call it when the whole payload is unpickled."""
        if self._scope is None or not self._arrivals:
            return
        arrivals = list(self._arrivals.values())
        if not self._stays:
            self._scope["__builtins__"] = arrivals[0].layer  # the function to call is first in its payload
            # Nothing of the called function stays after the call: its names need not be bound in the namespace.
            if not self._has_classes and not any(arrived.assigns for arrived in arrivals):
                del arrivals[0]
        for arrived in arrivals:
            if needed := arrived.needed_inside():
                _Record.of(self._scope).bind(self._scope, needed)

    def _make_function(self, scope: dict[str, Any], code: CodeType, base_globals: dict[str, Any], *rest: Any) -> Any:
        if base_globals.get("__name__") != "__main__":
            return cloudpickle._make_function(code, base_globals, *rest)
        arrived = self._arrivals.get(id(base_globals))
        if arrived is None:
            arrived = self._arrivals[id(base_globals)] = _ArrivedGlobals(base_globals)
        before = scope.get("__builtins__", _ABSENT)
        scope["__builtins__"] = arrived.layer
        try:
            return FunctionType(code, scope, *rest)
        finally:
            _put_back(scope, before)

    def _set_function_state(self, scope: dict[str, Any], function: FunctionType, state: Any) -> None:
        arrived = next((s for s in self._arrivals.values() if s.layer is _builtins_of(function)), None)
        if arrived is None:
            cloudpickle._function_setstate(function, state)
            return
        attributes, slots = state
        arrived.add(slots["__globals__"], function.__code__)
        before = scope.get("__builtins__", _ABSENT)
        try:
            cloudpickle._function_setstate(function, (attributes, {**slots, "__globals__": {}}))
        finally:
            _put_back(scope, before)  # cloudpickle has set another one

    def _set_class_state(self, cls: type, state: Any) -> type:
        self._has_classes = True
        return set_class_state(cls, state, self._scope)


class FunctionPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, extended: a function that has arrived with globals is sent on with the same globals.

    Classes get tags that identify them where they arrive. Functions that share a variable of an outer function also
    share it after unpickling.
    """

    dispatch_table: Any = _DISPATCH_TABLE

    def __init__(self, file: Any, buffer_callback: Callable[[Any], Any] | None = None) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._visible: dict[tuple[int, int], tuple[dict[str, Any], dict[str, Any]]] = {}
        self._cells: dict[int, tuple[CellType, CellType]] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Reduce functions and classes."""
        # Every pickled function refers to cloudpickle's own helpers. To check for each helper whether it can be
        # imported took half of the time of a small call.
        if type(obj) is FunctionType:
            if obj.__module__ == cloudpickle.__name__:
                return NotImplemented
            if stands_alone(obj):
                return make_function, describe_function(obj)
            if is_dispatcher(obj) and not is_importable(obj):
                return reduce_dispatcher(obj)
        if type(obj) is CodeType:
            # Not cloudpickle's own way, which replaces the name of the file: tracebacks and stacks show that name.
            return marshal.loads, (marshal.dumps(obj),)
        reduced = super().reducer_override(obj)
        if reduced is NotImplemented or not _has_private_names():
            return reduced
        if reduced[0] in (cloudpickle._make_skeleton_class, cloudpickle._make_skeleton_enum):
            return reduce_class(obj, reduced)
        return reduced

    def _function_reduce(self, function: FunctionType) -> Any:
        arrived = _builtins_of(function).get(_ARRIVED)
        return super()._function_reduce(function if arrived is None else self._clone(function, arrived))

    def _function_getnewargs(self, function: FunctionType) -> Any:
        *rest, closure = super()._function_getnewargs(function)
        # The unpickler first makes a function and then sets its variables. So give functions that share a variable the
        # same empty cell.
        cells = (self._cells.setdefault(id(cell), (cell, CellType()))[1] for cell in function.__closure__ or ())
        return *rest, None if closure is None else tuple(cells)

    def _clone(self, function: FunctionType, arrived: dict[str, Any]) -> FunctionType:
        """Return a copy of ``function`` whose globals are all names that it sees.

        All functions that arrived together get the same dictionary, because functions that share globals still share
        them after cloudpickle has sent them. ``arrived`` is held so that no other object gets its id.
        """
        scope = function.__globals__
        key = id(scope), id(arrived)
        if key not in self._visible:
            self._visible[key] = arrived, {**arrived, **scope}
        code, (_, visible) = function.__code__, self._visible[key]
        clone = FunctionType(code, visible, function.__name__, function.__defaults__, function.__closure__)
        clone.__dict__.update(function.__dict__)
        for name in ("__annotations__", "__doc__", "__kwdefaults__", "__module__", "__qualname__"):
            setattr(clone, name, getattr(function, name))
        return clone


@cache
def _has_private_names() -> bool:
    return all(hasattr(cloudpickle, name) for name in PRIVATE_NAMES)


def stands_alone(function: FunctionType) -> bool:
    """Return whether a function of ``__main__`` consists of its code alone, as most lambdas do.

    Such a function is sent in a third of the time, and made in half of the time.
    """
    code, names = function.__code__, function.__globals__
    return (
        function.__module__ == "__main__"
        and names.get("__name__") == "__main__"
        and not (function.__closure__ or function.__kwdefaults__ or function.__dict__)
        and (not function.__defaults__ or all(type(value) in _PLAIN for value in function.__defaults__))
        and all(type(hint) is str or hint in _PLAIN for hint in function.__annotations__.values())
        # It uses no global. (co_names also contains attributes, which can only make this test too strict.)
        and names.keys().isdisjoint(code.co_names)
        and not any(isinstance(constant, CodeType) for constant in code.co_consts)
        and _ARRIVED not in _builtins_of(function)
    )


_Extras = tuple[str, str | None, tuple[Any, ...] | None, dict[str, Any]]


def describe_function(function: FunctionType) -> tuple[bytes, str, _Extras]:
    """Return the arguments of :func:`make_function` for a function that stands alone."""
    extras = (function.__qualname__, function.__doc__, function.__defaults__, function.__annotations__)
    return marshal.dumps(function.__code__), function.__name__, extras


def make_function(code: bytes, name: str, extras: _Extras, scope: dict[str, Any] | None = None) -> FunctionType:
    """Make a function that stood alone. Its globals are ``scope``, or those of an empty ``__main__``."""
    names = {"__name__": "__main__", "__builtins__": builtins} if scope is None else scope
    function = FunctionType(_code_of(code), names, name)
    function.__qualname__, function.__doc__, function.__defaults__, function.__annotations__ = extras
    return function


_code_of = lru_cache(maxsize=256)(marshal.loads)  # users call the same function again and again


def _builtins_of(function: Any) -> dict[str, Any]:
    # Any: type checkers disagree on whether functions have the attribute.
    names: dict[str, Any] = function.__builtins__
    return names


def _inner_codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _inner_codes(constant)


def _assigns_global(code: CodeType) -> bool:
    return _STORE_GLOBAL in code.co_code[::2]  # every other byte is an opcode


def _evaluate(expression: str, scope: dict[str, Any]) -> Any:
    if not expression.isidentifier():
        return eval(compile(expression, "<reference>", "eval"), scope)
    try:
        return scope[expression]
    except KeyError:
        raise NameError(f"name {expression!r} is not defined", name=expression) from None
