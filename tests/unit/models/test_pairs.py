"""What engines do with records and pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.errors import InvalidKey, ObjectLost
from nsactors.models import map_reduce
from nsactors.models.map_reduce import (
    Output,
    Step,
    TaskResult,
    hash_partitioner,
    increment,
    map_split,
    reduce_partition,
)
from nsactors.protocol.serialize import ObjectGone, RemoteValue
from tests.counting import counted_steps


def add(key: Any, values: list[int]) -> Iterator[tuple[Any, int]]:
    yield key, sum(values)


def computed(step: Step, partitions: int, splits: list[list[str]]) -> list[list[Any]]:
    """The pairs of each partition, with all that is kept handed over in this process."""
    mapped: list[Any] = [map_split(step, partitions, partial(iter, split)) for split in splits]
    parts = [[task.parts[index].value for task in mapped] for index in range(partitions)]
    reduced: list[Any] = [reduce_partition(step.reducer, part) for part in parts]
    return [task.parts[0].value for task in reduced]


words = st.lists(st.lists(st.sampled_from("abcdefgh")), max_size=5)


@given(words, st.integers(1, 4), st.integers(1, 5))
def test_a_combiner_may_run_any_number_of_times(splits: list[list[str]], partitions: int, at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(map_reduce, "COMBINED_AT_ONCE", at_once)
        combined = computed(Step(lambda word: [(word, 1)], add, combiner=add), partitions, splits)
    assert combined == computed(Step(lambda word: [(word, 1)], add), partitions, splits)
    assert dict(sum(combined, [])) == Counter(word for split in splits for word in split)  # noqa: RUF017
    assert all(part == sorted(part) for part in combined)


def test_counters_belong_to_the_job_that_counts() -> None:
    def counting(word: str) -> list[tuple[str, int]]:
        increment("words", 2)
        return [(word, 1)]

    task = map_split(Step(counting), 1, partial(iter, ["a", "b"]))
    assert task.counters == {"words": 4, "records in": 2, "pairs shuffled": 2}
    with pytest.raises(RuntimeError, match="function of a step"):
        increment("words")


KEYS = st.one_of(
    st.text(max_size=2), st.integers(0, 3), st.booleans(), st.binary(max_size=1), st.sampled_from([0.0, 1.0])
)


@given(st.lists(KEYS), st.integers(1, 4), st.integers(0, 3))
def test_a_key_that_is_remembered_goes_where_its_hash_says(keys: list[Any], partitions: int, remembered: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(map_reduce, "REMEMBERED_KEYS", remembered)
        parts = map_split(Step(lambda key: [(key, 1)]), partitions, partial(iter, keys)).parts
    for number, part in enumerate(parts):
        assert [*map(repr, part.value.keys)] == [
            repr(key) for key in keys if hash_partitioner(key, partitions) == number
        ]


class Equal:
    """Is equal to the text ``a``, by a rule of its own."""

    def __eq__(self, other: object) -> bool:
        return other == "a"

    def __hash__(self) -> int:
        return hash("a")


@pytest.mark.parametrize("key", [Equal(), []])
def test_a_key_that_is_no_valid_one_fails_also_if_it_is_equal_to_one_before(key: Any) -> None:
    with pytest.raises(InvalidKey):
        map_split(Step(lambda key: [(key, 1)]), 2, partial(iter, ["a", key]))


def test_records_that_a_mapper_of_splits_leaves_are_not_counted() -> None:
    def first_two(records: Iterator[str]) -> Iterator[tuple[str, int]]:
        yield next(records), 1
        yield next(records), 1

    task = map_split(Step(first_two, by_split=True), 1, partial(iter, "abcd"))
    assert task.counters == {"records in": 2, "pairs shuffled": 2}


def test_a_stop_iteration_of_the_mapper_does_not_end_the_split() -> None:
    def first_word(line: str) -> list[tuple[str, int]]:
        return [(next(iter(line.split())), 1)]

    with pytest.raises(RuntimeError, match="StopIteration"):
        map_split(Step(first_word), 1, partial(iter, ["a b", "", "c"]))


@pytest.mark.parametrize("combiner", [None, add])
def test_a_pair_takes_few_steps(combiner: Any) -> None:
    pairs = [(word, 1) for word in ("a", "b", "c", "d")]
    counts = []
    for records in (100, 200):
        with counted_steps() as steps:
            map_split(Step(lambda record: pairs, add, combiner), 4, partial(iter, range(records)))
        counts.append(steps.count)
    assert (counts[1] - counts[0]) / (100 * len(pairs)) < 45


@pytest.mark.parametrize("place", [-1, 4, 1.0, "a", None])
def test_a_partitioner_gives_the_number_of_a_partition(place: Any) -> None:
    step = Step(lambda key: [(key, 1)], partitioner=lambda key, partitions: place)
    with pytest.raises(ValueError, match=r"the partitioner gave .* for the key 'k' and 4 partitions: return a whole"):
        map_split(step, 4, partial(iter, ["k"]))


@pytest.mark.parametrize("place", [True, np.int64(1), np.array(1)])
def test_numbers_of_partitions_may_be_those_of_numpy(place: Any) -> None:
    parts = map_split(Step(lambda key: [(key, 1)], partitioner=lambda *_: place), 2, partial(iter, ["k"])).parts
    assert [part.value.keys for part in parts] == [[], ["k"]]


class Lost:
    """A place in a store that has nothing any more."""

    def load(self) -> Any:
        raise ObjectGone("engine 0 has ended")


def task_with(stored: Any, name: str = "reduced pairs") -> TaskResult:
    return TaskResult([RemoteValue(stored, name, 0, "reduce", "list", 1)], Counter())


def test_pairs_that_are_lost_together_with_their_source_are_an_error() -> None:
    source = ObjectLost("lines", 0, "pull(lines)", "engine 0 has ended")
    makes = iter([[task_with(Lost())], source])

    def make() -> list[TaskResult]:
        made = next(makes)
        if isinstance(made, ObjectLost):
            raise made
        return made

    output = Output(make)
    with pytest.raises(ObjectLost, match="'lines'"):
        output.partition(0)


def test_another_value_that_the_same_engine_held_is_not_among_the_pairs() -> None:
    output = Output(lambda: [task_with(Lost())])
    assert not output.forget(ObjectLost("lines", 0, "pull(lines)", "engine 0 has ended"))
    assert output.forget(ObjectLost("reduced pairs", 0, "reduce", "engine 0 has ended"))
