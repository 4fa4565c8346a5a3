"""Clusters as jobs of a real Slurm: they start, lose a node, end, and go on in the next job."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm import Slurm, why_not

REASON = why_not()

pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]

NSACTORS = [sys.executable, "-c", "from nsactors.cli import main; main()"]
LAUNCH = [
    *NSACTORS,
    "launch",
    "slurm",
    "--name=lab",
    "--nodes=2",
    "--engines-per-node=2",
    "--object-store-memory=100MB",
]
JOB_FILES = {"job.sh", "job.json", "job.log"}

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


def launch(slurm: Slurm, *options: str) -> str:
    """The id of a job whose cluster is up."""
    said = slurm.run(*LAUNCH, "--recovery=replay", "--journal=sync", *options, "--", "--time=20", timeout_s=300)
    assert "the cluster 'lab' is up" in said
    return said.split()[1]


def cancel(slurm: Slurm, job: str) -> None:
    """Cancel a job, and see that nothing is left of it but what is to be read or gone on from."""
    slurm.run("scancel", job)
    slurm.wait_for(lambda: not slurm.titles())
    assert {name for name in slurm.listing() if name.startswith("nsa-")} == set()
    assert slurm.listing("clusters") <= {"lock"}
    assert slurm.listing("jobs/lab") == JOB_FILES | {"state"}


def test_a_job_survives_the_loss_of_a_node_and_goes_on_as_another_job(slurm: Slurm) -> None:
    first = launch(slurm)
    with slurm.popen(sys.executable, "-c", STAY) as client:
        assert client.read_line() == f"[0, 1, 2, 3] 2 {VALUES}"
        slurm.run("scancel", f"{first}.0")  # the step of the second node
        assert client.read_line() == f"[0, 1, 2, 3] 1 {VALUES}"
        client.communicate()
    slurm.run("scancel", "--batch", "--signal=USR1", first)  # as Slurm does before the time limit
    slurm.wait_for(lambda: "are saved in" in slurm.read("jobs/lab/job.log"))
    cancel(slurm, first)
    second = launch(slurm, "--continue")
    shown, world = slurm.run(sys.executable, "-c", GO_ON, timeout_s=300).splitlines()
    assert shown == f"[0, 1, 2, 3] 2 {VALUES}"
    assert world == str([(4, 6.0)] * 4)
    cancel(slurm, second)
