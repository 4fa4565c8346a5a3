"""Engines and clients come and go; what one does, others see (A1, A5, A6, M5)."""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nsactors import Client, Cluster, DirectView
from nsactors.errors import ClientClosed, ClusterStopped, ConnectionLost, EngineLost, EngineStartError, NoEngines
from nsactors.errors.warnings import EngineStartWarning
from nsactors.protocol.control import Program
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate, wait_until


def test_new_engines_make_the_ids_grow_and_take_work(rc: Client, add_engines: Callable[[int], list[int]]) -> None:
    before = rc.ids
    new = add_engines(2)
    assert (rc.ids, len(new)) == (before + new, 2)
    assert rc[new].apply_async(abs, -1).get(TIMEOUT_S) == [1, 1]


@pytest.mark.once
def test_ids_are_never_reused(
    rc: Client, add_engines: Callable[[int], list[int]], end_engine: Callable[[int], None]
) -> None:
    (first,) = add_engines(1)
    end_engine(first)
    (second,) = add_engines(1)
    assert second > first


def test_ending_an_engine_fails_what_it_held_and_names_it(rc: Client, victim: DirectView, gate: Gate) -> None:
    running, queued = victim.apply_async(gate.pass_through), victim.apply_async(abs, -1)
    gate.wait_arrived()
    victim.shutdown()
    for result, began in ((running, True), (queued, False)):
        with pytest.raises(EngineLost, match=f"engine {victim.targets}") as caught:
            result.get(TIMEOUT_S)
        assert caught.value.began is began
        assert "Cluster(recovery='replay')" not in str(caught.value)


def test_ending_an_engine_disturbs_no_other(rc: Client, victim: DirectView, gate: Gate) -> None:
    rc[0].push({"x": 5}, block=True)
    held, on_victim = rc[0].apply_async(gate.pass_through), victim.apply_async(gate.pass_through)
    gate.wait_arrived(2)
    victim.shutdown()
    assert isinstance(on_victim.exception(TIMEOUT_S), EngineLost)
    gate.open()
    assert (held.get(TIMEOUT_S), rc[0].get("x"), rc.ids) == ("passed", 5, [0, 1, 2, 3])


@pytest.mark.needs(Capability.PROCESS)
def test_killing_the_process_of_an_engine_fails_what_it_held(rc: Client, victim: DirectView, gate: Gate) -> None:
    pid = victim.apply_sync(os.getpid)
    result = victim.apply_async(gate.pass_through)
    gate.wait_arrived()
    os.kill(pid, 9)
    with pytest.raises(EngineLost, match=f"engine {victim.targets}"):
        result.get(TIMEOUT_S)


@pytest.mark.needs(Capability.PROCESS)
def test_an_idle_engine_whose_process_is_killed_leaves_the_ids(rc: Client, victim: DirectView) -> None:
    left = threading.Event()
    rc.on_leave(lambda engine_id: left.set() if engine_id == victim.targets else None)
    os.kill(victim.apply_sync(os.getpid), 9)
    assert left.wait(TIMEOUT_S)
    assert victim.targets not in rc.ids


@pytest.mark.needs(Capability.PROCESS)
def test_an_engine_whose_gil_is_held_can_be_ended(victim: DirectView, gate: Gate) -> None:
    result = victim.apply_async(gate.pass_holding_gil)
    gate.wait_arrived()
    victim.shutdown()
    assert isinstance(result.exception(TIMEOUT_S), EngineLost)


@pytest.mark.needs(Capability.PROCESS)
def test_engines_and_client_are_different_processes(rc: Client) -> None:
    assert len({os.getpid(), *rc[:].apply_sync(os.getpid)}) == 5


def test_a_call_to_many_waits_for_the_others_when_one_is_ended(rc: Client, victim: DirectView, gate: Gate) -> None:
    both = rc[[0, victim.targets]]
    result = both.apply_async(gate.pass_through)
    gate.wait_arrived(2)
    victim.shutdown()
    wait_until(lambda: result.progress == 1)  # the loss is known: it does not get through the gate
    gate.open()
    values = result.get(TIMEOUT_S, return_exceptions=True)
    assert [type(value) for value in values] == [str, EngineLost]


def test_joining_and_leaving_engines_are_told(
    rc: Client, add_engines: Callable[[int], list[int]], end_engine: Callable[[int], None]
) -> None:
    told: list[tuple[str, int]] = []
    rc.on_join(lambda engine_id: told.append(("joined", engine_id)))
    rc.on_leave(lambda engine_id: told.append(("left", engine_id)))
    (new,) = add_engines(1)
    end_engine(new)
    assert told == [("joined", new), ("left", new)]


@pytest.mark.once
def test_an_exception_in_a_callback_is_printed_and_the_others_are_called(
    rc: Client, add_engines: Callable[[int], list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(engine_id: int) -> None:
        raise ValueError("a callback may fail")

    called = threading.Event()
    rc.on_join(fail)
    rc.on_join(lambda engine_id: called.set())
    add_engines(1)
    assert called.wait(TIMEOUT_S)
    assert "ValueError: a callback may fail" in capsys.readouterr().err


def test_a_callback_may_use_the_engine_that_joined(rc: Client, add_engines: Callable[[int], list[int]]) -> None:
    results = []
    rc.on_join(lambda engine_id: results.append(rc[engine_id].apply_async(abs, -1)))
    add_engines(1)
    wait_until(lambda: results)
    assert results[0].get(TIMEOUT_S) == 1


@pytest.mark.once
def test_waiting_for_engines_that_are_there_returns_at_once(rc: Client) -> None:
    rc.wait_for_engines(4, timeout=0)


@pytest.mark.once
def test_waiting_for_more_engines_than_come_times_out(rc: Client) -> None:
    with pytest.raises(TimeoutError, match="4 of 5"):
        rc.wait_for_engines(5, timeout=0.05)


def test_a_client_waits_for_engines_that_have_been_asked_for(cluster: Cluster, rc: Client, add_engines: Any) -> None:
    new = cluster.start_engines(1)
    try:
        rc.wait_for_engines(5, timeout=TIMEOUT_S)
        assert new[0] in rc.ids
    finally:
        rc.session.controller.stop_engines(new)


def test_two_clients_see_the_same_engines(
    rc: Client, connect: Callable[..., Client], add_engines: Callable[[int], list[int]]
) -> None:
    other = connect()
    joined = threading.Event()
    other.on_join(lambda engine_id: joined.set())
    add_engines(1)
    assert joined.wait(TIMEOUT_S)
    assert other.ids == rc.ids


def test_two_clients_see_the_same_namespaces(rc: Client, connect: Callable[..., Client]) -> None:
    rc[0].push({"x": 1}, block=True)
    other = connect()
    other[0].execute("x += 1", block=True)
    assert rc[0].get("x") == 2


def test_two_clients_see_the_same_history_of_who_ran_what(rc: Client, connect: Callable[..., Client]) -> None:
    other = connect()
    other[1].execute("x = 'found by its text'", block=True)
    with pytest.raises(ZeroDivisionError):
        rc[0].execute("1/0", block=True)

    def told(client: Client) -> list[tuple[str, int, str, str, str]]:
        entries = client.history(client=other.name) + client.history(client=rc.name)
        return [(e.request.client, e.engine_id, e.label, e.source, e.outcome) for e in entries]

    expected = [
        (other.name, 1, "execute", "x = 'found by its text'", "ok"),
        (rc.name, 0, "execute", "1/0", "ZeroDivisionError"),
    ]
    wait_until(lambda: told(rc) == expected)
    assert told(other) == expected


def test_the_code_that_an_engine_has_run_is_kept_whole(rc: Client) -> None:
    engine, long = rc[0], "\n".join(["total = 0", *["total += 1"] * 500])
    engine.execute(long, block=True)
    engine.push({"plain": 3, "other": {1, 2}}, block=True)
    assert engine.execute("1 / 0").wait(TIMEOUT_S)
    engine.apply_sync(abs, -1)
    expected = [
        Program(long),
        Program("plain = 3\n# other was pushed by a client: set"),
        Program("1 / 0", "ZeroDivisionError"),
    ]
    controller = rc.session.controller
    wait_until(lambda: controller.programs(0)[1][-3:] == expected)
    assert all(len(entry.source) <= 200 and not entry.program for entry in rc.history(engine=0, last=3))


def test_the_history_of_one_client_or_engine_can_be_asked_for(rc: Client, connect: Callable[..., Client]) -> None:
    connect()[2].apply_sync(abs, -1)
    rc[2].apply_sync(abs, -1)
    wait_until(lambda: rc.history(client=rc.name, engine=2))
    assert [(e.engine_id, e.label) for e in rc.history(client=rc.name)] == [(2, "apply(abs)")]
    assert rc.history(client=rc.name, engine=1) == []


def test_requests_are_found_by_label_state_and_time(rc: Client, gate: Gate) -> None:
    before = datetime.now(UTC)
    with rc[2].temp_flags(label="sweep-1") as view:
        view.apply_sync(abs, -1)
    with rc[2].temp_flags(label="sweep-2") as view, pytest.raises(ZeroDivisionError):
        view.apply_sync(divmod, 1, 0)
    rc.load_balanced_view([2]).map_sync(abs, [1], label="sweep-3")
    rc[2].with_flags(label="other").apply_async(gate.pass_through)
    gate.wait_arrived()

    def labels(**query: Any) -> list[str]:
        return [entry.label for entry in rc.history(client=rc.name, engine=2, **query)]

    # The last one is known by its client, too, and perhaps before the engine has reported those before it.
    outcomes = ["ok", "ZeroDivisionError", "ok", "running"]
    wait_until(lambda: [entry.outcome for entry in rc.history(client=rc.name, engine=2)] == outcomes)
    assert labels() == ["sweep-1", "sweep-2", "sweep-3", "other"]
    assert labels(label="sweep-*") == ["sweep-1", "sweep-2", "sweep-3"]
    assert labels(label="sweep-1") == ["sweep-1"]
    assert labels(state="failed") == ["sweep-2"]
    assert labels(state="running") == labels(label="o*") == labels(last=1) == ["other"]
    assert labels(label="sweep-*", state="ok", last=1) == ["sweep-3"]
    assert labels(since=before) == labels() == labels(since=before.timestamp())
    assert labels(until=before) == labels(last=0) == []
    assert labels(since=datetime.now(UTC) + timedelta(days=1)) == ["other"]


def test_requests_of_tasks_are_ok_although_tasks_have_failed(rc: Client) -> None:
    lview = rc.load_balanced_view([2])
    results = [lview.with_flags(label=f"t-{number}").apply_async(divmod, 1, 0) for number in range(20)]
    for result in results:
        with pytest.raises(ZeroDivisionError):
            result.get(TIMEOUT_S)
    wait_until(lambda: rc.history(client=rc.name, label="*t-0*", state="ok"))
    (first,) = rc.history(client=rc.name, label="*t-0*")
    assert re.fullmatch(r"t-0|\d+ tasks: t-0 \.\.\.", first.label)
    assert rc.history(client=rc.name, state="failed") == []


def test_what_an_engine_runs_is_in_the_history(rc: Client, gate: Gate) -> None:
    rc[0].push({"pass_gate": gate.pass_through}, block=True)
    rc[0].execute("pass_gate()")
    gate.wait_arrived()
    wait_until(lambda: [e.source for e in rc.history(client=rc.name) if e.outcome == "running"] == ["pass_gate()"])
    last = rc.history(client=rc.name)[-1]
    assert (last.source, last.outcome, last.completed) == ("pass_gate()", "running", None)


def test_the_history_tells_what_ended_with_its_engine(rc: Client, victim: DirectView, gate: Gate) -> None:
    victim.apply_async(gate.pass_through)
    wait_until(lambda: rc.history(engine=victim.targets))
    victim.shutdown()
    wait_until(lambda: [e.outcome for e in rc.history(engine=victim.targets)] == ["engine lost"])


def test_a_client_that_leaves_loses_nothing_that_engines_were_doing(
    rc: Client, connect: Callable[..., Client], gate: Gate
) -> None:
    leaving = connect()
    leaving[0].push({"pass_gate": gate.pass_through}, block=True)
    leaving[0].execute("pass_gate(); x = 1")
    gate.wait_arrived()
    leaving.close()
    gate.open()
    assert rc[0].pull("x").get(TIMEOUT_S) == 1


def test_what_a_client_still_waited_for_when_it_was_closed_is_an_error(
    connect: Callable[..., Client], gate: Gate
) -> None:
    client = connect()
    result = client[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    client.close()
    with pytest.raises(ClientClosed):
        result.get(TIMEOUT_S)


@pytest.mark.once
def test_a_client_may_come_back_under_the_name_it_had(connect: Callable[..., Client]) -> None:
    name = f"ann-{uuid.uuid4().hex}"
    for _ in range(2):
        with connect(name) as client:
            assert client[0].apply_async(abs, -1).get(TIMEOUT_S) == 1


@pytest.mark.once
def test_two_clients_may_have_one_name(connect: Callable[..., Client]) -> None:
    name = f"ann-{uuid.uuid4().hex}"
    clients = [connect(name), connect(name)]
    assert [client[0].apply_async(abs, -1).get(TIMEOUT_S) for client in clients] == [1, 1]


@pytest.mark.sampled
@pytest.mark.parametrize(
    "use",
    [
        lambda client, view: client.ids,
        lambda client, view: client[0],
        lambda client, view: view.execute("1"),
        lambda client, view: view.apply(abs, 1),
        lambda client, view: client.wait_for_engines(1),
        lambda client, view: client.history(),
        lambda client, view: client.queue_status(),
    ],
    ids=["ids", "index", "execute", "apply", "wait_for_engines", "history", "queue_status"],
)
def test_a_closed_client_says_so_at_the_call(connect: Callable[..., Client], use: Callable[..., Any]) -> None:
    client = connect()
    view = client[0]
    client.close()
    with pytest.raises(ClientClosed):
        use(client, view)


@pytest.mark.once
def test_closing_twice_is_closing_once(connect: Callable[..., Client]) -> None:
    client = connect()
    client.close()
    client.close()
    assert "closed" in repr(client)


@pytest.mark.once
def test_a_stopped_cluster_says_so_at_the_call(own_cluster: Callable[..., Cluster]) -> None:
    cluster = own_cluster(1)
    cluster.start_and_connect_sync()
    cluster.stop_cluster_sync()
    for use in (cluster.connect_client_sync, lambda: cluster.start_engines(1)):
        with pytest.raises(ClusterStopped):
            use()


def test_the_clients_of_a_stopped_cluster_raise_at_the_call(own_cluster: Callable[..., Cluster]) -> None:
    cluster = own_cluster(1)
    cluster.start_and_connect_sync()
    with Client(cluster.connect_client_sync().session.transport) as client:
        view = client[0]
        cluster.stop_cluster_sync()
        with pytest.raises((ConnectionLost, NoEngines, EngineLost)):
            view.execute("1").get(TIMEOUT_S)


def test_what_was_running_when_the_cluster_was_stopped_is_an_error(
    own_cluster: Callable[..., Cluster], gate: Gate
) -> None:
    cluster = own_cluster(1)
    cluster.start_and_connect_sync()
    with cluster.connect_client_sync() as client:
        result = client[0].apply_async(gate.pass_through)
        gate.wait_arrived()
        cluster.stop_cluster_sync()
        assert isinstance(result.exception(TIMEOUT_S), (EngineLost, ConnectionLost))


@pytest.mark.once
def test_stopping_twice_is_stopping_once(own_cluster: Callable[..., Cluster]) -> None:
    cluster = own_cluster(1)
    cluster.start_and_connect_sync()
    cluster.stop_cluster_sync()
    cluster.stop_cluster_sync()
    assert "stopped" in repr(cluster)


@pytest.mark.once
def test_a_cluster_without_engines_says_how_to_start_some(own_cluster: Callable[..., Cluster]) -> None:
    client = own_cluster(0).start_and_connect_sync()
    with pytest.raises(NoEngines, match="Cluster"):
        client[:]
    with pytest.raises(NoEngines, match="Cluster"):
        client.direct_view("all").execute("1")


def test_engines_run_their_startup_code_first_and_handlers_of_errors_hear_of_each(
    own_cluster: Callable[..., Cluster], capsys: pytest.CaptureFixture[str]
) -> None:
    def on_error(error: Exception) -> None:
        print("noted", type(error).__name__)
        if isinstance(error, KeyError):
            raise SystemExit(3)

    startup = "import sys\nx = 5\nprint('ready')\nprint('odd', file=sys.stderr)"
    client = own_cluster(2, startup=startup, on_error=on_error).start_and_connect_sync()
    assert client["x"] == [5, 5]
    assert capsys.readouterr().out.splitlines() == ["[0-1] ready", "[0-1] odd"]

    cell, call, task = (
        client[0].execute("1 / 0"),
        client[0].apply_async(int, "x"),
        client.load_balanced_view([0]).map_async({}.__getitem__, ["a"]),
    )
    assert isinstance(cell.exception(TIMEOUT_S), ZeroDivisionError)
    assert isinstance(call.exception(TIMEOUT_S), ValueError)
    assert task.exception(TIMEOUT_S) is not None
    assert (cell.stdout, call.stdout) == ("noted ZeroDivisionError\n", "noted ValueError\n")
    assert task.stdout == ["noted KeyError\n"]
    assert task.stderr == ["[nsactors: on_error itself failed: SystemExit: 3]\n"]


def test_a_cluster_whose_engines_cannot_start_says_why_at_once(own_cluster: Callable[..., Cluster]) -> None:
    startup = "print('so far')\ndef start():\n    raise RuntimeError('not today')\nstart()"
    with pytest.raises(EngineStartError, match="its start-up code raised RuntimeError: not today") as failed:
        own_cluster(2, startup=startup).start_and_connect_sync()
    assert "    so far\n    Traceback (most recent call last):\n" in str(failed.value)
    assert "line 3, in start\n" in str(failed.value)
    assert "The cluster has been stopped: remove the cause and start it again" in str(failed.value)


def test_engines_that_start_are_usable_beside_one_that_does_not(
    own_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    startup = f"import os; os.mkdir({str(tmp_path / 'only once')!r})"  # fails on whoever comes second
    with pytest.warns(EngineStartWarning, match="FileExistsError"):
        client = own_cluster(2, startup=startup).start_and_connect_sync()
    assert len(client.ids) == 1
    assert client[:].apply_sync(abs, -1) == [1]


@pytest.mark.once
def test_a_number_of_engines_that_cannot_be_is_refused(backend: str) -> None:
    with pytest.raises(ValueError, match="n as a whole number, 0 or more"):
        Cluster(n=-1, backend=backend)
