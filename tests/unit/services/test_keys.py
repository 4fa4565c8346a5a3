"""Keys: equal ones are one, in every process."""

from __future__ import annotations

import datetime
import enum
import ipaddress
import os
import pathlib
import random
import subprocess
import sys
import uuid
from collections import namedtuple
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors._frozen import frozen
from nsactors.errors import InvalidKey
from nsactors.services.keys import canonical, order_of, stable_hash

ROOT = pathlib.Path(__file__).parents[3]
NOON = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
NAIVE = datetime.datetime(2024, 2, 29, 12)
NAN = float("nan")


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    ONE = "one"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Text(str):
    pass


Point = namedtuple("Point", "x y")


@dataclass(frozen=True)
class Place:
    x: Any
    tags: frozenset[str] = frozenset()
    note: str = field(default="", compare=False)


@frozen
class Site:
    x: Any
    note: str = field(default="", compare=False)


class Thing:
    pass


class Folded(str):
    """Equal by a rule of its own."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.lower() == other.lower()

    def __hash__(self) -> int:
        return hash(self.lower())


@dataclass(frozen=True)
class Ruled:
    x: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ruled) and self.x % 2 == other.x % 2

    def __hash__(self) -> int:
        return self.x % 2


EQUAL: list[tuple[Any, ...]] = [
    (
        1,
        1.0,
        True,
        Decimal("1.00"),
        Fraction(1),
        1 + 0j,
        Level.LOW,
        np.int64(1),
        np.uint8(1),
        np.float32(1),
        np.bool_(True),
    ),
    (0.5, Fraction(1, 2), Decimal("0.5"), np.float16(0.5), np.longdouble(0.5), np.complex128(0.5)),
    (0.0, -0.0, 0, False),
    (2**70, float(2**70), Decimal(2**70)),
    ("one", Word.ONE, Text("one"), np.str_("one")),
    (b"one", np.bytes_(b"one")),
    (
        NOON,
        NOON.astimezone(ZoneInfo("America/New_York")),
        pd.Timestamp(NOON),
        pd.Timestamp(NOON).tz_convert("Asia/Tokyo"),
    ),
    (NAIVE, np.datetime64(NAIVE), pd.Timestamp(NAIVE), np.datetime64("2024-02-29T12", "h")),
    (pd.Timestamp(NAIVE), np.datetime64(NAIVE, "ns"), np.datetime64(NAIVE, "s")),
    (datetime.timedelta(hours=24), np.timedelta64(1, "D"), pd.Timedelta("1D"), np.timedelta64(86_400_000, "ms")),
    (datetime.time(12, tzinfo=datetime.UTC), datetime.time(13, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))),
    ((1, "a"), (1.0, "a"), (True, Text("a")), Point(1, "a")),
    (frozenset({"a", "b", "c"}), frozenset(["c", "b", "a"])),
    (("k", frozenset({1, 2})), ("k", frozenset({2.0, 1.0}))),
    (Place(1, frozenset({"a", "b"}), "x"), Place(1.0, frozenset({"b", "a"}), "y")),
    (Site(1, "x"), Site(1.0, "y")),
    (range(0, 10, 3), range(0, 12, 3)),
    (range(0), range(5, 5)),
    (pathlib.Path("a/b"), pathlib.PurePosixPath("a", "b")),
    (pathlib.PureWindowsPath("A/b"), pathlib.PureWindowsPath("a/B")),
    (uuid.UUID(int=5), uuid.UUID(int=5)),
    (Right.READ | Right.WRITE, Right.WRITE | Right.READ),
    (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address(2130706433)),
]


@pytest.mark.parametrize("values", EQUAL, ids=lambda values: type(values[0]).__name__)
def test_equal_keys_have_one_canonical_value_and_one_hash(values: tuple[Any, ...]) -> None:
    assert all(value == values[0] for value in values)
    assert len({canonical(value) for value in values}) == 1
    assert len({stable_hash(value) for value in values}) == 1


@pytest.mark.parametrize(
    "values",
    [
        (NAN, float("nan"), np.float64("nan"), np.float32("nan"), Decimal("nan"), complex(NAN, 1)),
        (("a", NAN), ("a", float("nan"))),
        (frozenset({NAN}), frozenset({float("nan")})),
        (pd.NaT, np.datetime64("NaT", "s"), np.timedelta64("NaT", "s")),
    ],
)
def test_all_that_is_not_a_number_is_one_key(values: tuple[Any, ...]) -> None:
    assert len({canonical(value) for value in values}) == 1
    assert len({stable_hash(value) for value in values}) == 1


DIFFERENT = [
    *(None, ..., NAN, pd.NaT, "NaN", "one", (), frozenset(), ("a",), (0, 1, 2), "a", b"a", 1, 0, 2**70, 1.5, 1j),
    *(NOON, NAIVE, NOON.date(), NOON.time(), np.timedelta64(1, "M"), datetime.timedelta(1), range(3), range(0)),
    *(Colour.RED, Colour.BLUE, Right.READ, Place(2), Place(1, note="x"), Site(2), Colour, Level, int),
    *(uuid.UUID(int=6), pathlib.Path("a"), pathlib.PureWindowsPath("a"), ipaddress.ip_address("127.0.0.1")),
]


def test_keys_that_differ_have_canonical_values_that_differ() -> None:
    assert len({canonical(value) for value in DIFFERENT}) == len(DIFFERENT)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.datetimes()
)
keys = st.recursive(scalars, lambda k: st.tuples(k, k) | st.frozensets(k, max_size=4), max_leaves=8)


@given(keys, keys)
def test_canonical_values_are_equal_as_the_keys_are(one: Any, other: Any) -> None:
    assert (canonical(one) == canonical(other)) == (one == other)


@given(st.lists(keys, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_keys_is_one_whatever_the_order_they_come_in(values: list[Any], generator: random.Random) -> None:
    unique = list({canonical(value) for value in values})
    shuffled = generator.sample(unique, len(unique))
    assert sorted(shuffled, key=order_of) == sorted(unique, key=order_of)


@given(
    st.lists(st.text())
    | st.lists(st.floats(allow_nan=False) | st.integers() | st.fractions() | st.decimals(allow_nan=False))
    | st.lists(st.tuples(st.integers(), st.binary()))
    | st.lists(st.dates())
    | st.lists(st.datetimes())
    | st.lists(st.timedeltas())
)
def test_what_python_orders_is_ordered_so(values: list[Any]) -> None:
    try:
        expected = sorted(values)
    except TypeError:  # fractions and decimals
        return
    assert sorted(values, key=lambda value: order_of(canonical(value))) == expected


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ([1], "a list cannot be a key"),
        ({1}, "a set cannot be a key"),
        (Thing(), "Thing cannot be a key"),
        (lambda: 1, "a function cannot be a key"),
        (object(), "an object cannot be a key"),
        (Folded("a"), "Folded cannot be a key"),
        (Ruled(1), "Ruled cannot be a key"),
        ((1, Thing()), "a tuple that holds a .*Thing cannot be a key"),
        (Place([1]), "Place that holds a list cannot be a key"),
        (Place((1, frozenset({Thing()}))), "Place that holds a .*Thing cannot be a key"),
    ],
)
def test_what_others_would_tell_otherwise_is_refused_and_named(key: Any, named: str) -> None:
    with pytest.raises(InvalidKey, match=f"{named}: it has no hash that is the same"):
        stable_hash(key)


def test_hashes_and_order_do_not_depend_on_the_seed_of_the_process() -> None:
    code = """if True:
        import datetime, itertools, uuid
        from dataclasses import dataclass
        from nsactors.services.keys import canonical, order_of, stable_hash
        @dataclass(frozen=True)
        class Place:
            x: object
        values = ["word", b"word", ("word", 3, None), 2.5, datetime.date(2024, 2, 29), -1, Place(frozenset("abc"))]
        values += [frozenset(words) for words in itertools.combinations(["a", "b", "c", "d", "e"], 2)]
        print([stable_hash(v) for v in values], [canonical(v) == canonical(v) for v in values])
        print([values.index(v) for v in sorted(values, key=lambda v: order_of(canonical(v)))])
    """
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_texts_of_many_keys_spread_evenly() -> None:
    counts = np.bincount([stable_hash(f"key {number}") % 7 for number in range(7000)])
    assert counts.min() > 800
    assert counts.max() < 1200
