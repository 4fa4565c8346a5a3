"""Arguments of public calls, checked before anything is sent.

A public function checks all of its arguments in its first statement::

    from nsactors.protocol import arguments as arg

    arg.check("execute", code=arg.text(code), block=arg.flag(block, or_none=True), timeout=arg.seconds(timeout))

Each of ``flag``, ``seconds`` and so on checks one value: it returns None if the value is valid, and otherwise an
`Unfit` that says which values are valid. NumPy's integers, floats and booleans are accepted like Python's; a truth
value is not accepted as a number.

Arguments are checked by function calls, not by a decorator that reads annotations: a wrapper adds a frame to every
traceback and every step of a debugger, and hides the checks from the reader of the function.
"""

from __future__ import annotations

import math
import operator
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from nsactors.errors.exceptions import WrongType, WrongValue
from nsactors.protocol.messages import Reference
from nsactors.protocol.partition import refusal
from nsactors.protocol.serialize import RemoteValue

LONGEST_S = float(2**63 // 10**9)
"""The longest time for which a lock of Python can wait: some 292 years."""

# Tested first: they are the most common, and isinstance with an abstract class takes half a microsecond.
_PLAIN_ITERABLES = frozenset({list, tuple, range, str, dict})
_STANDS_FOR_FUNCTION = (Reference, RemoteValue)


class Unfit(NamedTuple):
    """An invalid argument.

    Attributes:
        value: the argument.
        takes: the values that its parameter takes, in words.
        error: the class of the error.
    """

    value: object
    takes: str
    error: type[WrongType] | type[WrongValue]


def check(call: str, **parameters: Unfit | None) -> None:
    """Raise an error for the first parameter whose argument is invalid.

    Args:
        call: the name of the public function.
        parameters: for each parameter, the result of one of the checks in this module.

    Raises:
        InvalidArgument: as `WrongType` or `WrongValue`.
    """
    for unfit in parameters.values():
        if unfit is not None:
            break
    else:
        return
    name = next(name for name, found in parameters.items() if found is unfit)
    raise unfit.error(call, name, unfit.value, unfit.takes)


def flag(value: object, *, or_none: bool = False) -> Unfit | None:
    """Accept ``True`` and ``False`` only: a text such as ``"no"`` would be true."""
    if value is True or value is False or (value is None and or_none):
        return None
    if _is_numpy_flag(value):
        return None
    return Unfit(value, "True, False or None" if or_none else "True or False", WrongType)


def text(value: object, *, or_none: bool = False) -> Unfit | None:
    """Accept a ``str``."""
    if isinstance(value, str) or (value is None and or_none):
        return None
    return Unfit(value, _or_none("text", or_none), WrongType)


def identifier(value: object) -> Unfit | None:
    """Accept a name that Python can bind."""
    takes = "a name that Python can bind, such as 'x'"
    if not isinstance(value, str):
        return Unfit(value, takes, WrongType)
    return None if value.isidentifier() else Unfit(value, takes, WrongValue)


def path(value: object) -> Unfit | None:
    """Accept the path of a file."""
    if not isinstance(value, str | os.PathLike):
        return Unfit(value, "the path of a file", WrongType)
    return None


def choice(value: object, choices: Iterable[str], *, or_none: bool = False) -> Unfit | None:
    """Accept one of the words in ``choices``."""
    if value is None and or_none:
        return None
    words = tuple(choices)
    if (type(value) is str or isinstance(value, str)) and value in words:
        return None
    takes = _or_none(f"one of {', '.join(map(repr, words))}", or_none)
    return Unfit(value, takes, WrongValue if isinstance(value, str) else WrongType)


def distribution(value: object, choices: Iterable[str]) -> Unfit | None:
    """Accept a distribution of items over engines: one of the words in ``choices``, or a partitioner."""
    if not isinstance(value, str) and callable(value):
        return None
    if (unfit := choice(value, choices)) is None:
        return None
    takes = f"{unfit.takes}, or a partitioner: a function of the number of items and the number of parts"
    return Unfit(value, takes, unfit.error)


def whole(value: object, *, at_least: int | None = None, or_none: bool = False) -> Unfit | None:
    """Accept an ``int``, or an object that ``operator.index`` converts to one."""
    if type(value) is int:
        count = value
    elif value is None and or_none:
        return None
    elif (index := _index(value)) is None:
        return Unfit(value, _whole_words(at_least, or_none), WrongType)
    else:
        count = index
    if at_least is not None and count < at_least:
        return Unfit(value, _whole_words(at_least, or_none), WrongValue)
    return None


def number(
    value: object,
    *,
    at_least: float | None = None,
    above: float | None = None,
    or_none: bool = False,
    finite: bool = True,
) -> Unfit | None:
    """Accept an ``int`` or a ``float``; with ``finite``, neither NaN nor infinity.

    NaN is within any limit if it is accepted at all.
    """
    if value is None and or_none:
        return None
    limit = f", {at_least:g} or more" if at_least is not None else f", more than {above:g}" if above is not None else ""
    takes = _or_none(f"a {'finite ' * finite}number{limit}", or_none)
    return _number(value, at_least, above, sys.float_info.max if finite else None, takes)


def seconds(value: object, *, or_none: bool = True, negative: bool = False) -> Unfit | None:
    """Accept a length of time in seconds.

    Args:
        value: the argument.
        or_none: accept None, for no limit.
        negative: accept negative numbers, for no limit.
    """
    if value is None and or_none:
        return None
    if type(value) is float and 0.0 <= value <= LONGEST_S:  # the common case
        return None
    takes = "a number of seconds" if negative else "a number of seconds, 0 or more"
    if or_none:
        takes += ", or None or a negative number for no limit" if negative else ", or None for no limit"
    return _number(value, None if negative else 0, None, LONGEST_S, takes)


def limit_s(timeout: float | None) -> float | None:
    """Convert a checked time limit for code that waits. A negative number means no limit and becomes None."""
    return None if timeout is None or timeout < 0 else float(timeout)


def moment(value: object, *, or_none: bool = False) -> Unfit | None:
    """Accept a point in time that has a number of seconds since the epoch: a ``datetime``, or that number."""
    if value is None and or_none:
        return None
    takes = _or_none("a datetime, or seconds since the epoch", or_none)
    if not isinstance(value, datetime):
        unfit = number(value)
        return None if unfit is None else Unfit(value, takes, unfit.error)
    try:
        fits = math.isfinite(value.timestamp())  # the timestamp of a missing time in pandas is NaN
    except (ValueError, OverflowError, OSError):  # the first and last days of the calendar, as local time
        fits = False
    return None if fits else Unfit(value, takes, WrongValue)


def moment_s(value: datetime | float) -> float:
    """Convert a checked point in time to seconds since the epoch; a ``datetime`` without a time zone is local time."""
    return value.timestamp() if isinstance(value, datetime) else float(value)


def signal_of(call: str, value: object) -> signal.Signals:
    """Return a signal, given by its number or name.

    Args:
        call: the name of the public function, whose parameter is ``number``.
        value: the argument.

    Raises:
        InvalidArgument: if there is no such signal.
    """
    takes = "a signal, by its number or a name such as 'SIGUSR1'"
    try:
        if isinstance(value, str):
            return signal.Signals[value]
        if whole(value) is None:
            return signal.Signals(operator.index(value))  # type: ignore[arg-type]  # it is a whole number
    except (KeyError, ValueError):
        raise WrongValue(call, "number", value, takes) from None
    raise WrongType(call, "number", value, takes)


def plain(value: Any) -> Any:
    """Convert a checked number or truth value of NumPy to one of Python, to be sent or compared."""
    return value.item() if type(value).__module__ == "numpy" else value


def function(value: object, *, or_none: bool = False) -> Unfit | None:
    """Accept a callable, or a reference to one on an engine."""
    if callable(value) or isinstance(value, _STANDS_FOR_FUNCTION) or (value is None and or_none):
        return None
    return Unfit(value, _or_none("a function, or another object that can be called", or_none), WrongType)


def mapping(value: object, takes: str, *, or_none: bool = False) -> Unfit | None:
    """Accept a mapping; ``takes`` describes it."""
    if type(value) is dict or isinstance(value, Mapping) or (value is None and or_none):
        return None
    return Unfit(value, _or_none(takes, or_none), WrongType)


def texts(value: object, takes: str, *, or_none: bool = False) -> Unfit | None:
    """Accept a mapping of text to text; ``takes`` describes it."""
    if (unfit := mapping(value, takes, or_none=or_none)) is not None or value is None:
        return unfit
    assert isinstance(value, Mapping)
    if all(isinstance(part, str) for item in value.items() for part in item):
        return None
    return Unfit(value, f"{_or_none(takes, or_none)}, all of them text", WrongType)


def values_by_name(value: object) -> Unfit | None:
    """Accept a mapping of names to values, or None."""
    takes = "a dictionary of names and values, or None"
    if value is None:
        return None
    if (unfit := mapping(value, takes)) is not None:
        return unfit
    assert isinstance(value, Mapping)
    return None if all(type(name) is str for name in value) else Unfit(value, takes, WrongType)


def amounts(value: object, takes: str, *, or_none: bool = False) -> Unfit | None:
    """Accept a mapping of names to numbers, 0 or more; ``takes`` describes it."""
    if (unfit := mapping(value, takes, or_none=or_none)) is not None or value is None:
        return unfit
    assert isinstance(value, Mapping)
    for name, amount in value.items():
        if (unfit := text(name) or number(amount, at_least=0)) is not None:
            return Unfit(value, f"{_or_none(takes, or_none)}: an amount is a finite number, 0 or more", unfit.error)
    return None


def iterable(value: object, takes: str = "a sequence or another iterable") -> Unfit | None:
    """Accept an iterable."""
    kind = type(value)
    # NumPy's scalars have __getitem__, and arrays without dimensions have __iter__, but both only raise an error.
    is_numpy_number = kind.__module__ == "numpy" and getattr(value, "ndim", 1) == 0
    if (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")) and not is_numpy_number:
        return None
    return Unfit(value, takes, WrongType)


def iterables(values: Iterable[object], takes: str = "sequences or other iterables") -> Unfit | None:
    """Accept several iterables; the error names the first value that is not iterable."""
    if type(values) is not tuple and (unfit := iterable(values, takes)) is not None:
        return unfit
    for value in values:
        if type(value) not in _PLAIN_ITERABLES and (unfit := iterable(value, takes)) is not None:
            return unfit
    return None


def splittable(*values: object) -> Unfit | None:
    """Accept values that can be cut into parts of their own type; the error says how to convert another value."""
    for value in values:
        if instead := refusal(value):
            return Unfit(value, f"a sequence, an array or a table (give {instead})", WrongType)
    return None


def seed(value: object) -> Unfit | None:
    """Accept a seed of random numbers."""
    if value is None or value is True or value is False or (type(value) is int and value >= 0):
        return None
    takes = (
        "a whole number, 0 or more, a list of these, a SeedSequence or Generator of NumPy, True for a new seed, "
        "False or None for no seed"
    )
    kind = type(value)
    if kind.__module__.startswith("numpy.random") and kind.__name__ in ("SeedSequence", "Generator"):
        return None
    if kind in (list, tuple):
        assert isinstance(value, list | tuple)
        unfit = next((unfit for part in value if (unfit := whole(part, at_least=0)) is not None), None)
        return Unfit(value, takes, WrongValue if unfit is None else unfit.error) if unfit or not value else None
    unfit = whole(value, at_least=0)
    return None if unfit is None else Unfit(value, takes, unfit.error)


def instance(value: object, kind: type | tuple[type, ...], takes: str, *, or_none: bool = False) -> Unfit | None:
    """Accept an instance of a class; ``takes`` names the class."""
    if isinstance(value, kind) or (value is None and or_none):
        return None
    return Unfit(value, _or_none(takes, or_none), WrongType)


def _number(
    value: object, at_least: float | None, above: float | None, at_most: float | None, takes: str
) -> Unfit | None:
    """Check a number; without ``at_most`` it may be infinite or NaN."""
    if isinstance(value, bool) or not (isinstance(value, int | float) or _is_numpy_number(value)):
        return Unfit(value, takes, WrongType)
    given = plain(value)  # NumPy cannot compare a float32 with the largest float
    is_nan = given != given
    fits = (is_nan and at_most is None) or (
        not is_nan
        and (at_most is None or abs(given) <= at_most)
        and (at_least is None or given >= at_least)
        and (above is None or given > above)
    )
    return None if fits else Unfit(value, takes, WrongValue)


def _index(value: object) -> int | None:
    """Return ``value`` as an ``int``; None if it is not an integer, or is a truth value."""
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # it has __index__
    except (Exception, SystemExit):  # an array of several numbers, or user code
        return None


def _is_numpy_flag(value: object) -> bool:
    # Compare the names of the class: NumPy need not be imported, and has no classes yet while its import runs.
    kind = type(value)
    return kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_")


def _is_numpy_number(value: object) -> bool:
    kind = type(value)
    return kind.__module__ == "numpy" and any(base.__name__ in ("integer", "floating") for base in kind.__mro__)


def _whole_words(at_least: int | None, or_none: bool) -> str:
    return _or_none("a whole number" + ("" if at_least is None else f", {at_least} or more"), or_none)


def _or_none(takes: str, or_none: bool) -> str:
    return f"{takes}, or None" if or_none else takes
