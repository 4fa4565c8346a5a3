"""The load-balanced view: tasks run once, on whichever engine is free."""

from __future__ import annotations

import concurrent.futures
import contextlib
import operator
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nsactors import (
    Client,
    CompositeError,
    Dependency,
    DirectView,
    LoadBalancedView,
    Reference,
    SchedulingPolicy,
    depend,
    require,
)
from nsactors.errors import (
    CapabilityError,
    ClientClosed,
    ImpossibleDependency,
    InvalidArgument,
    InvalidDependency,
    NoSuchEngine,
    RemoteError,
    SerializationError,
    TaskAborted,
    TaskTimeout,
    TimeLimitExceeded,
    UnknownFlag,
    UnmetDependency,
)
from nsactors.protocol.messages import Capability
from nsactors.tasks.messages import TaskState
from nsactors.testing import TIMEOUT_S, Gate, wait_until
from tests.contract.conftest import ENGINES

Gates = Callable[[], Gate]


@pytest.fixture
def lview(rc: Client) -> LoadBalancedView:
    return rc.load_balanced_view()


def fail(x: Any = None) -> Any:
    raise ValueError(x)


# Calls.


def test_a_task_runs_once_and_gives_one_value(lview: LoadBalancedView) -> None:
    assert lview.apply_sync(operator.add, 2, 3) == 5
    assert lview.apply_async(dict, a=1).get(TIMEOUT_S) == {"a": 1}


@pytest.mark.once
def test_a_view_that_blocks_gives_values(lview: LoadBalancedView) -> None:
    lview.block = True
    assert lview.apply(abs, -1) == 1
    assert lview.map(abs, [-1, 2]) == [1, 2]


def test_a_failure_is_of_its_class_and_names_its_engine(lview: LoadBalancedView) -> None:
    with pytest.raises(ValueError, match="seven") as caught:
        lview.apply_sync(fail, "seven")
    assert isinstance(caught.value, RemoteError)
    assert caught.value.engine_id in lview.client.ids


def test_tasks_run_on_all_engines_at_the_same_time(lview: LoadBalancedView, gate: Gate) -> None:
    results = [lview.apply_async(gate.pass_through) for _ in range(ENGINES)]
    gate.wait_arrived(ENGINES)
    gate.open()
    assert {result.get(TIMEOUT_S) for result in results} == {"passed"}
    assert {result.engine_id for result in results} == set(lview.client.ids)


def test_a_quick_item_need_not_wait_for_a_slow_one_that_was_sent_with_it(rc: Client, gate: Gate) -> None:
    """Its result is asked for while the slow one runs."""
    pass_through = gate.pass_through
    lview = rc.load_balanced_view([0])
    result = lview.map_async(lambda x: x or pass_through(), ["a", "b", None], chunksize=3, ordered=False)
    gate.wait_arrived()
    items = iter(result)
    assert [next(items), next(items)] == ["a", "b"]
    assert not result.ready()
    gate.open()
    assert (next(items), result.get(TIMEOUT_S)) == ("passed", ["a", "b", "passed"])


def test_quick_tasks_are_not_trapped_behind_slow_ones(lview: LoadBalancedView, gate: Gate) -> None:
    """Items that were sent along with a slow one are stolen and run elsewhere."""
    lview.map_sync(abs, range(1000))
    slow = lview.map_async(lambda x: gate.pass_through() if x == 0 else x, range(2000), chunksize=500)
    gate.wait_arrived()
    wait_until(lambda: slow.progress == 1999)
    gate.open()
    assert slow.get(TIMEOUT_S) == ["passed", *range(1, 2000)]


def test_tasks_see_the_names_of_their_engine_first(rc: Client, from_main: Callable[[str], SimpleNamespace]) -> None:
    rc[:].push({"level": 5})
    rc[1].push({"level": 7})
    here = from_main("level = 0\ndef above(x): return x + level\ndef inner(x): return [y + level for y in [x]]")
    first = rc.load_balanced_view([1])
    assert first.apply_sync(here.above, 1) == 8
    assert first.map_sync(here.inner, range(2)) == [[7], [8]]
    assert first.apply_sync(operator.neg, Reference("level")) == -7


def test_items_that_are_functions_bring_their_names_along(
    lview: LoadBalancedView, from_main: Callable[[str], SimpleNamespace]
) -> None:
    here = from_main("""
        base = 10
        def outer(f): return [f(x) + base for x in range(2)]
        """)
    there = from_main("""
        step = 3
        def item(x): return sum([step * y for y in [x]])
        """)
    assert lview.map_sync(here.outer, [there.item] * 3) == [[10, 13]] * 3


def test_remote_values_are_brought_to_the_task(rc: Client, lview: LoadBalancedView) -> None:
    rc[0].push({"data": np.arange(5)})
    data = rc[0].pull("data", as_ref=True, block=True)
    assert lview.apply_sync(lambda a: int(a.sum()), data) == 10


def test_arguments_are_copied_before_a_call_returns(lview: LoadBalancedView, gate: Gate) -> None:
    held = [lview.apply_async(gate.pass_through) for _ in range(ENGINES)]
    gate.wait_arrived(ENGINES)
    given, items = [1], [1, 2, 3]
    result, mapped = lview.apply_async(list, given), lview.map_async(abs, items)
    given.append(2)
    items[:] = [7]
    gate.open()
    assert (result.get(TIMEOUT_S), mapped.get(TIMEOUT_S)) == ([1], [1, 2, 3])
    assert all(result.get(TIMEOUT_S) for result in held)


def test_large_arrays_go_and_come_back(lview: LoadBalancedView) -> None:
    array = np.arange(500_000.0)
    np.testing.assert_array_equal(lview.apply_sync(operator.mul, array, 2), array * 2)
    rows = lview.map_sync(lambda row: row + 1, array.reshape(5, -1))
    np.testing.assert_array_equal(np.concatenate(rows), array + 1)


def test_a_function_may_carry_much(lview: LoadBalancedView) -> None:
    table = np.arange(500_000)
    assert lview.map_sync(lambda x: int(table[x]), range(100)) == list(range(100))
    assert list(lview.imap(lambda x: int(table[x]), range(5))) == list(range(5))


def test_results_can_be_written_to_on_request(lview: LoadBalancedView) -> None:
    lview.set_flags(copy=True)
    lview.apply_sync(lambda a: a.__setitem__(0, 1), np.zeros(200_000))
    array = lview.apply_sync(np.zeros, 200_000)
    array[0] = 1


def test_what_cannot_be_pickled_fails_alone(lview: LoadBalancedView) -> None:
    with pytest.raises(SerializationError, match="lock"):
        lview.apply_async(print, threading.Lock())
    with pytest.raises(SerializationError):
        lview.apply_sync(threading.Lock)
    values = lview.map_sync(lambda x: threading.Lock() if x == 5 else x, range(50), return_exceptions=True)
    assert isinstance(values[5], SerializationError)
    assert values[:5] + values[6:] == [x for x in range(50) if x != 5]
    items = [threading.Lock() if x == 5 else x for x in range(50)]
    values = lview.map_sync(lambda x: x, items, return_exceptions=True)
    assert isinstance(values[5], SerializationError)
    assert values[:5] + values[6:] == [x for x in range(50) if x != 5]


def test_what_tasks_print_belongs_to_them(lview: LoadBalancedView) -> None:
    results = [lview.apply_async(print, "task", number) for number in range(20)]
    assert [result.get(TIMEOUT_S) for result in results] == [None] * 20
    assert [result.stdout for result in results] == [f"task {number}\n" for number in range(20)]
    mapped = lview.map_async(print, range(20))
    mapped.get(TIMEOUT_S)
    assert "".join(mapped.stdout) == "".join(f"{number}\n" for number in range(20))


def test_metadata_tell_where_and_when_a_task_ran(lview: LoadBalancedView) -> None:
    result = lview.apply_async(os.getpid)
    result.get(TIMEOUT_S)
    known = result.metadata
    assert known.submitted <= known.started <= known.completed <= known.received
    assert (known.label, known.status, known.tried_on) == ("apply(getpid)", "ok", ())
    assert known.engine_id in lview.client.ids
    assert known.msg_id in result.msg_ids


# Maps.


@pytest.mark.sampled("chunksize", "length")
@pytest.mark.parametrize("chunksize", [None, 1, 7])
@pytest.mark.parametrize("length", [0, 1, 5, 1000])
def test_a_map_equals_the_serial_one(lview: LoadBalancedView, length: int, chunksize: int | None) -> None:
    assert lview.map_sync(lambda x: x * x, range(length), chunksize=chunksize) == [x * x for x in range(length)]


@pytest.mark.once
def test_a_map_takes_any_iterables_and_stops_at_the_shortest(lview: LoadBalancedView) -> None:
    assert lview.map_sync(operator.add, {1: 0, 2: 0}, iter([10, 20, 30])) == [11, 22]
    assert lview.map_sync(operator.mul, np.arange(3), [1, 2, 3]) == [0, 2, 6]
    assert lview.map_sync(str.upper, "abc") == ["A", "B", "C"]


@pytest.mark.once
def test_a_map_needs_a_sequence(lview: LoadBalancedView) -> None:
    with pytest.raises(TypeError, match="sequence"):
        lview.map(abs)


@pytest.mark.once
def test_items_of_an_ordered_map_come_in_order_while_others_run(lview: LoadBalancedView, gates: Gates) -> None:
    first, last = gates(), gates()
    calls = [first.pass_through, abs, last.pass_through]
    result = lview.map_async(lambda f: f() if f is not abs else "abs", calls, chunksize=1)
    first.wait_arrived()
    first.open()
    items = iter(result)
    assert [next(items), next(items)] == ["passed", "abs"]
    assert not result.ready()
    last.open()
    assert list(items) == ["passed"]


@pytest.mark.once
def test_items_of_an_unordered_map_come_as_they_end(lview: LoadBalancedView, gate: Gate) -> None:
    work = [gate.pass_through, lambda: 1, lambda: 2]
    items = iter(lview.map_async(lambda f: f(), work, ordered=False, chunksize=1))
    assert {next(items), next(items)} == {1, 2}
    gate.open()
    assert list(items) == ["passed"]


@pytest.mark.once
def test_failing_items_are_told_together_and_spare_the_others(lview: LoadBalancedView) -> None:
    result = lview.map_async(lambda x: 1 // (x % 3), range(9))
    with pytest.raises(CompositeError, match="3 of 9 items") as caught:
        result.get(TIMEOUT_S)
    assert all(isinstance(error, ZeroDivisionError) for error in caught.value.exceptions)
    values = result.get(return_exceptions=True)
    assert [value if isinstance(value, int) else None for value in values] == [None, 1, 0] * 3


@pytest.mark.once
def test_iterating_raises_where_an_item_failed(lview: LoadBalancedView) -> None:
    items = iter(lview.map_async(lambda x: 1 // (x - 2), range(5)))
    assert [next(items), next(items)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(items)


@pytest.mark.once
def test_a_result_of_a_map_counts_items(lview: LoadBalancedView, gate: Gate) -> None:
    result = lview.map_async(lambda x: gate.pass_through() if x == 9 else x, range(10), chunksize=1)
    wait_until(lambda: result.progress >= ENGINES)
    assert result.progress < len(result) == 10
    gate.open()
    result.get(TIMEOUT_S)
    assert set(result.engine_id) <= set(lview.client.ids)


def test_maps_are_balanced_by_default(lview: LoadBalancedView, gates: Gates) -> None:
    """All long items come last, and yet each engine gets one of them."""
    doors = [gates() for _ in range(ENGINES)]
    work: list[Any] = [None] * 500 + [door.pass_through for door in doors]
    result = lview.map_async(lambda f: f and f(), work)
    for door in doors:
        door.wait_arrived()
    for door in doors:
        door.open()
    assert result.get(TIMEOUT_S)[-ENGINES:] == ["passed"] * ENGINES


@pytest.mark.once
def test_an_imap_goes_on_while_its_input_does_and_pulls_no_more_than_may_be_outstanding(
    lview: LoadBalancedView,
) -> None:
    pulled = 0

    def numbers() -> Any:
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled - 1

    results = lview.imap(lambda x: x * x, numbers(), chunksize=5, max_outstanding=3)
    for taken in range(100):
        assert next(results) == taken * taken
        assert pulled <= taken + 1 + 3 * 5
    results.close()  # type: ignore[attr-defined]


@pytest.mark.once
@pytest.mark.parametrize("ordered", [True, False])
def test_an_imap_equals_the_serial_one(lview: LoadBalancedView, ordered: bool) -> None:
    results = list(lview.imap(lambda x: x * x, range(50), ordered=ordered))
    assert (results if ordered else sorted(results)) == [x * x for x in range(50)]


def test_an_imap_that_is_left_takes_back_what_has_not_begun(lview: LoadBalancedView, gate: Gate) -> None:
    results = lview.imap(lambda x: x and gate.pass_through(), range(100), chunksize=1, max_outstanding=50)
    assert next(results) == 0
    gate.wait_arrived()
    results.close()  # type: ignore[attr-defined]
    gate.open()
    assert lview.wait(timeout=TIMEOUT_S)
    assert lview.client.tasks() == []


@pytest.mark.once
def test_an_imap_raises_after_the_results_of_what_came_before(lview: LoadBalancedView) -> None:
    results = lview.imap(lambda x: 1 // (x - 3), range(10))
    assert [next(results) for _ in range(3)] == [-1, -1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    tolerant = list(lview.imap(lambda x: 1 // (x - 3), range(10), return_exceptions=True))
    assert isinstance(tolerant[3], ZeroDivisionError)
    assert len(tolerant) == 10


# Conditions.


@pytest.mark.once
def test_a_map_without_items_has_succeeded_for_those_that_depend_on_it(lview: LoadBalancedView) -> None:
    empty = lview.map_async(abs, [])
    assert (empty.ready(), empty.get()) == (True, [])
    with lview.temp_flags(after=empty):
        assert lview.apply_async(abs, -1).get(TIMEOUT_S) == 1
    with lview.temp_flags(after=Dependency(empty, success=False, failure=True)), pytest.raises(ImpossibleDependency):
        lview.apply_async(abs, -1).get(TIMEOUT_S)
    assert lview.client.tasks() == []


def test_a_task_runs_after_those_it_depends_on(lview: LoadBalancedView, gate: Gate) -> None:
    first = lview.apply_async(gate.pass_through)
    with lview.temp_flags(after=first):
        second = lview.apply_async(os.getpid)
    gate.wait_arrived()
    (_, status) = lview.client.tasks()
    assert (status.msg_id, status.state) == (second.msg_ids[0], TaskState.WAITING)
    gate.open()
    assert second.get(TIMEOUT_S)
    assert first.ready()


def test_a_task_follows_another_to_its_engine(lview: LoadBalancedView) -> None:
    for _ in range(10):
        leader = lview.apply_async(os.getpid)
        with lview.temp_flags(follow=[leader]):
            follower = lview.apply_async(os.getpid)
        follower.get(TIMEOUT_S)
        assert follower.engine_id == leader.engine_id


@pytest.mark.once
def test_dependencies_count_the_ends_that_they_name(lview: LoadBalancedView) -> None:
    failed = lview.apply_async(fail)
    with lview.temp_flags(after=Dependency(failed, success=False, failure=True)):
        assert lview.apply_sync(abs, -1) == 1
    with lview.temp_flags(after=Dependency([failed, lview.apply_async(abs, 1)], all=False)):
        assert lview.apply_sync(abs, -2) == 2
    assert isinstance(failed.exception(), ValueError)


@pytest.mark.once
def test_impossible_dependencies_raise(lview: LoadBalancedView) -> None:
    failed = lview.apply_async(fail)
    with lview.temp_flags(after=failed), pytest.raises(ImpossibleDependency, match="failed"):
        lview.apply_sync(abs, 1)
    assert isinstance(failed.exception(), ValueError)


@pytest.mark.sampled
@pytest.mark.parametrize("nonsense", [1.5, ["somebody:7"], [abs], "7"])
def test_what_is_no_task_cannot_be_depended_on(lview: LoadBalancedView, nonsense: Any) -> None:
    with pytest.raises(InvalidDependency):
        lview.set_flags(after=nonsense)


@pytest.mark.once
def test_a_result_that_nobody_holds_can_be_depended_on_at_once(lview: LoadBalancedView) -> None:
    for _ in range(300):
        with lview.temp_flags(after=lview.apply_async(abs, 1)):
            lview.apply_async(abs, 2)
    assert lview.wait(timeout=TIMEOUT_S)
    assert lview.client.tasks() == []


def test_tasks_keep_to_their_targets(rc: Client) -> None:
    lview = rc.load_balanced_view([1, 2])
    results = [lview.apply_async(os.getpid) for _ in range(20)]
    assert all(result.get(TIMEOUT_S) for result in results)
    assert {result.engine_id for result in results} <= {1, 2}
    with lview.temp_flags(targets=3):
        assert lview.apply_async(abs, 1).metadata.engine_id in (None, 3)
    with pytest.raises(NoSuchEngine):
        rc.load_balanced_view([99])


@pytest.mark.once
def test_functions_run_only_where_their_condition_holds(rc: Client, lview: LoadBalancedView) -> None:
    rc[:].push({"has_licence": False})
    rc[2].push({"has_licence": True})
    result = lview.apply_async(depend(operator.truth, Reference("has_licence"))(abs), -3)
    assert result.get(TIMEOUT_S) == 3
    assert result.engine_id == 2
    mapped = lview.map_async(depend(operator.truth, Reference("has_licence"))(abs), [-1, -2])
    assert mapped.get(TIMEOUT_S) == [1, 2]


@pytest.mark.once
def test_a_condition_that_no_engine_meets_is_impossible(lview: LoadBalancedView) -> None:
    def nowhere() -> None:
        raise UnmetDependency("a licence")

    with pytest.raises(ImpossibleDependency, match=r"every engine .*: a licence"):
        lview.apply_sync(depend(nowhere)(abs), 1)
    with pytest.raises(ImpossibleDependency, match="import no_such_module"):
        lview.apply_sync(require("no_such_module")(abs), 1)
    errors = lview.map_sync(require("no_such_module")(abs), [1, 2], return_exceptions=True)
    assert ["import no_such_module" in str(error) for error in errors] == [True, True]


def test_required_modules_and_values_are_among_the_globals(
    lview: LoadBalancedView, from_main: Callable[[str], SimpleNamespace]
) -> None:
    here = from_main("def area(r): return scale(colorsys.ONE_THIRD * r)\ndef scale(x): return 3 * x")
    needing = require("colorsys", here.scale)(here.area)
    assert lview.apply_sync(needing, 2) == pytest.approx(2)


@pytest.mark.once
def test_urgent_tasks_go_first(lview: LoadBalancedView, gate: Gate) -> None:
    one = lview.with_flags(targets=[0])
    blocker = one.apply_async(gate.pass_through)
    gate.wait_arrived()
    usual = [one.apply_async(os.getpid) for _ in range(3)]
    with one.temp_flags(priority=5):
        urgent = one.apply_async(os.getpid)
    gate.open()
    for result in (blocker, urgent, *usual):
        result.get(TIMEOUT_S)
    assert urgent.started <= min(result.started for result in usual)


@pytest.mark.once
def test_a_policy_orders_tasks_and_chooses_their_engine(rc: Client, gate: Gate) -> None:
    offered: list[list[int]] = []

    class LastFirstOnTheHighest:
        def priority(self, task: Any) -> float:
            return float(task.number)

        def choose_engine(self, task: Any, engines: Any) -> int:
            offered.append([engine.engine_id for engine in engines])
            return max(offered[-1])

    policy = LastFirstOnTheHighest()
    one = rc.load_balanced_view([0], policy=policy)
    blocker = one.apply_async(gate.pass_through)
    gate.wait_arrived()
    waiting = [one.apply_async(abs, -n) for n in range(4)]
    gate.open()
    blocker.get(TIMEOUT_S)
    for result in waiting:
        result.get(TIMEOUT_S)
    assert sorted(waiting, key=lambda result: result.started) == waiting[::-1]
    every = rc.load_balanced_view(policy=policy)
    result = every.apply_async(abs, -1)
    result.get(TIMEOUT_S)
    assert result.engine_id == max(offered[-1])  # an engine may still be said to work for the client of another test


@pytest.mark.once
def test_a_policy_that_fails_harms_no_task(rc: Client) -> None:
    class Broken:
        def choose_engine(self, task: Any, engines: Any) -> int:
            raise SystemExit(3)

    view = rc.load_balanced_view(policy=Broken())
    assert view.map(abs, [-1, 2, -3]).get(TIMEOUT_S) == [1, 2, 3]
    assert view.apply_async(abs, -4).get(TIMEOUT_S) == 4


@pytest.mark.sampled
@pytest.mark.parametrize("policy", [7, "fair", object(), SchedulingPolicy])
def test_what_is_no_policy_is_refused(rc: Client, policy: Any) -> None:
    with pytest.raises(InvalidArgument, match="a method priority\\(\\) or choose_engine\\(\\)"):
        rc.load_balanced_view(policy=policy)


@pytest.mark.once
def test_an_unknown_flag_is_refused(lview: LoadBalancedView) -> None:
    with pytest.raises(UnknownFlag, match="retries"):
        lview.set_flags(retires=3)


# What goes wrong.


@pytest.mark.once
def test_a_task_is_tried_again_on_other_engines_as_long_as_there_are_any(lview: LoadBalancedView) -> None:
    with lview.temp_flags(retries=ENGINES - 1):
        result = lview.apply_async(fail)
    assert isinstance(result.exception(TIMEOUT_S), ValueError)
    assert len({*result.tried_on, result.engine_id}) == ENGINES


def test_a_task_that_gets_to_no_engine_in_time_is_given_up(lview: LoadBalancedView, gate: Gate) -> None:
    for _ in range(ENGINES):
        lview.apply_async(gate.pass_through)
    gate.wait_arrived(ENGINES)
    with lview.temp_flags(timeout=0.05), pytest.raises(TaskTimeout):
        lview.apply_sync(abs, 1)


def test_queued_tasks_are_taken_back(lview: LoadBalancedView, gate: Gate, tmp_path: Any) -> None:
    held = [lview.apply_async(gate.pass_through) for _ in range(ENGINES)]
    gate.wait_arrived(ENGINES)
    path = tmp_path / "touched"
    queued = [lview.apply_async(path.touch) for _ in range(10)]
    for result in queued[:5]:
        result.abort()
        assert isinstance(result.exception(TIMEOUT_S), TaskAborted)
    lview.abort(queued[5:])
    assert all(isinstance(result.exception(TIMEOUT_S), TaskAborted) for result in queued)
    gate.open()
    assert [result.get(TIMEOUT_S) for result in held] == ["passed"] * ENGINES
    assert not path.exists()


def test_items_that_wait_at_an_engine_are_taken_back(rc: Client, gate: Gate) -> None:
    one = rc.load_balanced_view([0])
    one.map_sync(abs, range(100))
    result = one.map_async(lambda x: gate.pass_through() if x == 0 else x, range(1000), chunksize=1000)
    gate.wait_arrived()
    result.abort()
    gate.open()
    values = result.get(TIMEOUT_S, return_exceptions=True)
    assert values[0] == "passed"
    assert all(isinstance(value, TaskAborted) for value in values[1:])


@pytest.mark.needs(Capability.SIGNALS)
def test_running_tasks_are_interrupted_one_item_at_a_time(rc: Client, gates: Gates) -> None:
    one, first, second = rc.load_balanced_view([0]), gates(), gates()
    running = one.apply_async(first.pass_through)
    first.wait_arrived()
    after = one.apply_async(second.pass_through)
    running.abort(interrupt=True)
    error = running.exception(TIMEOUT_S)
    assert isinstance(error, RemoteError)
    assert error.ename == "KeyboardInterrupt"
    second.open()
    assert after.get(TIMEOUT_S) == "passed"


@pytest.mark.needs(Capability.SIGNALS)
def test_a_task_that_runs_too_long_is_interrupted(rc: Client, gate: Gate) -> None:
    lview = rc.load_balanced_view(time_limit=0.1)
    with pytest.raises(TimeLimitExceeded, match=r"0\.1 s: allow more time with time_limit=\.\.\."):
        lview.apply_sync(gate.pass_through)
    gate.open()
    lview.set_flags(time_limit=TIMEOUT_S)  # the machine may pause for longer than that
    assert lview.map_sync(abs, [-1, -2]) == [1, 2]


@pytest.mark.needs(Capability.SIGNALS)
def test_a_task_that_catches_the_interrupt_of_its_time_limit_fails_by_it_all_the_same(rc: Client, gate: Gate) -> None:
    def catch(pass_through: Callable[[], str]) -> str:
        with contextlib.suppress(KeyboardInterrupt):
            pass_through()
        return "went on"

    with pytest.raises(TimeLimitExceeded, match=r"against a time limit of 0\.5 s, because it caught the interrupt"):
        rc.load_balanced_view(time_limit=0.5).apply_sync(catch, gate.pass_through)


def test_a_time_limit_needs_interrupts(rc: Client, transport: Any) -> None:
    if Capability.SIGNALS in transport.capabilities:
        rc.load_balanced_view(time_limit=5)
    else:
        with pytest.raises(CapabilityError):
            rc.load_balanced_view(time_limit=5)


def test_tasks_of_an_engine_that_dies_run_elsewhere(
    rc: Client, victim: DirectView, gate: Gate, end_engine: Callable[[int], None]
) -> None:
    lview = rc.load_balanced_view([0, victim.targets])
    held = lview.map_async(lambda x: gate.pass_through(), range(2), chunksize=1)
    gate.wait_arrived(2)
    waiting = [lview.apply_async(os.getpid) for _ in range(10)]
    end_engine(int(victim.targets))  # type: ignore[arg-type]
    gate.open()
    assert held.get(TIMEOUT_S) == ["passed"] * 2
    assert all(result.get(TIMEOUT_S) for result in waiting)
    assert {result.engine_id for result in waiting} == {0}


def test_tasks_for_engines_that_are_gone_are_impossible(
    rc: Client, victim: DirectView, gate: Gate, end_engine: Callable[[int], None]
) -> None:
    lview = rc.load_balanced_view(victim.targets)
    held = lview.apply_async(gate.pass_through)
    gate.wait_arrived()
    end_engine(int(victim.targets))  # type: ignore[arg-type]
    with pytest.raises(ImpossibleDependency, match="gone"):
        held.get(TIMEOUT_S)


def test_engines_that_join_take_tasks(rc: Client, gate: Gate, add_engines: Callable[[int], list[int]]) -> None:
    lview = rc.load_balanced_view()
    results = [lview.apply_async(gate.pass_through) for _ in range(ENGINES + 1)]
    gate.wait_arrived(ENGINES)
    (new,) = add_engines(1)
    gate.wait_arrived()
    gate.open()
    assert all(result.get(TIMEOUT_S) == "passed" for result in results)
    assert new in {result.engine_id for result in results}


def test_closing_the_client_ends_what_is_open(connect: Callable[..., Client], gate: Gate) -> None:
    client = connect()
    lview = client.load_balanced_view()
    result, mapped = lview.apply_async(gate.pass_through), lview.map_async(abs, range(3))
    gate.wait_arrived()
    mapped.get(TIMEOUT_S)
    client.close()
    with pytest.raises(ClientClosed):
        result.get(TIMEOUT_S)
    with pytest.raises(ClientClosed):
        lview.apply_async(abs, 1)


def test_a_failing_task_that_nobody_asks_for_is_told(connect: Callable[..., Client]) -> None:
    told: list[str] = []
    client = connect(report=told.append)
    lview = client.load_balanced_view()
    lview.apply_async(fail, "unseen")
    lview.map_async(fail, range(3))
    assert lview.wait(timeout=TIMEOUT_S)
    client.close()
    (text,) = told
    assert "2 calls failed" in text
    assert "unseen" in text


# Results, and what is known of tasks.


@pytest.mark.once
def test_results_are_futures(lview: LoadBalancedView) -> None:
    results = [lview.apply_async(abs, -number) for number in range(50)]
    done, pending = concurrent.futures.wait(results, TIMEOUT_S)
    assert not pending
    assert sorted(result.result() for result in done) == list(range(50))
    assert {result.result() for result in concurrent.futures.as_completed(results, TIMEOUT_S)} == set(range(50))


async def _await(result: Any) -> Any:
    return await result


@pytest.mark.once
def test_results_can_be_awaited(lview: LoadBalancedView) -> None:
    import asyncio

    assert asyncio.run(_await(lview.apply_async(abs, -1))) == 1
    assert asyncio.run(_await(lview.map_async(abs, [-1, -2]))) == [1, 2]


def test_tasks_that_have_not_ended_are_listed(rc: Client, lview: LoadBalancedView, gate: Gate) -> None:
    running = [lview.apply_async(gate.pass_through) for _ in range(ENGINES)]
    gate.wait_arrived(ENGINES)
    mapped = lview.map_async(abs, range(100))
    *first, last = rc.tasks()
    assert [task.msg_id for task in first] == [result.msg_ids[0] for result in running]
    assert {engine for task in first for engine in task.engines} == set(rc.ids)
    assert (last.label, last.state, last.items_left) == ("map(abs)", TaskState.READY, 100)
    status = rc.queue_status()
    assert status["unassigned"] == 100
    assert [status[engine]["tasks"] for engine in rc.ids] == [1] * ENGINES
    gate.open()
    mapped.get(TIMEOUT_S)
    assert lview.wait(running, TIMEOUT_S)
    assert rc.tasks() == []


@pytest.mark.once
def test_views_share_the_engines(rc: Client, gate: Gate) -> None:
    one, other = rc.load_balanced_view(), rc.load_balanced_view()
    held = [view.apply_async(gate.pass_through) for view in (one, other) * (ENGINES // 2)]
    gate.wait_arrived(ENGINES)
    assert Counter(result.engine_id for result in held) == dict.fromkeys(rc.ids, 1)
    gate.open()
    assert all(result.get(TIMEOUT_S) for result in held)


@pytest.mark.once
def test_decorated_functions_run_as_tasks(lview: LoadBalancedView) -> None:
    @lview.remote(block=True)
    def double(x: int) -> int:
        return 2 * x

    @lview.parallel(block=True)
    def squares(numbers: Any) -> list[int]:
        return [number * number for number in numbers]

    assert double(4) == 8
    assert squares(range(10)) == [x * x for x in range(10)]
    assert lview.parallel(chunksize=2, block=True)(abs).map([-1, -2, -3]) == [1, 2, 3]


@pytest.mark.needs(Capability.PROCESS)
def test_each_task_has_one_result_while_engines_are_killed(
    rc: Client, add_engines: Callable[[int], list[int]], gate: Gate
) -> None:
    targets = [0, *add_engines(2)]
    pids = rc[targets[1:]].apply_sync(os.getpid)
    lview = rc.load_balanced_view(targets)
    result = lview.map_async(lambda x: gate.pass_through() and x if x in (30, 60) else x, range(200), chunksize=1)
    wait_until(lambda: result.progress > 20)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    gate.open()
    assert result.get(TIMEOUT_S) == list(range(200))
