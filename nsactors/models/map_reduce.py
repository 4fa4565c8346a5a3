"""MapReduce: records to pairs, pairs of a key to results, on engines that pass the pairs on to one another.

After "MapReduce: Simplified Data Processing on Large Clusters" (Dean and Ghemawat, 2004).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from nsactors.core.remote_value import RemoteValue
from nsactors.errors import ObjectLost, bytes_in_words
from nsactors.models.inputs import Source, items
from nsactors.models.pairs import Pair, Step, TaskResult, hash_partitioner, increment, map_split, reduce_partition
from nsactors.views.load_balanced import LoadBalancedView

if TYPE_CHECKING:
    from nsactors.client import Client

__all__ = ["MapReduce", "Output", "Step", "hash_partitioner", "increment"]

SPLITS_PER_ENGINE = 2  # so that one that takes longer than others holds up little; each costs some milliseconds


class MapReduce:
    """Runs steps on the engines of a cluster; pairs go from engine to engine, and not through the client.

    A step whose pairs have gone with an engine that died is run again. For the same result then, functions must give
    the same pairs for the same record each time.

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
            if not isinstance(source, Output) and not callable(source):
                source = items(source)
            source = Output(partial(self._run, source, step))
        assert isinstance(source, Output)
        return source

    def _run(self, source: Source | Output, step: Step) -> list[TaskResult]:
        """What is made of each partition; the first has counted for all tasks."""
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
    """The pairs that a job has made. They are on the engines, and come here when they are asked for.

    Args:
        make: runs the last step: what it has made of each partition.
    """

    def __init__(self, make: Callable[[], list[TaskResult]]) -> None:
        self._make = make
        self._made = make()

    def __len__(self) -> int:
        """How many partitions there are."""
        return len(self.partitions)

    def __iter__(self) -> Iterator[Pair]:
        """The pairs, partition after partition, in increasing order of the keys that made them."""
        for index in range(len(self)):
            yield from self.partition(index)

    @property
    def partitions(self) -> list[RemoteValue]:
        """Each partition where it is, a list of pairs: to be given to calls on engines."""
        self._made = self._made or self._make()
        return [task.parts[0] for task in self._made]

    def partition(self, index: int) -> list[Pair]:
        """The pairs of one partition."""
        while True:
            try:
                pairs: list[Pair] = self.partitions[index].get()
            except ObjectLost as lost:
                self.forget(lost)
            else:
                return pairs

    def to_dict(self) -> dict[Any, Any]:
        """All pairs, partition after partition."""
        return dict(iter(self))

    @property
    def counters(self) -> Counter[str]:
        """What was counted by the functions of the last step, and how many records and pairs there were."""
        self._made = self._made or self._make()
        return sum((task.counters for task in self._made), Counter())

    def splits(self) -> list[Callable[[], Iterable[Any]]]:
        """The partitions as input to another step."""
        return [partial(iter, partition) for partition in self.partitions]

    def forget(self, lost: ObjectLost) -> bool:
        """Make the pairs again when they are asked for, if this is one of theirs; whether it is."""
        is_mine = holds(self._made, lost)
        self._made = [] if is_mine else self._made
        return is_mine

    def __repr__(self) -> str:
        held = sum(part.nbytes for part in self.partitions)
        return f"<Output: {len(self)} partitions, {bytes_in_words(held)}>"


def holds(made: list[TaskResult], lost: ObjectLost) -> bool:
    """Whether what an engine held that has died is among these results."""
    return any(part.engine_id == lost.holder for task in made for part in task.parts)
