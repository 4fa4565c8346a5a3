"""Results of detached tasks as they are kept: as they came, and no longer than there is room."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from nsactors.errors import SerializationError, StoreFull
from nsactors.protocol.messages import RequestId
from nsactors.protocol.serialize import Payload, pack, unpack
from nsactors.protocol.tasks import BatchReport, RangeOutcome, RangeStatus, TaskRange
from nsactors.results import NOWHERE, Call, MapCall, TaskCall
from nsactors.tasks.detached_results import REPLY_PIECES, ResultStore, StoredTasks, StoredValue
from nsactors.tasks.messages import Fail, Why
from nsactors.tasks.results import failed
from nsactors.transport.base import Transport


class Store:
    """A transport of which only the object store is used."""

    def __init__(self, *, full: bool = False) -> None:
        self.kept: list[Payload] = []
        self._full = full

    def keep(self, payload: Payload) -> Stored:
        if self._full:
            raise StoreFull("a result")
        self.kept.append(payload)
        return Stored(payload)


class Stored:
    def __init__(self, payload: Payload) -> None:
        self._payload = payload

    def load(self) -> Payload:
        return self._payload


def no_task(task_id: object) -> None:
    return None


def keeping(store: Store | None = None, **limits: int) -> ResultStore:
    return ResultStore(cast(Transport, store or Store()), lambda: None, StoredTasks(**limits))


def call(number: int) -> TaskCall:
    return TaskCall(RequestId("detached", number), NOWHERE, f"apply(f{number})", False)


def batch(*values: Any, number: int = 1, first: int = 0) -> Call:
    """An engine's answer: one result for each of consecutive items."""
    places = range(first, first + len(values))
    ran = [RangeOutcome(number, i, i + 1, RangeStatus.OK, 0.5, None, 5.0, (0, 0)) for i in places]
    answer = Call(RequestId("detached", 0), 0, "2 tasks", False)
    answer.value = unpack(pack(BatchReport(tuple(ran), pack(list(values))).as_value()))
    return answer


def run(kept: ResultStore, number: int, value: Any) -> None:
    task = call(number)
    kept.enter(task, joins=False)
    [ran], _ = kept.read(batch(value, number=number), no_task, copy=False)
    assert kept.deliver(task, ran, engine_id=3)
    kept.settle(task)


def values_of(kept: ResultStore, number: int) -> list[Any]:
    opened: dict[int, Any] = {}
    pieces = cast(list[tuple[RangeOutcome, int]], kept.progress({number: 0})[number].pieces)
    return [ran.value.load(opened, copy=False) for ran, _ in pieces]


def test_a_result_is_kept_unopened_with_its_engine_and_times() -> None:
    kept = keeping()
    run(kept, 1, "value")
    [(ran, engine_id)] = cast(list[tuple[RangeOutcome, int]], kept.progress({1: 0})[1].pieces)
    assert isinstance(ran.value, StoredValue)
    assert (engine_id, ran.started, ran.completed) == (3, 5.0, 5.5)
    assert values_of(kept, 1) == ["value"]


def test_only_what_is_new_is_handed_out() -> None:
    kept = keeping()
    run(kept, 1, "value")
    kept.enter(call(2), joins=False)
    assert kept.progress({1: 1, 2: 0}) == {}


def test_a_map_ends_when_all_of_its_items_have() -> None:
    kept = keeping()
    task = MapCall(RequestId("detached", 1), NOWHERE, "map(f)", False, size=3, left=3)
    kept.enter(task, joins=False)
    ran, _ = kept.read(batch("a", "b"), no_task, copy=False)
    assert [kept.deliver(task, each, 0) for each in ran] == [False, False]
    assert kept.give_up(task, Fail(TaskRange(1, 2, 3), Why.ABORTED, "it was aborted"))


def test_a_reply_has_so_many_pieces_and_the_next_one_has_the_rest() -> None:
    kept = keeping()
    size = REPLY_PIECES + 1
    task = MapCall(RequestId("detached", 1), NOWHERE, "map(f)", False, size=size, left=size)
    kept.enter(task, joins=False)
    for ran in kept.read(batch(*range(size)), no_task, copy=False)[0]:
        kept.deliver(task, ran, 0)
    assert len(kept.progress({1: 0})[1].pieces) == REPLY_PIECES
    assert len(kept.progress({1: REPLY_PIECES})[1].pieces) == 1


def test_what_is_large_goes_into_the_object_store_once() -> None:
    store = Store()
    kept = keeping(store)
    task = MapCall(RequestId("detached", 1), NOWHERE, "map(f)", False, size=2, left=2)
    kept.enter(task, joins=False)
    for ran in kept.read(batch(b"x" * 100_000, b"y"), no_task, copy=False)[0]:
        kept.deliver(task, ran, 0)
    assert len(store.kept) == 1
    assert values_of(kept, 1) == [b"x" * 100_000, b"y"]


def test_a_result_for_which_there_is_no_room_is_a_failure_that_says_so() -> None:
    kept = keeping(Store(full=True))
    run(kept, 1, b"x" * 100_000)
    [error] = values_of(kept, 1)
    assert isinstance(error, StoreFull)


@pytest.mark.parametrize(("number", "reason"), [(1, r"apply\(f1\) has ended.*limits"), (7, "no such task")])
def test_it_is_said_why_there_is_nothing(number: int, reason: str) -> None:
    kept = keeping(limit_tasks=1)
    for each in (1, 2):
        run(kept, each, "value")
    assert re.search(reason, kept.progress({number: 0})[number].lost or "")


def test_what_went_wrong_beside_the_engine_is_kept_too() -> None:
    kept = keeping()
    task = call(1)
    kept.enter(task, joins=False)
    error = SerializationError("items 0 to 0", "they cannot")
    assert kept.deliver(task, failed(TaskRange(1), error), 0)
    [found] = values_of(kept, 1)
    assert str(found) == str(error)


def test_items_that_nothing_more_will_come_of_fail_and_those_that_are_kept_stay() -> None:
    kept = keeping()
    task = MapCall(RequestId("detached", 1), NOWHERE, "map(f)", False, size=6, left=6)
    kept.enter(task, joins=False)
    for ran in kept.read(batch("b", "c", first=1), no_task, copy=False)[0]:
        kept.deliver(task, ran, 0)
    error = SerializationError("a result", "it is an example")
    kept.fail(task, error)
    pieces = kept.progress({1: 0})[1].pieces
    spans = {tuple(piece[0][1:3]): piece[0].status for piece in pieces if not isinstance(piece, Fail)}
    assert {span for span, status in spans.items() if status is RangeStatus.FAILED} == {(0, 1), (3, 6)}
    assert task.done
    kept.fail(task, error)
    assert len(kept.progress({1: 0})[1].pieces) == len(pieces)
