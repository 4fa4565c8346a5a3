"""What engines do with the records and pairs of a MapReduce job."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

from nsactors.core.digests import stable_hash
from nsactors.core.remote_value import RemoteValue, keep
from nsactors.models.inputs import Split

__all__ = ["Pair", "Reducer", "Step", "TaskResult", "hash_partitioner", "increment", "map_split", "reduce_partition"]

Pair = tuple[Any, Any]
Reducer = Callable[[Any, list[Any]], Iterable[Pair]]

COMBINED_AT_ONCE = 500_000  # pairs that are held in memory to be combined

_counters: ContextVar[Counter[str] | None] = ContextVar("counters", default=None)


def increment(counter: str, by: int = 1) -> None:
    """Add to a counter of the job, from a function of a step; what is computed twice is counted once.

    Raises:
        RuntimeError: outside a job.
    """
    counters = _counters.get()
    if counters is None:
        raise RuntimeError("increment() counts for a job of MapReduce: call it in a function of a step")
    counters[counter] += by


def hash_partitioner(key: Any, partitions: int) -> int:
    """The partition of a key: the same in every process, whatever Python's hash seed."""
    return stable_hash(key) % partitions


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to the records of a job.

    Args:
        mapper: gives pairs of a key and a value for a record. Keys have an order and a hash.
        reducer: gives pairs, for a key and the list of all its values, in the order of the input; is called with the
            keys of its partition in increasing order. None: the pairs of the mapper, sorted by key.
        combiner: as the reducer, called on any part of a key's values any number of times, before they travel.
        partitioner: gives the number of a key's partition, for the key and how many there are.
        by_split: call the mapper with all records of a split, an iterator, and not with one after the other.
    """

    mapper: Callable[[Any], Iterable[Pair]]
    reducer: Reducer | None = None
    combiner: Reducer | None = None
    partitioner: Callable[[Any, int], int] = hash_partitioner
    by_split: bool = False


class TaskResult(NamedTuple):
    """What a task has made: parts that stay on its engine, and what it counted."""

    parts: list[RemoteValue]
    counters: Counter[str]


class _Pairs(NamedTuple):
    """Pairs as they travel: texts and numbers are written faster when they are not in pairs."""

    keys: list[Any]
    values: list[Any]


def map_split(step: Step, partitions: int, split: Split) -> TaskResult:
    """What an engine does to a split: the pairs for each partition."""
    counters: Counter[str] = Counter()
    token = _counters.set(counters)
    try:
        parts = [_Pairs([], []) for _ in range(partitions)]
        pairs = _mapped(step, split, counters)
        partitioner, writers = step.partitioner, [(part.keys.append, part.values.append) for part in parts]
        for key, value in pairs if step.combiner is None else _combined(step.combiner, pairs):
            add_key, add_value = writers[partitioner(key, partitions)]
            add_key(key)
            add_value(value)
        counters["pairs shuffled"] = sum(len(part.keys) for part in parts)
    finally:
        _counters.reset(token)
    return TaskResult([keep(part, "mapped pairs") for part in parts], counters)


def _mapped(step: Step, split: Split, counters: Counter[str]) -> Iterator[Pair]:
    def counted() -> Iterator[Any]:
        for record in split():
            counters["records in"] += 1
            yield record

    if step.by_split:
        yield from step.mapper(counted())
    else:
        for record in counted():
            yield from step.mapper(record)


def _combined(combiner: Reducer, pairs: Iterator[Pair]) -> Iterator[Pair]:
    """The pairs with fewer of them for each key, and at no time more than can be held in memory."""
    kept: list[Pair] = []
    while batch := list(itertools.islice(pairs, COMBINED_AT_ONCE)):
        kept = list(_reduced(combiner, _grouped(itertools.chain(kept, batch)).items()))
    return iter(kept)


def reduce_partition(reducer: Reducer | None, parts: list[_Pairs]) -> TaskResult:
    """What an engine does to a partition: its keys one by one, in order."""
    counters: Counter[str] = Counter()
    token = _counters.set(counters)
    try:
        groups = _grouped(itertools.chain.from_iterable(zip(part.keys, part.values, strict=True) for part in parts))
        pairs = list(_reduced(reducer or _all_pairs, ((key, groups[key]) for key in sorted(groups))))
        counters["keys"], counters["pairs out"] = len(groups), len(pairs)
    finally:
        _counters.reset(token)
    return TaskResult([keep(pairs, "reduced pairs")], counters)


def _reduced(reducer: Reducer, groups: Iterable[tuple[Any, list[Any]]]) -> Iterator[Pair]:
    for key, values in groups:
        yield from reducer(key, values)


def _all_pairs(key: Any, values: list[Any]) -> Iterator[Pair]:
    return ((key, value) for value in values)


def _grouped(pairs: Iterable[Pair]) -> dict[Any, list[Any]]:
    groups: defaultdict[Any, list[Any]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups
