"""A forked child has its parent's clients and none of their threads: whatever it does with them raises at once."""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nsactors import Client, Cluster
from nsactors.errors import ForkedClient
from nsactors.models.tuple_space import TupleSpace
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate


def in_forked_child(function: Callable[[], Any]) -> Any:
    """Return the result or the error of ``function`` in a forked child of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # nothing of pytest's may run here
        try:
            outcome = function()
        except BaseException as error:
            outcome = error
        try:
            os.write(writing, pickle.dumps(outcome))
        finally:
            os._exit(0)
    try:
        assert select.select([reading], [], [], TIMEOUT_S)[0], "the child hangs"
        outcome = pickle.loads(os.read(reading, 1_000_000))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    return outcome


@pytest.mark.forks
def test_every_door_is_closed_in_a_forked_child(rc: Client, cluster: Cluster, gate: Gate) -> None:
    view, balanced = rc[0], rc.load_balanced_view()
    space, executor = TupleSpace(rc), balanced.executor
    space.out("a", 1)
    done = view.apply_async(abs, -1)
    done.get(TIMEOUT_S)
    held = view.apply_async(gate.pass_through)
    items = rc[:].map_async(lambda item: gate.pass_through(), range(8))
    tasks = balanced.map_async(lambda item: item, range(8))
    doors: list[Callable[[], Any]] = [
        lambda: view.apply_sync(abs, -1),
        lambda: view.execute("1", block=True),
        lambda: view.push({"a": 1}),
        lambda: rc[:],
        lambda: rc.ids,
        rc.history,
        rc.queue_status,
        rc.memory,
        lambda: rc.interrupt(0),
        rc.abort,
        rc.tasks,
        held.get,
        lambda: held.get(timeout=60),
        held.wait,
        held.result,
        held.exception,
        held.abort,
        lambda: held.add_done_callback(print),
        lambda: next(iter(items)),
        lambda: next(iter(tasks)) if not tasks.done() else tasks.add_done_callback(print),
        lambda: balanced.apply_sync(abs, -1),
        lambda: executor.submit(abs, -1),
        lambda: next(balanced.imap(abs, range(3))),
        lambda: space.in_("a", int),
        lambda: space.out("b", 2),
        lambda: cluster.start_engines(1),
        cluster.start_and_connect_sync,
        cluster.connect_client_sync,
    ]

    def try_all() -> list[str]:
        raised = []
        for door in doors:
            try:
                raised.append(repr(door()))
            except Exception as error:
                raised.append(type(error).__name__)
        return raised

    assert in_forked_child(try_all) == ["ForkedClient"] * len(doors)
    assert in_forked_child(done.get) == 1  # what is there can be read
    gate.open()
    assert (held.get(TIMEOUT_S), space.in_("a", int, timeout=TIMEOUT_S)) == ("passed", ("a", 1))


@pytest.mark.forks
def test_the_error_says_whose_the_client_is_and_what_to_do(rc: Client) -> None:
    error = in_forked_child(lambda: rc[0].apply_sync(abs, -1))
    assert isinstance(error, ForkedClient)
    assert error.owner == os.getpid()
    assert f"belongs to process {os.getpid()}" in str(error)
    assert "Client.connect(info)" in str(error)


@pytest.mark.forks
@pytest.mark.needs(Capability.PROCESS)
def test_a_forked_child_cannot_connect_anew_where_its_parent_is_connected(cluster: Cluster, rc: Client) -> None:
    info = cluster.connection_info()
    assert isinstance(in_forked_child(lambda: Client(info)), ForkedClient)


@pytest.mark.forks
def test_a_forked_child_that_drops_its_clients_disturbs_nobody(cluster: Cluster, rc: Client) -> None:
    names = {"space": TupleSpace(rc), "view": rc[:]}
    names["space"].out("a", 1)

    def drop() -> str:
        names.clear()
        gc.collect()
        rc.close()
        cluster.stop_cluster_sync()
        return "dropped"

    assert in_forked_child(drop) == "dropped"
    assert rc[:].apply_sync(abs, -2) == [2] * 4
    assert names["space"].in_("a", int, timeout=TIMEOUT_S) == ("a", 1)


SCRIPT = """
import os, sys
from nsactors import Cluster
with Cluster(n=1, backend=sys.argv[1]) as rc:
    rc[0].execute("1/0")
    rc[0].apply_sync(abs, -1)
    if not (child := os.fork()):
        sys.exit(7)  # with all that runs at an orderly end
    print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    print("parent", rc[0].apply_sync(abs, -2), flush=True)
"""


def test_the_end_of_a_forked_child_leaves_the_cluster_alone(backend: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    ran = subprocess.run(
        [sys.executable, script, backend], capture_output=True, text=True, timeout=2 * TIMEOUT_S, check=False
    )
    assert ran.stdout.splitlines() == ["child 7", "parent 2"], ran.stderr
    assert ran.stderr.count("ZeroDivisionError") == 1  # told by whose failure it is
