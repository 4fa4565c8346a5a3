"""Arrays in bands of rows: what many engines compute is what one does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nsactors import Client, CompositeError, DirectView
from nsactors.errors import MeetingFailed
from nsactors.models.stencil import Stencil

Array = np.ndarray[Any, Any]


def blur(rows: Array) -> Array:
    smooth: Array = (rows[:-2] + 2 * rows[1:-1] + rows[2:]) / 4
    return smooth


def far(rows: Array) -> Array:
    apart: Array = rows[4:] - rows[:-4]
    return apart


def life(rows: Array) -> Array:
    three = rows + np.roll(rows, 1, axis=1) + np.roll(rows, -1, axis=1)
    alive = three[:-2] + three[1:-1] + three[2:]
    return ((alive == 3) | ((alive == 4) & (rows[1:-1] == 1))).astype(np.int8)


@pytest.mark.sampled
@pytest.mark.parametrize("edge", [0.0, 2.5, None])
def test_each_step_sees_the_rows_beyond_its_own(rc: Client, edge: float | None) -> None:
    array = np.random.default_rng(1).random((17, 3))
    expected = array
    for _ in range(5):
        ends = (expected[-1:], expected[:1]) if edge is None else (np.full((1, 3), edge),) * 2
        expected = blur(np.concatenate([ends[0], expected, ends[1]]))
    for view in (rc[:1], rc[:2], rc[:4]):
        field = Stencil(view, array, edge=edge)
        field.step(blur, times=5)
        assert np.array_equal(field.array(), expected)
        field.close()


@pytest.mark.once
def test_a_wider_halo_reaches_further(dv: DirectView) -> None:
    field = Stencil(dv, np.arange(16.0), halo=2, edge=None)
    field.step(far)
    assert field.array().tolist() == [-12, -12] + [4.0] * 12 + [-12, -12]


def test_a_glider_goes_round_the_torus(dv: DirectView) -> None:
    board = np.zeros((16, 16), dtype=np.int8)
    board[[0, 1, 2, 2, 2], [1, 2, 0, 1, 2]] = 1
    field = Stencil(dv, board, edge=None)
    field.step(life, times=32)
    assert not np.array_equal(field.array(), board)
    field.step(life, times=32)
    assert np.array_equal(field.array(), board)


@pytest.mark.once
def test_the_rows_can_be_changed_between_steps(dv: DirectView) -> None:
    field = Stencil(dv, np.ones((8, 1)))
    dv.execute("band.rows = band.rows * 0")
    field.step(blur)
    assert field.array().sum() == 0


def shift(rows: Array) -> Array:
    return rows[:-2].copy()


def add_neighbours(rows: Array) -> Array:
    total: Array = rows[:-2] + rows[2:]
    return total


def test_an_update_that_fails_in_one_band_fails_in_all_and_replaces_no_rows(dv: DirectView) -> None:
    def fails_in_the_second_step(rows: Array) -> Array:
        if rows[1] == 102:  # the second band, after one step
            raise ZeroDivisionError
        return rows[1:-1] + 100

    field = Stencil(dv, np.arange(8.0), edge=0.0)
    for _ in range(2):
        with pytest.raises(CompositeError, match="4 of 4") as caught:
            field.step(fails_in_the_second_step, times=3)
        kinds = [isinstance(error, MeetingFailed) for error in caught.value.exceptions]
        assert kinds == [True, False, True, True]
        assert "rank 1: failed with ZeroDivisionError" in str(caught.value.exceptions[0])
        assert field.array().tolist() == list(range(8))
    field.step(shift, times=2)
    assert field.array().tolist() == [0, 0, 0, 1, 2, 3, 4, 5]


@pytest.mark.once
def test_a_band_that_has_made_other_steps_is_an_error(dv: DirectView, rc: Client) -> None:
    field = Stencil(dv, np.ones(8))
    rc[1].execute("band.steps += 1", block=True)
    with pytest.raises(CompositeError, match="4 of 4") as caught:
        field.step(shift)
    assert "rank 1: step 2" in str(caught.value.exceptions[0])


@pytest.mark.sampled
@pytest.mark.parametrize("edge", [0, 0.0, 0.5, -1, 300, float("nan"), None])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.float32])
def test_the_edge_is_any_number_whatever_the_array_has(rc: Client, dtype: Any, edge: float | None) -> None:
    results = []
    for view in (rc[:1], rc[:4]):
        field = Stencil(view, np.ones(8, dtype), edge=edge)
        field.step(add_neighbours)
        results.append(field.array())
        field.close()
    assert results[0].dtype == results[1].dtype
    assert np.array_equal(results[0], results[1], equal_nan=True)
    beyond = np.ones(1, dtype) if edge is None else np.array([edge])
    assert np.array_equal(results[0][:1], np.ones(1, dtype) + beyond, equal_nan=True)
    if edge in (0, None):
        assert results[0].dtype == dtype


@pytest.mark.once
def test_an_engine_that_joins_is_none_of_its_engines(rc: Client, add_engines: Callable[[int], list[int]]) -> None:
    field = Stencil(rc.direct_view(), np.arange(8.0))
    add_engines(1)
    field.step(shift)
    assert field.array().tolist() == [0, 0, 1, 2, 3, 4, 5, 6]


@pytest.mark.once
def test_a_band_can_be_looked_at_after_a_failure(dv: DirectView, rc: Client) -> None:
    field = Stencil(dv, np.arange(8.0))
    with pytest.raises(CompositeError):
        field.step(far)
    band = rc[1].pull("band", block=True)
    assert (band.rank, band.steps, band.rows.tolist()) == (1, 0, [2, 3])


@pytest.mark.once
def test_too_few_rows_are_refused(dv: DirectView) -> None:
    with pytest.raises(ValueError, match="takes array as at least 4 rows, 1 for each of 4 engines"):
        Stencil(dv, np.ones(3))


@pytest.mark.once
def test_an_update_that_loses_rows_is_refused(dv: DirectView) -> None:
    with pytest.raises(CompositeError, match="4 of 4"):
        Stencil(dv, np.ones(8)).step(far)
