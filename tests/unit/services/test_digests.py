"""What equal values have in common."""

from __future__ import annotations

import datetime
import enum
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from nsactors.services.tuple_index import digest

NOON = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)


class Colour(enum.Enum):
    RED = 1


class Thing:
    def __init__(self, value: object) -> None:
        self.value = value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (frozenset({"a", "b", "c"}), frozenset({"c", "b", "a"})),
        (NOON, NOON.astimezone(ZoneInfo("Asia/Tokyo"))),
        ((1, frozenset({1})), (1.0, frozenset({Decimal(1)}))),
        ((Fraction(1, 2), None), (0.5, None)),
        ((2**70, -0.0), (float(2**70), 0)),
        (Decimal("1E+5000"), Decimal("1.0E+5000")),
    ],
)
def test_equal_values_have_equal_digests(one: Any, other: Any) -> None:
    assert one == other
    assert digest(one) == digest(other)


def test_values_that_differ_have_digests_that_differ() -> None:
    # Some have equal hashes: 0 and 2**61 - 1, -1 and -2.
    values = [0, 2**61 - 1, -1, -2, 0.5, 1j, 1 + 1j, "0", b"0", "", (), frozenset(), None, ("a", "b"), ("ab",), NOON]
    values += [(None,), ((),), float("inf"), float("-inf"), Decimal("1E+5000"), NOON.date(), NOON.replace(tzinfo=None)]
    assert len({digest(value) for value in values}) == len(values)


def test_what_has_no_canonical_value_is_told_by_its_parts() -> None:
    assert digest(Thing("ab" * 10)) == digest(Thing("".join(["ab"] * 10))) != digest(Thing("a"))


def test_values_of_equal_parts_have_equal_digests() -> None:
    text = "ab" * 10
    assert digest((text, text)) == digest(("ab" * 10, "".join(["ab"] * 10)))
    assert digest(Colour.RED) == digest(Colour(1)) != digest(datetime.date(2024, 2, 29))


def test_what_cannot_be_pickled_has_no_digest() -> None:
    assert digest(lambda: 1) is None
