"""The result of a map: the pieces that engines return, as one sequence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from nsactors.core.partition import Block, Partitioner
from nsactors.results.async_result import AsyncResult
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
    ) -> None:
        self._partitioner = partitioner
        self._ordered = ordered
        super().__init__(owner, calls, label=label, return_exceptions=return_exceptions)

    def _value(self, values: list[Any]) -> Any:
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

    def _as_they_come(self) -> Iterator[Any]:
        settled: SimpleQueue[Call] = SimpleQueue()
        for call in self._calls:
            call.when_settled(settled.put)
        for _ in self._calls:
            part = self._one(next_settled(settled, self._calls, self._owner))
            yield from [part] if isinstance(part, Exception) else part


def next_settled(settled: SimpleQueue[Call], calls: Sequence[Call], owner: CallOwner) -> Call:
    """Wait for a call to be put into ``settled``; Ctrl-C meanwhile stops ``calls``."""
    arrived: list[Call] = []

    def wait(timeout_s: float | None) -> bool:
        with contextlib.suppress(Empty):
            arrived.append(settled.get(timeout=timeout_s))
        return bool(arrived)

    wait_or_interrupt(wait, calls, owner, None)
    return arrived[0]
