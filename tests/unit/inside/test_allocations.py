"""Profiles of memory: the allocations of requests, in bytes."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from nsactors.inside.allocations import MemoryProfiler, allocations_profile
from nsactors.inside.profilers import Profilers
from nsactors.inside.profiles import Profile
from nsactors.namespace import interrupts
from nsactors.namespace.interrupts import CellEventLoop

BORDER = ("run_user_code", interrupts.__file__, 60)
MACHINERY = ("handle", "/x/nsactors/engine_actor.py", 300)
CELL = "<engine 3, cell 2>"


class Record(NamedTuple):
    size: int
    n_allocations: int
    frames: list[tuple[str, str, int]]  # the outermost first

    def stack_trace(self) -> list[tuple[str, str, int]]:
        return self.frames[::-1]


RECORDS = [
    Record(3_000_000, 2, [MACHINERY, BORDER, ("<module>", CELL, 5), ("load", "/home/ann/data.py", 7)]),
    Record(1_000_000, 1, [MACHINERY, BORDER, ("<module>", CELL, 5)]),
    Record(500_000, 1, [MACHINERY, BORDER, ("<module>", CELL, 5)]),
    Record(9_000_000, 9, [MACHINERY]),
    Record(9_000_000, 9, [("poll", "/x/controller.py", 1)]),
]


def test_only_allocations_of_requests_count_with_the_lines_that_made_them() -> None:
    profile = Profile("memory", {3: allocations_profile(RECORDS)})
    assert {(f.name, f.place, f.own_s, f.total_s, f.number) for f in profile.functions()} == {
        ("load", "/home/ann/data.py, line 7", 3e6, 3e6, 2),
        ("<module>", "<cell 2>, line 5", 1.5e6, 4.5e6, 4),
    }


def test_sizes_are_shown_and_saved_in_bytes(tmp_path: Path) -> None:
    profile = Profile("memory", {3: allocations_profile(RECORDS)})
    lines = repr(profile).splitlines()
    assert lines[0] == "memory of engine 3 at its peak: 4.5 MB in 4 allocations"
    assert lines[1].split() == ["own", "total", "allocations", "function", "place"]
    assert lines[3].split()[:6] == ["3.0", "MB", "67%", "3.0", "MB", "2"]
    profile.save(tmp_path / "x.json")
    assert '"unit": "bytes"' in (tmp_path / "x.json").read_text()
    profile.save(tmp_path / "x.svg")
    assert "load (/home/ann/data.py, line 7): 3.0 MB, 66.7%" in (tmp_path / "x.svg").read_text()
    with pytest.raises(ValueError, match=r"as \.prof files hold times"):
        profile.save(tmp_path / "x.prof")


@pytest.fixture
def memray(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package memray, of which this needs a small part."""
    fake: Any = types.ModuleType("memray")
    fake.opened = []

    class Tracker:
        def __init__(self, destination: str, file_format: str) -> None:
            self.path = destination

        def __enter__(self) -> Self:
            fake.opened.append(self.path)
            return self

        def __exit__(self, *_: object) -> None:
            fake.opened.remove(self.path)

    class FileReader:
        def __init__(self, path: str) -> None:
            assert os.path.exists(path)
            fake.read = path

        def get_high_watermark_allocation_records(self, *, merge_threads: bool) -> list[Record]:
            return RECORDS if merge_threads else []

    fake.Tracker, fake.FileReader = Tracker, FileReader
    fake.FileDestination = lambda path, overwrite: path
    fake.FileFormat = types.SimpleNamespace(AGGREGATED_ALLOCATIONS="aggregated")
    monkeypatch.setitem(sys.modules, "memray", fake)
    return fake


def test_allocations_are_recorded_until_the_profile_ends(memray: Any) -> None:
    profilers = Profilers(0, CellEventLoop(), lambda: None)
    profilers.start("p", "ann", "memory", 0.01)
    assert len(memray.opened) == 1
    profile = profilers.stop("p")
    assert (memray.opened, os.path.exists(memray.read)) == ([], False)
    assert sum(sample.seconds for sample in profile.samples) == 4.5e6


def test_where_memory_cannot_be_recorded_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="its memory is that of the whole process"):
        Profilers(0, CellEventLoop(), lambda: None, shares_process=True).start("p", "ann", "memory", 0.01)
    monkeypatch.setitem(sys.modules, "memray", None)
    with pytest.raises(RuntimeError, match="pip install nsactors\\[memory\\]"):
        MemoryProfiler("ann")
