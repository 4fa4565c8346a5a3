from __future__ import annotations

import os
from typing import Any

import pytest

from nsactors.namespace.bindings import Bindings, is_users


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


@pytest.mark.parametrize("name", ["_", "__", "___", "_3", "_i", "_i12", "_oh", "In", "Out", "__name__", "__nsactors__"])
def test_what_the_shell_keeps_for_itself_is_not_the_users(name: str) -> None:
    assert not is_users(name, 1)


@pytest.mark.parametrize("name", ["x", "_x", "_x1", "i", "In1", "__x"])
def test_all_other_names_are_the_users(name: str) -> None:
    assert is_users(name, 1)


def test_a_function_of_the_shell_is_the_users_when_he_has_replaced_it() -> None:
    assert is_users("open", os.open)
    assert not is_users("open", open)
    assert not is_users("exit", exit)
