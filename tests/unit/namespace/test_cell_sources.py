"""Source lines of cells are kept as long as a traceback may need them."""

import linecache
from collections.abc import Callable, Iterator

import pytest

from nsactors.namespace.cell_sources import CellSources
from nsactors.namespace.ipython_shell import _CellCompiler

NAMES = ("<cell a>", "<cell b>")


@pytest.fixture
def run() -> Iterator[Callable[[str], str]]:
    """What compiles the next cell; its file name."""
    sources = CellSources()
    names = iter(NAMES)

    def run(code: str) -> str:
        name = next(names)
        sources.begin(name)
        linecache.cache[name] = (len(code), None, [code], name)
        sources.compiled(compile(code, name, "exec"))
        return name

    yield run
    for name in NAMES:
        linecache.cache.pop(name, None)


def test_the_source_of_a_cell_is_there_until_the_next_one_comes(run: Callable[[str], str]) -> None:
    name = run("x = 1")
    assert linecache.getline(name, 1) == "x = 1"
    run("y = 2")
    assert linecache.getline(name, 1) == ""


@pytest.mark.parametrize("code", ["def f(): pass", "class C: pass", "f = lambda: 0", "def f():\n  def g(): pass"])
def test_the_source_of_what_was_defined_stays(run: Callable[[str], str], code: str) -> None:
    name = run(code)
    run("y = 2")
    assert linecache.getlines(name) == [code]


def test_one_statement_that_defines_something_is_enough(run: Callable[[str], str]) -> None:
    name = run("def f(): pass")
    first = CellSources()
    first.begin(name)
    for statement in ("def f(): pass", "x = 1"):
        first.compiled(compile(statement, name, "exec"))
    assert first.begin("<cell b>") == ""


def test_ipython_forgets_the_cell_altogether() -> None:
    compiler = _CellCompiler()
    names = []
    for number, code in enumerate(("x = 1", "def f(): pass", "y = 2", "z = 3")):
        names.append(compiler.cache(code, number))
        compiler(code, names[-1], "exec")
    kept = [name for name in names if name in linecache.cache]
    assert kept == list(compiler._filename_map) == [names[1], names[3]]
    for name in kept:
        del linecache.cache[name]
