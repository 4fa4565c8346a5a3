"""Classes that travel by value: which class of a namespace one is where it arrives."""

from __future__ import annotations

import builtins
import gc
import os
import pickle
import sys
import textwrap
import weakref
from collections.abc import Callable
from contextvars import copy_context
from types import ModuleType
from typing import Any

import pytest

from nsactors.protocol.classes import enter_namespace
from nsactors.protocol.serialize import Payload, pack, unpack
from nsactors.services.tuple_index import digest

Names = dict[str, Any]


class Side:
    """A client, whose namespace is that of ``__main__``, or an engine."""

    def __init__(self, names: Names, *, is_client: bool = False) -> None:
        self.names = names
        self._is_client = is_client

    def run(self, source: str) -> None:
        exec(compile(textwrap.dedent(source), "<cell>", "exec", dont_inherit=True), self.names)

    def __getitem__(self, expression: str) -> Any:
        return eval(expression, self.names)

    def send(self, value: Any, other: Side) -> Any:
        """Return the object that ``value`` of this side becomes on the other side."""
        return other.receive(self.packed(value))

    def packed(self, value: Any) -> Payload:
        return self._inside(lambda: pack(value))

    def receive(self, payload: Payload) -> Any:
        return self._inside(lambda: unpack(payload, scope=None if self._is_client else self.names))

    def _inside(self, call: Callable[[], Any]) -> Any:
        def inside() -> Any:
            if not self._is_client:
                enter_namespace(self.names)
            return call()

        return copy_context().run(inside)


def engine_names() -> Names:
    return {"__name__": "__main__", "__builtins__": builtins}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Side:
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return Side(vars(module), is_client=True)


@pytest.fixture
def engine() -> Side:
    return Side(engine_names())


@pytest.fixture
def other() -> Side:
    return Side(engine_names())


# Definitions of a class Item, and of a value of it.
KINDS = {
    "plain": "class Item: pass\nitem = Item()",
    "with methods": (
        "k = 2\nclass Item:\n    x: int = 3\n    def f(self, a=1, *, b: 'int' = 2): return [k + i for i in (a, b)]\n"
        "    @property\n    def p(self): return self.x\n    @classmethod\n    def c(cls): return cls()\n"
        "    @staticmethod\n    def s(): return lambda: 1\nitem = Item()"
    ),
    "a dataclass": (
        "import dataclasses\n@dataclasses.dataclass(order=True)\nclass Item:\n    x: int = 1\n"
        "    y: list = dataclasses.field(default_factory=lambda: [1])\nitem = Item(2)"
    ),
    "a frozen dataclass with slots": (
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True, slots=True)\nclass Item:\n    x: str\nitem = Item('z')"
    ),
    "an enum": (
        "import enum\nclass Item(enum.Enum):\n    A = 1\n    B = (2, 3)\n    ALSO_A = 1\n"
        "    def f(self): return Item.A\nitem = Item.B"
    ),
    "a string enum": "import enum\nclass Item(enum.StrEnum):\n    A = enum.auto()\n    B = enum.auto()\nitem = Item.B",
    "flags": "import enum\nclass Item(enum.Flag):\n    A = 1\n    B = 2\n    AB = 3\nitem = Item.A | Item.B",
    "a named tuple": "import typing\nclass Item(typing.NamedTuple):\n    x: int\n    y: str = ''\nitem = Item(1)",
    "a collections named tuple": "import collections\nItem = collections.namedtuple('Item', 'x y')\nitem = Item(1, 2)",
    "nested": "class Outer:\n    class Item:\n        def f(self): return 1\nItem = Outer.Item\nitem = Item()",
    "a subclass": (
        "class Base:\n    def f(self): return 1\nclass Item(Base):\n    def f(self): return super().f()\nitem = Item()"
    ),
    "of a metaclass": (
        "class Meta(type):\n    def __call__(cls, *args): return super().__call__(*args)\n"
        "class Item(metaclass=Meta): pass\nitem = Item()"
    ),
    "generic": (
        "import typing\nT = typing.TypeVar('T')\nclass Item(typing.Generic[T]):\n    x: 'T'\n"
        "    def f(self, y: T) -> list[T]: return [y]\nitem = Item()"
    ),
    "a protocol": (
        "import typing\n@typing.runtime_checkable\nclass Proto(typing.Protocol):\n    def f(self) -> int: ...\n"
        "class Item(Proto):\n    def f(self): return 1\nitem = Item()"
    ),
    "abstract": (
        "import abc\nclass Base(abc.ABC):\n    @abc.abstractmethod\n    def f(self): ...\n"
        "class Item(Base):\n    def f(self): return 1\nitem = Item()"
    ),
    "an exception": "class Item(ValueError):\n    def __init__(self, a, b): super().__init__(a)\nitem = ValueError()",
    "with slots": "class Item:\n    __slots__ = ('x', '__y')\n    def __init__(self): self.__y = 1\nitem = Item()",
    "of a built-in": "class Item(dict):\n    def f(self): return 1\nitem = Item(a=1)",
    "that refers to itself": (
        "class Item:\n    def f(self) -> 'Item': return __class__()\nItem.same = Item\nitem = Item()"
    ),
    "with values of its own": (
        "import datetime, fractions\nclass Item:\n    a = {'x': [1, 2.5, {3}]}\n    b = datetime.date(2024, 2, 29)\n"
        "    c = fractions.Fraction(1, 3)\nitem = Item()"
    ),
    "with methods of functools": (
        "import functools\nclass Item:\n    @functools.cached_property\n    def f(self): return 2\n"
        "    @functools.lru_cache(maxsize=3)\n    def g(self): return 1\n    h = functools.partialmethod(g)\n"
        "    @functools.singledispatchmethod\n    def i(self, x): return 1\n"
        "    @i.register\n    def _(self, x: int): return 2\nitem = Item()"
    ),
    "with new types": (
        "import typing\nUserId = typing.NewType('UserId', int)\nP = typing.ParamSpec('P')\n"
        "class Item(typing.Generic[P]):\n    x: UserId\n    def f(self, y: UserId | None): pass\nitem = Item()"
    ),
    "a typed dictionary": "import typing\nclass Item(typing.TypedDict, total=False):\n    x: int\nitem = Item(x=1)",
    "of a keyword": (
        "class Base:\n    def __init_subclass__(cls, *, tag): cls.tag = tag\n"
        "class Item(Base, tag=3): pass\nitem = Item()"
    ),
    "of a metaclass with a keyword": (
        "class Meta(type):\n    def __new__(meta, *args, tag): return super().__new__(meta, *args)\n"
        "    def __init__(cls, *args, tag): cls.tag = tag\nclass Item(metaclass=Meta, tag=3): pass\nitem = Item()"
    ),
    "of a decorator": (
        "def more(cls):\n    class More(cls):\n        def f(self): return super().f() + 1\n    return More\n"
        "@more\nclass Item:\n    def f(self): return 1\nitem = Item()"
    ),
    "an enum whose members have attributes": (
        "import enum\nclass Item(enum.Enum):\n    A = 1.0, 2.0\n    B = 3.0, 4.0\n"
        "    def __init__(self, x, y): self.x = x; self.y = y\nitem = Item.B"
    ),
}
kinds = pytest.mark.parametrize("source", KINDS.values(), ids=KINDS)


@kinds
def test_what_comes_back_is_of_the_class_that_it_left_as(source: str, client: Side, engine: Side) -> None:
    engine.run(source)
    came = engine.send([engine["Item"], engine["item"]], client)
    cls, item = client.send(came, engine)
    assert cls is engine["Item"]
    assert type(item) is type(engine["item"])


@kinds
def test_a_class_of_the_same_definition_is_the_receivers_own(source: str, client: Side, engine: Side) -> None:
    client.run("\n\n" + source)
    engine.run(source)
    for here, there in ((engine, client), (client, engine)):
        cls, item = here.send([here["Item"], here["item"]], there)
        assert cls is there["Item"]
        assert type(item) is type(there["item"])


@kinds
def test_engines_of_one_definition_pass_values_to_each_other(
    source: str, client: Side, engine: Side, other: Side
) -> None:
    engine.run(source)
    other.run(source)
    assert type(engine.send(engine["item"], other)) is type(other["item"])
    # The client has no such class, and one for both.
    assert engine.send(engine["Item"], client) is other.send(other["Item"], client)
    assert client.send(engine.send(engine["Item"], client), other) is other["Item"]


def test_members_of_enums_are_the_same(client: Side, engine: Side) -> None:
    for side in (client, engine):
        side.run(KINDS["an enum"])
    assert engine.send(engine["item"], client) is client["Item.B"]
    assert client.send(client["item"], engine) is engine["Item.B"]


def test_equal_dataclasses_are_equal(client: Side, engine: Side) -> None:
    for side in (client, engine):
        side.run(KINDS["a dataclass"])
    assert engine.send(engine["item"], client) == client["item"]
    assert client.send(client["item"], engine) == engine["item"]


@pytest.mark.parametrize(
    "changed",
    [
        "class Item:\n    x = 2\n    def f(self): return 1",
        "class Item:\n    x = 1\n    def f(self): return 2",
        "class Item:\n    x = 1\n    def f(self, a=0): return 1",
        "class Item:\n    x = 1\n    def f(self) -> int: return 1",
        "class Item:\n    x: int = 1\n    def f(self): return 1",
        "class Item(dict):\n    x = 1\n    def f(self): return 1",
        "class Item:\n    x = 1\n    f = lambda self: 1",
        "class Item:\n    'It is documented.'\n    x = 1\n    def f(self): return 1",
        "class Item:\n    x = True\n    def f(self): return 1",
    ],
)
def test_another_definition_is_another_class(changed: str, client: Side, engine: Side) -> None:
    client.run("class Item:\n    x = 1\n    def f(self): return 1")
    engine.run(changed)
    assert engine.send(engine["Item"], client) is not client["Item"]
    assert client.send(client["Item"], engine) is not engine["Item"]


@pytest.mark.parametrize("source", [*KINDS.values()], ids=[*KINDS])
def test_a_class_that_is_defined_anew_is_another_than_the_one_that_left(
    source: str, client: Side, engine: Side
) -> None:
    engine.run(source)
    before = engine["Item"]
    away = engine.packed(before)
    engine.run("class Item:\n    def new(self): return 1")
    assert engine.receive(away) is before
    assert engine["Item"] is not before


def test_classes_that_a_function_makes_stay_apart_and_come_back_as_themselves(client: Side, engine: Side) -> None:
    client.run("def make():\n    class Local:\n        def f(self): return 1\n    return Local\na, b = make(), make()")
    a, b = client.send(client["[a, b]"], engine)
    assert a is not b
    assert client.send(client["a"], engine) is a
    assert engine.send([b(), a], client)[1] is client["a"]
    assert type(engine.send([b(), a], client)[0]) is client["b"]


def test_what_closures_hold_is_part_of_a_definition(client: Side, engine: Side, other: Side) -> None:
    source = "def make(k):\n    class Local:\n        def f(self): return k\n    return Local\n"
    engine.run(source + "one = make(1)")
    other.run(source + "one, two = make(1), make(2)")
    assert other.send(other["two"], client)().f() == 2
    assert engine.send(engine["one"], client)().f() == 1
    assert engine.send(engine["one"], client) is other.send(other["one"], client)
    assert engine.send(engine["one"], client) is not other.send(other["two"], client)


def test_a_definition_that_has_run_again_is_the_one_in_force(client: Side, engine: Side) -> None:
    source = "class Item:\n    def f(self): return 1\n"
    for side in (client, engine):
        side.run(source)
    assert engine.send(engine["Item"], client) is client["Item"]
    client.run(source)
    assert engine.send(engine["Item"], client) is client["Item"]
    engine.run(source)
    assert engine.send(engine["Item"], client) is client["Item"]
    assert client.send(client["Item"], engine) is engine["Item"]


def test_what_left_before_a_definition_ran_again_comes_back_as_it_left(client: Side, engine: Side) -> None:
    engine.run("class Item: pass")
    before = engine["Item"]
    away = engine.packed([before, before()])
    engine.run("class Item: pass")
    assert [engine.receive(away)[0], type(engine.receive(away)[1])] == [before, before]


def test_what_a_class_counts_is_no_part_of_its_definition(client: Side, engine: Side) -> None:
    source = """
        class Item:
            made = named = typed = 0
            def __init__(self):
                Item.made += 1
                type(self).typed += 1
                self.__class__.named = self.made
            @classmethod
            def reset(cls): cls.made = 0
    """
    for side in (client, engine):
        side.run(source)
    engine.run("item = Item()")
    assert type(engine.send(engine["item"], client)) is client["Item"]
    assert (client["Item.made"], engine["Item.made"]) == (0, 1)


def test_a_default_for_instances_is_part_of_a_definition(client: Side, engine: Side) -> None:
    source = "class Item:\n    x = {0}\n    def set(self, x): self.x = x; self.x += 1; self.other.x = 1"
    client.run(source.format(1))
    engine.run(source.format(2))
    assert engine.send(engine["Item"], client) is not client["Item"]


# -- attributes --------------------------------------------------------------------------------------------------


def test_what_came_back_leaves_the_class_as_it_has_become(client: Side, engine: Side) -> None:
    engine.run("class Item:\n    count = 0\n    seen = []\n    def f(self): return 1\nitem = Item()")
    back = engine.send(engine["item"], client)
    engine.run("Item.count = 5; Item.seen.append(1); Item.f = lambda self: 2")
    again = client.send(back, engine)
    assert (again.count, again.seen, again.f()) == (5, [1], 2)


def test_a_copy_keeps_what_it_was_changed_to_until_the_original_changes(client: Side, engine: Side) -> None:
    client.run("class Item:\n    count = 0\n    seen = []")
    there = client.send(client["Item"], engine)
    there.count, there.seen = 7, [1]
    assert (client.send(client["Item"], engine).count, there.seen) == (7, [1])
    client.run("Item.count = 1")
    assert (client.send(client["Item"], engine).count, there.seen) == (1, [1])


def test_a_copy_of_an_engines_class_follows_it(client: Side, engine: Side) -> None:
    engine.run("class Item:\n    x = 1\n    def f(self): return 1")
    here = engine.send(engine["Item"], client)
    engine.run("Item.f = lambda self: 2; Item.x = 2")
    assert engine.send(engine["Item"], client) is here
    assert (here().f(), here.x) == (2, 2)


def test_a_copy_that_is_sent_on_changes_no_other_copy(client: Side, engine: Side, other: Side) -> None:
    client.run("class Item:\n    x = 1")
    first, second = client.send(client["Item"], engine), client.send(client["Item"], other)
    first.x, second.x = 10, 20
    assert engine.send(first, other) is second
    assert second.x == 20


def test_methods_of_a_class_that_arrives_see_the_names_of_the_namespace(client: Side, engine: Side) -> None:
    client.run("place = 'client'\nclass Item:\n    def where(self): return place")
    engine.run("place = 'engine'")
    there = client.send(client["Item"], engine)
    assert there().where() == "engine"
    # What is unpacked beside the namespace, as services do, does not put other methods in place of these.
    assert type(engine._inside(lambda: unpack(client.packed(client["Item"]())))) is there
    assert there().where() == "engine"


def test_an_enum_has_its_aliases_elsewhere(client: Side, engine: Side) -> None:
    client.run(KINDS["an enum"])
    there = client.send(client["Item"], engine)
    assert there["ALSO_A"] is there.ALSO_A is there.A
    assert list(there) == [there.A, there.B]


def test_members_of_an_enum_have_their_attributes_elsewhere(client: Side, engine: Side) -> None:
    client.run(KINDS["an enum whose members have attributes"])
    there = client.send(client["item"], engine)
    assert (there.x, there.y, there.value) == (3.0, 4.0, (3.0, 4.0))


def test_what_a_class_made_of_keywords_is_there_elsewhere(client: Side, engine: Side) -> None:
    for kind in ("of a keyword", "of a metaclass with a keyword"):
        client.run(KINDS[kind])
        there = client.send(client["item"], engine)
        assert there.tag == 3
        assert [base.__name__ for base in type(there).__mro__] == [base.__name__ for base in client["Item"].__mro__]


def test_a_class_has_its_qualified_name_elsewhere(client: Side, engine: Side) -> None:
    client.run(KINDS["nested"])
    assert client.send(client["Item"], engine).__qualname__ == "Outer.Item"


# -- where classes occur -----------------------------------------------------------------------------------------


def test_defaults_and_annotations_of_functions_are_of_the_receivers_classes(client: Side, engine: Side) -> None:
    for side in (client, engine):
        side.run("class Item: pass\ndef f(x: Item = Item(), y: list[Item] = ()) -> Item: return x")
    f = client.send(client["f"], engine)
    assert type(f()) is engine["Item"]
    assert f.__annotations__ == engine["f"].__annotations__


def test_what_a_plain_unpickler_loads_is_of_the_namespaces_class(client: Side, engine: Side) -> None:
    import pickle

    engine.run("x = 1\nclass Item(Exception):\n    def f(self): return x")
    method = engine["Item"].f
    loaded = engine._inside(lambda: pickle.loads(pack(engine["Item"]()).data))
    assert type(loaded) is engine["Item"]
    assert engine["Item"].f is method


def test_namespaces_of_one_process_have_classes_of_their_own(client: Side, engine: Side, other: Side) -> None:
    engine.run(KINDS["plain"])
    here, there = engine.send(engine["item"], client), engine.send(engine["item"], other)
    assert len({type(here), type(there), engine["Item"]}) == 3
    assert type(client.send(here, other)) is type(there)


def test_a_class_made_again_by_a_recovery_is_that_of_its_definition(client: Side, engine: Side) -> None:
    source = KINDS["a dataclass"]
    engine.run(source)
    back = engine.send(engine["item"], client)
    recovered = Side(engine_names())
    recovered.run(source)
    assert client.send(back, recovered) == recovered["item"]
    assert recovered.send(recovered["item"], client) == back


def test_a_class_of_a_snapshot_is_that_of_what_comes_from_clients(client: Side, engine: Side) -> None:
    engine.run(KINDS["a dataclass"])
    snapshot = engine.packed({name: engine.names[name] for name in ("Item", "item")})
    back = engine.send(engine["item"], client)
    recovered = Side(engine_names())
    recovered.names.update(recovered.receive(snapshot))
    assert client.send(back, recovered) == recovered["item"]
    assert recovered.send(recovered["item"], client) == back


def test_classes_that_nobody_uses_any_more_are_forgotten(client: Side, engine: Side) -> None:
    client.run("class Item: pass")
    watches = [weakref.ref(client["Item"]), weakref.ref(client.send(client["Item"], engine))]
    client.run("del Item")
    gc.collect()
    assert [watch() for watch in watches] == [None, None]


def test_a_class_without_a_value_to_be_compared_by_still_comes_home(client: Side, engine: Side) -> None:
    # A generator expression in a closure has no value; the class travels where its state does.
    engine.run(
        "class Odd:\n    def __reduce__(self): return (Odd, ())\n"
        "class Item:\n    registry = [Odd()]\n    def f(self): return 1\nitem = Item()"
    )
    assert type(client.send(engine.send(engine["item"], client), engine)) is engine["Item"]


def test_values_of_one_definition_have_one_digest_everywhere(client: Side, engine: Side, other: Side) -> None:
    source = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Key:\n    x: {0}\nkey = Key('z')"
    client.run(source.format("str"))
    there = client.send(client["key"], engine)
    assert digest(there) == digest(client["key"]) is not None
    other.run(source.format("object"))
    assert digest(other["key"]) not in (None, digest(there))


def test_classes_of_a_forked_child_are_not_those_of_its_parent(client: Side, engine: Side) -> None:
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            client.run("class Item: owner = 'child'")
            os.write(write, pickle.dumps(tuple(client.packed(client["Item()"]))))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    of_child = Payload(*pickle.loads(os.read(read, 100_000)))
    client.run("class Item: owner = 'parent'")
    of_parent = client.packed(client["Item()"])
    assert [engine.receive(of_child).owner, engine.receive(of_parent).owner] == ["child", "parent"]
    assert type(engine.receive(of_child)) is not type(engine.receive(of_parent))
    os.close(read)
    os.close(write)
