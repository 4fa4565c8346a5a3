"""Equal failures of many engines are told once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.errors import EngineLost, engine_ranges, group_failures
from tests.unit.errors.raising import remote


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], "no engines"),
        ([5], "engine 5"),
        ([0, 1], "engines 0-1"),
        ([0, 1, 2, 3, 7], "engines 0-3, 7"),
        ([9, 2, 2, 1], "engines 1-2, 9"),
    ],
)
def test_engine_ids_are_written_as_ranges(ids: list[int], text: str) -> None:
    assert engine_ranges(ids) == text


@given(st.sets(st.integers(0, 50), min_size=2))
def test_the_ranges_hold_exactly_the_ids(ids: set[int]) -> None:
    found: set[int] = set()
    for part in engine_ranges(ids).removeprefix("engines ").split(", "):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    assert found == ids


def test_equal_failures_form_one_group_whatever_their_cells_are_called() -> None:
    (group,) = group_failures(remote("1 / 0", engine_id=i, cell=10 - i) for i in (2, 0, 1))
    assert group.engine_ids == (0, 1, 2)
    assert group.first.engine_id == 2  # type: ignore[attr-defined]
    assert group.summary == "ZeroDivisionError: division by zero  [engines 0-2]  <cell 8>, line 1: 1 / 0"


def test_equal_syntax_errors_form_one_group_though_their_messages_name_the_cell() -> None:
    assert len(group_failures(remote("f(]", engine_id=i, cell=i) for i in range(3))) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("raise ValueError(1)", "raise ValueError(2)"),
        ("raise ValueError(1)", "raise TypeError(1)"),
        ("1 / 0", "\n1 / 0"),
        ("1 / 0", "2 / 0"),
        ("raise ValueError(1)", "raise ValueError(1) from KeyError()"),
    ],
)
def test_failures_that_differ_are_kept_apart_in_order(one: str, other: str) -> None:
    first, second = group_failures([remote(one, engine_id=1), remote(other, engine_id=0), remote(one, engine_id=3)])
    assert first.engine_ids == (1, 3)
    assert second.engine_ids == (0,)


def test_engines_lost_in_the_same_way_form_one_group_that_names_them_all() -> None:
    lost = [EngineLost(i, "apply(f)", "killed by signal 9", f"pid {i}") for i in (0, 1)]
    (group,) = group_failures(lost)
    assert group.summary == ("EngineLost: engines 0-1 died while running apply(f): killed by signal 9  [engines 0-1]")


def test_many_failures_of_one_engine_are_counted() -> None:
    (group,) = group_failures(remote("1 / 0", engine_id=4) for _ in range(12))
    assert "[engine 4, 12 times]" in group.summary


def test_an_exception_of_no_engine_can_be_grouped() -> None:
    (group,) = group_failures([ValueError("v"), ValueError("v")])
    assert group.summary == "ValueError: v  [2 times]"


def test_only_the_first_line_of_a_long_message_is_in_the_summary() -> None:
    (group,) = group_failures([remote("raise ValueError('first\\nsecond')")])
    assert group.evalue == "first ..."
