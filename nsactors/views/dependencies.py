"""Dependencies of tasks, and functions that run where a condition holds."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from nsactors.errors import InvalidDependency, WrongValue
from nsactors.errors.exceptions import WrongType
from nsactors.errors.tasks import UnmetDependency
from nsactors.protocol import arguments as arg
from nsactors.results import AsyncResult
from nsactors.results.map_result import map_of_part
from nsactors.tasks.messages import TaskDependency


class Dependency(set[str]):
    """Tasks on which another task depends, and the outcomes that count.

    Args:
        dependencies: results and message ids, or one of these. A part of a map, made with ``split(size)``, means the
            whole map.
        all: whether all tasks must end with an outcome that counts; otherwise one task is enough.
        success: whether a success counts.
        failure: whether a failure counts; an abort is a failure.

    Raises:
        InvalidDependency: if ``dependencies`` contains anything else.
        ValueError: if neither success nor failure counts.

    Example:
        >>> with lview.temp_flags(after=Dependency([first, second], all=False)):
        ...     third = lview.apply_async(f)
    """

    def __init__(
        self,
        dependencies: Iterable[str | AsyncResult] | str | AsyncResult = (),
        all: bool = True,
        success: bool = True,
        failure: bool = False,
    ) -> None:
        arg.check("Dependency", all=arg.flag(all), success=arg.flag(success), failure=arg.flag(failure))
        if not (success or failure):
            takes = "True where success is False, because the dependency can never be met otherwise"
            raise WrongValue("Dependency", "failure", failure, takes)
        single = isinstance(dependencies, str | AsyncResult)
        parts: list[Any] = [dependencies] if single else _listed(dependencies)
        super().__init__([msg_id for part in parts for msg_id in _msg_ids(part)])
        self.all = all
        self.success = success
        self.failure = failure
        self.results = [part for part in parts if isinstance(part, AsyncResult)]  # these references keep the tasks

    def for_scheduler(self, client: str, flag: str) -> TaskDependency | None:
        """Return this dependency with the numbers of its tasks in a client's scheduler; None if it is empty.

        Args:
            client: the client to which the tasks must belong.
            flag: the flag of the view whose value is this dependency.

        Raises:
            InvalidDependency: if one of its tasks is not a task of that client.
        """
        if not self:
            return None
        numbers = frozenset(_number(msg_id, client, flag) for msg_id in self)
        return TaskDependency(numbers, self.all, self.success, self.failure)


def dependency_of(given: Any, flag: str) -> Dependency | None:
    """Return a dependency for the value of a flag: a dependency, a result, a message id, several of these, or None.

    Args:
        given: the value.
        flag: the name of the flag.

    Raises:
        InvalidDependency: for anything else.
    """
    if given is None or isinstance(given, Dependency):
        return given
    try:
        return Dependency(given)
    except InvalidDependency as error:
        raise InvalidDependency(given, f"set_flags({flag})") from error


def _listed(dependencies: Any) -> list[Any]:
    try:
        return list(dependencies)
    except TypeError:
        raise InvalidDependency(dependencies, "Dependency(dependencies)") from None


def _msg_ids(part: Any) -> list[str]:
    if isinstance(part, AsyncResult):
        return part.msg_ids
    if isinstance(part, str):
        return [part]
    raise InvalidDependency(part, "Dependency(dependencies)")


def _number(msg_id: str, client: str, flag: str) -> int:
    owner, _, number = (map_of_part(msg_id) or msg_id).rpartition(":")
    if owner != client or not (number.isascii() and number.isdigit()):
        raise InvalidDependency(msg_id, f"set_flags({flag})")
    return int(number)


class Dependent:
    """A function that runs only on an engine that meets a condition; if an engine does not, another one is tried.

    Args:
        function: the function.
        condition: a function that must not return False; it is called on the engine first.
        args: the condition's arguments.
        kwargs: the condition's arguments by name.
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

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The function, in which ``inspect.signature`` looks for the parameters."""
        return self.function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, if the condition holds here.

        Raises:
            UnmetDependency: if the condition does not hold.
        """
        if isinstance(self.condition, _Requirement):
            self.condition.meet(self.function)
        elif self.condition(*self.args, **self.kwargs) is False:
            raise UnmetDependency(getattr(self.condition, "__name__", repr(self.condition)))
        return self.function(*args, **kwargs)


class _Requirement:
    """Modules and values that a function must find among its globals."""

    def __init__(self, modules: tuple[str, ...], values: dict[str, Any]) -> None:
        self._modules = modules
        self._values = values

    def __call__(self) -> bool:
        """Return whether the modules can be imported."""
        for name in self._modules:
            _import(name)
        return True

    def meet(self, function: Any) -> None:
        """Bind the modules and values among the globals of a function."""
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

    On False, a load-balanced view tries other engines. A condition may also raise :class:`UnmetDependency`.

    Example:
        >>> @depend(os.path.exists, "/scratch")
        ... def read(name): ...
    """
    arg.check("depend", condition=arg.function(condition))
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
            raise WrongType("require", "objects", thing, "modules, their names and functions, and others by keyword")
    return lambda function: Dependent(function, _Requirement(tuple(modules), values), (), {})
