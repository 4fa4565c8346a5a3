"""An event costs the scheduler about as many steps with many engines as with few."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

import pytest

from nsactors.protocol.tasks import RangeOutcome, RangeStatus
from nsactors.tasks.messages import (
    Effect,
    Engine,
    EngineAdded,
    EngineRemoved,
    Needs,
    Replied,
    SendBatch,
    Steal,
    Submitted,
    Task,
)
from nsactors.tasks.scheduler_state import SchedulerState
from tests.counting import counted_steps

FEW = 100


@pytest.fixture(params=[3_000, pytest.param(10_000, marks=pytest.mark.full_size)])
def many(request: pytest.FixtureRequest) -> int:
    """The number of engines of a large cluster."""
    count: int = request.param
    return count


def fleet(count: int) -> SchedulerState:
    state = SchedulerState()
    for engine_id in range(count):
        state.handle(EngineAdded(Engine(engine_id), at=0.0))
    return state


def batches(effects: list[Effect]) -> list[SendBatch]:
    return [effect for effect in effects if isinstance(effect, SendBatch)]


def reply(batch: SendBatch, at: float, item_s: float = 0.01) -> Replied:
    spans = batch.spans
    outcomes = (RangeOutcome(*span, RangeStatus.OK, item_s * (span.stop - span.start), None) for span in spans)
    return Replied(batch.batch_id, tuple(outcomes), at)


def steps_of_replies(count: int, task: Task, sampled: int = 40) -> int:
    """Return the most steps that a reply took: of all, a few have been looked at."""
    state = fleet(count)
    sent = deque(batches(state.handle(Submitted((task,), at=0.0))))
    at, most, number = 0.0, 0, 0
    while sent and number < 3 * count:
        at, number = at + 0.01 / count, number + 1
        event = reply(sent.popleft(), at)
        if number % max(1, 3 * count // sampled) == 0:
            with counted_steps() as steps:
                effects = state.handle(event)
            most = max(most, steps.count)
        else:
            effects = state.handle(event)
        sent.extend(batches(effects))
    return most


@pytest.mark.parametrize("items", [20, 2])
def test_a_reply_takes_as_many_steps_with_many_engines(items: int, many: int) -> None:
    counts = [steps_of_replies(count, Task("map", size=items * count)) for count in (FEW, many)]
    assert counts[1] <= 1.2 * counts[0]


@pytest.mark.parametrize("event", [EngineAdded(Engine(7), at=1.0), EngineRemoved(7, at=1.0)])
def test_an_engine_that_comes_or_goes_takes_as_many_steps_while_tasks_wait(event: Any, many: int) -> None:
    counts = []
    for count in (FEW, many):
        state = fleet(count)
        needs = Needs.of(targets=[5]), Needs.of(targets=range(count))
        tasks = [Task("map", size=9 * count), *(Task(str(i), size=9, needs=need) for i, need in enumerate(needs))]
        state.handle(Submitted(tuple(tasks), at=0.0))
        assert state.unassigned
        with counted_steps() as steps:
            state.handle(event)
        counts.append(steps.count)
    assert counts[1] <= 1.2 * counts[0]


def test_a_task_for_one_engine_finds_it_among_many_that_are_idle(many: int) -> None:
    counts = []
    for count in (FEW, many):
        state = fleet(count)
        state.handle(Submitted((Task("before", needs=Needs.of(targets=[count - 1])),), at=0.0))
        with counted_steps() as steps:
            state.handle(Submitted((Task("call", needs=Needs.of(targets=[count - 2])),), at=1.0))
            state.handle(Submitted((Task("later", needs=Needs.of(targets=[count - 1])),), at=1.0))
        counts.append(steps.count)
    # The engines of the needs are found once, among all.
    assert counts[1] <= counts[0] + 60 * many


class Counted(OrderedDict[Any, Any]):
    """Counts the entries that are looked at."""

    seen = 0

    def items(self) -> Iterator[tuple[Any, Any]]:  # type: ignore[override]
        for item in super().items():
            self.seen += 1
            yield item


def test_a_thief_looks_at_the_oldest_batches_only(many: int) -> None:
    state = fleet(many)
    sent = deque(batches(state.handle(Submitted((Task("map", size=2 * many),), at=0.0))))
    # Now that the time of an item is known, each engine gets a second one in advance.
    second = batches(state.handle(reply(sent.popleft(), at=0.01)))
    assert len(state._recallable) == many - 1
    looked = state._recallable = Counted(state._recallable)
    own = next(batch for batch in second if batch.engine_id == 0)
    stolen = [
        effect
        for number, batch in enumerate([own, *[sent.popleft() for _ in range(20)]])
        for effect in state.handle(reply(batch, at=0.03 + 0.001 * number))
        if isinstance(effect, Steal)
    ]
    assert stolen
    assert looked.seen < 100
