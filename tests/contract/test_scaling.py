"""Engines come and go while work is done: it flows to newcomers, and nothing is lost with those who go (A5)."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors import Client, Cluster
from nsactors.errors import CapabilityError, EngineLost, NoSuchEngine, RemoteError
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate, wait_until

AddEngines = Callable[[int], list[int]]


@pytest.fixture
def stop(cluster: Cluster) -> Iterator[Callable[..., Future[None]]]:
    """Stops engines in another thread."""
    with ThreadPoolExecutor() as pool:
        yield lambda ids, **options: pool.submit(cluster.stop_engines, ids, **options)


def here(item: int = 0) -> tuple[int, int]:
    """The process and the thread that this is called in."""
    return os.getpid(), threading.get_ident()


@pytest.mark.usefixtures("nothing_on_its_way")
def test_a_cluster_is_scaled_up_and_down(own_cluster: Callable[..., Cluster]) -> None:
    cluster = own_cluster(1)
    rc = cluster.start_and_connect_sync()
    assert cluster.scale(3) == [0, 1, 2]
    rc.wait_for_engines(3, TIMEOUT_S)
    assert cluster.scale(2) == [0, 1]
    assert (rc.ids, rc[:].apply_sync(abs, -1)) == ([0, 1], [1, 1])
    assert cluster.scale(2) == [0, 1]


@pytest.mark.usefixtures("nothing_on_its_way")
def test_engines_that_have_not_joined_yet_are_counted(own_cluster: Callable[..., Cluster]) -> None:
    cluster = own_cluster(0)
    rc = cluster.start_and_connect_sync()
    assert (cluster.scale(2), cluster.scale(2), cluster.scale(1)) == ([0, 1], [0, 1], [0])
    rc.wait_for_engines(1, TIMEOUT_S)
    assert rc.ids == [0]


@pytest.mark.once
@pytest.mark.usefixtures("nothing_on_its_way")
def test_scaling_has_forms_for_event_loops(own_cluster: Callable[..., Cluster]) -> None:
    cluster = own_cluster(1)
    rc = cluster.start_and_connect_sync()

    async def scale() -> list[list[int]]:
        steps = [await cluster.start_engines_async(1), await cluster.scale_async(3)]
        await cluster.stop_engines_async(2)
        rc.wait_for_engines(2, TIMEOUT_S)
        await cluster.restart_engines_async(0)
        return [*steps, rc.ids]

    assert asyncio.run(scale()) == [[1], [0, 1, 2], [0, 1]]


@pytest.mark.once
@pytest.mark.parametrize("n", [-1, 2.5, "4", True])
def test_a_number_of_engines_that_cannot_be_is_refused(cluster: Cluster, rc: Client, n: Any) -> None:
    for method in (cluster.scale, cluster.start_engines):
        with pytest.raises((ValueError, TypeError), match="takes n as a whole number, 0 or more, not"):
            method(n)
    assert rc.ids == [0, 1, 2, 3]


@pytest.mark.once
def test_stopping_an_engine_that_there_is_not_stops_none(cluster: Cluster, rc: Client, add_engines: AddEngines) -> None:
    (new,) = add_engines(1)
    with pytest.raises(NoSuchEngine):
        cluster.stop_engines([new, 10_000])
    assert new in rc.ids


@pytest.mark.usefixtures("nothing_on_its_way")
def test_an_idle_engine_that_is_stopped_is_gone(cluster: Cluster, rc: Client, add_engines: AddEngines) -> None:
    (new,) = add_engines(1)
    gone = []
    rc.on_leave(gone.append)
    cluster.stop_engines(new)
    wait_until(lambda: gone == [new])
    assert rc.ids == [0, 1, 2, 3]


@pytest.mark.usefixtures("nothing_on_its_way")
def test_a_busy_engine_finishes_what_it_has_been_asked_to_do(
    rc: Client, add_engines: AddEngines, gate: Gate, stop: Callable[..., Future[None]]
) -> None:
    (new,) = add_engines(1)
    running, queued = rc[new].apply_async(gate.pass_through), rc[new].apply_async(abs, -1)
    gate.wait_arrived()
    stopping = stop(new)
    wait_until(lambda: new not in rc.ids)  # nobody gives it more
    assert not stopping.done()
    gate.open()
    assert (running.get(TIMEOUT_S), queued.get(TIMEOUT_S)) == ("passed", 1)
    stopping.result(TIMEOUT_S)


@pytest.mark.usefixtures("nothing_on_its_way")
def test_what_another_client_has_asked_for_is_finished_too(
    connect: Callable[..., Client], rc: Client, add_engines: AddEngines, gate: Gate, stop: Callable[..., Future[None]]
) -> None:
    (new,) = add_engines(1)
    other = connect()
    wait_until(lambda: new in other.ids)
    running = other[new].apply_async(gate.pass_through)
    gate.wait_arrived()
    stopping = stop(new)
    wait_until(lambda: new not in other.ids)
    gate.open()
    assert running.get(TIMEOUT_S) == "passed"
    stopping.result(TIMEOUT_S)


def test_a_busy_engine_is_ended_at_once_if_that_is_asked_for(
    cluster: Cluster, rc: Client, add_engines: AddEngines, gate: Gate
) -> None:
    (new,) = add_engines(1)
    running = rc[new].apply_async(gate.pass_through)
    gate.wait_arrived()
    cluster.stop_engines(new, finish=False)
    assert isinstance(running.exception(TIMEOUT_S), EngineLost)


def test_a_busy_engine_has_as_long_as_it_is_given(
    cluster: Cluster, rc: Client, add_engines: AddEngines, gate: Gate
) -> None:
    (new,) = add_engines(1)
    running = rc[new].apply_async(gate.pass_through)
    gate.wait_arrived()
    cluster.stop_engines(new, timeout=0.1)
    assert isinstance(running.exception(TIMEOUT_S), EngineLost)


def test_maps_go_on_while_engines_come_and_go(cluster: Cluster, rc: Client, add_engines: AddEngines) -> None:
    results = rc.direct_view("all").imap(abs, itertools.count(), chunksize=1)
    taken = list(itertools.islice(results, 200))
    new = add_engines(1)
    taken += itertools.islice(results, 200)
    cluster.stop_engines(new)
    taken += itertools.islice(results, 200)
    assert taken == list(range(600))


def test_work_of_a_map_over_all_engines_flows_to_newcomers(rc: Client, add_engines: AddEngines) -> None:
    places = rc.direct_view("all").imap(here, itertools.count(), chunksize=1)
    before = {next(places) for _ in range(50)}
    add_engines(1)
    wait_until(lambda: not before >= {next(places)})
    assert len(before) == 4


def test_an_engine_of_the_view_that_goes_takes_nothing_of_a_map_with_it(
    cluster: Cluster, rc: Client, add_engines: AddEngines
) -> None:
    (new,) = add_engines(1)
    results = rc[[0, new]].imap(abs, range(300), chunksize=1)
    assert next(results) == 0
    cluster.stop_engines(new)
    assert list(results) == list(range(1, 300))


def test_balanced_work_goes_on_while_an_engine_finishes_and_goes(
    cluster: Cluster, rc: Client, add_engines: AddEngines
) -> None:
    (new,) = add_engines(1)
    results = rc.load_balanced_view().map(abs, range(20_000), chunksize=10, block=False)
    cluster.stop_engines(new)
    assert results.get(TIMEOUT_S) == list(range(20_000))


@pytest.mark.usefixtures("nothing_on_its_way")
def test_an_engine_that_is_about_to_go_gets_no_more_balanced_work(
    rc: Client, add_engines: AddEngines, gate: Gate, stop: Callable[..., Future[None]]
) -> None:
    (new,) = add_engines(1)
    lview = rc.load_balanced_view()
    running = rc[new].apply_async(gate.pass_through)
    gate.wait_arrived()
    stopping = stop(new)
    wait_until(lambda: new not in rc.ids)
    tasks = [lview.apply_async(abs, -1) for _ in range(20)]
    assert [task.get(TIMEOUT_S) for task in tasks] == [1] * 20  # none waits behind the gate
    gate.open()
    assert running.get(TIMEOUT_S) == "passed"
    stopping.result(TIMEOUT_S)


@pytest.mark.once
@pytest.mark.usefixtures("nothing_on_its_way")
def test_calls_to_all_look_up_the_engines_each_time(cluster: Cluster, rc: Client, add_engines: AddEngines) -> None:
    everyone = rc.direct_view("all")
    lengths = [len(everyone.apply_async(abs, -1).get(TIMEOUT_S))]
    new = add_engines(2)
    lengths.append(len(everyone.apply_async(abs, -1).get(TIMEOUT_S)))
    cluster.stop_engines(new)
    wait_until(lambda: not set(new) & set(rc.ids))  # it was another client that has waited for their end
    lengths.append(len(everyone.apply_async(abs, -1).get(TIMEOUT_S)))
    assert lengths == [4, 6, 4]


def test_a_new_engine_that_lacks_a_name_says_that_it_is_new_and_takes_no_more_than_one_task(
    own_cluster: Callable[..., Cluster], from_main: Callable[[str], SimpleNamespace]
) -> None:
    cluster = own_cluster(2)
    rc = cluster.start_and_connect_sync()
    rc[:].push({"data": 5}, block=True)
    cluster.restart_engines(1)
    rc.wait_for_engines(2, TIMEOUT_S)
    scale = from_main("def scale(x): return data * x").scale
    lview = rc.load_balanced_view()
    values = lview.map_async(scale, range(16), chunksize=2, return_exceptions=True).get(TIMEOUT_S)
    failed = [x for x, value in enumerate(values) if isinstance(value, NameError)]
    assert len(failed) <= 1
    assert [value for x, value in enumerate(values) if x not in failed] == [5 * x for x in range(16) if x not in failed]
    is_new = r"engine 1 restarted at \d\d:\d\d:\d\d with an empty namespace"
    there = rc.load_balanced_view([1])
    for call in (rc[1].apply_sync, there.apply_sync):
        assert re.search(is_new, text_of_name_error(call, scale, 1))
    assert "restarted at" not in text_of_name_error(rc[0].apply_sync, eval, "missing")
    rc[1].push({"data": 5}, block=True)
    assert lview.map_async(scale, range(16)).get(TIMEOUT_S) == [5 * x for x in range(16)]
    assert there.apply_sync(scale, 2) == 10


def text_of_name_error(call: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(NameError) as caught:
        call(*args)
    return "".join(traceback.format_exception(caught.value))


@pytest.mark.once
def test_restarted_engines_begin_with_empty_namespaces(own_cluster: Callable[..., Cluster]) -> None:
    cluster = own_cluster(2)
    rc = cluster.start_and_connect_sync()
    rc["a"] = 1
    cluster.restart_engines(1)
    rc.wait_for_engines(2, TIMEOUT_S)
    assert (rc.ids, rc[0]["a"]) == ([0, 1], 1)
    with pytest.raises(RemoteError, match="'a' is not defined"):
        rc[1].pull("a", block=True)


@pytest.mark.once
def test_no_engine_is_restarted_to_recover_if_one_of_them_cannot(own_cluster: Callable[..., Cluster]) -> None:
    cluster = own_cluster(2)
    rc = cluster.start_and_connect_sync()
    rc["a"] = 1
    with pytest.raises(CapabilityError, match="engines 0-1 cannot recover a namespace: start engines with recovery="):
        cluster.restart_engines(recover=True)
    assert rc["a"] == [1, 1]


@pytest.mark.needs(Capability.PROCESS)
def test_engines_have_an_environment_of_their_own(cluster: Cluster, rc: Client) -> None:
    new = cluster.start_engines(1, environment={"COLOUR": "blue"}, recovery="none")
    try:
        wait_until(lambda: set(new) <= set(rc.ids))
        assert rc.direct_view("all").apply_sync(os.getenv, "COLOUR") == [None] * 4 + ["blue"]
    finally:
        cluster.stop_engines(new, finish=False)
