"""Parts of messages that several exceptions have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["columns", "last_lines", "short_repr", "unknown_keyword"]

_TAIL_LINES = 10


def columns(rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text: columns as wide as what is in them, two spaces apart, each line indented by four."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"    {line}".rstrip() for line in lines)


def last_lines(text: str) -> str:
    """The end of what a process wrote, as a paragraph of its own; nothing if it wrote nothing."""
    lines = text.rstrip().splitlines()[-_TAIL_LINES:]
    return "".join(["Last lines it wrote:\n", *(f"    {line}\n" for line in lines)]) if lines else ""


def short_repr(value: object) -> str:
    """A value's repr, cut where it is long."""
    import reprlib

    return reprlib.repr(value)


def unknown_keyword(kind: str, name: str, known: Iterable[str]) -> str:
    """That there is no such keyword, what it may have been meant to be, and what there is.

    Args:
        kind: what keywords are here, such as ``"flag"``.
        name: the keyword given.
        known: the keywords there are.
    """
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {kind} {name!r}: {guess}the {kind}s are {', '.join(names)}"
