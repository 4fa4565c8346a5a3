"""Failures drawn with rich, for terminals, notebooks and pipes.

rich is imported inside the functions: importing nsactors must stay cheap. Text from engines becomes
``Text`` objects and never markup, so a message such as ``"[red]"`` shows as it is.
"""

import os
import shutil
import sys
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from nsactors.errors.composite import CompositeError
from nsactors.errors.failure import Failure
from nsactors.errors.frames import FrameSummary
from nsactors.errors.grouping import FailureGroup, group_failures
from nsactors.errors.remote import RemoteError
from nsactors.errors.text import chain, condense, left_out_text, marker

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["draw", "render_lines", "render_text"]

_GROUPS_DRAWN = 10
_NOTEBOOK_WIDTH = 100
_CONTEXT_BEFORE, _CONTEXT_AFTER = 2, 1
_BORDER_COLUMNS = 4
_FILENAME_COLUMNS = 20  # at least
# The client's own machinery, which is not where the user made the call.
_MACHINERY = frozenset({"nsactors", "IPython", "ipykernel", "ray", "concurrent", "asyncio", "threading", "contextlib"})


def draw(error: Exception, *, width: int | None = None) -> "RenderableType":
    """Draw a failure: for a composite one line per group, then one panel per group.

    Args:
        error: a `RemoteError`, a `CompositeError`, or any other exception, drawn by its message.
        width: columns to use; None takes the terminal's.
    """
    from rich.console import Group
    from rich.text import Text

    columns = width or shutil.get_terminal_size((_NOTEBOOK_WIDTH, 24)).columns
    called = _called_from(error.__traceback__)
    parts: list[RenderableType] = [] if called is None else [Text(called, style="dim")]
    groups = group_failures(error.exceptions if isinstance(error, CompositeError) else [error])
    if isinstance(error, CompositeError):
        if error.message:
            parts.append(Text(error.message, style="bold"))
        parts += [_summary(group) for group in groups[:_GROUPS_DRAWN]]
    parts += [_panel(group, columns) for group in groups[:_GROUPS_DRAWN]]
    if len(groups) > _GROUPS_DRAWN:
        parts.append(Text(f"... and {len(groups) - _GROUPS_DRAWN} more kinds of failure, in .groups", style="dim"))
    return Group(*parts)


def render_text(error: Exception, *, width: int = 100, color: bool = False) -> str:
    """Draw a failure into text of at most ``width`` columns, with ANSI colours if ``color``."""
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
        console.print(draw(error, width=width))
    return "\n".join(line.rstrip() for line in _writable(capture.get()).splitlines())


def render_lines(error: Exception) -> list[str]:
    """Draw a failure for where standard output goes: a notebook, a terminal, or a pipe without colours."""
    notebook = "ipykernel" in sys.modules
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((_NOTEBOOK_WIDTH, 24)).columns if terminal else _NOTEBOOK_WIDTH
    color = (terminal or notebook) and not os.environ.get("NO_COLOR")
    return render_text(error, width=width, color=color).splitlines()


def _summary(group: FailureGroup) -> "Text":
    from rich.text import Text

    place = ", ".join(filter(None, [group.engines, group.count]))
    text = Text.assemble((group.ename, "bold red"), f": {group.evalue}" if group.evalue else "")
    if place:
        text.append(f"  [{place}]", style="cyan")
    if group.where:
        text.append(f"  {group.where}", style="dim")
    return text


def _panel(group: FailureGroup, width: int) -> "RenderableType":
    from rich.box import ROUNDED
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    call = getattr(group.first, "call", "")
    title = " · ".join(filter(None, [group.engines, group.count, str(call), group.ename]))
    if isinstance(group.first, RemoteError):
        body: RenderableType = Group(*_chain(group.first.failure, width - _BORDER_COLUMNS))
    else:
        body = _message(str(group.first))
    return Panel(
        body,
        box=ROUNDED,
        title=Text(title, style="bold"),
        title_align="left",
        border_style="red",
        width=width,
    )


def _chain(failure: Failure, width: int) -> "list[RenderableType]":
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


def _member(failure: Failure, number: int, width: int) -> "RenderableType":
    from rich.box import ROUNDED
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    member = failure.members[number]
    title = Text(f"{number + 1} of {len(failure.members)} · {member.type_name}")
    body = Group(*_chain(member, width - _BORDER_COLUMNS))
    return Panel(body, box=ROUNDED, title=title, title_align="left", border_style="dim", width=width)


def _frames(failure: Failure, width: int) -> "list[RenderableType]":
    from rich.text import Text

    drawn: list[RenderableType] = []
    # Only these say more with the lines around them: where the user's code failed, and where it all ended.
    explained = (failure.place, failure.frames[-1] if failure.frames else None)
    for frame, repeated in condense(failure.frames):
        if frame.omitted or repeated:
            drawn.append(Text(f"  ... {left_out_text(frame, repeated)}", style="dim"))
            continue
        drawn.append(_place(frame, width))
        if frame.context:
            drawn.append(_source(frame, width, whole=any(frame is one for one in explained)))
    return drawn


def _place(frame: FrameSummary, width: int) -> "Text":
    from rich.text import Text

    rest = Text.assemble(", line ", (str(frame.lineno), "cyan"))
    if frame.name:
        rest.append(", in ").append(frame.name, style="magenta")
    filename = Text(f'"{frame.filename}"', style="green")
    # The end of a long path says more than its beginning.
    room = max(_FILENAME_COLUMNS, width - rest.cell_len - len("File "))
    if filename.cell_len > room:
        filename = Text(f'"…{frame.filename[-(room - 3) :]}"', style="green")
    return Text.assemble("File ", filename, rest)


def _source(frame: FrameSummary, width: int, *, whole: bool) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    before, after = (_CONTEXT_BEFORE, _CONTEXT_AFTER) if whole else (0, 0)
    rows = [(n, text) for n, text in frame.context if frame.lineno - before <= n <= frame.lineno + after]
    indent = min((len(text) - len(text.lstrip()) for _, text in rows if text.strip()), default=0)
    code = _highlight([text[indent:] for _, text in rows])
    grid = Table.grid(padding=(0, 1), pad_edge=False)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    gutter = len(f"  ❱ {rows[-1][0]} ")
    span = marker(frame)
    for (number, text), line in zip(rows, code, strict=True):
        failing = number == frame.lineno
        grid.add_row(Text(f"  ❱ {number}" if failing else str(number), style="bold red" if failing else "dim"), line)
        # Under a folded line a marker would point at the wrong place.
        if failing and span is not None and gutter + len(text) - indent <= width and "\t" not in text:
            start, end = (Text(text[indent:column]).cell_len for column in span)
            grid.add_row("", Text(" " * start + "^" * max(1, end - start), style="bold red"))
    return grid


def _highlight(lines: list[str]) -> "list[Text]":
    from rich.syntax import Syntax

    code = Syntax("", "python", theme="ansi_dark", background_color="default").highlight("\n".join(lines))
    # The lexer drops empty lines at the ends.
    return [*code.split("\n", allow_blank=True)][: len(lines)]


def _headline(failure: Failure) -> "Text":
    from rich.text import Text

    if not failure.message:
        return Text(failure.type_name, style="bold red")
    return Text.assemble((failure.type_name, "bold red"), ": ", _message(failure.message))


def _message(message: str) -> "Text":
    from rich.text import Text

    message = _writable(message)
    # Escape sequences become styles or vanish: raw ones would move the cursor and break the panel.
    return Text.from_ansi(message) if "\x1b" in message else Text(message)


def _writable(text: str) -> str:
    # No terminal takes the lone surrogates that stand for undecodable bytes.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _called_from(traceback: TracebackType | None) -> str | None:
    """Say where at the client the call was made: IPython does not for errors that draw themselves."""
    user: tuple[FrameType, int] | None = None
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _MACHINERY:
            user = traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next
    if user is None:
        return None
    frame, lineno = user
    return f'Called from "{frame.f_code.co_filename}", line {lineno}, in {frame.f_code.co_name}'
