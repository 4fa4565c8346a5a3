"""Functions that run on a view when they are called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsactors.views.direct import DirectView
    from nsactors.views.load_balanced import LoadBalancedView

__all__ = ["BalancedFunction", "ParallelFunction", "RemoteFunction"]


class RemoteFunction:
    """``function``, called on the engines of a view."""

    def __init__(
        self,
        view: DirectView | LoadBalancedView,
        function: Callable[..., Any],
        block: bool | None,
        flags: dict[str, Any],
    ) -> None:
        functools.update_wrapper(self, function)
        self._view = view
        self._function = function
        self._flags = flags if block is None else {**flags, "block": block}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``view.apply(function, *args, **kwargs)``."""
        return self._view.with_flags(**self._flags).apply(self._function, *args, **kwargs)


class ParallelFunction:
    """``function`` of sequences, each engine calling it on its part of them; the results are joined."""

    def __init__(
        self,
        view: DirectView,
        function: Callable[..., Any],
        dist: str,
        block: bool | None,
        flags: dict[str, Any],
    ) -> None:
        functools.update_wrapper(self, function)
        self._view = view
        self._function = function
        self._dist = dist
        self._flags = flags if block is None else {**flags, "block": block}

    def __call__(self, *sequences: Any) -> Any:
        """Call the function once per engine, with the engine's parts of the sequences."""
        return self._view.with_flags(**self._flags).call_on_parts(self._function, sequences, dist=self._dist)

    def map(self, *sequences: Any) -> Any:
        """``view.map(function, *sequences)``: call the function once per item."""
        return self._view.with_flags(**self._flags).map(self._function, *sequences, dist=self._dist)


class BalancedFunction:
    """``function`` of sequences, called with parts of them on whichever engines are free; the results are joined."""

    def __init__(
        self,
        view: LoadBalancedView,
        function: Callable[..., Any],
        chunksize: int | None,
        block: bool | None,
        ordered: bool,
        flags: dict[str, Any],
    ) -> None:
        functools.update_wrapper(self, function)
        self._view = view
        self._function = function
        self._chunksize = chunksize
        self._ordered = ordered
        self._flags = flags if block is None else {**flags, "block": block}

    def __call__(self, *sequences: Any) -> Any:
        """Call the function with parts of ``chunksize`` items of the sequences."""
        return self._view.with_flags(**self._flags).call_on_parts(self._function, sequences, self._chunksize)

    def map(self, *sequences: Any) -> Any:
        """``view.map(function, *sequences)``: call the function once per item."""
        view = self._view.with_flags(**self._flags)
        return view.map(self._function, *sequences, chunksize=self._chunksize, ordered=self._ordered)
