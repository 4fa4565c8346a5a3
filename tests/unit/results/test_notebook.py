"""Figures that a notebook's front end draws by their MIME type."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.protocol.messages import Display
from nsactors.results.display.merging import Shown
from nsactors.results.display.notebook import CellScreen, document

PLOTLY = "application/vnd.plotly.v1+json"
FIGURE = Shown((0, 1), Display({PLOTLY: {"data": []}}, {}))


def test_a_cell_that_waits_says_whose_it_is_and_hands_it_on(capsys: pytest.CaptureFixture[str]) -> None:
    published: list[Any] = []
    screen = CellScreen(SimpleNamespace(publish=lambda data, *_, **__: published.append(data)))
    screen.show([FIGURE])
    assert capsys.readouterr().out == "[0-1]\n"
    assert published == [{PLOTLY: {"data": []}}]


def test_a_cell_that_does_not_wait_says_that_it_cannot_draw_it() -> None:
    assert f"({PLOTLY} is drawn only under a cell that waits: leave out --noblock)" in document([FIGURE])["text/html"]
