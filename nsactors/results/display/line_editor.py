"""The text that a terminal would show: carriage returns, backspaces, colours, and drawings of several lines."""

from __future__ import annotations

import re

LINE_LIMIT = 20_000
"""Characters of one line that are kept."""

ROWS = 40
"""Lines of a drawing that can be changed; the lines above them are finished."""

_TOKENS = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1b[^\[\]\x1b\n\r\b]|[\n\r\b]|[^\x1b\n\r\b]+"
)
_CONTROL = re.compile(r"[\x1b\r\b]")
_INCOMPLETE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*|\][^\x07\x1b\n]*\x1b?)?\Z")
_MOVES = re.compile(r"\x1b\[(\d*)([ABEF])\Z")
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class _Row:
    """A line that can be written over: each cell is a character, with the escape sequences before it."""

    def __init__(self) -> None:
        self.cells: list[str] = []
        self.style = ""  # escape sequences for the next character

    def __str__(self) -> str:
        return "".join(self.cells) + self.style


class LineEditor:
    """One stream of one engine: finished lines are returned, unfinished ones can be read.

    A carriage return goes back to the start of the line, a backspace by one place. Text that is then written replaces
    the old text. Colours stay with their characters.

    A line is finished by its line end, unless it is part of a drawing of several lines, such as the bars of ``tqdm`` or
    ``rich``, which move the cursor up again. From then on, as many lines stay unfinished as the cursor has moved up.
    Libraries hide the cursor while they draw; while it is hidden, the last :data:`ROWS` lines stay unfinished.

    Attributes:
        redraws: whether text has been, or is about to be, overwritten. The line is then a bar, and not the beginning of
            a text.
    """

    def __init__(self) -> None:
        self._rows = [_Row()]
        self._row = 0
        self._cursor = 0
        self._incomplete = ""
        self._height = 0  # the number of lines of the drawing above its last one
        self._hidden = False
        self.redraws = False

    @property
    def unfinished(self) -> str:
        """The unfinished lines: one, or those of a drawing."""
        return "\n".join(map(str, self._rows))

    @property
    def is_idle(self) -> bool:
        """True if no line is unfinished or being drawn. This is the state before the first text."""
        first = self._rows[0]
        busy = len(self._rows) > 1 or first.cells or first.style or self._incomplete or self._height or self._hidden
        return not busy

    def take(self) -> list[str]:
        """Finish the unfinished lines and return them."""
        lines = [str(row) for row in self._rows]
        if not lines[-1]:
            lines.pop()
        self._rows, self._row, self._cursor, self._height = [_Row()], 0, 0, 0
        self._hidden = self.redraws = False
        return lines

    def feed(self, text: str) -> list[str]:
        """Take text; return the lines that it finished."""
        if self.is_idle and not _CONTROL.search(text):
            # This is by far the most common case: whole lines without any control character.
            *lines, rest = text.split("\n")
            self._write(rest)
            return [line[:LINE_LIMIT] for line in lines]
        text, self._incomplete = self._incomplete + text, ""
        if cut := _INCOMPLETE.search(text):
            text, self._incomplete = text[: cut.start()], cut.group()
        finished: list[_Row] = []
        for token in _TOKENS.findall(text):
            match token:
                case "\n":
                    self._go_down()
                    self._finish(finished)
                case "\r":
                    self._cursor = 0
                case "\b":
                    self._cursor = max(0, self._cursor - 1)
                case _ if token[0] == "\x1b":
                    self._obey(token, finished)
                case _:
                    self._write(token)
        return [str(row) for row in finished]

    def _go_down(self) -> None:
        self._row += 1
        self._cursor = 0
        if self._row == len(self._rows):
            self._rows.append(_Row())

    def _go_up(self, count: int, finished: list[_Row]) -> None:
        while self._row < count and finished:  # these rows have not been returned yet
            self._rows.insert(0, finished.pop())
            self._row += 1
        count = min(count, self._row)
        self._row -= count
        self._height = min(ROWS, max(self._height, count))
        self.redraws |= count > 0

    def _finish(self, finished: list[_Row]) -> None:
        """Return the lines above the drawing, which are finished."""
        height = ROWS if self._hidden else self._height
        while len(self._rows) - 1 > height and self._row > 0:
            finished.append(self._rows.pop(0))
            self._row -= 1

    def _write(self, text: str) -> None:
        row = self._rows[self._row]
        self.redraws |= bool(text) and self._cursor < len(row.cells)
        if self._cursor > len(row.cells):
            row.cells += " " * (self._cursor - len(row.cells))
        cells = list(text[: max(0, LINE_LIMIT - self._cursor)])
        if cells and row.style:
            cells[0], row.style = row.style + cells[0], ""
        row.cells[self._cursor : self._cursor + len(cells)] = cells
        self._cursor += len(cells)

    def _obey(self, sequence: str, finished: list[_Row]) -> None:
        row = self._rows[self._row]
        if sequence.startswith("\x1b[") and sequence.endswith("m"):
            row.style += sequence
        elif sequence in ("\x1b[K", "\x1b[0K"):
            del row.cells[self._cursor :]
        elif sequence == "\x1b[2K":
            # Erasing does not move the cursor, so blanks replace the erased text before it.
            row.cells = [" "] * self._cursor
        elif sequence in ("\x1b[J", "\x1b[0J"):
            del row.cells[self._cursor :]
            del self._rows[self._row + 1 :]
        elif sequence == _HIDE_CURSOR:
            self._hidden = self.redraws = True
        elif sequence == _SHOW_CURSOR:
            self._hidden, self._height = False, 0
            self._finish(finished)
        elif move := _MOVES.match(sequence):
            count = int(move[1] or 1)
            if move[2] in "AF":
                column = self._cursor
                self._go_up(count, finished)
                self._cursor = 0 if move[2] == "F" else column
            else:
                column = self._cursor
                for _ in range(min(count, len(self._rows) - 1 - self._row)):
                    self._go_down()
                self._cursor = 0 if move[2] == "E" else column
