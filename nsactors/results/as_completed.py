"""Results in the order in which they end, for threads and for coroutines."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from nsactors.protocol import arguments as arg

F = TypeVar("F", bound="Future[Any]")


class AsyncNotifier:
    """Wakes a coroutine from other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = asyncio.Event()

    def tell(self, cause: object = None) -> None:
        """Let the coroutine check its condition again; may be called on any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed, and its coroutines have ended
            self._loop.call_soon_threadsafe(self._told.set)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when ``condition()`` holds; the condition is checked again after each :meth:`tell`."""
        while not condition():
            await self._told.wait()
            self._told.clear()


class Completed(Generic[F]):
    """Results, each as soon as it has ended: for ``for`` and ``async for``; see :func:`as_completed`."""

    def __init__(self, results: Iterable[F], timeout: float | None) -> None:
        self._results = set(results)
        self._timeout = timeout

    def __iter__(self) -> Iterator[F]:
        results = concurrent.futures.as_completed(self._results, self._timeout)
        return results  # type: ignore[return-value]  # it yields the very objects that it was given

    async def __aiter__(self) -> AsyncIterator[F]:
        deadline = None if self._timeout is None else asyncio.get_running_loop().time() + self._timeout
        notifier, ended = AsyncNotifier(), SimpleQueue[F]()

        def end(result: Future[Any]) -> None:
            ended.put(result)  # type: ignore[arg-type]  # it is one of ours
            notifier.tell()

        for result in self._results:
            # Use the method of Future itself, because the method of AsyncResult calls back on a thread that another
            # callback may block.
            Future.add_done_callback(result, end)
        for _ in self._results:
            async with asyncio.timeout_at(deadline):
                await notifier.wait_for(lambda: not ended.empty())
            yield ended.get()


def as_completed(results: Iterable[F], timeout: float | None = None) -> Completed[F]:
    """Return results in the order in which they end, each once, to iterate over with ``for`` or ``async for``.

    Args:
        results: any futures of ``concurrent.futures``, such as :class:`AsyncResult`; for the parts of a result of
            several engines, pass ``result.split()``.
        timeout: seconds from the beginning of the iteration; a result that is late raises ``TimeoutError``.

    Example:
        >>> async for result in nsactors.as_completed([lview.apply_async(pow, 2, n) for n in range(3)]):
        ...     print(result.get())
    """
    arg.check("as_completed", results=arg.iterable(results, "results"), timeout=arg.seconds(timeout))
    some = set(results)
    for result in some:
        arg.check("as_completed", results=arg.instance(result, Future, "results"))
    return Completed(some, arg.plain(timeout))
