"""The output of one request: chunks in order, sent ahead of its reply or in the reply's tail.

The engine appends chunks to an `OutputLog`, the client puts them together in an `OutputAssembler`. Past a limit only
the end of the output is kept.
"""

from __future__ import annotations

from collections import deque

from nsactors.protocol.messages import Display, ExecuteResult, OutputBatch, OutputChunk, RequestId, StreamText

LIMIT_BYTES = 2_000_000  # the text of one request on one engine that is shown while the request writes it
DISPLAY_LIMIT_BYTES = 64_000_000
LINE_BYTES = 1_000  # lines up to this length are not cut
END_BYTES = 64_000  # the end of the text past the limit, which is shown with the reply
_PIECE_BYTES = END_BYTES // 16


class _Flood:
    """The text that a request writes past its limit. It is counted, and all but its end is dropped."""

    def __init__(self) -> None:
        self._end: deque[StreamText] = deque()
        self._end_bytes = 0
        self.left_out_bytes = 0

    def append(self, text: StreamText) -> None:
        end = text.text[-END_BYTES:]
        self.left_out_bytes += len(text.text) - len(end)
        # In pieces, since whole pieces are dropped: a line end, which `print` writes separately, removes one piece at
        # most.
        for at in range(0, len(end), _PIECE_BYTES):
            self._end.append(text._replace(text=end[at : at + _PIECE_BYTES]))
        self._end_bytes += len(end)
        while self._end_bytes > END_BYTES:
            dropped = len(self._end.popleft().text)
            self._end_bytes -= dropped
            self.left_out_bytes += dropped

    def drain(self, whole: str) -> list[StreamText]:
        """Return a notice about the dropped text, and the end; empty if there was no flood."""
        chunks: list[StreamText] = []
        if self.left_out_bytes:
            if self._end and (cut := self._end[0].text.find("\n") + 1):  # drop a line whose start is missing
                self._end[0] = self._end[0]._replace(text=self._end[0].text[cut:])
                self.left_out_bytes += cut
            where = (
                f"all of it is in {whole}" if whole else "an engine without a process of its own keeps no file of it"
            )
            notice = f"\n[nsactors: {self.left_out_bytes / 1e6:.1f} MB of output left out here; {where}]\n"
            chunks.append(StreamText("stderr", notice))
        chunks += self._end
        self._end.clear()
        self._end_bytes = self.left_out_bytes = 0
        return chunks


def size_bytes(chunk: OutputChunk) -> int:
    """Return the approximate size of a chunk."""
    match chunk:
        case StreamText(_, text):
            return len(text)
        case Display(data) | ExecuteResult(_, data):
            return sum(len(part) for part in data.values() if isinstance(part, str | bytes))
        case _:
            return 0


class OutputLog:
    """The output of a request in its engine: chunks written, sent and acknowledged.

    ``take`` returns the chunks that were not sent yet; ``acknowledge`` records that the client has a batch; ``tail``
    returns all other chunks, for the reply. A batch that was sent and not acknowledged is also in the tail, since the
    client drops duplicates by position.
    """

    def __init__(self, request: RequestId, engine_id: int, whole: str = "", *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.request = request
        self._engine_id = engine_id
        self._whole = whole
        self._room_bytes = limit_bytes
        self._display_room_bytes = DISPLAY_LIMIT_BYTES
        self._flood: _Flood | None = None
        self._chunks: list[OutputChunk] = []  # beginning with number _acknowledged
        self._acknowledged = 0
        self._taken = 0
        self._shown = 0
        self._delivered: list[OutputChunk] = []
        self._answered = False

    @property
    def has_untaken(self) -> bool:
        """True if there are chunks to send."""
        return self._taken < self._acknowledged + len(self._chunks)

    def append(self, chunk: OutputChunk) -> None:
        """Add a chunk; text of one stream is joined until it is sent. Past the limit only the end is kept."""
        size = size_bytes(chunk)
        if isinstance(chunk, StreamText):
            kept = chunk
            if size > self._room_bytes:
                start = chunk.text[: self._room_bytes]
                # Cut at a line end, unless that would drop much of a very long line.
                cut = start.rfind("\n") + 1
                kept = chunk._replace(text=start[:cut] if len(start) - cut < LINE_BYTES else start)
                self._room_bytes = 0
            else:
                self._room_bytes -= size
            self._append(kept)
            if size > len(kept.text):
                self._flooded().append(chunk._replace(text=chunk.text[len(kept.text) :]))
        elif size <= self._display_room_bytes:
            self._display_room_bytes -= size
            self._append(chunk)
        else:
            self._flooded().left_out_bytes += size

    def _append(self, chunk: OutputChunk) -> None:
        if isinstance(chunk, StreamText):
            if not chunk.text:
                return
            # A chunk that was sent or shown must not change: the client drops duplicates by position alone.
            grows = self._acknowledged + len(self._chunks) > max(self._taken, self._shown)
            last = self._chunks[-1] if grows else None
            if isinstance(last, StreamText) and last.name == chunk.name:
                self._chunks[-1] = StreamText(last.name, last.text + chunk.text)
                return
        self._chunks.append(chunk)

    def _flooded(self) -> _Flood:
        self._flood = self._flood or _Flood()
        return self._flood

    def take(self) -> OutputBatch:
        """Return the chunks that were not sent yet, to be sent ahead of the reply."""
        start, self._taken = self._taken, self._acknowledged + len(self._chunks)
        return OutputBatch(self.request, self._engine_id, start, tuple(self._chunks[start - self._acknowledged :]))

    def acknowledge(self, batch: OutputBatch) -> None:
        """Record that the client has this batch and all earlier batches."""
        upto = batch.start + len(batch.chunks)
        if upto > self._acknowledged:
            if not self._answered:
                self._delivered += self._chunks[: upto - self._acknowledged]
            del self._chunks[: upto - self._acknowledged]
            self._acknowledged = upto

    @property
    def delivered(self) -> tuple[OutputChunk, ...]:
        """The chunks that were acknowledged before the reply: these and the reply's tail are the whole output."""
        return tuple(self._delivered)

    def since(self, position: int) -> OutputBatch:
        """Return the output from ``position`` on, for another client; after the reply, without the reply's tail."""
        there = self._delivered if self._answered else [*self._delivered, *self._chunks]
        self._shown = max(self._shown, len(there))
        return OutputBatch(self.request, self._engine_id, position, tuple(there[position:]))

    def mark(self) -> int:
        """Return the number of chunks, and begin a new chunk with the next text."""
        self._shown = max(self._shown, self._acknowledged + len(self._chunks))
        return self._acknowledged + len(self._chunks)

    def take_again(self) -> None:
        """Send all unacknowledged chunks again, unchanged: they may have been lost."""
        self._shown = max(self._shown, self._taken)
        self._taken = self._acknowledged

    def tail(self) -> OutputBatch:
        """Return all unacknowledged chunks and the end of a flood; count them as sent and acknowledged."""
        if self._flood is not None:
            for chunk in self._flood.drain(self._whole):
                self._append(chunk)
        batch = OutputBatch(self.request, self._engine_id, self._acknowledged, tuple(self._chunks))
        # The reply holds these chunks: an acknowledgement must not add them to `delivered` as well.
        self._answered = True
        self._acknowledged = self._taken = self._acknowledged + len(self._chunks)
        self._chunks = []
        return batch


class OutputAssembler:
    """The output of a request at its client: joins batches by position, each chunk once."""

    def __init__(self) -> None:
        self.chunks: list[OutputChunk] = []
        self._early: dict[int, OutputBatch] = {}
        self._expected: int | None = None

    @property
    def complete(self) -> bool:
        """True if all of the output that the reply announced has arrived."""
        return self._expected is not None and len(self.chunks) >= self._expected

    def add(self, batch: OutputBatch) -> list[OutputChunk]:
        """Add a batch; return the chunks that can be shown now, in order."""
        # A batch sent ahead and the tail may start at the same chunk: then the longer one contains the other.
        known = self._early.get(batch.start)
        if batch.chunks and (known is None or len(batch.chunks) > len(known.chunks)):
            self._early[batch.start] = batch
        fresh: list[OutputChunk] = []
        while ready := next((b for b in self._early.values() if b.start <= len(self.chunks)), None):
            del self._early[ready.start]
            new = ready.chunks[len(self.chunks) - ready.start :]
            self.chunks.extend(new)
            fresh.extend(new)
        return fresh

    def finish(self, tail: OutputBatch) -> list[OutputChunk]:
        """Add the reply's tail, which tells how many chunks there are in all."""
        self._expected = tail.start + len(tail.chunks)
        return self.add(tail) if tail.chunks else []
