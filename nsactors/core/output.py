"""One request's output as an engine holds it: chunks in order, some shipped ahead, the rest in the reply's tail."""

from __future__ import annotations

from collections import deque

from nsactors.core.messages import Display, ExecuteResult, OutputBatch, OutputChunk, RequestId, StreamText

__all__ = ["OutputAssembler", "OutputLog", "size_bytes"]


LIMIT_BYTES = 2_000_000  # of one request on one engine, shown as it comes
DISPLAY_LIMIT_BYTES = 64_000_000
END_BYTES = 64_000  # of what comes after, the end is kept


class _Flood:
    """What a request writes past its limit: counted, and forgotten but for the end."""

    def __init__(self) -> None:
        self._end: deque[StreamText] = deque()
        self._end_bytes = 0
        self.left_out_bytes = 0

    def append(self, text: StreamText) -> None:
        self._end.append(text._replace(text=text.text[-END_BYTES:]))
        self.left_out_bytes += max(0, len(text.text) - END_BYTES)
        self._end_bytes += len(self._end[-1].text)
        while self._end_bytes > END_BYTES:
            dropped = len(self._end.popleft().text)
            self._end_bytes -= dropped
            self.left_out_bytes += dropped

    def drain(self, whole: str) -> list[StreamText]:
        """A notice of what was left out, and the end; empty if there was no flood."""
        chunks: list[StreamText] = []
        if self.left_out_bytes:
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
    """What a chunk takes, in bytes, but for a few."""
    match chunk:
        case StreamText(_, text):
            return len(text)
        case Display(data) | ExecuteResult(_, data):
            return sum(len(part) for part in data.values() if isinstance(part, str | bytes))
        case _:
            return 0


class OutputLog:
    """The engine's side: what was written, what is on its way, what has been acknowledged.

    ``take`` hands out what nobody has yet; ``acknowledge`` says that a batch is safe with the client; ``tail`` is
    everything that is not, and goes into the reply. A batch that was taken but not acknowledged is in both: the
    receiver drops what it has by position.
    """

    def __init__(self, request: RequestId, engine_id: int, whole: str = "", *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.request = request
        self._engine_id = engine_id
        self._whole = whole
        self._room_bytes = limit_bytes
        self._display_room_bytes = DISPLAY_LIMIT_BYTES
        self._flood: _Flood | None = None
        self._chunks: list[OutputChunk] = []  # from position _acknowledged on
        self._acknowledged = 0
        self._taken = 0
        self._shown = 0
        self._delivered: list[OutputChunk] = []
        self._answered = False

    @property
    def has_untaken(self) -> bool:
        """Whether there is something to ship."""
        return self._taken < self._acknowledged + len(self._chunks)

    def append(self, chunk: OutputChunk) -> None:
        """Add a chunk; text of one stream is joined until it has been taken. Past the limit only the end is kept."""
        size = size_bytes(chunk)
        if isinstance(chunk, StreamText):
            kept = chunk._replace(text=chunk.text[: self._room_bytes])
            self._room_bytes -= len(kept.text)
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
        """What has not been handed out yet, to be shipped ahead of the reply."""
        batch = self._batch_from(self._taken)
        self._taken = self._acknowledged + len(self._chunks)
        return batch

    def acknowledge(self, batch: OutputBatch) -> None:
        """The client has this batch, and all before it."""
        upto = batch.start + len(batch.chunks)
        if upto > self._acknowledged:
            if not self._answered:
                self._delivered += self._chunks[: upto - self._acknowledged]
            del self._chunks[: upto - self._acknowledged]
            self._acknowledged = upto

    @property
    def delivered(self) -> tuple[OutputChunk, ...]:
        """What had been acknowledged before the reply: with the tail, it is the whole output."""
        return tuple(self._delivered)

    def since(self, position: int) -> OutputBatch:
        """The output from ``position`` on, for somebody who watches; without the tail, once that has been given."""
        there = self._delivered if self._answered else [*self._delivered, *self._chunks]
        self._shown = max(self._shown, len(there))
        return OutputBatch(self.request, self._engine_id, position, tuple(there[position:]))

    def mark(self) -> int:
        """How many chunks there are; what is written from now on begins another one."""
        self._shown = max(self._shown, self._acknowledged + len(self._chunks))
        return self._acknowledged + len(self._chunks)

    def take_again(self) -> None:
        """What has been handed out and not acknowledged may be lost: hand it out again, as it was."""
        self._shown = max(self._shown, self._taken)
        self._taken = self._acknowledged

    def tail(self) -> OutputBatch:
        """Everything not acknowledged, and the end of a flood; from now on it counts as handed out and safe."""
        if self._flood is not None:
            for chunk in self._flood.drain(self._whole):
                self._append(chunk)
        batch = self._batch_from(self._acknowledged)
        self._answered = True
        self._acknowledged = self._taken = self._acknowledged + len(self._chunks)
        self._chunks = []
        return batch

    def _batch_from(self, position: int) -> OutputBatch:
        chunks = tuple(self._chunks[position - self._acknowledged :])
        return OutputBatch(self.request, self._engine_id, position, chunks)


class OutputAssembler:
    """The client's side: puts batches of one request together, by position, each chunk once."""

    def __init__(self) -> None:
        self.chunks: list[OutputChunk] = []
        self._early: dict[int, OutputBatch] = {}
        self._expected: int | None = None

    @property
    def complete(self) -> bool:
        """Whether everything the reply spoke of is here."""
        return self._expected is not None and len(self.chunks) >= self._expected

    def add(self, batch: OutputBatch) -> list[OutputChunk]:
        """Take a batch; the chunks that became readable, in order."""
        # Two batches may begin alike, one shipped ahead and one in the tail: the longer one has all of the other.
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
        """Take the reply's tail, which says how much there is in all."""
        self._expected = tail.start + len(tail.chunks)
        return self.add(tail) if tail.chunks else []
