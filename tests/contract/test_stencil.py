"""Arrays in bands of rows: what many engines compute is what one does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nsactors import Client, CompositeError, DirectView
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


@pytest.mark.once
def test_too_few_rows_are_refused(dv: DirectView) -> None:
    with pytest.raises(ValueError, match="takes array as at least 4 rows, 1 for each of 4 engines"):
        Stencil(dv, np.ones(3))


@pytest.mark.once
def test_an_update_that_loses_rows_is_refused(dv: DirectView) -> None:
    with pytest.raises(CompositeError, match="4 of 4"):
        Stencil(dv, np.ones(8)).step(far)
