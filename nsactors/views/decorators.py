"""Functions that run on a view, and imports that happen on engines as well."""

from __future__ import annotations

import builtins
import dis
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType, ModuleType
from typing import Any, Protocol, cast

from nsactors.protocol import arguments as arg


class _View(Protocol):
    """A view, as decorated functions use it."""

    def with_flags(self, **flags: Any) -> Any:
        """See ``EngineView``."""
        ...


class _Decorated:
    """A function that runs on a view, with some of its flags changed."""

    def __init__(self, view: _View, function: Callable[..., Any], block: bool | None, flags: Mapping[str, Any]) -> None:
        functools.update_wrapper(cast("Callable[..., Any]", self), function)
        self._view = view
        self._function = function
        self._flags = flags if block is None else {**flags, "block": block}

    @property
    def block(self) -> Any:
        """True if calls wait for their result; None, the default, means the view's setting ``block``."""
        return self._flags.get("block")

    @block.setter
    def block(self, block: bool | None) -> None:
        arg.check("block", block=arg.flag(block, or_none=True))
        others = {name: value for name, value in self._flags.items() if name != "block"}
        self._flags = others if block is None else {**others, "block": bool(block)}

    @property
    def _on(self) -> Any:
        return self._view.with_flags(**self._flags)


class RemoteFunction(_Decorated):
    """``function``, called on the engines of a view."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``view.apply(function, *args, **kwargs)``."""
        return self._on.apply(self._function, *args, **kwargs)


class ParallelFunction(_Decorated):
    """A function whose arguments are sequences: each engine calls it with its parts of them. The results are joined."""

    def __init__(
        self, view: _View, function: Callable[..., Any], dist: str, block: bool | None, flags: Mapping[str, Any]
    ) -> None:
        super().__init__(view, function, block, flags)
        self._dist = dist

    def __call__(self, *sequences: Any) -> Any:
        """Call the function once per engine, with the engine's parts of the sequences."""
        return self._on.call_on_parts(self._function, sequences, dist=self._dist)

    def map(self, *sequences: Any, **options: Any) -> Any:
        """``view.map(function, *sequences, **options)``: call the function once per item."""
        return self._on.map(self._function, *sequences, dist=self._dist, **options)


class BalancedFunction(_Decorated):
    """A function whose arguments are sequences: free engines call it with parts of them. The results are joined."""

    def __init__(
        self,
        view: _View,
        function: Callable[..., Any],
        chunksize: int | None,
        block: bool | None,
        ordered: bool,
        flags: Mapping[str, Any],
    ) -> None:
        super().__init__(view, function, block, flags)
        self._chunksize = chunksize
        self._ordered = ordered

    def __call__(self, *sequences: Any) -> Any:
        """Call the function with parts of ``chunksize`` items of the sequences."""
        return self._on.call_on_parts(self._function, sequences, self._chunksize)

    def map(self, *sequences: Any, **options: Any) -> Any:
        """``view.map(function, *sequences, **options)``: call the function once per item."""
        ours: dict[str, Any] = {"chunksize": self._chunksize, "ordered": self._ordered}
        return self._on.map(self._function, *sequences, **ours, **options)


@contextmanager
def recorded_imports(frame: FrameType, *, local: bool) -> Iterator[list[str]]:
    """Record the imports that ``frame`` makes within the block, as source code that repeats them.

    Args:
        frame: the frame of the imports; imports inside the imported modules do not count.
        local: whether the imports are also carried out, and not only recorded.

    Yields:
        A list, to which each import adds its statements, with the names (``as``) that ``frame`` gives.
    """
    original = builtins.__import__
    statements: list[str] = []

    def importing(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        caller = sys._getframe(1)
        if globals is not frame.f_globals or level or caller.f_code is not frame.f_code:
            return original(name, globals, locals, fromlist, level)
        module = original(name, globals, locals, fromlist, level) if local else _stand_in(name, fromlist or ())
        statements.extend(_statements(name, tuple(fromlist or ()), _bindings(caller.f_code, caller.f_lasti)))
        return module

    builtins.__import__ = importing
    try:
        yield statements
    finally:
        builtins.__import__ = original


def _bindings(code: CodeType, offset: int) -> list[tuple[str, str]]:
    """Return the names that the import at ``offset`` binds, each with the part of the module to which it is bound.

    A comparison of the names before and after the import is not enough: a name may have been bound to the module
    already.
    """
    found: list[tuple[str, str]] = []
    part = ""
    for step in dis.get_instructions(code):
        if step.offset <= offset:
            continue
        if step.opname == "IMPORT_FROM":
            part = step.argval
        elif step.opname.startswith("STORE_"):
            # The instruction may be joined with the next one; it then has two names, and the first is stored.
            found.append((part, step.argval if isinstance(step.argval, str) else step.argval[0]))
        elif step.opname not in ("SWAP", "POP_TOP", "NOP", "EXTENDED_ARG"):
            break
    return found


def _statements(name: str, fromlist: tuple[str, ...], bound: list[tuple[str, str]]) -> list[str]:
    if fromlist:
        items = bound or [(item, item) for item in fromlist]  # an import of a star stores no name
        return [f"from {name} import {item}" + (f" as {alias}" if alias != item else "") for item, alias in items]
    aliases = [alias for part, alias in bound if part or alias != name.partition(".")[0]]
    return [f"import {name} as {alias}" for alias in aliases] or [f"import {name}"]


def _stand_in(name: str, fromlist: tuple[str, ...]) -> ModuleType:
    if fromlist:
        module = ModuleType(name)
        for item in fromlist:
            setattr(module, item, ModuleType(f"{name}.{item}"))
        return module
    top, _, rest = name.partition(".")
    module = ModuleType(top)
    if rest:
        setattr(module, rest.partition(".")[0], _stand_in(rest, ()))
    return module
