"""Results of maps, ordered by input."""

from __future__ import annotations

import contextlib
import itertools
import operator
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from nsactors.errors import WrongValue
from nsactors.protocol import arguments as arg
from nsactors.protocol.messages import RequestId
from nsactors.protocol.partition import Block, Distribution, items_of
from nsactors.results.as_completed import AsyncNotifier
from nsactors.results.async_result import AsyncResult, outcome_of
from nsactors.results.call import NOWHERE, Call, CallController, MapCall, MapPiece, OutputGoes
from nsactors.results.display.live import AwaitedOutput
from nsactors.results.interrupting import wait_or_interrupt

_PART = re.compile(r"(?P<map>.+:\d+)/items:\d+", re.DOTALL)  # the message id of a part: see _new_part()


class AsyncMapResult(AsyncResult):
    """Like :class:`AsyncResult`, with one value: the sequence that the parts of the engines make together.

    Args:
        owner: the part of the client that made the calls.
        calls: one per part, in the order of the parts.
        label: the name of the map, e.g. ``map(f)``.
        partitioner: joins the parts.
        ordered: whether iteration yields the items in order; otherwise, it yields each part when it arrives.
        return_exceptions: put exceptions into the sequence in place of the items they prevented.
        lengths: the lengths of contiguous parts that are lists, if they are known. Each part is then put into its place
            when it arrives, while other engines still compute.
        seed: see :attr:`seed`.

    Attributes:
        seed: the ``SeedSequence`` that gives the same random numbers again in ``map(..., seed=)``; None without a seed.
    """

    def __init__(
        self,
        owner: CallController,
        calls: Sequence[Call],
        *,
        label: str,
        partitioner: Distribution,
        ordered: bool = True,
        return_exceptions: bool = False,
        lengths: Sequence[int] | None = None,
        seed: Any = None,
    ) -> None:
        self.seed = seed
        self._partitioner = partitioner
        self._ordered = ordered
        self._assembly = None if lengths is None or len(calls) < 2 else _Assembly(calls, lengths)
        super().__init__(owner, calls, label=label, return_exceptions=return_exceptions)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show a table of the parts at IPython's prompt; if there are many, only the first and the last."""
        from nsactors.results.display.tables import show_pretty

        show_pretty(printer, self.__rich__())

    def split(self, size: int | None = None) -> tuple[AsyncResult, ...]:
        """Return one result for each engine, or for a load-balanced map one result for every ``size`` items.

        The value of such a part is a list of its items. Its message id is that of the map with ``/items:START``. Its
        metadata describes its own items, but the output of short items that travelled together belongs to the part of
        the first of them. Output is shown by a wait for the map, and items can be cancelled only with the whole map.

        Args:
            size: the number of items of each part of a load-balanced map; the last part may be shorter.

        Example:
            >>> for part in as_completed(lview.map_async(simulate, range(1000)).split(100)):
            ...     save(part.get())

        Raises:
            InvalidArgument: if ``size`` is given for a map that is not load-balanced, which has one part for each
                engine.
        """
        if size is not None:
            raise WrongValue("split", "size", size, "None, for this map was cut into one part for each engine")
        return super().split()

    def get_dict(self, timeout: float | None = None) -> dict[int, Any]:
        """Wait like :meth:`get` and return the items by engine id; ValueError unless each engine has one item."""
        arg.check("get_dict", timeout=arg.seconds(timeout, negative=True))
        self.get(timeout)
        found: list[tuple[int, Any]] = []
        for call in self.calls:
            items = items_of(_part_of(call, outcome_of(call)))
            found += [(call.engine_id, item) for item in (() if items is None else items)]
        if not len(dict(found)) == len(found) == len(self.calls):
            raise ValueError(f"{self._label} has items, not one value for each engine: get() returns them in order")
        return dict(found)

    def _one_settled(self, call: Call | None = None) -> None:
        assembly = self._assembly  # read once: parts may end on several threads
        if call is not None and assembly is not None and not assembly.place(call):
            self._assembly = None
        super()._one_settled(call)

    def _value(self, values: list[Any]) -> Any:
        if self._assembly is not None and self.settled:
            return self._assembly.items
        return self._partitioner.join([_part_of(call, value) for call, value in zip(self._calls, values, strict=True)])

    def _iterate(self) -> Iterator[Any]:
        if self._ordered and not isinstance(self._partitioner, Block):
            return iter(self.get())  # only contiguous parts can be yielded before all have arrived
        return self._items_of(self._calls if self._ordered else self._as_settled())

    def _items_of(self, calls: Iterable[Call]) -> Iterator[Any]:
        for call in calls:
            items = items_of(_part_of(call, self._one(call)))
            if items is None:
                yield from self.get()
                return
            yield from items

    def _as_settled(self) -> Iterator[Call]:
        settled: SimpleQueue[Call] = SimpleQueue()
        for call in self._calls:
            call.when_settled(settled.put)
        for _ in self._calls:
            yield next_settled(settled, self._calls, self._owner, self._output, keeps_errors=self._return_exceptions)

    async def _iterate_async(self) -> AsyncIterator[Any]:
        if self._ordered and not isinstance(self._partitioner, Block):
            for value in await self:
                yield value
            return
        notifier, settled = AsyncNotifier(), SimpleQueue[Call]()

        def settle(call: Call) -> None:
            settled.put(call)
            notifier.tell()

        for call in self._calls:
            call.when_settled(settle)
        for call in self._calls:
            if self._ordered:
                await notifier.wait_for(lambda: call.done)  # noqa: B023 (it is awaited at once)
            else:
                await notifier.wait_for(lambda: not settled.empty())
            ended = call if self._ordered else settled.get()
            items = items_of(_part_of(ended, self._one(ended)))
            for value in self.get() if items is None else items:
                yield value
            if items is None:
                return


class _Assembly:
    """A list whose parts come in any order."""

    def __init__(self, calls: Sequence[Call], lengths: Sequence[int]) -> None:
        ends = list(itertools.accumulate(lengths, initial=0))
        self._places = dict(zip((call.request_id for call in calls), itertools.pairwise(ends), strict=True))
        self.items: list[Any] = [None] * ends[-1]

    def place(self, call: Call) -> bool:
        """Put a call's part into its place; return False if it is not a list of the expected length."""
        start, stop = self._places[call.request_id]
        if call.error is not None or type(call.value) is not list or len(call.value) != stop - start:
            return False
        self.items[start:stop] = call.value
        return True


def _part_of(call: Call, value: Any) -> Any:
    """Return the items of a call. If it failed, its error stands for each item, or once if their number is unknown."""
    if not isinstance(value, Exception):
        return value
    return [value] * (1 if call.items is None else len(call.items.numbers))


def next_settled(
    settled: SimpleQueue[Call],
    calls: Sequence[Call],
    owner: CallController,
    output: AwaitedOutput | None = None,
    *,
    keeps_errors: bool = False,
) -> Call:
    """Wait for the next call from ``settled`` and return it; Ctrl-C is handled as in :func:`wait_or_interrupt`."""
    arrived: list[Call] = []

    def wait(timeout_s: float | None) -> bool:
        if settled.empty():
            owner.check_process()
        with contextlib.suppress(Empty):
            arrived.append(settled.get(timeout=timeout_s))
        return bool(arrived)

    wait_or_interrupt(wait, calls, owner, None, keeps_errors=keeps_errors, output=output)
    return arrived[0]


class BalancedMapResult(AsyncMapResult):
    """An :class:`AsyncMapResult` whose parts are cut when engines take them.

    Its length and progress count items. The metadata of its calls (``metadata``, ``engine_id``, ``stdout`` ...) are
    lists with one entry for each part that has arrived, in the order of the items.

    Args:
        owner: the task scheduler of the map.
        call: the map.
        label: the name of the map, e.g. ``map(f)``.
        ordered: whether iteration yields the items in order; otherwise, it yields them when they arrive.
        return_exceptions: put exceptions into the sequence in place of the items they prevented.
        partitioner: joins the values if they are parts of a sequence; None if they are its items.
        seed: see :class:`AsyncMapResult`.
    """

    def __init__(
        self,
        owner: CallController,
        call: MapCall,
        *,
        label: str,
        ordered: bool = True,
        return_exceptions: bool = False,
        partitioner: Distribution | None = None,
        seed: Any = None,
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
            seed=seed,
        )
        call.when_piece_arrives(self._piece_arrived)

    def _pieces(self) -> PieceReader:
        return PieceReader(
            self._owner, self._map, self._output, ordered=self._ordered, return_exceptions=self._return_exceptions
        )

    @property
    def calls(self) -> list[Call]:
        """The parts that have arrived, in the order of their items."""
        return [*sorted(self._map.pieces, key=lambda piece: piece.start)]

    @property
    def map_call(self) -> MapCall:
        """The call for the whole map; ``calls`` are its parts."""
        return self._map

    @property
    def progress(self) -> int:
        """The number of items that have ended."""
        return self._map.size - self._map.left

    def split(self, size: int | None = None) -> tuple[AsyncResult, ...]:
        """See :class:`AsyncMapResult`."""
        arg.check("split", size=arg.whole(size, at_least=1, or_none=True))
        return super().split() if size is None else _split(self._owner, self._map, size, self._return_exceptions)

    def __len__(self) -> int:
        return self._map.size

    def _iterate(self) -> Iterator[Any]:
        for values in self._pieces():
            yield from values

    async def _iterate_async(self) -> AsyncIterator[Any]:
        async for values in self._pieces():
            for value in values:
                yield value

    def _combined(self, errors: list[Exception]) -> Exception:
        return errors[0]

    def _value(self, values: list[Any]) -> Any:
        items = self._map.values if self._map.error is not None else values[0]
        return self._partitioner.join(items) if self._holds_parts else items

    def _piece_arrived(self, piece: MapPiece) -> None:
        if piece.error is not None:
            self.notify()


class PieceReader:
    """Reads the values of a map piece by piece as they arrive, with ``for`` or ``async for``; errors are raised.

    Args:
        owner: the task scheduler of the map.
        call: the map.
        output: shows the output of the map while this waits for its pieces.
        ordered: whether pieces are read in the order of their items; otherwise, they are read when they arrive.
        return_exceptions: read exceptions in place of the values they prevented.
        timeout_s: the time in which the last piece must arrive; None: as long as it takes.
    """

    def __init__(
        self,
        owner: CallController,
        call: MapCall,
        output: AwaitedOutput,
        *,
        ordered: bool = True,
        return_exceptions: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        self._owner = owner
        self._call = call
        self._output = output
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._arrived = threading.Condition()

    def __iter__(self) -> Iterator[list[Any]]:
        with self._listening(self._wake):
            for step in self._steps():
                if isinstance(step, MapPiece):
                    yield self._values_of(step)
                else:
                    self._wait(step)

    async def __aiter__(self) -> AsyncIterator[list[Any]]:
        notifier = AsyncNotifier()
        with self._listening(notifier.tell):
            for step in self._steps():
                if isinstance(step, MapPiece):
                    yield self._values_of(step)
                else:
                    await notifier.wait_for(lambda: self._has_more_than(step))  # noqa: B023 (it is awaited at once)
                    self._wait(step)

    @contextlib.contextmanager
    def _listening(self, listener: Callable[[Call], None]) -> Iterator[None]:
        """Call ``listener`` with each piece that arrives within the block, and at the end of the map."""
        self._call.when_piece_arrives(listener)
        self._call.when_settled(listener)
        try:
            yield
        finally:
            self._call.remove_listener(listener)

    def _steps(self) -> Iterator[MapPiece | int]:
        """Yield the pieces in the order of reading; until the next has arrived, yield the number of pieces so far."""
        there: dict[int, MapPiece] = {}
        seen = items = 0
        while items < self._call.size:
            fresh = self._call.pieces[seen:]
            seen += len(fresh)
            there.update((piece.start, piece) for piece in fresh)
            given = items
            while piece := there.pop(items if self._ordered else next(iter(there), -1), None):
                items = piece.stop if self._ordered else items + piece.stop - piece.start
                yield piece
            if not fresh and items == given:
                yield seen

    def _values_of(self, piece: MapPiece) -> list[Any]:
        if piece.error is not None and not self._return_exceptions:
            # Mark the errors when the call has ended, which may be later, because they count as unretrieved only then.
            self._call.when_settled(lambda call: self._owner.mark_retrieved([call]))
            raise piece.error
        return piece.values

    def _wait(self, seen: int) -> None:
        def wait(timeout_s: float | None) -> bool:
            if not self._has_more_than(seen):
                self._owner.check_process()
            with self._arrived:
                return self._arrived.wait_for(lambda: self._has_more_than(seen), timeout_s)

        call = self._call
        left_s = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        keeps_errors = self._return_exceptions
        if not wait_or_interrupt(wait, [call], self._owner, left_s, keeps_errors=keeps_errors, output=self._output):
            ended = call.size - call.left
            raise TimeoutError(f"{call.label} is not done in time: {ended} of {call.size} items have arrived")
        if len(call.pieces) <= seen and call.error is not None:
            raise call.error  # the client was closed, and the map ended without its pieces

    def _has_more_than(self, seen: int) -> bool:
        return len(self._call.pieces) > seen or self._call.done

    def _wake(self, cause: Call) -> None:
        with self._arrived:
            self._arrived.notify_all()


@dataclass(slots=True, eq=False)
class _MapPart(Call):
    """Consecutive items of a map, from ``start`` to before ``stop``; settled when they have ended."""

    start: int = 0
    stop: int = 0
    pieces: list[MapPiece] = field(default_factory=list)  # in the order of arrival
    missing: int = 0

    def add(self, piece: MapPiece) -> bool:
        """Take the items of a piece that belong to this part; return whether all items of the part have arrived."""
        self.pieces.append(piece)
        self.missing -= min(piece.stop, self.stop) - max(piece.start, self.start)
        return self.missing == 0

    def finish(self, *, keeps_errors: bool) -> None:
        """End with the items that have arrived.

        Args:
            keeps_errors: put errors into the value in place of items, instead of failing with the first error.
        """
        self.pieces.sort(key=operator.attrgetter("start"))
        self.engine_id = self.pieces[-1].engine_id
        self.started = min((some.started for some in self.pieces if some.started is not None), default=None)
        self.completed = max((some.completed for some in self.pieces if some.completed is not None), default=None)
        for some in self.pieces:
            if some.start >= self.start:  # otherwise its output belongs to the previous part
                self.output.chunks.extend(some.output.chunks)
        error = next((some.error for some in self.pieces if some.error is not None), None)
        values = [value for some in self.pieces for value in self._own(some)]
        self.pieces.clear()
        if error is not None and not keeps_errors:
            self.settle(None, error)
        else:
            self.settle(values, None)

    def _own(self, piece: MapPiece) -> list[Any]:
        return piece.values[max(self.start - piece.start, 0) : self.stop - piece.start]


def _split(owner: CallController, call: MapCall, size: int, keeps_errors: bool) -> tuple[AsyncResult, ...]:
    """Return the results of parts of a map; see ``AsyncMapResult.split``."""
    parts = [_new_part(call, start, min(start + size, call.size)) for start in range(0, call.size, size)]
    taken: set[int] = set()
    lock = threading.Lock()

    def take(piece: MapPiece) -> None:
        with lock:
            if piece.start in taken:  # it arrived while earlier pieces were taken
                return
            taken.add(piece.start)
            ended = [part for part in parts[piece.start // size : (piece.stop - 1) // size + 1] if part.add(piece)]
        for part in ended:  # outside the lock: this calls the user's functions
            part.finish(keeps_errors=keeps_errors)

    def end(ended: Call) -> None:
        with lock:
            left = [part for part in parts if part.missing]  # another thread may be about to finish the other parts
        for part in left:
            part.settle(None, ended.error)  # the client was closed, and the map ended without all pieces

    call.when_piece_arrives(take)
    for piece in list(call.pieces):
        take(piece)
    call.when_settled(end)
    controller = _PartController(owner, call, parts)
    return tuple(_MapPartResult(controller, [part], label=part.label, single=True) for part in parts)


def map_of_part(msg_id: str) -> str | None:
    """Return the message id of the map to which the part with this id belongs; None if it is not the id of a part."""
    found = _PART.fullmatch(msg_id)
    return None if found is None else found["map"]


def _new_part(call: MapCall, start: int, stop: int) -> _MapPart:
    return _MapPart(
        RequestId(f"{call.request_id}/items", start),
        NOWHERE,
        f"{call.label}[{start}:{stop}]",
        False,
        call.copies,
        submitted=call.submitted,
        output_goes=OutputGoes.NOWHERE,  # the map shows it
        start=start,
        stop=stop,
        missing=stop - start,
    )


class _MapPartResult(AsyncResult):
    """The result of some items of a map; see ``AsyncMapResult.split``."""

    def cancel(self) -> bool:
        """Return False, because items are cancelled with the whole map."""
        return False


class _PartController:
    """The ``CallController`` of parts of a map, which passes everything on to the controller of the map.

    Args:
        owner: the controller of the map.
        call: the map.
        parts: all its parts.
    """

    def __init__(self, owner: CallController, call: MapCall, parts: Sequence[Call]) -> None:
        self._owner = owner
        self._map = call
        self._parts = parts
        self.check_process: Callable[[], None] = owner.check_process
        self.run_callback: Callable[[Callable[[], object]], None] = owner.run_callback
        self.restart: Callable[[Iterable[int]], None] = owner.restart

    @property
    def has_stops(self) -> bool:
        """See ``CallController``."""
        return self._owner.has_stops

    def debug_stops(self, settle: Callable[[], object]) -> None:
        """See ``CallController``."""
        self._owner.debug_stops(settle)

    def debug(self, calls: Iterable[Call]) -> None:
        """See ``CallController``. An engine keeps only its last failure in the whole map."""
        self._owner.debug(calls)

    @property
    def detached(self) -> bool:
        """See ``CallController``."""
        return self._owner.detached

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        """See ``CallController``.

        Raises:
            ValueError: if unfinished items of the map would remain, since items are cancelled only with the whole map.
        """
        chosen = set(map(id, calls))
        if any(not part.done and id(part) not in chosen for part in self._parts):
            raise ValueError(f"items are cancelled with the whole map: abort the result of {self._map.label}")
        self._owner.abort([self._map], interrupt=interrupt)

    def interrupt(self, calls: Iterable[Call]) -> bool:
        """Interrupt the whole map; see ``CallController``."""
        return self._owner.interrupt([self._map])

    def obstacles(self, calls: Iterable[Call]) -> Mapping[int, str]:
        """See ``CallController``."""
        return self._owner.obstacles([self._map])

    def mark_retrieved(self, calls: Iterable[Call]) -> None:
        """See ``CallController``. The errors of the whole map count as retrieved together with those of a part."""
        if any(call.error is not None for call in calls):
            self._map.when_settled(lambda ended: self._owner.mark_retrieved([ended]))
