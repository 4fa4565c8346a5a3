"""The examples of message passing and of supersteps give right answers."""

from __future__ import annotations

import sys

import pytest

from examples import life, supersteps
from nsactors import Cluster, Reference

MIDDLE = [(row + 300, column + 300) for row, column in life.R_PENTOMINO]


@pytest.mark.parametrize("n", [2, *(pytest.param(n, marks=pytest.mark.full_size) for n in (1, 7))])
def test_the_r_pentomino_has_116_cells_at_generation_1103(n: int) -> None:
    with Cluster(n=n, backend="local") as rc:
        rc[:].communicator()
        # Nothing gets beyond 276 cells from its beginning in that time: a board of 600 might as well be unbounded.
        board = rc[:].apply_sync(life.play, Reference("comm"), MIDDLE, 600, 1103)[0]
    assert board.sum() == 116


def test_all_programs_of_supersteps_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["supersteps.py", "--backend", "local", "-n", "4"])
    supersteps.main()
    told = capsys.readouterr().out
    assert "ring           [(103, 3), (100, 0), (101, 1), (102, 2)]" in told
    assert "prefix sums    [1, 3, 6, 10]" in told
    assert "sum of squares 333333833333500000" in told
    assert "sample sort    True" in told
    assert "'B': '38.4 %', 'C': '34.3 %'" in told
