"""The package keeps its layers: imports point left, Ray stays behind the transport, modules stay small."""

import ast
import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest

PACKAGE = pathlib.Path(__file__).parents[2] / "nsactors"

# Units of the package, left to right; those of one row may not import each other.
ORDER: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"core"}),
    frozenset({"namespace"}),
    frozenset({"engine_actor", "controller"}),
    frozenset({"transport"}),
    frozenset({"results"}),
    frozenset({"client"}),
    frozenset({"cluster"}),
    frozenset({"views"}),
    frozenset({"models", "mpi"}),
    frozenset({"magics"}),
    frozenset({"cli"}),
)
RANKS = {unit: rank for rank, row in enumerate(ORDER) for unit in row}

# (importer, imported) -> why this one may point right, provided that it is deferred.
DEFERRED_EXCEPTIONS = {
    ("client", "views"): "rc[:] builds a DirectView, and users expect that on the client itself",
    ("views", "mpi"): "rc[:].mpi() makes a World of a view's engines, and users expect that on the view",
    ("views", "models"): "rc[:].communicator() and rc[:].bsp() stand beside rc[:].mpi()",
}

PURE_UNITS = {"errors", "core"}
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
FIRST_TO_IMPORT_RAY = "nsactors.transport.ray_runtime"

MAX_MODULE_LINES = 400
MAX_CLASS_LINES = 300
MAX_FUNCTION_LINES = 60


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


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed module of the package."""

    name: str
    source: str
    is_package: bool = False

    @property
    def unit(self) -> str:
        return unit_of(self.name)

    def imports(self) -> list[Import]:
        return list(self._walk(ast.parse(self.source), "load"))

    def _walk(self, node: ast.AST, when: Literal["load", "call", "typing"]) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            match child:
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
    """The second part of a dotted name: ``core`` for ``nsactors.core.messages``."""
    return [*dotted.split("."), ""][1]


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
    for imported in module.imports():
        if imported.library != "nsactors" or imported.target == "nsactors.__version__":
            continue
        if module.name == "nsactors":
            allowed = imported.when != "load"
        elif imported.unit == module.unit:
            allowed = True
        elif (module.unit, imported.unit) in DEFERRED_EXCEPTIONS:
            allowed = imported.when != "load"
        else:
            # A unit that no row lists is never allowed, nor is a name taken from `nsactors` itself.
            allowed = RANKS.get(imported.unit, len(ORDER)) < RANKS.get(module.unit, -1)
        if not allowed:
            found.append(f"{module.name}:{imported.line} imports {imported.target} ({imported.when})")
    return found


def purity_violations(module: Module) -> list[str]:
    """Imports that let I/O, threads or clocks into pure code, or that make it slow to load."""
    if module.unit not in PURE_UNITS:
        return []
    return [
        f"{module.name}:{imported.line} imports {imported.target} ({imported.when})"
        for imported in module.imports()
        if imported.library in IMPURE_LIBRARIES or (imported.library in HEAVY_LIBRARIES and imported.when == "load")
    ]


def ray_violations(module: Module) -> list[str]:
    """Imports of Ray outside the Ray transport, or in it before the module that sets Ray's environment."""
    if module.name == FIRST_TO_IMPORT_RAY:
        return []
    runtime_loaded, found = False, []
    for imported in module.imports():
        runtime_loaded |= imported.when == "load" and is_within(imported.target, FIRST_TO_IMPORT_RAY)
        if imported.library != "ray":
            continue
        on_ray = module.name.startswith("nsactors.transport.ray")
        if not on_ray or (imported.when == "load" and not runtime_loaded):
            found.append(f"{module.name}:{imported.line} imports {imported.target} ({imported.when})")
    return found


def is_within(dotted: str, package: str) -> bool:
    return dotted == package or dotted.startswith(f"{package}.")


def oversized(module: Module, kinds: tuple[type[ast.stmt], ...], limit: int) -> list[str]:
    sizes = (
        (f"{module.name}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(ast.parse(module.source))
        if isinstance(node, kinds) and isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return [f"{name}: {lines} lines" for name, lines in sizes if lines >= limit]


def missing_from_maps(modules: list[Module]) -> list[str]:
    """Modules whose name does not occur in what their package says of itself."""
    words = {m.name: set(re.findall(r"\w+", ast.get_docstring(ast.parse(m.source)) or "")) for m in modules}
    homes = ((module.name, *module.name.rpartition(".")) for module in modules if "." in module.name)
    return [name for name, package, _, own in homes if own not in words[package]]


# The package as it is.


def test_every_module_belongs_to_a_layer() -> None:
    assert {module.unit for module in package_modules()} <= {"", *RANKS}


def test_imports_point_left_only() -> None:
    assert [found for module in package_modules() for found in layer_violations(module)] == []


def test_errors_and_core_stay_pure_and_quick_to_load() -> None:
    assert [found for module in package_modules() for found in purity_violations(module)] == []


def test_ray_is_imported_by_the_ray_transport_alone() -> None:
    assert [found for module in package_modules() for found in ray_violations(module)] == []


def test_each_package_says_what_is_in_it() -> None:
    assert missing_from_maps(package_modules()) == []


def test_modules_stay_short() -> None:
    lines = {module.name: len(module.source.splitlines()) for module in package_modules()}
    assert [f"{name}: {count} lines" for name, count in lines.items() if count >= MAX_MODULE_LINES] == []


def test_classes_stay_short() -> None:
    assert [s for m in package_modules() for s in oversized(m, (ast.ClassDef,), MAX_CLASS_LINES)] == []


def test_functions_stay_short() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert [s for m in package_modules() for s in oversized(m, kinds, MAX_FUNCTION_LINES)] == []


# The rules themselves, on invented modules: a rule that finds nothing must be able to find something.


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("nsactors", "def __getattr__(name):\n    import nsactors.client"),
        ("nsactors", "if TYPE_CHECKING:\n    from nsactors.client import Client"),
        ("nsactors.core.stream", "from nsactors.errors import NsactorsError"),
        ("nsactors.core.stream", "from nsactors.core import messages"),
        ("nsactors.core.stream", "from . import messages"),
        ("nsactors.cluster", "from nsactors.client import Client"),
        ("nsactors.client", "def view(self):\n    from nsactors.views.direct import DirectView"),
        ("nsactors.client", "if TYPE_CHECKING:\n    from nsactors.views.direct import DirectView"),
        ("nsactors.cli.main", "from nsactors import __version__"),
        ("nsactors.cli.main", "from nsactors import errors"),
    ],
)
def test_an_import_to_the_left_is_allowed(name: str, source: str) -> None:
    assert layer_violations(Module(name, source)) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("nsactors", "from nsactors.client import Client"),
        ("nsactors.errors.tree", "from nsactors.core import messages"),
        ("nsactors.errors.tree", "from ..core import messages"),
        ("nsactors.core.stream", "def late():\n    import nsactors.client"),
        ("nsactors.core.stream", "if TYPE_CHECKING:\n    from nsactors.transport import port"),
        ("nsactors.engine_actor", "import nsactors.controller"),
        ("nsactors.controller", "import nsactors.engine_actor"),
        ("nsactors.results", "from nsactors.client import Client"),
        ("nsactors.client", "from nsactors.views.direct import DirectView"),
        ("nsactors.client", "class C:\n    from nsactors.views.direct import DirectView"),
        ("nsactors.mpi", "from nsactors.models import farm"),
        ("nsactors.cli.main", "import nsactors.unheard_of"),
        ("nsactors.cli.main", "from nsactors import Client"),
        ("nsactors.unheard_of", "import nsactors.errors"),
    ],
)
def test_an_import_to_the_right_or_sideways_is_found(name: str, source: str) -> None:
    assert len(layer_violations(Module(name, source))) == 1


def test_a_relative_import_in_a_package_starts_at_the_package() -> None:
    assert layer_violations(Module("nsactors.core", "from .messages import Apply", is_package=True)) == []
    assert len(layer_violations(Module("nsactors.core", "from ..views import direct", is_package=True))) == 1


@pytest.mark.parametrize(
    "source", ["import time", "from asyncio import sleep", "def f():\n    import ray", "import numpy as np"]
)
def test_an_impure_or_heavy_import_in_core_is_found(source: str) -> None:
    assert len(purity_violations(Module("nsactors.core.stream", source))) == 1
    assert purity_violations(Module("nsactors.client", source)) == []


def test_core_may_import_numpy_in_a_function_or_for_types() -> None:
    source = "if TYPE_CHECKING:\n    import numpy\ndef f():\n    import numpy"
    assert purity_violations(Module("nsactors.core.payload", source)) == []


@pytest.mark.parametrize(
    ("name", "source", "count"),
    [
        ("nsactors.transport.ray_runtime", "import ray", 0),
        ("nsactors.transport.ray_engines", "import ray", 1),
        ("nsactors.transport.ray_engines", "def f():\n    import ray", 0),
        ("nsactors.transport.ray_engines", "from nsactors.transport import ray_runtime\nimport ray", 0),
        ("nsactors.transport.ray_engines", "import ray\nfrom nsactors.transport import ray_runtime", 1),
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
