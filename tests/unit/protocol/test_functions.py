"""Functions of ``__main__`` on engines; the namespaces of client and engines are dictionaries here."""

import asyncio
import builtins
import gc
import subprocess
import sys
import textwrap
import weakref
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.protocol import functions
from nsactors.protocol.functions import PRIVATE_NAMES, keeping_builtins
from nsactors.protocol.serialize import Payload, pack, unpack

Names = dict[str, Any]


def main(source: str = "", **names: Any) -> Names:
    """A namespace called ``__main__`` after ``source`` has run in it."""
    namespace = {"__name__": "__main__", "__builtins__": builtins, **names}
    exec(textwrap.dedent(source), namespace)
    return namespace


def user_names(scope: Names) -> set[str]:
    return {name for name in scope if not name.startswith("__")}


def send(value: Any, scope: Names | None, *, stays: bool = True) -> Any:
    return unpack(pack(value), scope=scope, stays=stays)


@pytest.fixture
def engine() -> Names:
    return main()


def test_a_function_belongs_to_the_namespace(engine: Names) -> None:
    assert send(main("def f(): pass")["f"], engine).__globals__ is engine


def test_functions_keep_the_name_of_their_file_also_those_with_functions_inside(engine: Names) -> None:
    client = main()
    exec(compile("def f(): return [i for i in range(3)]\ndef g(): return lambda: f", "model.py", "exec"), client)
    f, g = send(client["f"], engine), send(client["g"], engine)
    assert {each.__code__.co_filename for each in (f, g, g())} == {"model.py"}


@given(st.integers(), st.text())
def test_a_closure_keeps_its_variables(x: int, y: str) -> None:
    client = main("def make(x, y): return lambda: (x, y)")
    assert send(client["make"](x, y), main())() == (x, y)


def test_defaults_of_both_kinds_travel(engine: Names) -> None:
    f = send(main("def f(a, /, b=2, *, c=3): return a, b, c")["f"], engine)
    assert f(1) == (1, 2, 3)


def test_attributes_and_documentation_travel(engine: Names) -> None:
    client = main(
        """
        def f(x: int) -> str:
            "What f does."
        f.note = 1
        """
    )
    f = send(client["f"], engine)
    assert (f.__doc__, f.note, f.__annotations__, f.__module__) == (
        *("What f does.", 1),
        *({"x": int, "return": str}, "__main__"),
    )


def test_a_helper_travels_with_the_function(engine: Names) -> None:
    client = main(
        """
        def helper(x): return x + 1
        def f(x): return helper(x)
        """
    )
    assert send(client["f"], engine)(1) == 2


def test_a_call_leaves_no_name_behind(engine: Names) -> None:
    client = main(
        """
        scale = 3
        def f(xs): return [scale * x for x in xs]
        """
    )
    with keeping_builtins(engine):
        assert send(client["f"], engine, stays=False)([1, 2]) == [3, 6]
    assert user_names(engine) == set()
    assert engine["__builtins__"] is builtins


def test_a_function_without_inner_functions_leaves_no_name_behind(engine: Names) -> None:
    send(main("y = 1\ndef f(): return y")["f"], engine)
    assert user_names(engine) == set()
    assert engine["__builtins__"] is builtins


def test_imports_of_the_client_are_there(engine: Names) -> None:
    client = main("import math\nimport os.path\ndef f(): return math.pi, os.path.sep")
    assert send(client["f"], engine)() == (3.141592653589793, "/")


def test_the_engines_names_win_over_shipped_ones(engine: Names) -> None:
    f = send(main("x = 'client'\ndef f(): return x")["f"], engine)
    assert f() == "client"
    engine["x"] = "engine"
    assert f() == "engine"
    del engine["x"]
    assert f() == "client"


def test_shipped_names_win_over_builtins(engine: Names) -> None:
    f = send(main("def len(x): return 'mine'\ndef f(): return len([])")["f"], engine)
    assert f() == "mine"
    assert eval("len([])", engine) == 0


def test_assigning_a_global_binds_it_on_the_engine(engine: Names) -> None:
    client = main("def f():\n    global x\n    x = 1")
    send(client["f"], engine)()
    assert engine["x"] == 1
    assert "x" not in client


def test_a_shipped_counter_is_counted_on_from_on_the_engine(engine: Names) -> None:
    client = main("n = 10\ndef f():\n    global n\n    n += 1\n    return n")
    assert [send(client["f"], engine)() for _ in range(3)] == [11, 12, 13]
    assert (client["n"], engine["n"]) == (10, 13)


def test_a_function_calls_itself(engine: Names) -> None:
    client = main("def fact(n): return n * fact(n - 1) if n else 1")
    assert send(client["fact"], engine)(5) == 120


MUTUAL = """
def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)
"""


def test_functions_call_each_other(engine: Names) -> None:
    client = main(MUTUAL)
    even, odd = send([client["even"], client["odd"]], engine)
    assert (even(4), odd(4)) == (True, False)
    assert even.__builtins__["odd"] is odd


def test_two_shipments_do_not_mix(engine: Names) -> None:
    source = "def helper(): return {0}\ndef f(): return helper()"
    first, second = (send(main(source.format(i))["f"], engine) for i in (1, 2))
    assert (first(), second()) == (1, 2)


INNER = {
    "comprehension": "def f(xs): return [helper(x) for x in xs]",
    "generator expression": "def f(xs): return list(helper(x) for x in xs)",
    "lambda": "def f(xs): return list(map(lambda x: helper(x), xs))",
    "inner function": ("def f(xs):\n    def g(x): return [helper(y) for y in [x]][0]\n    return list(map(g, xs))"),
    "inner class": (
        "def f(xs):\n    class C:\n        def g(self, x): return helper(x)\n    return [C().g(x) for x in xs]"
    ),
}
inner = pytest.mark.parametrize("source", INNER.values(), ids=INNER)


@inner
def test_inner_functions_of_a_call_see_shipped_names(source: str, engine: Names) -> None:
    client = main("def helper(x): return -x\n" + source)
    with keeping_builtins(engine):
        assert send(client["f"], engine, stays=False)([1, 2]) == [-1, -2]
    assert user_names(engine) == set()


@inner
def test_inner_functions_of_what_stays_see_shipped_names(source: str, engine: Names) -> None:
    engine["f"] = send(main("def helper(x): return -x\n" + source)["f"], engine)
    assert eval("f([1, 2])", engine) == [-1, -2]


@inner
def test_inner_functions_see_the_engines_names_first(source: str, engine: Names) -> None:
    exec("def helper(x): return 'engine'", engine)
    f = send(main("def helper(x): return -x\n" + source)["f"], engine)
    assert f([1]) == ["engine"]
    assert f.__globals__ is engine


def test_a_name_bound_for_inner_functions_gives_way_to_a_later_one(engine: Names) -> None:
    source = "def helper(x): return x * {0}\ndef f(xs): return [helper(x) for x in xs]"
    assert [send(main(source.format(i))["f"], engine)([1]) for i in (2, 3)] == [[2], [3]]


def test_a_name_of_the_engines_own_is_never_replaced(engine: Names) -> None:
    source = "k = {0}\ndef f(): return [k for _ in 'a']"
    send(main(source.format(1))["f"], engine)
    engine["k"] = "own"
    assert send(main(source.format(2))["f"], engine)() == ["own"]


def test_what_a_call_leaves_behind_by_assigning_a_global_goes_on_working(engine: Names) -> None:
    client = main(
        """
        import math
        def whole(xs): return [math.floor(x) for x in xs]
        def setup():
            global run
            run = whole
        """
    )
    with keeping_builtins(engine):
        send(client["setup"], engine, stays=False)()
    assert eval("run([1.5])", engine) == [1]


def test_an_instance_that_a_call_leaves_behind_goes_on_working(engine: Names) -> None:
    client = main(
        """
        k = 2
        class Model:
            def run(self): return [k for _ in "a"]
        def store(): models.append(Model())
        """
    )
    engine["models"] = []
    with keeping_builtins(engine):
        send(client["store"], engine, stays=False)()
    assert eval("models[0].run()", engine) == [2]


def test_a_function_that_came_home_and_is_used_in_another_brings_its_names_along(engine: Names) -> None:
    back = send(main("k = 2\ndef f(x): return [k * x for _ in 'a']")["f"], None)
    client = main("def g(x): return f(x)", f=back)
    with keeping_builtins(engine):
        assert send(client["g"], engine, stays=False)(3) == [6]


@pytest.mark.parametrize("before", [builtins, vars(builtins), None])
@pytest.mark.parametrize("fails", [False, True])
def test_builtins_of_a_namespace_are_put_back(before: Any, fails: bool) -> None:
    scope = {} if before is None else {"__builtins__": before}
    try:
        with keeping_builtins(scope):
            scope["__builtins__"] = {}
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert scope.get("__builtins__") is before


def test_global_names_stay_in_plain_dictionaries(engine: Names) -> None:
    # Anything else would take the slow path of LOAD_GLOBAL.
    f = send(main("y = 1\ndef f(): return y")["f"], engine)
    assert type(f.__globals__) is type(f.__builtins__) is dict


def test_what_was_shipped_goes_with_the_function(engine: Names) -> None:
    class Big:
        pass

    client = main("def f(): return big", big=Big())
    f = send(client["f"], engine)
    watch = weakref.ref(f())
    gc.disable()
    try:
        del f
        assert watch() is None
    finally:
        gc.enable()


# -- other kinds of functions, and classes -------------------------------------------------------------------

KINDS = {
    "a generator function": ("def f():\n    yield from helper()", "list(f())"),
    "a coroutine function": (
        "async def f():\n    return helper()",
        "__import__('asyncio').run(f())",
    ),
    "a decorated function": (
        "import functools\n"
        "def twice(g):\n"
        "    @functools.wraps(g)\n"
        "    def wrapper(): return g() + helper()[:0]\n"
        "    return wrapper\n"
        "@twice\n"
        "def f(): return helper()",
        "f() if f.__name__ == 'f' and f.__wrapped__() else None",
    ),
    "a partial": ("import functools\nf = functools.partial(lambda g: g(), helper)", "f()"),
    "functions in containers": ("f = {'a': [(helper,)]}", "f['a'][0][0]()"),
    "an instance": ("class C:\n    def g(self): return helper()\nf = C()", "f.g()"),
    "a class": ("class C:\n    def g(self): return helper()\nf = C", "f().g()"),
    "a bound method": ("class C:\n    def g(self): return helper()\nf = C().g", "f()"),
    "class and static methods, properties": (
        "class C:\n"
        "    @classmethod\n"
        "    def a(cls): return helper()[:1]\n"
        "    @staticmethod\n"
        "    def b(): return helper()[1:]\n"
        "    @property\n"
        "    def c(self): return self.a() + self.b()\n"
        "f = C()",
        "f.c",
    ),
    "a subclass that uses super": (
        "class A:\n"
        "    def g(self): return helper()[:1]\n"
        "class B(A):\n"
        "    def g(self): return super().g() + helper()[1:]\n"
        "f = B()",
        "f.g()",
    ),
    "a dataclass": (
        "import dataclasses\n"
        "@dataclasses.dataclass(order=True)\n"
        "class D:\n"
        "    x: list = dataclasses.field(default_factory=lambda: helper())\n"
        "f = D()",
        "f.x if f == type(f)() and repr(f) == 'D(x=[1, 2])' else None",
    ),
    "a member of an Enum": (
        "import enum\n"
        "class E(enum.Enum):\n"
        "    A = 1\n"
        "    B = 2\n"
        "    def g(self): return [E.A.value, self.value] if helper() else None\n"
        "f = E.B",
        "f.g() if f is type(f).B else None",
    ),
    "a named tuple": (
        "import typing\n"
        "class P(typing.NamedTuple):\n"
        "    x: int\n"
        "    def g(self): return [self.x, *helper()[1:]]\n"
        "f = P(1)",
        "f.g()",
    ),
    "a class with slots": (
        "class C:\n    __slots__ = ('x',)\nf = C()\nf.x = helper()",
        "None if hasattr(f, '__dict__') else f.x",
    ),
    "a dataclass with slots": (
        "import dataclasses\n@dataclasses.dataclass(frozen=True, slots=True)\nclass D:\n    x: list\nf = D(helper())",
        "None if hasattr(f, '__dict__') else f.x",
    ),
    "an exception": ("class E(Exception):\n    def g(self): return helper()\nf = E(1)", "f.g()"),
}
kinds = pytest.mark.parametrize(("source", "use"), KINDS.values(), ids=KINDS)


def made_by_client(source: str) -> Any:
    return main("def helper(): return [1, 2]\n" + source)["f"]


@kinds
def test_it_works_on_an_engine(source: str, use: str, engine: Names) -> None:
    engine["f"] = send(made_by_client(source), engine)
    assert eval(use, engine) == [1, 2]


@kinds
def test_it_works_when_an_engine_sends_it_on(source: str, use: str, engine: Names) -> None:
    other = main()
    other["f"] = send(send(made_by_client(source), engine), other)
    assert eval(use, other) == [1, 2]


@kinds
def test_it_works_back_home(source: str, use: str, engine: Names) -> None:
    assert eval(use, {"f": send(send(made_by_client(source), engine), None)}) == [1, 2]


# -- sent on -------------------------------------------------------------------------------------------------


def test_functions_that_call_each_other_are_sent_on_together(engine: Names) -> None:
    client = main(MUTUAL)
    even, odd = send(send([client["even"], client["odd"]], engine), main())
    assert (even(3), odd(3)) == (False, True)
    assert even.__builtins__["odd"] is odd


def test_names_of_the_engine_that_a_function_sees_go_along_when_it_is_sent_on(engine: Names) -> None:
    f = send(main("x = y = 'client'\ndef f(): return x, y")["f"], engine)
    engine["x"] = "engine"
    assert send(f, main())() == ("engine", "client")
    assert send(f, None)() == ("engine", "client")


def test_shipments_stay_apart_when_they_are_sent_on(engine: Names) -> None:
    source = "def helper(): return {0}\ndef f(): return helper()"
    both = [send(main(source.format(i))["f"], engine) for i in (1, 2)]
    assert [f() for f in send(both, main())] == [1, 2]


def test_a_function_made_on_the_engine_brings_the_engines_names(engine: Names) -> None:
    exec("y = 1\ndef f(): return y", engine)
    assert send(engine["f"], None)() == 1


def test_a_function_made_by_a_call_brings_the_shipped_names(engine: Names) -> None:
    client = main("k = 2\ndef make(): return lambda: k")
    with keeping_builtins(engine):
        payload = pack(send(client["make"], engine, stays=False)())
    assert unpack(payload)() == 2


def test_a_function_that_is_sent_on_is_not_changed(engine: Names) -> None:
    f = send(main("y = 1\ndef f(): return y")["f"], engine)
    send(f, None)
    assert f.__globals__ is engine
    assert f() == 1


# -- identity of classes -------------------------------------------------------------------------------------


def test_a_class_sent_twice_is_one_class(engine: Names) -> None:
    client = main("class C: pass")
    assert send(client["C"], engine) is type(send(client["C"](), engine))


def test_each_namespace_of_a_process_has_a_class_of_its_own(engine: Names) -> None:
    client, other = main("class C:\n    def where(self): return place"), main(place="other")
    engine["place"] = "engine"
    here, there = send(client["C"](), engine), send(client["C"](), other)
    assert (here.where(), there.where()) == ("engine", "other")
    assert type(here) is not type(there)


def test_an_instance_that_comes_home_is_one_of_the_class_that_left(engine: Names) -> None:
    client = main("class C:\n    def __eq__(self, other): return isinstance(other, C)")
    instance = client["C"]()
    assert send(send(instance, engine), None) == instance


@pytest.mark.parametrize("bases", ["", "(enum.Enum)"])
def test_a_class_is_not_changed_by_leaving_and_coming_home(bases: str, engine: Names) -> None:
    client = main(f"import enum\nclass C{bases}:\n    A = 1\n    def f(self): return k", k=1)
    cls, method = client["C"], client["C"].f
    send(send(cls, engine), None)
    assert cls.f is method
    client["k"] = 2
    assert method(None) == 2


def test_what_a_class_gained_elsewhere_comes_home_with_it(engine: Names) -> None:
    client = main("class C: pass")
    send(client["C"], engine).best = 1
    there = send(client["C"], engine)
    send(there, None)
    assert client["C"].best == 1


def test_a_class_arrives_after_a_first_arrival_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("not_installed")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    payload = pack(main("import not_installed\nclass C:\n    def f(self): return not_installed")["C"])
    gc.collect()  # the class that was packed
    monkeypatch.delitem(sys.modules, module.__name__)
    gc.disable()  # the half-made class
    try:
        with pytest.raises(ModuleNotFoundError, match="not_installed"):
            unpack(payload)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        assert unpack(payload)().f() is module
    finally:
        gc.enable()


def test_a_class_that_changed_is_brought_up_to_date_when_it_is_sent_again(engine: Names) -> None:
    client = main("class C:\n    def f(self): return 1")
    there = send(client["C"], engine)
    exec("def f(self): return 2\nC.f = f", client)
    send(client["C"], engine)
    assert there().f() == 2


# -- other modules, other versions, other processes ----------------------------------------------------------


def test_functions_of_modules_are_found_by_their_name(engine: Names) -> None:
    assert send([textwrap.dedent, user_names], engine) == [textwrap.dedent, user_names]


def test_local_functions_of_modules_keep_globals_of_their_own(engine: Names) -> None:
    f = send(lambda: user_names({"x": 1}), engine)
    assert f() == {"x"}
    assert f.__globals__ is not engine


def test_without_a_namespace_a_function_keeps_what_it_came_with() -> None:
    client = main("def helper(): return 1\ndef f(): return helper()")
    f = send(client["f"], None)
    assert f() == 1
    assert f.__globals__["helper"] is not client["helper"]


def test_the_private_names_of_cloudpickle_are_where_they_were() -> None:
    assert [name for name in PRIVATE_NAMES if not hasattr(cloudpickle.cloudpickle, name)] == []
    assert callable(cloudpickle.Pickler._function_reduce)
    assert cloudpickle.Pickler.dispatch_table.maps
    assert b"_function_setstate" in pack(made_by_client("def f(x=[]): pass")).data


def test_with_another_cloudpickle_functions_load_as_it_makes_them(
    engine: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "PRIVATE_NAMES", ("gone",))
    functions._has_private_names.cache_clear()
    try:
        f = send(main("y = 1\ndef f(): return [y]")["f"], engine)
        assert f() == [1]
        assert f.__globals__ is not engine
    finally:
        functions._has_private_names.cache_clear()


def test_a_script_sends_to_another_process(tmp_path: Path, engine: Names) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import math, sys
            from nsactors.protocol.serialize import pack

            class Shape:
                def __init__(self, r): self.r = r
                def area(self): return scale(math.pi * self.r ** 2)

            def scale(x): return 10 * x

            def work(shapes):
                global total
                total = sum(round(shape.area()) for shape in shapes)
                return total

            payload = pack((work, ([Shape(1), Shape(2)],)))
            assert not payload.buffers
            sys.stdout.buffer.write(payload.data)
            """
        )
    )
    data = subprocess.run([sys.executable, script], check=True, capture_output=True, timeout=50).stdout
    with keeping_builtins(engine):
        work, args = unpack(Payload(data), scope=engine, stays=False)
        assert work(*args) == engine["total"] == 157


def test_a_coroutine_assigns_on_the_engine(engine: Names) -> None:
    f = send(main("async def f(x):\n    global y\n    y = x")["f"], engine)
    asyncio.run(f(5))
    assert engine["y"] == 5


def test_a_partial_of_a_recursive_function_runs(engine: Names) -> None:
    client = main("def count(n): return [n, *count(n - 1)] if n else []")
    assert send(partial(client["count"], 3), engine)() == [3, 2, 1]


def test_a_function_that_stands_alone_takes_a_fraction_of_the_bytes_and_behaves_the_same() -> None:
    names: dict[str, Any] = {"__name__": "__main__", "helper": len}
    exec(
        "def alone(x: int, y: 'anything' = 0) -> None:\n    'doc'\n"
        "    global seen\n    seen = x\n    return x + offset\n",
        names,
    )
    exec("def helped(x):\n    return helper(x)\n", names)
    small, large = pack(names["alone"]), pack(names["helped"])
    assert small.nbytes < large.nbytes
    scope: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins, "offset": 10}
    arrived = unpack(small, scope=scope)
    assert arrived(1) == 11
    assert scope["seen"] == 1
    assert (arrived.__name__, arrived.__qualname__, arrived.__doc__) == ("alone", "alone", "doc")
    assert arrived.__module__ == "__main__"
    assert (arrived.__defaults__, arrived.__annotations__) == ((0,), {"x": int, "y": "anything", "return": None})
    # Sent home again, by an engine that has a name which the function uses.
    assert unpack(pack(arrived))(2) == 12
