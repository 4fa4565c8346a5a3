"""Medians, quartiles, and ratios that a busy machine does not move."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.operations.stats import paired_ratios, summarise, turn_order

TIMES = st.floats(1e-6, 1e3)
TURNS = st.lists(st.lists(TIMES, min_size=1, max_size=5), min_size=1, max_size=8)


def test_the_summary_of_five_timings_is_their_second_third_and_fourth() -> None:
    summary = summarise([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (summary.lower_quartile, summary.median, summary.upper_quartile, summary.count) == (2.0, 3.0, 4.0, 5)


def test_a_single_timing_has_no_spread() -> None:
    summary = summarise([0.5])
    assert (summary.lower_quartile, summary.median, summary.upper_quartile, summary.count) == (0.5, 0.5, 0.5, 1)


@given(st.lists(TIMES, min_size=1))
def test_the_median_lies_between_the_quartiles_and_they_within_the_timings(seconds: list[float]) -> None:
    summary = summarise(seconds)
    slack = 1e-9 * max(seconds)
    assert min(seconds) - slack <= summary.lower_quartile <= summary.median + slack
    assert summary.median - slack <= summary.upper_quartile <= max(seconds) + slack


def test_a_ratio_does_not_feel_a_load_that_both_sides_bore() -> None:
    below = [[1.0], [1.0], [10.0], [30.0]]
    above = [[2.0], [2.0], [20.0], [60.0]]
    assert paired_ratios(above, below) == [2.0, 2.0, 2.0, 2.0]


def test_a_ratio_takes_the_rounds_that_both_sides_finished() -> None:
    assert paired_ratios([[3.0], [3.0], [90.0]], [[1.0], [1.0]]) == [3.0, 3.0]


@given(TURNS)
def test_anything_takes_as_long_as_itself(turns: list[list[float]]) -> None:
    assert set(paired_ratios(turns, turns)) == {1.0}


@given(TURNS, st.floats(0.1, 10.0))
def test_what_takes_k_times_as_long_in_every_round_has_the_ratio_k(turns: list[list[float]], factor: float) -> None:
    slower = [[factor * second for second in turn] for turn in turns]
    assert paired_ratios(slower, turns) == pytest.approx([factor] * len(turns))


@given(st.lists(st.text(), min_size=1, max_size=6, unique=True))
def test_every_system_takes_every_place_once_in_as_many_rounds_as_there_are_systems(systems: list[str]) -> None:
    orders = [turn_order(systems, number) for number in range(len(systems))]
    assert all(sorted(order) == sorted(systems) for order in orders)
    assert all({order[place] for order in orders} == set(systems) for place in range(len(systems)))
