"""Results of detached tasks as they are kept: as they came, and no longer than there is room."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from nsactors.client.detached.keeping import REPLY_PIECES, Keeping, KeptValue
from nsactors.client.tasks.delivery import failed
from nsactors.core.kept_tasks import KeptTasks
from nsactors.core.messages import RequestId
from nsactors.core.payload import Payload, pack, unpack
from nsactors.core.scheduling import GiveUp, Ran, Span, Status, Why
from nsactors.core.tasks import Report, TaskRan
from nsactors.errors import SerializationError, StoreFull
from nsactors.results import NOWHERE, Call, MapCall, TaskCall
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


def keeping(store: Store | None = None, **limits: int) -> Keeping:
    return Keeping(cast(Transport, store or Store()), lambda: None, KeptTasks(**limits))


def call(number: int) -> TaskCall:
    return TaskCall(RequestId("detached", number), NOWHERE, f"apply(f{number})", False)


def batch(*values: Any, number: int = 1, first: int = 0) -> Call:
    """An engine's answer: one result for each of consecutive items."""
    ran = [TaskRan(number, first + i, first + i + 1, 5.0, 0.5, (0, 0), Status.OK) for i in range(len(values))]
    answer = Call(RequestId("detached", 0), 0, "2 tasks", False)
    answer.value = unpack(pack(Report(tuple(ran), pack(list(values))).as_value()))
    return answer


def run(kept: Keeping, number: int, value: Any) -> None:
    task = call(number)
    kept.enter(task, joins=False)
    [ran], _ = kept.read(batch(value, number=number), copy=False)
    assert kept.deliver(task, ran, engine_id=3)
    kept.settle(task)


def values_of(kept: Keeping, number: int) -> list[Any]:
    opened: dict[int, Any] = {}
    pieces = cast(list[tuple[Ran, int]], kept.progress({number: 0})[number].pieces)
    return [ran.value.value.load(opened, copy=False) for ran, _ in pieces]


def test_a_result_is_kept_unopened_with_its_engine_and_times() -> None:
    kept = keeping()
    run(kept, 1, "value")
    [(ran, engine_id)] = cast(list[tuple[Ran, int]], kept.progress({1: 0})[1].pieces)
    assert isinstance(ran.value.value, KeptValue)
    assert (engine_id, ran.value.started, ran.value.completed) == (3, 5.0, 5.5)
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
    ran, _ = kept.read(batch("a", "b"), copy=False)
    assert [kept.deliver(task, each, 0) for each in ran] == [False, False]
    assert kept.give_up(task, GiveUp(Span(1, 2, 3), Why.ABORTED, "it was aborted"))


def test_a_reply_has_so_many_pieces_and_the_next_one_has_the_rest() -> None:
    kept = keeping()
    size = REPLY_PIECES + 1
    task = MapCall(RequestId("detached", 1), NOWHERE, "map(f)", False, size=size, left=size)
    kept.enter(task, joins=False)
    for ran in kept.read(batch(*range(size)), copy=False)[0]:
        kept.deliver(task, ran, 0)
    assert len(kept.progress({1: 0})[1].pieces) == REPLY_PIECES
    assert len(kept.progress({1: REPLY_PIECES})[1].pieces) == 1


def test_what_is_large_goes_into_the_object_store_once() -> None:
    store = Store()
    kept = keeping(store)
    task = MapCall(RequestId("detached", 1), NOWHERE, "map(f)", False, size=2, left=2)
    kept.enter(task, joins=False)
    for ran in kept.read(batch(b"x" * 100_000, b"y"), copy=False)[0]:
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
    assert kept.deliver(task, failed(Span(1), error), 0)
    [found] = values_of(kept, 1)
    assert str(found) == str(error)
