"""Immutable values, such as messages: data classes that cost little to define."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from reprlib import recursive_repr
from typing import Any, NoReturn, TypeVar, dataclass_transform

__all__ = ["compares_fields", "frozen"]

T = TypeVar("T")


# The package has 150 classes of values, and each engine, client and command defines most of them when it starts.
# `@dataclass(frozen=True, slots=True)` compiles six methods for each: 45 ms of a processor for the 42 messages of
# `protocol.control`, and a third of the import of an engine. Here all classes share their methods, and `__init__` is
# compiled with the first instance, which for most classes is never made: 6 ms for the same 42. Making an instance takes
# half of the time (0.66 µs instead of 1.28 for seven fields), and so do pickling and unpickling (2.8 and 2.7 µs instead
# of 5.0 each). But `==` and `hash` take longer (0.52 and 0.37 µs instead of 0.25 and 0.24). So a class whose instances
# are hashed a million times, as the keys of a tuple space are, should be a data class instead.
# `msgspec.Struct` is made, compared and pickled faster still, and defines the 42 in 6 ms too. But its import takes
# 21 ms, its instances would need other functions than `replace` and `fields`, and it is one more compiled dependency.
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T], /) -> type[T]:
    """Make a class as ``dataclass(frozen=True, slots=True)`` does, in less time.

    All functions of :mod:`dataclasses` accept its instances. Fields may have defaults and factories, and may be left
    out of comparisons and of the ``repr``. Fields that ``__init__`` does not take, or takes by keyword only, and fields
    of a base class are not supported. A class with an ``__eq__`` of its own needs a ``__hash__`` of its own.

    Example:
        >>> @frozen
        ... class Signal:
        ...     number: int
        ...     name: str = ""
        >>> Signal(2)
        Signal(number=2, name='')

    Raises:
        TypeError: if the class has a field that is not supported, or ``__eq__`` without ``__hash__``.
    """
    made: Any = dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    found = fields(made)
    _check(made, found)
    made.__values__ = staticmethod(_values_of([one.name for one in found]))
    made.__compared__ = staticmethod(_values_of([one.name for one in found if one.compare]))
    for name, method in _METHODS.items():
        if name not in vars(made):
            setattr(made, name, method)
    made.__init__ = _Init(made, found)
    return made  # type: ignore[no-any-return]


def _check(cls: type, found: tuple[Field[Any], ...]) -> None:
    """Raise TypeError if a class cannot be made frozen."""
    if refused := [one.name for one in found if one.kw_only or not one.init]:
        raise TypeError(f"{cls.__qualname__} is frozen: __init__ takes all of its fields, by position: {refused}")
    if refused := [one.name for one in found if one.name not in vars(cls)]:
        raise TypeError(f"{cls.__qualname__} is frozen: it inherits no fields: {refused}")
    own = {"self", "_missing", *(f"_{does}_{one.name}" for one in found for does in ("set", "factory"))}
    if refused := [one.name for one in found if one.name in own]:
        raise TypeError(f"{cls.__qualname__} is frozen: its __init__ uses these names of fields itself: {refused}")
    if vars(cls).get("__hash__", ...) is None:  # Python has set it, for the sake of `__eq__`
        raise TypeError(f"{cls.__qualname__} is frozen: if it has an __eq__ of its own, it needs a __hash__ as well")


def compares_fields(cls: type) -> bool:
    """Return whether a class has the ``==`` of frozen classes, which compares the fields."""
    return getattr(cls, "__eq__", None) is _eq


def _values_of(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that takes an instance, and returns the values of these fields."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda instance: tuple([getattr(instance, name) for name in names])


class _Init:
    """Stands in place of the ``__init__`` of a class until the first instance is made, and then compiles it."""

    def __init__(self, cls: type, found: tuple[Field[Any], ...]) -> None:
        self._cls = cls
        self._fields = found

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        init = _compiled_init(self._cls, self._fields)
        self._cls.__init__ = init  # type: ignore[misc]
        return init if instance is None else init.__get__(instance)

    def __call__(self, instance: object, /, *args: Any, **kwargs: Any) -> None:
        """Initialize an instance, for programs that take ``__init__`` from the dictionary of the class."""
        self.__get__(instance)(*args, **kwargs)


def _compiled_init(cls: type, found: tuple[Field[Any], ...]) -> Any:
    """Return ``__init__``: it sets each slot by its descriptor, since the class refuses assignments."""
    scope: dict[str, Any] = {"_missing": MISSING, "__name__": cls.__module__}
    parameters, lines = [], []
    for one in found:
        name = one.name
        scope[f"_set_{name}"] = vars(cls)[name].__set__
        value = name
        if one.default is not MISSING:
            scope[f"_default_{name}"] = one.default
            parameters.append(f"{name}=_default_{name}")
        elif one.default_factory is not MISSING:
            scope[f"_factory_{name}"] = one.default_factory
            parameters.append(f"{name}=_missing")
            value = f"_factory_{name}() if {name} is _missing else {name}"
        else:
            parameters.append(name)
        lines.append(f" _set_{name}(self, {value})")
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()")
    source = f"def __init__({', '.join(['self', *parameters])}):\n" + "\n".join(lines or [" pass"])
    # Compiled first: the `exec` of a text makes Python forget that the program ends by KeyboardInterrupt, so that the
    # exit status would be 1. The file name is in this package's folder, so that frames of `__init__` are not taken for
    # the user's.
    exec(compile(source, f"{__file__}: {cls.__qualname__}", "exec"), scope)
    init = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {**{one.name: one.type for one in found}, "return": None}
    return init


def _eq(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    compared = self.__compared__
    return compared(self) == compared(other)


def _hash(self: Any) -> int:
    return hash(self.__compared__(self))


@recursive_repr()
def _repr(self: Any) -> str:
    shown = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
    return f"{self.__class__.__qualname__}({shown})"


def _reduce(self: Any) -> tuple[type, tuple[Any, ...]]:
    return self.__class__, self.__values__(self)


def _setattr(self: Any, name: str, value: Any) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


_METHODS: dict[str, Any] = {
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__reduce__": _reduce,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
}
