from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.protocol.tasks import RangeOutcome, RangeStatus, TaskId
from nsactors.tasks.messages import (
    AbortRequested,
    Deliver,
    Effect,
    Engine,
    EngineAdded,
    EngineRemoved,
    Fail,
    Needs,
    Release,
    Replied,
    SendBatch,
    Submitted,
    Task,
    TaskDependency,
    Why,
)
from nsactors.tasks.scheduler_state import SchedulerState


class Lab:
    """A scheduler whose engines hold what they are sent until a test ends it."""

    def __init__(self, engines: int) -> None:
        self.scheduler = SchedulerState()
        self.sent: dict[TaskId, SendBatch] = {}
        self.given_up: dict[TaskId, str] = {}
        for engine_id in range(engines):
            self.note(self.scheduler.handle(EngineAdded(Engine(engine_id), 0.0)))

    def note(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SendBatch):
                self.sent |= {span.task_id: effect for span in effect.spans}
            elif isinstance(effect, Fail):
                self.given_up[effect.span.task_id] = effect.reason

    def submit(self, *tasks: Task) -> None:
        self.note(self.scheduler.handle(Submitted(tasks, 0.0)))

    def submit_on(self, engine_id: int, task_id: TaskId) -> None:
        self.submit(Task(task_id, needs=Needs.of([engine_id])))

    def end(self, task_id: TaskId, *, ok: bool = True) -> None:
        ran = RangeOutcome(task_id, 0, 1, RangeStatus.OK if ok else RangeStatus.FAILED, elapsed_s=1.0)
        self.note(self.scheduler.handle(Replied(self.sent[task_id].batch_id, (ran,), 1.0)))

    def lose(self, engine_id: int) -> None:
        self.note(self.scheduler.handle(EngineRemoved(engine_id, 1.0)))

    def where(self, task_id: TaskId) -> int | None:
        return self.sent[task_id].engine_id if task_id in self.sent else None

    def became(self, task_id: TaskId) -> str:
        return "given up" if task_id in self.given_up else "sent" if task_id in self.sent else "waits"


def on(*task_ids: TaskId, every: bool = True, success: bool = True, failure: bool = False) -> TaskDependency:
    return TaskDependency(frozenset(task_ids), every, success, failure)


@pytest.fixture
def lab() -> Lab:
    """Four engines; ``good`` will succeed on engine 0, ``bad`` fail on engine 1, ``open`` goes on on engine 2."""
    lab = Lab(4)
    for engine_id, task_id in enumerate(["good", "bad", "open"]):
        lab.submit_on(engine_id, task_id)
    return lab


@pytest.mark.parametrize(
    ("after", "outcome"),
    [
        (on("good"), "sent"),
        (on("bad"), "given up"),
        (on("open"), "waits"),
        (on(), "sent"),
        (on("good", "open"), "waits"),
        (on("bad", "open"), "given up"),
        (on("good", "bad"), "given up"),
        (on("good", "bad", failure=True), "sent"),
        (on("good", success=False, failure=True), "given up"),
        (on("bad", success=False, failure=True), "sent"),
        (on("good", "open", every=False), "sent"),
        (on("bad", "open", every=False), "waits"),
        (on("bad", every=False), "given up"),
        (on("good", "bad", every=False), "sent"),
        (on("good", "bad", every=False, success=False, failure=True), "sent"),
        (on("good", every=False, success=False, failure=True), "given up"),
    ],
)
@pytest.mark.parametrize("submitted", ["before the others end", "after they have ended"])
def test_a_task_runs_after_others_that_end_in_a_way_that_counts(
    lab: Lab, after: TaskDependency, outcome: str, submitted: str
) -> None:
    task = Task("late", after=after)
    if submitted == "before the others end":
        lab.submit(task)
    lab.end("good")
    lab.end("bad", ok=False)
    if submitted == "after they have ended":
        lab.submit(task)
    assert lab.became("late") == outcome


def test_a_dependency_that_nothing_can_meet_is_refused() -> None:
    with pytest.raises(ValueError, match="successes, failures or both"):
        on("good", success=False, failure=False)


def test_a_task_runs_where_the_one_that_it_follows_ran(lab: Lab) -> None:
    lab.submit(Task("late", follow=on("open")))
    lab.end("good")
    lab.end("open")
    assert lab.where("late") == 2


def test_a_task_that_follows_any_of_several_runs_where_the_first_of_them_ended(lab: Lab) -> None:
    lab.submit(Task("late", follow=on("good", "open", every=False)))
    lab.end("open")
    assert lab.where("late") == 2


def test_a_task_cannot_follow_all_of_several_that_ran_apart(lab: Lab) -> None:
    lab.submit(Task("late", follow=on("good", "open")))
    lab.end("good")
    assert lab.became("late") == "waits"
    lab.end("open")
    assert lab.given_up["late"] == "follow: no engine has run all of the tasks that it follows"


def test_a_task_that_may_follow_another_yet_waits_for_it(lab: Lab) -> None:
    lab.submit(Task("late", follow=on("good", "open", every=False), needs=Needs.of([2])))
    lab.end("good")
    assert lab.became("late") == "waits"
    lab.end("open")
    assert lab.where("late") == 2


def test_a_task_that_follows_one_and_has_other_targets_is_impossible(lab: Lab) -> None:
    lab.submit(Task("late", follow=on("good"), needs=Needs.of([3])))
    lab.end("good")
    assert "the tasks that it follows have run on none of the engines that it may run on" in lab.given_up["late"]


def test_a_task_cannot_follow_to_an_engine_that_is_gone(lab: Lab) -> None:
    lab.end("good")
    lab.lose(0)
    lab.submit(Task("late", follow=on("good")))
    assert lab.became("late") == "given up"


def test_a_task_cannot_follow_to_a_restarted_engine_whose_namespace_is_gone(lab: Lab) -> None:
    lab.end("good")
    lab.note(lab.scheduler.handle(EngineAdded(Engine(0), 2.0)))
    lab.submit(Task("late", follow=on("good")))
    assert lab.became("late") == "given up"


def test_a_task_that_waits_for_a_busy_engine_is_impossible_once_that_is_gone(lab: Lab) -> None:
    lab.end("good")
    lab.submit_on(0, "long")
    lab.submit(Task("late", follow=on("good")))
    assert lab.became("late") == "waits"
    lab.lose(0)
    assert lab.became("late") == "given up"


def test_a_task_that_is_ready_may_go_where_another_that_it_follows_ends(lab: Lab) -> None:
    lab.submit(Task("late", follow=on("good", "open", every=False)))
    lab.submit(Task("urgent", needs=Needs.of([0]), priority=1))
    lab.end("good")
    assert (lab.where("urgent"), lab.where("late")) == (0, None)
    lab.end("open")
    assert lab.where("late") == 2


def test_a_dependency_on_a_task_that_nobody_knows_is_impossible(lab: Lab) -> None:
    lab.submit(Task("late", after=on("never heard of")))
    assert lab.given_up["late"] == "after: there is no task never heard of, or nobody holds its result any more"


def test_a_task_cannot_depend_on_itself(lab: Lab) -> None:
    lab.submit(Task("late", after=on("late")))
    assert lab.became("late") == "given up"


def test_a_task_that_is_forgotten_cannot_be_depended_on_any_more(lab: Lab) -> None:
    lab.end("good")
    lab.note(lab.scheduler.handle(Release(frozenset({"good", "open"}), 1.0)))
    lab.end("open")
    lab.submit(Task("one", after=on("good")), Task("two", after=on("open")))
    assert (lab.became("one"), lab.became("two")) == ("given up", "given up")


def test_those_that_wait_for_a_task_when_it_is_forgotten_learn_of_its_end(lab: Lab) -> None:
    lab.submit(Task("late", after=on("open")))
    lab.note(lab.scheduler.handle(Release(frozenset({"open"}), 1.0)))
    lab.end("open")
    assert lab.became("late") == "sent"


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (on("bad"), "after: it depends on the success of task bad, which failed"),
        (on("good", success=False, failure=True), "after: it depends on the failure of task good, which succeeded"),
        (on("bad", "worse", every=False), "after: it depends on the success of one of several tasks, which all failed"),
    ],
)
def test_what_is_impossible_says_why(lab: Lab, after: TaskDependency, reason: str) -> None:
    lab.submit_on(3, "worse")
    lab.submit(Task("late", after=after))
    lab.end("good")
    lab.end("bad", ok=False)
    lab.end("worse", ok=False)
    assert lab.given_up["late"] == reason


def test_to_be_aborted_is_a_failure_for_those_that_depend_on_it(lab: Lab) -> None:
    lab.submit(Task("middle", after=on("open")), Task("late", after=on("middle")))
    effects = lab.scheduler.handle(AbortRequested(frozenset({"middle"}), 1.0))
    assert [(e.span.task_id, e.why) for e in effects if isinstance(e, Fail)] == [
        ("middle", Why.ABORTED),
        ("late", Why.IMPOSSIBLE),
    ]


def test_a_map_has_ended_when_all_its_items_have(lab: Lab) -> None:
    lab = Lab(1)
    lab.submit(Task("map", size=2), Task("late", after=on("map")))
    lab.end("map")
    assert lab.became("late") == "waits"
    ran = RangeOutcome("map", 1, 2, RangeStatus.OK, 1.0)
    lab.note(lab.scheduler.handle(Replied(lab.sent["map"].batch_id, (ran,), 1.0)))
    assert lab.became("late") == "sent"


def test_a_chain_of_dependent_tasks_may_be_of_any_length() -> None:
    lab = Lab(1)
    lab.submit(Task(0), *(Task(i, after=on(i - 1)) for i in range(1, 5000)))
    lab.end(0, ok=False)
    assert len(lab.given_up) == 4999


@given(st.data())
def test_a_random_graph_of_tasks_runs_in_an_order_and_at_places_that_hold(data: st.DataObject) -> None:
    lab, running, places, ended = Lab(3), {}, {}, []
    tasks: dict[int, Task] = {}
    for task_id in range(data.draw(st.integers(1, 25))):
        earlier = st.frozensets(st.sampled_from(sorted(tasks)), max_size=3) if tasks else st.just(frozenset())
        after, follow = TaskDependency(data.draw(earlier)), TaskDependency(data.draw(earlier), all=False)
        tasks[task_id] = Task(task_id, after=after, follow=follow)
    lab.submit(*tasks.values())
    while running := {batch.batch_id: batch for batch in lab.sent.values() if batch.spans[0].task_id not in ended}:
        batch = data.draw(st.sampled_from(list(running.values())))
        results = tuple(RangeOutcome(*span, RangeStatus.OK, 1.0) for span in batch.spans)
        for task_id, _, _ in batch.spans:
            task = tasks[task_id]
            assert task.after is not None
            assert task.follow is not None
            assert task.after.task_ids <= set(ended)
            assert not task.follow.task_ids or batch.engine_id in {places.get(i) for i in task.follow.task_ids}
        for task_id, _, _ in batch.spans:
            ended.append(task_id)
            places[task_id] = batch.engine_id
        effects = lab.scheduler.handle(Replied(batch.batch_id, results, 1.0))
        assert any(isinstance(effect, Deliver) for effect in effects)
        lab.note(effects)
    assert sorted(ended) == sorted(tasks)
