"""Maps over input that may never end, in chunks of measured size."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, Protocol

from nsactors.errors import NsactorsError, SerializationError
from nsactors.protocol import arguments as arg
from nsactors.protocol.messages import RequestId
from nsactors.results import NOWHERE, AwaitedOutput, Call, CallController, next_settled

CHUNK_S = 0.02  # seconds of work in a chunk, which is much longer than a message takes (1 ms), and still a short wait
MAX_ITEMS = 1_000  # a limit, because values that are quick to compute may be large


class ChunkSize:
    """The size of chunks: a fixed number of items, or as many items as take :data:`CHUNK_S`.

    If the number is not fixed, the first chunk has one item, and measured times decide the size of later chunks.

    Args:
        fixed: the fixed size, if any.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self.items = fixed or 1
        self.adapts = fixed is None

    def observe(self, items: int, seconds: float) -> None:
        """Note that a chunk of so many items (at least one) took so many seconds."""
        if self.adapts:
            affordable = int(CHUNK_S * items / max(seconds, 1e-6))
            # Double the size at most, because the next items may take longer than those measured.
            self.items = max(1, min(affordable, 2 * self.items, MAX_ITEMS))


CHUNKS_PER_ENGINE = 4  # one runs, one waits, and the results of two may wait for earlier results

Send = Callable[[tuple[Sequence[Any], ...], Sequence[Call]], "Chunk"]
"""Sends a chunk. It takes a sequence of items from each iterable, and the calls that are on their way."""


class Chunk(Protocol):
    """Items that have been sent."""

    @property
    def call(self) -> Call:
        """The call that carries the items."""
        ...

    @property
    def length(self) -> int:
        """The number of items."""
        ...

    @property
    def seconds(self) -> float | None:
        """The time that the items took together, once it is known."""
        ...

    def results(self, return_exceptions: bool) -> Iterator[Any]:
        """Yield the results up to the first error, if there is one, and then raise it."""
        ...


def check_lazy_map(
    iterables: Sequence[Iterable[Any]],
    ordered: bool,
    chunksize: int | None,
    max_outstanding: int | str | None,
    return_exceptions: bool,
) -> None:
    """Check the arguments of an ``imap``.

    Raises:
        TypeError: without iterables.
        InvalidArgument: if one of ``iterables`` is not iterable, a number is less than 1, or a flag is neither true nor
            false.
    """
    if not iterables:
        raise TypeError("imap() needs at least one iterable")
    arg.check(
        "imap",
        iterables=arg.iterables(iterables),
        ordered=arg.flag(ordered),
        chunksize=arg.whole(chunksize, at_least=1, or_none=True),
        max_outstanding=None if _is_auto(max_outstanding) else arg.whole(max_outstanding, at_least=1, or_none=True),
        return_exceptions=arg.flag(return_exceptions),
    )


def _is_auto(value: object) -> bool:
    return isinstance(value, str) and value == "auto"


class LazyMapResult(Iterator[Any]):
    """The results of an ``imap``, one after the other.

    Closing the iterator cancels the chunks that have not begun.

    Attributes:
        seed: the seed that gives the same random numbers again; None if the map has none.
    """

    def __init__(self, results: Generator[Any, None, None], seed: Any) -> None:
        self._results = results
        self.seed = seed

    def __next__(self) -> Any:
        return next(self._results)

    def close(self) -> None:
        """Cancel the chunks that have not begun, and end."""
        self._results.close()


def lazy_map(
    owner: CallController,
    send: Send,
    engines: Callable[[], int],
    iterables: Sequence[Iterable[Any]],
    *,
    ordered: bool,
    chunksize: int | None,
    max_outstanding: int | str | None,
    return_exceptions: bool,
    seed: Any,
) -> LazyMapResult:
    """Return the results of a function over iterables; see the ``imap`` of views.

    Args:
        owner: the controller of the calls.
        send: sends a chunk, over which the function is mapped.
        engines: returns the number of engines.
        iterables: at least one.
        ordered: give results in the order of the items; otherwise as they arrive.
        chunksize: items in a chunk; None for as many as can be pulled and computed within :data:`CHUNK_S`.
        max_outstanding: the largest number of chunks that have been pulled and not yet given out; None and ``"auto"``
            for a few per engine.
        return_exceptions: give exceptions in place of the results that they prevented.
        seed: the seed of the items' random numbers, for the result.
    """
    rows = zip(*iterables, strict=False)
    limit = None if isinstance(max_outstanding, str) else max_outstanding
    window = _Window(owner, send, engines, rows, ChunkSize(chunksize), limit, ordered, return_exceptions)
    try:
        window.fill()
    except BaseException:  # from the input; nobody will take the results of the chunks that have been sent
        window.abandon()
        raise
    if window.error is not None and not len(window):
        raise window.error
    results = _results(window, return_exceptions)
    next(results)  # starts the generator, so that closing it cancels the chunks that have been sent
    return LazyMapResult(results, seed)


def _results(window: _Window, return_exceptions: bool) -> Generator[Any, None, None]:
    try:
        yield
        while len(window):
            chunk = window.take()
            yield from chunk.results(return_exceptions)
            window.fill()
        if window.error is not None:
            raise window.error
    finally:
        window.abandon()


class _UnsentItem:
    """A chunk of one item that cannot be pickled: it has failed without being sent."""

    length = 1
    seconds: float | None = None

    def __init__(self, error: Exception, number: int) -> None:
        self.call = Call(RequestId("unsent", number), NOWHERE, "map", False)
        self.call.settle(None, error)

    def results(self, return_exceptions: bool) -> Iterator[Any]:
        yield self.call.error


class _Window:
    """Chunks that have been pulled from the input and not yet been given out."""

    def __init__(
        self,
        owner: CallController,
        send: Send,
        engines: Callable[[], int],
        rows: Iterator[tuple[Any, ...]],
        size: ChunkSize,
        limit: int | None,
        ordered: bool,
        return_exceptions: bool,
    ) -> None:
        self._owner = owner
        self._send = send
        self._engines = engines
        self._rows = rows
        self._size = size
        self._limit = limit
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._chunks: dict[RequestId, Chunk] = {}
        self._settled: SimpleQueue[Call] = SimpleQueue()
        self._calls: list[Call] = []  # of the chunks
        self._output = AwaitedOutput(self._calls)
        self._unsent: list[list[tuple[Any, ...]]] = []  # parts of a chunk that could not be sent, in reverse order
        self._failed = itertools.count()
        self._ended = False
        self.error: Exception | None = None  # an error of the input, raised after the results of earlier items

    def __len__(self) -> int:
        return len(self._chunks)

    def fill(self) -> None:
        """Pull and send chunks while there is room. If this takes long, stop as soon as there is a result."""
        patience = time.monotonic() + CHUNK_S
        try:
            while (self._unsent or not self._ended) and self._has_room():
                rows = self._unsent.pop() if self._unsent else self._pull()
                if rows:
                    self._add(rows)
                if time.monotonic() > patience and self._ready():
                    break
        except Exception as error:
            self._ended, self.error = True, error
            self._unsent.clear()

    def take(self) -> Chunk:
        """Wait for the next chunk to be given out, and return it."""
        chunks = list(self._chunks.values())
        settled = self._settled
        if self._ordered:
            settled = SimpleQueue()
            chunks[0].call.when_settled(settled.put)
        calls = [chunk.call for chunk in chunks]
        call = next_settled(settled, calls, self._owner, self._output, keeps_errors=self._return_exceptions)
        self._calls.remove(call)
        self._owner.mark_retrieved([call])
        chunk = self._chunks.pop(call.request_id)
        if (seconds := chunk.seconds) is not None:
            self._size.observe(chunk.length, seconds)
        return chunk

    def abandon(self) -> None:
        """Cancel the chunks that have not begun."""
        self._output.settle()
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
        try:
            chunk = self._send(tuple(zip(*rows, strict=True)), on_their_way)
        except SerializationError as error:
            if len(rows) > 1:  # try both halves, the first half first
                middle = len(rows) // 2
                self._unsent += [rows[middle:], rows[:middle]]
                return
            if not self._return_exceptions:
                raise
            chunk = _UnsentItem(error, next(self._failed))
        self._chunks[chunk.call.request_id] = chunk
        self._calls.append(chunk.call)
        if not self._ordered:
            chunk.call.when_settled(self._settled.put)

    def _has_room(self) -> bool:
        return len(self) < (self._limit or CHUNKS_PER_ENGINE * max(1, self._engines()))

    def _ready(self) -> bool:
        if not self._ordered:
            return not self._settled.empty()
        return any(chunk.call.done for chunk in itertools.islice(self._chunks.values(), 1))
