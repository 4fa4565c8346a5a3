"""Shells: their interface, a shell in plain Python, and the sources of cells for tracebacks.

IPython allows one shell per process: several would compete for ``__main__``, the display hook and the streams. The
plain shell has the parts that need no process of their own: ``In``, ``Out``, ``_``, the value of a last expression,
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
import weakref
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple, Protocol

from nsactors.namespace.interrupts import CellEventLoop, run_user_code
from nsactors.namespace.mentions import parse_code
from nsactors.namespace.output import OutputRecorder
from nsactors.protocol.messages import ExecuteResult

KEPT_CELLS = 1_000  # cells with source and results in the histories; IPython keeps as many results


class Completions(NamedTuple):
    """Completions of the text between ``start`` and ``end``."""

    matches: tuple[str, ...]
    start: int
    end: int


class Shell(Protocol):
    """Run cells in a dictionary of names, and show their displays."""

    names: dict[str, Any]
    execution_count: int

    def run_cell(self, code: str, *, silent: bool, store_history: bool) -> None:
        """Run a cell; its error is raised here."""
        ...

    def reset(self) -> None:
        """Remove every name of the user, and the histories."""
        ...

    def close(self) -> None:
        """Release the objects kept beside the names, and files made for the user."""
        ...

    def complete(self, code: str, cursor: int) -> Completions:
        """Return names that complete ``code`` at ``cursor``."""
        ...

    def inspect(self, name: str, detail: int) -> str | None:
        """Describe ``name`` as ``name?`` does (``name??`` with detail 1); None if it is not bound."""
        ...


def forget_input(inputs: list[str], number: int) -> None:
    """Empty the source of an old cell; the other cells keep their numbers."""
    if 0 < number < len(inputs):
        inputs[number] = ""


_SOME = 100  # with fewer kept sources, a search for unused ones is not worth its time


class CellSources:
    """Drop the source of a cell as soon as no function of the cell can run any more, but not before the next cell.

    Failures carry their source lines, so the source of a finished cell is needed again only if a function or class that
    the cell has defined fails later. The sources of a hundred thousand cells would take 90 MB.
    """

    def __init__(self) -> None:
        self._last = ""
        self._kept: dict[str, list[weakref.ref[CodeType]]] = {}
        self._many = _SOME

    def begin(self, filename: str) -> list[str]:
        """Begin a cell with this file name; return the file names whose sources have been dropped."""
        gone = [self._last] if self._last and not self._is_needed(self._last) else []
        if len(self._kept) > self._many:
            gone += [name for name in self._kept if name not in gone and not self._is_needed(name)]
            self._many = _SOME + 2 * (len(self._kept) - len(gone))  # so that searches of all sources are rare
        for name in gone:
            self._kept.pop(name, None)
            linecache.cache.pop(name, None)
        self._last = filename
        return gone

    def compiled(self, code: CodeType) -> None:
        """Keep weak references to the functions and classes in ``code``, which is the current cell or a part of it."""
        if defined := [weakref.ref(inner) for inner in _codes_in(code)]:
            self._kept.setdefault(self._last, []).extend(defined)

    def _is_needed(self, filename: str) -> bool:
        codes = self._kept.get(filename)
        return codes is not None and any(code() is not None for code in codes)


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of the functions, classes and comprehensions in this code; each may outlive this code."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes_in(constant)


_MAGIC = re.compile(r"^\s*(%{1,2}\w|!)", re.MULTILINE)


class PlainShell:
    """Run cells with ``compile`` and ``exec`` in ``names``.

    Args:
        engine_id: the engine.
        names: the names.
        output: records the values of cells.
        cell_loop: runs ``await``.
        history: the dictionary for the histories ``In``, ``Out`` and ``_``; by default ``names``.
    """

    def __init__(
        self,
        engine_id: int,
        names: dict[str, Any],
        output: OutputRecorder,
        cell_loop: CellEventLoop,
        history: dict[str, Any] | None = None,
    ) -> None:
        self.names = names
        self._history = names if history is None else history
        self.execution_count = 1
        self._engine_id = engine_id
        self._output = output
        self._cell_loop = cell_loop
        self._cell_numbers = itertools.count(1)
        self._sources = CellSources()
        self._history.update(In=[""], Out={})

    def reset(self) -> None:
        """Remove every name of the user, and the histories."""
        self.names.clear()
        self.names.update(fresh_names(), In=[""], Out={})
        self.execution_count = 1

    def close(self) -> None:
        """Do nothing: all objects of this shell are bound to names."""

    def run_cell(self, code: str, *, silent: bool, store_history: bool) -> None:
        """Run a cell; its error is raised here."""
        store_history = store_history and not silent
        if store_history:
            self._history["In"].append(code)
        filename = f"<engine {self._engine_id}, cell {next(self._cell_numbers)}>"
        self._sources.begin(filename)
        linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
        try:
            tree = self._parse(code, filename)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            self._evaluate(tree, filename, "exec")
            if isinstance(last, ast.Expr):
                value = self._evaluate(ast.Expression(last.value), filename, "eval")
                if value is not None and not silent:
                    self._show(value)
        finally:
            if store_history:
                self._forget_cell(self.execution_count - KEPT_CELLS)
                self.execution_count += 1

    def _forget_cell(self, number: int) -> None:
        """Drop an old cell and its result."""
        forget_input(self._history["In"], number)
        results = self._history.get("Out")
        if isinstance(results, dict) and results.pop(number, None) is not None:
            self._history.pop(f"_{number}", None)

    def _parse(self, code: str, filename: str) -> ast.Module:
        try:
            return parse_code(code, filename)
        except SyntaxError as error:
            if _MAGIC.search(code):
                error.add_note(
                    "Magics and !shell need engines with a process of their own: use Cluster(backend='ray')."
                )
            raise

    def _evaluate(self, tree: ast.Module | ast.Expression, filename: str, mode: str) -> Any:
        code: CodeType = compile(tree, filename, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        self._sources.compiled(code)
        value = run_user_code(eval, code, self.names)
        if code.co_flags & inspect.CO_COROUTINE:
            value = self._cell_loop.run(self._cell_loop.user_code(value))
        return value

    def _show(self, value: Any) -> None:
        text = run_user_code(repr, value)
        self._history["Out"][self.execution_count] = value
        self._history.update(_=value, **{f"_{self.execution_count}": value})
        self._output.show(ExecuteResult(self.execution_count, {"text/plain": text}, {}))

    def complete(self, code: str, cursor: int) -> Completions:
        """Return names that complete ``code`` at ``cursor``."""
        return complete_names(self.names, code, cursor)

    def inspect(self, name: str, detail: int) -> str | None:
        """Describe ``name`` for people."""
        return describe(self.names, name, detail)


def fresh_names() -> dict[str, Any]:
    """Return the names of a new namespace.

    The namespace is called ``__main__``, so that functions and classes made in it are pickled by value, like those of a
    client's session.
    """
    return {"__name__": "__main__", "__builtins__": builtins}


def complete_names(names: dict[str, Any], code: str, cursor: int) -> Completions:
    """Return names and attributes that complete ``code`` at ``cursor``."""
    match = re.search(r"[\w.]*$", code[:cursor])
    text = match.group() if match else ""
    completer = rlcompleter.Completer(names)
    found = itertools.takewhile(lambda m: m is not None, (completer.complete(text, i) for i in itertools.count()))
    return Completions(tuple(m.rstrip("()") for m in found if m), cursor - len(text), cursor)


def describe(names: dict[str, Any], name: str, detail: int) -> str | None:
    """Return type, value, docstring and (``detail`` 1) source of an expression; None if it cannot be evaluated."""
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
