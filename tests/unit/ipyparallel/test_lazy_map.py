"""Lazy maps of ``nsactors.ipyparallel``, over a view whose calls are completed at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from nsactors.ipyparallel.client.lazy_map import LazyMap


class DoneResult(Future[Any]):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.set_result(value)

    def wait(self) -> None: ...

    def get(self, *, return_exceptions: bool) -> Any:
        return self.result()


class View:
    def apply_async(self, function: Any, *args: Any, **kwargs: Any) -> DoneResult:
        return DoneResult(function(*args, **kwargs))


def failing_after(*items: int) -> Iterator[tuple[int]]:
    yield from ((item,) for item in items)
    raise ValueError("the input has failed")


def lazy_map(rows: Iterator[tuple[int]], limit: int, ordered: bool = True) -> LazyMap:
    return LazyMap(View(), abs, rows, limit, ordered, return_exceptions=False)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4])
def test_an_error_of_the_input_comes_after_the_results_of_all_earlier_items(limit: int, ordered: bool) -> None:
    results = lazy_map(failing_after(1, 2, 3), limit, ordered).start()
    assert [next(results), next(results), next(results)] == [1, 2, 3]
    with pytest.raises(ValueError, match="the input has failed"):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("limit", [0, 1])
def test_an_error_of_the_input_at_the_first_item_is_raised_at_the_call(limit: int) -> None:
    with pytest.raises(ValueError, match="the input has failed"):
        lazy_map(failing_after(), limit).start()


def test_an_error_while_an_executor_sends_the_rest_is_left_to_the_iterator() -> None:
    lazy = lazy_map(failing_after(1), 1)
    results = lazy.start()
    assert next(results) == 1
    lazy.send_all()
    with pytest.raises(ValueError, match="the input has failed"):
        next(results)
