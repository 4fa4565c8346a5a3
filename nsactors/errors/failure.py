"""A failure of user code on an engine, as a value: its type, message and traceback.

`Failure.capture` describes an exception in the engine, with built-in values only; the client turns the value into an
exception with `Failure.to_exception`, or into text with `format_failure`.
"""

import linecache
import operator
import pickle
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import field, replace
from itertools import islice
from reprlib import Repr
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from nsactors._frozen import frozen
from nsactors.errors.exception_state import (
    PICKLED_BYTES,
    Dumps,
    builtin_base,
    cause_of,
    context_of,
    dict_of,
    members_of,
    module_of,
    name_of,
    pickle_exception,
    suppresses_context,
    text_of,
    traceback_of,
)
from nsactors.errors.formatting import printable

if TYPE_CHECKING:
    from nsactors.errors.remote import RemoteError

IsUserFrame = Callable[[FrameType], bool]

_CELL = re.compile(r"^<engine \d+, (cell .+)>$")
_NUMBER = re.compile(r"^<(cell|ipython-input)[ -][\d.]+(?=[->])")
# The frames that are kept of a deep recursion: both ends tell more than the middle.
_HEAD_FRAMES = _TAIL_FRAMES = 20
_LINES_BEFORE, _LINES_AFTER = 3, 2
_LINE_CHARS = 500
_LOCALS = 20
_SYNTAX: Any = vars(SyntaxError)
_PLACE = ("filename", "lineno", "offset", "text", "end_lineno", "end_offset")
_REPR_CHARS = 100


@frozen
class FrameSummary:
    """One frame of a remote traceback, or a gap of frames left out.

    Attributes:
        filename: the file, or the name of a cell, such as ``"<cell 3>"``.
        lineno: the failing line, from 1; 0 if unknown.
        name: the function; empty for a syntax error, which has none.
        line: the source of the failing line, stripped; empty if the source is unknown.
        context: (line number, source) of the failing line and of some lines around it.
        col: the start of the failing expression in the unstripped line, in characters from 0.
        end_col: its end, or the end of the line if the expression continues on the next one.
        locals: (name, short repr) of some local variables; empty at module level.
        user: whether the code is the user's, not that of nsactors or a library.
        omitted: the number of frames that this gap stands for; 0 for a frame.
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
        """Return this frame, with the name and source of the cell if its code is a cell of this process."""
        shown = shown_file(self.filename)
        named = self if shown == self.filename else replace(self, filename=shown)
        if self.line or not self.lineno:
            return named
        line, context = _source(lines_of(self.filename), self.lineno)
        return replace(named, line=line, context=context) if line else named


def summarise_traceback(
    traceback: TracebackType | None, is_user_frame: IsUserFrame | None = None
) -> tuple[FrameSummary, ...]:
    """Summarise a traceback, outermost frame first, beginning with the first frame of user code.

    If no frame is of user code, all frames are kept. The middle of a very deep stack is left out.
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
        _forget_if_changed(filename)
    head, tail = entries[:_HEAD_FRAMES], entries[_HEAD_FRAMES:]
    omitted = max(0, len(tail) - _TAIL_FRAMES)
    gap = (FrameSummary("", 0, "", user=False, omitted=omitted),) if omitted else ()
    return (
        *(_summarise(entry, is_user(entry)) for entry in head),
        *gap,
        *(_summarise(entry, is_user(entry)) for entry in tail[omitted:]),
    )


def summarise_syntax(exc: BaseException) -> tuple[FrameSummary, ...]:
    """Return the place of a syntax error as a frame; empty if it has none, and for other errors."""
    if not issubclass(type(exc), SyntaxError):
        return ()
    # Read the fields with the built-in descriptors: a class may have properties of these names.
    filename, lineno, offset, text, end_lineno, end_offset = (_SYNTAX[name].__get__(exc) for name in _PLACE)
    if not isinstance(filename, str) or not isinstance(lineno, int):
        return ()
    _forget_if_changed(filename)
    source = lines_of(filename)
    if isinstance(text, str) and not (0 < lineno <= len(source) and source[lineno - 1].strip() == text.strip()):
        # The compiler read another version of the file: trust the text in the error.
        source = ["\n"] * (lineno - 1) + [text.rstrip("\n")]
    line, context = _source(source, lineno)
    col = end_col = None
    if isinstance(offset, int) and offset > 0:
        col = offset - 1
        same_line = end_lineno == lineno and isinstance(end_offset, int) and end_offset > offset
        end_col = (end_offset or 0) - 1 if same_line else offset
    return (FrameSummary(file_name(filename), lineno, "", line, context, col, end_col),)


def _summarise(entry: TracebackType, user: bool) -> FrameSummary:
    frame, code = entry.tb_frame, entry.tb_frame.f_code
    source = lines_of(code.co_filename, frame.f_globals)
    # tb_lineno is None in code that a tool generated without line numbers.
    lineno = entry.tb_lineno or 0
    line, context = _source(source, lineno)
    raw = source[lineno - 1].rstrip("\n") if 0 < lineno <= len(source) else ""
    col, end_col = _columns(entry, raw)
    return FrameSummary(
        file_name(code.co_filename), lineno, code.co_name, line, context, col, end_col, _locals(frame), user
    )


def file_name(name: str) -> str:
    """Return the name of a file, or of a cell without its engine, so that equal failures of engines compare equal."""
    return _CELL.sub(r"<\1>", name)


def without_number(name: str) -> str:
    """Return the name of a file, or of a cell without its number, which differs between engines and at each run."""
    return _NUMBER.sub(r"<\1", name)


def shown_file(name: str) -> str:
    """Return the name of a file for people: ``<In[5]>`` for the file of a cell of this process."""
    ipython = sys.modules.get("IPython")
    shell = getattr(ipython, "get_ipython", lambda: None)()
    number_of = getattr(getattr(shell, "compile", None), "format_code_name", None)  # shells of some kernels have none
    found = None if number_of is None else number_of(name)
    return name if found is None else f"<{found[1]}>"


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
    describe = bounded_repr(_REPR_CHARS)
    visible = ((name, value) for name, value in frame.f_locals.items() if not name.startswith(("__", ".")))
    return tuple((name, describe(value)[:_REPR_CHARS]) for name, value in islice(visible, _LOCALS))


def bounded_repr(most: int) -> Callable[[object], str]:
    """Return a function that describes values in about ``most`` characters, also those whose ``__repr__`` raises."""
    short = Repr()
    short.maxstring = short.maxother = short.maxlong = most

    def describe(value: object) -> str:
        try:
            return str.__str__(short.repr(value))
        except BaseException as error:  # Repr catches only Exception, and chooses its method by the name of the class
            return f"<{name_of(type(value))} whose __repr__ raised {name_of(type(error))}>"

    return describe


def lines_of(filename: str, names: dict[str, Any] | None = None) -> list[str]:
    """Return the lines of a source file; an empty list if this process cannot read the file.

    Args:
        filename: its name.
        names: the global variables of its code, which may hold a loader.
    """
    try:
        return linecache.getlines(filename, names)
    except BaseException:  # raised by the user's __loader__
        return []


def _forget_if_changed(filename: str) -> None:
    with suppress(ValueError):  # a name that no file can have
        linecache.checkcache(filename)


Loads = Callable[[bytes], object]
FailedAt = tuple[int, tuple[object, ...]]
"""The number of an item of a map, and the arguments that the function got for it; none if they are not known."""


class FailedItem(NamedTuple):
    """The item of a map for which its function failed.

    Attributes:
        number: its number, from 0.
        text: a short ``repr`` of the item, or of the items of all sequences; empty if it is not known.
    """

    number: int
    text: str = ""

    @classmethod
    def of(cls, number: int, args: tuple[object, ...]) -> "FailedItem":
        """Describe an item by the arguments that the function got for it."""
        describe = bounded_repr(_REPR_CHARS)
        return cls(number, printable(describe(args[0] if len(args) == 1 else args), "")[:_REPR_CHARS] if args else "")

    def in_words(self, call: str = "") -> str:
        """Return the item as text, such as ``"item 17 of map(square) is 42"``."""
        name = f"item {self.number}" + (f" of {call}" if call else "")
        return f"{name} is {self.text}" if self.text else name


_ITEM = "__nsactors_item__"


def set_item(error: BaseException, item: FailedAt) -> None:
    """Note at an error of a map's function for which item it was raised; :func:`take_item` removes the note."""
    dict_of(error)[_ITEM] = item


def take_item(error: BaseException) -> FailedAt | None:
    """Remove and return the item for which an error was raised; None if the error does not say it."""
    found: FailedAt | None = dict_of(error).pop(_ITEM, None)
    return found


# The compiler's message names the cell, whose number differs between engines that fail alike.
_ENGINE_CELL = re.compile(r"<engine \d+, cell [\d.]+>")
_TEXT_CHARS = 100_000
_NOTES = 50
_CHAIN_DEPTH = 20
_CAPTURED = 200  # failures in one tree of causes, contexts and group members


@frozen
class Failure:
    """An exception that user code raised on an engine, as built-in values only.

    Attributes:
        engine_id: the engine.
        call: the call that failed, such as ``"execute"`` or ``"apply(f)"``.
        type_name: the name of the exception's class.
        type_module: the module that defines the class.
        builtin_type: the nearest built-in class that it derives from.
        message: its ``str``, shortened if it is very long.
        notes: its notes.
        frames: its traceback, beginning with the first frame of user code, outermost frame first.
        cause: its ``__cause__``.
        context: its ``__context__``, if that is not also the cause.
        suppress_context: whether the context is hidden (``from None``).
        members: the members of an exception group.
        pickled: the exception itself, without the parts that cannot travel; None if not even its class can.
        control_flow: whether raising it at the client would end or steer the client's own code.
        kept: the name under which the engine keeps the frames for the debugger; empty if it keeps none.
        item: the item of a map for which its function failed; None for other calls. Failures that differ only in their
            items are equal.
    """

    engine_id: int
    call: str
    type_name: str
    type_module: str
    builtin_type: str
    message: str
    notes: tuple[str, ...] = ()
    frames: tuple[FrameSummary, ...] = ()
    cause: "Failure | None" = None
    context: "Failure | None" = None
    suppress_context: bool = False
    members: "tuple[Failure, ...]" = ()
    pickled: bytes | None = field(default=None, repr=False)
    control_flow: bool = False
    kept: str = field(default="", compare=False, repr=False)
    item: FailedItem | None = field(default=None, compare=False, repr=False)

    @classmethod
    def capture(
        cls,
        exc: BaseException,
        *,
        engine_id: int,
        call: str,
        dumps: Dumps | None = None,
        is_user_frame: IsUserFrame | None = None,
        item: FailedAt | None = None,
    ) -> "Failure":
        """Describe ``exc``, its causes and, for a group, its members.

        Never raises, whatever ``exc`` and its class do: notes say which parts could not be described.

        Args:
            exc: a caught exception of any class.
            engine_id: the engine that caught it.
            call: the call that the engine was running.
            dumps: pickles a value that loads with ``pickle.loads``, into at most the given number of bytes; raises to
                refuse. None leaves the exception itself out.
            is_user_frame: distinguishes the user's frames from those of nsactors and libraries. Frames before the
                user's first frame are dropped; the user's last frame is reported as the place of the failure.
            item: the item of a map for which its function failed.

        Example::

            try:
                exec(code, namespace)
            except BaseException as exc:
                failure = Failure.capture(exc, engine_id=0, call="execute", dumps=dump_bounded)
        """
        try:
            failure = _Capture(engine_id, call, is_user_frame, dumps).describe(exc)
            return failure if item is None else replace(failure, item=FailedItem.of(*item))
        except BaseException as hindrance:  # an interrupt, or hostile user code that no other guard catches
            note = f"it could not be described: {name_of(type(hindrance))}: {text_of(hindrance)}"
            name, module, base = name_of(type(exc)), module_of(type(exc)), builtin_base(type(exc)).__name__
            return cls(engine_id, call, name, module, base, "", (note,), control_flow=_is_control_flow(type(exc)))

    def to_exception(self, loads: Loads = pickle.loads) -> "RemoteError":
        """Return the exception to raise at the client: a `RemoteError` that is also of the original class.

        ``loads`` reverses the ``dumps`` of `capture`; if it fails, the nearest built-in class is used.
        """
        from nsactors.errors.remote import remote_error

        return remote_error(self, loads)

    def with_sources(self) -> "Failure":
        """Return this failure with source lines that only this process has, of functions typed at its prompt."""
        return replace(
            self,
            frames=tuple(frame.with_source() for frame in self.frames),
            cause=self.cause and self.cause.with_sources(),
            context=self.context and self.context.with_sources(),
            members=tuple(member.with_sources() for member in self.members),
        )

    @property
    def summary(self) -> str:
        """The class and the message, as in the last line of a Python traceback."""
        return f"{self.type_name}: {self.message}" if self.message else self.type_name

    @property
    def place(self) -> FrameSummary | None:
        """The innermost frame of the user's code, or else the innermost frame."""
        innermost_first = [*reversed(self.frames)]
        return next((frame for frame in innermost_first if frame.user), next(iter(innermost_first), None))

    @property
    def where(self) -> str:
        """The user's file, line and source, such as ``"<cell 3>, line 2: 1/0"``; empty if unknown."""
        place = self.place
        if place is None:
            return ""
        return f"{place.filename}, line {place.lineno}" + (f": {place.line}" if place.line else "")


class _Capture:
    """One walk over an exception and all exceptions that it refers to."""

    def __init__(self, engine_id: int, call: str, is_user_frame: IsUserFrame | None, dumps: Dumps | None) -> None:
        self._engine_id = engine_id
        self._call = call
        self._is_user_frame = is_user_frame
        self._dumps = dumps
        self._room = PICKLED_BYTES
        self._seen: set[int] = set()

    def describe(self, exc: BaseException, depth: int = 0, *, pickles: bool = True) -> Failure:
        self._seen.add(id(exc))
        cls = type(exc)
        pickled, left_out = self._pickled(exc) if pickles else (None, ())
        return Failure(
            engine_id=self._engine_id,
            call=self._call,
            type_name=name_of(cls),
            type_module=module_of(cls),
            builtin_type=builtin_base(cls).__name__,
            message=_ENGINE_CELL.sub("<cell>", _bounded(text_of(exc))),
            notes=_notes(exc) + left_out,
            frames=self._frames(exc),
            cause=self._next(cause_of(exc), depth, pickles=pickles),
            context=self._next(context_of(exc), depth, pickles=pickles),
            suppress_context=suppresses_context(exc),
            # A group carries its members in its own pickle.
            members=tuple(
                found
                for member in members_of(exc)
                if (found := self._next(member, depth, pickles=pickles and pickled is None)) is not None
            ),
            pickled=pickled,
            control_flow=_is_control_flow(cls),
        )

    def _next(self, exc: BaseException | None, depth: int, *, pickles: bool) -> Failure | None:
        # Chains may be circular, and retry loops make them very long.
        if exc is None or id(exc) in self._seen or depth >= _CHAIN_DEPTH or len(self._seen) >= _CAPTURED:
            return None
        return self.describe(exc, depth + 1, pickles=pickles)

    def _pickled(self, exc: BaseException) -> tuple[bytes | None, tuple[str, ...]]:
        if self._dumps is None:
            return None, ()
        data, left_out = pickle_exception(exc, self._dumps, self._room)
        if data is not None:
            self._room -= len(data)
        return data, left_out

    def _frames(self, exc: BaseException) -> tuple[FrameSummary, ...]:
        frames = summarise_traceback(traceback_of(exc), self._is_user_frame)
        syntax = summarise_syntax(exc)
        if syntax and not any(frame.user for frame in frames):
            return syntax  # the other frames belong to the caller of the compiler
        return frames + syntax


def _is_control_flow(cls: type[BaseException]) -> bool:
    return not issubclass(cls, Exception) or issubclass(cls, StopIteration | StopAsyncIteration)


def _bounded(text: str) -> str:
    left_out = len(text) - _TEXT_CHARS
    return text if left_out <= 0 else f"{text[:_TEXT_CHARS]} ... ({left_out} more characters)"


def _notes(exc: BaseException) -> tuple[str, ...]:
    notes: Any = dict_of(exc).get("__notes__")  # the user's code may have assigned any object
    if not issubclass(type(notes), list | tuple):
        return ()
    try:
        first = [*islice(notes, _NOTES)]
    except BaseException:  # a subclass of list, with an __iter__ of its own
        return ()
    return tuple(_bounded(text_of(note)) for note in first)


_SAME_LINE_SHOWN = 3
_line_of = operator.attrgetter("filename", "lineno", "name", "omitted")

CAUSE = "The above exception was the direct cause of the following exception:"
CONTEXT = "During handling of the above exception, another exception occurred:"


def format_failure(failure: Failure) -> str:
    """Write the traceback of ``failure`` with its causes, notes and members; escape control characters."""
    return printable(_formatted(failure))


def _formatted(failure: Failure) -> str:
    parts = []
    for item, sentence in chain(failure):
        lines = ["Traceback (most recent call last):", *format_frames(item.frames)] if item.frames else []
        lines += [item.summary, *item.notes]
        for number, member in enumerate(item.members, 1):
            lines += [f"  member {number} of {len(item.members)}:"]
            lines += [f"    {line}" for line in _formatted(member).splitlines()]
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
    """Return the failures that Python shows for ``failure``, oldest first, each with the sentence that follows it."""
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
    """Yield (frame, 0) for each frame to show, and (frame, n) for n further frames at the same line."""
    position = 0
    while position < len(frames):
        frame = frames[position]
        end = position
        while end < len(frames) and _line_of(frames[end]) == _line_of(frame):
            end += 1
        shown = min(end, position + _SAME_LINE_SHOWN)
        yield from ((same, 0) for same in frames[position:shown])
        if end > shown:
            yield frame, end - shown
        position = end


def left_out_text(frame: FrameSummary, repeated: int) -> str:
    """Return the text for frames that are not shown."""
    return f"{frame.omitted} frames left out" if frame.omitted else f"the line above repeated {repeated} more times"


def marker(frame: FrameSummary) -> tuple[int, int] | None:
    """Return the columns to underline in the failing line, or None if they would cover all of it."""
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
