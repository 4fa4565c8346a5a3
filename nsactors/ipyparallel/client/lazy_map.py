"""Lazy maps: items of an input that may be endless are sent as results are taken."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED
from typing import Any, Protocol

__all__ = ["LazyMap", "LazyMapIterator"]


class _View(Protocol):
    def apply_async(self, __ipp_f: Any, *args: Any, **kwargs: Any) -> Any: ...


class LazyMapIterator:
    """An iterator over the results of a lazy map; see ``LoadBalancedView.imap``.

    Args:
        gen: yields the results.
        signal_done: called to stop reading the input.
    """

    def __init__(self, gen: Iterator[Any], signal_done: Callable[[], object]) -> None:
        self._gen = gen
        self._signal_done = signal_done

    def __iter__(self) -> Iterator[Any]:
        return self._gen

    def __next__(self) -> Any:
        return next(self._gen)

    def cancel(self) -> None:
        """Stop reading the input; the results of items that have been sent are still yielded."""
        self._signal_done()


class LazyMap:
    """The items of a lazy map that have been sent, and whose results have not been taken."""

    def __init__(
        self, view: _View, f: Any, rows: Iterator[tuple[Any, ...]], limit: int, ordered: bool, errors: bool
    ) -> None:
        self._view = view
        self._function = f
        self._rows = rows
        self._limit = limit
        self._ordered = ordered
        self._return_exceptions = errors
        self._sent: deque[Any] = deque()
        self._ended = False
        self._failure: Exception | None = None  # the input's error; it is raised after the results of earlier items

    def stop(self) -> None:
        """Stop reading the input."""
        self._ended = True

    def send_all(self) -> None:
        """Send all remaining items of the input."""
        self._limit = 0
        self.fill()

    def fill(self) -> None:
        """Send items up to the limit; an error of the input at the first item is raised at once."""
        while not self._ended and (not self._limit or len(self._sent) < self._limit):
            try:
                row = next(self._rows)
                self._sent.append(self._view.apply_async(self._function, *row))
            except StopIteration:
                self._ended = True
            except Exception as error:
                self._ended = True
                if not self._sent:
                    raise
                self._failure = error

    def results(self) -> Iterator[Any]:
        """Yield the results, and send further items as they are taken."""
        while self._sent:
            if self._ordered:
                result = self._sent.popleft()
            else:
                done, _ = concurrent.futures.wait(self._sent, return_when=FIRST_COMPLETED)
                result = next(each for each in self._sent if each in done)
                self._sent.remove(result)
            if self._ordered:
                result.wait()
            self.fill()
            yield result.get(return_exceptions=self._return_exceptions)
        if self._failure is not None:
            raise self._failure
