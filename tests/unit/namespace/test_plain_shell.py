"""What a plain shell remembers of its cells."""

from __future__ import annotations

from typing import Any, cast

import pytest

from nsactors.namespace import plain_shell
from nsactors.namespace.gate import CellLoop
from nsactors.namespace.output import Output
from nsactors.namespace.plain_shell import PlainShell


class NoOutput:
    def show(self, display: Any) -> None:
        """Nobody looks."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A namespace in which five cells have run, the last three of which are remembered."""
    monkeypatch.setattr(plain_shell, "KEPT_CELLS", 3)
    names: dict[str, Any] = {}
    shell = PlainShell(0, names, cast(Output, NoOutput()), CellLoop())
    for number in range(1, 6):
        shell.run_cell(f"{number} * 10", silent=False, store_history=True)
    return names


def test_the_last_cells_are_remembered_under_their_numbers(names: dict[str, Any]) -> None:
    assert names["In"] == ["", "", "", "3 * 10", "4 * 10", "5 * 10"]


def test_results_are_forgotten_with_their_cells(names: dict[str, Any]) -> None:
    assert names["Out"] == {3: 30, 4: 40, 5: 50}
    assert "_2" not in names
    assert names["_3"] == 30
