"""The result of a map: the pieces that engines return, as one sequence."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from nsactors.core.partition import Block, Partitioner
from nsactors.results.async_result import AsyncResult
from nsactors.results.asynchronous import News
from nsactors.results.call import Call, CallOwner
from nsactors.results.waiting import wait_or_interrupt

__all__ = ["AsyncMapResult", "next_settled"]


class AsyncMapResult(AsyncResult):
    """Like :class:`AsyncResult`, with one value: the sequence that the engines' parts make up.

    Args:
        owner: who made the calls.
        calls: one per part, in the order of the parts.
        label: what people call it, e.g. ``map(f)``.
        partitioner: joins the parts.
        ordered: whether iterating gives the items in order, or part by part as they come.
        return_exceptions: put exceptions into the sequence in place of the parts they prevented.
        lengths: of contiguous parts that are lists, where they are known: each is put into its place as it comes, while
            engines still compute.
    """

    def __init__(
        self,
        owner: CallOwner,
        calls: Sequence[Call],
        *,
        label: str,
        partitioner: Partitioner,
        ordered: bool = True,
        return_exceptions: bool = False,
        lengths: Sequence[int] | None = None,
    ) -> None:
        self._partitioner = partitioner
        self._ordered = ordered
        self._assembly = None if lengths is None or len(calls) < 2 else _Assembly(calls, lengths)
        super().__init__(owner, calls, label=label, return_exceptions=return_exceptions)

    def _one_settled(self, call: Call | None = None) -> None:
        assembly = self._assembly  # read once: parts may end on several threads
        if call is not None and assembly is not None and not assembly.place(call):
            self._assembly = None
        super()._one_settled(call)

    def _value(self, values: list[Any]) -> Any:
        if self._assembly is not None and self.settled:
            return self._assembly.items
        return self._partitioner.join([[v] if isinstance(v, Exception) else v for v in values])

    def _iterate(self) -> Iterator[Any]:
        if not self._ordered:
            return self._as_they_come()
        # Only contiguous parts can be given out before all are there.
        return self._in_order() if isinstance(self._partitioner, Block) else iter(self.get())

    def _in_order(self) -> Iterator[Any]:
        for call in self._calls:
            part = self._one(call)
            yield from [part] if isinstance(part, Exception) else part

    async def _iterate_async(self) -> AsyncIterator[Any]:
        if self._ordered and not isinstance(self._partitioner, Block):
            for value in await self:
                yield value
            return
        news, settled = News(), SimpleQueue[Call]()

        def settle(call: Call) -> None:
            settled.put(call)
            news.tell()

        for call in self._calls:
            call.when_settled(settle)
        for call in self._calls:
            if self._ordered:
                await news.wait_for(lambda: call.done)  # noqa: B023 (it is awaited at once)
            else:
                await news.wait_for(lambda: not settled.empty())
            part = self._one(call if self._ordered else settled.get())
            for value in [part] if isinstance(part, Exception) else part:
                yield value

    def _as_they_come(self) -> Iterator[Any]:
        settled: SimpleQueue[Call] = SimpleQueue()
        for call in self._calls:
            call.when_settled(settled.put)
        for _ in self._calls:
            part = self._one(next_settled(settled, self._calls, self._owner))
            yield from [part] if isinstance(part, Exception) else part


class _Assembly:
    """A list whose parts come in any order."""

    def __init__(self, calls: Sequence[Call], lengths: Sequence[int]) -> None:
        ends = list(itertools.accumulate(lengths, initial=0))
        self._places = dict(zip((call.request_id for call in calls), itertools.pairwise(ends), strict=True))
        self.items: list[Any] = [None] * ends[-1]

    def place(self, call: Call) -> bool:
        """Put a call's part into its place; False if it is not what was expected."""
        start, stop = self._places[call.request_id]
        if call.error is not None or type(call.value) is not list or len(call.value) != stop - start:
            return False
        self.items[start:stop] = call.value
        return True


def next_settled(settled: SimpleQueue[Call], calls: Sequence[Call], owner: CallOwner) -> Call:
    """Wait for a call to be put into ``settled``; Ctrl-C meanwhile stops ``calls``."""
    arrived: list[Call] = []

    def wait(timeout_s: float | None) -> bool:
        with contextlib.suppress(Empty):
            arrived.append(settled.get(timeout=timeout_s))
        return bool(arrived)

    wait_or_interrupt(wait, calls, owner, None)
    return arrived[0]
