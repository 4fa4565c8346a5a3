"""What several engines print alike is shown once.

Each engine's own order is kept. Lines wait for a moment, so that the same line of a slower engine can join them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from nsactors.core.messages import ClearOutput, Display, ExecuteResult, OutputChunk, StreamText
from nsactors.errors import engine_ranges
from nsactors.results.live.lines import LineEditor

__all__ = ["HOLD_S", "LINES_SHOWN", "Merger", "Piece", "Shown", "TextLine", "arrange", "engine_label"]

HOLD_S = 0.2
LINES_SHOWN = 2_000
LAST_LINES = 20
_STREAMS = ("stdout", "stderr")


class TextLine(NamedTuple):
    """One line of ``stdout`` or ``stderr``, without its end."""

    stream: str
    text: str


Piece = TextLine | Display | ExecuteResult | ClearOutput


class Shown(NamedTuple):
    """A piece of output and the engines that gave it."""

    engines: tuple[int, ...]
    piece: Piece


class _Waiting(NamedTuple):
    piece: Piece
    key: Hashable
    since: float


class _Engine:
    """What one engine has printed and what of it waits to be shown."""

    def __init__(self, engine_id: int, having: Counter[Hashable]) -> None:
        self.id = engine_id
        self._having = having  # shared: how many engines have a key among what waits
        self.editors = {stream: LineEditor() for stream in _STREAMS}
        self.waiting: deque[_Waiting] = deque()
        self.keys: Counter[Hashable] = Counter()
        self.clears_next = False  # asked to be cleared when the next output comes
        self.ended = False

    def put(self, piece: Piece, key: Hashable, now: float) -> None:
        self.waiting.append(_Waiting(piece, key, now))
        self.keys[key] += 1
        self._having[key] += self.keys[key] == 1

    def pop(self) -> Piece:
        piece, key, _ = self.waiting.popleft()
        self.keys[key] -= 1
        if not self.keys[key]:
            del self.keys[key]
            self._having[key] -= 1
            if not self._having[key]:
                del self._having[key]
        return piece

    def forget(self) -> None:
        """Drop what waits and what is unfinished."""
        self.clears_next = False
        for editor in self.editors.values():
            editor.take()
        while self.waiting:
            self.pop()


class Merger:
    r"""Puts the output of several engines together.

    Args:
        engine_ids: who may print.
        hold_s: how long a line waits for others to print it too.
        limit: how many lines are shown; of those after it, only the last few (``ending``). Displays and results are
            always shown.

    Example:
        >>> merger = Merger([0, 1])
        >>> merger.add(0, [StreamText("stdout", "hello\n")], now=0.0)
        >>> merger.add(1, [StreamText("stdout", "hello\n")], now=0.1)
        >>> merger.due(now=0.1)
        [Shown(engines=(0, 1), piece=TextLine(stream='stdout', text='hello'))]
    """

    def __init__(self, engine_ids: Iterable[int], hold_s: float = HOLD_S, limit: int = LINES_SHOWN) -> None:
        self._having: Counter[Hashable] = Counter()
        self._engines = {engine_id: _Engine(engine_id, self._having) for engine_id in engine_ids}
        self._hold_s = hold_s
        self._limit = limit
        self._lines_shown = 0
        self._past_limit = 0
        self._last: deque[Shown] = deque(maxlen=LAST_LINES)

    def add(self, engine_id: int, chunks: Iterable[OutputChunk], now: float) -> None:
        """An engine has printed or displayed something."""
        engine = self._engines[engine_id]
        for chunk in chunks:
            if isinstance(chunk, ClearOutput) and chunk.wait:
                engine.clears_next = True
                continue
            if isinstance(chunk, ClearOutput) or engine.clears_next:
                self._clear(engine, now)
            if isinstance(chunk, StreamText):
                for line in engine.editors[chunk.name].feed(chunk.text):
                    self._put_line(engine, chunk.name, line, now)
            elif not isinstance(chunk, ClearOutput):
                self._finish_lines(engine, now)
                engine.put(chunk, _key(engine_id, chunk), now)

    def end(self, engine_id: int, now: float) -> None:
        """An engine has answered: its last line is finished, and nobody waits for it any more."""
        engine = self._engines[engine_id]
        self._finish_lines(engine, now)
        engine.ended = True

    def due(self, now: float) -> list[Shown]:
        """What is to be shown now: what all engines have in common, and what has waited long enough."""
        return self._collect(now)

    def rest(self) -> list[Shown]:
        """Everything that still waits, unfinished lines included."""
        for engine in self._engines.values():
            self._finish_lines(engine, 0.0)
        return self._collect(None)

    def ending(self) -> tuple[int, list[Shown]]:
        """For output past the limit: how many lines were left out, and the last ones."""
        return self._past_limit - len(self._last), list(self._last)

    def next_due(self) -> float | None:
        """When something will have waited long enough; None if nothing waits."""
        since = [engine.waiting[0].since for engine in self._engines.values() if engine.waiting]
        return min(since) + self._hold_s if since else None

    @property
    def statuses(self) -> dict[int, str]:
        """The unfinished line of each engine that has one."""
        found = {}
        for engine_id, engine in self._engines.items():
            for stream in _STREAMS:
                if line := engine.editors[stream].unfinished:
                    found[engine_id] = line
        return found

    def _clear(self, engine: _Engine, now: float) -> None:
        """What was not shown yet never is; the screen is told to remove what was."""
        engine.forget()
        cleared = ClearOutput(wait=False)
        engine.put(cleared, _key(engine.id, cleared), now)

    def _put_line(self, engine: _Engine, stream: str, text: str, now: float) -> None:
        # An engine alone may fill the whole screen; what comes after that cannot be shown in any case.
        if self._lines_shown >= self._limit or len(engine.waiting) >= self._limit:
            return self._pass_limit([engine.id], TextLine(stream, text))
        engine.put(TextLine(stream, text), (stream, text), now)

    def _pass_limit(self, engines: Sequence[int], piece: Piece) -> None:
        self._past_limit += len(engines)
        self._last.extend(Shown((engine_id,), piece) for engine_id in engines)

    def _drop_lines(self) -> None:
        """The limit is reached: of what waits, only displays and results are still to be shown."""
        for engine in self._engines.values():
            for _ in range(len(engine.waiting)):
                waiting = engine.waiting[0]
                engine.pop()
                if isinstance(waiting.piece, TextLine):
                    self._pass_limit([engine.id], waiting.piece)
                else:
                    engine.put(*waiting)

    def _finish_lines(self, engine: _Engine, now: float) -> None:
        for stream in _STREAMS:
            if line := engine.editors[stream].take():
                self._put_line(engine, stream, line, now)

    def _collect(self, now: float | None) -> list[Shown]:
        shown = []
        while (key := self._choose(now)) is not None:
            engines = [i for i, e in self._engines.items() if e.waiting and e.waiting[0].key == key]
            pieces = [self._engines[i].pop() for i in engines]
            shown.append(Shown(tuple(engines), _common(pieces)))
            if isinstance(pieces[0], TextLine):
                self._lines_shown += 1
                if self._lines_shown == self._limit:
                    self._drop_lines()
        return shown

    def _choose(self, now: float | None) -> Hashable | None:
        """The key of the piece to show next; None if all are to wait (never, if ``now`` is None)."""
        heads = [engine.waiting[0] for engine in self._engines.values() if engine.waiting]
        if not heads:
            return None
        quiet = any(not engine.waiting and not engine.ended for engine in self._engines.values())
        if not quiet and all(head.key == heads[0].key for head in heads):
            return heads[0].key
        ripe = [head for head in heads if now is None or now - head.since >= self._hold_s]
        if not ripe:
            return None
        # Better one that nobody else will come to: the others may yet be joined by those who are behind.
        first = Counter(head.key for head in heads)
        return next((head.key for head in [*ripe, *heads] if self._having[head.key] == first[head.key]), ripe[0].key)


def arrange(outputs: Sequence[tuple[int, Sequence[OutputChunk]]], groupby: str) -> list[Shown]:
    """All output of calls that have ended, in another order than it came.

    Args:
        outputs: engine ids and what they gave.
        groupby: ``"engine"``, one after the other; ``"type"``, all stdout, all stderr, all displays, all results;
            ``"order"``, the same but first displays of all engines before second ones.
    """
    outputs = [(engine_id, _kept(chunks)) for engine_id, chunks in outputs]
    if groupby == "engine":
        return [shown for engine_id, chunks in outputs for shown in _merged([(engine_id, chunks)])]
    shown = []
    for stream in _STREAMS:
        texts = [(i, [c for c in chunks if isinstance(c, StreamText) and c.name == stream]) for i, chunks in outputs]
        shown += _merged(texts)
    displays = [(i, [c for c in chunks if isinstance(c, Display)]) for i, chunks in outputs]
    if groupby == "order":
        for position in range(max((len(found) for _, found in displays), default=0)):
            shown += _merged([(i, found[position : position + 1]) for i, found in displays])
    else:
        for engine_id, found in displays:
            shown += _merged([(engine_id, found)])
    return shown + _merged([(i, [c for c in chunks if isinstance(c, ExecuteResult)]) for i, chunks in outputs])


def engine_label(engines: Iterable[int]) -> str:
    """Engines in brackets: ``[0-3, 7]``."""
    return f"[{engine_ranges(engines).partition(' ')[2]}]"


def _kept(chunks: Sequence[OutputChunk]) -> Sequence[OutputChunk]:
    """What is left of output at its end: nothing from before it was cleared."""
    for position in range(len(chunks) - 1, -1, -1):
        match chunks[position]:
            case ClearOutput(wait) if not wait or position + 1 < len(chunks):
                return chunks[position + 1 :]
    return chunks


def _merged(outputs: Sequence[tuple[int, Sequence[OutputChunk]]]) -> list[Shown]:
    merger = Merger([engine_id for engine_id, _ in outputs])
    for engine_id, chunks in outputs:
        merger.add(engine_id, chunks, 0.0)
    return merger.rest()


def _key(engine_id: int, chunk: OutputChunk) -> Hashable:
    """Equal for pieces that are shown once."""
    match chunk:
        case ExecuteResult(_, data, metadata):
            return ("result", repr(data), repr(metadata))
        case Display(data, metadata, transient, update):
            # A display that can be updated belongs to its engine.
            owner = engine_id if transient or update else None
            return ("display", owner, repr(data), repr(metadata))
        case _:
            return ("clear", engine_id)


def _common(pieces: Sequence[Piece]) -> Piece:
    first = pieces[0]
    if isinstance(first, ExecuteResult) and any(
        isinstance(piece, ExecuteResult) and piece.execution_count != first.execution_count for piece in pieces
    ):
        return first._replace(execution_count=0)  # engines that have run different numbers of cells
    return first
