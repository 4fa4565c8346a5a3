"""What every exception of nsactors is."""

from __future__ import annotations

from typing import Any

__all__ = ["NsactorsError"]


class NsactorsError(Exception):
    """Base of every exception that nsactors raises."""

    def __str__(self) -> str:
        # Past KeyError, whose own __str__ shows the repr of the message.
        return Exception.__str__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own way calls __init__ with args, which here hold the message and not the fields.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[NsactorsError], args: tuple[object, ...], fields: dict[str, object]) -> NsactorsError:
    error = cls.__new__(cls, *args)
    error.args = args  # OSError's __new__ leaves them to __init__
    error.__dict__.update(fields)
    return error
