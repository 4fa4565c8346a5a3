"""Policies of users': they decide, and what is wrong with them harms nothing but themselves."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from nsactors.protocol.tasks import RangeOutcome, RangeStatus
from nsactors.tasks.messages import (
    Deliver,
    Effect,
    Engine,
    EngineAdded,
    PolicyFailed,
    Replied,
    SendBatch,
    Submitted,
    Task,
)
from nsactors.tasks.policies import QueuedTask, SchedulingPolicy
from nsactors.tasks.scheduler_state import SchedulerState


class LastFirst(SchedulingPolicy):
    def priority(self, task: QueuedTask) -> float:
        return task.number


class ShortestFirst(SchedulingPolicy):
    def priority(self, task: QueuedTask) -> float:
        return -(task.seconds or 0.0)


class OnTheGpu:
    """Has one of the two methods."""

    def choose_engine(self, task: QueuedTask, engines: Sequence[Engine]) -> int:
        return max(engines, key=lambda engine: engine.resources.get("GPU", 0)).engine_id


class Answers:
    """Answers alike, or raises."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def priority(self, task: QueuedTask) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def choose_engine(self, task: QueuedTask, engines: Sequence[Engine]) -> Any:
        return self.answer


class Unloadable:
    def __reduce__(self) -> Any:
        return exit, (3,)


def task(name: str, policy: object, **fields: Any) -> Task:
    return Task(name, policy=pickle.dumps(policy), label=f"apply({name})", **fields)


def scheduler(*engines: Engine) -> SchedulerState:
    made = SchedulerState()
    for engine in engines or (Engine(0),):
        made.handle(EngineAdded(engine, at=0.0))
    return made


def sent(effects: Iterable[Effect]) -> list[tuple[int, object]]:
    return [(e.engine_id, span.task_id) for e in effects if isinstance(e, SendBatch) for span in e.spans]


def run_to_the_end(made: SchedulerState, effects: list[Effect], seconds: float = 1.0) -> list[object]:
    """Let engines answer until nothing is sent any more; the ids of what was sent, in order."""
    order: list[object] = []
    at = 1.0
    while batches := [effect for effect in effects if isinstance(effect, SendBatch)]:
        effects = []
        for batch in batches:
            order += [span.task_id for span in batch.spans]
            results = tuple(RangeOutcome(*span, RangeStatus.OK, seconds) for span in batch.spans)
            effects += made.handle(Replied(batch.batch_id, results, at))
            at += 1.0
    return order


def test_the_order_of_tasks_is_that_of_their_policy() -> None:
    made = scheduler()
    first = made.handle(Submitted((task("a", LastFirst()),), at=0.0))
    made.handle(Submitted(tuple(task(name, LastFirst()) for name in "bcd"), at=0.0))
    assert run_to_the_end(made, first) == ["a", "d", "c", "b"]


def test_a_policy_knows_how_long_tasks_of_a_kind_take() -> None:
    made = scheduler()
    for kind, seconds in (("slow", 5.0), ("quick", 0.2)):
        effects = made.handle(Submitted((task(kind, ShortestFirst(), kind=kind),), at=0.0))
        run_to_the_end(made, effects, seconds)
    first = made.handle(Submitted((task("running", ShortestFirst()),), at=9.0))
    names = ["slow", "quick", "slow", "quick"]
    tasks = tuple(task(f"{kind} {n}", ShortestFirst(), kind=kind) for n, kind in enumerate(names))
    made.handle(Submitted(tasks, at=9.0))
    assert run_to_the_end(made, first)[1:] == ["quick 1", "quick 3", "slow 0", "slow 2"]


def test_the_engine_is_the_one_that_the_policy_chooses_among_those_that_are_free() -> None:
    made = scheduler(Engine(0), Engine(1, {"GPU": 1}), Engine(2))
    tasks = tuple(task(name, OnTheGpu()) for name in "ab")
    assert sent(made.handle(Submitted(tasks, at=0.0))) == [(1, "a"), (0, "b")]


def test_tasks_without_a_policy_go_their_usual_way_beside_others() -> None:
    made = scheduler()
    first = made.handle(Submitted((Task("a"),), at=0.0))
    made.handle(Submitted((Task("b"), task("c", LastFirst()), Task("d", priority=9)), at=0.0))
    assert run_to_the_end(made, first) == ["a", "d", "c", "b"]


def test_a_map_with_a_policy_ends_as_a_whole() -> None:
    made = scheduler(Engine(0), Engine(1))
    effects = made.handle(Submitted((task("map", OnTheGpu(), size=50),), at=0.0))
    delivered = 0
    at = 1.0
    while batches := [effect for effect in effects if isinstance(effect, SendBatch)]:
        effects = []
        for batch in batches:
            results = tuple(RangeOutcome(*span, RangeStatus.OK, 0.001) for span in batch.spans)
            effects += made.handle(Replied(batch.batch_id, results, at))
            at += 0.001
        delivered += sum(r.stop - r.start for e in effects if isinstance(e, Deliver) for r in e.outcomes)
    assert delivered == 50


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (Answers(ValueError("no idea")), r"Answers.priority\(\) failed for apply\(a\): ValueError: no idea"),
        (Answers(SystemExit(3)), "SystemExit: 3"),
        (Answers(KeyboardInterrupt()), "KeyboardInterrupt"),
        (Answers(math.nan), "nan is no priority"),
        (Answers("high"), "TypeError"),
        (Answers(7), r"choose_engine\(\) failed .* 7 is none of the engines \[0\]"),
        (Unloadable(), r"the policy.priority\(\) failed .* SystemExit: 3"),
    ],
)
def test_a_policy_that_fails_is_told_of_once_and_tasks_go_on(policy: object, why: str) -> None:
    made = scheduler()
    effects = made.handle(Submitted(tuple(task(name, policy) for name in "abc"), at=0.0))
    (failure,) = [effect for effect in effects if isinstance(effect, PolicyFailed)]
    assert re.search(why, failure.reason)
    assert run_to_the_end(made, effects) == ["a", "b", "c"]
