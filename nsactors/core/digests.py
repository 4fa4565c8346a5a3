"""What equal values have in common in every process: Python's own hashes of texts differ from one to the next."""

from __future__ import annotations

import hashlib
import io
import numbers
import pickle
import zlib
from typing import Any

__all__ = ["digest", "stable_hash"]


def digest(value: Any) -> bytes | None:
    """The same for values that are made of equal parts, wherever they were made; None for what has no plain pickle."""
    written = _plain_pickle(value)
    return None if written is None else hashlib.sha256(written).digest()


def stable_hash(key: Any) -> int:
    """A hash that is the same in every process, for numbers, texts, bytes, None, tuples of them, and what is like them.

    Equal numbers have equal hashes, whatever their types.

    Raises:
        TypeError: for what has no hash, or none that other processes would agree on.
    """
    if isinstance(key, str):  # what most keys are
        return zlib.crc32(key.encode("utf-8", "surrogatepass"))
    match key:
        case bytes():
            return zlib.crc32(key)
        case tuple():
            return zlib.crc32(b"".join(stable_hash(part).to_bytes(16, "little", signed=True) for part in key))
        case int() | float() | numbers.Number():
            return hash(key)
        case None:
            return 0
    kind: Any = type(key)
    # Where a hash is an address, equality means to be the same object.
    written = None if kind.__hash__ in (None, object.__hash__) else _plain_pickle(key)
    if written is None:
        raise TypeError(
            f"a {type(key).__name__} has no hash that is the same in every process: make a text or tuple of it"
        )
    return zlib.crc32(written)


def _plain_pickle(value: Any) -> memoryview | None:
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=5)
    pickler.fast = True  # without a memo: equal parts are written alike, whether they are one object or two
    try:
        pickler.dump(value)
    except Exception:  # of any kind, from the value's own code
        return None
    return file.getbuffer()
