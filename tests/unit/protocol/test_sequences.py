"""Sequences of every kind: parts are of their type, travel with their own items alone, and join to what was cut."""

from __future__ import annotations

import array
import datetime
import functools
import uuid
from collections import ChainMap, Counter, OrderedDict, UserList, UserString, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.protocol.partition import Block, RoundRobin, kind_of, refusal
from nsactors.protocol.serialize import pack, unpack

Scheme = type[Block] | type[RoundRobin]
Check = Callable[[Any, Any], object]

both = pytest.mark.parametrize("scheme", [Block, RoundRobin])
# One part, several of unequal lengths, and more than there are items; --full-size tries others.
numbers = pytest.mark.parametrize("n", [1, 3, 8, *(pytest.param(n, marks=pytest.mark.full_size) for n in (2, 5))])


def there_and_back(seq: Any, scheme: Scheme, n: int, axis: int = 0) -> Any:
    """A sequence that was cut, sent and put together again."""
    parts = scheme(axis).split(seq, n)
    assert len(parts) == n
    return scheme(axis).join([unpack(pack(part)) for part in parts])


def equal(joined: Any, seq: Any) -> None:
    assert joined == seq


OF_PYTHON = [
    [3, 1, 2],
    (1, 2, 3, 4),
    "abcde",
    b"abcde",
    bytearray(b"abcde"),
    range(7),
    array.array("i", range(5)),
    array.array("d", [0.5, 1.5]),
    deque("abc"),
    deque("abc", maxlen=5),
    UserList([1, 2, 3]),
    UserString("abcd"),
    [],
    (),
    "",
    b"",
    bytearray(),
    array.array("b"),
    deque(),
    deque(maxlen=3),
    UserList(),
]


@both
@numbers
@pytest.mark.parametrize("seq", OF_PYTHON, ids=lambda seq: f"{type(seq).__name__} of {len(seq)}")
def test_sequences_of_python_keep_their_types(seq: Any, scheme: Scheme, n: int) -> None:
    joined = there_and_back(seq, scheme, n)
    assert joined == seq
    assert type(joined) is type(seq)
    assert getattr(joined, "maxlen", None) == getattr(seq, "maxlen", None)


def arrays() -> dict[str, Any]:
    masked = np.ma.masked_array(np.arange(5), mask=[0, 1, 0, 0, 1], fill_value=-7)
    structured = np.array([(1, 2.5), (3, 4.5), (5, 6.5)], dtype=[("a", "i4"), ("b", ">f8")])
    return {
        "of dates": np.array(["2024-02-29", "2025-01-01"], dtype="datetime64[D]"),
        "of other byte order": np.arange(5, dtype=">i4"),
        "of objects": np.array([{}, [1], None], dtype=object),
        "masked": masked,
        "structured": structured,
        "records": structured.view(np.recarray),
        "a matrix": np.arange(6).reshape(3, 2).view(np.matrix),
        "in Fortran order": np.asfortranarray(np.arange(12).reshape(4, 3)),
        "without rows": np.zeros((0, 3), dtype="f4"),
    }


@both
@numbers
@pytest.mark.parametrize("name", arrays())
def test_arrays_keep_their_types(name: str, scheme: Scheme, n: int) -> None:
    values = arrays()[name]
    joined = there_and_back(values, scheme, n)
    assert type(joined) is type(values)
    assert joined.dtype == values.dtype
    np.testing.assert_array_equal(joined, values)
    if name == "masked":
        assert joined.mask.tolist() == values.mask.tolist()
        assert joined.fill_value == values.fill_value


@functools.cache
def frames() -> dict[str, tuple[Any, str]]:
    """Objects of pandas, and what of ``pandas.testing`` compares them."""
    pd = pytest.importorskip("pandas")
    days = pd.date_range("2024-02-26", periods=5, freq="D", name="day")
    frame = pd.DataFrame({"x": range(5), "y": pd.Categorical(list("abcab")), "z": pd.array([1, None, 3, 4, 5])})
    levels = pd.MultiIndex.from_product([["a", "b"], [1, 2, 3]], names=["letter", "number"])
    return {
        "frame": (frame, "frame"),
        "frame of days": (frame.set_index(days), "frame"),
        "frame of levels": (pd.DataFrame({"x": range(6)}, index=levels), "frame"),
        "frame without rows": (frame.iloc[:0], "frame"),
        "series": (frame["x"], "series"),
        "series of categories": (frame["y"], "series"),
        "series of nullable integers": (frame["z"], "series"),
        "series of days": (pd.Series(range(5), index=days, name="s"), "series"),
        "series of zoned times": (pd.Series(days.tz_localize("Europe/Paris")), "series"),
        "index": (pd.Index(list("abcde"), name="i"), "index"),
        "index of a range": (pd.RangeIndex(3, 17, 2, name="r"), "index"),
        "index of days": (days, "index"),
        "index of levels": (levels, "index"),
        "index of categories": (pd.CategoricalIndex(list("abca")), "index"),
        "index of intervals": (pd.interval_range(0, 5), "index"),
        "categories": (pd.Categorical(list("abca"), ordered=True), "extension_array"),
        "nullable integers": (pd.array([1, None, 3]), "extension_array"),
        "zoned times": (days.tz_localize("UTC").array, "extension_array"),
        "text": (pd.array(["a", None, "b"], dtype="string"), "extension_array"),
    }


@both
@numbers
@pytest.mark.parametrize(
    "name",
    [
        *("frame", "frame of days", "frame of levels", "frame without rows", "series", "series of categories"),
        *("series of nullable integers", "series of days", "series of zoned times", "index", "index of a range"),
        *("index of days", "index of levels", "index of categories", "index of intervals", "categories"),
        *("nullable integers", "zoned times", "text"),
    ],
)
def test_objects_of_pandas_keep_their_types(name: str, scheme: Scheme, n: int) -> None:
    pd = pytest.importorskip("pandas")
    value, comparison = frames()[name]
    joined = there_and_back(value, scheme, n)
    assert type(joined) is type(value)
    getattr(pd.testing, f"assert_{comparison}_equal")(joined, value)


@both
@pytest.mark.parametrize("n", [1, 2, 5])
def test_frames_are_cut_along_their_columns_too(scheme: Scheme, n: int) -> None:
    pd = pytest.importorskip("pandas")
    frame = frames()["frame"][0]
    pd.testing.assert_frame_equal(there_and_back(frame, scheme, n, axis=1), frame)


@functools.cache
def tables() -> dict[str, Any]:
    pa = pytest.importorskip("pyarrow")
    compute = pytest.importorskip("pyarrow.compute")
    table = pa.table(
        {"a": [1, 2, None, 4, 5], "s": list("vwxyz"), "l": [[i] for i in range(5)]}, metadata={"made": "here"}
    ).append_column("d", pa.array(list("ababa")).dictionary_encode())
    return {
        "table": table,
        "table of several chunks": pa.concat_tables([table, table.slice(1, 2), table]),
        "table without rows": table.slice(0, 0),
        "batch": table.to_batches()[0],
        "batch without rows": table.to_batches()[0].slice(0, 0),
        "chunked array": pa.chunked_array([["a", "b"], [], ["c"]]),
        "chunked array without chunks": pa.chunked_array([], pa.int8()),
        "array": pa.array([1, None, 3]),
        "array of structures": pa.array([{"x": 1}, {"x": 2}, None]),
        "array of an extension": pa.array([uuid.UUID(int=i).bytes for i in range(5)], pa.uuid()),
        "array of runs": compute.run_end_encode(pa.array([1, 1, 2, 2, 2])),
    }


@both
@numbers
@pytest.mark.parametrize(
    "name",
    [
        *("table", "table of several chunks", "table without rows", "batch", "batch without rows", "chunked array"),
        *("chunked array without chunks", "array", "array of structures", "array of an extension", "array of runs"),
    ],
)
def test_tables_of_arrow_are_cut_by_rows_and_keep_their_types(name: str, scheme: Scheme, n: int) -> None:
    value = tables()[name]
    joined = there_and_back(value, scheme, n)
    assert type(joined) is type(value)
    if hasattr(value, "schema"):
        assert joined.schema.equals(value.schema, check_metadata=True)
    assert joined.to_pylist() == value.to_pylist()


@both
def test_a_part_of_a_table_travels_with_its_own_rows_alone(scheme: Scheme) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": np.arange(100_000), "s": [str(i) for i in range(100_000)]})
    for value in (table, table["s"], table["a"].chunk(0), table.to_batches()[0]):
        sizes = [pack(part).nbytes for part in scheme().split(value, 10)]
        assert max(sizes) < pack(value).nbytes / 8


@both
@numbers
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", ["matrix", "array"])
@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"])
def test_sparse_matrices_are_cut_by_rows_and_stay_sparse(
    form: str, kind: str, axis: int, scheme: Scheme, n: int
) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    value = getattr(sparse, f"{form}_{kind}")(np.arange(20, dtype="f4").reshape(5, 4) % 3)
    parts = scheme(axis).split(value, n)
    assert {type(part) for part in parts} == {type(value)}
    joined = there_and_back(value, scheme, n, axis)
    assert (type(joined), joined.shape, joined.dtype) == (type(value), value.shape, value.dtype)
    assert joined.toarray().tolist() == value.toarray().tolist()


@both
@pytest.mark.parametrize("n", [1, 2, 6])
def test_frames_and_series_of_polars_keep_their_types(scheme: Scheme, n: int) -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"a": range(5), "b": list("vwxyz")})
    for value in (frame, frame["b"], frame.clear()):
        joined = there_and_back(value, scheme, n)
        assert type(joined) is type(value)
        assert joined.equals(value)


@both
@given(rows=st.lists(st.tuples(st.integers(0, 9), st.text(max_size=3))), n=st.integers(1, 5))
def test_frames_and_tables_of_any_length_join_to_what_they_were(
    scheme: Scheme, rows: list[tuple[int, str]], n: int
) -> None:
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [a for a, _ in rows], "b": [b for _, b in rows]}).astype({"a": "int64", "b": "object"})
    pd.testing.assert_frame_equal(there_and_back(frame, scheme, n), frame)
    table = pa.table({"a": [a for a, _ in rows], "b": [b for _, b in rows]}, schema=pa.schema({"a": "i8", "b": "str"}))
    assert there_and_back(table, scheme, n).equals(table)


class Tensor:
    """A tensor of a library that nsactors does not know."""

    shape = (3,)
    ndim = 1

    def __getitem__(self, at: Any) -> Any:
        return range(3)[at]


def groups() -> Any:
    pd = pytest.importorskip("pandas")
    return pd.DataFrame({"a": [1, 1, 2]}).groupby("a")


@both
@pytest.mark.parametrize(
    ("make", "instead"),
    [
        (lambda: {"a": 1}, r"list\(d.items\(\)\) in place of a dictionary"),
        (lambda: Counter("ab"), r"list\(d.items\(\)\)"),
        (lambda: OrderedDict(a=1), r"list\(d.items\(\)\)"),
        (lambda: ChainMap({}), r"list\(d.items\(\)\)"),
        (lambda: {1, 2}, r"sorted\(s\) or list\(s\) in place of a set"),
        (lambda: frozenset("ab"), r"sorted\(s\) or list\(s\)"),
        ({"a": 1}.keys, r"sorted\(s\) or list\(s\)"),
        ({"a": 1}.items, r"sorted\(s\) or list\(s\)"),
        (lambda: memoryview(b"abc"), r"bytes\(m\) or numpy.asarray\(m\) in place of a memoryview"),
        (groups, r"a frame, which each engine can group, or list\(x\), in place of a DataFrameGroupBy"),
        (lambda: groups()["a"], "in place of a SeriesGroupBy"),
        (lambda: groups().rolling(2), "in place of a RollingGroupBy"),
        (Tensor, r"numpy.asarray\(x\) or list\(x\) in place of a tests.Tensor"),
        (lambda: pytest.importorskip("scipy.sparse").coo_array(np.arange(3)), "in place of a scipy.coo_array"),
    ],
)
def test_what_would_lose_its_type_is_refused_with_what_to_give_instead(
    make: Callable[[], Any], instead: str, scheme: Scheme
) -> None:
    with pytest.raises(TypeError, match=instead):
        scheme().split(make(), 2)


@pytest.mark.parametrize("value", [[1], "ab", np.zeros(3), iter("ab"), (i for i in "ab"), datetime.date, 5])
def test_nothing_else_is_refused(value: Any) -> None:
    assert refusal(value) is None


def test_the_first_item_of_a_table_is_its_first_row() -> None:
    frame = frames()["frame"][0]
    kind = kind_of(frame)
    assert kind is not None
    assert kind.item(frame).to_dict("list")["x"] == [0]
    assert kind.item(frame) is not frame
    series = kind_of(frame["x"])
    assert series is not None
    assert series.item(frame["x"].iloc[2:]) == 2
