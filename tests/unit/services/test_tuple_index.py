"""What a template matches."""

from __future__ import annotations

import datetime
import decimal
import enum
from typing import Any, NamedTuple, Optional

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.services.tuple_index import TemplateIndex, TupleIndex, header_of, matches, template_of


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Point(NamedTuple):
    x: int
    y: int


class Base:
    pass


class Derived(Base):
    pass


def match(template: tuple[Any, ...], *fields: Any) -> bool:
    return matches(template_of(template), header_of(fields))


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        ((), ()),
        (("job", 3), ("job", 3)),
        (("job", int), ("job", 3)),
        ((str, object), ("job", [1, 2])),
        ((Any, Any), ("job", None)),
        ((None,), (None,)),
        ((int | str,), ("a",)),
        ((int | None,), (None,)),
        ((Optional[int],), (3,)),  # noqa: UP045
        ((list,), ([1],)),
        ((Base,), (Derived(),)),
        ((Colour.RED,), (Colour.RED,)),
        ((Colour,), (Colour.GREEN,)),
        ((decimal.Decimal("1.5"),), (decimal.Decimal("1.5"),)),
        ((datetime.date(2024, 2, 29),), (datetime.date(2024, 2, 29),)),
        ((np.int64(7),), (np.int64(7),)),
        ((np.ndarray,), (np.zeros(3),)),
        (((1, ("a", None)),), ((1, ("a", None)),)),
        ((Point(1, 2),), (Point(1, 2),)),
        ((type,), (int,)),
        ((bool,), (True,)),
    ],
)
def test_a_template_matches_equal_values_and_instances(template: tuple[Any, ...], fields: tuple[Any, ...]) -> None:
    assert match(template, *fields)


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        (("job",), ("job", 3)),
        (("job", 3), ("job", 4)),
        ((1,), (1.0,)),
        ((1,), (True,)),
        ((int,), (True,)),
        ((float,), (1,)),
        ((Derived,), (Base(),)),
        ((Colour.RED,), (Colour.GREEN,)),
        ((np.int64(7),), (7,)),
        ((Point(1, 2),), ((1, 2),)),
        ((Point(1, 2),), (Point(2, 1),)),
        ((str | None,), (3,)),
        ((float("nan"),), (float("nan"),)),
    ],
)
def test_a_template_does_not_match_what_is_unequal_or_of_another_type(
    template: tuple[Any, ...], fields: tuple[Any, ...]
) -> None:
    assert not match(template, *fields)


@pytest.mark.parametrize("value", [[1], {1: 2}, {1}, np.zeros(3), Base()])
def test_what_has_no_value_to_be_compared_by_is_looked_for_by_type_alone(value: Any) -> None:
    with pytest.raises(TypeError, match="give the type"):
        template_of(("x", value))
    assert match(("x", type(value)), "x", value)


def test_a_template_says_no_more_of_a_container_than_its_class() -> None:
    with pytest.raises(TypeError, match="give list"):
        template_of((list[int],))


def test_equal_values_are_equal_whatever_objects_they_are_made_of() -> None:
    text = "ab" * 10
    same, other = (text, text), ("ab" * 10, "".join(["ab"] * 10))
    assert match((Point(*same),), Point(*other))  # type: ignore[arg-type]


fields = st.sampled_from([0, 1, 2, "a", "b", 1.0, True, None, (1,), Colour.RED])
tuples = st.lists(fields, max_size=3).map(tuple)
template_fields = fields | st.sampled_from([int, str, object, bool, float, tuple, int | str, Colour])
templates = st.lists(template_fields, max_size=3).map(tuple)


@given(st.lists(tuples | st.integers(0, 20)), templates)
def test_the_index_finds_what_a_look_at_every_tuple_finds(steps: list[Any], wanted: tuple[Any, ...]) -> None:
    index, kept = TupleIndex(), {}
    for number, step in enumerate(steps):
        if isinstance(step, tuple):
            kept[number] = header_of(step)
            index.add(number, kept[number])
        elif step in kept:
            index.remove(step)
            del kept[step]
    template = template_of(wanted)
    found = [number for number, header in kept.items() if matches(template, header)]
    assert index.all(template) == found
    assert index.first(template) == (found[0] if found else None)
    assert len(index) == len(kept)


@given(st.lists(templates | st.integers(0, 20)), tuples)
def test_the_index_of_templates_finds_all_that_match_in_their_order(steps: list[Any], given: tuple[Any, ...]) -> None:
    index: TemplateIndex[int] = TemplateIndex()
    kept: dict[int, tuple[int, Any]] = {}
    for number, step in enumerate(steps):
        if isinstance(step, tuple):
            template = template_of(step)
            kept[number] = index.add(template, number), template
        elif step in kept:
            index.remove(*kept.pop(step))
    header = header_of(given)
    assert list(index.matching(header)) == [n for n, (_, template) in kept.items() if matches(template, header)]


@pytest.mark.parametrize("headers", [[("a",), (1,), ("b",)], [(1,), ("a",), (2,)]])
def test_the_oldest_tuple_is_found_first_whatever_its_classes(headers: list[Any]) -> None:
    index = TupleIndex()
    for number, header in enumerate(headers):
        index.add(number, header)
    for number in range(3):
        assert index.first(template_of((object,))) == number
        index.remove(number)


def test_a_tuple_is_found_by_any_field_without_a_look_at_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    index = TupleIndex()
    for number in range(10_000):
        index.add(number, ("job", number, "x"))
    looks = []
    monkeypatch.setattr("nsactors.services.tuple_index.matches", lambda *pair: looks.append(pair) or matches(*pair))
    assert index.first(template_of(("job", 9_999, str))) == 9_999
    assert index.first(template_of(("job", int, str))) == 0
    assert index.first(template_of(("job", 9_999, int))) is None
    assert len(looks) == 2
