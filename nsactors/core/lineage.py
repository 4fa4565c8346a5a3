"""Which entries of a journal made a name: a walk backwards from what is wanted to what it was made of.

This is a program slice (Weiser 1981) of the instruction stream, taken over whole requests: an entry belongs to it if
it bound a wanted name, and what it used is then wanted in its turn, unless the snapshot has it.

What later entries did to an object without binding its name is not repeated: a generator starts anew, a connection
is as it was opened.
"""

from __future__ import annotations

import ast
import dis
import re
import warnings
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from types import CodeType

from nsactors.core.journal import Entry, State
from nsactors.core.messages import Execute

__all__ = ["makers"]

_STORES = frozenset({"STORE_NAME", "STORE_GLOBAL"})
_LOADS = frozenset({"LOAD_NAME", "LOAD_GLOBAL"})
_SHELL_LINE = re.compile(r"^([ \t]*)[%!].*$", re.MULTILINE)


def makers(entries: Sequence[Entry], wanted: AbstractSet[str], provided: AbstractSet[str]) -> tuple[Entry, ...]:
    """The entries to run again, in order, so that ``wanted`` names are there again.

    Args:
        entries: all there are, oldest first.
        wanted: the names that are missing.
        provided: the names that need not be made.
    """
    open_names = set(wanted) - provided
    known = {name for entry in entries for name in entry.bound}
    kept: list[Entry] = []
    for entry in reversed(entries):
        if not open_names:
            break
        stored, used = _names(entry, known)
        bound = open_names.intersection(entry.bound)
        # A new object may have the address of the old one, and the name then seems to be bound to the same as before:
        # an entry whose source binds the name may have made it, and so may those before it.
        if bound or open_names & stored:
            kept.append(entry)
            open_names -= bound
            open_names |= used - provided
    return tuple(reversed(kept))


def _names(entry: Entry, known: set[str]) -> tuple[set[str], set[str]]:
    """The names that an entry's code binds at its top level, and those that it uses."""
    if entry.state is State.NOT_JOURNALLED or entry.state is State.HELD_REFERENCES:
        return set(), set()
    if isinstance(entry.operation, Execute):
        return _names_of_cell(entry.operation.code, known)
    data = entry.payload.data if entry.payload else b""
    # Names that a function uses stand in its code as they are. Some other name may be taken for one: it is then
    # made as well, which costs time and does no harm.
    return set(), {name for name in known if name.encode() in data}


def _names_of_cell(source: str, known: set[str]) -> tuple[set[str], set[str]]:
    plain = _SHELL_LINE.sub(r"\1pass", source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user has had them
            code = compile(plain, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError):
        return set(), known.intersection(re.findall(r"\w+", source))
    assert isinstance(code, CodeType)
    stored = {i.argval for i in dis.get_instructions(code) if i.opname in _STORES}
    used = {i.argval for inner in _codes(code) for i in dis.get_instructions(inner) if i.opname in _LOADS}
    return stored, used & known


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
