"""The history of engines as scripts: ``%pxhistory``."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from IPython.core.error import UsageError
from IPython.core.inputtransformer2 import TransformerManager

from nsactors.client import Client
from nsactors.errors import engine_ranges, printable
from nsactors.namespace.programs import left_out
from nsactors.protocol.control import Measure, Program

# The outcome of a request that raised no error; other outcomes are the names of exceptions, or one of the following.
_ENDED_BY_ITSELF = "ok"
_NOT_AGAIN = {
    "KeyboardInterrupt": "it was interrupted",
    "SystemExit": "it asked to exit",
    "expired": "it reached its time limit",
    "SyntaxError": "its syntax is wrong",
    "IndentationError": "its syntax is wrong",
    "TabError": "its syntax is wrong",
    "aborted": "it was cancelled",
    "refused": "it was refused",
}

_HELPER = '''
import ast
import asyncio
import inspect

_loop = asyncio.new_event_loop()


def _run_cell(*lines, failed=""):
    """Run a cell that awaits something, or that failed and left the names that it had bound until then."""
    code = compile("\\n".join(lines), "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    try:
        awaited = eval(code, globals())
        if inspect.iscoroutine(awaited):
            _loop.run_until_complete(awaited)
    except Exception as error:
        if not failed:
            raise
        print(f"as before, this cell failed: {error!r}")
'''


class Script(NamedTuple):
    """A program, whether it needs IPython because it uses magics, and the pushed values and cells that it lacks."""

    text: str
    needs_ipython: bool
    left_out: tuple[str, ...] = ()


def script_of(
    programs: Sequence[Program], engines: Sequence[int], startup: str, translate: Callable[[str], str]
) -> Script:
    """Join cells and pushes into one script.

    Args:
        programs: the cells and pushes, in order.
        engines: the engines that have run them, for the first line of the script.
        startup: the cell that engines run first; empty for none.
        translate: turns IPython's syntax into calls to ``get_ipython()``.
    """
    cells = ([Program(startup)] if startup.strip() else []) + list(programs)
    parts = [_cell(cell, translate) for cell in cells if cell.text.strip()]
    body = "\n\n".join(parts)
    needs_ipython = any("get_ipython()" in part for part in parts if not part.startswith("#"))
    head = [f"# The history of {engine_ranges(engines)}: {len(parts)} cells and pushes of plain values, in order."]
    missing = tuple(dict.fromkeys(each for cell in cells for each in left_out(cell.text)))
    if missing:
        head.append(f"# It lacks {', '.join(missing)}.")
    if needs_ipython:
        head.append("# It uses IPython's magics: run it with ipython.")
    if any(name == "display" for part in parts for name in _names(part)):
        head.append("from IPython.display import display")
    if "_run_cell(" in body:
        head.append(_HELPER.rstrip())
        body += "\n\n_loop.close()"
    return Script("\n".join(head) + "\n\n" + body + "\n", needs_ipython, missing)


def _cell(cell: Program, translate: Callable[[str], str]) -> str:
    text = cell.text.strip("\n")
    if cell.outcome in _NOT_AGAIN:
        return _commented(f"This is not run again, because {_NOT_AGAIN[cell.outcome]}:", text)
    try:
        code = translate(text + "\n").rstrip("\n")
        tree = ast.parse(code)
    except SyntaxError as error:
        return _commented(f"This is not run again, because its syntax is wrong ({error.msg}):", text)
    if cell.outcome != _ENDED_BY_ITSELF:
        return f"# This failed with {cell.outcome}.\n{_helped(code, cell.outcome)}"
    return _helped(code) if _awaits(tree) else code


def _helped(code: str, failed: str = "") -> str:
    lines = "".join(f"    {line!r},\n" for line in code.split("\n"))
    return f"_run_cell(\n{lines}{f'    failed={failed!r},' + chr(10) if failed else ''})"


def _commented(why: str, text: str) -> str:
    return "\n".join([f"# {why}", *(f"#     {line}".rstrip() for line in text.split("\n"))])


def _awaits(tree: ast.Module) -> bool:
    """Return whether a cell has an ``await`` outside of functions."""
    try:
        compile(tree, "<cell>", "exec")
    except SyntaxError:
        return True
    return False


def _names(part: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(part)):
        if isinstance(node, ast.Name):
            yield node.id


ANSWER_S = 1.0
NUMBER = "{engine}"  # stands for an engine's id in the name of a file


def show_scripts(client: Client, engine_ids: Sequence[int]) -> None:
    """Print the scripts of engines; equal scripts are printed once."""
    for _, script in _scripts(client, engine_ids):
        print(printable(script.text))


def write_script(client: Client, engine_ids: Sequence[int], name: str) -> None:
    """Write the script of engines into a file; one file for each engine if ``name`` contains ``{engine}``.

    Raises:
        UsageError: if the file exists or cannot be written, or the engines have different scripts and ``name`` is that
            of one file.
    """
    if NUMBER in name:
        chosen = [(f"engine {i}", name.replace(NUMBER, str(i)), _scripts(client, [i])[0][1]) for i in engine_ids]
    else:
        scripts = _scripts(client, engine_ids)
        if len(scripts) > 1:
            raise UsageError(
                f"{engine_ranges(engine_ids)} have different histories: name one engine, as in %pxhistory "
                f"{engine_ids[0]} -f {name}, or write a file for each: history-{NUMBER}.py"
            )
        ((engines, script),) = scripts
        chosen = [(engine_ranges(engines), name, script)]
    for _, path, _ in chosen:
        if Path(path).exists():
            raise UsageError(f"{path} exists already: remove it, or name another file")
    for whose, path, script in chosen:
        try:
            Path(path).write_text(script.text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"%pxhistory -f cannot write {path!r}: {error.strerror}") from None
        interpreter = "ipython" if script.needs_ipython else "python"
        print(f"The history of {whose} is in {path}: run it with {interpreter} {path}")
        if script.left_out:
            print(f"It has no values of what was pushed and is long or not plain: {', '.join(script.left_out)}")


def _scripts(client: Client, engine_ids: Sequence[int]) -> list[tuple[list[int], Script]]:
    """Return the different scripts, each with the engines that have run it."""
    controller = client.session.controller
    # Engines report finished requests with their next message, so any query makes the history complete.
    controller.query(engine_ids, Measure(None), ANSWER_S)
    translate = TransformerManager().transform_cell
    startup = ""
    groups: dict[tuple[Program, ...], list[int]] = {}
    for engine_id in engine_ids:
        startup, programs = controller.programs(engine_id)
        groups.setdefault(tuple(programs), []).append(engine_id)
    return [(engines, script_of(programs, engines, startup, translate)) for programs, engines in groups.items()]
