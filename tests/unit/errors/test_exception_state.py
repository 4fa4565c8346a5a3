"""As much of an exception as can travel."""

import pickle
import threading
from typing import Any

import numpy as np
import pytest

from nsactors.errors.exception_state import PICKLED_BYTES, LeftOut, pickle_exception
from nsactors.protocol.serialize import pack_whole
from tests.unit.errors.raising import at_client, capture, describe


class Own(LookupError):
    """An exception with fields."""


class Group(ExceptionGroup[Exception]):
    """A group of its own kind."""


def of(exc: BaseException, room: int = PICKLED_BYTES) -> tuple[Any, tuple[str, ...]]:
    data, left_out = pickle_exception(exc, pack_whole, room)
    assert data is not None
    return pickle.loads(data), left_out


def test_what_can_travel_does_so_whole() -> None:
    held = [1]
    exc = Own(held, np.arange(3))
    exc.held = held  # type: ignore[attr-defined]
    found, left_out = of(exc)
    assert found.args[0] is found.held
    assert found.args[1].tolist() == [0, 1, 2]
    assert left_out == ()


def test_the_smallest_attributes_go_first_where_there_is_no_room_for_all() -> None:
    exc = Own("text")
    vars(exc).update(large=b"a" * 3_000, small=b"b" * 1_000, middle=b"c" * 2_000)
    found, left_out = of(exc, room=4_000)
    assert vars(found) == {"small": b"b" * 1_000, "middle": b"c" * 2_000}
    assert left_out == (".large (bytes) was left out: an exception carries at most 10 MB",)


def test_a_cause_has_the_room_that_is_left() -> None:
    failure = capture("raise ValueError(b'a' * 6_000_000) from KeyError(b'b' * 6_000_000)")
    error = at_client(failure)
    assert len(error.args[0]) == 6_000_000
    cause = error.__cause__
    assert isinstance(cause, KeyError)
    assert type(cause.args[0]) is LeftOut


def test_a_member_of_a_group_loses_what_it_cannot_bring_and_the_others_nothing() -> None:
    held = Own("held")
    vars(held).update(lock=threading.Lock(), code=7)
    found, left_out = of(Group("all", [Own(1), held]))
    assert type(found) is Group
    assert [type(member) for member in found.exceptions] == [Own, Own]
    assert vars(found.exceptions[1]) == {"code": 7}
    assert left_out == ("member 2: .lock (lock) was left out: cannot pickle '_thread.lock' object",)


def test_a_slot_of_a_class_that_stays_behind_is_an_attribute() -> None:
    class Slotted(Own):
        __slots__ = ("code",)
        lock = threading.Lock()

    exc = Slotted("bad")
    exc.code = 7
    found, left_out = of(exc)
    assert (type(found), found.code, found.args) == (Own, 7, ("bad",))
    assert left_out[0].startswith("the class (Slotted) was left out: ")


def test_what_stands_for_a_missing_argument_says_what_and_why() -> None:
    assert repr(LeftOut("lock", "cannot pickle it")) == "<lock left out: cannot pickle it>"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, ZeroDivisionError])
def test_whatever_pickling_raises_costs_its_part_alone(error: type[BaseException]) -> None:
    class Raising:
        def __reduce__(self) -> Any:
            raise error

    found, left_out = of(Own(Raising(), 3))
    assert found.args == (LeftOut("Raising", error.__name__), 3)
    assert len(left_out) == 1


def test_an_exception_that_is_false_is_a_true_error_at_the_client() -> None:
    class Empty(Exception):
        def __len__(self) -> int:
            return 0

    error = at_client(describe(Empty("x")))
    assert bool(error)
    assert isinstance(error, Empty)
