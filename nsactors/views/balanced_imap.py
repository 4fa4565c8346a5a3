"""Mapping a function over what may never end, on whichever engines are free."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

from nsactors.core.chunking import CHUNK_S, ChunkSize
from nsactors.errors import NsactorsError
from nsactors.results import Call, CallOwner, MapCall, next_settled

__all__ = ["balanced_imap"]

CHUNKS_PER_ENGINE = 4  # one runs, one waits, and the results of two may wait for those before them

Send = Callable[[tuple[Sequence[Any], ...]], MapCall]


def balanced_imap(
    owner: CallOwner,
    send: Send,
    engines: int,
    iterables: Sequence[Iterable[Any]],
    *,
    ordered: bool,
    chunksize: int | None,
    max_outstanding: int | None,
    return_exceptions: bool,
) -> Iterator[Any]:
    """The results of a function over iterables; see ``LoadBalancedView.imap``.

    Args:
        owner: of the calls.
        send: maps the function over a chunk's items of each iterable.
        engines: how many there are.
        iterables: at least one.
        ordered: give results in the order of the items, or as they come.
        chunksize: items in a chunk; None for what can be pulled and computed within :data:`CHUNK_S`.
        max_outstanding: chunks that have been pulled and not yet given out; None for a few an engine.
        return_exceptions: give exceptions in place of the results they prevented.

    Raises:
        TypeError: without iterables.
        ValueError: if a number is less than 1.
    """
    if not iterables:
        raise TypeError("imap() needs at least one iterable")
    for name, number in (("chunksize", chunksize), ("max_outstanding", max_outstanding)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is at least 1, not {number}")
    limit = max_outstanding or CHUNKS_PER_ENGINE * max(1, engines)
    window = _Window(owner, send, zip(*iterables, strict=False), ChunkSize(chunksize), limit, ordered)
    window.fill()
    if window.error and not len(window):
        raise window.error
    results = _results(window, return_exceptions)
    next(results)  # it has begun: from now on closing it takes back what has been sent
    return results


def _results(window: _Window, return_exceptions: bool) -> Generator[Any, None, None]:
    try:
        yield
        while len(window):
            call = window.take()
            if call.error is None:
                yield from call.value
            else:
                yield from _values(call, return_exceptions)
            window.fill()
        if window.error:
            raise window.error
    finally:
        window.abandon()


def _values(call: MapCall, return_exceptions: bool) -> Iterator[Any]:
    """Of a chunk in which something failed."""
    pieces = sorted(call.pieces, key=lambda piece: piece.start)
    for piece in pieces:
        if piece.error is not None and not return_exceptions:
            raise piece.error
        yield from piece.values
    if call.left and call.error is not None:  # the client was closed
        raise call.error


class _Window:
    """Chunks that have been pulled from the input and not yet been given out."""

    def __init__(
        self,
        owner: CallOwner,
        send: Send,
        rows: Iterator[tuple[Any, ...]],
        size: ChunkSize,
        limit: int,
        ordered: bool,
    ) -> None:
        self._owner = owner
        self._send = send
        self._rows = rows
        self._size = size
        self._limit = limit
        self._ordered = ordered
        self._calls: dict[Call, MapCall] = {}  # in the order of their items
        self._settled: SimpleQueue[Call] = SimpleQueue()
        self._ended = False
        self.error: Exception | None = None  # that ended the input: it comes after the results of what was before it

    def __len__(self) -> int:
        return len(self._calls)

    def fill(self) -> None:
        """Pull and send chunks while there is room; from an input that is slow only until there is a result."""
        patience = time.monotonic() + CHUNK_S
        try:
            while not self._ended and len(self) < self._limit:
                rows = self._pull()
                if rows:
                    call = self._send(tuple(zip(*rows, strict=True)))
                    self._calls[call] = call
                    if not self._ordered:
                        call.when_settled(self._settled.put)
                if time.monotonic() > patience and self._has_result():
                    break
        except Exception as error:
            self._ended, self.error = True, error

    def take(self) -> MapCall:
        """The next chunk to be given out, once it has been computed."""
        settled = self._settled
        if self._ordered:
            settled = SimpleQueue()
            next(iter(self._calls)).when_settled(settled.put)
        call = self._calls.pop(next_settled(settled, list(self._calls), self._owner))
        self._owner.asked([call])
        seconds = sum(p.completed - p.started for p in call.pieces if p.started is not None and p.completed is not None)
        self._size.observe(call.size, seconds)
        return call

    def abandon(self) -> None:
        """What has not begun never runs."""
        calls = [call for call in self._calls if not call.done]
        if calls:
            with contextlib.suppress(NsactorsError):  # the client may have been closed
                self._owner.abort(calls, interrupt=False)

    def _pull(self) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        deadline = time.monotonic() + CHUNK_S
        try:
            while len(rows) < self._size.items and (not rows or not self._size.adapts or time.monotonic() < deadline):
                rows.append(next(self._rows))
        except StopIteration:
            self._ended = True
        except Exception as error:
            self._ended, self.error = True, error
        return rows

    def _has_result(self) -> bool:
        if not self._ordered:
            return not self._settled.empty()
        return next(iter(self._calls)).done if self._calls else False
