"""How well the scheduler balances: engines, latencies and durations simulated in virtual time."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nsactors.namespace.task_runner import Backlog
from nsactors.protocol.tasks import RangeOutcome, RangeStatus, TaskId, TaskRange
from nsactors.tasks.messages import (
    Alarm,
    Deliver,
    Engine,
    EngineAdded,
    EngineBusy,
    EngineFree,
    EngineRemoved,
    Event,
    Fail,
    Replied,
    SendBatch,
    Steal,
    Stolen,
    Submitted,
    Task,
    Tick,
)
from nsactors.tasks.scheduler_state import SchedulerState

MAP = "map"


class Delays(NamedTuple):
    """Seconds that messages take: one way, out of band while the engine is busy, and of the client's time for each."""

    message_s: float = 0.001
    control_s: float = 0.01
    client_s: float = 0.0


QUIET = Delays()
LOADED = Delays(0.01, 0.05, 0.002)  # as measured on two cores that run 16 engines, and other work besides


@dataclass
class SimulatedEngine:
    """Runs batches in order, one item at a time, as an engine does."""

    engine_id: int
    waiting: deque[tuple[SendBatch, Backlog]] = field(default_factory=deque)
    backlogs: dict[int, Backlog] = field(default_factory=dict)
    results: list[RangeOutcome] = field(default_factory=list)
    begun_at: float | None = None  # when it began the batch it runs
    free_at: float = 0.0  # it works for others until then
    answers_at: float = 0.0  # and does not answer before this
    alive: bool = True


class Simulation:
    """A scheduler, engines, and the time between them.

    Args:
        durations: seconds for each item, by task and number.
        engines: how many there are at the start.
        delays: what messages take.
    """

    def __init__(self, durations: Callable[[TaskId, int], float], engines: int, delays: Delays = QUIET) -> None:
        self.now = 0.0
        self.scheduler = SchedulerState()
        self.delays = delays
        self.engines: dict[int, SimulatedEngine] = {}
        self.ran: list[tuple[TaskId, int]] = []
        self.delivered: list[tuple[TaskId, int]] = []
        self.given_up: list[TaskRange] = []
        self.messages = 0
        self.sent = 0  # items, each time again
        self.on_begin: Callable[[int, TaskRange], None] = lambda engine_id, span: None
        self._durations = durations
        self._client_free = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        for engine_id in range(engines):
            self.add_engine(engine_id)

    def add_engine(self, engine_id: int) -> None:
        self.engines[engine_id] = SimulatedEngine(engine_id)
        self._tell(EngineAdded(Engine(engine_id), self.now))

    def kill_engine(self, engine_id: int) -> None:
        self.engines.pop(engine_id).alive = False
        self._tell(EngineRemoved(engine_id, self.now))

    def occupy(self, engine_id: int, since: float, until: float, *, known_at: float, answers: bool) -> None:
        """Let an engine work for others; a scheduler hears of the beginning later, and of the end by a message."""

        def begin() -> None:
            self.engines[engine_id].free_at = until
            self.engines[engine_id].answers_at = since if answers else until

        def end() -> None:
            self._later(self.delays.message_s, lambda: self._tell(EngineFree(engine_id, self.now)))
            self._go_on(self.engines[engine_id])

        self.at(since, begin)
        self.at(known_at, lambda: self._tell(EngineBusy(engine_id, "other work", self.now)))
        self.at(until, end)

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (time, next(self._order), action))

    def run(self, *tasks: Task) -> float:
        """Submit tasks and run until nothing is left to happen. Returns the time of the last result."""
        self._tell(Submitted(tasks, self.now))
        end = self.now
        wanted = sum(task.size for task in tasks) + len(self.delivered)
        while self._agenda:
            self.now, _, action = heapq.heappop(self._agenda)
            action()
            if len(self.delivered) < wanted:
                end = self.now
        return end

    def _tell(self, event: Event) -> None:
        for effect in self.scheduler.handle(event):
            match effect:
                case SendBatch():
                    self.messages += 1
                    self.sent += sum(span.stop - span.start for span in effect.spans)
                    engine = self.engines[effect.engine_id]
                    engine.backlogs[effect.batch_id] = backlog = Backlog(effect.spans)
                    delay = self._client_works() - self.now + self.delays.message_s
                    self._later(delay, lambda e=engine, d=effect, b=backlog: self._arrive(e, d, b))
                case Steal():
                    self.messages += 1
                    engine = self.engines[effect.engine_id]
                    self._later(self.delays.control_s, lambda e=engine, t=effect: self._give_back(e, t))
                case Alarm(at):
                    self.at(at, lambda: self._tell(Tick(self.now)))
                case Deliver(_, results):
                    self.delivered += [(r.task_id, i) for r in results for i in range(r.start, r.stop)]
                case Fail(span):
                    self.given_up.append(span)
                case _:
                    pass

    def _client_works(self) -> float:
        """The client sends or reads a message, after those before it. When it will have done so."""
        self._client_free = max(self.now, self._client_free) + self.delays.client_s / 2
        return self._client_free

    def _read(self, reply: Replied | Stolen) -> None:
        """A message from an engine has come."""
        self.at(self._client_works(), lambda: self._tell(replace(reply, at=self.now)))

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        self.at(self.now + delay, action)

    def _arrive(self, engine: SimulatedEngine, dispatch: SendBatch, backlog: Backlog) -> None:
        engine.waiting.append((dispatch, backlog))
        if len(engine.waiting) == 1:
            self._go_on(engine)

    def _go_on(self, engine: SimulatedEngine) -> None:
        if not engine.alive or not engine.waiting or self.now < engine.free_at:
            return
        dispatch, backlog = engine.waiting[0]
        if engine.begun_at is None:
            engine.begun_at = self.now
        span = backlog.begin() if self.now - engine.begun_at < dispatch.budget_s else None
        if span is None:
            engine.waiting.popleft()
            del engine.backlogs[dispatch.batch_id]
            results, engine.results, engine.begun_at = tuple(engine.results), [], None
            self._later(self.delays.message_s, lambda: self._read(Replied(dispatch.batch_id, results, self.now)))
            self._go_on(engine)
            return
        self.on_begin(engine.engine_id, span)
        seconds = self._durations(span.task_id, span.start)
        self._later(seconds, lambda: self._ended(engine, span, seconds))

    def _ended(self, engine: SimulatedEngine, span: TaskRange, seconds: float) -> None:
        if engine.alive:
            self.ran.append((span.task_id, span.start))
            engine.results.append(RangeOutcome(*span, RangeStatus.OK, seconds))
            self._go_on(engine)

    def _give_back(self, engine: SimulatedEngine, take_back: Steal) -> None:
        backlog = engine.backlogs.get(take_back.batch_id)
        if self.now < engine.answers_at:
            self.at(engine.answers_at, lambda: self._give_back(engine, take_back))
        elif engine.alive and backlog is not None:
            spans = backlog.steal(take_back.spans)
            self._later(self.delays.control_s, lambda: self._read(Stolen(take_back.batch_id, spans, self.now)))


def simulate_map(durations: Sequence[float], engines: int, delays: Delays = QUIET) -> tuple[float, Simulation]:
    """The makespan of one map with these durations."""
    simulation = Simulation(lambda _, index: durations[index], engines, delays)
    makespan = simulation.run(Task(MAP, size=len(durations)))
    assert sorted(simulation.delivered) == sorted(simulation.ran) == [(MAP, i) for i in range(len(durations))]
    return makespan, simulation


def greedy(durations: Sequence[float], engines: int) -> float:
    """The makespan when each item goes to the first engine that is free, without any latency."""
    free = [0.0] * engines
    for seconds in durations:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def uneven(seed: int, count: int) -> list[float]:
    source = random.Random(seed)
    return [source.uniform(0.01, 1.0) for _ in range(count)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("as_one_map", [True, False])
def test_uneven_tasks_are_balanced_as_well_as_by_a_greedy_schedule(seed: int, as_one_map: bool) -> None:
    durations, n = uneven(seed, 128), 16
    if as_one_map:
        makespan, _ = simulate_map(durations, n)
    else:
        makespan = Simulation(lambda task_id, _: durations[task_id], n).run(*(Task(i) for i in range(128)))
    ideal = sum(durations) / n
    assert ideal / makespan > ideal / greedy(durations, n) - 0.03


PATTERNS = {
    "long tasks come last": [0.0001] * 5000 + [0.1] * 50,
    "very long tasks come last": [1e-6] * 5000 + [1.0] * 64,
    "many long tasks come last": [0.001] * 900 + [0.1] * 100,
    "one long task comes last": [1e-5] * 5000 + [2.0],
    "one long task comes first": [2.0] + [0.0001] * 5000,
    "long tasks come first": [0.5] * 20 + [0.0001] * 5000,
    "one task in fifty is long": [0.5 if i % 50 == 0 else 0.001 for i in range(2000)],
    "tasks are tiny": [1e-5] * 10000,
    "tasks are as long as a message takes": [QUIET.message_s] * 2000,
    "tasks are long and equal": [0.2] * 500,
}


@pytest.mark.parametrize("engines", [pytest.param(2, marks=pytest.mark.full_size), 4, 16])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_map_with_default_chunks_never_takes_much_more_than_its_share_and_its_longest_item(
    pattern: str, engines: int
) -> None:
    durations = PATTERNS[pattern]
    makespan, _ = simulate_map(durations, engines)
    assert makespan <= sum(durations) / engines + max(durations) + 0.1


@example(runs=[(-1.5, 164), (-5.0, 142), (-1.5, 167)], order="shuffled", engines=2)
@example(runs=[(-1.5, 200), (-5.0, 200), (-1.5, 200), (-5.0, 200)], order="shuffled", engines=2)
@example(runs=[(-0.7, 200), (-5.0, 200), (-5.0, 200), (-5.0, 200)], order="shuffled", engines=2)
@given(
    runs=st.lists(st.tuples(st.floats(-6, 0.3), st.integers(1, 200)), min_size=1, max_size=4),
    order=st.sampled_from(["given", "sorted", "shuffled"]),
    engines=st.sampled_from([2, 3, 8, 16]),
)
def test_no_order_of_long_and_short_items_makes_a_map_much_longer(
    runs: list[tuple[float, int]], order: str, engines: int
) -> None:
    durations = [10**exponent for exponent, count in runs for _ in range(count)]
    if order == "sorted":
        durations.sort()
    elif order == "shuffled":
        random.Random(0).shuffle(durations)
    makespan, _ = simulate_map(durations, engines)
    assert makespan <= sum(durations) / engines + max(durations) + 0.1


@pytest.mark.parametrize("order", ["last", "in the middle", "among the first", "anywhere"])
@pytest.mark.parametrize(("short", "long"), [(3000, 8), pytest.param(5000, 32, marks=pytest.mark.full_size)])
@pytest.mark.parametrize("engines", [4, 16])
def test_long_items_behind_thousands_of_short_ones_are_balanced_though_messages_are_slow(
    engines: int, short: int, long: int, order: str
) -> None:
    source = random.Random(0)
    durations = [source.uniform(0.0001, 0.0009) for _ in range(short)]
    place = {"last": short, "in the middle": short // 2, "among the first": short // 10}.get(order, 0)
    durations[place:place] = [source.uniform(0.3, 1.0) for _ in range(long)]
    if order == "anywhere":
        source.shuffle(durations)
    makespan, _ = simulate_map(durations, engines, LOADED)
    assert makespan <= sum(durations) / engines + max(durations) + 0.1


@pytest.mark.parametrize(
    ("seconds", "count"), [(1e-5, 20000), pytest.param(0.0005, 8000, marks=pytest.mark.full_size), (0.002, 3000)]
)
def test_engines_seldom_wait_for_a_client_that_is_slow_to_send(seconds: float, count: int) -> None:
    makespan, _ = simulate_map([seconds] * count, 16, LOADED)
    assert makespan <= seconds * count / 16 + 0.2


@pytest.mark.parametrize("as_one_map", [True, False])
@pytest.mark.parametrize("long_s", [0.03, 0.2])
def test_engines_seldom_wait_for_a_message_though_half_of_the_tasks_end_at_once(
    as_one_map: bool, long_s: float
) -> None:
    source = random.Random(0)
    durations = [source.choice([long_s, 1e-5]) for _ in range(600)]
    simulation = Simulation(lambda task_id, index: durations[index if as_one_map else task_id], 2)
    tasks = [Task(MAP, size=600)] if as_one_map else [Task(i) for i in range(600)]
    assert simulation.run(*tasks) <= sum(durations) / 2 + long_s + 0.05


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.025, 0.05, 0.09, 0.5])
def test_equal_tasks_are_not_sent_again_and_again(seconds: float) -> None:
    _, simulation = simulate_map([seconds] * 400, 4)
    assert simulation.sent < 1.1 * 400


def test_a_map_of_tiny_items_takes_few_messages() -> None:
    _, simulation = simulate_map([1e-5] * 20000, 4)
    assert simulation.messages < 60


def test_a_chunk_size_that_is_given_is_kept() -> None:
    sizes = set()
    scheduler = SchedulerState()
    scheduler.handle(EngineAdded(Engine(0), 0.0))
    effects = scheduler.handle(Submitted((Task(MAP, size=35, chunksize=10),), 0.0))
    while dispatches := [effect for effect in effects if isinstance(effect, SendBatch)]:
        spans = [span for dispatch in dispatches for span in dispatch.spans]
        sizes |= {span.stop - span.start for span in spans}
        effects = [
            effect
            for sent in dispatches
            for effect in scheduler.handle(
                Replied(sent.batch_id, tuple(RangeOutcome(*span, RangeStatus.OK, 1.0) for span in sent.spans), 1.0)
            )
        ]
    assert sizes == {10, 5}


def test_quick_tasks_behind_a_slow_one_run_on_engines_that_have_nothing_to_do() -> None:
    durations = [0.001] * 100 + [60.0] + [0.001] * 100
    simulation = Simulation(lambda _, index: durations[index], 2)
    simulation.at(1.0, lambda: done_by_then.extend(simulation.ran))
    done_by_then: list[tuple[TaskId, int]] = []
    simulation.run(Task(MAP, size=len(durations)))
    assert len(done_by_then) == 200


WORKS = {"200 tasks": [0.02] * 200, "a short map": [1e-4] * 8, "two tasks": [1e-5] * 2, "a long one": [1.0, 0.1, 0.1]}


@pytest.mark.parametrize("answers", [True, False], ids=["answers", "is held"])
@pytest.mark.parametrize("engines", [2, 4])
@pytest.mark.parametrize("work", WORKS)
def test_work_ends_as_if_an_engine_that_works_for_others_were_not_there(work: str, engines: int, answers: bool) -> None:
    durations = WORKS[work]
    simulation = Simulation(lambda task_id, _: durations[task_id], engines)
    simulation.occupy(0, 0.0, 60.0, known_at=0.05, answers=answers)
    simulation.at(0.1, lambda: times.append(simulation.run(*(Task(i) for i in range(len(durations)))) - 0.1))
    times: list[float] = []
    simulation.run()
    without = Simulation(lambda task_id, _: durations[task_id], engines - 1)
    assert times[0] <= without.run(*(Task(i) for i in range(len(durations)))) + 0.1


@pytest.mark.parametrize("engines", [2, 4])
@pytest.mark.parametrize("work", WORKS)
def test_what_reached_an_engine_before_it_was_known_to_be_busy_costs_no_more(work: str, engines: int) -> None:
    durations = WORKS[work]
    simulation = Simulation(lambda task_id, _: durations[task_id], engines)
    simulation.occupy(0, 0.0, 60.0, known_at=0.05, answers=True)
    makespan = simulation.run(*(Task(i) for i in range(len(durations))))
    without = Simulation(lambda task_id, _: durations[task_id], engines - 1)
    assert makespan <= without.run(*(Task(i) for i in range(len(durations)))) + 0.1


def test_an_engine_takes_its_share_when_its_other_work_ends() -> None:
    simulation = Simulation(lambda *_: 0.1, 2)
    simulation.occupy(0, 0.0, 1.0, known_at=0.0, answers=False)
    assert simulation.run(Task(MAP, size=100)) < 1.0 + 9.0 / 2 + 0.3


def test_an_engine_that_joins_midway_takes_its_share() -> None:
    simulation = Simulation(lambda *_: 0.1, 1)
    simulation.at(1.0, lambda: simulation.add_engine(1))
    makespan = simulation.run(Task(MAP, size=100))
    assert makespan < 1.0 + 9.0 / 2 + 0.3


def test_the_work_of_engines_that_are_lost_midway_is_done_by_the_others() -> None:
    simulation = Simulation(lambda *_: 0.01, 4)
    for time, engine_id in [(0.5, 0), (1.0, 1), (1.5, 2)]:
        simulation.at(time, lambda engine_id=engine_id: simulation.kill_engine(engine_id))
    simulation.run(Task(MAP, size=500), *(Task(i) for i in range(100)))
    assert sorted(simulation.delivered, key=str) == sorted(
        [*((MAP, i) for i in range(500)), *((i, 0) for i in range(100))], key=str
    )


def test_a_task_that_kills_its_engines_is_given_up_and_no_other() -> None:
    simulation = Simulation(lambda *_: 0.0001, 4)
    guilty = 777

    def die_of_it(engine_id: int) -> None:
        simulation.kill_engine(engine_id)
        simulation.add_engine(engine_id)

    simulation.on_begin = lambda engine_id, span: die_of_it(engine_id) if span.start == guilty else None
    simulation.run(Task(MAP, size=2000))
    assert sorted(simulation.delivered) == [(MAP, i) for i in range(2000) if i != guilty]
    assert [(span.start, span.stop) for span in simulation.given_up] == [(guilty, guilty + 1)]
