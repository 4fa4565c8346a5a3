"""Checks of arguments, before anything is sent, and arguments of ipyparallel that have no effect here.

This package accepts what ipyparallel accepts, which is more than nsactors accepts: a number as a flag, a negative time
limit. Other values are refused with an error that names the argument.
"""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Collection, Sized
from typing import Any

__all__ = [
    "OF_CLIENTS",
    "OF_CLUSTERS",
    "CompatibilityWarning",
    "NoSequence",
    "UnknownDistribution",
    "check_choice",
    "check_distribution",
    "check_flags",
    "check_function",
    "check_seconds",
    "check_sequences",
    "check_whole",
    "warn_once",
]

# Arguments of a client about the connection to its controller.
OF_CLIENTS = ("context", "debug", "ipython_dir", "paramiko", "password", "profile_dir", "sshkey", "sshserver")

# Arguments of a cluster about processes that are not needed here.
OF_CLUSTERS = (
    "config",
    "controller_args",
    "controller_ip",
    "controller_launcher_class",
    "controller_location",
    "delay",
    "engine_timeout",
    "load_profile",
    "log",
    "log_level",
    "parent",
    "profile_config",
    "profile_dir",
    "send_engines_connection_env",
)


def check_flags(call: str, **given: Any) -> None:
    """Check that arguments are True, False or None, or numbers in place of these.

    Raises:
        TypeError: if one is something else, such as text.
    """
    for name, value in given.items():
        is_flag = value is None or isinstance(value, numbers.Real) or type(value).__name__ in ("bool", "bool_")
        if not is_flag or value != value:  # NaN
            raise TypeError(f"{call}() takes {name} as True, False or None, not {value!r}")


def check_seconds(call: str, name: str, value: Any) -> None:
    """Check that an argument is a time limit: a number of seconds, negative or None for no limit.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is NaN.
    """
    if value is None:
        return
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{call}() takes {name} as a number of seconds or None, not {value!r}")
    if math.isnan(value):
        raise ValueError(f"{call}() takes {name} as a number of seconds or None, not NaN")


def check_whole(call: str, name: str, value: Any, *, others: Collection[Any] = ()) -> None:
    """Check that an argument is a whole number from 0 on, or one of ``others``.

    Raises:
        TypeError: if it is not a whole number.
        ValueError: if it is negative.
    """
    if any(value is other or (isinstance(value, str) and value == other) for other in others):
        return
    also = "".join(f" or {other!r}" for other in others)
    if not isinstance(value, numbers.Integral):
        raise TypeError(f"{call}() takes {name} as a whole number{also}, not {value!r}")
    if value < 0:
        raise ValueError(f"{call}() takes {name} from 0 on{also}, not {value!r}")


def check_function(call: str, name: str, value: Any) -> None:
    """Check that an argument can be called.

    Raises:
        TypeError: if it cannot.
    """
    if not callable(value):
        raise TypeError(f"{call}() takes {name} as a function, not {value!r}")


def check_choice(call: str, name: str, value: Any, choices: Collection[Any]) -> None:
    """Check that an argument is one of a few.

    Raises:
        ValueError: if it is none of these.
    """
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        raise ValueError(f"{call}() takes {name} as one of {', '.join(map(repr, choices))}, not {value!r}")


class UnknownDistribution(KeyError, ValueError):
    """There is no way of this name to split a sequence."""

    __str__ = Exception.__str__  # KeyError shows its text as a key, in quotes


def check_distribution(call: str, dist: Any) -> None:
    """Check that an argument names a way to split a sequence.

    Raises:
        UnknownDistribution: if it does not.
    """
    if not isinstance(dist, str) or dist not in ("b", "r"):
        raise UnknownDistribution(
            f"{call}() takes dist as 'b' for contiguous parts, or 'r' to deal items out in turn, not {dist!r}"
        )


class NoSequence(TypeError, AssertionError):
    """A map was called with a function alone."""


def check_sequences(call: str, sequences: Sized) -> None:
    """Check that a map has something to map over.

    Raises:
        NoSequence: if it has not.
    """
    if not len(sequences):
        raise NoSequence(f"{call}() needs at least one sequence, after the function")


class CompatibilityWarning(UserWarning):
    """An argument of ipyparallel has no effect here."""


def warn_once(text: str) -> None:
    """Issue a ``CompatibilityWarning``, which Python shows once for each calling line."""
    warnings.warn(text, CompatibilityWarning, stacklevel=3)
