"""Clusters as jobs of a real Slurm: they start, lose a node, end, and go on in the next job."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsactors.transport.ray.node_process import NodePlan
from tests.cluster.interpreters import interpreter_without_nsactors
from tests.cluster.slurm import ROOT, Slurm, why_not

REASON = why_not()

pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]

# Not by PYTHONPATH, which jobs would inherit.
COMMAND = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from nsactors.cli import main; main()"
LAUNCH = [
    *("env", "-u", "PYTHONPATH", sys.executable, "-c", COMMAND),
    "launch",
    "slurm",
    "--name=lab",
    "--nodes=2",
    "--engines-per-node=2",
    "--object-store-memory=100MB",
]
JOB_FILES = {"job.sh", "job.json", "job.log", "job_id", "package"}

PROGRAM = """
from nsactors import Client
rc = Client("lab")
rc.wait_for_engines(4, timeout=240)
everyone = rc[:]
everyone.block = True

def node():
    import ray
    return ray.get_runtime_context().get_node_id()

def show():
    print(rc.ids, len(set(everyone.apply(node))), everyone["square"], everyone["part"], flush=True)
"""
# Says how things are, and again when two engines have come back.
STAY = (
    PROGRAM
    + """
import threading
everyone.scatter("part", list(range(8)))
everyone.execute("square = sum(n * n for n in part)")
back = threading.Semaphore(0)
rc.on_join(lambda engine_id: back.release())
show()
for engine in range(2):
    assert back.acquire(timeout=240)
show()
"""
)
# Leaves an engine with a cell that does not end.
BUSY = (
    PROGRAM
    + """
import threading
rc[0].execute("import threading; threading.Event().wait()", block=False)
while not rc.activity().engines[0].runs:
    threading.Event().wait(0.1)
"""
)
# As STAY leaves it; then the engines become an MPI world.
GO_ON = (
    PROGRAM
    + """
show()

def allreduce():
    import numpy as np
    from mpi4py import MPI
    world, total = MPI.COMM_WORLD, np.empty(1)
    world.Allreduce(np.array([float(world.rank)]), total)
    return world.size, float(total[0])

world = everyone.mpi()
print(everyone.apply(allreduce))
everyone.execute("import os; log = open(f'log-{len(part)}-{os.getpid()}', 'w'); log.write('unwritten')")
everyone.execute("path = os.path.abspath(log.name)")
print(*everyone["path"])
"""
)
VALUES = "[1, 13, 41, 85] [[0, 1], [2, 3], [4, 5], [6, 7]]"


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    folder = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))  # short, for sockets in it
    try:
        with Slurm(folder) as slurm:
            yield slurm
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of the nodes."""
    return interpreter_without_nsactors(tmp_path_factory.mktemp("environment"))


def launch(slurm: Slurm, python: str, *options: str) -> str:
    """The id of a job whose cluster is up."""
    options = (f"--python={python}", "--recovery=replay", "--journal=sync", *options)
    said = slurm.run(*LAUNCH, *options, timeout_s=300)
    assert "the cluster 'lab' is up" in said
    return said.split()[1]


def cancel(slurm: Slurm, job: str) -> None:
    """Cancel a job, and wait until it has gone."""
    slurm.run("scancel", job)
    wait_gone(slurm)


def wait_gone(slurm: Slurm) -> None:
    """Wait for the end of a job, and check that only the files are left that users read or continue from."""
    slurm.wait_for(lambda: not slurm.titles())
    assert "No cluster of yours runs" in slurm.run(sys.executable, "-c", COMMAND, "list")
    assert {name for name in slurm.listing() if name.startswith("nsa-")} == set()
    assert slurm.listing("clusters") <= {"lock"}
    assert slurm.listing("jobs/lab") == JOB_FILES | {"state"}


def test_a_job_on_nodes_without_nsactors_survives_the_loss_of_a_node_and_goes_on_as_another_job(
    slurm: Slurm, python: str
) -> None:
    first = launch(slurm, python, "--", "--time=20")
    with slurm.popen(sys.executable, "-c", STAY) as client:
        assert client.read_line() == f"[0, 1, 2, 3] 2 {VALUES}"
        slurm.run("scancel", f"{first}.0")  # the step of the second node
        assert client.read_line() == f"[0, 1, 2, 3] 1 {VALUES}"
        client.communicate()
    assert "time limit of the job: in 1" in slurm.run(sys.executable, "-c", COMMAND, "status", "lab")
    slurm.run(sys.executable, "-c", BUSY)
    slurm.run("scancel", "--batch", "--signal=USR1", first)  # as Slurm does before the time limit
    slurm.wait_for(lambda: "are saved in" in slurm.read("jobs/lab/job.log"))
    cancel(slurm, first)
    # The nodes see another home folder than the machine of the client, as far as nsactors looks into it.
    elsewhere = f"--export=ALL,XDG_STATE_HOME={slurm.folder / 'home-of-nodes'}"
    second = launch(slurm, python, "--continue", "--", "--time=20", elsewhere)
    shown, world, paths = slurm.run(sys.executable, "-c", GO_ON, timeout_s=300).splitlines()
    assert shown == f"[0, 1, 2, 3] 2 {VALUES}"
    assert world == str([(4, 6.0)] * 4)
    slurm.run("scontrol", "update", f"JobId={second}", "EndTime=now+20seconds")
    slurm.run("scancel", "--batch", "--signal=USR1", second)
    wait_gone(slurm)
    assert "ended gracefully" in slurm.read("jobs/lab/job.log")
    assert slurm.run("cat", *paths.split()) == "unwritten" * 4


def test_a_node_without_a_way_to_the_head_says_so_and_nothing_of_it_stays(slurm: Slurm, python: str) -> None:
    plan = NodePlan("0" * 64, 2, "10.99.0.1:6379", 2)  # an address that no machine knows
    slurm.write("far.json", plan.to_json().encode())
    before = slurm.listing()
    start = [python, "-m", "nsactors.cluster.node", str(slurm.folder / "far.json")]
    with slurm.popen("srun", "--nodes=1", "--ntasks=1", "--nodelist=n2", *start) as step:
        _, errors = step.communicate()
    assert "has no way to the cluster's head" in errors
    assert "exited with exit code 1" in errors.lower()
    slurm.wait_for(lambda: not slurm.titles())
    assert slurm.listing() == before


def test_a_machine_with_another_key_than_slurms_is_refused_in_slurms_words(slurm: Slurm) -> None:
    with slurm.popen(*LAUNCH, "--name=stranger", **slurm.with_another_key()) as refused:
        _, errors = refused.communicate(timeout=120)
    assert refused.returncode == 1
    assert "sbatch --parsable has failed" in errors
    assert "Batch job submission failed" in errors
    assert not slurm.run("squeue", "--noheader")
