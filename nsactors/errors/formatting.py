"""Wording of error messages: engine ranges, sizes, durations, quoted text.

Python suggests similar names when it prints an uncaught AttributeError, and IPython does not. So nsactors puts the
suggestion into the message. A class opts in with ``__getattr__ = suggest_name``. This line must be hidden from type
checkers, which would otherwise accept every attribute.
"""

from __future__ import annotations

import operator
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_TAIL_LINES = 10
_REPR_CHARS = 200
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\))")  # colours, and titles of terminals
# The control characters of ASCII and Latin-1, characters that change the direction of writing, and surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return a table in plain text: columns as wide as their cells, two spaces apart, each line indented by four."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"    {line}".rstrip() for line in lines)


def without_escapes(text: str) -> str:
    """Return text without colours and other escape codes of terminals."""
    return _ESCAPES.sub("", text)


def last_lines(text: str) -> str:
    """Return the last lines that a process wrote, as a paragraph; empty if it wrote nothing."""
    lines = without_escapes(text).rstrip().splitlines()[-_TAIL_LINES:]
    return "".join(["Last lines it wrote:\n", *(f"    {line}\n" for line in lines)]) if lines else ""


def printable(text: str, keep: str = "\n\t") -> str:
    r"""Escape control characters as ``\x1b`` and the like, in text that other users chose and a terminal will show.

    A terminal would obey them: move the cursor, erase, change its title, or answer. Characters that change the
    direction of writing are escaped too, because they make one name look like another. So are lone surrogates, because
    no terminal accepts them.

    Args:
        text: any text.
        keep: control characters to leave as they are.
    """
    if text.isprintable():  # the common case, decided in C
        return text
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def with_article(name: str) -> str:
    """Return a name with its article: ``an int``, ``a list``."""
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


def short_repr(value: object) -> str:
    """Return the repr of a value in one line, shortened if it is long; its class, if the value's own repr fails."""
    import reprlib

    try:
        shown = reprlib.repr(value)
    except (Exception, SystemExit):  # raised by the user's __repr__
        shown = f"<{type(value).__name__} instance>"
    return printable(shown if len(shown) <= _REPR_CHARS else shown[: _REPR_CHARS - 3] + "...", keep="")


def slice_in_words(targets: slice) -> str:
    """Return a slice as it is written in brackets: ``::2``."""
    bounds = [targets.start, targets.stop] + [targets.step] * (targets.step is not None)
    return ":".join("" if bound is None else short_repr(bound) for bound in bounds)


def qualified_name(cls: type) -> str:
    """Return the name of a class, with the name of its module unless the class is built in."""
    return f"{cls.__module__}.{cls.__qualname__}".removeprefix("builtins.")


def unknown_keyword(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown keyword, with the most similar known keyword, and all known ones.

    Args:
        kind: the kind of keyword, such as ``"flag"``.
        name: the keyword.
        known: the keywords that exist.
    """
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {kind} {name!r}: {guess}the {kind}s are {', '.join(names)}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def plural(noun: str, count: int) -> str:
    """Return a noun as it stands after a number: ``engine`` or ``engines``."""
    return noun if count == 1 else f"{noun}s"


_RUNS_SHOWN = 5
_CELL_NUMBER = re.compile(r"(?<=<cell )[\d.]+(?=>)")


def engine_ranges(engine_ids: Iterable[int]) -> str:
    """Name engines briefly: ``[7, 0, 1, 2, 3]`` gives ``"engines 0-3, 7"``.

    Order and repetition do not matter. One id gives ``"engine 5"``, none gives ``"no engines"``.
    """
    ids = sorted(set(engine_ids))
    return f"{plural('engine', len(ids))} {', '.join(_runs(ids))}" if ids else "no engines"


def item_ranges(numbers: Iterable[int]) -> str:
    """Name items of a map briefly, the first ones if there are many: ``"items 0-3, 7"``; empty without any."""
    found = sorted(set(numbers))
    runs = _runs(found)
    more = ", ..." if len(runs) > _RUNS_SHOWN else ""
    return f"{plural('item', len(found))} {', '.join(runs[:_RUNS_SHOWN])}{more}" if found else ""


def _runs(numbers: Iterable[int]) -> list[str]:
    """Return ascending numbers with consecutive ones joined, such as ``["0-3", "7"]``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [f"{first}-{last}" if first != last else str(first) for first, last in runs]


_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_FACTORS: dict[str, int] = {
    "": 1,
    "b": 1,
    **{f"{letter}{end}": 1000**power for power, letter in enumerate("kmgt", 1) for end in ("", "b")},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}


def reasons_by_engines(reasons: Mapping[int, str]) -> list[str]:
    """Return a line for each reason, which begins with its engines: ``engines 0-3: memray is not installed there``.

    Reasons that differ only in the numbers of cells, which engines count for themselves, are the same.

    Args:
        reasons: the reasons, by engine.
    """
    groups: dict[str, list[int]] = {}
    for engine_id, reason in sorted(reasons.items()):
        groups.setdefault(_CELL_NUMBER.sub("", reason), []).append(engine_id)
    return [f"{engine_ranges(ids)}: {reasons[ids[0]]}" for ids in groups.values()]


def bytes_in_words(nbytes: float) -> str:
    """Return ``"80 MB"`` for 80_000_000, ``"1.2 MB"`` for 1_250_000: powers of 1000, at most three digits."""
    size = float(nbytes)
    unit = 0
    while round(size) >= 1000 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    digits = 1 if unit and size < 9.95 else 0
    return f"{size:.{digits}f} {_UNITS[unit]}"


def amount_in_words(name: str, amount: float) -> str:
    """Return an amount of a resource, with the name that Ray gives it: ``"2 GPU"``, ``"8.0 GB of memory"``."""
    return f"{bytes_in_words(int(amount))} of memory" if name == "memory" else f"{amount:g} {name}"


def bytes_from_words(amount: int | str) -> int:
    """Return 2_000_000_000 for ``"2GB"``, 536_870_912 for ``"512 MiB"``; numbers are returned unchanged.

    Raises:
        ValueError: if the argument is not an amount of memory.
    """
    if not isinstance(amount, str):
        if amount >= 0:
            return operator.index(amount)
    elif match := re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-zA-Z]*)\s*", amount):
        factor = _FACTORS.get(match[2].lower())
        if factor is not None:
            return round(float(match[1]) * factor)
    raise ValueError(f"{amount!r} is no amount of memory: give a number of bytes, or text such as '2GB' or '512MiB'")


_MINUTE_S, _HOUR_S = 60, 3600


def seconds_in_words(seconds: float) -> str:
    """Return ``"4.21 s"`` for 4.207, ``"38.4 ms"`` for 0.0384, ``"2 min 05 s"`` for 125, ``"2 h 03 min"`` for 7380."""
    if seconds >= _HOUR_S:
        minutes = round(seconds / _MINUTE_S)
        return f"{minutes // 60} h {minutes % 60:02d} min"
    if round(seconds) >= 2 * _MINUTE_S:
        whole = round(seconds)
        return f"{whole // 60} min {whole % 60:02d} s"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / 1e-6)} µs" if seconds > 0 else "0 s"


def _three_digits(number: float) -> str:
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}"


class Speedometer:
    """Estimates the speed of work from its recent progress, since the first items of a map say little about the last.

    Args:
        total: the number of items in all.
        window_s: the period that the estimate covers, in seconds.
    """

    def __init__(self, total: int, window_s: float = 30.0) -> None:
        self._total = total
        self._window_s = window_s
        self._readings: deque[tuple[float, int]] = deque()

    def note(self, done: int, at: float) -> None:
        """Record the number of items done by the time ``at``, in seconds of a monotonic clock."""
        readings = self._readings
        readings.append((at, done))
        # Keep one reading at or before the edge of the window.
        while len(readings) > 2 and readings[1][0] <= at - self._window_s:
            readings.popleft()

    @property
    def rate(self) -> float | None:
        """Items per second; None while unknown."""
        if len(self._readings) < 2:
            return None
        (began, before), (now, done) = self._readings[0], self._readings[-1]
        return (done - before) / (now - began) if done > before and now > began else None

    @property
    def left_s(self) -> float | None:
        """Seconds until all items are done, at the present rate; None while unknown."""
        rate = self.rate
        return None if rate is None else (self._total - self._readings[-1][1]) / rate


def unknown_attribute(owner: object, name: str) -> AttributeError:
    """Return the error for a missing attribute ``name``, with the most similar name of a public attribute."""
    text = f"{type(owner).__name__!r} object has no attribute {name!r}"
    if not name.startswith("_"):  # programs probe for private names all the time, and discard the message
        import difflib

        public = [known for known in dir(owner) if not known.startswith("_")]
        if close := difflib.get_close_matches(name, public, n=1):
            text += f": did you mean {close[0]!r}?"
    # obj=None: with the owner, Python would suggest a similar name a second time.
    return AttributeError(text, name=name, obj=None)


def suggest_name(self: object, name: str) -> Any:
    """Raise the error for a missing attribute; assigned to a class's ``__getattr__``."""
    if name in dir(type(self)):  # a property that has raised AttributeError itself
        return object.__getattribute__(self, name)
    raise unknown_attribute(self, name)
