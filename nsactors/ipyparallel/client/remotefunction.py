"""Functions that run on a view whenever they are called."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Sized
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from nsactors.ipyparallel.arguments import check_distribution, check_flags, check_function, check_whole
from nsactors.ipyparallel.serialize import PrePickled, Reference

if TYPE_CHECKING:
    from nsactors.ipyparallel.client.view import View

__all__ = ["ParallelFunction", "RemoteFunction", "parallel", "remote"]


def remote(view: View, block: bool | None = None, **flags: Any) -> Callable[[Callable[..., Any]], RemoteFunction]:
    """Decorate a function so that each call runs on the view's engines.

    Args:
        view: the view.
        block: whether to wait for the value; None for the view's setting ``block``.
        flags: flags of the view for these calls.
    """
    return lambda function: RemoteFunction(view, function, block=block, **flags)


def parallel(
    view: View, dist: str = "b", block: bool | None = None, ordered: bool = True, **flags: Any
) -> Callable[[Callable[..., Any]], ParallelFunction]:
    """Decorate a function whose arguments are sequences: each engine calls it with parts of the sequences.

    Args:
        view: the view.
        dist: ``"b"`` for contiguous parts, ``"r"`` to deal items out in turn.
        block: whether to wait for the value; None for the view's setting ``block``.
        ordered: return items in order, not as they complete.
        flags: flags of the view for these calls.
    """
    return lambda function: ParallelFunction(view, function, dist=dist, block=block, ordered=ordered, **flags)


def name_of(function: Any) -> str:
    """Return a function's name, or its text if it has none."""
    for attribute in ("__name__", "name"):
        if isinstance(name := getattr(function, attribute, None), str):
            return name
    return str(function)


class FunctionWithGlobals:
    """A function of ``__main__``, sent together with values of the client's globals.

    These values replace globals of the same name on the engine.

    Args:
        function: the function.
        values: the globals that it names and the client has.
    """

    def __init__(self, function: FunctionType, values: dict[str, Any]) -> None:
        self.function = function
        self.values = values
        self.__name__ = function.__name__

    @classmethod
    def of(cls, function: Any) -> Any:
        """Return a function with its globals; return functions of modules, and anything else, unchanged."""
        main = sys.modules["__main__"].__dict__
        if type(function) is not FunctionType or function.__globals__ is not main:
            return function
        values = {name: main[name] for name in _names_in(function.__code__) if name in main}
        return cls(function, values) if values else function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function with the engine's globals, replaced or completed by the client's."""
        f = self.function
        made = FunctionType(f.__code__, {**f.__globals__, **self.values}, f.__name__, f.__defaults__, f.__closure__)
        made.__kwdefaults__ = f.__kwdefaults__
        return made(*args, **kwargs)


def _names_in(code: CodeType) -> set[str]:
    """Return the names of globals and attributes in a function and in the functions that it defines."""
    inner = (_names_in(const) for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*inner)


class RemoteFunction:
    """A function that runs on a view.

    Args:
        view: the view.
        f: the function.
        block: whether to wait for the value; None for the view's setting ``block``. The attribute may be changed later.
        flags: flags of the view for these calls.
    """

    def __init__(self, view: View, f: Callable[..., Any], block: bool | None = None, **flags: Any) -> None:
        check_flags("RemoteFunction", block=block)
        if not isinstance(f, Reference | PrePickled):
            check_function("RemoteFunction", "f", f)
        self.view = view
        self.func = f
        self.block = block
        self.flags = flags
        functools.update_wrapper(self, f, updated=())
        self.__name__ = name_of(f)
        if f.__doc__:
            self.__doc__ = f"{type(self).__name__} wrapping:\n{f.__doc__}"
        with contextlib.suppress(TypeError, ValueError):  # builtins may have none
            self.__signature__ = inspect.signature(f)

    def _blocks(self) -> bool:
        return bool(self.view.block if self.block is None else self.block)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function on the view's engines."""
        with self.view.temp_flags(block=self._blocks(), **self.flags):
            return self.view.apply(self.func, *args, **kwargs)


class ParallelFunction(RemoteFunction):
    """A function whose arguments are sequences: each engine calls it with parts of the sequences.

    Args:
        view: the view.
        f: the function.
        dist: ``"b"`` for contiguous parts, ``"r"`` to deal items out in turn.
        block: whether to wait for the value; None for the view's setting ``block``.
        chunksize: items in each part on a load-balanced view; the default is one.
        ordered: return items in order, not as they complete.
        return_exceptions: return exceptions in place of missing items.
        flags: flags of the view for these calls.
    """

    def __init__(
        self,
        view: View,
        f: Callable[..., Any],
        dist: str = "b",
        block: bool | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        **flags: Any,
    ) -> None:
        check_distribution("ParallelFunction", dist)
        check_whole("ParallelFunction", "chunksize", chunksize, others=(None,))
        super().__init__(view, f, block=block, **flags)
        self.dist = dist
        self.chunksize = chunksize
        self.ordered = ordered
        self.return_exceptions = return_exceptions

    def __call__(self, *sequences: Any, **kwargs: Any) -> Any:
        """Call the function on parts of sequences of equal length, and join the values.

        Raises:
            ValueError: if the sequences differ in length.
            TypeError: if there are keyword arguments.
        """
        if kwargs:
            raise TypeError(f"a parallel function takes sequences, not {', '.join(kwargs)} by keyword")
        columns = [sequence if isinstance(sequence, Sized) else list(sequence) for sequence in sequences]
        lengths = [len(column) for column in columns]
        if len(set(lengths)) > 1:
            raise ValueError(f"all sequences must have equal length, but have {lengths}")
        if not any(lengths):
            return []
        with self.view.temp_flags(block=self._blocks(), **self.flags):
            return self.view.call_on_parts(self, columns)

    def map(self, *sequences: Any) -> Any:
        """Call the function once for each item."""
        options: dict[str, Any] = {"return_exceptions": self.return_exceptions}
        with self.view.temp_flags(block=self._blocks(), **self.flags):
            return self.view.map_as(self, sequences, options)
