"""Advice for code that writes to a read-only view of shared memory.

The errors of NumPy, pandas and Cython only say that an array is read-only. This module searches for the array in the
variables of the frames of the error's traceback. An array that arrived in a message is recognised by its memory.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from types import FrameType, ModuleType, TracebackType
from typing import Any

from nsactors.errors.exception_state import text_of
from nsactors.errors.formatting import bytes_in_words
from nsactors.protocol.process import imported
from nsactors.protocol.serialize import OWN_BYTES

# Messages of NumPy, pandas and Cython:
# "assignment destination is read-only", "output array is read-only", "buffer source array is read-only", "cannot set
# WRITEABLE flag to True of this array", "underlying buffer is not writable"
_WORDS = re.compile(r"read-?only|writeable|not writable", re.IGNORECASE)
_KINDS = (ValueError, TypeError, BufferError)

_ARRIVES = "arrives as a read-only view of shared memory"
_ADVICE = (
    "For one that can be written to, say copy=True where it is sent or fetched (push, pull, scatter, gather, map; "
    "view.with_flags(copy=True) for other calls), or make a copy of it here: {}.copy()"
)
_OF_ARROW = (
    "is a view of Arrow's memory, which is read-only wherever it is, also after copy=True: "
    "to_numpy(zero_copy_only=False, writable=True) gives an array that can be written to"
)

_LOOKED_AT = 100  # parts of a container, or attributes
_DEPTH = 2  # how deep to search in containers and attributes


def note_on_read_only(error: BaseException, traceback: TracebackType | None, *, on_engine: bool) -> str | None:
    """Return advice for an error that was caused by writing to an array that arrived in a message; otherwise None.

    Args:
        error: any exception.
        traceback: its traceback.
        on_engine: whether an engine raised it. Nearly all read-only arrays of an engine arrived in a message, so
            general advice is given if the array is not found.
    """
    # By the type: isinstance would read __class__ of the user's exception, which may be a property.
    if not issubclass(type(error), _KINDS) or not _WORDS.search(text_of(error)):
        return None
    while traceback is not None:  # outermost frame first: the user knows the names of its variables best
        if not _is_machinery(traceback.tb_frame):
            for path, value in _variables(traceback.tb_frame):
                if (found := _find(path, value, _DEPTH)) is not None:
                    return found
        traceback = traceback.tb_next
    return f"An array of more than 1 MiB {_ARRIVES}. {_ADVICE.format('array')}" if on_engine else None


def arrived_read_only(array: Any) -> bool:
    """Return whether a NumPy array arrived as a view of shared memory, or is a part of such an array."""
    root = _root(array)
    # unpack() makes arrays on such views. Other read-only arrays are views of bytes, of a file or of the user's array.
    return type(root) is memoryview and root.readonly and root.nbytes > OWN_BYTES


def _is_machinery(frame: FrameType) -> bool:
    """Return whether a frame belongs to nsactors or IPython, whose variables mean nothing to the user."""
    return str(frame.f_globals.get("__name__", "")).startswith(("nsactors.", "IPython."))


def _variables(frame: FrameType) -> Iterator[tuple[str, Any]]:
    """Yield the variables that the code of a frame uses."""
    if frame.f_locals is not frame.f_globals:
        yield from frame.f_locals.items()
    yield from ((name, frame.f_globals[name]) for name in frame.f_code.co_names if name in frame.f_globals)


def _find(path: str, value: Any, depth: int) -> str | None:
    """Return the advice on a read-only array inside a value at ``path``; None if there is no such array."""
    numpy = imported("numpy")
    if numpy is not None and issubclass(type(value), numpy.ndarray):
        if value.flags.writeable:
            return None
        if arrived_read_only(value):
            return f"`{path}` ({bytes_in_words(value.nbytes)}) {_ARRIVES}. {_ADVICE.format(path)}"
        return f"`{path}` {_OF_ARROW}" if type(_root(value)).__module__.startswith("pyarrow.") else None
    if depth:
        for step, part in itertools.islice(_parts(value), _LOOKED_AT):
            if (found := _find(path + step, part, depth - 1)) is not None:
                return found
    return None


def _root(array: Any) -> Any:
    """Return the owner of the memory of an array."""
    numpy = imported("numpy")
    while issubclass(type(array), numpy.ndarray):
        array = array.base
    return array


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a value, with the source text that leads to each."""
    kind = type(value)
    if kind in (list, tuple):
        yield from ((f"[{place}]", part) for place, part in enumerate(value))
    elif kind is dict:
        yield from ((f"[{key!r}]" if type(key) in (str, int) else "[...]", part) for key, part in value.items())
    elif (columns := _columns_of_pandas(value)) is not None:
        yield from (("", column.to_numpy()) for column in columns if column.dtype.kind in "biufcmM")
    elif not issubclass(kind, (type, ModuleType)) and isinstance(attributes := _attributes(value), Mapping):
        yield from ((f".{name}", part) for name, part in attributes.items())


def _columns_of_pandas(value: Any) -> Iterator[Any] | None:
    pandas = imported("pandas")
    if pandas is None or not issubclass(type(value), (pandas.DataFrame, pandas.Series)):
        return None
    if issubclass(type(value), pandas.Series):
        return iter((value,))
    return (value.iloc[:, column] for column in range(min(_LOOKED_AT, value.shape[1])))


def _attributes(value: Any) -> Any:
    try:
        return object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
