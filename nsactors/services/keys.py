"""Canonical values of keys: equal for equal keys, in every process.

Python's own hashes of texts differ between processes, and so does the order of a set; pickles of equal values may
differ (``1`` and ``1.0``, one moment in two time zones, a set and the same set filled in another order). So grouping,
hashing and sorting use the *canonical value* of a key: a value of built-in types that compares as the key does.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from nsactors._frozen import compares_fields
from nsactors.errors import InvalidKey
from nsactors.errors.formatting import qualified_name
from nsactors.protocol.definitions import definition_digest
from nsactors.protocol.process import imported

UNSURE = "?"
"""Replaces the definition of a class that may be different in other processes."""

_DAY_S = 86_400
_ATTOSECONDS = {
    "W": 7 * _DAY_S * 10**18,
    "D": _DAY_S * 10**18,
    "h": 3600 * 10**18,
    "m": 60 * 10**18,
    **{unit: 10 ** (18 - 3 * place) for place, unit in enumerate(("s", "ms", "us", "ns", "ps", "fs", "as"))},
}
_DIGITS = 1_000  # the most digits of a decimal that is converted to a fraction
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Canonical:
    """The canonical value of a key that is not a number, text, bytes, tuple or set.

    Attributes:
        kind: its kind; values of different kinds are never equal.
        parts: canonical values that distinguish it from others of its kind.
    """

    kind: str
    parts: Any = None


_NAN = Canonical("NaN")
_NAT = Canonical("NaT")
_PLAIN = frozenset({str, int, bytes})  # values of these types are their own canonical values
_SINGLETONS = {type(value): Canonical(repr(value)) for value in (None, ..., NotImplemented)}

_Maker = Callable[[Any], Any]


def canonical(key: Any) -> Any:
    """Return the canonical value of ``key``: the same for all equal keys, and one for all NaN.

    Raises:
        InvalidKey: if there is none: Python compares the key by identity, or by an ``__eq__`` that is not known here.
    """
    kind: Any = type(key)
    if kind in _PLAIN or (kind is tuple and _PLAIN.issuperset(map(type, key))):
        return key
    make = _maker(kind)
    if make is None:
        raise InvalidKey(qualified_name(kind))
    try:
        return make(key)
    except InvalidKey as error:
        raise InvalidKey(qualified_name(kind), error.part or error.type_name) from None


def stable_hash(key: Any) -> int:
    """Return a hash of ``key`` that is the same in every process, and for equal keys.

    Raises:
        InvalidKey: see :func:`canonical`.
    """
    if type(key) is str:  # the common case
        return zlib.crc32(key.encode("utf-8", "surrogatepass"))
    return _hash(canonical(key))


def order_of(value: Any) -> Any:
    """Return a sort key for canonical values: numbers, texts, bytes, dates and tuples sort as in Python.

    Values of different types, which Python does not order, and sets, which it orders only in part, get an
    order of their own, the same in every process.
    """
    match value:
        case str():
            return 2, value
        case int() | float() | fractions.Fraction():
            return 1, 0, value
        case bytes():
            return 3, value
        case tuple():
            return 4, tuple(map(order_of, value))
        case frozenset():
            return 5, len(value), sorted(map(order_of, value))
        case Canonical():
            return 6, value.kind, () if value.parts is None else order_of(value.parts)
        case complex():
            return 1, 1, value.real, value.imag
        case decimal.Decimal():  # too large or too small for a fraction
            return 1, 0, float(value)
    raise InvalidKey(qualified_name(type(value)))


def _hash(value: Any) -> int:
    kind = type(value)  # no match statement: it takes a third longer
    if kind is str:
        return zlib.crc32(value.encode("utf-8", "surrogatepass"))
    if kind is tuple:
        return zlib.crc32(b"".join([_hash(part).to_bytes(16, "little", signed=True) for part in value]))
    if kind is bytes:
        return zlib.crc32(value)
    if kind is frozenset:
        return zlib.crc32(b"".join(sorted(_hash(part).to_bytes(16, "little", signed=True) for part in value)), 1)
    if kind is Canonical:
        return zlib.crc32(value.kind.encode(), 0 if value.parts is None else _hash(value.parts) & 0xFFFFFFFF)
    return hash(value)  # the hash of a number is the same for equal numbers, and independent of the hash seed


@lru_cache(maxsize=1024)
def _maker(kind: Any) -> _Maker | None:
    """Return the function that makes canonical values of keys of a class; None if these keys have no such values.

    The ``__eq__`` of a class decides: a named tuple counts as a tuple, a ``StrEnum`` as text.
    """
    if kind in _SINGLETONS:
        return lambda key: _SINGLETONS[kind]
    if kind.__hash__ is None:
        return None
    numpy, pandas = imported("numpy"), imported("pandas")
    if numpy is not None and issubclass(kind, numpy.generic):
        return _maker_of_numpy(numpy, kind)
    if pandas is not None and kind in (type(pandas.NaT), type(pandas.NA)):
        return lambda key: _NAT if key is pandas.NaT else Canonical("NA")
    if pandas is not None and kind in (pandas.Timestamp, pandas.Timedelta):
        return _datetime if kind is pandas.Timestamp else _timedelta
    if issubclass(kind, type):
        return _class if kind.__eq__ is object.__eq__ else None
    if issubclass(kind, enum.Enum) and kind.__eq__ is object.__eq__:
        return _member
    if _has_generated_eq(kind):
        names = tuple(field.name for field in dataclasses.fields(kind) if field.compare)
        label = _label(kind)
        return lambda key: Canonical(label, tuple(canonical(getattr(key, name)) for name in names))
    return _BY_EQ.get(kind.__eq__) or _maker_of_library(kind)


def _maker_of_library(kind: Any) -> _Maker | None:
    uuid, pathlib, ipaddress = imported("uuid"), imported("pathlib"), imported("ipaddress")
    if uuid is not None and kind.__eq__ is uuid.UUID.__eq__:
        return lambda key: Canonical("UUID", key.int)
    if pathlib is not None and kind.__eq__ is pathlib.PurePath.__eq__:
        if issubclass(kind, pathlib.PureWindowsPath):  # compares without regard to case
            return lambda key: Canonical("WindowsPath", tuple(part.lower() for part in key.parts))
        return lambda key: Canonical("PosixPath", key.parts)
    if ipaddress is not None and kind.__module__ == "ipaddress":
        return lambda key: Canonical(kind.__name__, str(key))
    return None


def _maker_of_numpy(numpy: Any, kind: Any) -> _Maker | None:
    if issubclass(kind, numpy.datetime64):
        return lambda key: _numpy_time(numpy, key, "datetime")
    if issubclass(kind, numpy.timedelta64):
        return lambda key: _numpy_time(numpy, key, "timedelta")
    if issubclass(kind, numpy.longdouble):
        return lambda key: _number(float(key)) if float(key) == key or key != key else _ratio(key)
    if issubclass(kind, numpy.clongdouble):
        return lambda key: _number(complex(key))
    if issubclass(kind, numpy.number | numpy.bool_ | numpy.str_ | numpy.bytes_):
        return lambda key: canonical(key.item())
    return None


def _numpy_time(numpy: Any, key: Any, kind: str) -> Any:
    if numpy.isnat(key):
        return _NAT
    unit, count = numpy.datetime_data(key.dtype)
    # Months and years have no fixed length. As a date, a month or year stands for its first day, as in NumPy.
    if kind == "datetime" and unit in "YM":
        key, unit, count = key.astype("M8[D]"), "D", 1
    ticks = int(key.astype("i8")) * count
    if unit in _ATTOSECONDS:
        return Canonical(kind, ticks * _ATTOSECONDS[unit])
    return Canonical("months", ticks * (12 if unit == "Y" else 1)) if unit in "YM" else Canonical("timedelta64", ticks)


def _number(key: Any) -> Any:
    if key != key:
        return _NAN
    return key.real if isinstance(key, complex) and key.imag == 0 else key


def _decimal(key: decimal.Decimal) -> Any:
    if key.is_nan():
        return _NAN
    # In Python, Decimal("0.5") and Fraction(1, 2) are equal to 0.5, but not to each other.
    return _ratio(key) if key.is_finite() and abs(key.adjusted()) < _DIGITS else key


def _ratio(key: Any) -> fractions.Fraction:
    return fractions.Fraction(*key.as_integer_ratio())


def _date(key: datetime.date) -> Canonical:
    return Canonical("date", key.toordinal())


def _datetime(key: Any) -> Canonical:
    # Like datetime.__hash__: the moment, if there is a time zone; `fold` does not count.
    offset = key.replace(fold=0).utcoffset()
    ticks = ((key.toordinal() - _EPOCH_DAY) * _DAY_S) * 10**18 + _time_of_day(key)
    if offset is None:
        return Canonical("datetime", ticks)
    return Canonical("moment", ticks - _ticks(offset))


def _time(key: datetime.time) -> Canonical:
    offset = key.replace(fold=0).utcoffset()
    ticks = _time_of_day(key)
    return Canonical("time", ticks) if offset is None else Canonical("zoned time", ticks - _ticks(offset))


def _time_of_day(key: Any) -> int:
    micros: int = ((key.hour * 60 + key.minute) * 60 + key.second) * 10**6 + key.microsecond
    return micros * 10**12 + int(getattr(key, "nanosecond", 0)) * 10**9  # an attribute of pandas


def _timedelta(key: datetime.timedelta) -> Canonical:
    return Canonical("timedelta", _ticks(key))


def _ticks(span: Any) -> int:
    micros = (span.days * _DAY_S + span.seconds) * 10**6 + span.microseconds
    return int(micros) * 10**12 + int(getattr(span, "nanoseconds", 0)) * 10**9  # an attribute of pandas


def _range(key: range) -> Canonical:
    # Ranges are equal if they give the same numbers.
    return Canonical("range", (len(key), *key[:1], *([key.step] if len(key) > 1 else [])))


def _member(key: enum.Enum) -> Canonical:
    value = canonical(key.value) if isinstance(key, enum.Flag) else key.name
    return Canonical(_label(type(key)), value)


def _class(key: type) -> Canonical:
    if "<locals>" in key.__qualname__:  # each call to the function makes another class
        raise InvalidKey(f"class {key.__qualname__}")
    return Canonical("class", _label(key))


def _label(kind: type) -> str:
    """Return the name of a class; for a class that travels by value, with a digest of its definition."""
    if kind.__module__ != "__main__" and "<locals>" not in kind.__qualname__:
        return qualified_name(kind)
    digest = definition_digest(kind)
    return f"{qualified_name(kind)} {UNSURE if digest is None else digest.hex()}"


def _has_generated_eq(kind: Any) -> bool:
    """Return whether the class has the ``__eq__`` of data classes, which compares fields."""
    return compares_fields(kind) or (
        dataclasses.is_dataclass(kind)
        and "__eq__" in vars(kind)
        and getattr(getattr(kind.__eq__, "__code__", None), "co_filename", "") == "<string>"
    )


_BY_EQ: dict[Any, _Maker] = {
    str.__eq__: str.__str__,
    bytes.__eq__: lambda key: bytes.__getitem__(key, slice(None)),
    int.__eq__: int.__int__,
    float.__eq__: lambda key: _number(float.__float__(key)),
    complex.__eq__: _number,
    decimal.Decimal.__eq__: _decimal,
    fractions.Fraction.__eq__: lambda key: key,
    tuple.__eq__: lambda key: tuple(map(canonical, tuple.__iter__(key))),
    frozenset.__eq__: lambda key: frozenset(map(canonical, frozenset.__iter__(key))),
    datetime.date.__eq__: _date,
    datetime.datetime.__eq__: _datetime,
    datetime.time.__eq__: _time,
    datetime.timedelta.__eq__: _timedelta,
    range.__eq__: _range,
}
