"""Results now or later: futures, awaiting, callbacks, what is known about a call (A3)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from nsactors import AsyncResult, Client, Cluster, CompositeError
from nsactors.testing import TIMEOUT_S, Gate, wait_until


def test_a_result_is_a_future_of_the_standard_library(rc: Client) -> None:
    future = rc[0].apply_async(abs, -1)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(TIMEOUT_S) == 1


@pytest.mark.once
def test_results_can_be_waited_for_as_any_future(rc: Client) -> None:
    futures = [rc[i].apply_async(abs, -i) for i in rc.ids]
    done, pending = concurrent.futures.wait(futures, TIMEOUT_S)
    assert (len(done), pending) == (4, set())


def test_results_are_given_as_they_complete(rc: Client, gate: Gate) -> None:
    slow, quick = rc[0].apply_async(gate.pass_through), rc[1].apply_async(abs, -1)
    gate.wait_arrived()
    completed = concurrent.futures.as_completed([slow, quick], TIMEOUT_S)
    assert next(completed) is quick
    gate.open()
    assert next(completed) is slow


def test_a_callback_is_called_with_the_finished_result(rc: Client) -> None:
    called: concurrent.futures.Future[object] = concurrent.futures.Future()
    future = rc[0].apply_async(abs, -1)
    future.add_done_callback(called.set_result)
    assert called.result(TIMEOUT_S) is future


@pytest.mark.once
def test_a_callback_may_ask_for_the_value_and_submit_more(rc: Client) -> None:
    more: concurrent.futures.Future[AsyncResult] = concurrent.futures.Future()
    rc[0].apply_async(abs, -1).add_done_callback(lambda f: more.set_result(rc[0].apply_async(abs, f.result() - 5)))
    assert more.result(TIMEOUT_S).get(TIMEOUT_S) == 4


def test_a_result_can_be_awaited(rc: Client) -> None:
    async def main() -> list[int]:
        return await rc[:].apply_async(abs, -1)

    assert asyncio.run(asyncio.wait_for(main(), TIMEOUT_S)) == [1] * 4


@pytest.mark.once
def test_awaiting_a_failed_result_raises_what_it_raised(rc: Client) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await rc[0].execute("1/0")

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))


@pytest.mark.once
def test_many_results_are_awaited_at_once(rc: Client) -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(rc[i].apply_async(abs, -i) for i in rc.ids))

    assert asyncio.run(asyncio.wait_for(main(), TIMEOUT_S)) == [0, 1, 2, 3]


def test_a_loop_goes_on_while_a_result_is_awaited(rc: Client, gate: Gate) -> None:
    async def open_it() -> None:
        await asyncio.to_thread(gate.wait_arrived)
        gate.open()

    async def main() -> list[object]:
        return await asyncio.gather(rc[0].apply_async(gate.pass_through), open_it())

    assert asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))[0] == "passed"


def test_a_cluster_is_entered_and_left_asynchronously(backend: str) -> None:
    async def main() -> list[int]:
        async with Cluster(n=1, backend=backend) as client:
            return await client[:].apply_async(abs, -1)

    assert asyncio.run(asyncio.wait_for(main(), TIMEOUT_S)) == [1]


def test_a_result_that_is_not_there_in_time_raises_the_built_in_timeout_error(rc: Client, gate: Gate) -> None:
    result = rc[:2].apply_async(gate.pass_through)
    gate.wait_arrived(2)
    with pytest.raises(TimeoutError, match="0 of 2"):
        result.get(timeout=0)
    gate.open()
    assert result.get(TIMEOUT_S) == ["passed"] * 2


@pytest.mark.once
@pytest.mark.parametrize("method", ["result", "exception"])
def test_the_methods_of_futures_time_out_too(rc: Client, gate: Gate, method: str) -> None:
    result = rc[0].apply_async(gate.pass_through)
    with pytest.raises(TimeoutError):
        getattr(result, method)(timeout=0)


@pytest.mark.sampled
@pytest.mark.parametrize("method", ["result", "exception"])
def test_the_methods_of_futures_wait_on_when_one_engine_has_failed(
    rc: Client, gates: Callable[[], Gate], method: str
) -> None:
    first, second = gates(), gates()
    rc[0]["wait"], rc[1]["wait"] = first.pass_through, second.pass_through
    result = rc[:2].execute("wait(); failing")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(lambda: getattr(result, method)(TIMEOUT_S))
        first.open()
        wait_until(lambda: result.progress == 1)
        second.open()
        assert isinstance(waiting.exception(TIMEOUT_S) or waiting.result(), CompositeError)


@pytest.mark.once
def test_waiting_says_whether_the_result_is_there(rc: Client, gate: Gate) -> None:
    result = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    before = result.wait(0), result.ready()
    gate.open()
    assert (before, result.wait(TIMEOUT_S), result.ready()) == ((False, False), True, True)


def test_waiting_for_the_first_gives_the_parts_that_are_done(rc: Client, gate: Gate) -> None:
    rc[1:3].push({"pass_gate": gate.pass_through}, block=True)
    rc[0].push({"pass_gate": None}, block=True)
    result = rc[:3].execute("pass_gate and pass_gate()")
    gate.wait_arrived(2)
    done, pending = result.wait(TIMEOUT_S, return_when=concurrent.futures.FIRST_COMPLETED)
    assert ([part.engine_id for part in done], len(pending)) == ([0], 2)


@pytest.mark.once
def test_a_result_that_is_not_done_is_neither_successful_nor_not(rc: Client, gate: Gate) -> None:
    result = rc[0].apply_async(gate.pass_through)
    with pytest.raises(RuntimeError, match="not done"):
        result.successful()


@pytest.mark.once
def test_a_failed_result_is_not_successful(rc: Client) -> None:
    result = rc[0].execute("1/0")
    assert result.wait(TIMEOUT_S)
    assert not result.successful()


@pytest.mark.once
def test_a_failed_result_gives_its_exception(rc: Client) -> None:
    assert isinstance(rc[0].execute("1/0").exception(TIMEOUT_S), ZeroDivisionError)


@pytest.mark.once
def test_r_is_the_value(rc: Client) -> None:
    assert rc[0].apply_async(abs, -1).r == 1


def test_values_come_by_engine_id(rc: Client) -> None:
    result = rc[[3, 1]].apply_async(abs, -1)
    assert (result.get_dict(TIMEOUT_S), result.result_dict) == ({3: 1, 1: 1}, {3: 1, 1: 1})


@pytest.mark.once
def test_items_come_by_engine_id_only_where_each_engine_has_one(rc: Client) -> None:
    view = rc[[3, 1]]
    view.scatter("part", [10, 20], block=True)
    assert view.map_async(abs, [-1, -2], dist=lambda n, parts: [[1], [0]]).get_dict() == {3: 2, 1: 1}
    assert view.gather("part", block=False).get_dict() == {3: 10, 1: 20}
    view.scatter("part", range(4), block=True)
    for result in (view.map_async(abs, range(4)), view.gather("part", block=False)):
        with pytest.raises(ValueError, match="has items, not one value for each engine"):
            result.get_dict()


@pytest.mark.once
def test_items_of_a_balanced_map_have_engines_too(rc: Client) -> None:
    result = rc.load_balanced_view(targets=[1]).map_async(abs, [-1])
    assert result.get_dict() == {1: 1}
    with pytest.raises(ValueError, match="has items, not one value for each engine"):
        rc.load_balanced_view(targets=[1]).map_async(abs, [-1, -2], chunksize=1).get_dict()


@pytest.mark.once
def test_a_result_has_the_length_of_its_engines(rc: Client) -> None:
    assert len(rc[:3].apply_async(abs, 1)) == 3


@pytest.mark.once
def test_values_are_indexed_once_they_are_there(rc: Client, gate: Gate) -> None:
    result = rc[:].apply_async(gate.pass_through)
    with pytest.raises(TimeoutError):
        result[0]
    gate.open()
    assert result.wait(TIMEOUT_S)
    assert (result[0], result[1:3]) == ("passed", ["passed", "passed"])


def test_values_are_iterated_as_they_come(rc: Client, gate: Gate) -> None:
    rc[0].push({"f": int}, block=True)
    rc[1].push({"f": gate.pass_through}, block=True)
    values = iter(rc[:2].pull("f()"))
    gate.wait_arrived()
    assert next(values) == 0
    gate.open()
    assert list(values) == ["passed"]


@pytest.mark.once
def test_a_single_value_cannot_be_iterated(rc: Client) -> None:
    with pytest.raises(TypeError, match="one value"):
        iter(rc[0].apply_async(abs, 1))


@pytest.mark.once
def test_results_are_joined_into_one(rc: Client) -> None:
    joined = AsyncResult.join(rc[0].apply_async(abs, -1), rc[1:3].apply_async(abs, -2))
    assert joined.get(TIMEOUT_S) == [1, 2, 2]


@pytest.mark.once
def test_a_joined_result_returns_exceptions_if_all_its_parts_do(rc: Client) -> None:
    def map_of(items: list[int], **options: bool) -> AsyncResult:
        return rc[0].map_async(lambda x: 1 // x, items, **options)

    tolerant = map_of([1], return_exceptions=True), map_of([0], return_exceptions=True)
    good, [failed] = AsyncResult.join(*tolerant).get(TIMEOUT_S)
    assert (good, type(failed.original)) == ([1], ZeroDivisionError)
    strict = map_of([0])
    with pytest.raises(CompositeError):
        AsyncResult.join(tolerant[0], strict).get(TIMEOUT_S)


@pytest.mark.once
def test_a_result_is_split_by_engine(rc: Client) -> None:
    assert [part.get(TIMEOUT_S) for part in rc[:].apply_async(abs, -1).split()] == [1] * 4


@pytest.mark.once
def test_the_metadata_have_the_keys_that_ipyparallel_users_know(rc: Client) -> None:
    result = rc[0].execute("print(1)", silent=False)
    result.get(TIMEOUT_S)
    assert result.metadata.keys() >= {
        "msg_id", "submitted", "started", "completed", "received", "engine_id", "status", "execution_count",
        "execute_result", "stdout", "stderr", "outputs", "error",
    }  # fmt: skip


def test_the_times_of_a_call_are_in_order_and_aware(rc: Client) -> None:
    result = rc[0].apply_async(abs, -1)
    result.get(TIMEOUT_S)
    times = [result.metadata[name] for name in ("submitted", "started", "completed", "received")]
    assert times == sorted(times)
    assert all(isinstance(time, datetime.datetime) and time.tzinfo for time in times)


@pytest.mark.once
def test_metadata_are_attributes_of_the_result(rc: Client) -> None:
    single, many = rc[2].apply_async(abs, -1), rc[:2].apply_async(abs, -1)
    single.get(TIMEOUT_S)
    many.get(TIMEOUT_S)
    assert (single.engine_id, single.status, many.engine_id, many.status) == (2, "ok", [0, 1], ["ok", "ok"])


@pytest.mark.once
def test_an_unknown_attribute_of_a_result_is_an_attribute_error(rc: Client) -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        rc[0].apply_async(abs, -1).nonsense  # noqa: B018


def test_metadata_can_be_read_while_the_call_runs(rc: Client, gate: Gate) -> None:
    result = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    assert (result.status, result.completed) == ("pending", None)


@pytest.mark.once
def test_a_call_knows_how_long_it_took(rc: Client) -> None:
    result = rc[:].apply_async(abs, -1)
    result.get(TIMEOUT_S)
    assert 0 < result.wall_time == result.elapsed < TIMEOUT_S
    assert 0 <= result.serial_time < 4 * TIMEOUT_S


@pytest.mark.once
def test_there_is_no_wall_time_before_the_end(rc: Client, gate: Gate) -> None:
    result = rc[0].apply_async(gate.pass_through)
    assert result.elapsed >= 0
    with pytest.raises(TimeoutError):
        result.wall_time  # noqa: B018


@pytest.mark.once
def test_progress_counts_the_engines_that_have_answered(rc: Client, gate: Gate) -> None:
    rc[0].push({"f": int}, block=True)
    rc[1].push({"f": gate.pass_through}, block=True)
    result = rc[:2].pull("f()")
    gate.wait_arrived()
    next(iter(result))
    assert (result.progress, "1 of 2" in repr(result)) == (1, True)
    gate.open()
    result.get(TIMEOUT_S)
    assert result.progress == 2


@pytest.mark.once
def test_a_result_shows_its_state(rc: Client) -> None:
    finished, failed = rc[0].apply_async(abs, -1), rc[0].execute("1/0")
    assert finished.wait(TIMEOUT_S)
    assert failed.wait(TIMEOUT_S)
    assert (repr(finished), repr(failed)) == ("<AsyncResult(apply(abs)): finished>", "<AsyncResult(execute): failed>")


def test_a_result_can_be_asked_for_from_several_threads(rc: Client, gate: Gate) -> None:
    result = rc[0].apply_async(gate.pass_through)
    values: list[str] = []
    threads = [threading.Thread(target=lambda: values.append(result.get(TIMEOUT_S))) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.open()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert values == ["passed"] * 3


def test_calls_are_submitted_from_several_threads(rc: Client) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        values = list(pool.map(lambda n: rc[n % 4].apply_async(abs, -n).get(TIMEOUT_S), range(40), timeout=TIMEOUT_S))
    assert values == list(range(40))


def test_waiting_for_everything_waits_for_every_call(rc: Client, gate: Gate) -> None:
    results = [rc[i].apply_async(gate.pass_through) for i in rc.ids]
    assert not rc.wait(timeout=0)
    gate.open()
    assert rc.wait(timeout=TIMEOUT_S)
    assert all(result.done() for result in results)


@pytest.mark.once
def test_waiting_for_chosen_results_waits_for_them_alone(rc: Client, gate: Gate) -> None:
    held, quick = rc[0].apply_async(gate.pass_through), rc[1].apply_async(abs, -1)
    assert rc.wait([quick], timeout=TIMEOUT_S)
    assert not held.done()


def test_a_callback_that_raises_does_not_stop_the_client(rc: Client, caplog: pytest.LogCaptureFixture) -> None:
    result = rc[0].apply_async(abs, -1)
    result.add_done_callback(_fail)
    result.get(TIMEOUT_S)
    assert rc[0].apply_async(abs, -2).get(TIMEOUT_S) == 2


def _fail(future: object) -> None:
    raise ValueError("a callback may fail")
