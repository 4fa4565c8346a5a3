"""The code that histories keep of requests."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nsactors.namespace.programs import MOST_CHARS, assignments, left_out, program_of
from nsactors.protocol.messages import Apply, Execute, Pull, Reset


@pytest.mark.parametrize(
    "value", [0, -1.5, "it's\n", True, None, (1, "a"), [], [0.5] * 20, range(1, 9, 2), {1: "a"}, b"x", 10**50]
)
def test_short_plain_values_are_written_out(value: Any) -> None:
    names: dict[str, Any] = {}
    exec(assignments({"x": value}), names)
    assert names["x"] == value
    assert type(names["x"]) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        object(),
        "x" * 500,
        list(range(21)),
        [[1]],
        {1},
        {1: []},
        b"x" * 500,
        10**5000,
        range(10**5000),
        [10**5000],
    ],
    ids=lambda value: type(value).__name__,  # pytest cannot write these numbers either
)
def test_other_values_are_named(value: Any) -> None:
    assert assignments({"x": value}) == f"# x was pushed by a client: {type(value).__name__}"


def test_names_of_one_push_stand_below_each_other() -> None:
    assert assignments({"a": 1, "b": {1}}) == "a = 1\n# b was pushed by a client: set"


def test_what_a_program_lacks_is_named() -> None:
    assert left_out(assignments({"a": {1}, "b": 1, "c": object()})) == ["a (set)", "c (object)"]
    long = Execute("x" * (MOST_CHARS + 1), silent=True, store_history=False)
    assert left_out(program_of(long)) == ["a cell of 100,001 characters"]
    assert left_out("x = 1  # table was pushed by a client: ndarray") == []


def test_a_cell_is_its_code_unless_that_is_very_long() -> None:
    assert program_of(Execute("x = 1", silent=True, store_history=False)) == "x = 1"
    long = Execute("x" * (MOST_CHARS + 1), silent=True, store_history=False)
    assert program_of(long) == "# a cell of 100,001 characters, which was not kept"


def test_a_clear_is_a_remark_and_calls_are_not_kept() -> None:
    assert program_of(Reset()).startswith("# clear()")
    assert program_of(Apply("f", False)) == program_of(Pull(("x",), True)) == ""
