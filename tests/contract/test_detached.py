"""Detached tasks: they outlive the client that submitted them, and any client gets what came of them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nsactors import AsyncResult, Client, Cluster, CompositeError, DirectView, LoadBalancedView, Reference
from nsactors.errors import (
    ClientClosed,
    ImpossibleDependency,
    InvalidArgument,
    InvalidDependency,
    RemoteError,
    ResultUnavailable,
    SerializationError,
    TaskAborted,
)
from nsactors.protocol.messages import Capability
from nsactors.tasks.messages import TaskState, TaskStatus
from nsactors.testing import TIMEOUT_S, Gate, wait_until
from tests.contract.conftest import ENGINES, WRONG_FLAGS, WRONG_SIZES

Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def cluster(backend: str, cluster: Cluster) -> Iterator[Cluster]:
    """Engines of this module's own, beside the shared ones: other tests are not to see these detached tasks."""
    own = Cluster(n=ENGINES, backend=backend)
    own.start_and_connect_sync()
    yield own
    own.stop_cluster_sync()


@pytest.fixture
def lview(rc: Client) -> LoadBalancedView:
    return rc.load_balanced_view(detached=True)


@pytest.fixture
def other(connect: Connect) -> Client:
    """Another client, which submits and leaves."""
    return connect("other")


@pytest.fixture
def theirs(other: Client) -> LoadBalancedView:
    return other.load_balanced_view(detached=True)


def status_of(rc: Client, msg_id: str) -> TaskStatus:
    [status] = [task for task in rc.tasks() if task.msg_id == msg_id]
    return status


# As other tasks.


def test_a_detached_call_gives_its_value_and_says_where_it_ran(lview: LoadBalancedView) -> None:
    result = lview.apply_async(divmod, 17, 5)
    assert result.get(TIMEOUT_S) == (3, 2)
    assert result.engine_id in lview.client.ids
    assert result.submitted <= result.started <= result.completed


def test_what_a_detached_task_prints_is_shown_to_whoever_waits_for_it(
    lview: LoadBalancedView, capsys: pytest.CaptureFixture[str]
) -> None:
    result = lview.apply_async(print, "of a call")
    result.get(TIMEOUT_S)
    assert (capsys.readouterr().out, result.stdout) == ("of a call\n", "of a call\n")
    lview.map_sync(print, ["of", "a map"])
    assert sorted(capsys.readouterr().out.splitlines()) == ["a map", "of"]
    again = lview.client.get_result(result.msg_ids[0])
    again.get(TIMEOUT_S)
    assert capsys.readouterr().out == "of a call\n"


def test_a_detached_map_gives_its_values_in_order_whatever_their_number(lview: LoadBalancedView) -> None:
    assert lview.map_sync(lambda x: x * x, range(5_000)) == [x * x for x in range(5_000)]
    assert lview.map_sync(operator.add, [1, 2], (10, 20)) == [11, 22]
    assert lview.map_sync(abs, []) == []


def test_items_may_be_of_classes_typed_at_a_prompt(
    lview: LoadBalancedView, from_main: Callable[[str], SimpleNamespace]
) -> None:
    main = from_main("""
        class Point:
            def __init__(self, x):
                self.x = x

        def move(point):
            return Point(point.x + 1)
    """)
    moved = lview.map_sync(main.move, [main.Point(1), main.Point(2)])
    assert [(type(point), point.x) for point in moved] == [(main.Point, 2), (main.Point, 3)]


def test_a_failure_is_of_its_class_and_items_fail_alone(lview: LoadBalancedView) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        lview.apply_sync(lambda: 1 / 0)
    assert isinstance(caught.value, RemoteError)
    result = lview.map_async(lambda x: 1 // x, [2, 0, 1])
    with pytest.raises(CompositeError, match="1 of 3"):
        result.get(TIMEOUT_S)
    assert [type(v) for v in result.get(return_exceptions=True)] == [int, type(caught.value), int]


def test_a_result_that_cannot_be_pickled_is_a_failure(lview: LoadBalancedView) -> None:
    with pytest.raises(SerializationError):
        lview.apply_sync(lambda: (x for x in ()))


def test_items_that_cannot_be_pickled_are_refused_at_once(lview: LoadBalancedView) -> None:
    with pytest.raises(SerializationError):
        lview.map_async(abs, [1, (x for x in ())])


def test_a_task_that_fails_is_tried_again_and_says_where_it_failed(
    rc: Client, dv: DirectView, from_main: Callable[[str], SimpleNamespace]
) -> None:
    dv.execute("failures = 0")
    main = from_main("""
        def fail_at_first():
            global failures
            failures += 1
            if failures == 1:
                raise ValueError
            return "done"
    """)
    result = rc.load_balanced_view(detached=True, retries=ENGINES).apply_async(main.fail_at_first)
    assert result.get(TIMEOUT_S) == "done"
    assert set(result.tried_on) == set(rc.ids)


def test_output_comes_with_the_result(lview: LoadBalancedView) -> None:
    result = lview.apply_async(lambda: print("hello"))
    result.get(TIMEOUT_S)
    assert result.stdout == "hello\n"


def test_a_flag_for_a_while_detaches_what_is_submitted_meanwhile(rc: Client) -> None:
    lview = rc.load_balanced_view()
    with lview.temp_flags(detached=True):
        detached = lview.apply_async(int)
    own = lview.apply_async(int)
    assert (detached.get(TIMEOUT_S), own.get(TIMEOUT_S)) == (0, 0)
    assert detached.msg_ids[0] in {task.msg_id for task in rc.tasks()}
    assert own.msg_ids[0] not in {task.msg_id for task in rc.tasks()}


def test_an_executor_submits_detached_calls(lview: LoadBalancedView) -> None:
    with lview.executor as executor:
        future = executor.submit(pow, 2, 5)
        assert list(executor.map(abs, [-1, -2])) == [1, 2]
    assert future.result(TIMEOUT_S) == 32


def test_an_endless_input_cannot_be_detached(lview: LoadBalancedView) -> None:
    with pytest.raises(ValueError, match="use map"):
        lview.imap(abs, [1])


def test_detached_tasks_do_not_wait_for_an_engine_that_works_for_a_client(
    rc: Client, lview: LoadBalancedView, gate: Gate
) -> None:
    lview.apply_sync(int)
    held = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    assert lview.map_async(abs, range(100)).get(TIMEOUT_S) == list(range(100))
    there = rc.load_balanced_view([0], detached=True).apply_async(int)
    wait_until(lambda: status_of(rc, there.msg_ids[0]).waits.endswith(f"apply(partial) of client {rc.session.name}"))
    gate.open()
    assert (held.get(TIMEOUT_S), there.get(TIMEOUT_S)) == ("passed", 0)


# Clients leave.


def test_a_call_goes_on_when_its_client_has_left_and_another_gets_the_value(
    rc: Client, other: Client, theirs: LoadBalancedView, gate: Gate
) -> None:
    left = theirs.apply_async(gate.pass_through)
    gate.wait_arrived()
    other.close()
    with pytest.raises(ClientClosed):
        left.get(TIMEOUT_S)
    result = rc.get_result(left.msg_ids[0])
    assert not result.ready()
    gate.open()
    assert result.get(TIMEOUT_S) == "passed"


def test_what_had_not_begun_when_the_client_left_is_run(
    rc: Client, other: Client, theirs: LoadBalancedView, gate: Gate
) -> None:
    pass_through = gate.pass_through

    def work(number: int) -> int:
        pass_through()
        return number

    left = theirs.map_async(work, range(10 * ENGINES), chunksize=1)
    gate.wait_arrived(ENGINES)
    other.close()
    gate.open()
    result = rc.get_result(left.msg_ids[0])
    assert result.get(TIMEOUT_S) == list(range(10 * ENGINES))
    assert (len(result), result.progress) == (10 * ENGINES, 10 * ENGINES)


def test_values_errors_and_output_can_be_had_again_and_again(
    connect: Connect, other: Client, theirs: LoadBalancedView
) -> None:
    def speak(x: int) -> float:
        print("asked for", x)
        return 1 / x

    good, bad = theirs.apply_async(speak, 2), theirs.apply_async(speak, 0)
    bad.exception(TIMEOUT_S)
    good.get(TIMEOUT_S)
    other.close()
    for name in ("first", "second"):
        client = connect(name)
        again = client.get_result(good.msg_ids[0])
        assert (again.get(TIMEOUT_S), again.stdout) == (0.5, "asked for 2\n")
        with pytest.raises(ZeroDivisionError):
            client.get_result(bad.msg_ids[0]).get(TIMEOUT_S)


def test_several_are_had_together(rc: Client, theirs: LoadBalancedView) -> None:
    call, mapped = theirs.apply_async(int), theirs.map_async(abs, [-1])
    assert rc.get_result(iter([call.msg_ids[0], mapped])).get(TIMEOUT_S) == [0, [1]]


def test_large_arguments_and_results_survive(rc: Client, other: Client, theirs: LoadBalancedView, gate: Gate) -> None:
    pass_through = gate.pass_through

    def double(array: Any) -> Any:
        pass_through()
        return array * 2

    left = theirs.apply_async(double, np.ones(500_000))
    gate.wait_arrived()
    other.close()
    gate.open()
    assert rc.get_result(left.msg_ids[0]).get(TIMEOUT_S).sum() == 1_000_000


def test_a_function_that_carries_much_survives(rc: Client, other: Client, theirs: LoadBalancedView, gate: Gate) -> None:
    table, pass_through = np.arange(100_000), gate.pass_through
    left = theirs.map_async(lambda i: pass_through() and int(table[i]), range(2 * ENGINES), chunksize=1)
    gate.wait_arrived(ENGINES)
    other.close()
    gate.open()
    assert rc.get_result(left.msg_ids[0]).get(TIMEOUT_S) == list(range(2 * ENGINES))


def test_arrays_are_copies_that_can_be_written_to_if_that_was_asked_for(rc: Client, other: Client) -> None:
    view = other.load_balanced_view(detached=True, copy=True)
    left = view.apply_async(np.zeros, 200_000)
    array = rc.get_result(left.msg_ids[0]).get(TIMEOUT_S)
    array[0] = 1


def test_constants_and_seeds_go_along(rc: Client, lview: LoadBalancedView) -> None:
    def drawn(x: int, y: int, k: int, rng: Any) -> tuple[int, float]:
        return x + y + k, rng.random()

    rc[:].push({"k": 10}, block=True)
    result = lview.map_async(drawn, range(20), range(20), k=Reference("k"), seed=42)
    spawned = np.random.SeedSequence(42).spawn(20)
    assert result.get(TIMEOUT_S) == [(2 * i + 10, np.random.default_rng(s).random()) for i, s in enumerate(spawned)]
    assert result.seed.entropy == 42


def test_a_map_without_items_has_ended_for_others_too(
    rc: Client, lview: LoadBalancedView, theirs: LoadBalancedView
) -> None:
    [msg_id] = theirs.map_async(abs, []).msg_ids
    wait_until(lambda: status_of(rc, msg_id).state is TaskState.SUCCEEDED)
    result = rc.get_result(msg_id)
    assert (result.ready(), result.get()) == (True, [])
    with lview.temp_flags(after=msg_id):
        assert lview.apply_async(abs, -1).get(TIMEOUT_S) == 1


def test_parts_of_a_sequence_are_joined_for_others_too(rc: Client, theirs: LoadBalancedView) -> None:
    result = theirs.parallel(block=False)(sorted)([3, 1, 2, 0])
    assert rc.get_result(result.msg_ids[0]).get(TIMEOUT_S) == result.get(TIMEOUT_S)


# What is known of them.


def test_any_client_sees_where_detached_tasks_are_and_what_became_of_them(
    rc: Client, theirs: LoadBalancedView, gate: Gate
) -> None:
    with theirs.temp_flags(label="first"):
        first = theirs.apply_async(gate.pass_through)
    gate.wait_arrived()
    with theirs.temp_flags(after=first):
        second = theirs.apply_async(lambda: 1 / 0)
    [first_id], [second_id] = first.msg_ids, second.msg_ids
    running, waiting = status_of(rc, first_id), status_of(rc, second_id)
    assert (running.state, running.label, running.items_left, running.detached) == (
        TaskState.ASSIGNED,
        "first",
        1,
        True,
    )
    assert len(running.engines) == 1
    assert running.ended is None
    assert waiting.state is TaskState.WAITING
    gate.open()
    second.exception(TIMEOUT_S)
    done, failed = status_of(rc, first_id), status_of(rc, second_id)
    assert (done.state, done.engines) == (TaskState.SUCCEEDED, running.engines)
    assert done.submitted <= (done.started or 0) <= (done.ended or 0)
    assert failed.state is TaskState.FAILED
    assert rc.get_result(done).get(TIMEOUT_S) == "passed"


def test_tasks_that_never_were_are_unavailable(rc: Client) -> None:
    with pytest.raises(ResultUnavailable, match="there was no such task"):
        rc.get_result("detached-0123456789ab/tasks:1")


def test_results_of_both_kinds_are_asked_for_apart(rc: Client, lview: LoadBalancedView) -> None:
    detached, call = lview.apply_async(int), rc[0].apply_async(int)
    with pytest.raises(ResultUnavailable, match="two calls"):
        rc.get_result([detached, call])
    assert (detached.get(TIMEOUT_S), call.get(TIMEOUT_S)) == (0, 0)


# Aborting.


def test_another_client_takes_back_what_has_not_begun(
    rc: Client, other: Client, theirs: LoadBalancedView, gate: Gate
) -> None:
    running = [theirs.apply_async(gate.pass_through) for _ in range(ENGINES)]
    gate.wait_arrived(ENGINES)
    queued = theirs.apply_async(lambda: "never run")
    rc.get_result(queued.msg_ids[0]).abort()
    for result in (queued, rc.get_result(queued.msg_ids[0])):
        with pytest.raises(TaskAborted):
            result.get(TIMEOUT_S)
    gate.open()
    assert [result.get(TIMEOUT_S) for result in running] == ["passed"] * ENGINES


def test_they_are_taken_back_by_their_ids(rc: Client, other: Client, theirs: LoadBalancedView, gate: Gate) -> None:
    running = [theirs.apply_async(gate.pass_through) for _ in range(ENGINES)]
    gate.wait_arrived(ENGINES)
    queued = theirs.apply_async(lambda: "never run")
    other.close()
    rc.abort(queued.msg_ids)
    with pytest.raises(TaskAborted):
        rc.get_result(queued.msg_ids[0]).get(TIMEOUT_S)
    gate.open()
    assert rc.get_result([result.msg_ids[0] for result in running]).get(TIMEOUT_S) == ["passed"] * ENGINES


def test_results_of_all_kinds_are_taken_back_together_and_no_others(
    rc: Client, lview: LoadBalancedView, gate: Gate
) -> None:
    own = rc.load_balanced_view()
    running = [lview.apply_async(gate.pass_through) for _ in range(ENGINES)]
    gate.wait_arrived(ENGINES)
    queued = [[send(abs, -number) for number in range(20)] for send in (lview.apply_async, own.apply_async)]
    queued.append([rc[0].apply_async(abs, -number) for number in range(20)])
    AsyncResult.join(*(results[7] for results in queued)).abort()
    AsyncResult.join(*(results[9] for results in reversed(queued))).abort()
    gate.open()
    for results in queued:
        for number, result in enumerate(results):
            if number in {7, 9}:
                with pytest.raises(TaskAborted):
                    result.get(TIMEOUT_S)
            else:
                assert result.get(TIMEOUT_S) == number
    assert lview.wait(running, TIMEOUT_S)


def test_the_queue_status_counts_and_names_them(
    rc: Client, other: Client, theirs: LoadBalancedView, gate: Gate
) -> None:
    running = theirs.map_async(lambda number: gate.pass_through(), range(ENGINES), chunksize=1, label="detached map")
    gate.wait_arrived(ENGINES)
    queued = theirs.map_async(abs, range(100))

    def items_left() -> int:
        status = rc.queue_status()
        return sum([status["unassigned"], *(status[engine]["tasks"] for engine in rc.ids)])

    wait_until(lambda: items_left() == ENGINES + 100)
    named = rc.queue_status(verbose=True)
    assert all("detached map" in named[engine]["tasks"] for engine in rc.ids)
    gate.open()
    assert theirs.wait([running, queued], TIMEOUT_S)


def test_a_client_takes_back_all_that_it_waits_for(rc: Client, lview: LoadBalancedView, gate: Gate) -> None:
    running = [lview.apply_async(gate.pass_through) for _ in range(ENGINES)]
    gate.wait_arrived(ENGINES)
    queued = [lview.apply_async(lambda: "never run") for _ in range(10)]
    rc.abort()
    assert {type(result.exception(TIMEOUT_S)) for result in queued} == {TaskAborted}
    gate.open()
    assert [result.get(TIMEOUT_S) for result in running] == ["passed"] * ENGINES


@pytest.mark.needs(Capability.SIGNALS)
def test_another_client_interrupts_what_runs(rc: Client, theirs: LoadBalancedView, gate: Gate) -> None:
    running = theirs.apply_async(gate.pass_through)
    gate.wait_arrived()
    rc.get_result(running.msg_ids[0]).abort(interrupt=True)
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        running.get(TIMEOUT_S)


def test_waiting_for_everything_waits_for_them_too(rc: Client, lview: LoadBalancedView, gate: Gate) -> None:
    lview.apply_async(gate.pass_through)
    gate.wait_arrived()
    assert not rc.wait(timeout=0.05)
    gate.open()
    assert rc.wait(timeout=TIMEOUT_S)


# Dependencies.


def test_detached_tasks_depend_on_each_other_whoever_submits_them(
    rc: Client, lview: LoadBalancedView, other: Client, theirs: LoadBalancedView, gate: Gate
) -> None:
    first = theirs.apply_async(gate.pass_through)
    [first_id] = first.msg_ids
    gate.wait_arrived()
    other.close()
    with lview.temp_flags(follow=first_id):
        second = lview.apply_async(lambda: "after")
    assert status_of(rc, second.msg_ids[0]).state is TaskState.WAITING
    gate.open()
    assert second.get(TIMEOUT_S) == "after"
    assert status_of(rc, first_id).engines == (second.engine_id,)


def test_one_whose_dependency_has_failed_never_runs(lview: LoadBalancedView) -> None:
    first = lview.apply_async(lambda: 1 / 0)
    with lview.temp_flags(after=first), pytest.raises(ImpossibleDependency):
        lview.apply_sync(int)
    assert isinstance(first.exception(TIMEOUT_S), ZeroDivisionError)


def test_one_that_depends_on_one_that_never_was_never_runs(lview: LoadBalancedView) -> None:
    [msg_id] = lview.apply_async(int).msg_ids
    with lview.temp_flags(after=f"{msg_id}000"), pytest.raises(ImpossibleDependency):
        lview.apply_sync(int)


def test_detached_tasks_and_others_cannot_depend_on_each_other(rc: Client) -> None:
    own, detached = rc.load_balanced_view(), rc.load_balanced_view(detached=True)
    with pytest.raises(InvalidDependency, match="detached"):
        detached.set_flags(after=own.apply_async(int))
    with pytest.raises(InvalidDependency, match="detached"):
        own.set_flags(follow=detached.apply_async(int))


# Many.


def test_many_clients_get_their_own_results_at_the_same_time(connect: Connect) -> None:
    views = [connect().load_balanced_view(detached=True) for _ in range(5)]
    results = [[view.apply_async(operator.mul, n, i) for i in range(20)] for n, view in enumerate(views)]
    for n, mine in enumerate(results):
        assert [result.get(TIMEOUT_S) for result in mine] == [n * i for i in range(20)]


def test_pieces_of_a_map_come_while_it_runs(rc: Client, theirs: LoadBalancedView, gate: Gate) -> None:
    pass_through = gate.pass_through
    left = theirs.map_async(lambda x: x if x else pass_through(), [1, 2, 0], chunksize=1)
    gate.wait_arrived()
    result = rc.get_result(left.msg_ids[0])
    wait_until(lambda: result.progress == 2)
    gate.open()
    assert result.get(TIMEOUT_S) == [1, 2, "passed"]


# As all calls.


def test_a_client_waits_for_a_task_of_another_by_its_id(rc: Client, theirs: LoadBalancedView) -> None:
    (msg_id,) = theirs.apply_async(abs, -1).msg_ids
    assert rc.wait(msg_id, TIMEOUT_S)
    with pytest.raises(ResultUnavailable):
        rc.wait(msg_id.rpartition(":")[0] + ":1000000")


def test_bad_options_cost_the_scheduler_nothing(lview: LoadBalancedView) -> None:
    kept = lview.apply_async(abs, -2)
    for wrong in WRONG_SIZES:
        with pytest.raises(InvalidArgument, match="takes chunksize as a whole number, 1 or more, or None, not"):
            lview.map(abs, [1], chunksize=wrong)
    for flags in WRONG_FLAGS:
        with pytest.raises(InvalidArgument, match=f"takes {next(iter(flags))} as"):
            lview.with_flags(**flags)
    assert lview.with_flags(detached=np.True_, retries=np.int8(1)).apply_sync(abs, -1) == 1
    assert kept.get(TIMEOUT_S) == 2


def test_a_policy_that_fails_where_detached_tasks_are_scheduled_harms_none(rc: Client) -> None:
    class Broken:
        def choose_engine(self, task: Any, engines: Any) -> int:
            raise SystemExit(3)

    view = rc.load_balanced_view(policy=Broken(), detached=True)
    assert view.map(abs, [-1, 2, -3]).get(TIMEOUT_S) == [1, 2, 3]
    assert view.apply_async(abs, -4).get(TIMEOUT_S) == 4
