"""Libraries that are half imported are looked at as if they were not there."""

import importlib.util
import subprocess
import sys
import textwrap
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nsactors.namespace.memory import size_of
from nsactors.namespace.mpi_guard import is_initialised, mpi_types
from nsactors.protocol.partition import Block
from nsactors.protocol.process import current_shell, imported
from nsactors.protocol.serialize import pack, unpack
from nsactors.views.map_parts import columns_of


@pytest.fixture
def half_imported(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts modules into ``sys.modules`` as they are at the first moment of their import."""

    def put(*names: str) -> None:
        for name in names:
            module = ModuleType(name)
            module.__spec__ = importlib.util.spec_from_loader(name, loader=None)
            vars(module.__spec__)["_initializing"] = True
            monkeypatch.setitem(sys.modules, name, module)

    return put


def test_a_module_is_imported_once_its_import_has_ended(half_imported: Any) -> None:
    half_imported("a_library")
    assert imported("a_library") is None
    vars(sys.modules["a_library"].__spec__)["_initializing"] = False
    assert imported("a_library") is sys.modules["a_library"]


def test_what_nobody_imports_is_not_imported() -> None:
    assert imported("no_such_library") is None
    assert imported("sys") is sys


def test_a_module_without_a_spec_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in: Any = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "a_library", stand_in)
    assert imported("a_library") is stand_in


def test_a_module_that_is_imported_when_it_is_first_used_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec("this")  # which prints a poem when it is imported
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    lazy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "this", lazy)
    spec.loader.exec_module(lazy)
    assert imported("this") is None
    assert type(lazy) is not ModuleType


def test_there_is_no_shell_while_ipython_is_imported(half_imported: Any) -> None:
    half_imported("IPython")
    assert current_shell() is None


def test_values_are_packed_cut_and_measured_while_libraries_are_imported(half_imported: Any) -> None:
    half_imported("numpy", "pandas")
    values = [{"a": 1}, {2, 3}]
    assert unpack(pack(values)) == values
    assert Block().join(Block().split([0, 1, 2], 2)) == [0, 1, 2]
    assert Block().join(Block().split(range(5), 2)) == range(5)
    assert columns_of([{"a": 1}]) == [["a"]]
    assert size_of([1, 2]).total > 0


def test_mpi_is_not_initialised_while_mpi4py_is_imported(half_imported: Any) -> None:
    half_imported("mpi4py", "mpi4py.MPI")
    assert not is_initialised()
    assert mpi_types() == []


def test_arrays_are_packed_as_such_as_soon_as_numpy_is_there(
    half_imported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy

    half_imported("numpy")
    pack({1, 2})
    monkeypatch.setitem(sys.modules, "numpy", numpy)
    days = numpy.array(["2020-01-01", "2021-01-01"], "M8[D]")
    assert len(pack(days).buffers) == 1


def test_a_map_is_whole_while_another_thread_imports_numpy() -> None:
    # Sets are no simple values: each of them is packed with the table that knows of arrays.
    program = """
        import sys, threading
        from nsactors import Cluster
        with Cluster(n=2, backend="local") as rc:
            assert "numpy" not in sys.modules
            view = rc.load_balanced_view()
            importing = threading.Thread(target=__import__, args=("numpy",))
            importing.start()
            results = []
            while importing.is_alive():
                results += [view.apply_async(len, {1, 2}) for _ in range(50)]
                rc[:].push({"a": {1, 2}}, block=True)
            importing.join()
            wrong = [result for result in results if result.get() != 2]
            right = rc[:].map_sync(abs, range(-30_000, 0)) == list(range(30_000, 0, -1))
            print(len(wrong), right, len(results) > 0, "numpy" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout.split() == ["0", "True", "True", "True"], done.stderr
