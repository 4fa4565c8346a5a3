"""Results and records of balanced maps, whose chunks are requests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from nsactors.ipyparallel.client.asyncresult import AsyncMapResult
from nsactors.ipyparallel.client.client import Client
from nsactors.ipyparallel.client.records import TEXT_LIMIT, Records
from nsactors.protocol.messages import RequestId, StreamText
from nsactors.results import BalancedMapResult
from nsactors.results.call import NOWHERE, CallController, MapCall, MapPiece

OWNER = SimpleNamespace(
    mark_retrieved=lambda calls: None, check_process=lambda: None, run_callback=lambda run: run(), restart=None
)
SUBMITTED_S = 1_000.0


def map_call(size: int) -> MapCall:
    call = MapCall(RequestId("me", 1), NOWHERE, "map(f)", False, size=size, left=size)
    call.submitted = SUBMITTED_S
    return call


def result_of(call: MapCall, chunk_size: int = 1) -> AsyncMapResult:
    core = BalancedMapResult(cast("CallController", OWNER), call, label="map(f)")
    return AsyncMapResult(cast("Any", None), core, None, "f", chunk_sizes=chunk_size)


def add(call: MapCall, start: int, stop: int, output: str = "") -> None:
    piece = MapPiece(RequestId("me", 1), 0, "map(f)", False, start=start, stop=stop)
    piece.submitted, piece.started, piece.completed = SUBMITTED_S, SUBMITTED_S + 1, SUBMITTED_S + 2
    piece.output.chunks.extend([StreamText("stdout", output)] if output else [])
    piece.settle(list(range(start, stop)), None)
    call.add(piece)
    if not call.left:
        call.settle([], None)


@pytest.fixture
def records() -> Records:
    core = SimpleNamespace(name="me-1", flush=lambda: None, history=list)
    return Records(cast("Any", core))


def test_the_time_of_submission_is_the_same_before_and_after_the_end() -> None:
    call = map_call(4)
    result = result_of(call)
    times = [result.submitted]
    add(call, 0, 2)
    times.append(result.submitted)
    add(call, 2, 4)
    times.append(result.submitted)
    assert {time.timestamp() for row in times for time in row} == {SUBMITTED_S}
    assert all(began >= sent for began, sent in zip(result.started, result.submitted, strict=True))


def test_the_chunks_of_a_map_are_found_without_a_look_at_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of(map_call(50), 2)
    ids, asked = result.msg_ids, []
    listed = AsyncMapResult.msg_ids.fget
    assert listed is not None

    def msg_ids(self: AsyncMapResult) -> list[str]:
        asked.append(self)
        return listed(self)

    monkeypatch.setattr(AsyncMapResult, "msg_ids", property(msg_ids))
    children = [result.child(msg_id) for msg_id in ids]
    assert [child.msg_ids for child in children] == [[msg_id] for msg_id in ids]
    assert [result.child(msg_id) for msg_id in ids] == children
    assert asked == []


def test_records_of_a_map_tell_its_chunks_that_have_ended(records: Records) -> None:
    call = map_call(3)
    result = result_of(call)
    records.add(result, None)
    add(call, 1, 2)
    assert [record["completed"] is None for record in records.all()] == [True, False, True]
    add(call, 0, 1)
    add(call, 2, 3)
    assert [record["completed"] is None for record in records.all()] == [False] * 3


def test_records_of_a_map_are_made_from_one_table(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of(map_call(20))
    records.add(result, None)
    tables = []
    table_of = AsyncMapResult.chunk_table

    def chunk_table(self: AsyncMapResult) -> Any:
        assert not records._lock.locked()  # ends of requests wait for it
        tables.append(table_of(self))
        return tables[-1]

    monkeypatch.setattr(AsyncMapResult, "chunk_table", chunk_table)
    assert len(records.all()) == 20
    assert len(tables) == 1


def test_records_of_a_map_that_has_ended_hold_the_beginning_of_its_output(records: Records) -> None:
    call = map_call(2)
    result = result_of(call)
    records.add(result, None)
    add(call, 0, 2, "x" * (TEXT_LIMIT + 5))
    assert len(result.stdout[0]) == TEXT_LIMIT + 5
    (source,) = {record.source for record in records._own.values()}  # type: ignore[union-attr]
    assert [len(row["stdout"]) for row in source] == [TEXT_LIMIT, 0]


def test_requests_can_be_sent_while_another_thread_waits_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    client = Client.__new__(Client)
    client._lock, client._open = threading.Lock(), {}
    locked: list[bool] = []
    monkeypatch.setattr(
        "nsactors.ipyparallel.client.client.wait_all", lambda results, timeout: locked.append(client._lock.locked())
    )
    client.wait()
    assert locked == [False]
