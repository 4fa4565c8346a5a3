"""Results in coroutines: what waits for them without holding up the event loop that the caller runs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from nsactors.results.call import Call
from nsactors.results.call_group import CallGroup
from nsactors.results.lean_future import LeanFuture

__all__ = ["AwaitedResult", "Completed", "News", "as_completed"]

F = TypeVar("F", bound="Future[Any]")


class News:
    """Lets a coroutine wait for what other threads do."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = asyncio.Event()

    def tell(self, what: object = None) -> None:
        """Something has happened; called on any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._told.set)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when ``condition()`` holds, which is looked at whenever something has happened."""
        while not condition():
            await self._told.wait()
            self._told.clear()


class AwaitedResult(CallGroup, LeanFuture):
    """What a result of calls is to coroutines."""

    def __await__(self) -> Generator[Any, None, Any]:
        with self._asking():
            return (yield from asyncio.wrap_future(self).__await__())

    def __aiter__(self) -> AsyncIterator[Any]:
        """As iterating over it, without holding up the event loop meanwhile."""
        if self._single:
            raise TypeError(f"{self._label} ran on one engine: its result is one value, which `await` gives")
        return self._iterate_async()

    async def _iterate_async(self) -> AsyncIterator[Any]:
        news = News()
        for call in self._calls:
            call.when_settled(news.tell)
        for call in self._calls:
            await news.wait_for(lambda: call.done)  # noqa: B023 (it is awaited at once)
            yield self._one(call)

    def _asking(self) -> AbstractContextManager[None]:
        """Within it somebody asks how the calls ended."""
        raise NotImplementedError

    def _one(self, call: Call) -> Any:
        """What a call gave; waits for it, and raises what it raised."""
        raise NotImplementedError


class Completed(Generic[F]):
    """Results, each as soon as it is there: for ``for`` and ``async for``; see :func:`as_completed`."""

    def __init__(self, results: Iterable[F], timeout: float | None) -> None:
        self._results = set(results)
        self._timeout = timeout

    def __iter__(self) -> Iterator[F]:
        results = concurrent.futures.as_completed(self._results, self._timeout)
        return results  # type: ignore[return-value]  # it gives what it was given

    async def __aiter__(self) -> AsyncIterator[F]:
        deadline = None if self._timeout is None else asyncio.get_running_loop().time() + self._timeout
        news, ended = News(), SimpleQueue[F]()

        def end(result: Future[Any]) -> None:
            ended.put(result)  # type: ignore[arg-type]  # it is one of ours
            news.tell()

        for result in self._results:
            # The plain method: those of our results call back on a thread that may be kept waiting.
            Future.add_done_callback(result, end)
        for _ in self._results:
            async with asyncio.timeout_at(deadline):
                await news.wait_for(lambda: not ended.empty())
            yield ended.get()


def as_completed(results: Iterable[F], timeout: float | None = None) -> Completed[F]:
    """Results in the order in which they come, each once; to be iterated over with ``for`` or ``async for``.

    Args:
        results: any futures of ``concurrent.futures``, such as :class:`AsyncResult`; for the parts of one that comes
            from several engines, ``result.split()``.
        timeout: seconds from the beginning of the iteration; ``TimeoutError`` when one is late.

    Example:
        >>> async for result in nsactors.as_completed([lview.apply_async(pow, 2, n) for n in range(3)]):
        ...     print(result.get())
    """
    return Completed(results, timeout)
