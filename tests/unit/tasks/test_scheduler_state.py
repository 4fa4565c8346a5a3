from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.namespace.task_runner import Backlog
from nsactors.protocol.tasks import RangeOutcome, RangeStatus, TaskId, TaskRange
from nsactors.tasks.messages import (
    AbortRequested,
    Alarm,
    Deliver,
    Effect,
    Engine,
    EngineAdded,
    EngineClosing,
    EngineRemoved,
    Fail,
    InterruptRanges,
    Needs,
    PeekBatch,
    Policy,
    Replied,
    Retry,
    SendBatch,
    Steal,
    Stolen,
    Submitted,
    Task,
    TaskDependency,
    TaskState,
    TaskStatus,
    Tick,
    Why,
)
from nsactors.tasks.scheduler_state import SchedulerState

E = TypeVar("E")


def only(kind: type[E], effects: Iterable[object]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def with_engines(count: int, policy: Policy | None = None) -> SchedulerState:
    scheduler = SchedulerState(policy)
    for engine_id in range(count):
        scheduler.handle(EngineAdded(Engine(engine_id), at=0.0))
    return scheduler


def submit(scheduler: SchedulerState, *tasks: Task, at: float = 0.0) -> list[Effect]:
    return scheduler.handle(Submitted(tasks, at))


def reply(
    scheduler: SchedulerState,
    batch: SendBatch,
    status: RangeStatus = RangeStatus.OK,
    *,
    each_s: float = 1.0,
    at: float = 1.0,
) -> list[Effect]:
    """The engine has run all of a batch."""
    results = tuple(RangeOutcome(*span, status, each_s * (span.stop - span.start)) for span in batch.spans)
    return scheduler.handle(Replied(batch.batch_id, results, at))


def sent(effects: Iterable[object]) -> list[tuple[int, TaskId]]:
    return [(batch.engine_id, span.task_id) for batch in only(SendBatch, effects) for span in batch.spans]


def measured(scheduler: SchedulerState, each_s: float) -> None:
    """Let one task of each engine be measured."""
    effects = submit(scheduler, *(Task(f"probe {i}") for i in range(10)))
    while batches := only(SendBatch, effects):
        effects = [effect for batch in batches for effect in reply(scheduler, batch, each_s=each_s, at=0.0)]


# To whom work goes.


def test_each_engine_that_is_free_gets_a_task() -> None:
    scheduler = with_engines(3)
    assert sent(submit(scheduler, Task("a"), Task("b"))) == [(0, "a"), (1, "b")]
    assert sent(submit(scheduler, Task("c"))) == [(2, "c")]


def test_an_engine_that_is_done_gets_the_next_task_in_order() -> None:
    scheduler = with_engines(1)
    batch = only(SendBatch, submit(scheduler, Task("a"), Task("b"), Task("c")))[0]
    assert sent(reply(scheduler, batch)) == [(0, "b")]


def test_a_task_waits_for_an_engine_to_join() -> None:
    scheduler = SchedulerState()
    assert submit(scheduler, Task("a")) == []
    assert sent(scheduler.handle(EngineAdded(Engine(5), at=1.0))) == [(5, "a")]


def test_more_urgent_tasks_go_first() -> None:
    scheduler = SchedulerState()
    submit(scheduler, Task("a"), Task("b", priority=1), Task("c", priority=-1), Task("d", priority=1))
    order, effects = [], scheduler.handle(EngineAdded(Engine(0), at=0.0))
    while batches := only(SendBatch, effects):
        order += [span.task_id for batch in batches for span in batch.spans]
        effects = [effect for batch in batches for effect in reply(scheduler, batch)]
    assert order == ["b", "d", "a", "c"]


def test_a_result_is_passed_on_as_it_came() -> None:
    scheduler = with_engines(1)
    submit(scheduler, Task("a"))
    ran = RangeOutcome("a", 0, 1, RangeStatus.FAILED, 0.5, value="whatever the driver likes")
    assert scheduler.handle(Replied(1, (ran,), 1.0)) == [Deliver(0, (ran,))]


def test_a_task_that_is_submitted_twice_runs_once() -> None:
    scheduler = with_engines(2)
    submit(scheduler, Task("a"))
    assert submit(scheduler, Task("a")) == []


@pytest.mark.parametrize(
    ("needs", "engine_id"),
    [
        (Needs.of([2]), 2),
        (Needs.of(resources={"GPU": 1}), 1),
        (Needs.of(resources={"GPU": 1.5, "memory": 8}), 2),
        (Needs.of(labels={"zone": "b"}), 2),
        (Needs.of(labels={"zone": "!a"}), 2),
        (Needs.of(labels={"zone": "in(b, c)"}), 2),
        (Needs.of([0, 2], {"GPU": 1}, {"zone": "b"}), 2),
    ],
)
def test_a_task_goes_to_an_engine_that_has_what_it_needs(needs: Needs, engine_id: int) -> None:
    scheduler = SchedulerState()
    for engine in [
        Engine(0, {}, {"zone": "a"}),
        Engine(1, {"GPU": 1}, {"zone": "a"}),
        Engine(2, {"GPU": 2, "memory": 16}, {"zone": "b"}),
    ]:
        scheduler.handle(EngineAdded(engine, 0.0))
    assert sent(submit(scheduler, Task("a", needs=needs))) == [(engine_id, "a")]


GPU = Task("on a GPU", needs=Needs.of(resources={"GPU": 1}))


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        (Needs.of(resources={"GPU": 2}), "it asks for an engine with 2 GPU, and there is none"),
        (Needs.of(resources={"memory": 8e9}), "it asks for an engine with 8.0 GB of memory, and there is none"),
        (Needs.of(labels={"zone": "b"}), "it asks for an engine with zone=b, and there is none"),
        (
            Needs.of([0, 1], {"GPU": 0.5}, {"zone": "a"}),
            "it asks for an engine with 0.5 GPU, zone=a, and there is none among engines 0-1",
        ),
    ],
)
def test_what_no_engine_suits_is_given_up_at_once(needs: Needs, reason: str) -> None:
    scheduler = with_engines(2)
    assert submit(scheduler, Task("a", size=3, needs=needs)) == [Fail(TaskRange("a", 0, 3), Why.IMPOSSIBLE, reason)]


def test_what_no_engine_suits_waits_for_one_that_is_being_started() -> None:
    scheduler = with_engines(1)
    scheduler.handle(EngineRemoved(1, at=0.0, returns=True))
    assert submit(scheduler, GPU) == []
    assert sent(scheduler.handle(EngineAdded(Engine(1, {"GPU": 1}), at=1.0))) == [(1, "on a GPU")]


@pytest.mark.parametrize(
    "news",
    [EngineRemoved(1, at=1.0), EngineAdded(Engine(1), at=1.0)],
    ids=["which does not come", "which does not suit it either"],
)
def test_what_waits_for_an_engine_is_given_up_with_the_hope_for_it(news: EngineRemoved | EngineAdded) -> None:
    scheduler = with_engines(1)
    scheduler.handle(EngineRemoved(1, at=0.0, returns=True))
    submit(scheduler, GPU)
    assert [effect.why for effect in only(Fail, scheduler.handle(news))] == [Why.IMPOSSIBLE]


def test_when_the_only_engine_that_suits_it_has_gone_a_task_is_given_up() -> None:
    scheduler = with_engines(1)
    scheduler.handle(EngineAdded(Engine(1, {"GPU": 1}), at=0.0))
    assert sent(submit(scheduler, GPU)) == [(1, "on a GPU")]
    assert only(Fail, scheduler.handle(EngineRemoved(1, at=1.0, returns=True))) == []
    assert [effect.span for effect in only(Fail, scheduler.handle(EngineRemoved(1, at=2.0)))] == [TaskRange("on a GPU")]


def test_a_task_that_waits_for_one_engine_does_not_hold_up_those_for_others() -> None:
    scheduler = with_engines(2)
    submit(scheduler, Task("long", needs=Needs.of([0])))
    assert sent(submit(scheduler, Task("a", needs=Needs.of([0])), Task("b"))) == [(1, "b")]


def test_a_task_whose_target_is_gone_is_given_up() -> None:
    scheduler = with_engines(2)
    submit(scheduler, Task("long", needs=Needs.of([0])), Task("a", needs=Needs.of([0])))
    effects = scheduler.handle(EngineRemoved(0, at=1.0))
    assert [(e.span.task_id, e.why, e.reason) for e in only(Fail, effects)] == [
        ("a", Why.IMPOSSIBLE, "targets: engine 0 gone"),
        ("long", Why.IMPOSSIBLE, "targets: engine 0 gone"),
    ]
    assert only(Retry, effects) == []


def test_a_task_whose_target_is_restarted_waits_for_it() -> None:
    scheduler = with_engines(2)
    submit(scheduler, Task("a", needs=Needs.of([0])))
    assert only(Fail, scheduler.handle(EngineRemoved(0, at=1.0, returns=True))) == []
    assert sent(scheduler.handle(EngineAdded(Engine(0), at=2.0))) == [(0, "a")]


# Batches.


def test_tasks_of_unknown_length_go_one_by_one() -> None:
    batches = only(SendBatch, submit(with_engines(1), Task("map", size=100)))
    assert [batch.spans for batch in batches] == [(TaskRange("map", 0, 1),)]


def test_measured_tasks_go_in_batches_of_about_the_wanted_time_and_one_more_in_advance() -> None:
    scheduler = with_engines(1, Policy(batch_s=0.0205))
    measured(scheduler, each_s=0.001)
    batches = only(SendBatch, submit(scheduler, *(Task(i) for i in range(1000))))
    assert [len(batch.spans) for batch in batches] == [20, 20]


def test_chunks_of_a_map_travel_as_one_span() -> None:
    scheduler = with_engines(1)
    measured(scheduler, each_s=0.001)
    batches = only(SendBatch, submit(scheduler, Task("map", size=1000)))
    assert [batch.spans for batch in batches] == [(TaskRange("map", 0, 20),), (TaskRange("map", 20, 40),)]


def test_batches_shrink_as_the_queue_runs_out() -> None:
    scheduler = with_engines(2, Policy(least_s=0.0))
    measured(scheduler, each_s=1e-5)
    sizes, batches = [], only(SendBatch, submit(scheduler, Task("map", size=100)))
    while batches:
        sizes += [span.stop - span.start for span in batches[0].spans]
        batches = batches[1:] + only(SendBatch, reply(scheduler, batches[0], each_s=1e-5, at=0.0))
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1], sum(sizes)) == (25, 1, 100)


def test_where_messages_take_long_a_batch_takes_as_long() -> None:
    scheduler = with_engines(1)
    for number in range(50):
        batch = only(SendBatch, submit(scheduler, Task(number), at=number))[0]
        reply(scheduler, batch, each_s=0.001, at=number + 0.041)
    (span,) = only(SendBatch, submit(scheduler, Task("map", size=1000), at=50.0))[0].spans
    assert span.stop == pytest.approx(40, abs=1)


def test_an_engine_that_works_for_others_is_not_sent_ever_larger_batches() -> None:
    scheduler = with_engines(1)
    for number in range(50):
        batch = only(SendBatch, submit(scheduler, Task(number), at=100.0 * number))[0]
        reply(scheduler, batch, each_s=0.001, at=100.0 * number + 60)
    (span,) = only(SendBatch, submit(scheduler, Task("map", size=10_000), at=5000.0))[0].spans
    assert span.stop <= 100


def test_long_tasks_are_not_sent_in_advance_near_the_end() -> None:
    scheduler = with_engines(2)
    measured(scheduler, each_s=10.0)
    assert len(sent(submit(scheduler, *(Task(i) for i in range(4))))) == 2


def test_what_a_reply_leaves_out_goes_on_elsewhere() -> None:
    scheduler = with_engines(1)
    measured(scheduler, each_s=0.001)
    batch = only(SendBatch, submit(scheduler, Task("map", size=8)))[0]
    assert batch.spans == (TaskRange("map", 0, 4),)
    effects = scheduler.handle(Replied(batch.batch_id, (RangeOutcome("map", 0, 1, RangeStatus.OK, 0.5),), 1.0))
    assert only(SendBatch, effects)[0].spans[0] == TaskRange("map", 1, 2)


# Failures.


def test_a_task_that_failed_is_tried_again_on_another_engine() -> None:
    scheduler = with_engines(2)
    batch = only(SendBatch, submit(scheduler, Task("a", retries=1)))[0]
    ran = RangeOutcome("a", 0, 1, RangeStatus.FAILED, 1.0)
    effects = scheduler.handle(Replied(batch.batch_id, (ran,), 1.0))
    assert (only(Retry, effects), sent(effects)) == ([Retry(TaskRange("a"), 0, ran)], [(1, "a")])
    assert only(Deliver, reply(scheduler, only(SendBatch, effects)[0], RangeStatus.FAILED)) != []


def test_a_task_waits_for_a_busy_engine_rather_than_fail_twice_on_one() -> None:
    scheduler = with_engines(2)
    first, second = only(SendBatch, submit(scheduler, Task("a", retries=1), Task("b")))
    assert sent(reply(scheduler, first, RangeStatus.FAILED)) == []
    assert sent(reply(scheduler, second)) == [(1, "a")]


def test_a_task_fails_twice_on_one_engine_if_there_is_no_other() -> None:
    scheduler = with_engines(1)
    batch = only(SendBatch, submit(scheduler, Task("a", retries=1)))[0]
    assert sent(reply(scheduler, batch, RangeStatus.FAILED)) == [(0, "a")]


def test_items_of_a_map_are_tried_again_alone() -> None:
    scheduler = with_engines(1)
    measured(scheduler, each_s=0.001)
    batch = only(SendBatch, submit(scheduler, Task("map", size=6, retries=1)))[0]
    results = (
        RangeOutcome("map", 0, 1, RangeStatus.OK, 0.001),
        RangeOutcome("map", 1, 2, RangeStatus.FAILED, 0.001),
        RangeOutcome("map", 2, 3, RangeStatus.OK, 0.001),
    )
    effects = scheduler.handle(Replied(batch.batch_id, results, 1.0))
    assert only(Deliver, effects) == [Deliver(0, (results[0], results[2]))]
    assert only(Retry, effects) == [Retry(TaskRange("map", 1, 2), 0, results[1])]


def test_an_engine_that_does_not_meet_a_condition_is_passed_over_for_good() -> None:
    scheduler = with_engines(2)
    batch = only(SendBatch, submit(scheduler, Task("a")))[0]
    effects = reply(scheduler, batch, RangeStatus.UNMET)
    assert (sent(effects), only(Deliver, effects)) == ([(1, "a")], [])
    given_up = only(Fail, reply(scheduler, only(SendBatch, effects)[0], RangeStatus.UNMET))
    assert [(e.span, e.why) for e in given_up] == [(TaskRange("a"), Why.IMPOSSIBLE)]


# Engines that go.


def test_an_engine_that_is_about_to_go_finishes_what_it_has_and_gets_no_more() -> None:
    scheduler = with_engines(2)
    batches = only(SendBatch, submit(scheduler, Task("a"), Task("b"), Task("c"), Task("d")))
    closing = [scheduler.handle(EngineClosing(0, at=0.5)), reply(scheduler, batches[0])]
    assert sent([effect for effects in closing for effect in effects]) == []
    assert {engine_id for engine_id, _ in sent(reply(scheduler, batches[1]))} == {1}


def test_what_only_an_engine_that_is_about_to_go_could_do_waits_for_its_end() -> None:
    scheduler = with_engines(1)
    scheduler.handle(EngineClosing(0, at=0.0))
    assert sent(submit(scheduler, Task("a"))) == []
    assert sent(scheduler.handle(EngineAdded(Engine(1), at=1.0))) == [(1, "a")]


# Engines that are lost.


def test_what_a_lost_engine_held_goes_elsewhere_and_its_late_reply_is_ignored() -> None:
    scheduler = with_engines(2)
    batch = only(SendBatch, submit(scheduler, Task("a")))[0]
    effects = scheduler.handle(EngineRemoved(0, at=1.0))
    assert effects[:1] == [Retry(TaskRange("a"), 0, None)]
    assert sent(effects) == [(1, "a")]
    assert reply(scheduler, batch) == []


def test_an_engine_that_joins_again_has_lost_what_it_held() -> None:
    scheduler = with_engines(1)
    batch = only(SendBatch, submit(scheduler, Task("a")))[0]
    assert sent(scheduler.handle(EngineAdded(Engine(0), at=1.0))) == [(0, "a")]
    assert reply(scheduler, batch) == []


def test_a_task_that_takes_too_many_engines_with_it_is_given_up() -> None:
    scheduler = with_engines(4, Policy(max_losses=2))
    submit(scheduler, Task("a"))
    effects = [scheduler.handle(EngineRemoved(engine_id, at=1.0)) for engine_id in range(3)]
    assert [(e.span, e.why) for e in only(Fail, effects[-1])] == [(TaskRange("a"), Why.ENGINES_LOST)]
    assert "engines 0-2 died" in only(Fail, effects[-1])[0].reason


def test_a_task_may_allow_fewer_losses_than_the_scheduler() -> None:
    scheduler = with_engines(3)
    submit(scheduler, Task("a", max_losses=1))
    assert only(Fail, scheduler.handle(EngineRemoved(0, at=1.0))) == []
    (fail,) = only(Fail, scheduler.handle(EngineRemoved(1, at=1.0)))
    assert (fail.span, fail.why) == (TaskRange("a"), Why.ENGINES_LOST)


@pytest.mark.parametrize("max_losses", [0, 1, 5, 10])
def test_the_limit_of_a_task_holds_in_place_of_that_of_the_scheduler(max_losses: int) -> None:
    scheduler = with_engines(20)
    submit(scheduler, Task("a", max_losses=max_losses))
    fails = [only(Fail, scheduler.handle(EngineRemoved(engine_id, at=1.0))) for engine_id in range(max_losses + 1)]
    assert [bool(fail) for fail in fails] == [False] * max_losses + [True]


@pytest.mark.parametrize(("max_losses", "limit_of_all"), [(0, 5), (None, 0)])
def test_of_tasks_that_were_sent_together_none_fails_by_the_first_loss(
    max_losses: int | None, limit_of_all: int
) -> None:
    scheduler = with_engines(2, Policy(max_losses=limit_of_all))
    measured(scheduler, each_s=0.0001)
    (batch, *_) = only(SendBatch, submit(scheduler, *(Task(i, max_losses=max_losses) for i in range(40))))
    assert len(batch.spans) > 1
    effects = scheduler.handle(EngineRemoved(batch.engine_id, at=0.0))
    assert only(Fail, effects) == []
    assert {retry.span for retry in only(Retry, effects)} >= set(batch.spans)


def test_a_task_that_was_sent_in_advance_does_not_fail_with_the_one_before_it() -> None:
    scheduler = with_engines(2)
    measured(scheduler, each_s=0.02)
    batches = only(SendBatch, submit(scheduler, *(Task(i, max_losses=0) for i in range(4))))
    (first, ahead) = [batch.spans for batch in batches if batch.engine_id == 0]
    assert (len(first), len(ahead)) == (1, 1)
    assert [fail.span for fail in only(Fail, scheduler.handle(EngineRemoved(0, at=0.0)))] == list(first)


def test_what_an_engine_was_lost_under_is_sent_alone_and_nothing_behind_it() -> None:
    scheduler = with_engines(2)
    measured(scheduler, each_s=0.0001)
    batches = only(SendBatch, submit(scheduler, *(Task(i) for i in range(40))))
    effects = scheduler.handle(EngineRemoved(0, at=0.0))
    suspects = {retry.span for retry in only(Retry, effects)}
    waiting = [batch for batch in batches if batch.engine_id == 1] + only(SendBatch, effects)
    alone = set()
    while waiting:
        sent_now = only(SendBatch, reply(scheduler, waiting.pop(0), each_s=0.0001, at=0.0))
        if guilty := suspects.intersection(span for batch in sent_now for span in batch.spans):
            assert ([len(batch.spans) for batch in sent_now], waiting) == ([1], [])
            alone |= guilty
        waiting += sent_now
    assert alone == suspects != set()


# Work that is stolen.


@pytest.fixture
def trapped() -> tuple[SchedulerState, SendBatch, list[Effect]]:
    """Engine 0 has begun a batch of four items at 0.0; engine 1 joins at 5.0. Its effects are the last."""
    scheduler = with_engines(1)
    measured(scheduler, each_s=0.001)
    batch = only(SendBatch, submit(scheduler, Task("map", size=4, chunksize=4)))[0]
    return scheduler, batch, scheduler.handle(EngineAdded(Engine(1), at=5.0))


Trapped = tuple[SchedulerState, SendBatch, list[Effect]]


def test_an_engine_with_nothing_to_do_has_work_taken_back_from_another(trapped: Trapped) -> None:
    _, batch, effects = trapped
    assert only(Steal, effects) == [Steal(0, batch.batch_id, (TaskRange("map", 0, 4),))]


def test_what_is_given_back_goes_to_the_engine_that_is_free(trapped: Trapped) -> None:
    scheduler, batch, _ = trapped
    effects = scheduler.handle(Stolen(batch.batch_id, (TaskRange("map", 1, 4),), 5.0))
    assert only(SendBatch, effects)[0].spans == (TaskRange("map", 1, 4),)
    ran = RangeOutcome("map", 0, 1, RangeStatus.OK, 5.0)
    assert only(Deliver, scheduler.handle(Replied(batch.batch_id, (ran,), 6.0))) == [Deliver(0, (ran,))]


def test_what_is_not_given_back_stays_where_it_is(trapped: Trapped) -> None:
    scheduler, batch, _ = trapped
    assert scheduler.handle(Stolen(batch.batch_id, (), 5.0)) == []
    assert scheduler.handle(Tick(10.0)) == []


def test_a_reply_that_overtakes_the_answer_counts(trapped: Trapped) -> None:
    scheduler, batch, _ = trapped
    effects = scheduler.handle(Replied(batch.batch_id, (RangeOutcome("map", 0, 1, RangeStatus.OK, 5.0),), 5.0))
    assert only(SendBatch, effects)[0].spans == (TaskRange("map", 1, 4),)
    assert scheduler.handle(Stolen(batch.batch_id, (TaskRange("map", 1, 4),), 5.0)) == []


def test_results_of_what_was_given_back_are_refused(trapped: Trapped) -> None:
    scheduler, batch, _ = trapped
    scheduler.handle(Stolen(batch.batch_id, (TaskRange("map", 1, 4),), 5.0))
    results = (RangeOutcome("map", 0, 1, RangeStatus.OK, 5.0), RangeOutcome("map", 1, 4, RangeStatus.OK, 0.1))
    assert only(Deliver, scheduler.handle(Replied(batch.batch_id, results, 6.0))) == [Deliver(0, results[:1])]


def test_a_batch_is_left_alone_while_it_is_young() -> None:
    scheduler = with_engines(1, Policy(patience_s=0.5, late_s=1e9))
    measured(scheduler, each_s=0.001)
    submit(scheduler, Task("map", size=4, chunksize=4), at=10.0)
    assert scheduler.handle(EngineAdded(Engine(1), at=10.1)) == [Alarm(10.5)]
    assert len(only(Steal, scheduler.handle(Tick(10.5)))) == 1


# Results of a batch that takes long.


def late_batch(policy: Policy | None = None) -> tuple[SchedulerState, SendBatch]:
    """An engine runs a map of four items, in one message."""
    scheduler = with_engines(1, policy)
    measured(scheduler, each_s=0.001)
    effects = submit(scheduler, Task("map", size=4, chunksize=4), at=10.0)
    return scheduler, only(SendBatch, effects)[0]


def test_an_engine_that_takes_long_is_asked_once_what_there_is() -> None:
    scheduler, batch = late_batch(Policy(late_s=1.0))
    assert only(PeekBatch, scheduler.handle(Tick(10.9))) == []
    assert only(PeekBatch, scheduler.handle(Tick(11.0))) == [PeekBatch(0, batch.batch_id)]
    assert only(PeekBatch, scheduler.handle(Tick(20.0))) == []


def test_results_that_come_early_are_final_and_the_rest_stays_where_it_is() -> None:
    scheduler, batch = late_batch()
    early = RangeOutcome("map", 0, 2, RangeStatus.OK, 0.1, "early")
    assert only(Deliver, scheduler.handle(Replied(batch.batch_id, (early,), 11.0, more=True))) == [Deliver(0, (early,))]
    [info] = scheduler.statuses().values()
    assert (info.items_left, info.engines, scheduler.assigned(0)) == (2, (0,), 2)
    late = RangeOutcome("map", 2, 4, RangeStatus.OK, 5.0, "late")
    assert only(Deliver, scheduler.handle(Replied(batch.batch_id, (early, late), 16.0))) == [Deliver(0, (late,))]
    assert scheduler.statuses() == {}


def test_what_depends_on_an_early_result_need_not_wait() -> None:
    scheduler = with_engines(1)
    measured(scheduler, each_s=0.001)
    effects = submit(scheduler, *(Task(name) for name in ("quick", "slow", "slower", "slowest")), at=10.0)
    batch = only(SendBatch, effects)[0]
    assert batch.spans[:2] == (TaskRange("quick"), TaskRange("slow"))
    submit(scheduler, Task("next", after=TaskDependency(frozenset({"quick"}))), at=10.0)
    scheduler.handle(EngineAdded(Engine(1), at=10.0))
    scheduler.handle(EngineAdded(Engine(2), at=10.0))
    early = Replied(batch.batch_id, (RangeOutcome("quick", 0, 1, RangeStatus.OK, 0.1),), 10.001, more=True)
    assert (TaskRange("next"),) in [effect.spans for effect in only(SendBatch, scheduler.handle(early))]


def test_an_early_failure_is_tried_elsewhere_once() -> None:
    scheduler = with_engines(1)
    measured(scheduler, each_s=0.001)
    effects = submit(scheduler, Task("map", size=3, chunksize=3, retries=1), at=10.0)
    [batch] = only(SendBatch, effects)
    scheduler.handle(EngineAdded(Engine(1), at=10.0))
    failed = RangeOutcome("map", 0, 1, RangeStatus.FAILED, 0.1)
    effects = scheduler.handle(Replied(batch.batch_id, (failed,), 10.3, more=True))
    assert [(e.engine_id, e.spans) for e in only(SendBatch, effects)] == [(1, (TaskRange("map", 0, 1),))]
    rest = RangeOutcome("map", 1, 3, RangeStatus.OK, 5.0)
    assert only(SendBatch, scheduler.handle(Replied(batch.batch_id, (failed, rest), 15.0))) == []


def test_early_results_of_a_batch_that_has_ended_are_nothing_new() -> None:
    scheduler, batch = late_batch()
    ran = RangeOutcome("map", 0, 4, RangeStatus.OK, 5.0)
    scheduler.handle(Replied(batch.batch_id, (ran,), 15.0))
    assert scheduler.handle(Replied(batch.batch_id, (ran._replace(stop=2),), 15.1, more=True)) == []


# Ends that are asked for.


def test_a_task_that_no_engine_has_is_aborted_at_once() -> None:
    scheduler = with_engines(1)
    submit(scheduler, Task("long"), Task("a"), Task("map", size=10), Task("b"))
    effects = scheduler.handle(AbortRequested(frozenset({"a", "map"}), 1.0))
    assert [(e.span, e.why) for e in only(Fail, effects)] == [
        (TaskRange("a"), Why.ABORTED),
        (TaskRange("map", 0, 10), Why.ABORTED),
    ]
    assert scheduler.unassigned == 1


def test_a_task_at_an_engine_is_taken_back_or_interrupted_and_ends_when_the_engine_says_so() -> None:
    scheduler = with_engines(1)
    batch = only(SendBatch, submit(scheduler, Task("a", retries=3)))[0]
    spans = (TaskRange("a"),)
    effects = scheduler.handle(AbortRequested(frozenset({"a"}), 1.0))
    assert effects == [Steal(0, batch.batch_id, spans), InterruptRanges(0, batch.batch_id, spans)]
    interrupted = RangeOutcome("a", 0, 1, RangeStatus.FAILED, 1.0)
    assert scheduler.handle(Replied(batch.batch_id, (interrupted,), 2.0)) == [Deliver(0, (interrupted,))]


def test_an_aborted_task_that_is_given_back_has_ended() -> None:
    scheduler = with_engines(2)
    batch = only(SendBatch, submit(scheduler, Task("a")))[0]
    scheduler.handle(AbortRequested(frozenset({"a"}), 1.0))
    effects = scheduler.handle(Stolen(batch.batch_id, (TaskRange("a"),), 1.0))
    assert ([e.why for e in only(Fail, effects)], sent(effects)) == ([Why.ABORTED], [])


def test_an_aborted_task_is_not_run_again_when_its_engine_is_lost() -> None:
    scheduler = with_engines(2)
    submit(scheduler, Task("a"))
    scheduler.handle(AbortRequested(frozenset({"a"}), 1.0))
    effects = scheduler.handle(EngineRemoved(0, at=2.0))
    assert ([e.why for e in only(Fail, effects)], sent(effects)) == ([Why.ABORTED], [])


def test_a_task_that_no_engine_takes_in_time_is_given_up_when_the_alarm_goes_off() -> None:
    scheduler = with_engines(1)
    submit(scheduler, Task("long"))
    assert submit(scheduler, Task("a", timeout_s=2.0), at=1.0) == [Alarm(3.0)]
    assert only(Fail, scheduler.handle(Tick(2.9))) == []
    effects = scheduler.handle(Tick(3.0))
    assert [(e.span, e.why) for e in only(Fail, effects)] == [(TaskRange("a"), Why.TIMED_OUT)]


def test_a_task_that_was_taken_in_time_may_run_for_longer() -> None:
    scheduler = with_engines(1)
    batch = only(SendBatch, submit(scheduler, Task("a", timeout_s=2.0)))[0]
    assert only(Fail, scheduler.handle(Tick(3.0))) == []
    assert only(Deliver, reply(scheduler, batch, at=4.0)) != []


# What can be asked.


def test_tasks_are_listed_with_their_state() -> None:
    scheduler = with_engines(1)
    scheduler.handle(EngineRemoved(1, at=0.0, returns=True))
    submit(scheduler, Task("a"), Task("map", size=3), Task("b", needs=Needs.of(resources={"GPU": 1})))
    assert scheduler.statuses() == {
        "a": TaskStatus("a", "", TaskState.ASSIGNED, (0,), 1, 0.0),
        "map": TaskStatus("map", "", TaskState.READY, (), 3, 0.0),
        "b": TaskStatus("b", "", TaskState.STRANDED, (), 1, 0.0),
    }
    assert (scheduler.unassigned, scheduler.assigned(0), scheduler.assigned(7)) == (4, 1, 0)


def test_a_map_costs_no_memory_for_its_items_and_a_call_less_than_a_kilobyte() -> None:
    scheduler = SchedulerState()
    tracemalloc.start()
    submit(scheduler, Task("map", size=1_000_000))
    for_map, _ = tracemalloc.get_traced_memory()
    submit(scheduler, *(Task(i) for i in range(1000)))
    for_all, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert for_map < 10_000
    assert (for_all - for_map) / 1000 < 1000


# The engine's side.


@given(st.lists(st.integers(1, 5), max_size=6), st.lists(st.integers(0, 4), max_size=20))
def test_each_item_of_a_backlog_is_begun_or_given_back(sizes: list[int], steps: list[int]) -> None:
    spans = [TaskRange(number, 0, size) for number, size in enumerate(sizes)]
    backlog, out = Backlog(spans), []
    for step in steps:
        begun = backlog.begin(step) if step else None
        out += [begun] if begun else []
        if not step:
            out += backlog.steal(spans[::2])
    while begun := backlog.begin():
        out.append(begun)
    items = [(span.task_id, index) for span in out for index in range(span.start, span.stop)]
    assert sorted(items) == [(number, index) for number, size in enumerate(sizes) for index in range(size)]
