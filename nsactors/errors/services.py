"""The errors of services that a cluster hosts.

::

    ServiceError
    ├── ServiceClosed
    ├── ServiceOverloaded
    ├── MemberLost
    └── MeetingFailed
"""

from __future__ import annotations

from collections.abc import Mapping

from nsactors.errors.base import NsactorsError
from nsactors.errors.ranges import engine_ranges

__all__ = ["MeetingFailed", "MemberLost", "ServiceClosed", "ServiceError", "ServiceOverloaded"]


class ServiceError(NsactorsError):
    """A service, or who meets there, cannot do what it was called for."""


class MemberLost(ServiceError):
    """A member of a group has died that others wait for.

    Args:
        rank: of the one that has died.
        what: others wait for, such as ``"recv from 2"``.
    """

    def __init__(self, rank: int, what: str) -> None:
        super().__init__(f"{what}: rank {rank} has died, and with it what it had not sent")
        self.rank = rank
        self.what = what


class MeetingFailed(ServiceError):
    """The members of a group do not do the same together.

    Args:
        what: what this one does, such as ``"barrier"``.
        others: what each of them does, by rank.
    """

    def __init__(self, what: str, others: Mapping[int, str]) -> None:
        ranks: dict[str, list[int]] = {}
        for rank, other in others.items():
            ranks.setdefault(other, []).append(rank)
        told = "; ".join(f"{engine_ranges(of).replace('engine', 'rank')}: {other}" for other, of in ranks.items())
        super().__init__(f"{what}: not all ranks do this now ({told})")
        self.what = what
        self.others = dict(others)


class ServiceClosed(ServiceError):
    """A service has been closed, or its process or its cluster has ended, and what it held is gone.

    Args:
        name: of the service.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"the service {name!r} has ended: make a new one, and pass it to those that used this one")
        self.name = name


class ServiceOverloaded(ServiceError):
    """More calls wait at a service than it has room for.

    Args:
        waiting: how many there may be.
    """

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting:,} calls wait at this service already: let some of them be answered first")
        self.waiting = waiting
