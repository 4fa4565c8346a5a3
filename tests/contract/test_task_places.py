"""Where tasks run, and when: labels and resources of engines, and graphs of tasks that depend on each other."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nsactors import Client, Cluster, Dependency, LoadBalancedView
from nsactors.errors import ImpossibleDependency
from nsactors.protocol.messages import Capability
from nsactors.results import AsyncResult
from nsactors.testing import TIMEOUT_S, Gate, wait_until

Start = Callable[..., int]


@pytest.fixture
def lview(rc: Client) -> LoadBalancedView:
    return rc.load_balanced_view()


@pytest.fixture
def start(cluster: Cluster, rc: Client) -> Iterator[Start]:
    """Starts an engine with options; it is gone after the test."""
    ids: list[int] = []

    def start(**options: Any) -> int:
        ids.extend(cluster.start_engines(1, recovery="none", **options))
        wait_until(lambda: set(ids) <= set(rc.ids))
        return ids[-1]

    yield start
    # Not through the client, which may not have heard yet of one that has just been ended.
    rc.session.controller.stop_engines(ids)


def test_a_task_goes_to_an_engine_with_the_labels_that_it_asks_for(lview: LoadBalancedView, start: Start) -> None:
    solver = start(labels={"licence": "solver", "zone": "b"})
    with lview.temp_flags(labels={"licence": "solver", "zone": "in(a, b)"}):
        result = lview.map_async(abs, range(3), chunksize=1)
        assert result.get(TIMEOUT_S) == [0, 1, 2]
    assert set(result.engine_id) == {solver}
    with lview.temp_flags(labels={"licence": "!solver"}):
        result = lview.map_async(abs, range(20), chunksize=1)
        assert result.get(TIMEOUT_S) == list(range(20))
    assert solver not in result.engine_id


@pytest.mark.needs(Capability.PROCESS)
def test_a_task_goes_to_an_engine_that_was_started_with_the_resources_it_asks_for(
    lview: LoadBalancedView, start: Start
) -> None:
    large = start(num_cpus=1)
    with lview.temp_flags(resources={"CPU": 0.5}):
        result = lview.map_async(abs, range(3), chunksize=1)
        assert result.get(TIMEOUT_S) == [0, 1, 2]
    assert set(result.engine_id) == {large}


@pytest.mark.once
@pytest.mark.parametrize("flags", [{"labels": {"zone": "nowhere"}}, {"resources": {"quantum computer": 1}}])
def test_what_no_engine_can_run_fails_at_once_and_says_why(lview: LoadBalancedView, flags: dict[str, Any]) -> None:
    with lview.temp_flags(**flags):
        call, mapped = lview.apply_async(abs, 1), lview.map_async(abs, range(10))
    with pytest.raises(
        ImpossibleDependency, match=r"apply\(abs\) can never run: it asks for an engine with (zone|1 qu)"
    ):
        call.get(TIMEOUT_S)
    assert [type(value) for value in mapped.get(TIMEOUT_S, return_exceptions=True)] == [ImpossibleDependency] * 10


def test_a_task_waits_for_an_engine_that_is_being_started(own_cluster: Callable[..., Cluster]) -> None:
    cluster = own_cluster(1)
    lview = cluster.start_and_connect_sync().load_balanced_view(labels={"disk": "fast"})
    (engine_id,) = cluster.start_engines(1, labels={"disk": "fast"})
    result = lview.apply_async(abs, -2)
    assert (result.get(TIMEOUT_S), result.engine_id) == (2, engine_id)


def test_a_task_whose_only_engine_goes_fails(
    cluster: Cluster, lview: LoadBalancedView, start: Start, gate: Gate
) -> None:
    engine_id = start(labels={"disk": "fast"})
    lview.set_flags(labels={"disk": "fast"})
    running = lview.apply_async(gate.pass_through)
    gate.wait_arrived()
    waiting = lview.apply_async(abs, 1)
    cluster.stop_engines(engine_id, finish=False)
    for result in (running, waiting):
        with pytest.raises(ImpossibleDependency, match="disk=fast, and there is none"):
            result.get(TIMEOUT_S)


@pytest.mark.once
@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ({"labels": {"zone": 1}}, TypeError),
        ({"labels": "zone"}, TypeError),
        ({"resources": {"GPU": "1"}}, TypeError),
        ({"resources": ["GPU"]}, TypeError),
        ({"resources": {"GPU": -1}}, ValueError),
    ],
)
def test_labels_and_resources_that_cannot_be_are_refused(
    lview: LoadBalancedView, flags: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        lview.set_flags(**flags)
    assert lview.apply_sync(abs, -1) == 1  # nothing has been changed


def test_a_map_keeps_all_engines_busy_though_its_long_items_come_last(rc: Client, lview: LoadBalancedView) -> None:
    def nap(seconds: float) -> None:
        import time

        time.sleep(seconds)  # noqa: TID251 (work that takes no processor)

    result = lview.map_async(nap, [0.001] * 400 + [0.1] * 30)
    result.get(TIMEOUT_S)
    long_ones: Counter[int] = Counter()
    parts: Any = result.calls
    for part in parts:
        long_ones[part.engine_id] += max(0, part.stop - max(part.start, 400))
    assert long_ones.total() == 30
    assert max(long_ones.values()) < 30  # one that had them all would be waited for by the others


@pytest.mark.once
def test_order_place_and_impossibility_hold_in_a_graph_of_many_tasks(lview: LoadBalancedView) -> None:
    """A thousand tasks, each after up to two others, some where another has run; some fail."""

    def work(number: int, fails: bool) -> int:
        if fails:
            raise ValueError(number)
        return number

    choices = random.Random(1)
    results: list[AsyncResult] = []
    before: list[list[int]] = []
    leaders: list[int | None] = []
    expected: list[str] = []
    for number in range(1_000):
        earlier = choices.sample(range(number), min(number, choices.randrange(3)))
        leader = choices.randrange(number) if number and choices.random() < 0.3 else None
        fails = choices.random() < 0.01
        with lview.temp_flags(
            after=Dependency([results[i] for i in earlier]), follow=None if leader is None else results[leader]
        ):
            results.append(lview.apply_async(work, number, fails))
        before.append(earlier)
        leaders.append(leader)
        needed = [*earlier, *([] if leader is None else [leader])]
        impossible = any(expected[i] != "int" for i in needed)
        expected.append("ImpossibleDependency" if impossible else "ValueError" if fails else "int")

    outcomes = [result.get(TIMEOUT_S, return_exceptions=True) for result in results]
    assert [getattr(outcome, "ename", type(outcome).__name__) for outcome in outcomes] == expected
    assert set(expected) == {"int", "ValueError", "ImpossibleDependency"}
    for number, result in enumerate(results):
        if expected[number] != "int":
            continue
        assert outcomes[number] == number
        assert all(results[i].received <= result.received for i in before[number])
        leader = leaders[number]
        assert leader is None or results[leader].engine_id == result.engine_id
