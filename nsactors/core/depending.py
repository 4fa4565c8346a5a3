"""Functions that run only where a condition holds: ``@depend`` and ``@require``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from nsactors.errors.tasks import UnmetDependency

__all__ = ["Dependent", "depend", "require"]


class Dependent:
    """``function``, which an engine runs only if it meets a condition; otherwise another engine is tried.

    Args:
        function: what is called.
        condition: what must not return False; it is called on the engine first.
        args: its arguments.
        kwargs: the same by name.
    """

    def __init__(
        self, function: Callable[..., Any], condition: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.function = function
        self.condition = condition
        self.args = args
        self.kwargs = kwargs
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, where the condition holds.

        Raises:
            UnmetDependency: where it does not.
        """
        if isinstance(self.condition, _Requirement):
            self.condition.meet(self.function)
        elif self.condition(*self.args, **self.kwargs) is False:
            raise UnmetDependency(getattr(self.condition, "__name__", repr(self.condition)))
        return self.function(*args, **kwargs)


class _Requirement:
    """Modules and values that a function is to find among its globals."""

    def __init__(self, modules: tuple[str, ...], values: dict[str, Any]) -> None:
        self._modules = modules
        self._values = values

    def __call__(self) -> bool:
        """Whether the modules can be imported."""
        for name in self._modules:
            _import(name)
        return True

    def meet(self, function: Any) -> None:
        """Bind them."""
        while isinstance(function, Dependent):
            function = function.function
        names = getattr(function, "__globals__", {})
        for name in self._modules:
            _import(name)
            root = name.partition(".")[0]
            names[root] = importlib.import_module(root)
        names.update(self._values)


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError:
        raise UnmetDependency(f"import {name}") from None


def depend(condition: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], Dependent]:
    """A decorator: the function runs only on engines where ``condition(*args, **kwargs)`` is not False.

    A load-balanced view tries other engines then. A condition may also raise :class:`UnmetDependency`.

    Example:
        >>> @depend(os.path.exists, "/scratch")
        ... def read(name): ...
    """
    return lambda function: Dependent(function, condition, args, kwargs)


def require(*objects: Any, **values: Any) -> Callable[[Callable[..., Any]], Dependent]:
    """A decorator: the function finds modules and values among its globals where it runs.

    It runs only on engines that can import the modules.

    Args:
        objects: modules or their names; functions, which are bound under their own names.
        values: other objects by name.

    Raises:
        TypeError: for an object without a name.

    Example:
        >>> @require("numpy")
        ... def norm(a):
        ...     return numpy.linalg.norm(a)
    """
    modules = []
    for thing in objects:
        if isinstance(thing, str | ModuleType):
            modules.append(thing if isinstance(thing, str) else thing.__name__)
        elif hasattr(thing, "__name__"):
            values[thing.__name__] = thing
        else:
            raise TypeError(f"require() takes modules and functions, others by keyword: not {type(thing).__name__}")
    return lambda function: Dependent(function, _Requirement(tuple(modules), values), (), {})
