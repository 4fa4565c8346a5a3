"""MapReduce: records to pairs, pairs of a key to results, on engines that pass the pairs on to one another.

After "MapReduce: Simplified Data Processing on Large Clusters" (Dean and Ghemawat, 2004).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from nsactors.core.remote_value import RemoteValue
from nsactors.errors import ObjectLost, bytes_in_words
from nsactors.models.inputs import Source, Split, items
from nsactors.models.pairs import Pair, Step, TaskResult, hash_partitioner, increment, map_split, reduce_partition
from nsactors.views.load_balanced import LoadBalancedView

if TYPE_CHECKING:
    from nsactors.client import Client

__all__ = ["MapReduce", "Output", "Step", "hash_partitioner", "increment"]

SPLITS_PER_ENGINE = 2  # so that one that takes longer than others holds up little; each costs some milliseconds


class MapReduce:
    """Runs steps on the engines of a cluster; pairs go from engine to engine, and not through the client.

    What an engine held that has died is computed again. For the same result then, functions must give the same pairs
    for the same record each time.

    Args:
        client: whose engines, or a load-balanced view of some of them.
        partitions: into how many the keys are divided; the default is the number of engines.

    Example:
        >>> def words(line):
        ...     return [(word, 1) for word in line.split()]
        >>> def add(word, ones):
        ...     yield word, sum(ones)
        >>> MapReduce(rc).run(["a rose is", "a rose"], Step(words, add, combiner=add)).to_dict()
        {'a': 2, 'rose': 2, 'is': 1}
    """

    def __init__(self, client: Client | LoadBalancedView, partitions: int | None = None) -> None:
        self._view = client if isinstance(client, LoadBalancedView) else client.load_balanced_view()
        engines = len(self._view)
        self._partitions = partitions or engines
        self._splits = SPLITS_PER_ENGINE * engines

    def run(self, source: Source | Output | Iterable[Any], *steps: Step) -> Output:
        """Run steps one after the other: the pairs of one are the records of the next.

        Args:
            source: where the records are from (see :mod:`nsactors.models.inputs`), or the output of an earlier run,
                which stays on the engines; of anything else each item is a record.
            steps: at least one.

        Raises:
            Exception: what a function raised on an engine.
        """
        if not steps:
            raise TypeError("run() takes at least one step")
        for step in steps:
            source = self._run(source, step)
        assert isinstance(source, Output)
        return source

    def _run(self, source: Source | Output | Iterable[Any], step: Step) -> Output:
        if isinstance(source, Output):
            mapped = self._stage(
                "map", partial(map_split, step, self._partitions), source.split, len(source), source._stage
            )
        else:
            splits = (source if callable(source) else items(source))(self._splits)
            mapped = self._stage("map", partial(map_split, step, self._partitions), splits.__getitem__, len(splits))
        reduce = partial(reduce_partition, step.reducer)
        reduced = self._stage("reduce", reduce, mapped.parts_for, self._partitions, mapped)
        reduced.run()
        mapped.release()
        return Output(reduced)

    def _stage(
        self,
        label: str,
        function: Callable[[Any], TaskResult],
        input_of: Callable[[int], Any],
        count: int,
        before: _Stage | None = None,
    ) -> _Stage:
        def compute(missing: list[int]) -> list[Any]:
            work = [input_of(index) for index in missing]
            return self._view.map_sync(function, work, chunksize=1, return_exceptions=True, label=label)

        return _Stage(compute, count, before)


class Output:
    """The pairs that a job has made. They are on the engines, and come here when they are asked for."""

    def __init__(self, stage: _Stage) -> None:
        self._stage = stage

    def __len__(self) -> int:
        """How many partitions there are."""
        return len(self._stage.results)

    def __iter__(self) -> Iterator[Pair]:
        """The pairs, partition after partition, in increasing order of the keys that made them."""
        for index in range(len(self)):
            yield from self.partition(index)

    @property
    def partitions(self) -> list[RemoteValue]:
        """Each partition where it is, a list of pairs: to be given to calls on engines."""
        return [self._stage.result(index).parts[0] for index in range(len(self))]

    def partition(self, index: int) -> list[Pair]:
        """The pairs of one partition."""
        while True:
            try:
                pairs: list[Pair] = self.partitions[index].get()
            except ObjectLost as lost:
                self._stage.forget([lost])
            else:
                return pairs

    def to_dict(self) -> dict[Any, Any]:
        """All pairs, partition after partition."""
        return dict(iter(self))

    @property
    def counters(self) -> Counter[str]:
        """What was counted by the functions of the last step, and how many records and pairs there were."""
        mapped = self._stage.before
        assert mapped is not None, "what is reduced has been mapped"
        return sum([*mapped.counters.values(), *self._stage.counters.values()], Counter())

    def split(self, index: int) -> Split:
        """A partition as input to another step."""
        return partial(iter, self.partitions[index])

    def __repr__(self) -> str:
        held = sum(part.nbytes for part in self.partitions)
        return f"<Output: {len(self)} partitions, {bytes_in_words(held)}>"


class _Stage:
    """Tasks of one kind. What is lost of their results is made again, and before that what it was made of.

    Args:
        compute: runs tasks, given by number: a result or an exception for each.
        count: how many tasks there are.
        before: the tasks whose results are the input of these.
    """

    def __init__(self, compute: Callable[[list[int]], list[Any]], count: int, before: _Stage | None) -> None:
        self.results: list[TaskResult | None] = [None] * count
        self.counters: dict[int, Counter[str]] = {}
        self.before = before
        self._compute = compute

    def run(self) -> None:
        """Run the tasks whose results are not there."""
        while missing := [index for index, result in enumerate(self.results) if result is None]:
            if self.before is not None:
                self.before.run()
            lost = []
            for index, result in zip(missing, self._compute(missing), strict=True):
                if isinstance(result, TaskResult):
                    self.results[index], self.counters[index] = result, result.counters
                elif isinstance(result, ObjectLost) and self.before is not None:
                    lost.append(result)
                else:
                    raise result
            if lost and self.before is not None:
                self.before.forget(lost)

    def result(self, index: int) -> TaskResult:
        self.run()
        result = self.results[index]
        assert result is not None, "it has run"
        return result

    def parts_for(self, partition: int) -> list[RemoteValue]:
        """What the tasks have made for one of those that come after them."""
        return [self.result(index).parts[partition] for index in range(len(self.results))]

    def forget(self, lost: list[ObjectLost]) -> None:
        """Engines have gone with what they held.

        Raises:
            ObjectLost: if they held nothing of ours.
        """
        holders = {error.holder for error in lost}
        gone = [i for i, result in enumerate(self.results) if result and {p.engine_id for p in result.parts} & holders]
        if not gone:
            raise lost[0]
        for index in gone:
            self.results[index] = None

    def release(self) -> None:
        """Nobody needs the results any more, as long as what was made of them is there."""
        self.results = [None] * len(self.results)
