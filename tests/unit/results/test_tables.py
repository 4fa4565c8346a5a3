"""Lists that show themselves as tables."""

from __future__ import annotations

import builtins
import copy
import pickle
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pandas
import pytest
from IPython.lib.pretty import pretty

from nsactors.errors import PackageMissing
from nsactors.results.display.tables import Column, Layout, Table, duration_in_words, shown_rows, time_in_words

LAYOUT: Layout[int] = Layout(
    ("square", "squares"),
    (
        Column("number", lambda row, at: str(row), right=True),
        Column("square", lambda row, at: f"[{row**2}]", style=lambda row: "red" if row == 3 else ""),
    ),
    lambda row: {"number": row, "at": float(row)},
    times=("at",),
)


def table(count: int) -> Table[int]:
    return Table(range(count), LAYOUT)


def lines(shown: object) -> list[str]:
    return [line.rstrip() for line in repr(shown).splitlines()]


def test_it_is_a_list_for_code() -> None:
    rows = table(5)
    assert rows == [0, 1, 2, 3, 4]
    assert (len(rows), rows[-1], rows[1:3], 4 in rows) == (5, 4, [1, 2], True)
    assert isinstance(rows, list)
    first, *_ = rows
    assert first == 0


def test_it_is_a_table_for_people() -> None:
    assert lines(table(2)) == [
        "2 squares",
        "   number  square",
        "─────────────────",
        "0       0  [0]",
        "1       1  [1]",
    ]
    assert pretty(table(1)) == repr(table(1))
    assert lines(table(1))[0] == "1 square"
    assert repr(table(0)) == "no squares"


def test_of_a_long_one_the_first_and_the_last_rows_are_shown() -> None:
    shown = lines(table(1000))
    assert len(shown) == 3 + 10 + 1 + 10
    assert shown[13].split() == ["…", "980", "more"]
    assert shown[-1].split() == ["999", "999", "[998001]"]
    assert table(1000)._repr_html_().count("<tr>") == 1 + 21


def test_a_slice_keeps_the_numbers_of_its_rows() -> None:
    assert [line.split()[0] for line in lines(table(50)[-3:])[3:]] == ["47", "48", "49"]
    assert [line.split()[0] for line in lines(table(50)[::-20])[3:]] == ["49", "29", "9"]


def test_one_that_has_been_changed_counts_its_rows_anew() -> None:
    rows = table(50)[-3:]
    rows.append(50)
    assert [line.split()[0] for line in lines(rows)[3:]] == ["0", "1", "2", "3"]


def test_html_has_the_same_cells_with_no_markup_of_theirs() -> None:
    text = Table(["<b>"], Layout(("x", "xs"), (Column("text", lambda row, at: row),), lambda row: {}))._repr_html_()
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert "color:red" in table(4)._repr_html_()


def test_it_can_be_copied_and_pickled() -> None:
    rows = Table([1, 2], Layout(("x", "xs"), (), dict))
    for twin in (copy.copy(rows), pickle.loads(pickle.dumps(rows))):
        assert twin == rows
        assert repr(twin) == repr(rows)


def test_a_frame_has_all_rows_and_times_as_times() -> None:
    frame = table(100).to_pandas()
    assert len(frame) == 100
    assert frame["at"][1] == pandas.Timestamp(1, unit="s", tz="UTC")


def test_without_pandas_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    imports = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return imports(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(PackageMissing, match=r"to_pandas\(\) needs pandas, .*: pip install pandas"):
        table(1).to_pandas()


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 1), (21, 21), (22, 20), (1000, 20)])
def test_all_rows_of_a_short_table_are_shown(count: int, shown: int) -> None:
    assert len(shown_rows(count)) == shown


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.2, "14:05:29 (just now)"),
        (-5, "14:05:35 (just now)"),
        (3, "14:05:27 (3 s ago)"),
        (200, "14:02:10 (3 min ago)"),
        (7_200, "12:05:30 (2 h ago)"),
        (86_400 * 3, "2026-07-25 14:05 (3 d ago)"),
    ],
)
def test_times_are_local_and_say_how_long_ago_that_was(seconds: float, shown: str) -> None:
    now = datetime.fromisoformat("2026-07-28T12:05:30+00:00").timestamp()
    assert time_in_words(now - seconds, now) == shown


def test_what_has_not_happened_has_no_time() -> None:
    assert (time_in_words(None, 5.0), duration_in_words(None)) == ("", "")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0000715, "0.072 ms"),
        (0.0012, "1.2 ms"),
        (0.372, "372 ms"),
        (4.21, "4.2 s"),
        (59.97, "1 min"),
        (303, "5 min 3 s"),
        (7_500, "2 h 5 min"),
        (86_400, "1 d"),
    ],
)
def test_lengths_of_time_are_in_the_units_that_people_use(seconds: float, shown: str) -> None:
    assert duration_in_words(seconds) == shown
