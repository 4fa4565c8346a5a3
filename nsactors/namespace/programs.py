"""The code that histories show for a request: this code has the same effect on the namespace as the request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nsactors.protocol.messages import Execute, Operation, Reset

MOST_CHARS = 100_000
_SHORT_CHARS = 200  # longest text of a value that is shown
_FEW_ITEMS = 20
_ATOMS = (int, float, bool, str, type(None))


def program_of(operation: Operation) -> str:
    """Return the code of an operation; empty if it binds no names, or (``apply``) binds them inside its function.

    See :func:`assignments` for a push.
    """
    match operation:
        case Execute(code):
            return code if len(code) <= MOST_CHARS else f"# a cell of {len(code):,} characters, which was not kept"
        case Reset():
            return "# clear(): the names from before were forgotten"
        case _:
            return ""


def assignments(values: Mapping[str, Any]) -> str:
    """Return the code of a push, with the short and plain values written out."""
    return "\n".join([_assignment(name, value) for name, value in values.items()])


def _assignment(name: str, value: Any) -> str:
    if _is_plain(value) and len(written := repr(value)) <= _SHORT_CHARS:
        return f"{name} = {written}"
    return f"# {name} was pushed by a client: {type(value).__name__}"


def _is_plain(value: Any) -> bool:
    """Return whether ``repr`` is code for a value, and cheap."""
    kind = type(value)
    if kind in (list, tuple):
        return len(value) <= _FEW_ITEMS and all(_is_atom(item) for item in value)
    return _is_atom(value)


def _is_atom(value: Any) -> bool:
    kind = type(value)
    if kind is float:
        return math.isfinite(value)  # inf and nan are written as names
    return kind in _ATOMS and (kind is not str or len(value) <= _SHORT_CHARS)
