"""Results with ipyparallel's names and meanings. Each of them uses a result of nsactors."""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import nsactors
from nsactors.ipyparallel.arguments import check_choice, check_function, check_seconds
from nsactors.ipyparallel.client.chunks import ChunkIds, ChunkTable, Piece
from nsactors.ipyparallel.client.displaying import display_outputs
from nsactors.ipyparallel.client.metadata import ExecuteReply, Metadata, metadata_of
from nsactors.ipyparallel.error import CompositeError, RemoteError, message_of_group
from nsactors.ipyparallel.translation import translated, translating

if TYPE_CHECKING:
    from nsactors.ipyparallel.client.client import Client

__all__ = ["AsyncHubResult", "AsyncMapResult", "AsyncResult"]

_KEYS = frozenset(Metadata())
_RETURN_WHEN = (ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION)


class AsyncResult(Future[Any]):
    """The result of requests, now or later.

    A ``concurrent.futures.Future`` with the methods of ``multiprocessing.pool.AsyncResult``, which can be awaited.
    ``core`` is the result of nsactors, which has more methods.

    Args:
        client: the client that sent the requests.
        children: a result of nsactors; a list of results or ids of requests; or an id.
        fname: the name of the function.
        targets: the engines.
        owner: not used; nothing is taken out of a cache.
        return_exceptions: return exceptions in place of missing values.
        chunk_sizes: not used; the parts of a map know their lengths.
    """

    def __init__(
        self,
        client: Client,
        children: Any,
        fname: str = "unknown",
        targets: Any = None,
        owner: bool = False,
        return_exceptions: bool = False,
        chunk_sizes: Any = None,
    ) -> None:
        super().__init__()
        self.core: nsactors.AsyncResult = _joined(client, children)
        self.owner = owner
        self.is_balanced = False  # True if a load-balanced view has sent the requests
        self._client = client
        self._fname = fname
        self._targets = targets
        self._return_exceptions = return_exceptions
        self._sent: list[dict[str, Any]] = []
        self._parts: tuple[AsyncResult, ...] | None = None
        self._cores: Sequence[nsactors.AsyncResult] | None = None
        self._numbers: dict[str, int] = {}  # positions of requests, by id; filled when the first is asked for
        self._children: dict[str, AsyncResult] = {}
        # Use Future's own method: nsactors' method runs callbacks on a thread that a waiting callback may hold up.
        Future.add_done_callback(self.core, self._note_end)

    def noted(self, **sent: Any) -> Self:
        """Add values to the metadata of each request: the flags with which it was sent."""
        self._sent = [sent]
        return self

    @property
    def how_sent(self) -> dict[str, Any]:
        """The values noted when the first request was sent."""
        return dict(self._sent[0]) if self._sent else {}

    @property
    def msg_ids(self) -> list[str]:
        """The ids of the requests."""
        return self.core.msg_ids

    def last_ids(self, limit: int) -> list[str]:
        """Return the ids of the last ``limit`` requests."""
        return self.msg_ids[-limit:]

    def pending_ids(self) -> set[str]:
        """Return the ids of the requests that have no reply yet."""
        if self.done():
            return set()
        replied = {str(call.request_id) for call in self.core.calls if call.done}
        return {msg_id for msg_id in self.msg_ids if msg_id not in replied}

    def child(self, msg_id: str) -> AsyncResult:
        """Return the result of one of the requests, the same one each time."""
        # Programs ask for all requests in turn, so no list of all ids is made or searched for each of them.
        number = self._number_of(msg_id)
        if len(self._core_of_each()) == 1:
            return self
        if msg_id not in self._children:
            child = self._children[msg_id] = self._new_child(self._core_of_each()[number])
            child._sent = self._sent[number : number + 1] if len(self._sent) > 1 else self._sent
        return self._children[msg_id]

    def _new_child(self, core: nsactors.AsyncResult) -> AsyncResult:
        return self._of(core)

    def metadata_of_child(self, msg_id: str) -> Metadata:
        """Return the metadata of one of the requests."""
        found = self.metadata
        return found if isinstance(found, Metadata) else found[self._number_of(msg_id)]

    def _number_of(self, msg_id: str) -> int:
        """Return the position of a request; KeyError if it is none of these."""
        if not self._numbers:
            self._numbers = {known: number for number, known in enumerate(self.msg_ids)}
        return self._numbers[msg_id]

    def _core_of_each(self) -> Sequence[nsactors.AsyncResult]:
        """Return a result of nsactors for each request."""
        if self._cores is None:
            self._cores = self._split_core()
        return self._cores

    def _split_core(self) -> Sequence[nsactors.AsyncResult]:
        return self.core.split()

    def _of(self, core: Any) -> AsyncResult:
        return AsyncResult(self._client, core, self._fname, return_exceptions=self._return_exceptions)

    # Methods of a future.

    def _note_end(self, core: Future[Any]) -> None:
        """Set this future's state for ``concurrent.futures.wait``; the value stays in ``core``."""
        failures = [call.error for call in self.core.calls if call.error is not None]
        if core.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
        elif failures and not self._return_exceptions:
            self.set_exception(failures[0])
        else:
            self.set_result(None)

    def done(self) -> bool:
        """Return whether all requests have replies."""
        return self.core.done()

    def running(self) -> bool:
        """Return whether a request has no reply yet."""
        return not self.core.done()

    def cancelled(self) -> bool:
        """Return whether the requests were cancelled."""
        return self.core.cancelled()

    def cancel(self) -> bool:
        """Cancel requests that have not begun, and give up the result."""
        return self.core.cancel()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the value and return it."""
        with translating(self._fname):
            return self._whole(self.core.result(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end, and return the error; None if there was none."""
        error: BaseException | None = translated(self.core.exception(timeout), self._fname)
        return error

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Call ``fn`` with this result when it is done."""
        check_function("add_done_callback", "fn", fn)
        if getattr(fn, "__module__", "") == "asyncio.futures":  # it only wakes an event loop
            Future.add_done_callback(self.core, lambda _: fn(self))
        else:
            self.core.add_done_callback(lambda _: fn(self))

    def __await__(self) -> Generator[Any, None, Any]:
        with translating(self._fname):
            value = yield from self.core.__await__()
        return self._whole(value)

    # Methods of ipyparallel's results.

    def get(
        self, timeout: float | None = None, return_exceptions: bool | None = None, return_when: str | None = None
    ) -> Any:
        """Wait for the value and return it; Ctrl-C during the wait interrupts the engines.

        Args:
            timeout: the limit in seconds; None and negative numbers for no limit.
            return_exceptions: return exceptions in place of missing values.
            return_when: ``FIRST_EXCEPTION`` raises as soon as one engine has failed.

        Raises:
            TimeoutError: if the limit is reached.
            RemoteError: if a call to one engine failed; the error is also an instance of the original class.
            CompositeError: if a call to several engines failed.
        """
        check_choice("get", "return_when", return_when, (None, *_RETURN_WHEN))
        if return_when == FIRST_COMPLETED:
            text = "get() cannot give a part of the values: return_when=FIRST_COMPLETED is taken as ALL_COMPLETED"
            warnings.warn(text, UserWarning, stacklevel=2)
        if return_exceptions is None:
            return_exceptions = self._return_exceptions
        first = FIRST_EXCEPTION if return_when == FIRST_EXCEPTION else None
        try:
            with translating(self._fname):
                value = self.core.get(timeout, return_exceptions, first)
        except CompositeError as error:
            if self.done() or isinstance(self, AsyncMapResult):
                raise
            raise error.exceptions[0] from None  # nobody knows yet whether others fail
        return self._whole(value)

    @property
    def r(self) -> Any:
        """The value; waits for it."""
        return self.get()

    def get_dict(self, timeout: float | None = -1) -> dict[int, Any]:
        """Return the values by engine; raise ValueError if an engine has replied more than once."""
        with translating(self._fname):
            found = self.core.get_dict(timeout)
        return dict(zip(found, self._presented(list(found.values())), strict=True))

    @property
    def result_dict(self) -> dict[int, Any]:
        """The values by engine; waits for them."""
        return self.get_dict()

    def ready(self) -> bool:
        """Return whether all requests have replies."""
        return self.core.ready()

    def successful(self) -> bool:
        """Return whether all requests ended without an error; raise RuntimeError if they have not ended."""
        return self.core.successful()

    def wait(self, timeout: float | None = -1, return_when: str | None = None) -> Any:
        """Wait for the end, at most for ``timeout`` seconds.

        Returns:
            True if all requests have ended; with ``return_when`` the sets of ended and pending parts, one per engine.
        """
        check_choice("wait", "return_when", return_when, (None, *_RETURN_WHEN))
        if return_when is None:
            return self.core.wait(timeout)
        check_seconds("wait", "timeout", timeout)
        limit = None if timeout is None or timeout < 0 else timeout
        return concurrent.futures.wait(self.split(), limit, return_when)

    def wait_for_output(self, timeout: float | None = -1) -> bool:
        """Wait for all output, which arrives before the result is done."""
        return self.core.wait_for_output(timeout)

    def wait_for_send(self, timeout: float | None = -1) -> None:
        """Do nothing: arguments are copied before a call returns, and may be changed as soon as it has returned."""

    @property
    def sent(self) -> bool:
        """True: arguments may be changed as soon as a call returns."""
        return True

    def wait_interactive(
        self,
        interval: float = 0.1,
        timeout: float | None = -1,
        widget: bool | None = None,
        return_when: str = ALL_COMPLETED,
    ) -> None:
        """Wait, and show a progress bar.

        Args:
            interval: seconds between two looks.
            timeout: seconds to wait at most.
            widget: not used; a notebook shows the bar under the cell.
            return_when: ``FIRST_COMPLETED`` and ``FIRST_EXCEPTION`` end the wait earlier.

        Raises:
            ValueError: if ``return_when`` is none of the constants of ``concurrent.futures``.
        """
        check_choice("wait_interactive", "return_when", return_when, _RETURN_WHEN)
        self.core.wait_interactive(interval, timeout, return_when=return_when)

    def abort(self) -> None:
        """Cancel requests that have not begun; raise RuntimeError if all have ended."""
        self.core.abort()

    @classmethod
    def join(cls, *async_results: AsyncResult) -> AsyncResult:
        """Return one result of several, at least one."""
        if not async_results:
            raise ValueError("join() takes at least one result")
        first = async_results[0]
        if len(async_results) == 1:
            return first
        return AsyncResult(first._client, list(async_results), first._fname, return_exceptions=first._return_exceptions)

    def split(self) -> tuple[AsyncResult, ...]:
        """Return one result per engine, the same ones each time."""
        if self._parts is None:
            self._parts = self._split()
        return self._parts

    def _split(self) -> tuple[AsyncResult, ...]:
        cores = self._core_of_each()
        if len(cores) == 1:
            return (self,)
        parts = [self._of(core) for core in cores]
        for number, part in enumerate(parts):
            part._sent = self._sent[number : number + 1] if len(self._sent) > 1 else self._sent
        return tuple(parts)

    def __iter__(self) -> Iterator[Any]:
        """Yield the values as they arrive; raise CompositeError at the first that is missing.

        If the result is done, the error has all failures, and is raised before the first value.
        """
        values = iter(self.core)
        return iter(self.get()) if self.ready() else self._values(values)

    def _values(self, values: Iterator[Any]) -> Iterator[Any]:
        try:
            with translating(self._fname):
                for value in values:
                    yield self._presented(value)
        except CompositeError:
            raise
        except RemoteError as error:
            raise CompositeError(message_of_group(self._fname), [error]) from None

    def __len__(self) -> int:
        return len(self.core)

    def __getitem__(self, key: int | slice | str) -> Any:
        """Return values by position, when all have arrived; or metadata by key, at any time."""
        if isinstance(key, str):
            found = self.metadata
            return found[key] if isinstance(found, Metadata) else [each[key] for each in found]
        if not isinstance(key, int | slice):
            raise TypeError(f"a result is indexed by int, slice or str, not {type(key).__name__}")
        if not self.ready():
            raise TimeoutError("the result has not arrived: get() waits for it")
        return self.get()[key]

    def __getattr__(self, name: str) -> Any:
        if name in _KEYS:
            return self[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_KEYS})

    def __repr__(self) -> str:
        state = "pending" if not self.done() else "failed" if not self.successful() else "finished"
        return f"<{type(self).__name__}({self._fname}): {state}>"

    @property
    def metadata(self) -> Any:
        """The metadata of each request: a list, or for a single request its metadata alone."""
        known = self.core.metadata
        if not isinstance(known, list):
            return metadata_of(known, self._sent[0] if self._sent else {})
        sent = self._sent if len(self._sent) == len(known) else self._sent[:1] * len(known) or [{}] * len(known)
        return [metadata_of(each, noted) for each, noted in zip(known, sent, strict=True)]

    @property
    def progress(self) -> int:
        """The number of requests that have replies."""
        return self.core.progress

    @property
    def elapsed(self) -> float:
        """Seconds since the submission, until now or the last answer."""
        return self.wall_time if self.ready() else self.core.elapsed

    @property
    def serial_time(self) -> float:
        """The sum of the seconds that engines computed; TimeoutError if the result is not done."""
        if not self.ready():
            raise TimeoutError("the result has not arrived: wait() for it")
        return self.core.serial_time

    @property
    def wall_time(self) -> float:
        """Seconds from the submission to the last answer; TimeoutError if the result is not done."""
        if not self.ready():
            raise TimeoutError("the result has not arrived: wait() for it")
        last = max((call.received or 0.0 for call in self.core.calls), default=None)
        # Take the difference of the times in the metadata, which are rounded to microseconds.
        return 0.0 if last is None else self.timedelta(submitted_at(self.core), datetime.fromtimestamp(last, UTC))

    def timedelta(
        self, start: Any, end: Any, start_key: Callable[..., Any] = min, end_key: Callable[..., Any] = max
    ) -> float:
        """Return the seconds between two times, or between two lists of them.

        Args:
            start: a time, such as ``ar.submitted``, or several.
            end: the same, such as ``ar.received``.
            start_key: chooses among several.
            end_key: the same for ``end``.
        """
        first: datetime = start if isinstance(start, datetime) else start_key(start)
        last: datetime = end if isinstance(end, datetime) else end_key(end)
        return (last - first).total_seconds()

    def display_outputs(self, groupby: str = "type", result_only: bool = False, *, labels: bool = False) -> None:
        """Show the output of the engines, and the values of cells.

        Args:
            groupby: ``"type"`` (all stdout, then all stderr ...), ``"engine"`` or ``"order"``.
            result_only: show only the values of cells.
            labels: number the engine of a single request, too.

        Raises:
            TimeoutError: if the result is not done.
            ValueError: for another ``groupby``.
        """
        if not self.ready():
            raise TimeoutError("the result has not arrived: wait() for it")
        found = self.metadata
        replies = self._presented(self.core.get(None, True))
        single = isinstance(found, Metadata)
        rows, values = ([found], [replies]) if single else (found, replies)
        display_outputs(rows, values, groupby, single and not labels, result_only)

    @contextlib.contextmanager
    def stream_output(self) -> Iterator[None]:
        """Show the output of the engines as it arrives, inside the ``with`` block."""
        with self.core.stream_output():
            yield

    def _whole(self, value: Any) -> Any:
        """Convert the value of the result to ipyparallel's form."""
        return self._presented(value)

    def _presented(self, value: Any) -> Any:
        """Convert a value or an item to ipyparallel's form: translate errors, wrap the values of cells in replies."""
        calls = self.core.calls
        executes = bool(calls) and calls[0].executes
        if not executes and not isinstance(value, list):
            return translated(value) if isinstance(value, Exception) else value
        if not executes:
            has_errors = self._return_exceptions or any(call.error is not None for call in calls)
            return [translated(each) for each in value] if has_errors and type(value) is list else value
        if isinstance(value, list):
            found = self.metadata
            rows = zip(value, found if isinstance(found, list) else [found], calls, strict=True)
            return [_reply(each, metadata, call) for each, metadata, call in rows]
        found = self.metadata
        return _reply(value, found[0] if isinstance(found, list) else found, calls[0])


class AsyncMapResult(AsyncResult):
    """The result of a map: one sequence, whose items can be iterated over as they arrive.

    Args:
        client: the client that sent the requests.
        children: a result of nsactors.
        mapObject: not used; the result knows how its parts are joined.
        fname: the name of the function.
        ordered: not used; the result knows its order.
        return_exceptions: return exceptions in place of missing items.
        chunk_sizes: for a balanced map, the number of items in each chunk, which gets an id and a result of its own.
    """

    def __init__(
        self,
        client: Client,
        children: Any,
        mapObject: Any,
        fname: str = "",
        ordered: bool = True,
        return_exceptions: bool = False,
        chunk_sizes: Any = None,
    ) -> None:
        super().__init__(client, children, fname, return_exceptions=return_exceptions)
        self.ordered = ordered
        # A map without items has no chunks, but is one request.
        self._chunk_size = chunk_sizes if isinstance(chunk_sizes, int) and len(self.core) else None

    @property
    def chunk_ids(self) -> ChunkIds | None:
        """The ids of the chunks of a balanced map; None for other maps."""
        if self._chunk_size is None:
            return None
        return ChunkIds(self.core.msg_ids[0], len(self.core), self._chunk_size)

    @property
    def msg_ids(self) -> list[str]:
        """The ids of the requests; for a balanced map, one for each chunk."""
        return self.core.msg_ids if (ids := self.chunk_ids) is None else list(ids)

    def last_ids(self, limit: int) -> list[str]:
        """See :class:`AsyncResult`."""
        found: list[str] = super().last_ids(limit) if (ids := self.chunk_ids) is None else ids[-limit:]
        return found

    def _number_of(self, msg_id: str) -> int:
        return super()._number_of(msg_id) if (ids := self.chunk_ids) is None else ids.number_of(msg_id)

    def metadata_of_child(self, msg_id: str) -> Metadata:
        """See :class:`AsyncResult`."""
        table = self.chunk_table()
        found: Metadata = super().metadata_of_child(msg_id) if table is None else table[self._number_of(msg_id)]
        return found

    def pending_ids(self) -> set[str]:
        """Return the ids of the requests that have no reply yet."""
        table = self.chunk_table()
        return super().pending_ids() if table is None or self.done() else table.pending_ids()

    @property
    def has_chunks(self) -> bool:
        """True for the result of a balanced map: each of its chunks is a request."""
        return self._chunk_size is not None

    def chunk_table(self) -> ChunkTable | None:
        """Return the metadata of the chunks of a balanced map; None for other maps."""
        if (ids := self.chunk_ids) is None or self._chunk_size is None:
            return None
        pieces = [
            Piece(call.start, call.stop, metadata_of(call.metadata, self.how_sent))  # type: ignore[attr-defined]
            for call in self.core.calls  # read once: another piece may arrive during the loop
        ]
        pending = {"submitted": submitted_at(self.core), **self.how_sent}
        return ChunkTable(ids, len(self.core), self._chunk_size, pieces, pending)

    def _split_core(self) -> Sequence[nsactors.AsyncResult]:
        if self._chunk_size is None:
            return super()._split_core()
        # split() of nsactors' results of balanced maps takes a size.
        return self.core.split(self._chunk_size)  # type: ignore[call-arg]

    @property
    def metadata(self) -> Any:
        """The metadata of each request; for a balanced map, of each chunk."""
        table = self.chunk_table()
        return super().metadata if table is None else list(table)

    def _whole(self, value: Any) -> Any:
        # ipyparallel joins lists, tuples and arrays, and returns a list of parts of any other kind.
        if isinstance(value, str | bytes):
            return [call.value for call in self.core.calls]
        return self._presented(list(value) if isinstance(value, range) else value)

    def __len__(self) -> int:
        """Return the number of items."""
        parts = [call.items for call in self.core.calls]
        if not parts or any(part is None for part in parts):
            return len(self.core)
        return sum(len(part.numbers) for part in parts if part is not None)

    def _split(self) -> tuple[AsyncResult, ...]:
        # As in ipyparallel, the value of each result is the list of its part's items: hence a list of one result.
        cores = self._core_of_each()
        return tuple(self._of([core]) for core in cores) if len(cores) > 1 else (self,)

    @property
    def progress(self) -> int:
        """The number of items that have arrived."""
        calls = self.core.calls
        if not calls or any(call.items is None for call in calls):
            return self.core.progress
        return sum(len(call.items.numbers) for call in calls if call.done and call.items is not None)


class PartsResult(AsyncMapResult):
    """The result of calls with parts of sequences on a load-balanced view: a map over the parts, one to a chunk."""

    def __init__(self, client: Client, children: Any, fname: str, ordered: bool, return_exceptions: bool) -> None:
        super().__init__(client, children, None, fname, ordered, return_exceptions, chunk_sizes=1)

    def _new_child(self, core: nsactors.AsyncResult) -> AsyncResult:
        return _PartResult(self._client, core, self._fname, return_exceptions=self._return_exceptions)

    def _split(self) -> tuple[AsyncResult, ...]:
        # The value of a chunk is a list with the value of its only part.
        return tuple(map(self._of, self._core_of_each())) if len(self._core_of_each()) > 1 else (self,)


class _PartResult(AsyncResult):
    """The result of a call with one part, whose value is in a list."""

    def _presented(self, value: Any) -> Any:
        return super()._presented(value[0] if isinstance(value, list) else value)


class AsyncHubResult(AsyncResult):
    """The result of requests that another client has sent, or that this client has dropped."""

    @property
    def wall_time(self) -> float:
        """Seconds from the submission, or the start if that is earlier, to the end; TimeoutError before the end."""
        known = self.metadata
        rows = [known] if isinstance(known, Metadata) else known
        if any(row["completed"] is None for row in rows):
            return super().wall_time
        began = min(min(row["submitted"], row["started"]) for row in rows)
        return float((max(row["completed"] for row in rows) - began).total_seconds())


def _joined(client: Client, children: Any) -> nsactors.AsyncResult:
    """Return the result of nsactors for a result, an id, or a list of these."""
    if isinstance(children, AsyncResult):
        return children.core
    if isinstance(children, nsactors.AsyncResult):
        return children
    if isinstance(children, str):
        return client.core.get_result(children)
    if not isinstance(children, Sequence):
        raise TypeError(f"a result is made of results or ids of requests, not of {type(children).__name__}")
    if children and all(isinstance(child, str) for child in children):
        return client.core.get_result(list(children))
    return nsactors.AsyncResult.join(*(_joined(client, child) for child in children))


def submitted_at(core: nsactors.AsyncResult) -> datetime:
    """Return the time of submission of a result of nsactors; for a balanced map, even before a part has arrived."""
    calls = [core.map_call] if hasattr(core, "map_call") else core.calls
    return datetime.fromtimestamp(min((call.submitted for call in calls), default=time.time()), UTC)


def _reply(value: Any, metadata: Metadata, call: Any) -> Any:
    if isinstance(value, Exception):
        return translated(value)
    return ExecuteReply(metadata["msg_id"], {"execution_count": call.execution_count}, metadata)


def wait_all(results: Iterable[Future[Any]], timeout: float | None) -> bool:
    """Wait for results and futures; return whether they have ended in time."""
    deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
    for result in results:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if isinstance(result, AsyncResult):
            if not result.wait(left):
                return False
        elif concurrent.futures.wait([result], left).not_done:
            return False
    return True
