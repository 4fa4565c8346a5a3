"""The controller is killed at any moment: engines do not notice, clients go on, and it comes back with what it knew."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable

import psutil
import pytest

from nsactors import Client, Cluster, DirectView
from nsactors.protocol.control import ClusterState
from nsactors.protocol.engine_info import EngineOptions, Recovery
from nsactors.testing import TIMEOUT_S, Gate, wait_until
from nsactors.transport.base import ControllerChannel

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(400)]

ENGINES = 2
SLOW_S = 0.1
SLOWER = 20  # than before: a machine that is busy has long round trips at any time
GHOSTS = 1_000


@pytest.fixture
def rc(rc: Client) -> Client:
    """A client whose two engines run."""
    rc.wait_for_engines(ENGINES, timeout=TIMEOUT_S)
    return rc


def controller_process() -> psutil.Process:
    """The process of the controller of this process's cluster."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            if process.cmdline()[0].startswith("ray::RayController"):
                return process
    raise LookupError("there is no controller")


def kill_controller() -> None:
    os.kill(controller_process().pid, signal.SIGKILL)


def line_of(rc: Client) -> ControllerChannel:
    return rc.session.controller.line


def state_of(rc: Client) -> ClusterState:
    """Return the state that the controller reports; wait until the controller answers."""
    state: ClusterState = line_of(rc).call("state", timeout_s=TIMEOUT_S)
    return state


def is_right(rc: Client, ids: list[int]) -> bool:
    """Return whether the controller and the client know the same engines, and no others than these."""
    state = state_of(rc)
    return rc.ids == ids == [e.engine_id for e in state.engines] and not (state.recovering or rc.session.directory.away)


def test_calls_in_flight_do_not_notice(rc: Client, gate: Gate) -> None:
    running = rc[:].apply_async(gate.pass_through)
    queued = rc[:].apply_async(os.getpid)
    gate.wait_arrived(2)
    kill_controller()
    assert rc.ids == [0, 1]
    gate.open()
    assert running.get(TIMEOUT_S) == ["passed", "passed"]
    assert len(set(queued.get(TIMEOUT_S))) == 2
    assert rc[:].map_sync(abs, range(-50, 0)) == list(range(50, 0, -1))


def test_the_controller_comes_back_with_members_and_history(rc: Client) -> None:
    rc[:].execute("a = 1", block=True)
    wait_until(lambda: [entry.outcome for entry in rc.history(client=rc.name)] == ["ok", "ok"])
    wait_until(lambda: all(entry.completed for entry in rc.history()))  # also those of earlier clients
    before, known = state_of(rc), rc.history()
    kill_controller()
    wait_until(lambda: state_of(rc) == before)
    assert rc.history()[: len(known)] == known


def test_output_goes_on_and_none_of_it_is_lost(rc: Client, gate: Gate) -> None:
    engine: DirectView = rc[0]
    engine.push({"passed": gate.pass_through}, block=True)
    code = "import time\nfor k in range(200):\n    print(k, flush=True); time.sleep(0.02)\nprint('here'); passed()"
    printing = engine.execute(code)
    wait_until(lambda: "50\n" in str(printing.stdout))
    kill_controller()
    gate.wait_arrived()
    wait_until(lambda: "here" in str(printing.stdout))  # by way of the new controller: there is no reply yet
    gate.open()
    printing.get(TIMEOUT_S)
    assert str(printing.stdout) == "".join(f"{k}\n" for k in range(200)) + "here\n"
    assert str(printing.stderr) == ""


def test_an_engine_that_dies_with_it_is_brought_back(rc: Client) -> None:
    pid = rc[0].apply_sync(os.getpid)
    left = threading.Event()
    rc.on_leave(lambda engine_id: left.set() if engine_id == 0 else None)
    kill_controller()
    os.kill(pid, signal.SIGKILL)
    assert left.wait(TIMEOUT_S)
    assert rc[0].apply_sync(os.getpid) != pid
    wait_until(lambda: is_right(rc, [0, 1]))


def test_a_process_that_ray_calls_alive_and_that_holds_no_engine_is_replaced(cluster: Cluster, rc: Client) -> None:
    """As a worker that met a full disk before it made its engine."""

    def drop_engine() -> int:
        import ray

        ray._private.worker.global_worker.actors.clear()
        return os.getpid()

    (own,) = cluster.start_engines(1)
    try:
        wait_until(lambda: own in rc.ids)
        pid = rc[own].apply_sync(drop_engine)
        left = threading.Event()
        rc.on_leave(lambda engine_id: left.set() if engine_id == own else None)
        kill_controller()
        assert left.wait(TIMEOUT_S)
        wait_until(lambda: is_right(rc, [0, 1, own]))
        assert rc[own].apply_sync(os.getpid) != pid
    finally:
        cluster.stop_engines([own])
        wait_until(lambda: rc.ids == [0, 1])


def test_an_engine_that_dies_with_it_and_is_not_to_come_back_is_gone(cluster: Cluster, rc: Client) -> None:
    (engine_id,) = cluster.start_engines(1, recovery="none")
    wait_until(lambda: engine_id in rc.ids)
    pid = rc[engine_id].apply_sync(os.getpid)
    kill_controller()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_right(rc, [0, 1]))


def test_engines_that_were_asked_for_as_it_died_start_once(cluster: Cluster, rc: Client) -> None:
    killing = threading.Thread(target=kill_controller)
    killing.start()
    ids = cluster.start_engines(2)
    killing.join()
    wait_until(lambda: is_right(rc, [0, 1, *ids]))
    assert len(set(rc[:].apply_sync(os.getpid))) == 4
    rc.session.controller.stop_engines(ids)
    wait_until(lambda: is_right(rc, [0, 1]))


def test_two_clients_go_on(cluster: Cluster, rc: Client) -> None:
    with cluster.connect_client_sync() as other:
        kill_controller()
        assert other[:].map_sync(abs, [-1, -2]) == rc[:].map_sync(abs, [-1, -2]) == [1, 2]
        with cluster.connect_client_sync() as third:
            assert third.ids == [0, 1]
        wait_until(lambda: is_right(rc, [0, 1]))
        wait_until(lambda: is_right(other, [0, 1]))


def test_a_busy_engine_can_be_interrupted_through_the_new_controller(rc: Client, gate: Gate) -> None:
    stuck = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    kill_controller()
    assert rc.interrupt(0) == [0]
    assert isinstance(stuck.exception(TIMEOUT_S), Exception)


def test_clients_that_vanish_leave_the_controller_responsive(rc: Client) -> None:
    """They attach, wait for events and never come back; others are answered as before."""
    line = line_of(rc)
    actor = line._controller  # type: ignore[attr-defined]
    quick = round_trip_s(line)
    for number in range(GHOSTS):
        line.call("attach", f"ghost-{number}", timeout_s=TIMEOUT_S)
        actor.events.remote(f"ghost-{number}")
    crowded = round_trip_s(line)
    (engine_id,) = rc.session.controller.start_engines(1, EngineOptions(Recovery.NONE))
    wait_until(lambda: engine_id in rc.ids)
    rc.session.controller.stop_engines([engine_id])
    wait_until(lambda: engine_id not in rc.ids)
    memory = controller_process().memory_info().rss / 1e6
    print(f"\nround trip {quick * 1e3:.1f} ms; with {GHOSTS} clients gone {crowded * 1e3:.1f} ms; {memory:.0f} MB")
    assert crowded < max(SLOW_S, SLOWER * quick)


def round_trip_s(line: ControllerChannel) -> float:
    def once() -> float:
        began = time.perf_counter()
        line.call("state", timeout_s=TIMEOUT_S)
        return time.perf_counter() - began

    return statistics.median(once() for _ in range(50))


class Load:
    """Calls without end to all engines, from threads of one client: maps, and cells that print."""

    def __init__(self, rc: Client) -> None:
        self._rc = rc
        self._over = threading.Event()
        self.calls = 0
        self.failures: list[object] = []
        loops: list[Callable[[int], bool]] = [self._map, self._print]
        self._threads = [threading.Thread(target=self._run, args=(loop,)) for loop in loops]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def _run(self, once: Callable[[int], bool]) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            try:
                if not once(number):
                    self.failures.append(f"{once.__name__}({number}) is wrong")
            except Exception as error:
                self.failures.append(error)
            self.calls += 1

    def _map(self, number: int) -> bool:
        return self._rc[:].map_sync(abs, range(-number, 0)) == list(range(number, 0, -1))

    def _print(self, number: int) -> bool:
        printing = self._rc[:].execute(f"import time\nfor k in range(5): print({number}, k); time.sleep(0.01)")
        printing.get(TIMEOUT_S)
        return [str(text) for text in printing.stdout] == ["".join(f"{number} {k}\n" for k in range(5))] * 2


def test_it_is_killed_again_and_again_under_load(rc: Client, request: pytest.FixtureRequest) -> None:
    kills = 20 if request.config.getoption("--full-size") else 3
    right_after = []
    with Load(rc) as load:
        for _ in range(kills):
            before = load.calls
            kill_controller()
            began = time.monotonic()
            assert rc.ids == [0, 1]
            wait_until(lambda: is_right(rc, [0, 1]))
            right_after.append(time.monotonic() - began)
            wait_until(lambda calls=before: load.calls > calls + 10)
    slowest, usual = max(right_after), statistics.median(right_after)
    print(f"\n{kills} kills: membership right after {usual:.1f} s, at most {slowest:.1f} s; {load.calls} calls")
    assert load.failures == []
