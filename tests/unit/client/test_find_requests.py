"""What people say when they mean requests of a cluster."""

from __future__ import annotations

import pytest

from nsactors.client.find_requests import (
    check_jobs,
    detached_ids,
    find_requests,
    left_behind,
    results_and_ids,
    select_requests,
    select_tasks,
)
from nsactors.errors import InvalidArgument, ResultUnavailable
from nsactors.protocol.control import HistoryEntry
from nsactors.protocol.messages import RequestId
from nsactors.tasks.messages import TaskState, TaskStatus


def entry(
    client: str, seq: int, *, engine_id: int = 0, ended: float | None = None, queued: bool = False
) -> HistoryEntry:
    outcome = "queued" if queued else "running" if ended is None else "ok"
    return HistoryEntry(RequestId(client, seq), engine_id, "execute", "x = 1", float(seq), ended, outcome)


HISTORY = [
    entry("ann-1", 0, ended=1.0),
    entry("ann-2", 1, ended=2.0),
    entry("ann-2", 2, engine_id=1, ended=3.0),
    entry("ben-1", 7),
    entry("ann-2", 5, engine_id=1),
    entry("ann-2", 9, engine_id=1, queued=True),
]


@pytest.mark.parametrize(
    ("said", "positions"),
    [
        ("ann-2:1", [1]),
        ("ann", [0, 1, 2, 4, 5]),
        (-1, [5]),
        (0, [0]),
        (HISTORY[3], [3]),
        (RequestId("ben-1", 7), [3]),
        ([HISTORY[3], "ann-1", "ann-1:0"], [3, 0]),
        ("ann-2", [1, 2, 4, 5]),
    ],
)
def test_requests_are_found_in_the_order_in_which_they_are_named_or_were_sent(
    said: object, positions: list[int]
) -> None:
    assert find_requests(HISTORY, said) == [HISTORY[i] for i in positions]


@pytest.mark.parametrize("said", ["eve", "ann-2:77", 6, -7, RequestId("eve", 0)])
def test_what_is_not_in_the_history_is_an_error(said: object) -> None:
    with pytest.raises(ResultUnavailable):
        find_requests(HISTORY, said)


def test_what_means_nothing_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"get_result\(\) takes jobs as a message id, .*, not 2\.5"):
        check_jobs("get_result", 2.5)


def test_left_behind_is_what_has_not_ended_and_else_the_last_on_each_engine() -> None:
    """Of the client that left last, which ben is not: he is still there."""
    assert left_behind(HISTORY, ["ben-1"]) == [HISTORY[i] for i in (1, 4, 5)]


def test_nothing_is_left_behind_as_long_as_everybody_is_there() -> None:
    with pytest.raises(ResultUnavailable, match="a client that has left"):
        left_behind(HISTORY, ["ann-1", "ann-2", "ben-1"])


def test_requests_of_a_client_come_as_it_has_sent_them_and_not_as_they_ended() -> None:
    history = [entry("ann-1", seq, ended=ended) for seq, ended in ((2, 1.0), (0, 2.0), (1, 3.0))]
    assert [found.request.seq for found in find_requests(history, "ann")] == [0, 1, 2]


def test_a_label_is_taken_as_it_is_or_as_a_pattern() -> None:
    labels = ["run[1]", "run1", "10 tasks: t-3 ..."]
    entries = [entry("ann-1", number, ended=1.0)._replace(label=label) for number, label in enumerate(labels)]

    def found(label: str) -> list[str]:
        return [each.label for each in select_requests(entries, label=label)]

    assert found("run[1]") == ["run[1]", "run1"]
    assert found("run*") == ["run[1]", "run1"]
    assert found("t-3") == []  # a request of several tasks is known by the label of all
    assert found("10 tasks: t-3 ...") == found("* tasks: t-3 *") == ["10 tasks: t-3 ..."]


TASKS = [TaskStatus(f"me/tasks:{n}", f"sweep-{n % 2}", state, (), 1, 0.0) for n, state in enumerate(TaskState)]


@pytest.mark.parametrize(
    ("label", "state", "found"),
    [
        (None, None, TASKS),
        ("sweep-*", None, TASKS),
        ("sweep-1", None, TASKS[1::2]),
        ("sweep", None, []),
        (None, "queued", TASKS[:3]),
        ("sweep-1", "queued", TASKS[1:2]),
        (None, "running", TASKS[3:4]),
        (None, "ok", TASKS[4:5]),
        (None, "failed", TASKS[5:]),
    ],
)
def test_tasks_are_found_by_label_and_state(label: str | None, state: str | None, found: list[TaskStatus]) -> None:
    assert select_tasks(TASKS, label=label, state=state) == found


def test_the_id_of_a_part_of_a_map_is_refused_with_what_to_use() -> None:
    for call in ("abort", "wait"):
        with pytest.raises(InvalidArgument, match=r"the id of the whole map, 'me/tasks:4'"):
            results_and_ids(call, ["me/tasks:4/items:20"])
    with pytest.raises(ResultUnavailable, match=r"the map me/tasks:4: use the result that map\(\) has returned"):
        detached_ids("me/tasks:4/items:20")
    whole = "detached-0123456789ab/tasks:4"
    with pytest.raises(ResultUnavailable, match=rf"use get_result\('{whole}'\), and its split"):
        detached_ids([f"{whole}/items:0"])
