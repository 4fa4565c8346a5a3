"""Views as executors of the standard library."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future
from typing import Any

import pytest

from nsactors import Client, Cluster, DirectView
from nsactors.errors import RemoteError, SerializationError
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate, wait_until
from nsactors.views.executor import ViewExecutor
from tests.contract.conftest import ENGINES


class Held:
    """Something that can be watched by weak references, and pickled."""


@pytest.fixture
def executor(rc: Client) -> Iterator[ViewExecutor]:
    with rc.load_balanced_view().executor as executor:
        yield executor


@pytest.fixture
def held_up(executor: ViewExecutor, gate: Gate) -> list[Future[Any]]:
    """One call on each engine, which ends when the gate is opened."""
    calls: list[Future[Any]] = [executor.submit(gate.pass_through) for _ in range(ENGINES)]
    gate.wait_arrived(ENGINES)
    return calls


def capture(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return args, kwargs


# Calls.


def test_a_call_gives_a_future_of_its_value(executor: ViewExecutor) -> None:
    future = executor.submit(pow, 2, 5)
    assert isinstance(future, Future)
    assert future.result(TIMEOUT_S) == 32
    assert future.done()
    assert not future.running()


@pytest.mark.once
def test_all_keywords_go_to_the_function(executor: ViewExecutor) -> None:
    future = executor.submit(capture, 1, self=2, fn=3, timeout=4)
    assert future.result(TIMEOUT_S) == ((1,), {"self": 2, "fn": 3, "timeout": 4})


def test_a_failure_is_raised_as_what_it_is(executor: ViewExecutor) -> None:
    future = executor.submit(divmod, 1, 0)
    assert isinstance(future.exception(TIMEOUT_S), ZeroDivisionError)
    with pytest.raises(RemoteError, match="by zero"):
        future.result()


@pytest.mark.once
def test_what_cannot_be_pickled_is_refused_at_once(executor: ViewExecutor) -> None:
    with pytest.raises(SerializationError):
        executor.submit(print, threading.Lock())


def test_a_future_tells_what_any_result_does(executor: ViewExecutor) -> None:
    future = executor.submit(print, "hello")
    assert future.get(TIMEOUT_S) is None
    assert future.stdout == "hello\n"
    assert future.engine_id in range(ENGINES)


def test_a_direct_view_has_an_executor_of_its_engines(dv: DirectView, rc: Client) -> None:
    future = rc[2].executor.submit(abs, -1)
    assert (future.result(TIMEOUT_S), future.engine_id) == (1, 2)
    with dv.executor as executor:
        assert executor.submit(abs, -1).result(TIMEOUT_S) == 1


@pytest.mark.once
def test_a_client_has_executors_of_engines(rc: Client) -> None:
    with rc.executor([1, 3]) as executor:
        futures = [executor.submit(abs, -n) for n in range(8)]
        assert [future.result(TIMEOUT_S) for future in futures] == list(range(8))
    assert {future.engine_id for future in futures} <= {1, 3}


@pytest.mark.once
def test_flags_of_the_view_count(rc: Client) -> None:
    lview = rc.load_balanced_view()
    with lview.temp_flags(label="mine"):
        future = lview.executor.submit(abs, -1)
    assert future.metadata.label == "mine"
    assert future.result(TIMEOUT_S) == 1


# Waiting.


def test_futures_can_be_waited_for_with_those_of_other_executors(
    executor: ViewExecutor, held_up: list[Future[Any]], gate: Gate
) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        other = threads.submit(abs, -1)
        done, pending = concurrent.futures.wait([*held_up, other], TIMEOUT_S, concurrent.futures.FIRST_COMPLETED)
    assert done == {other}
    gate.open()
    assert set(concurrent.futures.as_completed(pending, TIMEOUT_S)) == set(held_up)


@pytest.mark.once
def test_waiting_for_the_first_exception_ends_with_it(
    executor: ViewExecutor, held_up: list[Future[Any]], gate: Gate, rc: Client
) -> None:
    failing = executor.submit(divmod, 1, 0)
    gate.open()
    done, _ = concurrent.futures.wait([failing, *held_up], TIMEOUT_S, concurrent.futures.FIRST_EXCEPTION)
    assert failing in done


def test_a_timeout_leaves_the_call_alone(held_up: list[Future[Any]], gate: Gate) -> None:
    with pytest.raises(TimeoutError):
        held_up[0].result(0.01)
    gate.open()
    assert held_up[0].result(TIMEOUT_S) == "passed"


@pytest.mark.once
def test_an_event_loop_awaits_calls_of_an_executor(executor: ViewExecutor) -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, pow, 2, n) for n in range(5)))

    assert asyncio.run(main()) == [1, 2, 4, 8, 16]


@pytest.mark.once
def test_callbacks_are_called_with_the_future_before_shutdown_returns(rc: Client) -> None:
    ended: list[Future[Any]] = []
    with rc.load_balanced_view().executor as executor:
        futures = [executor.submit(abs, -n) for n in range(20)]
        for future in futures:
            future.add_done_callback(ended.append)
    assert set(ended) == set(futures)


@pytest.mark.once
def test_a_callback_may_submit_more_and_wait_for_it(executor: ViewExecutor) -> None:
    values: list[int] = []
    more = threading.Event()

    def submit_more(future: Future[int]) -> None:
        values.append(executor.submit(abs, -future.result()).result(TIMEOUT_S))
        more.set()

    executor.submit(abs, -3).add_done_callback(submit_more)
    assert more.wait(TIMEOUT_S)
    assert values == [3]


# Cancelling.


def test_a_call_that_waits_can_be_cancelled_and_never_runs(
    executor: ViewExecutor, held_up: list[Future[Any]], gate: Gate, gates: Callable[[], Gate]
) -> None:
    never = gates()
    waiting = executor.submit(never.pass_through)
    told: list[Future[Any]] = []
    waiting.add_done_callback(told.append)
    assert waiting.cancel()
    assert waiting.cancelled()
    assert waiting.cancel(), "again"
    assert concurrent.futures.wait([waiting], TIMEOUT_S).done == {waiting}
    with pytest.raises(CancelledError):
        waiting.result(TIMEOUT_S)
    gate.open()
    assert [future.result(TIMEOUT_S) for future in held_up] == ["passed"] * ENGINES
    executor.shutdown()
    assert not never.has_visitor()
    assert told == [waiting]


def test_a_call_that_runs_cannot_be_cancelled(held_up: list[Future[Any]], gate: Gate) -> None:
    assert held_up[0].running()
    assert not held_up[0].cancel()
    assert not held_up[0].cancelled()
    gate.open()
    assert held_up[0].result(TIMEOUT_S) == "passed"
    assert not held_up[0].cancel(), "it has ended"


# Maps.


@pytest.mark.once
def test_a_map_gives_results_in_order(executor: ViewExecutor) -> None:
    assert list(executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
    assert list(executor.map(pow, range(10), range(10), chunksize=3)) == list(map(pow, range(10), range(10)))
    assert list(executor.map(abs, [])) == []


@pytest.mark.once
def test_a_map_of_many_items_is_a_few_messages(executor: ViewExecutor) -> None:
    assert sum(executor.map(abs, range(50_000))) == sum(range(50_000))


@pytest.mark.once
def test_a_map_raises_a_failure_in_its_place(executor: ViewExecutor) -> None:
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert [next(results), next(results)] == [(0, 1), (0, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_a_map_whose_time_is_up_raises_and_takes_back_what_has_not_begun(
    executor: ViewExecutor, held_up: list[Future[Any]], gate: Gate, rc: Client
) -> None:
    results = executor.map(abs, range(3), timeout=0.05)
    with pytest.raises(TimeoutError):
        next(results)
    gate.open()
    wait_until(lambda: not rc.tasks())


def test_a_map_that_nobody_reads_on_is_taken_back(
    executor: ViewExecutor, gate: Gate, gates: Callable[[], Gate], rc: Client
) -> None:
    never = gates()
    results = executor.map(lambda n: n if n < 1 else never.pass_through() if n > 8 else gate.pass_through(), range(99))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]  # it is a generator
    gate.open()
    never.open()
    wait_until(lambda: not rc.tasks())


@pytest.mark.once
def test_a_map_lets_go_of_what_it_has_given(executor: ViewExecutor) -> None:
    for held in executor.map(lambda _: Held(), range(10)):
        watch = weakref.ref(held)
        del held
        wait_until(lambda watch=watch: watch() is None)  # the thread that brought it may still be about to let go of it


@pytest.mark.once
def test_a_chunksize_below_one_is_refused(executor: ViewExecutor) -> None:
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(abs, [1], chunksize=0)


@pytest.mark.once
def test_input_of_a_map_may_wait_for_other_results(executor: ViewExecutor) -> None:
    futures = [executor.submit(abs, -n) for n in range(10)]
    assert list(executor.map(abs, (future.result(TIMEOUT_S) for future in futures))) == list(range(10))


# Its end.


@pytest.mark.once
def test_nothing_can_be_submitted_after_shutdown(executor: ViewExecutor) -> None:
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(abs, [1])


@pytest.mark.once
def test_a_view_has_another_executor_after_shutdown(rc: Client) -> None:
    lview = rc.load_balanced_view()
    first = lview.executor
    assert lview.executor is first
    assert lview.with_flags(retries=1).executor is not first
    first.shutdown()
    assert lview.executor.submit(abs, -1).result(TIMEOUT_S) == 1


@pytest.mark.once
def test_shutdown_waits_for_what_was_submitted(rc: Client) -> None:
    with rc.load_balanced_view().executor as executor:
        futures = [executor.submit(abs, -n) for n in range(100)]
        results = executor.map(abs, range(100))
    assert all(future.done() for future in futures)
    assert list(results) == list(range(100))


def test_shutdown_without_waiting_lets_calls_go_on(
    executor: ViewExecutor, held_up: list[Future[Any]], gate: Gate
) -> None:
    executor.shutdown(wait=False)
    assert not any(future.done() for future in held_up)
    gate.open()
    assert [future.result(TIMEOUT_S) for future in held_up] == ["passed"] * ENGINES


def test_shutdown_can_cancel_what_has_not_begun(executor: ViewExecutor, held_up: list[Future[Any]], gate: Gate) -> None:
    waiting = [executor.submit(abs, -n) for n in range(50)]
    results = executor.map(abs, range(50))
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    gate.open()
    executor.shutdown()
    assert [future.result(0) for future in held_up] == ["passed"] * ENGINES
    with pytest.raises(CancelledError):
        next(results)


@pytest.mark.once
def test_the_engines_outlive_it(rc: Client) -> None:
    with rc.load_balanced_view().executor as executor:
        executor.submit(abs, 1)
    assert rc.ids == list(range(ENGINES))


def test_it_is_broken_when_all_engines_have_gone(own_cluster: Callable[..., Cluster], gate: Gate) -> None:
    cluster = own_cluster(n=1, recovery="none")
    with cluster.start_and_connect_sync() as client:
        executor = client.load_balanced_view().executor
        futures = [executor.submit(gate.pass_through), executor.submit(abs, -1)]
        results = executor.map(abs, range(3))
        gate.wait_arrived()
        client.shutdown()
        for future in futures:
            with pytest.raises(BrokenExecutor, match="engines"):
                future.result(TIMEOUT_S)
        with pytest.raises(BrokenExecutor):
            next(results)
        with pytest.raises(BrokenExecutor):
            executor.submit(abs, -1)
        executor.shutdown()


@pytest.mark.once
def test_it_is_broken_when_the_cluster_has_stopped(own_cluster: Callable[..., Cluster]) -> None:
    cluster = own_cluster(n=1)
    with cluster.start_and_connect_sync() as client:
        executor = client.load_balanced_view().executor
        cluster.stop_cluster_sync()
        with pytest.raises(BrokenExecutor):
            executor.submit(abs, -1).result(TIMEOUT_S)


@pytest.mark.needs(Capability.PROCESS)
def test_calls_survive_the_death_of_a_worker(rc: Client, add_engines: Callable[[int], list[int]], gate: Gate) -> None:
    with rc.load_balanced_view(add_engines(2)).executor as executor:
        future = executor.submit(gate.pass_through)
        gate.wait_arrived()
        rc.shutdown(targets=future.engine_id)
        gate.wait_arrived()
        gate.open()
        assert future.result(TIMEOUT_S) == "passed"


@pytest.mark.once
def test_executors_that_are_dropped_leave_nothing_behind(rc: Client) -> None:
    executor = rc.load_balanced_view().executor
    assert executor.submit(abs, -1).result(TIMEOUT_S) == 1
    watch = weakref.ref(executor)
    del executor

    def is_gone() -> bool:
        gc.collect()
        return watch() is None

    wait_until(is_gone)  # the thread that brought the result may still be about to let go of it
