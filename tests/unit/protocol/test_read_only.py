import operator
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nsactors.protocol.read_only import arrived_read_only, note_on_read_only
from nsactors.protocol.serialize import OWN_BYTES, pack, unpack

ROWS = OWN_BYTES // 8 + 1


def arrived(value: Any, *, copy: bool = False) -> Any:
    return unpack(pack(value), copy=copy)


def large() -> Any:
    return arrived(np.zeros(ROWS))


def note_of(write: Callable[[Any], object], table: Any, *, on_engine: bool = False) -> str | None:
    """Return the note on the error that ``write(table)`` raises."""

    def code(table: Any) -> object:
        return write(table)

    with pytest.raises((ValueError, TypeError)) as failure:
        code(table)
    return note_on_read_only(failure.value, failure.value.__traceback__.tb_next, on_engine=on_engine)


WRITES: dict[str, Callable[[Any], object]] = {
    "an item": lambda a: operator.setitem(a, 0, 1),
    "a slice of a part": lambda a: operator.setitem(a[5:], slice(3), 1),
    "sort": lambda a: a.sort(),
    "partition": lambda a: a.partition(3),
    "out=": lambda a: np.add(a, 1, out=a),
    "+=": lambda a: operator.iadd(a, 1),
    "shuffle": lambda a: np.random.default_rng().shuffle(a),
    "fill": lambda a: a.fill(1),
    "put": lambda a: a.put(0, 1),
    "putmask": lambda a: np.putmask(a, a == 0, 1),
    "copyto": lambda a: np.copyto(a, 1),
    "setflags": lambda a: a.setflags(write=True),
    "byteswap": lambda a: a.byteswap(inplace=True),
    "a memoryview": lambda a: operator.setitem(memoryview(a), 0, 1.0),
}


@pytest.mark.parametrize("name", WRITES)
def test_writing_to_an_array_that_arrived_says_which_it_is_and_how_to_get_one_that_can_be_written_to(name: str) -> None:
    note = note_of(WRITES[name], large())
    assert note is not None
    assert note.startswith("`table` (1.0 MB) arrives as a read-only view")
    assert "copy=True" in note
    assert note.endswith("table.copy()")


IN_FRAMES: dict[str, Callable[[pd.DataFrame], object]] = {
    "loc": lambda df: operator.setitem(df.loc, (0, "a"), 1),
    "loc with a mask": lambda df: operator.setitem(df.loc, (df.b > 2, "a"), 1),
    "iloc": lambda df: operator.setitem(df.iloc, (0, 0), 1),
    "at": lambda df: operator.setitem(df.at, (0, "a"), 1),
    "fillna": lambda df: df.fillna(1, inplace=True),
    "replace": lambda df: df.replace(0.0, 1.0, inplace=True),
    "ffill": lambda df: df.ffill(inplace=True),
    "update": lambda df: df.update(pd.DataFrame({"a": [5.0]})),
}


@pytest.mark.parametrize("name", IN_FRAMES)
def test_so_does_pandas(name: str) -> None:
    frame = pd.DataFrame({"a": np.zeros(ROWS), "b": np.arange(ROWS), "c": "x"})
    note = note_of(IN_FRAMES[name], arrived(frame))
    assert note is not None
    assert note.startswith("`table` (1.0 MB)")


@pytest.mark.parametrize("name", IN_FRAMES)
def test_a_frame_that_was_copied_can_be_changed(name: str) -> None:
    frame = pd.DataFrame({"a": np.zeros(ROWS), "b": np.arange(ROWS), "c": "x"})
    IN_FRAMES[name](arrived(frame, copy=True))
    IN_FRAMES[name](arrived(frame[:100]))


@pytest.mark.parametrize(
    ("holder", "way"),
    [
        (lambda a: [0, a], "[1]"),
        (lambda a: {"x": {"y": a}}, "['x']['y']"),
        (lambda a: SimpleNamespace(data=a), ".data"),
    ],
)
def test_it_is_found_where_it_is_held(holder: Callable[[Any], Any], way: str) -> None:
    array = large()

    def write(held: Any) -> None:
        eval(f"held{way}", {"held": held})[0] = 1

    note = note_of(write, holder(array))
    assert note is not None
    assert note.startswith(f"`table{way}`")


def test_names_of_a_cell_are_found() -> None:
    names = {"table": large(), "other": large()}
    with pytest.raises(ValueError, match="read-only") as failure:
        exec("table[0] = 1", names)
    note = note_on_read_only(failure.value, failure.value.__traceback__.tb_next, on_engine=False)  # type: ignore[union-attr]
    assert note is not None
    assert note.startswith("`table`")


def own_read_only() -> Any:
    array = np.zeros(ROWS)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "array",
    [own_read_only(), np.frombuffer(bytes(2 * OWN_BYTES)), np.broadcast_to(0.0, ROWS)],
    ids=["made so", "bytes", "broadcast"],
)
def test_of_what_did_not_arrive_nothing_is_said_at_the_client(array: Any) -> None:
    assert not arrived_read_only(array)
    assert note_of(lambda a: operator.setitem(a, 0, 1), array) is None


def test_on_an_engine_it_is_said_how_that_comes_though_the_array_is_not_found() -> None:
    note = note_of(lambda a: operator.setitem(a, 0, 1), own_read_only(), on_engine=True)
    assert note is not None
    assert note.startswith("An array of more than 1 MiB arrives as a read-only view")


def test_an_array_of_arrow_says_how_to_get_one_from_arrow() -> None:
    note = note_of(lambda a: operator.setitem(a, 0, 1), arrived(pa.array(np.zeros(ROWS))).to_numpy())
    assert note is not None
    assert "writable=True" in note


@pytest.mark.parametrize(
    "error", [ValueError("math domain error"), OSError("Read-only file system"), AttributeError("readonly attribute")]
)
def test_other_errors_have_no_note(error: Exception) -> None:
    table = large()
    try:
        raise error
    except type(error):
        assert note_on_read_only(error, error.__traceback__, on_engine=True) is None
    del table
