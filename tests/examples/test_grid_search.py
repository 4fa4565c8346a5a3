"""The example of scikit-learn on engines gives the answer of a plain loop."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "grid_search.py"


def test_a_grid_search_on_engines_says_what_a_plain_loop_says(capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(EXAMPLE))["main"]
    assert main(["--engines", "2", "--backend", "local"]) == 0
    assert "a plain loop says the same" in capsys.readouterr().out
