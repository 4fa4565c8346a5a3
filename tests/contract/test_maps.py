"""Mapping a function over sequences, one part an engine (D15)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nsactors import AsyncMapResult, Client, CompositeError, DirectView
from nsactors.core.payload import Payload
from nsactors.core.remote_value import StoredObject
from tests.gates import TIMEOUT_S, Gate


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 100])
@pytest.mark.parametrize("dist", ["b", "r"])
def test_a_map_equals_the_serial_one(dv: DirectView, dist: str, length: int) -> None:
    assert dv.map_sync(lambda x: x + 1, range(length), dist=dist) == list(range(1, length + 1))


def test_a_map_of_a_hundred_thousand_equals_the_serial_one(dv: DirectView) -> None:
    power = lambda x: x**10  # noqa: E731 (a function of this module would have to be importable on the engines)
    assert sum(dv.map_sync(power, range(100_000))) == sum(map(power, range(100_000)))


def test_a_map_takes_several_sequences(dv: DirectView) -> None:
    assert dv.map_sync(lambda x, y, z: x * y + z, [1, 2, 3], (4, 5, 6), range(3)) == [4, 11, 20]


def test_a_map_stops_at_the_shortest_sequence(dv: DirectView) -> None:
    assert dv.map_sync(pow, [1, 2, 3, 4, 5], [2, 2, 2]) == [1, 4, 9]


def test_a_map_takes_generators(dv: DirectView) -> None:
    assert dv.map_sync(abs, (-n for n in range(6))) == list(range(6))


def test_an_endless_iterable_is_cut_to_the_length_of_the_others(dv: DirectView) -> None:
    assert dv.map_sync(divmod, [7, 8], itertools.repeat(3)) == [(2, 1), (2, 2)]


def test_a_map_takes_arrays(dv: DirectView) -> None:
    assert dv.map_sync(float, np.arange(5.0)) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_map_takes_a_dictionary_as_its_keys(dv: DirectView) -> None:
    assert dv.map_sync(str.upper, {"a": 1, "b": 2}) == ["A", "B"]


def test_a_map_takes_a_set(dv: DirectView) -> None:
    assert sorted(dv.map_sync(abs, {-1, -2, -3})) == [1, 2, 3]


def test_a_map_without_sequences_raises_at_the_call(dv: DirectView) -> None:
    with pytest.raises(TypeError, match="at least one"):
        dv.map(abs)


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


def test_a_failing_item_fails_the_map(dv: DirectView) -> None:
    with pytest.raises(CompositeError) as caught:
        dv.map_sync(lambda x: 1 // x, [1, 1, 0, 1])
    assert [type(error).__name__ for error in caught.value.exceptions] == ["ZeroDivisionError"]


def test_a_map_can_put_exceptions_in_place_of_the_items_they_prevented(dv: DirectView) -> None:
    values: list[Any] = dv.map_sync(lambda x: 1 // x, [1, 0, 1, 1, 0], return_exceptions=True)
    assert [type(value).__name__ for value in values] == ["int", "ZeroDivisionError", "int", "int", "ZeroDivisionError"]


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

    def counted_prepare(instruction: Any, payload: Payload) -> Any:
        sent.append(payload.nbytes)
        return prepare(instruction, payload)

    monkeypatch.setattr(transport, "keep", counted_keep)
    monkeypatch.setattr(transport, "prepare", counted_prepare)
    view: DirectView = rc[:]
    assert view.map_sync(names.look_up, range(10_000)) == list(range(10_000))
    assert list(view.imap(names.look_up, range(100))) == list(range(100))
    assert (len(stored), min(stored) > 200_000, max(sent) < 50_000) == (2, True, True)
