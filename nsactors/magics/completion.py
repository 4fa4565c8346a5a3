"""Completion of names on engines, and ``%autopx``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from nsactors.errors import NsactorsError
from nsactors.protocol.control import Complete

if TYPE_CHECKING:
    from nsactors.client import Client

ANSWER_S = 1.0

_LINE = re.compile(r"\s*%(?P<magic>px\w*|pn)\s+")
_CELL = re.compile(r"\s*%%(?P<magic>px\w*)\b[^\n]*\n")
_PN_TARGET = re.compile(r"(?P<target>\S+)\s+")


def remote_part(text: str, line: str) -> tuple[str, str] | None:
    """Return the magic that will run ``line``, and the part of the line that it sends; None if the line runs here.

    Args:
        text: the whole cell.
        line: the line with the cursor, up to the cursor.
    """
    if found := _LINE.match(line):
        rest = line[found.end() :]
        if found["magic"] == "pn":
            target = _PN_TARGET.match(rest)
            return ("pn", rest[target.end() :]) if target else None
        return found["magic"], rest
    if found := _CELL.match(text):
        return found["magic"], line
    return None


class EngineCompleter:
    """Completes names for IPython with the help of an engine.

    Args:
        locate: returns, for the name of a magic, the client and the engine to ask; None without a cluster.
        everything: returns the magic that runs all cells at present (``%autopx``); None if cells run here.
    """

    def __init__(
        self, locate: Callable[[str], tuple[Client, int] | None], everything: Callable[[], str | None]
    ) -> None:
        self._locate = locate
        self._everything = everything

    @context_matcher(identifier="nsactors")  # type: ignore[untyped-decorator]
    def match(self, context: CompletionContext) -> SimpleMatcherResult:
        """Return the completions of the text before the cursor."""
        line = context.line_with_cursor[: context.cursor_position]
        part = remote_part(context.full_text, line)
        if part is None and (magic := self._everything()) is not None and not line.lstrip().startswith("%"):
            part = magic, line
        found = None if part is None else self._ask(*part)
        return {"completions": []} if found is None else _result(*found)

    def _ask(self, magic: str, code: str) -> tuple[str, tuple[str, ...]] | None:
        try:
            place = self._locate(magic)
            if place is None:
                return None
            client, engine_id = place
            replies = client.session.controller.query([engine_id], Complete(code, len(code)), ANSWER_S)
        except NsactorsError:
            return (
                None  # TAB must not raise an error: the next cell reports a lost connection, or an engine that has gone
            )
        reply = replies.get(engine_id)
        if reply is None or reply.value is None:
            return None
        return code[reply.value.start : reply.value.end], reply.value.matches


def _result(fragment: str, matches: tuple[str, ...]) -> SimpleMatcherResult:
    completions = [SimpleCompletion(text=match) for match in matches]
    return {"completions": completions, "matched_fragment": fragment, "suppress": bool(completions)}


_STAYS = re.compile(
    r"\s*(%{1,2}(autopx|px|pn|pxconfig|pxresult|result|pxreload|pxhistory|debug)\w*\b|(exit|quit)(\(\))?\s*$)"
)
_HELP = re.compile(r"(?P<indent>\s*)%(?P<magic>px\w*)\s+(?P<name>[A-Za-z_][\w.]*)\s*(?P<marks>\?{1,2})\s*$")


class CellSender:
    """Turns every cell into a ``%%px`` cell, except cells that start with a magic of nsactors or leave IPython.

    Args:
        magic: the name of the cell magic.
    """

    # IPython's check for complete input must see the cell as it was typed.
    has_side_effects = True

    def __init__(self, magic: str) -> None:
        self.magic = magic

    def __call__(self, lines: list[str]) -> list[str]:
        """Return the lines of the cell to run."""
        if not lines or not "".join(lines).strip() or _STAYS.match(lines[0]):
            return lines
        return [f"%%{self.magic}\n", *lines]


def ask_engines(lines: list[str]) -> list[str]:
    """Turn ``%px name?`` into ``%pxinfo name``, which asks an engine: IPython would look the name up here."""
    if len(lines) != 1 or not (found := _HELP.match(lines[0])):
        return lines
    suffix = found["magic"].removeprefix("px")
    return [f"{found['indent']}%pxinfo{suffix} {found['name']} {len(found['marks'])}\n"]
