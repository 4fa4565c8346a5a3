"""Merging of output: equal lines, figures and values of several engines are shown once.

The order of the output of one engine is kept. Lines wait for a moment, so that the same line of a slower engine can
join them. Figures wait longer, so that they appear in the order of the engines. Values of cells wait until no other
value can join them.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from nsactors.errors import engine_ranges
from nsactors.protocol.messages import ClearOutput, Display, ExecuteResult, OutputChunk, StreamText
from nsactors.results.display.line_editor import LineEditor

HOLD_S = 0.2
# Multiples of HOLD_S, because figures that engines draw at the same time arrive seconds apart if the engines first
# import a library. A figure that took longer than this to arrive waits for the same time again, up to a limit.
FIGURE_HOLDS, MOST_FIGURE_HOLDS = 10, 50
LINES_SHOWN = 10_000
LAST_LINES = 20
# The ids of altair, plotly, and pandas' tables with a style.
_RANDOM_ID = re.compile(
    r"""\bid=\\?["']?(?:altair-viz-)?([0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|T_[0-9a-f]{5}\b)"""
)
_STREAMS = ("stdout", "stderr")
_END = "\n"


class TextLine(NamedTuple):
    """One line of ``stdout`` or ``stderr``, without its end."""

    stream: str
    text: str


Piece = TextLine | Display | ExecuteResult | ClearOutput


class Shown(NamedTuple):
    """A piece of output and the engines that gave it."""

    engines: tuple[int, ...]
    piece: Piece


class _WaitingPiece(NamedTuple):
    """A piece that waits to be shown.

    Attributes:
        piece: the piece.
        key: equal for pieces that are shown as one.
        since: the time of its arrival.
        ripe_at: the time at which it has waited long enough.
        in_order: whether it is shown in the order of the engines.
    """

    piece: Piece
    key: Hashable
    since: float
    ripe_at: float
    in_order: bool


class _Stream(NamedTuple):
    """The unfinished lines of a stream, and the time at which they began."""

    editor: LineEditor
    since: float


class _EngineOutput:
    """The output of one engine that waits to be shown."""

    def __init__(self, engine_id: int, having: Counter[Hashable]) -> None:
        self.id = engine_id
        self._having = having  # shared: the number of engines that have a key among their waiting pieces
        self.streams: dict[tuple[Hashable, str], _Stream] = {}
        self.waiting: deque[_WaitingPiece] = deque()
        self.keys: Counter[Hashable] = Counter()
        self.clears_next = False  # asked to be cleared when the next output comes
        self.ended = False

    def feed(self, chunk: StreamText, source: Hashable, now: float) -> list[str]:
        """Take text; return the lines that it finished."""
        editor, since = self.streams.pop((source, chunk.name), _Stream(LineEditor(), now))
        lines = editor.feed(chunk.text)
        if not editor.is_idle:
            self.streams[source, chunk.name] = _Stream(editor, now if lines else since)
        return lines

    def put(self, waiting: _WaitingPiece) -> None:
        key = waiting.key
        self.waiting.append(waiting)
        self.keys[key] += 1
        self._having[key] += self.keys[key] == 1

    def pop(self) -> Piece:
        piece, key, *_ = self.waiting.popleft()
        self.keys[key] -= 1
        if not self.keys[key]:
            del self.keys[key]
            self._having[key] -= 1
            if not self._having[key]:
                del self._having[key]
        return piece

    def forget(self) -> None:
        """Drop the pieces that wait and the unfinished lines."""
        self.clears_next = False
        self.streams.clear()
        while self.waiting:
            self.pop()


class Merger:
    r"""Puts the output of several engines together.

    Args:
        engine_ids: the engines that print; others are added when they do.
        hold_s: the time that a line waits for other engines to print it too.
        limit: the number of lines shown, each counted once for every engine that printed it. Of later lines, only the
            last few are shown (see ``ending``). Displays and results are always shown.
        open_ended: it is not known which engines print, and how often; so a line waits even if all known engines have
            printed it.

    Attributes:
        began: the time at which the engines were asked to run the code that prints; None if unknown.

    Example:
        >>> merger = Merger([0, 1])
        >>> merger.add(0, [StreamText("stdout", "hello\n")], now=0.0)
        >>> merger.add(1, [StreamText("stdout", "hello\n")], now=0.1)
        >>> merger.due(now=0.1)
        [Shown(engines=(0, 1), piece=TextLine(stream='stdout', text='hello'))]
    """

    def __init__(
        self, engine_ids: Iterable[int], hold_s: float = HOLD_S, limit: int = LINES_SHOWN, *, open_ended: bool = False
    ) -> None:
        self.began: float | None = None
        self._having: Counter[Hashable] = Counter()
        self._engines = {engine_id: _EngineOutput(engine_id, self._having) for engine_id in sorted(set(engine_ids))}
        self._open_ended = open_ended
        self._hold_s = hold_s
        self._limit = limit
        self._lines_shown = 0
        self._past_limit = 0
        self._last: deque[Shown] = deque(maxlen=LAST_LINES)

    def add(self, engine_id: int, chunks: Iterable[OutputChunk], now: float, source: Hashable = None) -> None:
        """Add output of an engine; a line is put together only from text with the same source."""
        engine = self._engines.get(engine_id) or self._enter(engine_id)
        for chunk in chunks:
            if isinstance(chunk, ClearOutput) and chunk.wait:
                engine.clears_next = True
                continue
            if isinstance(chunk, ClearOutput) or engine.clears_next:
                self._clear(engine, now)
            if isinstance(chunk, StreamText):
                self._put_lines(engine, chunk.name, engine.feed(chunk, source, now), now)
            elif isinstance(chunk, Display | ExecuteResult):
                self._finish_lines(engine, now, source)
                self._put(engine, chunk, now)

    def end(self, engine_id: int, now: float) -> None:
        """Finish the last line of an engine that has replied, and let no line wait for it any more."""
        engine = self._engines.get(engine_id) or self._enter(engine_id)
        self._finish_lines(engine, now)
        engine.ended = True

    def due(self, now: float, at_most: int = sys.maxsize) -> list[Shown]:
        """Return the pieces to show now: those that all engines have printed or that have waited long enough."""
        return self._collect(now, at_most)

    def rest(self, at_most: int = sys.maxsize) -> list[Shown]:
        """Return all pieces that still wait, unfinished lines included."""
        for engine in self._engines.values():
            self._finish_lines(engine, 0.0)
        return self._collect(None, at_most)

    def finished(self, at_most: int = sys.maxsize) -> list[Shown]:
        """Return all pieces that still wait, except unfinished lines of engines without a reply."""
        return self._collect(None, at_most)

    def ending(self) -> tuple[int, list[Shown]]:
        """Return how many lines past the limit were left out, and the last of these lines, which must be shown."""
        return self._past_limit - len(self._last), list(self._last)

    def cut(self, lines: int) -> None:
        """Show at most this many more lines, for example after Ctrl-C."""
        self._limit = min(self._limit, self._lines_shown + lines)

    def next_due(self) -> float | None:
        """Return the time at which the next piece will have waited long enough; None if no piece waits."""
        return min((engine.waiting[0].ripe_at for engine in self._engines.values() if engine.waiting), default=None)

    def statuses(self, now: float) -> dict[int, str]:
        """Return the line that each engine is writing: a bar, or a line that has not ended for a while.

        A line that has just begun is left out, because the text of a ``print("text")`` and its line end arrive
        separately.
        """
        found = {}
        for engine_id, engine in self._engines.items():
            for editor, since in engine.streams.values():
                if (editor.redraws or now - since >= self._hold_s) and (line := editor.unfinished):
                    found[engine_id] = line
            match engine.waiting:
                case [_WaitingPiece(ExecuteResult(_, data, _), _, since, _, _), *_] if now - since >= self._hold_s:
                    found[engine_id] = f"Out: {str(data.get('text/plain', '')).partition(_END)[0]}"
        return found

    def _enter(self, engine_id: int) -> _EngineOutput:
        engine = self._engines[engine_id] = _EngineOutput(engine_id, self._having)
        self._engines = dict(sorted(self._engines.items()))
        return engine

    def _clear(self, engine: _EngineOutput, now: float) -> None:
        """Drop the output of an engine that has not been shown, and make the screen remove the rest."""
        engine.forget()
        cleared = ClearOutput(wait=False)
        self._put(engine, cleared, now)

    def _put_lines(self, engine: _EngineOutput, stream: str, lines: Sequence[str], now: float) -> None:
        # A single engine may reach the limit; lines past that cannot be shown in any case.
        room = 0 if self._lines_shown >= self._limit else max(0, self._limit - len(engine.waiting))
        for text in lines[:room]:
            self._put(engine, TextLine(stream, text), now)
        if len(lines) > room:
            self._leave_out(engine, [TextLine(stream, text) for text in lines[room:][-LAST_LINES:]], len(lines) - room)

    def _put(self, engine: _EngineOutput, piece: Piece, now: float) -> None:
        in_order = _comes_in_order(piece)
        hold_s = self._hold_s
        if in_order:
            # A value waits as long as another engine may still have the same value.
            hold_s = math.inf if isinstance(piece, ExecuteResult) else self._figure_hold_s(now)
        engine.put(_WaitingPiece(piece, _key(engine.id, piece), now, now + hold_s, in_order))

    def _figure_hold_s(self, now: float) -> float:
        took_s = 0.0 if self.began is None else now - self.began
        return min(max(took_s, self._hold_s * FIGURE_HOLDS), self._hold_s * MOST_FIGURE_HOLDS)

    def _leave_out(self, engine: _EngineOutput, last: Sequence[Piece], count: int) -> None:
        """Count lines of an engine that are not shown, and keep the last of them."""
        self._past_limit += count
        self._last.extend(Shown((engine.id,), piece) for piece in last)

    def _drop_lines(self) -> None:
        """Of the pieces that wait, keep only displays and results, because the limit is reached."""
        for engine in self._engines.values():
            for _ in range(len(engine.waiting)):
                waiting = engine.waiting[0]
                engine.pop()
                if isinstance(waiting.piece, TextLine):
                    self._leave_out(engine, [waiting.piece], 1)
                else:
                    engine.put(waiting)

    def _finish_lines(self, engine: _EngineOutput, now: float, source: Hashable = None) -> None:
        """Finish the lines that an engine is writing, or only those of one source."""
        for whose in [whose for whose in engine.streams if source is None or whose[0] == source]:
            self._put_lines(engine, whose[1], engine.streams.pop(whose).editor.take(), now)

    def _collect(self, now: float | None, at_most: int) -> list[Shown]:
        shown: list[Shown] = []
        while len(shown) < at_most and (key := self._choose(now)) is not None:
            engines = [i for i, e in self._engines.items() if e.waiting and e.waiting[0].key == key]
            pieces = [self._engines[i].pop() for i in engines]
            shown.append(Shown(tuple(engines), _common(pieces)))
            if isinstance(pieces[0], TextLine):
                self._lines_shown += len(engines)
                if self._lines_shown >= self._limit:
                    self._drop_lines()
        return shown

    def _choose(self, now: float | None) -> Hashable | None:
        """Return the key of the piece to show next; None if all have to wait. If ``now`` is None, no piece waits."""
        heads = [engine.waiting[0] for engine in self._engines.values() if engine.waiting]
        if not heads:
            return None
        quiet = self._open_ended or any(not engine.waiting and not engine.ended for engine in self._engines.values())
        if (now is None or not quiet) and all(head.key == heads[0].key for head in heads):
            return heads[0].key
        ordered = [head for head in heads if head.in_order]
        lines = [head for head in heads if not head.in_order]
        if ripe := [head for head in lines if now is None or now >= head.ripe_at]:
            return self._best([*ripe, *lines], ripe[0])
        if now is not None:
            if quiet or lines:
                late = any(now >= head.ripe_at for head in ordered)
                ordered = [head for head in ordered if late and isinstance(head.piece, Display)]
            # All of them are shown together, even before their own time. Otherwise the next piece of an earlier engine
            # would appear between them.
            for engine in self._engines.values():
                if engine.waiting and engine.waiting[0] in ordered:
                    engine.waiting[0] = engine.waiting[0]._replace(ripe_at=-math.inf, in_order=False)
        return self._best(ordered, ordered[0]) if ordered else None

    def _best(self, heads: Sequence[_WaitingPiece], otherwise: _WaitingPiece) -> Hashable:
        """Return the key of a head that no engine has behind its own head: such an engine could still join it."""
        first = Counter(engine.waiting[0].key for engine in self._engines.values() if engine.waiting)
        return next((head.key for head in heads if self._having[head.key] == first[head.key]), otherwise.key)


def arrange(outputs: Sequence[tuple[int, Sequence[OutputChunk]]], groupby: str) -> list[Shown]:
    """Return all output of calls that have ended, in another order than the order of its arrival.

    Args:
        outputs: engine ids and their output.
        groupby: ``"engine"``, one after the other; ``"type"``, all stdout, all stderr, all displays, all results;
            ``"order"``, the same, but the first displays of all engines come before the second ones.
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
    """Return engines in brackets: ``[0-3, 7]``."""
    return f"[{engine_ranges(engines).partition(' ')[2]}]"


def _kept(chunks: Sequence[OutputChunk]) -> Sequence[OutputChunk]:
    """Return the output that is left at the end: all that was written after the last clearing."""
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


def _comes_in_order(piece: Piece) -> bool:
    """Return whether a piece, such as a value or a figure that never changes, is shown in the order of the engines."""
    return isinstance(piece, ExecuteResult) or (isinstance(piece, Display) and not (piece.transient or piece.update))


def _key(engine_id: int, chunk: Piece) -> Hashable:
    """Return a key that is equal for pieces that are shown as one."""
    match chunk:
        case TextLine():
            return chunk
        case ExecuteResult(_, data, metadata):
            return ("result", _content(data), repr(metadata))
        case Display(data, metadata, transient, update):
            # A display that can be updated belongs to its engine.
            owner = engine_id if transient or update else None
            return ("display", owner, _content(data), repr(metadata))
        case _:
            return ("clear", engine_id)


def _content(data: Mapping[str, Any]) -> str:
    """Return the content of a MIME bundle, apart from the random ids that libraries give the elements of their HTML."""
    content = repr(data)
    if "text/html" in data:
        # Replace a text only if it is used as an id, because a digest in a cell of a table is a value.
        for number, found in enumerate(dict.fromkeys(_RANDOM_ID.findall(content))):
            content = content.replace(found, f"id-{number}")
    return content


def _common(pieces: Sequence[Piece]) -> Piece:
    first = pieces[0]
    if isinstance(first, ExecuteResult) and any(
        isinstance(piece, ExecuteResult) and piece.execution_count != first.execution_count for piece in pieces
    ):
        return first._replace(execution_count=0)  # engines that have run different numbers of cells
    return first
