"""ipyparallel's functions that pickle objects and calls, for programs that call them.

Objects always travel by cloudpickle, with large buffers apart. :func:`use_dill` adds the kinds of objects that only
dill pickles; the other functions that choose a pickler have no effect beyond ending that.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import threading
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import nsactors
from nsactors import Reference

__all__ = [
    "PrePickled",
    "Reference",
    "can",
    "can_map",
    "deserialize_object",
    "pack_apply_message",
    "serialize_object",
    "uncan",
    "uncan_map",
    "unpack_apply_message",
    "use_cloudpickle",
    "use_dill",
    "use_pickle",
]


# The thresholds of ipyparallel: bytes of a buffer, and items of a sequence.
MAX_BYTES = 1024
MAX_ITEMS = 64


class PrePickled:
    """A wrapper of an object that is sent several times; views send the object in its place.

    Args:
        obj: the object.
    """

    def __init__(self, obj: Any) -> None:
        self.obj = obj


def unwrapped(value: Any) -> Any:
    """Return the object in a ``PrePickled``; return any other value unchanged."""
    return value.obj if isinstance(value, PrePickled) else value


def can(obj: Any) -> Any:
    """Return ``obj``: cloudpickle needs no preparation."""
    return obj


def uncan(obj: Any, g: Mapping[str, Any] | None = None) -> Any:
    """Undo :func:`can`; look up a ``Reference`` in ``g``."""
    if isinstance(obj, nsactors.Reference) and g is not None:
        return eval(obj.name, dict(g))
    return unwrapped(obj)


def can_map(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Apply :func:`can` to each value."""
    return {name: can(value) for name, value in mapping.items()}


def uncan_map(mapping: Mapping[str, Any], g: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Apply :func:`uncan` to each value."""
    return {name: uncan(value, g) for name, value in mapping.items()}


# Kinds of objects that dill pickles, and cloudpickle does not, or only in part.
_OF_DILL: tuple[type, ...] = (
    io.TextIOWrapper,
    io.BufferedReader,
    io.BufferedWriter,
    io.BufferedRandom,
    io.FileIO,
    type(threading.Lock()),
    type(threading.RLock()),
)
_before_dill: dict[type, Any] = {}
_choice = threading.Lock()  # engines in threads choose at the same time


def use_dill() -> None:
    """Pickle open files and locks of this process by dill, which must then be installed wherever they are sent.

    Without dill this does nothing: closures, lambdas and classes of ``__main__`` travel always.
    """
    try:
        import_module("dill")
    except ImportError:
        return
    import cloudpickle

    # cloudpickle has a rule of its own for text files, which comes before the rules of `copyreg`.
    rules = cloudpickle.Pickler.dispatch_table
    with _choice:
        if not _before_dill:
            _before_dill.update({kind: rules[kind] for kind in _OF_DILL if kind in rules})
        rules.update(dict.fromkeys(_before_dill, _reduce_by_dill))
        for kind in _OF_DILL:
            copyreg.pickle(kind, _reduce_by_dill)


def use_cloudpickle() -> None:
    """Undo :func:`use_dill`: cloudpickle is always used."""
    import cloudpickle

    with _choice:
        if not _before_dill:  # dill has not been used
            return
        cloudpickle.Pickler.dispatch_table.update(_before_dill)
        _before_dill.clear()
        for kind in _OF_DILL:
            del copyreg.dispatch_table[kind]


def use_pickle() -> None:
    """Undo :func:`use_dill`: cloudpickle accepts every object that plain pickle accepts."""
    use_cloudpickle()


def _reduce_by_dill(obj: Any) -> Any:
    dill = import_module("dill")
    return dill.loads, (dill.dumps(obj),)


class _Bytes:
    """Bytes that travel as a buffer of their own.

    Args:
        kind: makes the original object from the buffer.
        data: the bytes.
    """

    def __init__(self, kind: type, data: Any) -> None:
        self._kind = kind
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return self._kind, (pickle.PickleBuffer(self._data),)


def serialize_object(obj: Any, buffer_threshold: int = MAX_BYTES, item_threshold: int = MAX_ITEMS) -> list[Any]:
    """Return the pickle of ``obj``, followed by its buffers.

    Args:
        obj: the object.
        buffer_threshold: arrays of at least this size in bytes travel as buffers of their own. So do bytes of this size
            that are the object itself, or are in a list, a tuple or a dictionary.
        item_threshold: the greatest length of a list, a tuple or a dictionary that is searched for bytes.
    """
    import cloudpickle

    buffers: list[pickle.PickleBuffer] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        """Return whether a buffer is part of the pickle; keep the others."""
        if buffer.raw().nbytes < buffer_threshold:
            return True
        buffers.append(buffer)
        return False

    apart = _with_bytes_apart(unwrapped(obj), buffer_threshold, item_threshold)
    data = cloudpickle.dumps(apart, protocol=5, buffer_callback=is_small)
    head = len(buffers).to_bytes(4, "big")
    return [head + data, *(bytes(buffer.raw()) for buffer in buffers)]


def _with_bytes_apart(obj: Any, least: int, items: int, depth: int = 1) -> Any:
    """Return ``obj`` with ``_Bytes`` in place of bytes, also in lists, tuples and dictionaries, ``depth`` deep."""
    if type(obj) in (bytes, bytearray, memoryview):
        is_view = type(obj) is memoryview  # a memoryview cannot be pickled otherwise
        return _Bytes(type(obj), obj) if is_view or len(obj) >= least else obj
    if depth and type(obj) in (list, tuple) and len(obj) <= items:
        return type(obj)(_with_bytes_apart(each, least, items, depth - 1) for each in obj)
    if depth and type(obj) is dict and len(obj) <= items:
        return {key: _with_bytes_apart(value, least, items, depth - 1) for key, value in obj.items()}
    return obj


def deserialize_object(buffers: Iterable[Any], g: Mapping[str, Any] | None = None) -> tuple[Any, list[Any]]:
    """Return an object from the buffers of :func:`serialize_object`, and the remaining buffers."""
    first, *rest = buffers
    data = bytes(first)
    count = int.from_bytes(data[:4], "big")
    return uncan(pickle.loads(data[4:], buffers=rest[:count]), g), rest[count:]


def pack_apply_message(
    f: Any,
    args: Iterable[Any],
    kwargs: Mapping[str, Any],
    buffer_threshold: int = MAX_BYTES,
    item_threshold: int = MAX_ITEMS,
) -> list[Any]:
    """Return the pickle of a call, followed by its buffers; for the thresholds see :func:`serialize_object`."""
    given = [_with_bytes_apart(unwrapped(arg), buffer_threshold, item_threshold) for arg in args]
    named = {
        name: _with_bytes_apart(value, buffer_threshold, item_threshold) for name, value in can_map(kwargs).items()
    }
    return serialize_object((unwrapped(f), given, named), buffer_threshold, item_threshold)


def unpack_apply_message(
    bufs: Iterable[Any], g: Mapping[str, Any] | None = None, copy: bool = True
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return function, arguments and keyword arguments from the buffers of :func:`pack_apply_message`."""
    (function, args, kwargs), _ = deserialize_object(bufs)
    return uncan(function, g), tuple(uncan(arg, g) for arg in args), uncan_map(kwargs, g)
