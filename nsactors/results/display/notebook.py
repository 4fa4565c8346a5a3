"""Output in a notebook: under the cell that caused it."""

from __future__ import annotations

import html
import itertools
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from nsactors.protocol.messages import Display, ExecuteResult
from nsactors.results.display.merging import Shown, TextLine, engine_label
from nsactors.results.display.screen import ChangingOutput, Progress, VisibleOutput, grouped_statuses, result_label

UPDATE_S = 0.2
_COLUMNS = 100
_BAR = 20
_IMAGES = ("image/png", "image/jpeg")


class CellScreen:
    """The screen of a blocking cell: text goes to its streams, results and figures are displays of their own.

    Args:
        publisher: the shell's ``display_pub``.
        clock: seconds.
    """

    def __init__(self, publisher: Any, clock: Any = time.monotonic) -> None:
        self._publisher = publisher
        self._clock = clock
        self._status = _Updatable(publisher)
        self._changing = ChangingOutput()
        self._area: CellArea | None = None  # shows the output that engines clear
        self._status_shown = ""
        self._status_at = float("-inf")

    def show(self, shown: Sequence[Shown]) -> None:
        """Print and display."""
        shown, changing = self._changing.part(shown)
        if changing:
            self._area = self._area or CellArea(self._publisher, "", self._clock)
            self._area.show(changing)
        for is_text, group in itertools.groupby(shown, key=lambda one: isinstance(one.piece, TextLine)):
            if is_text:
                _print_lines(list(group))
            else:
                for one in group:
                    self._display(one)

    def status(self, lines: Mapping[int, str], progress: Progress | None) -> None:
        """Show unfinished lines and progress in one display that changes."""
        text = _status_text(lines, progress)
        if text != self._status_shown and self._clock() - self._status_at >= UPDATE_S:
            self._set_status(text)

    def notice(self, text: str) -> None:
        """Print a remark."""
        print(text)

    def flush(self, lines: Mapping[int, str], progress: Progress | None) -> None:
        """Do the same as :meth:`status`, but immediately."""
        if (text := _status_text(lines, progress)) != self._status_shown:
            self._set_status(text)

    def close(self) -> None:
        """Empty the status; the area stays as it is."""
        if self._status_shown:
            self._set_status("")
        if self._area is not None:
            self._area.close()

    def conclude(self, progress: Progress) -> None:
        """Replace the status with a line; otherwise an empty status would stay in the notebook."""
        self._set_status(f"{progress.label}: {progress.amount}, {progress.times}")

    def _set_status(self, text: str) -> None:
        self._status_shown, self._status_at = text, self._clock()
        self._status.publish({"text/plain": text, "text/html": _pre(text) if text else ""})

    def _display(self, shown: Shown) -> None:
        match shown.piece:
            case ExecuteResult(_, data, metadata) as result:
                self._publisher.publish(*_labelled(result_label(shown.engines, result), data, metadata))
            case Display(data, metadata, transient, update):
                data, metadata = _labelled(engine_label(shown.engines), data, metadata, announced=update)
                # Two engines may use the same id.
                mine = {**transient, "display_id": f"{shown.engines[0]}-{transient['display_id']}"} if transient else {}
                self._publisher.publish(data, metadata, transient=mine, update=update)
            case _:
                pass  # output that an engine clears is in the area


class CellArea:
    """The screen of an asynchronous cell: one display under it, which is updated even while other cells run.

    Args:
        publisher: the shell's ``display_pub``.
        title: shown until there is output.
        clock: seconds.
    """

    def __init__(self, publisher: Any, title: str, clock: Any = time.monotonic) -> None:
        self._display = _Updatable(publisher)
        self._clock = clock
        self._title = title
        self._visible = VisibleOutput()
        self._notices: list[str] = []
        self._status = ""
        self._published_at = float("-inf")
        self._stale = False
        self.closed = False
        self.publish()

    def show(self, shown: Sequence[Shown]) -> None:
        """Add output."""
        self._visible.add(shown)
        self._change(bool(shown))

    def status(self, lines: Mapping[int, str], progress: Progress | None) -> None:
        """Show unfinished lines and progress below the output, unless the area is closed."""
        if self.closed:  # the thread that draws the progress of a start may be a moment late
            return
        text = _status_text(lines, progress)
        changed, self._status = text != self._status, text
        self._change(changed)

    def notice(self, text: str) -> None:
        """Add a remark below the output."""
        self._notices.append(text)
        self._change(True)

    def close(self) -> None:
        """Publish the output, for the last time."""
        self._status = ""
        self.closed = True
        self.publish()

    def publish(self) -> None:
        """Show the present state."""
        self._stale, self._published_at = False, self._clock()
        title = "" if len(self._visible) or self._status or self._notices else self._title
        remarks = "\n".join(filter(None, [title, self._status, *self._notices]))
        self._display.publish(document([*self._visible], remarks))

    def _change(self, changed: bool) -> None:
        self._stale |= changed
        # Drawing a table twenty times a second would slow the browser down.
        if self._stale and self._clock() - self._published_at >= UPDATE_S:
            self.publish()


class _Updatable:
    """One display, made when it is first published."""

    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher
        self._id = f"nsactors-{uuid.uuid4().hex}"
        self._made = False

    def publish(self, data: dict[str, Any]) -> None:
        self._publisher.publish(data, {}, transient={"display_id": self._id}, update=self._made)
        self._made = True


def document(shown: Sequence[Shown], remarks: str = "") -> dict[str, Any]:
    """Return output as one MIME bundle, as text and as HTML with its images."""
    plain: list[str] = []
    rich: list[str] = []
    for is_text, group in itertools.groupby(shown, key=lambda one: isinstance(one.piece, TextLine)):
        if is_text:
            lines = [_line(one) for one in group]
            plain += lines
            rich.append(_pre("\n".join(lines)))
            continue
        for one in group:
            label, data = _label_and_data(one)
            plain.append(_beside(label, data))
            rich.append(f"<div><code>{html.escape(label)}</code> {_as_html(data)}</div>")
    if remarks:
        plain.append(remarks)
        rich.append(_pre(remarks))
    return {"text/plain": "\n".join(plain), "text/html": "\n".join(rich)}


def _label_and_data(shown: Shown) -> tuple[str, Mapping[str, Any]]:
    match shown.piece:
        case ExecuteResult(_, data, _) as result:
            return result_label(shown.engines, result), data
        case Display(data, _, _, _):
            return engine_label(shown.engines), data
        case _:
            return engine_label(shown.engines), {}


def _as_html(data: Mapping[str, Any]) -> str:
    for mime in _IMAGES:
        if mime in data:
            return f'<img src="data:{mime};base64,{data[mime]}" alt="{html.escape(str(data.get("text/plain", "")))}">'
    for mime in ("image/svg+xml", "text/html"):
        if mime in data:
            return str(data[mime])
    text = str(data.get("text/plain", ""))
    if others := [mime for mime in data if mime.startswith("application/vnd.")]:
        # All output of such a cell is one display, as HTML; but these types are drawn by parts of the front end.
        text = f"{text} ({others[0]} is drawn only under a cell that waits: leave out --noblock)".lstrip()
    return f"<code>{html.escape(text)}</code>" if "\n" not in text else _pre(text)


def _labelled(
    label: str, data: Mapping[str, Any], metadata: Mapping[str, Any], *, announced: bool = False
) -> tuple[dict[str, Any], Any]:
    """Return a MIME bundle whose text and HTML begin with ``label``; print the label before images and the like."""
    data = dict(data)
    # Images, and types that a part of the front end draws, have no place for a label.
    if any(mime.startswith(("image/", "application/vnd.")) for mime in data):
        if not announced:
            print(label)
        return data, dict(metadata)
    if "text/html" in data:
        data["text/html"] = f"<div><code>{html.escape(label)}</code></div>\n{data['text/html']}"
    data["text/plain"] = _beside(label, data)
    return data, dict(metadata)


def _beside(label: str, data: Mapping[str, Any]) -> str:
    text = str(data.get("text/plain", ""))
    return f"{label}\n{text}" if "\n" in text else f"{label} {text}"


def _print_lines(lines: Sequence[Shown]) -> None:
    import sys

    for stream, group in itertools.groupby(lines, key=lambda one: getattr(one.piece, "stream", "stdout")):
        text = "\n".join(_line(one) for one in group)
        print(text, file=sys.stderr if stream == "stderr" else sys.stdout, flush=True)


def _line(shown: Shown) -> str:
    text = shown.piece.text if isinstance(shown.piece, TextLine) else ""
    return f"{engine_label(shown.engines)} {text}"


def _status_text(lines: Mapping[int, str], progress: Progress | None) -> str:
    drawn = [f"{label} {line}"[:_COLUMNS] for label, line in grouped_statuses(lines)]
    if progress is not None:
        bar = "" if progress.doing else f"{_bar(progress)} "
        drawn.append(f"{progress.label}: {bar}{progress.amount}, {progress.times}")
    return "\n".join(drawn)


def _bar(progress: Progress) -> str:
    whole = round(_BAR * progress.done / progress.total) if progress.total else _BAR
    return "█" * whole + "░" * (_BAR - whole)


def _pre(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"
