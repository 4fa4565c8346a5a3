"""The cluster of one process: at once there, and without Ray."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from nsactors import Cluster
from nsactors.testing import TIMEOUT_S, wait_until
from nsactors.transport.local import LocalBackend


def test_the_start_of_four_engines_in_threads_takes_little_processor_time() -> None:
    def start_s() -> float:
        began = time.process_time()  # of all threads; the time that passes depends on the machine's load
        cluster = Cluster(n=4, backend="local")
        client = cluster.start_and_connect_sync()
        took = time.process_time() - began
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


class Held:
    """Holds a start at its first step, on the thread that takes it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arrived, self.may_go_on = threading.Event(), threading.Event()
        usual = LocalBackend.start

        def start(backend: LocalBackend) -> None:
            self.arrived.set()
            assert self.may_go_on.wait(TIMEOUT_S)
            usual(backend)

        monkeypatch.setattr(LocalBackend, "start", start)

    async def wait_arrived(self) -> None:
        assert await asyncio.to_thread(self.arrived.wait, TIMEOUT_S)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


def engine_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("engine-")}


@pytest.mark.parametrize("method", ["start_cluster", "start_and_connect", "__aenter__"])
def test_a_start_that_is_cancelled_leaves_no_engine(held: Held, method: str) -> None:
    before = engine_threads()

    async def main() -> None:
        cluster = Cluster(n=2, backend="local")
        starting = asyncio.create_task(getattr(cluster, method)())
        await held.wait_arrived()
        starting.cancel()
        held.may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert repr(cluster) == "<Cluster: stopped>"

    asyncio.run(main())
    wait_until(lambda: engine_threads() <= before)


def test_a_start_that_is_cancelled_before_it_has_begun_never_begins(held: Held) -> None:
    async def main() -> None:
        starting = asyncio.create_task(Cluster(n=2, backend="local").start_and_connect())
        asyncio.get_running_loop().set_default_executor(workers := ThreadPoolExecutor(2))
        may_go_on = threading.Event()
        busy = [workers.submit(may_go_on.wait, TIMEOUT_S) for _ in range(2)]
        await asyncio.sleep(0)  # the start waits for a worker
        starting.cancel()
        await asyncio.sleep(0)
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert all(each.result(TIMEOUT_S) for each in busy)

    held.may_go_on.set()
    asyncio.run(main())
    assert not held.arrived.is_set()


def test_a_stop_during_the_start_ends_it(held: Held) -> None:
    before, stops = engine_threads(), threading.Event()

    class Watched(Cluster):
        def stop_cluster_sync(self, **options: Any) -> None:
            stops.set()
            super().stop_cluster_sync(**options)

    async def main() -> None:
        cluster = Watched(n=2, backend="local")
        starting = asyncio.create_task(cluster.start_and_connect())
        await held.wait_arrived()
        stopping = asyncio.create_task(cluster.stop_cluster())
        assert await asyncio.to_thread(stops.wait, TIMEOUT_S)
        held.may_go_on.set()
        await stopping
        await asyncio.gather(starting, return_exceptions=True)  # the start may have been complete by then
        assert repr(cluster) == "<Cluster: stopped>"

    asyncio.run(main())
    wait_until(lambda: engine_threads() <= before)


@pytest.mark.parametrize("step", ["start", "connect"])
@pytest.mark.parametrize("method", ["start_cluster_sync", "start_and_connect_sync"])
def test_control_c_during_a_start_raises_a_short_interrupt_and_leaves_no_engine(
    monkeypatch: pytest.MonkeyPatch, method: str, step: str
) -> None:
    before, cluster = engine_threads(), Cluster(n=2, backend="local")

    def interrupted(backend: LocalBackend) -> None:
        try:
            raise OSError("an error of Ray")
        except OSError:
            raise KeyboardInterrupt from None  # deep in functions that wait

    with monkeypatch.context() as patched:
        patched.setattr(LocalBackend, step, interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            getattr(cluster, method)()
    assert caught.value.__notes__ == ["the start of the cluster was cancelled"]
    assert caught.value.__context__ is None
    assert len(caught.traceback) == 3
    assert repr(cluster) == "<Cluster: stopped>"
    assert engine_threads() <= before
    try:
        assert cluster.start_and_connect_sync().ids == [0, 1]
    finally:
        cluster.stop_cluster_sync()
