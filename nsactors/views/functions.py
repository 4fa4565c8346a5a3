"""Functions that run on a view when they are called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsactors.views.direct import DirectView

__all__ = ["ParallelFunction", "RemoteFunction"]


class RemoteFunction:
    """``function``, called on the engines of a view."""

    def __init__(
        self, view: DirectView, function: Callable[..., Any], block: bool | None, flags: dict[str, Any]
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
