"""Tuple spaces: what clients and engines do with them, and what becomes of takers that go."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nsactors import Client, Cluster, DirectView
from nsactors.errors import CapabilityError, ServiceClosed
from nsactors.models.tuple_space import TupleSpace
from nsactors.protocol.messages import Capability
from nsactors.services.tuple_space import Ask
from nsactors.testing import TIMEOUT_S, Gate, wait_until

pytestmark = pytest.mark.services


@pytest.fixture
def space(rc: Client, request: pytest.FixtureRequest) -> Any:
    """A space of the test's own."""
    space = TupleSpace(rc, request.node.name)
    yield space
    space.close()


def test_what_a_client_puts_an_engine_takes(rc: Client, space: TupleSpace) -> None:
    space.out("job", 7)
    assert rc[0].apply_sync(lambda: space.in_("job", int)) == ("job", 7)
    assert len(space) == 0


def test_what_an_engine_puts_others_read(rc: Client, space: TupleSpace) -> None:
    rc[0].apply_sync(lambda: space.out("x", 1.5, None))
    assert rc[1:].apply_sync(lambda: space.rd("x", float, None)) == [("x", 1.5, None)] * 3


def test_a_space_can_be_pushed_and_used_in_cells(dv: DirectView, space: TupleSpace) -> None:
    dv["space"] = space
    dv.execute("space.out('here', id(space))")
    assert len(space) == 4


def test_a_client_and_its_engine_see_what_they_put_before(rc: Client, space: TupleSpace) -> None:
    def put_and_take(space: TupleSpace) -> list[Any]:
        found = []
        for number in range(50):
            space.out("mine", number)
            found.append(space.inp("mine", number))
        return found

    expected = [("mine", number) for number in range(50)]
    assert put_and_take(space) == expected
    assert rc[0].apply_sync(put_and_take, space) == expected


def test_what_was_put_before_a_call_is_there_when_the_engine_looks(rc: Client, space: TupleSpace) -> None:
    for number in range(50):
        space.out("to the engine", number)
        assert rc[0].apply_sync(lambda: space.inp("to the engine", int)) == ("to the engine", number)


@pytest.mark.services(both_ways=True)
def test_what_an_engine_put_is_there_when_its_call_returns(rc: Client, space: TupleSpace) -> None:
    for number in range(50):
        rc[number % 4].apply_sync(lambda number=number: space.out("from an engine", number))
        assert space.inp("from an engine", int) == ("from an engine", number)


@pytest.mark.services(both_ways=True)
def test_who_waits_is_woken_by_one_tuple_each(rc: Client, space: TupleSpace) -> None:
    waiting = [rc[i].apply_async(lambda: space.in_("job", int)[1]) for i in range(3)]
    wait_until(lambda: space.waiting == 3)
    for number in range(3):
        assert sum(result.done() for result in waiting) <= number
        space.out("job", number)
        wait_until(lambda left=2 - number: space.waiting == left)
    assert sorted(result.get(TIMEOUT_S) for result in waiting) == [0, 1, 2]


@pytest.mark.once
def test_who_will_not_wait_gets_none(space: TupleSpace) -> None:
    assert (space.inp("job", int), space.rdp("job", int)) == (None, None)
    space.out("job", 1)
    assert (space.rdp("job", int), space.inp("job", int), space.inp("job", int)) == (("job", 1), ("job", 1), None)


@pytest.mark.once
def test_patience_ends_and_leaves_what_comes_later_to_others(space: TupleSpace) -> None:
    with pytest.raises(TimeoutError, match=r"matched in 0\.05 s"):
        space.in_("job", int, timeout=0.05)
    space.out("job", 1)
    # The new tuple may arrive before the withdrawal of the call: it then goes back into the space.
    wait_until(lambda: (space.waiting, len(space)) == (0, 1))


@pytest.mark.services(both_ways=True)
def test_objects_arrays_and_functions_are_fields(
    rc: Client, space: TupleSpace, from_main: Callable[[str], SimpleNamespace]
) -> None:
    main = from_main("class Point:\n    def __init__(self, x):\n        self.x = x")
    space.out("small", [1, {"a": 2}], main.Point(3), lambda x: x + 1)
    space.out("large", np.arange(500_000))
    _, pair, point, function = space.in_("small", list, main.Point, object)
    assert (pair, point.x, function(1)) == ([1, {"a": 2}], 3, 2)
    assert rc[0].apply_sync(lambda: int(space.in_("large", object)[1].sum())) == 124999750000


@pytest.mark.once
def test_a_value_that_cannot_be_looked_for_is_named(space: TupleSpace) -> None:
    with pytest.raises(TypeError, match="give the type list"):
        space.inp("job", [1])


def test_a_tuple_is_computed_on_an_engine(rc: Client, space: TupleSpace) -> None:
    results = [space.eval("square", number, lambda number=number: number**2) for number in range(5)]
    found = [space.in_("square", number, int, timeout=TIMEOUT_S)[2] for number in range(5)]
    assert found == [0, 1, 4, 9, 16]
    assert [result.get(TIMEOUT_S) for result in results] == [None] * 5


@pytest.mark.once
def test_a_tuple_that_cannot_be_computed_says_why(space: TupleSpace) -> None:
    with pytest.raises(ZeroDivisionError):
        space.eval("x", lambda: 1 / 0).get(TIMEOUT_S)
    assert len(space) == 0


def test_an_engine_computes_tuples_through_a_client_alone(rc: Client, space: TupleSpace) -> None:
    with pytest.raises(CapabilityError, match="a client of its own"):
        rc[0].apply_sync(lambda: space.eval("x", lambda: 1))


@pytest.mark.needs(Capability.PROCESS)
def test_an_engine_with_a_client_of_its_own_has_tuples_computed(
    rc: Client, cluster: Cluster, space: TupleSpace
) -> None:
    rc[0].push({"info": cluster.connection_info(), "name": space.name}, block=True)
    rc[0].execute("from nsactors import Client; from nsactors.models.tuple_space import TupleSpace", block=True)
    rc[0].execute("here = Client(info); done = TupleSpace(here, name).eval('six', lambda: 2 * 3)", block=True)
    assert space.in_("six", int, timeout=TIMEOUT_S) == ("six", 6)
    rc[0].execute("done.get(30); here.close()", block=True)


@pytest.mark.once
def test_tuples_move_and_are_copied_between_spaces(rc: Client, space: TupleSpace) -> None:
    other = TupleSpace(rc, f"{space.name}, the other")
    for number in range(3):
        space.out("job", number)
    space.out("rest")
    assert (space.copy_collect(other, "job", int), len(space), len(other)) == (3, 4, 3)
    assert (space.collect(other, "job", int), len(space), len(other)) == (3, 1, 6)
    other.close()
    assert len(other) == 0


def test_spaces_of_one_name_are_one_for_all_clients(connect: Callable[..., Client], space: TupleSpace) -> None:
    space.out("hello")
    assert TupleSpace(connect(), space.name).inp("hello") == ("hello",)


def test_closing_a_space_ends_the_wait_of_those_in_it(rc: Client, space: TupleSpace) -> None:
    waits = rc[0].apply_async(lambda: space.in_("never"))
    wait_until(lambda: space.waiting)
    space.close()
    with pytest.raises(ServiceClosed):
        waits.get(TIMEOUT_S)


def test_a_space_leaves_the_engines_to_others_while_nobody_computes(rc: Client, space: TupleSpace) -> None:
    waits = rc[0].apply_async(lambda: space.in_("go"))
    wait_until(lambda: space.waiting)
    rc[1:].push({"a": 1}, block=True)
    assert rc[1:].pull("a", block=True) == [1, 1, 1]
    space.out("go")
    assert waits.get(TIMEOUT_S) == ("go",)


@pytest.mark.services(both_ways=True)
@pytest.mark.needs(Capability.SIGNALS)
def test_an_interrupted_taker_takes_nothing(rc: Client, space: TupleSpace) -> None:
    waits = rc[0].apply_async(lambda: space.in_("job", int))
    wait_until(lambda: space.waiting)
    rc.interrupt(0)
    assert "KeyboardInterrupt" in str(waits.exception(TIMEOUT_S))
    wait_until(lambda: space.waiting == 0)
    space.out("job", 1)
    assert len(space) == 1


@pytest.mark.services(both_ways=True)
@pytest.mark.needs(Capability.PROCESS)
def test_a_killed_taker_takes_nothing(space: TupleSpace, victim: DirectView) -> None:
    waits = victim.apply_async(lambda: space.in_("job", int))
    wait_until(lambda: space.waiting)
    victim.shutdown()
    assert waits.exception(TIMEOUT_S)
    wait_until(lambda: space.waiting == 0)
    space.out("job", 1)
    assert space.in_("job", int, timeout=TIMEOUT_S) == ("job", 1)


@pytest.mark.services(both_ways=True)
def test_takers_that_were_killed_lose_nothing_of_what_was_put(
    rc: Client,
    space: TupleSpace,
    add_engines: Callable[[int], list[int]],
    end_engine: Callable[[int], None],
    gate: Gate,
) -> None:
    """Workers move numbers from one kind of tuple to another; some end in the midst of it."""

    def move(space: TupleSpace, hold: Callable[[], object]) -> None:
        hold()
        while True:
            space.in_("job", int)
            space.out("done")

    doomed = add_engines(2)
    workers = [rc[i].apply_async(move, space, gate.pass_through) for i in [0, *doomed]]
    gate.wait_arrived(3)
    for number in range(60):
        space.out("job", number)
    gate.open()
    space.rd("done", timeout=TIMEOUT_S)
    for engine_id in doomed:
        end_engine(engine_id)
    for number in range(60):
        space.out("job", number)
    wait_until(lambda: space.waiting == 1 and space.rdp("job", int) is None)  # those that have ended wait no more
    # What a worker had when it ended may be undone, and nothing else.
    assert 118 <= len(space) <= 120
    space.close()
    assert all(worker.exception(TIMEOUT_S) for worker in workers)


def test_a_thousand_who_wait_hold_up_nobody(rc: Client, space: TupleSpace) -> None:
    waiting = [space._service.ask(Ask(space.name, ("never", number), takes=True, waits=True)) for number in range(1000)]
    wait_until(lambda: space.waiting == 1000)
    space.out("now", 1)
    assert space.inp("now", int) == ("now", 1)
    del waiting  # abandoned: nobody says that they are not wanted
    space.out("now", 2)
    assert space.inp("now", int) == ("now", 2)
    wait_until(lambda: space.waiting == 0)
