"""Imports that happen on engines as well."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any

__all__ = ["recorded_imports"]


@contextmanager
def recorded_imports(frame: FrameType, *, local: bool) -> Iterator[list[str]]:
    """Record the imports that ``frame`` makes meanwhile, as source that repeats them.

    Args:
        frame: whose own imports count; those made inside the imported modules do not.
        local: whether they are carried out here too.

    Yields:
        A list that is filled at the end, one statement each, with the names (``as``) that ``frame`` gave.
    """
    original = builtins.__import__
    made: list[tuple[str, tuple[str, ...], Any]] = []

    def importing(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if globals is not frame.f_globals or level or sys._getframe(1).f_code is not frame.f_code:
            return original(name, globals, locals, fromlist, level)
        module = original(name, globals, locals, fromlist, level) if local else _stand_in(name, fromlist or ())
        made.append((name, tuple(fromlist or ()), module))
        return module

    statements: list[str] = []
    before = {**frame.f_globals, **frame.f_locals}
    builtins.__import__ = importing
    try:
        yield statements
    finally:
        builtins.__import__ = original
    after = {**frame.f_globals, **frame.f_locals}
    fresh = {name: value for name, value in after.items() if name not in before or before[name] is not value}
    for name, fromlist, module in made:
        statements += _statements(name, fromlist, module, fresh, after)


def _statements(
    name: str, fromlist: tuple[str, ...], module: Any, fresh: dict[str, Any], names: dict[str, Any]
) -> list[str]:
    if not fromlist:
        target = sys.modules.get(name, module)
        aliases = [alias for alias, value in fresh.items() if value is target and alias != name.partition(".")[0]]
        return [f"import {name} as {alias}" for alias in aliases] or [f"import {name}"]
    statements = []
    for item in fromlist:
        value = getattr(module, item, None)
        aliases = [a for a, v in fresh.items() if v is value and a != item] if names.get(item) is not value else []
        statements += [f"from {name} import {item} as {alias}" for alias in aliases] or [f"from {name} import {item}"]
    return statements


def _stand_in(name: str, fromlist: tuple[str, ...]) -> ModuleType:
    module = ModuleType(name)
    for item in fromlist:
        setattr(module, item, ModuleType(f"{name}.{item}"))
    return module
