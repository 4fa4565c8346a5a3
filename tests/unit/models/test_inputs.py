"""How the input of a MapReduce job is cut, and that nothing of it is lost or doubled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from nsactors.models.inputs import Source, chunks, csv_rows, items, parquet_rows, text_files, text_lines

counts = st.integers(1, 9)


def records(source: Source, count: int) -> list[Any]:
    """All records, split after split."""
    return [record for split in source(count) for record in split()]


@given(st.lists(st.integers()), counts)
def test_items_are_all_there_in_order(numbers: list[int], count: int) -> None:
    assert records(items(numbers), count) == records(items(iter(numbers)), count) == numbers
    assert len(items(numbers)(count)) == max(1, min(count, len(numbers)))


def test_what_has_no_order_of_its_own_is_taken_as_it_comes() -> None:
    assert records(items({"a": 1, "b": 2}), 2) == ["a", "b"]
    assert sorted(records(items({3, 1, 2}), 2)) == [1, 2, 3]
    assert records(items("abc"), 2) == ["a", "b", "c"]
    frame = pytest.importorskip("pandas").DataFrame({"a": [1], "b": [2]})
    assert records(items(frame), 2) == ["a", "b"]


@given(st.integers(0, 30), counts)
def test_arrays_are_cut_along_their_first_axis(length: int, count: int) -> None:
    array = np.arange(3 * length).reshape(length, 3)
    assert np.array_equal(records(items(array), count), array.tolist())


@given(st.text("abc"), st.integers(1, 5), st.integers(0, 3), counts)
def test_chunks_overlap_by_as_much_as_asked_for(text: str, size: int, overlap: int, count: int) -> None:
    found = records(chunks(text, size, overlap), count)
    assert "".join(part[:size] for _, part in found) == text
    assert all(part == text[start : start + size + overlap] for start, part in found)


lines = st.lists(st.text("aä\t", max_size=5), max_size=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


@given(st.lists(lines, min_size=1, max_size=3), counts, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_files_are_cut_between_lines(
    folder: Path, texts: list[list[str]], count: int, end: str, ends_at_the_end: bool
) -> None:
    expected = []
    for number, text in enumerate(texts):
        whole = end.join(text) + (end if ends_at_the_end and text else "")
        (folder / f"{number}.txt").write_bytes(whole.encode())
        expected += whole.split(end)[: -1 if whole.endswith(end) or not whole else None]
    paths = [folder / f"{number}.txt" for number in range(len(texts))]
    assert records(text_lines(*paths), count) == expected


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), counts)
def test_files_that_follow_one_another_make_groups_of_about_equal_size(
    folder: Path, sizes: list[int], count: int
) -> None:
    paths = [folder / f"whole-{number}.txt" for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        path.write_text("x" * size)
    splits = text_files(*paths)(count)
    assert [record for split in splits for record in split()] == [
        (str(p), "x" * n) for p, n in zip(paths, sizes, strict=True)
    ]
    assert len(splits) <= count + 1
    largest = max(sum(len(text) for _, text in split()) for split in splits)
    assert largest <= sum(sizes) / count + max(sizes) + 1


def test_patterns_stand_for_the_files_they_match(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.log"):
        (tmp_path / name).write_text(name)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "d.txt").write_text("d.txt")
    assert [text for _, text in records(text_files(f"{tmp_path}/**/*.txt"), 2)] == ["a.txt", "b.txt", "d.txt"]


@pytest.mark.parametrize("path", ["missing.txt", "*.missing"])
def test_files_that_are_not_there_are_named_at_once(tmp_path: Path, path: str) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        text_lines(tmp_path / path)


def test_rows_of_tables_are_dictionaries(tmp_path: Path) -> None:
    rows = [{"name": name, "age": age} for age, name in enumerate("abcdefg")]
    (tmp_path / "table.csv").write_text("name,age\n" + "".join(f"{row['name']},{row['age']}\n" for row in rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "table.parquet", row_group_size=2)
    assert records(csv_rows(tmp_path / "table.csv"), 2) == rows
    source = parquet_rows(tmp_path / "table.parquet")
    assert (records(source, 3), len(source(3)), len(source(100))) == (rows, 3, 4)
    assert records(parquet_rows(tmp_path / "table.parquet", columns=["age"]), 1)[0] == {"age": 0}
