"""Edits of the user's own modules are loaded before ``%px``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsactors.magics.reloading import EditedModules
from nsactors.session.own_modules import OwnModules


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of the user's, which is forgotten afterwards, and the only one: tests are a user's modules, too."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "edited_mine.py"
    sys.modules.pop("edited_mine", None)


def write(file: Path, source: str, at: int) -> None:
    file.write_text(source)
    os.utime(file, (at, at))
    importlib.invalidate_caches()


@pytest.fixture
def edited() -> Iterator[EditedModules]:
    made = EditedModules()
    yield made
    made.close()


def test_an_edit_is_loaded_once_and_names_that_were_imported_are_the_new_ones(
    file: Path, edited: EditedModules
) -> None:
    write(file, "def f(): return 1", at=1_000)
    mine = importlib.import_module("edited_mine")
    f = mine.f
    assert edited.reload(None) == []
    write(file, "def f(): return 22", at=2_000)
    assert edited.reload(None) == ["edited_mine"]
    assert (mine.f(), f()) == (22, 22)
    assert edited.reload(None) == []


def test_the_edit_that_made_one_type_it_is_loaded(
    file: Path, edited: EditedModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write(file, "x = 1", at=1_000)
    mine = importlib.import_module("edited_mine")
    write(file, "x = 22", at=2_000)  # nobody follows what is imported yet
    assert edited.reload(None) == ["edited_mine"]
    assert mine.x == 22


def test_old_byte_code_says_nothing_where_python_writes_none(
    file: Path, edited: EditedModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write(file, "x = 1", at=1_000)
    importlib.import_module("edited_mine")
    del sys.modules["edited_mine"]
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(file, "x = 22", at=2_000)
    assert importlib.import_module("edited_mine").x == 22
    assert edited.reload(None) == []


def test_a_module_that_does_not_load_is_told_and_stays_as_it_was(file: Path, edited: EditedModules) -> None:
    own = OwnModules()
    try:
        write(file, "x = 1", at=1_000)
        mine = importlib.import_module("edited_mine")
        own.now()
        write(file, "x = = 2", at=2_000)
        before = own.now()
        with pytest.raises(SyntaxError):
            edited.reload(own)
        assert own.now() == before
        assert mine.x == 1
        write(file, "x = 3", at=3_000)
        assert edited.reload(own) == ["edited_mine"]
        assert mine.x == 3
    finally:
        own.close()
