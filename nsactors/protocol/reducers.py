"""Reducers for definitions of ``__main__`` that pickle would store by name only.

A cached function, a new type, a parameter specification: pickle stores each as its name, which exists only in the
process that defined it. These reducers store the definition instead. A definition of a module that can be imported is
still stored as its name.

A function may refer to itself through its cache or its dispatcher. So these objects are made around a placeholder
first, and get their functions once the pickle's memo contains them.
"""

from __future__ import annotations

import copyreg
import functools
import sys
import types
import typing
from functools import cached_property, lru_cache, partial, singledispatch, singledispatchmethod
from typing import Any

from nsactors.errors.formatting import with_article

_OF_WRAPPER = frozenset({"__wrapped__", *functools.WRAPPER_ASSIGNMENTS})
_OF_DISPATCHER = frozenset({"register", "dispatch", "registry", "_clear_cache"})
_PARAMETERS = {
    "__bound__": "bound",
    "__covariant__": "covariant",
    "__contravariant__": "contravariant",
    "__infer_variance__": "infer_variance",
    "__default__": "default",
}


def is_importable(definition: Any) -> bool:
    """Return whether a module other than ``__main__`` has this definition under its name."""
    module = getattr(definition, "__module__", None)
    if not isinstance(module, str) or module == "__main__":
        return False
    found: Any = sys.modules.get(module)
    for part in getattr(definition, "__qualname__", definition.__name__).split("."):
        found = getattr(found, part, None)
    return found is definition


def library_types() -> tuple[type, ...]:
    """Return the classes of libraries that ctypes loads, if it has been imported."""
    ctypes = sys.modules.get("ctypes")
    return tuple(kind for name in ("CDLL", "PyDLL") if (kind := getattr(ctypes, name, None)) is not None)


def refuse_library(library: Any) -> Any:
    """Raise an error: the handle of an unused library is a number; it can be pickled, but crashes another process."""
    raise TypeError(
        f"{with_article(type(library).__name__)} is a library loaded into one process: load it where it is used"
    )


# Objects whose __class__ is not their type

_HAS_OWN_CLASS = vars(object)["__class__"]


def names_its_class(kind: Any) -> bool:
    """Return whether a class defines ``__class__`` for its instances, as mocks and proxies do."""
    found = next((vars(base)["__class__"] for base in type.mro(kind) if "__class__" in vars(base)), None)
    return found is not _HAS_OWN_CLASS


def reduce_by_type(value: Any) -> Any:
    """Reduce an object by its type: pickle compares the type with ``__class__``, and refuses if they differ."""
    reduced = value.__reduce_ex__(5)
    if isinstance(reduced, tuple) and reduced[0] is getattr(copyreg, "__newobj__"):  # noqa: B009 (a name with underscores)
        return (_make_instance, *reduced[1:])
    return reduced


def _make_instance(kind: Any, *args: Any) -> Any:
    return kind.__new__(kind, *args)


# Caches


def _reduce_cached(cached: Any) -> Any:
    if is_importable(cached):
        return cached.__qualname__
    parameters = cached.cache_parameters()
    own = {name: value for name, value in vars(cached).items() if name not in _OF_WRAPPER}
    return (
        _make_cached,
        (parameters["maxsize"], parameters["typed"]),
        (cached.__wrapped__, own),
        None,
        None,
        _set_cached,
    )


def _make_cached(maxsize: int | None, typed: bool) -> Any:
    return lru_cache(maxsize, typed)(partial(_unset))


def _set_cached(cached: Any, state: tuple[Any, dict[str, Any]]) -> None:
    function, own = state
    # A partial object can get another function later; unlike a wrapper in Python, it adds no frame to tracebacks.
    cached.__wrapped__.__setstate__((function, (), {}, None))
    functools.update_wrapper(cached, function)
    vars(cached).update(own)


def _reduce_cached_property(attribute: cached_property[Any]) -> Any:
    state = {name: value for name, value in vars(attribute).items() if name != "lock"}  # Python 3.11 has one
    return _make_cached_property, (), state


def _make_cached_property() -> cached_property[Any]:
    return cached_property(_unset)


def _unset(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("this function is being unpickled")


# Functions with an implementation for each class


def _code_of_dispatchers() -> types.CodeType:
    code: types.CodeType = singledispatch(_unset).__code__  # type: ignore[attr-defined]
    return code


_DISPATCHER_CODE = _code_of_dispatchers()


def is_dispatcher(function: types.FunctionType) -> bool:
    """Return whether ``functools.singledispatch`` made a function."""
    return function.__code__ is _DISPATCHER_CODE


def reduce_dispatcher(dispatcher: Any) -> Any:
    """Reduce a single-dispatch function of ``__main__``: its closure contains a cache of weak references."""
    own = {name: value for name, value in vars(dispatcher).items() if name not in _OF_WRAPPER | _OF_DISPATCHER}
    state = dispatcher.__wrapped__, list(dispatcher.registry.items()), own
    return _make_dispatcher, (), state, None, None, _set_dispatcher


def _make_dispatcher() -> Any:
    return singledispatch(_unset)


def _set_dispatcher(dispatcher: Any, state: tuple[Any, list[tuple[type, Any]], dict[str, Any]]) -> None:
    function, registered, own = state
    for cls, implementation in registered:
        dispatcher.register(cls, implementation)
    functools.update_wrapper(dispatcher, function)
    vars(dispatcher).update(own)


def _reduce_dispatch_method(method: singledispatchmethod[Any]) -> Any:
    state = {name: value for name, value in vars(method).items() if name != "_method_cache"}  # Python 3.13 has one
    return _make_dispatch_method, (), state


def _make_dispatch_method() -> singledispatchmethod[Any]:
    return singledispatchmethod(_unset)


# Types for type checkers


def _reduce_new_type(new_type: Any) -> Any:
    if is_importable(new_type):
        return new_type.__qualname__
    return (
        _make_new_type,
        (new_type.__qualname__, new_type.__module__),
        new_type.__supertype__,
        None,
        None,
        _set_new_type,
    )


def _make_new_type(name: str, module: str) -> Any:
    made = typing.NewType(name, object)  # type: ignore[misc]
    made.__module__ = module
    return made


def _set_new_type(new_type: Any, supertype: Any) -> None:
    new_type.__supertype__ = supertype


def _reduce_parameters(parameters: Any) -> Any:
    if is_importable(parameters):
        return parameters.__name__
    options = {option: getattr(parameters, name) for name, option in _PARAMETERS.items() if hasattr(parameters, name)}
    return _make_parameters, (type(parameters), parameters.__name__, parameters.__module__, options)


def _make_parameters(kind: Any, name: str, module: str, options: dict[str, Any]) -> Any:
    made = kind(name, **options)
    made.__module__ = module
    return made


REDUCERS: dict[type, Any] = {
    type(lru_cache(_unset)): _reduce_cached,
    cached_property: _reduce_cached_property,
    singledispatchmethod: _reduce_dispatch_method,
    typing.NewType: _reduce_new_type,
    typing.ParamSpec: _reduce_parameters,
    typing.TypeVarTuple: _reduce_parameters,
}
"""Entries for the dispatch table of a pickler."""
