"""Maps over input that may never end, in chunks whose size is set by measured times."""

from __future__ import annotations

import contextlib
import itertools
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, Protocol

from nsactors._frozen import frozen
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
        """Take into account that a chunk of ``items`` items (at least one) took ``seconds``."""
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


@frozen
class LazyMapOptions:
    """The options of an ``imap``.

    Attributes:
        ordered: whether results are given in the order of the items, not as they arrive.
        chunksize: items in a chunk; None for as many as can be pulled and computed within :data:`CHUNK_S`.
        max_outstanding: the largest number of chunks that have been pulled and not yet given out; None and ``"auto"``
            for a few per engine.
        return_exceptions: whether exceptions are given in place of the results that they prevented.
    """

    ordered: bool
    chunksize: int | None
    max_outstanding: int | str | None
    return_exceptions: bool

    @property
    def limit(self) -> int | None:
        """The number in ``max_outstanding``, if it is one."""
        return None if isinstance(self.max_outstanding, str) else self.max_outstanding


def check_lazy_map(iterables: Sequence[Iterable[Any]], options: LazyMapOptions) -> None:
    """Check the arguments of an ``imap``.

    Raises:
        TypeError: without iterables.
        InvalidArgument: if one of ``iterables`` is not iterable, a number is less than 1, or a flag is neither true nor
            false.
    """
    if not iterables:
        raise TypeError("imap() needs at least one iterable")
    limit = options.max_outstanding
    is_auto = isinstance(limit, str) and limit == "auto"
    arg.check(
        "imap",
        iterables=arg.iterables(iterables),
        ordered=arg.flag(options.ordered),
        chunksize=arg.whole(options.chunksize, at_least=1, or_none=True),
        max_outstanding=None if is_auto else arg.whole(limit, at_least=1, or_none=True),
        return_exceptions=arg.flag(options.return_exceptions),
    )


def lazy_map(
    owner: CallController,
    send: Send,
    engines: Callable[[], int],
    iterables: Sequence[Iterable[Any]],
    options: LazyMapOptions,
    seed: Any,
) -> LazyMapResult:
    """Return the results of a function over iterables; see the ``imap`` of views.

    Args:
        owner: the controller of the calls.
        send: sends a chunk, over which the function is mapped.
        engines: returns the number of engines.
        iterables: at least one.
        options: the options of the map.
        seed: the seed of the items' random numbers; the result's attribute ``seed``.

    Raises:
        Exception: the error of the input, or that of sending, if it occurs before anything has been sent.
    """
    window = _Window(owner, send, engines, zip(*iterables, strict=False), options)
    try:
        window.start()
    except BaseException:  # such as Ctrl-C while the input is read; nobody will take the results of chunks already sent
        window.abandon()
        raise
    return LazyMapResult(window, seed)


class LazyMapResult(Iterator[Any]):
    """The results of an ``imap``, one after the other.

    Closing the iterator cancels the chunks that have not begun. So does leaving the loop over the iterator.

    Attributes:
        seed: the seed that gives the same random numbers again; None if the map has none.
    """

    def __init__(self, window: _Window, seed: Any) -> None:
        self._results = window.results()
        self._abandon = weakref.finalize(self, window.abandon)
        self._abandon.atexit = False  # the client may have been closed by then
        self.seed = seed

    def __next__(self) -> Any:
        try:
            return next(self._results)
        except BaseException:
            self._abandon()
            raise

    def close(self) -> None:
        """Cancel the chunks that have not begun, and end."""
        self._results.close()
        self._abandon()


class _UnpicklableItem:
    """A chunk of one item that cannot be pickled: its result is the error, and it is not sent."""

    length = 1
    seconds: float | None = None

    def __init__(self, error: SerializationError, number: int) -> None:
        self.call = Call(RequestId("unpicklable", number), NOWHERE, "map", False)
        self.call.settle(None, error)

    def results(self, return_exceptions: bool) -> Iterator[Any]:
        assert return_exceptions, "otherwise, the map ends with the error"
        yield self.call.error


class _Window:
    """Chunks that have been pulled from the input and not yet been given out.

    See :func:`lazy_map` for the arguments; ``rows`` gives an item of each iterable.
    """

    def __init__(
        self,
        owner: CallController,
        send: Send,
        engines: Callable[[], int],
        rows: Iterator[tuple[Any, ...]],
        options: LazyMapOptions,
    ) -> None:
        self._owner = owner
        self._send = send
        self._engines = engines
        self._rows = rows
        self._options = options
        self._size = ChunkSize(options.chunksize)
        self._chunks: dict[RequestId, Chunk] = {}
        self._settled: SimpleQueue[Call] = SimpleQueue()
        self._calls: list[Call] = []  # the calls of the chunks
        self._output = AwaitedOutput(self._calls)
        self._parts: list[list[tuple[Any, ...]]] = []  # of a chunk that could not be pickled, the last part first
        self._unpicklable_numbers = itertools.count()
        self._ended = False
        self._error: Exception | None = None  # of the input or of sending; raised after the results of earlier items

    def start(self) -> None:
        """Send the first chunks; raise the error that ends the map if there is nothing before it."""
        self._fill()
        if self._error is not None and not self._chunks:
            raise self._error

    def results(self) -> Generator[Any, None, None]:
        """Yield the results; after those of each chunk, send further chunks."""
        while self._chunks:
            yield from self._take().results(self._options.return_exceptions)
            self._fill()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Cancel the chunks that have not begun."""
        self._output.settle()
        calls = [chunk.call for chunk in self._chunks.values() if not chunk.call.done]
        if calls:
            with contextlib.suppress(NsactorsError):  # the client may have been closed
                self._owner.abort(calls, interrupt=False)

    def _fill(self) -> None:
        """Pull and send chunks while there is room. If this takes long, stop as soon as there is a result."""
        patience = time.monotonic() + CHUNK_S
        try:
            while (self._parts or not self._ended) and self._has_room():
                rows = self._parts.pop() if self._parts else self._pull()
                if rows:
                    self._add(rows)
                if time.monotonic() > patience and self._ready():
                    break
        except Exception as error:
            self._ended, self._error = True, error
            self._parts.clear()

    def _take(self) -> Chunk:
        """Wait for the next chunk to be given out, and return it."""
        chunks = list(self._chunks.values())
        settled = self._settled
        if self._options.ordered:
            settled = SimpleQueue()
            chunks[0].call.when_settled(settled.put)
        calls, keeps_errors = [chunk.call for chunk in chunks], self._options.return_exceptions
        call = next_settled(settled, calls, self._owner, self._output, keeps_errors=keeps_errors)
        self._calls.remove(call)
        self._owner.mark_retrieved([call])
        chunk = self._chunks.pop(call.request_id)
        if (seconds := chunk.seconds) is not None:
            self._size.observe(chunk.length, seconds)
        return chunk

    def _pull(self) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        deadline = time.monotonic() + CHUNK_S
        try:
            while len(rows) < self._size.items and (not rows or not self._size.adapts or time.monotonic() < deadline):
                rows.append(next(self._rows))
        except StopIteration:
            self._ended = True
        except Exception as error:
            self._ended, self._error = True, error
        return rows

    def _add(self, rows: list[tuple[Any, ...]]) -> None:
        on_their_way = [chunk.call for chunk in self._chunks.values() if not chunk.call.done]
        try:
            chunk = self._send(tuple(zip(*rows, strict=True)), on_their_way)
        except SerializationError as error:
            if len(rows) > 1:  # try both halves, the first half first
                middle = len(rows) // 2
                self._parts += [rows[middle:], rows[:middle]]
                return
            if not self._options.return_exceptions:
                raise
            chunk = _UnpicklableItem(error, next(self._unpicklable_numbers))
        self._chunks[chunk.call.request_id] = chunk
        self._calls.append(chunk.call)
        if not self._options.ordered:
            chunk.call.when_settled(self._settled.put)

    def _has_room(self) -> bool:
        return len(self._chunks) < (self._options.limit or CHUNKS_PER_ENGINE * max(1, self._engines()))

    def _ready(self) -> bool:
        if not self._options.ordered:
            return not self._settled.empty()
        return any(chunk.call.done for chunk in itertools.islice(self._chunks.values(), 1))
