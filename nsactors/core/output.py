"""One request's output as an engine holds it: chunks in order, some shipped ahead, the rest in the reply's tail."""

from __future__ import annotations

from nsactors.core.messages import OutputBatch, OutputChunk, RequestId, StreamText

__all__ = ["OutputAssembler", "OutputLog"]


class OutputLog:
    """The engine's side: what was written, what is on its way, what has been acknowledged.

    ``take`` hands out what nobody has yet; ``acknowledge`` says that a batch is safe with the controller; ``tail`` is
    everything that is not, and goes into the reply. A batch that was taken but not acknowledged is in both: the
    receiver drops what it has by position.
    """

    def __init__(self, request: RequestId, engine_id: int) -> None:
        self.request = request
        self._engine_id = engine_id
        self._chunks: list[OutputChunk] = []  # from position _acknowledged on
        self._acknowledged = 0
        self._taken = 0

    @property
    def has_untaken(self) -> bool:
        """Whether there is something to ship."""
        return self._taken < self._acknowledged + len(self._chunks)

    def append(self, chunk: OutputChunk) -> None:
        """Add a chunk; text of one stream is joined until it has been taken."""
        if isinstance(chunk, StreamText):
            if not chunk.text:
                return
            last = self._chunks[-1] if self.has_untaken else None
            if isinstance(last, StreamText) and last.name == chunk.name:
                self._chunks[-1] = StreamText(last.name, last.text + chunk.text)
                return
        self._chunks.append(chunk)

    def take(self) -> OutputBatch:
        """What has not been handed out yet, to be shipped ahead of the reply."""
        batch = self._batch_from(self._taken)
        self._taken = self._acknowledged + len(self._chunks)
        return batch

    def acknowledge(self, batch: OutputBatch) -> None:
        """The controller has this batch."""
        upto = batch.start + len(batch.chunks)
        if upto > self._acknowledged:
            del self._chunks[: upto - self._acknowledged]
            self._acknowledged = upto

    def tail(self) -> OutputBatch:
        """Everything not acknowledged; from now on it counts as handed out and safe."""
        batch = self._batch_from(self._acknowledged)
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
        if batch.chunks:
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
        return self.add(tail)
