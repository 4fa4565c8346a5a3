"""Which requests use MPI, told by a stand-in for mpi4py."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import cloudpickle
import pytest

from nsactors.errors import WorldBroken
from nsactors.namespace.mpi_guard import MpiUse, alone_on_this_machine, bar_mpi, barring_mpi, is_initialised, unbar_mpi
from nsactors.namespace.snapshot import restore, take
from nsactors.protocol.messages import Apply, Execute, Operation, Push
from nsactors.protocol.serialize import Payload

BROKEN = WorldBroken(2, 2, "killed")


class Comm:
    """A communicator, for all that can be seen from outside."""

    def allreduce(self, value: int) -> int:
        return value


Comm.__module__ = "mpi4py.MPI"


class Binding(ModuleType):
    """A module like ``mpi4py.MPI``, whose import initialises MPI."""

    def __init__(self) -> None:
        super().__init__("mpi4py.MPI")
        self.COMM_WORLD = Comm()

    def Is_initialized(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """mpi4py as it is before MPI is imported from it."""
    package = ModuleType("mpi4py")
    monkeypatch.setitem(sys.modules, "mpi4py", package)
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    yield package
    sys.modules.pop("mpi4py.MPI", None)


@pytest.fixture
def names(package: ModuleType) -> dict[str, Any]:
    """A namespace in which MPI has been imported."""
    binding = sys.modules["mpi4py.MPI"] = vars(package)["MPI"] = Binding()
    names: dict[str, Any] = {"MPI": binding, "comm": binding.COMM_WORLD, "a": 5}
    exec(
        "class Solver:\n    def __init__(self): self.comm = comm\n    def run(self): return 1\n"
        "class Direct:\n    def run(self): return comm.rank\n"
        "class Plain:\n    def run(self): return a\n"
        "def step(): return comm.allreduce(1)\n"
        "def steps(): return step() + step()\n"
        "def imports():\n    from mpi4py import MPI\n    return MPI\n"
        "def plain(): return a\n"
        "solver, direct, harmless, held = Solver(), Direct(), Plain(), [comm]\n",
        {**names, "__name__": "__main__"},
        names,
    )
    for function in ("step", "steps", "imports", "plain"):  # as in an engine, where globals are the namespace
        names[function] = type(names[function])(names[function].__code__, names)
    return names


def uses(names: dict[str, Any], operation: Operation, payload: Payload | None = None) -> bool:
    use = MpiUse(names)
    use.begin(operation, payload)
    return use.used()


@pytest.mark.parametrize(
    "code",
    [
        "comm.allreduce(1)",
        "x = MPI.COMM_WORLD.rank",
        "from mpi4py import MPI",
        "import mpi4py.MPI as m",
        "step()",
        "steps()",
        "imports()",
        "solver.run()",
        "held[0].allreduce(1)",
        "for i in range(3):\n    if a:\n        x = [step() for _ in range(2)]",
        "%time step()",
        "def f(x=comm): pass",
    ],
)
def test_a_cell_that_reaches_mpi_has_used_it(names: dict[str, Any], code: str) -> None:
    assert uses(names, Execute(code))


@pytest.mark.parametrize(
    "code",
    [
        "b = a + 1",
        "plain()",
        "harmless.run()",
        "def again(): return comm.allreduce(1)",
        "again = lambda: comm.allreduce(1)",
        "%time plain()",
        "import math, os",
    ],
)
def test_a_cell_that_does_not_reach_mpi_or_only_defines_what_will_has_not(names: dict[str, Any], code: str) -> None:
    assert not uses(names, Execute(code))


def test_a_call_of_a_function_that_names_what_holds_mpi_has_used_it(names: dict[str, Any]) -> None:
    by_name = cloudpickle.dumps(eval("lambda: comm.rank"))
    assert uses(names, Apply("apply"), Payload(by_name))
    assert not uses(names, Apply("apply"), Payload(cloudpickle.dumps(eval("lambda: a + 1"))))


def test_pushing_data_is_no_use_of_mpi(names: dict[str, Any]) -> None:
    assert not uses(names, Push(), Payload(b"comm"))


def test_the_request_that_initialises_mpi_has_used_it_whatever_it_is(package: ModuleType) -> None:
    use = MpiUse({})
    use.begin(Execute("load('solver')"), None)
    sys.modules["mpi4py.MPI"] = Binding()
    assert use.used()


def test_where_mpi_was_never_imported_nothing_has_used_it() -> None:
    assert not uses({}, Execute("comm.allreduce(1)"))


def test_what_is_barred_raises_by_every_name_until_it_is_let_in_again(names: dict[str, Any]) -> None:
    real = names["MPI"]
    bar_mpi(names, BROKEN)
    for name in ("comm", "MPI"):
        with pytest.raises(WorldBroken, match="rank 2"):
            names[name].rank  # noqa: B018
    from mpi4py import MPI

    with pytest.raises(WorldBroken, match="rank 2"):
        MPI.COMM_WORLD  # noqa: B018
    assert is_initialised()
    unbar_mpi()
    from mpi4py import MPI as again

    assert again is real


def test_an_import_is_barred_in_a_process_that_has_not_loaded_mpi(package: ModuleType) -> None:
    with barring_mpi(BROKEN):
        assert not is_initialised()
        with pytest.raises(WorldBroken):
            from mpi4py.MPI import COMM_WORLD  # noqa: F401
    assert "mpi4py.MPI" not in sys.modules
    assert not hasattr(package, "MPI")


def test_a_snapshot_leaves_out_what_is_mpi_and_keeps_what_was_computed_with_it(names: dict[str, Any]) -> None:
    names["MPI"].Comm = Comm
    snapshot = take({"comm": names["comm"], "held": [names["comm"]], "total": 6})
    assert set(snapshot.left_out) == {"comm", "held"}
    restored: dict[str, Any] = {}
    with barring_mpi(BROKEN):
        assert restore(snapshot, restored) == {}
    assert restored["total"] == 6


def test_objects_that_cannot_be_looked_into_are_not_in_the_way(names: dict[str, Any]) -> None:
    class Proxy:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("nothing is there yet")

    names["proxy"], names["long"] = Proxy(), [0] * 1_000_000
    assert not uses(names, Execute("proxy; long"))


def test_a_binding_that_is_imported_by_itself_finds_only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FI_TCP_IFACE", "eth7")  # the user's own
    monkeypatch.delenv("UCX_NET_DEVICES", raising=False)
    with alone_on_this_machine():
        assert (os.environ["FI_TCP_IFACE"], os.environ["UCX_NET_DEVICES"]) == ("eth7", "lo")
    assert os.environ["FI_TCP_IFACE"] == "eth7"
    assert "UCX_NET_DEVICES" not in os.environ
