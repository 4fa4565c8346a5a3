"""``make test`` looks for tests that need Ray only in some folders: all such tests are in these folders."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"pytest\.mark\.(ray|cluster)\b")


def test_tests_that_need_ray_are_in_the_folders_that_are_searched_for_them() -> None:
    line = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("RAY_TESTS :="))
    folders = [ROOT / "tests" / name for name in line.rstrip(")").partition(",")[2].split()]
    assert all(folder.is_dir() for folder in folders)
    marked = [path for path in (ROOT / "tests").rglob("*.py") if MARK.search(path.read_text(encoding="utf-8"))]
    elsewhere = [path for path in marked if not any(path.is_relative_to(folder) for folder in folders)]
    assert [path for path in elsewhere if path != Path(__file__)] == []
    assert len(marked) > 30
