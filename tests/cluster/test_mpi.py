"""Engines that are MPI worlds."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from examples import life, midpoint, wave
from nsactors import Client, Cluster, CompositeError, DirectView, Reference
from nsactors.errors import CapabilityError, EngineLost, MpiInUse, MpiUnavailable, NoSuchEngine, WorldBroken
from nsactors.mpi import World, WorldState, engine_side
from nsactors.mpi import world as world_module
from nsactors.mpi.pmi import Exchange, process_mapping
from nsactors.mpi.pmi_server import PmiServer
from nsactors.testing import TIMEOUT_S, Gate, wait_until

pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="needs mpi4py"),
]

IMPORT = "from mpi4py import MPI; comm = MPI.COMM_WORLD"
ENDLESS = "comm.barrier()\nwait()\nwhile True: comm.allreduce(1)"


@pytest.fixture
def start(cluster: Cluster, rc: Client) -> Iterator[Callable[..., DirectView]]:
    """Starts engines; they are gone after the test."""
    started: list[int] = []

    def start(count: int, recovery: str = "replay") -> DirectView:
        ids = cluster.start_engines(count, recovery=recovery)
        started.extend(ids)
        wait_until(lambda: {*ids} <= {*rc.ids})
        return rc.direct_view(ids, block=True)

    yield start
    rc.session.controller.stop_engines(started)


def ranks(view: DirectView) -> list[int]:
    view.execute(IMPORT)
    return view.pull("comm.rank")


def raises(kind: type[Exception], function: Callable[..., object], *args: object) -> bool:
    try:
        function(*args)
    except kind:
        return True
    return False


def kill_within_allreduce(world: World, gate: Gate, rank: int) -> CompositeError:
    """Let all ranks add up for ever, and end one; how their cell fails."""
    view = world.view
    view.push({"wait": gate.pass_through}, block=True)
    pids = view.apply_sync(os.getpid)
    running = view.execute(ENDLESS)
    gate.wait_arrived(world.size)
    gate.open()
    os.kill(pids[rank], signal.SIGKILL)
    error = running.exception(TIMEOUT_S)
    assert isinstance(error, CompositeError)
    return error


def test_members_share_memory_that_ends_with_their_processes(start: Callable[..., DirectView]) -> None:
    before = {*Path("/dev/shm").glob("mpich*")}
    view = start(3)
    view.mpi()
    assert ranks(view) == [0, 1, 2]
    assert {*Path("/dev/shm").glob("mpich*")} <= before


def test_the_engines_of_a_view_are_ranks_in_its_order(start: Callable[..., DirectView], rc: Client) -> None:
    first = start(3)
    ids = list(reversed(first.targets))
    backwards = rc.direct_view(ids, block=True)
    world = backwards.mpi()
    assert (world.size, world.state, world.ranks) == (3, WorldState.READY, tuple(ids))
    assert ranks(backwards) == [0, 1, 2]
    assert first.pull("comm.size") == [3, 3, 3]


def test_a_cell_on_all_engines_adds_up_over_them(four_ranks: DirectView) -> None:
    view = four_ranks
    view.execute(
        "from mpi4py import MPI\nimport numpy as np\nmine = np.random.default_rng(MPI.COMM_WORLD.rank).random(100)\n"
        "total = np.empty(100)\nMPI.COMM_WORLD.Allreduce(mine, total)"
    )
    totals = view.pull("total")
    assert all(np.array_equal(total, totals[0]) for total in totals)
    assert np.allclose(totals[0], np.sum(view.pull("mine"), axis=0))
    assert view.apply(midpoint.integrate, Reference("MPI.COMM_WORLD")) == pytest.approx([np.pi] * 4, abs=8.4e-10)


def test_worlds_of_some_engines_each_stand_side_by_side_and_an_engine_is_in_one(
    start: Callable[..., DirectView], rc: Client
) -> None:
    ids = start(4).targets
    even, odd = rc.direct_view(ids[::2], block=True), rc.direct_view(ids[1::2], block=True)
    worlds = [even.mpi(), odd.mpi()]
    assert ranks(even) == ranks(odd) == [0, 1]
    with pytest.raises(MpiInUse, match="only once"):
        rc.direct_view(ids[:2]).mpi()
    assert [world.state for world in worlds] == [WorldState.READY] * 2


@pytest.mark.parametrize(("px", "py"), [(4, 1), (1, 4), (2, 2)])
def test_the_wave_equation_cut_into_blocks_is_the_same_to_the_last_bit(
    four_ranks: DirectView, px: int, py: int
) -> None:
    field = four_ranks.apply(wave.solve, Reference("comm"), px, py)[0]
    assert np.array_equal(field, wave.solve(wave.Alone(), 1, 1))
    assert np.abs(field - wave.exact()).max() < 1e-12


def test_a_glider_goes_round_a_torus_of_engines(four_ranks: DirectView) -> None:
    board = four_ranks.apply(life.play, Reference("comm"), life.GLIDER, 32, 128)[0]
    assert sorted(zip(*np.nonzero(board), strict=True)) == life.GLIDER


@pytest.fixture(scope="module")
def four_ranks(cluster: Cluster) -> Iterator[DirectView]:
    """A world of four that tests only compute in."""
    with cluster.connect_client_sync() as client:
        ids = cluster.start_engines(4)
        wait_until(lambda: {*ids} <= {*client.ids})
        view = client.direct_view(ids, block=True)
        view.mpi()
        view.execute(IMPORT)
        yield view
        client.session.controller.stop_engines(ids)


def test_on_one_machine_nothing_listens_for_others(four_ranks: DirectView) -> None:
    if not Path("/proc/net/tcp").exists():
        pytest.skip("needs /proc")
    assert set().union(*four_ranks.apply(_listening_addresses)) <= {"0100007F"}


def test_mpi_that_is_imported_without_a_world_listens_for_nobody_and_leaves_nothing(
    start: Callable[..., DirectView], rc: Client
) -> None:
    if not Path("/proc/net/tcp").exists():
        pytest.skip("needs /proc")
    view = start(1, recovery="restart")
    view.apply(_listening_addresses)  # what listens before is known from here on
    assert ranks(view) == [0]
    assert view.apply(_listening_addresses)[0] <= {"0100007F"}
    mapped = [line for line in view.apply(Path("/proc/self/maps").read_text)[0].splitlines() if "mpich_shm" in line]
    assert mapped
    assert all(line.endswith("(deleted)") for line in mapped)
    assert not {"FI_TCP_IFACE", "UCX_NET_DEVICES"} & set(view.pull("[*__import__('os').environ]")[0])


def test_when_a_rank_dies_in_an_allreduce_every_call_fails_and_names_it(
    start: Callable[..., DirectView], gate: Gate
) -> None:
    world = start(3).mpi()
    world.view.execute(IMPORT, block=True)
    error = kill_within_allreduce(world, gate, rank=1)
    lost, *broken = sorted(error.exceptions, key=lambda e: isinstance(e, WorldBroken))
    assert isinstance(lost, EngineLost)
    assert {(e.rank, e.lost_engine) for e in broken if isinstance(e, WorldBroken)} == {(1, world.ranks[1])}
    assert (len(broken), world.state) == (2, WorldState.BROKEN)


def test_a_broken_world_is_made_anew_with_the_names_of_its_engines(
    start: Callable[..., DirectView], rc: Client, gate: Gate
) -> None:
    world = start(3).mpi()
    view = world.view.set_flags(block=True)
    view.execute("a = 5")
    view.execute(f"{IMPORT}; shared = comm.allreduce(a)")
    view.execute("b = a + 1")
    kill_within_allreduce(world, gate, rank=2)
    world.reform()
    assert (world.state, world.error) == (WorldState.READY, None)
    assert view.pull(["a", "b"]) == [[5, 6]] * 3
    with pytest.raises(CompositeError) as missing:
        view.pull("shared")
    assert all(isinstance(error, NameError) for error in missing.value.exceptions)
    assert any("it used MPI" in str(report) for report in rc.recoveries)
    assert ranks(view) == [0, 1, 2]
    field = view.apply(wave.solve, Reference("comm"), 3, 1)[0]
    assert np.array_equal(field, wave.solve(wave.Alone(), 1, 1))


def test_in_a_broken_world_idle_engines_keep_their_names_and_mpi_says_why_it_is_over(
    start: Callable[..., DirectView], rc: Client
) -> None:
    world = start(2, "restart").mpi()
    view = world.view.set_flags(block=True)
    view.execute(f"{IMPORT}; a = 5")
    survivor, restarted = (rc.direct_view(rank, block=True) for rank in world.ranks)
    pid = survivor.apply(os.getpid)
    os.kill(restarted.apply(os.getpid), signal.SIGKILL)
    wait_until(lambda: world.state is WorldState.BROKEN)
    wait_until(lambda: raises(WorldBroken, survivor.execute, "comm.rank"))
    for cell in ("comm.rank", IMPORT):
        with pytest.raises(WorldBroken, match="rank 1 of the MPI world"):
            survivor.execute(cell)
    assert (survivor.apply(os.getpid), survivor.pull("a")) == (pid, 5)
    # The other has a new process by now, in which MPI would begin as a world of one.
    wait_until(lambda: restarted.pull("'mpi4py.MPI' in __import__('sys').modules"))
    with pytest.raises(WorldBroken, match="reform"):
        restarted.execute(f"{IMPORT}; comm.rank")


def test_an_engine_that_has_initialised_mpi_needs_a_new_process_first(
    start: Callable[..., DirectView], rc: Client
) -> None:
    view = start(2)
    rc.direct_view(view.targets[1]).execute(IMPORT, block=True)
    with pytest.raises(MpiInUse, match=rf"engine {view.targets[1]} cannot join .* rc.recover\(\[{view.targets[1]}\]\)"):
        view.mpi()
    rc.recover(view.targets[1])
    assert view.mpi().state is WorldState.READY


def test_engines_without_mpi4py_are_named_with_what_to_install(start: Callable[..., DirectView]) -> None:
    view = start(1)
    view.execute("import sys; sys.modules['mpi4py'] = None")
    with pytest.raises(MpiUnavailable, match=rf"engine {view.targets[0]} .*pip install 'nsactors\[mpi\]'"):
        view.mpi()


def test_open_mpi_without_a_launcher_is_refused_before_it_is_initialised(
    start: Callable[..., DirectView], rc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_module, "launcher_of", lambda library: ())
    engine = rc.direct_view(start(1).targets[0], block=True)
    engine.execute(
        "import sys, types\n"
        "sys.modules['mpi4py.MPI'] = other = types.ModuleType('mpi4py.MPI')\n"
        "other.Is_initialized = lambda: False\n"
        "other.Get_library_version = lambda: 'Open MPI v5.0.6, package: Open MPI'\n"
        "import mpi4py; mpi4py.MPI = other"
    )
    for use in (engine.mpi, lambda: engine.execute(f"{IMPORT}; comm.rank")):
        with pytest.raises(MpiUnavailable, match=r"Open MPI 5.0.6 .* needs its mpiexec, which was not found"):
            use()


def test_the_ranks_of_a_launcher_give_their_places_to_engines(start: Callable[..., DirectView], rc: Client) -> None:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        pytest.skip("needs the wheel mpich")
    ids = list(reversed(start(3).targets))
    view = rc.direct_view(ids, block=True)
    world = view.mpi(launcher=str(mpiexec))
    assert ranks(view) == [0, 1, 2]
    assert view.pull("comm.allreduce(comm.rank)") == [3, 3, 3]
    assert world.library is not None
    assert (world.library.name, world.library.wheel) == ("MPICH", "mpich")
    assert not [name for name in view.pull("[*__import__('os').environ]")[0] if name.startswith(("PMI_", "HYD"))]
    os.kill(view.apply(os.getpid)[1], signal.SIGKILL)
    wait_until(lambda: world.state is WorldState.BROKEN)
    assert world.reform().state is WorldState.READY
    assert ranks(view) == [0, 1, 2]


def test_engines_that_are_busy_for_too_long_are_left_alone(start: Callable[..., DirectView], gate: Gate) -> None:
    view = start(1)
    busy = view.apply_async(gate.pass_through)
    gate.wait_arrived()
    with pytest.raises(TimeoutError):
        view.mpi(timeout=0.2)
    gate.open()
    assert busy.get(TIMEOUT_S) == ["passed"]
    assert view.mpi().state is WorldState.READY


def test_a_world_whose_member_is_gone_for_good_is_not_made_anew(start: Callable[..., DirectView], rc: Client) -> None:
    world = start(2, "none").mpi()
    rc.shutdown(world.ranks[0])
    wait_until(lambda: world.ranks[0] not in rc.ids)
    with pytest.raises(NoSuchEngine):
        world.reform()


def test_a_world_that_is_whole_can_be_made_anew_as_well(start: Callable[..., DirectView]) -> None:
    world = start(2).mpi()
    before = world.view.apply_sync(os.getpid)
    assert world.reform() is world
    assert not {*before} & {*world.view.apply_sync(os.getpid)}
    assert ranks(world.view.set_flags(block=True)) == [0, 1]


def test_engines_whose_client_dies_while_they_join_do_not_wait_for_ever(
    start: Callable[..., DirectView], rc: Client
) -> None:
    """One rank comes to a server that then goes away, as its process has ended."""
    view = start(1)
    view.apply(engine_side.load)
    exchange = Exchange([77, 78], "world", process_mapping(["a", "b"]))
    server = PmiServer(exchange, "127.0.0.1")
    environment = {"PMI_PORT": server.address, "PMI_ID": "77"}
    joins = view.apply_async(engine_side.join, environment, 2, 60.0)
    wait_until(lambda: exchange.missing == [1])
    server.close()
    assert joins.exception(TIMEOUT_S) is not None


def test_an_engine_whose_fellows_do_not_come_ends_at_its_time_limit(start: Callable[..., DirectView]) -> None:
    view = start(1)
    view.apply(engine_side.load)
    server = PmiServer(Exchange([77, 78], "world", process_mapping(["a", "b"])), "127.0.0.1")
    environment = {"PMI_PORT": server.address, "PMI_ID": "77"}
    with pytest.raises(CompositeError) as failed:
        view.apply_async(engine_side.join, environment, 2, 1.0).get(TIMEOUT_S)
    server.close()
    assert isinstance(failed.value.exceptions[0], EngineLost)


def test_engines_that_share_a_process_cannot_be_a_world() -> None:
    with Cluster(n=2, backend="local") as rc, pytest.raises(CapabilityError, match="backend='ray'"):
        rc[:].mpi()


def test_an_example_runs_by_itself() -> None:
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, root / "examples" / "wave.py"],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert "to the last bit: True" in ran.stdout


def _listening_addresses() -> set[str]:
    """The addresses, in the system's notation, at which this process listens, apart from Ray's and those before MPI."""
    inodes = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {line[1].split(":")[0] for line in lines if line[3] == "0A" and line[9] in inodes}
