"""The table and the file."""

import json

import pytest
from rich.console import Console
from rich.table import Table

from benchmarks.operations.report import (
    as_json,
    client_cpu,
    draw,
    draw_cpu,
    draw_growth,
    fitted,
    format_ratio,
    format_seconds,
    from_json,
    growth,
    rows,
    wall,
)
from benchmarks.operations.rounds import Cell, Results
from benchmarks.operations.turns import Turn


@pytest.fixture
def results() -> Results:
    return Results(
        {
            Cell("pull", 4, "nsactors"): [Turn([0.003], 0.001), Turn([0.004], 0.001)],
            Cell("apply", 4, "nsactors"): [Turn([0.003, 0.003], 0.002), Turn([0.006, 0.006], 0.004)],
            Cell("apply", 4, "ray"): [Turn([0.002, 0.002], 0.001), Turn([0.004, 0.004], 0.001)],
            Cell("apply", 1, "dask"): [Turn([0.001], 0.001), Turn([0.001], 0.001)],
            Cell("apply", 16, "nsactors"): [Turn([0.024], 0.016), Turn([0.036], 0.016)],
        }
    )


def printed(table: Table, width: int = 200) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(fitted(table, console))
    return captured.get()


def test_lines_come_in_the_order_of_operations_and_then_of_engines(results: Results) -> None:
    lines = [("apply", 1), ("apply", 4), ("apply", 16), ("pull", 4)]
    assert [(row.operation, row.engines) for row in rows(results)] == lines


def test_a_line_has_the_ratios_of_systems_that_were_both_measured(results: Results) -> None:
    assert [list(row.ratios) for row in rows(results)] == [[], [("nsactors", "ray")], [], []]


def test_a_line_has_the_ratio_to_the_best_rival(results: Results) -> None:
    results.add(Cell("apply", 4, "dask"), Turn([0.004], 0.001))
    results.add(Cell("apply", 4, "processes"), Turn([0.001], 0.001))
    found = [row.to_best for row in rows(results)]
    assert [ratio.median if ratio else None for ratio in found] == [None, pytest.approx(3.0), None, None]
    assert "the best rival" in printed(draw(results))


def test_a_ratio_has_a_median_over_the_rounds_and_their_spread(results: Results) -> None:
    time, cpu = (rows(results, measure)[1].ratios["nsactors", "ray"] for measure in (wall, client_cpu))
    assert (time.lower_quartile, time.median, time.upper_quartile) == pytest.approx((1.5, 1.5, 1.5))
    assert (cpu.lower_quartile, cpu.median, cpu.upper_quartile) == pytest.approx((2.5, 3.0, 3.5))


def test_growth_is_what_an_engine_costs_among_many_over_what_it_costs_among_four(results: Results) -> None:
    ((operation, engines, by_system),) = growth(results)
    assert (operation, engines, list(by_system)) == ("apply", 16, ["nsactors"])
    assert by_system["nsactors"].median == pytest.approx((24 / 16 / (3 / 4) + 36 / 16 / (6 / 4)) / 2)


def test_without_many_engines_there_is_no_growth_to_draw(results: Results) -> None:
    del results.turns[Cell("apply", 16, "nsactors")]
    assert draw_growth(results).row_count == 0


def test_growth_is_drawn_for_time_and_for_cpu(results: Results) -> None:
    text = printed(draw_growth(results))
    assert "1.75" in text
    assert [word for word in text.split() if word in ("time", "CPU")] == ["time", "CPU"]


def test_the_table_shows_medians_quartiles_and_ratios(results: Results) -> None:
    text = printed(draw(results))
    assert all(part in text for part in ("nsactors", "bare Ray", "Dask", "4.50 ms", "1.50", "3.00\N{NO-BREAK SPACE}ms"))


def test_at_a_narrow_terminal_each_cell_has_a_line(results: Results) -> None:
    for table in draw(results), draw_cpu(results), draw_growth(results):
        lines = printed(table, 80).splitlines()
        assert max(map(len, lines)) <= 80
        assert not any("…" in line for line in lines)
    text = printed(draw(results), 80)
    assert all(part in text for part in ("nsactors", "bare Ray", "Dask", "4.50 ms", "1.50"))


def test_systems_that_were_not_measured_have_no_column(results: Results) -> None:
    headers = [str(column.header) for column in draw(results).columns]
    assert not any("ipyparallel" in header for header in headers)


def test_the_cpu_of_the_client_is_shown_for_each_engine(results: Results) -> None:
    assert "750 µs" in printed(draw_cpu(results))


def test_results_can_be_read_from_their_file(results: Results) -> None:
    assert from_json(json.loads(json.dumps(as_json(results, {}, ())))) == results


def test_the_file_holds_every_timing_and_where_it_was_taken(results: Results) -> None:
    document = json.loads(json.dumps(as_json(results, {"rounds": 2}, (0.5, 0.4, 0.3))))
    assert document["options"] == {"rounds": 2}
    assert document["machine"]["load_average"] == [0.5, 0.4, 0.3]
    (entry,) = (r for r in document["results"] if (r["operation"], r["system"]) == ("pull", "nsactors"))
    assert entry["turns"] == [{"seconds": [0.003], "cpu_s": 0.001}, {"seconds": [0.004], "cpu_s": 0.001}]
    assert entry["summary"]["median"] == pytest.approx(0.0035)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.34, "12.3 s"), (1.0, "1.00 s"), (0.5, "500 ms"), (0.00123, "1.23 ms"), (0.000_045_6, "45.6 µs")],
)
def test_times_are_written_with_three_digits_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_ratio_is_written_to_two_places_and_a_missing_one_not_at_all() -> None:
    assert (format_ratio(1.499), format_ratio(None)) == ("1.50", "")
