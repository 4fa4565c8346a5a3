"""Dependencies of tasks: conditions of engines, and other tasks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import nsactors
from nsactors.ipyparallel.arguments import check_function
from nsactors.ipyparallel.client.asyncresult import AsyncResult
from nsactors.ipyparallel.client.chunks import task_id_of
from nsactors.ipyparallel.error import UnmetDependency

__all__ = ["Dependency", "depend", "dependent", "require"]


class dependent:
    """A function that an engine runs only if a condition holds; if not, another engine tries it.

    Args:
        _wrapped_f: the function.
        _wrapped_df: the condition, which the engine calls first; it fails if it returns False or raises
            ``UnmetDependency``.
        dargs: arguments of the condition.
        dkwargs: keyword arguments of the condition.
    """

    def __init__(
        self, _wrapped_f: Callable[..., Any], _wrapped_df: Callable[..., Any], *dargs: Any, **dkwargs: Any
    ) -> None:
        self.f = _wrapped_f
        self.df = _wrapped_df
        self.dargs = dargs
        self.dkwargs = dkwargs
        self.__name__ = getattr(_wrapped_f, "__name__", "f")

    def check_dependency(self) -> None:
        """Raise ``UnmetDependency`` if the condition does not hold."""
        if self.df(*self.dargs, **self.dkwargs) is False:
            raise UnmetDependency

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function without checking the condition."""
        return self.f(*args, **kwargs)

    def core(self) -> Any:
        """Return the equivalent of nsactors, whose engines check the condition."""
        function = self.f.core() if isinstance(self.f, dependent) else self.f
        if isinstance(self.df, _Required):
            return nsactors.require(*self.df.names, **self.df.values)(function)
        return nsactors.depend(self.df, *self.dargs, **self.dkwargs)(function)


class depend:
    """Decorate a function so that it runs only on engines for which a condition holds.

    Args:
        _wrapped_f: the condition.
        args: arguments of the condition.
        kwargs: keyword arguments of the condition.

    Example:
        >>> @depend(shutil.which, "ffmpeg")
        ... def convert(path): ...
    """

    def __init__(self, _wrapped_f: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        check_function("depend", "_wrapped_f", _wrapped_f)
        self.f = _wrapped_f
        self.args = args
        self.kwargs = kwargs

    def __call__(self, f: Callable[..., Any]) -> dependent:
        """Decorate a function."""
        return dependent(f, self.f, *self.args, **self.kwargs)


class _Required:
    """A condition that modules can be imported, with values for the globals of the function."""

    def __init__(self, names: tuple[str, ...], values: dict[str, Any]) -> None:
        self.names = names
        self.values = values

    def __call__(self) -> bool:
        """Bind the modules and values in this process; on engines, the condition of nsactors binds them."""
        import __main__

        for name in self.names:
            try:
                importlib.import_module(name)
            except ImportError:
                raise UnmetDependency(name) from None
            root = name.partition(".")[0]
            setattr(__main__, root, importlib.import_module(root))
        vars(__main__).update(self.values)
        return True


def require(*objects: Any, **mapping: Any) -> depend:
    """Decorate a function so that it runs on engines that can import given modules, and finds these among its globals.

    Args:
        objects: modules or their names; functions, which are bound under their own names.
        mapping: other values by name.

    Raises:
        TypeError: for an object without a name.
    """
    names = []
    values = dict(mapping)
    for thing in objects:
        if isinstance(thing, str | ModuleType):
            names.append(thing if isinstance(thing, str) else thing.__name__)
        elif hasattr(thing, "__name__"):
            values[thing.__name__] = thing
        else:
            raise TypeError(f"{type(thing).__name__} has no name: give it by keyword, as in require(name=value)")
    values = {name: value.core() if isinstance(value, dependent) else value for name, value in values.items()}
    return depend(_Required(tuple(names), values))


class Dependency(set[str]):
    """Tasks on which another task depends, and the outcomes that count.

    Args:
        dependencies: results or ids of tasks, a single one of these, or a dictionary that :meth:`as_dict` returned.
        all: True if every task must have an outcome that counts, False if one is enough.
        success: True if success counts.
        failure: True if failure counts.

    Raises:
        TypeError: for other kinds of dependencies.
        ValueError: if no outcome counts.
    """

    def __init__(self, dependencies: Any = [], all: bool = True, success: bool = True, failure: bool = False) -> None:  # noqa: B006 (never written to)
        if isinstance(dependencies, Mapping):
            given = dependencies
            all, success = given.get("all", True), given.get("success", success)
            failure, dependencies = given.get("failure", failure), given.get("dependencies", [])
        parts = [dependencies] if isinstance(dependencies, str | AsyncResult) else list(dependencies)
        super().__init__(msg_id for part in parts for msg_id in _ids_of(part))
        if not (success or failure):
            raise ValueError("a dependency must count successes or failures, or both")
        self.all = all
        self.success = success
        self.failure = failure
        # Keep the results, so that the scheduler keeps their tasks.
        self.results = [part for part in parts if isinstance(part, AsyncResult)]

    def check(self, completed: Iterable[str], failed: Iterable[str] | None = None) -> bool:
        """Return whether the dependency is met.

        Args:
            completed: ids of tasks that have succeeded.
            failed: ids of tasks that have failed.
        """
        count = set(completed) if self.success else set()
        if self.failure and failed is not None:
            count |= set(failed)
        return not self or (self <= count if self.all else not self.isdisjoint(count))

    def unreachable(self, completed: Iterable[str], failed: Iterable[str] | None = None) -> bool:
        """Return whether the dependency can never be met; for the arguments see :meth:`check`."""
        spoil = set() if self.success else set(completed)
        if not self.failure and failed is not None:
            spoil |= set(failed)
        return bool(self) and (not self.isdisjoint(spoil) if self.all else self <= spoil)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values from which ``Dependency()`` makes an equal dependency."""
        return {"dependencies": list(self), "all": self.all, "success": self.success, "failure": self.failure}

    def core(self) -> nsactors.Dependency:
        """Return the equivalent of nsactors."""
        tasks = sorted({task_id_of(msg_id) for msg_id in self})
        made = nsactors.Dependency(tasks, all=self.all, success=self.success, failure=self.failure)
        made.results = [result.core for result in self.results]
        return made


def _ids_of(part: Any) -> list[str]:
    if isinstance(part, str):
        return [part]
    if isinstance(part, AsyncResult):
        return part.msg_ids
    raise TypeError(f"a task depends on results and ids of tasks, not on {type(part).__name__}")
