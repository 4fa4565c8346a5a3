import random
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.random import SeedSequence

import nsactors
from nsactors.namespace.seeded_call import SeededCall
from nsactors.protocol.map_functions import Seeds
from nsactors.protocol.serialize import pack, unpack

SEEDS = Seeds(42)
ITEMS = SeedSequence(42).spawn(10)


def words_of(index: int) -> Any:
    return ITEMS[index].generate_state(4)


@pytest.fixture(autouse=True)
def _generators_as_they_were() -> Iterator[None]:
    python, legacy = random.getstate(), np.random.get_state()
    yield
    random.setstate(python)
    np.random.set_state(legacy)


def state() -> tuple[Any, ...]:
    """All that the generators of a process know."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return random.getstate(), kind, keys.tolist(), position, has_gauss, gauss, np.random.get_bit_generator()


def test_a_function_with_a_parameter_rng_gets_the_generator_of_its_item() -> None:
    call = SeededCall(lambda x, y, *, rng: (x, y, rng.random()), SEEDS)
    expected = [np.random.default_rng(seed).random() for seed in ITEMS]
    assert [call(i, "x", i) for i in range(10)] == [("x", i, number) for i, number in enumerate(expected)]


def test_it_is_the_one_that_code_deep_inside_gets() -> None:
    assert SeededCall(lambda x, rng: nsactors.rng() is rng, SEEDS)(0, 1)
    drawn = SeededCall(lambda x: nsactors.rng().random(), SEEDS)(3, 1)
    assert drawn == np.random.default_rng(ITEMS[3]).random()
    with pytest.raises(RuntimeError):
        nsactors.rng()


def test_other_functions_find_generators_that_are_seeded_for_the_item() -> None:
    call = SeededCall(lambda x: (random.random(), np.random.random(), np.random.randn()), SEEDS)
    got = [call(i, None) for i in (7, 3, 7)]
    for index, numbers in zip((7, 3, 7), got, strict=True):
        np.random.seed(words_of(index))
        random.seed(int.from_bytes(words_of(index).tobytes(), "little"))
        assert numbers == (random.random(), np.random.random(), np.random.randn())


def failing(x: Any) -> None:
    np.random.randn()
    random.random()
    raise KeyboardInterrupt if x else ValueError


@pytest.mark.parametrize("drawn", [0, 1])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.random.randn(),
        lambda x: np.random.seed(3),
        lambda x: np.random.set_bit_generator(np.random.PCG64(3)),  # type: ignore[attr-defined]
        lambda x: random.seed(3),
        failing,
    ],
)
@pytest.mark.parametrize("x", [0, 1])
def test_generators_are_as_before_afterwards(function: Callable[[Any], Any], drawn: int, x: int) -> None:
    for _ in range(drawn):
        np.random.randn()  # the second of a pair waits
    before = state()
    call = SeededCall(function, SEEDS)
    for index in range(3):
        try:
            call(index, x)
        except (ValueError, KeyboardInterrupt):
            assert function is failing
    assert state() == before


def test_so_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[Any] = ["before"]
    torch = SimpleNamespace(get_rng_state=lambda: states[-1], set_rng_state=states.append, manual_seed=states.append)
    monkeypatch.setitem(sys.modules, "torch", torch)
    number = int.from_bytes(words_of(2).tobytes(), "little")
    assert SeededCall(lambda x: states[-1], SEEDS)(2, 0) == number & (2**63 - 1)
    assert states[-1] == "before"


def test_it_travels_without_what_it_has_made() -> None:
    call = SeededCall(abs, SEEDS)
    call(0, -1)
    back = unpack(pack(call))
    assert back(0, -1) == 1
    assert len(pack(call).data) < 500
