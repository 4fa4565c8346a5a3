"""A view as a place to map functions over sequences and streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from nsactors.core.messages import Apply
from nsactors.core.partition import Block
from nsactors.core.remote_value import RemoteValue
from nsactors.core.wire import INLINE_LIMIT_BYTES
from nsactors.results import AsyncMapResult, Call
from nsactors.views.data import DataView
from nsactors.views.lazy_map import lazy_map
from nsactors.views.map_chunk import CallChunk, MapChunk
from nsactors.views.mapping import MapPart, name_of, of_equal_length, partitioner_for, work_for

__all__ = ["MapView"]


class MapView(DataView):
    """The built-in ``map``, spread over engines: all of it at once, or as results are taken."""

    def map(
        self,
        function: Callable[..., Any],
        *sequences: Iterable[Any],
        block: bool | None = None,
        dist: str = "b",
        ordered: bool = True,
        return_exceptions: bool = False,
        label: str | None = None,
    ) -> Any:
        """``list(map(function, *sequences))``, one part of the sequences per engine. Stops at the shortest.

        Args:
            function: called with one item of each sequence.
            sequences: at least one; ranges and arrays are split without being unrolled.
            block: wait for the list.
            dist: ``"b"`` for contiguous parts, ``"r"`` to deal items out in turn.
            ordered: whether iterating over the result gives the items in order, or as they come.
            return_exceptions: put exceptions into the list in place of the items they prevented.
            label: in place of ``map(function)`` in the history.

        Raises:
            TypeError: without sequences.
            SerializationError: if function or items cannot be pickled; nothing has been sent then.
        """
        if not sequences:
            raise TypeError("map() needs at least one sequence")
        label = label or self._flags.label or f"map({name_of(function)})"
        return self._map_parts(
            MapPart(self._stored_if_large(function, label), return_exceptions),
            sequences,
            label,
            block=block,
            dist=dist,
            ordered=ordered,
            in_pieces=dist == "b",
            return_exceptions=return_exceptions,
        )

    def imap(
        self,
        function: Callable[..., Any],
        *iterables: Iterable[Any],
        ordered: bool = True,
        chunksize: int | None = None,
        max_outstanding: int | None = None,
        return_exceptions: bool = False,
        label: str | None = None,
    ) -> Iterator[Any]:
        """``map(function, *iterables)``, a few chunks ahead of who takes the results; the input may never end.

        It begins at once. Input is pulled, in the caller's thread, only as results are taken. If the view's targets are
        ``"all"``, engines that join meanwhile get their share. Closing the iterator, or
        leaving the loop over it, takes back what has not begun.

        Args:
            function: called with one item of each iterable.
            iterables: at least one; it stops at the shortest.
            ordered: give results in the order of the items, or as they come.
            chunksize: items sent together; the default is what can be pulled and computed in about 20 ms.
            max_outstanding: chunks that are pulled and not yet given out, at most; the default is four an engine.
            return_exceptions: give exceptions in place of the results they prevented. Without, the first one is
                raised, after the results of what came before it, and ends the iterator.
            label: in place of ``map(function)`` in the history.

        Raises:
            TypeError: without iterables.
            ValueError: if a number is less than 1.
            SerializationError: if function or items cannot be pickled; at the call if nothing has been sent.
        """
        label = label or self._flags.label or f"map({name_of(function)})"
        part = MapPart(self._stored_if_large(function, label), return_exceptions)

        engine_ids = self._engines_for_chunks()

        def send(columns: tuple[Sequence[Any], ...], on_their_way: Sequence[Call]) -> CallChunk:
            busy = Counter(call.engine_id for call in on_their_way)
            engine_id = min(engine_ids(), key=busy.__getitem__)
            payload = self._pack((MapChunk(part, engine_id, label), columns, {}), f"the call of {label}")
            (call,) = self._send([engine_id], Apply(label, self._flags.copy), payload)
            return CallChunk(call, len(columns[0]))

        return lazy_map(
            self.client.session,
            send,
            lambda: len(engine_ids()),
            iterables,
            ordered=ordered,
            chunksize=chunksize,
            max_outstanding=max_outstanding,
            return_exceptions=return_exceptions,
        )

    def _engines_for_chunks(self) -> Callable[[], list[int]]:
        """Those of the view that are there when a chunk is to go: newcomers get their share, and who leaves no more."""
        first = self._resolve(None)
        if self.targets == "all":
            return lambda: self._resolve(None)

        def those_left() -> list[int]:
            ids = set(self.client.ids)
            return [engine_id for engine_id in first if engine_id in ids] or first  # if none is, a call says so

        return those_left

    def call_on_parts(self, function: Callable[..., Any], sequences: Sequence[Any], *, dist: str = "b") -> Any:
        """Call ``function`` once per engine with the engine's parts of ``sequences``; the results are joined."""
        label = self._flags.label or f"parallel({name_of(function)})"
        return self._map_parts(self._stored_if_large(function, label), sequences, label, dist=dist)

    def _stored_if_large(self, function: Callable[..., Any], label: str) -> Any:
        """The function, or a reference to it in place of one that carries much: it is needed for every part."""
        payload = self._pack(function, f"the call of {label}")
        if payload.nbytes <= INLINE_LIMIT_BYTES:
            return function
        self._warn_of_data(payload, function)
        stored = self.client.session.transport.keep(payload)
        return RemoteValue(stored, name_of(function), None, label, type(function).__name__, payload.nbytes)

    def _map_parts(
        self,
        function: Callable[..., Any],
        sequences: Sequence[Any],
        label: str,
        *,
        block: bool | None = None,
        dist: str = "b",
        ordered: bool = True,
        in_pieces: bool = False,
        return_exceptions: bool = False,
    ) -> Any:
        partitioner = partitioner_for(dist)
        work = work_for(self._resolve(None), of_equal_length(sequences), partitioner, in_pieces=in_pieces)
        payloads = [self._pack((function, piece.parts, {}), f"the call of {label}") for piece in work]
        session = self.client.session
        calls: list[Call | None] = [None] * len(work)
        # Every engine gets its first piece before any gets its second.
        for index in sorted(range(len(work)), key=lambda index: work[index].turn):
            (calls[index],) = self._send([work[index].engine_id], Apply(label, self._flags.copy), payloads[index])
        made = [call for call in calls if call is not None]
        result = AsyncMapResult(
            session,
            made,
            label=label,
            partitioner=partitioner,
            ordered=ordered,
            return_exceptions=return_exceptions,
            lengths=[len(piece.parts[0]) for piece in work] if isinstance(partitioner, Block) else None,
        )
        return self._finish(result, block)
