"""The line of %pxpeek may begin with engines."""

from __future__ import annotations

import pytest
from IPython.core.error import UsageError

from nsactors.magics.looks import split_peek


@pytest.mark.parametrize(
    ("line", "engines", "expression"),
    [
        ("len(x)", [], "len(x)"),
        ("0,2 len(x)", ["0,2"], "len(x)"),
        ("all x", ["all"], "x"),
        ("-1 x", ["-1"], "x"),
        ("::2 x", ["::2"], "x"),
        ("0 (a, b)", ["0"], "(a, b)"),
        ("0 'text'", ["0"], "'text'"),
        ("0 not x", ["0"], "not x"),
        ("5", [], "5"),
        ("5 + x", [], "5 + x"),
        ("5 in x", [], "5 in x"),
        ("5 not in x", [], "5 not in x"),
        ("5 if x else y", [], "5 if x else y"),
        ("[0] + x", [], "[0] + x"),
        ("all(x)", [], "all(x)"),
    ],
)
def test_engines_may_stand_before_the_expression(line: str, engines: list[str], expression: str) -> None:
    assert split_peek(f" {line} ") == (engines, expression)


def test_without_an_expression_the_use_is_told() -> None:
    with pytest.raises(UsageError, match="takes an expression"):
        split_peek(" ")
