"""Tasks while engines die and come back."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nsactors import Client, Cluster
from nsactors.errors import ImpossibleDependency, TaskLost
from nsactors.testing import TIMEOUT_S, Gate, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(500)]

TASKS = 200


@pytest.fixture
def rc(cluster: Cluster, rc: Client) -> Iterator[Client]:
    """A client; the engines that there are in the end are gone after the test."""
    yield rc
    cluster.stop_engines(rc.ids)


def start(cluster: Cluster, rc: Client, count: int, recovery: str) -> list[int]:
    ids = cluster.start_engines(count, recovery=recovery)
    wait_until(lambda: set(ids) <= set(rc.ids))
    return ids


@pytest.mark.parametrize("recovery", ["restart", "replay"])
def test_every_task_has_one_result_though_engines_are_killed_again_and_again(
    cluster: Cluster, rc: Client, recovery: str, gate: Gate, tmp_path: Path
) -> None:
    ids = start(cluster, rc, 2, recovery)
    lview, pass_through = rc.load_balanced_view(ids), gate.pass_through

    def work(number: int) -> tuple[int, int]:
        import os
        import time

        time.sleep(0.02)  # noqa: TID251 (long enough to be killed)
        with open(tmp_path / f"{number}", "a") as file:
            file.write(f"{os.getpid()}\n")
        return number, os.getpid()

    def hold() -> None:
        with open(tmp_path / "held by", "a") as file:
            file.write(f"{os.getpid()}\n")
        pass_through()

    def pids_of_engines() -> dict[int, int]:
        known, away = rc.session.directory.known, rc.session.directory.away
        return {i: known[i].pid for i in ids if i in known and i not in away}

    results = [lview.apply_async(work, number) for number in range(TASKS)]
    for killed in range(1, 4):
        wait_until(lambda: sum(result.ready() for result in results) > killed * TASKS // 5)  # noqa: B023
        alive: dict[int, int] = {}
        wait_until(lambda: alive.update(pids_of_engines()) or alive)  # noqa: B023 (all may be on their way back)
        engine_id, pid = random.Random(killed).choice(sorted(alive.items()))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pids_of_engines().get(engine_id) != pid)  # noqa: B023
    held = lview.apply_async(hold)  # those above may have struck between two tasks; this one strikes at work
    gate.wait_arrived()
    os.kill(int((tmp_path / "held by").read_text()), signal.SIGKILL)
    gate.open()
    assert held.get(TIMEOUT_S) is None
    assert held.tried_on
    values = [result.get(TIMEOUT_S) for result in results]
    assert [number for number, _ in values] == list(range(TASKS))
    runs = [(tmp_path / f"{number}").read_text().split() for number in range(TASKS)]
    assert all(len(pids) == 1 or result.tried_on for pids, result in zip(runs, results, strict=True))
    assert all(str(pid) == pids[-1] for pids, (_, pid) in zip(runs, values, strict=True))


def test_a_task_that_kills_every_engine_is_given_up_and_spares_the_others(cluster: Cluster, rc: Client) -> None:
    ids = start(cluster, rc, 2, "restart")
    lview = rc.load_balanced_view(ids)
    deadly = lview.apply_async(os.abort)
    others = [lview.apply_async(abs, -number) for number in range(50)]
    with pytest.raises(TaskLost, match="abort"):
        deadly.get(4 * TIMEOUT_S)  # five engines die, and are brought back
    assert [result.get(TIMEOUT_S) for result in others] == list(range(50))


def test_a_task_that_follows_one_whose_engine_has_died_is_impossible(cluster: Cluster, rc: Client) -> None:
    (gone, _) = start(cluster, rc, 2, "restart")
    lview = rc.load_balanced_view([gone])
    leader = lview.apply_async(os.getpid)
    pid = leader.get(TIMEOUT_S)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: (info := rc.session.directory.get(gone)) is not None and info.pid != pid)
    with rc.load_balanced_view().temp_flags(follow=leader) as anywhere, pytest.raises(ImpossibleDependency):
        anywhere.apply_async(os.getpid).get(TIMEOUT_S)


def test_a_map_can_be_stopped_while_its_items_run(cluster: Cluster, rc: Client, gate: Gate) -> None:
    ids = start(cluster, rc, 2, "none")
    lview = rc.load_balanced_view(ids)
    pass_through = gate.pass_through
    result = lview.map_async(lambda x: pass_through(), range(100), chunksize=1)
    gate.wait_arrived(2)
    result.abort(interrupt=True)
    values: Any = result.get(TIMEOUT_S, return_exceptions=True)
    names = {getattr(value, "ename", type(value).__name__) for value in values}
    assert names == {"KeyboardInterrupt", "TaskAborted"}


def test_long_items_among_thousands_of_short_ones_run_side_by_side(cluster: Cluster, rc: Client, gate: Gate) -> None:
    ids = start(cluster, rc, 3, "none")
    pass_through, size, long = gate.pass_through, 4000, range(2000, 2003)
    result = rc.load_balanced_view(ids).map_async(lambda x: pass_through() if x in long else x, range(size))
    # None of them ends before all have begun: what was sent behind one, in the same message, must go elsewhere.
    gate.wait_arrived(len(long))
    gate.open()
    values = result.get(TIMEOUT_S)
    assert [x for x in values if isinstance(x, int)] == [x for x in range(size) if x not in long]
