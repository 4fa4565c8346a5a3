"""Completion of names that live on engines."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from nsactors.core.cluster import Complete
from nsactors.errors import NsactorsError

if TYPE_CHECKING:
    from nsactors.client import Client

__all__ = ["EngineCompleter", "remote_part"]

ANSWER_S = 1.0

_LINE = re.compile(r"\s*%(?P<magic>px\w*|pn)\s+")
_CELL = re.compile(r"\s*%%(?P<magic>px\w*)\b[^\n]*\n")
_PN_TARGET = re.compile(r"(?P<target>\S+)\s+")


def remote_part(text: str, line: str) -> tuple[str, str] | None:
    """The magic that will run ``line``, and the part of it that engines will see; None if it runs here.

    Args:
        text: everything that has been typed.
        line: the line with the cursor, up to it.
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
    """Answers IPython's completer by asking an engine.

    Args:
        locate: for a magic's name, the client and engine to ask; None if there is none yet.
        everything: the magic that runs all cells at present (``%autopx``); None if they run here.
    """

    def __init__(
        self, locate: Callable[[str], tuple[Client, int] | None], everything: Callable[[], str | None]
    ) -> None:
        self._locate = locate
        self._everything = everything

    @context_matcher(identifier="nsactors")  # type: ignore[untyped-decorator]
    def match(self, context: CompletionContext) -> SimpleMatcherResult:
        """What the text before the cursor can become."""
        line = context.line_with_cursor[: context.cursor_position]
        part = remote_part(context.full_text, line)
        if part is None and (magic := self._everything()) is not None and not line.lstrip().startswith("%"):
            part = magic, line
        found = None if part is None else self._ask(*part)
        return {"completions": []} if found is None else _result(*found)

    def _ask(self, magic: str, code: str) -> tuple[str, tuple[str, ...]] | None:
        place = self._locate(magic)
        if place is None:
            return None
        client, engine_id = place
        try:
            answers = client.session.transport.controller.ask([engine_id], Complete(code, len(code)), ANSWER_S)
        except NsactorsError:
            return None  # pressing TAB is no occasion to tell of a lost connection
        answer = answers.get(engine_id)
        if answer is None or answer.value is None:
            return None
        return code[answer.value.start : answer.value.end], answer.value.matches


def _result(fragment: str, matches: tuple[str, ...]) -> SimpleMatcherResult:
    completions = [SimpleCompletion(text=match) for match in matches]
    return {"completions": completions, "matched_fragment": fragment, "suppress": bool(completions)}
