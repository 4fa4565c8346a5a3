"""The table of who runs what where."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from nsactors.client.activity import (
    ClusterActivity,
    EngineActivity,
    Observer,
    Usage,
    activity,
    activity_table,
    changes,
    watch,
)
from nsactors.membership.history import QUEUED
from nsactors.protocol.control import ClusterState, EngineWaiting, HistoryEntry, QueryReply
from nsactors.protocol.engine_info import EngineInfo, EngineMemory, NamespaceMemory, ProcessMemory, ProcessorTime, Size
from nsactors.protocol.messages import RequestId


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
        self.mark_retrieved = 0
        self.incarnation = 0

    def state(self) -> ClusterState:
        return ClusterState("lab", (engine(0, self.incarnation),), ())

    def running(self) -> dict[int, Any]:
        return {}

    def history(self, *_: object) -> list[HistoryEntry]:
        return []

    def clients(self) -> list[str]:
        return []

    def query(self, *_: object) -> dict[int, QueryReply]:
        self.mark_retrieved += 1
        held = NamespaceMemory((), 0, Size())
        processor = ProcessorTime(used_s=0.5 * self.mark_retrieved, at_s=10.0 + self.mark_retrieved)
        return {0: QueryReply(1, EngineMemory(held, ProcessMemory(5, 9), None, processor))}


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


IDLE, BUSY = EngineActivity(0, completed=3), EngineActivity(0, state="busy", runs="work()\nmore()", client="ann-1")


def moment(*engines: EngineActivity, clients: tuple[str, ...] = ("ann-1",)) -> ClusterActivity:
    return ClusterActivity("lab", clients, engines)


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (None, moment(IDLE), ["ann-1 is here", "engine 0 idle"]),
        (moment(IDLE), moment(IDLE), []),
        (moment(IDLE), moment(BUSY), ["engine 0 runs work() …, for ann-1"]),
        (moment(BUSY), moment(BUSY._replace(for_s=7.0)), []),
        (
            moment(BUSY),
            moment(BUSY._replace(state="stopped", runs="breakpoint in f() x.py:3")),
            ["engine 0 stopped at a breakpoint in f() x.py:3, in the debugger of ann-1"],
        ),
        (moment(BUSY), moment(IDLE), ["engine 0 idle"]),
        (
            moment(IDLE),
            moment(IDLE._replace(completed=15)),
            ["engine 0 idle, has done 12 requests since the last look"],
        ),
        (moment(IDLE), moment(IDLE._replace(last_error="KeyError: f")), ["engine 0: KeyError: f"]),
        (moment(IDLE), moment(), ["engine 0 has gone"]),
        (moment(), moment(EngineActivity(7, state="starting")), ["engine 7 starting"]),
        (
            moment(clients=("ann-1", "ben-2")),
            moment(clients=("ben-2", "\x1b[2J")),
            [
                "\\x1b[2J is here",
                "ann-1 has left",
            ],
        ),
    ],
)
def test_changes_are_told_in_a_line_each(before: ClusterActivity | None, now: ClusterActivity, told: list[str]) -> None:
    assert changes(before, now) == told


def test_where_there_is_no_terminal_changes_are_told_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    watch(Controller(), 0)  # type: ignore[arg-type]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(" engine 0 idle")


def test_what_it_shows_can_be_called_by_another_name() -> None:
    assert repr(seen()._replace(cluster="mine")).startswith("mine · 2 clients: ann-1, ben-2\n")


def test_at_one_moment_it_is_a_table_and_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    assert "a = [1] …" in repr(seen())
    assert seen()._repr_html_().count("<tr>") == 6
    assert seen().to_pandas()["state"].tolist() == ["busy", "idle", "starting", "no place", "coming back"]
