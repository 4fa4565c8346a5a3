"""Measures of the source code that matter to its readers: ``make house``.

No test depends on these figures: they inform, and readers decide. The static figures are taken from the sources of a
checkout (``--tree``, this one by default), the traced figures from calls on the local transport, in another process.
"""

from __future__ import annotations

import argparse
import ast
import collections
import io
import itertools
import re
import statistics
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SHORT_LINES = 60
PRONOUNS = frozenset({"what", "who", "whoever", "somebody", "nobody", "anybody"})
OPENINGS = frozenset({"What", "Who", "Whoever", "Whether", "Where", "How", "Somebody", "Nobody"})

Graph = Mapping[str, set[str]]

# Traced in a process of its own, so that the checkout under measure is the one that is imported.
PROGRAM = """
import sys, threading
from pathlib import Path
from nsactors import Cluster
import nsactors

TIMES = 20
package = str(Path(nsactors.__file__).parent)
calls, names = [], set()

def look(frame, event, argument):
    file = frame.f_code.co_filename
    if event in ("call", "return") and file.startswith(package) and file.endswith(".py"):  # generated code has no file
        if event == "call":
            calls.append((file, frame.f_code.co_qualname))
        names.update(n for n, v in frame.f_locals.items() if type(v) is str and v == "a = 1")

def traced(function):
    function()  # once before: what is imported or made at the first call belongs to no call
    threading.setprofile_all_threads(look) if hasattr(threading, "setprofile_all_threads") else None
    traces = []
    for _ in range(TIMES):  # the shortest counts: in others, engines also report, or steal tasks
        calls.clear(), names.clear()
        sys.setprofile(look)
        function()
        sys.setprofile(None)
        # Comprehensions are functions of their own up to Python 3.11.
        named = {call for call in calls if not call[1].endswith(("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"))}
        traces.append((len(named), len({file for file, _ in named}), len(names)))
    print(*min(traces))

threading.setprofile(look)  # before engines and readers have their threads
with Cluster(n=2, backend="local") as rc:
    view, balanced = rc[:1], rc.load_balanced_view()
    traced(lambda: view.execute("a = 1", block=True))
    traced(lambda: balanced.map(abs, [1, 2, 3, 4]).get(30))
"""


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed module of the package."""

    name: str
    source: str
    tree: ast.Module
    is_package: bool

    @property
    def unit(self) -> str:
        """The package to which the module belongs: the second part of its name."""
        return [*self.name.split("."), ""][1]


def read_modules(tree: Path) -> list[Module]:
    """Parse the modules of the package in a checkout."""
    modules = []
    for path in sorted((tree / "nsactors").rglob("*.py")):
        parts = path.relative_to(tree).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        source = path.read_text(encoding="utf-8")
        modules.append(Module(".".join(parts[: len(parts) - is_package]), source, ast.parse(source), is_package))
    return modules


def imports_of(node: ast.AST, *, deferred: bool = True) -> Iterator[tuple[str, str]]:
    """Yield the module and the name of each import of the package; without ``deferred``, of imports at load only."""
    for child in ast.iter_child_nodes(node):
        is_typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if isinstance(child, ast.ImportFrom) and (child.module or "").partition(".")[0] == "nsactors":
            yield from ((child.module or "", alias.name) for alias in child.names)
        elif deferred or not (is_typing or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from imports_of(child, deferred=deferred)


def arrows(modules: list[Module], *, deferred: bool = True) -> dict[str, set[str]]:
    """Map each module to the modules that it imports from; the front of the package is not counted."""
    known = {module.name for module in modules}
    found: dict[str, set[str]] = {}
    for module in modules:
        if module.name != "nsactors":
            targets = imports_of(module.tree, deferred=deferred)
            modules_meant = {f"{base}.{name}" if f"{base}.{name}" in known else base for base, name in targets}
            found[module.name] = modules_meant & known - {module.name, "nsactors"}
    return found


def between_packages(graph: Graph, modules: list[Module]) -> dict[str, set[str]]:
    """Map each package to those that its modules import from."""
    units = {module.name: module.unit for module in modules}
    found: dict[str, set[str]] = collections.defaultdict(set)
    for name, targets in graph.items():
        found[units[name]] |= {units[target] for target in targets} - {units[name]}
    return found


def circles(graph: Graph) -> list[set[str]]:
    """Return the groups of nodes that reach each other."""
    reach = {node: _reachable(graph, node) for node in graph}
    groups = {frozenset({node, *(other for other in reach[node] if node in reach.get(other, ()))}) for node in graph}
    return [set(group) for group in groups if len(group) > 1]


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    left = [start]
    while left:
        new = graph.get(left.pop(), set()) - found
        found |= new
        left += new
    return found


def prose_of(module: Module) -> Iterator[str]:
    """Yield docstrings and comments without code spans."""
    texts = [_docstring(node) or "" for node in ast.walk(module.tree)]
    tokens = tokenize.generate_tokens(io.StringIO(module.source).readline)
    texts += [token.string for token in tokens if token.type == tokenize.COMMENT]
    return (re.sub(r"``.+?``|`.+?`|>>> .*", " ", text, flags=re.DOTALL) for text in texts if text)


def _docstring(node: ast.AST) -> str | None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return ast.get_docstring(node)
    return None


def code_lines(module: Module) -> int:
    """Count lines without blanks, comments and docstrings."""
    docstrings = set()
    for node in ast.walk(module.tree):
        if _docstring(node) is not None:
            first = node.body[0]  # type: ignore[attr-defined]
            docstrings |= set(range(first.lineno, first.end_lineno + 1))
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(module.source).readline):
        if token.type not in skipped:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def inheritance(modules: list[Module], package: str) -> list[str]:
    """Return the longest chain of our classes, from a class of one package up."""
    bases: dict[str, list[str]] = {}
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [re.split(r"[.\[]", ast.unparse(base))[0] for base in node.bases]

    def chain(name: str, seen: tuple[str, ...] = ()) -> list[str]:
        above = [chain(base, (*seen, name)) for base in bases.get(name, []) if base in bases and base not in seen]
        return [name, *max(above, key=len, default=[])]

    starts = [n.name for m in modules if m.unit == package for n in ast.walk(m.tree) if isinstance(n, ast.ClassDef)]
    return max(map(chain, starts), key=len, default=[])


def twice(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once."""
    return sorted(name for name, count in collections.Counter(names).items() if count > 1)


def static_measures(tree: Path) -> Iterator[tuple[str, str]]:
    """Yield measures of the sources, by name."""
    modules = read_modules(tree)
    lengths = [len(module.source.splitlines()) for module in modules]
    short = [module for module, length in zip(modules, lengths, strict=True) if length < SHORT_LINES]
    fronts = sum(module.is_package for module in short)
    yield (
        "files, under 60 lines, median",
        (f"{len(modules)}, {len(short)} ({fronts} fronts), {statistics.median(lengths):.0f}"),
    )
    every, at_load = arrows(modules), arrows(modules, deferred=False)
    yield "arrows between files", f"{sum(map(len, every.values())):,}"
    for name, graph in (("at load", at_load), ("with lazy and typing imports", every)):
        found = circles(between_packages(graph, modules))
        yield f"circles of packages {name}", "; ".join(", ".join(sorted(group)) for group in found) or "none"
    words = [word.lower() for m in modules for text in prose_of(m) for word in re.findall(r"[A-Za-z']+", text)]
    yield "pronoun words per 1,000", f"{1000 * sum(word in PRONOUNS for word in words) / len(words):.1f}"
    starts = (re.match(r"\w*", _docstring(node) or "") for m in modules for node in ast.walk(m.tree))
    yield "docstrings that start with one", str(sum(start is not None and start[0] in OPENINGS for start in starts))
    # The names in ``ipyparallel`` are those of another library, on purpose.
    own = [module for module in modules if module.unit != "ipyparallel"]
    classes = twice(n.name for m in own for n in ast.walk(m.tree) if isinstance(n, ast.ClassDef))
    yield "class names that occur twice", ", ".join([str(len(classes)), *classes])
    leaves = twice(m.name.rpartition(".")[2] for m in own if not m.is_package)
    yield "module names that occur twice", ", ".join([str(len(leaves)), *leaves])
    yield "code lines", f"{sum(map(code_lines, modules)):,}"
    for package in ("views", "results"):
        yield f"longest inheritance, {package}", " < ".join(inheritance(modules, package))


def traced_measures(tree: Path) -> Iterator[tuple[str, str]]:
    """Yield measures of calls on the local transport, client and engine."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        check=False,
        cwd=tree,
        env={"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        yield "traced calls", done.stderr.strip().splitlines()[-1]
        return
    for call, line in zip(('execute("a = 1")', "lv.map of four items"), done.stdout.splitlines(), strict=True):
        functions, files, names = line.split()
        of_code = f", {names} names of its code" if "execute" in call else ""
        yield call, f"{functions} functions in {files} files{of_code}"


def main() -> None:
    """Print the measures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[2], help="a checkout; this one by default")
    tree = parser.parse_args().tree.resolve()
    for name, value in itertools.chain(static_measures(tree), traced_measures(tree)):
        print(f"{name:<50}{value}")


if __name__ == "__main__":
    main()
