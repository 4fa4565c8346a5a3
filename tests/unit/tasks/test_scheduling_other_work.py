"""Engines that work for others too, and engines that have come back empty."""

from __future__ import annotations

import pytest

from nsactors.protocol.tasks import RangeStatus, TaskId, TaskRange
from nsactors.tasks.messages import (
    Deliver,
    Engine,
    EngineAdded,
    EngineBusy,
    EngineFree,
    EngineProgressed,
    EngineRemoved,
    Needs,
    PeekBatch,
    Policy,
    SendBatch,
    Steal,
    Stolen,
    Task,
    TaskDependency,
    TaskState,
    Tick,
)
from nsactors.tasks.scheduler_state import SchedulerState
from tests.unit.tasks.test_scheduler_state import measured, only, reply, sent, submit, with_engines

LATER = 5.0  # when what is on its way has come, if it ever does


def busy(scheduler: SchedulerState, engine_id: int, at: float = 0.0, *, before: bool = True) -> list[object]:
    return list(scheduler.handle(EngineBusy(engine_id, "execute of client ann", at, before)))


# Which engine takes what.


@pytest.mark.parametrize("engines", [2, 4])
def test_no_task_is_sent_to_an_engine_that_works_for_others_until_it_is_free(engines: int) -> None:
    scheduler = with_engines(engines)
    busy(scheduler, 0)
    effects = submit(scheduler, *(Task(number) for number in range(20)))
    assert {engine_id for engine_id, _ in sent(effects)} == set(range(1, engines))
    assert sent(scheduler.handle(EngineFree(0, at=1.0)))[0][0] == 0


def test_it_is_sent_nothing_in_advance_either() -> None:
    scheduler = with_engines(1)
    measured(scheduler, each_s=0.001)
    first = only(SendBatch, submit(scheduler, Task("first")))[0]
    busy(scheduler, 0, before=False)
    assert sent(submit(scheduler, Task("second"))) == []
    assert sent(reply(scheduler, first, each_s=0.001)) == []
    assert sent(scheduler.handle(EngineFree(0, at=2.0))) == [(0, "second")]


def test_what_only_engines_may_run_that_work_for_others_waits_for_the_first_that_is_free() -> None:
    scheduler = with_engines(2)
    for engine_id in (0, 1):
        busy(scheduler, engine_id)
    assert sent(submit(scheduler, Task("a"))) == []
    assert sent(scheduler.handle(EngineFree(1, at=1.0))) == [(1, "a")]


def test_an_engine_is_as_busy_as_it_was_when_it_is_said_to_join_only_now() -> None:
    scheduler = SchedulerState()
    busy(scheduler, 0)
    scheduler.handle(EngineAdded(Engine(0), at=1.0))
    assert sent(submit(scheduler, Task("a"))) == []
    assert sent(scheduler.handle(EngineFree(0, at=2.0))) == [(0, "a")]


def test_what_is_said_of_an_engine_that_is_not_there_changes_nothing() -> None:
    scheduler = with_engines(1)
    assert (
        busy(scheduler, 7) == scheduler.handle(EngineProgressed(7, 1.0)) == scheduler.handle(EngineFree(7, 2.0)) == []
    )


def test_where_others_never_pause_a_task_takes_its_place_in_their_line() -> None:
    scheduler = with_engines(2)
    for engine_id in (0, 1):
        busy(scheduler, engine_id)
    submit(scheduler, Task("a"), Task("b"), Task("c"))
    assert sent(scheduler.handle(EngineProgressed(1, at=1.0))) == [(1, "a")]
    assert sent(scheduler.handle(EngineProgressed(1, at=2.0))) == [], "one at a time"
    assert sent(scheduler.handle(EngineProgressed(0, at=3.0))) == [(0, "b")]


# What an engine was sent before it was known to be busy.


def test_a_single_task_that_waits_behind_other_work_is_taken_back_for_an_engine_that_is_free() -> None:
    scheduler = with_engines(2)
    trapped, free = only(SendBatch, submit(scheduler, Task("a"), Task("b")))
    reply(scheduler, free)
    effects = busy(scheduler, 0, at=LATER)
    assert only(Steal, effects) == [Steal(0, trapped.batch_id, (TaskRange("a"),))]
    effects = scheduler.handle(Stolen(trapped.batch_id, (TaskRange("a"),), LATER))
    assert sent(effects) == [(1, "a")]


def test_it_is_taken_back_when_the_other_engine_becomes_free_and_asked_for_once() -> None:
    scheduler = with_engines(2)
    submit(scheduler, Task("a"))
    [long] = only(SendBatch, submit(scheduler, Task("b")))
    assert only(Steal, busy(scheduler, 0, at=LATER)) == []
    assert len(only(Steal, reply(scheduler, long, at=LATER))) == 1
    assert only(Steal, scheduler.handle(Tick(2 * LATER))) == []


def test_a_task_that_may_have_begun_is_left_alone_if_the_other_work_comes_after_it() -> None:
    scheduler = with_engines(2)
    submit(scheduler, Task("a"))
    assert only(Steal, busy(scheduler, 0, at=LATER, before=False)) == []


def test_nothing_is_taken_back_that_no_free_engine_may_run() -> None:
    scheduler = with_engines(2)
    submit(scheduler, Task("a", needs=Needs.of([0])))
    assert only(Steal, busy(scheduler, 0, at=LATER)) == []


def test_a_batch_that_waits_behind_other_work_is_asked_for_results_when_it_has_run_for_long() -> None:
    scheduler = with_engines(1, Policy(late_s=1.0))
    measured(scheduler, each_s=0.001)
    [batch] = only(SendBatch, submit(scheduler, Task("map", size=4, chunksize=4), at=10.0))
    busy(scheduler, 0, at=10.1)
    assert only(PeekBatch, scheduler.handle(Tick(20.0))) == []
    scheduler.handle(EngineFree(0, at=30.0))
    assert only(PeekBatch, scheduler.handle(Tick(30.5))) == []
    assert only(PeekBatch, scheduler.handle(Tick(31.0))) == [PeekBatch(0, batch.batch_id)]


def test_a_task_says_where_it_waits_for_what() -> None:
    scheduler = with_engines(2)
    submit(scheduler, Task("there", needs=Needs.of([0])))
    busy(scheduler, 0)
    submit(scheduler, Task("here"), Task("held", needs=Needs.of(labels={"a": "!b"})))
    busy(scheduler, 1, before=False)
    work = [f"engine {i}, which is busy with execute of client ann" for i in (0, 1)]
    assert [(task.msg_id, task.state, task.engines, task.waits) for task in scheduler.statuses().values()] == [
        ("there", TaskState.ASSIGNED, (0,), f"waits at {work[0]}"),
        ("here", TaskState.ASSIGNED, (1,), ""),
        ("held", TaskState.READY, (), f"waits for {work[0]}; or {work[1]}"),
    ]
    scheduler.handle(EngineFree(0, at=1.0))
    assert [task.waits for task in scheduler.statuses().values()] == ["", "", ""]


def test_what_only_one_engine_may_run_keeps_its_place_in_the_line_there() -> None:
    scheduler = with_engines(2)
    busy(scheduler, 0)
    pinned = Task("map", size=4, needs=Needs.of([0]))
    [batch] = only(SendBatch, submit(scheduler, pinned, Task("b", needs=Needs.of([0]))))
    assert (batch.engine_id, batch.spans) == (0, (TaskRange("map", 0, 1),))
    assert sent(reply(scheduler, batch)) == [(0, "map")]


def test_it_does_not_go_there_if_the_engine_is_not_as_it_asks() -> None:
    scheduler = with_engines(1)
    scheduler.handle(EngineRemoved(1, at=0.0, returns=True))
    busy(scheduler, 0)
    assert sent(submit(scheduler, Task("a", needs=Needs.of([0], {"GPU": 1})))) == []


# Engines that have come back empty.


def with_a_new_engine(*needs_tasks: Task) -> tuple[SchedulerState, list[object]]:
    """Engine 0 has a task that does not end; engine 1 has come back empty and gets its first one of these."""
    scheduler = with_engines(1)
    measured(scheduler, each_s=0.001)
    submit(scheduler, Task("long", kind="long"))
    submit(scheduler, *needs_tasks)
    return scheduler, list(scheduler.handle(EngineAdded(Engine(1, is_new=True), at=0.0)))


def the_one_of(effects: list[object], engine_id: int) -> SendBatch:
    [batch] = [batch for batch in only(SendBatch, effects) if batch.engine_id == engine_id]
    return batch


@pytest.mark.parametrize("chunksize", [None, 4])
@pytest.mark.parametrize("status", [RangeStatus.OK, RangeStatus.FAILED])
def test_a_new_engine_gets_one_item_and_more_when_that_has_ended(status: RangeStatus, chunksize: int | None) -> None:
    scheduler, effects = with_a_new_engine(Task("map", size=400, chunksize=chunksize, kind="f"))
    first = the_one_of(effects, 1)
    assert first.spans == (TaskRange("map", first.spans[0].start, first.spans[0].start + 1),)
    after = only(SendBatch, reply(scheduler, first, status, each_s=0.001))
    sizes = [span.stop - span.start for batch in after for span in batch.spans]
    assert after[0].engine_id == 1
    assert sum(sizes) > 1


def test_a_new_engine_that_lacks_a_name_gets_no_more_of_that_kind_while_another_may_have_it() -> None:
    scheduler, effects = with_a_new_engine(*(Task(number, kind="f") for number in range(16)))
    ran = the_one_of(effects, 1)
    effects = list(reply(scheduler, ran, RangeStatus.UNNAMED))
    assert [result.task_id for deliver in only(Deliver, effects) for result in deliver.outcomes] == [
        ran.spans[0].task_id
    ]
    assert {engine_id for engine_id, _ in sent(effects)} <= {0}
    assert (scheduler.unassigned + scheduler.assigned(0), scheduler.assigned(1)) == (16, 0)


def test_it_gets_tasks_of_other_kinds_one_by_one_until_one_succeeds() -> None:
    scheduler, effects = with_a_new_engine(Task("a", kind="f"))
    reply(scheduler, the_one_of(effects, 1), RangeStatus.UNNAMED)
    effects = submit(scheduler, *(Task(number, kind="g") for number in range(4)))
    assert sum(engine_id == 1 for engine_id, _ in sent(effects)) == 1


def test_an_engine_whose_namespace_may_have_been_filled_is_tried_again() -> None:
    scheduler, effects = with_a_new_engine(*(Task(number, kind="f") for number in range(16)))
    reply(scheduler, the_one_of(effects, 1), RangeStatus.UNNAMED)
    assert scheduler.assigned(1) == 0
    busy(scheduler, 1)
    [batch] = only(SendBatch, scheduler.handle(EngineFree(1, at=1.0)))
    assert (batch.engine_id, len(batch.spans)) == (1, 1)


def test_where_all_engines_lack_a_name_tasks_go_to_all_of_them() -> None:
    scheduler = SchedulerState()
    scheduler.handle(EngineAdded(Engine(0, is_new=True), at=0.0))
    scheduler.handle(EngineAdded(Engine(1, is_new=True), at=0.0))
    ended: list[TaskId] = []
    batches = only(SendBatch, submit(scheduler, *(Task(number, kind="f") for number in range(10))))
    while batches:
        effects = reply(scheduler, batches.pop(0), RangeStatus.UNNAMED)
        ended += [ran.task_id for deliver in only(Deliver, effects) for ran in deliver.outcomes]
        batches += only(SendBatch, effects)
    assert sorted(ended, key=str) == list(range(10))


def test_what_a_lost_engine_lacked_is_forgotten_with_it() -> None:
    scheduler, effects = with_a_new_engine(Task("a", kind="f"))
    reply(scheduler, the_one_of(effects, 1), RangeStatus.UNNAMED)
    scheduler.handle(EngineRemoved(1, at=1.0, returns=True))
    scheduler.handle(EngineAdded(Engine(1), at=2.0))
    assert (1, "b") in sent(submit(scheduler, Task("b", kind="f")))


def test_a_retry_of_what_failed_for_a_name_goes_to_an_engine_that_may_have_it() -> None:
    scheduler = with_engines(1)
    scheduler.handle(EngineAdded(Engine(1, is_new=True), at=0.0))
    first, second = only(SendBatch, submit(scheduler, Task("x", kind="g"), Task("a", kind="f", retries=1)))
    assert sent(reply(scheduler, second, RangeStatus.UNNAMED)) == []
    assert sent(reply(scheduler, first)) == [(0, "a")]


def test_what_depends_on_a_task_that_failed_for_a_name_takes_it_for_a_failure() -> None:
    scheduler = with_engines(2)
    [batch] = only(SendBatch, submit(scheduler, Task("a", kind="f")))
    submit(scheduler, Task("b", after=TaskDependency(frozenset({"a"}), success=False, failure=True)))
    assert [task_id for _, task_id in sent(reply(scheduler, batch, RangeStatus.UNNAMED))] == ["b"]
