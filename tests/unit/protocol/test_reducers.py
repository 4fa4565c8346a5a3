"""Definitions of ``__main__`` that name themselves when they are pickled, in another namespace."""

from __future__ import annotations

import fnmatch
from functools import lru_cache
from typing import Any

from nsactors.namespace.plain_shell import fresh_names
from nsactors.protocol.reducers import is_importable
from nsactors.protocol.serialize import pack, unpack

IMPORTS = "from functools import *\nfrom typing import *\n"


def sent(code: str, *names: str) -> dict[str, Any]:
    """A namespace that was sent these names of another."""
    source, target = fresh_names(), fresh_names()
    exec(IMPORTS + code, source)
    target.update(unpack(pack({name: source[name] for name in names}), scope=target))
    return target


def test_a_cached_function_that_calls_itself_is_cached_again() -> None:
    fib = sent("@lru_cache(maxsize=7)\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)", "fib")["fib"]
    assert fib(30) == 832040
    assert fib.cache_info().misses == 31
    assert (fib.cache_parameters(), fib.__name__) == ({"maxsize": 7, "typed": False}, "fib")


def test_a_cached_function_in_a_closure_may_call_itself() -> None:
    code = "def outer():\n    @cache\n    def f(n): return n * f(n - 1) if n else 1\n    return f\nfactorial = outer()"
    assert sent(code, "factorial")["factorial"](5) == 120


def test_a_cached_function_keeps_its_attributes_and_its_text() -> None:
    f = sent("@cache\ndef f():\n    'Text.'\nf.tag = 5", "f")["f"]
    assert (f.tag, f.__doc__, f.__wrapped__.__name__) == (5, "Text.", "f")


def test_methods_may_be_cached() -> None:
    code = """
class C:
    n = 5
    @lru_cache
    def plus(self, k): return self.n + k
    plus_one = partialmethod(plus, 1)
    @cached_property
    def twice(self): return 2 * self.n
c = C()
"""
    c = sent(code, "C", "c")["c"]
    assert (c.plus(2), c.plus_one(), c.twice, vars(c)) == (7, 6, 10, {"twice": 10})


def test_a_function_with_an_implementation_for_each_class_has_them_again() -> None:
    code = """
@singledispatch
def kind(x): return "any"
@kind.register
def _(x: int): return kind("") + " int"
class C:
    @singledispatchmethod
    def kind(self, x): return "any"
    @kind.register
    def _(self, x: int): return "int"
"""
    names = sent(code, "kind", "C")
    assert (names["kind"](1), names["kind"]("a"), names["kind"].__name__) == ("any int", "any", "kind")
    assert (names["C"]().kind(1), names["C"]().kind("a")) == ("int", "any")


def test_new_types_and_parameters_are_what_they_were() -> None:
    code = """
X = NewType("X", list)
P, T, Ts = ParamSpec("P", bound=int), TypeVar("T"), TypeVarTuple("Ts")
call, table = Callable[P, T], dict[str, X]
"""
    names = sent(code, "X", "P", "T", "Ts", "call", "table")
    assert (names["X"].__supertype__, names["X"].__module__, names["X"](3)) == (list, "__main__", 3)
    assert (repr(names["P"]), names["P"].__bound__, repr(names["Ts"])) == ("~P", int, "Ts")
    assert names["table"].__args__[1] is names["X"]
    assert names["call"].__args__ == (names["P"], names["T"])


def test_functions_that_share_a_variable_share_it_again() -> None:
    code = """
def counter():
    n = 0
    def count():
        nonlocal n
        n += 1
    def get(): return n
    return count, get
count, get = counter()
"""
    names = sent(code, "count", "get")
    names["count"](), names["count"]()
    assert names["get"]() == 2


def test_what_a_module_has_stays_a_name_in_it() -> None:
    assert unpack(pack(fnmatch._compile_pattern)) is fnmatch._compile_pattern  # type: ignore[attr-defined]
    assert not is_importable(lru_cache(lambda: None))
