"""Rewriting what is typed before IPython reads it: ``%autopx``, and help on names that live on engines."""

from __future__ import annotations

import re

__all__ = ["CellSender", "ask_engines"]

_STAYS = re.compile(r"\s*(%{1,2}(autopx|px|pn|pxconfig|pxresult|result|pxreload)\w*\b|(exit|quit)(\(\))?\s*$)")
_HELP = re.compile(r"(?P<indent>\s*)%(?P<magic>px\w*)\s+(?P<name>[A-Za-z_][\w.]*)\s*(?P<marks>\?{1,2})\s*$")


class CellSender:
    """Turns every cell into a ``%%px`` cell, but those that are about engines already, and those that leave IPython.

    Args:
        magic: the name of the cell magic.
    """

    # IPython's check for complete input must see the cell as it was typed.
    has_side_effects = True

    def __init__(self, magic: str) -> None:
        self.magic = magic

    def __call__(self, lines: list[str]) -> list[str]:
        """The lines of the cell as they are to run."""
        if not lines or not "".join(lines).strip() or _STAYS.match(lines[0]):
            return lines
        return [f"%%{self.magic}\n", *lines]


def ask_engines(lines: list[str]) -> list[str]:
    """Turn ``%px name?`` into a question to engines: IPython would look the name up here."""
    if len(lines) != 1 or not (found := _HELP.match(lines[0])):
        return lines
    suffix = found["magic"].removeprefix("px")
    return [f"{found['indent']}%pxinfo{suffix} {found['name']} {len(found['marks'])}\n"]
