"""Ray's own tasks, actors and libraries, used on engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nsactors import Client, Cluster
from nsactors.testing import TIMEOUT_S, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def rc() -> Iterator[Client]:
    with Cluster(n=2) as rc:
        yield rc


def printed(rc: Client, engine_id: int, cell: str) -> str:
    return str(rc[engine_id].execute(cell, block=True, timeout=TIMEOUT_S).stdout)


def test_a_cell_runs_tasks_of_ray(rc: Client) -> None:
    cell = """
import ray

@ray.remote
def square(x):
    return x * x

print(ray.get([square.remote(x) for x in range(5)]))
"""
    assert printed(rc, 0, cell) == "[0, 1, 4, 9, 16]\n"


def test_an_actor_made_on_one_engine_is_found_by_name_on_another(rc: Client) -> None:
    cell = """
import ray

@ray.remote
class Counter:
    def __init__(self):
        self.count = 0
    def add(self, number):
        self.count += number
        return self.count

counter = Counter.options(name="counter").remote()
print(ray.get(counter.add.remote(2)))
"""
    assert printed(rc, 0, cell) == "2\n"
    assert printed(rc, 1, "import ray; print(ray.get(ray.get_actor('counter').add.remote(3)))") == "5\n"
    rc[0].execute("ray.kill(counter)", block=True)


def test_engines_leave_all_processors_to_tasks_of_ray(rc: Client) -> None:
    import ray

    assert rc[:].apply_sync(lambda: __import__("ray").get_runtime_context().get_assigned_resources()) == [{}, {}]
    # Tasks give theirs back after a while; what is used up is not listed.
    wait_until(lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"])


def test_a_pool_of_ray_works_on_an_engine(rc: Client) -> None:
    cell = """
from ray.util.multiprocessing import Pool

with Pool(1) as pool:
    print(pool.map(abs, range(-3, 0)))
"""
    assert printed(rc, 0, cell) == "[3, 2, 1]\n"


def test_a_queue_of_ray_joins_engines_and_client(rc: Client) -> None:
    rc[0].execute("from ray.util.queue import Queue; queue = Queue(actor_options={'num_cpus': 0})", block=True)
    queue = rc[0].pull("queue", block=True)
    rc[1].push({"queue": queue}, block=True)
    rc[1].execute("queue.put('from engine 1')", block=True)
    assert queue.get(timeout=TIMEOUT_S) == "from engine 1"
    queue.put("from the client")
    assert printed(rc, 0, f"print(queue.get(timeout={TIMEOUT_S}))") == "from the client\n"
    queue.shutdown()
