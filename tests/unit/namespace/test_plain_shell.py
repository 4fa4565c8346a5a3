"""What a plain shell remembers of its cells."""

from __future__ import annotations

import ast
import gc
import linecache
from collections.abc import Iterator
from typing import Any, cast

import pytest

from nsactors.namespace import plain_shell
from nsactors.namespace.interrupts import CellEventLoop
from nsactors.namespace.ipython_shell import _CellCompiler
from nsactors.namespace.output import OutputRecorder
from nsactors.namespace.plain_shell import CellSources, PlainShell


class NoOutput:
    def show(self, display: Any) -> None:
        """Nobody looks."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A namespace in which five cells have run, the last three of which are remembered."""
    monkeypatch.setattr(plain_shell, "KEPT_CELLS", 3)
    names: dict[str, Any] = {}
    shell = PlainShell(0, names, cast(OutputRecorder, NoOutput()), CellEventLoop())
    for number in range(1, 6):
        shell.run_cell(f"{number} * 10", silent=False, store_history=True)
    return names


def test_the_last_cells_are_remembered_under_their_numbers(names: dict[str, Any]) -> None:
    assert names["In"] == ["", "", "", "3 * 10", "4 * 10", "5 * 10"]


def test_results_are_forgotten_with_their_cells(names: dict[str, Any]) -> None:
    assert names["Out"] == {3: 30, 4: 40, 5: 50}
    assert "_2" not in names
    assert names["_3"] == 30


# Source lines of cells are kept as long as a traceback may need them.


class Cells:
    """Runs cells in a namespace, under numbered file names."""

    def __init__(self) -> None:
        self.sources = CellSources()
        self.names: dict[str, Any] = {}
        self.filenames: list[str] = []

    def run(self, code: str) -> str:
        """Run a cell; its file name."""
        name = f"<test cell {len(self.filenames)}>"
        self.filenames.append(name)
        self.sources.begin(name)
        linecache.cache[name] = (len(code), None, [code], name)
        compiled = compile(code, name, "exec")
        self.sources.compiled(compiled)
        exec(compiled, self.names)
        return name


@pytest.fixture
def cells() -> Iterator[Cells]:
    cells = Cells()
    yield cells
    for name in cells.filenames:
        linecache.cache.pop(name, None)


def test_the_source_of_a_cell_is_there_until_the_next_one_comes(cells: Cells) -> None:
    name = cells.run("x = 1")
    assert linecache.getline(name, 1) == "x = 1"
    cells.run("y = 2")
    assert linecache.getline(name, 1) == ""


@pytest.mark.parametrize(
    "code",
    [
        "def f(): pass",
        "class C:\n  def m(self): pass",
        "f = lambda: 0",
        "def f():\n  def g(): pass\n  return g\ng = f()\ndel f",
        "many = (i for i in range(3))",
    ],
)
def test_the_source_of_what_was_defined_stays(cells: Cells, code: str) -> None:
    name = cells.run(code)
    gc.collect()
    cells.run("y = 2")
    assert linecache.getlines(name) == [code]


@pytest.mark.parametrize("code", ["squares = [i * i for i in range(3)]", "sorted([2, 1], key=lambda i: -i)"])
def test_the_source_of_what_has_only_helped_a_cell_goes_with_it(cells: Cells, code: str) -> None:
    name = cells.run(code)
    cells.run("y = 2")
    assert linecache.getlines(name) == []


def test_sources_go_at_last_when_what_was_defined_has_gone(cells: Cells) -> None:
    for number in range(1_000):
        cells.run(f"def f(): return {number}")
    held = [name for name in cells.filenames if name in linecache.cache]
    assert len(held) < 150
    assert held[-1] == cells.filenames[-1]


def test_sources_that_are_needed_stay_however_many_they_are(cells: Cells) -> None:
    for number in range(500):
        cells.run(f"def f{number}(): pass")
    assert all(name in linecache.cache for name in cells.filenames)


def test_one_statement_that_defines_something_is_enough() -> None:
    sources, kept = CellSources(), []
    sources.begin("<cell a>")
    for statement in ("def f(): pass", "x = 1"):
        kept.append(compile(statement, "<cell a>", "exec"))
        sources.compiled(kept[-1])
    assert sources.begin("<cell b>") == []
    assert sources.begin("<cell c>") == ["<cell b>"]


def test_ipython_forgets_the_cell_altogether() -> None:
    compiler = _CellCompiler()
    names, codes = [], []
    for number, code in enumerate(("x = 1", "def f(): pass", "y = 2", "z = 3")):
        names.append(compiler.cache(code, number))
        codes.append(compiler(code, names[-1], "exec"))
    kept = [name for name in names if name in linecache.cache]
    assert kept == list(compiler._filename_map) == [names[1], names[3]]
    for name in kept:
        del linecache.cache[name]


def test_a_cell_runs_though_another_thread_parses_at_the_same_time(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, failures = ast.parse, [SystemError("AST constructor recursion depth mismatch (before=42, after=40)")] * 2

    def parse(*args: Any) -> ast.Module:
        if failures:
            raise failures.pop()
        return usual(*args)

    monkeypatch.setattr(ast, "parse", parse)
    shell = PlainShell(0, names, cast(OutputRecorder, NoOutput()), CellEventLoop())
    shell.run_cell("parsed = 6 * 7", silent=False, store_history=True)
    assert (names["parsed"], failures) == (42, [])
