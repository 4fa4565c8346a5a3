"""How amounts of memory are written by people and for them."""

import re

__all__ = ["amount_in_words", "bytes_from_words", "bytes_in_words"]

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_FACTORS: dict[str, int] = {
    "": 1,
    "b": 1,
    **{f"{letter}{end}": 1000**power for power, letter in enumerate("kmgt", 1) for end in ("", "b")},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}


def bytes_in_words(nbytes: float) -> str:
    """``80_000_000`` gives ``"80 MB"``, ``1_250_000`` gives ``"1.2 MB"``: powers of 1000, at most three digits."""
    size = float(nbytes)
    unit = 0
    while round(size) >= 1000 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    digits = 1 if unit and size < 9.95 else 0
    return f"{size:.{digits}f} {_UNITS[unit]}"


def amount_in_words(name: str, amount: float) -> str:
    """How much of a resource, by the name that Ray gives it: ``"2 GPU"``, ``"1.5 license"``, ``"8.0 GB of memory"``."""
    return f"{bytes_in_words(int(amount))} of memory" if name == "memory" else f"{amount:g} {name}"


def bytes_from_words(amount: int | str) -> int:
    """``"2GB"`` gives ``2_000_000_000``, ``"512 MiB"`` gives ``536_870_912``; a number is taken as it is.

    Raises:
        ValueError: if that is no amount of memory.
    """
    if isinstance(amount, int):
        if amount >= 0:
            return amount
    elif match := re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-zA-Z]*)\s*", amount):
        factor = _FACTORS.get(match[2].lower())
        if factor is not None:
            return round(float(match[1]) * factor)
    raise ValueError(f"{amount!r} is no amount of memory: give a number of bytes, or text such as '2GB' or '512MiB'")
