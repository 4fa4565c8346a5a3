"""Programs written for ipyparallel, with engines that are processes: MPI worlds, clusters in the background, Dask."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.cluster.background import CommandLine

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(300)]


def run(command: CommandLine, program: str, *arguments: str) -> list[str]:
    """The lines that a program prints, which must not fail."""
    done = command.python(f"import nsactors.ipyparallel as ipp\n{program}", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="needs mpi4py")
def test_engines_of_mpi_are_one_world(nsactors_command: CommandLine) -> None:
    program = """
def place():
    from mpi4py import MPI
    return MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.allreduce(1)

with ipp.Cluster(n=2, engines="MPIEngineSetLauncher") as rc:
    print(sorted(rc[:].apply_sync(place)))
"""
    assert run(nsactors_command, program) == ["[(0, 2), (1, 2)]"]


def test_a_task_fails_when_its_engine_dies_unless_it_has_retries(nsactors_command: CommandLine) -> None:
    program = """
import os

with ipp.Cluster(n=4) as rc:
    lview = rc.load_balanced_view()
    for retries in (0, 1):
        with lview.temp_flags(retries=retries):
            result = lview.apply_async(os.abort)
        try:
            result.get(60)
        except ipp.EngineError as error:
            print(error.ename, len(rc))
"""
    assert run(nsactors_command, program) == ["EngineError 3", "EngineError 1"]


def test_engines_that_are_restarted_are_waited_for_by_the_next_call(nsactors_command: CommandLine) -> None:
    program = """
import os

with ipp.Cluster(n=2, cluster_file="lab.json") as rc:
    rc.cluster.connect_client_sync().close()
    pids = set(rc[:].apply_sync(os.getpid))
    for restart in (rc.cluster.restart_engines_sync, lambda: rc.cluster.restart_engine_sync(0)):
        restart()
        new = set(rc[:].apply_sync(os.getpid))
        print(rc.ids, len(new - pids))
        pids |= new
    with ipp.Client("lab.json") as other:
        print(other[:].apply_sync(abs, -1))
"""
    assert run(nsactors_command, program) == ["[0, 1] 2", "[0, 1] 1", "[1, 1]"]


def test_each_chunk_of_a_map_has_its_engine_and_its_output(lab: CommandLine) -> None:
    program = """
def tell(n):
    print("item", n)
    return n

with ipp.Client(cluster_id="lab") as rc:
    result = rc.load_balanced_view().map_async(tell, range(5), chunksize=2)
    pending = set(result.msg_ids)
    while pending:
        rc.wait(pending, 0.001)
        ended = pending - rc.outstanding
        pending -= ended
        found = [rc.get_result(msg_id) for msg_id in ended]
    print([rc.get_result(msg_id).get() for msg_id in result.msg_ids])
    print(set(result.engine_id) <= set(rc.ids), sorted("".join(result.stdout).split()))
"""
    assert run(lab, program) == ["[[0, 1], [2, 3], [4]]", f"True {sorted(['0', '1', '2', '3', '4'] + ['item'] * 5)}"]


def test_a_cluster_in_the_background_is_found_by_its_name(lab: CommandLine) -> None:
    program = """
import os
cluster = ipp.Cluster.from_file(cluster_id="lab")
print(cluster.cluster_id, cluster.controller)
with cluster.connect_client_sync() as rc:
    before = now = rc[0].apply_sync(os.getpid)
    cluster.restart_engine_sync(0)
    while now == before:  # this client hears of it a moment later
        try:
            now = rc[0].apply_sync(os.getpid)
        except ipp.EngineError:
            pass
    print(rc.ids)
try:
    cluster.start_engines_sync(1)
except ipp.error.NotProvided as error:
    print(error)
try:
    ipp.Cluster.from_file(cluster_id="nope")
except FileNotFoundError as error:
    print(error)
"""
    assert run(lab, program) == [
        "lab running",
        "[0, 1]",
        "start_engines() of a cluster in the background is not provided: use `nsactors engines` with 'lab'",
        "there is no such cluster; running are: lab",
    ]


def test_a_cluster_is_found_by_its_file(lab: CommandLine, tmp_path: Path) -> None:
    connection = lab.record("lab").connection
    assert connection is not None
    connection.save(tmp_path / "client.json")
    program = """
import sys
with ipp.Client(sys.argv[1]) as rc, ipp.Cluster.from_file(sys.argv[1]).connect_client_sync() as other:
    print(rc.ids, other[:].apply_sync(abs, -1))
try:
    ipp.Client(sys.argv[1] + ".no")
except OSError as error:
    print("start one with" in str(error))
"""
    assert run(lab, program, str(tmp_path / "client.json")) == ["[0, 1] [1, 1]", "True"]


def test_all_clusters_in_the_background_are_loaded_and_one_is_ended(lab: CommandLine) -> None:
    lab("start", "-n", "0", "--name", "other")
    program = """
manager = ipp.ClusterManager()
print(sorted(manager.load_clusters()))
manager.get_cluster("other").stop_cluster_sync()
print(sorted(ipp.ClusterManager().load_clusters()))
"""
    assert run(lab, program) == ["['lab', 'other']", "['lab']"]


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs distributed")
def test_engines_become_workers_of_dask_and_engines_again(lab: CommandLine) -> None:
    program = """
import os
with ipp.Client(cluster_id="lab") as rc:
    for targets in "all", [0]:
        dask = rc.become_dask(targets, ncores=2)
        print(len(dask.scheduler_info()["workers"]), dask.gather(dask.map(abs, [-1, -2])))
        print(dask.submit(os.getpid).result() in rc[:].apply_sync(os.getpid))
        threads = rc[0].apply_sync(lambda worker: worker.state.nthreads, ipp.Reference("dask_worker"))
        dask.close()
        rc.stop_dask()
        print(threads, rc[0].apply_sync(lambda: "dask_worker" in globals()))
"""
    assert run(lab, program) == ["2 [1, 2]", "True", "2 False", "1 [1, 2]", "True", "2 False"]
