"""Lazy maps: an input, which may be endless, is read and sent item by item, as results are taken."""

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
    """A map whose input, which may be endless, is read item by item; each item is a call of its own.

    The ``imap`` of nsactors cannot take the place of this class: the items of ``imap`` have no ``msg_id``, so the
    history, the records, ``wait()`` and ``abort()`` would not know them.

    Args:
        view: sends the calls.
        f: called with one row.
        rows: the input.
        limit: the limit of items that have been sent and whose results have not been taken; 0 for no limit.
        ordered: whether results are in the order of the input, not as they complete.
        return_exceptions: whether exceptions take the place of missing results.
    """

    def __init__(
        self, view: _View, f: Any, rows: Iterator[tuple[Any, ...]], limit: int, ordered: bool, return_exceptions: bool
    ) -> None:
        self._view = view
        self._function = f
        self._rows = rows
        self._limit = limit
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._sent: deque[Any] = deque()
        self._ended = False
        self._error: Exception | None = None  # the input's error; it is raised after the results of earlier items

    def start(self) -> Iterator[Any]:
        """Send the first items, and return an iterator over the results. An error at the first item is raised here."""
        self._fill()
        if self._error is not None and not self._sent:
            raise self._error
        return self._results()

    def stop(self) -> None:
        """Stop reading the input."""
        self._ended = True

    def send_all(self) -> None:
        """Send all remaining items of the input."""
        self._limit = 0
        self._fill()

    def _fill(self) -> None:
        """Send items up to the limit, or until the input ends or raises."""
        while not self._ended and (not self._limit or len(self._sent) < self._limit):
            try:
                row = next(self._rows)
                self._sent.append(self._view.apply_async(self._function, *row))
            except StopIteration:
                self._ended = True
            except Exception as error:
                self._ended, self._error = True, error

    def _results(self) -> Iterator[Any]:
        """Yield the results; before each one, send further items, so that engines work while the caller uses it."""
        while self._sent:
            result = self._take()
            self._fill()
            yield result.get(return_exceptions=self._return_exceptions)
        if self._error is not None:
            raise self._error

    def _take(self) -> Any:
        """Wait for the next result, and remove it from those that have been sent."""
        if self._ordered:
            result = self._sent.popleft()
            result.wait()
        else:
            done, _ = concurrent.futures.wait(self._sent, return_when=FIRST_COMPLETED)
            result = next(each for each in self._sent if each in done)
            self._sent.remove(result)
        return result
