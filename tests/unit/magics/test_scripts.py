"""Scripts that do again what engines have run."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from nsactors.magics.scripts import Script, script_of
from nsactors.namespace.programs import assignments
from nsactors.protocol.control import Program

translate = TransformerManager().transform_cell


def script(*programs: Program | str, startup: str = "") -> Script:
    return script_of([Program(p) if isinstance(p, str) else p for p in programs], [0, 1], startup, translate)


def run(written: Script, folder: Path) -> dict[str, object]:
    path = folder / "script.py"
    path.write_text(written.text)
    return runpy.run_path(str(path))


def test_cells_follow_each_other_behind_the_startup(tmp_path: Path) -> None:
    written = script("b = a + 1", "c = '''\n  two lines\n'''\nb", startup="a = 1")
    assert written.text.startswith("# The history of engines 0-1: 3 cells")
    names = run(written, tmp_path)
    assert (names["b"], names["c"]) == (2, "\n  two lines\n")


@pytest.mark.parametrize("cell", ["import asyncio\nx = await asyncio.sleep(0, 7)", "x = [i async for i in g()][0]"])
def test_a_cell_that_awaits_runs_in_a_script(tmp_path: Path, cell: str) -> None:
    assert run(script("async def g():\n    yield 7", cell), tmp_path)["x"] == 7


def test_what_a_failed_cell_had_bound_is_bound_and_the_script_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = run(script(Program("a = 'x\\ny'\n1 / 0\nb = 1", "ZeroDivisionError"), "c = a"), tmp_path)
    assert names["c"] == "x\ny"
    assert "b" not in names
    assert "ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        ("KeyboardInterrupt", "it was interrupted"),
        ("expired", "it reached its time limit"),
        ("SyntaxError", "its syntax is wrong"),
        ("SystemExit", "it asked to exit"),
    ],
)
def test_what_would_not_end_or_not_run_is_a_comment(tmp_path: Path, outcome: str, why: str) -> None:
    written = script(Program("while True:\n    pass", outcome), "a = 1")
    assert f"# This is not run again, because {why}:\n#     while True:\n#         pass\n" in written.text
    assert run(written, tmp_path)["a"] == 1


def test_what_was_pushed_and_has_no_source_is_named_at_the_top(tmp_path: Path) -> None:
    pushes = [Program(assignments(values)) for values in ({"a": {1}, "n": 3}, {"a": {2}}, {"table": object()})]
    written = script(*pushes, "m = n")
    assert written.text.splitlines()[1] == "# It lacks a (set), table (object)."
    assert written.left_out == ("a (set)", "table (object)")
    assert run(written, tmp_path)["m"] == 3
    assert "lacks" not in script("x = 1").text


def test_magics_are_translated_and_it_is_said_that_ipython_is_needed() -> None:
    written = script("%matplotlib inline\n!ls\nx = 1")
    assert written.needs_ipython
    assert "run it with ipython" in written.text
    assert "get_ipython().run_line_magic('matplotlib', 'inline')" in written.text
    assert not script("x = 1", Program("%nosuch +\n 1 +", "SyntaxError")).needs_ipython


def test_display_is_imported_where_it_is_used(tmp_path: Path) -> None:
    assert "from IPython.display import display\n" in script("display(1)").text
    assert "import display" not in script("x = 'display'").text
