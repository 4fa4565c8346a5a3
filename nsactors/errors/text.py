"""Remote tracebacks as plain text, in Python's own form."""

from collections.abc import Iterator, Sequence

from nsactors.errors.failure import Failure
from nsactors.errors.frames import FrameSummary

__all__ = ["chain", "condense", "format_failure", "format_frames", "left_out_text", "marker"]

_SAME_LINE_SHOWN = 3

CAUSE = "The above exception was the direct cause of the following exception:"
CONTEXT = "During handling of the above exception, another exception occurred:"


def format_failure(failure: Failure) -> str:
    """Write the traceback of ``failure`` with its causes, notes and members."""
    parts = []
    for item, sentence in chain(failure):
        lines = ["Traceback (most recent call last):", *format_frames(item.frames)] if item.frames else []
        lines += [item.summary, *item.notes]
        for number, member in enumerate(item.members, 1):
            lines += [f"  member {number} of {len(item.members)}:"]
            lines += [f"    {line}" for line in format_failure(member).splitlines()]
        parts.append("\n".join(lines) + (f"\n\n{sentence}\n" if sentence else ""))
    return "\n".join(parts)


def format_frames(frames: Sequence[FrameSummary]) -> Iterator[str]:
    """Yield the lines of a stack, without heading or message."""
    for frame, repeated in condense(frames):
        if frame.omitted or repeated:
            yield f"  [{left_out_text(frame, repeated)}]"
            continue
        function = f", in {frame.name}" if frame.name else ""
        yield f'  File "{frame.filename}", line {frame.lineno}{function}'
        if frame.line:
            yield f"    {frame.line}"
        if span := marker(frame):
            raw = dict(frame.context)[frame.lineno]
            indent = len(raw) - len(raw.lstrip())
            yield " " * (4 + span[0] - indent) + "^" * (span[1] - span[0])


def chain(failure: Failure) -> list[tuple[Failure, str]]:
    """Return what Python shows for ``failure``, oldest first, each with the sentence that follows it."""
    links: list[tuple[Failure, str]] = [(failure, "")]
    while True:
        newest = links[0][0]
        if newest.cause is not None:
            links.insert(0, (newest.cause, CAUSE))
        elif newest.context is not None and not newest.suppress_context:
            links.insert(0, (newest.context, CONTEXT))
        else:
            return links


def condense(frames: Sequence[FrameSummary]) -> Iterator[tuple[FrameSummary, int]]:
    """Yield (frame, 0), and (frame, n) once for the n further frames at the same line."""
    position = 0
    while position < len(frames):
        frame = frames[position]
        end = position
        while end < len(frames) and _same_line(frames[end], frame):
            end += 1
        shown = min(end, position + _SAME_LINE_SHOWN)
        yield from ((same, 0) for same in frames[position:shown])
        if end > shown:
            yield frame, end - shown
        position = end


def left_out_text(frame: FrameSummary, repeated: int) -> str:
    """Say how many frames are not shown."""
    return f"{frame.omitted} frames left out" if frame.omitted else f"the line above repeated {repeated} more times"


def marker(frame: FrameSummary) -> tuple[int, int] | None:
    """Return the columns to underline in the failing line, or None if that would say nothing."""
    raw = dict(frame.context).get(frame.lineno, "")
    if frame.col is None or frame.end_col is None or not raw:
        return None
    indent = len(raw) - len(raw.lstrip())
    start = max(frame.col, indent)
    end = max(start + 1, min(frame.end_col, len(raw)))
    # A syntax error may stand just past the end of its line.
    if start > len(raw) or (frame.name and (start, end) == (indent, len(raw))):
        return None
    return start, end


def _same_line(one: FrameSummary, other: FrameSummary) -> bool:
    return (one.filename, one.lineno, one.name, one.omitted) == (
        other.filename,
        other.lineno,
        other.name,
        other.omitted,
    )
