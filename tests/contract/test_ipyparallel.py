"""Programs written for ipyparallel mean the same on engines of nsactors."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import nsactors.ipyparallel as ipp
from nsactors import Cluster
from nsactors.ipyparallel.client import client as client_module
from nsactors.ipyparallel.client import records as records_module
from nsactors.ipyparallel.client import view as view_module
from nsactors.ipyparallel.error import NotProvided
from nsactors.testing import TIMEOUT_S, Gate, wait_until

ENGINES = 4


@pytest.fixture
def rc(cluster: Cluster) -> Iterator[ipp.Client]:
    with ipp.Client(cluster.connect_client_sync()) as client:
        client[:].clear(block=True)
        yield client


@pytest.fixture
def view(rc: ipp.Client) -> ipp.DirectView:
    return rc[:]


@pytest.fixture
def lview(rc: ipp.Client) -> ipp.LoadBalancedView:
    return rc.load_balanced_view()


def divide(x: int) -> float:
    return 1 / x


@pytest.mark.once
def test_views_know_their_targets_as_ipyparallel_has_them(rc: ipp.Client) -> None:
    assert rc[:].targets == rc.ids
    assert rc[0].targets == rc.ids[0]
    assert rc[-1].targets == rc.ids[-1]
    assert rc[::2].targets == rc.ids[::2]
    assert rc.direct_view().targets == "all"
    assert rc.load_balanced_view().targets is None
    assert rc.load_balanced_view(-1).targets == [rc.ids[-1]]
    assert [one.targets for one in rc] == rc.ids
    with pytest.raises(TypeError):
        rc[None]
    with pytest.raises(IndexError):
        rc[10_000]


def test_names_are_pushed_pulled_scattered_and_gathered(view: ipp.DirectView) -> None:
    view["a"] = 5
    view.push({"b": 6}, block=True)
    assert view["a"] == [5] * ENGINES
    assert view.pull(["a", "b"], targets=0, block=True) == [5, 6]
    assert view.scatter("s", range(10), block=True) is None
    assert list(view.gather("s", block=True)) == list(range(10))
    assert view.apply_sync(lambda x: x + 1, ipp.Reference("a")) == [6] * ENGINES
    with pytest.raises(TypeError):
        view.push(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        view.pull(5)


def test_results_have_what_ipyparallel_tells_of_them(view: ipp.DirectView) -> None:
    result = view.apply_async(divide, 2)
    assert isinstance(result, ipp.AsyncResult)
    assert result.get() == [0.5] * ENGINES
    assert result.get_dict() == dict.fromkeys(view.targets, 0.5)
    assert result.engine_id == view.targets
    assert result.status == ["ok"] * ENGINES
    assert all(isinstance(time, datetime) for time in result.completed)
    assert result["msg_id"] == result.msg_ids
    assert result.stdout == [""] * ENGINES
    assert result.wall_time > 0
    assert result.timedelta(result.submitted, result.received) > 0
    assert not hasattr(result, "foo")
    with pytest.raises(KeyError):
        result["foo"]


@pytest.mark.once
def test_a_single_result_is_no_list(rc: ipp.Client) -> None:
    result = rc[0].apply_async(divide, 2)
    assert result.get() == 0.5
    assert result.engine_id == 0
    assert rc[[0]].apply_sync(divide, 2) == [0.5]
    with pytest.raises(TypeError):
        iter(result)


def test_errors_are_those_of_both_libraries(view: ipp.DirectView) -> None:
    result = view.apply_async(divide, 0)
    with pytest.raises(ipp.CompositeError) as info:
        result.get()
    assert isinstance(info.value, ipp.RemoteError)
    assert [entry[0] for entry in info.value.elist] == ["ZeroDivisionError"] * ENGINES
    with pytest.raises(ZeroDivisionError) as one:
        info.value.raise_exception()
    assert isinstance(one.value, ipp.RemoteError)
    assert one.value.ename == "ZeroDivisionError"
    assert all(isinstance(error, ipp.RemoteError) for error in result.get(return_exceptions=True))
    assert not result.successful()
    assert isinstance(result.exception(), ipp.CompositeError)


@pytest.mark.once
def test_a_map_is_one_sequence_and_counts_in_items(view: ipp.DirectView, lview: ipp.LoadBalancedView) -> None:
    for some in (view, lview):
        result = some.map_async(divide, range(1, 11))
        assert isinstance(result, ipp.AsyncMapResult)
        assert len(result) == 10
        assert list(result) == result.get() == [divide(x) for x in range(1, 11)]
        assert result.progress == 10
    with pytest.raises(ipp.RemoteError):
        list(view.map_async(divide, range(3)))
    values = lview.map_sync(divide, [1, 0], return_exceptions=True)
    assert values[0] == 1
    assert isinstance(values[1], ipp.RemoteError)
    for forbidden in (view.map_async, view.map_sync):
        with pytest.raises(TypeError, match="block"):
            forbidden(divide, [1], block=True)


def test_each_chunk_of_a_balanced_map_has_an_id_and_a_result(rc: ipp.Client, lview: ipp.LoadBalancedView) -> None:
    result = lview.map_async(divide, range(1, 6), chunksize=2, label="mine")
    chunks = [[1, 1 / 2], [1 / 3, 1 / 4], [1 / 5]]
    assert len(set(result.msg_ids)) == 3
    assert rc.history[-3:] == lview.history[-3:] == result.msg_ids
    assert [part.get(TIMEOUT_S) for part in result.split()] == [[chunk] for chunk in chunks]
    assert [rc.get_result(msg_id).get() for msg_id in result.msg_ids] == chunks
    assert result.get(TIMEOUT_S) == [divide(x) for x in range(1, 6)]
    assert [rc.results[msg_id] for msg_id in result.msg_ids] == chunks
    assert result["msg_id"] == result.msg_ids
    assert set(result.engine_id) <= set(rc.ids)
    assert {row["label"] for row in result.metadata} == {"mine"}
    assert [record["msg_id"] for record in rc.db_query({"label": "mine"})][-3:] == result.msg_ids
    assert lview.map_async(divide, []).get(TIMEOUT_S) == []


@pytest.mark.once
def test_what_is_remembered_of_a_long_loop_is_bounded(rc: ipp.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, limit = 20, 30
    for module in (view_module, client_module, records_module):
        monkeypatch.setattr(module, "KEPT", kept)
    monkeypatch.setattr(records_module, "AGAIN_KEPT", limit)
    view, lview = rc[0], rc.load_balanced_view()
    for number in range(3 * kept):
        assert view.apply_sync(abs, -number) == number
        assert lview.map_sync(abs, range(3 * kept)) == list(range(3 * kept))
    last = lview.map_async(abs, range(-3 * kept, 0))
    assert last.get(TIMEOUT_S) == list(range(3 * kept, 0, -1))
    records = rc._records
    assert len(last.msg_ids) == 3 * kept
    assert rc.history == lview.history == last.msg_ids[-kept:]
    assert len(view.history) == len(records._own) == kept
    assert len(records._again) <= limit
    assert [record["msg_id"] for record in rc.db_query({"client_uuid": rc.core.name})] == last.msg_ids[-kept:]
    assert rc.outstanding == set()
    assert not rc._open
    # The thread that has ended a request may hold its result for a moment more.
    wait_until(lambda: gc.collect() >= 0 and set(rc._known) == {last.core.msg_ids[0]})


def test_chunks_end_and_fail_one_by_one(rc: ipp.Client, lview: ipp.LoadBalancedView, gate: Gate) -> None:
    result = lview.map_async(lambda f: f(), [int, gate.pass_through, lambda: divide(0), str])
    first, second, third, last = result.msg_ids
    gate.wait_arrived()
    assert rc.wait({first, third, last}, TIMEOUT_S)
    assert rc.outstanding == {second}
    assert rc.get_result(first).get() == [0]
    with pytest.raises(ipp.RemoteError):
        rc.get_result(third).get()
    with pytest.raises(NotProvided, match="aborts all"):
        rc.abort(lview.map_async(lambda f: f(), [gate.pass_through] * 2).msg_ids[:1])
    lview.abort()
    gate.open()
    done, _ = result.wait(TIMEOUT_S, return_when=ipp.ALL_COMPLETED)
    assert len(done) == 4
    with pytest.raises(ipp.CompositeError):
        result.get()


@pytest.mark.once
def test_tasks_wait_for_a_whole_map_as_for_one_of_its_chunks(rc: ipp.Client, lview: ipp.LoadBalancedView) -> None:
    result = lview.map_async(divide, range(1, 4))
    for before in (result, result.msg_ids[0]):
        with lview.temp_flags(after=before):
            after = lview.apply_async(divide, 2)
        assert after.get(TIMEOUT_S) == 0.5
        assert after.started >= max(result.completed)


@pytest.mark.once
def test_flags_are_attributes_that_are_set_for_good_or_for_a_while(
    view: ipp.DirectView, lview: ipp.LoadBalancedView
) -> None:
    view.block = True
    assert view.apply(divide, 1) == [1.0] * ENGINES
    with view.temp_flags(block=False, label="mine"):
        result = view.apply(divide, 1)
        assert result.get() == [1.0] * ENGINES
    assert view.block
    assert view.label is None
    assert result.label == ["mine"] * ENGINES
    with pytest.raises(KeyError):
        view.set_flags(unheard_of=1)
    with pytest.raises(ValueError, match="dependency"):
        lview.set_flags(after=5)
    with pytest.raises(ValueError, match="timeout"):
        lview.timeout = -1
    with pytest.raises(TypeError):
        lview.timeout = "5"


@pytest.mark.once
def test_tasks_wait_for_and_follow_others(lview: ipp.LoadBalancedView) -> None:
    first = lview.apply_async(divide, 1)
    with lview.temp_flags(after=first):
        second = lview.apply_async(divide, 2)
    assert second.get() == 0.5
    assert second.started >= first.completed
    with lview.temp_flags(follow=ipp.Dependency([first])):
        third = lview.apply_async(divide, 4)
    assert third.get() == 0.25
    assert third.engine_id == first.engine_id
    assert third.follow == first.msg_ids


@pytest.mark.once
def test_conditions_that_no_engine_meets_are_impossible(lview: ipp.LoadBalancedView) -> None:
    @ipp.depend(lambda: False)
    def never() -> None: ...

    @ipp.require("math")
    def root(x: float) -> Any:
        return math.sqrt(x)  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ipp.ImpossibleDependency) as info:
        lview.apply_sync(never)
    assert isinstance(info.value, ipp.RemoteError)
    assert info.value.ename == "ImpossibleDependency"
    assert lview.apply_sync(root, 4.0) == 2.0


@pytest.mark.once
def test_a_lazy_map_takes_no_more_than_it_may(lview: ipp.LoadBalancedView) -> None:
    source = itertools.count()
    items = lview.imap(abs, source, max_outstanding=3)
    assert [next(items) for _ in range(4)] == [0, 1, 2, 3]
    items.cancel()
    rest = list(items)
    assert next(source) == 4 + len(rest)
    assert len(rest) <= 3
    assert sorted(lview.imap(abs, range(5), ordered=False)) == [0, 1, 2, 3, 4]
    assert list(lview.imap(abs, range(5), max_outstanding=0)) == [0, 1, 2, 3, 4]


@pytest.mark.once
def test_views_are_executors_and_results_futures(rc: ipp.Client, lview: ipp.LoadBalancedView) -> None:
    with rc.executor() as executor:
        futures = [executor.submit(pow, 2, n) for n in range(5)]
        done = concurrent.futures.as_completed(futures, TIMEOUT_S)
        assert sorted(future.result() for future in done) == [1, 2, 4, 8, 16]
        assert list(executor.map(abs, [-1, -2])) == [1, 2]
    told: list[Any] = []
    result = lview.apply_async(abs, -3)
    concurrent.futures.wait([result], TIMEOUT_S)
    result.add_done_callback(told.append)
    rc.wait(timeout=TIMEOUT_S)
    assert result.done()


@pytest.mark.once
def test_functions_are_decorated(view: ipp.DirectView, lview: ipp.LoadBalancedView) -> None:
    @view.remote(block=True)
    def where() -> int:
        """Where it is."""
        return 5

    assert where() == [5] * ENGINES
    assert (where.__doc__ or "").endswith("Where it is.")
    where.block = False
    assert isinstance(where(), ipp.AsyncResult)
    for some in (view, lview):
        double = some.parallel(block=True)(lambda items: [2 * item for item in items])
        assert double(range(7)) == [0, 2, 4, 6, 8, 10, 12]
        assert double.map([[1], [2]]) == [[2], [4]]
        with pytest.raises(ValueError, match="equal length"):
            double([1], [2, 3])
        assert double([]) == []


@pytest.mark.once
def test_a_parallel_function_has_a_request_for_each_part(
    rc: ipp.Client, view: ipp.DirectView, lview: ipp.LoadBalancedView
) -> None:
    def double(items: Any) -> list[int]:
        return [2 * item for item in items]

    few, many = (view.parallel(block=False)(double)(range(n)) for n in (2, 4 * ENGINES))
    single = lview.parallel(block=False)(double)(range(5))
    chunks = ipp.ParallelFunction(lview, double, chunksize=3, block=False)(range(7))
    results = (few, many, single, chunks)
    for result in results:
        assert result.wait(TIMEOUT_S)
    assert [len(result.split()) for result in results] == [2, ENGINES, 5, 3]
    assert [len(result.msg_ids) for result in results] == [2, ENGINES, 5, 3]
    assert [part.get() for part in chunks.split()] == [[[0, 2, 4]], [[6, 8, 10]], [[12]]]
    assert [rc.get_result(msg_id).get() for msg_id in chunks.msg_ids] == [[0, 2, 4], [6, 8, 10], [12]]
    assert rc.history[-3:] == lview.history[-3:] == chunks.msg_ids
    assert chunks.get() == [0, 2, 4, 6, 8, 10, 12]
    forgiving = ipp.ParallelFunction(lview, lambda items: 1 / items[0], block=True, return_exceptions=True)
    assert isinstance(forgiving([0, 1])[0], ZeroDivisionError)


def test_functions_see_the_clients_globals_where_the_program_says_so(
    view: ipp.DirectView, lview: ipp.LoadBalancedView, monkeypatch: pytest.MonkeyPatch
) -> None:
    @ipp.interactive
    def pair() -> tuple[str, str]:
        return first, second  # type: ignore[name-defined]  # noqa: F821

    view.push({"first": "engine", "second": "engine"}, block=True)
    monkeypatch.setattr(sys.modules["__main__"], "first", "client", raising=False)
    # Engines that are threads share this process, and its ``__main__``.
    view.use_cloudpickle().get(TIMEOUT_S)
    assert view.apply_sync(pair) == [("client", "engine")] * ENGINES
    assert lview.map_sync(lambda x: (x, pair()), [1]) == [(1, ("engine", "engine"))]  # it is of this module
    assert lview.apply_sync(pair) == ("client", "engine")
    view.use_pickle().get(TIMEOUT_S)
    assert view.apply_sync(pair) == [("engine", "engine")] * ENGINES


@pytest.mark.once
def test_parts_of_a_result_are_results(view: ipp.DirectView) -> None:
    result = view.apply_async(divide, 2)
    parts = result.split()
    assert result.split() is parts
    assert [part.get() for part in parts] == [0.5] * ENGINES
    assert ipp.AsyncResult.join(*parts).get() == result.get()
    done, pending = result.wait(TIMEOUT_S, return_when=ipp.ALL_COMPLETED)
    assert done == set(parts)
    assert pending == set()


def test_what_has_not_begun_is_aborted(rc: ipp.Client, gate: Gate) -> None:
    running = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    waiting = rc[0].apply_async(divide, 1)
    assert set(running.msg_ids + waiting.msg_ids) <= rc.outstanding
    waiting.abort()
    with pytest.raises(ipp.TaskAborted):
        waiting.get(TIMEOUT_S)
    assert waiting.status == "aborted"
    gate.open()
    running.get(TIMEOUT_S)
    assert rc.outstanding == set()
    with pytest.raises(RuntimeError):
        running.abort()


def test_requests_are_remembered_found_and_sent_again(rc: ipp.Client, lview: ipp.LoadBalancedView) -> None:
    with lview.temp_flags(label="sweep_1"):
        result = lview.apply_async(divide, 4)
    assert result.get() == 0.25
    assert rc.history[-1:] == lview.history == result.msg_ids == rc.hub_history()[-1:]
    (record,) = rc.db_query({"label": {"$glob": "sweep_*"}}, keys=["label", "completed"])
    assert record == {"msg_id": result.msg_ids[0], "label": "sweep_1", "completed": result.completed}
    assert rc.get_result(result.msg_ids[0]).get() == 0.25
    assert rc.get_result(-1).msg_ids == result.msg_ids
    again = rc.resubmit(result.msg_ids)
    assert isinstance(again, ipp.AsyncHubResult)
    assert again.get() == [0.25]
    assert rc.result_status(result)["completed"] == result.msg_ids
    assert rc.result_status(result, status_only=False)[result.msg_ids[0]] == 0.25
    with pytest.raises(ipp.RemoteError, match="nonesuch"):
        rc.resubmit("nonesuch")
    lview.map_sync(divide, range(1, 9), label="sweep_2")
    records = rc.db_query({"label": "sweep_2"})
    assert len(records) == 8
    assert all(record["completed"] >= record["started"] >= result.completed for record in records)
    rc.purge_everything()
    assert rc.history == rc.hub_history() == []


@pytest.mark.once
def test_records_are_found_by_state_and_time_and_purged(rc: ipp.Client, view: ipp.DirectView, gate: Gate) -> None:
    good, bad = view.apply_async(divide, 1), rc[0].apply_async(divide, 0)
    running = rc[1].apply_async(gate.pass_through)
    gate.wait_arrived()
    assert rc.wait([good, bad], TIMEOUT_S)

    def found(query: dict[str, Any]) -> list[str]:
        return [record["msg_id"] for record in rc.db_query({"client_uuid": rc.core.name, **query}, keys="msg_id")]

    assert found({"completed": None}) == running.msg_ids
    assert found({"result_content.status": "error"}) == bad.msg_ids
    assert set(good.msg_ids) <= set(found({"result_content.status": "ok"}))
    assert found({"submitted": {"$gte": bad.submitted}}) == bad.msg_ids + running.msg_ids
    assert found({"submitted": {"$lt": bad.submitted}, "completed": {"$ne": None}})[-ENGINES:] == good.msg_ids
    with pytest.raises(RuntimeError):
        rc.purge_local_results(running)
    rc.purge_results(bad)
    assert bad.msg_ids[0] not in rc.hub_history()
    rc.purge_hub_results(targets=0)
    assert found({"engine_uuid": "engine-0"}) == []
    assert found({"completed": None}) == running.msg_ids
    gate.open()
    running.get(TIMEOUT_S)


def test_another_client_gets_results_and_sees_them_in_its_history(rc: ipp.Client, cluster: Cluster) -> None:
    result = rc[0].apply_async(divide, 5)
    result.get()
    with ipp.Client(cluster.connect_client_sync()) as other:
        wait_until(lambda: result.msg_ids[0] in other.hub_history())  # engines tell the controller a moment later
        found = other.get_result(result.msg_ids[0])
        assert isinstance(found, ipp.AsyncHubResult)
        assert found.get(TIMEOUT_S) == 0.2


@pytest.mark.once
def test_engines_tell_what_they_have_to_do(rc: ipp.Client) -> None:
    status = rc.queue_status()
    assert set(status) == {*rc.ids, "unassigned"}
    assert set(status[0]) == set(rc.queue_status(0)) == {"queue", "completed", "tasks"}
    assert isinstance(rc.queue_status(0, verbose=True)["queue"], list)


def test_a_cell_gives_a_reply_and_its_output(
    view: ipp.DirectView, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = view.execute("a = 2\nprint(5555)", block=True)
    assert result.stdout == ["5555\n"] * ENGINES
    assert view["a"] == [2] * ENGINES
    result.display_outputs()
    assert capsys.readouterr().out.count("[stdout:") == ENGINES
    view.client[0].execute("print(5555)", block=True).display_outputs()
    assert capsys.readouterr().out == "5555\n"
    script = tmp_path / "script.py"
    script.write_text("\ufeffb = 7")
    view.run(str(script), block=True)
    assert view["b"] == [7] * ENGINES
    reply = view.execute("1/0", block=False).get(return_exceptions=True)
    assert all(isinstance(error, ipp.RemoteError) for error in reply)


@pytest.mark.once
def test_imports_happen_on_engines_as_well(view: ipp.DirectView, capsys: pytest.CaptureFixture[str]) -> None:
    with view.sync_imports(quiet=True):
        import colorsys
    assert capsys.readouterr().out == ""
    assert view.apply_sync(lambda: colorsys.__name__) == ["colorsys"] * ENGINES


@pytest.mark.once
def test_engines_are_waited_for_or_not(rc: ipp.Client) -> None:
    assert rc.wait_for_engines(ENGINES) is None
    assert rc.wait_for_engines(ENGINES, block=False).done()
    with pytest.raises(TimeoutError):
        rc.wait_for_engines(10_000, timeout=0.01)


@pytest.mark.once
def test_a_result_can_be_awaited(view: ipp.DirectView) -> None:
    import asyncio

    async def both() -> Any:
        return await view.apply_async(divide, 2), await asyncio.wrap_future(view.apply_async(divide, 4))

    assert asyncio.run(both()) == ([0.5] * ENGINES, [0.25] * ENGINES)


@pytest.mark.once
def test_results_are_there_when_many_threads_ask(lview: ipp.LoadBalancedView) -> None:
    results = [lview.apply_async(os.path.basename, f"/a/{n}") for n in range(20)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda result: result.get(TIMEOUT_S), results)) == [str(n) for n in range(20)]


@pytest.mark.once
def test_a_client_has_what_is_known_of_requests_by_id(rc: ipp.Client) -> None:
    result = rc[:].apply_async(divide, 2)
    result.get()
    assert rc.metadata[result.msg_ids[1]].engine_id == rc.ids[1]
    assert rc.results[result.msg_ids[1]] == 0.5
    with pytest.raises(KeyError):
        rc.results["nonesuch"]


@pytest.mark.once
def test_engines_and_requests_that_are_not_there_are_key_errors(rc: ipp.Client) -> None:
    for kind in (KeyError, IndexError):
        with pytest.raises(kind):
            rc[[999]]
    for kind in (KeyError, ipp.RemoteError):
        with pytest.raises(kind):
            rc.get_result("no such request")
    assert rc._engines == {engine_id: f"engine-{engine_id}" for engine_id in rc.ids}


@pytest.mark.once
def test_what_a_client_controls_is_a_future_unless_it_blocks(rc: ipp.Client, view: ipp.DirectView) -> None:
    result = view.apply_async(abs, -1)
    result.wait(TIMEOUT_S)
    for control in (rc.clear, lambda **block: rc.send_signal(0, **block), lambda **block: rc.abort(result, **block)):
        assert control(block=True) is None
        assert control(block=False).result(TIMEOUT_S) in (None, [None] * len(rc))


@pytest.mark.once
def test_what_is_known_of_a_request_has_the_form_of_ipyparallel(rc: ipp.Client, lview: ipp.LoadBalancedView) -> None:
    result, failed = lview.apply_async(abs, -1), lview.apply_async(divide, 0)
    assert lview.wait([result, failed], TIMEOUT_S)
    known = result.metadata
    assert (known["after"], known["follow"], result.is_broadcast, known.is_coalescing) == ([], [], False, False)
    assert result.wall_time == result.elapsed == result.timedelta(result.submitted, result.received)
    spread = rc.broadcast_view(is_coalescing=True).apply_async(abs, -1)
    spread.wait(TIMEOUT_S)
    assert spread.is_broadcast == spread.is_coalescing == [True] * ENGINES
    (record,) = rc.db_query({"msg_id": failed.msg_ids[0]})
    assert record["queue"] == "task"
    assert record["error"] == record["result_content"]
    assert (record["error"]["status"], record["error"]["ename"]) == ("error", "ZeroDivisionError")
    assert "divide" in "".join(record["error"]["traceback"])
    (record,) = rc.db_query({"msg_id": spread.msg_ids[0]})
    assert (record["queue"], record["error"]) == ("mux", None)
    assert record["client_uuid"] == rc.session.session
    assert rc.result_status(result)["status"] == "ok"


@pytest.mark.once
def test_calls_and_chunks_that_are_sent_again_give_a_list(rc: ipp.Client, lview: ipp.LoadBalancedView) -> None:
    single = lview.apply_async(divide, 2)
    assert single.get(TIMEOUT_S) == 0.5
    again = rc.resubmit(single)
    assert again.get(TIMEOUT_S) == [0.5]
    assert rc.resubmit(again.msg_ids[0]).get(TIMEOUT_S) == [0.5]
    chunks = lview.map_async(pow, range(5), [2] * 5, chunksize=2)
    assert chunks.get(TIMEOUT_S) == [0, 1, 4, 9, 16]
    repeated = rc.resubmit(chunks.msg_ids[1:])
    assert repeated.get(TIMEOUT_S) == [[4, 9], [16]]
    assert rc.resubmit(repeated.msg_ids[0]).get(TIMEOUT_S) == [[4, 9]]
    generated = lview.map_async(abs, (n for n in range(3)))
    assert generated.get(TIMEOUT_S) == [0, 1, 2]
    with pytest.raises(ipp.RemoteError) as info:
        rc.resubmit(generated)
    assert info.value.ename == "KeyError"


@pytest.mark.once
def test_a_loop_over_a_result_raises_a_composite_error(view: ipp.DirectView, lview: ipp.LoadBalancedView) -> None:
    for some in (view, lview):
        with pytest.raises(ipp.CompositeError) as info:
            list(some.map_async(divide, [0]))
        assert [entry[0] for entry in info.value.elist] == ["ZeroDivisionError"]


def test_the_first_error_of_a_call_is_raised_alone(view: ipp.DirectView, gate: Gate) -> None:
    view.scatter("fails", [True, *[False] * (ENGINES - 1)], flatten=True, block=True)
    pass_through = gate.pass_through
    result = view.apply_async(lambda fails: divide(0) if fails else pass_through(), ipp.Reference("fails"))
    with pytest.raises(ipp.RemoteError) as info:
        result.get(TIMEOUT_S, return_when=ipp.FIRST_EXCEPTION)
    assert info.value.ename == "ZeroDivisionError"
    gate.open()
    assert result.wait(TIMEOUT_S)
    with pytest.raises(ipp.CompositeError):
        result.get(return_when=ipp.FIRST_EXCEPTION)


@pytest.mark.once
def test_parts_that_are_no_lists_are_not_joined(view: ipp.DirectView) -> None:
    @view.parallel(block=True)
    def shown(part: Any) -> str:
        return str(list(part))

    assert shown(range(5)) == ["[0, 1]", "[2]", "[3]", "[4]"]
    assert shown.map(["a", "b"]) == ["['a']", "['b']"]
    view.scatter("text", "abcdef", block=True)
    assert view.gather("text", block=True) == ["ab", "cd", "e", "f"]
    view.scatter("numbers", range(8), block=True)
    assert view.gather("numbers", block=True) == list(range(8))


@pytest.mark.once
def test_a_broadcast_view_has_the_engines_of_its_start(rc: ipp.Client) -> None:
    assert rc.broadcast_view().targets == rc.ids
    assert rc.broadcast_view(rc.ids[:2]).targets == rc.ids[:2]


@pytest.mark.once
def test_a_client_that_is_closed_says_so(cluster: Cluster) -> None:
    client = ipp.Client(cluster.connect_client_sync())
    view = client[0]
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        view.apply_sync(divide, 1)


def test_the_message_of_several_errors_names_the_function(view: ipp.DirectView, lview: ipp.LoadBalancedView) -> None:
    for call in (
        lambda: view.apply_sync(divide, 0),
        lambda: view.map_sync(divide, [0, 0]),
        lambda: lview.map_sync(divide, [0]),
        lambda: list(lview.map_async(divide, [0])),
    ):
        with pytest.raises(ipp.CompositeError) as raised:
            call()
        assert raised.value.msg == "one or more exceptions raised in: divide"
    assert isinstance(view.apply_async(divide, 0).exception(TIMEOUT_S), ipp.CompositeError)
    with pytest.raises(IndexError, match="No such engine: 99; there are engines 0-3"):
        view.client[99]


def test_a_loop_over_a_result_that_is_done_raises_all_failures(view: ipp.DirectView) -> None:
    failed = view.apply_async(divide, 0)
    assert failed.wait(TIMEOUT_S)
    with pytest.raises(ipp.CompositeError) as raised:
        next(iter(failed))
    assert len(raised.value.elist) == 4


def test_an_attribute_that_cannot_be_bound_fails_the_push(view: ipp.DirectView) -> None:
    view.push({"box": SimpleNamespace()}, block=True)
    assert view.push({"box.x": 1, "box.y": 2, "z": 3}, block=True) == [None] * 4
    assert view.pull(["box.x", "box.y", "z"], block=True) == [[1, 2, 3]] * 4
    with pytest.raises(AttributeError):
        view.client[0].push({"z.x": 1}, block=True)
    assert view.client[0].apply_sync(ipp.interactive(lambda: [name for name in globals() if "pushed" in name])) == []


def test_clear_returns_none_if_it_waits(view: ipp.DirectView) -> None:
    assert view.clear(block=True) is None
    assert view.clear(block=False).result(TIMEOUT_S) == [None] * 4


def test_a_direct_view_warns_that_it_has_no_chunks(view: ipp.DirectView) -> None:
    halved = view.parallel(block=True, chunksize=2)(lambda part: part)
    for call in (halved, halved.map):
        with pytest.warns(UserWarning, match="`chunksize` is ignored") as issued:
            assert call([1, 2, 3, 4]) == [1, 2, 3, 4]
        assert issued[0].filename == __file__
