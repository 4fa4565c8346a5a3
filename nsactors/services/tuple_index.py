"""Tuples, templates and the index that matches them.

A tuple travels as a *header*, with one entry per field, beside a pickle that is loaded only where the tuple arrives.
The header contains plain values as they are; for other values it contains the class and, if their contents decide
equality, a digest.
"""

from __future__ import annotations

import decimal
import hashlib
import heapq
import io
import pickle
import types
import typing
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

from nsactors.errors import InvalidKey
from nsactors.errors.formatting import with_article
from nsactors.protocol.definitions import definition_digest
from nsactors.services.keys import UNSURE, Canonical, canonical


def digest(value: Any) -> bytes | None:
    """Return a digest that is the same for equal values, in every process; None for values without a plain pickle.

    Values of classes with an ``__eq__`` of their own count as equal if they consist of equal parts.
    """
    try:
        return _digest(canonical(value))
    except InvalidKey:  # also raised for a class whose definition has no digest
        written = _plain_pickle(value)
    return None if written is None else hashlib.sha256(written).digest()


def _digest(value: Any) -> bytes:
    match value:
        case str():
            return _hashed(b"text", value.encode("utf-8", "surrogatepass"))
        case bytes():
            return _hashed(b"bytes", value)
        case tuple():
            return _hashed(b"tuple", *map(_digest, value))
        case frozenset():
            return _hashed(b"set", *sorted(map(_digest, value)))
        case Canonical():
            if value.kind.endswith(UNSURE):
                raise InvalidKey(value.kind)
            return _hashed(b"value", value.kind.encode(), b"" if value.parts is None else _digest(value.parts))
        case complex():
            return _hashed(b"complex", _digest(value.real), _digest(value.imag))
        case decimal.Decimal():  # too large or too small for a fraction
            sign, digits, _ = value.as_tuple()
            kept = "".join(map(str, digits)).rstrip("0")
            return _hashed(b"decimal", f"{sign} {kept} {value.adjusted()}".encode())
    if value in (float("inf"), float("-inf")):
        return _hashed(b"number", str(value).encode())
    ratio = value.as_integer_ratio()
    return _hashed(b"number", *(f"{part:x}".encode() for part in ratio))


def _hashed(kind: bytes, *parts: bytes) -> bytes:
    made = hashlib.sha256(kind)
    for part in parts:
        made.update(len(part).to_bytes(8, "little"))
        made.update(part)
    return made.digest()


class _DigestPickler(pickle.Pickler):
    """Writes a class that travels by value as its definition, which is the same in every process."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) and (obj.__module__ == "__main__" or "<locals>" in obj.__qualname__):
            if (digest := definition_digest(obj)) is None:
                raise pickle.PicklingError(f"{obj.__qualname__} may be defined otherwise elsewhere")
            return _DigestPickler, (obj.__qualname__, digest)
        return NotImplemented


def _plain_pickle(value: Any) -> memoryview | None:
    file = io.BytesIO()
    pickler = _DigestPickler(file, protocol=5)
    pickler.fast = True  # without a memo, so equal parts are written alike, whether or not they are the same object
    try:
        pickler.dump(value)
    except Exception:  # raised by the value's own code
        return None
    return file.getbuffer()


_SCALARS = frozenset({bool, int, float, complex, str, bytes, type(None)})


class Opaque(NamedTuple):
    """A value that is compared by its class and digest only.

    Attributes:
        lineage: the names of its class and of all its bases.
        digest: the same for equal values; None for values that cannot be compared, such as lists and arrays.
    """

    lineage: tuple[str, ...]
    digest: bytes | None


class Formal(NamedTuple):
    """A field of a template that matches any instance of some classes, given by name."""

    names: frozenset[str]


Header = tuple[Any, ...]
"""The fields of a tuple: plain values and :class:`Opaque` ones."""
Template = tuple[Any, ...]
"""The fields of a template: values as in a header, which match equal values, and :class:`Formal` fields."""


def header_of(fields: tuple[Any, ...]) -> Header:
    """Return the header of a tuple."""
    return tuple(field if type(field) in _SCALARS or is_plain(field) else _opaque(field) for field in fields)


def template_of(fields: tuple[Any, ...]) -> Template:
    """Return a template of values and types; ``int | str`` matches either, ``object`` any value.

    Raises:
        TypeError: for a value that cannot be compared.
    """
    return tuple(field if type(field) in _SCALARS else _template_field(field) for field in fields)


def matches(template: Template, header: Header) -> bool:
    """Return whether a tuple matches a template."""
    return len(template) == len(header) and all(map(_field_matches, template, header))


def is_plain(value: Any) -> bool:
    """Return whether a header contains a value as it is: a number, text, bytes or None, or a tuple of these."""
    return type(value) in _SCALARS or (type(value) is tuple and all(map(is_plain, value)))


def lineage_of(field: Any) -> tuple[str, ...]:
    """Return the names of the class of a header field and of its bases, the class itself first."""
    kind: Any = type(field)
    return field.lineage if kind is Opaque else _lineage(kind)


def _field_matches(wanted: Any, field: Any) -> bool:
    if type(wanted) is Formal:
        return not wanted.names.isdisjoint(lineage_of(field))
    return bool(type(wanted) is type(field) and wanted == field)


def _template_field(field: Any) -> Any:
    origin = typing.get_origin(field)
    if field is Any:
        return Formal(frozenset({_name(object)}))
    if origin in (types.UnionType, typing.Union):
        return Formal(frozenset().union(*(_template_field(member).names for member in typing.get_args(field))))
    if origin is not None:
        raise TypeError(f"{field} has types of contents, which a tuple space does not compare: give {origin.__name__}")
    if isinstance(field, type):
        return Formal(frozenset({_name(field)}))
    if is_plain(field):
        return field
    opaque = _opaque(field)
    if opaque.digest is None:
        raise TypeError(
            f"{with_article(type(field).__name__)} cannot be looked for by its value: give the type "
            f"{type(field).__name__} in the template, and a number or text beside it that tells tuples apart"
        )
    return opaque


def _opaque(value: Any) -> Opaque:
    kind: Any = type(value)
    # The default hash is an address: such objects are equal only to themselves.
    has_value = kind.__hash__ not in (None, object.__hash__) and not isinstance(value, type)
    return Opaque(_lineage(kind), digest(value) if has_value else None)


@lru_cache(maxsize=1024)
def _lineage(kind: Any) -> tuple[str, ...]:
    if kind is bool:  # Python derives it from int, but a template that asks for numbers should not match it
        return _name(bool), _name(object)
    return tuple(_name(base) for base in kind.__mro__)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


T = TypeVar("T")

_Signature = tuple[tuple[str, ...], ...]  # the lineage of each field
# Ordered dictionaries, because a plain one skips all deleted entries to find its first item.
_Bucket = OrderedDict[int, Header]
_Values = tuple[Any, ...]


class TupleIndex:
    """Numbered tuples; the oldest match is found first.

    Tuples whose fields have the same classes are stored together, and found by the value of any of their fields.
    """

    def __init__(self) -> None:
        self._headers: dict[int, Header] = {}
        self._buckets: dict[int, dict[_Signature, _TuplesOfSignature]] = {}

    def __len__(self) -> int:
        return len(self._headers)

    def add(self, number: int, header: Header) -> None:
        """Add a tuple; numbers must increase."""
        self._headers[number] = header
        signature = tuple(map(lineage_of, header))
        self._buckets.setdefault(len(header), {}).setdefault(signature, _TuplesOfSignature()).add(number, header)

    def remove(self, number: int) -> None:
        """Remove a tuple."""
        header = self._headers.pop(number)
        buckets, signature = self._buckets[len(header)], tuple(map(lineage_of, header))
        buckets[signature].remove(number, header)
        if not buckets[signature].everything:
            del buckets[signature]

    def first(self, template: Template) -> int | None:
        """Return the number of the oldest tuple that matches, or None."""
        oldest = (next(found, None) for found in self._found(template))
        return min((number for number in oldest if number is not None), default=None)

    def all(self, template: Template) -> list[int]:
        """Return the numbers of all tuples that match, the oldest first."""
        return sorted(number for found in self._found(template) for number in found)

    def _found(self, template: Template) -> Iterator[Iterator[int]]:
        for signature, tuples in self._buckets.get(len(template), {}).items():
            if all(map(_may_match, template, signature)):
                yield tuples.matching(template)


class _TuplesOfSignature:
    """Tuples with one signature, by number and by the values of their fields."""

    def __init__(self) -> None:
        self.everything: _Bucket = OrderedDict()
        self._by_value: dict[tuple[int, Any], _Bucket] = {}

    def add(self, number: int, header: Header) -> None:
        self.everything[number] = header
        for place in enumerate(header):
            self._by_value.setdefault(place, OrderedDict())[number] = header

    def remove(self, number: int, header: Header) -> None:
        del self.everything[number]
        for place in enumerate(header):
            bucket = self._by_value[place]
            del bucket[number]
            if not bucket:
                del self._by_value[place]

    def matching(self, template: Template) -> Iterator[int]:
        """Yield the numbers of tuples that match, the oldest first."""
        places = [place for place in enumerate(template) if type(place[1]) is not Formal]
        nothing: _Bucket = OrderedDict()
        # Search the smallest set of candidates, or all tuples if the template has no values.
        rarest = min((self._by_value.get(place, nothing) for place in places), key=len, default=self.everything)
        return (number for number, header in rarest.items() if matches(template, header))


class _Waiting(NamedTuple, Generic[T]):
    number: int
    template: Template
    item: T


class TemplateIndex(Generic[T]):
    """Numbered templates, each with an item.

    Templates with values in the same fields are stored together, and found by these values.
    """

    def __init__(self) -> None:
        self._number = 0
        self._kinds: dict[tuple[int, tuple[int, ...]], dict[_Values, OrderedDict[int, _Waiting[T]]]] = {}

    def add(self, template: Template, item: T) -> int:
        """Add a template; return its number, for :meth:`remove`."""
        self._number += 1
        kind, values = _kind_of(template)
        bucket = self._kinds.setdefault(kind, {}).setdefault(values, OrderedDict())
        bucket[self._number] = _Waiting(self._number, template, item)
        return self._number

    def remove(self, number: int, template: Template) -> None:
        """Remove a template."""
        kind, values = _kind_of(template)
        buckets = self._kinds[kind]
        del buckets[values][number]
        if not buckets[values]:
            del buckets[values]
        if not buckets:
            del self._kinds[kind]

    def matching(self, header: Header) -> Iterator[T]:
        """Yield the items of the templates that a tuple matches, in the order in which they were added."""
        buckets = (
            buckets.get(tuple((type(header[place]), header[place]) for place in places))
            for (size, places), buckets in self._kinds.items()
            if size == len(header)
        )
        for waiting in heapq.merge(*(bucket.values() for bucket in buckets if bucket)):
            if matches(waiting.template, header):
                yield waiting.item


def _kind_of(template: Template) -> tuple[tuple[int, tuple[int, ...]], _Values]:
    places = tuple(place for place, field in enumerate(template) if type(field) is not Formal)
    return (len(template), places), tuple((type(template[place]), template[place]) for place in places)


def _may_match(wanted: Any, lineage: tuple[str, ...]) -> bool:
    if type(wanted) is Formal:
        return not wanted.names.isdisjoint(lineage)
    return lineage_of(wanted)[0] == lineage[0]
