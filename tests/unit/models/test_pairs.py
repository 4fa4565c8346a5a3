"""What engines do with records and pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.models import pairs
from nsactors.models.pairs import Step, increment, map_split, reduce_partition


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
        patch.setattr(pairs, "COMBINED_AT_ONCE", at_once)
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
