"""The page of the examples."""

from __future__ import annotations

import re

import pytest

from docs.tools.example_pages import FOLDER, page_of

README = "# Examples\n\n## Tasks\n\n### One: `one.py`\n\nText.\n\n### Two: `two.py`\n\nMore.\n\n## Files\n\nLast.\n"


def test_each_program_stands_at_the_end_of_its_section() -> None:
    page = page_of(README, {"one.py": "a = 1\n", "two.py": "b = 2\n"})
    one = 'Text.\n\n??? example "one.py"\n\n    ```python\n    a = 1\n    ```\n\n### Two'
    assert one in page
    assert "    b = 2\n    ```\n\n## Files\n\nLast.\n" in page


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"two\.py"):
        page_of(README, {"one.py": ""})


def test_every_example_is_on_the_page() -> None:
    named = set(re.findall(r"^### .*`([\w.]+)`$", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert named == {path.name for path in FOLDER.glob("*.py")}
