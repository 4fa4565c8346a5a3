"""The frames of a traceback as values: where, which source, which locals."""

import linecache
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from reprlib import Repr
from types import FrameType, TracebackType

__all__ = ["FrameSummary", "IsUserFrame", "summarise_syntax", "summarise_traceback"]

IsUserFrame = Callable[[FrameType], bool]

_CELL = re.compile(r"^<engine \d+, (cell .+)>$")
_HEAD_FRAMES = _TAIL_FRAMES = 20
_LINES_BEFORE, _LINES_AFTER = 3, 2
_LINE_CHARS = 500
_LOCALS = 20
_REPR_CHARS = 100


@dataclass(frozen=True, slots=True)
class FrameSummary:
    """One frame of a remote traceback, or the frames left out at this place.

    Attributes:
        filename: the file, or a cell's name such as ``"<cell 3>"``.
        lineno: the failing line, from 1; 0 if unknown.
        name: the function; empty for a syntax error, which has none.
        line: the failing line's source, stripped; empty if there is no source.
        context: (line number, source) of some lines around it, the failing one among them.
        col: where the failing expression starts in the unstripped line, in characters from 0.
        end_col: where it ends; the end of the line if it goes on below.
        locals: (name, short repr) of some local names; empty at module level.
        user: whether this is the user's code, not machinery or a library.
        omitted: if not 0, this entry stands for that many frames left out of a deep stack.
    """

    filename: str
    lineno: int
    name: str
    line: str = ""
    context: tuple[tuple[int, str], ...] = ()
    col: int | None = None
    end_col: int | None = None
    locals: tuple[tuple[str, str], ...] = ()
    user: bool = True
    omitted: int = 0

    def with_source(self) -> "FrameSummary":
        """This frame, with its source from this process's ``linecache`` if it came without."""
        if self.line or not self.lineno:
            return self
        line, context = _source(linecache.getlines(self.filename), self.lineno)
        return replace(self, line=line, context=context) if line else self


def summarise_traceback(
    traceback: TracebackType | None, is_user_frame: IsUserFrame | None = None
) -> tuple[FrameSummary, ...]:
    """Summarise a traceback, outermost frame first, from the first frame of the user on.

    All frames are kept if none is the user's; the middle of a very deep stack is left out.
    """
    entries: list[TracebackType] = []
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next

    def is_user(entry: TracebackType) -> bool:
        return is_user_frame is None or is_user_frame(entry.tb_frame)

    first = next((index for index, entry in enumerate(entries) if is_user(entry)), 0)
    del entries[:first]
    for filename in {entry.tb_frame.f_code.co_filename for entry in entries}:
        linecache.checkcache(filename)
    head, tail = entries[:_HEAD_FRAMES], entries[_HEAD_FRAMES:]
    omitted = max(0, len(tail) - _TAIL_FRAMES)
    gap = (FrameSummary("", 0, "", user=False, omitted=omitted),) if omitted else ()
    return (
        *(_summarise(entry, is_user(entry)) for entry in head),
        *gap,
        *(_summarise(entry, is_user(entry)) for entry in tail[omitted:]),
    )


def summarise_syntax(exc: SyntaxError) -> tuple[FrameSummary, ...]:
    """Return the place of a syntax error as a frame; nothing if the error does not say it."""
    filename, lineno, offset, text = exc.filename, exc.lineno, exc.offset, exc.text
    if not isinstance(filename, str) or not isinstance(lineno, int):
        return ()
    linecache.checkcache(filename)
    source = linecache.getlines(filename)
    if isinstance(text, str) and not (0 < lineno <= len(source) and source[lineno - 1].strip() == text.strip()):
        # The compiler read something else than this file holds now: trust the error alone.
        source = ["\n"] * (lineno - 1) + [text.rstrip("\n")]
    line, context = _source(source, lineno)
    col = end_col = None
    if isinstance(offset, int) and offset > 0:
        col = offset - 1
        same_line = exc.end_lineno == lineno and isinstance(exc.end_offset, int) and exc.end_offset > offset
        end_col = (exc.end_offset or 0) - 1 if same_line else offset
    return (FrameSummary(_file_name(filename), lineno, "", line, context, col, end_col),)


def _summarise(entry: TracebackType, user: bool) -> FrameSummary:
    frame, code = entry.tb_frame, entry.tb_frame.f_code
    source = linecache.getlines(code.co_filename, frame.f_globals)
    # tb_lineno is None for code that a tool generated without line numbers.
    lineno = entry.tb_lineno or 0
    line, context = _source(source, lineno)
    raw = source[lineno - 1].rstrip("\n") if 0 < lineno <= len(source) else ""
    col, end_col = _columns(entry, raw)
    return FrameSummary(
        _file_name(code.co_filename), lineno, code.co_name, line, context, col, end_col, _locals(frame), user
    )


def _file_name(name: str) -> str:
    """A file's name; a cell's without its engine, which many failures of one cell would differ in."""
    return _CELL.sub(r"<\1>", name)


def _source(source: Sequence[str], lineno: int) -> tuple[str, tuple[tuple[int, str], ...]]:
    if not 0 < lineno <= len(source):
        return "", ()
    first, last = max(1, lineno - _LINES_BEFORE), min(len(source), lineno + _LINES_AFTER)
    lines = [(number, source[number - 1].rstrip()[:_LINE_CHARS]) for number in range(first, last + 1)]
    while lines[0][0] < lineno and not lines[0][1]:
        del lines[0]
    while lines[-1][0] > lineno and not lines[-1][1]:
        del lines[-1]
    return source[lineno - 1].strip()[:_LINE_CHARS], tuple(lines)


def _columns(entry: TracebackType, raw: str) -> tuple[int | None, int | None]:
    positions = islice(entry.tb_frame.f_code.co_positions(), entry.tb_lasti // 2, None)
    lineno, end_lineno, col, end_col = next(positions, (None, None, None, None))
    if lineno != entry.tb_lineno or col is None or end_col is None or not raw:
        return None, None
    encoded = raw.encode("utf-8", "replace")  # the compiler counts bytes
    start = len(encoded[:col].decode("utf-8", "replace"))
    end = len(encoded[:end_col].decode("utf-8", "replace")) if end_lineno == lineno else len(raw)
    return start, end


def _locals(frame: FrameType) -> tuple[tuple[str, str], ...]:
    if frame.f_locals is frame.f_globals:
        return ()
    short = Repr()  # bounded for containers, and safe where a __repr__ raises
    short.maxstring = short.maxother = short.maxlong = _REPR_CHARS
    visible = ((name, value) for name, value in frame.f_locals.items() if not name.startswith(("__", ".")))
    return tuple((name, short.repr(value)[:_REPR_CHARS]) for name, value in islice(visible, _LOCALS))
