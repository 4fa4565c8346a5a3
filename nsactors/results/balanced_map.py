"""The result of a load-balanced map: its items as they come, from whichever engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from nsactors.core.partition import Block, Partitioner
from nsactors.results.asynchronous import News
from nsactors.results.call import Call, CallOwner
from nsactors.results.map_result import AsyncMapResult
from nsactors.results.task_calls import MapCall, MapPiece
from nsactors.results.waiting import wait_or_interrupt

__all__ = ["BalancedMapResult"]


class BalancedMapResult(AsyncMapResult):
    """An :class:`AsyncMapResult` whose parts are made as engines take them.

    It counts in items. What is known of calls (``metadata``, ``engine_id``, ``stdout`` ...) is a list with one entry
    for each part that has come back, in the order of the items.

    Args:
        owner: who made the call.
        call: the map.
        label: what people call it, e.g. ``map(f)``.
        ordered: whether iterating gives the items in order, or as they come.
        return_exceptions: put exceptions into the sequence in place of the items they prevented.
        partitioner: joins the values, which are parts of a sequence; None: they are its items.
    """

    def __init__(
        self,
        owner: CallOwner,
        call: MapCall,
        *,
        label: str,
        ordered: bool = True,
        return_exceptions: bool = False,
        partitioner: Partitioner | None = None,
    ) -> None:
        self._map = call
        self._holds_parts = partitioner is not None
        super().__init__(
            owner,
            [call],
            label=label,
            partitioner=partitioner or Block(),
            ordered=ordered,
            return_exceptions=return_exceptions,
        )
        call.when_piece_arrives(self._piece_arrived)

    @property
    def calls(self) -> list[Call]:
        """The parts that have come back, in the order of their items."""
        return [*sorted(self._map.pieces, key=lambda piece: piece.start)]

    @property
    def progress(self) -> int:
        """How many items have come back."""
        return self._map.size - self._map.left

    def __len__(self) -> int:
        return self._map.size

    def _iterate(self) -> Iterator[Any]:
        for step in self._steps():
            if isinstance(step, MapPiece):
                yield from self._values_of(step)
            else:
                self._wait_for_pieces(step)

    async def _iterate_async(self) -> AsyncIterator[Any]:
        news = News()
        self._map.when_piece_arrives(news.tell)
        self._map.when_settled(news.tell)
        for step in self._steps():
            if isinstance(step, MapPiece):
                for value in self._values_of(step):
                    yield value
            else:
                await news.wait_for(lambda: self._has_more_than(step))  # noqa: B023 (it is awaited at once)
                self._wait_for_pieces(step)

    def _combined(self, errors: list[Exception]) -> Exception:
        return errors[0]

    def _value(self, values: list[Any]) -> Any:
        items = self._map.values if self._map.error is not None else values[0]
        return self._partitioner.join(items) if self._holds_parts else items

    def _steps(self) -> Iterator[MapPiece | int]:
        """The pieces as they are to be given out; where the next is not there yet, how many there are."""
        there: dict[int, MapPiece] = {}
        seen = items = 0
        while items < self._map.size:
            fresh = self._map.pieces[seen:]
            seen += len(fresh)
            there.update((piece.start, piece) for piece in fresh)
            given = items
            while piece := there.pop(items if self._ordered else next(iter(there), -1), None):
                items = piece.stop if self._ordered else items + piece.stop - piece.start
                yield piece
            if not fresh and items == given:
                yield seen

    def _values_of(self, piece: MapPiece) -> Iterable[Any]:
        if piece.error is not None and not self._return_exceptions:
            # When it has ended, which may be later: failures are noted then.
            self._map.when_settled(lambda call: self._owner.asked([call]))
            raise piece.error
        return piece.values

    def _wait_for_pieces(self, seen: int) -> None:
        def wait(timeout_s: float | None) -> bool:
            with self._condition:
                self._parts_awaited = True
                return self._condition.wait_for(lambda: self._has_more_than(seen), timeout_s)

        if not wait_or_interrupt(wait, self._calls, self._owner, self._seconds_left()):
            raise TimeoutError(f"{self._label} is not done in time: {self.progress} of {len(self)} items are there")
        if len(self._map.pieces) <= seen and self._map.error is not None:
            raise self._map.error  # it has ended for a reason that is no item's: the client was closed

    def _has_more_than(self, seen: int) -> bool:
        return len(self._map.pieces) > seen or self._map.done

    def _seconds_left(self) -> float | None:
        """How long to wait for the next items; None: as long as it takes."""
        return None

    def _piece_arrived(self, piece: MapPiece) -> None:
        if self._parts_awaited or piece.error is not None:
            self.notify()
