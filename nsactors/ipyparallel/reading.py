"""A reader that finds lines to change in programs and notebooks written for ipyparallel."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nsactors.ipyparallel.arguments import OF_CLIENTS, OF_CLUSTERS

__all__ = ["Finding", "Reader", "findings_in"]

THEIRS = "ipyparallel"
OLD = ("IPython.parallel", "IPython.kernel")

# Names of methods, and how they differ here.
_METHODS = {
    "become_dask": "starts the scheduler in this process; for engines of other machines, scheduler_args gives the host",
    "become_distributed": "starts the scheduler in this process, for engines of this machine",
    "bind_kernel": "prints the command that opens a console, in place of %connect_info and %qtconsole",
    "db_query": "knows the last 10,000 requests; of other clients only those in the cluster's history",
    "hub_history": "knows the last 10,000 requests",
    "purge_everything": "is not needed: nothing grows",
    "purge_hub_results": "is not needed: nothing grows",
    "purge_local_results": "is not needed: nothing grows",
    "purge_results": "is not needed: nothing grows",
    "resubmit": "knows the last 200 calls of this client",
    "send_apply_request": "does not exist: use view.apply_async()",
    "send_execute_request": "does not exist: use view.execute()",
    "spin": "does nothing: answers come by themselves",
    "wait_for_send": "does nothing: arguments may be changed as soon as a call returns",
}
_OF_PYTHON = ("capture", "prun", "time", "timeit")  # magics whose cells are Python
_PRIVATE = (
    "_build_targets",
    "_children",
    "_idents",
    "_outstanding_dict",
    "_really_apply",
    "_socket",
    "_tracker",
)
_KEYWORDS = {"Client": ("profile", *OF_CLIENTS), "Cluster": ("controller", *OF_CLUSTERS)}


class Finding(NamedTuple):
    """A line that must change, or behaves differently."""

    line: int
    text: str


def findings_in(source: str) -> list[Finding]:
    """Return the findings in a program, by line; magics of IPython are skipped.

    Args:
        source: Python code of a file or a notebook's cell.
    """
    head = re.match(r"%%(\w+).*", source)
    if head is not None and not _runs_python(head[1]):
        return []
    code = source if head is None else f"pass{source[head.end() :]}"
    try:
        tree = _parsed(code)
    except SyntaxError as error:
        return [Finding(error.lineno or 0, "cannot be read as Python, so nothing is known of this part")]
    found = [finding for node in ast.walk(tree) for finding in _of_node(node)]
    return sorted(set(found))


def _runs_python(magic: str) -> bool:
    """Return whether the cells of a magic are Python: those of ``%%px`` are, those of ``%%bash`` are not."""
    return magic.startswith("px") or magic in _OF_PYTHON


def _parsed(code: str) -> ast.AST:
    try:
        return ast.parse(code)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        return ast.parse(TransformerManager().transform_cell(code))


def _of_node(node: ast.AST) -> Iterator[Finding]:
    match node:
        case ast.Import(names=names):
            for name in names:
                yield from _of_module(node.lineno, name.name)
        case ast.ImportFrom(module=str(module), names=names):
            yield from _of_module(node.lineno, module)
            for name in names:
                yield from _of_name(node.lineno, module, name.name)
        case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), keywords=keywords):
            for keyword in keywords:
                if keyword.arg in _KEYWORDS.get(called, ()):
                    yield Finding(node.lineno, f"{called}({keyword.arg}=...) does nothing: clusters have names")
                launched = called == "Cluster" and keyword.arg in ("engines", "engine_launcher_class")
                if launched and _text_of(keyword.value) not in ("local", "mpi"):
                    yield Finding(
                        node.lineno, f"Cluster({keyword.arg}=...) takes 'local' and 'mpi': see `nsactors launch`"
                    )
        case ast.Attribute(attr=name) if name in _METHODS:
            yield Finding(node.lineno, f"{name} {_METHODS[name]}")
        case ast.Attribute(attr=name) if name in _PRIVATE:
            yield Finding(node.lineno, f"{name} is private to ipyparallel and does not exist here")


def _text_of(node: ast.expr) -> str | None:
    return node.value.lower() if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _of_module(line: int, module: str) -> Iterator[Finding]:
    if module.startswith(OLD):
        yield Finding(line, f"{module} is ipyparallel's older name: import nsactors.ipyparallel")
    elif module.partition(".")[0] == THEIRS and not _exists(module):
        yield Finding(line, f"{module} is not provided: see the page on ipyparallel for its replacement")


def _of_name(line: int, module: str, name: str) -> Iterator[Finding]:
    if module.partition(".")[0] != THEIRS or name == "*" or not _exists(module):
        return
    ours = importlib.import_module(f"nsactors.{module}")
    if not hasattr(ours, name) and not _exists(f"{module}.{name}"):
        yield Finding(line, f"{module}.{name} is not provided: see the page on ipyparallel for its replacement")


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(f"nsactors.{module}") is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


@dataclass
class Reader:
    """Reads programs and notebooks, and counts.

    Attributes:
        files: the number of programs and notebooks that have been read.
        users: the number of files that mention ipyparallel; other files have no findings.
        found: the number of findings.
    """

    files: int = 0
    users: int = 0
    found: int = 0

    def read(self, path: Path) -> Iterator[tuple[str, Finding]]:
        """Read a program, a notebook, or all in a folder; yield the place and the text of each finding.

        Args:
            path: a ``.py``, ``.ipy`` or ``.ipynb`` file, or a folder.
        """
        paths: Iterable[Path] = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
        for file in paths:
            if file.suffix not in (".py", ".ipy", ".ipynb"):
                continue
            self.files += 1
            text = file.read_text(encoding="utf-8-sig", errors="replace")
            if not any(name in text for name in (THEIRS, *OLD)):
                continue
            self.users += 1
            for place, source in _parts(file, text):
                for finding in findings_in(source):
                    self.found += 1
                    yield f"{place}:{finding.line}", finding

    def summary(self) -> str:
        """Return a sentence about the numbers of files and findings."""
        if not self.files:
            return "0 files read: there is no .py, .ipy or .ipynb file"
        read = f"{self.files:,} file{'s' * (self.files != 1)} read, {self.users:,} of them for ipyparallel"
        if not self.users:
            return read
        need = f"{self.found:,} line{'s need' if self.found != 1 else ' needs'} a look"
        return f"{read}: {need}; everything else runs as it is"


def _parts(file: Path, text: str) -> Iterator[tuple[str, str]]:
    if file.suffix != ".ipynb":
        yield str(file), text
        return
    try:
        cells = json.loads(text).get("cells", [])
    except json.JSONDecodeError:
        yield str(file), "?"
        return
    for number, cell in enumerate(cells, start=1):
        if cell.get("cell_type") == "code":
            yield f"{file}, cell {number}", "".join(cell.get("source", []))
