from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.errors.exceptions import InvalidTarget, NoEngines, NoSuchEngine
from nsactors.protocol.targets import is_single, resolve

IDS = [0, 2, 5]

some_ids = st.sets(st.integers(0, 50), min_size=1).map(sorted)


@given(some_ids)
def test_all_and_none_name_every_engine(ids: list[int]) -> None:
    assert resolve("all", ids) == resolve(None, ids) == ids


@given(some_ids, st.data())
def test_an_id_names_its_engine(ids: list[int], data: st.DataObject) -> None:
    engine_id = data.draw(st.sampled_from(ids))
    assert resolve(engine_id, ids) == [engine_id]


@given(some_ids, st.data())
def test_a_negative_int_counts_from_the_end(ids: list[int], data: st.DataObject) -> None:
    position = data.draw(st.integers(-len(ids), -1))
    assert resolve(position, ids) == [ids[position]]


@given(some_ids, st.slices(50))
def test_a_slice_selects_positions(ids: list[int], piece: slice) -> None:
    if ids[piece]:
        assert resolve(piece, ids) == ids[piece]
    else:
        with pytest.raises(NoEngines):
            resolve(piece, ids)


@given(some_ids, st.data())
def test_a_list_keeps_its_order(ids: list[int], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(ids), unique=True, min_size=1))
    assert resolve(chosen, ids) == chosen


@pytest.mark.parametrize(
    "targets",
    [(5, 0), range(5, -1, -5), deque([5, 0]), np.array([5, 0]), [np.int64(5), np.uint8(0)], [-1, -3]],
)
def test_any_sequence_of_ints_will_do(targets: Any) -> None:
    assert resolve(targets, IDS) == [5, 0]


@pytest.mark.parametrize("targets", [[0, 0], [5, -1], np.array([2, 2])])
def test_an_engine_cannot_be_named_twice(targets: Any) -> None:
    with pytest.raises(InvalidTarget):
        resolve(targets, IDS)


@pytest.mark.parametrize(
    "targets",
    [
        *(True, np.True_, 1.0, "0", "ALL", "", b"\x00", bytearray(b"\x00"), {0}, {0: 2}, object()),
        *([True], [0, "2"], [0.0], np.array([0.0]), [[0]], ["all"], [None]),
        *(slice("a", None), slice(True, None), slice(None, None, 0)),
    ],
)
@pytest.mark.parametrize("ids", [IDS, []])
def test_what_cannot_name_engines_is_refused(targets: Any, ids: list[int]) -> None:
    with pytest.raises(InvalidTarget):
        resolve(targets, ids)


@pytest.mark.parametrize("targets", [1, 6, -4, [0, 1], [0, -4], np.int64(1)])
def test_an_engine_that_does_not_exist_is_named(targets: Any) -> None:
    with pytest.raises(NoSuchEngine) as error:
        resolve(targets, IDS)
    assert error.value.engine_id in {1, 6, -4}
    assert error.value.ids == tuple(IDS)


@pytest.mark.parametrize("targets", [None, "all", 0, -1, [0], [], slice(None)])
def test_without_engines_the_error_says_how_to_start_some(targets: Any) -> None:
    with pytest.raises(NoEngines, match="start some"):
        resolve(targets, [])


@pytest.mark.parametrize("targets", [[], (), slice(3, None), np.array([], int)])
def test_naming_none_of_the_engines_is_an_error(targets: Any) -> None:
    with pytest.raises(NoEngines, match="selects none of engines"):
        resolve(targets, IDS)


@pytest.mark.parametrize("target", [0, -1, 7, np.int32(3), np.array(3)])
def test_an_int_is_single(target: Any) -> None:
    assert is_single(target)


@pytest.mark.parametrize("targets", [None, "all", [0], (0,), slice(1), True, np.array([0]), range(1)])
def test_nothing_else_is_single(targets: Any) -> None:
    assert not is_single(targets)


def test_ids_are_not_changed() -> None:
    ids = [0, 1]
    resolve("all", ids).append(2)
    assert ids == [0, 1]


def test_an_engine_that_is_named_twice_is_said_to_be() -> None:
    with pytest.raises(InvalidTarget, match=r"\[0, 2, -3\] cannot be a target: it names engine 0 twice"):
        resolve([0, 2, -3], IDS)
