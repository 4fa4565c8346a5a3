"""The chunks of a balanced map, each of which is a request in ipyparallel.

nsactors sends a map as one task, whose items travel in *pieces*: runs of items as long as their measured times suggest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from nsactors.ipyparallel.client.metadata import Metadata

__all__ = ["ChunkIds", "ChunkTable", "Piece", "call_on_items", "chunk_of", "task_id_of"]

# The text between the id of a map and the number of a chunk's first item; see split() of balanced maps in nsactors.
_ITEMS = "/items:"


class ChunkIds(Sequence[str]):
    """The ids of the chunks of a map, each made when it is asked for: a map may have millions.

    Args:
        map_id: the id of the map.
        length: the number of items of the map.
        size: the number of items of a chunk.
    """

    def __init__(self, map_id: str, length: int, size: int) -> None:
        self._map_id = map_id
        self._starts = range(0, length, size)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: Any) -> Any:
        """Return an id, or for a slice the list of its ids."""
        if isinstance(index, slice):
            return [self._id(start) for start in self._starts[index]]
        return self._id(self._starts[index])

    def number_of(self, msg_id: str) -> int:
        """Return the number of the chunk with an id.

        Raises:
            KeyError: if there is no such chunk.
        """
        map_id, _, start = msg_id.partition(_ITEMS)
        if map_id != self._map_id or not (start.isascii() and start.isdigit()) or int(start) not in self._starts:
            raise KeyError(msg_id)
        return self._starts.index(int(start))

    def _id(self, start: int) -> str:
        return f"{self._map_id}{_ITEMS}{start}"


def task_id_of(msg_id: str) -> str:
    """Return the id of a task from the id of a request: the same id, or for a chunk the id of its balanced map."""
    return msg_id.partition(_ITEMS)[0]


def chunk_of(msg_id: str, sequences: Sequence[Any], size: int) -> list[Any]:
    """Return the items of a chunk of each sequence of a map.

    Raises:
        KeyError: if a sequence cannot be sliced.
    """
    start = int(msg_id.partition(_ITEMS)[2] or 0)
    if not all(isinstance(each, Sequence) or hasattr(each, "shape") for each in sequences):
        raise KeyError(msg_id)
    return [each[start : start + size] for each in sequences]


def call_on_items(function: Callable[..., Any], *columns: Iterable[Any]) -> list[Any]:
    """Call ``function`` once for each item; engines run this to repeat a chunk."""
    return [function(*items) for items in zip(*columns, strict=False)]


class Piece(NamedTuple):
    """The metadata of items that have ended, from ``start`` to before ``stop``."""

    start: int
    stop: int
    metadata: Metadata


class ChunkTable(Sequence[Metadata]):
    """The metadata of the chunks of a map.

    Args:
        ids: the ids of the chunks.
        length: the number of items of the map.
        size: the number of items of a chunk.
        pieces: the pieces that have arrived, in order.
        pending: the metadata of a chunk that has not ended, without its id.
    """

    def __init__(
        self, ids: Sequence[str], length: int, size: int, pieces: Sequence[Piece], pending: Mapping[str, Any]
    ) -> None:
        self._ids = ids
        self._length = length
        self._size = size
        self._pieces = pieces
        self._starts = [piece.start for piece in pieces]
        self._pending = pending

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        start, stop, pieces = self._covering(range(len(self))[index])
        made = Metadata(self._pending, msg_id=self._ids[index])
        if sum(min(piece.stop, stop) - max(piece.start, start) for piece in pieces) < stop - start:
            return made
        found = [piece.metadata for piece in pieces]
        failed = next((each for each in found if each["error"] is not None), found[-1])
        made.update({key: failed[key] for key in ("engine_id", "engine_uuid", "status", "error")})
        for key, choose in (("started", min), ("completed", max), ("received", max)):
            made[key] = choose((each[key] for each in found if each[key] is not None), default=None)
        # The output of short items that travelled together belongs to the chunk of the first of them.
        own = [piece.metadata for piece in pieces if piece.start >= start]
        made["stdout"], made["stderr"] = "".join(e["stdout"] for e in own), "".join(e["stderr"] for e in own)
        made["outputs"] = [each for metadata in own for each in metadata["outputs"]]
        made["data"] = {name: value for metadata in own for name, value in metadata["data"].items()}
        return made

    def shortened(self, limit: int, last: int) -> ChunkTable:
        """Return this table with less of its pieces; displays and data are dropped.

        Args:
            limit: the number of characters that are kept of each piece's output.
            last: how many chunks, from the end, keep their pieces.
        """
        pieces = []
        first = max(len(self) - last, 0) * self._size
        for start, stop, known in self._pieces:
            if stop <= first:
                continue
            text = {key: known[key][:limit] for key in ("stdout", "stderr")}
            pieces.append(Piece(start, stop, Metadata({**known, **text, "outputs": [], "data": {}})))
        return ChunkTable(self._ids, self._length, self._size, pieces, self._pending)

    def pending_ids(self) -> set[str]:
        """Return the ids of the chunks that have not ended."""
        pending: set[str] = set()
        ended = 0  # the items from 0 to `ended` have ended, or are in the set
        for piece in [*self._pieces, Piece(self._length, self._length, Metadata())]:
            if piece.start > ended:
                pending.update(self._ids[ended // self._size : (piece.start - 1) // self._size + 1])
            ended = piece.stop
        return pending

    def _covering(self, index: int) -> tuple[int, int, list[Piece]]:
        """Return the bounds of a chunk, and the pieces that have items of it."""
        start, stop = index * self._size, min((index + 1) * self._size, self._length)
        number = max(bisect_right(self._starts, start) - 1, 0)
        found = []
        while number < len(self._pieces) and self._pieces[number].start < stop:
            if self._pieces[number].stop > start:
                found.append(self._pieces[number])
            number += 1
        return start, stop, found
