"""Mapping a function over what may never end: items are taken from the input as results are taken from the output."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from nsactors.client.outcomes import read_outcome
from nsactors.core.chunking import CHUNK_S, ChunkSize
from nsactors.core.messages import Failed, RequestId
from nsactors.core.payload import pack
from nsactors.errors import Failure, NsactorsError
from nsactors.namespace.gate import is_user_frame
from nsactors.results import Call, CallOwner, next_settled
from nsactors.views.mapping import MapPart

__all__ = ["CHUNKS_PER_ENGINE", "MapChunk", "lazy_map"]

CHUNKS_PER_ENGINE = 4  # one runs, one waits, and the results of two may wait for those before them

Send = Callable[[int, tuple[Sequence[Any], ...]], Call]


@dataclass(frozen=True, slots=True)
class _Broken:
    """What a chunk came to before one of its items failed."""

    results: list[Any]
    failure: Failure


class MapChunk:
    """``part`` mapped over the items of a chunk; what has been computed before one fails is not lost."""

    def __init__(self, part: MapPart, engine_id: int, label: str) -> None:
        self._part = part
        self._engine_id = engine_id
        self._label = label

    def __call__(self, *columns: Sequence[Any]) -> list[Any] | _Broken:
        """Map over the chunk's part of each iterable."""
        results: list[Any] = []
        try:
            for result in self._part.results(*columns):
                results.append(result)
        except Exception as error:
            below = error.__traceback__ and error.__traceback__.tb_next  # without this frame, which is not the user's
            failure = Failure.capture(
                error.with_traceback(below),
                engine_id=self._engine_id,
                call=self._label,
                dumps=lambda value: pack(value, what="the exception").data,
                is_user_frame=is_user_frame,
            )
            return _Broken(results, failure)
        return results


def lazy_map(
    owner: CallOwner,
    send: Send,
    engine_ids: Callable[[], Sequence[int]],
    iterables: Sequence[Iterable[Any]],
    *,
    ordered: bool,
    chunksize: int | None,
    max_outstanding: int | None,
    return_exceptions: bool,
) -> Iterator[Any]:
    """The results of a function over iterables; see ``DirectView.imap``.

    Args:
        owner: who makes the calls.
        send: calls a :class:`MapChunk` on an engine with the chunk's items of each iterable.
        engine_ids: the engines that there are now; each chunk goes to the one that has the fewest.
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
    window = _Window(owner, send, engine_ids, rows, ChunkSize(chunksize), max_outstanding, ordered)
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


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Items that have been sent."""

    call: Call
    length: int

    def results(self, return_exceptions: bool) -> Iterator[Any]:
        """One an item, as far as there are any; then raises what came in between."""
        value, error = self.call.value, self.call.error
        if error is not None and return_exceptions:
            value, error = [error] * self.length, None
        elif isinstance(value, _Broken):
            _, error = read_outcome(self.call, Failed(value.failure), None)
            value = value.results
        yield from value or ()
        if error is not None:
            raise error


class _Window:
    """Chunks that have been pulled from the input and not yet been given out."""

    def __init__(
        self,
        owner: CallOwner,
        send: Send,
        engine_ids: Callable[[], Sequence[int]],
        rows: Iterator[tuple[Any, ...]],
        size: ChunkSize,
        limit: int | None,
        ordered: bool,
    ) -> None:
        self._owner = owner
        self._send = send
        self._engine_ids = engine_ids
        self._rows = rows
        self._size = size
        self._limit = limit
        self._ordered = ordered
        self._chunks: dict[RequestId, _Chunk] = {}
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

    def take(self) -> _Chunk:
        """The next chunk to be given out, once it has been computed."""
        chunks = list(self._chunks.values())
        settled = self._settled
        if self._ordered:
            settled = SimpleQueue()
            chunks[0].call.when_settled(settled.put)
        call = next_settled(settled, [chunk.call for chunk in chunks], self._owner)
        self._owner.asked([call])
        chunk = self._chunks.pop(call.request_id)
        if call.started is not None and call.completed is not None:
            self._size.observe(chunk.length, call.completed - call.started)
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
        busy = Counter(chunk.call.engine_id for chunk in self._chunks.values() if not chunk.call.done)
        engine_id = min(self._engine_ids(), key=busy.__getitem__)
        call = self._send(engine_id, tuple(zip(*rows, strict=True)))
        self._chunks[call.request_id] = _Chunk(call, len(rows))
        if not self._ordered:
            call.when_settled(self._settled.put)

    def _has_room(self) -> bool:
        return len(self) < (self._limit or CHUNKS_PER_ENGINE * len(self._engine_ids()))

    def _ready(self) -> bool:
        if not self._ordered:
            return not self._settled.empty()
        return any(chunk.call.done for chunk in itertools.islice(self._chunks.values(), 1))
