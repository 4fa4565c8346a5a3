from __future__ import annotations

import math
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsactors.namespace.plain_shell import fresh_names
from nsactors.namespace.snapshot import Bindings, is_users, restore, take
from nsactors.protocol.serialize import pack, unpack
from nsactors.recovery.journal import Snapshot


def namespace(code: str = "") -> dict[str, Any]:
    names = fresh_names()
    exec(code, names)
    return names


def there_and_back(names: dict[str, Any]) -> dict[str, Any]:
    restored = fresh_names()
    assert restore(take(names), restored) == {}
    return restored


def test_values_come_back() -> None:
    restored = there_and_back(namespace("a = 1\nb = [1, 'two', {3: (4,)}]\n_hidden = None"))
    assert (restored["a"], restored["b"], restored["_hidden"]) == (1, [1, "two", {3: (4,)}], None)


def test_what_names_share_they_share_again() -> None:
    restored = there_and_back(namespace("a = [1]\nb = {'a': a}\nc = a"))
    assert restored["a"] is restored["c"] is restored["b"]["a"]


def test_sharing_survives_among_the_others_when_something_cannot_be_pickled() -> None:
    names = namespace("a = [1]\nb = {'a': a}\nlock = __import__('threading').Lock()")
    restored = there_and_back(names)
    assert restored["a"] is restored["b"]["a"]
    assert "lock" not in restored


def test_what_cannot_be_pickled_is_left_out_with_the_reason() -> None:
    snapshot = take(namespace("a = 1\nlock = __import__('threading').Lock()\ng = (i for i in ())"))
    assert snapshot.names == {"a"}
    assert {name: reason.partition(":")[0] for name, reason in snapshot.left_out.items()} == {
        "g": "TypeError",
        "lock": "TypeError",
    }


def test_arrays_come_back_as_ones_that_can_be_written_to() -> None:
    restored = there_and_back({**fresh_names(), "a": np.arange(100_000)})
    restored["a"][0] = 7
    assert restored["a"].sum() == np.arange(100_000).sum() + 7


def test_taking_a_snapshot_copies_no_arrays() -> None:
    array = np.arange(100_000)
    (part,) = take({**fresh_names(), "a": array}).parts
    assert np.shares_memory(np.frombuffer(part.payload.buffers[0], dtype=array.dtype), array)


def test_modules_are_imported_again() -> None:
    names = namespace("import math, os.path as p\nimport numpy as np")
    snapshot = take(names)
    assert snapshot.modules == {"math": "math", "p": "posixpath", "np": "numpy"}
    assert there_and_back(names)["math"] is math


def test_a_module_that_is_not_there_is_all_that_is_missing() -> None:
    names = fresh_names()
    snapshot = Snapshot(take({**fresh_names(), "a": 1}).parts, {"m": "no_such_module"})
    assert restore(snapshot, names) == {"m": "ModuleNotFoundError: No module named 'no_such_module'"}
    assert names["a"] == 1


def test_functions_see_the_names_of_the_namespace_they_are_in() -> None:
    restored = there_and_back(namespace("n = 1\ndef f():\n    global n\n    n += 1\n    return [n for _ in 'ab']"))
    assert restored["f"]() == [2, 2]
    restored["n"] = 10
    assert restored["f"]() == [11, 11]
    assert restored["f"].__globals__ is restored


def test_a_function_that_uses_what_cannot_be_pickled_is_not_lost_with_it() -> None:
    names = namespace("lock = __import__('threading').Lock()\ndef f():\n    with lock:\n        return 1")
    restored = there_and_back(names)
    restored["lock"] = threading.Lock()
    assert restored["f"]() == 1


def test_functions_keep_defaults_closures_and_attributes() -> None:
    code = """
def outer(n):
    def inner(x, *, y=3):
        'Doc.'
        return n + x + y
    return inner
f = outer(1)
f.tag = 5
"""
    f = there_and_back(namespace(code))["f"]
    assert (f(2), f.tag, f.__doc__, f.__qualname__) == (6, 5, "Doc.", "outer.<locals>.inner")


def test_names_that_came_with_a_function_stay_with_it() -> None:
    client = namespace("def helper():\n    return 'helped'\ndef f():\n    return helper()")
    engine = fresh_names()
    engine.update(unpack(pack({"f": client["f"]}), scope=engine))
    assert there_and_back(engine)["f"]() == "helped"


def test_instances_belong_to_the_class_of_the_namespace() -> None:
    restored = there_and_back(namespace("class P:\n    def who(self): return limit\np = P()\nlimit = 3"))
    assert type(restored["p"]) is restored["P"]
    assert restored["p"].who() == 3


def test_histories_come_back_in_place() -> None:
    names = {**fresh_names(), "In": ["", "x = [1]", "x"], "Out": {2: [1]}, "_2": None}
    names["x"] = names["Out"][2]
    restored = {**fresh_names(), "In": [""], "Out": {}}
    inputs, results = restored["In"], restored["Out"]
    restore(take(names), restored)
    assert (inputs, results) == (["", "x = [1]", "x"], {2: [1]})
    assert results[2] is restored["x"] is restored["_2"]


def test_a_result_that_cannot_be_pickled_costs_nothing_else() -> None:
    names = {**fresh_names(), "In": ["", "1", "lock"], "Out": {1: 1, 2: threading.Lock()}}
    snapshot = take(names)
    assert list(snapshot.left_out) == ["Out[2]"]
    restored = fresh_names()
    restore(snapshot, restored)
    assert restored["Out"] == {1: 1}


def test_restoring_removes_what_the_snapshot_does_not_know_and_leaves_what_it_left_out() -> None:
    snapshot = take(namespace("a = 1\nlock = __import__('threading').Lock()"))
    names = namespace("a = 5\nlock = 'made again'\nb = 2")
    restore(snapshot, names)
    assert {name: value for name, value in names.items() if not name.startswith("__")} == {
        "a": 1,
        "lock": "made again",
    }


def test_references_to_an_object_store_are_left_out() -> None:
    class Ref:
        pass

    snapshot = take({**fresh_names(), "a": 1, "r": [Ref()]}, ref_types=(Ref,))
    assert snapshot.left_out == {"r": "TypeError: a Ref does not outlive its process"}


def test_an_open_file_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("text")
    with (tmp_path / "data").open() as file:
        assert take({**fresh_names(), "file": file}).left_out == {
            "file": "TypeError: a TextIOWrapper does not outlive its process"
        }


def test_the_working_folder_and_the_search_path_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, "/of the user"])
    monkeypatch.chdir(tmp_path)
    snapshot = take(fresh_names())
    monkeypatch.chdir("/")
    sys.path.remove("/of the user")
    restore(snapshot, fresh_names())
    assert Path.cwd() == tmp_path
    assert sys.path[-1] == "/of the user"


def test_a_working_folder_that_is_gone_is_reported(tmp_path: Path) -> None:
    failed = restore(Snapshot(folder=str(tmp_path / "gone")), fresh_names())
    assert list(failed) == ["the working folder"]


def test_a_working_folder_that_has_been_removed_stops_no_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert take(fresh_names()).folder == ""


def test_names_bound_rebound_and_removed_have_changed() -> None:
    names: dict[str, Any] = {"same": object(), "other": object(), "gone": object()}
    bindings = Bindings(names)
    names["new"] = names["other"] = object()
    del names["gone"]
    assert set(bindings.changed()) == {"gone", "new", "other"}
    assert bindings.changed() == ()


def test_a_name_that_takes_the_place_of_another_has_changed() -> None:
    names: dict[str, Any] = {"a": object()}
    bindings = Bindings(names)
    names["b"] = names.pop("a")
    assert set(bindings.changed()) == {"a", "b"}


def test_objects_are_not_held() -> None:
    names: dict[str, Any] = {"big": [object()]}
    bindings = Bindings(names)
    names["big"] = None
    assert bindings.changed() == ("big",)


@pytest.mark.parametrize(
    "name",
    ["_", "__", "___", "_3", "_i", "_i12", "_oh", "In", "Out", "__name__", "__nsactors__", "__nsactors_classes__"],
)
def test_what_the_shell_keeps_for_itself_is_not_the_users(name: str) -> None:
    assert not is_users(name, 1)


@pytest.mark.parametrize("name", ["x", "_x", "_x1", "i", "In1", "__x", "__version__", "__annotations__"])
def test_all_other_names_are_the_users(name: str) -> None:
    assert is_users(name, 1)


def test_a_function_of_the_shell_is_the_users_when_he_has_replaced_it() -> None:
    assert is_users("open", os.open)
    assert not is_users("open", open)
    assert not is_users("exit", exit)
