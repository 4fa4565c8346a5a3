"""Mapping over streams: results are given out while the input goes on, which may be for ever."""

from __future__ import annotations

import itertools
import operator
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nsactors import Client, RemoteError
from nsactors.errors import SerializationError
from nsactors.testing import Gate, wait_until
from tests.contract.conftest import ENGINES


def here(item: int) -> tuple[int, int]:
    """The process and the thread that this is called in."""
    return os.getpid(), threading.get_ident()


class Input:
    """Counts what is pulled from it."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.pulled = 0
        self._items = iter(items)

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self.pulled += 1
            yield item


@pytest.mark.sampled("ordered", "chunksize", "length")
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("chunksize", [None, 1, 3])
@pytest.mark.parametrize("length", [0, 1, 2, 50])
def test_an_imap_equals_the_serial_one(rc: Client, length: int, chunksize: int | None, ordered: bool) -> None:
    results = list(rc[:].imap(lambda x: x * x, range(length), chunksize=chunksize, ordered=ordered))
    assert (results if ordered else sorted(results)) == [x * x for x in range(length)]


@pytest.mark.once
def test_an_imap_takes_several_iterables_and_stops_at_the_shortest(rc: Client) -> None:
    assert list(rc[:].imap(operator.mul, itertools.count(), [1, 2, 3])) == [0, 2, 6]


def test_an_imap_goes_on_while_its_input_does(rc: Client) -> None:
    squares = rc[:].imap(lambda x: x * x, itertools.count())
    assert list(itertools.islice(squares, 3_000)) == [x * x for x in range(3_000)]


@pytest.mark.once
@pytest.mark.parametrize("ordered", [True, False])
def test_no_more_input_is_pulled_than_may_be_outstanding(rc: Client, ordered: bool) -> None:
    numbers = Input(itertools.count())
    results = rc[:].imap(abs, numbers, chunksize=5, max_outstanding=3, ordered=ordered)
    for taken in range(1, 101):
        next(results)
        assert numbers.pulled <= taken + 3 * 5


def test_no_more_input_is_pulled_while_nobody_takes_results(rc: Client, gate: Gate) -> None:
    numbers = Input(itertools.count())
    results = rc[:].imap(lambda x: gate.pass_through(), numbers, chunksize=1, max_outstanding=6)
    gate.wait_arrived(ENGINES)
    assert numbers.pulled == 6
    gate.open()
    assert next(results) == "passed"


def test_an_endless_imap_keeps_no_results(rc: Client) -> None:
    """Two hundred times a megabyte go by, of which no more than a few are held."""
    arrays = rc[:].imap(lambda x: b"x" * 1_000_000, itertools.count(), chunksize=1, max_outstanding=8)
    next(arrays)
    before = _private_bytes()
    for _ in itertools.islice(arrays, 200):
        pass
    assert _private_bytes() - before < 100_000_000


def test_an_imap_begins_before_its_results_are_asked_for(rc: Client, gate: Gate) -> None:
    results = rc[:].imap(lambda f: f(), [gate.pass_through])
    gate.wait_arrived()
    gate.open()
    assert list(results) == ["passed"]


@pytest.mark.once
def test_input_may_depend_on_results_that_have_been_taken(rc: Client) -> None:
    taken: list[int] = [1]
    results: Iterator[int] = rc[0].imap(
        lambda x: 2 * x, (taken[-1] for _ in itertools.count()), chunksize=1, max_outstanding=1
    )
    for _ in range(5):
        taken.append(next(results))
    assert taken == [1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize("ordered", [True, False])
def test_a_slow_input_does_not_hold_up_the_results_of_what_it_gave(
    rc: Client, ordered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.views.lazy_map.CHUNK_S", 0.0)  # any input is slow

    def slower_than_the_engines() -> Iterator[int]:
        for number in range(50):
            wait_until(lambda: not rc.session.open_calls())
            yield number

    numbers = Input(slower_than_the_engines())
    results = rc[:].imap(abs, numbers, max_outstanding=50, ordered=ordered)
    assert next(results) == 0
    assert numbers.pulled < 50
    assert len(list(results)) == 49


@pytest.mark.once
def test_ordered_results_wait_for_those_before_them(rc: Client, gate: Gate) -> None:
    results = rc[:2].imap(lambda f: f(), [gate.pass_through, int, float], ordered=True, chunksize=1)
    gate.wait_arrived()
    gate.open()
    assert list(results) == ["passed", 0, 0.0]


def test_unordered_results_do_not_wait_for_those_before_them(rc: Client, gate: Gate) -> None:
    results = rc[:2].imap(lambda f: f(), [gate.pass_through, int], ordered=False, chunksize=1)
    gate.wait_arrived()
    assert next(results) == 0
    gate.open()
    assert list(results) == ["passed"]


def test_chunks_go_to_engines_that_have_nothing_to_do(rc: Client, gate: Gate) -> None:
    results = rc[:2].imap(lambda f: f(), [gate.pass_through, *[int] * 20], ordered=False, chunksize=1)
    gate.wait_arrived()
    # With as many for each engine, those behind the gate would not come.
    assert list(itertools.islice(results, 10)) == [0] * 10
    gate.open()
    assert sorted(map(str, results)) == ["0"] * 10 + ["passed"]


@pytest.mark.once
def test_engines_that_all_have_nothing_to_do_take_turns(rc: Client) -> None:
    places = rc.direct_view("all").imap(here, range(3 * ENGINES), chunksize=1, max_outstanding=1)
    first, second, third = ([next(places) for _ in range(ENGINES)] for _ in range(3))
    assert len(set(first)) == ENGINES
    assert first == second == third


def test_what_came_before_a_failing_item_is_given_before_its_error(rc: Client) -> None:
    results = rc[:].imap(lambda x: 6 // x, [1, 2, 3, 0, 6], chunksize=5)
    assert [next(results), next(results), next(results)] == [6, 3, 2]
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert isinstance(caught.value, RemoteError)
    assert list(results) == []


def test_an_error_says_where_it_happened(rc: Client, from_main: Callable[[str], SimpleNamespace]) -> None:
    main = from_main("class Odd(Exception): pass\ndef check(x):\n    if x % 2:\n        raise Odd(x)\n    return x")
    with pytest.raises(main.Odd) as caught:
        list(rc[2:3].imap(main.check, [0, 2, 3]))
    assert (caught.value.engine_id, caught.value.failure.frames[0].name) == (2, "check")


@pytest.mark.once
def test_an_imap_can_give_exceptions_in_place_of_results(rc: Client) -> None:
    results = rc[:].imap(lambda x: 6 // x, [1, 0, 2], return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["int", "ZeroDivisionError", "int"]


@pytest.mark.once
def test_an_error_of_the_input_comes_after_the_results_of_what_was_before_it(rc: Client) -> None:
    results = rc[:].imap(abs, (1 // x for x in [1, -1, 0]))
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.once
def test_a_function_that_cannot_be_sent_raises_at_the_call(rc: Client) -> None:
    generator = (x for x in ())
    with pytest.raises(SerializationError, match="generator"):
        rc[:].imap(lambda x: generator, [1])


@pytest.mark.once
def test_an_item_that_cannot_be_sent_raises_in_its_place(rc: Client) -> None:
    results = rc[:].imap(abs, [1, (x for x in ())], chunksize=1)
    assert next(results) == 1
    with pytest.raises(SerializationError):
        next(results)


@pytest.mark.once
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("view_of", [lambda rc: rc[:], lambda rc: rc.load_balanced_view()])
def test_items_beside_one_that_cannot_be_sent_are_computed(
    rc: Client, view_of: Callable[[Client], Any], ordered: bool
) -> None:
    lock = threading.Lock()
    items = [0, 1, 2, lock, 4, lock, 6, 7]
    results = view_of(rc).imap(type, items, return_exceptions=True, chunksize=8, max_outstanding=1, ordered=ordered)
    got = list(results)
    failures = [value for value in got if isinstance(value, SerializationError)]
    assert [got.count(int), len(failures)] == [6, 2]
    if ordered:
        assert [got.index(failure) for failure in failures] == [3, 5]
        assert [str(place) in failure.what for place, failure in zip([3, 5], failures, strict=True)] == [True, True]


@pytest.mark.once
def test_an_item_that_cannot_be_sent_raises_after_the_results_before_it(rc: Client) -> None:
    source = Input([1, 2, 3, threading.Lock(), *range(5, 100)])
    results = rc[:].imap(type, source, chunksize=8)
    assert [next(results) for _ in range(3)] == [int] * 3
    with pytest.raises(SerializationError, match="item 3 "):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    assert source.pulled == 8


@pytest.mark.once
def test_random_numbers_are_those_of_the_items_beside_one_that_cannot_be_sent(rc: Client) -> None:
    def draw(item: Any, rng: Any) -> int:
        return int(rng.integers(1 << 30))

    expected = list(rc[:].imap(draw, range(8), chunksize=8, seed=5))
    items = [0, 1, threading.Lock(), *range(3, 8)]
    got = list(rc[:].imap(draw, items, chunksize=8, seed=5, return_exceptions=True))
    assert [got[:2], got[3:]] == [expected[:2], expected[3:]]


def test_closing_an_imap_takes_back_what_has_not_begun(rc: Client, gate: Gate) -> None:
    view = rc[0]
    results = view.imap(lambda x: gate.pass_through(), itertools.count(), chunksize=1, max_outstanding=5)
    gate.wait_arrived()
    with closing(results):  # type: ignore[type-var]
        pass
    gate.open()
    assert view.apply_sync(abs, -1) == 1
    assert not gate.has_visitor()


def test_leaving_the_loop_takes_back_what_has_not_begun(rc: Client, gate: Gate) -> None:
    view = rc[0]
    for _ in view.imap(lambda f: f(), [int, *[gate.pass_through] * 4], chunksize=1):
        gate.wait_arrived()
        break
    gate.open()
    assert view.apply_sync(abs, -1) == 1
    assert not gate.has_visitor()


def test_an_imap_that_outlives_its_client_can_be_closed(connect: Callable[..., Client], gate: Gate) -> None:
    client = connect()
    results = client[0].imap(lambda x: gate.pass_through(), [1, 2])
    gate.wait_arrived()
    client.close()
    gate.open()
    with closing(results):  # type: ignore[type-var]
        pass


@pytest.mark.once
def test_an_imap_over_rows_of_an_array_gives_arrays(rc: Client) -> None:
    sums = list(rc[:].imap(np.sum, np.arange(12).reshape(4, 3), chunksize=2))
    assert sums == [3, 12, 21, 30]


@pytest.mark.once
@pytest.mark.parametrize("wrong", [{"chunksize": 0}, {"max_outstanding": 0}])
def test_sizes_below_one_are_refused(rc: Client, wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"takes {name} as a whole number, 1 or more, or None, not 0"):
        rc[:].imap(abs, [1], **wrong)


@pytest.mark.once
def test_an_imap_without_iterables_raises_at_the_call(rc: Client) -> None:
    with pytest.raises(TypeError, match="at least one"):
        rc[:].imap(abs)


def _private_bytes() -> int:
    """Memory of this process, without the object store that it shares."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
