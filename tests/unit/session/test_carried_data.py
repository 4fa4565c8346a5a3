"""Calls that carry a lot of data with them."""

import builtins
import functools
from typing import Any

import numpy as np
import pytest

from nsactors.protocol.serialize import pack
from nsactors.session import carried_data
from nsactors.session.carried_data import CarriedData

MB = 1_000_000
LIMIT = 10_000


@pytest.fixture(autouse=True)
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried_data, "LIMIT_BYTES", LIMIT)


@pytest.fixture
def data() -> CarriedData:
    return CarriedData()


def told(data: CarriedData, function: Any, *args: Any, **kwargs: Any) -> list[str]:
    """Return the parts that are too large to be carried, as ``function: part``."""
    payload = pack((function, args, kwargs))
    return [f"{one.function}: {one.part}" for one in data.notice(payload, function, args, kwargs)]


def typed(source: str, name: str, **names: Any) -> Any:
    """Return the object that source code binds to a name when it is typed at a prompt."""
    scope: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins, **names}
    exec(source, scope)
    return scope[name]


def test_a_small_call_is_not_looked_into(data: CarriedData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried_data, "pack", lambda *args, **kwargs: pytest.fail("packed again"))
    assert told(data, len, "small") == []


def test_a_global_that_a_function_uses_is_named_with_its_size_and_what_to_do(data: CarriedData) -> None:
    simulate = typed("def simulate(i): return table[i]", "simulate", table=np.zeros(10_000))
    (warning,) = data.notice(pack((simulate, (1,), {})), simulate, (1,))
    assert str(warning) == (
        "`simulate` carries the global `table` (80 kB) to the engines: push it once, view.push({'table': table}), "
        "and pass Reference('table') as an argument"
    )


def test_a_global_that_was_pushed_is_told_again_because_the_function_uses_the_pushed_value(data: CarriedData) -> None:
    simulate = typed("def simulate(i): return table[i]", "simulate", table=np.zeros(10_000))
    assert told(data, simulate, 1) == ["simulate: the global `table`"]
    data.pushed(["table"])
    (warning,) = data.notice(pack((simulate, (1,), {})), simulate, (1,))
    assert str(warning) == (
        "`simulate` carries the global `table` (80 kB) to the engines: `table` was pushed, and the function uses the "
        "pushed value; to send no other, delete `table` here, or pass Reference('table') as an argument"
    )
    assert told(data, simulate, 1) == []


def test_an_argument_with_the_name_of_a_pushed_value_is_told_as_others(data: CarriedData) -> None:
    data.pushed(["a"])
    (warning,) = data.notice(pack((print, (np.zeros(10_000),), {})), lambda a: None, (np.zeros(10_000),))
    assert "push it once" in str(warning)


@pytest.mark.parametrize("source", ["lambda: (lambda: table)", "lambda: [table[i] for i in range(9)]"])
def test_a_global_of_an_inner_function_is_found(data: CarriedData, source: str) -> None:
    assert told(data, typed(f"f = {source}", "f", table=np.zeros(10_000))) == ["<lambda>: the global `table`"]


def test_a_global_of_a_function_that_is_called_is_found(data: CarriedData) -> None:
    source = "def helper(): return table\ndef simulate(): return helper()"
    function = typed(source, "simulate", table=np.zeros(10_000))
    assert told(data, function) == ["simulate: the global `table` of `helper`"]


def test_an_attribute_of_the_same_name_is_not_taken_for_the_global(data: CarriedData) -> None:
    function = typed("def f(x): return x.table", "f", table=np.zeros(10_000))
    assert told(data, function, np.zeros(20_000)) == ["f: the argument `x`"]


def test_functions_that_call_each_other_are_looked_at_once(data: CarriedData) -> None:
    source = "def even(n): return odd(n - 1) + table[0]\ndef odd(n): return even(n - 1)"
    assert told(data, typed(source, "even", table=np.zeros(10_000)), 3) == ["even: the global `table`"]


def test_a_variable_of_the_function_around_it_is_found(data: CarriedData) -> None:
    source = (
        "def make(local, late):\n    def inner(): return local, missing\n    if late: missing = 1\n    return inner"
    )
    inner = typed(source, "make")(np.zeros(10_000), late=False)
    assert told(data, inner) == ["inner: the variable `local` of the function around it"]


@pytest.mark.parametrize("signature", ["a=1, d=table", "*, d=table"])
def test_a_default_value_is_found(data: CarriedData, signature: str) -> None:
    function = typed(f"f = lambda {signature}: d", "f", table=np.zeros(10_000))
    assert told(data, function) == ["<lambda>: the default value of `d`"]


class Model:
    def __init__(self) -> None:
        self.weights = np.zeros(10_000)

    def run(self) -> None: ...

    def __call__(self) -> None: ...


def test_a_method_carries_its_object(data: CarriedData) -> None:
    (warning,) = data.notice(pack(Model().run), Model().run)
    assert warning.part == "the attribute `weights` of its object"
    assert "Reference('obj.run')" in str(warning)


def test_an_object_that_can_be_called_carries_its_attributes(data: CarriedData) -> None:
    assert told(data, Model()) == ["Model: the attribute `weights` of its object"]


def test_a_partial_carries_its_arguments(data: CarriedData) -> None:
    assert told(data, functools.partial(np.sum, np.zeros(10_000))) == ["partial: the argument `a` of `sum`"]


def test_arguments_have_the_names_of_the_parameters(data: CarriedData) -> None:
    assert told(data, np.sum, np.zeros(10_000), axis=0) == ["sum: the argument `a`"]


def test_arguments_of_a_function_that_does_not_tell_its_parameters_are_counted(data: CarriedData) -> None:
    assert told(data, max, 0, np.zeros(10_000)) == ["max: the argument `2`"]


def test_a_function_that_engines_import_carries_nothing(data: CarriedData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functools, "a_large_global", np.zeros(10_000), raising=False)
    assert told(data, functools.reduce, list(range(10_000))) == ["reduce: the argument `1`"]


def test_the_largest_are_told_until_the_rest_is_small(data: CarriedData) -> None:
    parts = [np.zeros(size, "u1") for size in (9_000, 30_000, 20_000)]
    warnings = told(data, lambda a, b, c: None, *parts)
    assert warnings == ["<lambda>: the argument `b`", "<lambda>: the argument `c`"]


def test_many_small_things_that_are_large_together_are_told(data: CarriedData) -> None:
    parts = [np.zeros(6_000, "u1") for _ in range(3)]
    assert len(told(data, lambda a, b, c: None, *parts)) == 2


def test_each_variable_of_a_function_is_told_once(data: CarriedData) -> None:
    def function(a: Any, b: Any) -> None: ...

    large = np.zeros(10_000)
    assert told(data, function, large, 1) == ["function: the argument `a`"]
    assert told(data, function, large, 1) == []
    assert told(data, function, 1, large) == ["function: the argument `b`"]


def test_a_function_that_was_typed_again_is_not_told_again(data: CarriedData) -> None:
    source = "def simulate(): return table"
    assert told(data, typed(source, "simulate", table=np.zeros(10_000)))
    assert told(data, typed(source, "simulate", table=np.zeros(10_000))) == []
