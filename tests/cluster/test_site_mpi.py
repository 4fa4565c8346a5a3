"""MPI libraries of the site, which no wheel has brought: Debian's MPICH and Open MPI, also under Slurm."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from nsactors import Client, Cluster, CompositeError, DirectView
from nsactors.errors import MpiUnavailable, WorldBroken, WorldNotFormed
from nsactors.mpi import WorldState
from nsactors.mpi import world as world_module
from nsactors.testing import wait_until
from tests.cluster.slurm import ROOT, Slurm, why_not
from tests.cluster.test_mpi import IMPORT, ranks

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
MPICH = LIBRARIES / "libmpich.so.12"
OPEN_MPI = LIBRARIES / "libmpi.so.40"
PMIX = LIBRARIES / "pmix2" / "lib" / "libpmix.so"  # Slurm's plugin opens this one
NO_SLURM = why_not()

pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="needs mpi4py"),
]
with_mpich = pytest.mark.skipif(not MPICH.exists(), reason="needs Debian's mpich")
with_open_mpi = pytest.mark.skipif(
    not (OPEN_MPI.exists() and shutil.which("orterun")), reason="needs Debian's openmpi-bin"
)
with_pmix = pytest.mark.skipif(not (OPEN_MPI.exists() and PMIX.exists()), reason="needs Debian's libpmix-dev, openmpi")
with_slurm = pytest.mark.skipif(NO_SLURM is not None, reason=str(NO_SLURM))

# As users would write it. The loader reads the path of libraries once, so this is a process of its own.
PROGRAM = """
import os, signal, sys
from nsactors import Cluster, CompositeError
with Cluster(n=3) as rc:
    view = rc[:].set_flags(block=True)
    world = view.mpi(launcher=sys.argv[1] or None)
    print(*world.library[:2], os.path.realpath(world.library.path), world.library.wheel or "of the site")
    view.execute("from mpi4py import MPI; comm = MPI.COMM_WORLD")
    print(view["comm.rank"], view["comm.allreduce(comm.rank)"])
    os.kill(rc[1].apply_sync(os.getpid), signal.SIGKILL)
    try:
        view.execute("comm.barrier()")
    except CompositeError as error:
        print(sorted({type(one).__name__ for one in error.exceptions}))
    print(world.reform().state)
    view.execute("from mpi4py import MPI; comm = MPI.COMM_WORLD")
    print(view["comm.allreduce(comm.rank)"])
"""


@pytest.fixture
def library_path(tmp_path: Path) -> Path:
    """A folder in which Debian's MPICH has the name of all other derivatives of MPICH, which mpi4py asks for."""
    (tmp_path / "libmpi.so.12").symlink_to(MPICH)
    return tmp_path


@with_mpich
@pytest.mark.parametrize("launcher", ["", "mpiexec.mpich"])
def test_engines_are_a_world_of_an_mpich_that_a_module_has_chosen(library_path: Path, launcher: str) -> None:
    chosen = {"LD_LIBRARY_PATH": str(library_path), "MPI4PY_LIBMPI": str(library_path / "libmpi.so.12")}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, launcher],
        env={**os.environ, "PYTHONPATH": str(ROOT), **chosen},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    library, first, broken, state, again = ran.stdout.splitlines()
    assert library.startswith("MPICH ")
    assert library.endswith(f"{MPICH.resolve()} of the site")
    assert (first, again) == ("[0, 1, 2] [3, 3, 3]", "[3, 3, 3]")
    assert (broken, state) == ("['EngineLost', 'WorldBroken']", "WorldState.READY")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster whose engines load Open MPI."""
    cluster = Cluster(n=0, environment={"MPI4PY_LIBMPI": str(OPEN_MPI)})
    cluster.start_and_connect_sync()
    yield cluster
    cluster.stop_cluster_sync()


@pytest.fixture
def start(cluster: Cluster, rc: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., DirectView]]:
    """Starts engines; they, and what has started their ranks, are gone after the test."""
    # Open MPI runs for root only if two variables allow it.
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
        monkeypatch.setenv(name, "1")
    started: list[int] = []

    def start(count: int, recovery: str = "replay") -> DirectView:
        ids = cluster.start_engines(count, recovery=recovery)
        started.extend(ids)
        wait_until(lambda: {*ids} <= {*rc.ids})
        return rc.direct_view(ids, block=True)

    yield start
    rc.session.controller.stop_engines(started)
    wait_until(lambda: not launchers())
    assert not [*Path("/dev/shm").glob("vader_segment*")]


def launchers() -> list[psutil.Process]:
    """The launchers that this process has started and that run."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name() == "orterun":
                found.append(child)
    return found


def listening(pid: int) -> set[str]:
    """The addresses at which a process listens."""
    return {at.laddr.ip.rpartition(":")[2] for at in psutil.Process(pid).net_connections() if at.status == "LISTEN"}


@with_open_mpi
def test_running_engines_become_a_world_of_open_mpi_in_the_order_of_the_view(
    start: Callable[..., DirectView], rc: Client
) -> None:
    first = start(4)
    backwards = rc.direct_view([*reversed(first.targets)], block=True)
    cores = backwards.apply(os.sched_getaffinity, 0)
    world = backwards.mpi()
    assert ranks(backwards) == [0, 1, 2, 3]
    assert first.pull("comm.size") == [4] * 4
    assert world.library is not None
    assert (world.library.name, world.library.path, world.library.wheel) == ("Open MPI", str(OPEN_MPI.resolve()), "")
    backwards.execute(
        "import numpy as np; total = np.empty(100_000); comm.Allreduce(np.full(100_000, float(comm.rank)), total)"
    )
    assert backwards.pull("float(total.sum())") == [600_000.0] * 4
    # Nothing of the launcher is left in the engines, and nothing of them is open to others.
    assert backwards.apply(os.sched_getaffinity, 0) == cores
    variables = set().union(*backwards.pull("[*__import__('os').environ]"))
    assert not {name for name in variables if name.startswith(("PMI", "OMPI_COMM_WORLD", "OMPI_MCA_orte"))}
    assert set().union(*map(listening, backwards.apply(os.getpid))) <= {"127.0.0.1"}


@with_open_mpi
def test_the_death_of_a_rank_of_open_mpi_is_told_and_the_others_keep_their_names(
    start: Callable[..., DirectView], rc: Client
) -> None:
    world = start(3, "restart").mpi()
    view = world.view.set_flags(block=True)
    view.execute(f"{IMPORT}; kept = comm.allreduce(1)")
    pids = view.apply(os.getpid)
    os.kill(pids[1], signal.SIGKILL)
    wait_until(lambda: world.state is WorldState.BROKEN)
    survivors = rc.direct_view([world.ranks[0], world.ranks[2]], block=True)
    with pytest.raises(CompositeError) as failed:
        survivors.execute("comm.barrier()")
    assert [isinstance(error, WorldBroken) for error in failed.value.exceptions] == [True, True]
    assert survivors.pull("kept") == [3, 3]
    assert survivors.apply(os.getpid) == [pids[0], pids[2]]
    assert world.reform().state is WorldState.READY
    assert ranks(view) == [0, 1, 2]


@with_open_mpi
def test_open_mpi_that_is_imported_without_a_world_starts_nothing_and_listens_for_nobody(
    start: Callable[..., DirectView],
) -> None:
    view = start(1)
    assert ranks(view) == [0]
    (pid,) = view.apply(os.getpid)
    assert listening(pid) <= {"127.0.0.1"}
    assert psutil.Process(pid).children() == []


@with_open_mpi
def test_open_mpi_without_its_launcher_is_refused_before_it_is_initialised(
    start: Callable[..., DirectView], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_module, "launcher_of", lambda library: ())
    with pytest.raises(MpiUnavailable, match=r"Open MPI .* needs its mpiexec, which was not found"):
        start(2).mpi()


@with_open_mpi
def test_open_mpi_on_several_machines_asks_for_a_launcher(
    start: Callable[..., DirectView], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_module.Members, "together", False)
    with pytest.raises(MpiUnavailable, match=r"does not speak PMI-1.*view.mpi\(launcher='srun --mpi=pmix'\)"):
        start(2).mpi()


@with_open_mpi
def test_a_launcher_that_refuses_is_told_in_its_own_words(start: Callable[..., DirectView]) -> None:
    view = start(2)
    with pytest.raises(WorldNotFormed, match=r"`orterun --nonsense` ended early: .*nonsense"):
        view.mpi(launcher="orterun --nonsense")
    with pytest.raises(
        MpiUnavailable, match="'no-such-launcher', which should start their ranks, is not on this machine"
    ):
        view.mpi(launcher="no-such-launcher")
    assert view.mpi().state is WorldState.READY


@with_open_mpi
def test_a_launcher_of_another_library_is_told_to_be_one_and_starts_no_daemon(
    start: Callable[..., DirectView], tmp_path: Path
) -> None:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        pytest.skip("needs the wheel mpich")
    view = start(2)
    view.execute(f"import os; os.environ['OMPI_MCA_orte_tmpdir_base'] = {str(tmp_path)!r}")
    with pytest.raises(MpiUnavailable, match=r"Open MPI .*, does not understand the launcher"):
        view.mpi(launcher=str(mpiexec))
    assert not [*tmp_path.glob("ompi.*/pid.*")]  # of a daemon


# In a job: engines of both nodes, in an order that no launcher would choose.
JOB = """
from nsactors import Client
rc = Client("lab")
rc.wait_for_engines(4, timeout=240)
view = rc[rc.ids[::-1]].set_flags(block=True)
for again in range(2):
    world = view.mpi() if not again else world.reform()
    view.execute("from mpi4py import MPI; comm = MPI.COMM_WORLD; import os")
    print(world.library.name, view["comm.rank"], view["comm.allreduce(comm.rank)"])
print(len(set(view["os.environ['SLURMD_NODENAME']"])))
"""
COMMAND = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from nsactors.cli import main; main()"
# Both nodes are one machine, whose memory Open MPI would not expect to share.
WITH_OPEN_MPI = {"MPI4PY_LIBMPI": str(OPEN_MPI), "OMPI_MCA_btl": "self,tcp", "OMPI_MCA_btl_tcp_if_include": "lo"}


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    folder = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))  # short, for sockets in it
    try:
        with Slurm(folder) as slurm:
            yield slurm
    finally:
        shutil.rmtree(folder)


@with_slurm
@pytest.mark.full_size
@pytest.mark.parametrize(
    ("kind", "library", "variables"),
    [
        pytest.param("pmi2", "MPICH", {}, id="pmi2"),
        pytest.param("pmix", "Open MPI", WITH_OPEN_MPI, id="pmix", marks=with_pmix),
    ],
)
def test_srun_starts_the_ranks_of_engines_on_the_nodes_of_a_job(
    slurm: Slurm, kind: str, library: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setitem(slurm.environment, name, value)
    launch = ["--name=lab", "--nodes=2", "--engines-per-node=2", "--object-store-memory=100MB", f"--mpi={kind}"]
    said = slurm.run(sys.executable, "-c", COMMAND, "launch", "slurm", *launch, timeout_s=300)
    first, again, nodes = slurm.run(sys.executable, "-c", JOB, timeout_s=300).splitlines()
    assert first == again == f"{library} [0, 1, 2, 3] [6, 6, 6, 6]"
    assert nodes == "2"
    slurm.run("scancel", said.split()[1])
    slurm.wait_for(lambda: not slurm.titles())
