"""Helpers that users of ipyparallel call."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import FunctionType
from typing import Any, TypeVar

__all__ = [
    "compare_datetimes",
    "disambiguate_ip_address",
    "disambiguate_url",
    "ensure_timezone",
    "int_keys",
    "interactive",
    "utc",
    "utcnow",
]

F = TypeVar("F", bound=Callable[..., Any])

utc = UTC


def interactive(f: F) -> F:
    """Decorate a function so that it sees the names of the engine that calls it, as if it were defined there."""
    if isinstance(f, FunctionType):
        main = __import__("__main__")
        made = FunctionType(f.__code__, main.__dict__, f.__name__, f.__defaults__, f.__closure__)
        made.__kwdefaults__, made.__doc__, made.__dict__ = f.__kwdefaults__, f.__doc__, dict(f.__dict__)
        f = made  # type: ignore[assignment]
    f.__module__ = "__main__"
    return f


def utcnow() -> datetime:
    """Return the current time with its time zone."""
    return datetime.now(UTC)


def ensure_timezone(dt: datetime) -> datetime:
    """Return a time with a time zone; a time without one is taken as local time."""
    return dt if dt.tzinfo is not None else dt.astimezone()


def compare_datetimes(a: datetime, b: datetime) -> Any:
    """Return ``a - b``, with or without time zones."""
    return ensure_timezone(a) - ensure_timezone(b)


def disambiguate_ip_address(ip: str, location: str | None = None) -> str:
    """Return an address to which other machines can connect.

    Args:
        ip: an address, or ``"0.0.0.0"`` or ``"*"`` for all addresses of a machine.
        location: the machine's address, used in place of these two texts; the default is the address of this machine's
            name. If the location is this machine, the address returned is ``"127.0.0.1"``.

    A location without an address is returned as it is, with a RuntimeWarning.
    """
    if ip not in ("0.0.0.0", "*", ""):
        return ip
    if location:
        return "127.0.0.1" if _is_this_machine(location) else location
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:  # the name has no address
        return "127.0.0.1"


def _is_this_machine(location: str) -> bool:
    if location in (socket.gethostname(), "localhost"):
        return True
    try:
        addresses = {entry[4][0] for entry in socket.getaddrinfo(location, None)}
    except OSError:
        text = f"{location!r} has no address that can be found out here: it is used as it is"
        warnings.warn(text, RuntimeWarning, stacklevel=3)
        return False
    try:
        own = {"127.0.0.1", "::1", *(entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None))}
    except OSError:  # the name of this machine has no address
        own = {"127.0.0.1", "::1"}
    return not addresses.isdisjoint(own)


def disambiguate_url(url: str, location: str | None = None) -> str:
    """Return a URL such as ``tcp://*:5555`` with the address that :func:`disambiguate_ip_address` returns."""
    protocol, separator, rest = url.partition("://")
    if protocol != "tcp" or not separator:
        return url
    ip, colon, port = rest.rpartition(":")
    return f"{protocol}://{disambiguate_ip_address(ip, location)}{colon}{port}"


def int_keys(dikt: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a dictionary with keys of digits turned into numbers, since JSON turns number keys into text."""
    return {int(key) if isinstance(key, str) and key.isdigit() else key: value for key, value in dikt.items()}
