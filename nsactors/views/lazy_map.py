"""Mapping a function over what may never end: items are taken from the input as results are taken from the output."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, Protocol

from nsactors.core.chunking import CHUNK_S, ChunkSize
from nsactors.core.messages import RequestId
from nsactors.errors import NsactorsError
from nsactors.results import Call, CallOwner, next_settled

__all__ = ["CHUNKS_PER_ENGINE", "Chunk", "lazy_map"]

CHUNKS_PER_ENGINE = 4  # one runs, one waits, and the results of two may wait for those before them

Send = Callable[[tuple[Sequence[Any], ...], Sequence[Call]], "Chunk"]
"""Sends a chunk's items of each iterable; it is told which calls are on their way."""


class Chunk(Protocol):
    """Items that have been sent."""

    @property
    def call(self) -> Call:
        """What ends when they have."""
        ...

    @property
    def length(self) -> int:
        """How many there are."""
        ...

    @property
    def seconds(self) -> float | None:
        """How long they took together, once it is known."""
        ...

    def results(self, return_exceptions: bool) -> Iterator[Any]:
        """One an item, as far as there are any; then raises what came in between."""
        ...


def lazy_map(
    owner: CallOwner,
    send: Send,
    engines: Callable[[], int],
    iterables: Sequence[Iterable[Any]],
    *,
    ordered: bool,
    chunksize: int | None,
    max_outstanding: int | None,
    return_exceptions: bool,
) -> Iterator[Any]:
    """The results of a function over iterables; see the ``imap`` of views.

    Args:
        owner: who makes the calls.
        send: maps the function over a chunk's items of each iterable.
        engines: how many there are now.
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
    rows = zip(*iterables, strict=False)
    window = _Window(owner, send, engines, rows, ChunkSize(chunksize), max_outstanding, ordered)
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
            chunk = window.take()
            yield from chunk.results(return_exceptions)
            window.fill()
        if window.error:
            raise window.error
    finally:
        window.abandon()


class _Window:
    """Chunks that have been pulled from the input and not yet been given out."""

    def __init__(
        self,
        owner: CallOwner,
        send: Send,
        engines: Callable[[], int],
        rows: Iterator[tuple[Any, ...]],
        size: ChunkSize,
        limit: int | None,
        ordered: bool,
    ) -> None:
        self._owner = owner
        self._send = send
        self._engines = engines
        self._rows = rows
        self._size = size
        self._limit = limit
        self._ordered = ordered
        self._chunks: dict[RequestId, Chunk] = {}
        self._settled: SimpleQueue[Call] = SimpleQueue()
        self._ended = False
        self.error: Exception | None = None  # that ended the input: it comes after the results of what was before it

    def __len__(self) -> int:
        return len(self._chunks)

    def fill(self) -> None:
        """Pull and send chunks while there is room; from an input that is slow only until there is a result."""
        patience = time.monotonic() + CHUNK_S
        try:
            while not self._ended and self._has_room():
                rows = self._pull()
                if rows:
                    self._add(rows)
                if time.monotonic() > patience and self._ready():
                    break
        except Exception as error:
            self._ended, self.error = True, error

    def take(self) -> Chunk:
        """The next chunk to be given out, once it has been computed."""
        chunks = list(self._chunks.values())
        settled = self._settled
        if self._ordered:
            settled = SimpleQueue()
            chunks[0].call.when_settled(settled.put)
        call = next_settled(settled, [chunk.call for chunk in chunks], self._owner)
        self._owner.asked([call])
        chunk = self._chunks.pop(call.request_id)
        if (seconds := chunk.seconds) is not None:
            self._size.observe(chunk.length, seconds)
        return chunk

    def abandon(self) -> None:
        """What has not begun never runs."""
        calls = [chunk.call for chunk in self._chunks.values() if not chunk.call.done]
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

    def _add(self, rows: list[tuple[Any, ...]]) -> None:
        on_their_way = [chunk.call for chunk in self._chunks.values() if not chunk.call.done]
        chunk = self._send(tuple(zip(*rows, strict=True)), on_their_way)
        self._chunks[chunk.call.request_id] = chunk
        if not self._ordered:
            chunk.call.when_settled(self._settled.put)

    def _has_room(self) -> bool:
        return len(self) < (self._limit or CHUNKS_PER_ENGINE * max(1, self._engines()))

    def _ready(self) -> bool:
        if not self._ordered:
            return not self._settled.empty()
        return any(chunk.call.done for chunk in itertools.islice(self._chunks.values(), 1))
