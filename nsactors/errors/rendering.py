"""Rendering of failures and exceptions, for Python's hook and for rich.

rich is imported inside the functions: importing nsactors must stay cheap. Text from engines becomes ``Text`` objects
and never markup, so that a message such as ``"[red]"`` appears unchanged.

Python prints an exception group member by member, each with its notes. For sixty-four engines that fail alike, that is
thousands of lines, and no method of the class can change it. So nsactors installs a ``sys.excepthook`` that prints
composite errors itself and leaves others to the previous hook. It does so only if that hook is Python's own, or Ray's,
which calls Python's.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from nsactors.errors.exception_state import dict_of, text_of, traceback_of
from nsactors.errors.failure import (
    CAUSE,
    CONTEXT,
    Failure,
    FrameSummary,
    chain,
    condense,
    left_out_text,
    marker,
    shown_file,
)
from nsactors.errors.formatting import printable
from nsactors.errors.remote import CompositeError, FailureGroup, RemoteError, group_failures

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

# Modules whose frames are not where the user made the call.
_MACHINERY = frozenset({"nsactors", "IPython", "ipykernel", "ray", "concurrent", "asyncio", "threading", "contextlib"})


def user_part(traceback: TracebackType | None) -> TracebackType | None:
    """Return the traceback without the frames of nsactors and its libraries; None if nothing is left."""
    kept = []
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _MACHINERY:
            kept.append(traceback)
        traceback = traceback.tb_next
    # Go from the innermost frame outwards, because each traceback object refers to the next inner one.
    part: TracebackType | None = None
    for each in reversed(kept):
        part = TracebackType(part, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return part


_GROUPS_DRAWN = 10
_NOTEBOOK_WIDTH = 100
_CONTEXT_BEFORE, _CONTEXT_AFTER = 2, 1
_BORDER_COLUMNS = 4
_FILENAME_COLUMNS = 20  # the least room for a file name


def draw(error: Exception, *, width: int | None = None, says_where: bool = True) -> RenderableType:
    """Return a failure as a rich renderable: one panel per group. A composite error begins with one line per group.

    Args:
        error: a `RemoteError`, a `CompositeError`, or another exception, shown by its message.
        width: the width in columns; None takes the terminal's.
        says_where: begin with the user's line that made the call.
    """
    from rich.console import Group
    from rich.text import Text

    columns = width or shutil.get_terminal_size((_NOTEBOOK_WIDTH, 24)).columns
    called = _called_from(traceback_of(error)) if says_where else None
    parts: list[RenderableType] = [] if called is None else [as_text(called, "dim")]
    groups = group_failures(error.exceptions if isinstance(error, CompositeError) else [error])
    if isinstance(error, CompositeError):
        if error.message:
            parts.append(as_text(error.message, "bold"))
        parts += [_summary(group) for group in groups[:_GROUPS_DRAWN]]
    parts += [_panel(group, columns) for group in groups[:_GROUPS_DRAWN]]
    if len(groups) > _GROUPS_DRAWN:
        parts.append(Text(f"... and {len(groups) - _GROUPS_DRAWN} more kinds of failure, in .groups", style="dim"))
    return Group(*parts)


def render_text(error: Exception, *, width: int = 100, color: bool = False, says_where: bool = True) -> str:
    """Render a failure as text, like :func:`draw`, with ANSI colours if ``color``."""
    return drawn_text(draw(error, width=width, says_where=says_where), width=width, color=color)


def drawn_text(drawing: RenderableType, *, width: int, color: bool = False) -> str:
    """Convert a rich renderable to text, with ANSI colours if ``color``."""
    from io import StringIO

    from rich.console import Console

    console = Console(
        file=StringIO(),
        width=width,
        color_system="standard" if color else None,
        force_terminal=color,
        force_jupyter=False,
        legacy_windows=False,
        highlight=False,
    )
    with console.capture() as capture:
        console.print(drawing)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def render_lines(error: Exception, *, says_where: bool = True) -> list[str]:
    """Render a failure for standard output: a notebook, a terminal, or a pipe without colours."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((_NOTEBOOK_WIDTH, 24)).columns if terminal else _NOTEBOOK_WIDTH
    color = (terminal or _is_notebook()) and not os.environ.get("NO_COLOR")
    return render_text(error, width=width, color=color, says_where=says_where).splitlines()


def _is_notebook() -> bool:
    """Return whether this process is a notebook's kernel; a program may import ipykernel without being one."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_shell is not None and hasattr(get_shell(), "kernel")


def _summary(group: FailureGroup) -> Text:
    from rich.text import Text

    place = group.place
    text = Text.assemble((group.ename, "bold red"), f": {group.evalue}" if group.evalue else "")
    if place:
        text.append(f"  [{place}]", style="cyan")
    if group.where:
        text.append(f"  {group.where}", style="dim")
    return text


def _panel(group: FailureGroup, width: int) -> RenderableType:
    from rich.box import ROUNDED
    from rich.console import Group
    from rich.panel import Panel

    call = group.first.call if isinstance(group.first, RemoteError) else dict_of(group.first).get("call", "")
    title = " · ".join(filter(None, [group.engines, group.count, group.items, text_of(call), group.ename]))
    if isinstance(group.first, RemoteError):
        failure = group.first.failure
        item = [] if failure.item is None else [_message(failure.item.in_words())]
        body: RenderableType = Group(*_chain(failure, width - _BORDER_COLUMNS), *item)
    else:
        body = _message(text_of(group.first))
    return Panel(
        body,
        box=ROUNDED,
        title=as_text(title, "bold"),
        title_align="left",
        border_style="red",
        width=width,
    )


def _chain(failure: Failure, width: int) -> list[RenderableType]:
    from rich.text import Text

    drawn: list[RenderableType] = []
    for link, sentence in chain(failure):
        drawn += _frames(link, width)
        drawn.append(_headline(link))
        drawn += [_message(note) for note in link.notes]
        drawn += [_member(link, number, width) for number in range(len(link.members))]
        if sentence:
            drawn.append(Text(f"\n{sentence}\n", style="italic"))
    return drawn


def _member(failure: Failure, number: int, width: int) -> RenderableType:
    from rich.box import ROUNDED
    from rich.console import Group
    from rich.panel import Panel

    member = failure.members[number]
    title = as_text(f"{number + 1} of {len(failure.members)} · {member.type_name}")
    body = Group(*_chain(member, width - _BORDER_COLUMNS))
    return Panel(body, box=ROUNDED, title=title, title_align="left", border_style="dim", width=width)


def _frames(failure: Failure, width: int) -> list[RenderableType]:
    from rich.text import Text

    drawn: list[RenderableType] = []
    # The frames to show with context: the user's code that failed, and the innermost frame.
    explained = (failure.place, failure.frames[-1] if failure.frames else None)
    for frame, repeated in condense(failure.frames):
        if frame.omitted or repeated:
            drawn.append(Text(f"  ... {left_out_text(frame, repeated)}", style="dim"))
            continue
        drawn.append(_place(frame, width))
        if frame.context:
            drawn.append(_source(frame, width, whole=any(frame is one for one in explained)))
    return drawn


def _place(frame: FrameSummary, width: int) -> Text:
    from rich.text import Text

    rest = Text.assemble(", line ", (str(frame.lineno), "cyan"))
    if frame.name:
        rest.append(", in ").append(as_text(frame.name, "magenta"))
    filename = as_text(f'"{frame.filename}"', "green")
    # The end of a long path says more than its start.
    room = max(_FILENAME_COLUMNS, width - rest.cell_len - len("File "))
    if filename.cell_len > room:
        filename = as_text(f'"…{frame.filename[-(room - 3) :]}"', "green")
    return Text.assemble("File ", filename, rest)


def _source(frame: FrameSummary, width: int, *, whole: bool) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    before, after = (_CONTEXT_BEFORE, _CONTEXT_AFTER) if whole else (0, 0)
    rows = [(n, text) for n, text in frame.context if frame.lineno - before <= n <= frame.lineno + after]
    indent = min((len(text) - len(text.lstrip()) for _, text in rows if text.strip()), default=0)
    code = _highlight([printable(text[indent:], "\t") for _, text in rows])
    grid = Table.grid(padding=(0, 1), pad_edge=False)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    gutter = len(f"  ❱ {rows[-1][0]} ")
    span = marker(frame)
    for (number, text), line in zip(rows, code, strict=True):
        failing = number == frame.lineno
        grid.add_row(Text(f"  ❱ {number}" if failing else str(number), style="bold red" if failing else "dim"), line)
        # Below a folded line the marker would point at the wrong place.
        if failing and span is not None and gutter + len(text) - indent <= width and "\t" not in text:
            start, end = (Text(text[indent:column]).cell_len for column in span)
            grid.add_row("", Text(" " * start + "^" * max(1, end - start), style="bold red"))
    return grid


def _highlight(lines: list[str]) -> list[Text]:
    from rich.syntax import Syntax

    code = Syntax("", "python", theme="ansi_dark", background_color="default").highlight("\n".join(lines))
    # The lexer drops empty lines at both ends.
    return [*code.split("\n", allow_blank=True)][: len(lines)]


def _headline(failure: Failure) -> Text:
    from rich.text import Text

    if not failure.message:
        return as_text(failure.type_name, "bold red")
    return Text.assemble(as_text(failure.type_name, "bold red"), ": ", _message(failure.message))


def as_text(text: str, style: str = "", *, colours: bool = False) -> Text:
    """Return a ``Text`` in which brackets are not markup, and control characters are escaped.

    Args:
        text: any text, of any origin.
        style: a style of rich.
        colours: turn colour sequences into styles and drop other sequences; for text that programs print.
    """
    from rich.text import Text

    if colours and "\x1b" in text:
        coloured = Text.from_ansi(printable(text, "\n\t\x1b"), style=style)
        if "\x1b" not in coloured.plain:  # otherwise a sequence is incomplete
            return coloured
    return Text(printable(text), style=style)


def _message(message: str) -> Text:
    return as_text(message, colours=True)


def _called_from(traceback: TracebackType | None) -> str | None:
    """Return the user's line that made the call. IPython does not show it for errors that render themselves."""
    user = user_part(traceback)
    if user is None:
        return None
    while user.tb_next is not None:
        user = user.tb_next
    code = user.tb_frame.f_code
    return f'Called from "{shown_file(code.co_filename)}", line {user.tb_lineno}, in {code.co_name}'


_WIDTH = 100

Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


class Uncaught:
    """A ``sys.excepthook`` that prints composite errors briefly.

    Args:
        others: the hook for all other errors.
    """

    def __init__(self, others: Hook) -> None:
        self._others = others

    def __call__(self, kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
        """Print an uncaught error."""
        if not isinstance(error, CompositeError):
            self._others(kind, error, at)
            return
        try:
            text = _as_text(error, at)
        except Exception:  # rich may be missing from the user's environment, or be another version
            self._others(kind, error, at)
        else:
            print(text, file=sys.stderr)


def show_uncaught_briefly() -> None:
    """Install the hook for composite errors, unless another program's hook is installed."""
    hook = sys.excepthook
    # Ray's hook would first wait for Ray's servers, which may have died.
    if hook is sys.__excepthook__ or getattr(hook, "__module__", "").partition(".")[0] == "ray":
        sys.excepthook = Uncaught(sys.__excepthook__)


def _as_text(error: CompositeError, at: TracebackType | None) -> str:
    parts = []
    if error.__cause__ is not None:
        parts += [_chained(error.__cause__), CAUSE]
    elif error.__context__ is not None and not error.__suppress_context__:
        parts += [_chained(error.__context__), CONTEXT]
    heading = "Traceback (most recent call last):\n" + "".join(traceback.format_tb(user_part(at)))
    terminal = sys.stderr.isatty()
    width = shutil.get_terminal_size((_WIDTH, 24)).columns if terminal else _WIDTH
    drawn = render_text(error, width=width, color=terminal and not os.environ.get("NO_COLOR"), says_where=False)
    return "\n\n".join([*parts, f"{heading}nsactors.{type(error).__name__}: {drawn}"])


def _chained(error: BaseException) -> str:
    if isinstance(error, CompositeError):
        return _as_text(error, error.__traceback__)
    return "".join(traceback.format_exception(error)).rstrip()
