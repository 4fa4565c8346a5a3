"""Values stay on their engine, and go from there to the engines that use them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsactors import Client, DirectView, RemoteValue, keep
from nsactors.errors import ObjectLost, SerializationError
from nsactors.testing import TIMEOUT_S, Gate, wait_until

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def reference(view: DirectView, expression: str) -> RemoteValue:
    """A remote value on the engine of a view."""
    value: RemoteValue = view.pull(expression, as_ref=True, block=True)
    return value


def is_lost(use: Callable[[], object]) -> bool:
    try:
        use()
    except ObjectLost:
        return True
    return False


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values)
def test_a_reference_pushed_to_another_engine_binds_the_value_there(rc: Client, value: Any) -> None:
    rc[0].push({"a": value}, block=True)
    rc[1].push({"b": reference(rc[0], "a")}, block=True)
    back = rc[1].get("b")
    assert (repr(back), back) == (repr(value), value)


@pytest.mark.parametrize(("size", "writable"), [(0, True), (10, True), (200_000, False)])
def test_a_large_array_arrives_read_only_as_any_other(rc: Client, size: int, writable: bool) -> None:
    a = reference(rc[0], f"__import__('numpy').arange({size})")
    rc[1:].push({"b": a}, block=True)
    assert (
        rc[1:].pull("(len(b), int(b.sum()), b.flags.writeable)", block=True)
        == [(size, size * (size - 1) // 2, writable)] * 3
    )


def test_a_reference_gives_its_value_to_the_client(rc: Client) -> None:
    rc[0]["a"] = {"x": np.arange(200_000)}
    back = reference(rc[0], "a").get()
    assert np.array_equal(back["x"], np.arange(200_000))
    assert not back["x"].flags.writeable


def test_a_writable_copy_can_be_asked_for_at_both_ends(rc: Client) -> None:
    rc[0]["a"] = np.zeros(200_000)
    a = reference(rc[0], "a")
    a.get(copy=True)[0] = 1
    rc[1].push({"b": a}, copy=True, block=True)
    rc[1].execute("b[0] = 2", block=True)
    assert (rc[1]["b[0]"], a.get()[0]) == (2, 0)


@pytest.mark.once
def test_references_may_stand_anywhere_inside_the_arguments(rc: Client) -> None:
    rc[0]["a"] = [1, 2]
    a, first = reference(rc[0], "a"), reference(rc[0], "a[0]")
    there = rc[1].apply_sync(lambda value, *, key: (value, key), {"k": [a, (first,)]}, key=a)
    assert there == ({"k": [[1, 2], (1,)]}, [1, 2])


def test_a_reference_that_stands_twice_is_one_object_on_the_engine(rc: Client) -> None:
    a = reference(rc[0], "[1]")
    assert rc[1].apply_sync(lambda x, y: x is y, a, a) is True


def test_a_function_may_leave_what_it_returns_on_its_engine(rc: Client) -> None:
    kept = rc[0].apply_sync(lambda: {"parts": [keep([1, 2, 3], "numbers"), 4]})["parts"][0]
    assert isinstance(kept, RemoteValue)
    assert (kept.name, kept.engine_id, kept.type_name, kept.get()) == ("numbers", 0, "list", [1, 2, 3])
    assert rc[1].apply_sync(sum, kept) == 6


def test_tasks_may_leave_what_they_return_on_their_engines(rc: Client) -> None:
    kept = rc.load_balanced_view().map_sync(lambda number: keep(np.full(50_000, number)), range(5))
    assert rc.load_balanced_view().map_sync(lambda array: int(array.sum()), kept) == [50_000 * n for n in range(5)]


def test_what_cannot_be_kept_is_named(rc: Client) -> None:
    with pytest.raises(SerializationError, match="generator"):
        rc[0].apply_sync(lambda: [keep(x for x in "abc")])
    with pytest.raises(SerializationError, match="run on an engine"):
        rc[0].push({"a": keep(1)})


def test_a_view_of_several_engines_gives_a_reference_for_each(dv: DirectView) -> None:
    dv.scatter("a", range(8))
    parts = dv.pull("list(a)", as_ref=True)
    assert [part.engine_id for part in parts] == [0, 1, 2, 3]
    assert dv.apply_sync(lambda parts: [x for part in parts for x in part], parts) == [list(range(8))] * 4


@pytest.mark.once
def test_several_names_give_a_reference_for_each(rc: Client) -> None:
    rc[0].push({"a": 1, "b": 2}, block=True)
    pair = rc[0].pull(["a", "b"], as_ref=True, block=True)
    assert [(value.name, value.get()) for value in pair] == [("a", 1), ("b", 2)]


@pytest.mark.once
def test_references_can_be_mapped_over(rc: Client) -> None:
    parts = rc[:2].pull("len(__builtins__ and 'abc')", as_ref=True, block=True)
    assert rc[2:].map_sync(lambda x: x + 1, parts) == [4, 4]


def test_a_function_kept_on_one_engine_can_be_called_on_another(rc: Client) -> None:
    rc[0].execute("def twice(x):\n    return factor * x", block=True)
    rc[0]["factor"] = 2
    rc[1]["factor"] = 20
    assert rc[1].apply_sync(reference(rc[0], "twice"), 3) == 60


def test_a_kept_object_of_a_class_of_main_arrives_as_one(
    rc: Client, from_main: Callable[[str], SimpleNamespace]
) -> None:
    main = from_main("class Point:\n    def __init__(self, x):\n        self.x = x")
    rc[0]["p"] = main.Point(3)
    p = reference(rc[0], "p")
    rc[1].push({"q": p, "Point": main.Point}, block=True)
    assert rc[1].get("(type(q) is Point, q.x)") == (True, 3)
    assert type(p.get()) is main.Point


@pytest.mark.once
def test_a_reference_is_to_the_value_and_not_to_the_name(rc: Client) -> None:
    rc[0]["a"] = [1]
    a = reference(rc[0], "a")
    rc[0].execute("a.append(2); del a", block=True)
    assert a.get() == [1]


def test_each_engine_has_a_copy_of_its_own_of_all_but_arrays(rc: Client) -> None:
    rc[0]["a"] = [1]
    rc[1:].push({"b": reference(rc[0], "a")}, block=True)
    rc[1].execute("b.append(2)", block=True)
    assert rc[:].pull("a if 'a' in globals() else b", block=True) == [[1], [1, 2], [1], [1]]


def test_the_engine_that_holds_a_value_may_use_it_too(rc: Client) -> None:
    rc[0]["a"] = [1]
    assert rc[0].apply_sync(len, reference(rc[0], "a")) == 1


def test_a_value_can_be_had_while_its_engine_is_busy(rc: Client, gate: Gate) -> None:
    a = reference(rc[0], "list(range(100))")
    busy = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    assert rc[1].apply_async(sum, a).get(TIMEOUT_S) == 4950
    assert not busy.ready()


def test_what_a_reference_led_to_stays_when_the_reference_is_gone(rc: Client) -> None:
    rc[0]["a"] = np.arange(200_000)
    rc[1].push({"b": reference(rc[0], "a")}, block=True)
    assert rc[1]["int(b.sum())"] == 19999900000


def test_the_value_of_an_engine_that_has_ended_is_lost_and_the_error_names_it(
    rc: Client, victim: DirectView, end_engine: Callable[[int], None]
) -> None:
    victim["a"] = np.arange(200_000)
    a = reference(victim, "a")
    end_engine(a.engine_id)
    for use in (a.get, lambda: rc[0].push({"b": a}, block=True), lambda: rc[0].apply_sync(len, [a])):
        wait_until(lambda use=use: is_lost(use))  # type: ignore[misc]  # Ray may still have a copy at hand, for a second
        with pytest.raises(ObjectLost, match=r"'a'.*engine \d+.*pull\(a\)") as lost:
            use()
        assert (lost.value.name, lost.value.holder) == ("a", a.engine_id)
    assert rc[0].apply_sync(abs, -1) == 1


def test_what_was_pushed_elsewhere_outlives_the_engine_that_it_came_from(
    rc: Client, victim: DirectView, end_engine: Callable[[int], None]
) -> None:
    victim["a"] = np.arange(200_000)
    a = reference(victim, "a")
    rc[0].push({"b": a}, block=True)
    end_engine(a.engine_id)
    assert rc[0]["int(b.sum())"] == 19999900000


def test_a_value_outlives_the_client_that_asked_for_it(connect: Callable[..., Client], rc: Client) -> None:
    guest = connect()
    a = reference(guest[0], "list(range(100_000))")
    guest.close()
    assert rc[1].apply_sync(len, a) == 100_000


def test_what_cannot_be_serialised_cannot_be_kept(rc: Client) -> None:
    with pytest.raises(SerializationError, match=r"^.print, __import__.* cannot be sent"):
        reference(rc[0], "print, __import__('threading').Lock()")


@pytest.mark.once
def test_a_name_that_is_not_bound_raises_name_error(rc: Client) -> None:
    with pytest.raises(NameError, match="nowhere"):
        reference(rc[0], "nowhere")


def test_a_reference_tells_what_it_is(rc: Client) -> None:
    a = reference(rc[2], "__import__('numpy').zeros(10**6)")
    assert repr(a) == "<RemoteValue \"__import__('numpy').zeros(10**6)\" on engine 2: numpy.ndarray, 8.0 MB>"
    assert 8_000_000 < a.nbytes < 8_001_000
    assert reference(rc[0], "1").type_name == "int"


def test_a_reference_cannot_be_pickled_by_hand(rc: Client) -> None:
    with pytest.raises(TypeError, match="part of a call"):
        pickle.dumps(reference(rc[0], "1"))
