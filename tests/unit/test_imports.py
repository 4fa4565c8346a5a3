"""What ``import nsactors`` costs, and which names it promises."""

import importlib
import pathlib
import subprocess
import sys

import pytest

import nsactors

ROOT = pathlib.Path(nsactors.__file__).parents[1]
IMPORT_BUDGET_S = 0.15

PUBLIC_NAMES = {
    "AsyncMapResult",
    "AsyncResult",
    "BroadcastView",
    "Client",
    "Cluster",
    "CompositeError",
    "Dependency",
    "DirectView",
    "LoadBalancedView",
    "NsactorsError",
    "Partitioner",
    "Reference",
    "RemoteError",
    "RemoteValue",
    "SchedulingPolicy",
    "Timeline",
    "UnmetDependency",
    "__version__",
    "as_completed",
    "bind_kernel",
    "depend",
    "embed",
    "error",
    "errors",
    "keep",
    "require",
    "rng",
}


def run_fresh(code: str) -> str:
    """The output of ``code`` in an interpreter of its own, started at the top of the checkout."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_is_quick() -> None:
    code = "import time; t = time.perf_counter(); import nsactors; print(time.perf_counter() - t)"
    assert min(float(run_fresh(code)) for _ in range(5)) < IMPORT_BUDGET_S


@pytest.mark.parametrize("module", ["nsactors", "nsactors.errors", "nsactors.protocol", "nsactors.testing"])
def test_importing_leaves_heavy_libraries_out(module: str) -> None:
    heavy = {"ray", "IPython", "numpy", "psutil", "pytest", "rich"}
    loaded = run_fresh(f"import sys, {module}; print(*sys.modules)").split()
    assert heavy.isdisjoint(loaded)


def test_the_command_imports_what_its_subcommands_use_when_they_run() -> None:
    late = {"IPython", "asyncio", "numpy", "ray", "rich", "nsactors.client.client", "nsactors.cluster.cluster"}
    loaded = run_fresh("import sys, nsactors.cli; print(*sys.modules)").split()
    assert late.isdisjoint(loaded)


def test_the_exported_names_are_these() -> None:
    assert set(nsactors.__all__) == PUBLIC_NAMES


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES))
def test_an_exported_name_resolves(name: str) -> None:
    assert getattr(nsactors, name) is not None
    assert name in dir(nsactors)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Cleint'"):
        nsactors.Cleint  # noqa: B018


def test_error_is_the_errors_module_under_the_name_ipyparallel_users_know() -> None:
    assert nsactors.error is nsactors.errors is importlib.import_module("nsactors.errors")
