"""What a schedule adds up to, and where the parts of its picture are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.results.display.schedule import Bar, Cell, Schedule, Stretch, bars, cells, rows, tick_label, ticks

A = Stretch(0, 10.0, 13.0, "map(f)", 5)
B = Stretch(1, 10.0, 11.0, "map(f)", 2)
C = Stretch(1, 11.0, 12.0, "apply(g)", failed=True)

stretches = st.lists(
    st.builds(
        lambda engine_id, start, seconds: Stretch(engine_id, start, start + seconds, "f"),
        st.integers(0, 5),
        st.floats(0, 100),
        st.floats(0.001, 10),
    ),
    max_size=30,
)


def test_speed_up_and_utilisation_say_how_well_engines_were_used() -> None:
    schedule = Schedule.of([A, B, C], begin=9.0, end=13.0)
    assert (schedule.makespan, schedule.serial_time, schedule.items) == (4.0, 5.0, 8)
    assert (schedule.speed_up, schedule.utilisation) == (1.25, 0.625)


def test_engines_that_could_have_worked_count_as_unused() -> None:
    schedule = Schedule.of([A], begin=10.0, end=13.0, engine_ids=[3, 0])
    assert (schedule.engine_ids, schedule.utilisation) == ((0, 3), 0.5)


def test_nothing_lies_outside_though_clocks_differ() -> None:
    schedule = Schedule.of([A, B], begin=12.0, end=12.5)
    assert (schedule.begin, schedule.end) == (10.0, 13.0)


def test_a_schedule_without_work_has_no_speed_up() -> None:
    schedule = Schedule.of([], begin=1.0, end=1.0)
    assert (schedule.speed_up, schedule.utilisation, schedule.labels) == (0.0, 0.0, [])


def test_kinds_of_work_are_named_in_the_order_of_their_beginning() -> None:
    assert Schedule.of([C, A, B], begin=10.0, end=13.0).labels == ["map(f)", "apply(g)"]


def test_cells_say_how_busy_an_engine_was_and_with_what() -> None:
    schedule = Schedule.of([A, B, C], begin=9.0, end=13.0)
    assert cells(schedule, [(0,), (1,)], 4) == [
        [Cell(), Cell(1.0, A), Cell(1.0, A), Cell(1.0, A)],
        [Cell(), Cell(1.0, B), Cell(1.0, C, is_odd=True), Cell()],
    ]


def test_a_cell_shows_what_took_most_of_it() -> None:
    long, short = Stretch(0, 1.0, 1.9, "f"), Stretch(0, 0.5, 1.0, "f")
    schedule = Schedule.of([long, short], begin=0.0, end=2.0)
    assert cells(schedule, [(0,)], 1) == [[Cell(pytest.approx(0.7), long, is_odd=True)]]


def test_engines_that_share_a_line_are_averaged() -> None:
    schedule = Schedule.of([A, B], begin=10.0, end=13.0)
    ((first, second, third),) = cells(schedule, [(0, 1)], 3)
    assert (first.busy, second.busy, third.busy) == (1.0, 0.5, 0.5)


@given(stretches, st.integers(1, 50))
def test_cells_hold_all_of_the_work(work: list[Stretch], columns: int) -> None:
    schedule = Schedule.of(work, begin=0.0, end=1.0)
    lines = rows(schedule.engine_ids, 100)
    for engine_ids, line in zip(lines, cells(schedule, lines, columns), strict=True):
        mine = [stretch for stretch in work if stretch.engine_id in engine_ids]
        shown = sum(cell.busy for cell in line) * schedule.makespan / columns
        assert shown <= sum(stretch.seconds for stretch in mine) + 1e-6
        assert all(cell.busy <= 1.0 for cell in line)
        assert any(cell.stretch for cell in line) == bool(mine)


def test_short_neighbours_become_one_bar() -> None:
    work = [Stretch(0, number / 10, number / 10 + 0.09, "f", 3) for number in range(10)]
    schedule = Schedule.of(work, begin=0.0, end=1.0)
    assert bars(schedule, 0.2) == [Bar(work[0], work[9].stop, 10, 30, pytest.approx(0.9), frozenset("f"), False)]
    assert len(bars(schedule, 0.05)) == 10


def test_what_is_too_short_to_be_seen_is_one_bar_whatever_it_is() -> None:
    work = [Stretch(0, 0.00, 0.01, "f"), Stretch(0, 0.01, 0.02, "g", failed=True), Stretch(0, 0.02, 0.03, "f")]
    (bar,) = bars(Schedule.of(work, begin=0.0, end=1.0), 0.2)
    assert (bar.labels, bar.failed, bar.stretches) == ({"f", "g"}, True, 3)


@pytest.mark.parametrize(
    "other",
    [
        Stretch(0, 0.1, 0.25, "g"),
        Stretch(0, 0.1, 0.25, "f", failed=True),
        Stretch(1, 0.1, 0.15, "f"),
        Stretch(0, 0.4, 0.45, "f"),
        Stretch(0, 0.1, 0.9, "f"),
    ],
    ids=["other work", "a failure", "another engine", "after a pause", "long"],
)
def test_what_differs_keeps_a_bar_of_its_own(other: Stretch) -> None:
    schedule = Schedule.of([Stretch(0, 0.0, 0.1, "f"), other], begin=0.0, end=1.0)
    assert len(bars(schedule, 0.2)) == 2


@given(stretches, st.floats(0.001, 50))
def test_bars_hold_every_item_and_second(work: list[Stretch], shortest_s: float) -> None:
    drawn = bars(Schedule.of(work, begin=0.0, end=1.0), shortest_s)
    assert sum(bar.items for bar in drawn) == sum(stretch.items for stretch in work)
    assert sum(bar.seconds for bar in drawn) == pytest.approx(sum(stretch.seconds for stretch in work))


def test_rows_are_shared_where_there_are_more_engines_than_room() -> None:
    assert rows(range(4), 4) == [(0,), (1,), (2,), (3,)]
    assert rows(range(9), 4) == [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
    assert rows([], 4) == []


@given(st.floats(-6, 7), st.integers(3, 20))
def test_ticks_are_round_even_and_few(magnitude: float, at_most: int) -> None:
    span_s = 10**magnitude
    times = ticks(span_s, at_most)
    assert times[0] == 0.0
    assert 2 <= len(times) <= at_most
    assert times[-1] <= span_s * (1 + 1e-9)
    step = times[1]
    assert all(time == pytest.approx(number * step) for number, time in enumerate(times))


@pytest.mark.parametrize(
    ("span_s", "labels"),
    [
        (0.0, ["0 µs"]),
        (0.0034, ["0 ms", "1 ms", "2 ms", "3 ms"]),
        (4.2, ["0 s", "1 s", "2 s", "3 s", "4 s"]),
        (61, ["0 s", "15 s", "30 s", "45 s", "60 s"]),
        (3700, ["0 min", "15 min", "30 min", "45 min", "60 min"]),
        (86_500, ["0 h", "6 h", "12 h", "18 h", "24 h"]),
    ],
)
def test_labels_of_one_axis_have_one_unit(span_s: float, labels: list[str]) -> None:
    times = ticks(span_s, 6)
    assert [tick_label(seconds, times[-1]) for seconds in times] == labels
