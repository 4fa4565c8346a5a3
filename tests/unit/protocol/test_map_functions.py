import functools
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from nsactors import Reference, depend
from nsactors.errors import UnknownOption
from nsactors.protocol.map_functions import WithKeywords, keywords_for, takes
from nsactors.protocol.serialize import pack, unpack


def plain(x: int, k: int = 1, *, scale: int = 1) -> int:
    return (x + k) * scale


def options(function: object, *sequences: object, block: bool = False, label: str = "", **keywords: object) -> None:
    """Has the signature of a map."""


class Method:
    def call(self, x: int, k: int) -> int:
        return x + k


@pytest.mark.parametrize(
    ("function", "name", "positions", "expected"),
    [
        (plain, "k", 1, True),
        (plain, "k", 2, False),
        (plain, "scale", 2, True),
        (plain, "other", 1, False),
        (lambda x, **others: x, "other", 1, True),
        (lambda x, /, k: x, "x", 0, False),
        (lambda *items, k: k, "k", 5, True),
        (Method().call, "k", 1, True),
        (Method().call, "x", 1, False),
        (functools.partial(plain, k=2), "k", 1, True),
        (depend(bool, True)(plain), "k", 1, True),
        (depend(bool, True)(plain), "other", 1, False),
        (max, "key", 1, None),
        (Reference("f"), "k", 1, None),
    ],
)
def test_what_a_function_takes(function: Any, name: str, positions: int, expected: bool | None) -> None:
    assert takes(function, name, positions) is expected


def test_a_parameter_of_the_name_may_be_asked_for() -> None:
    assert takes(lambda x, **others: x, "rng", 1, named=True) is False
    assert takes(lambda x, rng: x, "rng", 1, named=True) is True
    assert takes(lambda x, rng: x, "rng", 2, named=True) is False


def test_keywords_go_to_a_function_that_takes_them() -> None:
    assert keywords_for(options, plain, 1, None, {"k": 3, "scale": 2}) == {"k": 3, "scale": 2}
    assert keywords_for(options, plain, 1, {"block": 1}, {"k": 3}) == {"k": 3, "block": 1}
    assert keywords_for(options, max, 1, {"key": abs}, {}) == {"key": abs}


@pytest.mark.parametrize(
    ("function", "kwargs", "keywords", "words"),
    [
        (plain, None, {"blok": True}, "did you mean 'block'.*nor does plain take it, only 'x', 'k', 'scale'"),
        (lambda x, /: x, None, {"k": 1}, "nor does <lambda> take it$"),
        (plain, None, {"x": 1}, "plain gets its 'x' from a sequence"),
        (max, None, {"key": abs}, r"kwargs=\{'key': \.\.\.\}"),
        (Reference("f"), None, {"k": 1}, r"the arguments of f are not known here: kwargs=\{'k': \.\.\.\}"),
        (plain, {"k": 1}, {"k": 2}, "give it once"),
    ],
)
def test_others_are_refused(function: Callable[..., Any], kwargs: Any, keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(UnknownOption, match=words) as failure:
        keywords_for(options, function, 1, kwargs, keywords)
    assert failure.value.known == ("block", "label")
    assert str(pickle.loads(pickle.dumps(failure.value))) == str(failure.value)


def test_where_it_arrives_it_is_a_partial_with_what_references_stand_for() -> None:
    scope: dict[str, Any] = {"f": plain, "k": 5, "__name__": "__main__"}
    function = unpack(pack(WithKeywords(Reference("f"), {"k": Reference("k"), "scale": 2})), scope=scope)
    assert type(function) is functools.partial
    assert function(1) == 12
