"""The broadcast view: as the direct view, by another way."""

from __future__ import annotations

import numpy as np
import pytest

from nsactors import BroadcastView, Client, CompositeError, DirectView, Reference
from nsactors.errors import EngineLost
from nsactors.testing import TIMEOUT_S, Gate, wait_until


@pytest.fixture
def everybody(rc: Client) -> BroadcastView:
    return rc.broadcast_view(block=True)


def test_values_come_in_the_order_of_the_targets(rc: Client) -> None:
    rc[:].scatter("rank", range(4), flatten=True, block=True)
    assert rc.broadcast_view([3, 0, 2]).pull("rank", block=True) == [3, 0, 2]
    assert rc.broadcast_view([3, 0, 2]).execute("ranks = [rank]", block=True).get_dict().keys() == {3, 0, 2}


def test_names_are_bound_on_every_engine(rc: Client, everybody: BroadcastView) -> None:
    everybody.push({"a": 5})
    assert rc[:].pull("a", block=True) == [5, 5, 5, 5]


def test_calls_of_both_kinds_of_view_run_in_the_order_in_which_they_were_made(
    rc: Client, everybody: BroadcastView
) -> None:
    everybody.push({"seen": []})
    note = "seen.append({})"
    results = [
        (rc.broadcast_view() if number % 3 else rc[:]).execute(note.format(number), block=False) for number in range(60)
    ]
    assert all(result.wait(TIMEOUT_S) for result in results)
    assert rc[:].pull("seen", block=True) == [list(range(60))] * 4


def test_an_array_reaches_every_engine(rc: Client, everybody: BroadcastView) -> None:
    everybody.push({"a": np.arange(100_000)})
    assert everybody.apply(np.sum, Reference("a")) == [4999950000] * 4


def test_failures_of_many_engines_come_grouped(everybody: BroadcastView) -> None:
    with pytest.raises(CompositeError) as caught:
        everybody.apply(lambda: 1 / 0)
    assert len(caught.value.exceptions) == 4
    assert all(isinstance(error, ZeroDivisionError) for error in caught.value.exceptions)


def test_one_busy_engine_does_not_hold_back_the_answers_of_others(rc: Client, gate: Gate) -> None:
    rc[:].push({"hold": None}, block=True)
    rc[0].push({"hold": gate.pass_through}, block=True)
    result = rc.broadcast_view().apply_async(lambda hold: hold and hold(), Reference("hold"))
    gate.wait_arrived()
    others = result.split()[1:]
    assert [other.get(TIMEOUT_S) for other in others] == [None, None, None]
    assert not result.done()
    gate.open()
    assert result.get(TIMEOUT_S) == ["passed", None, None, None]


def test_an_engine_that_is_lost_is_named_and_the_others_answer(rc: Client, victim: DirectView, gate: Gate) -> None:
    view = rc.broadcast_view([0, victim.targets])  # type: ignore[list-item]
    result = view.apply_async(gate.pass_through)
    gate.wait_arrived(2)
    victim.shutdown()
    wait_until(lambda: result.progress == 1)  # the loss is known: it does not get through the gate
    gate.open()
    values = result.get(TIMEOUT_S, return_exceptions=True)
    assert [type(value) for value in values] == [str, EngineLost]


def test_what_an_engine_prints_is_there_with_its_answer(everybody: BroadcastView) -> None:
    result = everybody.execute("print('hello')")
    assert result.stdout == ["hello\n"] * 4


@pytest.mark.once
def test_a_view_of_one_engine_gives_values(rc: Client) -> None:
    assert rc.broadcast_view(2).apply_sync(abs, -1) == 1
