"""The table of who runs what where."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from nsactors.client.watching import ClusterActivity, EngineActivity, Observer, Usage, activity, activity_table
from nsactors.core.cluster import Answer, ClusterState, EngineInfo, EngineWaiting, HistoryEntry
from nsactors.core.history import QUEUED
from nsactors.core.memory import EngineMemory, NamespaceMemory, ProcessMemory, ProcessorTime, Size
from nsactors.core.messages import RequestId


def engine(engine_id: int, incarnation: int = 0) -> EngineInfo:
    return EngineInfo(engine_id, incarnation, 1000 + engine_id, f"node-{engine_id}", None)


def entry(seq: int, engine_id: int, outcome: str, source: str = "work()", client: str = "ann-1") -> HistoryEntry:
    return HistoryEntry(RequestId(client, seq), engine_id, "execute", source, 100.0, None, outcome)


STATE = ClusterState("lab", (engine(0), engine(1)), (2, 3), (engine(4),), waiting=(EngineWaiting(3, 0, "no room"),))


def seen(state: ClusterState = STATE, clients: tuple[str, ...] = ("ann-1", "ben-2")) -> ClusterActivity:
    return activity(
        state,
        running={0: (7, [entry(9, 0, "running", "a = [1]\nwork(a)")]), 1: (3, [])},
        history=[entry(1, 1, "ValueError"), entry(2, 1, "ok"), entry(10, 0, QUEUED), entry(11, 0, QUEUED)],
        clients=clients,
        usage={0: Usage(1.02, 63_000_000)},
        at=103.5,
    )


def test_a_busy_engine_is_seen_with_what_it_runs_for_whom_and_what_that_takes() -> None:
    assert seen().engines[0] == EngineActivity(
        engine_id=0,
        host="node-0",
        pid=1000,
        state="busy",
        runs="a = [1]\nwork(a)",
        client="ann-1",
        for_s=3.5,
        queued=2,
        completed=7,
        cores=1.02,
        memory=63_000_000,
    )


def test_an_idle_engine_is_seen_with_its_last_error() -> None:
    idle = EngineActivity(1, "node-1", 1001, "idle", completed=3, last_error="ValueError: execute")
    assert seen().engines[1] == idle


def test_engines_that_take_no_requests_are_seen_with_the_reason() -> None:
    states = [(engine.engine_id, engine.state) for engine in seen().engines[2:]]
    assert states == [(2, "starting"), (3, "no place"), (4, "coming back")]


def test_an_engine_that_is_to_go_is_leaving() -> None:
    assert seen(replace(STATE, leaving=(1,))).engines[1].state == "leaving"


def test_whoever_has_left_is_said_to_have() -> None:
    assert seen(clients=("ben-2",)).engines[0].client == "ann-1 (has left)"


def shown(columns: int, *, wide: bool) -> list[str]:
    page = io.StringIO()
    Console(width=columns, file=page).print(activity_table(seen(), wide=wide))
    return page.getvalue().splitlines()


@pytest.mark.parametrize(("columns", "wide"), [(80, False), (140, True)])
def test_it_fits_the_terminal_and_shows_every_state(columns: int, wide: bool) -> None:
    lines = shown(columns, wide=wide)
    assert {len(line) for line in lines[1:]} == {columns}
    assert "coming back" in lines[-2]


def test_a_wide_terminal_shows_all_of_an_engine() -> None:
    row = next(line for line in shown(140, wide=True) if "busy" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        *("0", "node-0", "busy", "a = [1] …", "ann-1", "3.5 s", "2", "7", "102%", "63 MB", "")
    ]


class Controller:
    """Answers as a cluster with one engine whose process is busy for half of the time."""

    def __init__(self) -> None:
        self.asked = 0
        self.incarnation = 0

    def state(self) -> ClusterState:
        return ClusterState("lab", (engine(0, self.incarnation),), ())

    def running(self) -> dict[int, Any]:
        return {}

    def history(self, *_: object) -> list[HistoryEntry]:
        return []

    def clients(self) -> list[str]:
        return []

    def ask(self, *_: object) -> dict[int, Answer]:
        self.asked += 1
        held = NamespaceMemory((), 0, Size())
        processor = ProcessorTime(used_s=0.5 * self.asked, at_s=10.0 + self.asked)
        return {0: Answer(1, EngineMemory(held, ProcessMemory(5, 9), None, processor))}


def test_cores_are_counted_from_one_look_to_the_next() -> None:
    observer = Observer(Controller())  # type: ignore[arg-type]
    looks = [observer.look().engines[0] for _ in range(2)]
    assert [(engine.cores, engine.memory) for engine in looks] == [(None, 5), (0.5, 5)]


def test_a_new_process_is_counted_anew() -> None:
    controller = Controller()
    observer = Observer(controller)  # type: ignore[arg-type]
    observer.look()
    controller.incarnation = 1
    assert observer.look().engines[0].cores is None
