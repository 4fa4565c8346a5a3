"""Which modules are a program's own, and what an engine loads again to have a client's versions."""

from collections.abc import Mapping

import pytest

from nsactors.protocol.client_modules import (
    FromImport,
    LoadedModule,
    OwnModule,
    from_imports,
    imported_modules,
    is_installed,
    is_reserved,
    load_order,
    reload_plan,
)


def own(**digests: str) -> dict[str, OwnModule]:
    """Modules of these digests, loaded in this order."""
    return {
        name: OwnModule(name, f"/src/{name}.py", digest, None, serial, True)
        for serial, (name, digest) in enumerate(digests.items(), 1)
    }


def loaded(**digests: str) -> dict[str, LoadedModule]:
    return {name: LoadedModule(digest, f"/src/{name}.py", "ann", 1) for name, digest in digests.items()}


def plan(
    wanted: Mapping[str, OwnModule],
    engine: Mapping[str, LoadedModule],
    needs: Mapping[str, set[str]] | None = None,
    before: Mapping[str, OwnModule] | None = None,
    stale: tuple[str, ...] = (),
) -> list[str]:
    return reload_plan("ben", before, wanted, engine, lambda name: (needs or {}).get(name, set()), stale)


def test_nothing_is_loaded_again_that_is_as_the_client_has_it() -> None:
    assert plan(own(a="1", b="2"), loaded(a="1", b="2"), {"a": {"b"}}) == []


def test_the_same_source_in_another_folder_is_another_module() -> None:
    elsewhere = {"a": LoadedModule("1", "/elsewhere/a.py", "ann", 1)}
    assert plan(own(a="1"), elsewhere) == ["a"]


def test_a_module_that_an_engine_has_not_loaded_is_no_matter() -> None:
    assert plan(own(a="1"), {}) == []


def test_another_client_gets_what_imports_a_changed_module_anew_too() -> None:
    needs = {"app": {"model", "os"}, "model": {"base"}, "other": {"os"}}
    engine = loaded(app="1", model="1", base="1", other="1")
    assert plan(own(app="1", model="1", base="2", other="1"), engine, needs) == ["app", "model", "base"]


def test_modules_that_import_each_other_are_loaded_once_each() -> None:
    assert plan(own(a="2", b="1"), loaded(a="1", b="1"), {"a": {"b"}, "b": {"a"}}) == ["a", "b"]


def test_a_client_that_goes_on_gets_what_it_has_loaded_again_itself_in_its_order() -> None:
    before = own(a="1", b="1", c="1")
    wanted = before | {"b": before["b"]._replace(serial=4), "a": before["a"]._replace(serial=5, digest="2")}
    assert plan(wanted, loaded(a="1", b="1", c="1"), {"c": {"a"}}, before) == ["b", "a"]


def test_what_only_engines_have_imported_is_loaded_again_when_its_file_has_changed() -> None:
    assert plan(own(a="1"), loaded(a="1", lazy="1"), {"a": {"lazy"}}, stale=("lazy",)) == ["a", "lazy"]


def test_an_order_has_each_after_what_it_needs() -> None:
    assert load_order({"a", "b", "c"}, {"a": {"b", "x"}, "b": {"c"}, "c": set()}) == ["c", "b", "a"]


SOURCE = b"""
import os.path, helper as h
from . import sibling
from .sibling import thing as it, other
from ..top import *
def f():
    from late import name
"""


def test_imports_are_found_wherever_they_stand_and_relative_ones_in_their_package() -> None:
    assert imported_modules(SOURCE, "pack.sub.mod", is_package=False) == {
        "os", "os.path", "helper", "pack", "pack.sub", "pack.sub.sibling", "pack.sub.sibling.thing",
        "pack.sub.sibling.other", "pack.top", "pack.top.*", "late", "late.name",
    }  # fmt: skip
    assert imported_modules(b"from . import a", "pack", is_package=True) == {"pack", "pack.a"}
    assert imported_modules(b"def (", "broken", is_package=False) == set()


def test_names_taken_out_of_modules_are_found_with_what_they_are_called_here() -> None:
    assert from_imports(SOURCE, "pack.sub.mod", is_package=False) == [
        FromImport("pack.sub", "sibling", "sibling"),
        FromImport("pack.sub.sibling", "thing", "it"),
        FromImport("pack.sub.sibling", "other", "other"),
        FromImport("pack.top", "*", "*"),
        FromImport("late", "name", "name"),
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/ann/project/helper.py", False),
        ("/tmp/work", False),
        ("/elsewhere/lib/python3.9/site-packages/numpy/__init__.py", True),
        ("/usr/lib/python3/dist-packages", True),
        (str(pytest.__file__), True),
        (str(__import__("json").__file__), True),
    ],
)
def test_what_belongs_to_python_or_a_package_is_no_ones_own(path: str, expected: bool) -> None:
    assert is_installed(path) is expected


def test_nothing_stands_for_pythons_own_modules_or_for_this_package() -> None:
    assert [is_reserved(name) for name in ("random", "os.path", "nsactors.protocol", "__main__", "helper")] == [
        True, True, True, True, False,
    ]  # fmt: skip
