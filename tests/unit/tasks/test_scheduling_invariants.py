"""What holds of the scheduler whatever happens: a world of engines that may do anything an engine can do."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nsactors.namespace.task_runner import Backlog
from nsactors.protocol.tasks import RangeOutcome, RangeStatus, TaskId, TaskRange
from nsactors.tasks.messages import (
    AbortRequested,
    Alarm,
    Deliver,
    Effect,
    Engine,
    EngineAdded,
    EngineBusy,
    EngineClosing,
    EngineFree,
    EngineProgressed,
    EngineRemoved,
    Event,
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
    Tick,
    Why,
)
from nsactors.tasks.scheduler_state import SchedulerState

Item = tuple[TaskId, int]

MAX_LOSSES = 2
ENGINE_IDS = st.integers(0, 3)
NEEDS = st.builds(
    Needs.of,
    targets=st.none() | st.frozensets(ENGINE_IDS, min_size=1),
    resources=st.none() | st.just({"GPU": 1}),
)
STATUSES = st.sampled_from([RangeStatus.OK, RangeStatus.OK, RangeStatus.FAILED, RangeStatus.UNNAMED, RangeStatus.UNMET])


def items_of(*spans: TaskRange) -> list[Item]:
    return [(task_id, index) for task_id, start, stop in spans for index in range(start, stop)]


@dataclass
class Flight:
    """A batch as its engine sees it, and ``held``: what the scheduler knows it to hold."""

    dispatch: SendBatch
    backlog: Backlog
    held: set[Item]
    mark_retrieved: set[Item] = field(default_factory=set)
    running: TaskRange | None = None
    results: list[RangeOutcome] = field(default_factory=list)
    known: int = 0  # how many of the results the scheduler has been told
    replied: bool = False
    answers: bool = False  # its reply, on the way, is the answer to an order that came too late


@dataclass
class Process:
    """An engine's process; what it lacks are names that tasks of these kinds need."""

    engine: Engine
    flights: dict[int, Flight] = field(default_factory=dict)
    closing: bool = False
    proven: bool = True
    lacks: set[Hashable] = field(default_factory=set)

    @property
    def current(self) -> Flight | None:
        return next((flight for flight in self.flights.values() if not flight.replied), None)


class World(RuleBasedStateMachine):
    """Engines join, run, fail, give back and die in any order; messages from them arrive in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = SchedulerState(Policy(patience_s=0.0, max_losses=MAX_LOSSES))
        self.now = 0.0
        self.tasks: dict[TaskId, Task] = {}
        self.submitted: dict[TaskId, float] = {}
        self.aborted: set[TaskId] = set()
        self.ended: dict[Item, bool] = {}
        self.origins: dict[Item, int] = {}  # the process that gave the result, by id()
        self.processes: dict[int, Process] = {}
        self.starting: set[int] = set()
        self.busy: dict[int, bool] = {}  # with other work: whether it comes before what was sent
        self.in_line: int | None = None  # may be sent something although it is busy
        self.graveyard: list[Process] = []  # kept, so that no id() is used again
        self.failed_on: dict[Item, set[int]] = defaultdict(set)
        self.failures: dict[Item, int] = defaultdict(int)
        self.refused_on: dict[Item, set[int]] = defaultdict(set)
        self.losses: dict[Item, int] = defaultdict(int)
        self.orders: list[Steal] = []
        self.mail: list[Event] = []

    # What happens.

    @initialize()
    def two_engines_are_there(self) -> None:
        for engine_id in (0, 1):
            self.an_engine_joins(engine_id, gpu=True)

    @rule(engine_id=ENGINE_IDS, gpu=st.booleans(), is_new=st.booleans())
    def an_engine_joins(self, engine_id: int, gpu: bool, is_new: bool = False) -> None:
        self.bury(engine_id)
        self.starting.discard(engine_id)
        engine = Engine(engine_id, {"GPU": int(gpu)}, is_new=is_new)
        self.processes[engine_id] = Process(engine, proven=not is_new)
        self.tell(EngineAdded(self.processes[engine_id].engine, self.now))

    @rule(engine_id=ENGINE_IDS, returns=st.booleans())
    def an_engine_is_lost(self, engine_id: int, returns: bool) -> None:
        self.bury(engine_id)
        (self.starting.add if returns else self.starting.discard)(engine_id)
        self.tell(EngineRemoved(engine_id, self.now, returns))

    @rule(engine_id=ENGINE_IDS)
    def an_engine_is_about_to_go(self, engine_id: int) -> None:
        if engine_id in self.processes:
            self.processes[engine_id].closing = True
        self.tell(EngineClosing(engine_id, self.now))

    @rule(engine_id=ENGINE_IDS, before=st.booleans())
    def an_engine_works_for_others(self, engine_id: int, before: bool) -> None:
        self.busy[engine_id] = before
        self.tell(EngineBusy(engine_id, "work", self.now, before))

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), more=st.booleans())
    def an_engine_ends_work_for_others(self, data: st.DataObject, more: bool) -> None:
        engine_id = data.draw(st.sampled_from(sorted(self.busy)))
        if more:
            self.forget_lacks(engine_id)
            self.in_line = engine_id
            self.tell(EngineProgressed(engine_id, self.now))
            self.in_line = None
        else:
            self.free(engine_id)

    @rule(
        size=st.sampled_from([0, 1, 1, 1, 5, 40]),
        needs=NEEDS,
        retries=st.integers(0, 2),
        timeout_s=st.none() | st.integers(1, 5),
        chunksize=st.sampled_from([None, None, 3]),
        max_losses=st.sampled_from([None, None, 0, 3]),
        data=st.data(),
    )
    def a_task_is_submitted(
        self,
        size: int,
        needs: Needs,
        retries: int,
        timeout_s: int | None,
        chunksize: int | None,
        max_losses: int | None,
        data: st.DataObject,
    ) -> None:
        dependencies = st.none()
        if self.tasks:
            task_ids = st.frozensets(st.sampled_from(sorted(self.tasks)), max_size=3)
            counted = st.sampled_from([(True, False), (False, True), (True, True)])
            dependencies |= st.builds(
                lambda ids, every, c: TaskDependency(ids, every, *c), task_ids, st.booleans(), counted
            )
        after, follow = data.draw(dependencies), data.draw(dependencies)
        kind, priority = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 1))
        task_id = len(self.tasks)
        task = Task(task_id, size, kind, needs, after, follow, retries, timeout_s, priority, chunksize)
        task = task._replace(max_losses=max_losses)
        self.tasks[task.task_id] = task
        self.submitted[task.task_id] = self.now
        self.tell(Submitted((task,), self.now))

    @precondition(lambda self: any(p.current for p in self.processes.values()))
    @rule(data=st.data(), status=STATUSES, seconds=st.sampled_from([1e-5, 1e-3, 1.0]))
    def an_engine_begins_or_ends_an_item(self, data: st.DataObject, status: RangeStatus, seconds: float) -> None:
        busy = [process for process in self.processes.values() if process.current]
        self.step(data.draw(st.sampled_from(busy)), status, seconds)

    @precondition(lambda self: any(p.current for p in self.processes.values()))
    @rule(data=st.data(), statuses=st.lists(STATUSES, min_size=1, max_size=4))
    def an_engine_runs_its_batch(self, data: st.DataObject, statuses: list[RangeStatus]) -> None:
        process = data.draw(st.sampled_from([process for process in self.processes.values() if process.current]))
        flight = process.current
        for status in itertools.cycle(statuses):
            if process.current is not flight:
                break
            self.step(process, status, 0.001)
        self.receive(self.mail.pop())

    @precondition(lambda self: any(p.current and not p.current.running for p in self.processes.values()))
    @rule(data=st.data())
    def an_engine_replies_before_it_is_through(self, data: st.DataObject) -> None:
        free = [p for p in self.processes.values() if p.current and not p.current.running]
        self.reply(data.draw(st.sampled_from(free)))

    @precondition(lambda self: any(p.current and p.current.results for p in self.processes.values()))
    @rule(data=st.data())
    def an_engine_tells_what_there_is(self, data: st.DataObject) -> None:
        flights = [flight for p in self.processes.values() if (flight := p.current) and flight.results]
        flight = data.draw(st.sampled_from(flights))
        self.mail.append(Replied(flight.dispatch.batch_id, tuple(flight.results), self.now, more=True))

    @precondition(lambda self: self.orders)
    @rule(data=st.data())
    def an_engine_gives_back(self, data: st.DataObject) -> None:
        self.give_back(self.orders.pop(data.draw(st.integers(0, len(self.orders) - 1))))

    @precondition(lambda self: self.mail)
    @rule(data=st.data())
    def a_message_arrives(self, data: st.DataObject) -> None:
        self.receive(self.mail.pop(data.draw(st.integers(0, len(self.mail) - 1))))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def a_task_is_aborted(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.tasks)))
        self.aborted.add(task_id)
        self.tell(AbortRequested(frozenset({task_id}), self.now))

    @rule(seconds=st.integers(1, 3))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.tell(Tick(self.now))

    # What must hold.

    def check(self, effect: Effect) -> None:
        match effect:
            case SendBatch(engine_id, batch_id, spans):
                process = self.processes[engine_id]  # never one that was lost
                assert not process.closing, "it gets no more"
                items = items_of(*spans)
                has_choice = any(self.tasks[task_id].needs.only_target is None for task_id, _ in items)
                assert not has_choice or engine_id == self.in_line or engine_id not in self.busy, "it works for others"
                if not process.proven:
                    assert len(items) == 1, "it has come back empty, and may lack what all need"
                    assert not process.flights, "it has had one, whose end is not known"
                assert len(set(items)) == len(items) > 0
                for item in items:
                    self.check_may_run(item, process)
                process.flights[batch_id] = Flight(effect, Backlog(spans), set(items))
            case Steal(engine_id, batch_id, spans):
                flight = self.processes[engine_id].flights[batch_id]
                flight.mark_retrieved.update(items_of(*spans))
                self.orders.append(effect)
            case InterruptRanges(engine_id, batch_id) | PeekBatch(engine_id, batch_id):
                assert batch_id in self.processes[engine_id].flights
            case Deliver(engine_id, results):
                for ran in results:
                    for item in items_of(TaskRange(*ran[:3])):
                        self.end(item, ok=ran.status is RangeStatus.OK)
                        self.origins[item] = id(self.processes[engine_id])
                    assert ran.status is not RangeStatus.UNMET or ran.task_id in self.aborted
            case Fail(span, why, reason):
                assert reason
                for item in items_of(span):
                    assert self.holder(item) is None
                    self.end(item, ok=False)
                    self.check_is_hopeless(item, why)
            case Retry() | Alarm():
                pass

    def check_may_run(self, item: Item, process: Process) -> None:
        assert item not in self.ended
        assert self.holder(item) is None, "it never runs on two engines at a time"
        assert self.is_due(self.tasks[item[0]]), "its dependencies are honoured"
        assert process in self.eligible(item)
        assert self.has_names(process, item), "another engine may have them"
        if id(process) in self.failed_on[item]:
            assert all(id(p) in self.failed_on[item] for p in self.eligible(item)), "others have not tried it yet"
        assert self.failures[item] <= self.tasks[item[0]].retries, "retries are bounded"

    def check_is_hopeless(self, item: Item, why: Why) -> None:
        task = self.tasks[item[0]]
        match why:
            case Why.ABORTED:
                assert task.task_id in self.aborted
            case Why.TIMED_OUT:
                assert task.timeout_s is not None
                assert self.now >= self.submitted[task.task_id] + task.timeout_s
            case Why.ENGINES_LOST:
                assert self.losses[item] > (MAX_LOSSES if task.max_losses is None else task.max_losses)
            case Why.IMPOSSIBLE:
                assert not (self.is_due(task) and self.eligible(item))

    def end(self, item: Item, *, ok: bool) -> None:
        assert item not in self.ended, "each item ends once"
        self.ended[item] = ok

    @invariant()
    def no_engine_is_idle_while_it_could_begin_something(self) -> None:
        idle = [
            process
            for process in self.processes.values()
            if not (process.flights or process.closing or process.engine.engine_id in self.busy or process.lacks)
        ]
        if not idle:
            return
        for task in self.tasks.values():
            for item in items_of(TaskRange(task.task_id, 0, task.size)):
                if item not in self.ended and self.holder(item) is None and self.is_due(task):
                    assert not any(process in self.best(item) for process in idle), f"{item} waits"
        late = any(flight.answers for process in self.processes.values() for flight in process.flights.values())
        if self.orders or late or any(isinstance(event, Stolen) for event in self.mail):
            return
        for process in self.processes.values():
            for number, flight in enumerate(process.flights.values()):
                is_stuck = self.busy.get(process.engine.engine_id, False)
                begun = items_of(*flight.dispatch.spans)[:1] if number == 0 and not is_stuck else []
                for item in flight.held - flight.mark_retrieved - set(begun):
                    assert not any(other in self.best(item) for other in idle), f"{item} is trapped"

    @invariant()
    def nothing_waits_for_an_engine_that_nobody_starts(self) -> None:
        for task in self.tasks.values():
            if self.starting or not task.needs.resources or task.follow is not None or not self.is_due(task):
                continue
            for item in items_of(TaskRange(task.task_id, 0, task.size)):
                assert item in self.ended or self.holder(item) is not None or self.eligible(item), f"{item} is stranded"

    def teardown(self) -> None:
        """Every task ends if all engines have joined and do their work."""
        for engine_id in list(self.busy):
            self.free(engine_id)
        for engine_id in range(4):
            self.an_engine_joins(engine_id, gpu=True)
        while self.mail or self.orders or any(p.current for p in self.processes.values()):
            while self.orders:
                self.give_back(self.orders.pop())
            while self.mail:
                self.receive(self.mail.pop())
            for process in self.processes.values():
                if process.current:
                    self.step(process, RangeStatus.OK, 0.001)
            self.no_engine_is_idle_while_it_could_begin_something()
        everything = [item for task in self.tasks.values() for item in items_of(TaskRange(task.task_id, 0, task.size))]
        assert sorted(self.ended) == sorted(everything)
        assert (self.scheduler.statuses(), self.scheduler.unassigned) == ({}, 0)

    # The engines' part.

    def free(self, engine_id: int) -> None:
        """End all that an engine does for others."""
        self.forget_lacks(engine_id)
        del self.busy[engine_id]
        self.tell(EngineFree(engine_id, self.now))

    def forget_lacks(self, engine_id: int) -> None:
        """Let an engine lack no names, because other work may have bound them."""
        if process := self.processes.get(engine_id):
            process.lacks.clear()

    def step(self, process: Process, status: RangeStatus, seconds: float) -> None:
        flight = process.current
        assert flight is not None
        if flight.running is None:
            flight.running = flight.backlog.begin()
            if flight.running is None:
                self.reply(process)
        else:
            flight.results.append(RangeOutcome(*flight.running, status, seconds, value=id(process)))
            flight.running = None

    def reply(self, process: Process) -> None:
        flight = process.current
        assert flight is not None
        flight.replied = True
        self.mail.append(Replied(flight.dispatch.batch_id, tuple(flight.results), self.now))

    def give_back(self, order: Steal) -> None:
        flight = self.flight(order.batch_id)
        if flight is None:
            return
        if flight.replied:
            flight.answers = True
        else:
            self.mail.append(Stolen(order.batch_id, flight.backlog.steal(order.spans), self.now))

    def receive(self, event: Event) -> None:
        match event:
            case Replied(batch_id, results, _, more):
                self.arrive(batch_id, results, more=more)
                self.tell(Replied(batch_id, results, self.now, more))
            case Stolen(batch_id, spans):
                if (flight := self.flight(batch_id)) is not None:
                    flight.held.difference_update(items_of(*spans))
                self.tell(Stolen(batch_id, spans, self.now))

    def arrive(self, batch_id: int, results: tuple[RangeOutcome, ...], *, more: bool) -> None:
        owner = next((p for p in self.processes.values() if batch_id in p.flights), None)
        if owner is None:
            return  # a late reply from a lost engine, or what there was before its reply
        flight = owner.flights[batch_id]
        news, flight.known = results[flight.known :], max(flight.known, len(results))
        flight.held.difference_update(items_of(*(TaskRange(*ran[:3]) for ran in news)))
        if not more:
            del owner.flights[batch_id]
        for ran in news:
            item = (ran.task_id, ran.start)
            kind = self.tasks[ran.task_id].kind
            if ran.status is RangeStatus.UNNAMED:
                owner.proven = False
                owner.lacks.add(kind)
            elif ran.status is not RangeStatus.UNMET:
                owner.proven = True
                owner.lacks.discard(kind)
            if ran.status in (RangeStatus.FAILED, RangeStatus.UNNAMED):
                self.failed_on[item].add(id(owner))
                self.failures[item] += 1
            elif ran.status is RangeStatus.UNMET:
                self.refused_on[item].add(id(owner))

    def bury(self, engine_id: int) -> None:
        process = self.processes.pop(engine_id, None)
        if process is None:
            return
        self.graveyard.append(process)
        for flight in process.flights.values():
            for item in flight.held:
                self.losses[item] += 1
        self.orders = [order for order in self.orders if order.batch_id not in process.flights]

    def tell(self, event: Event) -> None:
        for effect in self.scheduler.handle(event):
            self.check(effect)

    # What can be known of it all.

    def flight(self, batch_id: int) -> Flight | None:
        return next((p.flights[batch_id] for p in self.processes.values() if batch_id in p.flights), None)

    def holder(self, item: Item) -> Process | None:
        for process in self.processes.values():
            if any(item in flight.held for flight in process.flights.values()):
                return process
        return None

    def outcome(self, task_id: TaskId) -> bool | None:
        """Whether a task has succeeded; None if it has not ended."""
        ends = [self.ended.get(item) for item in items_of(TaskRange(task_id, 0, self.tasks[task_id].size))]
        return None if None in ends else all(ends)

    def counts(self, dependency: TaskDependency, task_id: TaskId) -> bool:
        return {True: dependency.success, False: dependency.failure, None: False}[self.outcome(task_id)]

    def is_met(self, dependency: TaskDependency | None) -> bool:
        if dependency is None or not dependency.task_ids:
            return True
        return (all if dependency.all else any)(self.counts(dependency, task_id) for task_id in dependency.task_ids)

    def is_due(self, task: Task) -> bool:
        return self.is_met(task.after) and self.is_met(task.follow)

    def homes(self, dependency: TaskDependency) -> set[int]:
        places = [
            {self.origins[item] for item in items_of(TaskRange(i, 0, self.tasks[i].size)) if item in self.origins}
            for i in dependency.task_ids
            if self.counts(dependency, i)
        ]
        return set.intersection(*places) if dependency.all else set.union(*places)

    def eligible(self, item: Item) -> list[Process]:
        task = self.tasks[item[0]]
        homes = self.homes(task.follow) if task.follow is not None and task.follow.task_ids else None
        return [
            process
            for process in self.processes.values()
            if task.needs.met_by(process.engine)
            and id(process) not in self.refused_on[item]
            and (homes is None or id(process) in homes)
        ]

    def has_names(self, process: Process, item: Item) -> bool:
        """Return whether an engine has the names that tasks of this kind need, as far as is known, or no engine has."""
        kind = self.tasks[item[0]].kind
        return kind not in process.lacks or all(other.closing or kind in other.lacks for other in self.best(item))

    def best(self, item: Item) -> list[Process]:
        """Those that have not tried it, if there are any."""
        eligible = self.eligible(item)
        return [process for process in eligible if id(process) not in self.failed_on[item]] or eligible


World.TestCase.settings = settings(stateful_step_count=40, deadline=None)
TestWorld = World.TestCase
