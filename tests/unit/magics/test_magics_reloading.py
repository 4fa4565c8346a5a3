"""Edits of local modules reach the engines."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from nsactors.magics.reloading import ModuleSource, SourceShipper, install


@pytest.fixture
def module(tmp_path: Path) -> ModuleType:
    """A module imported from a file of the user's."""
    module = ModuleType("mine")
    module.__file__ = str(tmp_path / "mine.py")
    Path(module.__file__).write_text("x = 1\n")
    return module


@pytest.fixture
def _clean_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def edit(module: ModuleType, source: str, at: int) -> None:
    path = Path(str(module.__file__))
    path.write_text(source)
    os.utime(path, (at, at))


def test_an_edited_module_is_sent_once(module: ModuleType) -> None:
    shipper = SourceShipper({"mine": module, "os": os})
    assert shipper.edited() == []
    edit(module, "x = 2\n", at=1_000)
    assert shipper.edited() == [ModuleSource("mine", str(module.__file__), False, "x = 2\n")]
    assert shipper.edited() == []


def test_a_module_imported_meanwhile_is_sent(module: ModuleType) -> None:
    modules: dict[str, ModuleType] = {}
    shipper = SourceShipper(modules)
    modules["mine"] = module
    assert [found.name for found in shipper.edited()] == ["mine"]


@pytest.mark.usefixtures("_clean_modules")
def test_a_module_without_a_file_here_is_made() -> None:
    install(
        [
            ModuleSource("pack", "/far/pack/__init__.py", True, "y = 1"),
            ModuleSource("pack.mod", "/far/pack/mod.py", False, "x = 5"),
        ]
    )
    import pack.mod  # type: ignore[import-not-found]

    assert (pack.y, pack.mod.x) == (1, 5)


@pytest.mark.usefixtures("_clean_modules")
def test_functions_imported_before_see_the_new_source_of_their_module() -> None:
    install([ModuleSource("again", "again.py", False, "x = 1\ndef f():\n    return x\n")])
    f = sys.modules["again"].f
    install([ModuleSource("again", "again.py", False, "x = 2\ndef f():\n    return x\n")])
    assert f() == 2
