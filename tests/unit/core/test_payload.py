import gc
import pickle
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.core.messages import Reference
from nsactors.core.payload import Payload, pack, unpack
from nsactors.errors.tree import SerializationError

atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
keys = st.integers() | st.text() | st.binary()
values = st.recursive(
    atoms | st.complex_numbers(allow_nan=False) | st.frozensets(keys) | st.sets(keys),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner),
)


class Stored:
    """A reference to an object in a store; it says so loudly when it is pickled."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __reduce__(self) -> Any:
        raise AssertionError("a reference was pickled")


def there_and_back(value: Any, **options: Any) -> Any:
    return unpack(pack(value), **options)


def type_tree(value: Any) -> Any:
    match value:
        case dict():
            return dict, [(type(key), type_tree(item)) for key, item in value.items()]
        case list() | tuple():
            return type(value), [type_tree(item) for item in value]
    return type(value)


@given(values)
def test_builtins_come_back_with_their_types(value: Any) -> None:
    back = there_and_back(value)
    assert back == value
    assert type_tree(back) == type_tree(value)


def test_what_is_one_object_stays_one_object() -> None:
    inner: list[int] = []
    first, second = there_and_back([inner, inner])
    assert first is second


ARRAYS = {
    "C order": np.arange(6.0).reshape(2, 3),
    "Fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10)[::2],
    "negative strides": np.arange(6).reshape(2, 3)[:, ::-1],
    "transposed": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "0-d": np.array(3.0),
    "empty": np.empty((0, 3)),
    "dates": np.array(["2020-01-01", "NaT"], "M8[D]"),
    "time spans, strided": np.arange(6, dtype="m8[us]").reshape(2, 3)[:, ::2],
    "structured": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "structured with dates": np.zeros(2, "M8[s],i4"),
    "big-endian": np.arange(3, dtype=">i4"),
    "text": np.array(["ab", "c"]),
    "bools": np.array([True, False]),
    "raw": np.zeros(2, "V3"),
    "broadcast": np.broadcast_to(np.arange(3), (2, 3)),
}
arrays = pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)


@arrays
@pytest.mark.parametrize("copy", [False, True])
def test_arrays_come_back_as_they_were(array: Any, copy: bool) -> None:
    back = there_and_back(array, copy=copy)
    np.testing.assert_array_equal(back, array)
    assert type(back) is np.ndarray
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    if array.flags.f_contiguous:
        assert back.flags.f_contiguous


@pytest.mark.parametrize("name", ARRAYS.keys() - {"structured with dates"})
def test_arrays_are_read_only_unless_a_copy_is_asked_for(name: str) -> None:
    assert not there_and_back(ARRAYS[name]).flags.writeable
    assert there_and_back(ARRAYS[name], copy=True).flags.writeable


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_copy_can_be_written_to_also_of_what_was_read_only(order: Any) -> None:
    array = np.ones((2, 3), order=order)
    array.flags.writeable = False
    back = there_and_back({"a": array}, copy=True)["a"]
    assert back.flags.writeable
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("array", [np.array([1, None, "a"], object), np.array([[], None], object)])
def test_arrays_of_objects_come_back(array: Any) -> None:
    back = there_and_back(array)
    assert back.dtype == object
    assert back.tolist() == array.tolist()


def test_masked_arrays_come_back() -> None:
    back = there_and_back(np.ma.array([1, 2, 3], mask=[0, 1, 0]))
    assert isinstance(back, np.ma.MaskedArray)
    assert back.tolist() == [1, None, 3]


def test_numpy_scalars_come_back() -> None:
    back = there_and_back(np.float32(1.5))
    assert (type(back), back) == (np.float32, 1.5)


@arrays
def test_memory_of_arrays_stays_out_of_the_pickle(array: Any) -> None:
    if array.dtype.names != ("f0", "f1"):
        assert len(pack({"a": array}).buffers) == 1


def test_packing_copies_no_array() -> None:
    array = np.zeros(1000)
    (buffer,) = pack(array).buffers
    assert np.shares_memory(np.asarray(buffer), array)


def test_unpacking_copies_no_array() -> None:
    payload = pack(np.zeros(1000))
    assert np.shares_memory(unpack(payload), np.asarray(payload.buffers[0]))


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda b: np.frombuffer(b, "u1")])
def test_a_transport_may_bring_data_and_buffers_as_any_bytes(kind: Callable[[Any], Any]) -> None:
    packed = pack(np.arange(5))
    back = unpack(Payload(kind(packed.data), tuple(map(kind, packed.buffers))))
    assert back.tolist() == [0, 1, 2, 3, 4]
    assert not back.flags.writeable


def test_size_counts_data_and_buffers() -> None:
    payload = pack(np.zeros(1000))
    assert payload.nbytes == len(payload.data) + 8000


def test_references_travel_beside_the_pickle() -> None:
    a, b = Stored("a"), Stored("b")
    payload = pack({"x": [b, 1], "y": (a, b)}, ref_types=(Stored,))
    assert payload.refs == (b, a)
    assert unpack(payload) == {"x": [b, 1], "y": (a, b)}


def test_references_come_back_as_what_stands_in_their_place() -> None:
    payload = pack([Stored("a"), Stored("b")], ref_types=(Stored,))
    assert unpack(Payload(payload.data, payload.buffers, ("A", "B"))) == ["A", "B"]


def test_a_pickle_with_references_cannot_be_loaded_without_them() -> None:
    payload = pack(Stored("a"), ref_types=(Stored,))
    with pytest.raises(pickle.UnpicklingError, match="unpack"):
        pickle.loads(payload.data)


def test_what_was_unpacked_is_freed_without_the_cycle_collector() -> None:
    gc.disable()
    try:
        payload = pack([Stored("a"), test_packing_copies_no_array, lambda: 0], ref_types=(Stored,))
        thing = Stored("big")
        watch = weakref.ref(thing)
        unpack(Payload(payload.data, (), (thing,)), scope={"__name__": "__main__"})
        del thing
        assert watch() is None
    finally:
        gc.enable()


def test_a_name_on_the_engine_is_looked_up_where_it_is_unpacked() -> None:
    value = (Reference("a"), {"k": [Reference("b.T[0] + len(a)")]})
    a, b = [1, 2], np.array([[10.0]])
    assert there_and_back(value, scope={"a": a, "b": b}) == (a, {"k": [12.0]})


def test_a_missing_name_is_a_name_error() -> None:
    with pytest.raises(NameError, match="'a'"):
        there_and_back(Reference("a"), scope={})


def test_elsewhere_a_name_on_the_engine_stays_what_it_is() -> None:
    assert there_and_back(Reference("a")) == Reference("a")


def generator() -> Iterator[int]:
    yield 1


@dataclass
class Model:
    lock: Any = field(default_factory=threading.Lock)


def with_a_lock() -> Callable[[], Any]:
    lock = threading.Lock()
    return lambda: lock


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (generator(), r"^a generator .* list\("),
        ([1, generator()], r"^at \[1\]: a generator"),
        (threading.Lock(), r"^cannot pickle '_thread.lock' object"),
        ({"a": [0, (threading.Lock(),)]}, r"^at \['a'\]\[1\]\[0\]: cannot pickle '_thread.lock'"),
        ([Model()], r"^at \[0\]\.lock: cannot pickle"),
        (partial(print, threading.Lock()), r"^at \.args\[0\]: cannot pickle"),
        (with_a_lock(), r"^at \.<lock>: cannot pickle"),
        (threading.Lock().acquire, "cannot pickle '_thread.lock'"),
    ],
)
def test_what_cannot_be_pickled_is_named(value: Any, reason: str) -> None:
    with pytest.raises(SerializationError, match=r"^argument 2 cannot") as error:
        pack(value, what="argument 2")
    assert re.search(reason, error.value.reason)
    assert isinstance(error.value.__cause__, Exception)


def test_too_deep_a_nesting_is_an_error_of_serialisation() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(SerializationError, match="nested too deeply"):
        pack(nested)


class Awkward:
    def __reduce__(self) -> Any:
        raise ValueError


def test_an_error_without_a_text_is_named_by_its_class() -> None:
    with pytest.raises(SerializationError, match="ValueError"):
        pack(Awkward())


def test_an_interrupt_is_not_an_error_of_serialisation() -> None:
    class Interrupted:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(Interrupted())


def test_a_cycle_does_not_hide_what_cannot_be_pickled() -> None:
    loop: list[Any] = []
    loop += [loop, threading.Lock()]
    with pytest.raises(SerializationError, match=r"at \[1\]: cannot pickle '_thread\.lock'"):
        pack(loop)
