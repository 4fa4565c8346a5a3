"""Output in a terminal, or as plain text in a pipe."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsactors.errors import as_text
from nsactors.protocol.messages import ClearOutput, Display, ExecuteResult
from nsactors.results.display.merging import Shown, TextLine, engine_label
from nsactors.results.display.screen import ChangingOutput, Progress, VisibleOutput, grouped_statuses, result_label

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

FIGURES = Path("nsactors-figures")
_SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg"}
MANY = 20  # lines that are written without rich, if they are plain
_LABEL, _RESULT, _ERROR_TEXT = "cyan", "red", "yellow"


class TerminalScreen:
    """Prints each line with its engines in front; figures are saved and named.

    Args:
        live: keep unfinished lines and progress at the bottom while they change. The standard output must be a
            terminal to which no other code writes, as during a blocking cell.
        folder: the folder for figures.
    """

    def __init__(self, *, live: bool = False, folder: Path = FIGURES) -> None:
        self._wants_live = live
        self._folder = folder
        self._live: Live | None = None
        self._changing = ChangingOutput(named=True)
        self._visible = VisibleOutput()
        self._figures: dict[tuple[Hashable, ...], Path] = {}  # figures that are drawn again and again

    def show(self, shown: Sequence[Shown]) -> None:
        """Print output; draw the part that may still change below, and print it at the end."""
        if self._wants_live:
            shown, changing = self._changing.part(shown)
            for one in changing:
                self._visible.add([self._with_figure_saved(one)])
        self._print(shown)

    def _print(self, shown: Sequence[Shown]) -> None:
        if len(shown) > MANY and (text := self._as_plain_text(shown)) is not None:
            self._stop()
            print(text)
            return
        lines = [line for one in shown for line in self._lines(one)]
        if not lines:
            return
        from rich.text import Text

        self._console().print(Text("\n").join(lines), soft_wrap=True)

    def _as_plain_text(self, shown: Sequence[Shown]) -> str | None:
        """Return lines as ``_print`` writes them, in a hundredth of the time; None if they need more than labels."""
        colours = self._console().color_system is not None
        lines = []
        for engines, piece in shown:
            if not isinstance(piece, TextLine) or not piece.text.isprintable():
                return None
            label, text = engine_label(engines), piece.text
            if colours:
                label = f"\x1b[36m{label}\x1b[0m"
                text = f"\x1b[33m{text}\x1b[0m" if piece.stream == "stderr" and text else text
            lines.append(f"{label} {text}")
        return "\n".join(lines)

    def status(self, lines: Mapping[int, str], progress: Progress | None) -> None:
        """Draw unfinished lines and a progress bar below the output."""
        if not self._wants_live:
            return
        if not lines and progress is None and not len(self._visible):
            return self._stop()
        from rich.console import Group
        from rich.live import Live

        if self._live is None:
            # Streams stay as they are: engines that are threads of this process write to them, and are captured there.
            self._live = Live(
                console=self._console(),
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        drawn: list[Any] = [line for one in self._visible for line in self._lines(one)]
        drawn += [_labelled(label, line, "", one_row=True) for label, line in grouped_statuses(lines)]
        # Leave the rest of the screen to output, which a hundred bars would push off the screen.
        room = max(3, self._live.console.size.height // 2)
        if len(drawn) > room:
            drawn[room:] = [f"... and {len(drawn) - room} more"]
        if progress is not None:
            drawn.append(progress_bar(progress))
        self._live.update(Group(*drawn), refresh=True)

    def notice(self, text: str) -> None:
        """Print a remark."""
        self._console().print(as_text(text, "dim"), soft_wrap=True)

    def close(self) -> None:
        """Remove the status; output that changed stays as it is."""
        self._stop()
        self._print(self._visible.take())

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _console(self) -> Console:
        from rich.console import Console

        if self._live is not None:
            return self._live.console
        # Look up the stream each time, because IPython replaces standard output while a prompt is shown.
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
                return []  # printed text stays, as without engines

    def _with_figure_saved(self, shown: Shown) -> Shown:
        """Return a display with the path of its saved image instead; a display that changes keeps its path."""
        if not isinstance(shown.piece, Display) or (mime := _image_in(shown.piece.data)) is None:
            return shown
        piece = shown.piece
        earlier = sum(isinstance(one.piece, Display) and one.engines == shown.engines for one in self._visible)
        key = (shown.engines, mime, piece.transient.get("display_id", earlier))

        def save() -> Path:
            self._figures[key] = path = self._figures.get(key) or _free_path(self._folder, shown.engines, mime)
            return _write_image(path, mime, piece.data[mime])

        return shown._replace(piece=piece._replace(data={"text/plain": _saved(save)}))

    def _rich(self, engines: Sequence[int], data: Mapping[str, Any]) -> list[Text]:
        line = save_figure(self._folder, engines, data)
        return [] if line is None else [_labelled(engine_label(engines), line, "")]


def save_figure(folder: Path, engines: Sequence[int], data: Mapping[str, Any]) -> str | None:
    """Write the image of a MIME bundle, if any, into ``folder`` under the next free number; return a line about it."""
    if (mime := _image_in(data)) is None:
        return None
    return _saved(lambda: _write_image(_free_path(folder, engines, mime), mime, data[mime]))


def _saved(save: Callable[[], Path]) -> str:
    """Save a figure; return a line that says where it is, or why it is not saved."""
    try:
        return f"figure saved as {save()}"
    except (OSError, TypeError, ValueError) as error:  # the folder is not writable, or the content is no image
        return f"figure not saved: {error}"


def _image_in(data: Mapping[str, Any]) -> str | None:
    return next((mime for mime in _SUFFIXES if mime in data), None)


def _free_path(folder: Path, engines: Sequence[int], mime: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(found.group(1)) for path in folder.iterdir() if (found := re.match(r"figure-(\d+)", path.name))]
    whose = engine_label(engines)[1:-1].replace(", ", "+")
    return folder / f"figure-{max(numbers, default=0) + 1:03d}-engine-{whose}.{_SUFFIXES[mime]}"


def _write_image(path: Path, mime: str, content: str | bytes) -> Path:
    if isinstance(content, str):
        content = content.encode() if mime == "image/svg+xml" else base64.b64decode(content)
    path.write_bytes(content)
    return path


def _labelled(label: str, text: str, style: str, *, one_row: bool = False) -> Text:
    from rich.text import Text

    line = Text.assemble((label, _LABEL), " ", as_text(text, style, colours=True))
    if one_row:
        line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _value(label: str, data: Mapping[str, Any]) -> list[Text]:
    from rich.text import Text

    lines = _plain(data).splitlines() or [""]
    head = Text.assemble((label, _RESULT), " ")
    if len(lines) == 1:
        return [head + as_text(lines[0], colours=True)]
    return [head, *(as_text(line, colours=True) for line in lines)]


def _plain(data: Mapping[str, Any]) -> str:
    text = data.get("text/plain")
    return str(text) if text is not None else f"<{', '.join(data)}: drawn in notebooks alone>"


def progress_bar(progress: Progress) -> Any:
    """Return the progress of a call as rich draws it."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    row = Table.grid(padding=(0, 1))
    row.add_column()  # the column that is narrowed in a narrow terminal
    row.add_column(width=20)
    row.add_column(no_wrap=True)
    row.add_column(no_wrap=True)
    label = as_text(progress.label)
    label.no_wrap, label.overflow = True, "ellipsis"
    # If there is nothing to count, the bar pulses, since a line that does not change looks like a program that hangs.
    bar = ProgressBar(total=progress.total or None, completed=progress.done)
    row.add_row(label, bar, progress.amount, progress.times)
    return row
