"""Calling functions: what reaches them, and what they see."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors import AsyncResult, Client, DirectView
from nsactors.errors import SerializationError, UnknownFlag
from nsactors.testing import TIMEOUT_S

Main = Callable[[str], SimpleNamespace]


def test_a_function_is_called_on_every_engine(dv: DirectView) -> None:
    assert dv.apply_sync(divmod, 7, 2) == [(3, 1)] * 4


@pytest.mark.once
def test_a_function_called_on_one_engine_gives_its_value(rc: Client) -> None:
    assert rc[2].apply_sync(divmod, 7, 2) == (3, 1)


@pytest.mark.once
def test_apply_returns_a_result_unless_the_view_blocks(rc: Client) -> None:
    view = rc[0]
    assert isinstance(view.apply(abs, -1), AsyncResult)
    view.block = True
    assert view.apply(abs, -1) == 1


@pytest.mark.sampled
@pytest.mark.parametrize(
    "name", ["block", "targets", "f", "function", "self", "label", "args", "kwargs", "track", "timeout", "dist"]
)
def test_every_keyword_of_apply_goes_to_the_function(dv: DirectView, name: str) -> None:
    assert dv.apply_sync(lambda **kwargs: kwargs, **{name: 1}) == [{name: 1}] * 4


@pytest.mark.once
def test_what_cannot_be_called_raises_at_the_call(dv: DirectView) -> None:
    with pytest.raises(
        TypeError, match=r"apply\(\) takes function as a function, or another object that can be called, not 5"
    ):
        dv.apply(5)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "function",
    [lambda: 6, functools.partial(operator.mul, 2, 3), [1, 2, 3, 4, 5, 6].__len__, "abcdef".__len__],
    ids=["lambda", "partial", "method of a list", "method of a string"],
)
def test_any_callable_can_be_called(rc: Client, function: Callable[[], int]) -> None:
    assert rc[0].apply_sync(function) == 6


@pytest.mark.once
def test_a_function_brings_what_it_closes_over(rc: Client) -> None:
    factor = [3]
    assert rc[0].apply_sync(lambda x: x * factor[0], 2) == 6


def test_a_function_of_main_brings_its_helpers_and_imports(rc: Client, from_main: Main) -> None:
    main = from_main(
        """
        import math
        LIMIT = 10
        def helper(x):
            return min(math.factorial(x), LIMIT)
        def f(x):
            return helper(x) + sum(helper(y) for y in range(3))
        """
    )
    assert rc[0].apply_sync(main.f, 5) == 14


def test_a_function_of_main_sees_the_names_of_the_engine_first(rc: Client, from_main: Main) -> None:
    main = from_main("x = 'client'\ndef f():\n    return x")
    rc[0]["x"] = "engine"
    assert (rc[0].apply_sync(main.f), rc[1].apply_sync(main.f)) == ("engine", "client")


def test_a_global_that_a_function_of_main_assigns_is_bound_on_the_engine(rc: Client, from_main: Main) -> None:
    main = from_main("def f():\n    global count\n    count = 5")
    rc[0].apply_sync(main.f)
    assert rc[0].get("count") == 5


def test_what_a_function_of_main_brought_is_not_left_among_the_names(rc: Client, from_main: Main) -> None:
    main = from_main("secret = 5\ndef f():\n    return secret")
    rc[0].apply_sync(main.f)
    with pytest.raises(NameError):
        rc[0].get("secret")


@pytest.mark.once
def test_a_recursive_function_of_main_finds_itself(rc: Client, from_main: Main) -> None:
    main = from_main("def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)")
    assert rc[0].apply_sync(main.fib, 10) == 55


def test_a_method_of_an_instance_of_main_can_be_called(rc: Client, from_main: Main) -> None:
    main = from_main("class Scale:\n    def __init__(self, by): self.by = by\n    def of(self, x): return self.by * x")
    assert rc[0].apply_sync(main.Scale(3).of, 2) == 6


def test_an_instance_made_on_an_engine_is_one_of_the_class_here(rc: Client, from_main: Main) -> None:
    main = from_main("class Point:\n    pass\ndef make():\n    return Point()")
    assert isinstance(rc[0].apply_sync(main.make), main.Point)


def test_a_function_defined_on_the_engine_uses_the_names_of_the_engine(rc: Client) -> None:
    rc[0].execute("x = 4\ndef f():\n    return x", block=True)
    function = rc[0].get("f")
    assert function() == 4


def test_a_generator_of_an_engine_is_refused_as_a_result(rc: Client) -> None:
    with pytest.raises(TypeError, match="list"):
        rc[0].apply_sync(lambda: (n for n in [1]))


@pytest.mark.once
def test_the_remote_decorator_calls_on_every_engine(rc: Client) -> None:
    @rc[:].remote(block=True)
    def add(x: int, y: int) -> int:
        """Add."""
        return x + y

    assert (add(1, y=2), add.__name__, add.__doc__) == ([3] * 4, "add", "Add.")


@pytest.mark.once
def test_the_remote_decorator_without_block_gives_results(rc: Client) -> None:
    assert rc[:].remote()(abs)(-1).get(TIMEOUT_S) == [1] * 4


@pytest.mark.once
def test_the_remote_decorator_refuses_unknown_flags(rc: Client) -> None:
    with pytest.raises(UnknownFlag):
        rc[:].remote(blok=True)


@pytest.mark.once
def test_the_parallel_decorator_gives_each_engine_its_part(rc: Client) -> None:
    @rc[:].parallel(block=True)
    def doubled(part: Any) -> list[int]:
        return [2 * x for x in part]

    assert doubled(range(10)) == [2 * x for x in range(10)]


@pytest.mark.once
def test_a_parallel_function_maps_item_by_item(rc: Client) -> None:
    assert rc[:].parallel(block=True)(abs).map([-1, -2, -3, -4, -5]) == [1, 2, 3, 4, 5]


def test_imports_are_repeated_on_the_engines(rc: Client) -> None:
    with rc[:].sync_imports(quiet=True):
        import json
    assert rc[:].pull("json.dumps(1)", block=True) == [json.dumps(1)] * 4


@pytest.mark.once
def test_imports_are_repeated_under_the_names_they_were_given(rc: Client) -> None:
    with rc[:].sync_imports(quiet=True):
        import fractions as f
        from string import digits as ds
    assert rc[0].pull(["f.Fraction(1, 2)", "ds"], block=True) == [f.Fraction(1, 2), ds]


@pytest.mark.once
def test_imports_are_repeated_under_names_that_have_held_the_modules_before(rc: Client) -> None:
    import email.message as em
    import fractions
    import fractions as f
    from string import digits as ds
    from string import hexdigits

    with rc[:].sync_imports(quiet=True):
        import email.message as em
        import fractions
        import fractions as f
        from string import digits as ds
        from string import digits as ds2
        from string import hexdigits

    names = ["em.Message.__name__", "fractions is f", "ds", "ds2", "hexdigits"]
    assert rc[0].pull(names, block=True) == [em.Message.__name__, fractions is f, ds, ds2, hexdigits]


@pytest.mark.once
def test_imports_on_engines_alone_need_no_modules_here(rc: Client, capsys: pytest.CaptureFixture[str]) -> None:
    with rc[0].sync_imports(local=False):
        import email.message
        import email.message as em
        from string import digits as ds
    assert [line.partition("   #")[0] for line in capsys.readouterr().out.splitlines()] == [
        "import email.message",
        "import email.message as em",
        "from string import digits as ds",
    ]
    assert not hasattr(em, "Message")
    assert not hasattr(email, "charset")
    assert not isinstance(ds, str)


@pytest.mark.once
@pytest.mark.parametrize("view_of", [lambda rc: rc[0], lambda rc: rc.load_balanced_view()])
def test_an_error_says_what_to_send_in_place_of_a_result_a_view_or_a_client(
    rc: Client, view_of: Callable[[Client], Any]
) -> None:
    view = view_of(rc)
    result = view.map_async(abs, [-1])
    for thing, place, text in [
        (result, "", "a result cannot leave its client's process: pass its value, result.get()"),
        ([view], "at [0]: ", "a view cannot leave its client's process: make a client on the engine"),
        ({"rc": rc}, "at ['rc']: ", "a client stays in its process: make one on the engine"),
    ]:
        with pytest.raises(SerializationError) as caught:
            view.apply(str, thing)
        assert caught.value.reason.startswith(place + text)
    result.get(TIMEOUT_S)


@pytest.mark.once
def test_a_repeated_import_is_told(rc: Client, capsys: pytest.CaptureFixture[str]) -> None:
    with rc[:].sync_imports():
        import json  # noqa: F401
    assert "import json" in capsys.readouterr().out
