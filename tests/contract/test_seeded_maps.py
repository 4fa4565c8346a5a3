"""Maps with a seed: the same random numbers on any number of engines, those that NumPy gives without any."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from numpy.random import SeedSequence, default_rng

import nsactors
from nsactors import Client, DirectView, Reference
from nsactors.errors import CapabilityError, CompositeError, InvalidArgument
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate

ITEMS = 70

by_rng = lambda x, rng: (x, rng.random())  # noqa: E731 (a function of this module would have to be importable)
by_numpy = lambda x: (x, np.random.random(), np.random.randn(), random.random())  # noqa: E731
by_module = lambda x: (x, nsactors.rng().random())  # noqa: E731


def serial(seed: int = 42, items: int = ITEMS) -> list[tuple[int, float]]:
    return [(i, default_rng(child).random()) for i, child in enumerate(SeedSequence(seed).spawn(items))]


def serial_by_numpy() -> list[tuple[Any, ...]]:
    before = np.random.get_state(), random.getstate()
    results = []
    for i, child in enumerate(SeedSequence(42).spawn(ITEMS)):
        words = child.generate_state(4)
        np.random.seed(words)
        random.seed(int.from_bytes(words.tobytes(), "little"))
        results.append(by_numpy(i))
    np.random.set_state(before[0])
    random.setstate(before[1])
    return results


WAYS: dict[str, Callable[[Client, list[int], Any, int | None], Any]] = {
    "direct": lambda rc, targets, f, size: rc[targets].map_sync(f, range(ITEMS), seed=42),
    "dealt out": lambda rc, targets, f, size: rc[targets].map_sync(f, range(ITEMS), seed=42, dist="r"),
    "broadcast": lambda rc, targets, f, size: rc.broadcast_view(targets).map_sync(f, range(ITEMS), seed=42),
    "imap": lambda rc, targets, f, size: list(rc[targets].imap(f, iter(range(ITEMS)), seed=42, chunksize=size)),
    "balanced": lambda rc, targets, f, size: rc.load_balanced_view(targets).map_sync(
        f, range(ITEMS), seed=42, chunksize=size
    ),
    "balanced imap": lambda rc, targets, f, size: list(
        rc.load_balanced_view(targets).imap(f, iter(range(ITEMS)), seed=42, chunksize=size)
    ),
    "unordered": lambda rc, targets, f, size: sorted(
        rc.load_balanced_view(targets).map_async(f, range(ITEMS), seed=42, chunksize=size, ordered=False)
    ),
}


@pytest.mark.sampled("way", "engines")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("engines", "chunksize"), [(1, None), (2, 7), (4, 1), (4, 64)])
def test_items_get_the_numbers_that_numpy_spawns(rc: Client, way: str, engines: int, chunksize: int | None) -> None:
    assert WAYS[way](rc, rc.ids[:engines], by_rng, chunksize) == serial()


@pytest.mark.needs(Capability.PROCESS)
@pytest.mark.parametrize("way", WAYS)
def test_functions_without_rng_find_the_common_generators_seeded(rc: Client, way: str) -> None:
    assert WAYS[way](rc, rc.ids, by_numpy, 7) == serial_by_numpy()
    assert WAYS[way](rc, rc.ids[:1], by_module, 7) == serial()


@pytest.mark.needs(Capability.PROCESS)
def test_engines_generators_are_as_before_also_after_failures_and_interrupts(dv: DirectView, gate: Gate) -> None:
    def fingerprint() -> tuple[Any, ...]:
        kind, keys, *rest = np.random.get_state()
        return random.getstate(), kind, keys.tolist(), *rest

    dv.execute("import numpy as np, random; np.random.seed(3); np.random.randn(); random.seed(5)")
    before = dv.apply(fingerprint)
    dv.map(by_numpy, range(ITEMS), seed=42)
    with pytest.raises(CompositeError):
        dv.map(lambda x: np.random.randn() / 0 if x % 2 else 1 // 0, range(ITEMS), seed=42)
    waiting = dv.map_async(lambda x: (np.random.randn(), gate.pass_through()), range(len(dv)), seed=42)
    gate.wait_arrived(len(dv))
    dv.interrupt()
    with pytest.raises(CompositeError):
        waiting.get(TIMEOUT_S)
    assert dv.apply(fingerprint) == before


@pytest.mark.needs(Capability.PROCESS)
def test_items_that_run_again_get_the_same_numbers(
    rc: Client, add_engines: Callable[[int], list[int]], gate: Gate
) -> None:
    targets = [0, *add_engines(2)]
    pids = rc[targets[1:]].apply_sync(os.getpid)
    lview = rc.load_balanced_view(targets)
    held = lambda x, rng: (x, rng.random(), x % 10 or gate.pass_through())[:2]  # noqa: E731
    result = lview.map_async(held, range(ITEMS), seed=42, chunksize=1)
    gate.wait_arrived(3)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    gate.open()
    assert result.get(TIMEOUT_S) == serial()


def test_items_that_are_tried_again_get_the_same_numbers(rc: Client) -> None:
    def tried(x: int, rng: Any, seen: list[int]) -> tuple[int, float]:
        number = rng.random()
        if x not in seen:
            seen.append(x)
            raise ValueError(x)
        return x, number

    rc[:].push({"seen": []}, block=True)
    lview = rc.load_balanced_view(retries=4)
    assert lview.map_sync(tried, range(10), seed=42, kwargs={"seen": Reference("seen")}) == serial(items=10)


@pytest.mark.once
def test_a_result_knows_the_seed_that_gives_its_numbers_again(rc: Client, dv: DirectView) -> None:
    for view in (dv, rc.load_balanced_view()):
        drawn = view.map_async(by_rng, range(5), seed=True)
        other = view.map_async(by_rng, range(5), seed=True)
        numbers = drawn.get(TIMEOUT_S)
        assert numbers != other.get(TIMEOUT_S)
        assert dv.map(by_rng, range(5), seed=drawn.seed) == numbers
        assert view.map_async(by_rng, range(5), seed=drawn.seed.entropy).get(TIMEOUT_S) == numbers
        assert view.map_async(abs, range(5)).seed is None


@pytest.mark.once
def test_so_does_a_lazy_one(rc: Client, dv: DirectView) -> None:
    for view in (dv, rc.load_balanced_view()):
        drawn = view.imap(by_rng, range(5), seed=True)
        numbers = list(drawn)
        assert list(view.imap(by_rng, range(5), seed=drawn.seed)) == numbers
        assert view.imap(abs, range(5)).seed is None


@pytest.mark.once
def test_a_generator_seeds_each_map_anew(dv: DirectView) -> None:
    numbers = []
    for _ in range(2):
        generator = default_rng(5)
        numbers.append([dv.map(by_rng, range(3), seed=generator) for _ in range(2)])
    assert numbers[0] == numbers[1]
    assert numbers[0][0] != numbers[0][1]


def test_a_function_on_the_engine_may_have_a_parameter_rng(dv: DirectView) -> None:
    dv.execute("def draw(x, rng): return x, rng.random()")
    if Capability.PROCESS not in dv.client.session.transport.capabilities:
        with pytest.raises(CapabilityError, match="rng"):
            dv.map(Reference("draw"), range(5), seed=42)
    else:
        assert dv.map(Reference("draw"), range(5), seed=42) == serial(items=5)


def test_threads_cannot_seed_what_they_share(rc: Client, dv: DirectView) -> None:
    are_threads = Capability.PROCESS not in rc.session.transport.capabilities
    for call in (dv.map, dv.imap, rc.load_balanced_view().map_sync, rc.load_balanced_view().imap):
        refused = pytest.raises(CapabilityError, match="a function with a parameter `rng` gets its own")
        with refused if are_threads else nullcontext():
            assert len(list(call(by_numpy, range(5), seed=42))) == 5


@pytest.mark.sampled
@pytest.mark.parametrize("seed", [-1, 1.5, "42", [], [1, -2], b"x", {}, np.array([0.5])])
def test_what_is_no_seed_is_refused(rc: Client, dv: DirectView, seed: Any) -> None:
    for call in (dv.map, dv.imap, rc.load_balanced_view().map, rc.load_balanced_view().imap):
        with pytest.raises(InvalidArgument, match="seed"):
            call(by_rng, range(5), seed=seed)


@pytest.mark.once
def test_a_function_gets_one_rng(dv: DirectView) -> None:
    with pytest.raises(InvalidArgument, match="it would get two"):
        dv.map(by_rng, range(5), seed=42, rng=default_rng(1))


@pytest.mark.once
def test_elsewhere_there_is_no_generator_of_an_item(dv: DirectView) -> None:
    with pytest.raises(CompositeError) as failure:
        dv.map(by_module, range(4))
    assert all(isinstance(error, RuntimeError) for error in failure.value.exceptions)
