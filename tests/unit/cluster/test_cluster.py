"""The cluster of one process: at once there, and without Ray."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nsactors import Cluster


def test_a_local_cluster_of_four_is_there_within_a_tenth_of_a_second() -> None:
    def start_s() -> float:
        began = time.perf_counter()
        cluster = Cluster(n=4, backend="local")
        client = cluster.start_and_connect_sync()
        took = time.perf_counter() - began
        assert client.ids == [0, 1, 2, 3]
        cluster.stop_cluster_sync()
        return took

    assert min(start_s() for _ in range(3)) < 0.1


def test_a_local_cluster_works_where_ray_cannot_be_imported() -> None:
    program = (
        "import sys; sys.modules['ray'] = None\n"
        "from nsactors import Cluster\n"
        "with Cluster(n=2, backend='local') as rc:\n"
        "    print(rc[:].map_sync(lambda x: x**2, range(4)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1, 4, 9]\n", "")


def test_starting_and_connecting_starts_as_many_as_are_wanted() -> None:
    cluster = Cluster(n=1, backend="local")
    try:
        assert cluster.start_and_connect_sync(n=2).ids == [0, 1]
        assert cluster.start_and_connect_sync(n=3).ids == [0, 1, 2]
        assert cluster.start_and_connect_sync(n=1).ids == [0, 1, 2]  # there are more than enough
    finally:
        cluster.stop_cluster_sync()


def test_a_number_that_cannot_be_starts_nothing() -> None:
    cluster = Cluster(n=1, backend="local")
    with pytest.raises(ValueError, match="takes n as a whole number, 0 or more, or None, not -1"):
        cluster.start_and_connect_sync(n=-1)
    assert repr(cluster) == "<Cluster: stopped>"


def test_a_cluster_that_has_stopped_keeps_no_descriptor_and_no_thread() -> None:
    def held() -> tuple[int, set[str]]:
        return len(os.listdir("/proc/self/fd")), {thread.name for thread in threading.enumerate()}

    with Cluster(n=1, backend="local"):
        pass
    before = held()
    with Cluster(n=2, backend="local") as rc:
        rc[:].apply_sync(abs, -1)
    descriptors, threads = held()
    assert descriptors == before[0]
    assert "nsactors-controller" not in threads - before[1]


def test_output_of_start_up_code_comes_when_the_line_of_the_start_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    @contextmanager
    def showing(*args: object, **options: object) -> Iterator[None]:
        yield
        order.append("line removed")

    monkeypatch.setattr("nsactors.cluster.cluster.showing", showing)
    monkeypatch.setattr("nsactors.cluster.cluster.tell_of_start", lambda session: order.append("output shown"))
    with Cluster(n=1, backend="local"):
        assert order == ["line removed", "output shown"]


def test_a_start_that_is_awaited_is_shown_by_the_thread_that_awaits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown_by: list[threading.Thread] = []

    @contextmanager
    def showing(*args: object, **options: object) -> Iterator[None]:
        shown_by.append(threading.current_thread())
        yield

    monkeypatch.setattr("nsactors.cluster.cluster.showing", showing)

    async def start() -> None:
        async with Cluster(n=1, backend="local") as client:
            assert client.ids == [0]

    asyncio.run(start())
    assert shown_by == [threading.main_thread()]
