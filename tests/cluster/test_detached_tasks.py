"""Detached tasks while clients, engines and their scheduler are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nsactors import Client, Cluster
from nsactors.errors import ResultUnavailable, SchedulerLost
from nsactors.testing import TIMEOUT_S, Gate, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(300)]

TASKS = 200
ENGINES = 3
LIMIT_S = 150

CLIENT = """
import os, sys
import numpy as np
from nsactors import Client
rc = Client(sys.argv[1], report=lambda text: None)
lview = rc.load_balanced_view(detached=True)
def die():
    os.kill(os.getpid(), 9)
"""

WORK = """
folder = sys.argv[2]
def work(number):
    import os, time
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.01)
    time.sleep(0.03)
    with open(os.path.join(folder, str(number)), "a") as file:
        file.write(f"{os.getpid()}\\n")
    return number, os.getpid()
"""

Run = Callable[..., str]


@pytest.fixture
def rc(rc: Client) -> Client:
    """A client whose engines all run: earlier tests may have killed some of them."""
    wait_until(lambda: len(pids_of(rc)) == ENGINES)
    return rc


@pytest.fixture
def run(cluster: Cluster, tmp_path: Path) -> Run:
    """Runs a program with a client of its own, and a detached view: what it printed."""
    place = tmp_path / "private" / "cluster.json"
    cluster.connection_info().save(place)

    def run(program: str, *arguments: str) -> str:
        command = [sys.executable, "-c", CLIENT + program, str(place), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.stdout.strip()

    return run


def pids_of(rc: Client) -> dict[int, int]:
    """The processes of engines, by id."""
    known = rc.session.directory.known
    return {engine_id: known[engine_id].pid for engine_id in rc.ids if engine_id not in rc.session.directory.away}


def scheduler_pid(cluster: Cluster) -> int:
    """The process of the scheduler."""
    import ray

    actor = ray.get_actor("named-actor-tasks", cluster.connection_info().namespace)
    pid: int = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
    return pid


def test_two_hundred_tasks_are_done_though_their_client_and_engines_are_killed(
    rc: Client, run: Run, gate: Gate, tmp_path: Path
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    ids = run(
        WORK
        + """
print(" ".join(lview.apply_async(work, number).msg_ids[0] for number in range(200)), flush=True)
die()
""",
        str(folder),
    ).split()
    assert len(ids) == TASKS
    (folder / "go").touch()

    choices = random.Random(1)
    for killed in range(1, 4):
        wait_until(lambda: len(os.listdir(folder)) > killed * TASKS // 5)  # noqa: B023
        engine_id, pid = choices.choice(sorted(pids_of(rc).items()))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pids_of(rc).get(engine_id, pid) != pid)  # noqa: B023

    held_by, pass_through = tmp_path / "held by", gate.pass_through

    def hold() -> None:
        with open(held_by, "a") as file:
            file.write(f"{os.getpid()}\n")
        pass_through()

    # Those above may have struck between two tasks; this one strikes at work.
    held = rc.load_balanced_view(detached=True).apply_async(hold)
    gate.wait_arrived()
    os.kill(int(held_by.read_text()), signal.SIGKILL)
    gate.open()
    assert held.get(TIMEOUT_S) is None
    assert held.tried_on

    collected = run(
        """
result = rc.get_result(sys.argv[2:])
values = result.get(120)
print([number for number, _ in values] == list(range(200)))
print(" ".join(str(pid) for _, pid in values))
print(" ".join(str(len(tried)) for tried in result.tried_on))
""",
        *ids,
    )
    in_order, pids, tried = collected.splitlines()
    assert in_order == "True"
    runs = [(folder / str(number)).read_text().split() for number in range(TASKS)]
    assert all(done[-1] == pid for done, pid in zip(runs, pids.split(), strict=True)), "a result is not the last run's"
    assert all(len(done) == 1 or int(times) for done, times in zip(runs, tried.split(), strict=True))


def test_arguments_of_a_client_that_is_killed_are_there_when_their_turn_comes(rc: Client, run: Run, gate: Gate) -> None:
    rc[:].push({"pass_through": gate.pass_through}, block=True)
    msg_id = run("""
array = np.arange(1_000_000)
waiting = lview.map_async(lambda i: pass_through() and array[i] + len(array), [5] * 10, chunksize=1)
sums = lview.apply_async(lambda given: given.sum(), array)
print(waiting.msg_ids[0], sums.msg_ids[0], flush=True)
die()
""")
    mapped, summed = msg_id.split()
    gate.wait_arrived(ENGINES)
    gate.open()
    assert rc.get_result(mapped).get(TIMEOUT_S) == [1_000_005] * 10
    assert rc.get_result(summed).get(TIMEOUT_S) == 499_999_500_000


def test_when_their_scheduler_is_killed_tasks_fail_and_the_next_one_starts_another(
    cluster: Cluster, rc: Client, gate: Gate
) -> None:
    lview = rc.load_balanced_view(detached=True)
    done, running = lview.apply_async(int), lview.apply_async(gate.pass_through)
    gate.wait_arrived()
    assert done.get(TIMEOUT_S) == 0
    os.kill(scheduler_pid(cluster), signal.SIGKILL)
    with pytest.raises(SchedulerLost, match="Submit it again"):
        running.get(TIMEOUT_S)
    gate.open()
    with pytest.raises(ResultUnavailable):
        rc.get_result(done.msg_ids[0])
    assert lview.apply_async(abs, -1).get(TIMEOUT_S) == 1
    assert rc.load_balanced_view().apply_async(abs, -2).get(TIMEOUT_S) == 2


def test_items_whose_class_exits_where_they_are_scheduled_are_refused(cluster: Cluster, rc: Client, run: Run) -> None:
    lview = rc.load_balanced_view(detached=True)
    lview.apply_sync(int)
    pid = scheduler_pid(cluster)
    assert (
        run("""
class Bad:
    def __reduce__(self):
        return sys.exit, (3,)
try:
    lview.map_async(abs, [Bad()])
except Exception as error:
    print(type(error).__name__)
""")
        == "SerializationError"
    )
    assert scheduler_pid(cluster) == pid


def wait_for_ever() -> None:
    threading.Event().wait()


def test_nothing_is_left_of_the_scheduler_when_its_cluster_has_stopped(cluster: Cluster) -> None:
    import ray

    second = Cluster(n=1)
    rc = second.start_and_connect_sync()
    namespace = second.connection_info().namespace
    waiting = rc.load_balanced_view(detached=True).apply_async(wait_for_ever)
    pid = scheduler_pid(second)
    second.stop_cluster_sync()
    assert waiting.exception(TIMEOUT_S) is not None
    wait_until(lambda: namespace not in {a["namespace"] for a in ray.util.list_named_actors(all_namespaces=True)})
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
