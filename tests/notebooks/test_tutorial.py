"""The tutorial of the prompt, typed as it is written: what appears must be what the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.notebooks.prompt import Prompt

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

INFINITE_S = 3.0
READING_S = 1.0
LAST_LINE = "step 2"  # the last line of the cell for which nobody waits
PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "interactive.md"
_BLOCK = re.compile(r"^```ipython\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FIRST, _MORE = re.compile(r"In \[\d+\]: (.*)"), re.compile(r" {3,}\.\.\.: ?(.*)")
_ANSWERED = re.compile(r"pending, \d of 4 answered")
_LABEL = re.compile(r"\[(?:\d+(?:-\d+)?(?:, )?)+\] ")


class Session(NamedTuple):
    """What is typed, a list of lines for each cell, and all the lines that appear."""

    cells: list[list[str]]
    shown: set[str]


def written(page: str) -> Session:
    """The session in the ``ipython`` blocks of a page."""
    cells: list[list[str]] = []
    shown: list[str] = []
    for line in "\n".join(_BLOCK.findall(page)).splitlines():
        if first := _FIRST.fullmatch(line):
            cells.append([first[1]])
        elif more := _MORE.fullmatch(line):
            cells[-1].append(more[1])
        else:
            shown.append(line)
    return Session(cells, told(shown))


def told(lines: list[str]) -> set[str]:
    """Lines as they can be compared.

    On a busy machine equal ones may come apart, so labels do not count, and some engines may have answered early.
    """
    return {_ANSWERED.sub("pending", text) for line in lines for part in _LABEL.split(line) if (text := part.strip())}


def type_all(prompt: Prompt, cells: list[list[str]]) -> Iterator[str]:
    """Type cells; what appears after each.

    One that never ends is interrupted, and one that nobody waits for is given time, as a reader does both.
    """
    for lines in cells:
        if len(lines) == 1:
            yield prompt.run(lines[0])
            continue
        while not lines[-1]:
            lines.pop()
        prompt.type_cell(*lines)
        if "while True:" in lines:
            prompt.look_on(INFINITE_S)
            prompt.interrupt()
        yield prompt.until_prompt()
        if "--noblock" in lines[0]:
            prompt.look_for(LAST_LINE)
            prompt.look_on(READING_S)


def test_cells_and_what_appears_are_told_apart() -> None:
    page = "```ipython\nIn [1]: a\n\nIn [2]: %%px\n   ...: b\n   ...:\n[0-1] c\n```\ntext\n"
    assert written(page) == Session([["a"], ["%%px", "b", ""]], {"c"})


def test_what_appears_is_what_the_page_says(tmp_path: Path) -> None:
    page = written(PAGE.read_text(encoding="utf-8"))
    (tmp_path / "work").mkdir()
    prompt = Prompt(tmp_path / "work")
    try:
        appeared = [line for text in type_all(prompt, page.cells) for line in text.splitlines()]
        prompt.leave()
    finally:
        prompt.close()
    seen = told(appeared)
    assert page.shown - seen == set()
    # Progress is seen too, and is on no page; an error that is on none is one too many.
    assert {line for line in seen - page.shown if "Error" in line or "failed" in line} == set()
