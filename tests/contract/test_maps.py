"""Mapping a function over sequences, one part an engine (D15)."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nsactors
from nsactors import AsyncMapResult, AsyncResult, Client, CompositeError, DirectView, Reference
from nsactors.errors import SerializationError, UnknownOption
from nsactors.protocol.serialize import Payload, StoredObject
from nsactors.testing import TIMEOUT_S, Gate


@pytest.mark.sampled("dist", "length")
@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 100])
@pytest.mark.parametrize("dist", ["b", "r"])
def test_a_map_equals_the_serial_one(dv: DirectView, dist: str, length: int) -> None:
    assert dv.map_sync(lambda x: x + 1, range(length), dist=dist) == list(range(1, length + 1))


def test_a_map_of_a_hundred_thousand_equals_the_serial_one(dv: DirectView) -> None:
    power = lambda x: x**10  # noqa: E731 (a function of this module would have to be importable on the engines)
    assert sum(dv.map_sync(power, range(100_000))) == sum(map(power, range(100_000)))


@pytest.mark.once
def test_a_map_takes_several_sequences(dv: DirectView) -> None:
    assert dv.map_sync(lambda x, y, z: x * y + z, [1, 2, 3], (4, 5, 6), range(3)) == [4, 11, 20]


@pytest.mark.once
def test_a_map_stops_at_the_shortest_sequence(dv: DirectView) -> None:
    assert dv.map_sync(pow, [1, 2, 3, 4, 5], [2, 2, 2]) == [1, 4, 9]


@pytest.mark.once
def test_a_map_takes_generators(dv: DirectView) -> None:
    assert dv.map_sync(abs, (-n for n in range(6))) == list(range(6))


@pytest.mark.once
def test_an_endless_iterable_is_cut_to_the_length_of_the_others(dv: DirectView) -> None:
    assert dv.map_sync(divmod, [7, 8], itertools.repeat(3)) == [(2, 1), (2, 2)]


@pytest.mark.once
def test_a_map_takes_arrays(dv: DirectView) -> None:
    assert dv.map_sync(float, np.arange(5.0)) == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.once
def test_a_map_takes_a_dictionary_as_its_keys(dv: DirectView) -> None:
    assert dv.map_sync(str.upper, {"a": 1, "b": 2}) == ["A", "B"]


@pytest.mark.once
def test_a_map_takes_a_set(dv: DirectView) -> None:
    assert sorted(dv.map_sync(abs, {-1, -2, -3})) == [1, 2, 3]


@pytest.mark.once
def test_a_map_without_sequences_raises_at_the_call(dv: DirectView) -> None:
    with pytest.raises(TypeError, match="at least one"):
        dv.map(abs)


@pytest.mark.once
def test_a_map_on_a_view_of_one_engine_gives_a_list(rc: Client) -> None:
    assert rc[0].map_sync(abs, [-1, -2]) == [1, 2]


def test_a_map_of_a_function_of_main_brings_its_helpers(
    dv: DirectView, from_main: Callable[[str], SimpleNamespace]
) -> None:
    main = from_main("def h(x):\n    return 2 * x\ndef f(x):\n    return [h(y) for y in range(x)]")
    assert dv.map_sync(main.f, [1, 2]) == [[0], [0, 2]]


def test_every_engine_gets_a_part(rc: Client) -> None:
    result = rc[:].map_async(abs, range(4))
    assert (result.get(TIMEOUT_S), result.engine_id) == ([0, 1, 2, 3], [0, 1, 2, 3])


@pytest.mark.once
def test_an_asynchronous_map_gives_a_map_result(rc: Client) -> None:
    assert isinstance(rc[:].map_async(abs, [-1]), AsyncMapResult)


def test_imap_gives_the_items_that_are_there_while_others_are_computed(rc: Client, gate: Gate) -> None:
    items = rc[:2].imap(lambda f: f(), [int, gate.pass_through])
    gate.wait_arrived()
    assert next(items) == 0
    gate.open()
    assert list(items) == ["passed"]


def test_an_unordered_map_gives_what_comes_first(rc: Client, gate: Gate) -> None:
    items = rc[:2].imap(lambda f: f(), [gate.pass_through, int], ordered=False)
    gate.wait_arrived()
    assert next(items) == 0
    gate.open()
    assert list(items) == ["passed"]


@pytest.mark.once
def test_a_failing_item_fails_the_map(dv: DirectView) -> None:
    with pytest.raises(CompositeError) as caught:
        dv.map_sync(lambda x: 1 // x, [1, 1, 0, 1])
    assert [type(error).__name__ for error in caught.value.exceptions] == ["ZeroDivisionError"]


@pytest.mark.once
def test_a_map_can_put_exceptions_in_place_of_the_items_they_prevented(dv: DirectView) -> None:
    values: list[Any] = dv.map_sync(lambda x: 1 // x, [1, 0, 1, 1, 0], return_exceptions=True)
    assert [type(value).__name__ for value in values] == ["int", "ZeroDivisionError", "int", "int", "ZeroDivisionError"]


@pytest.mark.once
def test_a_map_has_its_function_in_its_label(rc: Client) -> None:
    assert rc[:].map_async(abs, [1]).label == ["map(abs)"]


@pytest.mark.parametrize("way", ["map", "imap", "parallel"])
def test_a_map_is_called_what_its_view_says(rc: Client, gate: Gate, way: str) -> None:
    view, pass_through = rc[0].with_flags(label="a visit"), gate.pass_through
    visit: Callable[[Any], list[str]] = lambda x: [pass_through()]  # noqa: E731 (as above)
    visiting = {"map": view.map, "imap": view.imap, "parallel": view.parallel()(visit)}[way]
    pending = visiting([0]) if way == "parallel" else visiting(visit, [0])
    labels = [call.label for call in rc.session.open_calls()]
    gate.open()
    assert (labels, len(list(pending))) == (["a visit"], 1)


def test_what_a_function_carries_is_stored_once_for_all_parts(
    rc: Client, from_main: Callable[[str], SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = from_main("table = list(range(100_000))\ndef look_up(i): return table[i]")
    transport = rc.session.transport
    stored: list[int] = []
    sent: list[int] = []
    keep, prepare = transport.keep, transport.prepare

    def counted_keep(payload: Payload) -> StoredObject:
        stored.append(payload.nbytes)
        return keep(payload)

    def counted_prepare(instruction: Any, payload: Payload, quick: Any) -> Any:
        sent.append(payload.nbytes)
        return prepare(instruction, payload, quick)

    monkeypatch.setattr(transport, "keep", counted_keep)
    monkeypatch.setattr(transport, "prepare", counted_prepare)
    view: DirectView = rc[:]
    assert view.map_sync(names.look_up, range(10_000)) == list(range(10_000))
    assert list(view.imap(names.look_up, range(100))) == list(range(100))
    assert (len(stored), min(stored) > 200_000, max(sent) < 50_000) == (2, True, True)


# Arguments beside the sequences.


def _maps(rc: Client) -> list[Callable[..., Any]]:
    lview = rc.load_balanced_view()
    return [
        rc[:].map_sync,
        rc.broadcast_view().map_sync,
        lambda *args, **options: list(rc[:].imap(*args, **options)),
        lview.map_sync,
        lambda *args, **options: lview.map_async(*args, **options).get(TIMEOUT_S),
        lambda *args, **options: list(lview.imap(*args, **options)),
        rc.map_all,
    ]


def test_a_constant_goes_to_the_function_by_name(rc: Client) -> None:
    f = lambda x, y, k=0, *, scale=1: (x + y + k) * scale  # noqa: E731
    for mapped in _maps(rc):
        assert mapped(f, range(3), [1, 1, 1], k=3, scale=2) == [8, 10, 12]


def test_constants_may_be_names_and_values_on_engines(rc: Client) -> None:
    rc[:].push({"k": 10}, block=True)
    value = rc[1].pull("[k, k]", as_ref=True, block=True)
    f = lambda x, k, more: (x + k, more)  # noqa: E731
    for mapped in _maps(rc):
        assert mapped(f, range(2), k=Reference("k"), more={"a": value}) == [
            (10, {"a": [10, 10]}),
            (11, {"a": [10, 10]}),
        ]


@pytest.mark.once
def test_names_of_options_mean_the_option_and_kwargs_passes_any(rc: Client) -> None:
    f = lambda x, label="its own": (x, label)  # noqa: E731
    for mapped in _maps(rc):
        assert mapped(f, [1], label="a map") == [(1, "its own")]
        assert mapped(f, [1], kwargs={"label": "given"}) == [(1, "given")]
    assert set(rc[:].map_async(f, [1], label="a map").label) == {"a map"}


@pytest.mark.once
def test_kwargs_go_to_functions_whose_signature_is_not_known(rc: Client) -> None:
    for mapped in _maps(rc):
        assert mapped(max, [[1, -3], [2]], kwargs={"key": abs}) == [-3, 2]


@pytest.mark.once
def test_a_keyword_that_nothing_takes_is_refused_before_anything_is_sent(rc: Client) -> None:
    rc[:].execute("count = 0", block=True)

    def count(x: int) -> None:
        globals()["count"] += 1

    for mapped in _maps(rc):
        with pytest.raises(UnknownOption, match=r"unknown option 'chunksze'.*nor does count take it"):
            mapped(count, range(4), chunksze=3)
        with pytest.raises(UnknownOption, match="gets its 'x' from a sequence"):
            mapped(count, range(4), x=3)
    assert rc[:]["count"] == [0] * len(rc.ids)


@pytest.mark.once
def test_decorated_functions_are_mapped_with_constants_too(rc: Client) -> None:
    def plus(x: int, k: int = 0) -> int:
        return x + k

    assert rc[:].parallel(block=True)(plus).map([1, 2], k=3) == [4, 5]
    assert rc.load_balanced_view().parallel(block=True)(plus).map([1, 2], k=3) == [4, 5]
    assert rc.load_balanced_view().map_sync(nsactors.depend(bool, True)(plus), [1, 2], k=3) == [4, 5]


@pytest.mark.once
def test_the_map_is_called_by_its_function_whatever_that_is_given(rc: Client) -> None:
    def plus(x: int, k: int, rng: Any) -> int:
        return x + k

    for view in (rc[:], rc.load_balanced_view()):
        result = view.map_async(plus, [1, 2], k=3, seed=1)
        assert result.get(TIMEOUT_S) == [4, 5]
        assert set(result.label) == {"map(plus)"}


@pytest.mark.sampled
@pytest.mark.parametrize("options", [{}, {"seed": 1}, {"k": 1}])
def test_what_of_a_map_cannot_be_pickled_is_called_by_its_place(rc: Client, options: dict[str, Any]) -> None:
    def f(x: Any, y: Any, k: Any = None, rng: Any = None) -> None:
        pass

    for call in (rc[:].map, rc[:].imap):
        with pytest.raises(SerializationError, match=r"item 2 of sequence 2 of map\(f\)"):
            list(call(f, range(3), [0, 0, threading.Lock()], **options))
        with pytest.raises(SerializationError, match=r"f"):
            list(call(f, range(3), range(3), **{**options, "k": threading.Lock()}))


def test_a_balanced_map_is_split_into_results_of_some_items(rc: Client, gate: Gate) -> None:
    lview = rc.load_balanced_view()
    result = lview.map_async(lambda f: f(), [int, str, gate.pass_through, list, gate.pass_through], label="m")
    first, second, third = result.split(2)
    assert first.get(TIMEOUT_S) == [0, ""]
    gate.wait_arrived()
    assert not second.done()
    assert second.label == "m[2:4]"
    assert second.msg_ids == [f"{result.msg_ids[0]}/items:2"]
    assert not second.cancel()
    with pytest.raises(ValueError, match="whole map"):
        second.abort()
    gate.open()
    assert [len(items) for items in AsyncResult.join(first, second, third).get(TIMEOUT_S)] == [2, 2, 1]
    assert second.get()[1] == []
    assert result.split() == (result,)
    assert [part.get() for part in result.split(5)] == [result.get()]  # parts of a map that has ended
    with pytest.raises(nsactors.errors.InvalidArgument):
        result.split(0)
    with pytest.raises(nsactors.errors.InvalidArgument, match="one part for each engine"):
        rc[:].map_async(abs, range(8)).split(2)


@pytest.mark.once
def test_a_part_of_a_balanced_map_stands_for_the_map_where_tasks_depend_on_it(rc: Client, gate: Gate) -> None:
    lview = rc.load_balanced_view()
    result = lview.map_async(lambda f: f(), [int, gate.pass_through], label="held map")
    part, _ = result.split(1)
    waiting = []
    for before in (part, part.msg_ids[0]):
        with lview.temp_flags(after=before, label="waiting"):
            waiting.append(lview.apply_async(abs, -1))
    with lview.temp_flags(follow=part):
        lview.apply_async(abs, -1)
    gate.wait_arrived()
    assert part.get(TIMEOUT_S) == [0]
    assert [task.msg_id for task in rc.tasks(label="waiting", state="queued")] == [w.msg_ids[0] for w in waiting]
    assert [task.label for task in rc.tasks(label="held *", state="running")] == ["held map"]
    assert not rc.wait(result, timeout=0)
    for refused in (part.msg_ids, result.split(1)[1]):
        with pytest.raises(nsactors.errors.InvalidArgument, match=rf"whole map, '{result.msg_ids[0]}'"):
            rc.abort(refused)
    with pytest.raises(nsactors.errors.InvalidArgument, match="state"):
        rc.tasks(state="assigned")
    gate.open()
    assert [each.get(TIMEOUT_S) for each in waiting] == [1, 1]


@pytest.mark.once
def test_the_client_aborts_a_balanced_map_that_is_given_as_its_result(rc: Client, gate: Gate) -> None:
    lview = rc.load_balanced_view(0)
    first = lview.apply_async(gate.pass_through)
    gate.wait_arrived()
    result = lview.map_async(abs, range(4))
    rc.abort(result)
    gate.open()
    first.get(TIMEOUT_S)
    assert result.wait(TIMEOUT_S)
    assert all(isinstance(error, nsactors.errors.TaskAborted) for error in result.get(return_exceptions=True))


@pytest.mark.once
def test_a_part_of_a_balanced_map_fails_with_its_items(rc: Client) -> None:
    lview = rc.load_balanced_view()
    good, bad = lview.map_async(lambda x: 1 / x, [1, 2, 0, 4]).split(2)
    assert good.get(TIMEOUT_S) == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        bad.get(TIMEOUT_S)
    _, bad = lview.map_async(lambda x: 1 / x, [1, 2, 0, 4], return_exceptions=True).split(2)
    error, value = bad.get(TIMEOUT_S)
    assert isinstance(error, ZeroDivisionError)
    assert value == 0.25
