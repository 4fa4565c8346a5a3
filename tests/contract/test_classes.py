"""A class is one class in each namespace, wherever its instances travel."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from nsactors import Client, DirectView, Reference
from nsactors.models.tuple_space import TupleSpace

Define = Callable[[str], Any]

ITEMS = """
import dataclasses, enum, typing
class Item: pass
@dataclasses.dataclass(frozen=True)
class Key:
    name: str
class Colour(enum.Enum):
    RED = 1
class MyError(Exception):
    pass
class Outer:
    class Inner: pass
item, key, red, inner = Item(), Key("z"), Colour.RED, Outer.Inner()
def is_key(x: Key = key) -> bool:
    return isinstance(x, Key) and x == key
def same(value):
    assert type(value) in (Item, Key, Colour)
    return value
def fail(text):
    raise MyError(text)
def put(space):
    space.out("e", Key("z"))
def take(space):
    return space.inp("e", Key("z")) == ("e", key)
"""


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch) -> Define:
    """Runs source at the client's prompt; the module it ran in."""
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)

    def define(source: str) -> Any:
        exec(compile(source, "<prompt>", "exec", dont_inherit=True), vars(main))
        return main

    return define


@pytest.fixture
def both(prompt: Define, dv: DirectView) -> Any:
    """The client's module; it and all engines have run the same definitions."""
    dv.execute(ITEMS)
    return prompt("\n\n" + ITEMS)


def test_what_an_engine_sent_comes_back_as_of_its_class(rc: Client, prompt: Define) -> None:
    e = rc[0]
    e.execute(ITEMS, block=True)
    for name, cls in (("item", "Item"), ("key", "Key"), ("red", "Colour"), ("inner", "Outer.Inner")):
        e["back"] = e[name]
        assert e[f"isinstance(back, {cls})"]
    assert e["back is not inner and key == Key('z') and red is Colour.RED"]
    e["back"] = e["[Key('z'), Colour.RED]"]
    assert e["back[0] == key and back[1] is Colour.RED"]


def test_a_class_defined_on_both_sides_is_one_class_in_both_directions(dv: DirectView, both: Any) -> None:
    assert all(type(item) is both.Item for item in dv["item"])
    assert dv["key"] == [both.key] * len(dv)
    assert all(red is both.Colour.RED for red in dv["red"])
    dv.push({"sent": [both.item, both.key, both.red, both.inner]})
    assert dv["type(sent[0]) is Item and sent[1] == key and sent[2] is red and type(sent[3]) is Outer.Inner"] == [
        True
    ] * len(dv)
    assert dv.apply_sync(both.is_key) == dv.apply_sync(both.is_key, both.key) == [True] * len(dv)
    assert dv.map_sync(both.is_key, [both.key] * 5) == [True] * 5


def test_engines_pass_instances_to_each_other(rc: Client, prompt: Define) -> None:
    rc[:2].execute(ITEMS, block=True)
    rc[1].push({"theirs": rc[0].pull("[item, key, red]", as_ref=True, block=True)}, block=True)
    assert rc[1]["type(theirs[0]) is Item and theirs[1] == key and theirs[2] is red"]
    # Engine 2 has no such classes: there what comes from both is of one class, which is not that of another definition.
    rc[2].push({"both": [rc[i].pull("item", as_ref=True, block=True) for i in (0, 1)]}, block=True)
    assert rc[2]["type(both[0]) is type(both[1])"]


def test_a_class_that_is_defined_anew_is_another_class(rc: Client, both: Any, prompt: Define) -> None:
    e = rc[0]
    e.execute("before = Item()\nclass Item:\n    def new(self): return 1\nitem = Item()", block=True)
    assert not isinstance(e["item"], both.Item)
    assert e["item"].new() == 1
    assert isinstance(e["before"], both.Item)
    e["back"] = e["[before, item]"]
    assert e["type(back[0]) is type(before) is not Item and type(back[1]) is Item"]


def test_an_error_of_a_class_defined_on_both_sides_is_caught(rc: Client, both: Any) -> None:
    e = rc[0]
    with pytest.raises(both.MyError, match="gone"):
        e.execute("raise MyError('gone')", block=True)
    for fail in (both.fail, Reference("fail")):
        with pytest.raises(both.MyError, match="later"):
            rc.load_balanced_view().apply_sync(fail, "later")
    found = rc[:].map_sync(both.fail, "abcde", return_exceptions=True)
    assert [(isinstance(error, both.MyError), error.args) for error in found] == [(True, (text,)) for text in "abcde"]


@pytest.mark.parametrize("of_client", [True, False])
def test_a_value_put_into_a_tuple_space_is_found_by_what_is_equal_elsewhere(
    rc: Client, both: Any, of_client: bool, request: pytest.FixtureRequest
) -> None:
    space, function = TupleSpace(rc, request.node.name), both.put if of_client else Reference("put")
    try:
        rc[0].apply_sync(function, space)
        assert space.rdp("e", both.Key("z")) == ("e", both.key)
        assert space.rdp("e", both.Key("y")) is None
        assert rc[1].apply_sync(both.take if of_client else Reference("take"), space)
        both.put(space)
        assert rc[2].apply_sync(Reference("take"), space)
    finally:
        space.close()


def test_a_value_of_a_class_that_only_the_client_has_is_found_in_a_tuple_space(
    rc: Client, prompt: Define, request: pytest.FixtureRequest
) -> None:
    main, space = prompt(ITEMS), TupleSpace(rc, request.node.name)
    try:
        rc[0].apply_sync(main.put, space)
        assert rc[1].apply_sync(main.take, space)
    finally:
        space.close()


def test_messages_between_engines_are_of_the_receivers_classes(dv: DirectView, both: Any) -> None:
    service = dv.communicator()
    try:
        dv.execute("got = comm.allgather([item, key, red]); values = comm.bcast([item, key, red], root=1)")
        ours = "all(type(i) is Item and k == key and r is red for i, k, r in [*got, values])"
        assert dv[ours] == [True] * len(dv)
    finally:
        service.close()


def test_tasks_take_and_give_instances_of_classes_of_both_sides(rc: Client, both: Any) -> None:
    lview = rc.load_balanced_view()
    assert lview.map_sync(both.is_key, [both.key] * 20) == [True] * 20
    assert lview.apply_sync(Reference("is_key"), both.key)
    given = lview.map_sync(Reference("same"), [both.item, both.key, both.red])
    assert (type(given[0]), *given[1:]) == (both.Item, both.key, both.red)
    assert given[2] is both.red


def test_a_value_that_stayed_on_its_engine_is_of_the_receivers_class_when_it_is_fetched(rc: Client, both: Any) -> None:
    item, key = rc[0].pull(["item", "key"], as_ref=True, block=True)
    assert (type(item.get()), key.get()) == (both.Item, both.key)
    assert rc[1].apply_sync(both.is_key, key)
