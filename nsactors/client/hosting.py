"""What a client does with services of its cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nsactors.core.machine import Machine, Waiting
from nsactors.transport.hosting import Service

if TYPE_CHECKING:
    from nsactors.client.session import Session

__all__ = ["Hosting", "waits_by_engine"]


class Hosting(ABC):
    """State machines that the cluster hosts, which its engines and clients meet at."""

    @property
    @abstractmethod
    def session(self) -> Session:
        """The conversation with the cluster."""

    def host(self, machine: Machine, name: str | None = None) -> Service:
        """Let the cluster host a state machine; engines and clients call it through what this returns.

        The models of parallel computing are built on this: mailboxes, barriers and tuple spaces are such machines. It
        holds what it has been given until it is closed or the cluster ends; it does not outlive its process, which is
        one on the head node.

        Args:
            machine: what answers; it is copied.
            name: if there is a service of this name, that one is returned, and ``machine`` is not used.

        Raises:
            SerializationError: if the machine cannot be pickled.

        Example:
            >>> service = rc.host(Mailboxes(4))
            >>> rc[:].push({"mail": service})
        """
        self.session.check()
        return self.session.transport.services.host(machine, name)


def waits_by_engine(calls: Iterable[Waiting]) -> dict[int, list[str]]:
    """What code on each engine waits for, and for how long, in words; ``since`` is how many seconds ago it began."""
    waits: defaultdict[int, list[str]] = defaultdict(list)
    for (party, _), what, since in calls:
        kind, _, number = party.partition("/")[0].partition(" ")
        if kind == "engine" and number.isdecimal():
            waits[int(number)].append(f"{what} for {since:.0f} s")
    return waits
