"""The table and the file."""

import json

import pytest
from rich.console import Console

from benchmarks.report import as_json, draw, format_ratio, format_seconds, rows
from benchmarks.rounds import Cell, Results


@pytest.fixture
def results() -> Results:
    return Results(
        {
            Cell("pull", 4, "nsactors"): [[0.003], [0.004]],
            Cell("apply", 4, "nsactors"): [[0.003, 0.003], [0.006, 0.006]],
            Cell("apply", 4, "ray"): [[0.002, 0.002], [0.004, 0.004]],
            Cell("apply", 1, "dask"): [[0.001], [0.001]],
        }
    )


def test_lines_come_in_the_order_of_operations_and_then_of_engines(results: Results) -> None:
    assert [(row.operation, row.engines) for row in rows(results)] == [("apply", 1), ("apply", 4), ("pull", 4)]


def test_a_line_has_the_ratios_of_systems_that_were_both_measured(results: Results) -> None:
    assert [row.ratios for row in rows(results)] == [{}, {("nsactors", "ray"): pytest.approx(1.5)}, {}]


def test_the_table_shows_medians_quartiles_and_ratios(results: Results) -> None:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(draw(rows(results)))
    text = captured.get()
    assert all(part in text for part in ("nsactors", "bare Ray", "Dask", "4.50 ms", "1.50", "3.00\N{NO-BREAK SPACE}ms"))


def test_systems_that_were_not_measured_have_no_column(results: Results) -> None:
    headers = [str(column.header) for column in draw(rows(results)).columns]
    assert not any("ipyparallel" in header for header in headers)


def test_the_file_holds_every_timing_and_where_it_was_taken(results: Results) -> None:
    document = json.loads(json.dumps(as_json(results, {"rounds": 2}, (0.5, 0.4, 0.3))))
    assert document["options"] == {"rounds": 2}
    assert document["machine"]["load_average"] == [0.5, 0.4, 0.3]
    (entry,) = (r for r in document["results"] if (r["operation"], r["system"]) == ("pull", "nsactors"))
    assert entry["turns"] == [[0.003], [0.004]]
    assert entry["summary"]["median"] == pytest.approx(0.0035)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.34, "12.3 s"), (1.0, "1.00 s"), (0.5, "500 ms"), (0.00123, "1.23 ms"), (0.000_045_6, "45.6 µs")],
)
def test_times_are_written_with_three_digits_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_ratio_is_written_to_two_places_and_a_missing_one_not_at_all() -> None:
    assert (format_ratio(1.499), format_ratio(None)) == ("1.50", "")
