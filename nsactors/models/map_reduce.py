"""MapReduce, with pairs that go from engine to engine.

The model is that of "MapReduce: Simplified Data Processing on Large Clusters" (Dean and Ghemawat, 2004).
"""

from __future__ import annotations

import itertools
import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from nsactors._frozen import frozen
from nsactors.errors import InvalidKey, ObjectLost, WrongType, WrongValue, bytes_in_words
from nsactors.errors.formatting import short_repr
from nsactors.models.inputs import Source, Split, items
from nsactors.protocol import arguments as arg
from nsactors.protocol.serialize import RemoteValue, keep
from nsactors.services.keys import canonical, order_of, stable_hash
from nsactors.views.load_balanced import LoadBalancedView
from nsactors.views.view_client import ViewClient, check_client

__all__ = [
    "MapReduce",
    "Output",
    "Pair",
    "Reducer",
    "Step",
    "TaskResult",
    "hash_partitioner",
    "increment",
    "map_split",
    "reduce_partition",
]

Pair = tuple[Any, Any]
Reducer = Callable[[Any, list[Any]], Iterable[Pair]]

COMBINED_AT_ONCE = 500_000  # pairs that are held in memory to be combined
REMEMBERED_KEYS = 100_000  # keys whose partition a task computes only once

_counters: ContextVar[Counter[str] | None] = ContextVar("counters", default=None)


def increment(counter: str, by: int = 1) -> None:
    """Add to a counter of the job, from a function of a step; a task that runs twice counts once.

    Raises:
        RuntimeError: outside a job.
    """
    arg.check("increment", counter=arg.text(counter), by=None if isinstance(by, bool) else arg.whole(by))
    counters = _counters.get()
    if counters is None:
        raise RuntimeError("increment() counts for a job of MapReduce: call it in a function of a step")
    counters[counter] += arg.plain(by)


def hash_partitioner(key: Any, partitions: int) -> int:
    """Return the partition of a key: the same for equal keys in every process, with any hash seed of Python.

    Raises:
        InvalidKey: for a key whose class defines equality itself, or compares by identity.
    """
    return stable_hash(key) % partitions


@frozen
class Step:
    """The functions that a job applies to its records.

    Args:
        mapper: gives pairs of a key and a value for a record. Keys are numbers, texts, bytes, None, dates, times,
            enums, UUIDs, paths, and tuples, frozen sets and frozen data classes of these; equal keys are one key, as in
            a dictionary, and all NaNs are one key.
        reducer: gives pairs for a key and the list of all its values, which are in the order of the input. It is called
            with the keys of its partition in increasing order; keys that Python does not order, such as sets and keys
            of several types, have an order of their own. None for the pairs of the mapper, sorted by key.
        combiner: a reducer that is called with any part of a key's values, any number of times, before they are sent.
        partitioner: gives the number of a key's partition, from 0, for the key and the number of partitions. With your
            own partitioner, keys may be any objects with a hash and an order.
        by_split: call the mapper once, with an iterator over all records of a split, and not with each record.
    """

    mapper: Callable[[Any], Iterable[Pair]]
    reducer: Reducer | None = None
    combiner: Reducer | None = None
    partitioner: Callable[[Any, int], int] = hash_partitioner
    by_split: bool = False

    def __post_init__(self) -> None:
        arg.check(
            "Step",
            mapper=arg.function(self.mapper),
            reducer=arg.function(self.reducer, or_none=True),
            combiner=arg.function(self.combiner, or_none=True),
            partitioner=arg.function(self.partitioner),
            by_split=arg.flag(self.by_split),
        )


class TaskResult(NamedTuple):
    """The result of a task: parts that stay on its engine, and its counters."""

    parts: list[RemoteValue]
    counters: Counter[str]


class _Pairs(NamedTuple):
    """Pairs as they are sent: lists of texts and of numbers are written faster than a list of pairs."""

    keys: list[Any]
    values: list[Any]


def map_split(step: Step, partitions: int, split: Split) -> TaskResult:
    """Map a split on an engine; return the pairs for each partition."""
    counters: Counter[str] = Counter()
    token = _counters.set(counters)
    try:
        parts = [_Pairs([], []) for _ in range(partitions)]
        number = itertools.count()
        pairs = _mapped(step, split, number)
        _distribute(pairs if step.combiner is None else _combined(step.combiner, pairs), step.partitioner, parts)
        if records := next(number):
            counters["records in"] += records
        counters["pairs shuffled"] = sum(len(part.keys) for part in parts)
    finally:
        _counters.reset(token)
    return TaskResult([keep(part, "mapped pairs") for part in parts], counters)


# Loops are in C, or have as few steps as possible: the steps for a pair take as long as the mapper itself.


def _mapped(step: Step, split: Split, number: Iterator[int]) -> Iterator[Pair]:
    """Yield the pairs of a split; a number is taken from ``number`` for each record."""
    records = map(itemgetter(0), zip(split(), number, strict=False))
    if step.by_split:
        return iter(step.mapper(records))
    # Do not use map(), which ends at a StopIteration of the mapper as if there were no more records.
    return itertools.chain.from_iterable(step.mapper(record) for record in records)


def _distribute(pairs: Iterable[Pair], partitioner: Callable[[Any, int], int], parts: list[_Pairs]) -> None:
    """Append each pair to the part of its key."""
    count, writers = len(parts), [(part.keys.append, part.values.append) for part in parts]
    if partitioner is not hash_partitioner:
        for key, value in pairs:
            place = partitioner(key, count)
            if type(place) is not int or not 0 <= place < count:
                place = _checked_place(place, key, count)
            add_key, add_value = writers[place]
            add_key(key)
            add_value(value)
        return
    known: dict[Any, tuple[Callable[[Any], None], Callable[[Any], None]]] = {}
    for key, value in pairs:
        is_plain = type(key) in _PLAIN  # an invalid key may be equal to a known key
        if is_plain and key in known:
            add_key, add_value = known[key]
        else:
            writer = add_key, add_value = writers[stable_hash(key) % count]
            if is_plain and len(known) < REMEMBERED_KEYS:
                known[key] = writer
        add_key(key)
        add_value(value)


def _checked_place(place: Any, key: Any, count: int) -> int:
    try:
        number = operator.index(place)
    except TypeError:
        number = -1
    if 0 <= number < count:
        return number
    takes = f"a whole number from 0 to {count - 1}" if count > 1 else "0"
    raise ValueError(
        f"the partitioner gave {short_repr(place)} for the key {short_repr(key)} and {count} partitions: return {takes}"
    )


def _combined(combiner: Reducer, pairs: Iterator[Pair]) -> Iterator[Pair]:
    """Combine pairs, so that there are fewer for each key, and no more at a time than memory can hold."""
    kept: list[Pair] = []
    for first in pairs:
        batch = itertools.islice(pairs, COMBINED_AT_ONCE - 1)
        kept = list(_reduced(combiner, _grouped(itertools.chain(kept, (first,), batch)).items()))
    return iter(kept)


def reduce_partition(reducer: Reducer | None, parts: list[_Pairs]) -> TaskResult:
    """Reduce a partition on an engine, its keys one by one, in order."""
    counters: Counter[str] = Counter()
    token = _counters.set(counters)
    try:
        groups = _grouped(itertools.chain.from_iterable(zip(part.keys, part.values, strict=True) for part in parts))
        pairs = list(_reduced(reducer or _all_pairs, groups.in_order()))
        counters["keys"], counters["pairs out"] = len(groups.values), len(pairs)
    finally:
        _counters.reset(token)
    return TaskResult([keep(pairs, "reduced pairs")], counters)


def _reduced(reducer: Reducer, groups: Iterable[tuple[Any, list[Any]]]) -> Iterator[Pair]:
    for key, values in groups:
        yield from reducer(key, values)


def _all_pairs(key: Any, values: list[Any]) -> Iterator[Pair]:
    return ((key, value) for value in values)


_PLAIN = frozenset({str, int, bytes})  # types of keys that are their own canonical form


class _Groups(NamedTuple):
    """Values by the canonical form of their keys, and the first key of each group that has another form."""

    values: dict[Any, list[Any]]
    keys: dict[Any, Any]

    def items(self) -> Iterator[tuple[Any, list[Any]]]:
        """Yield keys and their values, in the order in which the keys first appeared."""
        keys = self.keys
        return ((keys.get(stands_for, stands_for), values) for stands_for, values in self.values.items())

    def in_order(self) -> Iterator[tuple[Any, list[Any]]]:
        """Yield keys and their values, in increasing order of the keys."""
        if not self.keys and len(set(map(type, self.values))) < 2:  # Python orders them
            return ((key, self.values[key]) for key in sorted(self.values))
        try:
            return iter([(self.keys.get(at, at), self.values[at]) for at in sorted(self.values, key=order_of)])
        except InvalidKey:  # a key of the user's own partitioner is ordered as its class says
            return iter(sorted(self.items(), key=itemgetter(0)))


def _grouped(pairs: Iterable[Pair]) -> _Groups:
    groups: defaultdict[Any, list[Any]] = defaultdict(list)
    keys: dict[Any, Any] = {}
    for key, value in pairs:
        if type(key) in _PLAIN:
            groups[key].append(value)
        else:
            stands_for = _canonical_or_own(key)
            groups[stands_for].append(value)
            keys.setdefault(stands_for, key)
    return _Groups(groups, keys)


def _canonical_or_own(key: Any) -> Any:
    try:
        return canonical(key)
    except InvalidKey:  # a key of the user's own partitioner is compared as its class says
        hash(key)
        return key


SPLITS_PER_ENGINE = 2  # more than one, so that a slow split delays the end little; each costs some milliseconds


class MapReduce:
    """Runs steps on the engines of a cluster; pairs go from engine to engine, and not through the client.

    A step whose pairs were lost with an engine is run again. So functions must give the same pairs for the same record
    each time.

    Args:
        client: the client of the cluster, or a load-balanced view of some engines.
        partitions: the number of partitions of the keys; the default is the number of engines.

    Example:
        >>> def words(line):
        ...     return [(word, 1) for word in line.split()]
        >>> def add(word, ones):
        ...     yield word, sum(ones)
        >>> MapReduce(rc).run(["a rose is", "a rose"], Step(words, add, combiner=add)).to_dict()
        {'a': 2, 'rose': 2, 'is': 1}
    """

    def __init__(self, client: ViewClient | LoadBalancedView, partitions: int | None = None) -> None:
        fits = isinstance(client, LoadBalancedView) or check_client(client) is None
        arg.check(
            "MapReduce",
            client=None if fits else arg.Unfit(client, "a Client or a load-balanced view", WrongType),
            partitions=arg.whole(partitions, at_least=1, or_none=True),
        )
        self._view: LoadBalancedView = client if isinstance(client, LoadBalancedView) else client.load_balanced_view()
        engines = len(self._view)
        self._partitions = arg.plain(partitions) or engines
        self._splits = SPLITS_PER_ENGINE * engines

    def run(self, source: Source | Output | Iterable[Any], *steps: Step) -> Output:
        """Run steps one after the other: the pairs of one are the records of the next.

        Args:
            source: a source of records (see :mod:`nsactors.models.inputs`), the output of an earlier run, which stays
                on the engines, or an iterable whose items are records.
            steps: at least one.

        Raises:
            Exception: the error of a function on an engine.
        """
        if not steps:
            raise TypeError("run() takes at least one step")
        for step in steps:
            arg.check("run", steps=arg.instance(step, Step, "steps"))
        if not isinstance(source, Output) and not callable(source):
            arg.check("run", source=arg.iterable(source, "a source of records, the output of a run, or an iterable"))
        for step in steps:
            if not isinstance(source, Output) and not callable(source):
                source = items(source)
            source = Output(partial(self._run, source, step))
        assert isinstance(source, Output)
        return source

    def _run(self, source: Source | Output, step: Step) -> list[TaskResult]:
        """Return the results of all partitions; the first also has the counters of the map tasks."""
        while True:
            splits = source.splits() if isinstance(source, Output) else source(self._splits)
            mapped: list[TaskResult] = []
            try:
                mapped = self._compute("map", partial(map_split, step, self._partitions), splits)
                parts = [[task.parts[index] for task in mapped] for index in range(self._partitions)]
                reduced = self._compute("reduce", partial(reduce_partition, step.reducer), parts)
            except ObjectLost as lost:
                if not holds(mapped, lost) and not (isinstance(source, Output) and source.forget(lost)):
                    raise
            else:
                for task in mapped:
                    reduced[0].counters.update(task.counters)
                return reduced

    def _compute(self, label: str, function: Callable[[Any], TaskResult], work: Sequence[Any]) -> list[TaskResult]:
        results = self._view.map_sync(function, work, chunksize=1, return_exceptions=True, label=label)
        if failed := next((result for result in results if isinstance(result, BaseException)), None):
            raise failed
        return results


class Output:
    """The pairs that a job has made. They stay on the engines until they are asked for.

    Args:
        make: runs the last step; returns the results of all partitions.
    """

    def __init__(self, make: Callable[[], list[TaskResult]]) -> None:
        self._make = make
        self._made = make()

    def __len__(self) -> int:
        """Return the number of partitions."""
        return len(self.partitions)

    def __iter__(self) -> Iterator[Pair]:
        """Iterate over the pairs, partition after partition, in increasing order of the keys that made them."""
        for index in range(len(self)):
            yield from self.partition(index)

    @property
    def partitions(self) -> list[RemoteValue]:
        """References to the partitions, which are lists of pairs; they can be passed to calls on engines."""
        self._made = self._made or self._make()
        return [task.parts[0] for task in self._made]

    def partition(self, index: int) -> list[Pair]:
        """Return the pairs of one partition.

        Raises:
            InvalidArgument: if there is no such partition.
            ObjectLost: if the partition was lost with an engine, and the data from which it was made is lost too.
        """
        arg.check("partition", index=arg.whole(index))
        if not -len(self) <= index < len(self):
            raise WrongValue("partition", "index", index, f"the number of one of {len(self)} partitions")
        while True:
            try:
                pairs: list[Pair] = self.partitions[index].get()
            except ObjectLost as lost:
                if not self.forget(lost):
                    raise
            else:
                return pairs

    def to_dict(self) -> dict[Any, Any]:
        """Return all pairs as a dictionary, partition after partition."""
        return dict(iter(self))

    @property
    def counters(self) -> Counter[str]:
        """The counters of the last step's functions, and the numbers of records and pairs."""
        self._made = self._made or self._make()
        return sum((task.counters for task in self._made), Counter())

    def splits(self) -> list[Callable[[], Iterable[Any]]]:
        """Return the partitions as input to another step."""
        return [partial(iter, partition) for partition in self.partitions]

    def forget(self, lost: ObjectLost) -> bool:
        """Make the pairs again when they are next needed, if the lost object is one of them; return whether it is."""
        is_mine = holds(self._made, lost)
        self._made = [] if is_mine else self._made
        return is_mine

    def __repr__(self) -> str:
        held = sum(part.nbytes for part in self.partitions)
        return f"<Output: {len(self)} partitions, {bytes_in_words(held)}>"


def holds(made: list[TaskResult], lost: ObjectLost) -> bool:
    """Return whether the lost object is among these results."""
    parts = (part for task in made for part in task.parts)
    return any((part.name, part.engine_id, part.call) == (lost.name, lost.holder, lost.held_since) for part in parts)
