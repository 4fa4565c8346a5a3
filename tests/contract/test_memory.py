"""The contents of memory can be seen, and large data that a call carries by accident is reported (D10, P8)."""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nsactors import Client, DirectView, Reference
from nsactors.errors import LargeCaptureWarning, NoSuchEngine
from nsactors.protocol.messages import Capability
from nsactors.session import carried_data
from nsactors.testing import Gate, wait_until

ITEMS = 1_000_000
NBYTES = 8 * ITEMS


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried_data, "LIMIT_BYTES", NBYTES // 2)


@pytest.fixture
def simulate() -> Callable[..., Any]:
    """A function typed at a prompt that uses a large global."""
    names = {"__name__": "__main__", "__builtins__": builtins, "table": np.ones(ITEMS)}
    exec("def simulate(i, given=None): return table[i]", names)
    function: Callable[..., Any] = names["simulate"]  # type: ignore[assignment]
    return function


@pytest.mark.usefixtures("low_limit")
def test_a_large_global_is_told_at_the_users_line_and_the_call_is_made(dv: DirectView, simulate: Any) -> None:
    with pytest.warns(LargeCaptureWarning, match=r"`simulate` carries the global `table` \(8.0 MB\)") as caught:
        assert dv.apply(simulate, 3) == [1.0] * 4
    assert caught[0].filename == __file__


@pytest.mark.usefixtures("low_limit")
@pytest.mark.parametrize("how", ["push", "scatter"])
def test_a_function_uses_the_pushed_value_and_the_warning_says_so(dv: DirectView, simulate: Any, how: str) -> None:
    pushed = np.full(4 * ITEMS, 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dv.push({"table": pushed}) if how == "push" else dv.scatter("table", pushed)
    with pytest.warns(LargeCaptureWarning, match="`table` was pushed, and the function uses the pushed value"):
        assert dv.apply(simulate, 3) == [2.0] * 4


@pytest.mark.usefixtures("low_limit")
def test_it_is_told_once_for_each_client(dv: DirectView, simulate: Any, connect: Callable[..., Client]) -> None:
    for view in (dv, connect()[0]):
        with pytest.warns(LargeCaptureWarning):
            view.apply_sync(simulate, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            view.apply_sync(simulate, 4)
            view.map_sync(simulate, [5])


@pytest.mark.usefixtures("low_limit")
def test_a_large_argument_is_told_and_a_pushed_one_is_not(dv: DirectView) -> None:
    def length(given: Any) -> int:
        return len(given)

    table = np.ones(ITEMS)
    with pytest.warns(LargeCaptureWarning, match="the argument `given`"):
        assert dv.apply(length, table) == [ITEMS] * 4
    dv.push({"given": table})
    assert dv.apply(length, Reference("given")) == [ITEMS] * 4


@pytest.mark.usefixtures("low_limit")
def test_a_large_global_of_a_map_is_told_and_its_sequence_is_not(dv: DirectView, simulate: Any) -> None:
    dv.map(len, np.ones((4, ITEMS // 4)))
    with pytest.warns(LargeCaptureWarning, match="the global `table`"):
        assert dv.map(simulate, range(4)) == [1.0] * 4


@pytest.mark.usefixtures("low_limit")
def test_data_that_is_pushed_or_scattered_is_not_told(dv: DirectView) -> None:
    dv["table"] = np.ones(ITEMS)
    dv.scatter("part", np.ones(ITEMS))


def test_names_are_told_with_their_sizes_the_largest_first(rc: Client) -> None:
    rc[0].execute("import numpy as np\nsmall = [1]\nlarge = np.ones(1_000_000)", block=True)
    names = rc[0].memory().engines[0].namespace.names
    assert [name.name for name in names] == ["large", "small"]
    assert names[0].size.own == NBYTES


def test_only_the_largest_names_are_told_and_the_others_counted(rc: Client) -> None:
    rc[0].push({"a": "x" * 9000, "b": "x" * 90, "c": "x" * 900}, block=True)
    namespace = rc.memory(0, top=1).engines[0].namespace
    assert ([name.name for name in namespace.names], namespace.others) == (["a"], 2)


def test_all_engines_of_a_client_or_those_of_a_view_are_told(rc: Client) -> None:
    assert list(rc.memory().engines) == rc.ids
    assert list(rc[1:3].memory().engines) == [1, 2]
    with pytest.raises(NoSuchEngine):
        rc.memory(99)


def test_a_busy_engine_answers(rc: Client, gate: Gate) -> None:
    rc[0].push({"x": 1}, block=True)
    held = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    memory = rc.memory()
    assert not held.done()
    assert memory.silent == ()
    assert memory.engines[0].namespace.names[0].name == "x"


@pytest.mark.needs(Capability.PROCESS)
def test_an_engine_whose_interpreter_is_held_is_named(rc: Client, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nsactors.session.memory.REPLY_WAIT_S", 0.5)
    rc[0].apply_async(gate.pass_holding_gil)
    gate.wait_arrived()
    seen = []

    def look() -> bool:
        seen.append(rc.memory())
        return list(seen[-1].engines) == [1, 2, 3]  # on a busy machine others may be silent at first

    wait_until(look)
    assert all(0 in memory.silent for memory in seen)
    assert seen[-1].silent == (0,)
    assert "no answer" in str(seen[-1])


def test_engines_that_hold_the_same_are_shown_together(rc: Client) -> None:
    rc.push_all({"x": 1})
    rc[3].push({"x": "more"}, block=True)
    assert "engines 0-2" in str(rc.memory())


@pytest.mark.needs(Capability.PROCESS)
def test_an_engine_with_a_process_tells_what_it_takes(rc: Client) -> None:
    process = rc.memory(0).engines[0].process
    assert process is not None
    assert 10_000_000 < process.unique < process.resident


@pytest.mark.needs(Capability.OBJECT_STORE)
def test_a_pushed_array_lies_once_in_the_store_and_belongs_to_no_engine(rc: Client) -> None:
    def push_one_more(number: int) -> bool:
        """Return whether the store holds one array more after a push; dropped objects may leave it at the same time."""
        before = rc.memory().stores[0].used
        rc[:].push({f"table_{number}": np.ones(ITEMS)}, block=True)
        memory = rc.memory()
        for engine in memory.engines.values():
            assert engine.namespace.names[0].size == (0, NBYTES)
        return NBYTES <= memory.stores[0].used - before < 2 * NBYTES

    numbers = iter(range(10))
    wait_until(lambda: push_one_more(next(numbers)))
