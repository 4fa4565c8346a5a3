"""Hosts, as people list them."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Host", "hosts_from_text"]

_HERE = ("localhost", "127.0.0.1", "::1")
_WORD = r"[^\s,:@\[\]-][^\s,:@\[\]]*"  # ssh takes what begins with a dash for an option
_ITEM = re.compile(rf"(?P<name>(?:{_WORD}@)?(?:{_WORD}|\[[0-9A-Fa-f:.]+\]))(?::(?P<engines>\d+))?")


@dataclass(frozen=True, slots=True)
class Host:
    """A host that engines are to be on.

    Attributes:
        name: as ssh takes it: a name of its configuration, or ``user@host``.
        engines: how many; None for as many as is usual.
    """

    name: str
    engines: int | None = None

    @property
    def is_here(self) -> bool:
        """Whether it is this machine."""
        return self.name in _HERE


def hosts_from_text(text: str) -> list[Host]:
    """Hosts from a list such as ``a,b:4``.

    Raises:
        ValueError: if that is no such list, or a host is in it twice.

    Example:
        >>> hosts_from_text("a, ann@b:4")
        [Host(name='a', engines=None), Host(name='ann@b', engines=4)]
    """
    hosts: list[Host] = []
    for item in text.split(","):
        match = _ITEM.fullmatch(item.strip())
        if match is None:
            raise ValueError(
                f"hosts are listed as in 'a,b:4', with the number of engines behind a colon; {item!r} is none"
            )
        name = re.sub(r"[\[\]]", "", match["name"])
        if name in (host.name for host in hosts):
            raise ValueError(f"the host {name} is listed twice")
        hosts.append(Host(name, int(match["engines"]) if match["engines"] else None))
    return hosts
