"""Modules of clients on an engine: found, in the version that each client has, and loaded again when that changes."""

from __future__ import annotations

import builtins
import importlib
import linecache
import sys
import threading
import traceback
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from nsactors.namespace.module_versions import ModuleVersions, SourceStore
from nsactors.protocol.client_modules import ClientModules, OwnModule, digest_of, is_installed, is_reserved
from nsactors.protocol.process import remove_finder


class Engine:
    """An engine's finder in this process, and clients that have files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {}
        self.fetched: list[str] = []
        self.cluster: dict[str, bytes] = {}
        self.versions = ModuleVersions(self.names, SourceStore(str(folder / "sources")), self._fetch)
        self._serial = 0

    def _fetch(self, digests: Sequence[str]) -> dict[str, bytes]:
        self.fetched += digests
        return {digest: self.cluster[digest] for digest in digests if digest in self.cluster}

    def own(self, file: str, source: str, *, name: str = "", sent: bool = False, written: bool = True) -> OwnModule:
        """A module that a client has imported; its source is in the file, or with the cluster, or both."""
        path = self.folder / file
        if written:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        if sent:
            self.cluster[digest_of(source.encode())] = source.encode()
        self._serial += 1
        parts = list(Path(file).with_suffix("").parts)
        search = (str(path.parent),) if parts[-1] == "__init__" else None
        dotted = ".".join(parts[:-1] if search else parts)
        return OwnModule(name or dotted, str(path), digest_of(source.encode()), search, self._serial, sent)

    def run(self, client: str, code: str, *modules: OwnModule, paths: Sequence[Path | str] = ()) -> str:
        """Run a cell of a client that has just sent these modules, if any; return the text for the client."""
        told = ClientModules(client, tuple(map(str, paths)), modules) if modules or paths else None
        self.versions.select(client, told)
        self.versions.apply()
        exec(code, self.names)
        return self.versions.finish()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    modules, path, lines = dict(sys.modules), list(sys.path), dict(linecache.cache)
    # Tests are programs' modules too, and so is what they have imported from a folder: hundreds of modules would be
    # looked for at each change.
    for name, module in modules.items():
        file = getattr(module, "__file__", None)
        if file and not (is_installed(file) or is_reserved(name) or name == "__main__"):
            del sys.modules[name]
    made = Engine(tmp_path)
    yield made
    made.versions.close()
    sys.path[:] = path
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]
    sys.modules.update(modules)
    linecache.cache.clear()
    linecache.cache.update(lines)


def test_what_a_client_finds_by_its_path_an_engine_finds_too(engine: Engine) -> None:
    engine.own("app/lately.py", "x = 5")
    assert engine.run("ann", "import lately", paths=[engine.folder / "app"]) == ""
    assert engine.names["lately"].x == 5


def test_paths_of_clients_stand_behind_the_engines_own_and_go_with_their_client(engine: Engine) -> None:
    installed = [entry for entry in sys.path if is_installed(entry)]
    engine.run("ann", "", paths=["/ann/app"])
    assert sys.path[: len(installed) + 1] == [*installed, "/ann/app"]
    engine.run("ben", "", paths=["/ben/app"])
    assert sys.path[: len(installed) + 1] == [*installed, "/ben/app"]
    assert "/ann/app" not in sys.path


def test_a_path_that_the_user_has_added_on_an_engine_stays(engine: Engine) -> None:
    engine.run("ann", "import sys; sys.path.insert(0, '/typed')", paths=["/ann/app"])
    engine.run("ben", "", paths=["/ben/app"])
    assert sys.path[0] == "/typed"


def test_an_engine_runs_the_version_that_the_calling_client_has_imported(engine: Engine) -> None:
    assert engine.run("ann", "import mine; got = mine.f()", engine.own("mine.py", "def f(): return 1")) == ""
    assert engine.names["got"] == 1
    engine.versions.note_presence("ann", connected=False)
    assert engine.run("ben", "got = mine.f()", engine.own("mine.py", "def f(): return 'two'")) == ""
    assert engine.names["got"] == "two"


def test_what_imports_a_changed_module_is_loaded_again_for_another_process(engine: Engine) -> None:
    app = engine.own("app.py", "from base import N\nTWICE = 2 * N")
    engine.run("ann", "import app", app, engine.own("base.py", "N = 1"))
    engine.versions.note_presence("ann", connected=False)
    engine.run("ben", "got = app.TWICE", app, engine.own("base.py", "N = 10"))
    assert engine.names["got"] == 20


def test_a_reload_keeps_what_modules_hold_and_lets_them_have_the_new_names(engine: Engine) -> None:
    app = engine.own("app.py", "from base import N, f as g\nheld = []")
    base = engine.own("base.py", "N = 1\ndef f(): return 'old'")
    engine.run("ann", "import app; from base import f; app.held.append(1)", app, base)
    engine.run(
        "ann", "got = app.N, app.g(), f(), app.held", app, engine.own("base.py", "N = 20\ndef f(): return 'new'")
    )
    assert engine.names["got"] == (20, "new", "new", [1])


def test_equal_values_of_another_origin_are_left_alone(engine: Engine) -> None:
    app = engine.own("app.py", "import base\nN = 1")
    engine.run("ann", "import app", app, engine.own("base.py", "N = 1"))
    engine.run("ann", "got = app.N", app, engine.own("base.py", "N = 20"))
    assert engine.names["got"] == 1


def test_instances_made_before_keep_their_class_as_after_a_reload(engine: Engine) -> None:
    engine.run("ann", "import mine; a = mine.A()", engine.own("mine.py", "class A:\n def who(self): return 'old'"))
    new = engine.own("mine.py", "class A:\n def who(self): return 'new one'")
    engine.run("ann", "got = a.who(), mine.A().who(), type(a) is mine.A", new)
    assert engine.names["got"] == ("old", "new one", False)


def test_a_client_that_loads_a_module_again_unchanged_has_it_loaded_again_here(engine: Engine) -> None:
    mine = engine.own("mine.py", "held = []")
    engine.run("ann", "import mine; mine.held.append(1)", mine)
    engine.run("ann", "got = list(mine.held)", mine)
    assert engine.names["got"] == [1]
    engine.run("ann", "got = list(mine.held)", mine._replace(serial=99))
    assert engine.names["got"] == []


def test_two_clients_with_two_versions_are_told_once_each_and_both_are_right(engine: Engine) -> None:
    engine.run("ann", "import mine; got = mine.N", engine.own("mine.py", "N = 1", sent=True))
    told = engine.run("ben", "got = mine.N", engine.own("mine.py", "N = 22", sent=True))
    assert engine.names["got"] == 22
    assert told.startswith("[nsactors: mine was loaded in the version of another client, ann.")
    assert "ben" in engine.run("ann", "got = mine.N")
    assert engine.names["got"] == 1
    assert engine.run("ben", "got = mine.N") == ""
    assert engine.names["got"] == 22


def test_what_only_the_engine_has_imported_is_loaded_again_for_a_new_client_if_its_file_has_changed(
    engine: Engine,
) -> None:
    engine.own("app/lately.py", "x = 5")
    engine.run("ann", "import lately", paths=[engine.folder / "app"])
    engine.own("app/lately.py", "x = 'other'")
    engine.run("ann", "got = lately.x")
    assert engine.names["got"] == 5
    engine.versions.note_presence("ann", connected=False)
    engine.run("ben", "got = lately.x", paths=[engine.folder / "app"])
    assert engine.names["got"] == "other"


def test_a_file_that_says_something_else_by_now_is_not_what_runs(engine: Engine) -> None:
    """The client has imported it before it was edited: the cluster has that source."""
    mine = engine.own("mine.py", "def f():\n    return 1 / 0\n", sent=True)
    engine.own("mine.py", "# edited\n\n\n")
    engine.run("ann", "import mine", mine)
    with pytest.raises(ZeroDivisionError) as raised:
        engine.names["mine"].f()
    assert engine.fetched == [mine.digest]
    assert engine.names["mine"].__file__ == str(engine.folder / "mine.py")
    assert "return 1 / 0" in "".join(traceback.format_exception(raised.value))


def test_a_source_is_fetched_once_for_a_machine(engine: Engine) -> None:
    far = engine.own("far.py", "x = 1", sent=True, written=False)
    engine.run("ann", "import far", far)
    other = Engine(engine.folder)
    del sys.modules["far"]
    engine.versions.close()
    try:
        other.run("ann", "import far", far)
    finally:
        other.versions.close()
        sys.meta_path.insert(0, engine.versions)
    assert engine.fetched == [far.digest]
    assert other.fetched == []


def test_packages_are_served_with_relative_imports_and_submodules(engine: Engine) -> None:
    files = {
        "pack/__init__.py": "from .inner.deep import value",
        "pack/inner/__init__.py": "",
        "pack/inner/deep.py": "from .. import other\nvalue = other.N + 1",
        "pack/other.py": "N = 41",
    }
    sent = [engine.own(file, source, sent=True, written=False) for file, source in files.items()]
    engine.run("ann", "import pack; got = pack.value, pack.inner.deep.__package__", *sent)
    assert engine.names["got"] == (42, "pack.inner")


def test_a_package_without_a_file_is_made(engine: Engine) -> None:
    space = OwnModule("space", "", "", ("/nowhere/space",), 1, True)
    engine.run("ann", "import space.mod as m", space, engine.own("space/mod.py", "x = 3", sent=True, written=False))
    assert engine.names["m"].x == 3


def test_modules_of_an_archive_that_is_made_anew_are_found(engine: Engine) -> None:
    archive = engine.folder / "app.pyz"
    for number in (1, 22222):
        source = f"x = {number}" + "\n" * number
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("filler.py", "#" * number)
            file.writestr("zipped/__init__.py", source)
        origin, digest = str(archive / "zipped/__init__.py"), digest_of(source.encode())
        module = OwnModule("zipped", origin, digest, (str(archive / "zipped"),), number, False)
        engine.run(f"client {number}", "import zipped; got = zipped.x", module)
        assert engine.names["got"] == number
        engine.versions.note_presence(f"client {number}", connected=False)


def test_a_module_of_the_same_name_that_the_engine_has_loaded_stays_and_the_client_is_told(engine: Engine) -> None:
    numpy = pytest.importorskip("numpy")
    told = engine.run("ann", "import numpy; got = numpy", engine.own("numpy.py", "x = 1"))
    assert engine.names["got"] is numpy
    assert "numpy.py is not used here" in told
    assert engine.run("ann", "", engine.own("numpy.py", "x = 2")) == ""


def test_a_module_of_the_clients_comes_before_an_installed_one_that_nobody_here_has_loaded(engine: Engine) -> None:
    installed = engine.folder / "site-packages"
    engine.own("site-packages/both.py", "x = 'installed'")
    engine.run(
        "ann", f"import sys; sys.path.insert(0, {str(installed)!r}); import both", engine.own("both.py", "x = 1")
    )
    assert engine.names["both"].x == 1


def test_nothing_shadows_the_standard_library(engine: Engine) -> None:
    import random

    engine.own("app/random.py", "x = 1")
    del sys.modules["random"]
    try:
        engine.run("ann", "import random; got = hasattr(random, 'shuffle')", paths=[engine.folder / "app"])
    finally:
        sys.modules["random"] = random
    assert engine.names["got"] is True


def test_a_version_that_fails_is_told_by_whoever_imports_it(engine: Engine) -> None:
    engine.run("ann", "import mine", engine.own("mine.py", "x = 1"))
    broken = engine.own("mine.py", "x = 2; raise OSError('not here')")
    with pytest.raises(OSError, match="not here"):
        engine.run("ben", "import mine", broken)
    assert "mine cannot be reloaded: OSError: not here" in engine.versions.finish()
    engine.run("ben", "import mine; got = mine.x", engine.own("mine.py", "x = 3"))
    assert engine.names["got"] == 3


def test_a_reload_that_fails_leaves_the_module_as_it_does_for_the_client(engine: Engine) -> None:
    engine.run("ann", "import mine", engine.own("mine.py", "x = 1\ny = 1"))
    told = engine.run("ann", "got = mine.x, mine.y", engine.own("mine.py", "x = 2; raise OSError('no')\ny = 2"))
    assert engine.names["got"] == (2, 1)
    assert "mine cannot be reloaded" in told


def test_a_version_that_is_nowhere_gives_what_the_file_says_and_the_client_is_told(engine: Engine) -> None:
    mine = engine.own("mine.py", "x = 1")
    engine.own("mine.py", "x = 'edited'")
    told = engine.run("ann", "import mine; got = mine.x", mine)
    assert engine.names["got"] == "edited"
    assert "mine is used as it is in" in told


def test_a_client_without_modules_of_its_own_changes_nothing(engine: Engine) -> None:
    engine.run("ann", "import mine", engine.own("mine.py", "x = 1"))
    path = list(sys.path)
    assert engine.run("ben", "got = mine.x") == ""
    assert (engine.names["got"], sys.path) == (1, path)


def test_the_journal_has_what_a_request_ran_with(engine: Engine) -> None:
    engine.run("ann", "import mine", engine.own("mine.py", "x = 1", sent=True))
    first = engine.versions.changed()
    assert engine.versions.changed() is None
    engine.run("ann", "", engine.own("mine.py", "x = 22", sent=True))
    second = engine.versions.changed()
    engine.versions.set(first)
    exec("got = mine.x", engine.names)
    assert engine.names["got"] == 1
    engine.versions.set(second)
    exec("got = mine.x", engine.names)
    assert engine.names["got"] == 22


def test_modules_that_another_client_tells_of_are_those_of_their_owner(engine: Engine) -> None:
    """The scheduler of detached tasks tells of the modules of whoever has submitted them."""
    app = engine.own("app.py", "from base import N\nTWICE = 2 * N")
    got = []
    for owner, source in (("ann", "N = 1"), ("ben", "N = 22")):
        modules = app, engine.own("base.py", source, sent=True)
        engine.versions.select("scheduler", ClientModules(owner, (), modules))
        engine.versions.apply()
        engine.versions.note_presence(owner, connected=False)
        exec("import app; got = app.TWICE", engine.names)
        got.append(engine.names["got"])
    assert got == [2, 44]


def test_modules_that_import_each_other_are_imported_anew_as_in_a_new_process(engine: Engine) -> None:
    got = []
    for client, number in (("ann", 1), ("ben", 22)):
        modules = [
            engine.own("ring/__init__.py", f"N = {number}\nfrom .sub import f"),
            engine.own("ring/sub.py", "from . import N\nM = N + 1\ndef f(): return N, M"),
        ]
        engine.run(client, "import ring; got = ring.f(), ring.sub.f()", *modules)
        engine.versions.note_presence(client, connected=False)
        got.append(engine.names["got"])
    assert got == [((1, 2), (1, 2)), ((22, 23), (22, 23))]


def test_a_module_that_another_program_has_elsewhere_is_the_same_object_with_that_ones_file(engine: Engine) -> None:
    engine.run("ann", "import mine; first = mine", engine.own("a/mine.py", "x = 1", name="mine"))
    engine.versions.note_presence("ann", connected=False)
    engine.run("ben", "import mine; got = mine.x, first is mine", engine.own("b/mine.py", "x = 22", name="mine"))
    assert engine.names["got"] == (22, True)
    assert engine.names["mine"].__file__ == engine.names["mine"].__spec__.origin == str(engine.folder / "b/mine.py")


def test_what_is_left_when_an_import_is_interrupted_is_imported_before_the_next_request(engine: Engine) -> None:
    app = engine.own("app.py", "from base import N")
    engine.run("ann", "import app, base", app, engine.own("base.py", "N = 1"))
    engine.versions.note_presence("ann", connected=False)
    stuck = engine.own("base.py", "import builtins\nif not hasattr(builtins, 'again'): raise KeyboardInterrupt\nN = 22")
    with pytest.raises(KeyboardInterrupt):
        engine.run("ben", "", app, stuck)
    vars(builtins)["again"] = True
    try:
        engine.run("ben", "got = app.N, base.N")
    finally:
        del vars(builtins)["again"]
    assert engine.names["got"] == (22, 22)


def test_a_program_that_has_a_module_elsewhere_and_has_not_imported_it_gets_its_own(engine: Engine) -> None:
    engine.own("a/mine/__init__.py", "x = 1")
    engine.own("a/mine/sub.py", "x = 1")
    engine.run("ann", "import mine.sub", paths=[engine.folder / "a"])
    engine.versions.note_presence("ann", connected=False)
    engine.own("b/mine/__init__.py", "x = 22")
    engine.run(
        "ben",
        "import sys; loaded = [name in sys.modules for name in ('mine', 'mine.sub')]",
        paths=[engine.folder / "b"],
    )
    assert engine.names["loaded"] == [False, False]  # nobody has asked for them
    engine.run("ben", "import mine; got = mine.x")
    assert engine.names["got"] == 22


def test_what_a_program_would_not_find_at_all_is_left_alone(engine: Engine) -> None:
    engine.run("ann", "import mine", engine.own("a/mine.py", "x = 1", name="mine"), paths=[engine.folder / "a"])
    engine.run("ben", "got = mine.x, 'mine' in __import__('sys').modules", paths=["/ben/app"])
    assert engine.names["got"] == (1, True)


class SlowFinder:
    """A finder that finds nothing; a thread that asks it stays there until ``leave`` is set."""

    def __init__(self) -> None:
        self.looked, self.leave = threading.Event(), threading.Event()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in ("found_last", "no_such_module"):  # and none that another test has loaded
            self.looked.set()
            assert self.leave.wait(60)


def test_the_search_path_changes_beside_an_import_in_another_thread(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (engine.folder / "last").mkdir()
    (engine.folder / "last" / "found_last.py").write_text("")
    moved, slow, last = "/where/the/cluster/started", "/slow", str(engine.folder / "last")
    finder = SlowFinder()
    monkeypatch.setattr(sys, "path", [moved, slow, last, *sys.path])
    monkeypatch.setitem(sys.path_importer_cache, slow, cast(Any, finder))
    monkeypatch.setenv("PYTHONPATH", f"{slow}:{last}")  # so they keep their places
    versions = ModuleVersions({}, None, engine.cluster.get)  # type: ignore[arg-type]
    try:
        with ThreadPoolExecutor() as pool:
            importing = pool.submit(importlib.import_module, "found_last")
            assert finder.looked.wait(60)
            versions.select("ann", ClientModules("ann", ("/of/ann",), ()))
            finder.leave.set()
            assert importing.result().__name__ == "found_last"
        assert sys.path.index(moved) > sys.path.index(last)
    finally:
        versions.close()


def test_a_finder_is_removed_beside_an_import_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = SlowFinder(), SlowFinder()
    second.leave.set()
    monkeypatch.setattr(sys, "meta_path", [first, second, *sys.meta_path])
    with ThreadPoolExecutor() as pool:
        importing = pool.submit(importlib.import_module, "no_such_module")
        assert first.looked.wait(60)
        remove_finder(first)
        first.leave.set()
        with pytest.raises(ModuleNotFoundError):
            importing.result()
    assert second.looked.is_set()
    assert first not in sys.meta_path
