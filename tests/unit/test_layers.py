"""The package keeps its layers: imports point left, Ray stays behind the transport, modules stay small."""

import ast
import functools
import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest

import nsactors

PACKAGE = pathlib.Path(__file__).parents[2] / "nsactors"

# Units of the package, left to right; those of one row may not import each other.
ORDER: tuple[frozenset[str], ...] = (
    frozenset({"_frozen", "_version"}),
    frozenset({"errors"}),
    frozenset({"error"}),
    frozenset({"protocol"}),
    frozenset({"recovery", "services", "results"}),
    frozenset({"namespace", "membership"}),
    frozenset({"inside"}),
    frozenset({"engine_actor", "controller"}),
    frozenset({"system"}),
    frozenset({"transport"}),
    frozenset({"session"}),
    frozenset({"tasks"}),
    frozenset({"views"}),
    frozenset({"client"}),
    frozenset({"cluster", "models", "mpi"}),
    frozenset({"magics"}),
    frozenset({"cli"}),
    frozenset({"ipyparallel", "testing"}),
)
RANKS = {unit: rank for rank, row in enumerate(ORDER) for unit in row}

# (importer, imported) -> why this one may point right, provided that it is deferred.
DEFERRED_EXCEPTIONS = {
    ("cli", "ipyparallel"): "`nsactors doctor --ipyparallel` reads programs, as the package's own command does",
    ("views", "mpi"): "rc[:].mpi() makes a World of a view's engines, and users expect that on the view",
    ("views", "models"): "rc[:].communicator() and rc[:].bsp() stand beside rc[:].mpi()",
}

# Modules of one package that import each other, lazily or for types: this list only shrinks.
CIRCLES: tuple[frozenset[str], ...] = (
    frozenset(
        {
            "nsactors.models.bsp",
            "nsactors.models.communicator",
            "nsactors.views.direct",
        }
    ),
    frozenset(
        {
            "nsactors.errors.failure",
            "nsactors.errors.remote",
            "nsactors.errors.rendering",
        }
    ),
    frozenset(
        {
            "nsactors.ipyparallel.client.asyncresult",
            "nsactors.ipyparallel.client.client",
            "nsactors.ipyparallel.client.magics",
            "nsactors.ipyparallel.client.records",
            "nsactors.ipyparallel.client.remotefunction",
            "nsactors.ipyparallel.client.view",
            "nsactors.ipyparallel.controller.dependency",
            "nsactors.ipyparallel.dask",
        }
    ),
    frozenset(
        {
            "nsactors.protocol.arguments",
            "nsactors.protocol.serialize",
        }
    ),
    frozenset(
        {
            "nsactors.results.async_result",
            "nsactors.results.display.progress",
            "nsactors.results.display.timeline",
            "nsactors.results.interrupting",
        }
    ),
    frozenset(
        {
            "nsactors.session.engine_directory",
            "nsactors.session.other_clients",
            "nsactors.session.session",
        }
    ),
)

# Made of what every user may import, and of nothing else.
USERS = {"ipyparallel", "testing"}

# Decisions and values: no I/O, threads or clocks, and time is an argument. A module is pure, whatever folder it is in.
PURE = frozenset(
    {
        "errors.exception_state",
        "errors.exceptions",
        "errors.failure",
        "errors.formatting",
        "errors.joining",
        "errors.remote",
        "errors.rendering",
        "errors.services",
        "errors.tasks",
        "errors.warnings",
        "membership.history",
        "membership.members",
        "protocol.arguments",
        "protocol.classes",
        "protocol.client_modules",
        "protocol.control",
        "protocol.definitions",
        "protocol.engine_info",
        "protocol.functions",
        "protocol.map_functions",
        "protocol.messages",
        "protocol.output",
        "protocol.partition",
        "protocol.process",
        "protocol.read_only",
        "protocol.reducers",
        "protocol.salvage",
        "protocol.sequencing",
        "protocol.serialize",
        "protocol.stored_replies",
        "protocol.targets",
        "protocol.tasks",
        "protocol.wire",
        "recovery.encoding",
        "recovery.journal",
        "recovery.replay",
        "recovery.replication",
        "results.display.line_editor",
        "results.display.schedule",
        "services.keys",
        "services.mailboxes",
        "services.state_machine",
        "services.tuple_index",
        "services.tuple_space",
        "tasks.batching",
        "tasks.messages",
        "tasks.policies",
        "tasks.records",
        "tasks.scheduler_state",
        "tasks.task_table",
    }
)
IMPURE_LIBRARIES = {
    "IPython",
    "asyncio",
    "multiprocessing",
    "pathlib",
    "ray",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
}
HEAVY_LIBRARIES = {"numpy", "rich"}
FIRST_TO_IMPORT_RAY = "nsactors.transport.ray.runtime"

# Only the absurd is refused: how large a module should be is a matter of what it is about.
MAX_MODULE_LINES = 800
MAX_FUNCTION_LINES = 100


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name, and when it is imported: with the module, in a call, or for type checkers."""

    target: str
    line: int
    when: Literal["load", "call", "typing"]

    @property
    def library(self) -> str:
        return self.target.partition(".")[0]

    @property
    def unit(self) -> str:
        return unit_of(self.target)


@dataclass(frozen=True)
class Module:
    """A parsed module of the package."""

    name: str
    source: str
    is_package: bool = False

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def unit(self) -> str:
        return unit_of(self.name)

    @functools.cached_property
    def imports(self) -> list[Import]:
        return list(self._walk(self.tree, "load"))

    def _walk(self, node: ast.AST, when: Literal["load", "call", "typing"]) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.expr():  # there are none in expressions, and they are most of a module
                    pass
                case ast.Import(names=names):
                    yield from (Import(name.name, child.lineno, when) for name in names)
                case ast.ImportFrom(names=names):
                    base = self._base(child)
                    yield from (Import(f"{base}.{name.name}", child.lineno, when) for name in names)
                case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                    yield from self._walk(ast.Module(child.body, []), "typing")
                    yield from self._walk(ast.Module(child.orelse, []), when)
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    yield from self._walk(child, "call")
                case _:
                    yield from self._walk(child, when)

    def _base(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        parents = self.name.split(".")
        kept = parents[: len(parents) - node.level + self.is_package]
        return ".".join([*kept, *([node.module] if node.module else [])])


def unit_of(dotted: str) -> str:
    """The second part of a dotted name: ``core`` for ``nsactors.protocol.messages``."""
    return [*dotted.split("."), ""][1]


@functools.cache
def package_modules() -> list[Module]:
    modules = []
    for path in sorted(PACKAGE.rglob("*.py")):
        is_package = path.name == "__init__.py"
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if is_package else parts)
        modules.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return modules


def layer_violations(module: Module) -> list[str]:
    """Imports of ``module`` that point right or sideways, or that go through the package's front door."""
    found = []
    for imported in module.imports:
        if imported.library != "nsactors":
            continue
        if module.name == "nsactors":
            allowed = imported.when != "load" or imported.unit == "_version"
        elif imported.unit == module.unit:
            allowed = True
        elif module.unit in USERS or module.name == "nsactors.error":
            allowed = is_public(imported.target)
        elif (module.unit, imported.unit) in DEFERRED_EXCEPTIONS:
            allowed = imported.when != "load"
        else:
            # A unit that no row lists is never allowed, nor is a name taken from `nsactors` itself.
            allowed = RANKS.get(imported.unit, len(ORDER)) < RANKS.get(module.unit, -1)
        if not allowed:
            found.append(f"{module.name}:{imported.line} imports {imported.target} ({imported.when})")
    return found


def is_public(target: str) -> bool:
    """Return whether the package, or its module of errors, exports a name."""
    name = target.removeprefix("nsactors.errors.").removeprefix("nsactors.")
    exported = nsactors.errors.__all__ if target.startswith("nsactors.errors.") else nsactors.__all__
    return target == "nsactors" or name in exported


def purity_violations(module: Module) -> list[str]:
    """Imports that let I/O, threads or clocks into pure code, or that make it slow to load."""
    if module.name.removeprefix("nsactors.") not in PURE:
        return []
    return [
        f"{module.name}:{imported.line} imports {imported.target} ({imported.when})"
        for imported in module.imports
        if imported.library in IMPURE_LIBRARIES or (imported.library in HEAVY_LIBRARIES and imported.when == "load")
    ]


def ray_violations(module: Module) -> list[str]:
    """Imports of Ray outside the Ray transport, or in it before the module that sets Ray's environment."""
    if module.name == FIRST_TO_IMPORT_RAY:
        return []
    runtime_loaded, found = False, []
    for imported in module.imports:
        runtime_loaded |= imported.when == "load" and is_within(imported.target, FIRST_TO_IMPORT_RAY)
        if imported.library != "ray":
            continue
        on_ray = is_within(module.name, "nsactors.transport.ray")
        if not on_ray or (imported.when == "load" and not runtime_loaded):
            found.append(f"{module.name}:{imported.line} imports {imported.target} ({imported.when})")
    return found


def is_within(dotted: str, package: str) -> bool:
    return dotted == package or dotted.startswith(f"{package}.")


def circles(modules: list[Module]) -> list[frozenset[str]]:
    """Modules that reach each other through imports of any kind; fronts of packages are not counted."""
    names = {module.name for module in modules if not module.is_package}
    graph = {
        module.name: {base for i in module.imports for base in (i.target, i.target.rpartition(".")[0]) if base in names}
        for module in modules
        if not module.is_package
    }

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        left = [start]
        while left:
            new = graph.get(left.pop(), set()) - found
            found |= new
            left += new
        return found

    reach = {name: reachable(name) for name in graph}
    return sorted({frozenset(o for o in reach[n] if n in reach[o]) for n in graph if n in reach[n]}, key=min)


def oversized(module: Module, kinds: tuple[type[ast.stmt], ...], limit: int) -> list[str]:
    sizes = (
        (f"{module.name}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(module.tree)
        if isinstance(node, kinds) and isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return [f"{name}: {lines} lines" for name, lines in sizes if lines >= limit]


def missing_from_maps(modules: list[Module]) -> list[str]:
    """Modules whose name does not occur in what their package says of itself."""
    words = {m.name: set(re.findall(r"\w+", ast.get_docstring(m.tree) or "")) for m in modules}
    homes = ((module.name, *module.name.rpartition(".")) for module in modules if "." in module.name)
    return [name for name, package, _, own in homes if own not in words[package]]


# The package as it is.


def test_every_module_belongs_to_a_layer() -> None:
    assert {module.unit for module in package_modules()} <= {"", *RANKS}


def test_imports_point_left_only() -> None:
    assert [found for module in package_modules() for found in layer_violations(module)] == []


def test_modules_import_each_other_only_in_known_circles() -> None:
    assert [group for group in circles(package_modules()) if not any(group <= known for known in CIRCLES)] == []


def test_pure_modules_exist() -> None:
    assert PURE - {module.name.removeprefix("nsactors.") for module in package_modules()} == set()


def test_pure_modules_stay_pure_and_quick_to_load() -> None:
    assert [found for module in package_modules() for found in purity_violations(module)] == []


def test_ray_is_imported_by_the_ray_transport_alone() -> None:
    assert [found for module in package_modules() for found in ray_violations(module)] == []


def test_each_package_says_what_is_in_it() -> None:
    assert missing_from_maps(package_modules()) == []


def test_modules_stay_below_the_absurd() -> None:
    lines = {module.name: len(module.source.splitlines()) for module in package_modules()}
    assert [f"{name}: {count} lines" for name, count in lines.items() if count >= MAX_MODULE_LINES] == []


def test_functions_stay_below_the_absurd() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert [s for m in package_modules() for s in oversized(m, kinds, MAX_FUNCTION_LINES)] == []


# The rules themselves, on invented modules: a rule that finds nothing must be able to find something.


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("nsactors", "def __getattr__(name):\n    import nsactors.client"),
        ("nsactors", "if TYPE_CHECKING:\n    from nsactors.client import Client"),
        ("nsactors.protocol.wire", "from nsactors.errors import NsactorsError"),
        ("nsactors.protocol.wire", "from nsactors.protocol import messages"),
        ("nsactors.protocol.wire", "from . import messages"),
        ("nsactors.cluster", "from nsactors.client import Client"),
        ("nsactors.client", "def view(self):\n    from nsactors.views.direct import DirectView"),
        ("nsactors.client", "from nsactors.views.direct import DirectView"),
        ("nsactors.views", "def mpi(self):\n    from nsactors.mpi import World"),
        ("nsactors", "from nsactors._version import __version__"),
        ("nsactors.cli.main", "from nsactors._version import __version__"),
        ("nsactors.cli.main", "from nsactors import errors"),
        ("nsactors.ipyparallel.util", "import nsactors\nfrom nsactors import Client, errors"),
        ("nsactors.ipyparallel.util", "from nsactors.errors import NsactorsError"),
        ("nsactors.ipyparallel.util", "from nsactors.ipyparallel import error"),
    ],
)
def test_an_import_to_the_left_is_allowed(name: str, source: str) -> None:
    assert layer_violations(Module(name, source)) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("nsactors", "from nsactors.client import Client"),
        ("nsactors.errors.tree", "from nsactors.protocol import messages"),
        ("nsactors.errors.tree", "from ..protocol import messages"),
        ("nsactors.protocol.wire", "def late():\n    import nsactors.client"),
        ("nsactors.protocol.wire", "if TYPE_CHECKING:\n    from nsactors.transport import port"),
        ("nsactors.engine_actor", "import nsactors.controller"),
        ("nsactors.controller", "import nsactors.engine_actor"),
        ("nsactors.results", "from nsactors.client import Client"),
        ("nsactors.views", "from nsactors.client import Client"),
        ("nsactors.views", "if TYPE_CHECKING:\n    from nsactors.client import Client"),
        ("nsactors.views", "class C:\n    from nsactors.client import Client"),
        ("nsactors.mpi", "from nsactors.models import farm"),
        ("nsactors.cli.main", "import nsactors.unheard_of"),
        ("nsactors.cli.main", "from nsactors import Client"),
        ("nsactors.cli.main", "from nsactors import __version__"),
        ("nsactors.unheard_of", "import nsactors.errors"),
        ("nsactors.ipyparallel.util", "from nsactors.client import Client"),
        ("nsactors.ipyparallel.util", "import nsactors.views.direct"),
        ("nsactors.cli.main", "import nsactors.ipyparallel"),
    ],
)
def test_an_import_to_the_right_or_sideways_is_found(name: str, source: str) -> None:
    assert len(layer_violations(Module(name, source))) == 1


def test_a_relative_import_in_a_package_starts_at_the_package() -> None:
    assert layer_violations(Module("nsactors.protocol", "from .messages import Apply", is_package=True)) == []
    assert len(layer_violations(Module("nsactors.protocol", "from ..views import direct", is_package=True))) == 1


@pytest.mark.parametrize(
    "source", ["import time", "from asyncio import sleep", "def f():\n    import ray", "import numpy as np"]
)
def test_an_impure_or_heavy_import_in_a_pure_module_is_found(source: str) -> None:
    assert len(purity_violations(Module("nsactors.protocol.wire", source))) == 1
    assert purity_violations(Module("nsactors.client", source)) == []


def test_a_pure_module_may_import_numpy_in_a_function_or_for_types() -> None:
    source = "if TYPE_CHECKING:\n    import numpy\ndef f():\n    import numpy"
    assert purity_violations(Module("nsactors.protocol.serialize", source)) == []


@pytest.mark.parametrize(
    ("name", "source", "count"),
    [
        ("nsactors.transport.ray.runtime", "import ray", 0),
        ("nsactors.transport.ray.engines", "import ray", 1),
        ("nsactors.transport.ray.engines", "def f():\n    import ray", 0),
        ("nsactors.transport.ray.engines", "from nsactors.transport.ray import runtime\nimport ray", 0),
        ("nsactors.transport.ray.engines", "import ray\nfrom nsactors.transport.ray import runtime", 1),
        ("nsactors.transport.local", "def f():\n    import ray", 1),
        ("nsactors.controller", "if TYPE_CHECKING:\n    import ray", 1),
        ("nsactors.client", "def f():\n    from ray.exceptions import RayError", 1),
        ("nsactors.magics.px", "import rayon", 0),
    ],
)
def test_ray_may_be_imported_where_its_environment_is_set(name: str, source: str, count: int) -> None:
    assert len(ray_violations(Module(name, source))) == count


def test_a_module_that_its_package_does_not_mention_is_found() -> None:
    package = Module("nsactors.views", '"""``told`` is mentioned."""', is_package=True)
    front = Module("nsactors", '"""views"""', is_package=True)
    modules = [front, package, Module("nsactors.views.told", ""), Module("nsactors.views.untold", "")]
    assert missing_from_maps(modules) == ["nsactors.views.untold"]


def test_an_oversized_function_is_named_with_its_length() -> None:
    module = Module("nsactors.client", "class C:\n    def f(self):\n" + "        pass\n" * 59)
    assert oversized(module, (ast.FunctionDef,), 60) == ["nsactors.client.f: 60 lines"]
    assert oversized(module, (ast.ClassDef,), 60) == ["nsactors.client.C: 61 lines"]
    assert oversized(module, (ast.FunctionDef,), 61) == []


def test_modules_that_import_each_other_are_found() -> None:
    first = Module("nsactors.a", "def f():\n    from nsactors.b import g")
    second = Module("nsactors.b", "if TYPE_CHECKING:\n    from nsactors import a")
    third = Module("nsactors.c", "from nsactors.a import f")
    assert circles([first, second, third]) == [frozenset({"nsactors.a", "nsactors.b"})]
