"""Tuples and templates as a tuple space sees them: what it compares is plain, and it imports nothing of its users'.

A tuple travels as a *header*, one entry for each field, beside a pickle that is only opened where the tuple arrives.
Plain values stand in the header as they are; of any other value it tells the class and, where equality can be told from
it, a digest.
"""

from __future__ import annotations

import types
import typing
from functools import lru_cache
from typing import Any, NamedTuple

from nsactors.core.digests import digest

__all__ = ["Formal", "Header", "Opaque", "Template", "header_of", "is_plain", "lineage_of", "matches", "template_of"]

_SCALARS = frozenset({bool, int, float, complex, str, bytes, type(None)})


class Opaque(NamedTuple):
    """A value that the space does not look into.

    Attributes:
        lineage: the names of its class and of all its bases.
        digest: the same for equal values; None for what has no value to be compared by, such as lists and arrays.
    """

    lineage: tuple[str, ...]
    digest: bytes | None


class Formal(NamedTuple):
    """A place in a template that takes any instance of some classes, given by name."""

    names: frozenset[str]


Header = tuple[Any, ...]
"""A tuple's fields: plain values and :class:`Opaque` ones."""
Template = tuple[Any, ...]
"""What a tuple is to be like: fields as in a header, which are to be equal, and :class:`Formal` ones."""


def header_of(fields: tuple[Any, ...]) -> Header:
    """What the space is told of a tuple."""
    return tuple(field if type(field) in _SCALARS or is_plain(field) else _opaque(field) for field in fields)


def template_of(fields: tuple[Any, ...]) -> Template:
    """A template of values and types; ``int | str`` takes either, ``object`` anything.

    Raises:
        TypeError: for a value that cannot be compared.
    """
    return tuple(field if type(field) in _SCALARS else _template_field(field) for field in fields)


def matches(template: Template, header: Header) -> bool:
    """Whether a tuple is as a template says."""
    return len(template) == len(header) and all(map(_field_matches, template, header))


def is_plain(value: Any) -> bool:
    """Whether a value stands for itself: a number, text, bytes or None, or a tuple of such."""
    return type(value) in _SCALARS or (type(value) is tuple and all(map(is_plain, value)))


def lineage_of(field: Any) -> tuple[str, ...]:
    """The names of a header field's class and its bases, its own first."""
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
        raise TypeError(f"{field} says what is inside, which a tuple space does not look at: give {origin.__name__}")
    if isinstance(field, type):
        return Formal(frozenset({_name(field)}))
    if is_plain(field):
        return field
    opaque = _opaque(field)
    if opaque.digest is None:
        raise TypeError(
            f"a {type(field).__name__} cannot be looked for by its value: give the type {type(field).__name__} in the "
            "template, and a number or text beside it that tells tuples apart"
        )
    return opaque


def _opaque(value: Any) -> Opaque:
    kind: Any = type(value)
    # Where a hash is an address, equality means to be the same object.
    has_value = kind.__hash__ not in (None, object.__hash__) and not isinstance(value, type)
    return Opaque(_lineage(kind), digest(value) if has_value else None)


@lru_cache(maxsize=1024)
def _lineage(kind: Any) -> tuple[str, ...]:
    if kind is bool:  # is an int to Python, and none to who looks for numbers
        return _name(bool), _name(object)
    return tuple(_name(base) for base in kind.__mro__)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
