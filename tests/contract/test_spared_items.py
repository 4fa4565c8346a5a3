"""An item of a map that fails, whose result cannot be pickled or cannot be unpickled, spoils nothing but itself."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from nsactors import Client, CompositeError, DirectView
from nsactors.errors import RemoteError, SerializationError
from nsactors.testing import TIMEOUT_S

ITEMS = 1000
BAD = 500

Map = Callable[..., list[Any]]


class Held(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("bad")
        self.lock = threading.Lock()


class Choosy(Exception):
    """Cannot be made of its arguments again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Exits:
    """Exits when it is pickled."""

    def __reduce__(self) -> Any:
        raise SystemExit(3)


class Interrupts:
    """Interrupts when it is pickled."""

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


class OnArrival:
    """Raises when it is unpickled."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __reduce__(self) -> Any:
        return _raise, (self.kind,)


def _raise(kind: type[BaseException]) -> None:
    raise kind("on arrival")


def raises(error: Any) -> Callable[[int], Any]:
    def function(item: int) -> Any:
        if item == BAD:
            raise error()
        return item

    return function


def gives(make: Any) -> Callable[[int], Any]:
    return lambda item: make() if item == BAD else item


def grouped() -> Exception:
    return ExceptionGroup("all", [ValueError("one"), Held()])


RAISED = {
    "holding a lock": (raises(Held), "bad"),
    "made of other arguments": (raises(lambda: Choosy(1, 2)), "1 and 2"),
    "a group with one that holds a lock": (raises(grouped), "all"),
    "exiting": (raises(lambda: SystemExit("out")), "out"),
    "with an array": (raises(lambda: ValueError(np.arange(3))), "0 1 2"),
}
GIVEN = {
    "a lock": (gives(threading.Lock), r"item \d+ of map.*cannot pickle '_thread.lock'"),
    "exiting when pickled": (gives(Exits), r"item \d+ of map.*3"),
    "interrupting when pickled": (gives(Interrupts), r"item \d+ of map.*KeyboardInterrupt"),
    "raising on arrival": (gives(lambda: OnArrival(ValueError)), "on arrival"),
    "exiting on arrival": (gives(lambda: OnArrival(SystemExit)), r"item \d+ of map.*SystemExit"),
}


@pytest.fixture(params=["map", "dealt out", "imap", "imap unordered", "balanced", "balanced imap", "iterated"])
def mapped(rc: Client, request: pytest.FixtureRequest) -> Map:
    """A way to map with exceptions in place of results."""
    view, lview = rc[:], rc.load_balanced_view()
    ways: dict[str, Map] = {
        "map": lambda f, items: view.map_async(f, items, return_exceptions=True).get(TIMEOUT_S),
        "dealt out": lambda f, items: view.map_async(f, items, dist="r", return_exceptions=True).get(TIMEOUT_S),
        "imap": lambda f, items: list(view.imap(f, items, return_exceptions=True)),
        "imap unordered": lambda f, items: _sorted(view.imap(f, items, ordered=False, return_exceptions=True)),
        "balanced": lambda f, items: lview.map_async(f, items, return_exceptions=True).get(TIMEOUT_S),
        "balanced imap": lambda f, items: list(lview.imap(f, items, return_exceptions=True)),
        "iterated": lambda f, items: list(view.map_async(f, items, return_exceptions=True)),
    }
    return ways[request.param]


def _told(error: BaseException) -> str:
    return f"{error} {getattr(error, '__notes__', '')}".replace("\n", " ")


def _sorted(results: Iterator[Any]) -> list[Any]:
    return sorted(results, key=lambda result: BAD if isinstance(result, Exception) else result)


@pytest.mark.sampled("mapped", "function")
@pytest.mark.parametrize(("function", "text"), [*RAISED.values(), *GIVEN.values()], ids=[*RAISED, *GIVEN])
def test_one_bad_item_costs_no_other(rc: Client, mapped: Map, function: Callable[[int], Any], text: str) -> None:
    results = mapped(function, range(ITEMS))
    error = results[BAD]
    assert isinstance(error, Exception)
    assert re.search(text, _told(error))
    results[BAD] = BAD
    assert results == list(range(ITEMS))


@pytest.mark.once
def test_what_stands_for_a_result_is_the_remote_error(rc: Client, dv: DirectView) -> None:
    results = dv.map_sync(lambda item: 1 // item, [1, 0], return_exceptions=True)
    error = results[1]
    assert isinstance(error, ZeroDivisionError)
    assert isinstance(error, RemoteError)
    assert error.failure.frames[-1].name == "<lambda>"


@pytest.mark.sampled
@pytest.mark.parametrize(("function", "text"), GIVEN.values(), ids=GIVEN)
def test_without_the_flag_the_error_names_the_item(rc: Client, function: Callable[[int], Any], text: str) -> None:
    for dist in ("b", "r"):
        with pytest.raises(CompositeError) as caught:
            rc[:].map_async(function, range(ITEMS), dist=dist).get(TIMEOUT_S)
        [error] = caught.value.exceptions
        assert re.search(text, _told(error))
        assert "item 500 of map" in _told(error)
    results = rc[:].imap(function, range(ITEMS))
    given = [next(results) for _ in range(BAD)]
    assert given == list(range(BAD))
    with pytest.raises(Exception, match=r"item|arrival") as raised:
        next(results)
    assert re.search(text, _told(raised.value))
    assert rc[:].apply_sync(abs, -1) == [1] * len(rc)


@pytest.mark.once
def test_many_bad_items_are_each_their_own(rc: Client, dv: DirectView) -> None:
    def function(item: int) -> Any:
        if item % 3 == 0:
            raise Held
        return threading.Lock() if item % 3 == 1 else OnArrival(ValueError) if item % 3 == 2 and item % 2 else item

    results = dv.map_sync(function, range(60), return_exceptions=True)
    kinds = ["bad", "item", "on arrival"]
    for item, result in enumerate(results):
        if item % 3 == 2 and item % 2 == 0:
            assert result == item
        else:
            assert isinstance(result, Exception)
            assert kinds[item % 3] in str(result)
            assert item % 3 != 1 or isinstance(result, SerializationError)


def test_the_items_of_a_piece_that_fails_as_a_whole_have_each_an_error(rc: Client) -> None:
    items = [OnArrival(ValueError), 1, 2, 3]  # which raises on the engine, where it is an argument
    results = rc[:2].map_sync(lambda item: item, items, return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [True, True, False, False]
    assert results[2:] == [2, 3]


@pytest.mark.sampled
@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_an_item_whose_class_raises_on_an_engine_spares_those_that_were_sent_with_it(
    rc: Client, kind: type[BaseException]
) -> None:
    items = [OnArrival(kind) if item == 7 else item for item in range(20)]
    lview = rc.load_balanced_view()
    results = lview.map_async(pow, items, [1] * 20, chunksize=10, return_exceptions=True).get(TIMEOUT_S)
    error = results[7]
    assert isinstance(error, ValueError if kind is ValueError else RemoteError)
    assert "on arrival" in str(error)
    assert results[:7] + results[8:] == [item for item in range(20) if item != 7]
