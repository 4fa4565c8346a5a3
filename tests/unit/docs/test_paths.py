"""The files that pages for contributors name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PLACES = [ROOT, ROOT / "nsactors", ROOT / "tests"]
CODE = re.compile(r"`([\w./-]+(?:\.py|\.md|\.yml|/))`")
DRAWN = re.compile(r'class="file"[^>]*>([^<]+)<|([\w/]+\.py) ')


def missing(names: list[str]) -> list[str]:
    return sorted({name for name in names if not any((place / name).exists() for place in PLACES)})


@pytest.mark.parametrize(
    "page", ["CONTRIBUTING.md", "docs/explanation/architecture.md", "docs/explanation/hot-path.md"]
)
def test_the_files_that_a_page_names_are_there(page: str) -> None:
    names = CODE.findall((ROOT / page).read_text(encoding="utf-8"))
    assert missing(names) == []


def test_the_files_of_the_drawn_call_are_there() -> None:
    """Where they are not: ``python -m benchmarks.studies.traced_call docs/explanation/execute.svg``."""
    found = DRAWN.findall((ROOT / "docs/explanation/execute.svg").read_text(encoding="utf-8"))
    names = [name for pair in found for name in pair if name]
    assert len(set(names)) > 15
    assert missing(names) == []


def test_a_missing_file_is_found() -> None:
    assert missing(["nsactors/", "views/direct.py", "views/nowhere.py"]) == ["views/nowhere.py"]


def rows_with_unknown_names(page: str) -> list[str]:
    """Names in code that stand in none of the files of their row, in the table of places."""
    unknown = []
    for row in re.findall(r"^\| (?!To add)[^|]*\|([^|]*)\|[^|]*\|$", page, re.MULTILINE):
        spans = re.findall(r"`([^`]+)`", row)
        files = [place / span for span in spans for place in PLACES if (place / span).is_file()]
        text = "".join(file.read_text(encoding="utf-8") for file in files)
        pattern = r"(?:\w+\.)?(\w+)(?:\(\.\.\.\)|=)?(?<!\.py)(?<!\.md)"
        names = [match[1] for span in spans if (match := re.fullmatch(pattern, span))]
        unknown += [name for name in names if files and not re.search(rf"\b{name}\b", text)]
    return unknown


def test_the_names_that_the_table_of_places_gives_are_in_the_files_beside_them() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert rows_with_unknown_names(page) == []
    assert rows_with_unknown_names(page.replace("`Batcher.compose`", "`Batcher.composed`")) == ["composed"]
