"""What is said of one argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsactors import Reference
from nsactors.errors import InvalidArgument, InvalidName, WrongType, WrongValue
from nsactors.protocol import arguments as arg


class Hostile:
    """An object that fails whatever is asked of it."""

    def _fail(self, *args: Any) -> Any:
        raise SystemExit("looked at")

    __repr__ = __eq__ = __bool__ = __len__ = __iter__ = __index__ = __float__ = _fail  # type: ignore[assignment]
    __hash__ = object.__hash__


Look = Callable[..., arg.Unfit | None]


@pytest.mark.parametrize(
    ("look", "value", "options"),
    [
        (arg.flag, True, {}),
        (arg.flag, np.False_, {}),
        (arg.flag, None, {"or_none": True}),
        (arg.text, "", {}),
        (arg.text, np.str_("x"), {}),
        (arg.text, None, {"or_none": True}),
        (arg.identifier, "x", {}),
        (arg.path, Path("x"), {}),
        (arg.choice, "b", {"choices": "br"}),
        (arg.choice, None, {"choices": "br", "or_none": True}),
        (arg.whole, 0, {"at_least": 0}),
        (arg.whole, np.int8(3), {"at_least": 3}),
        (arg.whole, -(10**50), {}),
        (arg.whole, None, {"or_none": True}),
        (arg.number, 1.5, {"at_least": 1.5}),
        (arg.number, np.float32(0.5), {"above": 0}),
        (arg.number, np.int64(0), {"at_least": 0}),
        (arg.number, 10**50, {}),
        (arg.number, math.nan, {"finite": False}),
        (arg.number, math.nan, {"finite": False, "at_least": 0}),
        (arg.number, math.inf, {"finite": False, "at_least": 0}),
        (arg.number, None, {"or_none": True}),
        (arg.seconds, 0, {}),
        (arg.seconds, 2.5, {}),
        (arg.seconds, None, {}),
        (arg.seconds, np.float16(1), {"or_none": False}),
        (arg.seconds, -1, {"negative": True}),
        (arg.function, print, {}),
        (arg.function, int, {}),
        (arg.function, Reference("f"), {}),
        (arg.iterable, range(3), {}),
        (arg.iterable, np.arange(3), {}),
        (arg.iterable, (i for i in "ab"), {}),
        (arg.mapping, {}, {"takes": "names"}),
        (arg.texts, {"a": "b"}, {"takes": "names"}),
        (arg.amounts, {"a": np.float64(1)}, {"takes": "names"}),
        (arg.amounts, None, {"takes": "names", "or_none": True}),
    ],
)
def test_what_fits_is_not_remarked_upon(look: Look, value: object, options: dict[str, Any]) -> None:
    assert look(value, **options) is None


@pytest.mark.parametrize(
    ("look", "value", "options", "error"),
    [
        (arg.flag, "no", {}, WrongType),
        (arg.flag, 1, {}, WrongType),
        (arg.flag, None, {}, WrongType),
        (arg.flag, np.int64(1), {}, WrongType),
        (arg.flag, np.array([True]), {}, WrongType),
        (arg.text, b"x", {}, WrongType),
        (arg.text, None, {}, WrongType),
        (arg.identifier, "1x", {}, WrongValue),
        (arg.identifier, 1, {}, WrongType),
        (arg.path, b"x", {}, WrongType),
        (arg.choice, "x", {"choices": "br"}, WrongValue),
        (arg.choice, ["b"], {"choices": "br"}, WrongType),
        (arg.whole, True, {}, WrongType),
        (arg.whole, 1.0, {}, WrongType),
        (arg.whole, math.nan, {}, WrongType),
        (arg.whole, "1", {}, WrongType),
        (arg.whole, None, {}, WrongType),
        (arg.whole, np.float64(1), {}, WrongType),
        (arg.whole, np.arange(2), {}, WrongType),
        (arg.whole, 0, {"at_least": 1}, WrongValue),
        (arg.whole, np.int64(-1), {"at_least": 0}, WrongValue),
        (arg.number, True, {}, WrongType),
        (arg.number, np.True_, {}, WrongType),
        (arg.number, "1", {}, WrongType),
        (arg.number, 1j, {}, WrongType),
        (arg.number, Fraction(1, 2), {}, WrongType),
        (arg.number, np.array(1.0), {}, WrongType),
        (arg.number, math.nan, {}, WrongValue),
        (arg.number, math.inf, {}, WrongValue),
        (arg.number, np.float32("-inf"), {}, WrongValue),
        (arg.number, -0.5, {"at_least": 0}, WrongValue),
        (arg.number, 0, {"above": 0}, WrongValue),
        (arg.seconds, math.nan, {}, WrongValue),
        (arg.seconds, math.inf, {"negative": True}, WrongValue),
        (arg.seconds, 1e10, {}, WrongValue),  # Python's locks overflow
        (arg.seconds, -0.5, {}, WrongValue),
        (arg.seconds, "5", {}, WrongType),
        (arg.seconds, True, {}, WrongType),
        (arg.seconds, None, {"or_none": False}, WrongType),
        (arg.function, "print", {}, WrongType),
        (arg.iterable, 5, {}, WrongType),
        (arg.iterable, list, {}, WrongType),
        (arg.mapping, [("a", 1)], {"takes": "names"}, WrongType),
        (arg.texts, {"a": 1}, {"takes": "names"}, WrongType),
        (arg.amounts, {"a": "1"}, {"takes": "names"}, WrongType),
        (arg.amounts, {1: 1}, {"takes": "names"}, WrongType),
        (arg.amounts, {"a": math.nan}, {"takes": "names"}, WrongValue),
    ],
)
def test_what_does_not_fit_is_of_the_wrong_type_or_value(
    look: Look, value: object, options: dict[str, Any], error: type[InvalidArgument]
) -> None:
    unfit = look(value, **options)
    assert unfit is not None
    assert (unfit.value is value, unfit.error) == (True, error)


LOOKS: list[Look] = [
    arg.flag,
    arg.text,
    arg.identifier,
    arg.path,
    lambda value: arg.choice(value, "br"),
    arg.whole,
    arg.number,
    arg.seconds,
    arg.function,
    lambda value: arg.mapping(value, "names"),
    lambda value: arg.instance(value, int, "a number"),
]


@pytest.mark.parametrize("look", LOOKS)
def test_an_object_that_cannot_be_looked_at_is_refused_as_what_it_is(look: Look) -> None:
    with pytest.raises(WrongType, match=r"^call\(\) takes it as .*, not <Hostile instance"):
        arg.check("call", it=look(Hostile()))


def test_the_message_names_the_call_the_parameter_what_it_takes_and_the_value() -> None:
    with pytest.raises(WrongType) as caught:
        arg.check("execute", code=arg.text("1"), block=arg.flag("no", or_none=True))
    assert str(caught.value) == "execute() takes block as True, False or None, not 'no'"
    assert (caught.value.call, caught.value.parameter, caught.value.value) == ("execute", "block", "'no'")


@pytest.mark.parametrize(
    ("unfit", "said"),
    [
        (arg.seconds("5"), "a number of seconds, 0 or more, or None for no limit"),
        (arg.seconds("5", negative=True), "a number of seconds, or None or a negative number for no limit"),
        (arg.seconds("5", or_none=False), "a number of seconds, 0 or more"),
        (arg.whole("5", at_least=1, or_none=True), "a whole number, 1 or more, or None"),
        (arg.number("5", above=0), "a finite number, more than 0"),
        (arg.number("5", finite=False), "a number"),
        (arg.number(-math.inf, at_least=0, finite=False), "a number, 0 or more"),
        (arg.number(0, above=0, finite=False), "a number, more than 0"),
        (arg.choice("5", ("b", "r")), "one of 'b', 'r'"),
    ],
)
def test_ranges_are_told(unfit: arg.Unfit | None, said: str) -> None:
    assert unfit is not None
    assert unfit.takes == said


def test_a_wrong_value_is_a_value_error_and_a_wrong_type_a_type_error() -> None:
    assert issubclass(WrongType, TypeError)
    assert issubclass(WrongValue, ValueError)
    assert issubclass(WrongType, InvalidArgument)
    assert issubclass(WrongValue, InvalidArgument)


def test_a_repr_is_cut_and_its_escape_codes_are_written_out() -> None:
    class Loud:
        def __repr__(self) -> str:
            return "\x1b[2J\u202e" * 1000

    message = str(WrongType("f", "x", Loud(), "text"))
    assert len(message) < 300
    assert "\\x1b[2J\\u202e" in message
    assert message.isprintable()


def test_numbers_of_numpy_become_pythons() -> None:
    plain = [arg.plain(value) for value in (np.int64(3), np.float32(0.5), np.True_, 7, None)]
    assert plain == [3, 0.5, True, 7, None]
    assert [type(value) for value in plain] == [int, float, bool, int, type(None)]


def test_a_limit_that_is_none_or_negative_is_none() -> None:
    assert [arg.limit_s(timeout) for timeout in (None, -1, -0.5, 0, 2)] == [None, None, None, 0.0, 2.0]


@pytest.mark.parametrize("name", ["", "1x", "a b", "f(", "a\0"])
def test_a_reference_to_what_cannot_be_read_is_refused_where_it_is_made(name: str) -> None:
    with pytest.raises(InvalidName, match=r"Reference\(name\): .* is not a name in a namespace"):
        Reference(name)


class MissingTime(datetime):
    """A missing time as in pandas: a ``datetime`` whose number of seconds is NaN."""

    def timestamp(self) -> float:
        return math.nan


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, datetime.min, MissingTime(2026, 1, 1)])
def test_a_time_without_a_number_of_seconds_is_a_wrong_value(value: object) -> None:
    with pytest.raises(WrongValue, match="a datetime, or seconds since the epoch"):
        arg.check("history", since=arg.moment(value))


@pytest.mark.parametrize("value", [0, 1.5, np.float32(2), datetime(2026, 1, 1), datetime.min.replace(tzinfo=UTC)])
def test_times_are_accepted(value: object) -> None:
    assert arg.moment(value) is None


@pytest.mark.parametrize("value", ["now", True, None])
def test_other_things_are_no_times(value: object) -> None:
    with pytest.raises(WrongType, match="a datetime, or seconds since the epoch"):
        arg.check("history", since=arg.moment(value))
