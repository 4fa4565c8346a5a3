"""Text as a terminal shows it, line by line."""

from __future__ import annotations

import re

__all__ = ["LINE_LIMIT", "LineEditor"]

LINE_LIMIT = 20_000
"""Characters of one line that are kept."""

_TOKENS = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1b[^\[\]\x1b\n\r\b]|[\n\r\b]|[^\x1b\n\r\b]+"
)
_CONTROL = re.compile(r"[\x1b\r\b]")
_INCOMPLETE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*|\][^\x07\x1b\n]*\x1b?)?\Z")


class LineEditor:
    """One stream of one engine: finished lines come out, the unfinished one can be looked at.

    A carriage return goes back to the start of the line, a backspace one place; what is written then replaces what was
    there. Colours stay with their characters; other escape sequences that move the cursor between lines are dropped.
    """

    def __init__(self) -> None:
        self._cells: list[str] = []  # a character each, with the escape sequences before it
        self._cursor = 0
        self._style = ""
        self._incomplete = ""

    @property
    def unfinished(self) -> str:
        """The line that has not ended yet."""
        return "".join(self._cells) + self._style

    def take(self) -> str:
        """The unfinished line, which is finished now."""
        line, self._cells, self._cursor, self._style = self.unfinished, [], 0, ""
        return line

    def feed(self, text: str) -> list[str]:
        """Take text; the lines that it finished."""
        if not self._cells and not self._style and not self._incomplete and not _CONTROL.search(text):
            # The common case, by far: whole lines without any control character.
            *lines, rest = text.split("\n")
            self._write(rest)
            return [line[:LINE_LIMIT] for line in lines]
        text, self._incomplete = self._incomplete + text, ""
        if cut := _INCOMPLETE.search(text):
            text, self._incomplete = text[: cut.start()], cut.group()
        finished = []
        for token in _TOKENS.findall(text):
            match token:
                case "\n":
                    finished.append(self.take())
                case "\r":
                    self._cursor = 0
                case "\b":
                    self._cursor = max(0, self._cursor - 1)
                case _ if token[0] == "\x1b":
                    self._obey(token)
                case _:
                    self._write(token)
        return finished

    def _write(self, text: str) -> None:
        cells = list(text[: max(0, LINE_LIMIT - self._cursor)])
        if cells and self._style:
            cells[0], self._style = self._style + cells[0], ""
        self._cells[self._cursor : self._cursor + len(cells)] = cells
        self._cursor += len(cells)

    def _obey(self, sequence: str) -> None:
        if sequence.startswith("\x1b[") and sequence.endswith("m"):
            self._style += sequence
        elif sequence in ("\x1b[K", "\x1b[0K"):
            del self._cells[self._cursor :]
        elif sequence == "\x1b[2K":
            # Erasing leaves the cursor where it was: blanks stand for what was erased before it.
            self._cells = [" "] * self._cursor
