"""What this program has imported of its own, noticed without looking at files in a call."""

from __future__ import annotations

import builtins
import importlib
import os
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nsactors.protocol.client_modules import ClientModules, OwnModule, digest_of
from nsactors.session import own_modules
from nsactors.session.own_modules import OwnModules


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the program, in ``sys.path``; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(own_modules, "_roots", lambda: (os.path.realpath(tmp_path),))
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def own(folder: Path) -> Iterator[OwnModules]:
    followed = OwnModules()
    yield followed
    followed.close()


_CLOCK = iter(range(1_000_000_000, 2_000_000_000, 10))


def write(path: Path, source: str) -> None:
    """Write a file that is newer than any before: Python compares seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    at = next(_CLOCK)
    os.utime(path, (at, at))
    importlib.invalidate_caches()


def told(own: OwnModules) -> ClientModules:
    now = own.now()
    assert now is not None
    return now


def module(own: OwnModules, name: str) -> OwnModule | None:
    return {each.name: each for each in told(own).modules}.get(name)


def test_what_is_imported_is_told_with_the_next_call(own: OwnModules, folder: Path) -> None:
    before = told(own)
    write(folder / "helper_a.py", "x = 1")
    assert told(own) is before
    importlib.import_module("helper_a")
    now = told(own)
    assert now is not before
    digest, serial = digest_of(b"x = 1"), now.modules[-1].serial
    assert now.modules[-1] == OwnModule("helper_a", str(folder / "helper_a.py"), digest, None, serial, True)
    assert own.sources([digest, "another"]) == {digest: b"x = 1"}


def test_what_has_been_imported_before_is_told_from_the_first_call_on(folder: Path) -> None:
    write(folder / "helper_b.py", "x = 1")
    importlib.import_module("helper_b")
    own = OwnModules()
    own.close()
    assert module(own, "helper_b") is not None


def test_no_file_is_looked_at_in_a_call_that_brings_nothing_new(
    own: OwnModules, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "helper_c.py", "x = 1")
    importlib.import_module("helper_c")
    before = told(own)
    looked: list[Any] = []
    for where, name in ((builtins, "open"), (os, "stat"), (os, "listdir"), (os, "scandir")):
        monkeypatch.setattr(where, name, lambda *args, **kwargs: looked.append(args))
    assert own.now() is before
    assert looked == []


def test_a_reload_is_told_with_its_version_and_that_it_was_loaded_again(own: OwnModules, folder: Path) -> None:
    write(folder / "helper_d.py", "x = 1")
    mine = importlib.import_module("helper_d")
    first = module(own, "helper_d")
    write(folder / "helper_d.py", "x = 2")
    assert module(own, "helper_d") is first
    importlib.reload(mine)
    second = module(own, "helper_d")
    assert first is not None
    assert second is not None
    assert (second.digest, second.serial > first.serial) == (digest_of(b"x = 2"), True)


def test_packages_tell_where_their_submodules_are_and_those_without_a_file_are_told_too(
    own: OwnModules, folder: Path
) -> None:
    write(folder / "space_e/pack/__init__.py", "from . import mod")
    write(folder / "space_e/pack/mod.py", "x = 1")
    importlib.import_module("space_e.pack")
    space, pack, mod = (module(own, name) for name in ("space_e", "space_e.pack", "space_e.pack.mod"))
    assert space is not None
    assert (space.origin, space.digest, space.search) == ("", "", (str(folder / "space_e"),))
    assert pack is not None
    assert pack.search == (str(folder / "space_e/pack"),)
    assert mod is not None
    assert mod.search is None
    assert own.sources({each.digest for each in (space, pack, mod)}) == {
        digest_of(source): source for source in (b"from . import mod", b"x = 1")
    }


def test_modules_of_an_archive_are_told(own: OwnModules, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(folder / "app.pyz", "w") as archive:
        archive.writestr("helper_f.py", "x = 1")
    monkeypatch.syspath_prepend(str(folder / "app.pyz"))
    importlib.import_module("helper_f")
    mine = module(own, "helper_f")
    assert mine is not None
    assert (mine.origin, mine.digest) == (str(folder / "app.pyz/helper_f.py"), digest_of(b"x = 1"))
    assert str(folder / "app.pyz") in told(own).paths


def test_neither_python_nor_packages_nor_what_has_no_file_is_told(own: OwnModules, folder: Path) -> None:
    (folder / "site-packages").mkdir()
    write(folder / "site-packages/installed_g.py", "x = 1")
    sys.path.append(str(folder / "site-packages"))
    importlib.import_module("installed_g")
    importlib.import_module("colorsys")
    sys.modules["made_g"] = types.ModuleType("made_g")
    names = {each.name.partition(".")[0] for each in told(own).modules}
    assert names.isdisjoint({"installed_g", "colorsys", "made_g", "nsactors", "pytest", "__main__"})
    assert not any("site-packages" in path or "lib/python3" in path for path in told(own).paths)


def test_paths_are_absolute_and_follow_what_the_program_does(
    own: OwnModules, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", ["", "sub", *sys.path])
    assert told(own).paths[:2] == (str(folder), str(folder / "sub"))
    monkeypatch.chdir(folder / "sub")
    assert told(own).paths[:2] == (str(folder / "sub"), str(folder / "sub/sub"))


def test_only_files_of_the_program_and_of_editable_packages_may_be_sent(
    own: OwnModules, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, editable = tmp_path_factory.mktemp("elsewhere"), tmp_path_factory.mktemp("editable")
    installed = folder / "site-packages"
    installed.mkdir()
    (installed / "mine.pth").write_text(f"import this_is_code\n{editable}\n")
    for place, name in ((elsewhere, "helper_h"), (editable, "helper_i")):
        write(place / f"{name}.py", "x = 1")
        monkeypatch.syspath_prepend(str(place))
    sys.path.append(str(installed))
    for name in ("helper_h", "helper_i"):
        importlib.import_module(name)
    assert [getattr(module(own, name), "is_sent", None) for name in ("helper_h", "helper_i")] == [False, True]


def test_no_more_is_sent_than_there_is_room_for(own: OwnModules, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_modules, "MAX_SENT_BYTES", own._sent_bytes + 100)
    for name in ("helper_j", "helper_k"):
        write(folder / f"{name}.py", "#" * 60)
        importlib.import_module(name)
    assert [getattr(module(own, name), "is_sent", None) for name in ("helper_j", "helper_k")] == [True, False]
    assert "helper_k is not sent to engines on other hosts" in own.tell_too_large()
    assert own.tell_too_large() == ""


def test_an_edit_that_has_not_been_loaded_is_told_once(own: OwnModules, folder: Path) -> None:
    write(folder / "helper_l.py", "x = 1")
    mine = importlib.import_module("helper_l")
    own.look_for_edits()
    assert own.tell_edits() == ""
    write(folder / "helper_l.py", "x = 2")
    own.look_for_edits()
    assert own.tell_edits().startswith("helper_l: edited since imported here, and engines run what was imported")
    own.look_for_edits()
    assert own.tell_edits() == ""
    assert own.edited() == [mine]
    importlib.reload(mine)
    own.look_for_edits()
    assert (own.tell_edits(), own.edited()) == ("", [])


def test_a_file_that_is_written_again_as_it_was_is_no_edit(own: OwnModules, folder: Path) -> None:
    write(folder / "helper_m.py", "x = 1")
    importlib.import_module("helper_m")
    told(own)
    write(folder / "helper_m.py", "x = 1")
    own.look_for_edits()
    assert own.tell_edits() == ""


def test_an_edit_from_before_this_began_is_found_by_what_python_has_compiled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write(folder / "helper_n.py", "x = 1")
    mine = importlib.import_module("helper_n")
    write(folder / "helper_n.py", "x = 22")
    own = OwnModules()
    own.close()
    assert own.edited() == [mine]


def test_edited_modules_are_reloaded_after_what_they_import(own: OwnModules, folder: Path) -> None:
    write(folder / "helper_o.py", "import helper_p")
    write(folder / "helper_p.py", "x = 1")
    importlib.import_module("helper_o")
    told(own)
    write(folder / "helper_o.py", "import helper_p as p")
    write(folder / "helper_p.py", "x = 2")
    assert [each.__name__ for each in own.edited()] == ["helper_p", "helper_o"]


def test_a_lazy_module_is_not_imported_by_being_looked_at(own: OwnModules, folder: Path) -> None:
    write(folder / "helper_q.py", "raise AssertionError('imported')")
    spec = importlib.util.find_spec("helper_q")
    assert spec is not None
    assert spec.loader is not None
    lazy = importlib.util.LazyLoader(spec.loader)
    spec.loader = lazy
    sys.modules["helper_q"] = made = importlib.util.module_from_spec(spec)
    lazy.exec_module(made)
    assert module(own, "helper_q") is None
