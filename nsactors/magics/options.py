"""What may stand behind ``%%px``, read into values."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from nsactors.core.targets import Targets, targets_from_text

__all__ = ["CELL", "CONFIG", "RESULT", "Options", "OptionsError", "leading_options", "parse", "parse_targets", "usage"]

_GROUPINGS = ("engine", "order", "type")


class OptionsError(ValueError):
    """A magic's options cannot be understood; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a cell; None stands for the default, which ``%pxconfig`` sets.

    Attributes:
        targets: the engines.
        block: wait for the cell.
        local: run it here as well.
        out: the name under which the result is kept here.
        group_outputs: show output when all have ended, by ``engine``, ``order`` or ``type``.
        progress_after_s: seconds until a progress bar is shown; negative for never.
        signal_on_interrupt: the signal that Ctrl-C sends to engines.
        stream: show output as it comes.
        verbose: say for each cell where it runs.
        timeout_s: seconds after which the cell is interrupted.
        journal: whether a recovery of an engine's namespace runs the cell again.
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

    def over(self, defaults: Self) -> Self:
        """These options, and those of ``defaults`` where none was given."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return replace(defaults, **given)


@dataclass(frozen=True, slots=True)
class _Option:
    """One way to write an option: what it sets, and how its argument (if it has one) is read."""

    sets: str
    value: Any = None
    reads: Callable[[str], Any] | None = None
    argument: str = ""


def parse_targets(text: str) -> Targets:
    """The engines that ``text`` names.

    Args:
        text: ``3``, ``0,2`` or ``[0, 2]``, a slice such as ``::2``, or ``all``.

    Raises:
        OptionsError: if it is none of these.
    """
    try:
        return targets_from_text(text)
    except ValueError as error:
        raise OptionsError(str(error)) from None


def _parse_signal(text: str) -> int:
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    if text.isdigit() and int(text) in {0, *signal.valid_signals()}:
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


def _parse_seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OptionsError(f"a number of seconds was expected, not {text!r}") from None


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
    "--timeout": _Option("timeout_s", reads=_parse_seconds, argument="SECONDS"),
    "--journal": _Option("journal", True),
    "--no-journal": _Option("journal", False),
}
"""What ``%pxconfig`` takes."""

RESULT: dict[str, _Option] = {
    "--out": _OUT,
    "-o": _OUT,
    "--group-outputs": _GROUP,
    "-e": _Option("group_outputs", "engine"),
    "-r": _Option("group_outputs", "order"),
}
"""What ``%result`` takes."""

CELL: dict[str, _Option] = {**CONFIG, **RESULT, "--local": _Option("local", True)}
"""What ``%%px`` takes."""


def parse(line: str, allowed: dict[str, _Option], magic: str) -> tuple[Options, list[str]]:
    """Read a magic's line.

    Returns:
        The options, and the words that are none.

    Raises:
        OptionsError: for an option that does not exist here, or whose argument is missing or wrong.

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
        name, equals, argument = word.partition("=")
        option = allowed.get(name)
        if option is None:
            raise OptionsError(f"{magic} has no option {name}.\n{usage(magic, allowed)}")
        found[option.sets] = _read(magic, name, option, [argument, *words] if equals else words)
        if option.reads is not None and not equals:
            words.pop(0)
    return Options(**found), others


def leading_options(line: str) -> tuple[str, str]:
    """The long options at the start of a ``%px`` line, and the code behind them, which may begin with one minus.

    Example:
        >>> leading_options("--targets 0 --noblock print(-a)")
        ('--targets 0 --noblock', 'print(-a)')
    """
    rest = line.lstrip()
    while (found := re.match(r"--[a-z][a-z-]*(=\S+)?(\s+|$)", rest)) and (name := found.group().strip()):
        option = CELL.get(name.partition("=")[0])
        taken = found.end()
        if option is not None and option.reads is not None and "=" not in name:
            argument = re.match(r"\S+\s*", rest[taken:])
            taken += argument.end() if argument else 0
        rest = rest[taken:]
    return line[: len(line) - len(rest)].strip(), rest


def usage(magic: str, allowed: dict[str, _Option]) -> str:
    """The options of a magic, for people."""
    spellings: dict[tuple[str, Any, str], list[str]] = {}
    for name, option in allowed.items():
        spellings.setdefault((option.sets, option.value, option.argument), []).append(name)
    written = [
        f"{', '.join(names)}{' ' + argument if argument else ''}" for (_, _, argument), names in spellings.items()
    ]
    return f"{magic} takes: " + "; ".join(written)


def _read(magic: str, name: str, option: _Option, words: Sequence[str]) -> Any:
    if option.reads is None:
        return option.value
    if not words:
        raise OptionsError(f"{magic} {name} needs an argument: {name} {option.argument}")
    try:
        return option.reads(words[0])
    except OptionsError as error:
        raise OptionsError(f"{magic} {name}: {error}") from None
