"""A shell of plain Python, for namespaces that share one process.

IPython allows one shell per process: several fight over ``__main__``, the display hook and the streams. This one
keeps the parts of it that need no process of their own: ``In``, ``Out``, ``_``, the value of a last expression,
top-level ``await``.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import itertools
import linecache
import re
import rlcompleter
from types import CodeType
from typing import Any

from nsactors.core.messages import ExecuteResult
from nsactors.namespace.cell_sources import CellSources
from nsactors.namespace.gate import CellLoop, run_user_code
from nsactors.namespace.output import Output
from nsactors.namespace.shell import KEPT_CELLS, Completions, forget_input

__all__ = ["PlainShell", "complete_names", "describe", "fresh_names"]

_MAGIC = re.compile(r"^\s*(%{1,2}\w|!)", re.MULTILINE)


class PlainShell:
    """Runs cells with ``compile`` and ``exec`` in ``names``."""

    def __init__(self, engine_id: int, names: dict[str, Any], output: Output, cell_loop: CellLoop) -> None:
        self.names = names
        self.execution_count = 1
        self._engine_id = engine_id
        self._output = output
        self._cell_loop = cell_loop
        self._cell_numbers = itertools.count(1)
        self._sources = CellSources()
        names.update(In=[""], Out={})

    def reset(self) -> None:
        """Forget every name the user made, and the histories."""
        self.names.clear()
        self.names.update(fresh_names(), In=[""], Out={})
        self.execution_count = 1

    def run_cell(self, code: str, *, silent: bool, store_history: bool) -> None:
        """Run a cell; what it raised is raised here."""
        store_history = store_history and not silent
        if store_history:
            self.names["In"].append(code)
        try:
            self._run(code, show=not silent)
        finally:
            if store_history:
                self._forget_cell(self.execution_count - KEPT_CELLS)
                self.execution_count += 1

    def _forget_cell(self, number: int) -> None:
        """Forget a cell that came long ago, and its result."""
        forget_input(self.names["In"], number)
        results = self.names.get("Out")
        if isinstance(results, dict) and results.pop(number, None) is not None:
            self.names.pop(f"_{number}", None)

    def _run(self, code: str, *, show: bool) -> None:
        filename = f"<engine {self._engine_id}, cell {next(self._cell_numbers)}>"
        self._sources.begin(filename)
        linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
        tree = self._parse(code, filename)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        self._evaluate(_compile(tree, filename, "exec"))
        if isinstance(last, ast.Expr):
            value = self._evaluate(_compile(ast.Expression(last.value), filename, "eval"))
            if value is not None and show:
                self._show(value)

    def _parse(self, code: str, filename: str) -> ast.Module:
        try:
            return ast.parse(code, filename)
        except SyntaxError as error:
            if _MAGIC.search(code):
                error.add_note(
                    "Magics and !shell need engines with a process of their own: use Cluster(backend='ray')."
                )
            raise

    def _evaluate(self, code: CodeType) -> Any:
        self._sources.compiled(code)
        value = run_user_code(eval, code, self.names)
        if code.co_flags & inspect.CO_COROUTINE:
            value = self._cell_loop.run(self._cell_loop.user_code(value))
        return value

    def _show(self, value: Any) -> None:
        text = run_user_code(repr, value)
        self.names["Out"][self.execution_count] = value
        self.names.update(_=value, **{f"_{self.execution_count}": value})
        self._output.show(ExecuteResult(self.execution_count, {"text/plain": text}, {}))

    def complete(self, code: str, cursor: int) -> Completions:
        """Names that complete ``code`` at ``cursor``."""
        return complete_names(self.names, code, cursor)

    def inspect(self, name: str, detail: int) -> str | None:
        """What ``name`` is, for people."""
        return describe(self.names, name, detail)


def fresh_names() -> dict[str, Any]:
    """What a namespace holds before anybody has used it.

    It is called ``__main__``, so that functions and classes made in it travel by value, like those of a client's
    session.
    """
    return {"__name__": "__main__", "__builtins__": builtins}


def complete_names(names: dict[str, Any], code: str, cursor: int) -> Completions:
    """Names and attributes that complete ``code`` at ``cursor``."""
    match = re.search(r"[\w.]*$", code[:cursor])
    text = match.group() if match else ""
    completer = rlcompleter.Completer(names)
    found = itertools.takewhile(lambda m: m is not None, (completer.complete(text, i) for i in itertools.count()))
    return Completions(tuple(m.rstrip("()") for m in found if m), cursor - len(text), cursor)


def describe(names: dict[str, Any], name: str, detail: int) -> str | None:
    """Type, value, docstring and (``detail`` 1) source of a name or expression; None if it cannot be evaluated."""
    try:
        value = eval(name, names)
    except Exception:
        return None
    lines = [f"Type:        {type(value).__name__}", f"String form: {value!r}"]
    if doc := inspect.getdoc(value):
        lines.append(f"Docstring:\n{doc}")
    if detail and (inspect.isfunction(value) or inspect.isclass(value)):
        lines.append(f"Source:\n{inspect.getsource(value)}")
    return "\n".join(lines)


def _compile(tree: ast.Module | ast.Expression, filename: str, mode: str) -> CodeType:
    code = compile(tree, filename, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    assert isinstance(code, CodeType)
    return code
