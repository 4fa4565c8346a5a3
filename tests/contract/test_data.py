"""Data goes to engines and comes back as it was (P6, P8, D10 to D14)."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import math
import pathlib
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsactors import Client, DirectView, Reference
from nsactors.errors import CompositeError, InvalidName, SerializationError
from nsactors.protocol.serialize import OWN_BYTES
from nsactors.testing import TIMEOUT_S

BUILTINS = [
    None,
    True,
    0,
    -(2**100),
    1.5,
    math.inf,
    2 - 3j,
    "",
    "text \x00 ☃",
    b"bytes",
    bytearray(b"array"),
    [],
    [1, [2, None]],
    (),
    (1, ("2", None)),
    {},
    {"a": {"b": [None]}, (1, 2): {3}},
    set(),
    {1, 2},
    frozenset({1}),
    range(0, 10, 3),
    slice(1, None, 2),
    Ellipsis,
    NotImplemented,
    int,
    len,
    collections.OrderedDict(b=1, a=2),
    collections.Counter("aab"),
    datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    pathlib.PurePosixPath("/a"),
]


@pytest.mark.sampled
@pytest.mark.parametrize("value", BUILTINS, ids=repr)
def test_push_then_pull_is_the_identity_type_included(rc: Client, value: Any) -> None:
    rc[0].push({"x": value}, block=True)
    back = rc[0].get("x")
    assert (back, type(back)) == (value, type(value))


@pytest.mark.once
def test_pushing_none_binds_none(rc: Client) -> None:
    rc[0]["x"] = None
    rc[0].execute("assert x is None", block=True)


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nested)
def test_any_nested_value_comes_back_as_it_was(rc: Client, value: Any) -> None:
    rc[0].push({"x": value}, block=True)
    back = rc[0].get("x")
    assert (repr(back), back) == (repr(value), value)


@pytest.mark.once
def test_a_value_that_occurs_twice_is_one_object_on_the_engine(rc: Client) -> None:
    shared = [1]
    rc[0].push({"a": shared, "b": shared}, block=True)
    assert rc[0].get("a is b") is True


def test_arguments_are_copied(rc: Client) -> None:
    value = [1]
    rc[0].push({"x": value}, block=True)
    rc[0].execute("x.append(2)", block=True)
    assert (value, rc[0].get("x")) == ([1], [1, 2])


def test_what_is_changed_after_a_push_was_asked_for_is_not_sent(rc: Client) -> None:
    array = np.zeros(100_000)
    result = rc[0].push({"x": array})
    array[:] = 1
    result.get(TIMEOUT_S)
    assert rc[0].get("x.sum()") == 0


@pytest.mark.sampled("dtype", "size")
@pytest.mark.parametrize("size", [0, 10, 100_000])
@pytest.mark.parametrize("dtype", ["f8", "i2", "?", "M8[s]", "S3", "O"])
def test_an_array_comes_back_equal(rc: Client, size: int, dtype: str) -> None:
    array = np.arange(size).astype(dtype) if dtype != "O" else np.array([None] * size, dtype=object)
    rc[0].push({"x": array}, block=True)
    back = rc[0].get("x")
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert np.array_equal(back, array)


MORE = OWN_BYTES // 8 + 1  # numbers than a small array has
TO_ENGINES: dict[str, Callable[[DirectView, Any, bool | None], Any]] = {
    "push": lambda view, a, copy: (view.push({"x": a}, copy=copy), view["x.flags.writeable"])[1],
    "push_all": lambda view, a, copy: (
        view.client.push_all({"x": a}, copy=copy),
        view["x.flags.writeable"],
    )[1],
    "scatter": lambda view, a, copy: (
        view.scatter("x", np.concatenate([a] * len(view)), copy=copy),
        view["x.flags.writeable"],
    )[1],
    "apply": lambda view, a, copy: view.with_flags(copy=bool(copy)).apply(lambda a: a.flags.writeable, a),
    "apply by keyword": lambda view, a, copy: view.with_flags(copy=bool(copy)).apply(lambda a: a.flags.writeable, a=a),
    "map": lambda view, a, copy: view.map(lambda a: a.flags.writeable, [a, a], copy=copy),
    "map over rows": lambda view, a, copy: view.map(lambda a: a.flags.writeable, np.array([a, a]), copy=copy),
    "imap": lambda view, a, copy: list(view.imap(lambda a: a.flags.writeable, [a, a], copy=copy)),
    "balanced map": lambda view, a, copy: view.client.load_balanced_view().map_sync(
        lambda a: a.flags.writeable, [a, a], copy=copy
    ),
    "balanced map over rows": lambda view, a, copy: view.client.load_balanced_view().map_sync(
        lambda a: a.flags.writeable, np.array([a, a, a]), chunksize=2, copy=copy
    ),
    "balanced imap": lambda view, a, copy: list(
        view.client.load_balanced_view().imap(lambda a: a.flags.writeable, [a, a], copy=copy)
    ),
    "balanced apply": lambda view, a, copy: [
        view.client.load_balanced_view(copy=bool(copy)).apply_sync(lambda a: a.flags.writeable, a)
    ],
}
TO_THE_CLIENT: dict[str, Callable[[DirectView, int, bool | None], list[Any]]] = {
    "pull": lambda view, size, copy: view.pull(f"np.zeros({size})", copy=copy),
    "pull_all": lambda view, size, copy: view.client.pull_all(f"np.zeros({size})", copy=copy),
    "gather": lambda view, size, copy: view.gather(f"[np.zeros({size})]", copy=copy),
    "apply": lambda view, size, copy: view.with_flags(copy=bool(copy)).apply(np.zeros, size),
    "map": lambda view, size, copy: view.map(np.zeros, [size, size], copy=copy),
    "imap": lambda view, size, copy: list(view.imap(np.zeros, [size, size], copy=copy)),
    "balanced map": lambda view, size, copy: view.client.load_balanced_view().map_sync(np.zeros, [size], copy=copy),
    "balanced imap": lambda view, size, copy: list(
        view.client.load_balanced_view().imap(np.zeros, [size, size], copy=copy)
    ),
    "balanced apply": lambda view, size, copy: [
        view.client.load_balanced_view(copy=bool(copy)).apply_sync(np.zeros, size)
    ],
}


WRITABLE = [(10, None, True), (MORE, None, False), (MORE, True, True)]
"""Lengths of arrays, whether a copy is asked for, and whether the receiver may write to them."""


@pytest.mark.parametrize("way", TO_ENGINES)
def test_an_engine_may_write_to_small_arrays_and_to_copies(dv: DirectView, way: str) -> None:
    for size, copy, writable in WRITABLE:
        assert set(TO_ENGINES[way](dv, np.zeros(size), copy)) == {writable}, (size, copy)


@pytest.mark.parametrize("way", TO_THE_CLIENT)
def test_the_client_may_write_to_small_arrays_and_to_copies(dv: DirectView, way: str) -> None:
    dv.execute("import numpy as np")
    for size, copy, writable in WRITABLE:
        assert {array.flags.writeable for array in TO_THE_CLIENT[way](dv, size, copy)} == {writable}, (size, copy)


def test_what_one_receiver_writes_no_other_one_sees(dv: DirectView) -> None:
    array = np.zeros(10)
    dv.push({"x": array})
    dv.execute("x[0] = 5", targets=dv.client.ids[0])
    dv.apply_sync(lambda a: a.fill(7), array)
    assert [part[0] for part in dv["x"]] == [5] + [0] * (len(dv) - 1)
    assert array[0] == 0


@pytest.mark.parametrize("rows", [3, 3_000])
def test_rows_of_an_array_are_as_large_as_they_are_however_many_travel_together(dv: DirectView, rows: int) -> None:
    def centred(row: Any) -> float:
        row -= row.mean()
        return float(row[0])

    table = np.tile(np.arange(500.0), (rows, 1))
    assert set(dv.map_sync(centred, table)) == {-249.5}
    assert set(dv.client.load_balanced_view().map_sync(centred, table)) == {-249.5}
    records = np.zeros(rows * 3, "i8,V1016")
    assert set(dv.map_sync(lambda record: record.flags.writeable, records)) == {True}


def test_an_engine_may_write_to_a_copy_of_what_it_was_given(rc: Client) -> None:
    rc[0].push({"x": np.zeros(3)}, block=True)
    rc[0].execute("x = x.copy(); x[0] = 5", block=True)
    assert rc[0].get("x").tolist() == [5, 0, 0]


def test_a_large_array_goes_to_all_engines(dv: DirectView) -> None:
    dv.push({"x": np.arange(200_000)})
    assert dv.pull("int(x.sum())") == [19999900000] * 4


def test_strided_arrays_keep_their_values(rc: Client) -> None:
    array = np.arange(60_000).reshape(200, 300)[::2, ::-3]
    rc[0].push({"x": array}, block=True)
    assert np.array_equal(rc[0].get("x"), array)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "value", [threading.Lock(), (n for n in [1]), [1, {"k": threading.Lock()}]], ids=["lock", "generator", "inside"]
)
def test_what_cannot_be_serialised_raises_at_the_call_and_the_engine_works_on(rc: Client, value: Any) -> None:
    with pytest.raises(SerializationError):
        rc[0].push({"x": value})
    assert rc[0].apply_sync(abs, -1) == 1


def test_an_argument_that_cannot_be_serialised_raises_at_the_call(dv: DirectView) -> None:
    with pytest.raises(SerializationError):
        dv.apply_async(print, threading.Lock())


def test_a_result_that_cannot_be_serialised_is_an_error_and_the_engine_works_on(rc: Client) -> None:
    with pytest.raises(SerializationError):
        rc[0].apply_sync(threading.Lock)
    assert rc[0].apply_sync(abs, -1) == 1


def test_pulling_what_cannot_be_serialised_is_an_error(rc: Client) -> None:
    rc[0].execute("import threading; lock = threading.Lock()", block=True)
    with pytest.raises(SerializationError):
        rc[0].get("lock")


def test_instances_of_classes_of_main_come_back_as_themselves(
    rc: Client, from_main: Callable[[str], SimpleNamespace]
) -> None:
    main = from_main("class Point:\n    def __init__(self, x):\n        self.x = x")
    rc[0]["p"] = main.Point(3)
    rc[0].execute("p.x += 1", block=True)
    back = rc[0].get("p")
    assert (type(back), back.x) == (main.Point, 4)


@pytest.mark.once
def test_data_moves_between_engines_by_way_of_the_client(rc: Client) -> None:
    rc[0]["x"] = [1, 2]
    rc[1]["x"] = rc[0]["x"]
    assert rc[1]["x"] == [1, 2]


@pytest.mark.sampled("kind")
@pytest.mark.parametrize("length", [0, 1, 3, 4, 10])
@pytest.mark.parametrize("kind", [list, tuple, np.array], ids=["list", "tuple", "array"])
def test_gather_inverts_scatter(dv: DirectView, kind: Callable[[Any], Any], length: int) -> None:
    seq = kind(list(range(length)))
    dv.scatter("x", seq)
    back = dv.gather("x")
    assert type(back) is type(seq)
    assert list(back) == list(seq)


@pytest.mark.sampled
@pytest.mark.parametrize("shape", [(10, 3), (2, 3, 4), (0, 5), (7, 0)])
def test_gather_inverts_scatter_for_arrays_of_any_shape(dv: DirectView, shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape), dtype="f4").reshape(shape)
    dv.scatter("x", array)
    back = dv.gather("x")
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    assert np.array_equal(back, array)


@pytest.mark.once
def test_gather_inverts_scatter_along_another_axis(dv: DirectView) -> None:
    array = np.arange(20).reshape(2, 10)
    dv.scatter("x", array, axis=1)
    assert dv.pull("x.shape") == [(2, 3), (2, 3), (2, 2), (2, 2)]
    assert np.array_equal(dv.gather("x", axis=1), array)


@pytest.mark.sampled
@pytest.mark.parametrize("length", [0, 3, 10])
def test_gather_inverts_scatter_dealt_out_in_turn(dv: DirectView, length: int) -> None:
    dv.scatter("x", list(range(length)), dist="r")
    assert dv.gather("x", dist="r") == list(range(length))


@pytest.mark.once
def test_the_first_engines_take_the_extra_items(dv: DirectView) -> None:
    dv.scatter("x", range(10))
    assert dv.pull("list(x)") == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]


@pytest.mark.once
def test_items_can_be_dealt_out_in_turn(dv: DirectView) -> None:
    dv.scatter("x", list(range(6)), dist="r")
    assert dv["x"] == [[0, 4], [1, 5], [2], [3]]


@pytest.mark.once
def test_parts_follow_the_order_of_the_targets(rc: Client) -> None:
    rc[0].scatter("x", [1, 2], targets=[3, 1], block=True)
    assert rc[[1, 3]].pull("x", block=True) == [[2], [1]]


@pytest.mark.once
def test_a_part_of_one_item_can_be_flattened(dv: DirectView) -> None:
    dv.scatter("rank", range(4), flatten=True)
    assert dv["rank"] == [0, 1, 2, 3]


@pytest.mark.once
def test_flattening_leaves_longer_parts_alone(dv: DirectView) -> None:
    dv.scatter("x", [0, 1, 2, 3, 4], flatten=True)
    assert dv["x"] == [[0, 1], 2, 3, 4]


@pytest.mark.once
def test_flattened_items_are_gathered_as_a_list(dv: DirectView) -> None:
    dv.scatter("x", [5, 6, 7, 8], flatten=True)
    assert dv.gather("x") == [5, 6, 7, 8]


@pytest.mark.once
def test_an_unknown_way_to_deal_out_raises_at_the_call(dv: DirectView) -> None:
    with pytest.raises(ValueError, match="'b'"):
        dv.scatter("x", [1], dist="z")


@pytest.mark.once
def test_an_unknown_way_to_gather_raises_before_anything_is_sent(rc: Client) -> None:
    with pytest.raises(ValueError, match="'b'"):
        rc[:].gather("x", dist="z")
    assert rc.session.open_calls() == []


@pytest.mark.once
def test_scattering_under_what_is_no_name_raises_at_the_call(dv: DirectView) -> None:
    with pytest.raises(InvalidName):
        dv.scatter("a b", [1])


@pytest.mark.once
def test_the_client_scatters_gathers_maps_and_pulls_on_all(rc: Client) -> None:
    rc.push_all({"y": 2})
    rc.scatter_all("x", list(range(6)))
    assert (rc.pull_all("y"), rc.gather_all("x")) == ([2] * 4, list(range(6)))
    assert rc.map_all(lambda x, y: x + y, range(5), range(5)) == [0, 2, 4, 6, 8]


def test_a_reference_is_replaced_by_what_it_names_on_each_engine(dv: DirectView) -> None:
    dv.scatter("x", range(4), flatten=True)
    assert dv.apply_sync(lambda x: x * 10, Reference("x")) == [0, 10, 20, 30]


@pytest.mark.once
def test_a_reference_may_stand_anywhere_inside_the_arguments(dv: DirectView) -> None:
    dv["x"] = 7
    value = {"a": [Reference("x"), (Reference("x + 1"),)]}
    assert dv.apply_sync(lambda v, *, k: (v, k), value, k=Reference("x")) == [({"a": [7, (8,)]}, 7)] * 4


@pytest.mark.once
def test_a_reference_to_a_function_can_be_called(dv: DirectView) -> None:
    dv.execute("def twice(x):\n    return 2 * x")
    assert dv.apply_sync(Reference("twice"), 4) == [8] * 4


@pytest.mark.once
def test_a_reference_to_a_missing_name_raises_name_error(rc: Client) -> None:
    with pytest.raises(NameError, match="nowhere"):
        rc[0].apply_sync(abs, Reference("nowhere"))


def test_a_pushed_array_can_be_made_writable(dv: DirectView) -> None:
    dv.push({"a": np.arange(4)}, copy=True)
    dv.execute("a[0] = 9")
    assert [part[0] for part in dv["a"]] == [9] * len(dv)


def test_writing_to_an_array_that_arrived_says_how_to_get_a_writable_one(dv: DirectView) -> None:
    dv.push({"a": np.arange(MORE)})
    for code in ("a[0] = 9", "a.sort()", "def write(array):\n    array += 1\nwrite(a)"):
        with pytest.raises(CompositeError) as failure:
            dv.execute(code)
        for error in failure.value.exceptions:
            (note,) = (note for note in error.__notes__ if "copy=True" in note)
            assert note.startswith("`a` (1.0 MB) arrives as a read-only view")


def test_so_does_writing_to_a_part_of_a_frame(dv: DirectView) -> None:
    dv.scatter("part", pd.DataFrame({"a": np.zeros(MORE * len(dv))}))
    with pytest.raises(CompositeError) as failure:
        dv.execute("part.loc[:5, 'a'] = 1")
    assert all("`part`" in "".join(error.__notes__) for error in failure.value.exceptions)
    dv.scatter("part", pd.DataFrame({"a": np.zeros(MORE * len(dv))}), copy=True)
    dv.execute("part.loc[:, 'a'] = 1")
    assert dv.gather("part")["a"].sum() == MORE * len(dv)


def test_a_view_can_ask_for_writable_arrays_both_ways(dv: DirectView) -> None:
    def first_doubled(array: Any) -> Any:
        array[0] = array[0] * 2
        return array

    with dv.temp_flags(copy=True):
        for array in dv.apply(first_doubled, np.arange(1, 50_000)):
            assert array[0] == 2
            array[0] = 5


_HALF_IMPORT_PANDAS = """
import importlib.util, sys, types
half = types.ModuleType("pandas")
half.__spec__ = importlib.util.spec_from_loader("pandas", loader=None)
half.__spec__._initializing = True
whole, sys.modules["pandas"] = sys.modules.get("pandas"), half
"""
_AS_BEFORE = "sys.modules.pop('pandas') if whole is None else sys.modules.update(pandas=whole)"


def test_data_travels_while_another_thread_of_the_engines_imports_a_library(rc: Client, dv: DirectView) -> None:
    rc[0].execute(_HALF_IMPORT_PANDAS, block=True)
    try:
        dv.scatter("a", list(range(100)))
        assert dv.gather("a") == list(range(100))
        assert dv.map_sync(lambda item: {item}, range(100)) == [{item} for item in range(100)]
        rc[0]["b"] = [{1}, np.arange(3)]
        assert rc[0].pull("b", block=True)[1].tolist() == [0, 1, 2]
        assert rc[0].memory()
    finally:
        rc[0].execute(_AS_BEFORE, block=True)
