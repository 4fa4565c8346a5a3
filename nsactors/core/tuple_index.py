"""Finding tuples that a template matches, and templates that a tuple matches, without looking at all of them."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from nsactors.core.tuples import Formal, Header, Template, lineage_of, matches

__all__ = ["TemplateIndex", "TupleIndex"]

T = TypeVar("T")

_Signature = tuple[tuple[str, ...], ...]  # the lineage of each field
# Ordered dictionaries, because a plain one walks over all that was ever deleted before its first item.
_Bucket = OrderedDict[int, Header]
_Values = tuple[Any, ...]


class TupleIndex:
    """Numbered tuples; the oldest that matches is found first.

    Tuples with fields of the same classes are kept together, and found by the value of any of their fields.
    """

    def __init__(self) -> None:
        self._headers: dict[int, Header] = {}
        self._shelves: dict[int, dict[_Signature, _Shelf]] = {}

    def __len__(self) -> int:
        return len(self._headers)

    def add(self, number: int, header: Header) -> None:
        """Add a tuple; numbers grow."""
        self._headers[number] = header
        signature = tuple(map(lineage_of, header))
        self._shelves.setdefault(len(header), {}).setdefault(signature, _Shelf()).add(number, header)

    def remove(self, number: int) -> None:
        """Take a tuple away."""
        header = self._headers.pop(number)
        shelves, signature = self._shelves[len(header)], tuple(map(lineage_of, header))
        shelves[signature].remove(number, header)
        if not shelves[signature].everything:
            del shelves[signature]

    def first(self, template: Template) -> int | None:
        """The number of the oldest tuple that matches; None if there is none."""
        oldest = (next(found, None) for found in self._found(template))
        return min((number for number in oldest if number is not None), default=None)

    def all(self, template: Template) -> list[int]:
        """The numbers of all tuples that match, the oldest first."""
        return sorted(number for found in self._found(template) for number in found)

    def _found(self, template: Template) -> Iterator[Iterator[int]]:
        for signature, shelf in self._shelves.get(len(template), {}).items():
            if all(map(_may_be, template, signature)):
                yield shelf.matching(template)


class _Shelf:
    """Tuples of one signature."""

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
        """The numbers of those that match, the oldest first."""
        places = [place for place in enumerate(template) if type(place[1]) is not Formal]
        nothing: _Bucket = OrderedDict()
        rarest = min((self._by_value.get(place, nothing) for place in places), key=len, default=self.everything)
        return (number for number, header in rarest.items() if matches(template, header))


class _Waiting(NamedTuple, Generic[T]):
    number: int
    template: Template
    item: T


class TemplateIndex(Generic[T]):
    """Numbered templates, each for some item.

    Templates with values in the same places are kept together, and found by these values.
    """

    def __init__(self) -> None:
        self._number = 0
        self._kinds: dict[tuple[int, tuple[int, ...]], dict[_Values, OrderedDict[int, _Waiting[T]]]] = {}

    def add(self, template: Template, item: T) -> int:
        """Add a template; its number, for :meth:`remove`."""
        self._number += 1
        kind, values = _kind_of(template)
        bucket = self._kinds.setdefault(kind, {}).setdefault(values, OrderedDict())
        bucket[self._number] = _Waiting(self._number, template, item)
        return self._number

    def remove(self, number: int, template: Template) -> None:
        """Take a template away."""
        kind, values = _kind_of(template)
        buckets = self._kinds[kind]
        del buckets[values][number]
        if not buckets[values]:
            del buckets[values]
        if not buckets:
            del self._kinds[kind]

    def matching(self, header: Header) -> Iterator[T]:
        """The items whose templates a tuple matches, first come first."""
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


def _may_be(wanted: Any, lineage: tuple[str, ...]) -> bool:
    if type(wanted) is Formal:
        return not wanted.names.isdisjoint(lineage)
    return lineage_of(wanted)[0] == lineage[0]
