"""Engines that die, and what comes back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from nsactors import Client, Cluster, DirectView, Reference
from nsactors.errors import EngineLost, RemoteError
from nsactors.magics.options import CELL, parse
from nsactors.magics.running import submit
from tests.gates import TIMEOUT_S, Gate, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
def told() -> list[str]:
    """What clients say when they are closed."""
    return []


@pytest.fixture
def rc(cluster: Cluster, told: list[str]) -> Iterator[Client]:
    with cluster.connect_client_sync(report=told.append) as client:
        yield client


@pytest.fixture
def start(cluster: Cluster, rc: Client) -> Iterator[Callable[[str], DirectView]]:
    """Starts an engine with a way to recover; it is gone after the test."""
    started: list[int] = []

    def start(recovery: str) -> DirectView:
        (engine_id,) = cluster.start_engines(1, recovery=recovery)
        started.append(engine_id)
        wait_until(lambda: engine_id in rc.ids)
        view: DirectView = rc[engine_id]
        return view

    yield start
    rc.session.transport.controller.stop_engines(started)


@pytest.fixture
def engine(start: Callable[[str], DirectView]) -> DirectView:
    """One that recovers its namespace."""
    return start("replay")


def kill(view: DirectView) -> int:
    """End an engine's process when it is idle; its pid."""
    pid: int = view.apply_sync(os.getpid)
    os.kill(pid, signal.SIGKILL)
    return pid


def test_an_engine_that_dies_comes_back_under_its_id_with_an_empty_namespace(
    rc: Client, start: Callable[[str], DirectView], told: list[str]
) -> None:
    engine = start("restart")
    engine.push({"a": 1}, block=True)
    left, joined = threading.Event(), threading.Event()
    rc.on_leave(lambda engine_id: left.set())
    rc.on_join(lambda engine_id: joined.set())
    pid = kill(engine)
    assert left.wait(TIMEOUT_S)
    assert joined.wait(TIMEOUT_S)
    assert engine.apply_sync(os.getpid) != pid
    with pytest.raises(NameError):
        engine.pull("a", block=True)
    rc.close()
    assert f"engine {engine.targets} died" in told[0]
    assert "empty namespace" in told[0]


def test_what_is_asked_while_an_engine_is_away_runs_when_it_is_back(start: Callable[[str], DirectView]) -> None:
    engine = start("restart")
    left = threading.Event()
    engine.client.on_leave(lambda engine_id: left.set())
    kill(engine)
    assert left.wait(TIMEOUT_S)
    assert engine.apply_sync(abs, -3) == 3


def test_without_recovery_an_engine_is_gone(rc: Client, start: Callable[[str], DirectView]) -> None:
    engine = start("none")
    kill(engine)
    wait_until(lambda: engine.targets not in rc.ids)


def test_names_made_in_every_way_are_there_again(engine: DirectView) -> None:
    engine.execute("import math\nx = [1]\ndef area(r): return math.pi * r * r\nclass Shape: sides = 4", block=True)
    engine.push({"a": np.arange(100_000), "half": lambda number: number / 2}, block=True)
    engine.apply_sync(list.append, Reference("x"), 2)
    engine.execute("y = x\nnumbers = (n for n in range(3)); next(numbers)", block=True)
    kill(engine)
    assert engine.apply_sync(np.sum, Reference("a")) == 4999950000
    assert engine.pull(["x", "x is y", "half(3)", "round(area(1), 2)", "Shape.sides", "next(numbers)"], block=True) == [
        [1, 2],
        True,
        1.5,
        3.14,
        4,
        1,
    ]


def test_a_recovery_says_what_it_did(rc: Client, engine: DirectView) -> None:
    engine.execute("a = 1", block=True)
    engine.execute("b = 2", block=True)
    kill(engine)
    assert engine.pull("a + b", block=True) == 3
    (report,) = rc.recoveries
    assert (report.engine_id, report.replayed, report.is_complete) == (engine.targets, 3, True)  # kill() is one of them


def test_a_recovered_namespace_is_recovered_again(engine: DirectView) -> None:
    engine.execute("a = 1", block=True)
    for _ in range(3):
        kill(engine)
        engine.execute("a += 1", block=True)
    assert engine.pull("a", block=True) == 4


def test_what_was_queued_behind_the_death_runs_once_and_what_was_running_does_not_run_again(
    engine: DirectView, gate: Gate
) -> None:
    pid = engine.apply_sync(os.getpid)
    engine.push({"seen": [], "wait": gate.pass_through}, block=True)
    before = [engine.execute(f"seen.append({k})") for k in range(3)]
    running = engine.execute("seen.append('running'); wait()")
    behind = [engine.execute(f"seen.append({k})") for k in range(3, 6)]
    gate.wait_arrived()
    os.kill(pid, signal.SIGKILL)
    assert all(result.wait(TIMEOUT_S) and result.successful() for result in before + behind)
    with pytest.raises(EngineLost, match="not repeated"):
        running.get(TIMEOUT_S)
    assert engine.pull("seen", block=True) == [0, 1, 2, 3, 4, 5]


def test_what_is_sent_as_not_to_be_repeated_is_not(engine: DirectView, rc: Client) -> None:
    engine.execute("count = 0", block=True)
    with engine.temp_flags(journal=False):
        engine.execute("count += 1", block=True)
    engine.execute("count += 10", block=True)
    kill(engine)
    assert engine.pull("count", block=True) == 10
    assert "count += 1" in str(rc.recoveries[-1])


def test_a_command_that_kills_every_recovery_is_left_out_in_the_end(
    engine: DirectView, rc: Client, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    engine.execute("a = 1", block=True)
    engine.execute(f"import os; os.path.exists({str(trap)!r}) and os._exit(1); b = 1", block=True)
    engine.execute("c = 1", block=True)
    trap.touch()
    kill(engine)
    assert engine.pull(["a", "c"], block=True) == [1, 1]
    assert "ended the engine whenever" in str(rc.recoveries[-1])


def test_a_snapshot_takes_the_place_of_what_led_there(engine: DirectView, rc: Client) -> None:
    engine.execute("a = 0", block=True)
    for _ in range(20):
        engine.execute("a += 1", block=True)
    assert engine.snapshot(block=True) == {}
    engine.execute("b = a + 1", block=True)
    kill(engine)
    assert engine.pull(["a", "b"], block=True) == [20, 21]
    assert rc.recoveries[-1].replayed == 2
    assert "a" in rc.recoveries[-1].restored


def test_what_a_snapshot_cannot_hold_is_named_and_made_again(engine: DirectView) -> None:
    engine.execute("import threading\nlock = threading.Lock()\na = 5", block=True)
    assert "lock" in engine.snapshot(block=True)
    kill(engine)
    assert engine.pull(["a", "lock.locked()"], block=True) == [5, False]


def test_an_engine_that_no_interrupt_reaches_is_taken_down_and_recovered(
    engine: DirectView, rc: Client, gate: Gate
) -> None:
    engine.execute("a = 5", block=True)
    stuck = engine.apply_async(gate.pass_holding_gil)
    gate.wait_arrived()
    rc.recover(engine.targets)
    assert isinstance(stuck.exception(TIMEOUT_S), EngineLost)
    assert engine.pull("a", block=True) == 5


def test_a_restart_that_was_asked_for_begins_anew(engine: DirectView, rc: Client) -> None:
    engine.execute("a = 5", block=True)
    rc.shutdown(engine.targets, restart=True)
    with pytest.raises(NameError):
        engine.pull("a", block=True)


def test_failing_cells_are_part_of_what_led_there(engine: DirectView) -> None:
    with pytest.raises(ZeroDivisionError):
        engine.execute("a = 1\n1/0", block=True)
    with pytest.raises(RemoteError):
        engine.execute("raise SystemExit", block=True)
    kill(engine)
    assert engine.pull("a", block=True) == 1


def test_cells_are_numbered_on_and_their_results_are_there(engine: DirectView) -> None:
    engine.execute("6 * 7", silent=False, block=True)
    kill(engine)
    result = engine.execute("Out[1]", silent=False, block=True)
    assert (result.get().text, result.get().execution_count) == ("42", 2)


def test_another_client_sees_the_recovered_namespace(cluster: Cluster, engine: DirectView) -> None:
    engine.execute("a = 5", block=True)
    kill(engine)
    with cluster.connect_client_sync() as other:
        assert other[engine.targets].pull("a", block=True) == 5


def test_a_cell_of_a_notebook_can_be_sent_as_not_to_be_repeated(engine: DirectView) -> None:
    engine.execute("count = 0", block=True)
    options, _ = parse("--no-journal", CELL, "%%px")
    submit(engine, "count += 1", options).get(TIMEOUT_S)
    kill(engine)
    assert engine.pull("count", block=True) == 0
