"""The pages of the documentation, and the blocks of code on them."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["LOCAL_PAGES", "PAGES", "ROOT", "Block", "as_session", "blocks_of", "commands", "files_of", "page_path"]

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
LOCAL_PAGES = ["docs/reference/index.md", "docs/how-to/testing.md"]
"""Those whose examples need no Ray."""

_FENCE = re.compile(r"^(`{3,})(\w*)(?: title=\"([^\"]+)\")?$")
_SYNTAX_ONLY = re.compile(r"<!-- .*[Ss]yntax only.* -->")
_OF_PAGE = "this page"


class Block(NamedTuple):
    """A block of code.

    Attributes:
        page: the page's path from the top of the checkout.
        line: the number of its first line, from 1.
        language: the word behind its fence.
        title: the name of the file that it shows, if it has one.
        text: its lines.
        syntax_only: a comment above it, or a comment for the whole page, says that only its syntax is checked.
    """

    page: str
    line: int
    language: str
    title: str
    text: str
    syntax_only: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def page_path(page: str) -> Path:
    """Return the path of a page."""
    return ROOT / page


def blocks_of(page: str, text: str | None = None) -> Iterator[Block]:
    """Yield the blocks of a page, in order.

    Args:
        page: the page's path from the top of the checkout.
        text: the page; read from there, if it is None.
    """
    fence, language, title, first = "", "", "", 0
    lines: list[str] = []
    above, of_page = "", False
    for number, line in enumerate((page_path(page).read_text("utf-8") if text is None else text).splitlines(), 1):
        if fence and line == fence:
            only = of_page or bool(_SYNTAX_ONLY.fullmatch(above))
            yield Block(page, first, language, title, "".join(f"{one}\n" for one in lines), only)
            fence, above = "", ""
        elif fence:
            lines.append(line)
        elif opening := _FENCE.match(line):
            fence, language, title, first, lines = opening[1], opening[2], opening[3] or "", number + 1, []
        elif line:
            above = line
            of_page |= bool(_SYNTAX_ONLY.fullmatch(line)) and _OF_PAGE in line


def as_session(page: str, text: str | None = None) -> str:
    """Return what doctest types: ``pycon`` blocks, and ``python`` blocks with prompts before their statements.

    A ``text`` block right below a ``python`` block is the output of that. Other lines are blank, so that the numbers
    of lines are those of the page.
    """
    session: dict[int, str] = {}
    python_ends = 0
    for block in blocks_of(page, text):
        if block.syntax_only or block.title:
            continue
        lines = block.text.splitlines()
        match block.language:
            case "pycon":
                shown = lines
            case "python":
                shown, python_ends = _with_prompts(lines), block.line + len(lines)
            case "text" if block.line == python_ends + 3:  # doctest wants no blank line before what is printed
                session |= dict(enumerate(lines, python_ends))
                continue
            case _:
                continue
        session |= dict(enumerate(shown, block.line))
    return "".join(f"{session.get(number, '')}\n" for number in range(1, max(session, default=0) + 2))


def _with_prompts(lines: list[str]) -> list[str]:
    """Prompts before statements: an expression gives nothing to see, and what is printed may be wrapped otherwise."""
    shown = [""] * len(lines)
    statements = ast.parse("\n".join(lines)).body
    for statement in statements:
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
        silent = "_ = " if isinstance(statement, ast.Expr) else ""
        last = statement.end_lineno or first
        for number in range(first, last + 1):
            shown[number - 1] = f"... {lines[number - 1]}".rstrip()
        shown[first - 1] = f">>> {silent}{lines[first - 1]}"
        if first == last:
            shown[first - 1] += "  # doctest: +NORMALIZE_WHITESPACE"
    return shown


def commands(block: Block) -> list[list[str]]:
    """Return the words of each command of a ``console`` block; of several in a pipe, those of the first."""
    joined = block.text.replace("\\\n", " ")
    typed = [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]
    return [shlex.split(line, comments=True) for line in typed]


def files_of(page: str) -> dict[str, str]:
    """Return the files that a page shows, by their names."""
    return {block.title: block.text for block in blocks_of(page) if block.title}
