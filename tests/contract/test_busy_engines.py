"""Tasks while an engine works for others: they run on those that are free, and once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nsactors import Client, LoadBalancedView, engine_actor
from nsactors.protocol.control import HistoryEntry
from nsactors.protocol.messages import Capability, RequestId
from nsactors.tasks import driver
from nsactors.tasks.messages import TaskState, TaskStatus
from nsactors.testing import TIMEOUT_S, Gate, wait_until

Connect = Callable[..., Client]


@pytest.fixture(autouse=True)
def _told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let engines report each event when it happens: no query is repeated, and no report waits for a round."""
    monkeypatch.setattr(driver, "VERIFY_S", 1e6)
    monkeypatch.setattr(engine_actor, "ENDINGS_EVERY", 10**9)  # for engines that are threads


HOLDERS = [
    "this client",
    "another client",
    pytest.param("this client's C code", marks=pytest.mark.needs(Capability.PROCESS)),
    pytest.param("another client's C code", marks=pytest.mark.needs(Capability.PROCESS)),
]


@pytest.fixture(params=HOLDERS)
def held(request: pytest.FixtureRequest, rc: Client, connect: Connect, gate: Gate) -> Iterator[str]:
    """Engine 0 is held, as its client knows; the client that holds it."""
    who: str = request.param
    client = rc if who.startswith("this") else connect("holder")
    result = client[0].apply_async(gate.pass_holding_gil if who.endswith("C code") else gate.pass_through)
    gate.wait_arrived()
    if client is not rc:  # `rc` learns of the other client's work in time, or takes its tasks back; but not from C code
        there = rc.load_balanced_view([0]).apply_async(int)
        wait_until(lambda: status_of(rc, there.msg_ids[0]).waits.endswith(client.session.name))
    yield client.session.name
    gate.open()
    assert result.get(TIMEOUT_S) == "passed"


def status_of(rc: Client, msg_id: str) -> TaskStatus:
    [status] = [task for task in rc.tasks() if task.msg_id == msg_id]
    return status


def by_calls(lview: LoadBalancedView, note: Callable[[int], int]) -> list[int]:
    return [result.get(TIMEOUT_S) for result in [lview.apply_async(note, number) for number in range(50)]]


def by_map(lview: LoadBalancedView, note: Callable[[int], int]) -> list[int]:
    return lview.map_async(note, range(50)).get(TIMEOUT_S)  # type: ignore[no-any-return]


def by_imap(lview: LoadBalancedView, note: Callable[[int], int]) -> list[int]:
    return list(lview.imap(note, range(50)))


def by_executor(lview: LoadBalancedView, note: Callable[[int], int]) -> list[int]:
    with lview.executor as executor:
        return list(executor.map(note, range(50)))


@pytest.mark.parametrize("targets", ["all", [0, 1]])
def test_tasks_of_all_kinds_end_while_an_engine_is_held_and_run_once(
    rc: Client, held: str, targets: object, tmp_path: Path
) -> None:
    for kind in (by_calls, by_map, by_imap, by_executor):
        place = tmp_path / kind.__name__

        def note(number: int) -> int:
            with open(place, "a") as file:  # noqa: B023
                file.write(f"{number}\n")
            return number

        lview = rc.load_balanced_view(targets)
        assert kind(lview, note) == list(range(50))
        assert Counter(place.read_text().split()) == Counter(map(str, range(50)))


def test_two_tasks_at_once_do_not_wait_for_an_engine_that_is_held(rc: Client, held: str) -> None:
    lview = rc.load_balanced_view([0, 1])
    lview.apply_sync(abs, -1)
    assert [result.get(TIMEOUT_S) for result in [lview.apply_async(abs, -1) for _ in range(2)]] == [1, 1]


def test_the_first_tasks_of_a_client_do_not_wait_for_what_others_had_begun(
    rc: Client, connect: Connect, gate: Gate
) -> None:
    holder, newcomer = connect("holder"), connect("newcomer")
    held = holder[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    wait_until(lambda: newcomer.queue_status()[0]["running"])  # it takes long: the controller has been told
    lview = newcomer.load_balanced_view([0, 1])
    assert [result.get(TIMEOUT_S) for result in [lview.apply_async(abs, -1) for _ in range(2)]] == [1, 1]
    gate.open()
    assert held.get(TIMEOUT_S) == "passed"


def test_a_task_says_which_engine_it_waits_for_and_what_that_does(rc: Client, held: str) -> None:
    waiting = rc.load_balanced_view([0]).apply_async(abs, -1)
    work = f"engine 0, which is busy with apply(partial) of client {held}"

    def says_so() -> bool:
        status = status_of(rc, waiting.msg_ids[0])
        return status.waits == f"waits {'at' if status.state is TaskState.ASSIGNED else 'for'} {work}"

    wait_until(says_so)


def test_an_engine_takes_tasks_again_when_it_is_free(rc: Client, connect: Connect, gates: Callable[[], Gate]) -> None:
    """Engine 1 is held from then on, so that all has to run on engine 0."""
    for client in (rc, connect("another")):
        first, second = gates(), gates()
        held = client[0].apply_async(first.pass_through)
        first.wait_arrived()
        wait_until(lambda: rc.queue_status()[0]["running"])  # it takes long: short requests are reported in rounds
        lview = rc.load_balanced_view([0, 1])
        long = lview.apply_async(second.pass_through)
        second.wait_arrived()
        tasks = [lview.apply_async(abs, -number) for number in range(20)]
        first.open()
        assert held.get(TIMEOUT_S) == "passed"
        assert [task.get(TIMEOUT_S) for task in tasks] == list(range(20))
        second.open()
        assert long.get(TIMEOUT_S) == "passed"


def test_tasks_find_their_place_among_calls_that_never_pause(rc: Client, connect: Connect) -> None:
    """On each engine more calls wait until all tasks have ended."""
    clients = (rc, connect("another"))
    queues = [(client[i], [client[i].apply_async(abs, -1) for _ in range(20)]) for client in clients for i in rc.ids]
    tasks = [rc.load_balanced_view().apply_async(abs, -number) for number in range(20)]
    give_up = time.monotonic() + TIMEOUT_S
    while not all(task.ready() for task in tasks):
        assert time.monotonic() < give_up, "tasks are never sent"
        for view, queue in queues:
            queue.append(view.apply_async(abs, -1))
            assert queue.pop(0).get(TIMEOUT_S) == 1
    assert [task.get(TIMEOUT_S) for task in tasks] == list(range(20))


def test_engines_that_rest_are_found_though_their_work_is_never_said_to_end(
    rc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a controller was killed before it had heard of the end."""
    monkeypatch.setattr(driver, "VERIFY_S", 0.05)
    lview = rc.load_balanced_view()
    lview.apply_sync(abs, -1)
    ghost = RequestId("ghost", 1)
    rc.schedulers.own.work_told([HistoryEntry(ghost, i, "execute", "", 1.0, None, "running") for i in rc.ids])
    assert lview.apply_async(abs, -2).get(TIMEOUT_S) == 2
