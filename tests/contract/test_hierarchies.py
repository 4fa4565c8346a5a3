"""Engines that are clients: of clusters that they have started themselves, and of the one that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nsactors import Client, Cluster, DirectView, RemoteError
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, wait_until


def tree(depths: list[str]) -> Any:
    """What engines of engines of engines compute."""
    if not depths:
        return 21
    with Cluster(n=2, backend=depths[0]) as rc:
        return rc[:].apply_sync(tree, depths[1:])


def test_engines_start_engines_three_levels_deep(rc: Client, backend: str) -> None:
    found = rc[0].apply_async(tree, [backend, "local"]).get(2 * TIMEOUT_S)
    assert found == [[21, 21], [21, 21]]


def test_engines_map_over_engines_of_their_own(rc: Client) -> None:
    def fibonacci(n: int) -> int:
        if n < 2:
            return n
        with Cluster(n=2, backend="local") as own:
            return sum(own[:].map_sync(fibonacci, [n - 1, n - 2]))

    assert rc[0].apply_async(fibonacci, 6).get(TIMEOUT_S) == 8


def test_a_cluster_of_an_engine_is_used_from_cell_to_cell(rc: Client) -> None:
    rc[1].execute("from nsactors import Cluster; inner = Cluster(n=3, backend='local').start_and_connect_sync()").get(
        TIMEOUT_S
    )
    rc[1].execute("inner[:].scatter('part', range(9), block=True)", block=True)
    assert rc[1].pull("inner.gather_all('part')", block=True) == range(9)
    rc[1].execute("inner[:].communicator(); inner.execute_all('total = comm.allreduce(sum(part))')", block=True)
    assert rc[1].pull("inner['total']", block=True) == [36, 36, 36]


@pytest.mark.needs(Capability.PROCESS)
def test_a_cluster_of_an_engine_ends_with_it(victim: DirectView, end_engine: Callable[[int], None]) -> None:
    victim.execute("import os; from nsactors import Cluster; inner = Cluster(n=2).start_and_connect_sync()").get(
        TIMEOUT_S
    )
    pids = victim.pull("inner[:].apply_sync(os.getpid)", block=True)
    assert all(map(alive, pids))
    end_engine(victim.targets)  # type: ignore[arg-type]  # a view of one engine
    wait_until(lambda: not any(map(alive, pids)))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def members(rc: Client, cluster: Cluster) -> DirectView:
    """Engines that are clients of the cluster they belong to."""
    view = rc[:]
    view.push({"info": cluster.connection_info()}, block=True)
    view.execute("from nsactors import Client; here = Client(info)", block=True)
    return view


@pytest.mark.needs(Capability.PROCESS)
def test_an_engine_is_a_client_of_its_own_controller(rc: Client, members: DirectView) -> None:
    rc[0].execute("others = here[1:]; others['x'] = 5; seen = others['x'], here.ids", block=True)
    assert rc[0]["seen"] == ([5, 5, 5], [0, 1, 2, 3])
    assert rc[1:]["x"] == [5, 5, 5]
    # The magics that a first client adds are for a session that a user types into.
    assert rc[0].pull("'px' in get_ipython().magics_manager.magics['line']", block=True) is False
    rc[0].execute("here.close()", block=True)


@pytest.mark.needs(Capability.PROCESS)
def test_engines_that_are_clients_of_each_other_in_a_ring_do_not_deadlock(rc: Client, members: DirectView) -> None:
    members.scatter("me", range(4), flatten=True, block=True)
    # Every engine is busy with its own cell while it asks the next one, and has the answer in a later cell. Not in the
    # next: that may be begun before what the engines ask of each other has come, and then they wait in a ring.
    members.execute("answer = here[(me + 1) % 4].apply_async(lambda n: n * 10, me)", block=True)
    wait_until(lambda: all(members.pull("answer.done()", block=True)))
    members.execute("value = answer.get(50)", block=True)
    assert members.pull("value", block=True) == [0, 10, 20, 30]
    members.execute("here.close()", block=True)


@pytest.mark.needs(Capability.PROCESS)
def test_an_engine_that_waits_for_itself_leaves_the_prompt_responsive(rc: Client, members: DirectView) -> None:
    rc[0].execute("mine = here[0].apply_async(abs, -1)", block=True)
    wait_until(lambda: rc[0].pull("mine.done()", block=True))  # it comes between two cells, sooner or later
    assert rc[0].pull("mine.get(50)", block=True) == 1  # asked in one cell, had in another
    # An interrupted client waits so long for engines to stop.
    patient = (
        "import nsactors.results.interrupting as interrupting; before, interrupting.GRACE_S = interrupting.GRACE_S, 1e6"
    )
    rc[0].execute(patient, block=True)
    stuck = rc[0].execute("here[0].apply_sync(abs, -1)")
    wait_until(lambda: (rc.queue_status()[0]["running"] or "").startswith("here[0]"))
    assert rc[1].apply_sync(abs, -2) == 2
    rc.interrupt(0)
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        stuck.get(TIMEOUT_S)  # nothing waits for what the engine would have done for itself
    rc[0].execute("interrupting.GRACE_S = before", block=True)
    members.execute("here.close()", block=True)
