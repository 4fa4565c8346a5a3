"""Functions and classes of ``__main__``, rebuilt inside an engine's namespace.

cloudpickle sends such a function with the globals it uses. On an engine they are looked up in this order:

    names of the engine         ``function.__globals__`` is the namespace, so ``global x; x = 1`` binds there
    names shipped with it       laid over the builtins in a dictionary that is ``function.__builtins__``
    builtins

Both are plain dictionaries, so that global names stay as fast as ever. The interpreter takes a function's
builtins from ``globals["__builtins__"]`` when it makes the function; there the layer stands for that moment.
Only an engine's main thread unpickles into its namespace, so this needs no lock.

Inner functions (lambdas, generator expressions, before Python 3.12 all comprehensions) are made by the
interpreter while the outer one runs, and miss a layer that is gone by then. Hence two kinds of payload:

* It is used once (a call): its layer stays in place meanwhile, see :func:`keeping_builtins`.
* It stays (a push) or may leave something behind (it assigns a global, or has a class): the names that inner
  functions use are bound in the namespace. A name of the engine's own is never replaced; one bound here gives
  way to what comes later.

Classes sent by value are known by an id, so that one sent twice stays one class. Each namespace has its own,
also among several in a process; and a class that comes home is the one that left, with what it had there.

This leans on private names of cloudpickle. Without them, code loads as cloudpickle makes it.
"""

from __future__ import annotations

import builtins
import marshal
import opcode
import uuid
from collections.abc import Callable, Iterator
from functools import cache, lru_cache, partial
from types import CodeType, FunctionType
from typing import Any

from cloudpickle import cloudpickle

__all__ = [
    "PRIVATE_NAMES",
    "FunctionPickler",
    "Rebuilder",
    "describe_function",
    "keeping_builtins",
    "make_function",
    "stands_alone",
]

PRIVATE_NAMES = (
    "_DYNAMIC_CLASS_TRACKER_BY_ID",
    "_class_setstate",
    "_function_setstate",
    "_make_function",
    "_make_skeleton_class",
    "_make_skeleton_enum",
)
"""What this needs of cloudpickle, besides ``_function_reduce`` and ``dispatch_table`` of its pickler."""

_SHIPPED = "__shipped__"  # in a layer: the names that it lays over the builtins
_RECORD = "__nsactors__"  # in a namespace: what it was given
_STORE_GLOBAL = opcode.opmap["STORE_GLOBAL"]
_ABSENT = object()
_PLAIN = (int, float, complex, str, bytes, bool, type(None), None)


class keeping_builtins:  # lower case for how it reads after "with"; a generator takes three times as long
    """Put ``scope["__builtins__"]`` back as it was.

    A payload unpacked with ``stays=False`` leaves its layer there, for the inner functions of what is
    called; the call belongs in the same block.
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


class _Shipment:
    """The globals that came with the functions of one module in one payload.

    Functions hold its layer, and the layer not the shipment: without a cycle, what was shipped goes with the
    last function.
    """

    __slots__ = ("assigns", "inner_names", "layer", "names", "origin")

    def __init__(self, origin: dict[str, Any]) -> None:
        self.origin = origin  # as unpickled; held so that its id stays its own
        self.names: dict[str, Any] = {}
        self.layer: dict[str, Any] = {**vars(builtins), _SHIPPED: self.names}
        self.inner_names: set[str] = set()
        self.assigns = False

    def add(self, names: dict[str, Any], code: CodeType) -> None:
        """Take in what one function brought."""
        self.names.update(names)
        self.layer.update(names)
        self.assigns = self.assigns or _assigns_global(code)
        for inner in _inner_codes(code):
            # Attributes are among co_names too: at worst a name is bound that need not be.
            self.inner_names.update(inner.co_names)
            self.assigns = self.assigns or _assigns_global(inner)

    def needed_inside(self) -> dict[str, Any]:
        """What inner functions use of it."""
        return {name: self.names[name] for name in self.inner_names & self.names.keys()}


class _Record:
    """What a namespace was given."""

    def __init__(self) -> None:
        self.class_suffix = f"@{uuid.uuid4().hex}"
        self._bound: dict[str, Any] = {}

    @classmethod
    def of(cls, scope: dict[str, Any]) -> _Record:
        """The record kept in ``scope``, made when first needed."""
        record = scope.get(_RECORD)
        if not isinstance(record, cls):
            record = scope[_RECORD] = cls()
        return record

    def bind(self, scope: dict[str, Any], names: dict[str, Any]) -> None:
        """Bind ``names`` except those that the engine has of its own."""
        unchanged = {name: value for name, value in self._bound.items() if scope.get(name, _ABSENT) is value}
        ours = {name: value for name, value in names.items() if name not in scope or name in unchanged}
        self._bound = unchanged | ours
        scope.update(ours)


class Rebuilder:
    """Makes the functions and classes of one payload.

    Args:
        scope: the namespace of an engine, or None: functions then keep the globals they came with.
        stays: whether what is unpacked may be used later; otherwise only within :func:`keeping_builtins`.
    """

    def __init__(self, scope: dict[str, Any] | None, *, stays: bool = True) -> None:
        self._scope = scope
        self._stays = stays
        self._shipments: dict[int, _Shipment] = {}
        self._has_classes = False
        self._at_home: dict[int, type] = {}

    def replacement(self, module: str, name: str) -> Callable[..., Any] | None:
        """What an unpickler should take in place of ``module.name``; None for that itself."""
        match module, name:
            case "cloudpickle.cloudpickle", _:
                return self._replace_cloudpickle(name) if _has_private_names() else None
            case "nsactors.core.functions", "make_function" if self._scope is not None:
                return partial(make_function, scope=self._scope)
            case "nsactors.core.messages", "dereference" if self._scope is not None:
                return partial(_evaluate, scope=self._scope)
        return None

    def _replace_cloudpickle(self, name: str) -> Callable[..., Any] | None:
        match name:
            case "_make_skeleton_class" | "_make_skeleton_enum":
                return partial(self._make_class, getattr(cloudpickle, name))
            case "_class_setstate":
                return self._set_class_state
            case "_make_function" if self._scope is not None:
                return partial(self._make_function, self._scope)
            case "_function_setstate" if self._scope is not None:
                return partial(self._set_function_state, self._scope)
        return None

    def finish(self) -> None:
        """Provide for inner functions; to be called when all is unpickled."""
        if self._scope is None or not self._shipments:
            return
        shipments = list(self._shipments.values())
        if not self._stays:
            self._scope["__builtins__"] = shipments[0].layer  # what is called comes first in its payload
            if not self._has_classes and not any(shipment.assigns for shipment in shipments):
                del shipments[0]
        for shipment in shipments:
            if needed := shipment.needed_inside():
                _Record.of(self._scope).bind(self._scope, needed)

    def _make_function(self, scope: dict[str, Any], code: CodeType, base_globals: dict[str, Any], *rest: Any) -> Any:
        if base_globals.get("__name__") != "__main__":
            return cloudpickle._make_function(code, base_globals, *rest)
        shipment = self._shipments.get(id(base_globals))
        if shipment is None:
            shipment = self._shipments[id(base_globals)] = _Shipment(base_globals)
        before = scope.get("__builtins__", _ABSENT)
        scope["__builtins__"] = shipment.layer
        try:
            return FunctionType(code, scope, *rest)
        finally:
            _put_back(scope, before)

    def _set_function_state(self, scope: dict[str, Any], function: FunctionType, state: Any) -> None:
        shipment = next((s for s in self._shipments.values() if s.layer is _builtins_of(function)), None)
        if shipment is None:
            cloudpickle._function_setstate(function, state)
            return
        attributes, slots = state
        shipment.add(slots["__globals__"], function.__code__)
        before = scope.get("__builtins__", _ABSENT)
        try:
            cloudpickle._function_setstate(function, (attributes, {**slots, "__globals__": {}}))
        finally:
            _put_back(scope, before)  # cloudpickle has set its own

    def _make_class(self, make: Callable[..., type], *args: Any) -> type:
        *description, tracker_id, extra = args
        tracker_id = tracker_id.partition("@")[0]
        if self._scope is not None:
            tracker_id += _Record.of(self._scope).class_suffix
        known: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker_id)
        if known is None:
            return make(*description, tracker_id, extra)
        if self._scope is None:
            self._at_home[id(known)] = known
        return known

    def _set_class_state(self, cls: type, state: Any) -> type:
        self._has_classes = True
        attributes, slots = state
        if id(cls) in self._at_home:
            # cloudpickle would replace the methods of the user's own class by copies with other globals.
            attributes = {name: value for name, value in attributes.items() if name not in vars(cls)}
        cloudpickle._class_setstate(cls, (attributes, slots))
        return cls


class FunctionPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, which keeps the names shipped with a function when it is sent on.

    It also keeps the slots of classes: without, instances gain a ``__dict__`` and cannot come home.
    """

    def __init__(self, file: Any, buffer_callback: Callable[[Any], Any] | None = None) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._visible: dict[tuple[int, int], tuple[dict[str, Any], dict[str, Any]]] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Reduce functions and classes."""
        # cloudpickle's own helpers stand in every function it pickles. To find out anew that each of them can be
        # imported took half of the time of a small call.
        if type(obj) is FunctionType:
            if obj.__module__ == cloudpickle.__name__:
                return NotImplemented
            if stands_alone(obj):
                return make_function, describe_function(obj)
        reduced = super().reducer_override(obj)
        if reduced is NotImplemented or not _has_private_names():
            return reduced
        if reduced[0] is cloudpickle._make_skeleton_class:
            slots = vars(obj).get("__slots__")
            if slots is not None and not issubclass(obj, tuple):  # named tuples refuse to be given theirs
                reduced[1][3]["__slots__"] = slots
        return reduced

    def _function_reduce(self, function: FunctionType) -> Any:
        shipped = _builtins_of(function).get(_SHIPPED)
        return super()._function_reduce(function if shipped is None else self._clone(function, shipped))

    def _clone(self, function: FunctionType, shipped: dict[str, Any]) -> FunctionType:
        """A function like ``function`` whose globals are all the names that it sees.

        They are one dictionary for all that came in a shipment: cloudpickle keeps together what shares its
        globals. What was shipped is held so that its id stays its own.
        """
        scope = function.__globals__
        key = id(scope), id(shipped)
        if key not in self._visible:
            self._visible[key] = shipped, {**shipped, **scope}
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
    """Whether a function of ``__main__`` is its code and nothing else: what most lambdas are.

    Such a one is sent in a third of the time, and made in half of it.
    """
    code, names = function.__code__, function.__globals__
    return (
        function.__module__ == "__main__"
        and names.get("__name__") == "__main__"
        and not (function.__closure__ or function.__kwdefaults__ or function.__dict__)
        and (not function.__defaults__ or all(type(value) in _PLAIN for value in function.__defaults__))
        and all(type(hint) is str or hint in _PLAIN for hint in function.__annotations__.values())
        and names.keys().isdisjoint(code.co_names)
        and not any(isinstance(constant, CodeType) for constant in code.co_consts)
        and _SHIPPED not in _builtins_of(function)
    )


_Extras = tuple[str, str | None, tuple[Any, ...] | None, dict[str, Any]]


def describe_function(function: FunctionType) -> tuple[bytes, str, _Extras]:
    """A function that stands alone, as :func:`make_function` takes it."""
    extras = (function.__qualname__, function.__doc__, function.__defaults__, function.__annotations__)
    return marshal.dumps(function.__code__), function.__name__, extras


def make_function(code: bytes, name: str, extras: _Extras, scope: dict[str, Any] | None = None) -> FunctionType:
    """A function that stood alone, as one of ``scope``, or of an empty ``__main__``."""
    names = {"__name__": "__main__", "__builtins__": builtins} if scope is None else scope
    function = FunctionType(_code_of(code), names, name)
    function.__qualname__, function.__doc__, function.__defaults__, function.__annotations__ = extras
    return function


_code_of = lru_cache(maxsize=256)(marshal.loads)  # people call the same function again and again


def _builtins_of(function: Any) -> dict[str, Any]:
    # Any: type checkers differ about whether a function is known to have them.
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
