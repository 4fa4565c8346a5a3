"""The options of magics, and their parser."""

from __future__ import annotations

import difflib
import math
import re
import shlex
import signal
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, Self

from nsactors._frozen import frozen
from nsactors.inside.profiles import HOWS
from nsactors.protocol.targets import Targets, targets_from_text

_GROUPINGS = ("engine", "order", "type")


class OptionsError(ValueError):
    """A magic has a wrong option; the message lists the allowed ones."""


@frozen
class Options:
    """The options of a cell; None stands for the default, which ``%pxconfig`` sets.

    Attributes:
        targets: the engines.
        block: wait for the cell.
        local: also run the cell in this process.
        out: the name to bind to the result in this process.
        group_outputs: show output when all engines have ended, grouped by ``engine``, ``order`` or ``type``.
        progress_after_s: seconds until a progress bar is shown; negative for never.
        signal_on_interrupt: the signal that Ctrl-C sends to engines.
        stream: show output as it is printed.
        verbose: print the engines of each cell.
        timeout_s: seconds after which the cell is interrupted; ``inf`` for no limit.
        journal: record the cell in the journal, so that a replay runs it again.
        breaks: stop at breakpoints.
        file: the file for a history.
        profile: how to measure where the cell spends its time: ``sample`` or ``calls``.
        profile_out: the file for the profile.
        threads: show the stacks of all threads that run user code.
        native: show functions of C code in stacks.
        disturb: read stacks with a signal where they cannot be read otherwise.
    """

    targets: Targets = None
    block: bool | None = None
    local: bool | None = None
    out: str | None = None
    group_outputs: str | None = None
    progress_after_s: float | None = None
    signal_on_interrupt: int | None = None
    stream: bool | None = None
    verbose: bool | None = None
    timeout_s: float | None = None
    journal: bool | None = None
    breaks: bool | None = None
    file: str | None = None
    profile: str | None = None
    profile_out: str | None = None
    threads: bool | None = None
    native: bool | None = None
    disturb: bool | None = None

    @property
    def limit_s(self) -> float | None:
        """The time limit of a cell in seconds; None without a limit."""
        return None if self.timeout_s is None or math.isinf(self.timeout_s) else self.timeout_s

    def over(self, defaults: Self) -> Self:
        """Return these options, completed by those of ``defaults``."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return replace(defaults, **given)


@frozen
class _Option:
    """One spelling of an option: the field of ``Options`` that it sets, its value, or the parser of its argument.

    An option with both has the value if it is written without an argument; the argument follows an equals sign.
    """

    sets: str
    value: Any = None
    reads: Callable[[str], Any] | None = None
    argument: str = ""

    @property
    def takes_word(self) -> bool:
        """True if its argument may be the next word."""
        return self.reads is not None and self.value is None


def parse_targets(text: str) -> Targets:
    """Parse the engines of a magic.

    Args:
        text: ``3``, ``0,2`` or ``[0, 2]``, a slice such as ``::2``, or ``all``.

    Raises:
        OptionsError: if the text has none of these forms.
    """
    try:
        return targets_from_text(text)
    except ValueError as error:
        raise OptionsError(str(error)) from None


def _parse_signal(text: str) -> int:
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    if text.isdecimal() and int(text) in {0, *signal.valid_signals()}:
        return int(text)
    if name in signal.Signals.__members__:
        return int(signal.Signals[name])
    raise OptionsError(f"a signal is given by name or number, such as SIGINT or 2, not {text!r}")


def _parse_name(text: str) -> str:
    if not text.isidentifier():
        raise OptionsError(f"a result is kept under a name, not {text!r}")
    return text


def _parse_grouping(text: str) -> str:
    if text not in _GROUPINGS:
        raise OptionsError(f"outputs are grouped by {', '.join(_GROUPINGS)}, not by {text!r}")
    return text


def _parse_profile(text: str) -> str:
    if text not in HOWS:
        raise OptionsError(f"a profile is made by {', '.join(HOWS[:-1])} or {HOWS[-1]}, not by {text!r}")
    return text


def _parse_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise OptionsError(f"a number of seconds was expected, not {text!r}")
    return seconds


def _parse_limit(text: str) -> float:
    if text == "none":
        return math.inf
    limit_s = _parse_seconds(text)
    if limit_s < 0:
        raise OptionsError(f"a number of seconds from 0 on was expected, not {text!r}")
    return limit_s


_TARGETS = _Option("targets", reads=parse_targets, argument="ENGINES")
_OUT = _Option("out", reads=_parse_name, argument="NAME")
_GROUP = _Option("group_outputs", reads=_parse_grouping, argument="|".join(_GROUPINGS))
_BLOCK, _NOBLOCK = _Option("block", True), _Option("block", False)

CONFIG: dict[str, _Option] = {
    "--targets": _TARGETS,
    "-t": _TARGETS,
    "--block": _BLOCK,
    "-b": _BLOCK,
    "--noblock": _NOBLOCK,
    "-a": _NOBLOCK,
    "--stream": _Option("stream", True),
    "--no-stream": _Option("stream", False),
    "--verbose": _Option("verbose", True),
    "--no-verbose": _Option("verbose", False),
    "--progress-after": _Option("progress_after_s", reads=_parse_seconds, argument="SECONDS"),
    "--signal-on-interrupt": _Option("signal_on_interrupt", reads=_parse_signal, argument="NAME"),
    "--timeout": _Option("timeout_s", reads=_parse_limit, argument="SECONDS"),
    "--journal": _Option("journal", True),
    "--no-journal": _Option("journal", False),
    "--break": _Option("breaks", True),
    "--no-break": _Option("breaks", False),
}
"""The options of ``%pxconfig``."""

RESULT: dict[str, _Option] = {
    "--out": _OUT,
    "-o": _OUT,
    "--group-outputs": _GROUP,
    "-e": _Option("group_outputs", "engine"),
    "-r": _Option("group_outputs", "order"),
}
"""The options of ``%result``."""

_FILE = _Option("file", reads=str, argument="FILE")
HISTORY: dict[str, _Option] = {"--file": _FILE, "-f": _FILE}
"""The options of ``%pxhistory``."""

STACK: dict[str, _Option] = {
    "--threads": _Option("threads", True),
    "--native": _Option("native", True),
    "--disturb": _Option("disturb", True),
}
"""The options of ``%pxstack``."""

CELL: dict[str, _Option] = {
    **CONFIG,
    **RESULT,
    "--local": _Option("local", True),
    "--profile": _Option("profile", "sample", _parse_profile, "|".join(HOWS)),
    "--profile-out": _Option("profile_out", reads=str, argument="FILE"),
}
"""The options of ``%%px``."""


def parse(line: str, allowed: dict[str, _Option], magic: str) -> tuple[Options, list[str]]:
    """Parse the line of a magic.

    Returns:
        The options, and all other words.

    Raises:
        OptionsError: if an option is unknown, or its argument is missing or wrong.

    Example:
        >>> parse("--targets ::2 --noblock", CELL, "%%px")
        (Options(targets=slice(None, None, 2), block=False, ...), [])
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise OptionsError(f"{magic}: {error}") from None
    found: dict[str, Any] = {}
    others: list[str] = []
    while words:
        word = words.pop(0)
        if not re.match(r"--?[a-z]", word):
            others.append(word)
            continue
        name, equals, argument = _divided(word, allowed)
        option = allowed.get(name)
        if option is None:
            near = difflib.get_close_matches(name, allowed, 1) if name.startswith("--") else []
            meant = f": did you mean {near[0]}?" if near else "."
            raise OptionsError(f"{magic} has no option {name}{meant}\n{usage(magic, allowed)}")
        found[option.sets] = _read(magic, name, option, [argument, *words] if equals else words, written=bool(equals))
        if option.takes_word and not equals:
            words.pop(0)
    return Options(**found), others


def _divided(word: str, allowed: dict[str, _Option]) -> tuple[str, str, str]:
    """Divide a word into an option, an equals sign and its argument; ``-t0`` is ``-t=0``."""
    short = allowed.get(word[:2])
    if short is not None and short.takes_word and word[2:3] not in ("", "="):
        return word[:2], "=", word[2:]
    return word.partition("=")


def leading_options(line: str) -> tuple[str, str]:
    """Split a ``%px`` line into its leading long options and the code behind them, which may begin with a minus.

    Example:
        >>> leading_options("--targets 0 --noblock print(-a)")
        ('--targets 0 --noblock', 'print(-a)')
    """
    rest = line.lstrip()
    while (found := re.match(r"--[a-z][a-z-]*(=\S+)?(\s+|$)", rest)) and (name := found.group().strip()):
        option = CELL.get(name.partition("=")[0])
        taken = found.end()
        if option is not None and option.takes_word and "=" not in name:
            argument = re.match(r"\S+\s*", rest[taken:])
            taken += argument.end() if argument else 0
        rest = rest[taken:]
    return line[: len(line) - len(rest)].strip(), rest


def meant_option(code: str) -> str | None:
    """Return the line that the user probably meant, with long options first; None without options.

    Example:
        >>> meant_option("-t 0 x = 1")
        '--targets 0 x = 1'
        >>> meant_option("x = 1 --targets 0")
        '--targets 0 x = 1'
    """
    words = code.split()
    for place, word in enumerate(words):
        name, equals, argument = _divided(word, CELL)
        option = CELL.get(name)
        if option is None or (place and not name.startswith("--")):  # x -a is code
            continue
        taken = place + (2 if option.takes_word and not equals else 1)
        written = (
            words[place:taken]
            if name.startswith("--")
            else _long_form(option, [argument] if equals else words[1:taken])
        )
        return " ".join([*written, *words[:place], *words[taken:]])
    return None


def _long_form(option: _Option, arguments: list[str]) -> list[str]:
    """Return a short option as it is written in full: ``-e`` is ``--group-outputs engine``."""
    names = [name for name, other in CELL.items() if name.startswith("--") and other.sets == option.sets]
    exact = [name for name in names if CELL[name] == option]
    return [exact[0], *arguments] if exact else [names[0], str(option.value)]


def usage(magic: str, allowed: dict[str, _Option]) -> str:
    """Return the list of a magic's options, for error messages."""
    spellings: dict[tuple[str, Any, str], list[str]] = {}
    for name, option in allowed.items():
        spellings.setdefault((option.sets, option.value, option.argument), []).append(name)
    written = [
        f"{', '.join(names)}{' ' + argument if argument else ''}" for (_, _, argument), names in spellings.items()
    ]
    return f"{magic} takes: " + "; ".join(written)


def _read(magic: str, name: str, option: _Option, words: Sequence[str], *, written: bool) -> Any:
    if option.reads is None or (option.value is not None and not written):
        return option.value
    if not words:
        raise OptionsError(f"{magic} {name} needs an argument: {name} {option.argument}")
    try:
        return option.reads(words[0])
    except OptionsError as error:
        raise OptionsError(f"{magic} {name}: {error}") from None
