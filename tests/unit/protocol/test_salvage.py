"""What can be unpickled of values that have been pickled together."""

from __future__ import annotations

import collections
from typing import Any

import cloudpickle
import numpy as np
import pytest

from nsactors.protocol.salvage import Broken, Salvage
from nsactors.protocol.serialize import OWN_BYTES, Payload, pack, unpack


class Mine:
    """Raises the given error when it is loaded."""

    def __init__(self, x: Any = 1) -> None:
        self.x = x


class OnCall(Mine):
    def __reduce__(self) -> Any:
        return _raise, (self.x,)


class OnState(Mine):
    def __getstate__(self) -> Any:
        return self.x

    def __setstate__(self, state: Any) -> None:
        raise state


class OnNew(Mine):
    def __getnewargs__(self) -> Any:
        return (self.x,)

    def __new__(cls, x: Any) -> OnNew:
        raise x


class OnHash(Mine):
    def __hash__(self) -> int:
        if getattr(self, "loaded", False):
            raise self.x
        return 1

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state, loaded=True)


def _raise(error: BaseException) -> None:
    raise error


def quiet(error: BaseException) -> OnNew:
    value = object.__new__(OnNew)
    value.x = error
    return value


ERRORS = [ValueError("no"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("make", [OnCall, OnState, quiet, lambda error: OnHash(error) and {OnHash(error)}])
@pytest.mark.parametrize(
    "hide",
    [
        lambda bad: bad,
        lambda bad: [1, bad, 2],
        lambda bad: (bad,),
        lambda bad: (1, 2, 3, bad),
        lambda bad: {"a": {"b": bad}},
        Mine,
        lambda bad: collections.deque([bad]),
        lambda bad: collections.OrderedDict(a=Mine([bad])),
        lambda bad: np.array([None, bad], dtype=object),
    ],
)
def test_the_value_that_cannot_be_made_is_left_out_and_no_other(make: Any, hide: Any, error: BaseException) -> None:
    values = ["before", hide(make(error)), np.arange(3), Mine("after"), (1, "x"), {"k": {1, 2}}]
    payload = pack(values)
    with pytest.raises(type(error)):
        unpack(payload)
    salvage = Salvage(payload)
    broken = salvage.value(1)
    assert type(broken) is Broken
    assert type(broken.error) is type(error)
    assert salvage.value(0) == "before"
    np.testing.assert_array_equal(salvage.value(2), np.arange(3))
    assert (salvage.value(3).x, salvage.value(4), salvage.value(5)) == ("after", (1, "x"), {"k": {1, 2}})


def test_what_holds_the_same_broken_value_is_broken_too() -> None:
    shared = [OnCall(ValueError("no"))]
    salvage = Salvage(pack([{"a": shared}, [shared], "whole"]))
    assert [type(salvage.value(i)) for i in range(3)] == [Broken, Broken, str]


def test_items_of_a_list_are_whole_or_not_each_by_itself() -> None:
    items = [OnCall(ValueError("no")) if number % 500 == 7 else Mine(number) for number in range(2500)]
    salvage = Salvage(pack([items, "other"]))
    assert [getattr(item, "x", None) for item in salvage.items(0)] == [
        getattr(i, "x", 0) if type(i) is Mine else None for i in items
    ]
    assert salvage.value(1) == "other"


def test_arrays_can_be_written_to_on_request() -> None:
    values = [OnCall(ValueError("no")), np.zeros(OWN_BYTES)]
    read_only, writable = (Salvage(pack(values), copy=copy).value(1) for copy in (False, True))
    assert not read_only.flags.writeable
    writable[0] = 1


def test_a_module_that_is_missing_here_spoils_what_needs_it() -> None:
    payload = pack([Mine(1), 2])
    missing = payload._replace(data=bytes(payload.data).replace(b"Mine", b"Nine"))
    salvage = Salvage(missing)
    assert isinstance(salvage.value(0).error, AttributeError)
    assert salvage.value(1) == 2


def test_a_class_whose_attributes_cannot_be_made_spoils_its_instances() -> None:
    names: dict[str, Any] = {"__name__": "__main__", "bad": OnCall(ValueError("no"))}
    exec("class Own:\n    held = bad\nclass Fine: pass", names)
    found = Salvage(Payload(cloudpickle.dumps([names["Own"](), names["Fine"](), 1]))).values()
    assert [type(value) is Broken for value in found] == [True, False, False]
