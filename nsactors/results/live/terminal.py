"""Output in a terminal, or as plain text in a pipe."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsactors.core.messages import ClearOutput, Display, ExecuteResult
from nsactors.results.live.grouping import Shown, TextLine, engine_label
from nsactors.results.live.screen import Progress, grouped_statuses, result_label

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

__all__ = ["FIGURES", "TerminalScreen", "progress_bar", "save_figure"]

FIGURES = Path("nsactors-figures")
_SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg"}
_LABEL, _RESULT, _ERROR_TEXT = "cyan", "red", "yellow"


class TerminalScreen:
    """Prints each line with its engines in front; figures are saved and named.

    Args:
        live: keep unfinished lines and progress at the bottom while they change. Only where standard output is a
            terminal that nobody else writes to, as during a blocking cell.
        folder: where figures are saved.
    """

    def __init__(self, *, live: bool = False, folder: Path = FIGURES) -> None:
        self._wants_live = live
        self._folder = folder
        self._live: Live | None = None

    def show(self, shown: Sequence[Shown]) -> None:
        """Print."""
        lines = [line for one in shown for line in self._lines(one)]
        if not lines:
            return
        from rich.text import Text

        self._console().print(Text("\n").join(lines), soft_wrap=True)

    def status(self, lines: Mapping[int, str], progress: Progress | None) -> None:
        """Draw unfinished lines and a progress bar below the output."""
        if not self._wants_live:
            return
        if not lines and progress is None:
            return self.close()
        from rich.console import Group
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._console(), auto_refresh=False, transient=True)
            self._live.start()
        drawn: list[Any] = [_labelled(label, line, "", one_row=True) for label, line in grouped_statuses(lines)]
        # The rest of a screen belongs to output: a hundred bars would push it away.
        room = max(3, self._live.console.size.height // 2)
        if len(drawn) > room:
            drawn[room:] = [f"... and {len(drawn) - room} more"]
        if progress is not None:
            drawn.append(progress_bar(progress))
        self._live.update(Group(*drawn), refresh=True)

    def notice(self, text: str) -> None:
        """Print a remark."""
        from rich.text import Text

        self._console().print(Text(text, style="dim"), soft_wrap=True)

    def close(self) -> None:
        """Take the status away."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _console(self) -> Console:
        from rich.console import Console

        if self._live is not None:
            return self._live.console
        # Looked up each time: at a prompt, IPython stands in for standard output.
        return Console(file=sys.stdout, highlight=False, force_jupyter=False, markup=False, emoji=False)

    def _lines(self, shown: Shown) -> list[Text]:
        label = engine_label(shown.engines)
        match shown.piece:
            case TextLine(stream, text):
                return [_labelled(label, text, _ERROR_TEXT if stream == "stderr" else "")]
            case ExecuteResult(_, data, _) as result:
                return self._rich(shown.engines, data) + _value(result_label(shown.engines, result), data)
            case Display(data, _, _, _):
                figures = self._rich(shown.engines, data)
                if figures:
                    return figures
                return [_labelled(label, line, "") for line in _plain(data).splitlines()]
            case ClearOutput():
                return []  # what is printed stays, as without engines

    def _rich(self, engines: Sequence[int], data: Mapping[str, Any]) -> list[Text]:
        mime = next((mime for mime in _SUFFIXES if mime in data), None)
        if mime is None:
            return []
        path = save_figure(self._folder, engines, mime, data[mime])
        return [_labelled(engine_label(engines), f"figure saved as {path}", "")]


def save_figure(folder: Path, engines: Sequence[int], mime: str, content: str | bytes) -> Path:
    """Write an image into ``folder`` under the next free number; the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(found.group(1)) for path in folder.iterdir() if (found := re.match(r"figure-(\d+)", path.name))]
    whose = engine_label(engines)[1:-1].replace(", ", "+")
    path = folder / f"figure-{max(numbers, default=0) + 1:03d}-engine-{whose}.{_SUFFIXES[mime]}"
    if isinstance(content, str):
        content = content.encode() if mime == "image/svg+xml" else base64.b64decode(content)
    path.write_bytes(content)
    return path


def _labelled(label: str, text: str, style: str, *, one_row: bool = False) -> Text:
    from rich.text import Text

    body = Text.from_ansi(text, style=style) if "\x1b" in text else Text(_printable(text), style=style)
    line = Text.assemble((label, _LABEL), " ", body)
    if one_row:
        line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _value(label: str, data: Mapping[str, Any]) -> list[Text]:
    from rich.text import Text

    lines = _plain(data).splitlines() or [""]
    head = Text.assemble((label, _RESULT), " ")
    if len(lines) == 1:
        return [head + Text(_printable(lines[0]))]
    return [head, *(Text(_printable(line)) for line in lines)]


def _plain(data: Mapping[str, Any]) -> str:
    text = data.get("text/plain")
    return str(text) if text is not None else f"<{', '.join(data)}>"


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def progress_bar(progress: Progress) -> Any:
    """How far a call is, as rich draws it."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 1))
    row.add_column()  # what gives way in a narrow terminal
    row.add_column(width=20)
    row.add_column(no_wrap=True)
    row.add_column(no_wrap=True)
    label = Text(progress.label, no_wrap=True, overflow="ellipsis")
    bar = ProgressBar(total=progress.total, completed=progress.done)
    row.add_row(label, bar, progress.amount, progress.times)
    return row
