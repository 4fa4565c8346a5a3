from __future__ import annotations

import copy
import ctypes
import gc
import math
import os
import pickle
import re
import statistics
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

from nsactors.errors import ObjectLost
from nsactors.errors.exceptions import SerializationError
from nsactors.protocol.messages import Reference
from nsactors.protocol.serialize import OWN_BYTES, ObjectGone, Payload, RemoteValue, pack, pack_call, pack_whole, unpack

atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
keys = st.integers() | st.text() | st.binary()
values = st.recursive(
    atoms | st.complex_numbers(allow_nan=False) | st.frozensets(keys) | st.sets(keys),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner),
)


class Stored:
    """A reference to an object in a store; it raises an error when it is pickled."""

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


@arrays
def test_a_small_array_is_the_receivers_own(array: Any) -> None:
    payload = pack(array)
    back = unpack(payload)
    assert back.flags.writeable
    assert not any(np.shares_memory(back, np.asarray(buffer)) for buffer in payload.buffers)


LARGE = {
    "C order": np.zeros((4, OWN_BYTES // 4), "u1"),
    "Fortran order": np.zeros((4, OWN_BYTES // 4), "u1", order="F"),
    "strided": np.zeros(2 * OWN_BYTES, "u1")[::2],
    "dates": np.zeros(OWN_BYTES // 8, "M8[s]"),
    "structured": np.zeros(OWN_BYTES // 16, "i8,f8"),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("copy", [False, True])
def test_arrays_are_the_receivers_own_up_to_a_size_and_beyond_it_if_a_copy_is_asked_for(name: str, copy: bool) -> None:
    largest = LARGE[name]
    larger = np.concatenate([largest, largest[:1]])
    assert largest.nbytes == OWN_BYTES < larger.nbytes
    own, other = there_and_back([largest, larger], copy=copy)
    assert (own.flags.writeable, other.flags.writeable) == (True, copy)


def test_a_small_part_of_what_was_read_only_is_the_receivers_own() -> None:
    large = there_and_back(np.zeros(OWN_BYTES + 1, "u1"))
    assert not large[:10].flags.writeable
    assert there_and_back(large[:10]).flags.writeable


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_no_receiver_can_write_to_what_another_one_has(kind: Callable[[Any], Any]) -> None:
    packed = pack({"small": np.zeros(3), "large": np.zeros(OWN_BYTES)})
    payload = Payload(packed.data, tuple(map(kind, packed.buffers)))
    first, second = unpack(payload), unpack(payload)
    first["small"][0] = 1
    assert second["small"][0] == 0
    with pytest.raises(ValueError, match="read-only"):
        first["large"][0] = 1


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


def test_unpacking_copies_no_large_array() -> None:
    payload = pack(np.zeros(OWN_BYTES))
    assert np.shares_memory(unpack(payload), np.asarray(payload.buffers[0]))


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda b: np.frombuffer(b, "u1")])
def test_a_transport_may_bring_data_and_buffers_as_any_bytes(kind: Callable[[Any], Any]) -> None:
    packed = pack(np.arange(5))
    back = unpack(Payload(kind(packed.data), tuple(map(kind, packed.buffers))))
    assert back.tolist() == [0, 1, 2, 3, 4]
    assert back.flags.writeable


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
        (with_a_lock(), r"^in its variable 'lock': cannot pickle"),
        ([with_a_lock()], r"^at \[0\], in its variable 'lock': cannot pickle"),
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


def test_a_value_whose_pickling_exits_is_one_that_cannot_be_pickled() -> None:
    class Exits:
        def __reduce__(self) -> Any:
            raise SystemExit("not today")

    with pytest.raises(
        SerializationError, match=r"the values cannot be sent to another process: at \['a'\]: not today"
    ):
        pack({"a": Exits()}, what="the values")


def take(*args: Any, **kwargs: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((generator(),), {}, "argument 1 of take cannot be sent to another process: a generator"),
        ((1, [2, generator()]), {}, "argument 2 of take cannot be sent to another process: at [1]: a generator"),
        ((), {"x": generator()}, "argument 'x' of take cannot be sent to another process: a generator"),
    ],
)
def test_of_a_call_it_is_the_argument_that_is_named(args: tuple[Any, ...], kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(SerializationError) as caught:
        pack_call(take, args, kwargs, name="take")
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("function", [abs, math.hypot, os.getpid, np.zeros, statistics.mean, [].append, "a".join])
def test_a_call_of_an_imported_function_is_pickled_as_any_other_value(function: Callable[..., Any]) -> None:
    assert pack_call(function, (1, "a"), {"k": 2.0}, name="f") == pack((function, (1, "a"), {"k": 2.0}))
    assert pack_call(function, ("x" * 10_000,), {}, name="f") == pack((function, ("x" * 10_000,), {}))


def test_a_builtin_function_whose_name_leads_elsewhere_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    function = math.hypot
    monkeypatch.delattr(math, "hypot")
    with pytest.raises(SerializationError, match=r"^the function hypot cannot"):
        pack_call(function, (1,), {}, name="hypot")


def test_of_a_call_it_may_be_the_function() -> None:
    with pytest.raises(SerializationError, match=r"^the function f cannot .*: in its variable 'lock': cannot pickle"):
        pack_call(with_a_lock(), (), {}, name="f")


@pytest.mark.parametrize("is_used", [False, True])
def test_a_loaded_library_stays_in_its_process(is_used: bool) -> None:
    library = ctypes.CDLL(None)
    if is_used:
        library.abs  # noqa: B018 (ctypes keeps the function in the library)
    with pytest.raises(SerializationError, match=r"at \['lib'\]: a CDLL is a library loaded into one process: load it"):
        pack({"lib": library})


class Poses:
    """It says that it is a number."""

    def __init__(self, value: int) -> None:
        self.value = value

    @property
    def __class__(self) -> Any:
        return int


class RaisesIfAsked(Poses):
    @property
    def __class__(self) -> Any:
        raise ValueError("it does not say")


@pytest.mark.parametrize("kind", [Poses, RaisesIfAsked])
def test_an_object_that_says_it_is_of_another_class_arrives_as_it_is(kind: type[Poses]) -> None:
    first, second, array = unpack(pack([one := kind(3), one, np.arange(3)]))
    assert (type(first), first.value) == (kind, 3)
    assert second is first
    assert array.tolist() == [0, 1, 2]


def test_such_an_object_can_go_with_what_is_small() -> None:
    assert pickle.loads(pack_whole({"a": Poses(4)}, 10_000))["a"].value == 4


def test_beside_such_an_object_the_part_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(SerializationError, match=r"at \[1\]: cannot pickle '_thread\.lock'"):
        pack([Poses(3), threading.Lock()])


# A handle on a value that is held elsewhere.


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
    value = held(np.zeros(OWN_BYTES))
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
