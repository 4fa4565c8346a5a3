"""How the input of a MapReduce job is cut, and that nothing of it is lost or doubled."""

from __future__ import annotations

from collections import deque
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


@pytest.mark.parametrize("count", [1, 3, 9])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le", "utf-32", "utf-7", "shift_jis", "iso2022_kr"]
)
def test_lines_are_those_of_the_text_in_every_encoding(tmp_path: Path, encoding: str, count: int) -> None:
    letters = {"latin-1": "é\u010a", "iso2022_kr": "\uac00\uac0a", "shift_jis": "\u3042"}.get(encoding, "é\u010a\u0a0d")
    lines = [letters.encode(encoding, "ignore").decode(encoding) + str(number) for number in range(20)]
    path = tmp_path / "text.txt"
    path.write_bytes("\n".join(lines).encode(encoding))
    assert records(text_lines(path, path, encoding=encoding), count) == lines * 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_one_end_is_taken_from_a_line_and_no_more(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("a\r\r\nb\rc\n\r\n\nd\r".encode(encoding))
    assert records(text_lines(path, encoding=encoding), 1) == ["a\r", "b\rc", "", "", "d\r"]


@pytest.mark.parametrize("wrong", [iter("abc"), {"a": 1}, {1, 2}, deque("abc")])
def test_chunks_are_of_what_can_be_cut(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"chunks\(\) takes sequence as"):
        chunks(wrong, 2)


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
