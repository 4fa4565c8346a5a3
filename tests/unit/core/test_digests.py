"""Hashes that every process agrees on."""

from __future__ import annotations

import datetime
import enum
import os
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.core.digests import digest, stable_hash

ROOT = Path(__file__).parents[3]


class Colour(enum.Enum):
    RED = 1


class Thing:
    pass


@pytest.mark.parametrize("values", [(1, 1.0, True, Decimal(1), Fraction(1), np.int64(1)), (0.5, Fraction(1, 2))])
def test_equal_numbers_have_equal_hashes(values: tuple[Any, ...]) -> None:
    assert len({stable_hash(value) for value in values}) == 1


keys = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(), lambda k: st.tuples(k, k)
)


@given(st.lists(keys, min_size=1, max_size=5))
def test_values_that_are_made_anew_have_the_same_hash(values: list[Any]) -> None:
    again = eval(repr(values), {"inf": float("inf")})
    assert [stable_hash(value) for value in again] == [stable_hash(value) for value in values]


def test_the_hash_does_not_depend_on_the_seed_of_the_process() -> None:
    values = "['word', b'word', ('word', 3, None), 2.5, datetime.date(2024, 2, 29), -1]"
    code = f"import datetime; from nsactors.core.digests import stable_hash; print([stable_hash(v) for v in {values}])"
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


@pytest.mark.parametrize("key", [[1], {1}, Thing(), lambda: 1])
def test_what_others_would_hash_otherwise_is_refused(key: Any) -> None:
    with pytest.raises(TypeError, match="no hash that is the same"):
        stable_hash(key)


def test_values_of_equal_parts_have_equal_digests() -> None:
    text = "ab" * 10
    assert digest((text, text)) == digest(("ab" * 10, "".join(["ab"] * 10)))
    assert digest(Colour.RED) == digest(Colour(1)) != digest(datetime.date(2024, 2, 29))


def test_what_cannot_be_pickled_has_no_digest() -> None:
    assert digest(lambda: 1) is None
