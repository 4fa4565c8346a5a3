"""The code that histories show for a request: this code has the same effect on the namespace as the request."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from nsactors.protocol.messages import Execute, Operation, Reset

MOST_CHARS = 100_000
_SHORT_CHARS = 200  # longest text of a value that is shown
_FEW_ITEMS = 20
_ATOMS = (int, float, bool, str, bytes, type(None))
_LEFT_OUT = re.compile(
    r"^# (?:(\w+) was pushed by a client: (.+)|(a cell of [\d,]+ characters), which was not kept)$", re.M
)


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


def left_out(program: str) -> list[str]:
    r"""Return what the code of a request lacks, in words: names that were pushed, each with its class, and long cells.

    Example:
        >>> left_out("n = 3\n# table was pushed by a client: ndarray")
        ['table (ndarray)']
    """
    return [cell or f"{name} ({kind})" for name, kind, cell in _LEFT_OUT.findall(program)]


def _assignment(name: str, value: Any) -> str:
    if _is_plain(value) and len(written := repr(value)) <= _SHORT_CHARS:
        return f"{name} = {written}"
    return f"# {name} was pushed by a client: {type(value).__name__}"


def _is_plain(value: Any) -> bool:
    """Return whether ``repr`` is code for a value, and cheap."""
    kind = type(value)
    if kind in (list, tuple):
        return len(value) <= _FEW_ITEMS and all(_is_atom(item) for item in value)
    if kind is dict:
        return len(value) <= _FEW_ITEMS and all(_is_atom(key) and _is_atom(item) for key, item in value.items())
    # Sets are not written out: engines may show the items in different orders, so that their histories would differ.
    return all(map(_is_atom, (value.start, value.stop, value.step))) if kind is range else _is_atom(value)


def _is_atom(value: Any) -> bool:
    kind = type(value)
    if kind is float:
        return math.isfinite(value)  # inf and nan are written as names
    if kind is int:
        return bool(value.bit_length() <= 4 * _SHORT_CHARS)  # Python refuses to write numbers of many digits
    return kind in _ATOMS and (kind not in (str, bytes) or len(value) <= _SHORT_CHARS)
