import pickle
from contextvars import copy_context
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import SeedSequence

from nsactors.errors import WrongValue
from nsactors.protocol.map_functions import ITEM, ItemStream, Seeds, rng, seeds_of

numbers = st.integers(min_value=0, max_value=2**200)
entropies = numbers | st.lists(numbers, min_size=1, max_size=5)


def words(sequence: Any) -> list[int]:
    return [int(word) for word in sequence.generate_state(8)]


def made(seed: Any) -> Seeds:
    seeds = seeds_of("map", seed)
    assert seeds is not None
    return seeds


@given(entropies, st.integers(0, 20))
def test_an_item_has_the_seed_that_numpy_spawns(seed: Any, index: int) -> None:
    assert words(made(seed).of_item(index)) == words(SeedSequence(seed).spawn(index + 1)[index])


@given(entropies, st.lists(st.integers(0, 100), max_size=3), st.integers(0, 3), st.sampled_from([4, 8]))
def test_a_seed_sequence_gives_what_it_would_spawn_and_stays_as_it_is(
    entropy: Any, key: list[int], spawned: int, pool_size: int
) -> None:
    sequence = SeedSequence(entropy, spawn_key=key, pool_size=pool_size)
    sequence.spawn(spawned)
    seeds = made(sequence)
    assert sequence.n_children_spawned == spawned
    assert [words(seeds.of_item(i)) for i in range(3)] == [words(child) for child in sequence.spawn(3)]


@given(entropies, st.integers(0, 3))
def test_the_seed_of_a_result_gives_the_same_again(entropy: Any, spawned: int) -> None:
    sequence = SeedSequence(entropy)
    sequence.spawn(spawned)
    seeds = made(sequence)
    assert made(seeds.as_sequence()) == made(made(seeds.as_sequence()).as_sequence()) == seeds


def test_a_generator_gives_each_map_another_seed() -> None:
    first, second = (made(generator) for generator in [np.random.default_rng(3)] * 2)
    assert first != second
    generator = np.random.default_rng(3)
    again = [made(generator), made(generator)]
    assert again[0] != again[1]
    assert again[0] == first
    assert words(again[1].of_item(5)) == words(SeedSequence(3).spawn(2)[1].spawn(6)[5])


def test_a_generator_without_a_seed_is_refused() -> None:
    bits = np.random.MT19937(1)
    bits._legacy_seeding(3)  # type: ignore[attr-defined]
    generator = np.random.Generator(bits)
    with pytest.raises(WrongValue, match="seed"):
        seeds_of("map", generator)


def test_true_is_another_seed_each_time() -> None:
    assert made(True) != made(True)


@pytest.mark.parametrize("seed", [None, False])
def test_none_and_false_are_no_seed(seed: Any) -> None:
    assert seeds_of("map", seed) is None


def test_seeds_travel() -> None:
    seeds = made([1, 2**80])
    assert pickle.loads(pickle.dumps(seeds)) == seeds


def test_code_deep_inside_gets_the_generator_of_the_item() -> None:
    def inside() -> list[float]:
        ITEM.set(ItemStream(SeedSequence(5)))
        return [rng().random(), rng().random()]

    assert copy_context().run(inside) == np.random.default_rng(5).random(2).tolist()


def test_elsewhere_there_is_none() -> None:
    with pytest.raises(RuntimeError, match="seed=42"):
        rng()
