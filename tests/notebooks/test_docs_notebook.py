"""The notebook that is a page of the documentation, run again: it must come out as it was saved."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "interactive.ipynb"
_LABEL = re.compile(r"\[(?:\d+(?:-\d+)?(?:, )?)+\] ")
_SOMETIMES = re.compile(r"starting 4 engines: 4/4 engines, [\d.]+ s")  # where that takes two seconds
_ANSWERED = re.compile(r"pending, \d of 4 answered|finished")


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def lines_of(cell: Any) -> set[str]:
    """What can be read under a cell, on a quiet machine as on a busy one.

    There equal lines may come apart, so their labels do not count, and some engines may have answered early.
    """
    texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
    lines = [line for text in texts for line in text.splitlines() if not _SOMETIMES.fullmatch(line)]
    return {_ANSWERED.sub("pending", _LABEL.sub("", line)) for line in lines}


def images_of(cell: Any) -> int:
    return sum("image/png" in o.get("data", {}) for o in cell.outputs)


def errors_of(cell: Any) -> list[str]:
    return ["\n".join(o.traceback) for o in cell.outputs if o.output_type == "error"]


@pytest.fixture(scope="module")
def saved() -> Any:
    import nbformat  # it takes seconds to import, for which every process that collects tests would wait

    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from docs.tools.run_notebook import run

    folder = tmp_path_factory.mktemp("docs_notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        return run(NOTEBOOK, folder)


@pytest.mark.parametrize("seen", [lines_of, images_of, errors_of])
def test_every_cell_shows_what_the_page_shows(saved: Any, again: Any, seen: Any) -> None:
    assert [seen(cell) for cell in code_cells(again)] == [seen(cell) for cell in code_cells(saved)]


def test_the_page_has_output_an_error_a_bar_and_a_figure_from_each_engine(saved: Any) -> None:
    cells = code_cells(saved)
    assert any("hello" in lines_of(cell) for cell in cells)
    assert any("ZeroDivisionError" in error for cell in cells for error in errors_of(cell))
    assert any("#################### 100 %" in lines_of(cell) for cell in cells)
    assert [images_of(cell) for cell in cells if images_of(cell)] == [4]
