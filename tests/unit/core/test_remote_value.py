"""A handle on a value that is held elsewhere."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from nsactors.core.payload import Payload, pack, unpack
from nsactors.core.remote_value import ObjectGone, RemoteValue
from nsactors.errors import ObjectLost


@dataclass
class Held:
    """A stored object that travels as itself."""

    payload: Payload
    loads: int = 0

    def load(self) -> Payload:
        self.loads += 1
        return self.payload


class Gone:
    def load(self) -> Payload:
        raise ObjectGone("its node is on fire")


def held(value: object, nbytes: int = 0) -> RemoteValue:
    return RemoteValue(Held(pack(value)), "a", 2, "pull(a)", "list", nbytes)


def sent(value: object) -> Payload:
    return pack(value, ref_types=(Held,))


def test_on_an_engine_it_arrives_as_the_value() -> None:
    assert unpack(sent({"x": (held([1, 2]), 3)}), scope={}) == {"x": ([1, 2], 3)}


def test_what_stands_several_times_is_loaded_once() -> None:
    value = held([1])
    first, second = unpack(sent([value, value]), scope={})
    assert first is second
    assert value.stored.loads == 1  # type: ignore[attr-defined]


def test_elsewhere_it_stays_a_handle() -> None:
    value = held([1, 2])
    back = unpack(sent([value]))[0]
    assert (back.stored, repr(back), back.get()) == (value.stored, repr(value), [1, 2])
    assert value.stored.loads == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("copy", [False, True])
def test_arrays_are_copied_where_it_arrives_if_that_is_asked_for(copy: bool) -> None:
    value = held(np.zeros(3))
    assert value.get(copy=copy).flags.writeable is copy
    assert unpack(sent(value), scope={}, copy=copy).flags.writeable is copy


def test_a_function_belongs_to_the_namespace_where_it_arrives() -> None:
    main = {"__name__": "__main__", "factor": 2}
    exec("def scaled(x):\n    return [factor * y for y in x]", main)
    scope = {"__name__": "__main__", "factor": 20}
    function = unpack(sent(held(main["scaled"])), scope=scope)
    assert function([1]) == [20]


def test_the_error_of_a_lost_one_names_it() -> None:
    value = RemoteValue(Gone(), "a.T", 2, "pull(a.T)", "list", 0)
    with pytest.raises(ObjectLost, match=r"'a\.T' that engine 2 held since pull\(a\.T\) is lost: its node is on fire"):
        value.get()


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2_500_000, "2.5 MB"), (3 * 10**12, "3.0 TB")],
)
def test_its_repr_tells_its_size(nbytes: int, text: str) -> None:
    assert repr(held([], nbytes)) == f"<RemoteValue 'a' on engine 2: list, {text}>"


@pytest.mark.parametrize("clone", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_cannot_be_pickled_by_hand(clone: object) -> None:
    with pytest.raises(TypeError, match="part of a call"):
        clone(held([]))  # type: ignore[operator]
