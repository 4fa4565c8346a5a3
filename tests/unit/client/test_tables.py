"""Requests, tasks and recoveries as tables."""

from __future__ import annotations

import time

import pytest

from nsactors.client.tables import history_table, recovery_table, short_client, task_table
from nsactors.membership.history import QUEUED
from nsactors.protocol.control import HistoryEntry
from nsactors.protocol.engine_info import RecoveryReport
from nsactors.protocol.messages import RequestId
from nsactors.results.display import tables
from nsactors.tasks.messages import TaskState, TaskStatus

NOW = time.time()
ANN = "ann-1f2e3d4c5b6a"


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables.time, "time", lambda: NOW)
    monkeypatch.setenv("COLUMNS", "140")


def entry(seq: int, outcome: str, *, completed: float | None = None, source: str = "work()") -> HistoryEntry:
    return HistoryEntry(RequestId(ANN, seq), 2, "execute", source, NOW - 5, completed, outcome)


ENTRIES = [
    entry(0, "ok", completed=NOW - 4, source="a = 1\nb = 2"),
    entry(1, "ZeroDivisionError", completed=NOW - 4.9),
    entry(2, "running"),
    entry(3, QUEUED),
]


def rows(table: object) -> list[str]:
    return [" ".join(line.split()) for line in repr(table).splitlines()[3:]]


def test_the_history_says_who_ran_what_where_when_and_how_it_ended() -> None:
    ok, failed, running, queued = rows(history_table(ENTRIES))
    assert ok.endswith("(5 s ago) 1.0 s 2 ann-1f2e… a = 1 … ok")
    assert failed.endswith("100 ms 2 ann-1f2e… work() ZeroDivisionError")
    assert "(5 s ago) 5.0 s 2" in running
    assert queued.endswith("(5 s ago) 2 ann-1f2e… work() queued")


def test_its_frame_has_ids_to_ask_for_results_by() -> None:
    frame = history_table(ENTRIES).to_pandas()
    assert list(frame["msg_id"]) == [f"{ANN}:{seq}" for seq in range(4)]
    assert frame["took_s"][0] == pytest.approx(1)
    assert str(frame["started"].dtype) == "datetime64[ns, UTC]"
    assert frame["completed"].isna().tolist() == [False, False, True, True]


def test_tasks_are_listed_with_their_state_and_engines() -> None:
    tasks = [
        TaskStatus(f"{ANN}/tasks:1", "map(f)", TaskState.ASSIGNED, (0, 1, 2, 5), 1200, NOW - 60),
        TaskStatus("d:2", "apply(g)", TaskState.SUCCEEDED, (3,), 0, NOW - 60, NOW - 50, NOW - 48, True),
        TaskStatus("d:3", "apply(h)", TaskState.READY, (), 1, NOW - 60, waits="for engine 0, which is busy"),
    ]
    assigned, ended, waiting = rows(task_table(tasks))
    assert assigned.endswith("(1 min ago) map(f) assigned 1,200 0-2, 5")
    assert ended.endswith("(1 min ago) apply(g) (detached) succeeded 3 2.0 s")
    assert waiting.endswith("apply(h) ready 1 for engine 0, which is busy")
    assert task_table(tasks).to_pandas()["state"].tolist() == ["assigned", "succeeded", "ready"]


def test_recoveries_say_what_is_complete() -> None:
    table = recovery_table(
        [RecoveryReport(0, ("a", "b"), replayed=3, took_s=0.25), RecoveryReport(1, lost=(("c", "no room"),))]
    )
    complete, lossy, hint = rows(table)
    assert complete == "0 0 2 3 250 ms complete"
    assert lossy == "1 1 1 0 ms incomplete"
    assert hint.startswith("print(rc.recoveries[-1]) says")
    assert repr(recovery_table([])) == "no recoveries"
    assert table.to_pandas()["lost"].tolist() == [[], ["c"]]


@pytest.mark.parametrize(
    ("name", "shown"),
    [(ANN, "ann-1f2e…"), (f"{ANN}:17", "ann-1f2e…:17"), ("ann", "ann"), ("a-b-12", "a-b-12")],
)
def test_what_makes_a_client_unique_is_cut(name: str, shown: str) -> None:
    assert short_client(name) == shown


def test_in_a_narrow_terminal_what_ran_is_cut_and_its_end_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (row,) = rows(history_table([entry(0, "ok", completed=NOW, source="x" * 200)]))
    assert row.endswith("xxx… ok")
    assert len(row) <= 80
