"""Helpers that programs written for ipyparallel call."""

from __future__ import annotations

import pickle
import socket
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nsactors.ipyparallel import error, serialize, util
from nsactors.ipyparallel.controller import dependency


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("tcp://*:5555", "tcp://10.0.0.5:5555"),
        ("tcp://0.0.0.0:5555", "tcp://10.0.0.5:5555"),
        ("tcp://10.0.0.6:5555", "tcp://10.0.0.6:5555"),
        ("ipc://socket", "ipc://socket"),
    ],
)
def test_an_address_of_everywhere_is_made_one_of_somewhere(url: str, found: str) -> None:
    assert util.disambiguate_url(url, "10.0.0.5") == found


def test_times_are_compared_whether_they_know_their_zone_or_not() -> None:
    now = datetime.now(UTC)
    assert (
        util.compare_datetimes(now + timedelta(seconds=1), now.astimezone().replace(tzinfo=None)).total_seconds() == 1
    )


def test_keys_that_are_digits_become_numbers() -> None:
    assert util.int_keys({"1": 2, "a": 3, 4: 5}) == {1: 2, "a": 3, 4: 5}


def test_an_interactive_function_is_of_main_and_works_here() -> None:
    @util.interactive
    def double(x: int) -> int:
        """Twice."""
        return 2 * x

    assert double.__module__ == "__main__"
    assert (double(2), double.__doc__) == (4, "Twice.")


def test_objects_and_calls_are_packed_and_unpacked() -> None:
    buffers = serialize.serialize_object({"a": bytearray(5)})
    assert serialize.deserialize_object([*buffers, b"rest"]) == ({"a": bytearray(5)}, [b"rest"])
    function, args, kwargs = serialize.unpack_apply_message(serialize.pack_apply_message(abs, [-1], {"a": 2}))
    assert (function(*args), kwargs) == (1, {"a": 2})
    assert serialize.uncan(serialize.Reference("a + 1"), {"a": 5}) == 6


def test_large_bytes_and_arrays_have_buffers_of_their_own() -> None:
    large, view = b"x" * 2000, memoryview(b"y" * 2000)
    for obj, count in [(large, 1), ({"a": large, "b": [large]}, 1), ([large, 1, large], 2), (b"small", 0)]:
        buffers = serialize.serialize_object(obj)
        assert len(buffers) == 1 + count
        assert serialize.deserialize_object(buffers) == (obj, [])
    assert len(buffers := serialize.serialize_object(view)) == 2
    assert serialize.deserialize_object(buffers)[0].tobytes() == view.tobytes()
    assert len(serialize.serialize_object(np.ones(100))) == 1
    assert len(buffers := serialize.serialize_object(np.ones(200))) == 2
    assert serialize.deserialize_object(buffers)[0].sum() == 200
    buffers = serialize.pack_apply_message(len, [large, bytearray(large)], {"k": view})
    assert len(buffers) == 4
    _, args, kwargs = serialize.unpack_apply_message(buffers)
    assert args == (large, bytearray(large))
    assert kwargs["k"].tobytes() == view.tobytes()


def test_the_address_of_this_machine_is_the_local_one() -> None:
    assert util.disambiguate_ip_address("0.0.0.0", socket.gethostname()) == "127.0.0.1"
    with pytest.warns(RuntimeWarning, match=r"nonesuch\.invalid"):
        assert util.disambiguate_ip_address("0.0.0.0", "nonesuch.invalid") == "nonesuch.invalid"


def test_what_a_function_requires_is_bound_where_its_condition_is_checked() -> None:
    import __main__

    @dependency.require("colorsys", answer=42)
    def function() -> None: ...

    try:
        function.check_dependency()
        assert (__main__.colorsys.__name__, __main__.answer) == ("colorsys", 42)
    finally:
        del __main__.colorsys, __main__.answer
    with pytest.raises(error.UnmetDependency):
        dependency.require("no_such_module")(abs).check_dependency()


def reopened(name: bytes) -> object:
    """Stand in for ``dill.loads``."""
    return open(name)


def test_open_files_travel_by_dill_while_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text"
    path.write_text("read")
    dill = SimpleNamespace(loads=reopened, dumps=lambda file: file.name.encode())
    monkeypatch.setitem(sys.modules, "dill", dill)
    with open(path, "a") as file:
        serialize.use_dill()
        serialize.use_dill()
        try:
            with serialize.deserialize_object(serialize.serialize_object([file]))[0][0] as arrived:
                assert arrived.read() == "read"
        finally:
            serialize.use_pickle()
            serialize.use_pickle()
        with pytest.raises(pickle.PicklingError):
            serialize.serialize_object(file)
        with pytest.raises(TypeError):
            serialize.serialize_object(file.buffer)


def test_dill_need_not_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dill", None)
    serialize.use_dill()
    with pytest.raises(TypeError):
        serialize.serialize_object(threading.Lock())
